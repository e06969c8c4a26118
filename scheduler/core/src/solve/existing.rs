//! Room on machines that exist or are on their way. It is paid for, so it is used before anything is bought.
//!
//! A pod bound to a claim's name counts as running there: that is how a driver keeps pods on the machine bought for them.

use std::cmp::Reverse;
use std::sync::Arc;

use assay_shared::labels::{assay, karpenter};
use rustc_hash::FxHashMap;

use super::axes::{Amounts, Axes, fits, take, times};
use super::catalog::{Catalog, required_terms};
use super::classes::Class;
use crate::model::{
    ClaimState, DaemonSet, ExistingAssignment, Labels, Node, NodeClaim, PodOwner, ResourceList, Snapshot,
    Taint, TaintEffect, Toleration, untolerated,
};
use crate::requirement::Requirements;

/// A node or a claim with room.
#[derive(Debug)]
struct Target {
    name: Arc<str>,
    labels: Labels,
    taints: Vec<Taint>,
    room: Amounts,
}

/// Puts pods on what exists. `left` holds how many pods of each class still wait, from the back of its list.
pub(super) fn assign(
    snapshot: &Snapshot,
    catalog: &Catalog<'_>,
    classes: &[Class<'_>],
    left: &mut [usize],
) -> Vec<ExistingAssignment> {
    let mut targets = targets(snapshot, &catalog.axes);
    let mut assigned: Vec<ExistingAssignment> = targets
        .iter()
        .map(|target| ExistingAssignment { name: Arc::clone(&target.name), pods: Vec::new() })
        .collect();
    for (class, left) in classes.iter().zip(left) {
        let Ok(terms) = &class.terms else { continue };
        if !class.spec.rejections.is_empty() {
            continue;
        }
        for index in order(class, terms, &targets) {
            if *left == 0 {
                break;
            }
            let room = &mut targets[index].room;
            let count = usize::try_from(times(&class.requests, room)).unwrap_or(usize::MAX).min(*left);
            let first = class.pods.len() - *left;
            assigned[index].pods.extend(class.pods[first..first + count].iter().map(|pod| pod.id.clone()));
            take(room, &class.requests, count as u64);
            *left -= count;
        }
    }
    assigned.retain(|assignment| !assignment.pods.is_empty());
    assigned
}

/// Targets that can take a pod of this class: most preferred first, then in their own order.
fn order(class: &Class<'_>, terms: &[Requirements], targets: &[Target]) -> Vec<usize> {
    let preferred: Vec<(u32, Requirements)> = class
        .spec
        .preferred_affinity
        .iter()
        .filter_map(|term| Some((term.weight, Requirements::from_list(&term.requirements).ok()?)))
        .collect();
    let mut found: Vec<(Reverse<u32>, usize, usize)> = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        let possible = fits(&class.requests, &target.room)
            && untolerated(&target.taints, &class.spec.tolerations).is_none()
            && terms.iter().any(|term| term.check_labels(&target.labels).is_ok());
        if possible {
            let liked = preferred.iter().filter(|(_, term)| term.check_labels(&target.labels).is_ok());
            let liked = liked.fold(0_u32, |sum, (weight, _)| sum.saturating_add(*weight));
            let soft = target.taints.iter().filter(|taint| taint.effect == TaintEffect::PreferNoSchedule);
            let disliked =
                soft.filter(|taint| !class.spec.tolerations.iter().any(|t| t.tolerates(taint))).count();
            found.push((Reverse(liked), disliked, index));
        }
    }
    found.sort_unstable();
    found.into_iter().map(|(_, _, index)| index).collect()
}

/// Taints that go by themselves while a node starts, besides the pool's own startup taints.
const STARTING: &[&str] = &[
    karpenter::UNREGISTERED_TAINT,
    assay::HARDWARE_UNVERIFIED_TAINT,
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.cloudprovider.kubernetes.io/uninitialized",
    "node.cilium.io/agent-not-ready",
];

