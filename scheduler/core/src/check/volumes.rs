//! Volumes: no more of a CSI driver than can be attached, on nodes that exist and on every option of a claim. A volume that
//! several pods share is attached once.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::claims::Pods;
use crate::model::{AttachedVolume, Plan, Pod, PodId, ResourceList, Snapshot};

/// Volumes by driver.
type Attached<'p> = BTreeMap<&'p str, BTreeSet<&'p str>>;

fn attached<'p>(pods: impl Iterator<Item = &'p Pod>) -> Attached<'p> {
    let mut attached = Attached::new();
    for volume in pods.flat_map(|pod| pod.volumes.iter()) {
        attached.entry(&volume.driver).or_default().insert(&volume.id);
    }
    attached
}

/// Checks every machine that gets pods with volumes.
pub(super) fn check(snapshot: &Snapshot, pods: &Pods<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    for claim in &plan.claims {
        let planned = attached(claim.pods.iter().filter_map(|id| pods.get(id).copied()));
        if planned.is_empty() {
            continue;
        }
        let Some(pool) = snapshot.pools.iter().find(|pool| pool.name == claim.pool) else { continue };
        for one in snapshot.instance_types_of(pool) {
            if claim.options.iter().any(|option| option.name == one.name) {
                too_many(
                    &claim.name,
                    &claim.pods,
                    &planned,
                    &Attached::new(),
                    &one.allocatable(),
                    violations,
                );
            }
        }
    }
    for assignment in &plan.existing {
        let planned = attached(assignment.pods.iter().filter_map(|id| pods.get(id).copied()));
        let name = &*assignment.name;
        let node = snapshot.nodes.iter().find(|node| &*node.name == name).map(|node| &node.allocatable);
        let claim = || snapshot.node_claims.iter().find(|claim| &*claim.name == name);
        let Some(allocatable) = node.or_else(|| claim().map(|claim| &claim.allocatable)) else { continue };
        let running = snapshot.pods.iter().filter(|pod| pod.uses_node() && pod.node.as_deref() == Some(name));
        too_many(name, &assignment.pods, &planned, &attached(running), allocatable, violations);
    }
}

fn too_many(
    machine: &str,
    planned_pods: &[PodId],
    planned: &Attached<'_>,
    running: &Attached<'_>,
    allocatable: &ResourceList,
    violations: &mut Vec<Violation>,
) {
    for (driver, volumes) in planned {
        let there = running.get(driver);
        let more = volumes.iter().filter(|volume| there.is_none_or(|there| !there.contains(*volume))).count();
        let count = more + there.map_or(0, BTreeSet::len);
        let over = AttachedVolume::limit(driver, allocatable).is_some_and(|limit| count as u64 > limit);
        if let (true, true, Some(pod)) = (over, more > 0, planned_pods.first()) {
            violations.push(Violation::Together {
                machine: machine.to_owned(),
                pod: pod.clone(),
                rule: format!("{count} volumes of {driver}, more than can be attached"),
            });
        }
    }
}
