//! Chooses bins that together cover what there is: the best few of each amount still uncovered, weighed at the prices of rows.
//!
//! Where [`super::cover`] proves, this one finds: it also works for many bins, and says nothing about those it has not met.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rustc_hash::FxHashMap;

use super::cover::{self, Row};
use super::generate::Scope;
use super::model::Model;

/// Kinds of bins that are chosen from, and of these of about one price.
const KINDS: usize = 72;
const KINDS_OF_A_PRICE: usize = 8;

/// Choices of bins that are carried on of those that are alike, and what makes them so.
const ALIKE: usize = 6;
const STEPS_PER_OCTAVE: f64 = 24.0;
/// Choices of bins looked at, at most.
const CHOICES_AT_MOST: usize = 60_000;

/// Choices of bins that are found.
const FOUND: usize = 3;

/// Kinds that take whatever fits, those that give most for their price; the largest first.
pub(super) fn kinds(model: &Model, scope: &Scope, prices: &[f64], demand: &[f64]) -> Vec<usize> {
    let takes_all = |kind: &usize| {
        let one = &model.kinds[*kind];
        one.most.is_none()
            && one.nano > 0
            && scope.items.iter().all(|item| {
                let index = *item as usize;
                one.allowed.contains(index)
                    || model.request(index).iter().zip(&one.room).any(|(need, room)| need > room)
            })
    };
    let gives = |kind: usize| {
        let one = &model.kinds[kind];
        let room = one.share.iter().zip(demand).zip(prices);
        room.map(|((share, all), price)| share.min(*all) * price).sum::<f64>() / one.price
    };
    let mut kinds: Vec<(f64, usize)> =
        (0..model.kinds.len()).filter(takes_all).map(|kind| (gives(kind), kind)).collect();
    kinds.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut of_price = FxHashMap::default();
    kinds.retain(|(_, kind)| {
        let of_price: &mut usize = of_price.entry(model.kinds[*kind].nano.ilog2()).or_default();
        *of_price += 1;
        *of_price <= KINDS_OF_A_PRICE
    });
    kinds.truncate(KINDS);
    let mut kinds: Vec<usize> = kinds.into_iter().map(|(_, kind)| kind).collect();
    kinds.sort_by(|a, b| model.kinds[*b].nano.cmp(&model.kinds[*a].nano).then(a.cmp(b)));
    kinds
}

/// Some bins, and what they cost.
#[derive(Debug, Clone, Copy)]
struct Choice {
    cost: f64,
    /// What the uncovered rest is worth.
    worth: f64,
    /// The choice that this one adds a bin to, and the bin's kind; the first of all has none.
    parent: u32,
    kind: u32,
}

/// Choices of bins that are alike: by what the rest is worth, in steps of some hundredths, and by how its axes compare.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Likeness(i32, i32);

impl Likeness {
    #[allow(clippy::cast_possible_truncation)] // small numbers
    fn of(rest: &[f64], prices: &[f64], worth: f64) -> Self {
        let first = rest.iter().zip(prices).next().map_or(0.0, |(rest, price)| rest.max(0.0) * price);
        Self(
            (worth.max(1e-9).log2() * STEPS_PER_OCTAVE).floor() as i32,
            (first / worth.max(1e-9) * 6.0) as i32,
        )
    }
}

/// The cheapest choices of bins that cover every row with so much room to spare; adds the steps to `work`.
pub(super) fn chosen(
    model: &Model,
    kinds: &[usize],
    rows: &[Row],
    spare: f64,
    work: &mut u64,
) -> Vec<Vec<usize>> {
    let target: Vec<f64> = rows.iter().map(|row| row.demand * (1.0 + spare)).collect();
    let Some(prices) = cover::weights(model, kinds, rows, &target, work) else { return Vec::new() };
    let value =
        |rest: &[f64]| rest.iter().zip(&prices).map(|(rest, price)| rest.max(0.0) * price).sum::<f64>();
    let covers: Vec<Vec<f64>> =
        kinds.iter().map(|kind| rows.iter().map(|row| row.most[*kind]).collect()).collect();
    let wide = target.len();
    let worth = value(&target);
    let mut all = vec![Choice { cost: 0.0, worth, parent: u32::MAX, kind: 0 }];
    // What each of them leaves uncovered, one after another.
    let mut rests = target;
    // Most left to cover first: bins only ever cover more. Bits of numbers that are not negative sort as the numbers do.
    let mut open: BinaryHeap<(u64, Reverse<usize>)> = [(worth.to_bits(), Reverse(0))].into();
    let mut alike: FxHashMap<Likeness, Vec<f64>> = FxHashMap::default();
    let mut done: Vec<(f64, usize)> = Vec::new();
    let mut rest = vec![0.0; wide];
    while let Some((_, Reverse(from))) = open.pop() {
        let own = all[from];
        let estimate = own.cost + own.worth;
        let rivals = alike.get(&Likeness::of(&rests[from * wide..(from + 1) * wide], &prices, own.worth));
        let beaten = rivals.is_some_and(|rivals| rivals.last().is_some_and(|last| estimate > *last));
        let worst = if done.len() < FOUND { f64::INFINITY } else { done[FOUND - 1].0 };
        if beaten || estimate >= worst || all.len() > CHOICES_AT_MOST {
            continue;
        }
        *work += (kinds.len() * (2 * wide + 12)) as u64;
        for (kind, covers) in kinds.iter().zip(&covers) {
            let before = &rests[from * wide..(from + 1) * wide];
            rest.iter_mut().zip(before).zip(covers).for_each(|((rest, before), more)| *rest = before - more);
            let (cost, worth) = (own.cost + model.kinds[*kind].price, value(&rest));
            let choice =
                Choice { cost, worth, parent: super::model::small(from), kind: super::model::small(*kind) };
            if rest.iter().all(|rest| *rest <= 1e-12) {
                if !done.iter().any(|(other, _)| (other - cost).abs() < 1e-9) {
                    all.push(choice);
                    rests.extend_from_slice(&rest);
                    done.push((cost, all.len() - 1));
                    done.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    done.truncate(FOUND);
                }
                continue;
            }
            let rivals = alike.entry(Likeness::of(&rest, &prices, worth)).or_default();
            let at = rivals.partition_point(|rival| *rival < cost + worth - 1e-9);
            // Equals are the same bins in another order, or as good.
            let is_known = rivals.get(at).is_some_and(|rival| (rival - cost - worth).abs() < 1e-9);
            if at >= ALIKE || is_known {
                continue;
            }
            rivals.insert(at, cost + worth);
            rivals.truncate(ALIKE);
            all.push(choice);
            rests.extend_from_slice(&rest);
            open.push((worth.to_bits(), Reverse(all.len() - 1)));
        }
    }
    let bins = |(_, last): (f64, usize)| {
        let mut bins = Vec::new();
        let mut at = last;
        while let Some(choice) = all.get(at).filter(|choice| choice.parent != u32::MAX) {
            bins.push(choice.kind as usize);
            at = choice.parent as usize;
        }
        bins.sort_by(|a, b| model.kinds[*b].nano.cmp(&model.kinds[*a].nano).then(a.cmp(b)));
        bins
    };
    done.into_iter().map(bins).collect()
}
