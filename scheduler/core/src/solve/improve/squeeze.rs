//! Makes everything go into given bins that have next to no room to spare.
//!
//! Everything is put somewhere, evenly, and some bins are then over the room they have. Items move and change places between bins
//! at random; what makes that worse by less than a threshold is taken too, and the threshold sinks to nothing. Bins of many
//! items have so many ways to change two of them that a few parts in a thousand of spare room are usually enough.

use super::model::{Model, real, small};

/// Items in bins, by bin: each item once, with how many.
pub(super) type Contents = Vec<Vec<(u32, u32)>>;

/// Items that bins should hold on average: with fewer there are too few ways to change them.
pub(super) const ITEMS_PER_BIN: u64 = 10;
/// Single items, at most.
const UNITS_AT_MOST: u64 = 20_000;

/// Threshold at the start, as a share of the mean size of an item, and how far it sinks.
const THRESHOLD: f64 = 0.3;
const SINKS_TO: f64 = 1e-3;
/// Exchanged items are of about one size along some axis: so many places apart in that order at the end.
const NEAR: f64 = 8.0;
/// Amounts beyond this could add up to more than numbers hold.
const LARGEST: u64 = 1 << 60;
/// Proposals between two looks at the threshold.
const ROUND: u64 = 256;

struct Squeeze<'m> {
    model: &'m Model,
    bins: &'m [usize],
    /// Single items: which item each is, which bin it is in, and where there.
    item: Vec<u32>,
    bin_of: Vec<u32>,
    place: Vec<u32>,
    /// Single items by bin.
    held: Vec<Vec<u32>>,
    /// Single items in the order of their amount along each axis, and where each is in it.
    order: Vec<Vec<u32>>,
    rank: Vec<Vec<u32>>,
    /// By item and axis.
    need: Vec<i64>,
    /// By bin and axis: what is taken beyond the room, below zero where some is free.
    over: Vec<i64>,
    /// Weight of an amount too much, by axis.
    weight: Vec<f64>,
    /// By bin: all that is too much.
    excess: Vec<f64>,
    /// Axes along which items differ.
    differ: Vec<usize>,
    random: u64,
    work: u64,
}

/// What is in each bin when everything is in these; `None` where that was not found within `steps`. Also the steps done.
///
/// `order` has the items to be packed, largest first. Only for models without groups: see [`applies`].
pub(super) fn squeeze(
    model: &Model,
    left: &[u64],
    order: &[u32],
    bins: &[usize],
    steps: u64,
) -> (Option<Contents>, u64) {
    let all = |axis: usize| {
        let of_item = |item: &u32| model.request(*item as usize)[axis].saturating_mul(left[*item as usize]);
        order.iter().map(of_item).fold(0, u64::saturating_add)
    };
    let largest_room = bins.iter().flat_map(|kind| &model.kinds[*kind].room).max().copied().unwrap_or(0);
    let largest = (0..model.axes).map(all).fold(largest_room, u64::max);
    let units = order.iter().map(|item| left[*item as usize]).fold(0, u64::saturating_add);
    if units > UNITS_AT_MOST || largest > LARGEST {
        return (None, 0);
    }
    let mut squeeze = Squeeze::new(model, bins);
    let done = squeeze.put(left, order) && squeeze.run(steps);
    (done.then(|| squeeze.contents()), squeeze.work)
}

/// Whether items only ask for room: no groups, no limits on how many of one are in a bin.
pub(super) fn applies(model: &Model) -> bool {
    model.groups_of.iter().all(Vec::is_empty)
        && model.cap.iter().zip(&model.count).all(|(cap, count)| cap >= count)
}

impl<'m> Squeeze<'m> {
    fn new(model: &'m Model, bins: &'m [usize]) -> Self {
        let axes = model.axes;
        let over = bins.iter().flat_map(|kind| model.kinds[*kind].room.iter().map(|room| -signed(*room)));
        // As shares of a typical room.
        let weight = (0..axes).map(|axis| {
            let largest = model.kinds.iter().max_by_key(|kind| kind.room[axis]);
            let share = largest
                .filter(|kind| kind.room[axis] > 0)
                .map(|kind| kind.share[axis] / real(kind.room[axis]));
            share.unwrap_or(0.0)
        });
        Self {
            model,
            bins,
            item: Vec::new(),
            bin_of: Vec::new(),
            place: Vec::new(),
            held: vec![Vec::new(); bins.len()],
            order: Vec::new(),
            rank: Vec::new(),
            need: model.requests.iter().map(|need| signed(*need)).collect(),
            over: over.collect(),
            weight: weight.collect(),
            excess: vec![0.0; bins.len()],
            differ: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
            work: 0,
        }
    }

