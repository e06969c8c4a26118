//! Packs pods into new machines, bin by bin.
//!
//! The dual prices of what is left say what each pod is worth. Every machine on offer is filled in thought; the one that gives most
//! worth for its price is bought, as many times as the same filling repeats; then again. Price per worth cannot fall below one
//! (dual feasibility), so candidates are looked at best bound first and few are ever filled.

use std::rc::Rc;

use assay_shared::units::UsdPerHour;

use super::axes::{Amounts, fits, real, take, times};
use super::bound::{Column, dual_prices};
use super::catalog::Catalog;
use super::host::HostRules;
use super::limits::Allowance;
use crate::requirement::Requirements;

/// Pods of one class on one of its lanes.
#[derive(Debug)]
pub(super) struct Demand {
    pub(super) class: usize,
    pub(super) tier: usize,
    pub(super) requests: Amounts,
    pub(super) masks: Rc<Vec<u64>>,
    pub(super) requirements: Rc<Requirements>,
    /// Whether they ask for a label that a machine could get more than one value of: then pods must agree.
    pub(super) loose: bool,
    /// What they ask of the other pods on their machine.
    pub(super) host: Rc<HostRules>,
    pub(super) count: u64,
}

/// A machine to buy.
#[derive(Debug, Clone)]
pub(super) struct Bin {
    pub(super) shape: usize,
    /// Offerings that every pod allows.
    pub(super) mask: u64,
    /// Pods by class.
    pub(super) pods: Vec<(usize, u64)>,
    /// What all of its pods need of the machine.
    pub(super) requirements: Requirements,
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
    pub(super) const ALL: [Self; 4] = [Self::DualDirection, Self::Direction, Self::Dearest, Self::Largest];
}

/// A shape at a price: the offerings that cost no more.
#[derive(Debug)]
struct Candidate {
    shape: usize,
    mask: u64,
    price: UsdPerHour,
}

#[derive(Debug)]
struct Filled {
    counts: Vec<(usize, u64)>,
    mask: u64,
    worth: f64,
}

/// Candidates filled for one decision, at most: the bounds are in order, so later ones rarely win.
const FILLED_AT_MOST: usize = 24;

/// Kinds of pods considered for one machine, at most, spread evenly over their worth: when nearly every pod is its own kind,
/// looking at all of them for every machine would cost far more than it saves.
const KINDS_AT_MOST: usize = 96;

struct Packer<'a, 's> {
    catalog: &'a Catalog<'s>,
    demands: &'a [Demand],
    left: Vec<u64>,
    filling: Filling,
    /// Dual price by axis, then the worth of one pod by demand.
    prices: Vec<f64>,
    worth: Vec<f64>,
    /// Demands of which something was left when prices were last set, the dearest first.
    active: Vec<usize>,
}

/// A demand that may still go into the machine being filled.
struct Open {
    demand: usize,
    key: f64,
    used: u64,
}

/// Packs `demands`, all of one tier; counts what it buys in `allowance`. Returns the bins and what is left of each demand.
pub(super) fn pack(
    catalog: &Catalog<'_>,
    demands: &[Demand],
    allowance: &mut Allowance,
    filling: Filling,
    _min_values: super::MinValues,
    open: &mut Opened,
) -> Vec<u64> {
    let (bins, left) = pack_bins(catalog, demands, allowance, filling);
    open.bins.extend(bins);
    left
}

#[derive(Debug, Clone, Default)]
pub(super) struct Opened {
    bins: Vec<Bin>,
}

impl Opened {
    pub(super) fn bins(&self) -> &[Bin] {
        &self.bins
    }

    pub(super) fn into_bins(self) -> Vec<Bin> {
        self.bins
    }
}

fn pack_bins(
    catalog: &Catalog<'_>,
    demands: &[Demand],
    allowance: &mut Allowance,
    filling: Filling,
) -> (Vec<Bin>, Vec<u64>) {
    let left = demands.iter().map(|demand| demand.count).collect();
    let mut packer =
        Packer { catalog, demands, left, filling, prices: Vec::new(), worth: Vec::new(), active: Vec::new() };
    let candidates = packer.candidates();
    let mut usable: Vec<usize> = Vec::new();
    let mut priced_at = f64::INFINITY;
    let mut bins = Vec::new();
    loop {
        // New prices whenever a tenth of the demand is gone, and at every step once little is left.
        let remaining = packer.left.iter().copied().map(real).sum::<f64>();
        if remaining < 1.0 {
            break;
        }
        if remaining < 0.9 * priced_at || remaining < 64.0 {
            priced_at = remaining;
            usable = packer.price(&candidates, allowance);
        }
        let Some((candidate, filled)) = packer.best(&candidates, &usable, allowance) else {
            if priced_at > remaining {
                priced_at = f64::INFINITY;
                usable = packer.price(&candidates, allowance);
                if packer.best(&candidates, &usable, allowance).is_some() {
                    continue;
                }
            }
            break;
        };
        let shape = &catalog.shapes[candidate.shape];
        let repeats =
            filled.counts.iter().map(|(demand, count)| packer.left[*demand] / count).min().unwrap_or(0);
        let repeats = repeats.min(allowance.machines(shape.pool, &shape.instance_type.capacity));
        allowance.buy(shape.pool, &shape.instance_type.capacity, repeats);
        let mut requirements = Requirements::new();
        for (demand, count) in &filled.counts {
            packer.left[*demand] -= count * repeats;
            // Equal constraints are shared, and most pods have none.
            if !demands[*demand].requirements.is_empty() {
                requirements = requirements.intersect(&demands[*demand].requirements);
            }
        }
        let pods = filled.counts.iter().map(|(demand, count)| (demands[*demand].class, *count)).collect();
        let bin = Bin { shape: candidate.shape, mask: filled.mask, pods, requirements };
        bins.extend((0..repeats).map(|_| bin.clone()));
    }
    (bins, packer.left)
}

