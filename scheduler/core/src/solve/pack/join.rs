//! Room left in machines of earlier calls: it is planned already, so it is used before more is bought.

use super::Packer;
use super::machine::Bin;
use crate::solve::axes::{take, times};
use crate::solve::catalog::Shape;

impl Packer<'_> {
    /// Puts pods on the first `joined` machines that are open, as far as there is room.
    pub(super) fn join(&mut self, joined: usize) {
        if joined == 0 {
            return;
        }
        for demand in 0..self.demands.len() {
            for bin in 0..joined {
                if self.left[demand] == 0 {
                    break;
                }
                let count = self.joins(demand, &self.opened.bins[bin]).min(self.left[demand]);
                if count > 0 {
                    let added = self.add_to(bin, self.demands[demand].piece, count);
                    self.left[demand] -= added;
                    self.kinds.take(demand, added);
                }
            }
        }
    }

    /// How many pods of a demand a machine takes besides those it has.
    fn joins(&self, demand: usize, bin: &Bin) -> u64 {
        let one = &self.demands[demand];
        let shape = &self.catalog.shapes[bin.shape];
        if shape.tier != one.tier
            || bin.mask & one.masks[bin.shape] == 0
            || times(&one.requests, &bin.room) == 0
            || one.loose && !agrees(one, bin, shape)
            // What is left of its NUMA nodes is not kept.
            || shape.numa.is_some() && !one.aligned.is_empty()
        {
            return 0;
        }
        room_beside(one, bin)
    }

    /// Puts pods of a piece on a machine that has room for them; how many went.
    pub(super) fn add_to(&mut self, bin: usize, piece: usize, count: u64) -> u64 {
        let Some(one) = self.opened.pieces.get(&piece) else { return 0 };
        let before = self.opened.bins[bin].clone();
        let bin_now = &mut self.opened.bins[bin];
        put(one, bin_now, count);
        if !self.is_varied_bin(&self.opened.bins[bin]) {
            self.opened.bins[bin] = before;
            return 0;
        }
        count
    }
}

/// Whether there is a value that all can agree on, for each label that the machine could get more than one value of.
fn agrees(one: &super::Demand, bin: &Bin, shape: &Shape) -> bool {
    let both = bin.requirements.intersect(&one.requirements);
    both.iter().all(|(key, set)| !set.is_empty() && shape.offered.could_satisfy(key, set))
}

/// How many pods of a demand fit beside those that a machine has, by room and by rules.
pub(super) fn room_beside(one: &super::Demand, bin: &Bin) -> u64 {
    if one.host.is_empty() {
        return times(&one.requests, &bin.room);
    }
    if bin.occupancy.missing(&one.host).is_some() {
        return 0;
    }
    let mut room = bin.room.clone();
    for axis in bin.occupancy.volumes_to_attach(&one.host) {
        let left = &mut room[usize::from(axis)];
        if *left == 0 {
            return 0;
        }
        *left -= 1;
    }
    times(&one.requests, &room).min(bin.occupancy.space(&one.host))
}

/// Counts pods on a machine.
pub(super) fn put(one: &super::Demand, bin: &mut Bin, count: u64) {
    let axes: Vec<u16> = bin.occupancy.volumes_to_attach(&one.host).collect();
    for axis in axes {
        let left = &mut bin.room[usize::from(axis)];
        *left = left.saturating_sub(1);
    }
    take(&mut bin.room, &one.requests, count);
    bin.occupancy.add(&one.host, count);
    bin.mask &= one.masks[bin.shape];
    bin.loose |= one.loose;
    if !one.requirements.is_empty() {
        bin.requirements = bin.requirements.intersect(&one.requirements);
    }
    match bin.pods.iter_mut().find(|(piece, _)| *piece == one.piece) {
        Some((_, held)) => *held += count,
        None => {
            bin.pods.push((one.piece, count));
            bin.pods.sort_unstable();
        }
    }
}
