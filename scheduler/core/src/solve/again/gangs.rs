//! Pods that are placed together: those of a gang, and equal ones that ask nothing of each other.

use assay_shared::labels::kubernetes;

use super::{LOOKS_AT_SHAPES, Look};
use crate::solve::Solver;
use crate::solve::classes::Class;
use crate::solve::run::Outcome;
use crate::solve::settle::{Choice, Lessons, Pins, Waiting};

impl Solver {
    /// Places what is left of some classes outside of `closed` domains, as far as there is room. What they ask of each other may be
    /// broken afterwards.
    pub(super) fn place_together(
        &mut self,
        classes: &[Class<'_>],
        members: &[usize],
        closed: &[Pins],
        look: &mut Look<'_>,
        outcome: &mut Outcome,
    ) {
        let lessons = Lessons { closed: closed.to_vec(), ..Lessons::default() };
        let of_class = |class: &usize| Waiting { class: *class, count: outcome.left[*class], rung: 0 };
        let mut waiting: Vec<Waiting> = members.iter().map(of_class).filter(|one| one.count > 0).collect();
        while !waiting.is_empty() {
            outcome.settled.forget_started();
            let from = outcome.settled.pieces.len();
            self.settle(classes, waiting, &lessons, &mut outcome.settled);
            look.work += LOOKS_AT_SHAPES * self.catalog.shapes.len() as u64;
            self.pack_more(classes, &outcome.settled.pieces, from, &mut look.packing, look.options);
            (waiting, _) = self.take_back(classes, from, &look.packing.left, outcome);
        }
        for class in members {
            outcome.left[*class] = classes[*class].pods.len() as u64 - outcome.settled.placed_total(*class);
        }
    }

    /// Places a gang wholly or not at all: wherever its pods may be, then in one zone after the other.
    pub(super) fn place_gang(
        &mut self,
        classes: &[Class<'_>],
        class: usize,
        look: &mut Look<'_>,
        outcome: &mut Outcome,
    ) -> bool {
        let Some(gang) = classes[class].gang else { return false };
        let of_gang = |one: &usize| {
            let one = &classes[*one];
            one.gang.is_some_and(|other| other.id == gang.id) && !one.ladder.rungs.is_empty()
        };
        let members: Vec<usize> = (0..classes.len()).filter(of_gang).collect();
        if members.first() != Some(&class) {
            // Tried with its first class.
            return false;
        }
        let running = self.bound.of_gang(&gang.id);
        let missing = u64::from(gang.min_member).saturating_sub(running).max(1);
        let mut tries = vec![Vec::new()];
        let mut next = 0;
        while let Some(closed) = tries.get(next).cloned().filter(|_| !look.is_over()) {
            for together in [true, false] {
                let Err(pins) = self.try_gang(classes, &members, missing, (together, &closed), look, outcome)
                else {
                    members.iter().for_each(|member| {
                        outcome.broken_gangs.remove(member);
                    });
                    return true;
                };
                // Its pods were in one zone or another: all of them in the same may do better.
                let zone = pins.iter().find(|(key, _)| self.topology.key_name(*key) == kubernetes::ZONE);
                if let (Some((zone, _)), true) = (zone, tries.len() == 1) {
                    let values: Vec<usize> = self.topology.values(*zone).map(|(value, _)| value).collect();
                    let others = |value: usize| values.iter().filter(move |other| **other != value);
                    let only =
                        |value| others(value).map(|other| Pins::from_slice(&[(*zone, *other)])).collect();
                    tries.extend(values.iter().map(|value| only(*value)));
                }
            }
            next += 1;
        }
        false
    }

    /// Places at least `missing` pods of a gang, together or one by one, or none: then where the last of them was in vain.
    fn try_gang(
        &mut self,
        classes: &[Class<'_>],
        members: &[usize],
        missing: u64,
        (together, closed): (bool, &[Pins]),
        look: &mut Look<'_>,
        outcome: &mut Outcome,
    ) -> Result<(), Pins> {
        let (settled, left, moved) = (outcome.settled.clone(), outcome.left.clone(), outcome.moved);
        let (open, allowance) = (look.packing.open.clone(), look.packing.allowance.clone());
        let failures = look.failures.len();
        look.work += settled.pieces.len() as u64;
        self.step();
        outcome.settled.latest = Choice::default();
        if together {
            self.place_together(classes, members, closed, look, outcome);
            outcome.moved = true;
        }
        let holds = !together || self.holds_together(classes, look, outcome);
        if holds {
            self.place_each(classes, members, closed, look, outcome);
        }
        let placed: u64 = members.iter().map(|member| left[*member] - outcome.left[*member]).sum();
        if holds && placed >= missing {
            self.keep_step();
            return Ok(());
        }
        let pins = outcome.settled.latest.pins.clone();
        self.undo();
        (outcome.settled, outcome.left, outcome.moved) = (settled, left, moved);
        (look.packing.open, look.packing.allowance) = (open, allowance);
        // What had no room beside its own gang may have some now.
        look.failures.truncate(failures);
        Err(pins)
    }

    /// Places pods of some classes one by one until none finds room.
    fn place_each(
        &mut self,
        classes: &[Class<'_>],
        members: &[usize],
        closed: &[Pins],
        look: &mut Look<'_>,
        outcome: &mut Outcome,
    ) {
        let mut moved = true;
        while std::mem::take(&mut moved) {
            for member in members {
                while outcome.left[*member] > 0
                    && self.place_one(classes, *member, closed, look, outcome).is_some()
                {
                    moved = true;
                }
            }
        }
    }

    /// Whether every constraint between pods holds.
    fn holds_together(&self, classes: &[Class<'_>], look: &Look<'_>, outcome: &Outcome) -> bool {
        self.lonely(classes, outcome).is_empty()
            && !self.is_unbalanced(classes, outcome)
            && !self.is_any_alone(classes, &outcome.settled, look.packing.open.bins())
    }
}
