//! What can happen.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use assay_shared::HardwareReport;
use assay_shared::protocol::Notice;
use assay_shared::units::UsdPerHour;

use crate::catalog::CapacityType;
use crate::model::{
    ClassFacts, DaemonSet, DisruptionBudget, Node, NodeClaim, NodeClass, NodeFacts, NodePool, Pod, PodId,
    Timestamp, Wait,
};

/// Something that happened in the cluster, the cloud or the fleet.
#[derive(Debug, Clone)]
pub enum Event {
    /// A pod was created or changed.
    PodApplied(Box<Pod>),
    /// A pod is gone.
    PodDeleted(PodId),
    /// A node joined or changed.
    NodeApplied(Box<Node>),
    /// A node object is gone.
    NodeDeleted(Arc<str>),
    /// A pool was created or changed.
    PoolApplied(Box<NodePool>),
    /// A pool is gone.
    PoolDeleted(String),
    /// A node class was created or changed.
    ClassApplied(Box<NodeClass>),
    /// A node class is gone.
    ClassDeleted(String),
    /// A DaemonSet was created or changed.
    DaemonSetApplied(Box<DaemonSet>),
    /// A DaemonSet is gone.
    DaemonSetDeleted(PodId),
    /// A PodDisruptionBudget was created or changed.
    DisruptionBudgetApplied(Box<DisruptionBudget>),
    /// A PodDisruptionBudget is gone.
    DisruptionBudgetDeleted(PodId),
    /// What is known of a node that decides whether it may stay: its conditions, its version, the image of its machine. What the
    /// engine knows by itself (pods that come and go, hardware, drift) is not read.
    NodeFacts {
        /// The node.
        node: Arc<str>,
        /// What is known.
        facts: Box<NodeFacts>,
    },
    /// What a claim's object says of its machine beside what the claim is.
    ClaimFacts {
        /// The claim.
        claim: Arc<str>,
        /// Image the machine was made from.
        image: Option<String>,
        /// Age at which it is replaced, where it is not the pool's.
        expire_after: Option<Wait>,
    },
    /// What a class would make now.
    ClassFacts {
        /// The class.
        class: String,
        /// What is known.
        facts: ClassFacts,
    },
    /// A claim is there that an earlier run or somebody else made, or its object changed. At start these come after the pools
    /// and classes and before the first [`Engine::advance`](super::Engine::advance), so that nothing is bought twice.
    ClaimApplied(Box<NodeClaim>),
    /// A claim's object is to be deleted, and its finalizer holds it: our own decision is on record, or it is somebody else's.
    ClaimDeleting {
        /// The claim.
        claim: Arc<str>,
        /// When that was asked for.
        at: Timestamp,
    },
    /// A claim's object is gone.
    ClaimDeleted {
        /// The claim.
        claim: Arc<str>,
    },
    /// The Eviction API answered.
    EvictionAnswered {
        /// The pod.
        pod: PodId,
        /// What it said.
        answer: EvictionAnswer,
    },
    /// Which volumes are attached to a node now: all of them.
    VolumeAttachments {
        /// The node.
        node: Arc<str>,
        /// Names of their PersistentVolumes.
        volumes: BTreeSet<Arc<str>>,
    },
    /// Which VMs of ours the cloud has: all of them.
    InstancesListed {
        /// When the list was asked for. What happened since may be missing from it.
        asked: Timestamp,
        /// The VMs.
        instances: Vec<Instance>,
    },
    /// The cloud accepted a claim: the VM exists.
    Launched {
        /// The claim.
        claim: Arc<str>,
        /// The cloud's id of the VM.
        provider_id: String,
        /// Size that was really given.
        instance_type: Arc<str>,
        /// Zone that was really given.
        zone: Arc<str>,
        /// How it is paid for.
        capacity_type: CapacityType,
        /// What it costs.
        price: UsdPerHour,
    },
    /// The cloud refused a claim.
    LaunchFailed {
        /// The claim.
        claim: Arc<str>,
        /// Why.
        error: LaunchError,
    },
    /// A VM is gone, by our wish or not.
    InstanceGone {
        /// The claim it was made for.
        claim: Arc<str>,
    },
    /// An agent connected.
    AgentConnected {
        /// The node it reports about.
        node: Arc<str>,
    },
    /// A node was measured. The fleet server has checked that the report is about this node.
    Report {
        /// The node.
        node: Arc<str>,
        /// What was measured.
        report: Arc<HardwareReport>,
    },
    /// A node has something urgent to tell.
    Notice {
        /// The node.
        node: Arc<str>,
        /// What.
        notice: Notice,
    },
    /// An agent went away. Nothing is deleted for that: its facts grow stale.
    AgentLost {
        /// The node it reported about.
        node: Arc<str>,
    },
    /// Time passed; a driver sends it when `Engine::next_wakeup` is due.
    Tick,
}

/// What the Eviction API said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EvictionAnswer {
    /// The pod is ending.
    Accepted,
    /// There is no such pod on that node.
    Gone,
    /// A disruption budget or the server forbids it for now.
    Refused {
        /// In the server's words.
        message: String,
    },
}

/// A VM in the cloud's list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// Its name, which is that of the claim it was made for.
    pub claim: Arc<str>,
    /// The cloud's id of it.
    pub provider_id: String,
    /// When it was made.
    pub created: Timestamp,
}

/// Why the cloud refused to make a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchError {
    /// The kind, which decides what is avoided and for how long.
    pub failure: LaunchFailure,
    /// Size that was asked for.
    pub instance_type: Arc<str>,
    /// Zone that was asked for.
    pub zone: Arc<str>,
    /// How it was to be paid for.
    pub capacity_type: CapacityType,
    /// The cloud's words.
    pub message: String,
}

/// Kinds of refusal, by the names of the Azure error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LaunchFailure {
    /// No capacity for this size in this zone now.
    ZonalAllocationFailed,
    /// No capacity for this size in the region now.
    AllocationFailed,
    /// The subscription's vCPU quota of the family is used up.
    SkuFamilyQuotaExceeded,
    /// The spot quota is used up.
    LowPriorityQuotaExceeded,
    /// The size is not sold to this subscription there.
    SkuNotAvailable,
    /// Anything else.
    Other,
}

impl fmt::Display for LaunchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}
