//! Bins first, contents later: which bins together have just enough room, and how the items go into them.
//!
//! Where a bin holds many different items, patterns are too many to list, but nearly any choice of bins with a little room to
//! spare can be filled. So bins are chosen for the sum of all items (the best few of each amount still uncovered, weighed at the
//! prices of resources), and the items put into them, largest first. More room is spared until everything finds a place.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::generate::{Scope, axis_prices, demand_by_axis};
use super::model::{Model, Pattern, real, small};

/// Room to spare, tried in this order, as a share of all items.
const SPARE: [f64; 7] = [0.001, 0.004, 0.01, 0.02, 0.035, 0.06, 0.1];

/// Kinds of bins that are chosen from, and of these of about one price.
const KINDS: usize = 72;
const KINDS_OF_A_PRICE: usize = 8;

/// Choices of bins that are carried on of those that are alike, and what makes them so.
const ALIKE: usize = 6;
const STEPS_PER_OCTAVE: f64 = 24.0;
/// Choices of bins looked at, at most.
const CHOICES_AT_MOST: usize = 60_000;

/// Choices of bins that are tried for each room to spare.
const TRIED: usize = 3;

/// Steps of putting items into bins, at most, for one choice.
const STEPS_AT_MOST: u64 = 4_000_000;

/// Bins with contents, and what found no place, by item of the model.
#[derive(Debug)]
pub(super) struct Mixed {
    pub(super) packing: Vec<(Arc<Pattern>, u64)>,
    pub(super) left: Vec<u64>,
    /// What it all costs, more or less: bins, and what is left at the prices of resources.
    pub(super) estimate: f64,
}

/// Packings of what is in scope, which may leave something out, and the steps that they took.
pub(super) fn packings(model: &Model, scope: &Scope) -> (Vec<Mixed>, u64) {
    let mut work = 0;
    let mut found = Vec::new();
    let Some(prices) = axis_prices(model, &scope.items, &scope.left) else { return (found, work) };
    let demand = demand_by_axis(model, &scope.items, &scope.left);
    let kinds = kinds(model, scope, &prices, &demand);
    let units: u64 = scope.items.iter().map(|item| scope.left[*item as usize]).sum();
    if kinds.is_empty() {
        return (found, work);
    }
    let order = largest_first(model, scope, &demand);
    for spare in SPARE {
        let target: Vec<f64> = demand.iter().map(|all| all * (1.0 + spare)).collect();
        let choices = choices(model, &kinds, &prices, &target, &mut work);
        let mut whole = false;
        for bins in choices {
            let steps = units * (bins.len() * model.axes) as u64;
            if steps > STEPS_AT_MOST {
                return (found, work);
            }
            work += 2 * steps;
            let mixed = put(model, scope, &order, &bins, &prices);
            whole |= mixed.left.iter().all(|left| *left == 0);
            found.push(mixed);
        }
        if whole {
            break;
        }
    }
    (found, work)
}

