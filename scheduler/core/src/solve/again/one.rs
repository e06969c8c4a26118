//! One pod more.

use std::sync::Arc;

use super::{LOOKS_AT_SHAPES, Look};
use crate::solve::Solver;
use crate::solve::classes::Class;
use crate::solve::host::HostRules;
use crate::solve::pack;
use crate::solve::run::{Outcome, Packing};
use crate::solve::settle::{Lessons, Pins, Waiting};

impl Solver {
    /// Places one more pod of a class outside of `closed` domains; the domains it got. Every rung of its ladder and every domain
    /// is tried before it stays out.
    pub(super) fn place_one(
        &mut self,
        classes: &[Class<'_>],
        number: usize,
        closed: &[Pins],
        look: &mut Look<'_>,
        outcome: &mut Outcome,
    ) -> Option<Pins> {
        let class = &classes[number];
        let mut lessons = Lessons { closed: closed.to_vec(), ..Lessons::default() };
        let mut rung = 0;
        while rung < class.ladder.rungs.len() && !look.is_over() {
            // By now there is room beside company on planned machines too.
            outcome.settled.forget_started();
            let (from, placed) = (outcome.settled.pieces.len(), outcome.settled.placed.len());
            let before =
                look.concerns(class).then(|| (look.packing.open.clone(), look.packing.allowance.clone()));
            self.step();
            let waiting = vec![Waiting { class: number, count: 1, rung }];
            look.work += 1;
            let found = self.settle(classes, waiting, &lessons, &mut outcome.settled).is_empty();
            // One that begins a group is company enough for itself: any machine will do.
            for piece in &mut outcome.settled.pieces[from..] {
                if piece.host.needs.iter().any(|need| need.starts) {
                    let mut host = HostRules::clone(&piece.host);
                    host.needs.retain(|need| !need.starts);
                    piece.host = Arc::new(host);
                }
            }
            let choice = outcome.settled.latest.clone();
            let here = outcome.settled.pieces.get(from).map_or(rung, |piece| piece.rung);
            // What was closed for one rung is open for the next.
            let skipped = !lessons.tried.is_empty() && (!found || here > rung);
            if found
                && !skipped
                && self.machine_for(classes, from, look, outcome)
                && self.keeps_company(classes, number, look, outcome)
            {
                self.keep_step();
                outcome.left[number] -= 1;
                return Some(choice.pins);
            }
            self.undo();
            if found {
                outcome.settled.back_to(from, placed);
                outcome.settled.give_back(number, &choice.pins, 1);
            }
            if let Some(before) = before {
                (look.packing.open, look.packing.allowance) = before;
            }
            match (found, skipped) {
                (_, true) => {
                    lessons.tried.clear();
                    rung += 1;
                }
                (true, false) => {
                    lessons.tried.push(choice);
                    rung = here;
                }
                (false, false) => return None,
            }
        }
        None
    }

    /// Finds a machine for the piece number `from`, where there is one: a pod on a place needs none.
    fn machine_for(
        &self,
        classes: &[Class<'_>],
        from: usize,
        look: &mut Look<'_>,
        outcome: &Outcome,
    ) -> bool {
        let pieces = &outcome.settled.pieces;
        let Some(piece) = pieces.get(from) else { return true };
        let class = &classes[piece.class];
        if look.failed_before(&piece.masks, &piece.host, &class.requests) {
            return false;
        }
        look.work += LOOKS_AT_SHAPES * self.catalog.shapes.len() as u64;
        self.pack_more(classes, pieces, from, &mut look.packing, look.options);
        if look.packing.left.iter().all(|left| *left == 0) {
            return true;
        }
        let bins = look.packing.open.bins().len() as u64;
        look.work += bins * self.catalog.shapes.len() as u64;
        let demand = self.demand(class, from, piece, 0, 1);
        let Packing { open, allowance, .. } = &mut look.packing;
        if pack::grow(&self.catalog, &demand, allowance, look.options.min_values, open) {
            return true;
        }
        look.remember(&piece.masks, &piece.host, &class.requests);
        false
    }

    /// Whether everybody still has the company they must have with one more pod of a class: those that began a group by
    /// themselves have it only while nobody of the group is elsewhere.
    pub(super) fn keeps_company(
        &self,
        classes: &[Class<'_>],
        class: usize,
        look: &Look<'_>,
        outcome: &Outcome,
    ) -> bool {
        !look.concerns(&classes[class])
            || self.lonely(classes, outcome).is_empty()
                && !self.is_any_alone(classes, &outcome.settled, look.packing.open.bins())
    }
}
