//! Gives up machines that are worth little: their pods move to room that others have left, or that a slightly larger machine
//! would have, where that costs less.

use super::Packer;
use super::join::put;
use super::machine::Bin;
use crate::solve::axes::{Amounts, fits, real};

/// Machines that are tried, at most, and failures in a row after which the rest is left alone.
const TRIED_AT_MOST: usize = 128;
const FAILURES_AT_MOST: usize = 24;

/// Pods of a machine that is tried, at most.
const PODS_AT_MOST: u64 = 64;

/// Machines that are looked at closely for each pod.
const LOOKED_AT: usize = 12;

/// What a machine needs, and the cheapest shape that gives it.
struct State {
    need: Amounts,
    price: u64,
    room: Amounts,
    movable: bool,
}

impl Packer<'_> {
    /// Tries to give up machines from number `from` on, those with least worth for their price first; whether any was.
    pub(super) fn dissolve(&mut self, from: usize) -> bool {
        let count = self.opened.bins.len() - from;
        if count < 2 {
            return false;
        }
        let mut states: Vec<State> = self.opened.bins.iter().map(|bin| self.state(bin)).collect();
        let score = |index: usize| self.worth_of(&states[index].need) / real(states[index].price.max(1));
        // Pods that have to be apart from others keep machines needed: those without any go first.
        let apart = |index: usize| {
            self.opened.bins[index].pods.iter().any(|(piece, _)| {
                self.opened.pieces.get(piece).is_some_and(|one| self.kinds.is_forced(&one.host))
            })
        };
        let mut order: Vec<(bool, f64, usize)> =
            (from..self.opened.bins.len()).map(|index| (apart(index), score(index), index)).collect();
        order.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)).then(b.2.cmp(&a.2)));
        let mut gone = vec![false; self.opened.bins.len()];
        let mut failures = 0;
        for (.., victim) in order.into_iter().take(TRIED_AT_MOST) {
            if failures >= FAILURES_AT_MOST {
                break;
            }
            if self.give_up(victim, &mut states, &gone) {
                gone[victim] = true;
                failures = 0;
            } else {
                failures += 1;
            }
        }
        let any = gone.iter().any(|gone| *gone);
        if any {
            for (index, _) in gone.iter().enumerate().filter(|(_, gone)| **gone) {
                let bin = &self.opened.bins[index];
                let shape = &self.catalog.shapes[bin.shape];
                self.allowance.give_back(shape.pool, &shape.instance_type.capacity);
            }
            let mut index = 0;
            self.opened.bins.retain(|_| {
                index += 1;
                !gone[index - 1]
            });
        }
        any
    }

    fn worth_of(&self, need: &[u64]) -> f64 {
        need.iter().zip(&self.prices).map(|(need, price)| real(*need) * price).sum()
    }

    fn state(&self, bin: &Bin) -> State {
        let mut need = Amounts::from_elem(0, self.catalog.axes.len());
        let full = &self.catalog.shapes[bin.shape].room;
        for (need, (full, left)) in need.iter_mut().zip(full.iter().zip(&bin.room)) {
            *need = full - left.min(full);
        }
        let pool = self.catalog.shapes[bin.shape].pool;
        let aligned =
            |piece: &usize| self.opened.pieces.get(piece).is_some_and(|one| !one.aligned.is_empty());
        let movable = !bin.loose
            && bin.pods.iter().all(|(piece, _)| !self.catalog.aligns || !aligned(piece))
            && bin.reservation.is_none()
            && self.allowance.counts_nodes_only(pool)
            && super::wanted_variety(&self.catalog.pools[pool].pool).is_empty();
        let found = if movable { self.smallest(bin, &need) } else { None };
        match found {
            Some((shape, price)) => {
                let room = self.catalog.shapes[shape].room.iter().zip(&need);
                State { price, room: room.map(|(room, need)| room - need).collect(), need, movable }
            }
            None => State { need, price: 0, room: bin.room.clone(), movable: false },
        }
    }

    /// The cheapest shape for the pods of a machine.
    fn smallest(&self, bin: &Bin, need: &[u64]) -> Option<(usize, u64)> {
        let pool = self.catalog.shapes[bin.shape].pool;
        let mut best: Option<(u64, usize)> = None;
        for (least, index) in &self.catalog.by_price[pool] {
            if best.is_some_and(|(price, _)| price <= least.0) {
                break;
            }
            let (index, shape) = (*index, &self.catalog.shapes[*index]);
            if !fits(need, &shape.room) {
                continue;
            }
            let mask = bin.pods.iter().fold(shape.available & shape.paid, |mask, (piece, _)| {
                mask & self.opened.pieces.get(piece).map_or(0, |one| one.masks[index])
            });
            if let Some(price) = shape.price(mask)
                && best.is_none_or(|(least, _)| price.0 < least)
            {
                best = Some((price.0, index));
            }
        }
        best.map(|(price, shape)| (shape, price))
    }

    /// Moves all pods of a machine to others, where that costs less than the machine.
    fn give_up(&mut self, victim: usize, states: &mut [State], gone: &[bool]) -> bool {
        let bin = self.opened.bins[victim].clone();
        if !states[victim].movable || bin.pods.iter().map(|(_, count)| count).sum::<u64>() > PODS_AT_MOST {
            return false;
        }
        // Where rules force a number of machines, the others can take the rest, and a machine more is not worth a few cents.
        let spare = if self.kinds.has_groups() { states[victim].price / 4 } else { 0 };
        let budget = states[victim].price + spare;
        let mut spent = 0;
        let mut changed: Vec<(usize, Bin, State)> = Vec::new();
        let mut pods: Vec<(usize, u64)> = bin.pods.clone();
        let size =
            |piece: &usize| self.opened.pieces.get(piece).map_or(0.0, |one| self.worth_of(&one.requests));
        pods.sort_by(|a, b| size(&b.0).total_cmp(&size(&a.0)).then(a.0.cmp(&b.0)));
        let mut done = true;
        'pods: for (piece, count) in pods {
            for _ in 0..count {
                let place = self.cheapest_place(piece, victim, states, gone, budget - spent);
                let Some((target, state, more)) = place else {
                    done = false;
                    break 'pods;
                };
                spent += more;
                let old = std::mem::replace(&mut states[target], state);
                changed.push((target, self.opened.bins[target].clone(), old));
                self.grow(target, piece, states);
            }
        }
        // Equal cost and one machine fewer is better too.
        if done && spent <= budget {
            return true;
        }
        for (target, bin, state) in changed.into_iter().rev() {
            self.opened.bins[target] = bin;
            states[target] = state;
        }
        false
    }

    /// Puts one pod on a machine, which becomes the shape of its state.
    fn grow(&mut self, target: usize, piece: usize, states: &[State]) {
        let Some(one) = self.opened.pieces.get(&piece) else { return };
        let bin = &mut self.opened.bins[target];
        put(one, bin, 1);
        let need = states[target].need.clone();
        let bin = self.opened.bins[target].clone();
        if let Some((shape, _)) = self.smallest(&bin, &need) {
            let of_shape = &self.catalog.shapes[shape];
            let room = of_shape.room.iter().zip(&need).map(|(room, need)| room - need).collect();
            let mask = bin.pods.iter().fold(of_shape.available & of_shape.paid, |mask, (piece, _)| {
                mask & self.opened.pieces.get(piece).map_or(0, |one| one.masks[shape])
            });
            let changed = &mut self.opened.bins[target];
            (changed.shape, changed.room, changed.mask) = (shape, room, mask);
        }
    }

    /// The machine that takes one more pod for the least money, its state then, and the money.
    fn cheapest_place(
        &self,
        piece: usize,
        victim: usize,
        states: &[State],
        gone: &[bool],
        budget: u64,
    ) -> Option<(usize, State, u64)> {
        let one = self.opened.pieces.get(&piece)?;
        if one.loose || !one.host.needs.is_empty() || self.catalog.aligns && !one.aligned.is_empty() {
            return None;
        }
        let mut close: Vec<(f64, usize)> = Vec::new();
        for (index, bin) in self.opened.bins.iter().enumerate() {
            let state = &states[index];
            let shape = &self.catalog.shapes[bin.shape];
            let possible = index != victim
                && !gone[index]
                && state.movable
                && shape.tier == one.tier
                && one.masks[bin.shape] & bin.mask != 0
                && (one.host.is_empty() || bin.occupancy.space(&one.host) > 0);
            if !possible {
                continue;
            }
            let missing = one.requests.iter().zip(&state.room).zip(&self.prices);
            let missing: f64 =
                missing.map(|((need, room), price)| real(need.saturating_sub(*room)) * price).sum();
            close.push((missing, index));
        }
        close.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut best: Option<(usize, State, u64)> = None;
        for (_, index) in close.into_iter().take(LOOKED_AT) {
            let (bin, state) = (&self.opened.bins[index], &states[index]);
            let mut need = state.need.clone();
            for (need, more) in need.iter_mut().zip(&one.requests) {
                *need += more;
            }
            for axis in bin.occupancy.volumes_to_attach(&one.host) {
                need[usize::from(axis)] += 1;
            }
            let mut with = bin.clone();
            put(one, &mut with, 1);
            let Some((shape, price)) = self.smallest(&with, &need) else { continue };
            let more = price.saturating_sub(state.price);
            if more > budget || best.as_ref().is_some_and(|(.., least)| more >= *least) {
                continue;
            }
            let room = self.catalog.shapes[shape].room.iter().zip(&need);
            let room = room.map(|(room, need)| room - need).collect();
            best = Some((index, State { need, price, room, movable: true }, more));
            if more == 0 {
                break;
            }
        }
        best
    }
}
