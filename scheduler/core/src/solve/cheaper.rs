//! Makes planned machines cheaper: those whose pods ask nothing of each other are packed again, all together, by [`improve`].
//!
//! Pods that take the same and may use the same offerings become one item, every shape at each of its prices one kind of bin.
//! Machines with other rules (constraints between their pods, labels they agree on, reservations, `minValues`) stay as they
//! are, and so do all where the cheaper ones would be over a limit.

use std::sync::Arc;

use assay_shared::units::UsdPerHour;
use fixedbitset::FixedBitSet;
use rustc_hash::{FxHashMap, FxHashSet};

use super::Solver;
use super::classes::Class;
use super::host::HostRules;
use super::improve::{BinKind, Item, Packed, Problem, improve};
use super::limits::Allowance;
use super::pack::{Bin, wanted_variety};
use super::run::Outcome;
use super::settle::Piece;
use super::topology::GroupId;
use crate::requirement::Requirements;

/// Items beyond which another packing takes longer than it is worth.
const ITEMS_AT_MOST: usize = 4_096;

/// Work of the optimiser for each unit of problem size (items times kinds of bins, or times items where there are more), at most:
/// small problems end sooner.
const STEPS_PER_UNIT: u64 = 40_000;

/// A packing further above the lower bound than one part in so many is tried from nothing too.
const FAR: u64 = 66;

/// Pods that are packed alike.
struct Alike {
    pieces: Vec<usize>,
    masks: Arc<Vec<u64>>,
    requests: Vec<u64>,
}

/// Groups of which some pod that a machine is bought for tolerates only so many beside it.
fn limited_groups(pieces: &[Piece]) -> FxHashSet<GroupId> {
    let with_pods = pieces.iter().filter(|piece| piece.count > 0);
    with_pods
        .flat_map(|piece| piece.host.at_most.iter().chain(&piece.host.spread).map(|(group, _)| *group))
        .collect()
}

