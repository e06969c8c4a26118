//! What each kind of bin offers for an item, and the lower bound that this gives.
//!
//! Let every kind of bin have prices of its own for what it has along each axis, no more for all of it than the bin costs. Whatever
//! is in a bin then gets from it no more than it costs; so if each item is worth what the kind that offers least for it would give,
//! no packing costs less than all items are worth. One set of prices for all kinds gives the bound of resources alone. Prices by
//! kind know that what is rich in memory is filled only by items that need much of it, and that a small bin holds no large item.
//!
//! The sum is concave in the prices. Where the items that a kind gets would fill one axis before another, that axis becomes
//! dearer, in ever smaller steps, for groups of items of about one size; the bound is then taken for the items themselves.

use super::coarse::Group;
use super::generate::Scope;
use super::model::{Model, real};

/// Rounds, at most; rounds without progress after which steps get smaller, how much, and the smallest.
const ROUNDS: usize = 500;
const PATIENCE: usize = 10;
const SHRINK: f64 = 0.6;
const LEAST_STEP: f64 = 1e-3;
/// A little of each axis's price is even, so that none starts at nothing.
const EVEN: f64 = 1e-4;
/// Kinds whose amounts for their price differ by less, as a logarithm, on every axis that matters have the same division.
const ALIKE: f64 = 0.05;
/// Off the worth of all items: far more than sums of this size lose.
const MARGIN: f64 = 1e-9;

/// See the module.
#[derive(Debug)]
pub(super) struct Offers {
    /// What each item is worth, by item of the model.
    pub(super) worth: Vec<f64>,
    /// Dollars per hour that every packing costs at least.
    pub(super) bound: f64,
    pub(super) work: u64,
}

/// How kinds divide their price among axes: rows by kinds that are alike.
struct Division {
    of_kind: Vec<usize>,
    parts: Vec<f64>,
}

impl Division {
    /// As prices by axis that are the same for all kinds would have it.
    fn new(model: &Model, prices: &[f64]) -> Self {
        let axes = model.axes;
        let division = |kind: usize| -> Vec<f64> {
            let one = &model.kinds[kind];
            let worth = |axis: usize| one.share[axis] * prices[axis];
            let all: f64 = (0..axes).map(worth).sum();
            let part = |axis: usize| {
                let own = if all > 0.0 { worth(axis) / all } else { 0.0 };
                if one.share[axis] > 0.0 { (1.0 - EVEN) * own + EVEN } else { 0.0 }
            };
            let parts: Vec<f64> = (0..axes).map(part).collect();
            let sum: f64 = parts.iter().sum();
            parts.into_iter().map(|part| part / sum.max(f64::MIN_POSITIVE)).collect()
        };
        let mut rows: Vec<Vec<f64>> = Vec::new();
        let mut of_kind = Vec::with_capacity(model.kinds.len());
        for kind in 0..model.kinds.len() {
            let own = division(kind);
            let alike = |other: &Vec<f64>| {
                let matters = other.iter().zip(&own).filter(|(a, b)| **a > 0.01 || **b > 0.01);
                let mut apart = matters.map(|(a, b)| (a.max(1e-9) / b.max(1e-9)).ln().abs());
                apart.all(|apart| apart < ALIKE)
            };
            let row = rows.iter().position(alike).unwrap_or_else(|| {
                rows.push(own);
                rows.len() - 1
            });
            of_kind.push(row);
        }
        Self { of_kind, parts: rows.into_iter().flatten().collect() }
    }

    /// Prices by kind and axis.
    fn prices(&self, model: &Model) -> Vec<f64> {
        let axes = model.axes;
        let price = |kind: usize, axis: usize| {
            let one = &model.kinds[kind];
            let part = self.parts[self.of_kind[kind] * axes + axis];
            if one.share[axis] > 0.0 { part * one.price / one.share[axis] } else { 0.0 }
        };
        (0..model.kinds.len()).flat_map(|kind| (0..axes).map(move |axis| price(kind, axis))).collect()
    }

