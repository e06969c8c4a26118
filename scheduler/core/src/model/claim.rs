//! NodeClaims: nodes on their way.

use std::sync::Arc;

use assay_shared::units::UsdPerHour;

use super::{Labels, ResourceList, Taint, Timestamp};
use crate::catalog::CapacityType;
use crate::requirement::Requirements;

/// A machine that was asked for. Until its node has joined, the solver counts on what it is expected to be.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeClaim {
    /// Its name, which is also the VM's: creating it twice makes one.
    pub name: Arc<str>,
    /// Pool it is of.
    pub pool: String,
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
    /// Taints its node will keep.
    pub taints: Vec<Taint>,
    /// How far it got.
    pub state: ClaimState,
    /// When it was decided.
    pub created: Timestamp,
    /// Its node, once that has joined.
    pub node: Option<Arc<str>>,
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
