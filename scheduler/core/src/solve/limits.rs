//! What pools may still buy. Pessimistic: a machine counts with its whole capacity, from the moment it is planned.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::catalog::Catalog;
use crate::model::{Limits, ResourceList};

/// What the machines of each pool, by index of the catalogue's, hold of what its limits name: nodes, and claims whose node has not joined.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pools: Vec<(String, Holding)>,
}

#[derive(Debug, Clone)]
struct Holding {
    /// Amount held by limited resource.
    resources: Vec<(String, u64)>,
    nodes: u64,
}

impl Held {
    /// Nothing yet.
    pub(super) fn nothing(catalog: &Catalog) -> Self {
        let nothing = |limits: &Limits| Holding {
            resources: limits.limited.iter().map(|name| (name.clone(), 0)).collect(),
            nodes: 0,
        };
        let pools = catalog.pools.iter();
        Self { pools: pools.map(|pool| (pool.pool.name.clone(), nothing(&pool.pool.limits))).collect() }
    }

    /// Counts a machine of this capacity, or takes it off again.
    pub(super) fn count(&mut self, pool: &str, capacity: &ResourceList, more: bool) {
        let Some((_, held)) = self.pools.iter_mut().find(|(name, _)| name == pool) else { return };
        for (name, amount) in &mut held.resources {
            let one = capacity.amount(name);
            *amount = if more { amount.saturating_add(one) } else { amount.saturating_sub(one) };
        }
        held.nodes = if more { held.nodes + 1 } else { held.nodes.saturating_sub(1) };
    }

    /// How much a pool holds of a resource that it limits; its machines as `nodes`.
    pub(super) fn amount(&self, pool: usize, name: &str) -> u64 {
        let (_, held) = &self.pools[pool];
        let resource = || held.resources.iter().find(|(one, _)| one == name).map(|(_, amount)| *amount);
        if name == "nodes" { held.nodes } else { resource().unwrap_or(0) }
    }
}

/// What each pool, by index, may still buy.
#[derive(Debug, Clone)]
pub(super) struct Allowance {
    pools: Vec<Left>,
    /// Machines left of each reservation.
    reserved: BTreeMap<Arc<str>, u64>,
}

#[derive(Debug, Clone)]
struct Left {
    /// Amount left by limited resource.
    resources: Vec<(String, u64)>,
    nodes: Option<u64>,
}

impl Allowance {
    /// What is left beside what is held.
    pub(super) fn of(held: &Held, catalog: &Catalog) -> Self {
        let left = |limits: &Limits, held: &Holding| {
            let resource = |(name, held): &(String, u64)| {
                (name.clone(), limits.resources.amount(name).saturating_sub(*held))
            };
            Left {
                resources: held.resources.iter().map(resource).collect(),
                nodes: limits.nodes.map(|nodes| nodes.saturating_sub(held.nodes)),
            }
        };
        let pools = catalog.pools.iter().zip(&held.pools);
        Self {
            pools: pools.map(|(pool, (_, held))| left(&pool.pool.limits, held)).collect(),
            reserved: reserved(catalog),
        }
    }

    /// How many machines of this capacity the pool may still buy.
    pub(super) fn machines(&self, pool: usize, capacity: &ResourceList) -> u64 {
        let left = &self.pools[pool];
        let by_resource =
            left.resources.iter().filter_map(|(name, left)| left.checked_div(capacity.amount(name)));
        by_resource.chain(left.nodes).min().unwrap_or(u64::MAX)
    }

    /// Counts `count` machines of this capacity.
    pub(super) fn buy(&mut self, pool: usize, capacity: &ResourceList, count: u64) {
        let left = &mut self.pools[pool];
        for (name, left) in &mut left.resources {
            *left = left.saturating_sub(capacity.amount(name).saturating_mul(count));
        }
        left.nodes = left.nodes.map(|nodes| nodes.saturating_sub(count));
    }

    /// Takes a machine off again that was planned.
    pub(super) fn give_back(&mut self, pool: usize, capacity: &ResourceList) {
        let left = &mut self.pools[pool];
        for (name, left) in &mut left.resources {
            *left = left.saturating_add(capacity.amount(name));
        }
        left.nodes = left.nodes.map(|nodes| nodes.saturating_add(1));
    }

    /// Whether the pool limits anything.
    pub(super) fn is_limited(&self, pool: usize) -> bool {
        self.pools[pool].nodes.is_some() || !self.pools[pool].resources.is_empty()
    }

    /// Whether a machine that is counted may become one of `other` capacity.
    pub(super) fn may_become(&self, pool: usize, counted: &ResourceList, other: &ResourceList) -> bool {
        let within =
            |(name, left): &(String, u64)| other.amount(name) <= left.saturating_add(counted.amount(name));
        self.pools[pool].resources.iter().all(within)
    }

    /// Whether no resource of the pool is limited.
    pub(super) fn counts_nodes_only(&self, pool: usize) -> bool {
        self.pools[pool].resources.is_empty()
    }

    /// Machines left of a reservation.
    pub(super) fn reserved(&self, id: &str) -> u64 {
        self.reserved.get(id).copied().unwrap_or(0)
    }

    /// Uses machines of a reservation.
    pub(super) fn draw(&mut self, id: &str, count: u64) {
        if let Some(left) = self.reserved.get_mut(id) {
            *left = left.saturating_sub(count);
        }
    }

    /// Whether a machine of `other` capacity may stand in for one of `planned`: no more of anything limited.
    pub(super) fn may_replace(&self, pool: usize, planned: &ResourceList, other: &ResourceList) -> bool {
        self.pools[pool].resources.iter().all(|(name, _)| other.amount(name) <= planned.amount(name))
    }

    /// What is left, for people.
    pub(super) fn describe(&self, pool: usize) -> Vec<(String, u64)> {
        let left = &self.pools[pool];
        left.resources.iter().cloned().chain(left.nodes.map(|nodes| ("nodes".to_owned(), nodes))).collect()
    }
}

/// Machines left of each reservation: what offerings say of the same one is counted once, at its lowest.
fn reserved(catalog: &Catalog) -> BTreeMap<Arc<str>, u64> {
    let mut reserved: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    for shape in &catalog.shapes {
        for reservation in shape.offerings.iter().filter_map(|offering| offering.reservation.as_ref()) {
            let left = reserved.entry(Arc::clone(&reservation.id)).or_insert(reservation.remaining);
            *left = (*left).min(reservation.remaining);
        }
    }
    reserved
}