    /// Makes axes dearer that `load` (by row and axis) fills first.
    fn step(&mut self, axes: usize, load: &[f64], step: f64) {
        for (parts, load) in self.parts.chunks_exact_mut(axes).zip(load.chunks_exact(axes)) {
            let most = load.iter().copied().fold(0.0, f64::max);
            if most <= 0.0 {
                continue;
            }
            for (part, load) in parts.iter_mut().zip(load) {
                *part *= (step * (load / most - 1.0)).exp();
            }
            let sum: f64 = parts.iter().sum();
            parts.iter_mut().for_each(|part| *part = (*part / sum).max(1e-9));
            let sum: f64 = parts.iter().sum();
            parts.iter_mut().for_each(|part| *part /= sum);
        }
    }
}

/// Offers for what is in scope, beginning with `prices` by axis.
pub(super) fn offers(model: &Model, scope: &Scope, items: &[Group], prices: &[f64], steps: u64) -> Offers {
    let axes = model.axes;
    if axes == 0 {
        return Offers { worth: vec![0.0; model.items], bound: 0.0, work: 0 };
    }
    let open: Vec<usize> = (0..model.kinds.len()).filter(|kind| scope.most[*kind] != Some(0)).collect();
    let takes = |members: &[u32], kind: usize| {
        members.iter().any(|item| model.kinds[kind].allowed.contains(*item as usize))
    };
    let mut division = Division::new(model, prices);
    let takers = |group: &Group| -> Vec<usize> {
        open.iter().copied().filter(|kind| takes(&group.members, *kind)).collect()
    };
    let takers: Vec<Vec<usize>> = items.iter().map(takers).collect();
    let each: u64 = takers.iter().map(|takers| (takers.len() * (axes + 1)) as u64).sum();
    let mut work = ((scope.items.len() + items.len() * axes) * (open.len() + 40)) as u64;
    let mut best: Option<(f64, Vec<f64>)> = None;
    let (mut step, mut since) = (1.0, 0);
    for _ in 0..ROUNDS {
        work += each;
        if work > steps || step < LEAST_STEP {
            break;
        }
        let prices = division.prices(model);
        let mut load = vec![0.0; division.parts.len()];
        let mut sum = 0.0;
        for (group, takers) in items.iter().zip(&takers) {
            let offer = |kind: usize| dot(&prices[kind * axes..(kind + 1) * axes], &group.share);
            let least =
                takers.iter().map(|kind| (offer(*kind), *kind)).reduce(|a, b| if b.0 < a.0 { b } else { a });
            let Some((offer, kind)) = least else { continue };
            sum += group.count * offer;
            let one = &model.kinds[kind];
            let row = division.of_kind[kind] * axes;
            for axis in (0..axes).filter(|axis| one.share[*axis] > 0.0) {
                load[row + axis] += group.count * group.share[axis] / one.share[axis] * one.price;
            }
        }
        since += 1;
        match &best {
            Some((most, _)) if sum <= most * (1.0 + 1e-6) => {
                if sum > *most {
                    best = Some((sum, division.parts.clone()));
                }
                if since > PATIENCE {
                    since = 0;
                    step *= SHRINK;
                    if let Some((_, parts)) = &best {
                        division.parts.clone_from(parts);
                    }
                    continue;
                }
            }
            _ => {
                since = 0;
                best = Some((sum, division.parts.clone()));
            }
        }
        division.step(axes, &load, step);
    }
    if let Some((_, parts)) = best {
        division.parts = parts;
    }
    let prices = division.prices(model);
    let mut worth = vec![0.0; model.items];
    for item in &scope.items {
        let index = *item as usize;
        let takers = open.iter().filter(|kind| model.kinds[**kind].allowed.contains(index));
        let offers = takers.map(|kind| dot(&prices[kind * axes..(kind + 1) * axes], model.share(index)));
        let least = offers.fold(f64::INFINITY, f64::min);
        worth[index] = if least.is_finite() { least } else { 0.0 };
    }
    work += (scope.items.len() * open.len() * (axes + 1)) as u64;
    let all: f64 =
        scope.items.iter().map(|item| worth[*item as usize] * real(scope.left[*item as usize])).sum();
    Offers { worth, bound: all * (1.0 - MARGIN), work }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
