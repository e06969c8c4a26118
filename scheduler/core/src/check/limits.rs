//! Pool limits: nodes and claims that exist plus the plan, each claim with the largest of its options.

use std::collections::BTreeMap;

use assay_shared::labels::karpenter;

use super::Violation;
use crate::model::{NodePool, Plan, ResourceList, Snapshot};

pub(super) fn check(snapshot: &Snapshot, plan: &Plan, violations: &mut Vec<Violation>) {
    for pool in &snapshot.pools {
        let planned: Vec<_> = plan.claims.iter().filter(|claim| claim.pool == pool.name).collect();
        if planned.is_empty() {
            continue;
        }
        let capacities: BTreeMap<&str, &ResourceList> =
            snapshot.instance_types_of(pool).iter().map(|one| (&*one.name, &one.capacity)).collect();
        let mut machines = existing(snapshot, pool);
        for claim in &planned {
            let names = claim.options.iter().map(|option| &*option.name).chain([&*claim.instance_type]);
            let options = names.filter_map(|name| capacities.get(name).copied());
            machines.push(options.fold(ResourceList::default(), |most, one| most.max_of_each(one)));
        }
        let total: ResourceList = machines.iter().sum();
        let over =
            |resource: &str| Violation::OverLimit { pool: pool.name.clone(), resource: resource.to_owned() };
        if pool.limits.nodes.is_some_and(|most| machines.len() as u64 > most) {
            violations.push(over("nodes"));
        }
        for name in &pool.limits.limited {
            if total.amount(name) > pool.limits.resources.amount(name) {
                violations.push(over(name));
            }
        }
    }
}

/// Capacities of the pool's machines that exist or are on their way.
fn existing(snapshot: &Snapshot, pool: &NodePool) -> Vec<ResourceList> {
    let nodes = snapshot.nodes.iter().filter(|node| node.label(karpenter::NODEPOOL) == Some(&pool.name));
    let waiting = snapshot.node_claims.iter().filter(|claim| {
        let joined = snapshot.nodes.iter().any(|node| claim.node.as_ref() == Some(&node.name));
        claim.pool == pool.name && !joined
    });
    nodes.map(|node| node.capacity.clone()).chain(waiting.map(|claim| claim.capacity.clone())).collect()
}
