//! What to do.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::CapacityType;
use crate::model::{Labels, NodeClaim, PodId, Taint, Timestamp};

/// Something a driver carries out. Every effect may be carried out twice with the same result as once.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make a claim's object, its choice of machine on record, and then its VM. The name makes both idempotent. Answered by
    /// `Launched` or `LaunchFailed`.
    CreateInstance {
        /// The claim, with size, zone and capacity type.
        claim: Box<NodeClaim>,
    },
    /// Delete a claim's object; its finalizer holds it. This puts the decision on record. Answered by `ClaimDeleting`.
    DeleteClaim {
        /// The claim.
        claim: Arc<str>,
    },
    /// Delete the VM of a claim. Answered by `InstanceGone`, also where there is none.
    DeleteInstance {
        /// The claim.
        claim: Arc<str>,
    },
    /// Let go of a claim whose VM is gone: delete its Node and take our finalizer off it, then off the claim. Answered by
    /// `ClaimDeleted`.
    ReleaseClaim {
        /// The claim.
        claim: Arc<str>,
        /// Its node, where one had joined.
        node: Option<Arc<str>>,
    },
    /// Set a condition of a claim. What its status says of the machine is in [`Engine::machines`](super::Engine::machines).
    SetClaimCondition {
        /// The claim.
        claim: Arc<str>,
        /// The condition.
        condition: Condition,
    },
    /// Note on a claim by when its pods are gone whatever holds them.
    SetTerminationDeadline {
        /// The claim.
        claim: Arc<str>,
        /// The moment, for `karpenter.sh/nodeclaim-termination-timestamp`.
        at: Timestamp,
    },
    /// Tie a node to its claim: our finalizer, the claim as its owner, and these annotations.
    AdoptNode {
        /// The node.
        node: Arc<str>,
        /// Its claim.
        claim: Arc<str>,
        /// Annotations to set.
        annotations: Labels,
    },
    /// Set these labels of a node, leave its others alone.
    LabelNode {
        /// The node.
        node: Arc<str>,
        /// Labels to set.
        labels: Labels,
    },
    /// Put a taint on a node.
    TaintNode {
        /// The node.
        node: Arc<str>,
        /// The taint.
        taint: Taint,
    },
    /// Take a taint off a node, by key and effect.
    UntaintNode {
        /// The node.
        node: Arc<str>,
        /// The taint.
        taint: Taint,
    },
    /// Set a condition of a node.
    SetNodeCondition {
        /// The node.
        node: Arc<str>,
        /// The condition.
        condition: Condition,
    },
    /// Ask for the eviction of a pod, as the Eviction API does, while it is on this node. Answered by `EvictionAnswered`.
    EvictPod {
        /// The pod.
        pod: PodId,
        /// Node it leaves.
        node: Arc<str>,
    },
    /// Delete a pod whatever its budgets say, while it is on this node: the time its node had is over.
    DeletePod {
        /// The pod.
        pod: PodId,
        /// Node it leaves.
        node: Arc<str>,
        /// How long it may take to end.
        grace: Duration,
    },
    /// Tell that a pod is expected to run on a node or claim.
    NominatePod {
        /// The pod.
        pod: PodId,
        /// Node or claim.
        target: Arc<str>,
    },
    /// Tell people what was decided and why.
    RecordEvent {
        /// What it is about: `Pod/default/web-1`, `Node/x`, `NodeClaim/x`, `NodePool/x`.
        object: String,
        /// Kind of event.
        kind: EventKind,
        /// Karpenter's reason word, such as `Nominated`, `FailedScheduling`, `DisruptionTerminating`.
        reason: &'static str,
        /// The numbers and why.
        message: String,
    },
    /// An offering turned out not to be had; for metrics and logs.
    OfferingUnavailable {
        /// Size.
        instance_type: Arc<str>,
        /// Zone.
        zone: Arc<str>,
        /// Capacity type.
        capacity_type: CapacityType,
    },
}

/// Kind of a recorded event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// All is as it should be.
    Normal,
    /// Somebody may want to know.
    Warning,
}

/// A condition of a node, a claim or a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Its type, such as `HardwareMatchesClaim`.
    pub condition_type: &'static str,
    /// Its status.
    pub status: ConditionStatus,
    /// A stable word for programs.
    pub reason: &'static str,
    /// The numbers, for people.
    pub message: String,
}

impl Condition {
    /// A condition that holds, for the reason of its own name.
    pub(super) const fn holds(condition_type: &'static str, message: String) -> Self {
        Self { condition_type, status: ConditionStatus::True, reason: condition_type, message }
    }
}

/// Status of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody knows yet.
    Unknown,
}
