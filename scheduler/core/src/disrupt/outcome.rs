//! The cluster once a plan is carried out: for who plans again, or judges what a plan came to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};

use super::base::claim_made;
use super::plan::DisruptionPlan;
use crate::model::{ClaimState, Node, NodeClaim, PodId, Snapshot, Timestamp};

/// The snapshot at `now` with all commands done: nodes gone, replacements ready, pods where they were sent. Pods that waited
/// still do.
#[must_use]
pub fn carried_out(snapshot: &Snapshot, plan: &DisruptionPlan, now: Timestamp) -> Snapshot {
    let mut after = Snapshot { now, ..snapshot.clone() };
    let gone: BTreeSet<&str> =
        plan.commands.iter().flat_map(|command| &command.nodes).map(|node| &**node).collect();
    let mut targets: BTreeMap<&PodId, &Arc<str>> = BTreeMap::new();
    for command in &plan.commands {
        targets.extend(command.moves.iter().map(|one| (&one.pod, &one.to)));
    }
    after.nodes.retain(|node| !gone.contains(&*node.name));
    after.node_claims.retain(|claim| !gone.contains(claim.node.as_deref().unwrap_or(&claim.name)));
    after.disruption.nodes.retain(|node, _| !gone.contains(&**node));
    for pod in &mut after.pods {
        if let Some(to) = targets.get(&pod.id) {
            pod.node = Some(Arc::clone(to));
        }
    }
    after.pods.retain(|pod| !pod.node.as_deref().is_some_and(|node| gone.contains(node)));
    // Names are unique within a plan only.
    let taken: BTreeSet<Arc<str>> = after.nodes.iter().map(|node| Arc::clone(&node.name)).collect();
    let mut renamed: BTreeMap<Arc<str>, Arc<str>> = BTreeMap::new();
    for planned in plan.commands.iter().flat_map(|command| &command.replacements) {
        let Some(claim) = claim_made(snapshot, planned) else { continue };
        let mut name = Arc::clone(&claim.name);
        while taken.contains(&name) || renamed.values().any(|other| *other == name) {
            name = format!("{name}x").into();
        }
        renamed.insert(Arc::clone(&claim.name), Arc::clone(&name));
        let mut labels = claim.labels.clone();
        labels.insert(kubernetes::HOSTNAME.to_owned(), name.to_string());
        labels.insert(karpenter::REGISTERED.to_owned(), "true".to_owned());
        labels.insert(karpenter::INITIALIZED.to_owned(), "true".to_owned());
        after.nodes.push(Node {
            name: Arc::clone(&name),
            labels,
            annotations: claim.annotations.clone(),
            taints: claim.taints.clone(),
            allocatable: claim.allocatable.clone(),
            capacity: claim.capacity.clone(),
            provider_id: String::new(),
            ready: true,
            unschedulable: false,
            deleting: false,
            created: now,
        });
        let node = Some(Arc::clone(&name));
        let state = ClaimState::Initialized;
        after.node_claims.push(NodeClaim { name, node, state, since: now, created: now, ..claim });
    }
    for pod in after.pods.iter_mut().filter(|pod| targets.contains_key(&pod.id)) {
        if let Some(name) = pod.node.as_ref().and_then(|node| renamed.get(node)) {
            pod.node = Some(Arc::clone(name));
        }
    }
    after
}
