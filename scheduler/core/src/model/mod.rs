//! What a pod, a node, a pool, a claim and a plan are, in the core's own small words.
//!
//! Drivers build these from Kubernetes objects at the edge; `solve` and `disrupt` read a [`Snapshot`] and return a [`Plan`].
//! Anything large and shared between many objects (a pod's constraints, a label set) is behind an `Arc`.

mod change;
mod claim;
mod class;
mod disruption;
mod disruption_budget;
mod gang;
mod market;
mod node;
mod plan;
mod pod;
mod pool;
mod resources;
mod schedule;
mod snapshot;
mod taint;
mod time;
mod topology;
mod volume;

use std::collections::BTreeMap;

pub use change::Change;
pub use claim::{ClaimState, NodeClaim};
pub use class::{ClassReadiness, CpuManagerPolicy, NodeClass, TopologyManagerPolicy};
pub use disruption::{ClassFacts, DisruptionFacts, Drift, NodeCondition, NodeFacts, StaticPool};
pub use disruption_budget::DisruptionBudget;
pub use gang::{Gang, GangScope};
pub use market::Market;
pub use node::Node;
pub use plan::{
    ClaimExplanation, ExistingAssignment, InstanceTypeOption, Plan, PlannedClaim, PoolReason, ReasonCode,
    RuledOut, Totals, Unschedulable,
};
pub use pod::{AlignedRequest, DaemonSet, Pod, PodId, PodOwner, PodPhase, PodSpec, PreferredTerm, Rejection};
pub use pool::{
    Budget, BudgetNodes, BudgetWindow, ConsolidationPolicy, DisruptionPolicy, Limits, MismatchPolicy,
    NodePool, PaybackRule, Wait,
};
pub use resources::ResourceList;
pub use schedule::{Schedule, ScheduleError};
pub use snapshot::Snapshot;
pub use taint::{Taint, TaintEffect, Toleration, TolerationOperator, untolerated};
pub use time::Timestamp;
pub use topology::{
    HostPort, Namespaces, NodeInclusion, PodAffinityTerm, PodSelector, Protocol, TopologySpread,
    WeightedPodAffinityTerm, WhenUnsatisfiable,
};
pub use volume::{AttachedVolume, VOLUME_LIMIT_PREFIX};

/// Labels or annotations of an object.
pub type Labels = BTreeMap<String, String>;
