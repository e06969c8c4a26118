//! Packs pieces into new machines.
//!
//! ```text
//! demands -> kinds (interchangeable for filling) -> join (room in machines of earlier calls)
//!         -> seeds (machines that a group starts on, or that followers need) -> reserved -> buy, bin by bin -> dissolve
//! ```
//!
//! The dual prices of what is left say what each pod is worth. Machines on offer are filled in thought; the one that gives most
//! worth for its price is bought, as many times as the same filling repeats; then again. Price per worth cannot fall below one
//! (dual feasibility), so candidates are looked at best bound first and few are ever filled. Limits on how many pods of a group
//! may share a machine are axes like CPU: the dual then knows that so many machines are needed anyway, and how large they should be.

mod dissolve;
mod fill;
mod grow;
mod join;
mod kinds;
mod machine;
mod seeds;
mod sure;
mod variety;

use std::sync::Arc;

use assay_shared::units::UsdPerHour;
use rustc_hash::{FxHashMap, FxHashSet};

use self::fill::Filled;
pub(super) use self::grow::grow;
use self::kinds::{Kinds, Wide};
pub(super) use self::machine::{Bin, Opened};
pub(super) use self::sure::sure;
pub(super) use self::variety::{add_values, enough_variety, wanted_variety};
use super::MinValues;
use super::axes::{Amounts, fits, real};
use super::bound::{Column, dual_prices};
use super::catalog::{Catalog, Shape};
use super::host::HostRules;
use super::limits::Allowance;
use crate::model::AlignedRequest;
use crate::requirement::Requirements;

/// Pods of one piece in one tier of pools.
#[derive(Debug, Clone)]
pub(super) struct Demand {
    /// Number of the piece.
    pub(super) piece: usize,
    pub(super) tier: usize,
    pub(super) requests: Amounts,
    /// Allowed offerings by shape.
    pub(super) masks: Arc<Vec<u64>>,
    pub(super) requirements: Arc<Requirements>,
    /// Whether they ask for a label that a machine could get more than one value of: then pods must agree.
    pub(super) loose: bool,
    /// What they ask of the other pods on their machine.
    pub(super) host: Arc<HostRules>,
    /// What each of its containers must get from one NUMA node.
    pub(super) aligned: Arc<[AlignedRequest]>,
    pub(super) count: u64,
}

/// How a bin is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filling {
    /// Next the pod that points most where room is left, each resource weighed by its dual price.
    DualDirection,
    /// The same, resources weighed alike.
    Direction,
    /// The dearest pods first.
    Dearest,
    /// The pods whose largest share of the machine is largest first.
    Largest,
}

impl Filling {
    /// All of them; where only some are tried, the first.
    pub(super) const ALL: [Self; 4] = [Self::Largest, Self::DualDirection, Self::Direction, Self::Dearest];
}

/// A shape at a price: the offerings that cost no more. Reserved offerings stand alone.
#[derive(Debug)]
struct Candidate {
    shape: usize,
    mask: u64,
    price: UsdPerHour,
    reservation: Option<Arc<str>>,
}

/// Candidates filled for one decision, at most: the bounds are in order, so later ones rarely win.
const FILLED_AT_MOST: usize = 24;

/// With more pods than this, only the best few candidates of each pricing are filled again for every machine.
const MANY_PODS: u64 = 2_000;

/// Candidates that stay in use between two pricings when there are many pods.
const SHORT_LIST: usize = 4;

struct Packer<'a> {
    catalog: &'a Catalog,
    demands: &'a [Demand],
    kinds: Kinds,
    /// Pods left, by demand.
    left: Vec<u64>,
    filling: Filling,
    min_values: MinValues,
    /// Dual price by axis of [`Kinds`], and what one pod of each kind is worth.
    prices: Vec<f64>,
    worth: Vec<f64>,
    /// Kinds of which something was left when prices were last set, the dearest first.
    active: Vec<usize>,
    /// The most that machines should have where rules force how many there are, by axis; else empty.
    moderate: Vec<u64>,
    /// Whether machines of moderate size hold none of what is left, so that any size will do.
    any_size: bool,
    allowance: &'a mut Allowance,
    opened: &'a mut Opened,
}