impl Solver {
    /// Packs an outcome's machines again, tier by tier, where that is cheaper.
    pub(super) fn make_cheaper(&self, classes: &[Class<'_>], outcome: &mut Outcome, steps: u64) {
        let tiers = self.catalog.pools.last().map_or(0, |pool| pool.tier + 1);
        let limited = limited_groups(&outcome.settled.pieces);
        for tier in 0..tiers {
            let (mine, others): (Vec<Bin>, Vec<Bin>) =
                std::mem::take(&mut outcome.bins).into_iter().partition(|bin| {
                    self.may_be_packed_again(classes, bin, &outcome.settled.pieces, &limited, tier)
                });
            outcome.bins = others;
            let better = self.packed_again(classes, &outcome.settled.pieces, &mine, tier, steps);
            let kept = better.and_then(|better| {
                let allowance = self.allowed(&outcome.allowance, &mine, &better)?;
                outcome.allowance = allowance;
                Some(better)
            });
            outcome.bins.extend(kept.unwrap_or(mine));
        }
    }

    /// What pools may still buy with `better` in place of `old`; `None` where that is over a limit.
    fn allowed(&self, allowance: &Allowance, old: &[Bin], better: &[Bin]) -> Option<Allowance> {
        let mut allowance = allowance.clone();
        let machine = |bin: &Bin| {
            let shape = &self.catalog.shapes[bin.shape];
            (shape.pool, &shape.instance_type.capacity)
        };
        for (pool, capacity) in old.iter().map(machine) {
            allowance.give_back(pool, capacity);
        }
        for (pool, capacity) in better.iter().map(machine) {
            if allowance.machines(pool, capacity) == 0 {
                return None;
            }
            allowance.buy(pool, capacity, 1);
        }
        Some(allowance)
    }

    fn may_be_packed_again(
        &self,
        classes: &[Class<'_>],
        bin: &Bin,
        pieces: &[Piece],
        limited: &FxHashSet<GroupId>,
        tier: usize,
    ) -> bool {
        let is_free = |host: &HostRules| {
            !host.binds()
                && host.counted.iter().all(|group| !limited.contains(group) && !self.topology.is_port(*group))
        };
        let shape = &self.catalog.shapes[bin.shape];
        shape.tier == tier
            && bin.is_plain()
            && wanted_variety(&self.catalog.pools[shape.pool].pool).is_empty()
            && bin.pods.iter().all(|(piece, _)| {
                let piece = &pieces[*piece];
                is_free(&piece.host) && (!self.catalog.aligns || classes[piece.class].spec.aligned.is_empty())
            })
    }

    /// A cheaper packing of what is in `bins`.
    fn packed_again(
        &self,
        classes: &[Class<'_>],
        pieces: &[Piece],
        bins: &[Bin],
        tier: usize,
        steps: u64,
    ) -> Option<Vec<Bin>> {
        if bins.is_empty() || steps == 0 {
            return None;
        }
        let mut alike: Vec<Alike> = Vec::new();
        let mut items: FxHashMap<(&[u64], usize), usize> = FxHashMap::default();
        let mut item_of: FxHashMap<usize, usize> = FxHashMap::default();
        let mut counts: Vec<u64> = Vec::new();
        // Pods left of each piece, to be handed out again.
        let mut left: FxHashMap<usize, u64> = FxHashMap::default();
        for (piece, count) in bins.iter().flat_map(|bin| &bin.pods) {
            let item = *item_of.entry(*piece).or_insert_with(|| {
                let one = &pieces[*piece];
                let requests = &classes[one.class].requests;
                let item = *items.entry((requests, Arc::as_ptr(&one.masks).addr())).or_insert_with(|| {
                    let masks = Arc::clone(&one.masks);
                    alike.push(Alike { pieces: Vec::new(), masks, requests: requests.to_vec() });
                    counts.push(0);
                    alike.len() - 1
                });
                alike[item].pieces.push(*piece);
                item
            });
            counts[item] += count;
            *left.entry(*piece).or_default() += count;
        }
        if alike.len() > ITEMS_AT_MOST {
            return None;
        }
        let (kinds, of_kind) = self.kinds(&alike, tier);
        let mut problem = Problem { items: Vec::new(), bins: kinds, groups: Vec::new() };
        for (one, count) in alike.iter().zip(&counts) {
            let mut allowed = FixedBitSet::with_capacity(of_kind.len());
            for (kind, (shape, mask)) in of_kind.iter().enumerate() {
                allowed.set(kind, one.masks[*shape] & mask == *mask);
            }
            problem.items.push(Item {
                requests: one.requests.clone(),
                count: *count,
                bins: allowed,
                groups: Vec::new(),
            });
        }
        let start = self.start(bins, &item_of, &problem, &of_kind).unwrap_or_default();
        let items = problem.items.len() as u64;
        let size = items.saturating_mul(items.max(problem.bins.len() as u64));
        let steps = steps.min(size.saturating_mul(STEPS_PER_UNIT).max(10_000_000));
        let old: UsdPerHour =
            bins.iter().filter_map(|bin| self.catalog.shapes[bin.shape].price(bin.mask)).sum();
        let mut improved = improve(&problem, &start, steps);
        // Where a start holds the search back, one from nothing may find what it cannot.
        let far =
            |cost: UsdPerHour| cost.0 > improved.lower_bound.0.saturating_add(improved.lower_bound.0 / FAR);
        if !start.is_empty() && far(problem.cost(&improved.packing)) {
            let fresh = improve(&problem, &[], steps / 2);
            let cheaper = problem.cost(&fresh.packing) < problem.cost(&improved.packing);
            if cheaper && !fresh.packing.is_empty() {
                improved = fresh;
            }
        }
        let machines: u64 = improved.packing.iter().map(|packed| packed.times).sum();
        let better = (problem.cost(&improved.packing), machines) < (old, bins.len() as u64);
        if improved.packing.is_empty() || !better {
            return None;
        }
        Some(self.hand_out(pieces, &alike, &improved.packing, &of_kind, left))
    }

    /// Every shape with each set of offerings of one price that items tell apart, and what bit set that is.
    fn kinds(&self, alike: &[Alike], tier: usize) -> (Vec<BinKind>, Vec<(usize, u64)>) {
        let (mut kinds, mut of_kind) = (Vec::new(), Vec::new());
        for (index, shape) in self.catalog.shapes.iter().enumerate().filter(|(_, shape)| shape.tier == tier) {
            if !wanted_variety(&self.catalog.pools[shape.pool].pool).is_empty() {
                continue;
            }
            let wanted =
                alike.iter().fold(0, |mask, one| mask | one.masks[index]) & shape.available & shape.paid;
            // Offerings of one price that every item allows or forbids alike are one.
            let mut groups: Vec<(UsdPerHour, u64)> = Vec::new();
            for (bit, offering) in
                shape.offerings.iter().enumerate().filter(|(bit, _)| wanted & (1 << bit) != 0)
            {
                let one = 1_u64 << bit;
                let same = groups.iter_mut().find(|(price, mask)| {
                    *price == offering.price
                        && alike
                            .iter()
                            .all(|item| (item.masks[index] & one != 0) == (item.masks[index] & *mask != 0))
                });
                match same {
                    Some((_, mask)) => *mask |= one,
                    None => groups.push((offering.price, one)),
                }
            }
            for (price, mask) in groups {
                kinds.push(BinKind { room: shape.room.to_vec(), price, most: None });
                of_kind.push((index, mask));
            }
        }
        (kinds, of_kind)
    }

    /// The packing that there is, in the words of the problem.
    fn start(
        &self,
        bins: &[Bin],
        item_of: &FxHashMap<usize, usize>,
        problem: &Problem,
        of_kind: &[(usize, u64)],
    ) -> Option<Vec<Packed>> {
        let mut start: Vec<Packed> = Vec::new();
        for bin in bins {
            let mut items: Vec<(usize, u64)> = Vec::new();
            for (piece, count) in &bin.pods {
                let item = *item_of.get(piece)?;
                match items.iter_mut().find(|(one, _)| *one == item) {
                    Some((_, held)) => *held += count,
                    None => items.push((item, *count)),
                }
            }
            items.sort_unstable();
            if let Some(last) = start.last_mut().filter(|last| last.items == items) {
                last.times += 1;
                continue;
            }
            let holds = |kind: usize| {
                items.iter().all(|(item, _)| problem.items[*item].bins.contains(kind))
                    && (0..problem.bins[kind].room.len()).all(|axis| {
                        let need =
                            items.iter().map(|(item, count)| problem.items[*item].requests[axis] * count);
                        need.sum::<u64>() <= problem.bins[kind].room[axis]
                    })
            };
            let kind = (0..of_kind.len())
                .filter(|kind| holds(*kind))
                .min_by_key(|kind| problem.bins[*kind].price)?;
            start.push(Packed { kind, items, times: 1 });
        }
        Some(start)
    }

    /// Bins of a packing: the pods of an item come from its pieces in order.
    fn hand_out(
        &self,
        pieces: &[Piece],
        alike: &[Alike],
        packing: &[Packed],
        of_kind: &[(usize, u64)],
        mut left: FxHashMap<usize, u64>,
    ) -> Vec<Bin> {
        let mut bins = Vec::new();
        for packed in packing {
            let (shape, mask) = of_kind[packed.kind];
            for _ in 0..packed.times {
                let mut pods: Vec<(usize, u64)> = Vec::new();
                for (item, count) in &packed.items {
                    let mut missing = *count;
                    for piece in &alike[*item].pieces {
                        let held = left.entry(*piece).or_default();
                        let taken = missing.min(*held);
                        if taken > 0 {
                            *held -= taken;
                            missing -= taken;
                            pods.push((*piece, taken));
                        }
                        if missing == 0 {
                            break;
                        }
                    }
                }
                pods.sort_unstable();
                let mut requirements = Requirements::new();
                for (piece, _) in pods.iter().filter(|(piece, _)| !pieces[*piece].requirements.is_empty()) {
                    requirements = requirements.intersect(&pieces[*piece].requirements);
                }
                bins.push(Bin::planned(shape, mask, pods, requirements));
            }
        }
        bins
    }
}