impl Packer<'_, '_> {
    /// Every shape at each of its prices, as far as some demand may use it.
    fn candidates(&self) -> Vec<Candidate> {
        let mut candidates = Vec::new();
        for (index, shape) in self.catalog.shapes.iter().enumerate() {
            let wanted = self.demands.iter().filter(|demand| demand.tier == shape.tier);
            let wanted = wanted.fold(0, |mask, demand| mask | demand.masks[index]);
            let bits = shape.offerings.iter().enumerate().filter(|(bit, _)| wanted & (1 << bit) != 0);
            let mut prices: Vec<UsdPerHour> = bits.map(|(_, offering)| offering.price).collect();
            prices.sort_unstable();
            prices.dedup();
            for price in prices {
                let mask = wanted & shape.mask_where(|offering| offering.price <= price);
                candidates.push(Candidate { shape: index, mask, price });
            }
        }
        candidates
    }

    /// Sets prices and worths for what is left; returns the usable candidates, best bound first.
    fn price(&mut self, candidates: &[Candidate], allowance: &Allowance) -> Vec<usize> {
        let catalog = self.catalog;
        self.active = (0..self.demands.len()).filter(|index| self.left[*index] > 0).collect();
        let open = |candidate: &Candidate| {
            let shape = &catalog.shapes[candidate.shape];
            allowance.machines(shape.pool, &shape.instance_type.capacity) > 0
                && self.active.iter().any(|index| {
                    let demand = &self.demands[*index];
                    demand.masks[candidate.shape] & candidate.mask != 0 && fits(&demand.requests, &shape.room)
                })
        };
        let mut usable: Vec<usize> =
            (0..candidates.len()).filter(|index| open(&candidates[*index])).collect();
        let mut total = Amounts::from_elem(0, catalog.axes.len());
        for index in &self.active {
            for (total, one) in total.iter_mut().zip(&self.demands[*index].requests) {
                *total = total.saturating_add(one.saturating_mul(self.left[*index]));
            }
        }
        let columns: Vec<Column> = usable
            .iter()
            .map(|index| &candidates[*index])
            .map(|c| Column { room: catalog.shapes[c.shape].room.clone(), price: c.price })
            .collect();
        self.prices = dual_prices(&columns, &total);
        // A resource in excess is worth little rather than nothing: among equals the pod that uses more of it goes first.
        let average = total.iter().zip(&self.prices).map(|(total, price)| real(*total) * price).sum::<f64>();
        for (price, total) in self.prices.iter_mut().zip(&total) {
            if *total > 0 {
                *price += 1e-3 * average / real(*total);
            }
        }
        self.worth.resize(self.demands.len(), 0.0);
        for index in &self.active {
            self.worth[*index] = dot(&self.prices, &self.demands[*index].requests);
        }
        self.active.sort_by(|a, b| self.worth[*b].total_cmp(&self.worth[*a]).then(a.cmp(b)));
        let bound = |index: &usize| {
            let candidate = &candidates[*index];
            let room =
                catalog.shapes[candidate.shape].room.iter().zip(&total).map(|(room, total)| *room.min(total));
            dot(&self.prices, &room.collect::<Amounts>()) / real(candidate.price.0.max(1))
        };
        let mut bounds: Vec<(f64, usize)> = usable.iter().map(|index| (bound(index), *index)).collect();
        bounds.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        usable = bounds.into_iter().map(|(_, index)| index).collect();
        usable
    }

