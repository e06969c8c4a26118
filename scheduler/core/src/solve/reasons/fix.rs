//! One change that would make a pod fit, tried out before it is said.
//!
//! A change is tried on one pool with the state after the plan: some shape must then satisfy the pod's node constraints, be
//! large enough, be to be had, be within the pool's limits, and be in a domain that the pod's topology constraints allow.

use std::sync::Arc;

use assay_shared::labels::{azure, karpenter, kubernetes};
use rustc_hash::FxHashMap;

use super::words::{amount, requirement};
use super::{Case, Unlike};
use crate::model::{Limits, NodePool};
use crate::requirement::Requirements;
use crate::solve::Solver;
use crate::solve::axes::{Amounts, fits};
use crate::solve::catalog::Shape;
use crate::solve::topology::Domain;

/// Pools with a requirement changed that are tried in one plan: compiling one costs more than placing a pod.
const CHANGED_POOLS_AT_MOST: usize = 32;

/// What pools could buy with a requirement changed, remembered for the whole plan.
#[derive(Debug, Default)]
pub(in crate::solve) struct Changed {
    known: FxHashMap<(usize, Requirements), Arc<Vec<Shape>>>,
}

impl Changed {
    fn shapes(
        &mut self,
        solver: &Solver,
        pool: usize,
        requirements: Requirements,
    ) -> Option<Arc<Vec<Shape>>> {
        let room = self.known.len() < CHANGED_POOLS_AT_MOST;
        match self.known.entry((pool, requirements)) {
            std::collections::hash_map::Entry::Occupied(known) => Some(Arc::clone(known.get())),
            std::collections::hash_map::Entry::Vacant(new) if room => {
                let shapes = solver.catalog.shapes_if(pool, &new.key().1);
                Some(Arc::clone(new.insert(Arc::new(shapes))))
            }
            std::collections::hash_map::Entry::Vacant(_) => None,
        }
    }
}

