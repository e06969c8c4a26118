//! Fills one machine in thought.

use smallvec::SmallVec;

use super::kinds::{Kind, Wide};
use super::{Candidate, Filling, Packer};
use crate::requirement::Requirements;
use crate::solve::axes::{fits, real, take, times};
use crate::solve::host::Occupancy;
use crate::solve::numa::NumaRoom;

/// Kinds of pods considered for one machine, at most, spread evenly over their worth: when nearly every pod is its own kind,
/// looking at all of them for every machine would cost far more than it saves.
const KINDS_AT_MOST: usize = 96;

/// What would be on a machine.
#[derive(Debug)]
pub(super) struct Filled {
    /// Pods by demand, ascending.
    pub(super) counts: Vec<(usize, u64)>,
    pub(super) mask: u64,
    pub(super) worth: f64,
    pub(super) room: Wide,
    pub(super) occupancy: Occupancy,
    numa: Option<NumaRoom>,
}

/// A kind that may still go into the machine being filled.
struct Open {
    kind: usize,
    key: f64,
    used: u64,
}

/// A machine being filled.
pub(super) struct Filler<'p, 'a> {
    packer: &'p Packer<'a>,
    shape: usize,
    pub(super) filled: Filled,
    joint: Option<Requirements>,
}

impl<'p, 'a> Filler<'p, 'a> {
    pub(super) fn new(packer: &'p Packer<'a>, candidate: &Candidate) -> Self {
        let shape = &packer.catalog.shapes[candidate.shape];
        let filled = Filled {
            counts: Vec::new(),
            mask: candidate.mask,
            worth: 0.0,
            room: packer.kinds.room(shape),
            occupancy: shape.occupancy.clone(),
            numa: shape.numa.clone(),
        };
        Self { packer, shape: candidate.shape, filled, joint: None }
    }

    fn used(&self, demand: usize) -> u64 {
        self.filled.counts.iter().find(|(one, _)| *one == demand).map_or(0, |(_, count)| *count)
    }

    /// Puts up to `most` pods of a demand on the machine; how many went.
    pub(super) fn add(&mut self, demand: usize, amounts: &[u64], most: u64, starts: Option<u32>) -> u64 {
        let one = &self.packer.demands[demand];
        let mask = self.filled.mask & one.masks[self.shape];
        let most = most.min(self.packer.left[demand] - self.used(demand));
        if mask == 0 || most == 0 {
            return 0;
        }
        let most = if one.host.is_empty() {
            most.min(times(amounts, &self.filled.room))
        } else {
            let there = |group: u32| self.filled.occupancy.count(group) > 0 || starts == Some(group);
            if !one.host.needs.iter().all(|need| there(need.group)) {
                return 0;
            }
            let volumes: SmallVec<[u16; 2]> = self.filled.occupancy.volumes_to_attach(&one.host).collect();
            if volumes.is_empty() {
                most.min(times(amounts, &self.filled.room)).min(self.filled.occupancy.space(&one.host))
            } else {
                let mut room = self.filled.room.clone();
                for axis in &volumes {
                    if room[usize::from(*axis)] == 0 {
                        return 0;
                    }
                    room[usize::from(*axis)] -= 1;
                }
                let count = most.min(times(amounts, &room)).min(self.filled.occupancy.space(&one.host));
                if count > 0 {
                    self.filled.room = room;
                }
                count
            }
        };
        if most == 0 {
            return 0;
        }
        let most = match &mut self.filled.numa {
            Some(numa) if !one.aligned.is_empty() => {
                (0..most).take_while(|_| numa.take(&one.aligned)).count() as u64
            }
            _ => most,
        };
        if most == 0 {
            return 0;
        }
        if one.loose {
            let shape = &self.packer.catalog.shapes[self.shape];
            let both = self.joint.get_or_insert_default().intersect(&one.requirements);
            if both.iter().any(|(key, set)| shape.mask_of(key, set) == 0) {
                return 0;
            }
            self.joint = Some(both);
        }
        take(&mut self.filled.room, amounts, most);
        if !one.host.is_empty() {
            self.filled.occupancy.add(&one.host, most);
        }
        self.filled.mask = mask;
        match self.filled.counts.iter_mut().find(|(one, _)| *one == demand) {
            Some((_, count)) => *count += most,
            None => self.filled.counts.push((demand, most)),
        }
        most
    }