    /// The candidate whose filling gives most worth for its price.
    fn best<'c>(
        &self,
        candidates: &'c [Candidate],
        usable: &[usize],
        allowance: &Allowance,
    ) -> Option<(&'c Candidate, Filled)> {
        let mut best: Option<(f64, &Candidate, Filled)> = None;
        let mut filled_so_far = 0;
        for index in usable {
            let candidate = &candidates[*index];
            let shape = &self.catalog.shapes[candidate.shape];
            let price = real(candidate.price.0.max(1));
            if let Some((score, ..)) = &best {
                // Stale by at most a tenth of the demand, so a bound here may be a little high, never low.
                if filled_so_far >= FILLED_AT_MOST || dot(&self.prices, &shape.room) / price <= *score {
                    continue;
                }
            }
            if allowance.machines(shape.pool, &shape.instance_type.capacity) == 0 {
                continue;
            }
            let filled = self.fill(candidate);
            filled_so_far += 1;
            if filled.counts.is_empty() {
                continue;
            }
            let score = filled.worth / price;
            if best.as_ref().is_none_or(|(most, ..)| score > *most) {
                best = Some((score, candidate, filled));
            }
        }
        best.map(|(_, candidate, filled)| (candidate, filled))
    }

    /// Fills one machine.
    fn fill(&self, candidate: &Candidate) -> Filled {
        let shape = &self.catalog.shapes[candidate.shape];
        let mut room = shape.room.clone();
        let mut filled = Filled { counts: Vec::new(), mask: candidate.mask, worth: 0.0 };
        let mut joint: Option<Requirements> = None;
        let share = |demand: &Demand| {
            let shares = demand.requests.iter().zip(&shape.room).filter(|(_, room)| **room > 0);
            shares.map(|(need, room)| real(*need) / real(*room)).fold(0.0, f64::max)
        };
        let eligible = |index: &usize| {
            let demand = &self.demands[*index];
            self.left[*index] > 0
                && demand.masks[candidate.shape] & candidate.mask != 0
                && fits(&demand.requests, &shape.room)
        };
        let stride = self.active.len().div_ceil(KINDS_AT_MOST).max(1);
        let mut waiting: Vec<usize> = self.active.iter().copied().step_by(stride).filter(eligible).collect();
        if stride > 1 && waiting.len() < KINDS_AT_MOST / 4 {
            waiting = self.active.iter().copied().filter(eligible).collect();
            let stride = waiting.len().div_ceil(KINDS_AT_MOST).max(1);
            waiting = waiting.into_iter().step_by(stride).collect();
        }
        let open = waiting.into_iter().map(|demand| {
            let key = match self.filling {
                Filling::Largest => share(&self.demands[demand]),
                _ => self.worth[demand],
            };
            Open { demand, key, used: 0 }
        });
        let mut open: Vec<Open> = open.collect();
        let ordered = matches!(self.filling, Filling::Dearest | Filling::Largest);
        if ordered {
            open.sort_by(|a, b| a.key.total_cmp(&b.key).then(b.demand.cmp(&a.demand)));
        }
        while !open.is_empty() {
            // The last is taken out fastest: where order counts, the list is sorted with the first to go at its end.
            let position =
                if ordered { open.len() - 1 } else { self.most_aligned(&open, &room, &shape.room) };
            let index = open[position].demand;
            let demand = &self.demands[index];
            let mask = filled.mask & demand.masks[candidate.shape];
            let most = times(&demand.requests, &room).min(self.left[index] - open[position].used);
            let agreed = if demand.loose && mask != 0 && most > 0 {
                let both = joint.get_or_insert_default().intersect(&demand.requirements);
                let possible = both.iter().all(|(key, set)| shape.mask_of(key, set) != 0);
                possible.then_some(both)
            } else {
                None
            };
            let closed = most == 0 || mask == 0 || (demand.loose && agreed.is_none());
            if !closed {
                if agreed.is_some() {
                    joint = agreed;
                }
                // In steps, so that the direction is looked at again while there is still room to correct it.
                let count = if ordered { most } else { most.div_ceil(4) };
                take(&mut room, &demand.requests, count);
                open[position].used += count;
                filled.mask = mask;
                filled.worth += self.worth[index] * real(count);
            }
            if closed || open[position].used == self.left[index] {
                let done = open.swap_remove(position);
                if done.used > 0 {
                    filled.counts.push((done.demand, done.used));
                }
            }
        }
        filled.counts.sort_unstable();
        filled
    }

    /// Position in `open` of the demand that points most where room is left (Panigrahy's dot product).
    fn most_aligned(&self, open: &[Open], room: &[u64], full: &[u64]) -> usize {
        let weights: Vec<f64> = (0..room.len())
            .map(|axis| {
                let full = real(full[axis].max(1));
                let left = real(room[axis]) / full;
                match self.filling {
                    Filling::DualDirection => self.prices[axis] * left,
                    _ => left / full,
                }
            })
            .collect();
        let mut best = (f64::NEG_INFINITY, 0);
        for (position, one) in open.iter().enumerate() {
            let score = dot(&weights, &self.demands[one.demand].requests);
            if score > best.0 {
                best = (score, position);
            }
        }
        best.1
    }
}

fn dot(prices: &[f64], amounts: &[u64]) -> f64 {
    prices.iter().zip(amounts).map(|(price, amount)| price * real(*amount)).sum()
}