/// Packs `demands`, all of one tier; counts what it buys in `allowance` and adds it to `opened`. Returns what is left of each.
pub(super) fn pack(
    catalog: &Catalog,
    demands: &[Demand],
    allowance: &mut Allowance,
    filling: Filling,
    min_values: MinValues,
    opened: &mut Opened,
) -> Vec<u64> {
    let mut packer = Packer {
        catalog,
        demands,
        kinds: Kinds::of(catalog, demands, &opened.ranks),
        left: demands.iter().map(|demand| demand.count).collect(),
        filling,
        min_values,
        prices: Vec::new(),
        worth: Vec::new(),
        active: Vec::new(),
        moderate: Vec::new(),
        any_size: false,
        allowance,
        opened,
    };
    for demand in demands {
        packer.opened.pieces.insert(demand.piece, demand.clone());
    }
    let joined = packer.opened.bins.len();
    packer.join(joined);
    let candidates = packer.candidates();
    packer.price(&candidates);
    packer.start_groups(&candidates);
    packer.lead_followers(&candidates);
    packer.draw_reservations(&candidates);
    packer.buy(&candidates);
    // Machines given up make room under a limit of machines: what it kept out may be bought for again.
    while packer.dissolve(joined) && packer.left.iter().any(|left| *left > 0) {
        let before: u64 = packer.left.iter().sum();
        packer.join(packer.opened.bins.len());
        packer.buy(&candidates);
        if packer.left.iter().sum::<u64>() == before {
            break;
        }
    }
    packer.left
}

