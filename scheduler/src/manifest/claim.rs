//! NodeClaims (`karpenter.sh/v1`): machines that were asked for.
//!
//! Once the provider has answered, the object tells what the machine is. Before that its requirements leave a choice: it is
//! counted as the cheapest type and offering they allow, which is what the provider would ask for first.

use std::sync::Arc;
use std::time::Duration;

use assay_core::catalog::{CapacityType, InstanceType, Offering};
use assay_core::lifecycle;
use assay_core::lifecycle::labels_of;
use assay_core::model::{ClaimState, Labels, Node, NodeClaim, NodePool, ResourceList, Taint, Timestamp};
use assay_core::requirement::{Requirements, ValueSet};
use assay_shared::labels::{azure, karpenter, kubernetes};
use assay_shared::units::UsdPerHour;
use serde::Deserialize;

use super::document::Document;
use super::error::ManifestError;
use super::objects::{Condition, Expression, Meta, Quantities, TaintObject, holds, time, timestamp};
use super::{amounts, node_terms, pool, taints};
use crate::kube::api::hash;

#[derive(Debug, Deserialize)]
struct Object {
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    requirements: Vec<Expression>,
    #[serde(default)]
    resources: Resources,
    #[serde(default)]
    taints: Vec<TaintObject>,
    #[serde(default)]
    startup_taints: Vec<TaintObject>,
    termination_grace_period: Option<String>,
    #[serde(default)]
    node_class_ref: ClassRef,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Resources {
    requests: Quantities,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClassRef {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    node_name: String,
    #[serde(rename = "providerID")]
    provider_id: String,
    capacity: Quantities,
    allocatable: Quantities,
    conditions: Vec<Condition>,
}

/// A claim as its object tells it; what the object leaves open is settled by [`ClaimObject::resolve`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ClaimObject {
    name: String,
    labels: Labels,
    /// Its pool; a claim made by hand has none.
    pool: Option<String>,
    node_class: String,
    requirements: Requirements,
    requests: ResourceList,
    capacity: ResourceList,
    allocatable: ResourceList,
    annotations: Labels,
    taints: Vec<Taint>,
    startup_taints: Vec<Taint>,
    termination_grace_period: Option<Duration>,
    state: ClaimState,
    since: Timestamp,
    created: Timestamp,
    deleting: Option<Timestamp>,
    terminate_by: Option<Timestamp>,
    disruption_reason: Option<String>,
    node_name: String,
    provider_id: String,
}

pub(crate) fn read(document: &Document, meta: Meta) -> Result<ClaimObject, ManifestError> {
    let Object { spec, status } = document.typed()?;
    meta.check(document, "metadata")?;
    let path = "spec.requirements";
    let requirements = node_terms::requirements(document, path, &spec.requirements)?;
    let requirements = Requirements::from_list(&requirements)
        .map_err(|error| document.error(path, error.to_string()))?
        .intersect(&Requirements::from_labels(&meta.labels));
    let owner = meta.owner_references.iter().find(|owner| owner.kind == "NodePool");
    let pool = meta.labels.get(karpenter::NODEPOOL).or_else(|| owner.map(|owner| &owner.name)).cloned();
    let created = timestamp(document, meta.creation_timestamp.as_deref())?;
    let deleting = time(document, "metadata.deletionTimestamp", meta.deletion_timestamp.as_deref())?;
    let (state, since) = reached(document, &status.conditions, created, deleting)?;
    let annotated = meta.annotations.get(karpenter::TERMINATION_TIMESTAMP).map(String::as_str);
    let field = format!("metadata.annotations[{}]", karpenter::TERMINATION_TIMESTAMP);
    let decided = status.conditions.iter().find(|condition| condition.name == "DisruptionReason");
    Ok(ClaimObject {
        pool,
        node_class: Some(spec.node_class_ref.name)
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "default".to_owned()),
        requirements,
        requests: amounts::read(document, "spec.resources.requests", &spec.resources.requests)?,
        capacity: amounts::read(document, "status.capacity", &status.capacity)?,
        allocatable: amounts::read(document, "status.allocatable", &status.allocatable)?,
        taints: taints::taints(document, "spec.taints", &spec.taints)?,
        startup_taints: taints::taints(document, "spec.startupTaints", &spec.startup_taints)?,
        termination_grace_period: spec
            .termination_grace_period
            .map(|text| pool::duration(document, "spec.terminationGracePeriod", &text))
            .transpose()?,
        state,
        since,
        created,
        deleting,
        terminate_by: time(document, &field, annotated)?,
        disruption_reason: decided
            .filter(|condition| condition.status == "True")
            .map(|condition| condition.reason.clone()),
        annotations: meta.annotations,
        node_name: status.node_name,
        provider_id: status.provider_id,
        name: meta.name,
        labels: meta.labels,
    })
}

