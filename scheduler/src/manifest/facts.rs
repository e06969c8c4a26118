//! What only the question which nodes may go asks of the objects: conditions, versions, images, hashes, and who comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_core::model::{
    ClassFacts, DisruptionFacts, Drift, Node, NodeCondition, NodeFacts, Timestamp, Wait,
};
use serde::Deserialize;

use super::claim::ClaimObject;
use super::document::Document;
use super::error::ManifestError;
use super::objects::time;
use super::pool;

/// Condition by which the engine says that a machine is not what was bought.
const HARDWARE_MATCHES: &str = "HardwareMatchesClaim";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    expire_after: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    conditions: Vec<Condition>,
    node_info: NodeInfo,
    #[serde(rename = "imageID")]
    image_id: String,
    last_pod_event_time: Option<String>,
    images: Vec<Image>,
    kubernetes_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeInfo {
    kubelet_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Image {
    id: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(rename = "type")]
    name: String,
    status: String,
    reason: String,
    message: String,
    last_transition_time: Option<String>,
}

impl Condition {
    fn since(&self, document: &Document) -> Result<Timestamp, ManifestError> {
        let since = self.last_transition_time.as_deref();
        Ok(time(document, "status.conditions[].lastTransitionTime", since)?.unwrap_or_default())
    }
}

/// What is known of the claims, before their nodes are known.
#[derive(Debug, Clone, Default)]
pub(super) struct OfClaims(BTreeMap<String, NodeFacts>);

impl OfClaims {
    /// Takes what the object of a claim says.
    pub(super) fn read(&mut self, document: &Document, name: &str) -> Result<(), ManifestError> {
        self.0.insert(name.to_owned(), of_claim(document)?);
        Ok(())
    }

    /// Adds all to what is known of their nodes.
    pub(super) fn join(self, claims: &[ClaimObject], nodes: &[Node], facts: &mut DisruptionFacts) {
        for (claim, own) in self.0 {
            let object = claims.iter().find(|object| object.is_called(&claim));
            let node = nodes
                .iter()
                .find(|node| object.is_some_and(|object| object.is_of(node)) || *node.name == *claim);
            let Some(node) = node else { continue };
            let known = facts.nodes.entry(Arc::clone(&node.name)).or_default();
            let NodeFacts { image, last_pod_event, expire_after, mismatch, drift, .. } = own;
            known.image = image;
            known.last_pod_event = last_pod_event;
            known.expire_after = expire_after;
            known.mismatch = mismatch.or_else(|| known.mismatch.take());
            known.drift = drift;
        }
    }
}

/// What the object of a claim says.
pub(crate) fn of_claim(document: &Document) -> Result<NodeFacts, ManifestError> {
    let Object { spec, status } = document.typed()?;
    let mut facts = NodeFacts {
        image: Some(status.image_id).filter(|image| !image.is_empty()),
        last_pod_event: time(document, "status.lastPodEventTime", status.last_pod_event_time.as_deref())?,
        ..NodeFacts::default()
    };
    facts.expire_after = match spec.expire_after.as_deref() {
        None => None,
        Some("Never") => Some(Wait::Never),
        Some(text) => Some(Wait::After(pool::duration(document, "spec.expireAfter", text)?)),
    };
    for condition in status.conditions {
        match (condition.name.as_str(), condition.status.as_str()) {
            ("Drifted", "True") => {
                let since = condition.since(document)?;
                facts.drift = Some(Drift { reason: condition.reason, since });
            }
            (HARDWARE_MATCHES, "False") => facts.mismatch = Some(condition.message),
            _ => {}
        }
    }
    Ok(facts)
}

/// What the object of a node says.
pub(crate) fn of_node(document: &Document) -> Result<NodeFacts, ManifestError> {
    let Object { status, .. } = document.typed()?;
    let version = status.node_info.kubelet_version;
    let mut facts = NodeFacts {
        kubernetes_version: Some(version.trim_start_matches('v').to_owned()).filter(|text| !text.is_empty()),
        ..NodeFacts::default()
    };
    for condition in status.conditions {
        let since = condition.since(document)?;
        if condition.name == HARDWARE_MATCHES && condition.status == "False" {
            facts.mismatch = Some(condition.message.clone());
        }
        let Condition { name, status, message, .. } = condition;
        facts.conditions.push(NodeCondition { name, status, since, message });
    }
    Ok(facts)
}

/// What the object of a class says.
pub(crate) fn of_class(document: &Document) -> Result<ClassFacts, ManifestError> {
    let Object { status, .. } = document.typed()?;
    Ok(ClassFacts {
        images: status.images.into_iter().map(|image| image.id).filter(|id| !id.is_empty()).collect(),
        kubernetes_version: Some(status.kubernetes_version.trim_start_matches('v').to_owned())
            .filter(|text| !text.is_empty()),
    })
}

/// Whether a pod's condition `Ready` is false.
pub(super) fn is_unready(document: &Document) -> Result<bool, ManifestError> {
    let Object { status, .. } = document.typed()?;
    Ok(status.conditions.iter().any(|one| one.name == "Ready" && one.status == "False"))
}
