//! What a pod, a node, a pool, a claim and a plan are, in the core's own small words.
//!
//! Drivers build these from Kubernetes objects at the edge; `solve` and `disrupt` read a [`Snapshot`] and return a [`Plan`].
//! Anything large and shared between many objects (a pod's constraints, a label set) is behind an `Arc`.

mod claim;
mod class;
mod node;
mod plan;
mod pod;
mod pool;
mod resources;
mod snapshot;
mod taint;
mod time;

use std::collections::BTreeMap;

pub use claim::{ClaimState, NodeClaim};
pub use class::NodeClass;
pub use node::Node;
pub use plan::{
    ExistingAssignment, InstanceTypeOption, Plan, PlannedClaim, PoolReason, ReasonCode, Totals, Unschedulable,
};
pub use pod::{DaemonSet, Pod, PodId, PodOwner, PodPhase, PodSpec, PreferredTerm, UnsupportedConstraint};
pub use pool::{
    Budget, BudgetNodes, ConsolidationPolicy, DisruptionPolicy, Limits, MismatchPolicy, NodePool, Wait,
};
pub use resources::ResourceList;
pub use snapshot::Snapshot;
pub use taint::{Taint, TaintEffect, Toleration, TolerationOperator, untolerated};
pub use time::Timestamp;

/// Labels or annotations of an object.
pub type Labels = BTreeMap<String, String>;
