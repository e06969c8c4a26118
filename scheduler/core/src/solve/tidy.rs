//! Takes back pods that cannot stay, because others did not get what they were promised: they lack company that they must
//! have, or their domain is out of balance. Who goes may find room elsewhere in the second look.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Solver;
use super::axes::take;
use super::classes::Class;
use super::host::HostRules;
use super::pack::Bin;
use super::run::Outcome;
use super::settle::{Choice, Piece, Pins, Placed, Settled};
use super::topology::{Constraint, ConstraintKind, GroupId};

/// Largest skew, and domains needed.
type Limit = (u32, u32);

/// A domain with more pods of a spread constraint than it allows.
struct Excess {
    /// The least important class with the constraint there.
    class: usize,
    constraint: Constraint,
    value: usize,
    over: u32,
}

impl Solver {
    /// Takes pods back until every constraint of those that stay holds.
    pub(super) fn tidy(&mut self, classes: &[Class<'_>], outcome: &mut Outcome) {
        // Each that goes may have been the company of another, or what it was compared with.
        while self.leave_out_alone(classes, outcome)
            || self.leave_out_lonely(classes, outcome)
            || self.leave_out_unbalanced(classes, outcome)
        {
            outcome.moved = true;
        }
    }

    /// Whether a pod lacks company that it must have, where the machine holds so many pods of a group.
    fn is_alone(&self, host: &HostRules, held: impl Fn(u32) -> u64) -> bool {
        host.needs.iter().any(|need| match host.counted.binary_search(&need.group) {
            Ok(_) => held(need.group) < 2 && held(need.group) < self.counts.anywhere(need.group),
            Err(_) => held(need.group) == 0,
        })
    }

    fn is_alone_at(&self, host: &HostRules, place: usize) -> bool {
        self.is_alone(host, |group| u64::from(self.machines[place].occupancy.count(group)))
    }

    /// Pods of a machine, by piece, that lack company there.
    fn alone_on(&self, classes: &[Class<'_>], pieces: &[Piece], bin: &Bin) -> Option<(usize, u64)> {
        let held = |group: u32| -> u64 {
            let counted = |piece: usize| pieces[piece].host.counted.binary_search(&group).is_ok();
            bin.pods.iter().filter(|(piece, _)| counted(*piece)).map(|(_, count)| count).sum()
        };
        // Company that was only wished for is no reason to go.
        let alone = |piece: usize| self.is_alone(&classes[pieces[piece].class].host, held);
        bin.pods.iter().find(|(piece, _)| alone(*piece)).copied()
    }

    /// Whether a pod lacks company on its machine.
    pub(super) fn is_any_alone(&self, classes: &[Class<'_>], settled: &Settled, bins: &[Bin]) -> bool {
        let at_place = |one: &Placed| self.is_alone_at(&classes[one.class].host, one.place);
        classes.iter().any(|class| !class.host.needs.is_empty())
            && (settled.placed.iter().any(at_place)
                || bins.iter().any(|bin| self.alone_on(classes, &settled.pieces, bin).is_some()))
    }

    /// Takes pods off machines that do not have the company they must have: it got another machine in the end, or came to be
    /// on one when the first of them was on its own already.
    fn leave_out_alone(&mut self, classes: &[Class<'_>], outcome: &mut Outcome) -> bool {
        if classes.iter().all(|class| class.host.needs.is_empty()) {
            return false;
        }
        let mut dropped: Vec<(usize, u64)> = Vec::new();
        for bin in &mut outcome.bins {
            while let Some(one) = self.alone_on(classes, &outcome.settled.pieces, bin) {
                bin.pods.retain(|pod| *pod != one);
                dropped.push(one);
            }
        }
        let is_alone = |one: &Placed| self.is_alone_at(&classes[one.class].host, one.place);
        let (gone, staying): (Vec<Placed>, Vec<Placed>) =
            std::mem::take(&mut outcome.settled.placed).into_iter().partition(is_alone);
        outcome.settled.placed = staying;
        outcome.bins.retain(|bin| !bin.pods.is_empty());
        for (piece, count) in &dropped {
            self.left_machine(classes, outcome, *piece, *count);
        }
        for one in &gone {
            self.left_out(classes, outcome, one.class, &one.choice, one.count);
            self.replay(classes, one.place, &outcome.settled.placed);
        }
        !dropped.is_empty() || !gone.is_empty()
    }

    /// Takes pods out of domains where they do not have the company they must have.
    fn leave_out_lonely(&mut self, classes: &[Class<'_>], outcome: &mut Outcome) -> bool {
        let mut taken = 0;
        for (class, pins) in self.lonely(classes, outcome) {
            taken += self.take_out(classes, outcome, class, u64::MAX, |own| *own == pins);
        }
        taken > 0
    }

    /// Takes pods out of domains that have too many.
    fn leave_out_unbalanced(&mut self, classes: &[Class<'_>], outcome: &mut Outcome) -> bool {
        let Some(excess) = self.excess(classes, outcome) else { return false };
        let group = excess.constraint.group;
        let count = u64::from(excess.over);
        let here = |solver: &Self, pins: &Pins| solver.value_in(pins, group) == Some(excess.value);
        let mine: Vec<Pins> = outcome
            .settled
            .cells_with_pods()
            .filter(|(class, pins)| *class == excess.class && here(self, pins))
            .map(|(_, pins)| pins.clone())
            .collect();
        self.take_out(classes, outcome, excess.class, count, |pins| mine.contains(pins)) > 0
    }

    /// Takes up to `most` pods of a class out of some domains, those on new machines first; how many.
    fn take_out(
        &mut self,
        classes: &[Class<'_>],
        outcome: &mut Outcome,
        class: usize,
        most: u64,
        of: impl Fn(&Pins) -> bool,
    ) -> u64 {
        let mut taken = 0;
        let mut dropped: Vec<(usize, u64)> = Vec::new();
        for bin in outcome.bins.iter_mut().rev() {
            for (piece, held) in &mut bin.pods {
                let one = &outcome.settled.pieces[*piece];
                if taken < most && one.class == class && of(&one.pins) {
                    let count = (*held).min(most - taken);
                    *held -= count;
                    taken += count;
                    dropped.push((*piece, count));
                }
            }
            bin.pods.retain(|(_, held)| *held > 0);
        }
        outcome.bins.retain(|bin| !bin.pods.is_empty());
        for (piece, count) in dropped {
            self.left_machine(classes, outcome, piece, count);
        }
        let mut gone: Vec<Placed> = Vec::new();
        for one in outcome.settled.placed.iter_mut().rev() {
            if taken < most && one.class == class && of(&one.choice.pins) {
                let count = one.count.min(most - taken);
                one.count -= count;
                taken += count;
                gone.push(Placed { count, ..one.clone() });
            }
        }
        outcome.settled.placed.retain(|one| one.count > 0);
        for one in gone {
            self.left_out(classes, outcome, one.class, &one.choice, one.count);
            self.replay(classes, one.place, &outcome.settled.placed);
        }
        taken
    }

    fn left_machine(&mut self, classes: &[Class<'_>], outcome: &mut Outcome, piece: usize, count: u64) {
        let piece = &mut outcome.settled.pieces[piece];
        piece.count -= count;
        let (class, choice) = (piece.class, piece.choice());
        self.left_out(classes, outcome, class, &choice, count);
    }

    fn left_out(
        &mut self,
        classes: &[Class<'_>],
        outcome: &mut Outcome,
        class: usize,
        choice: &Choice,
        count: u64,
    ) {
        self.uncount(&classes[class], choice, count);
        outcome.settled.give_back(class, &choice.pins, count);
        outcome.left[class] += count;
    }

    /// Makes a place what it was before this decision, with what is still put there.
    fn replay(&mut self, classes: &[Class<'_>], place: usize, placed: &[Placed]) {
        let before = self.touched.first().and_then(|before| before.places.get(&place));
        let Some(before) = before.cloned() else { return };
        let one = &mut self.machines[place];
        (one.room, one.occupancy, one.numa) = before;
        for Placed { class, count, .. } in placed.iter().filter(|placed| placed.place == place) {
            let class = &classes[*class];
            for axis in one.occupancy.volumes_to_attach(&class.host).collect::<SmallVec<[u16; 2]>>() {
                let room = &mut one.room[usize::from(axis)];
                *room = room.saturating_sub(1);
            }
            take(&mut one.room, &class.requests, *count);
            one.occupancy.add(&class.host, *count);
            one.align(&class.spec.aligned, *count);
        }
    }

    /// Classes, by domain, that must be with pods that did not get a machine there after all.
    pub(super) fn lonely(&self, classes: &[Class<'_>], outcome: &Outcome) -> Vec<(usize, Pins)> {
        let needs =
            |class: &Class<'_>| class.rules.hard.iter().any(|one| one.kind == ConstraintKind::Affinity);
        if !classes.iter().any(needs) {
            return Vec::new();
        }
        let with_pods = outcome.settled.cells_with_pods().filter(|(class, _)| needs(&classes[*class]));
        let mut lonely: Vec<(usize, Pins)> = with_pods
            .filter(|(class, pins)| {
                let class = &classes[*class];
                let affinity = class.rules.hard.iter().filter(|one| one.kind == ConstraintKind::Affinity);
                !affinity.copied().all(|constraint| {
                    let Some(value) = self.value_in(pins, constraint.group) else { return false };
                    let here = self.counts.pods(constraint.group, value);
                    let itself = u32::from(class.is_counted(constraint.group));
                    here > itself || itself > 0 && u64::from(here) == self.counts.anywhere(constraint.group)
                })
            })
            .map(|(class, pins)| (class, pins.clone()))
            .collect();
        lonely.sort_unstable();
        lonely
    }

    /// Whether pods that left their domains again left others out of balance.
    pub(super) fn is_unbalanced(&self, classes: &[Class<'_>], outcome: &Outcome) -> bool {
        self.excess(classes, outcome).is_some()
    }

    /// A domain that is over what a spread constraint of its pods allows: those with the constraint and those that run count there,
    /// everybody counts in the emptiest.
    fn excess(&self, classes: &[Class<'_>], outcome: &Outcome) -> Option<Excess> {
        if !outcome.moved || !classes.iter().any(|class| class.rules.spreads()) {
            return None;
        }
        let settled = &outcome.settled;
        let of_pieces = settled.pieces.iter().map(|piece| (piece.class, piece.choice(), piece.count));
        let of_places = settled.placed.iter().map(|one| (one.class, one.choice.clone(), one.count));
        let mut planned: FxHashMap<(GroupId, usize), u64> = FxHashMap::default();
        // With the constraint: how many, and the least important class.
        let mut own: FxHashMap<(GroupId, Limit, usize), (u64, usize)> = FxHashMap::default();
        for (class, choice, count) in of_pieces.chain(of_places).filter(|(.., count)| *count > 0) {
            for (group, value) in choice.counted.iter() {
                if let Some(value) = value {
                    *planned.entry((*group, *value)).or_default() += count;
                }
            }
            for constraint in &classes[class].rules.hard {
                let ConstraintKind::Spread { max_skew, min_domains } = constraint.kind else { continue };
                let Some(value) = self.value_in(&choice.pins, constraint.group) else { continue };
                let counted = choice.counted.contains(&(constraint.group, Some(value)));
                let entry =
                    own.entry((constraint.group, (max_skew, min_domains), value)).or_insert((0, class));
                entry.0 += if counted { count } else { 0 };
                entry.1 = entry.1.max(class);
            }
        }
        let over = own.into_iter().filter_map(|((group, (max_skew, min_domains), value), (count, class))| {
            let all = u64::from(self.counts.pods(group, value));
            let others = planned.get(&(group, value)).copied().unwrap_or(0) - count;
            let here = u32::try_from(all.saturating_sub(others)).unwrap_or(u32::MAX);
            let over = self.counts.excess(group, value, here, (max_skew, min_domains));
            let kind = ConstraintKind::Spread { max_skew, min_domains };
            let constraint = Constraint { group, kind };
            (over > 0).then_some((
                (class, group, max_skew, min_domains, value),
                Excess { class, constraint, value, over },
            ))
        });
        over.max_by_key(|(order, _)| *order).map(|(_, excess)| excess)
    }
}
