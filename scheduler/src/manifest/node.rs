//! Nodes as they are.

use assay_core::model::Node;
use assay_shared::units::Bytes;
use serde::Deserialize;

use super::document::Document;
use super::error::ManifestError;
use super::objects::{Condition, Meta, Quantities, TaintObject, timestamp};
use super::{amounts, taints};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeObject {
    spec: NodeSpec,
    status: NodeStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSpec {
    #[serde(rename = "providerID")]
    provider_id: String,
    taints: Vec<TaintObject>,
    unschedulable: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    capacity: Quantities,
    allocatable: Quantities,
    conditions: Vec<Condition>,
}

pub(crate) fn read(
    document: &Document,
    meta: &Meta,
    warnings: &mut Vec<ManifestError>,
) -> Result<Node, ManifestError> {
    let object: NodeObject = document.typed()?;
    meta.check(document, "metadata")?;
    let capacity = amounts::read(document, "status.capacity", &object.status.capacity)?;
    let mut allocatable = amounts::read(document, "status.allocatable", &object.status.allocatable)?;
    if object.status.allocatable.is_empty() {
        // Written by hand: what a kubelet that reserves nothing would say.
        allocatable = capacity.clone();
        allocatable.memory = Bytes(capacity.memory.0.saturating_sub(capacity.huge_pages().0));
    }
    if allocatable.is_zero() {
        let problem = "nothing of it is given: no pod is put there";
        warnings.push(document.error("status.allocatable", problem));
    }
    let ready = object.status.conditions.iter().find(|condition| condition.name == "Ready");
    Ok(Node {
        name: meta.name.as_str().into(),
        labels: meta.labels.clone(),
        annotations: meta.annotations.clone(),
        taints: taints::taints(document, "spec.taints", &object.spec.taints)?,
        capacity: if object.status.capacity.is_empty() { allocatable.clone() } else { capacity },
        allocatable,
        provider_id: object.spec.provider_id,
        // A manifest written by hand has no conditions: the node is there to be used.
        ready: ready.is_none_or(|condition| condition.status == "True"),
        unschedulable: object.spec.unschedulable,
        deleting: meta.deletion_timestamp.is_some(),
        created: timestamp(document, meta.creation_timestamp.as_deref())?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(status: serde_json::Value) -> Node {
        let value = json!({"kind": "Node", "metadata": {"name": "n"}, "status": status});
        let document = Document { file: "-".to_owned(), number: 1, kind: "Node".to_owned(), value };
        read(&document, &Meta::read(&document).unwrap(), &mut Vec::new()).unwrap()
    }

    #[test]
    fn huge_pages_are_taken_out_of_memory_once() {
        let capacity = json!({"memory": "8Gi", "hugepages-2Mi": "2Gi", "hugepages-1Gi": "1Gi"});
        let by_hand = node(json!({"capacity": capacity}));
        assert_eq!((by_hand.capacity.memory, by_hand.allocatable.memory), (Bytes::gib(8), Bytes::gib(5)));
        // The kubelet has done so already.
        let told =
            node(json!({"capacity": capacity, "allocatable": {"memory": "5Gi", "hugepages-2Mi": "2Gi"}}));
        assert_eq!(told.allocatable.memory, Bytes::gib(5));
    }
}
