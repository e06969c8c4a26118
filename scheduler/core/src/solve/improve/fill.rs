//! Fills one bin so that the worth of its content is as high as possible: a bounded knapsack with several axes.
//!
//! The linear relaxation gives each axis a price; with these a branch and bound over the items, most worth per room first, finds
//! the best filling or runs out of nodes. Where a bin holds many items, most of the relaxation's answer is taken as given, and only
//! the rest is searched.

use super::model::{Model, small};

/// Searches for one bin at a time; keeps its memory between calls.
#[derive(Debug)]
pub(super) struct Filler<'m> {
    model: &'m Model,
    /// Work done since last asked.
    pub(super) work: u64,
    items: Vec<Candidate>,
    suffix: Vec<f64>,
    efficiency: Vec<f64>,
    room: Vec<u64>,
    group_left: Vec<u64>,
    /// Stack of lists: at each level the candidates that still fit.
    open: Vec<u32>,
    chosen: Vec<(u32, u32)>,
    base: Vec<(u32, u32)>,
    best: f64,
    nodes: u64,
    exhausted: bool,
    relaxed: f64,
    found: Vec<Filling>,
    simplex: Relaxation,
    tail: Tail,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    item: u32,
    worth: f64,
    most: u64,
    /// Its size at the axes' prices.
    size: f64,
    /// Worth of all of them.
    total: f64,
}

/// What a filling is worth, and its items.
pub(super) type Filling = (f64, Vec<(u32, u32)>);

/// What is asked: items worth something, how many of them are there, and what a filling must be worth to be of interest.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask<'a> {
    pub(super) kind: usize,
    pub(super) items: &'a [u32],
    /// By item.
    pub(super) worth: &'a [f64],
    /// By item.
    pub(super) left: &'a [u64],
    pub(super) above: f64,
    pub(super) nodes: u64,
    pub(super) depth: Depth,
}

/// How much of a large bin is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// What the relaxation is sure of is taken as given.
    Rest,
    /// Everything: the only way to know that there is nothing better.
    Whole,
}

/// Items that the search itself decides about, where the rest is taken from the relaxation.
const SEARCHED_UNITS: f64 = 10.0;

impl<'m> Filler<'m> {
    pub(super) fn new(model: &'m Model) -> Self {
        Self {
            model,
            work: 0,
            items: Vec::new(),
            suffix: Vec::new(),
            efficiency: Vec::new(),
            room: Vec::new(),
            group_left: model.group_most.clone(),
            open: Vec::new(),
            chosen: Vec::new(),
            base: Vec::new(),
            best: 0.0,
            nodes: 0,
            exhausted: false,
            relaxed: 0.0,
            found: Vec::new(),
            simplex: Relaxation::default(),
            tail: Tail::default(),
        }
    }

    /// An upper bound at these axis prices: valid for any non-negative prices.
    pub(super) fn bound_at(&mut self, ask: &Ask<'_>, prices: &[f64]) -> f64 {
        let kind = &self.model.kinds[ask.kind];
        let room: f64 = kind.share.iter().zip(prices).map(|(share, price)| share * price).sum();
        self.work += (ask.items.len() * self.model.axes) as u64;
        ask.items.iter().fold(room, |bound, item| {
            let index = *item as usize;
            if ask.left[index] == 0 || ask.worth[index] <= 0.0 || !kind.allowed.contains(index) {
                return bound;
            }
            let size: f64 =
                self.model.share(index).iter().zip(prices).map(|(share, price)| share * price).sum();
            let gain = ask.worth[index] - size;
            if gain > 0.0 {
                bound + gain * super::model::real(ask.left[index].min(self.model.cap[index]))
            } else {
                bound
            }
        })
    }