/// A key without its prefix.
fn short(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

impl Case<'_, '_> {
    /// The cheapest of these shapes that would take a pod with these node constraints and requests.
    pub(super) fn taking<'a>(
        &self,
        shapes: impl IntoIterator<Item = &'a Shape>,
        term: &Requirements,
        requests: &Amounts,
    ) -> Option<(&'a Shape, u64)> {
        shapes
            .into_iter()
            .filter(|shape| fits(requests, &shape.room))
            .filter(|shape| self.allowance.machines(self.pool, &shape.instance_type.capacity) > 0)
            .map(|shape| (shape, self.to_be_had(shape, shape.mask_of_all(term))))
            .filter(|(shape, mask)| *mask != 0 && self.domains_allow(shape, *mask))
            .min_by(|(one, first), (two, second)| {
                let by_price = one.price(*first).cmp(&two.price(*second));
                by_price.then_with(|| one.instance_type.name.cmp(&two.instance_type.name))
            })
    }

    /// Whether every constraint between pods allows some domain that machines of a shape can be in.
    fn domains_allow(&self, shape: &Shape, mask: u64) -> bool {
        let topology = &self.solver.topology;
        let needs_company = |group| self.class.is_counted(group) && self.solver.counts.anywhere(group) == 0;
        self.class.host.needs.iter().all(|need| needs_company(need.group))
            && shape.occupancy.space(&self.class.host) > 0
            && self.class.rules.hard.iter().all(|constraint| {
                let Domain::Label(key) = topology.domain(constraint.group) else { return true };
                let counted = self.class.is_counted(constraint.group);
                topology.values(key).any(|(value, text)| {
                    let one = crate::requirement::ValueSet::of([&**text]);
                    self.solver.counts.allows(*constraint, value, counted)
                        && shape.mask_of(topology.key_name(key), &one) & mask != 0
                })
            })
    }

    /// The pool's own requirement that keeps a machine away that would do.
    pub(super) fn allow_in_pool(&self, changed: &mut Changed, term: &Requirements) -> Option<String> {
        let pool = &self.solver.catalog.pools[self.pool].pool;
        let stated = self.solver.catalog.pools[self.pool].requirements.as_ref().ok()?;
        let mut best = None;
        for (key, _) in stated.iter() {
            let fixed = [karpenter::NODEPOOL, azure::AKS_NODE_CLASS];
            if fixed.contains(&key) || !pool.requirements.iter().any(|one| is_key(&one.key, key)) {
                continue;
            }
            let mut wider = stated.clone();
            wider.remove(key);
            if let Some(set) = term.get(key) {
                wider.constrain(key, set);
            }
            let Some(shapes) = changed.shapes(self.solver, self.pool, wider) else { continue };
            let Some((shape, mask)) = self.taking(shapes.iter(), term, &self.class.requests) else {
                continue;
            };
            let price = shape.price(mask);
            if best.as_ref().is_none_or(|(least, _)| price < *least) {
                best = Some((price, self.words_for(pool, key, shape, mask)));
            }
        }
        best.and_then(|(_, words)| words)
    }

    /// How a pool would have to be changed for a machine of this shape.
    fn words_for(&self, pool: &NodePool, key: &str, shape: &Shape, mask: u64) -> Option<String> {
        let name = &pool.name;
        let offering = shape.cheapest(mask)?;
        Some(match key {
            kubernetes::INSTANCE_TYPE => {
                format!("allow {} in pool {name}'s instance-type requirement", shape.instance_type.name)
            }
            kubernetes::ZONE => format!("allow zone {} in pool {name}", offering.zone),
            karpenter::CAPACITY_TYPE => {
                format!("allow capacity type {} in pool {name}", offering.capacity_type)
            }
            _ => match shape.offered.get(key).and_then(|set| set.finite()?.first()) {
                Some(value) => format!(
                    "allow {} {value} in pool {name} (such as {})",
                    short(key),
                    shape.instance_type.name
                ),
                None => format!("drop pool {name}'s requirement on {key}"),
            },
        })
    }

    /// The pod's own node constraint that keeps a machine away that would do.
    pub(super) fn allow_in_pod(&self, shapes: &[&Shape], term: &Requirements) -> Option<String> {
        let spec = self.class.spec;
        let of_volumes =
            |key: &str| spec.volume_topology.iter().flatten().flatten().any(|one| is_key(&one.key, key));
        term.iter().filter(|(key, _)| !of_volumes(key)).find_map(|(key, set)| {
            let mut without = term.clone();
            without.remove(key);
            let (shape, mask) = self.taking(shapes.iter().copied(), &without, &self.class.requests)?;
            let offering = shape.cheapest(mask)?;
            Some(match key {
                kubernetes::ZONE => format!("allow zone {} in its node constraints", offering.zone),
                karpenter::CAPACITY_TYPE => {
                    format!("allow capacity type {} in its node constraints", offering.capacity_type)
                }
                _ => format!("drop {} from its node constraints", requirement(key, set)),
            })
        })
    }

    /// A label that the pool does not define.
    pub(super) fn define(
        &self,
        shapes: &[&Shape],
        term: &Requirements,
        unlike: &Unlike<'_>,
    ) -> Option<String> {
        let (key, pool) = (unlike.key, &self.solver.catalog.pools[self.pool].pool.name);
        let mut without = term.clone();
        without.remove(key);
        if let Some(near) = &unlike.near {
            let mut meant = without.clone();
            meant.constrain(near, unlike.needed);
            if self.taking(shapes.iter().copied(), &meant, &self.class.requests).is_some() {
                return Some(format!("use {near} instead of {key}"));
            }
        }
        // Nobody can give a node these by writing them down.
        let restricted = ["kubernetes.io", "k8s.io", "karpenter.sh", "karpenter.azure.com", "assay.dev"];
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let is_restricted =
            |one: &str| domain == one || domain.strip_suffix(one).is_some_and(|rest| rest.ends_with('.'));
        if restricted.into_iter().any(is_restricted) {
            return None;
        }
        self.taking(shapes.iter().copied(), &without, &self.class.requests)?;
        Some(match unlike.needed.finite().and_then(|values| values.first()) {
            Some(value) => format!("label pool {pool} with {key}={value} or add the key to its requirements"),
            None => format!("add {} to pool {pool}'s requirements", requirement(key, unlike.needed)),
        })
    }

    /// The limit that is in the way alone, and how high it would have to be.
    pub(super) fn raise(&self, shapes: &[(&Shape, u64)]) -> Option<String> {
        let pool = &self.solver.catalog.pools[self.pool].pool;
        let left = self.allowance.describe(self.pool);
        let smallest = shapes
            .iter()
            .filter(|(shape, mask)| self.domains_allow(shape, *mask))
            .filter_map(|(shape, mask)| {
                let mut over = left.iter().filter_map(|(name, left)| {
                    let need = match name.as_str() {
                        "nodes" => 1,
                        name => shape.instance_type.capacity.amount(name),
                    };
                    (need > *left).then(|| (name, need - left))
                });
                let (name, missing) = over.next()?;
                over.next().is_none().then(|| (shape.price(*mask), name, missing))
            })
            .min()?;
        let (_, name, missing) = smallest;
        let limit = limit_of(&pool.limits, name)?;
        // What is used beyond the limit already would have to be allowed first.
        (self.used(name) <= limit).then(|| {
            format!(
                "raise pool {}'s {name} limit to {}",
                pool.name,
                exact(name, limit.saturating_add(missing))
            )
        })
    }

    /// What nodes and claims of the pool hold of a limited resource before the plan.
    fn used(&self, name: &str) -> u64 {
        self.solver.held.amount(self.pool, name)
    }
}

fn is_key(written: &str, key: &str) -> bool {
    crate::requirement::normalize_key(written) == key
}

fn limit_of(limits: &Limits, name: &str) -> Option<u64> {
    match name {
        "nodes" => limits.nodes,
        name => Some(limits.resources.amount(name)),
    }
}

/// An amount that is not less when it is read back.
fn exact(name: &str, value: u64) -> String {
    const GIB: u64 = 1 << 30;
    match name {
        "memory" | "ephemeral-storage" => format!("{}Gi", value.div_ceil(GIB)),
        _ => amount(name, value),
    }
}
