//! Nodes as they are.

use assay_core::model::{Node, ResourceList};
use serde::Deserialize;

use super::document::Document;
use super::error::ManifestError;
use super::objects::{Meta, Quantities, TaintObject};
use super::pod;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeObject {
    spec: NodeSpec,
    status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSpec {
    provider_id: Option<String>,
    #[serde(rename = "providerID")]
    provider_id_upper: Option<String>,
    taints: Vec<TaintObject>,
    unschedulable: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    capacity: Quantities,
    allocatable: Quantities,
    conditions: Vec<ConditionObject>,
}

#[derive(Debug, Deserialize)]
struct ConditionObject {
    #[serde(rename = "type")]
    condition_type: String,
    #[serde(default)]
    status: String,
}

pub(super) fn read(document: &Document) -> Result<Node, ManifestError> {
    let meta = Meta::read(document)?;
    let object: NodeObject = document.typed()?;
    let capacity = pod::resource_list(document, "status.capacity", &object.status.capacity)?;
    let allocatable = pod::resource_list(document, "status.allocatable", &object.status.allocatable)?;
    if allocatable == ResourceList::default() {
        return Err(
            document.error("status.allocatable", "expected what the node gives to pods, found nothing")
        );
    }
    let ready = object.status.conditions.iter().find(|condition| condition.condition_type == "Ready");
    Ok(Node {
        name: meta.name.as_str().into(),
        labels: meta.labels.clone(),
        annotations: meta.annotations.clone(),
        taints: pod::taints(document, "spec.taints", &object.spec.taints)?,
        capacity: if object.status.capacity.is_empty() { allocatable.clone() } else { capacity },
        allocatable,
        provider_id: object.spec.provider_id_upper.or(object.spec.provider_id).unwrap_or_default(),
        // A manifest written by hand has no conditions: the node is there to be used.
        ready: ready.is_none_or(|condition| condition.status == "True"),
        unschedulable: object.spec.unschedulable,
        deleting: meta.deletion_timestamp.is_some(),
        created: pod::timestamp(document, meta.creation_timestamp.as_deref())?,
    })
}
