//! A machine that exists or is on its way, and the room on it. It is paid for, so it is used before anything is bought.
//!
//! A pod bound to a claim's name counts as running there: that is how a driver keeps pods on the machine bought for them.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_shared::labels::{assay, karpenter, kubernetes};
use smallvec::SmallVec;

use super::axes::{Amounts, Axes};
use super::catalog::required_terms;
use super::host::Occupancy;
use super::numa::NumaRoom;
use super::topology::GroupId;
use crate::model::{
    AlignedRequest, AttachedVolume, ClaimState, DaemonSet, HostPort, Labels, Market, Node, NodeClaim, Pod,
    PodId, PodOwner, PodSpec, ResourceList, Taint, Timestamp, Toleration, untolerated,
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
    /// What is left on its NUMA nodes, where its kubelet insists on them.
    pub(super) numa: Option<NumaRoom>,
    /// Groups that the ports of its DaemonSets make, and what these allow beside them.
    pub(super) port_groups: Vec<GroupId>,
    pub(super) port_limits: SmallVec<[(GroupId, u32); 2]>,
    /// What the pods there take, and what of that is the DaemonSets'.
    used: ResourceList,
    daemons: ResourceList,
    /// Pods there with containers that are aligned to NUMA nodes, oldest first.
    aligned: BTreeMap<(Timestamp, PodId), Arc<PodSpec>>,
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
    /// All that the machine has, what it was bought as, and its NUMA nodes when nobody is there.
    capacity: ResourceList,
    bought: Option<Bought>,
    numa: Option<NumaRoom>,
    /// What DaemonSets take, running or still to come.
    expected: ResourceList,
    /// Ports that its DaemonSets take.
    pub(super) daemon_ports: Vec<HostPort>,
}

/// Of which pool and type a machine is.
#[derive(Debug, PartialEq)]
struct Bought {
    pool: Arc<str>,
    instance_type: Arc<str>,
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
        let bought = node.label(karpenter::NODEPOOL).zip(node.label(kubernetes::INSTANCE_TYPE));
        let bought = bought.map(|(pool, name)| Bought { pool: pool.into(), instance_type: name.into() });
        Self::new(rank, labels, taints, (allocatable, node.capacity.clone()), bought, market)
    }

    /// A claim whose node has not joined.
    pub(super) fn of_claim(claim: &NodeClaim, market: &Market) -> Self {
        let rank =
            Rank { standing: Standing::Claimed, decided: claim.created, name: Arc::clone(&claim.name) };
        let labels = Named::Own(once_started(&claim.labels));
        let amounts = (claim.allocatable.clone(), claim.capacity.clone());
        let bought =
            Bought { pool: claim.pool.as_str().into(), instance_type: Arc::clone(&claim.instance_type) };
        Self::new(rank, labels, claim.taints.clone(), amounts, Some(bought), market)
    }

    fn new(
        rank: Rank,
        labels: Named,
        taints: Vec<Taint>,
        (allocatable, capacity): (ResourceList, ResourceList),
        bought: Option<Bought>,
        market: &Market,
    ) -> Self {
        let (expected, daemon_ports) = daemons_on(&market.daemon_sets, labels.list(), &taints);
        let mut site =
            Self { rank, labels, taints, allocatable, capacity, bought, numa: None, expected, daemon_ports };
        site.look_up(market);
        site
    }

    /// Takes note of what is known of types now.
    pub(super) fn look_up(&mut self, market: &Market) {
        let Some(Bought { pool, instance_type }) = &self.bought else { return };
        self.numa = NumaRoom::of_machine(market, (pool, instance_type), self.labels(), &self.capacity);
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
            numa: None,
            port_groups: Vec::new(),
            port_limits: SmallVec::new(),
            used: ResourceList::default(),
            daemons: ResourceList::default(),
            aligned: BTreeMap::new(),
            volumes: Vec::new(),
        }
    }

    /// Takes what a pod takes, volumes and room aside.
    pub(super) fn admit(&mut self, pod: &Pod) {
        self.used += &pod.spec.requests;
        if !pod.spec.aligned.is_empty() {
            self.aligned.insert((pod.created, pod.id.clone()), Arc::clone(&pod.spec));
        }
        if pod.owner == PodOwner::DaemonSet {
            self.daemons += &pod.spec.requests;
        }
    }

    /// Gives that back.
    pub(super) fn dismiss(&mut self, pod: &Pod) {
        let less = |list: &mut ResourceList| *list = std::mem::take(list) - &pod.spec.requests;
        less(&mut self.used);
        if !pod.spec.aligned.is_empty() {
            self.aligned.remove(&(pod.created, pod.id.clone()));
        }
        if pod.owner == PodOwner::DaemonSet {
            less(&mut self.daemons);
        }
    }

    /// Puts so many pods with these containers on its NUMA nodes.
    pub(super) fn align(&mut self, containers: &[AlignedRequest], count: u64) {
        if let Some(numa) = self.numa.as_mut().filter(|_| !containers.is_empty()) {
            (0..count).for_each(|_| numa.seat(containers));
        }
    }

    /// Works out anew what is left.
    pub(super) fn measure(&mut self, axes: &Axes) {
        // DaemonSet pods that run already are in `used`: only the rest is still to come.
        let to_come = self.site.expected.clone() - &self.daemons;
        let used = self.used.clone() + &to_come;
        let attached = |driver: &str| self.volumes.iter().filter(|one| *one.driver == *driver).count() as u64;
        self.room = axes.room(&self.site.allocatable, &used, attached);
        self.numa.clone_from(&self.site.numa);
        if let Some(numa) = &mut self.numa {
            self.aligned.values().for_each(|spec| numa.seat(&spec.aligned));
        }
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
