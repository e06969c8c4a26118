//! Demands that are interchangeable when a machine is filled: equal amounts, equal offerings.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Demand;
use crate::solve::axes::{Amounts, real};
use crate::solve::catalog::{Catalog, Shape};
use crate::solve::host::HostRules;

/// An amount per resource axis, then per group axis.
pub(super) type Wide = SmallVec<[u64; 16]>;

/// Groups that become axes, at most: those that need most machines.
const GROUP_AXES: usize = 6;

/// One kind.
#[derive(Debug)]
pub(super) struct Kind {
    pub(super) amounts: Wide,
    pub(super) weights: SmallVec<[f64; 16]>,
    pub(super) masks: Arc<Vec<u64>>,
    /// Demands of the kind, those with pods left first.
    pub(super) members: Vec<usize>,
    pub(super) left: u64,
}

/// All kinds, and the axes they are measured in.
#[derive(Debug)]
pub(super) struct Kinds {
    pub(super) list: Vec<Kind>,
    of_demand: Vec<usize>,
    /// Groups that are axes, with how many of their pods one machine may hold.
    groups: Vec<(u32, u32)>,
    resources: usize,
}

impl Kinds {
    pub(super) fn of(catalog: &Catalog, demands: &[Demand], ranks: &[u32]) -> Self {
        let groups = group_axes(demands, ranks);
        let resources = catalog.axes.len();
        let mut list: Vec<Kind> = Vec::new();
        let mut numbers: FxHashMap<(Wide, usize, usize), usize> = FxHashMap::default();
        let mut of_demand = Vec::with_capacity(demands.len());
        for (index, demand) in demands.iter().enumerate() {
            let mut amounts: Wide = demand.requests.iter().copied().collect();
            let counted = |group: &u32| demand.host.counted.binary_search(group).is_ok();
            amounts.extend(groups.iter().map(|(group, _)| u64::from(counted(group))));
            // Pods that must agree on labels are kept apart by what they ask for.
            let asks = if demand.loose { Arc::as_ptr(&demand.requirements).addr() } else { 0 };
            let key = (amounts, Arc::as_ptr(&demand.masks).addr(), asks);
            let number = *numbers.entry(key).or_insert_with_key(|(amounts, ..)| {
                list.push(Kind {
                    amounts: amounts.clone(),
                    weights: amounts.iter().map(|amount| real(*amount)).collect(),
                    masks: Arc::clone(&demand.masks),
                    members: Vec::new(),
                    left: 0,
                });
                list.len() - 1
            });
            list[number].members.push(index);
            list[number].left += demand.count;
            of_demand.push(number);
        }
        Self { list, of_demand, groups, resources }
    }

    /// Takes pods of a demand off the list.
    pub(super) fn take(&mut self, demand: usize, count: u64) {
        self.list[self.of_demand[demand]].left -= count;
    }

    /// Kinds of which something is left.
    pub(super) fn with_pods(&self) -> Vec<usize> {
        (0..self.list.len()).filter(|kind| self.list[*kind].left > 0).collect()
    }

    /// What a new machine of a shape has, group axes included.
    pub(super) fn room(&self, shape: &Shape) -> Wide {
        let mut room: Wide = shape.room.iter().copied().collect();
        room.extend(
            self.groups
                .iter()
                .map(|(group, most)| u64::from(most.saturating_sub(shape.occupancy.count(*group)))),
        );
        room
    }

    /// The sum of what is left.
    pub(super) fn total(&self, active: &[usize]) -> Wide {
        let mut total = Wide::from_elem(0, self.resources + self.groups.len());
        for kind in active.iter().map(|kind| &self.list[*kind]) {
            for (total, one) in total.iter_mut().zip(&kind.amounts) {
                *total = total.saturating_add(one.saturating_mul(kind.left));
            }
        }
        total
    }

