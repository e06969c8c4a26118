//! Volumes: no more of a CSI driver than can be attached, on nodes that exist and on every option of a claim. A volume that
//! several pods share is attached once.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::ledger::Ledger;
use crate::model::{AttachedVolume, Plan, Pod, PodId, ResourceList};

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
pub(super) fn check(ledger: &Ledger, plan: &Plan, violations: &mut Vec<Violation>) {
    for claim in &plan.claims {
        let planned = attached(claim.pods.iter().filter_map(|id| ledger.waiting(id)));
        if planned.is_empty() {
            continue;
        }
        for one in ledger.pool(&claim.pool).iter().flat_map(|pool| pool.listed(claim)) {
            let nothing = Attached::new();
            too_many(&claim.name, &claim.pods, &planned, &nothing, &one.allocatable(), violations);
        }
    }
    for assignment in &plan.existing {
        let planned = attached(assignment.pods.iter().filter_map(|id| ledger.waiting(id)));
        let name = &*assignment.name;
        let standing = ledger.fleet.standing(name, &ledger.market);
        if let Some(standing) = standing.filter(|_| !planned.is_empty()) {
            let running = attached(ledger.on(name).iter().map(|pod| &**pod));
            too_many(name, &assignment.pods, &planned, &running, &standing.allocatable, violations);
        }
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
