//! Pods and the templates of DaemonSets.

use std::fmt;
use std::sync::Arc;

use super::{Labels, ResourceList, Timestamp, Toleration};
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
    /// Whether its deletion has begun.
    pub terminating: bool,
}

impl Pod {
    /// Whether it waits for a node that Assay could provide.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.node.is_none()
            && self.phase == PodPhase::Pending
            && !self.terminating
            && matches!(self.owner, PodOwner::Nobody | PodOwner::Controller)
    }

    /// Whether it takes room on its node.
    #[must_use]
    pub fn uses_node(&self) -> bool {
        self.node.is_some() && matches!(self.phase, PodPhase::Pending | PodPhase::Running)
    }

    /// Whether it would have to run elsewhere if its node went.
    #[must_use]
    pub fn is_reschedulable(&self) -> bool {
        self.uses_node() && !self.terminating && matches!(self.owner, PodOwner::Nobody | PodOwner::Controller)
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
    /// Constraints it has that the solver does not understand yet: such a pod is left out and says so.
    pub unsupported: Vec<UnsupportedConstraint>,
}

/// A preferred node affinity term.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PreferredTerm {
    /// 1 to 100; the heaviest is tried first.
    pub weight: u32,
    /// Its requirements, all of which must hold.
    pub requirements: Vec<Requirement>,
}

/// A hard constraint the solver would break by ignoring it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnsupportedConstraint {
    /// Path of the field, such as `spec.topologySpreadConstraints[0]`.
    pub field: String,
}

/// A DaemonSet: every node it selects runs one pod of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonSet {
    /// Its namespace and name.
    pub id: PodId,
    /// What one pod of it needs.
    pub spec: Arc<PodSpec>,
}
