//! A problem compiled for searching: flat arrays, axes that matter, kinds of bins worth buying.

use std::sync::Arc;

use fixedbitset::FixedBitSet;

use super::problem::{Packed, Problem};

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) axes: usize,
    pub(super) items: usize,
    /// By item, then axis.
    pub(super) requests: Vec<u64>,
    /// The same, as a share of a typical room.
    pub(super) shares: Vec<f64>,
    pub(super) count: Vec<u64>,
    /// How many of an item one bin may hold, its size aside.
    pub(super) cap: Vec<u64>,
    /// Groups of more than one kind of item.
    pub(super) groups_of: Vec<Vec<usize>>,
    pub(super) group_most: Vec<u64>,
    pub(super) kinds: Vec<Kind>,
    /// Kinds without limit, cheapest first.
    by_price: Vec<usize>,
    /// Every price is a multiple of this many billionths of a dollar.
    pub(super) price_step: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Kind {
    /// Position in the problem.
    pub(super) original: usize,
    pub(super) room: Vec<u64>,
    /// As [`Model::shares`].
    pub(super) share: Vec<f64>,
    /// Billionths of a dollar per hour.
    pub(super) nano: u64,
    /// Dollars per hour.
    pub(super) price: f64,
    pub(super) most: Option<u64>,
    /// Items that may go there and fit.
    pub(super) allowed: FixedBitSet,
}

/// One way to fill one bin. Items ascending, each once, counts at least one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pattern {
    pub(super) kind: u32,
    pub(super) items: Vec<(u32, u32)>,
}

/// For weighing only.
#[allow(clippy::cast_precision_loss)] // see above
pub(super) fn real(amount: u64) -> f64 {
    amount as f64
}

