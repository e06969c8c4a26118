//! One decision, from classes to bins: settle, pack, step down the ladders with what is left, and learn from what failed.

use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::UsdPerHour;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use super::Solver;
use super::axes::take;
use super::catalog::Catalog;
use super::classes::Class;
use super::finish;
use super::host::HostRules;
use super::limits::Allowance;
use super::options::SolveOptions;
use super::pack::{self, Bin, Filling};
use super::settle::{Lessons, Piece, Pins, Settled, Waiting};
use super::topology::{ConstraintKind, Domain};

/// Tries of each kind with what earlier ones taught, at most. Lessons are about limits that bind, which is rare.
const TRIES: usize = 5;

/// Further looks at pods that found no company on a machine once all others are placed, and at pods that were kept away by some
/// that got no machine.
const AGAIN: usize = 2;

/// Whether pods that keep others away by a label got no machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Averse {
    Stays,
    GaveUp,
}

/// Where everything went.
#[derive(Debug, Clone)]
pub(super) struct Outcome {
    pub(super) settled: Settled,
    pub(super) bins: Vec<Bin>,
    pub(super) allowance: Allowance,
    /// Pods left out, by class.
    pub(super) left: Vec<u64>,
    /// Whether a limit kept some pods off the machines they were meant for.
    pub(super) limited: bool,
    /// Gangs that were left out because not enough of their pods could be placed, by class.
    pub(super) broken_gangs: FxHashSet<usize>,
    /// Pods of pieces with domains that did not get the machines they were promised.
    unkept: Vec<(usize, u64)>,
}