/// Kinds that take whatever fits, those that give most for their price; the largest first.
fn kinds(model: &Model, scope: &Scope, prices: &[f64], demand: &[f64]) -> Vec<usize> {
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

/// Some bins, and what they leave uncovered.
#[derive(Debug)]
struct Choice {
    cost: f64,
    /// What the uncovered rest is worth.
    worth: f64,
    rest: Vec<f64>,
    /// The choice that this one adds a bin to, and the bin's kind.
    parent: Option<(usize, usize)>,
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

/// The cheapest choices of bins that cover the target on every axis.
fn choices(
    model: &Model,
    kinds: &[usize],
    prices: &[f64],
    target: &[f64],
    work: &mut u64,
) -> Vec<Vec<usize>> {
    let value =
        |rest: &[f64]| rest.iter().zip(prices).map(|(rest, price)| rest.max(0.0) * price).sum::<f64>();
    let worth = value(target);
    let mut all = vec![Choice { cost: 0.0, worth, rest: target.to_vec(), parent: None }];
    // Most left to cover first: bins only ever cover more.
    // Bits of numbers that are not negative sort as the numbers do.
    let mut open: BinaryHeap<(u64, Reverse<usize>)> = [(worth.to_bits(), Reverse(0))].into();
    let mut alike: FxHashMap<Likeness, Vec<f64>> = FxHashMap::default();
    let mut done: Vec<(f64, usize)> = Vec::new();
    while let Some((_, Reverse(from))) = open.pop() {
        let estimate = all[from].cost + all[from].worth;
        let rivals = alike.get(&Likeness::of(&all[from].rest, prices, all[from].worth));
        let beaten = rivals.is_some_and(|rivals| rivals.last().is_some_and(|last| estimate > *last));
        let worst = if done.len() < TRIED { f64::INFINITY } else { done[TRIED - 1].0 };
        if beaten || estimate >= worst || all.len() > CHOICES_AT_MOST {
            continue;
        }
        *work += (kinds.len() * (2 * model.axes + 12)) as u64;
        for kind in kinds {
            let one = &model.kinds[*kind];
            let rest: Vec<f64> =
                all[from].rest.iter().zip(&one.share).map(|(rest, share)| rest - share).collect();
            let (cost, worth) = (all[from].cost + one.price, value(&rest));
            if rest.iter().all(|rest| *rest <= 1e-12) {
                if !done.iter().any(|(other, _)| (other - cost).abs() < 1e-9) {
                    all.push(Choice { cost, worth, rest, parent: Some((from, *kind)) });
                    done.push((cost, all.len() - 1));
                    done.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                    done.truncate(TRIED);
                }
                continue;
            }
            let rivals = alike.entry(Likeness::of(&rest, prices, worth)).or_default();
            let at = rivals.partition_point(|rival| *rival < cost + worth - 1e-9);
            // Equals are the same bins in another order, or as good.
            let is_known = rivals.get(at).is_some_and(|rival| (rival - cost - worth).abs() < 1e-9);
            if at >= ALIKE || is_known {
                continue;
            }
            rivals.insert(at, cost + worth);
            rivals.truncate(ALIKE);
            all.push(Choice { cost, worth, rest, parent: Some((from, *kind)) });
            open.push((worth.to_bits(), Reverse(all.len() - 1)));
        }
    }
    let bins = |(_, last): (f64, usize)| {
        let mut bins = Vec::new();
        let mut at = last;
        while let Some((parent, kind)) = all[at].parent {
            bins.push(kind);
            at = parent;
        }
        bins.sort_by(|a, b| model.kinds[*b].nano.cmp(&model.kinds[*a].nano).then(a.cmp(b)));
        bins
    };
    done.into_iter().map(bins).collect()
}

/// Items by the largest share of all that one of them takes, largest first.
fn largest_first(model: &Model, scope: &Scope, demand: &[f64]) -> Vec<u32> {
    let size = |item: u32| {
        let shares = model.share(item as usize).iter().zip(demand);
        shares.map(|(share, all)| share / all.max(1e-12)).fold(0.0, f64::max)
    };
    let mut order: Vec<(f64, u32)> = scope.items.iter().map(|item| (size(*item), *item)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(_, item)| item).collect()
}

/// Puts items into bins, one after another: each where what is free looks most like it (the largest dot product with what is
/// free, for its length).
fn put(model: &Model, scope: &Scope, order: &[u32], bins: &[usize], prices: &[f64]) -> Mixed {
    let mut rooms: Vec<Vec<u64>> = bins.iter().map(|kind| model.kinds[*kind].room.clone()).collect();
    let mut groups: Vec<Vec<u64>> = bins.iter().map(|_| model.group_most.clone()).collect();
    let mut contents: Vec<Vec<(u32, u32)>> = vec![Vec::new(); bins.len()];
    let mut left = vec![0; model.items];
    let weigh: Vec<f64> = prices.iter().map(|price| price + 1e-9).collect();
    for item in order {
        let index = *item as usize;
        let request = model.request(index);
        for nth in 0..scope.left[index] {
            let mut best: Option<(f64, usize)> = None;
            for (bin, room) in rooms.iter().enumerate() {
                if request.iter().zip(room).any(|(need, room)| need > room) {
                    continue;
                }
                let kind = &model.kinds[bins[bin]];
                let held =
                    || contents[bin].last().filter(|(one, _)| one == item).map_or(0, |(_, count)| *count);
                if !kind.allowed.contains(index)
                    || u64::from(held()) >= model.cap[index]
                    || model.groups_of[index].iter().any(|group| groups[bin][*group] == 0)
                {
                    continue;
                }
                let free = || {
                    let shares = room.iter().zip(&kind.room).zip(&kind.share);
                    shares.map(
                        |((room, whole), share)| {
                            if *whole == 0 { 0.0 } else { real(*room) / real(*whole) * share }
                        },
                    )
                };
                let needs = model.share(index);
                let dot: f64 =
                    free().zip(needs).zip(&weigh).map(|((a, b), weigh)| a * b * weigh * weigh).sum();
                let long: f64 = free().zip(&weigh).map(|(free, weigh)| (free * weigh) * (free * weigh)).sum();
                let score = dot / long.sqrt().max(1e-12);
                if best.is_none_or(|(most, _)| score > most) {
                    best = Some((score, bin));
                }
            }
            let Some((_, bin)) = best else {
                // Where one does not fit, no more of them do.
                left[index] = scope.left[index] - nth;
                break;
            };
            super::fill::use_up(model, index, 1, &mut rooms[bin], &mut groups[bin]);
            match contents[bin].last_mut().filter(|(one, _)| one == item) {
                Some((_, count)) => *count += 1,
                None => contents[bin].push((*item, 1)),
            }
        }
    }
    let packing = bins.iter().zip(contents).filter(|(_, items)| !items.is_empty());
    let packing = packing.map(|(kind, mut items)| {
        items.sort_unstable();
        (Arc::new(Pattern { kind: small(*kind), items }), 1)
    });
    let worth =
        |item: usize| model.share(item).iter().zip(prices).map(|(share, price)| share * price).sum::<f64>();
    let rest: f64 = left.iter().enumerate().map(|(item, left)| real(*left) * worth(item)).sum();
    let estimate = rest + bins.iter().map(|kind| model.kinds[*kind].price).sum::<f64>();
    Mixed { packing: packing.collect(), left, estimate }
}
