//! NodeClaims: nodes on their way.

use std::sync::Arc;
use std::time::Duration;

use assay_shared::units::UsdPerHour;

use super::{Labels, ResourceList, Taint, Timestamp};
use crate::catalog::CapacityType;
use crate::requirement::Requirements;

/// A machine that was asked for. Until its node has joined, the solver counts on what it is expected to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeClaim {
    /// Its name, which is also the VM's: creating it twice makes one.
    pub name: Arc<str>,
    /// Pool it is of; empty for a claim that somebody made by hand.
    pub pool: String,
    /// Node class its machine is made from.
    pub node_class: String,
    /// Size that was asked for.
    pub instance_type: Arc<str>,
    /// Zone that was asked for.
    pub zone: Arc<str>,
    /// How it is paid for.
    pub capacity_type: CapacityType,
    /// What it costs.
    pub price: UsdPerHour,
    /// What the machine must be.
    pub requirements: Requirements,
    /// What was planned to run on it, DaemonSets included.
    pub requests: ResourceList,
    /// What it is expected to have.
    pub capacity: ResourceList,
    /// What it is expected to give to pods.
    pub allocatable: ResourceList,
    /// Labels its node will have.
    pub labels: Labels,
    /// Annotations its node will have.
    pub annotations: Labels,
    /// Taints its node will keep.
    pub taints: Vec<Taint>,
    /// Taints its node starts with and loses once it is ready.
    pub startup_taints: Vec<Taint>,
    /// How long draining its node may take; `None` waits for ever.
    pub termination_grace_period: Option<Duration>,
    /// Hash of the pool's template it was made from, as the edge computes it; `None` where none is recorded.
    pub template_hash: Option<String>,
    /// Hash of the node class it was made from, likewise.
    pub class_hash: Option<String>,
    /// How far it got.
    pub state: ClaimState,
    /// Since when it is in `state`.
    pub since: Timestamp,
    /// When it was decided.
    pub created: Timestamp,
    /// The cloud's id of its VM, once there is one.
    pub provider_id: Option<String>,
    /// Its node, once that has joined. A claim of ours and its node have one name; one that Karpenter made may not.
    pub node: Option<Arc<str>>,
    /// When its deletion was asked for.
    pub deleting: Option<Timestamp>,
    /// By when its pods are gone whatever holds them (`karpenter.sh/nodeclaim-termination-timestamp`).
    pub terminate_by: Option<Timestamp>,
    /// Why it is to go, where an earlier run had decided so (reason of its condition `DisruptionReason`).
    pub disruption_reason: Option<String>,
}

impl NodeClaim {
    /// Whether somebody made it by hand: it has no pool, and nothing takes its machine away but its deletion.
    #[must_use]
    pub const fn is_standalone(&self) -> bool {
        self.pool.is_empty()
    }
}

/// How far a claim got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClaimState {
    /// Decided, not yet asked for.
    Pending,
    /// Asked for; the cloud has not answered.
    Launching,
    /// The VM exists; its node has not joined.
    Launched,
    /// The node has joined; not yet ready, or not yet measured.
    Registered,
    /// Ready and measured: pods run there.
    Initialized,
    /// On its way out.
    Terminating,
}

impl ClaimState {
    /// The condition of the object that says it got this far.
    #[must_use]
    pub const fn condition(self) -> Option<&'static str> {
        match self {
            Self::Launched => Some("Launched"),
            Self::Registered => Some("Registered"),
            Self::Initialized => Some("Initialized"),
            Self::Pending | Self::Launching | Self::Terminating => None,
        }
    }
}