impl Packer<'_> {
    fn buy(&mut self, candidates: &[Candidate]) {
        let mut usable: Vec<usize> = Vec::new();
        let mut priced_at = f64::INFINITY;
        loop {
            // New prices whenever a tenth of the demand is gone, and at every step once little is left.
            let remaining = self.left.iter().copied().map(real).sum::<f64>();
            if remaining < 1.0 {
                break;
            }
            if remaining < 0.9 * priced_at || remaining < 64.0 {
                priced_at = remaining;
                usable = self.price(candidates);
                if self.left.iter().sum::<u64>() > MANY_PODS {
                    usable = self.short_list(candidates, &usable);
                }
            }
            let Some((candidate, filled)) = self.best(candidates, &usable) else {
                if priced_at > remaining {
                    priced_at = f64::INFINITY;
                    usable = self.price(candidates);
                    if self.best(candidates, &usable).is_some() {
                        continue;
                    }
                }
                if !self.moderate.is_empty() {
                    self.any_size = true;
                    self.moderate.clear();
                    priced_at = f64::INFINITY;
                    continue;
                }
                break;
            };
            self.take(candidate, &filled, u64::MAX);
        }
    }

    /// Reserved machines are paid for already: they are used wherever they are of use.
    fn draw_reservations(&mut self, candidates: &[Candidate]) {
        let reserved: Vec<&Candidate> = candidates.iter().filter(|one| one.reservation.is_some()).collect();
        loop {
            let mut best: Option<(f64, &Candidate, Filled)> = None;
            for candidate in reserved.iter().filter(|one| self.machines(one) > 0) {
                let filled = self.fill(candidate);
                if filled.counts.is_empty() || !self.is_varied(candidate, &filled) {
                    continue;
                }
                if best.as_ref().is_none_or(|(most, ..)| filled.worth > *most) {
                    best = Some((filled.worth, candidate, filled));
                }
            }
            let Some((_, candidate, filled)) = best else { break };
            self.take(candidate, &filled, 1);
        }
    }

    /// How many machines of a candidate may still be bought.
    fn machines(&self, candidate: &Candidate) -> u64 {
        let shape = &self.catalog.shapes[candidate.shape];
        let allowed = self.allowance.machines(shape.pool, &shape.instance_type.capacity);
        match &candidate.reservation {
            Some(id) => allowed.min(self.allowance.reserved(id)),
            None => allowed,
        }
    }

    /// Buys a filled candidate as often as the filling repeats, `at_most` times.
    fn take(&mut self, candidate: &Candidate, filled: &Filled, at_most: u64) {
        let shape = &self.catalog.shapes[candidate.shape];
        let repeats = filled.counts.iter().map(|(demand, count)| self.left[*demand] / count).min();
        let repeats = repeats.unwrap_or(0).min(self.machines(candidate)).min(at_most);
        self.allowance.buy(shape.pool, &shape.instance_type.capacity, repeats);
        if let Some(id) = &candidate.reservation {
            self.allowance.draw(id, repeats);
        }
        let mut requirements = Requirements::new();
        for (demand, count) in &filled.counts {
            self.left[*demand] -= count * repeats;
            self.kinds.take(*demand, count * repeats);
            // Equal constraints are shared, and most pods have none.
            if !self.demands[*demand].requirements.is_empty() {
                requirements = requirements.intersect(&self.demands[*demand].requirements);
            }
        }
        let pods =
            filled.counts.iter().map(|(demand, count)| (self.demands[*demand].piece, *count)).collect();
        let bin = Bin {
            shape: candidate.shape,
            mask: filled.mask,
            pods,
            requirements,
            reservation: candidate.reservation.clone(),
            loose: filled.counts.iter().any(|(demand, _)| self.demands[*demand].loose),
            room: filled.room.iter().take(self.catalog.axes.len()).copied().collect(),
            occupancy: filled.occupancy.clone(),
        };
        self.opened.bins.extend((0..repeats).map(|_| bin.clone()));
    }

    /// Every shape at each of its prices, as far as some demand may use it.
    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        let Some(tier) = self.demands.first().map(|demand| demand.tier) else { return candidates };
        // Demands share their lists, so each is looked at once.
        let mut lists: Vec<&Arc<Vec<u64>>> = Vec::new();
        let mut seen: FxHashSet<usize> = FxHashSet::default();
        for demand in self.demands {
            if seen.insert(Arc::as_ptr(&demand.masks).addr()) {
                lists.push(&demand.masks);
            }
        }
        for (index, shape) in self.catalog.shapes.iter().enumerate().filter(|(_, shape)| shape.tier == tier) {
            let wanted = lists.iter().fold(0, |mask, list| mask | list[index]);
            let bits = || shape.offerings.iter().enumerate().filter(|(bit, _)| wanted & (1 << bit) != 0);
            for (bit, offering) in bits() {
                if let Some(reservation) = &offering.reservation {
                    candidates.push(Candidate {
                        shape: index,
                        mask: 1 << bit,
                        price: offering.price,
                        reservation: Some(Arc::clone(&reservation.id)),
                    });
                }
            }
            let paid = || bits().filter(|(_, offering)| offering.reservation.is_none());
            let mut prices: Vec<UsdPerHour> = paid().map(|(_, offering)| offering.price).collect();
            prices.sort_unstable();
            prices.dedup();
            for price in prices {
                let within = paid().filter(|(_, offering)| offering.price <= price);
                let mask = within.fold(0, |mask, (bit, _)| mask | 1 << bit);
                candidates.push(Candidate { shape: index, mask, price, reservation: None });
            }
        }
        candidates
    }

    /// Sets prices and worths for what is left; returns the usable candidates, best bound first.
    fn price(&mut self, candidates: &[Candidate]) -> Vec<usize> {
        let catalog = self.catalog;
        self.active = self.kinds.with_pods();
        // Kinds of one list of offerings and of like size are of one mind about a candidate: ask the smallest of each list.
        let smallest = self.kinds.smallest_by_list(&self.active);
        let open = |candidate: &Candidate| {
            candidate.reservation.is_none()
                && self.machines(candidate) > 0
                && smallest.iter().any(|(masks, least)| {
                    masks[candidate.shape] & candidate.mask != 0
                        && fits(least, &catalog.shapes[candidate.shape].room)
                })
        };
        let mut usable: Vec<usize> =
            (0..candidates.len()).filter(|index| open(&candidates[*index])).collect();
        let total = self.kinds.total(&self.active);
        self.leave_out_large(candidates, &mut usable, &total);
        let rooms: Vec<Wide> =
            usable.iter().map(|index| self.kinds.room(self.shape(&candidates[*index]))).collect();
        let columns: Vec<Column> = usable
            .iter()
            .zip(&rooms)
            .map(|(index, room)| Column {
                room: room.iter().copied().collect(),
                price: candidates[*index].price,
            })
            .collect();
        self.prices = dual_prices(&columns, &total);
        // A resource in excess is worth little rather than nothing: among equals the pod that uses more of it goes first.
        let average = total.iter().zip(&self.prices).map(|(total, price)| real(*total) * price).sum::<f64>();
        let average = if average > 0.0 { average } else { 1.0 };
        for (price, total) in self.prices.iter_mut().zip(&total) {
            if *total > 0 {
                *price += 1e-3 * average / real(*total);
            }
        }
        self.worth = self.kinds.worth(&self.prices);
        let worth = &self.worth;
        self.active.sort_by(|a, b| worth[*b].total_cmp(&worth[*a]).then(a.cmp(b)));
        let bound = |(index, room): (&usize, &Wide)| {
            let within = room.iter().zip(&total).zip(&self.prices);
            let most: f64 = within.map(|((room, total), price)| real(*room.min(total)) * price).sum();
            (most / real(candidates[*index].price.0.max(1)), *index)
        };
        let mut bounds: Vec<(f64, usize)> = usable.iter().zip(&rooms).map(bound).collect();
        bounds.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        usable = bounds.into_iter().map(|(_, index)| index).collect();
        usable
    }

    /// Where rules force a number of machines, leaves out those far larger than the average of them will be: filled first, they
    /// would leave the others nothing but the pods that force them.
    fn leave_out_large(&mut self, candidates: &[Candidate], usable: &mut Vec<usize>, total: &[u64]) {
        if self.any_size {
            return;
        }
        let forced = self.kinds.forced_machines(total);
        if forced >= 2 {
            let average = total.iter().map(|total| (total / forced).saturating_add(total / forced / 2));
            self.moderate = average.collect();
        }
        // What is left once these machines are bought comes in machines of the same size, which the others can take in.
        if self.moderate.is_empty() {
            return;
        }
        let largest = self.kinds.largest(&self.active);
        // Nor far smaller: a machine becomes the smallest that holds its pods in the end.
        let least: Vec<u64> = self.moderate.iter().map(|most| most / 8 * 5).collect();
        let limits: Vec<u64> = largest.iter().zip(&self.moderate).map(|(one, most)| *one.max(most)).collect();
        let moderate = |index: &usize| {
            let room = &self.shape(&candidates[*index]).room;
            // By CPU and memory, whichever is nearer: a shape rich in one of them may be what the other needs.
            room.iter().zip(&limits).take(2).any(|(room, limit)| room <= limit)
                && room.iter().zip(&least).take(2).any(|(room, least)| room >= least)
        };
        if usable.iter().any(moderate) {
            usable.retain(moderate);
        }
    }

    fn shape(&self, candidate: &Candidate) -> &Shape {
        &self.catalog.shapes[candidate.shape]
    }

    /// The few candidates that give most at the present prices.
    fn short_list(&self, candidates: &[Candidate], usable: &[usize]) -> Vec<usize> {
        let score = |index: &usize| {
            let filled = self.fill(&candidates[*index]);
            (filled.worth / real(candidates[*index].price.0.max(1)), *index)
        };
        let mut scores: Vec<(f64, usize)> =
            usable.iter().take(FILLED_AT_MOST).map(score).filter(|(score, _)| *score > 0.0).collect();
        if scores.is_empty() {
            return usable.to_vec();
        }
        scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        scores.truncate(SHORT_LIST);
        scores.into_iter().map(|(_, index)| index).collect()
    }

    /// The candidate whose filling gives most worth for its price.
    fn best<'c>(&self, candidates: &'c [Candidate], usable: &[usize]) -> Option<(&'c Candidate, Filled)> {
        let mut best: Option<(f64, &Candidate, Filled)> = None;
        let mut filled_so_far = 0;
        for index in usable {
            let candidate = &candidates[*index];
            let price = real(candidate.price.0.max(1));
            if let Some((score, ..)) = &best {
                // Stale by at most a tenth of the demand, so a bound here may be a little high, never low.
                let most = self.kinds.worth_of_room(&self.prices, self.shape(candidate));
                if filled_so_far >= FILLED_AT_MOST || most / price <= *score {
                    continue;
                }
            }
            if self.machines(candidate) == 0 {
                continue;
            }
            let filled = self.fill(candidate);
            filled_so_far += 1;
            if filled.counts.is_empty() || !self.is_varied(candidate, &filled) {
                continue;
            }
            let score = filled.worth / price;
            if best.as_ref().is_none_or(|(most, ..)| score > *most) {
                best = Some((score, candidate, filled));
            }
        }
        best.map(|(_, candidate, filled)| (candidate, filled))
    }
}

/// Pieces by number, for machines that outlive one call.
type Pieces = FxHashMap<usize, Demand>;
