//! The fields of Kubernetes objects that Assay reads, and no others.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_core::model::{Labels, PodId, Timestamp};
use assay_shared::Quantity;
use serde::Deserialize;
use serde_json::Value;

use super::constraints::{PodAffinity, SpreadConstraint};
use super::document::Document;
use super::error::ManifestError;
use super::owners::Owner;
use super::storage::ClaimSpec;
use super::syntax;

/// Metadata of an object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Meta {
    pub(crate) name: String,
    pub(crate) generate_name: String,
    /// Whether `name` was made from `generate_name`.
    #[serde(skip)]
    pub(crate) is_generated: bool,
    pub(crate) namespace: String,
    pub(crate) labels: Labels,
    pub(crate) annotations: Labels,
    pub(crate) creation_timestamp: Option<String>,
    pub(crate) deletion_timestamp: Option<String>,
    pub(crate) owner_references: Vec<OwnerReference>,
}

#[derive(Debug, Deserialize)]
struct WithMeta {
    #[serde(default)]
    metadata: Meta,
}

impl Meta {
    /// Metadata of a document; a name is required.
    pub(crate) fn read(document: &Document) -> Result<Self, ManifestError> {
        let WithMeta { metadata } = document.typed()?;
        if metadata.name.is_empty() && metadata.generate_name.is_empty() {
            return Err(document.error("metadata.name", "expected a name, found none"));
        }
        Ok(metadata)
    }

    /// Whether the API server would take its labels and annotations; `path` is where the metadata stands.
    pub(crate) fn check(&self, document: &Document, path: &str) -> Result<(), ManifestError> {
        syntax::check_labels(document, &format!("{path}.labels"), &self.labels)?;
        syntax::check_annotations(document, &format!("{path}.annotations"), &self.annotations)
    }

    /// Its owners, with its own namespace.
    pub(super) fn owners(&self) -> Vec<Owner> {
        let namespace = self.pod_id().namespace;
        let owner = |owner: &OwnerReference| Owner {
            namespace: Arc::clone(&namespace),
            kind: owner.kind.clone(),
            name: owner.name.clone(),
        };
        self.owner_references.iter().map(owner).collect()
    }

    /// Namespace and name.
    pub(crate) fn pod_id(&self) -> PodId {
        let namespace = if self.namespace.is_empty() { "default" } else { &self.namespace };
        let name = if self.name.is_empty() { &self.generate_name } else { &self.name };
        PodId::new(namespace, name)
    }
}

/// A time of a document's metadata; the beginning of time where there is none.
pub(crate) fn timestamp(document: &Document, text: Option<&str>) -> Result<Timestamp, ManifestError> {
    Ok(time(document, "metadata.creationTimestamp", text)?.unwrap_or_default())
}

/// A time in a field that may be missing.
pub(crate) fn time(
    document: &Document,
    field: &str,
    text: Option<&str>,
) -> Result<Option<Timestamp>, ManifestError> {
    let Some(text) = text else { return Ok(None) };
    let parsed: jiff::Timestamp = text.parse().map_err(|_| {
        document.error(field, format!("expected a time such as 2026-01-31T12:00:00Z, found {text:?}"))
    })?;
    Ok(Some(Timestamp(u64::try_from(parsed.as_millisecond()).unwrap_or(0))))
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize)]
pub(crate) struct OwnerReference {
    #[serde(default)]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) name: String,
}

/// Deployment, ReplicaSet, ReplicationController, StatefulSet, Job or DaemonSet.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Workload {
    pub(super) spec: WorkloadSpec,
    #[serde(default)]
    pub(super) status: WorkloadStatus,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WorkloadSpec {
    pub(super) replicas: Option<u32>,
    pub(super) parallelism: Option<u32>,
    pub(super) completions: Option<u32>,
    #[serde(default)]
    pub(super) suspend: bool,
    #[serde(default)]
    pub(super) completion_mode: String,
    #[serde(default)]
    pub(super) volume_claim_templates: Vec<ClaimTemplate>,
    /// Read on its own: what is wrong with it concerns its pods only.
    pub(super) template: Value,
}

