//! One decision, from classes to bins: settle, pack, step down the ladders with what is left, and learn from what failed.

use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::UsdPerHour;
use rustc_hash::{FxHashMap, FxHashSet};

use super::Solver;
use super::catalog::Catalog;
use super::classes::Class;
use super::finish;
use super::limits::Allowance;
use super::options::SolveOptions;
use super::pack::{self, Bin, Filling};
use super::settle::{Lessons, Piece, Settled, Waiting};

/// Tries of each kind with what earlier ones taught, at most. Lessons are about limits that bind, which is rare.
const TRIES: usize = 5;

/// Further looks at pods that found no company on a machine once all others are placed, and at pods that were kept away by some
/// that got no machine.
const AGAIN: usize = 2;

/// Whether pods that keep others away by a label got no machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Averse {
    Stays,
    GaveUp,
}

/// A piece of which some pods did not get the machines they were promised.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unkept {
    piece: usize,
    /// Whether it was on the last rung of its ladder: those pods are left out.
    is_last: bool,
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
    /// Pieces with domains of which some pods did not get the machines they were promised.
    unkept: Vec<Unkept>,
    /// Whether pods with domains left them again.
    pub(super) moved: bool,
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
        let mut tries = 0;
        // The best outcome that keeps every promise, and what it was made with.
        let mut best: Option<(u64, Lessons)> = None;
        loop {
            let mut outcome = self.attempt(classes, allowance, &lessons, by_priority, options);
            outcome.broken_gangs.clone_from(&lessons.excluded);
            let left: u64 = outcome.left.iter().sum();
            if outcome.limited && left > 0 && priorities && !by_priority {
                // There is not enough for everybody: the most important choose first.
                by_priority = true;
                lessons.forget();
                self.reset();
                continue;
            }
            if let Some(gang) = self.broken_gang(classes, &outcome, &lessons) {
                lessons.excluded.extend(gang);
                lessons.forget();
                self.reset();
                continue;
            }
            let lonely = self.lonely(classes, &outcome);
            let kept =
                outcome.unkept.is_empty() && lonely.is_empty() && !self.is_unbalanced(classes, &outcome);
            if kept && (tries == 0 || left == 0) || lessons.is_final && lonely.is_empty() {
                self.tidy(classes, &mut outcome);
                // Those that had to go may have been of a gang.
                let Some(gang) = self.broken_gang(classes, &outcome, &lessons) else { return outcome };
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
            moved: false,
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
        outcome.moved = !outcome.unkept.is_empty();
        // Pods that went elsewhere in the end broke no promise, unless those that stayed are compared with them.
        let (left, pieces) = (&outcome.left, &outcome.settled.pieces);
        outcome.unkept.retain(|one| {
            let class = pieces[one.piece].class;
            one.is_last || left[class] > 0 && classes[class].rules.spreads()
        });
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
        let mut packing = Packing {
            open: open.clone(),
            left: Vec::new(),
            allowance: outcome.allowance.clone(),
            price: UsdPerHour::ZERO,
            limited: false,
            filling,
        };
        let pieces = &outcome.settled.pieces;
        self.pack_more(classes, pieces, from, &mut packing, options);
        packing.price = finish::price(self, classes, pieces, &outcome.allowance, packing.open.bins());
        packing
    }

    /// Packs the pieces from `from` on, tier by tier, on top of a packing.
    pub(super) fn pack_more(
        &self,
        classes: &[Class<'_>],
        pieces: &[Piece],
        from: usize,
        packing: &mut Packing,
        options: &SolveOptions,
    ) {
        packing.left = pieces[from..].iter().map(|piece| piece.count).collect();
        let tiers = self.catalog.pools.last().map_or(0, |pool| pool.tier + 1);
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
                &self.catalog,
                &demands,
                &mut packing.allowance,
                packing.filling,
                options.min_values,
                &mut packing.open,
            );
            for (demand, rest) in demands.iter().zip(rest) {
                packing.left[demand.piece - from] = rest;
                packing.limited |= rest > 0;
            }
        }
    }

    /// Whether a machine of one tier of pools could hold a pod of a piece.
    fn holds_in(&self, classes: &[Class<'_>], piece: &Piece, tier: usize, tiers: usize) -> bool {
        let requests = &classes[piece.class].requests;
        tiers == 1
            || self.catalog.shapes.iter().zip(piece.masks.iter()).any(|(shape, mask)| {
                shape.tier == tier && *mask != 0 && super::axes::fits(requests, &shape.room)
            })
    }

    pub(super) fn demand(
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
        *open = packing.open;
        outcome.allowance = packing.allowance;
        outcome.limited |= packing.limited;
        self.take_back(classes, from, &packing.left, outcome)
    }

    /// Takes back what is left of the pieces from `from` on; returns what has to step down its ladder.
    pub(super) fn take_back(
        &mut self,
        classes: &[Class<'_>],
        from: usize,
        left: &[u64],
        outcome: &mut Outcome,
    ) -> (Vec<Waiting>, Averse) {
        let mut averse = Averse::Stays;
        let mut waiting: FxHashMap<(usize, usize), u64> = FxHashMap::default();
        for (offset, left) in left.iter().enumerate().filter(|(_, left)| **left > 0) {
            let piece = &mut outcome.settled.pieces[from + offset];
            piece.count -= left;
            let (class, choice) = (piece.class, piece.choice());
            if self.uncount(&classes[class], &choice, *left) {
                averse = Averse::GaveUp;
            }
            let piece = &outcome.settled.pieces[from + offset];
            let rung = piece.rung + 1;
            let steps_down = rung < classes[class].ladder.rungs.len();
            if !piece.pins.is_empty() {
                outcome.unkept.push(Unkept { piece: from + offset, is_last: !steps_down });
            }
            outcome.settled.give_back(class, &choice.pins, *left);
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
        for one in &outcome.unkept {
            let piece = &outcome.settled.pieces[one.piece];
            let kept = outcome.settled.in_cell(piece.class, &piece.pins);
            self.cells.insert((piece.class, piece.pins.clone()), kept);
        }
    }

    /// Fewer pods of the classes of which some did not get a machine.
    fn lower_totals(&mut self, outcome: &Outcome) {
        for one in &outcome.unkept {
            let class = outcome.settled.pieces[one.piece].class;
            self.total.insert(class, outcome.settled.placed_total(class));
        }
    }
}

/// One way to pack.
pub(super) struct Packing {
    pub(super) open: pack::Opened,
    /// Pods left out, by piece.
    pub(super) left: Vec<u64>,
    pub(super) allowance: Allowance,
    pub(super) price: UsdPerHour,
    pub(super) limited: bool,
    pub(super) filling: Filling,
}

impl Packing {
    /// Fewer pods left out first, then cheaper, then fewer machines.
    fn rank(&self) -> (u64, UsdPerHour, usize) {
        (self.left.iter().sum(), self.price, self.open.bins().len())
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
