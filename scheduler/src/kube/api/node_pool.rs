//! `NodePool` (`karpenter.sh/v1`): what may be bought, for whom, how much of it, and when it goes again.
//!
//! The scheduler reads pools through `crate::manifest`, as the command line does, and writes only their status and
//! annotations. These types make the CRD, and are what hashes and statuses are computed from.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::period::{NillablePeriod, Period};
use super::rule;
use super::schema::{self, Amounts};
use super::template::{NodeClassReference, Requirement, Taint, pool_requirements};
use super::texts::texts;

/// What may be bought, for whom, how much of it, and when it goes again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "karpenter.sh",
    version = "v1",
    kind = "NodePool",
    category = "karpenter",
    category = "nap",
    status = "NodePoolStatus",
    derive = "PartialEq",
    doc = "A NodePool says which machines may be bought for pods that have no place: what they must be, how many there may be, and when they go again.",
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.nodes"),
    printcolumn(name = "NodeClass", type_ = "string", json_path = ".spec.template.spec.nodeClassRef.name"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodes"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Weight", type_ = "integer", json_path = ".spec.weight", priority = 1),
    printcolumn(name = "CPU", type_ = "string", json_path = ".status.resources.cpu", priority = 1),
    printcolumn(name = "Memory", type_ = "string", json_path = ".status.resources.memory", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rule::pool()))]
pub struct NodePoolSpec {
    /// What its nodes are like.
    pub template: NodeClaimTemplate,
    /// When its nodes go.
    #[serde(default)]
    pub disruption: Disruption,
    /// The most that all its nodes together may have, by resource; `nodes` limits their number. What is not named is not
    /// limited. Zero of anything buys nothing more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::amounts")]
    pub limits: Amounts,
    /// Pools of a larger weight are tried first. A pool without one comes last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<i32>,
    /// A fixed number of nodes, whether pods need them or not. Of the limits only `nodes` goes with it, and no weight;
    /// nodes are not consolidated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub replicas: Option<i64>,
}

/// What the nodes of a pool are like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimTemplate {
    /// Labels and annotations of its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TemplateMeta>,
    /// Everything else about them.
    pub spec: NodeClaimTemplateSpec,
}

/// Labels and annotations of the nodes of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TemplateMeta {
    /// Labels that its nodes get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::labels", extend("x-kubernetes-validations" = rule::pool_labels()))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Annotations that its nodes get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-map-type" = "granular"))]
    pub annotations: Option<BTreeMap<String, String>>,
}

/// Everything else about the nodes of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeClaimTemplateSpec {
    /// What its nodes must be. A pod's own demands come on top. An empty list allows every size that the cloud has.
    #[schemars(schema_with = "pool_requirements")]
    pub requirements: Vec<Requirement>,
    /// Taints that its nodes keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub taints: Option<Vec<Taint>>,
    /// Taints that its nodes start with, and that somebody else takes off once a node is ready, such as a DaemonSet that sets
    /// up its network. Pods need not tolerate them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub startup_taints: Option<Vec<Taint>>,
    /// The cloud's side of its nodes.
    #[schemars(extend("x-kubernetes-validations" = rule::class_reference_of_pool()))]
    pub node_class_ref: NodeClassReference,
    /// How long draining a node may take. When it is over, pods go without being asked, PodDisruptionBudgets and
    /// do-not-disrupt notwithstanding; each is told early enough to have its own grace period. Without it, draining waits for
    /// as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period: Option<Period>,
    /// Age at which a node is replaced, or Never.
    #[serde(default = "expire_after")]
    pub expire_after: NillablePeriod,
}

/// Thirty days, as Karpenter.
pub(super) const fn expire_after() -> NillablePeriod {
    NillablePeriod::hours(720)
}

/// When the nodes of a pool go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// How long no pod may have come to a node or gone from it before it may be consolidated, or Never.
    #[serde(default = "NillablePeriod::zero")]
    pub consolidate_after: NillablePeriod,
    /// Which nodes may be consolidated: empty ones (WhenEmpty); also those whose pods fit elsewhere or on something cheaper
    /// (WhenEmptyOrUnderutilized); the same, where what is saved is worth the disruption (Balanced). WhenUnderutilized is the
    /// older spelling of WhenEmptyOrUnderutilized.
    #[serde(default)]
    pub consolidation_policy: ConsolidationPolicy,
    /// How many nodes may go at once. Where several apply, the smallest counts.
    #[serde(default = "Budget::tenth")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "atomic"))]
    pub budgets: Vec<Budget>,
    /// Deprecated: the older place of spec.template.spec.expireAfter. It counts where that says nothing but its default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expire_after: Option<NillablePeriod>,
}

impl Default for Disruption {
    fn default() -> Self {
        Self {
            consolidate_after: NillablePeriod::zero(),
            consolidation_policy: ConsolidationPolicy::default(),
            budgets: Budget::tenth(),
            expire_after: None,
        }
    }
}

texts! {
    /// Which nodes may be consolidated.
    ConsolidationPolicy {
        WhenEmpty = "WhenEmpty",
        WhenEmptyOrUnderutilized = "WhenEmptyOrUnderutilized",
        Balanced = "Balanced",
        WhenUnderutilized = "WhenUnderutilized",
    }
    /// Why a node is disrupted.
    DisruptionReason { Underutilized = "Underutilized", Empty = "Empty", Drifted = "Drifted" }
}

#[allow(clippy::derivable_impls, reason = "the macro that makes the type has no default")]
impl Default for ConsolidationPolicy {
    fn default() -> Self {
        Self::WhenEmptyOrUnderutilized
    }
}

/// A limit on how many nodes of a pool may go at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rule::budget()))]
pub struct Budget {
    /// So many, or so many per hundred of the pool's nodes, rounded up. Nodes that are going already, or are not ready,
    /// count.
    #[serde(default = "Budget::tenth_of_nodes")]
    #[schemars(regex(pattern = "^((100|[0-9]{1,2})%|[0-9]+)$"))]
    pub nodes: String,
    /// For which reasons; without any, for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 50), extend("x-kubernetes-list-type" = "set"))]
    pub reasons: Option<Vec<DisruptionReason>>,
    /// When it begins to hold: five fields as in a CronJob, or one of @hourly, @daily, @midnight, @weekly, @monthly,
    /// @yearly, @annually; in UTC. Without it, it always holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(
        pattern = r"^(@(annually|yearly|monthly|weekly|daily|midnight|hourly)|(.+)\s(.+)\s(.+)\s(.+)\s(.+))$"
    ))]
    pub schedule: Option<String>,
    /// How long it holds each time, in hours and minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^((([0-9]+(h|m))|([0-9]+h[0-9]+m))(0s)?)$"))]
    pub duration: Option<Period>,
}

impl Budget {
    fn tenth_of_nodes() -> String {
        "10%".to_owned()
    }

    /// The budget of pools that name none: a tenth of the nodes, at any time, for any reason.
    fn tenth() -> Vec<Self> {
        vec![Self { nodes: Self::tenth_of_nodes(), reasons: None, schedule: None, duration: None }]
    }
}

/// What became of a pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodePoolStatus {
    /// What all its nodes together have, by resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::amounts")]
    pub resources: Amounts,
    /// How many nodes it has.
    #[serde(default)]
    pub nodes: i64,
    /// The metadata.generation of its class that NodeRegistrationHealthy was said of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_class_observed_generation: Option<i64>,
    /// What is true of it: ValidationSucceeded and NodeClassReady, which together make Ready, and
    /// NodeRegistrationHealthy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