    fn contents(&self) -> Contents {
        let counted = |held: &Vec<u32>| {
            let mut items: Vec<u32> = held.iter().map(|unit| self.item[*unit as usize]).collect();
            items.sort_unstable();
            items.chunk_by(|a, b| a == b).map(|run| (run[0], small(run.len()))).collect()
        };
        self.held.iter().map(counted).collect()
    }

    fn excess_of(&self, bin: usize) -> f64 {
        let axes = self.model.axes;
        let over = &self.over[bin * axes..(bin + 1) * axes];
        over.iter().zip(&self.weight).map(|(over, weight)| amount(*over) * weight).sum()
    }

    /// Puts every item where it keeps bins most evenly full, on every axis alike; whether there is a bin for each.
    fn put(&mut self, left: &[u64], order: &[u32]) -> bool {
        let axes = self.model.axes;
        let room = |bin: usize, axis: usize| real(self.model.kinds[self.bins[bin]].room[axis].max(1));
        let scale: Vec<f64> =
            (0..self.bins.len()).flat_map(|bin| (0..axes).map(move |axis| 1.0 / room(bin, axis))).collect();
        let mut full: Vec<f64> = vec![0.0; self.bins.len() * axes];
        let all: Vec<f64> =
            (0..axes).map(|axis| (0..self.bins.len()).map(|bin| room(bin, axis)).sum()).collect();
        for item in order {
            let index = *item as usize;
            let need: Vec<f64> = self.model.request(index).iter().map(|need| real(*need)).collect();
            for _ in 0..left[index] {
                self.work += (self.bins.len() * (axes + 1)) as u64;
                let mut best: Option<(f64, usize)> = None;
                for bin in (0..self.bins.len()).filter(|bin| self.allowed(index, *bin)) {
                    let mut score = 0.0;
                    for axis in 0..axes {
                        let at = bin * axes + axis;
                        score += need[axis] / all[axis] * (2.0 * full[at] + need[axis] * scale[at]);
                    }
                    if best.is_none_or(|(least, _)| score < least) {
                        best = Some((score, bin));
                    }
                }
                let Some((.., bin)) = best else { return false };
                for axis in 0..axes {
                    full[bin * axes + axis] += need[axis] * scale[bin * axes + axis];
                    self.over[bin * axes + axis] += self.need[index * axes + axis];
                }
                self.bin_of.push(small(bin));
                self.place.push(small(self.held[bin].len()));
                self.held[bin].push(small(self.item.len()));
                self.item.push(*item);
            }
        }
        (0..self.bins.len()).for_each(|bin| self.excess[bin] = self.excess_of(bin));
        for axis in 0..axes {
            let mut order: Vec<u32> = (0..self.item.len()).map(small).collect();
            order.sort_by_key(|unit| (self.need[self.item[*unit as usize] as usize * axes + axis], *unit));
            let need = |unit: u32| self.need[self.item[unit as usize] as usize * axes + axis];
            if order.first().map(|unit| need(*unit)) != order.last().map(|unit| need(*unit)) {
                self.differ.push(axis);
            }
            let mut rank = vec![0; order.len()];
            order.iter().enumerate().for_each(|(at, unit)| rank[*unit as usize] = small(at));
            self.order.push(order);
            self.rank.push(rank);
        }
        true
    }

    fn allowed(&self, item: usize, bin: usize) -> bool {
        self.model.kinds[self.bins[bin]].allowed.contains(item)
    }

    /// What an exchange moves along an axis.
    fn moved(&self, item: usize, returned: Option<usize>, axis: usize) -> i64 {
        let need = |item: usize| self.need[item * self.model.axes + axis];
        need(item) - returned.map_or(0, need)
    }

