//! A second look at pods that were left out, once all others have their machines.
//!
//! ```text
//! outcome -> tighten (each machine becomes what will be bought; what limits get back)
//!         -> class by class, most important first: one pod, in every domain, on every rung -> join, buy, grow
//!         -> gangs: all of their pods or none -> again, until nothing moves
//! ```
//!
//! What was decided is the state, and nothing of it is taken back: machines that are planned are places with room, pods on them
//! are counted. Costs nothing where nobody is left out. The work is bounded, and equal pods fail once.

mod gangs;
mod one;

use std::sync::Arc;

use assay_shared::units::UsdPerHour;
use rustc_hash::FxHashSet;

use super::Solver;
use super::axes::{Amounts, fits};
use super::classes::Class;
use super::finish;
use super::host::HostRules;
use super::limits::Allowance;
use super::options::SolveOptions;
use super::pack::{Filling, Opened, wanted_variety};
use super::run::{Outcome, Packing};

use super::topology::{ConstraintKind, GroupId};

/// Shapes of machines that are looked at, at most, whatever the number of pods.
const WORK_AT_MOST: u64 = 8_000_000;

/// How often buying looks at each shape, by measurement: it weighs them before it fills some.
const LOOKS_AT_SHAPES: u64 = 8;

/// Failures that later ones are compared with, at most.
const FAILURES_AT_MOST: usize = 64;

/// What a second look carries along.
struct Look<'o> {
    packing: Packing,
    options: &'o SolveOptions,
    /// Groups that some pod must be with.
    company: FxHashSet<GroupId>,
    /// Pods for which there was no machine: no larger one of the same kind will do better.
    failures: Vec<Failure>,
    work: u64,
}

struct Failure {
    masks: Arc<Vec<u64>>,
    host: Arc<HostRules>,
    requests: Amounts,
}

impl Look<'_> {
    fn is_over(&self) -> bool {
        self.work > WORK_AT_MOST
    }

    fn failed_before(&self, masks: &Arc<Vec<u64>>, host: &Arc<HostRules>, requests: &Amounts) -> bool {
        // Company may have come since.
        let same = |one: &&Failure| Arc::ptr_eq(&one.masks, masks) && one.host == *host;
        host.needs.is_empty() && self.failures.iter().filter(same).any(|one| fits(&one.requests, requests))
    }

    /// Whether a class is counted in a group that some pod must be with.
    fn concerns(&self, class: &Class<'_>) -> bool {
        class.rules.counted.iter().chain(&class.host.counted).any(|group| self.company.contains(group))
    }

    fn remember(&mut self, masks: &Arc<Vec<u64>>, host: &Arc<HostRules>, requests: &Amounts) {
        if self.failures.len() < FAILURES_AT_MOST {
            let (masks, host) = (Arc::clone(masks), Arc::clone(host));
            self.failures.push(Failure { masks, host, requests: requests.clone() });
        }
    }
}