    /// Fillings worth more than `ask.above`, the best last, and the relaxation's axis prices. Empty where there are none, or
    /// none was found within the nodes.
    pub(super) fn best(&mut self, ask: &Ask<'_>) -> (Vec<Filling>, &[f64]) {
        let model = self.model;
        let kind = &model.kinds[ask.kind];
        let axes = model.axes;
        self.items.clear();
        self.found.clear();
        self.exhausted = false;
        self.tail.states = 0;
        for item in ask.items {
            let index = *item as usize;
            let (left, worth) = (ask.left[index], ask.worth[index]);
            if left == 0 || worth <= 1e-12 || !kind.allowed.contains(index) {
                continue;
            }
            let fit = model.request(index).iter().zip(&kind.room);
            let fit = fit.filter_map(|(need, room)| room.checked_div(*need)).min().unwrap_or(u64::MAX);
            let most = left.min(model.cap[index]).min(fit);
            if most > 0 {
                self.items.push(Candidate { item: *item, worth, most, size: 0.0, total: 0.0 });
            }
        }
        self.work += (ask.items.len() * axes) as u64;
        if self.items.is_empty() {
            self.simplex.prices.clear();
            self.simplex.prices.resize(axes, 0.0);
            self.relaxed = 0.0;
            return (Vec::new(), &self.simplex.prices);
        }
        // Sorting and setting up, besides what is counted where it is done.
        self.work += 300 + 20 * self.items.len() as u64;
        self.work += self.simplex.solve(model, ask.kind, &self.items);
        let prices = &self.simplex.prices;
        let mut bound: f64 = kind.share.iter().zip(prices).map(|(share, price)| share * price).sum();
        for candidate in &mut self.items {
            let share = model.share(candidate.item as usize);
            candidate.size = share.iter().zip(prices).map(|(share, price)| share * price).sum();
            let gain = candidate.worth - candidate.size;
            if gain > 0.0 {
                bound += gain * super::model::real(candidate.most);
            }
        }
        self.relaxed = bound;
        if bound <= ask.above || ask.nodes == 0 {
            self.exhausted = bound > ask.above;
            return (Vec::new(), &self.simplex.prices);
        }
        // What the relaxation is sure of, where there is much of it.
        self.room.clear();
        self.room.extend_from_slice(&kind.room);
        self.group_left.copy_from_slice(&model.group_most);
        self.base.clear();
        let mut base_worth = 0.0;
        let units: f64 = self.simplex.value.iter().sum();
        if ask.depth == Depth::Rest && units > 1.6 * SEARCHED_UNITS {
            let keep = 1.0 - SEARCHED_UNITS / units;
            for (position, candidate) in self.items.iter_mut().enumerate() {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within 0..=most
                let take = (self.simplex.value[position] * keep + 1e-9).floor() as u64;
                let take = take.min(candidate.most).min(room_for(
                    model,
                    candidate.item as usize,
                    &self.room,
                    &self.group_left,
                ));
                if take == 0 {
                    continue;
                }
                use_up(model, candidate.item as usize, take, &mut self.room, &mut self.group_left);
                candidate.most -= take;
                base_worth += candidate.worth * super::model::real(take);
                self.base.push((candidate.item, u32::try_from(take).unwrap_or(u32::MAX)));
            }
        } else {
            // Without a base the bound tells which items cannot be part of anything good enough.
            let spare = bound - ask.above;
            self.items.retain(|candidate| candidate.size - candidate.worth <= spare);
        }
        self.items.retain(|candidate| candidate.most > 0);
        self.items.sort_by(|a, b| {
            (b.worth / b.size.max(1e-12))
                .total_cmp(&(a.worth / a.size.max(1e-12)))
                .then(b.worth.total_cmp(&a.worth))
                .then(a.item.cmp(&b.item))
        });
        let count = self.items.len();
        self.suffix.clear();
        self.suffix.resize(count + 1, 0.0);
        self.efficiency.clear();
        self.efficiency.resize(count + 1, 0.0);
        for (at, candidate) in self.items.iter().enumerate().rev() {
            let gain = (candidate.worth - candidate.size).max(0.0);
            self.suffix[at] = self.suffix[at + 1] + gain * super::model::real(candidate.most);
            self.efficiency[at] =
                if candidate.size > 1e-9 { candidate.worth / candidate.size } else { f64::INFINITY };
            self.efficiency[at] = self.efficiency[at].max(self.efficiency[at + 1]);
        }
        let mut sized: f64 = 0.0;
        for (room, (whole, axis)) in self.room.iter().zip(kind.room.iter().zip(0..axes)) {
            if *whole > 0 {
                sized +=
                    super::model::real(*room) / super::model::real(*whole) * kind.share[axis] * prices[axis];
            }
        }
        self.best = ask.above;
        self.nodes = ask.nodes;
        self.exhausted = !self.base.is_empty();
        self.chosen.clear();
        self.tail.states = 0;
        if ask.depth == Depth::Whole {
            self.work += self.tail.build(model, &self.room, &self.items, prices, &kind.share, &kind.room);
        }
        self.open.clear();
        let mut rest = 0.0;
        for (at, candidate) in self.items.iter_mut().enumerate() {
            candidate.total = candidate.worth * super::model::real(candidate.most);
            if fits(model, candidate.item as usize, &self.room, &self.group_left) {
                self.open.push(small(at));
                rest += candidate.total;
            }
        }
        self.descend(0, base_worth, sized, rest);
        let mut found = std::mem::take(&mut self.found);
        for (_, items) in &mut found {
            items.extend_from_slice(&self.base);
            items.sort_unstable();
            items.dedup_by(|later, first| {
                let same = later.0 == first.0;
                if same {
                    first.1 += later.1;
                }
                same
            });
        }
        (found, &self.simplex.prices)
    }

