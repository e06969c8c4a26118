//! Machines that exist or are on their way, and the room on them. It is paid for, so it is used before anything is bought.
//!
//! A pod bound to a claim's name counts as running there: that is how a driver keeps pods on the machine bought for them.

use std::sync::Arc;

use assay_shared::labels::{assay, karpenter, kubernetes};
use rustc_hash::{FxHashMap, FxHashSet};

use super::axes::{Amounts, Axes};
use super::catalog::required_terms;
use super::host::Occupancy;
use crate::model::{
    ClaimState, DaemonSet, HostPort, Labels, Node, NodeClaim, PodOwner, ResourceList, Snapshot, Taint,
    Toleration, untolerated,
};

/// A node or a claim.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) name: Arc<str>,
    pub(super) labels: Labels,
    pub(super) taints: Vec<Taint>,
    /// Whether it takes new pods. Pods on one that does not are counted all the same.
    pub(super) open: bool,
    pub(super) room: Amounts,
    pub(super) occupancy: Occupancy,
    /// Ports that its DaemonSets take.
    pub(super) daemon_ports: Vec<HostPort>,
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

/// Prefix of readiness gates' taints, which go when the gate opens.
const READINESS_PREFIX: &str = "readiness.k8s.io/";

/// What pods that run take, by the name of their node.
#[derive(Debug, Default)]
struct Usage<'s> {
    all: ResourceList,
    daemons: ResourceList,
    /// Volumes attached, each once, by driver.
    volumes: FxHashSet<(&'s str, &'s str)>,
}

/// Open ones first: initialised nodes by name, then starting nodes by name, then claims in the order they were decided; then
/// the nodes that take no pods.
pub(super) fn places(snapshot: &Snapshot, axes: &Axes) -> Vec<Place> {
    let mut usage: FxHashMap<&str, Usage<'_>> = FxHashMap::default();
    for pod in snapshot.pods.iter().filter(|pod| pod.uses_node()) {
        if let Some(node) = &pod.node {
            let usage = usage.entry(&**node).or_default();
            usage.all += &pod.spec.requests;
            if pod.owner == PodOwner::DaemonSet {
                usage.daemons += &pod.spec.requests;
            }
            usage.volumes.extend(pod.volumes.iter().map(|volume| (&*volume.driver, &*volume.id)));
        }
    }
    let nothing = Usage::default();
    let room = |name: &str, allocatable: &ResourceList, daemons: ResourceList| {
        let usage = usage.get(name).unwrap_or(&nothing);
        // DaemonSet pods that run already are in `all`: only the rest is still to come.
        let used = usage.all.clone() + &(daemons - &usage.daemons);
        axes.room(allocatable, &used, |driver| {
            usage.volumes.iter().filter(|(one, _)| *one == driver).count() as u64
        })
    };
    let claim_of: FxHashMap<&str, &NodeClaim> =
        snapshot.node_claims.iter().filter_map(|claim| Some((&**claim.node.as_ref()?, claim))).collect();
    let mut nodes: Vec<&Node> = snapshot.nodes.iter().collect();
    nodes.sort_by_key(|node| (!is_initialized(node), Arc::clone(&node.name)));
    let mut places = Vec::new();
    let mut closed = Vec::new();
    for node in nodes {
        let claim = claim_of.get(&*node.name);
        let starting = node.label(karpenter::NODEPOOL).is_some() && !is_initialized(node);
        let going = claim.is_some_and(|claim| claim.state == ClaimState::Terminating);
        let open = node.accepts_pods() && !going && (node.ready || starting);
        let mut taints = node.taints.clone();
        let mut allocatable = node.allocatable.clone();
        if starting {
            let pool = snapshot.pools.iter().find(|pool| node.label(karpenter::NODEPOOL) == Some(&pool.name));
            taints.retain(|taint| {
                let startup = pool.is_some_and(|pool| {
                    pool.startup_taints.iter().any(|s| s.key == taint.key && s.effect == taint.effect)
                });
                let passing =
                    STARTING.contains(&taint.key.as_str()) || taint.key.starts_with(READINESS_PREFIX);
                !startup && !passing
            });
            // Device plugins report late: until then the claim's promise stands for what is still zero.
            if let Some(claim) = claim {
                allocatable = with_zeros_from(allocatable, &claim.allocatable);
            }
        }
        let labels = if starting { once_started(&node.labels) } else { node.labels.clone() };
        let (daemons, daemon_ports) = daemons_on(&snapshot.daemon_sets, &labels, &taints);
        let room = room(&node.name, &allocatable, daemons);
        let name = Arc::clone(&node.name);
        let place = Place { name, labels, taints, open, room, occupancy: Occupancy::default(), daemon_ports };
        if open {
            places.push(place);
        } else {
            closed.push(place);
        }
    }
    let joined: FxHashSet<&str> = snapshot.nodes.iter().map(|node| &*node.name).collect();
    let mut claims: Vec<&NodeClaim> = snapshot
        .node_claims
        .iter()
        .filter(|claim| {
            claim.state != ClaimState::Terminating
                && !claim.node.as_ref().is_some_and(|name| joined.contains(&**name))
        })
        .collect();
    claims.sort_by_key(|claim| (claim.created, Arc::clone(&claim.name)));
    for claim in claims {
        let labels = once_started(&claim.labels);
        let (daemons, daemon_ports) = daemons_on(&snapshot.daemon_sets, &labels, &claim.taints);
        let room = room(&claim.name, &claim.allocatable, daemons);
        places.push(Place {
            name: Arc::clone(&claim.name),
            labels,
            taints: claim.taints.clone(),
            open: true,
            room,
            occupancy: Occupancy::default(),
            daemon_ports,
        });
    }
    places.extend(closed);
    places
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

/// What the DaemonSets that run on such a node take, and their ports. They tolerate the taints that Kubernetes puts on nodes
/// in trouble.
fn daemons_on(daemon_sets: &[DaemonSet], labels: &Labels, taints: &[Taint]) -> (ResourceList, Vec<HostPort>) {
    let runs = |set: &&DaemonSet| {
        let tolerates =
            |taint: &Taint, list: &[Toleration]| untolerated(std::slice::from_ref(taint), list).is_none();
        taints.iter().all(|taint| {
            taint.key.starts_with("node.kubernetes.io/") || tolerates(taint, &set.spec.tolerations)
        }) && required_terms(&set.spec)
            .is_ok_and(|terms| terms.iter().any(|term| term.check_labels(labels).is_ok()))
    };
    let mut requests = ResourceList::default();
    let mut ports = Vec::new();
    for set in daemon_sets.iter().filter(runs) {
        requests += &set.spec.requests;
        ports.extend(set.spec.host_ports.iter().cloned());
    }
    (requests, ports)
}

impl Place {
    /// A label under any of its spellings.
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        let alias = || kubernetes::ALIASES.iter().find(|(_, name)| *name == key);
        self.labels
            .get(key)
            .or_else(|| alias().and_then(|(alias, _)| self.labels.get(*alias)))
            .map(String::as_str)
    }
}
