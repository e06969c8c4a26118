//! Pods and the templates of DaemonSets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::{
    AttachedVolume, Gang, HostPort, Labels, PodAffinityTerm, ReasonCode, ResourceList, Timestamp, Toleration,
    TopologySpread, WeightedPodAffinityTerm,
};
use crate::requirement::Requirement;

/// Namespace and name of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodId {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl PodId {
    /// The pod `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodId {
    /// `namespace/name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Which pod.
    pub id: PodId,
    /// Its labels, shared with its siblings.
    pub labels: Arc<Labels>,
    /// Its annotations, shared with its siblings.
    pub annotations: Arc<Labels>,
    /// What it needs, shared with its siblings.
    pub spec: Arc<PodSpec>,
    /// Its priority; larger is more important.
    pub priority: i32,
    /// When it was created.
    pub created: Timestamp,
    /// How far it got.
    pub phase: PodPhase,
    /// Who made it, as far as that matters for scheduling and eviction.
    pub owner: PodOwner,
    /// Node it is bound to.
    pub node: Option<Arc<str>>,
    /// By when its kubelet ends it, once its deletion has begun (`deletionTimestamp`).
    pub terminating: Option<Timestamp>,
    /// How long it may take to end.
    pub termination_grace: Duration,
    /// Volumes to attach to its node, in no order; empty for nearly every pod.
    pub volumes: Arc<[AttachedVolume]>,
    /// The gang it is of.
    pub gang: Option<Arc<Gang>>,
}

impl Pod {
    /// What a pod has that names no `terminationGracePeriodSeconds`.
    pub const DEFAULT_GRACE: Duration = Duration::from_secs(30);
    /// Priority of `system-cluster-critical`; users' classes end at half of it.
    const CRITICAL_PRIORITY: i32 = 2_000_000_000;

    /// A pending pod of a controller, with nothing but a name and needs.
    #[must_use]
    pub fn new(id: PodId, spec: Arc<PodSpec>) -> Self {
        Self {
            id,
            labels: Arc::default(),
            annotations: Arc::default(),
            spec,
            priority: 0,
            created: Timestamp(0),
            phase: PodPhase::Pending,
            owner: PodOwner::Controller,
            node: None,
            terminating: None,
            termination_grace: Self::DEFAULT_GRACE,
            volumes: Arc::default(),
            gang: None,
        }
    }

    /// Whether it waits for a node that Assay could provide.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.node.is_none()
            && self.phase == PodPhase::Pending
            && self.terminating.is_none()
            && matches!(self.owner, PodOwner::Nobody | PodOwner::Controller)
    }

    /// Whether it may take the other one's place wherever that could be put: they are siblings that nothing tells apart.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        self.id.namespace == other.id.namespace
            && (&self.labels, &self.spec) == (&other.labels, &other.spec)
            && (self.owner, self.priority, &self.gang) == (other.owner, other.priority, &other.gang)
            && self.volumes.is_empty()
            && other.volumes.is_empty()
    }

    /// Whether it takes room on its node.
    #[must_use]
    pub fn uses_node(&self) -> bool {
        self.node.is_some() && matches!(self.phase, PodPhase::Pending | PodPhase::Running)
    }

    /// Whether the cluster leans on it (`system-cluster-critical`, `system-node-critical`).
    #[must_use]
    pub const fn is_critical(&self) -> bool {
        self.priority >= Self::CRITICAL_PRIORITY
    }

    /// Whether it would have to run elsewhere if its node went.
    #[must_use]
    pub fn is_reschedulable(&self) -> bool {
        self.uses_node()
            && self.terminating.is_none()
            && matches!(self.owner, PodOwner::Nobody | PodOwner::Controller)
    }
}

/// How far a pod got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PodPhase {
    /// Not all its containers have started.
    Pending,
    /// It runs.
    Running,
    /// It ended, one way or the other.
    Finished,
}

/// Who made a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PodOwner {
    /// Nobody: it is not made again when it goes.
    Nobody,
    /// A controller that makes it again elsewhere.
    Controller,
    /// A DaemonSet: it belongs to its node.
    DaemonSet,
    /// The kubelet of its node (static and mirror pods).
    Node,
}

/// What a pod needs. Pods with equal specs are one class to the solver.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodSpec {
    /// What it takes, one pod slot included.
    pub requests: ResourceList,
    /// Node labels it needs, from `nodeSelector`.
    pub node_selector: Vec<Requirement>,
    /// Required node affinity: one of these terms must hold, each a conjunction. Empty: no such constraint.
    pub required_affinity: Vec<Vec<Requirement>>,
    /// Preferred node affinity.
    pub preferred_affinity: Vec<PreferredTerm>,
    /// Taints it tolerates.
    pub tolerations: Vec<Toleration>,
    /// How it spreads over domains, hard and soft.
    pub topology_spread: Vec<TopologySpread>,
    /// Pods it must share a domain with: all terms.
    pub pod_affinity: Vec<PodAffinityTerm>,
    /// Pods it must not share a domain with: all terms. Binds in both directions.
    pub pod_anti_affinity: Vec<PodAffinityTerm>,
    /// Pods it would like to share a domain with.
    pub preferred_pod_affinity: Vec<WeightedPodAffinityTerm>,
    /// Pods it would like not to share a domain with.
    pub preferred_pod_anti_affinity: Vec<WeightedPodAffinityTerm>,
    /// Ports of the node it takes.
    pub host_ports: Vec<HostPort>,
    /// Where its volumes can be reached: for each volume alternatives, each a conjunction of node requirements. Never given up.
    pub volume_topology: Vec<Vec<Vec<Requirement>>>,
    /// What each container asks for that the kubelet aligns to NUMA nodes: exclusive CPUs of guaranteed pods, devices.
    /// Containers that ask for nothing of the kind are left out.
    pub aligned: Vec<AlignedRequest>,
    /// Why it can be placed nowhere, found while it was read: such a pod is left out and says so.
    pub rejections: Vec<Rejection>,
}

/// A preferred node affinity term.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PreferredTerm {
    /// 1 to 100; the heaviest is tried first.
    pub weight: u32,
    /// Its requirements, all of which must hold.
    pub requirements: Vec<Requirement>,
}

/// What one container asks for that must come from one NUMA node under `single-numa-node`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AlignedRequest {
    /// Whole CPUs of its own: the container of a guaranteed pod with an integer CPU request.
    pub cpus: u64,
    /// Devices by resource name. Never holds a zero.
    pub devices: BTreeMap<String, u64>,
}

/// A reason found while a pod was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rejection {
    /// Which kind.
    pub reason: ReasonCode,
    /// The field or object, and what is wrong with it.
    pub detail: String,
}

/// A DaemonSet: every node it selects runs one pod of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSet {
    /// Its namespace and name.
    pub id: PodId,
    /// What one pod of it needs.
    pub spec: Arc<PodSpec>,
}