    /// What the last relaxation says that a filling is worth at most.
    pub(super) fn relaxed(&self) -> f64 {
        self.relaxed
    }

    /// What the last search of a whole bin could have found at most, however long; `None` where that was not worked out.
    pub(super) fn tail_bound(&self) -> Option<f64> {
        (self.tail.states > 0).then(|| self.tail.bound(0, &self.room))
    }

    /// Whether the last search left nothing out.
    pub(super) fn was_exact(&self) -> bool {
        !self.exhausted
    }

    /// Searches what may be added, given the positions `from..` of `open`: items that still fit.
    fn descend(&mut self, from: usize, worth: f64, sized: f64, rest: f64) {
        if worth > self.best + 1e-9 {
            self.best = worth;
            self.found.push((worth, self.chosen.clone()));
        }
        let model = self.model;
        let axes = model.axes as u64;
        let end = self.open.len();
        let mut rest = rest;
        for position in from..end {
            let at = self.open[position] as usize;
            let more = (sized + self.suffix[at]).min(self.efficiency[at] * sized).min(rest);
            if worth + more <= self.best + 1e-9 {
                return;
            }
            if self.tail.states > 0 && worth + self.tail.bound(at, &self.room) <= self.best + 1e-9 {
                return;
            }
            let candidate = self.items[at];
            let index = candidate.item as usize;
            let most = if candidate.most == 1 {
                // What is open fits.
                1
            } else {
                candidate.most.min(room_for(model, index, &self.room, &self.group_left))
            };
            for take in (1..=most).rev() {
                if self.nodes == 0 {
                    self.exhausted = true;
                    return;
                }
                self.nodes -= 1;
                self.work += 2 * axes + 4;
                use_up(model, index, take, &mut self.room, &mut self.group_left);
                self.chosen.push((candidate.item, u32::try_from(take).unwrap_or(u32::MAX)));
                let mut open_worth = 0.0;
                for later in position + 1..end {
                    let next = self.open[later];
                    let other = &self.items[next as usize];
                    if fits(model, other.item as usize, &self.room, &self.group_left) {
                        self.open.push(next);
                        open_worth += other.total;
                    }
                }
                self.work += axes * (end - position) as u64 / 2;
                let times = super::model::real(take);
                let sized = (sized - candidate.size * times).max(0.0);
                self.descend(end, worth + candidate.worth * times, sized, open_worth);
                self.open.truncate(end);
                self.chosen.pop();
                give_back(model, index, take, &mut self.room, &mut self.group_left);
            }
            rest -= candidate.total;
        }
    }
}

fn fits(model: &Model, item: usize, room: &[u64], group_left: &[u64]) -> bool {
    model.request(item).iter().zip(room).all(|(need, room)| need <= room)
        && model.groups_of[item].iter().all(|group| group_left[*group] > 0)
}

pub(super) fn room_for(model: &Model, item: usize, room: &[u64], group_left: &[u64]) -> u64 {
    let fit = model.request(item).iter().zip(room).filter_map(|(need, room)| room.checked_div(*need));
    let groups = model.groups_of[item].iter().map(|group| group_left[*group]);
    fit.chain(groups).min().unwrap_or(u64::MAX)
}

pub(super) fn use_up(model: &Model, item: usize, count: u64, room: &mut [u64], group_left: &mut [u64]) {
    room.iter_mut().zip(model.request(item)).for_each(|(room, need)| *room -= need * count);
    model.groups_of[item].iter().for_each(|group| group_left[*group] -= count);
}

fn give_back(model: &Model, item: usize, count: u64, room: &mut [u64], group_left: &mut [u64]) {
    room.iter_mut().zip(model.request(item)).for_each(|(room, need)| *room += need * count);
    model.groups_of[item].iter().for_each(|group| group_left[*group] += count);
}

