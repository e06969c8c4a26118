//! What a planned machine becomes once somebody asks for it: its claim, and the labels its node will have.

use std::sync::Arc;

use assay_shared::labels::{azure, karpenter, kubernetes};

use crate::catalog::{CapacityType, InstanceType};
use crate::model::{ClaimState, Labels, NodeClaim, NodeClass, NodePool, PlannedClaim, Timestamp};

/// Labels that the node of a claim will have: what the pool gives, what the type and the choice settle.
#[must_use]
pub fn labels_of(pool: &NodePool, bought: &InstanceType, zone: &str, capacity_type: CapacityType) -> Labels {
    let mut labels = settled_labels(bought, zone, capacity_type);
    labels.extend(pool.labels.clone());
    labels.insert(karpenter::NODEPOOL.to_owned(), pool.name.clone());
    labels.insert(azure::AKS_NODE_CLASS.to_owned(), pool.node_class.clone());
    labels
}

/// The claim that a planned machine becomes, under the name it has in the plan.
#[must_use]
pub fn claim_of(
    planned: &PlannedClaim,
    pool: &NodePool,
    class: Option<&NodeClass>,
    bought: &InstanceType,
    now: Timestamp,
) -> NodeClaim {
    let mut labels = labels_of(pool, bought, &planned.zone, planned.capacity_type);
    // A label that the type leaves open, or of which several values would do, gets one that its pods ask for.
    for (key, set) in planned.requirements.iter().filter(|(key, _)| *key != kubernetes::HOSTNAME) {
        if let Some(value) = set.finite().and_then(|values| values.first()) {
            labels.entry(key.to_owned()).or_insert_with(|| value.clone());
        }
    }
    let mut annotations = pool.annotations.clone();
    if !planned.min_values_relaxed.is_empty() {
        annotations.insert(karpenter::MIN_VALUES_RELAXED.to_owned(), "true".to_owned());
    }
    NodeClaim {
        name: planned.name.as_str().into(),
        pool: planned.pool.clone(),
        node_class: pool.node_class.clone(),
        instance_type: Arc::clone(&planned.instance_type),
        zone: Arc::clone(&planned.zone),
        capacity_type: planned.capacity_type,
        price: planned.price,
        requirements: planned.requirements.clone(),
        requests: planned.requests.clone(),
        capacity: bought.capacity.clone(),
        allocatable: bought.allocatable(),
        labels,
        annotations,
        taints: pool.taints.clone(),
        startup_taints: pool.startup_taints.clone(),
        termination_grace_period: pool.termination_grace_period,
        template_hash: pool.template_hash.clone(),
        class_hash: class.and_then(|class| class.hash.clone()),
        state: ClaimState::Pending,
        since: now,
        created: now,
        provider_id: None,
        node: None,
        deleting: None,
        terminate_by: None,
        disruption_reason: None,
    }
}

/// Labels that the type and the choice settle.
pub(crate) fn settled_labels(bought: &InstanceType, zone: &str, capacity_type: CapacityType) -> Labels {
    let settled = bought.requirements.iter().filter_map(|(key, set)| {
        let values = set.finite().filter(|values| values.len() == 1)?;
        Some((key.to_owned(), values.first()?.clone()))
    });
    let mut labels: Labels = settled.collect();
    labels.insert(kubernetes::INSTANCE_TYPE.to_owned(), bought.name.to_string());
    labels.insert(kubernetes::ZONE.to_owned(), zone.to_owned());
    labels.insert(karpenter::CAPACITY_TYPE.to_owned(), capacity_type.as_str().to_owned());
    labels
}
