//! Pods on machines that exist whose kubelet wants each container on one NUMA node (`single-numa-node`).
//!
//! Who runs there is taken to be on the first NUMA node that had room, oldest pod first. A container of which that leaves open
//! where it is counts on every one.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_shared::labels::hardware;

use super::Violation;
use super::ledger::Ledger;
use crate::model::{
    AlignedRequest, CpuManagerPolicy, ExistingAssignment, Plan, Pod, PodId, TopologyManagerPolicy,
};
use crate::requirement::value_of;

/// One NUMA node: CPUs and devices that nobody has.
#[derive(Debug, Clone)]
struct Free {
    cpus: u64,
    devices: BTreeMap<String, u64>,
}

impl Free {
    fn has(&self, container: &AlignedRequest) -> bool {
        container.cpus <= self.cpus
            && container
                .devices
                .iter()
                .all(|(name, count)| self.devices.get(name).is_some_and(|own| own >= count))
    }

    fn give(&mut self, container: &AlignedRequest) {
        self.cpus = self.cpus.saturating_sub(container.cpus);
        for (name, count) in &container.devices {
            if let Some(own) = self.devices.get_mut(name) {
                *own = own.saturating_sub(*count);
            }
        }
    }
}

/// Checks what a plan puts on machines that exist.
pub(super) fn check(ledger: &Ledger, plan: &Plan, violations: &mut Vec<Violation>) {
    for assignment in &plan.existing {
        if let Some(pod) = turned_away(ledger, assignment) {
            violations.push(Violation::Together {
                machine: assignment.name.to_string(),
                pod,
                rule: "no NUMA node of the machine has room for one of its containers".to_owned(),
            });
        }
    }
}

/// A pod of which a container would be turned away, in whichever order the pods come.
fn turned_away(ledger: &Ledger, assignment: &ExistingAssignment) -> Option<PodId> {
    let added: Vec<&Pod> = assignment.pods.iter().filter_map(|id| ledger.waiting(id)).collect();
    if added.iter().all(|pod| pod.spec.aligned.is_empty()) {
        return None;
    }
    let (mut nodes, own_cpus) = empty(ledger, &assignment.name)?;
    let asked = |container: &AlignedRequest| AlignedRequest {
        cpus: if own_cpus { container.cpus } else { 0 },
        devices: container.devices.clone(),
    };
    let mut there: Vec<&Arc<Pod>> = ledger.on(&assignment.name).iter().collect();
    there.sort_by_key(|pod| (pod.created, &pod.id));
    for container in there.iter().flat_map(|pod| &pod.spec.aligned).map(asked) {
        match nodes.iter_mut().find(|node| node.has(&container)) {
            Some(node) => node.give(&container),
            None => nodes.iter_mut().for_each(|node| node.give(&container)),
        }
    }
    let planned: Vec<(&PodId, AlignedRequest)> =
        added.iter().flat_map(|pod| pod.spec.aligned.iter().map(|one| (&pod.id, asked(one)))).collect();
    let mut largest_first = planned.clone();
    largest_first.sort_by_key(|(_, one)| std::cmp::Reverse((one.cpus, one.devices.values().sum::<u64>())));
    let first_left = |order: &[(&PodId, AlignedRequest)]| {
        let mut nodes = nodes.clone();
        order.iter().find_map(|(pod, container)| match nodes.iter_mut().find(|node| node.has(container)) {
            Some(node) => {
                node.give(container);
                None
            }
            None => Some((*pod).clone()),
        })
    };
    let left = first_left(&planned)?;
    first_left(&largest_first).map(|_| left)
}

/// The NUMA nodes of a machine with nobody on it, and whether containers get CPUs of their own; `None` where the kubelet does not
/// insist or nothing is known of them. What was measured is believed before what is promised.
fn empty(ledger: &Ledger, name: &str) -> Option<(Vec<Free>, bool)> {
    let (pool, size, labels, capacity) = ledger.fleet.machine(name)?;
    let pool = ledger.market.pool(pool)?;
    let class = ledger.market.class_of(pool)?;
    if class.topology_manager != TopologyManagerPolicy::SingleNumaNode {
        return None;
    }
    let promised = ledger.market.instance_types_of(pool).iter().find(|one| *one.name == *size);
    let promised = promised.and_then(|one| one.numa.as_ref());
    let measured = value_of(labels, hardware::NUMA_NODES).and_then(|count| count.parse().ok());
    let count: u32 = measured.filter(|count| *count > 0).or_else(|| promised.map(|layout| layout.nodes))?;
    let (cpus, devices): (u64, BTreeMap<String, u64>) = match promised {
        Some(layout) => {
            let times = u64::from(layout.nodes);
            let devices = layout.devices.iter().map(|(name, one)| (name.clone(), one * times));
            (layout.cpus * times, devices.collect())
        }
        None => {
            let devices = capacity.extended.iter().map(|(name, all)| (name.to_string(), *all));
            (capacity.cpu.0 / 1000, devices.collect())
        }
    };
    let each = u64::from(count);
    let devices = devices.into_iter().map(|(name, all)| (name, all / each)).collect();
    let node = Free { cpus: cpus / each, devices };
    Some((vec![node; usize::try_from(count).ok()?], class.cpu_manager == CpuManagerPolicy::Static))
}