/// What the rest of the items could add at most: exact along the axis that matters most, the other axes at their prices.
#[derive(Debug, Default)]
struct Tail {
    axis: usize,
    /// Amounts along the axis are counted in this unit, rounded down: items get smaller, never larger.
    unit: u64,
    /// Zero where there is no table.
    states: usize,
    /// By first item, then units of room.
    value: Vec<f64>,
    /// Price of one unit of each axis, zero for the exact one.
    prices: Vec<f64>,
}

impl Tail {
    const STATES_AT_MOST: u64 = 2_000;

    /// Builds the table; the work done.
    fn build(
        &mut self,
        model: &Model,
        room: &[u64],
        items: &[Candidate],
        prices: &[f64],
        share: &[f64],
        whole: &[u64],
    ) -> u64 {
        self.states = 0;
        let weight = |axis: usize| prices[axis] * share[axis];
        let Some(axis) = (0..model.axes).max_by(|a, b| weight(*a).total_cmp(&weight(*b)).then(b.cmp(a)))
        else {
            return 0;
        };
        let need = |candidate: &Candidate| model.request(candidate.item as usize)[axis];
        let common = items.iter().fold(0, |unit, candidate| super::model::gcd(unit, need(candidate)));
        self.axis = axis;
        self.unit = common.max(room[axis].div_ceil(Self::STATES_AT_MOST)).max(1);
        let Ok(states) = usize::try_from(room[axis] / self.unit + 1) else { return 0 };
        self.prices.clear();
        self.prices.extend((0..model.axes).map(|other| {
            if other == axis || whole[other] == 0 {
                0.0
            } else {
                weight(other) / super::model::real(whole[other])
            }
        }));
        self.value.clear();
        self.value.resize((items.len() + 1) * states, 0.0);
        let mut work = 0;
        for (at, candidate) in items.iter().enumerate().rev() {
            let (before, after) = self.value.split_at_mut((at + 1) * states);
            let row = &mut before[at * states..];
            row.copy_from_slice(&after[..states]);
            let request = model.request(candidate.item as usize);
            let others: f64 =
                request.iter().zip(&self.prices).map(|(need, price)| super::model::real(*need) * price).sum();
            let gain = candidate.worth - others;
            if gain <= 0.0 {
                continue;
            }
            let Ok(size) = usize::try_from(request[axis] / self.unit) else { continue };
            if size == 0 {
                row.iter_mut().for_each(|value| *value += gain * super::model::real(candidate.most));
                continue;
            }
            // So many at once: 1, 2, 4, ... and what remains, so that every count is a sum of them.
            let mut left = candidate.most.min((states / size) as u64);
            let mut piece = 1;
            while left > 0 {
                let take = piece.min(left);
                left -= take;
                piece *= 2;
                let step = size * usize::try_from(take).unwrap_or(usize::MAX);
                let more = gain * super::model::real(take);
                for state in (step..states).rev() {
                    row[state] = row[state].max(row[state - step] + more);
                }
                work += states as u64;
            }
        }
        self.states = states;
        work
    }

    /// At most this much can be added by the items from `at` on.
    fn bound(&self, at: usize, room: &[u64]) -> f64 {
        let state = usize::try_from(room[self.axis] / self.unit).unwrap_or(usize::MAX).min(self.states - 1);
        let others: f64 =
            room.iter().zip(&self.prices).map(|(room, price)| super::model::real(*room) * price).sum();
        self.value[at * self.states + state] + others
    }
}

/// The linear relaxation of filling one bin: a simplex with bounds, one row per axis.
#[derive(Debug, Default)]
struct Relaxation {
    /// Price of each axis at the optimum, never negative.
    prices: Vec<f64>,
    /// How many of each candidate.
    value: Vec<f64>,
    inverse: Vec<f64>,
    /// Basic variables: candidates first, then slacks by axis.
    basis: Vec<usize>,
    basic_value: Vec<f64>,
    basic: Vec<bool>,
    direction: Vec<f64>,
}

