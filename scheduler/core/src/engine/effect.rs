//! What to do.

use std::sync::Arc;

use crate::catalog::CapacityType;
use crate::model::{Labels, NodeClaim, PodId, Taint};

/// Something a driver carries out. Every effect may be carried out twice with the same result as once.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make the VM of a claim. The name makes it idempotent; the choice is the claim's.
    CreateInstance {
        /// The claim, with size, zone and capacity type.
        claim: Box<NodeClaim>,
    },
    /// Delete the VM of a claim.
    DeleteInstance {
        /// The claim.
        claim: Arc<str>,
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
    /// Ask for the eviction of a pod, as the Eviction API does.
    EvictPod {
        /// The pod.
        pod: PodId,
        /// Node it leaves.
        node: Arc<str>,
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

/// A condition of a node.
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