/// Initialised nodes by name, then starting nodes by name, then claims in the order they were decided.
fn targets(snapshot: &Snapshot, axes: &Axes) -> Vec<Target> {
    let mut usage: FxHashMap<&str, (ResourceList, ResourceList)> = FxHashMap::default();
    for pod in snapshot.pods.iter().filter(|pod| pod.uses_node()) {
        if let Some(node) = &pod.node {
            let (all, daemons) = usage.entry(&**node).or_default();
            *all += &pod.spec.requests;
            if pod.owner == PodOwner::DaemonSet {
                *daemons += &pod.spec.requests;
            }
        }
    }
    let nothing = (ResourceList::default(), ResourceList::default());
    let room = |name: &str, allocatable: &ResourceList, daemons: ResourceList| {
        let (used, by_daemons) = usage.get(name).unwrap_or(&nothing);
        // DaemonSet pods that run already are in `used`: only the rest is still to come.
        axes.amounts(&(allocatable.clone() - used - &(daemons - by_daemons)))
    };
    let claim_of: FxHashMap<&str, &NodeClaim> =
        snapshot.node_claims.iter().filter_map(|claim| Some((&**claim.node.as_ref()?, claim))).collect();
    let mut nodes: Vec<&Node> = snapshot.nodes.iter().filter(|node| node.accepts_pods()).collect();
    nodes.sort_by_key(|node| (!is_initialized(node), Arc::clone(&node.name)));
    let mut targets = Vec::new();
    for node in nodes {
        let claim = claim_of.get(&*node.name);
        if claim.is_some_and(|claim| claim.state == ClaimState::Terminating) {
            continue;
        }
        let starting = node.label(karpenter::NODEPOOL).is_some() && !is_initialized(node);
        if !node.ready && !starting {
            continue;
        }
        let mut taints = node.taints.clone();
        let mut allocatable = node.allocatable.clone();
        if starting {
            let pool = snapshot.pools.iter().find(|pool| node.label(karpenter::NODEPOOL) == Some(&pool.name));
            taints.retain(|taint| {
                let startup = pool.is_some_and(|pool| {
                    pool.startup_taints.iter().any(|s| s.key == taint.key && s.effect == taint.effect)
                });
                !startup && !STARTING.contains(&taint.key.as_str())
            });
            // Device plugins report late: until then the claim's promise stands for what is still zero.
            if let Some(claim) = claim {
                allocatable = with_zeros_from(allocatable, &claim.allocatable);
            }
        }
        let labels = if starting { once_started(&node.labels) } else { node.labels.clone() };
        let daemons = daemons_on(&snapshot.daemon_sets, &labels, &taints);
        let room = room(&node.name, &allocatable, daemons);
        targets.push(Target { name: Arc::clone(&node.name), labels, taints, room });
    }
    let joined = |claim: &NodeClaim| {
        claim.node.as_ref().is_some_and(|name| snapshot.nodes.iter().any(|node| node.name == *name))
    };
    let mut claims: Vec<&NodeClaim> = snapshot
        .node_claims
        .iter()
        .filter(|claim| claim.state != ClaimState::Terminating && !joined(claim))
        .collect();
    claims.sort_by_key(|claim| (claim.created, Arc::clone(&claim.name)));
    for claim in claims {
        let labels = once_started(&claim.labels);
        let daemons = daemons_on(&snapshot.daemon_sets, &labels, &claim.taints);
        let room = room(&claim.name, &claim.allocatable, daemons);
        targets.push(Target { name: Arc::clone(&claim.name), labels, taints: claim.taints.clone(), room });
    }
    targets
}

fn is_initialized(node: &Node) -> bool {
    node.label(karpenter::NODEPOOL).is_none() || node.label(karpenter::INITIALIZED) == Some("true")
}

/// Labels a node will have besides once it is ready.
fn once_started(labels: &Labels) -> Labels {
    let mut labels = labels.clone();
    for key in [karpenter::REGISTERED, karpenter::INITIALIZED] {
        labels.insert(key.to_owned(), "true".to_owned());
    }
    labels
}

fn with_zeros_from(mut real: ResourceList, promised: &ResourceList) -> ResourceList {
    if real.cpu.is_zero() {
        real.cpu = promised.cpu;
    }
    if real.memory.is_zero() {
        real.memory = promised.memory;
    }
    if real.ephemeral_storage.is_zero() {
        real.ephemeral_storage = promised.ephemeral_storage;
    }
    if real.pods == 0 {
        real.pods = promised.pods;
    }
    for (name, amount) in &promised.extended {
        if real.extended(name) == 0 {
            real.set_extended(name, *amount);
        }
    }
    real
}

/// What the DaemonSets that run on such a node take. They tolerate the taints that Kubernetes puts on nodes in trouble.
fn daemons_on(daemon_sets: &[DaemonSet], labels: &Labels, taints: &[Taint]) -> ResourceList {
    let runs = |set: &&DaemonSet| {
        let tolerates =
            |taint: &Taint, list: &[Toleration]| untolerated(std::slice::from_ref(taint), list).is_none();
        taints.iter().all(|taint| {
            taint.key.starts_with("node.kubernetes.io/") || tolerates(taint, &set.spec.tolerations)
        }) && required_terms(&set.spec)
            .is_ok_and(|terms| terms.iter().any(|term| term.check_labels(labels).is_ok()))
    };
    daemon_sets.iter().filter(runs).map(|set| &set.spec.requests).sum()
}
