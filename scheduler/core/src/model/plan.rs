//! Decisions: specific enough that carrying them out leaves no choice.

use std::sync::Arc;

use assay_shared::units::UsdPerHour;

use super::{PodId, ResourceList};
use crate::catalog::CapacityType;
use crate::requirement::{Requirement, Requirements};

/// What `solve` decided, and why the rest was left out.
#[must_use = "a plan does nothing until it is carried out"]
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Machines to buy.
    pub claims: Vec<PlannedClaim>,
    /// Pods for nodes that exist or are on their way.
    pub existing: Vec<ExistingAssignment>,
    /// Pods left out.
    pub unschedulable: Vec<Unschedulable>,
    /// Sums.
    pub totals: Totals,
}

/// A machine to buy.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedClaim {
    /// Unique name within the plan, `<pool>-<n>`; the driver makes it unique in the cluster.
    pub name: String,
    /// Pool it is bought for.
    pub pool: String,
    /// Size to ask for first.
    pub instance_type: Arc<str>,
    /// Zone to ask for first.
    pub zone: Arc<str>,
    /// How it is paid for.
    pub capacity_type: CapacityType,
    /// Price of that choice.
    pub price: UsdPerHour,
    /// What else would do, cheapest first, the choice included.
    pub options: Vec<InstanceTypeOption>,
    /// What the machine must be for these pods.
    pub requirements: Requirements,
    /// What will run on it, DaemonSets included.
    pub requests: ResourceList,
    /// Pods it is bought for.
    pub pods: Vec<PodId>,
    /// Reservation it draws on, where its capacity type is reserved.
    pub reservation: Option<Arc<str>>,
    /// Keys whose `minValues` were given up (policy BestEffort).
    pub min_values_relaxed: Vec<String>,
    /// Why this machine, where it was asked for (`SolveOptions::explain`).
    pub explanation: Option<Box<ClaimExplanation>>,
}

/// Why a machine was chosen: what else was looked at.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClaimExplanation {
    /// The next cheapest machines that would also do, cheapest first, three at most.
    pub next: Vec<InstanceTypeOption>,
    /// Cheaper machines that would not do and what ruled each out, cheapest first, few.
    pub ruled_out: Vec<RuledOut>,
}

/// A cheaper machine that was ruled out.
#[derive(Debug, Clone, PartialEq)]
pub struct RuledOut {
    /// Its size.
    pub name: Arc<str>,
    /// Its cheapest offering.
    pub price: UsdPerHour,
    /// What ruled it out, such as "memory: needs 34Gi, gives 30.9Gi".
    pub why: String,
}

/// A size that would do.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceTypeOption {
    /// Its name.
    pub name: Arc<str>,
    /// Its cheapest allowed offering.
    pub price: UsdPerHour,
}

/// Pods for a node that exists or is on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExistingAssignment {
    /// Name of the node, or of the claim while the node has not joined.
    pub name: Arc<str>,
    /// The pods.
    pub pods: Vec<PodId>,
}

/// A pod that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unschedulable {
    /// Which.
    pub pod: PodId,
    /// Why, pool by pool; a reason without pool is the pod's own. Equal pods share the list.
    pub reasons: Arc<[PoolReason]>,
}

/// Why one pool could not take a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolReason {
    /// The pool; `None` where no pool could ever.
    pub pool: Option<String>,
    /// Which kind of constraint failed first.
    pub reason: ReasonCode,
    /// The numbers, for people: what was needed, what came nearest.
    pub detail: String,
    /// One change that would make it fit, where there is one.
    pub fix: Option<String>,
}

/// Kinds of reasons, stable words for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReasonCode {
    /// There is no pool.
    NoNodePool,
    /// A taint of the pool is not tolerated.
    TaintNotTolerated,
    /// Node selector or affinity contradicts the pool.
    IncompatibleRequirements,
    /// No instance type of the pool satisfies the requirements.
    NoInstanceType,
    /// No instance type that satisfies the requirements is large enough.
    InsufficientResources,
    /// Types fit, but no offering (zone, capacity type) is allowed and available.
    NoOffering,
    /// The pool's limit is reached.
    LimitExceeded,
    /// Topology spread, pod affinity or anti-affinity, or host ports leave no domain.
    TopologyConstraint,
    /// Its volumes cannot be attached: a claim is missing, or no zone reaches all of them.
    VolumeConstraint,
    /// The kubelet's topology manager would turn it away everywhere.
    NumaAlignment,
    /// Fewer instance types than `minValues` asks for would be left.
    MinValues,
    /// The rest of its gang cannot be placed.
    GangIncomplete,
    /// It has scheduling gates.
    SchedulingGated,
    /// It asks for devices by resource claims (DRA).
    ResourceClaims,
    /// A constraint that is not understood.
    UnsupportedConstraint,
    /// The pod cannot be read.
    InvalidPod,
}

impl ReasonCode {
    /// The word in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoNodePool => "NoNodePool",
            Self::TaintNotTolerated => "TaintNotTolerated",
            Self::IncompatibleRequirements => "IncompatibleRequirements",
            Self::NoInstanceType => "NoInstanceType",
            Self::InsufficientResources => "InsufficientResources",
            Self::NoOffering => "NoOffering",
            Self::LimitExceeded => "LimitExceeded",
            Self::TopologyConstraint => "TopologyConstraint",
            Self::VolumeConstraint => "VolumeConstraint",
            Self::NumaAlignment => "NumaAlignment",
            Self::MinValues => "MinValues",
            Self::GangIncomplete => "GangIncomplete",
            Self::SchedulingGated => "SchedulingGated",
            Self::ResourceClaims => "ResourceClaims",
            Self::UnsupportedConstraint => "UnsupportedConstraint",
            Self::InvalidPod => "InvalidPod",
        }
    }
}

/// Sums over a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Price of all claims.
    pub price: UsdPerHour,
    /// Number of claims.
    pub nodes: usize,
    /// Pods placed, on claims and on existing nodes.
    pub pods: usize,
    /// No plan for the pods placed on claims can cost less than this.
    pub lower_bound: UsdPerHour,
}

impl PlannedClaim {
    /// The requirements as a manifest would write them.
    #[must_use]
    pub fn requirement_list(&self) -> Vec<Requirement> {
        self.requirements.to_list()
    }
}