    fn draw(&mut self, below: usize) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The upper bits, scaled: no division.
        usize::try_from(((self.random >> 32) * below as u64) >> 32).unwrap_or(0)
    }

    fn run(&mut self, steps: u64) -> bool {
        let (axes, bins) = (self.model.axes, self.bins.len());
        let units = self.item.len();
        if units == 0 || bins < 2 {
            return self.excess.iter().all(|excess| *excess <= 0.0);
        }
        let size = |item: &u32| {
            let need = &self.need[*item as usize * axes..(*item as usize + 1) * axes];
            need.iter().zip(&self.weight).map(|(need, weight)| amount(*need) * weight).sum::<f64>()
        };
        let mut threshold = THRESHOLD * self.item.iter().map(size).sum::<f64>() / real(units as u64);
        let each = (8 * axes + 12) as u64;
        let rounds = (steps.saturating_sub(self.work) / each / ROUND).max(1);
        let sinking = SINKS_TO.powf(1.0 / real(rounds));
        let mut too_full: Vec<usize> = Vec::new();
        let mut near = (real(units as u64) / 3.0).max(1.0);
        let nearing = (NEAR / near).min(1.0).powf(1.0 / real(rounds));
        for _ in 0..rounds {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most the items
            let window = near.ceil() as usize;
            too_full.clear();
            too_full.extend((0..bins).filter(|bin| self.excess[*bin] > 0.0));
            if too_full.is_empty() {
                return true;
            }
            for nth in 0..ROUND {
                // Every other time one that is too full, or was a moment ago.
                let bin = if nth % 2 == 0 { too_full[self.draw(too_full.len())] } else { self.draw(bins) };
                self.propose(bin, threshold, window);
            }
            self.work += each * ROUND;
            threshold *= sinking;
            near *= nearing;
        }
        self.excess.iter().all(|excess| *excess <= 0.0)
    }

    /// Moves an item from a bin to another, or exchanges two, unless that makes things worse by more than `threshold`.
    fn propose(&mut self, bin: usize, threshold: f64, window: usize) {
        let axes = self.model.axes;
        if self.held[bin].is_empty() {
            return;
        }
        let at = self.draw(self.held[bin].len());
        let out = self.held[bin][at] as usize;
        let kind = self.draw(8);
        let (other, back) = if kind < 4 && !self.differ.is_empty() {
            // One of about the same amount along some axis.
            let nth = self.draw(self.differ.len());
            let axis = self.differ[nth];
            let rank = self.rank[axis][out] as usize;
            let from = rank.saturating_sub(window);
            let to = (rank + window).min(self.item.len() - 1);
            let nth = from + self.draw(to - from + 1);
            let back = self.order[axis][nth] as usize;
            (self.bin_of[back] as usize, Some(back))
        } else {
            let other = self.draw(self.bins.len());
            let held = self.held[other].len();
            if kind < 6 && held > 0 {
                let nth = self.draw(held);
                (other, Some(self.held[other][nth] as usize))
            } else {
                (other, None)
            }
        };
        let item = self.item[out] as usize;
        let returned = back.map(|back| self.item[back] as usize);
        let barred = |item: usize| !self.allowed(item, bin);
        if other == bin
            || returned == Some(item)
            || !self.allowed(item, other)
            || returned.is_some_and(barred)
        {
            return;
        }
        let allowed = self.excess[bin] + self.excess[other] + threshold;
        let (mut here, mut there) = (0.0, 0.0);
        for axis in 0..axes {
            let moved = self.moved(item, returned, axis);
            here += amount(self.over[bin * axes + axis] - moved) * self.weight[axis];
            there += amount(self.over[other * axes + axis] + moved) * self.weight[axis];
        }
        if here + there > allowed {
            return;
        }
        for axis in 0..axes {
            let moved = self.moved(item, returned, axis);
            self.over[bin * axes + axis] -= moved;
            self.over[other * axes + axis] += moved;
        }
        (self.excess[bin], self.excess[other]) = (here, there);
        match back {
            Some(back) => {
                let there = self.place[back] as usize;
                self.held[bin][at] = small(back);
                self.held[other][there] = small(out);
                self.place.swap(out, back);
                self.bin_of.swap(out, back);
            }
            None => {
                self.held[bin].swap_remove(at);
                if let Some(moved) = self.held[bin].get(at) {
                    self.place[*moved as usize] = small(at);
                }
                self.place[out] = small(self.held[other].len());
                self.held[other].push(small(out));
                self.bin_of[out] = small(other);
            }
        }
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

#[allow(clippy::cast_precision_loss)] // for weighing only; its sign is exact
fn amount(over: i64) -> f64 {
    over.max(0) as f64
}