/// An index or a count within a bin: both are far below 2^32.
pub(super) fn small(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Model {
    pub(super) fn new(problem: &Problem) -> Self {
        let all_axes = problem.bins.iter().map(|kind| kind.room.len()).max().unwrap_or(0);
        let request = |item: usize, axis: usize| problem.items[item].requests.get(axis).copied().unwrap_or(0);
        let items = problem.items.len();
        let total = |axis: usize| {
            (0..items).fold(0u64, |sum, item| {
                sum.saturating_add(request(item, axis).saturating_mul(problem.items[item].count))
            })
        };
        let room = |kind: usize, axis: usize| problem.bins[kind].room.get(axis).copied().unwrap_or(0);
        // An axis that everything together does not fill cannot run out.
        let scarce = |axis: &usize| {
            let total = total(*axis);
            (0..problem.bins.len()).any(|kind| room(kind, *axis) < total)
        };
        let used: Vec<usize> = (0..all_axes).filter(scarce).collect();
        let axes = used.len();
        let requests: Vec<u64> =
            (0..items).flat_map(|item| used.iter().map(move |axis| request(item, *axis))).collect();
        let count: Vec<u64> = problem.items.iter().map(|item| item.count).collect();

        let mut members = vec![0usize; problem.groups.len()];
        problem.items.iter().flat_map(|item| &item.groups).for_each(|group| members[*group] += 1);
        let cap = |index: usize| {
            let groups = problem.items[index].groups.iter().map(|group| problem.groups[*group]);
            groups.min().unwrap_or(u64::MAX).min(count[index]).min(u64::from(u32::MAX))
        };
        let cap: Vec<u64> = (0..items).map(cap).collect();
        let shared = |item: &super::problem::Item| -> Vec<usize> {
            item.groups.iter().copied().filter(|group| members[*group] > 1).collect()
        };
        let groups_of = problem.items.iter().map(shared).collect();

        let scale: Vec<f64> = used
            .iter()
            .map(|axis| {
                let mut rooms: Vec<u64> =
                    (0..problem.bins.len()).map(|kind| room(kind, *axis)).filter(|room| *room > 0).collect();
                rooms.sort_unstable();
                rooms.get(rooms.len() / 2).map_or(1.0, |room| real(*room))
            })
            .collect();
        let shares = requests.iter().zip(scale.iter().cycle()).map(|(r, scale)| real(*r) / scale).collect();
        let kinds: Vec<Kind> = problem
            .bins
            .iter()
            .enumerate()
            .map(|(original, kind)| {
                let rooms: Vec<u64> = used.iter().map(|axis| room(original, *axis)).collect();
                let fits = |item: &usize| {
                    let one = &requests[item * axes..(item + 1) * axes];
                    count[*item] > 0
                        && cap[*item] > 0
                        && problem.items[*item].bins.contains(original)
                        && one.iter().zip(&rooms).all(|(need, room)| need <= room)
                };
                let mut allowed = FixedBitSet::with_capacity(items);
                (0..items).filter(fits).for_each(|item| allowed.insert(item));
                Kind {
                    original,
                    share: rooms.iter().zip(&scale).map(|(room, scale)| real(*room) / scale).collect(),
                    room: rooms,
                    nano: kind.price.0,
                    price: kind.price.usd(),
                    most: kind.most,
                    allowed,
                }
            })
            .collect();
        let kinds = worth_buying(kinds);
        let mut by_price: Vec<usize> = (0..kinds.len()).filter(|kind| kinds[*kind].most.is_none()).collect();
        by_price.sort_by_key(|kind| (kinds[*kind].nano, *kind));
        let price_step = kinds.iter().fold(0, |step, kind| gcd(step, kind.nano)).max(1);
        Self {
            axes,
            items,
            requests,
            shares,
            count,
            cap,
            groups_of,
            group_most: problem.groups.clone(),
            kinds,
            by_price,
            price_step,
        }
    }

    /// The same with another price for one kind of bin.
    pub(super) fn repriced(&self, kind: usize, price: f64) -> Self {
        let mut model = self.clone();
        model.kinds[kind].price = price;
        model
    }

    pub(super) fn request(&self, item: usize) -> &[u64] {
        &self.requests[item * self.axes..(item + 1) * self.axes]
    }

    pub(super) fn share(&self, item: usize) -> &[f64] {
        &self.shares[item * self.axes..(item + 1) * self.axes]
    }

    /// Whether a bin of this kind may hold these items.
    pub(super) fn holds(&self, kind: usize, items: &[(u32, u32)]) -> bool {
        let target = &self.kinds[kind];
        if items.iter().any(|(item, count)| {
            !target.allowed.contains(*item as usize) || u64::from(*count) > self.cap[*item as usize]
        }) {
            return false;
        }
        let sum = |axis: usize| {
            items.iter().fold(0u64, |sum, (item, count)| {
                let need = self.requests[*item as usize * self.axes + axis];
                sum.saturating_add(need.saturating_mul(u64::from(*count)))
            })
        };
        (0..self.axes).all(|axis| sum(axis) <= target.room[axis]) && self.groups_hold(items)
    }

    fn groups_hold(&self, items: &[(u32, u32)]) -> bool {
        items.iter().flat_map(|(item, _)| &self.groups_of[*item as usize]).all(|group| {
            let of_it = items.iter().filter(|(item, _)| self.groups_of[*item as usize].contains(group));
            of_it.map(|(_, count)| u64::from(*count)).sum::<u64>() <= self.group_most[*group]
        })
    }

    /// The cheapest kind that holds these items.
    pub(super) fn cheapest(&self, items: &[(u32, u32)]) -> Option<usize> {
        self.by_price.iter().copied().find(|kind| self.holds(*kind, items))
    }

    pub(super) fn cost(&self, packing: &[(Arc<Pattern>, u64)]) -> u64 {
        packing.iter().fold(0u64, |sum, (pattern, times)| {
            sum.saturating_add(self.kinds[pattern.kind as usize].nano.saturating_mul(*times))
        })
    }

    /// In the terms of the problem.
    pub(super) fn packed(&self, packing: &[(Arc<Pattern>, u64)]) -> Vec<Packed> {
        let packed = |(pattern, times): &(Arc<Pattern>, u64)| Packed {
            kind: self.kinds[pattern.kind as usize].original,
            items: pattern.items.iter().map(|(item, count)| (*item as usize, u64::from(*count))).collect(),
            times: *times,
        };
        packing.iter().map(packed).collect()
    }
}

/// Leaves out kinds that another one beats: as much room, as many items, no dearer, not limited.
fn worth_buying(kinds: Vec<Kind>) -> Vec<Kind> {
    let beats = |(a, one): (usize, &Kind), (b, other): (usize, &Kind)| {
        a != b
            && one.most.is_none()
            && one.nano <= other.nano
            && one.room.iter().zip(&other.room).all(|(one, other)| one >= other)
            && other.allowed.is_subset(&one.allowed)
            && (a < b
                || one.nano < other.nano
                || one.room != other.room
                || one.allowed != other.allowed
                || other.most.is_some())
    };
    let keep: Vec<bool> = kinds
        .iter()
        .enumerate()
        .map(|other| {
            !other.1.allowed.is_clear()
                && other.1.most != Some(0)
                && !kinds.iter().enumerate().any(|one| beats(one, other))
        })
        .collect();
    kinds.into_iter().zip(keep).filter_map(|(kind, keep)| keep.then_some(kind)).collect()
}

pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