/// A claim that a StatefulSet makes for each of its pods.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ClaimTemplate {
    pub(super) metadata: Meta,
    pub(super) spec: ClaimSpec,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct WorkloadStatus {
    pub(super) succeeded: u32,
    pub(super) conditions: Vec<Condition>,
}

/// A condition of an object.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) name: String,
    #[serde(default)]
    pub(super) status: String,
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default, rename = "lastTransitionTime")]
    pub(super) since: Option<String>,
}

/// Whether a condition is true.
pub(super) fn holds(conditions: &[Condition], name: &str) -> bool {
    conditions.iter().any(|condition| condition.name == name && condition.status == "True")
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct PodTemplate {
    #[serde(default)]
    pub(super) metadata: Meta,
    pub(super) spec: PodSpec,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct PodObject {
    pub(super) spec: PodSpec,
    #[serde(default)]
    pub(super) status: PodStatus,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodStatus {
    pub(super) phase: String,
    pub(super) container_statuses: Vec<ContainerStatus>,
    pub(super) init_container_statuses: Vec<ContainerStatus>,
}

/// What the kubelet has set aside for a container, which may still be more than its spec asks for (KEP-1287).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    pub(super) allocated_resources: Quantities,
    pub(super) resources: Resources,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct PodSpec {
    pub(super) node_name: String,
    pub(super) node_selector: Labels,
    pub(super) affinity: Affinity,
    pub(super) tolerations: Vec<TolerationObject>,
    pub(super) containers: Vec<Container>,
    pub(super) init_containers: Vec<Container>,
    pub(super) overhead: Quantities,
    pub(super) resources: Resources,
    pub(super) priority: Option<i32>,
    pub(super) priority_class_name: String,
    pub(super) termination_grace_period_seconds: Option<u32>,
    pub(super) runtime_class_name: String,
    pub(super) topology_spread_constraints: Vec<SpreadConstraint>,
    pub(super) volumes: Vec<Value>,
    pub(super) resource_claims: Vec<Value>,
    pub(super) host_network: bool,
    pub(super) scheduling_gates: Vec<Value>,
}

/// Amounts by resource name.
pub(super) type Quantities = BTreeMap<String, Quantity>;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Container {
    pub(super) name: String,
    pub(super) resources: Resources,
    pub(super) restart_policy: String,
    pub(super) ports: Vec<Port>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Resources {
    pub(super) requests: Quantities,
    pub(super) limits: Quantities,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Port {
    pub(super) container_port: u32,
    pub(super) host_port: u32,
    #[serde(rename = "hostIP")]
    pub(super) host_ip: String,
    pub(super) protocol: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Affinity {
    pub(super) node_affinity: NodeAffinity,
    pub(super) pod_affinity: PodAffinity,
    pub(super) pod_anti_affinity: PodAffinity,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub(super) required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub(super) preferred: Vec<PreferredTerm>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeSelector {
    pub(super) node_selector_terms: Vec<SelectorTerm>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SelectorTerm {
    pub(super) match_expressions: Vec<Expression>,
    pub(super) match_fields: Vec<Value>,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct PreferredTerm {
    pub(super) weight: u32,
    pub(super) preference: SelectorTerm,
}

/// One requirement, of a pod or of a pool.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Expression {
    pub(super) key: String,
    pub(super) operator: String,
    #[serde(default)]
    pub(super) values: Vec<String>,
    #[serde(default)]
    pub(super) min_values: Option<u32>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct TolerationObject {
    pub(super) key: String,
    pub(super) operator: String,
    pub(super) value: String,
    pub(super) effect: String,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct TaintObject {
    pub(super) key: String,
    #[serde(default)]
    pub(super) value: String,
    pub(super) effect: String,
}