/// How far a claim got, and since when.
fn reached(
    document: &Document,
    conditions: &[Condition],
    created: Timestamp,
    deleting: Option<Timestamp>,
) -> Result<(ClaimState, Timestamp), ManifestError> {
    let told = |state: ClaimState| state.condition().is_some_and(|name| holds(conditions, name));
    let state = lifecycle::recorded(told, deleting.is_some());
    let condition = conditions.iter().find(|condition| Some(condition.name.as_str()) == state.condition());
    let since = condition.and_then(|condition| condition.since.as_deref());
    let since = time(document, "status.conditions[].lastTransitionTime", since)?;
    Ok((state, deleting.or(since).unwrap_or(created)))
}

/// What is around a claim, that its object leaves open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Around<'a> {
    /// Its pool, where there is one.
    pub(crate) pool: Option<&'a NodePool>,
    /// What its class can buy.
    pub(crate) types: &'a [InstanceType],
    /// The node that has joined for it.
    pub(crate) node: Option<&'a Arc<str>>,
}

impl ClaimObject {
    /// A hash that it carries, unless that was computed in another way than ours are.
    fn hash(&self, key: &str, (version_key, version): (&str, &str)) -> Option<String> {
        let is_ours = self.annotations.get(version_key).is_some_and(|found| found == version);
        self.annotations.get(key).filter(|_| is_ours).cloned()
    }

