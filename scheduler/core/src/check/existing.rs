//! Pods on nodes that exist, and on claims that are on their way.

use assay_shared::labels::karpenter;

use super::claims::Pods;
use super::fits::{labels_allow, lacking};
use super::{Misfit, Violation};
use crate::model::{ClaimState, Labels, Plan, PodOwner, ResourceList, Snapshot, untolerated};

pub(super) fn check_existing(
    snapshot: &Snapshot,
    pods: &Pods<'_>,
    plan: &Plan,
    violations: &mut Vec<Violation>,
) {
    for assignment in &plan.existing {
        let name = &*assignment.name;
        let Some((labels, taints, allocatable)) = target(snapshot, name) else {
            violations.push(Violation::UnknownNode(name.to_owned()));
            continue;
        };
        let mut need = ResourceList::default();
        let mut daemons = ResourceList::default();
        for pod in snapshot.pods.iter().filter(|pod| pod.uses_node() && pod.node.as_deref() == Some(name)) {
            need += &pod.spec.requests;
            if pod.owner == PodOwner::DaemonSet {
                daemons += &pod.spec.requests;
            }
        }
        let expected: ResourceList = snapshot
            .daemon_sets
            .iter()
            .filter(|set| untolerated(&taints, &set.spec.tolerations).is_none())
            .filter(|set| labels_allow(&set.spec, |needs| needs.check_labels(&labels)).is_ok())
            .map(|set| &set.spec.requests)
            .sum();
        need += &(expected - &daemons);
        let mut added = ResourceList::default();
        for pod in assignment.pods.iter().filter_map(|id| pods.get(id)) {
            added += &pod.spec.requests;
            let misfit = match (pod.spec.rejections.first(), untolerated(&taints, &pod.spec.tolerations)) {
                (Some(rejection), _) => Err(Misfit::Rejected(rejection.detail.clone())),
                (_, Some(taint)) => Err(Misfit::Taint(taint.clone())),
                _ => labels_allow(&pod.spec, |needs| needs.check_labels(&labels)),
            };
            if let Err(misfit) = misfit {
                violations.push(Violation::PodOnNode { node: name.to_owned(), pod: pod.id.clone(), misfit });
            }
        }
        // What is over-committed already is not the plan's doing, as long as it adds nothing to it.
        if let Some(resource) = lacking(&added, &(allocatable - &need)) {
            violations.push(Violation::TooMuch {
                machine: name.to_owned(),
                instance_type: name.to_owned(),
                resource,
            });
        }
    }
}

/// Labels, lasting taints and room of a node or claim that takes pods.
fn target(snapshot: &Snapshot, name: &str) -> Option<(Labels, Vec<crate::model::Taint>, ResourceList)> {
    let started = |labels: &Labels| {
        let mut labels = labels.clone();
        labels.insert(karpenter::REGISTERED.to_owned(), "true".to_owned());
        labels.insert(karpenter::INITIALIZED.to_owned(), "true".to_owned());
        labels
    };
    if let Some(node) = snapshot.nodes.iter().find(|node| &*node.name == name) {
        if !node.accepts_pods() {
            return None;
        }
        let pool = node.label(karpenter::NODEPOOL);
        if pool.is_none() || node.label(karpenter::INITIALIZED) == Some("true") {
            return node.ready.then(|| (node.labels.clone(), node.taints.clone(), node.allocatable.clone()));
        }
        // A node that is starting keeps the taints of its pool; the others go, and late resources come.
        let pool = snapshot.pools.iter().find(|one| Some(one.name.as_str()) == pool);
        let lasting = |taint: &&crate::model::Taint| pool.is_some_and(|pool| pool.taints.contains(taint));
        let taints = node.taints.iter().filter(lasting).cloned().collect();
        let claim = snapshot.node_claims.iter().find(|claim| claim.node.as_ref() == Some(&node.name));
        let promised = claim.map_or_else(ResourceList::default, |claim| claim.allocatable.clone());
        let mut allocatable = node.allocatable.clone();
        if allocatable.cpu.is_zero() {
            allocatable.cpu = promised.cpu;
        }
        if allocatable.memory.is_zero() {
            allocatable.memory = promised.memory;
        }
        if allocatable.ephemeral_storage.is_zero() {
            allocatable.ephemeral_storage = promised.ephemeral_storage;
        }
        if allocatable.pods == 0 {
            allocatable.pods = promised.pods;
        }
        for (name, amount) in &promised.extended {
            if allocatable.extended(name) == 0 {
                allocatable.set_extended(name, *amount);
            }
        }
        return Some((started(&node.labels), taints, allocatable));
    }
    let claim = snapshot.node_claims.iter().find(|claim| &*claim.name == name)?;
    let open = claim.state != ClaimState::Terminating;
    open.then(|| (started(&claim.labels), claim.taints.clone(), claim.allocatable.clone()))
}
