//! What nobody asks about but whoever decides which nodes go. It changes with every heartbeat, so it is kept apart from what
//! the solver knows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{DisruptionBudget, NodePool, PodId, Timestamp, Wait};

/// The part of a [`Snapshot`](super::Snapshot) that only `disrupt` reads. What is left out is nothing out of the ordinary.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DisruptionFacts {
    /// PodDisruptionBudgets.
    pub budgets: Vec<DisruptionBudget>,
    /// Pods whose condition `Ready` is `False`.
    pub unready: BTreeSet<PodId>,
    /// Pods on their way out that come back by the same name: those of StatefulSets.
    pub returning: BTreeSet<PodId>,
    /// By the name of the node.
    pub nodes: BTreeMap<Arc<str>, NodeFacts>,
    /// By the name of the class.
    pub classes: BTreeMap<String, ClassFacts>,
    /// Pools whose size their owner decides.
    pub static_pools: Vec<StaticPool>,
}

/// What is known of one node and its claim.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeFacts {
    /// Conditions of the node.
    pub conditions: Vec<NodeCondition>,
    /// Version of its kubelet, without the `v`.
    pub kubernetes_version: Option<String>,
    /// Image its machine was made from.
    pub image: Option<String>,
    /// When a pod last came, ended or began to end (`status.lastPodEventTime`).
    pub last_pod_event: Option<Timestamp>,
    /// Age at which it is replaced, as its claim says; else as its pool does.
    pub expire_after: Option<Wait>,
    /// What is wrong with its hardware (`HardwareMatchesClaim=False`).
    pub mismatch: Option<String>,
    /// Drift that somebody found already (condition `Drifted` of the claim).
    pub drift: Option<Drift>,
    /// Whether pods that wait are expected here.
    pub nominated: bool,
}

/// Why a node is not what its pool would make now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The word of the condition, such as `NodePoolDrifted`.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

/// A condition of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeCondition {
    /// Its type.
    pub name: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Since when.
    pub since: Timestamp,
    /// Its message, which tells the deadline of a preemption.
    pub message: String,
}

/// What a node class would make now (`AKSNodeClass`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClassFacts {
    /// Images that its machines may be made from; empty where nobody knows.
    pub images: Vec<String>,
    /// Kubernetes version of its machines, without the `v`.
    pub kubernetes_version: Option<String>,
}

/// A pool with a fixed number of nodes (`spec.replicas`).
#[derive(Debug, Clone, PartialEq)]
pub struct StaticPool {
    /// The pool.
    pub pool: NodePool,
    /// How many nodes it has.
    pub replicas: u64,
}