impl Relaxation {
    /// Solves it; the work done.
    fn solve(&mut self, model: &Model, kind: usize, items: &[Candidate]) -> u64 {
        let axes = model.axes;
        let count = items.len();
        let mut work = 0;
        self.value.clear();
        self.value.resize(count, 0.0);
        self.inverse.clear();
        self.inverse.resize(axes * axes, 0.0);
        (0..axes).for_each(|axis| self.inverse[axis * axes + axis] = 1.0);
        self.basis.clear();
        self.basis.extend(count..count + axes);
        self.basic.clear();
        self.basic.resize(count + axes, false);
        self.basic[count..].fill(true);
        self.basic_value.clear();
        self.basic_value.extend_from_slice(&model.kinds[kind].share);
        self.direction.resize(axes, 0.0);
        self.prices.clear();
        self.prices.resize(axes, 0.0);
        let worth = |variable: usize| if variable < count { items[variable].worth } else { 0.0 };
        let most = |variable: usize| {
            if variable < count { super::model::real(items[variable].most) } else { f64::INFINITY }
        };
        let scale = items.iter().map(|item| item.worth).fold(0.0, f64::max);
        for _ in 0..4 * (count + axes) {
            // Prices: worth of the basis times the inverse (rows are basis positions).
            self.prices.fill(0.0);
            for (row, variable) in self.basis.iter().enumerate() {
                let worth = worth(*variable);
                if worth > 0.0 {
                    for (price, cell) in
                        self.prices.iter_mut().zip(&self.inverse[row * axes..(row + 1) * axes])
                    {
                        *price += worth * cell;
                    }
                }
            }
            work += (count * axes) as u64;
            let mut best = (1e-9 * scale, None);
            for (position, candidate) in items.iter().enumerate() {
                if self.basic[position] {
                    continue;
                }
                let share = model.share(candidate.item as usize);
                let size: f64 = share.iter().zip(&self.prices).map(|(share, price)| share * price).sum();
                let gain = candidate.worth - size;
                let full = self.value[position] > 0.5;
                let gain = if full { -gain } else { gain };
                // The whole change it would make, at most.
                let change = gain * most(position);
                if gain > 1e-9 * scale && change > best.0 {
                    best = (change, Some(position));
                }
            }
            for axis in 0..axes {
                if !self.basic[count + axis] && -self.prices[axis] > best.0 {
                    best = (-self.prices[axis], Some(count + axis));
                }
            }
            let (_, Some(entering)) = best else { break };
            let down = entering < count && self.value[entering] > 0.5;
            let sign = if down { -1.0 } else { 1.0 };
            for row in 0..axes {
                let inverse = &self.inverse[row * axes..(row + 1) * axes];
                self.direction[row] = if entering < count {
                    let share = model.share(items[entering].item as usize);
                    inverse.iter().zip(share).map(|(cell, share)| cell * share).sum()
                } else {
                    inverse[entering - count]
                };
            }
            let mut step = most(entering);
            let mut leaving: Option<(usize, bool)> = None;
            for row in 0..axes {
                let change = self.direction[row] * sign;
                if change > 1e-10 {
                    let ratio = self.basic_value[row].max(0.0) / change;
                    if ratio < step {
                        step = ratio;
                        leaving = Some((row, false));
                    }
                } else if change < -1e-10 {
                    let limit = most(self.basis[row]);
                    let ratio = (limit - self.basic_value[row]).max(0.0) / -change;
                    if ratio < step {
                        step = ratio;
                        leaving = Some((row, true));
                    }
                }
            }
            if !step.is_finite() {
                break;
            }
            for row in 0..axes {
                self.basic_value[row] -= step * self.direction[row] * sign;
            }
            let Some((row, at_most)) = leaving else {
                self.value[entering] = if down { 0.0 } else { most(entering) };
                continue;
            };
            let old = self.basis[row];
            if old < count {
                self.value[old] = if at_most { most(old) } else { 0.0 };
            }
            self.basic[old] = false;
            self.basic[entering] = true;
            self.basis[row] = entering;
            self.basic_value[row] = if down { most(entering) - step } else { step };
            if entering < count {
                // Set for good at the end; it must not look like being at a bound.
                self.value[entering] = 0.0;
            }
            let pivot = self.direction[row];
            for column in 0..axes {
                self.inverse[row * axes + column] /= pivot;
            }
            for other in 0..axes {
                let factor = self.direction[other];
                if other != row && factor.abs() > 0.0 {
                    for column in 0..axes {
                        self.inverse[other * axes + column] -= factor * self.inverse[row * axes + column];
                    }
                }
            }
            work += (axes * axes) as u64;
        }
        for (row, variable) in self.basis.iter().enumerate() {
            if *variable < count {
                self.value[*variable] = self.basic_value[row].clamp(0.0, most(*variable));
            }
        }
        self.prices.iter_mut().for_each(|price| *price = price.max(0.0));
        work
    }
}