impl Solver {
    /// Places all classes. Changes the state of the solver to what it is once the outcome is carried out.
    pub(super) fn run(
        &mut self,
        classes: &[Class<'_>],
        allowance: &Allowance,
        options: &SolveOptions,
    ) -> Outcome {
        self.mark();
        let mut lessons = Lessons::default();
        let mut by_priority = false;
        let priorities = classes.iter().any(|class| class.priority != classes[0].priority);
        let mut gangs_out = FxHashSet::default();
        let mut tries = 0;
        // The best outcome that keeps every promise, and what it was made with.
        let mut best: Option<(u64, Lessons)> = None;
        loop {
            let mut outcome = self.attempt(classes, allowance, &lessons, by_priority, options);
            outcome.broken_gangs.clone_from(&gangs_out);
            let left: u64 = outcome.left.iter().sum();
            if outcome.limited && left > 0 && priorities && !by_priority {
                // There is not enough for everybody: the most important choose first.
                by_priority = true;
                lessons.forget();
                self.reset();
                continue;
            }
            if let Some(gang) = self.broken_gang(classes, &outcome, &lessons) {
                gangs_out.extend(gang.iter().copied());
                lessons.excluded.extend(gang);
                lessons.forget();
                self.reset();
                continue;
            }
            if lessons.is_final {
                self.prune(&mut outcome);
            }
            let lonely = self.lonely(classes, &outcome);
            let kept = outcome.unkept.is_empty() && lonely.is_empty();
            if kept && (tries == 0 || left == 0 || lessons.is_final) {
                self.leave_out_alone(classes, &mut outcome);
                // Those that had to go may have been of a gang.
                let Some(gang) = self.broken_gang(classes, &outcome, &lessons) else { return outcome };
                gangs_out.extend(gang.iter().copied());
                lessons.excluded.extend(gang);
                self.reset();
                continue;
            }
            if kept && best.as_ref().is_none_or(|(least, _)| left < *least) {
                best = Some((left, lessons.clone()));
            }
            tries += 1;
            self.reset();
            if lessons.is_final {
                // Each time there are fewer domains to be alone in.
                lessons.cells.extend(lonely.into_iter().map(|cell| (cell, 0)));
                continue;
            }
            // First with domains closed that had no room, then with fewer pods, then with whichever left out least.
            match tries {
                _ if kept && tries < TRIES => {
                    tries = TRIES;
                    lessons.forget();
                }
                _ if tries < TRIES => {
                    lessons.close_domains(&outcome);
                    lessons.cells.extend(lonely.into_iter().map(|cell| (cell, 0)));
                }
                TRIES => lessons.forget(),
                _ if tries < 2 * TRIES && !kept => {
                    lessons.lower_totals(&outcome);
                    lessons.cells.extend(lonely.into_iter().map(|cell| (cell, 0)));
                }
                _ => {
                    if let Some((_, best)) = &best {
                        lessons = best.clone();
                    }
                    lessons.is_final = true;
                }
            }
        }
    }

    fn attempt(
        &mut self,
        classes: &[Class<'_>],
        allowance: &Allowance,
        lessons: &Lessons,
        by_priority: bool,
        options: &SolveOptions,
    ) -> Outcome {
        let mut outcome = Outcome {
            settled: Settled::default(),
            bins: Vec::new(),
            allowance: allowance.clone(),
            left: vec![0; classes.len()],
            limited: false,
            broken_gangs: FxHashSet::default(),
            unkept: Vec::new(),
        };
        let mut open = pack::Opened::new(self.topology.ranks());
        let mut filling: Option<Filling> = None;
        let mut first = 0;
        // Pods that wait for less important ones: they are looked at again with those.
        let mut later: Vec<Waiting> = Vec::new();
        let (mut again, mut looks) = (AGAIN, AGAIN);
        while first < classes.len() || again > 0 {
            if first == classes.len() {
                again -= 1;
                later = self.without_company(classes, lessons, &outcome.settled);
                if later.is_empty() {
                    break;
                }
            }
            // Classes are sorted by priority.
            let same = |class: &&Class<'_>| !by_priority || class.priority == classes[first].priority;
            // None once all had their turn.
            let band = classes[first..].iter().take_while(same).count();
            let mut waiting: Vec<Waiting> = (first..first + band)
                .map(|class| Waiting { class, count: classes[class].pods.len() as u64, rung: 0 })
                .collect();
            first += band;
            waiting.splice(0..0, later.drain(..));
            while !waiting.is_empty() {
                let from = outcome.settled.pieces.len();
                let rest = self.settle(classes, waiting, lessons, &mut outcome.settled);
                later.extend(rest.into_iter().map(|one| Waiting { rung: 0, ..one }));
                if outcome.settled.pieces.len() == from {
                    break;
                }
                let choices = match filling {
                    Some(chosen) => vec![chosen],
                    None => {
                        let pieces = outcome.settled.pieces.len() - from;
                        Filling::ALL.into_iter().take(attempts(options, pieces)).collect()
                    }
                };
                let mut best: Option<Packing> = None;
                for filling in choices {
                    let packing = self.pack(classes, &outcome, from, &open, filling, options);
                    if best.as_ref().is_none_or(|best| packing.rank() < best.rank()) {
                        best = Some(packing);
                    }
                }
                let Some(best) = best else { break };
                filling = Some(best.filling);
                let stepping;
                (waiting, stepping) = self.keep(classes, best, from, &mut open, &mut outcome);
                // Who was kept away by pods that got no machine after all has another look.
                if stepping == Averse::GaveUp && looks > 0 {
                    looks -= 1;
                    waiting.append(&mut later);
                }
            }
        }
        outcome.bins = open.into_bins();
        // Excluded classes are never settled.
        for class in &lessons.excluded {
            outcome.left[*class] = classes[*class].pods.len() as u64;
        }
        for (class, left) in outcome.left.iter_mut().enumerate() {
            let placed = outcome.settled.placed_total(class);
            *left = classes[class].pods.len() as u64 - placed;
        }
        outcome
    }

    /// Pods left out that must be with others on a machine and are free otherwise: by now there may be one with room.
    fn without_company(&self, classes: &[Class<'_>], lessons: &Lessons, settled: &Settled) -> Vec<Waiting> {
        let waits = |(number, class): (usize, &Class<'_>)| {
            let count = class.pods.len() as u64 - settled.placed_total(number);
            let free = class.rules.hard.is_empty() && class.rules.counted.is_empty();
            let needs = !class.host.needs.is_empty() && !lessons.excluded.contains(&number);
            (count > 0 && free && needs).then_some(Waiting { class: number, count, rung: 0 })
        };
        classes.iter().enumerate().filter_map(waits).collect()
    }

    /// Packs the pieces from `from` on, tier by tier, on top of what is open.
    fn pack(
        &self,
        classes: &[Class<'_>],
        outcome: &Outcome,
        from: usize,
        open: &pack::Opened,
        filling: Filling,
        options: &SolveOptions,
    ) -> Packing {
        let catalog = &self.catalog;
        let pieces = &outcome.settled.pieces;
        let mut packing = Packing {
            open: open.clone(),
            left: pieces[from..].iter().map(|piece| piece.count).collect(),
            allowance: outcome.allowance.clone(),
            price: UsdPerHour::ZERO,
            limited: false,
            filling,
        };
        let tiers = catalog.pools.last().map_or(0, |pool| pool.tier + 1);
        for tier in 0..tiers {
            let demands: Vec<pack::Demand> = pieces[from..]
                .iter()
                .zip(&packing.left)
                .enumerate()
                .filter(|(_, (piece, left))| **left > 0 && self.holds_in(classes, piece, tier, tiers))
                .map(|(index, (piece, left))| {
                    self.demand(&classes[piece.class], from + index, piece, tier, *left)
                })
                .collect();
            if demands.is_empty() {
                continue;
            }
            let rest = pack::pack(
                catalog,
                &demands,
                &mut packing.allowance,
                filling,
                options.min_values,
                &mut packing.open,
            );
            for (demand, rest) in demands.iter().zip(rest) {
                packing.left[demand.piece - from] = rest;
                packing.limited |= rest > 0;
            }
        }
        packing.price = finish::price(self, classes, pieces, &outcome.allowance, packing.open.bins());
        packing
    }

    /// Whether a machine of one tier of pools could hold a pod of a piece.
    fn holds_in(&self, classes: &[Class<'_>], piece: &Piece, tier: usize, tiers: usize) -> bool {
        let requests = &classes[piece.class].requests;
        tiers == 1
            || self.catalog.shapes.iter().zip(piece.masks.iter()).any(|(shape, mask)| {
                shape.tier == tier && *mask != 0 && super::axes::fits(requests, &shape.room)
            })
    }

    fn demand(
        &self,
        class: &Class<'_>,
        number: usize,
        piece: &Piece,
        tier: usize,
        left: u64,
    ) -> pack::Demand {
        pack::Demand {
            piece: number,
            tier,
            requests: class.requests.clone(),
            masks: Arc::clone(&piece.masks),
            requirements: Arc::clone(&piece.requirements),
            loose: is_loose(&self.catalog, piece),
            host: Arc::clone(&piece.host),
            aligned: class.spec.aligned.as_slice().into(),
            count: left,
        }
    }

    /// Takes a packing over; returns what has to step down its ladder.
    fn keep(
        &mut self,
        classes: &[Class<'_>],
        packing: Packing,
        from: usize,
        open: &mut pack::Opened,
        outcome: &mut Outcome,
    ) -> (Vec<Waiting>, Averse) {
        let mut averse = Averse::Stays;
        *open = packing.open;
        outcome.allowance = packing.allowance;
        outcome.limited |= packing.limited;
        let mut waiting: FxHashMap<(usize, usize), u64> = FxHashMap::default();
        for (offset, left) in packing.left.iter().enumerate().filter(|(_, left)| **left > 0) {
            let piece = &mut outcome.settled.pieces[from + offset];
            piece.count -= left;
            let count = u32::try_from(*left).unwrap_or(u32::MAX);
            for (group, value) in piece.counted.iter() {
                self.counts.remove(*group, *value, count);
            }
            let class = piece.class;
            for constraint in
                classes[class].rules.hard.iter().filter(|one| one.kind == ConstraintKind::AntiAffinity)
            {
                let Domain::Label(key) = self.topology.domain(constraint.group) else { continue };
                if let Some((_, value)) = piece.pins.iter().find(|(one, _)| *one == key) {
                    self.counts.remove_averse(constraint.group, *value, count);
                    averse = Averse::GaveUp;
                }
            }
            let rung = piece.rung + 1;
            let steps_down = rung < classes[class].ladder.rungs.len();
            if !piece.pins.is_empty() && !steps_down {
                outcome.unkept.push((from + offset, *left));
            }
            let pins = piece.pins.clone();
            outcome.settled.give_back(class, &pins, *left);
            if steps_down {
                *waiting.entry((class, rung)).or_default() += left;
            }
        }
        let mut waiting: Vec<Waiting> =
            waiting.into_iter().map(|((class, rung), count)| Waiting { class, count, rung }).collect();
        waiting.sort_unstable_by_key(|one| (one.class, one.rung));
        (waiting, averse)
    }

    /// Classes of a gang of which too few pods were placed; the least important gang first, then the last by name.
    fn broken_gang(&self, classes: &[Class<'_>], outcome: &Outcome, lessons: &Lessons) -> Option<Vec<usize>> {
        let mut gangs: FxHashMap<&str, (i32, u64, u64, Vec<usize>)> = FxHashMap::default();
        for (index, class) in classes.iter().enumerate() {
            let Some(gang) = class.gang.filter(|_| !lessons.excluded.contains(&index)) else { continue };
            let entry = gangs
                .entry(&gang.id)
                .or_insert_with(|| (class.priority, u64::from(gang.min_member), 0, Vec::new()));
            entry.0 = entry.0.min(class.priority);
            entry.2 += class.pods.len() as u64 - outcome.left[index];
            entry.3.push(index);
        }
        let running = |id: &str| self.bound.of_gang(id);
        gangs
            .into_iter()
            .filter(|(id, (_, needed, placed, _))| placed + running(id) < *needed)
            .min_by_key(|(id, (priority, ..))| (*priority, std::cmp::Reverse(*id)))
            .map(|(_, (.., members))| members)
    }

    /// Takes pods whose domains turned out to be out of balance back, until every constraint holds.
    fn prune(&mut self, outcome: &mut Outcome) {
        let affected: FxHashSet<usize> =
            outcome.unkept.iter().map(|(piece, _)| outcome.settled.pieces[*piece].class).collect();
        for class in affected {
            // Only what was bought for them: room that exists was checked pod by pod as it was used.
            for piece in outcome.settled.pieces.iter().filter(|piece| piece.class == class) {
                let count = u32::try_from(piece.count).unwrap_or(u32::MAX);
                for (group, value) in piece.counted.iter() {
                    self.counts.remove(*group, *value, count);
                }
            }
            outcome.take_back(class);
        }
        outcome.unkept.clear();
    }

    /// Takes pods off machines that do not have the company they must have: it got another machine in the end, or came to be
    /// on one when the first of them was on its own already.
    fn leave_out_alone(&mut self, classes: &[Class<'_>], outcome: &mut Outcome) {
        if classes.iter().any(|class| !class.host.needs.is_empty()) {
            // Each that goes may have been the company of another.
            while self.leave_out_some_alone(classes, outcome) {}
        }
    }

    fn leave_out_some_alone(&mut self, classes: &[Class<'_>], outcome: &mut Outcome) -> bool {
        let counts = &self.counts;
        // `held` is how many pods of a group are on the machine.
        let is_alone = |host: &HostRules, held: &dyn Fn(u32) -> u64| {
            host.needs.iter().any(|need| match host.counted.binary_search(&need.group) {
                Ok(_) => held(need.group) < 2 && held(need.group) < counts.anywhere(need.group),
                Err(_) => held(need.group) == 0,
            })
        };
        let pieces = &outcome.settled.pieces;
        let mut dropped: Vec<(usize, u64)> = Vec::new();
        for bin in &mut outcome.bins {
            loop {
                let held = |group: u32| -> u64 {
                    let counted = |piece: usize| pieces[piece].host.counted.binary_search(&group).is_ok();
                    bin.pods.iter().filter(|(piece, _)| counted(*piece)).map(|(_, count)| count).sum()
                };
                let alone = bin.pods.iter().find(|(piece, _)| is_alone(&pieces[*piece].host, &held)).copied();
                let Some(one) = alone else { break };
                bin.pods.retain(|pod| *pod != one);
                dropped.push(one);
            }
        }
        let mut from_places: Vec<(usize, usize, u64)> = Vec::new();
        for (place, class, count) in &outcome.settled.placed {
            let held = |group: u32| u64::from(self.machines[*place].occupancy.count(group));
            if is_alone(&classes[*class].host, &held) {
                from_places.push((*place, *class, *count));
            }
        }
        outcome.bins.retain(|bin| !bin.pods.is_empty());
        let any = !dropped.is_empty() || !from_places.is_empty();
        for (piece, count) in dropped {
            let piece = &mut outcome.settled.pieces[piece];
            piece.count -= count;
            for (group, value) in piece.counted.iter() {
                self.counts.remove(*group, *value, u32::try_from(count).unwrap_or(u32::MAX));
            }
            let (class, pins) = (piece.class, piece.pins.clone());
            outcome.settled.give_back(class, &pins, count);
            outcome.left[class] += count;
        }
        for one in from_places {
            outcome.settled.placed.retain(|placed| *placed != one);
            let (place, class, count) = one;
            outcome.settled.give_back(class, &Pins::new(), count);
            outcome.left[class] += count;
            for group in &classes[class].host.counted {
                self.counts.remove(*group, None, u32::try_from(count).unwrap_or(u32::MAX));
            }
            self.replay(classes, place, &outcome.settled.placed);
        }
        any
    }

    /// Makes a place what it was before this decision, with what is still put there.
    fn replay(&mut self, classes: &[Class<'_>], place: usize, placed: &[(usize, usize, u64)]) {
        let Some((room, occupancy)) = self.touched.get(&place).cloned() else { return };
        let one = &mut self.machines[place];
        (one.room, one.occupancy) = (room, occupancy);
        for (_, class, count) in placed.iter().filter(|(at, ..)| *at == place) {
            let class = &classes[*class];
            for axis in one.occupancy.volumes_to_attach(&class.host).collect::<SmallVec<[u16; 2]>>() {
                let room = &mut one.room[usize::from(axis)];
                *room = room.saturating_sub(1);
            }
            take(&mut one.room, &class.requests, *count);
            one.occupancy.add(&class.host, *count);
        }
    }

    /// Classes, by domain, that must be with pods that did not get a machine there after all.
    fn lonely(&self, classes: &[Class<'_>], outcome: &Outcome) -> Vec<(usize, Pins)> {
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
}

/// Packings to try for so many pieces: work grows with pieces, not with pods.
fn attempts(options: &SolveOptions, pieces: usize) -> usize {
    let affordable = match pieces {
        0..500 => 4,
        500..1_500 => 2,
        _ => 1,
    };
    options.attempts.clamp(1, affordable)
}

impl Lessons {
    fn forget(&mut self) {
        self.total.clear();
        self.cells.clear();
    }

    /// Fewer pods in the domains that did not get the machines they were promised.
    fn close_domains(&mut self, outcome: &Outcome) {
        for (piece, _) in &outcome.unkept {
            let piece = &outcome.settled.pieces[*piece];
            let kept = outcome.settled.in_cell(piece.class, &piece.pins);
            self.cells.insert((piece.class, piece.pins.clone()), kept);
        }
    }

    /// Fewer pods of the classes of which some did not get a machine.
    fn lower_totals(&mut self, outcome: &Outcome) {
        for (piece, _) in &outcome.unkept {
            let class = outcome.settled.pieces[*piece].class;
            self.total.insert(class, outcome.settled.placed_total(class));
        }
    }
}

/// One way to pack.
struct Packing {
    open: pack::Opened,
    /// Pods left out, by piece.
    left: Vec<u64>,
    allowance: Allowance,
    price: UsdPerHour,
    limited: bool,
    filling: Filling,
}

impl Packing {
    /// Fewer pods left out first, then cheaper, then fewer machines.
    fn rank(&self) -> (u64, UsdPerHour, usize) {
        (self.left.iter().sum(), self.price, self.open.bins().len())
    }
}

impl Outcome {
    fn take_back(&mut self, class: usize) {
        let mine: FxHashSet<usize> = (0..self.settled.pieces.len())
            .filter(|piece| self.settled.pieces[*piece].class == class)
            .collect();
        for bin in &mut self.bins {
            bin.pods.retain(|(piece, _)| !mine.contains(piece));
        }
        self.bins.retain(|bin| !bin.pods.is_empty());
        for piece in mine {
            let piece = &mut self.settled.pieces[piece];
            let (pins, count) = (piece.pins.clone(), std::mem::take(&mut piece.count));
            self.settled.give_back(class, &pins, count);
            self.left[class] += count;
        }
    }
}

/// Whether pods of a piece ask for a label that a machine could get more than one value of: then pods must agree.
fn is_loose(catalog: &Catalog, piece: &Piece) -> bool {
    let by_offering = [kubernetes::ZONE, karpenter::CAPACITY_TYPE];
    piece.requirements.iter().filter(|(key, _)| !by_offering.contains(key)).any(|(key, _)| {
        let usable = catalog.shapes.iter().zip(piece.masks.iter()).filter(|(_, mask)| **mask != 0);
        // A label nobody defines is either absent for certain, or well known and anything.
        usable.into_iter().any(|(shape, _)| {
            shape
                .offered
                .get(key)
                .map_or_else(|| crate::requirement::is_well_known(key), |set| !set.is_decided())
        })
    })
}