    /// For each list of offerings, the least that any active kind of it asks for, axis by axis.
    pub(super) fn smallest_by_list(&self, active: &[usize]) -> Vec<(Arc<Vec<u64>>, Amounts)> {
        let mut found: Vec<(Arc<Vec<u64>>, Amounts)> = Vec::new();
        let mut numbers: FxHashMap<usize, usize> = FxHashMap::default();
        for kind in active.iter().map(|kind| &self.list[*kind]) {
            let own = &kind.amounts[..self.resources];
            let number = *numbers.entry(Arc::as_ptr(&kind.masks).addr()).or_insert_with(|| {
                found.push((Arc::clone(&kind.masks), own.iter().copied().collect()));
                found.len() - 1
            });
            for (least, one) in found[number].1.iter_mut().zip(own) {
                *least = (*least).min(*one);
            }
        }
        found
    }

    /// What a pod of each kind is worth at these prices.
    pub(super) fn worth(&self, prices: &[f64]) -> Vec<f64> {
        self.list
            .iter()
            .map(|kind| kind.weights.iter().zip(prices).map(|(one, price)| one * price).sum())
            .collect()
    }

    /// What the room of a machine is worth.
    pub(super) fn worth_of_room(&self, prices: &[f64], shape: &Shape) -> f64 {
        let groups = self.groups.iter().map(|(_, most)| u64::from(*most));
        shape.room.iter().copied().chain(groups).zip(prices).map(|(room, price)| real(room) * price).sum()
    }
}

/// Groups of which every pod allows the same number on one machine, by the machines they need, most first.
fn group_axes(demands: &[Demand], ranks: &[u32]) -> Vec<(u32, u32)> {
    // Pods, their common limit, whether there is one.
    let mut groups: FxHashMap<u32, (u64, Option<u32>)> = FxHashMap::default();
    for demand in demands {
        for group in &demand.host.counted {
            let own = demand.host.limits().filter(|(one, _)| one == group).map(|(_, most)| *most).min();
            let entry = groups.entry(*group).or_insert((0, own));
            entry.0 += demand.count;
            if entry.1 != own {
                entry.1 = None;
            }
        }
    }
    let mut found: Vec<(u64, u32, u32)> = groups
        .into_iter()
        .filter_map(|(group, (pods, most))| {
            let most = most.filter(|most| *most > 0)?;
            Some((pods.div_ceil(u64::from(most)), group, most))
        })
        .filter(|(machines, ..)| *machines > 1)
        .collect();
    found.sort_unstable_by_key(|(machines, group, _)| (std::cmp::Reverse(*machines), ranks[*group as usize]));
    found.into_iter().take(GROUP_AXES).map(|(_, group, most)| (group, most)).collect()
}

impl Kinds {
    /// The kind of a demand.
    pub(super) fn kind_of(&self, demand: usize) -> usize {
        self.of_demand[demand]
    }
}

impl Kinds {
    /// Whether pods of these rules are counted in a group that forces machines.
    pub(super) fn is_forced(&self, rules: &HostRules) -> bool {
        self.groups.iter().any(|(group, _)| rules.counted.binary_search(group).is_ok())
    }

    /// Whether limits of groups force a number of machines.
    pub(super) fn has_groups(&self) -> bool {
        !self.groups.is_empty()
    }

    /// Machines that the limits of groups force, for amounts `total`.
    pub(super) fn forced_machines(&self, total: &[u64]) -> u64 {
        let groups = self.groups.iter().zip(&total[self.resources..]);
        groups.map(|((_, most), pods)| pods.div_ceil(u64::from(*most))).max().unwrap_or(0)
    }

    /// The most that any active kind asks for, axis by axis.
    pub(super) fn largest(&self, active: &[usize]) -> Wide {
        let mut largest = Wide::from_elem(0, self.resources);
        for kind in active.iter().map(|kind| &self.list[*kind]) {
            for (most, one) in largest.iter_mut().zip(&kind.amounts) {
                *most = (*most).max(*one);
            }
        }
        largest
    }
}