    /// Puts up to `most` pods of a kind on the machine; how many went.
    fn add_kind(&mut self, kind: &Kind, most: u64) -> u64 {
        let mut added = 0;
        for demand in &kind.members {
            if added == most {
                break;
            }
            if self.packer.left[*demand] > 0 {
                added += self.add(*demand, &kind.amounts, most - added, None);
            }
        }
        added
    }
}

impl Packer<'_> {
    /// Fills one machine.
    pub(super) fn fill(&self, candidate: &Candidate) -> Filled {
        self.fill_from(candidate, &[], None)
    }

    /// Fills one machine, `seeds` (demand and count) first, on which group `starts` may have its first pods.
    pub(super) fn fill_from(
        &self,
        candidate: &Candidate,
        seeds: &[(usize, u64)],
        starts: Option<u32>,
    ) -> Filled {
        let shape = &self.catalog.shapes[candidate.shape];
        let full = self.kinds.room(shape);
        let mut filler = Filler::new(self, candidate);
        for (demand, count) in seeds {
            let kind = self.kinds.kind_of(*demand);
            let added = filler.add(*demand, &self.kinds.list[kind].amounts, *count, starts);
            filler.filled.worth += self.worth[kind] * real(added);
        }
        let share = |kind: &Kind| {
            let shares = kind.amounts.iter().zip(&full).filter(|(_, room)| **room > 0);
            shares.map(|(need, room)| real(*need) / real(*room)).fold(0.0, f64::max)
        };
        let eligible = |index: &usize| {
            let kind = &self.kinds.list[*index];
            kind.left > 0
                && kind.masks[candidate.shape] & candidate.mask != 0
                && fits(&kind.amounts, &filler.filled.room)
        };
        let stride = self.active.len().div_ceil(KINDS_AT_MOST).max(1);
        let mut waiting: Vec<usize> = self.active.iter().copied().step_by(stride).filter(eligible).collect();
        if stride > 1 && waiting.len() < KINDS_AT_MOST / 4 {
            waiting = self.active.iter().copied().filter(eligible).collect();
            let stride = waiting.len().div_ceil(KINDS_AT_MOST).max(1);
            waiting = waiting.into_iter().step_by(stride).collect();
        }
        let open = waiting.into_iter().map(|kind| {
            let key = match self.filling {
                Filling::Largest => share(&self.kinds.list[kind]),
                _ => self.worth[kind],
            };
            Open { kind, key, used: 0 }
        });
        let mut open: Vec<Open> = open.collect();
        let ordered = matches!(self.filling, Filling::Dearest | Filling::Largest);
        if ordered {
            open.sort_by(|a, b| a.key.total_cmp(&b.key).then(b.kind.cmp(&a.kind)));
        }
        while !open.is_empty() {
            // The last is taken out fastest: where order counts, the list is sorted with the first to go at its end.
            let position =
                if ordered { open.len() - 1 } else { self.most_aligned(&open, &filler.filled.room, &full) };
            let kind = &self.kinds.list[open[position].kind];
            let most = times(&kind.amounts, &filler.filled.room).min(kind.left - open[position].used);
            // In steps, so that the direction is looked at again while there is still room to correct it.
            let step = if ordered { most } else { most.div_ceil(4) };
            let added = if step == 0 { 0 } else { filler.add_kind(kind, step) };
            open[position].used += added;
            filler.filled.worth += self.worth[open[position].kind] * real(added);
            if added < step || step == 0 || open[position].used == kind.left {
                open.swap_remove(position);
            }
        }
        filler.filled.counts.sort_unstable();
        filler.filled
    }

    /// Position in `open` of the kind that points most where room is left (Panigrahy's dot product).
    fn most_aligned(&self, open: &[Open], room: &[u64], full: &[u64]) -> usize {
        let weights: SmallVec<[f64; 16]> = (0..room.len())
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
            let amounts = &self.kinds.list[one.kind].weights;
            let score: f64 = weights.iter().zip(amounts).map(|(weight, amount)| weight * amount).sum();
            if score > best.0 {
                best = (score, position);
            }
        }
        best.1
    }
}
