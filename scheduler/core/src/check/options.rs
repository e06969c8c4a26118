//! What a claim's options promise together: enough distinct values of a label (`minValues`), and NUMA nodes that hold every
//! container where the kubelet insists on one (`single-numa-node`).

use std::collections::{BTreeMap, BTreeSet};

use assay_shared::labels::{karpenter, kubernetes};

use super::Violation;
use super::ledger::Ledger;
use crate::catalog::{InstanceType, NumaLayout};
use crate::model::{AlignedRequest, CpuManagerPolicy, Plan, PlannedClaim, PodId, TopologyManagerPolicy};
use crate::requirement::{Requirements, ValueSet};

/// Checks the options of every claim.
pub(super) fn check(ledger: &Ledger, plan: &Plan, violations: &mut Vec<Violation>) {
    for claim in &plan.claims {
        let Some(known) = ledger.pool(&claim.pool) else { continue };
        let pool = known.pool;
        let wanted: Vec<(&str, usize)> = pool
            .requirements
            .iter()
            .filter_map(|one| Some((one.key.as_str(), one.min_values? as usize)))
            .collect();
        let class = ledger.market.class_of(pool);
        let insists = class.filter(|class| class.topology_manager == TopologyManagerPolicy::SingleNumaNode);
        if wanted.is_empty() && insists.is_none() {
            continue;
        }
        let types = known.listed(claim);
        if !wanted.is_empty() && claim.reservation.is_none() {
            let labels = Requirements::from_labels(&pool.labels).intersect(&claim.requirements);
            variety(claim, &types, &labels, &wanted, violations);
        }
        let Some(class) = insists else { continue };
        let containers: Vec<(&PodId, &AlignedRequest)> = claim
            .pods
            .iter()
            .filter_map(|id| ledger.waiting(id))
            .flat_map(|pod| pod.spec.aligned.iter().map(|one| (&pod.id, one)))
            .collect();
        for one in types {
            let Some(layout) = one.numa.as_ref().filter(|_| !containers.is_empty()) else { continue };
            if let Some(pod) = turned_away(layout, class.cpu_manager, &containers) {
                violations.push(Violation::Together {
                    machine: claim.name.clone(),
                    pod: pod.clone(),
                    rule: format!("no NUMA node of {} holds one of its containers", one.name),
                });
            }
        }
    }
}

/// Whether the options have as many values of each wanted label as there should be, or the claim says that they do not.
fn variety(
    claim: &PlannedClaim,
    types: &[&InstanceType],
    labels: &Requirements,
    wanted: &[(&str, usize)],
    violations: &mut Vec<Violation>,
) {
    for (key, least) in wanted {
        let mut values: BTreeSet<String> = BTreeSet::new();
        let allowed = |key: &str, value: &str| labels.get(key).is_none_or(|set| set.allows(value));
        for one in types {
            match *key {
                kubernetes::INSTANCE_TYPE => {
                    values.insert(one.name.to_string());
                }
                kubernetes::ZONE | karpenter::CAPACITY_TYPE => {
                    let possible = one.offerings.iter().filter(|offering| {
                        offering.available
                            && allowed(kubernetes::ZONE, &offering.zone)
                            && allowed(karpenter::CAPACITY_TYPE, offering.capacity_type.as_str())
                    });
                    values.extend(possible.map(|offering| match *key {
                        kubernetes::ZONE => offering.zone.to_string(),
                        _ => offering.capacity_type.to_string(),
                    }));
                }
                key => {
                    let set = one.requirements.get(key).cloned().unwrap_or_else(ValueSet::anything);
                    let set = labels.get(key).map_or_else(|| set.clone(), |own| own.intersect(&set));
                    values.extend(set.finite().into_iter().flatten().cloned());
                }
            }
        }
        let says_so = claim.min_values_relaxed.iter().any(|relaxed| relaxed == key);
        if (values.len() < *least) != says_so {
            let found = values.len();
            let detail = if says_so {
                format!("says that {key} has fewer than {least} values, and it has {found}")
            } else {
                format!("{found} values of {key}, minValues is {least}")
            };
            violations.push(Violation::Claim { claim: claim.name.clone(), detail });
        }
    }
}

/// A pod of which a container would be turned away, whether containers come as planned or the largest first.
fn turned_away<'p>(
    layout: &NumaLayout,
    cpus: CpuManagerPolicy,
    containers: &[(&'p PodId, &AlignedRequest)],
) -> Option<&'p PodId> {
    let mut largest_first = containers.to_vec();
    largest_first.sort_by_key(|(_, one)| std::cmp::Reverse((one.cpus, one.devices.values().sum::<u64>())));
    let tries = [containers, &largest_first].map(|order| first_left(layout, cpus, order));
    tries.into_iter().collect::<Option<Vec<_>>>().and_then(|pods| pods.first().copied())
}

fn first_left<'p>(
    layout: &NumaLayout,
    cpus: CpuManagerPolicy,
    containers: &[(&'p PodId, &AlignedRequest)],
) -> Option<&'p PodId> {
    let mut nodes: Vec<(u64, BTreeMap<&str, u64>)> = (0..layout.nodes)
        .map(|_| (layout.cpus, layout.devices.iter().map(|(name, count)| (name.as_str(), *count)).collect()))
        .collect();
    for (pod, container) in containers {
        let own_cpus = if cpus == CpuManagerPolicy::Static { container.cpus } else { 0 };
        let has = |devices: &BTreeMap<&str, u64>| {
            let enough =
                |(name, count): (&String, &u64)| devices.get(name.as_str()).is_some_and(|left| left >= count);
            container.devices.iter().all(enough)
        };
        let fitting = nodes.iter_mut().filter(|(left, devices)| *left >= own_cpus && has(devices));
        let Some((left, devices)) = fitting.min_by_key(|(left, _)| *left) else { return Some(pod) };
        *left -= own_cpus;
        for (name, count) in &container.devices {
            if let Some(held) = devices.get_mut(name.as_str()) {
                *held -= count;
            }
        }
    }
    None
}
