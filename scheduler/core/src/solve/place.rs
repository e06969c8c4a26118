//! A machine that exists or is on its way, and the room on it. It is paid for, so it is used before anything is bought.
//!
//! A pod bound to a claim's name counts as running there: that is how a driver keeps pods on the machine bought for them.

use std::sync::Arc;

use assay_shared::labels::{assay, karpenter};
use smallvec::SmallVec;

use super::axes::{Amounts, Axes};
use super::catalog::required_terms;
use super::host::Occupancy;
use super::topology::GroupId;
use crate::model::{
    AttachedVolume, ClaimState, DaemonSet, HostPort, Labels, Market, Node, NodeClaim, Pod, PodOwner,
    ResourceList, Taint, Timestamp, Toleration, untolerated,
};
use crate::requirement::value_of;

/// A node or a claim, with what runs there.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) name: Arc<str>,
    pub(super) site: Site,
    /// What is left for pods.
    pub(super) room: Amounts,
    pub(super) occupancy: Occupancy,
    /// Groups that the ports of its DaemonSets make, and what these allow beside them.
    pub(super) port_groups: Vec<GroupId>,
    pub(super) port_limits: SmallVec<[(GroupId, u32); 2]>,
    /// What the pods there take, and what of that is the DaemonSets'.
    used: ResourceList,
    daemons: ResourceList,
    /// Volumes attached, each once.
    pub(super) volumes: Vec<AttachedVolume>,
}

/// What a place is, whoever runs there.
#[derive(Debug, PartialEq)]
pub(super) struct Site {
    pub(super) rank: Rank,
    labels: Named,
    pub(super) taints: Vec<Taint>,
    allocatable: ResourceList,
    /// What DaemonSets take, running or still to come.
    expected: ResourceList,
    /// Ports that its DaemonSets take.
    pub(super) daemon_ports: Vec<HostPort>,
}

/// Where a place stands among all, by which the first with room is found: its standing, when it was decided, its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    standing: Standing,
    decided: Timestamp,
    name: Arc<str>,
}

impl Rank {
    /// Whether the place takes new pods. Pods on one that does not are counted all the same.
    pub(super) fn is_open(&self) -> bool {
        self.standing != Standing::Closed
    }
}

/// Initialised nodes before starting ones, both by name, before claims in the order they were decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Initialized,
    Starting,
    Claimed,
    Closed,
}

/// Labels: those of a node as it is, or as they will be.
#[derive(Debug)]
enum Named {
    Of(Arc<Node>),
    Own(Labels),
}

impl Named {
    fn list(&self) -> &Labels {
        match self {
            Self::Of(node) => &node.labels,
            Self::Own(labels) => labels,
        }
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.list() == other.list()
    }
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

impl Site {
    /// A node; `claim` is the one it was bought for.
    pub(super) fn of_node(node: &Arc<Node>, claim: Option<&NodeClaim>, market: &Market) -> Self {
        let starting = node.label(karpenter::NODEPOOL).is_some() && !is_initialized(node);
        let going = claim.is_some_and(|claim| claim.state == ClaimState::Terminating);
        let open = node.accepts_pods() && !going && (node.ready || starting);
        let standing = match (open, starting) {
            (false, _) => Standing::Closed,
            (true, true) => Standing::Starting,
            (true, false) => Standing::Initialized,
        };
        let mut taints = node.taints.clone();
        let mut allocatable = node.allocatable.clone();
        if starting {
            let pool = node.label(karpenter::NODEPOOL).and_then(|name| market.pool(name));
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
        let labels =
            if starting { Named::Own(once_started(&node.labels)) } else { Named::Of(Arc::clone(node)) };
        let rank = Rank { standing, decided: Timestamp::default(), name: Arc::clone(&node.name) };
        Self::new(rank, labels, taints, allocatable, &market.daemon_sets)
    }

    /// A claim whose node has not joined.
    pub(super) fn of_claim(claim: &NodeClaim, market: &Market) -> Self {
        let rank =
            Rank { standing: Standing::Claimed, decided: claim.created, name: Arc::clone(&claim.name) };
        let labels = Named::Own(once_started(&claim.labels));
        Self::new(rank, labels, claim.taints.clone(), claim.allocatable.clone(), &market.daemon_sets)
    }

    fn new(
        rank: Rank,
        labels: Named,
        taints: Vec<Taint>,
        allocatable: ResourceList,
        daemon_sets: &[DaemonSet],
    ) -> Self {
        let (expected, daemon_ports) = daemons_on(daemon_sets, labels.list(), &taints);
        Self { rank, labels, taints, allocatable, expected, daemon_ports }
    }

    /// Whether pods may be there for the same reasons as at `other`, whatever room there is.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.rank == other.rank
            && self.taints == other.taints
            && self.daemon_ports == other.daemon_ports
            && self.labels == other.labels
    }

    pub(super) fn labels(&self) -> &Labels {
        self.labels.list()
    }

    /// A label under any of its spellings.
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        value_of(self.labels(), key)
    }
}

impl Place {
    /// A place where nobody is yet.
    pub(super) fn new(name: Arc<str>, site: Site) -> Self {
        Self {
            name,
            site,
            room: Amounts::new(),
            occupancy: Occupancy::default(),
            port_groups: Vec::new(),
            port_limits: SmallVec::new(),
            used: ResourceList::default(),
            daemons: ResourceList::default(),
            volumes: Vec::new(),
        }
    }

    /// Takes what a pod takes, volumes and room aside.
    pub(super) fn admit(&mut self, pod: &Pod) {
        self.used += &pod.spec.requests;
        if pod.owner == PodOwner::DaemonSet {
            self.daemons += &pod.spec.requests;
        }
    }

    /// Gives that back.
    pub(super) fn dismiss(&mut self, pod: &Pod) {
        let less = |list: &mut ResourceList| *list = std::mem::take(list) - &pod.spec.requests;
        less(&mut self.used);
        if pod.owner == PodOwner::DaemonSet {
            less(&mut self.daemons);
        }
    }

    /// Works out anew what is left.
    pub(super) fn measure(&mut self, axes: &Axes) {
        // DaemonSet pods that run already are in `used`: only the rest is still to come.
        let to_come = self.site.expected.clone() - &self.daemons;
        let used = self.used.clone() + &to_come;
        let attached = |driver: &str| self.volumes.iter().filter(|one| *one.driver == *driver).count() as u64;
        self.room = axes.room(&self.site.allocatable, &used, attached);
    }
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