    /// Whether this is its name.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.name == name
    }

    /// The name of its pool.
    pub(crate) fn pool(&self) -> Option<&String> {
        self.pool.as_ref()
    }

    /// The name of its class; what its pool says of that goes before.
    pub(crate) fn node_class<'a>(&'a self, pool: Option<&'a NodePool>) -> &'a String {
        pool.map_or(&self.node_class, |pool| &pool.node_class)
    }

    /// The name of its node, as far as its status tells; else empty.
    pub(crate) fn node_name(&self) -> &str {
        &self.node_name
    }

    /// The cloud's id of its machine, once it has one.
    pub(crate) fn provider_id(&self) -> Option<&str> {
        Some(self.provider_id.as_str()).filter(|id| !id.is_empty())
    }

    /// Whether a node is the one it was made for.
    pub(crate) fn is_of(&self, node: &Node) -> bool {
        *node.name == *self.node_name || !self.provider_id.is_empty() && node.provider_id == self.provider_id
    }

    /// The claim, with what its object leaves open taken from what is around it.
    pub(crate) fn resolve(&self, around: Around<'_>) -> NodeClaim {
        let Around { pool, types, node } = around;
        let bought = self.cheapest(types, pool);
        let mut labels = match (bought, pool) {
            (Some((kind, offering)), Some(pool)) => {
                labels_of(pool, kind, &offering.zone, offering.capacity_type)
            }
            (_, pool) => pool.map(|pool| pool.labels.clone()).unwrap_or_default(),
        };
        labels.extend(self.labels.clone());
        let told = |key: &str| self.labels.get(key).map(|value| Arc::from(value.as_str()));
        let (kind, offering) = bought.unzip();
        let capacity = if self.capacity.is_zero() {
            kind.map(|kind| kind.capacity.clone()).unwrap_or_default()
        } else {
            self.capacity.clone()
        };
        let allocatable = if self.allocatable.is_zero() {
            kind.map(InstanceType::allocatable).unwrap_or_default()
        } else {
            self.allocatable.clone()
        };
        NodeClaim {
            name: self.name.as_str().into(),
            node_class: self.node_class(pool).clone(),
            pool: self.pool.clone().unwrap_or_default(),
            instance_type: told(kubernetes::INSTANCE_TYPE)
                .or_else(|| kind.map(|kind| Arc::clone(&kind.name)))
                .unwrap_or_default(),
            zone: told(kubernetes::ZONE)
                .or_else(|| offering.map(|offering| Arc::clone(&offering.zone)))
                .unwrap_or_default(),
            capacity_type: self
                .labels
                .get(karpenter::CAPACITY_TYPE)
                .and_then(|text| text.parse().ok())
                .or_else(|| offering.map(|offering| offering.capacity_type))
                .unwrap_or(CapacityType::OnDemand),
            price: offering.map_or(UsdPerHour::ZERO, |offering| offering.price),
            requirements: self.requirements.clone(),
            requests: self.requests.clone(),
            capacity,
            allocatable,
            labels,
            annotations: self.annotations.clone(),
            taints: self.taints.clone(),
            startup_taints: self.startup_taints.clone(),
            termination_grace_period: self.termination_grace_period,
            template_hash: self
                .hash(karpenter::NODEPOOL_HASH, (karpenter::NODEPOOL_HASH_VERSION, hash::NODE_POOL_VERSION)),
            class_hash: self.hash(
                azure::AKS_NODE_CLASS_HASH,
                (azure::AKS_NODE_CLASS_HASH_VERSION, hash::AKS_NODE_CLASS_VERSION),
            ),
            state: self.state,
            since: self.since,
            created: self.created,
            deleting: self.deleting,
            terminate_by: self.terminate_by,
            disruption_reason: self.disruption_reason.clone(),
            provider_id: Some(self.provider_id.clone()).filter(|id| !id.is_empty()),
            node: node
                .cloned()
                .or_else(|| Some(self.node_name.as_str()).filter(|name| !name.is_empty()).map(Arc::from)),
        }
    }

    /// The cheapest type and offering that the requirements allow and that holds the requests. What is already asked for may
    /// have been sold out since, so availability does not count.
    fn cheapest<'t>(
        &self,
        types: &'t [InstanceType],
        pool: Option<&NodePool>,
    ) -> Option<(&'t InstanceType, &'t Offering)> {
        let mut given = pool.map(|pool| Requirements::from_labels(&pool.labels)).unwrap_or_default();
        given = given.intersect(&Requirements::from_labels(&self.labels));
        let allows = |key: &str, value: &str| {
            self.requirements.get(key).is_none_or(|set: &ValueSet| set.allows(value))
        };
        let possible = types.iter().filter(|kind| {
            // Asked first, since it is quick and leaves one type of a claim that was launched.
            allows(kubernetes::INSTANCE_TYPE, &kind.name)
                && self.requests.fits(&kind.allocatable())
                && self.requirements.check_offered(&kind.requirements.intersect(&given)).is_ok()
        });
        let offerings = possible.flat_map(|kind| kind.offerings.iter().map(move |offering| (kind, offering)));
        offerings
            .filter(|(_, offering)| {
                allows(kubernetes::ZONE, &offering.zone)
                    && allows(karpenter::CAPACITY_TYPE, offering.capacity_type.as_str())
            })
            .min_by_key(|(kind, offering)| (offering.price, Arc::clone(&kind.name)))
    }
}