impl Solver {
    /// Places what was left out as far as there is room beside what was decided.
    pub(super) fn look_again(
        &mut self,
        classes: &[Class<'_>],
        outcome: &mut Outcome,
        allowance: &Allowance,
        options: &SolveOptions,
    ) {
        let hopeful = |class: &usize| outcome.left[*class] > 0 && !classes[*class].ladder.rungs.is_empty();
        let mut waiting: Vec<usize> = (0..classes.len()).filter(hopeful).collect();
        if waiting.is_empty() {
            return;
        }
        let planned: Vec<(usize, u64)> = outcome.bins.iter().map(|bin| (bin.shape, bin.mask)).collect();
        let open = self.tighten(classes, outcome, allowance);
        let mut look = Look {
            packing: Packing {
                open,
                left: Vec::new(),
                allowance: outcome.allowance.clone(),
                price: UsdPerHour::ZERO,
                limited: outcome.limited,
                filling: Filling::Largest,
            },
            options,
            company: company(classes),
            failures: Vec::new(),
            work: 0,
        };
        loop {
            // Nobody is held to the spread of others once these run.
            look.packing.open.forget_balance();
            self.forget_balance();
            let mut moved = false;
            for class in waiting.iter().copied() {
                if look.is_over() {
                    break;
                }
                moved |= if outcome.broken_gangs.contains(&class) {
                    self.place_gang(classes, class, &mut look, outcome)
                } else {
                    self.place_all(classes, class, &mut look, outcome)
                };
            }
            waiting.retain(|class| outcome.left[*class] > 0);
            if !moved || waiting.is_empty() || look.is_over() {
                break;
            }
            look.failures.clear();
        }
        outcome.limited = look.packing.limited;
        outcome.allowance = look.packing.allowance;
        outcome.bins = look.packing.open.into_bins();
        widen(self, &planned, outcome);
    }

    /// The same for places: only what this decision put there holds others to its spread.
    fn forget_balance(&mut self) {
        for place in self.touched.iter().flat_map(|before| before.places.keys()) {
            self.machines[*place].occupancy.forget_balance();
        }
    }

    /// Makes every machine what will be bought in the end, and gives limits back what it takes less.
    fn tighten(&self, classes: &[Class<'_>], outcome: &mut Outcome, allowance: &Allowance) -> Opened {
        let catalog = &self.catalog;
        outcome.allowance = allowance.clone();
        let mut bins = std::mem::take(&mut outcome.bins);
        let pieces = &outcome.settled.pieces;
        for bin in &mut bins {
            let pool = catalog.shapes[bin.shape].pool;
            // Where a limit also bounds the options, fewer of them might be too few.
            let fixed = bin.reservation.is_some()
                || !wanted_variety(&catalog.pools[pool].pool).is_empty()
                    && !allowance.counts_nodes_only(pool);
            if let Some(cheapest) = finish::cheapest(self, classes, pieces, allowance, bin).filter(|_| !fixed)
            {
                (bin.shape, bin.mask) = cheapest;
            }
            outcome.allowance.buy(pool, &catalog.shapes[bin.shape].instance_type.capacity, 1);
            if let Some(id) = &bin.reservation {
                outcome.allowance.draw(id, 1);
            }
        }
        let mut used: Vec<usize> = bins.iter().flat_map(|bin| &bin.pods).map(|(piece, _)| *piece).collect();
        used.sort_unstable();
        used.dedup();
        let demands = used.into_iter().map(|number| {
            let piece = &pieces[number];
            self.demand(&classes[piece.class], number, piece, 0, piece.count)
        });
        Opened::again(catalog, self.topology.ranks(), bins, demands)
    }

    /// Places pods of a class until one finds no room; whether any did.
    fn place_all(
        &mut self,
        classes: &[Class<'_>],
        class: usize,
        look: &mut Look<'_>,
        outcome: &mut Outcome,
    ) -> bool {
        let before = outcome.left[class];
        let one = &classes[class];
        if before > 1 && one.rules.is_free() && one.host.needs.is_empty() && !look.concerns(one) {
            self.place_together(classes, &[class], &[], look, outcome);
        }
        while outcome.left[class] > 0
            && !look.is_over()
            && self.place_one(classes, class, &[], look, outcome).is_some()
        {}
        outcome.left[class] < before
    }
}

/// Groups that some pod must be with.
fn company(classes: &[Class<'_>]) -> FxHashSet<GroupId> {
    let over_labels = classes.iter().flat_map(|class| &class.rules.hard);
    let over_labels = over_labels.filter(|one| one.kind == ConstraintKind::Affinity).map(|one| one.group);
    let on_machines = classes.iter().flat_map(|class| &class.host.needs).map(|need| need.group);
    over_labels.chain(on_machines).collect()
}

/// Counts machines as large as they were planned where limits still allow it: their claims then list more options.
fn widen(solver: &Solver, planned: &[(usize, u64)], outcome: &mut Outcome) {
    let allowance = &mut outcome.allowance;
    for (bin, before) in outcome.bins.iter_mut().zip(planned) {
        let (now, larger) = (&solver.catalog.shapes[bin.shape], &solver.catalog.shapes[before.0]);
        let (counted, other) = (&now.instance_type.capacity, &larger.instance_type.capacity);
        let wider = bin.shape != before.0 && allowance.may_replace(now.pool, other, counted);
        if wider && allowance.may_become(now.pool, counted, other) {
            allowance.give_back(now.pool, counted);
            allowance.buy(now.pool, other, 1);
            (bin.shape, bin.mask) = *before;
        }
    }
}
