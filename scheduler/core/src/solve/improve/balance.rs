//! Whether items go into given bins at all: by the fraction, and however they are shared out.
//!
//! Bins may have room for the sum of all items and still not hold them: what is rich in memory is full only with items that need
//! much of it, and small bins hold no large ones. If they go in, then whatever prices bins ask along each axis, the least that
//! items can pay for their room is no more than all of it would bring. Prices under which they pay more are found by raising
//! them where too much is wanted. They show not only that these bins are not enough, but of any others how much they would add.

use super::bound::relaxed;
use super::coarse::Group;
use super::cover::Row;
use super::fill::Filler;
use super::generate::Scope;
use super::model::{Model, real};

/// Rounds, the first step, and the rounds after which steps are half of it.
const ROUNDS: usize = 400;
const STEP: f64 = 0.5;
const SLOWER: f64 = 30.0;
/// How much dearer bins are that get few of an item, at first, and how this sinks.
const APART: f64 = 0.05;
const CLOSER: f64 = 0.988;

/// What is known of some bins.
#[derive(Debug)]
pub(super) struct Balance {
    /// How much of their room items take at least, by the fraction: above one, they do not go in.
    pub(super) taken: f64,
    /// What any packing must cover, by the prices that show this.
    pub(super) row: Row,
    pub(super) work: u64,
}

/// Looks at bins: kinds, each once, and how many of each. `prices` weigh axes, to begin with. `None` where nothing is to be seen.
pub(super) fn balance(
    model: &Model,
    scope: &Scope,
    groups: &[Group],
    bins: &[(usize, u64)],
    prices: &[f64],
    filler: &mut Filler<'_>,
) -> Option<Balance> {
    let axes = model.axes;
    let takes = |group: &Group, kind: usize| {
        group.members.iter().any(|item| model.kinds[kind].allowed.contains(*item as usize))
    };
    let takers: Vec<Vec<usize>> = groups
        .iter()
        .map(|group| (0..bins.len()).filter(|bin| takes(group, bins[*bin].0)).collect())
        .collect();
    if axes == 0 || takers.iter().any(Vec::is_empty) {
        return None;
    }
    let room = |bin: usize, axis: usize| model.kinds[bins[bin].0].share[axis] * real(bins[bin].1);
    // What all the room of some bins brings along an axis; together one.
    let mut brings: Vec<f64> = (0..bins.len())
        .flat_map(|bin| (0..axes).map(move |axis| (bin, axis)))
        .map(|(bin, axis)| room(bin, axis) * (prices[axis] + 1e-6))
        .collect();
    even_out(&mut brings);
    let each: u64 = takers.iter().map(|takers| (takers.len() * (2 * axes + 6)) as u64).sum();
    let mut work = (groups.len() * bins.len()) as u64;
    let mut best: Option<(f64, Vec<f64>)> = None;
    let mut apart = APART;
    let mut paid: Vec<f64> = Vec::new();
    let size: Vec<f64> = brings.chunks_exact(axes).map(|brings| brings.iter().sum()).collect();
    let price_of = |brings: &[f64]| -> Vec<f64> {
        let price = |(at, part): (usize, &f64)| {
            let room = room(at / axes, at % axes);
            if room > 0.0 { part / room } else { 0.0 }
        };
        brings.iter().enumerate().map(price).collect()
    };
    for round in 0..ROUNDS {
        work += each;
        let prices = price_of(&brings);
        let mut load = vec![0.0; brings.len()];
        let mut sum = 0.0;
        for (group, takers) in groups.iter().zip(&takers) {
            let pays = |bin: usize| -> f64 {
                prices[bin * axes..(bin + 1) * axes]
                    .iter()
                    .zip(&group.share)
                    .map(|(price, share)| price * share)
                    .sum()
            };
            paid.clear();
            paid.extend(takers.iter().map(|bin| pays(*bin)));
            let least = paid.iter().copied().fold(f64::INFINITY, f64::min);
            sum += group.count * least;
            // Where prices are about the same, bins share the items by how many they are.
            let mut all = 0.0;
            for (paid, bin) in paid.iter_mut().zip(takers) {
                let dearer = (*paid / least.max(1e-300) - 1.0) / apart;
                *paid = if dearer < 8.0 { (-dearer).exp() * size[*bin] } else { 0.0 };
                all += *paid;
            }
            for (part, bin) in paid.iter().zip(takers).filter(|(part, _)| **part > 0.0) {
                for axis in 0..axes {
                    let room = room(*bin, axis);
                    if room > 0.0 {
                        load[bin * axes + axis] += group.count * part / all * group.share[axis] / room;
                    }
                }
            }
        }
        apart *= CLOSER;
        let better = best.as_ref().is_none_or(|(most, _)| sum > *most);
        if better {
            best = Some((sum, brings.clone()));
        }
        for (part, load) in brings.iter_mut().zip(&load) {
            *part *= (STEP / (1.0 + real(round as u64) / SLOWER) * (load - 1.0).clamp(-1.0, 2.0)).exp();
        }
        even_out(&mut brings);
    }
    let (taken, brings) = best?;
    let prices = price_of(&brings);
    let price = |bin: usize| &prices[bin * axes..(bin + 1) * axes];
    let dot = |a: &[f64], b: &[f64]| -> f64 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let mut worth = vec![0.0; model.items];
    let mut demand = 0.0;
    for item in &scope.items {
        let index = *item as usize;
        let takers = (0..bins.len()).filter(|bin| model.kinds[bins[*bin].0].allowed.contains(index));
        worth[index] = takers.map(|bin| dot(price(bin), model.share(index))).reduce(f64::min)?;
        demand += worth[index] * real(scope.left[index]);
    }
    work += (scope.items.len() * bins.len() * axes) as u64;
    let most = model.kinds.iter().enumerate().map(|(number, kind)| {
        // No item there pays less than what one of the bins asks, if that takes them all.
        let covers = |bin: &usize| {
            let (other, _) = bins[*bin];
            other == number || kind.allowed.is_subset(&model.kinds[other].allowed)
        };
        let asks = (0..bins.len()).filter(covers).map(|bin| dot(price(bin), &kind.share));
        asks.reduce(f64::min).unwrap_or_else(|| relaxed(model, scope, filler, &worth, number))
    });
    let most = most.collect();
    work += (scope.items.len() / 16 * model.kinds.len()) as u64 + std::mem::take(&mut filler.work);
    Some(Balance { taken, row: Row { demand, most }, work })
}

/// Makes the sum one, and nothing worthless for good.
fn even_out(parts: &mut [f64]) {
    for _ in 0..2 {
        let sum: f64 = parts.iter().sum();
        parts.iter_mut().for_each(|part| *part = (*part / sum.max(f64::MIN_POSITIVE)).max(1e-9));
    }
    let sum: f64 = parts.iter().sum();
    parts.iter_mut().for_each(|part| *part /= sum);
}
