//! Claims, volumes and classes as their objects say them.

use assay_core::requirement::{Operator, Requirement};
use assay_shared::labels::kubernetes;
use serde::Deserialize;
use serde_json::Value;

use crate::manifest::document::Document;
use crate::manifest::error::ManifestError;
use crate::manifest::node_terms;
use crate::manifest::objects::{Expression, Meta};

use super::DISK_DRIVER;

/// The disk driver's own name of the zone label.
pub(super) const DISK_ZONE: &str = "topology.disk.csi.azure.com/zone";

/// A claim.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) spec: ClaimSpec,
    pub(super) phase: String,
    pub(super) is_bound: bool,
    pub(super) is_deleting: bool,
}

/// A claim as a pod, a template or an object says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(in crate::manifest) struct ClaimSpec {
    pub(super) volume_name: String,
    pub(super) storage_class_name: Option<String>,
}

/// A volume that is there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Volume {
    /// Alternatives, each a conjunction; none where it can be reached from every node.
    pub(super) terms: Vec<Vec<Requirement>>,
    /// Driver and handle, where nodes attach it.
    pub(super) attached: Option<(String, String)>,
    pub(super) is_deleting: bool,
}

/// A storage class.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) provisioner: String,
    pub(super) waits_for_pod: bool,
    pub(super) terms: Vec<Vec<Requirement>>,
    /// When it was made, where it is marked as the class of claims that name none.
    pub(super) default_since: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClaimObject {
    spec: ClaimSpec,
    status: ClaimStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClaimStatus {
    phase: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct VolumeObject {
    spec: VolumeSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeSpec {
    node_affinity: NodeAffinity,
    csi: Option<Csi>,
    azure_disk: Option<AzureDisk>,
    azure_file: Option<Value>,
    local: Option<Value>,
    host_path: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct NodeAffinity {
    required: Required,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Required {
    node_selector_terms: Vec<Term>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Term {
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Csi {
    driver: String,
    volume_handle: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AzureDisk {
    #[serde(rename = "diskURI")]
    disk_uri: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClassObject {
    provisioner: String,
    volume_binding_mode: String,
    allowed_topologies: Vec<AllowedTopology>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AllowedTopology {
    match_label_expressions: Vec<LabelValues>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct LabelValues {
    key: String,
    values: Vec<String>,
}

impl Claim {
    pub(super) fn read(document: &Document, meta: &Meta) -> Result<Self, ManifestError> {
        let ClaimObject { spec, status } = document.typed()?;
        let bound = meta.annotations.contains_key("pv.kubernetes.io/bind-completed");
        // A manifest written by hand has neither status nor annotation.
        let is_bound =
            !spec.volume_name.is_empty() && (bound || matches!(status.phase.as_str(), "" | "Bound"));
        Ok(Self { spec, phase: status.phase, is_bound, is_deleting: meta.deletion_timestamp.is_some() })
    }
}

impl Volume {
    pub(super) fn read(document: &Document, meta: &Meta) -> Result<Self, ManifestError> {
        let VolumeObject { spec } = document.typed()?;
        // The node of a local volume may be gone: what counts is that the pod gets a volume somewhere.
        let is_local = spec.local.is_some() || spec.host_path.is_some();
        let mut terms = Vec::new();
        for (index, term) in spec.node_affinity.required.node_selector_terms.iter().enumerate() {
            let path = format!("spec.nodeAffinity.required.nodeSelectorTerms[{index}].matchExpressions");
            let mut list = node_terms::requirements(document, &path, &term.match_expressions)?;
            list.retain(|one| !(is_local && one.key == kubernetes::HOSTNAME));
            terms.push(list.into_iter().map(translated).collect::<Vec<_>>());
        }
        // A term that asks for nothing is satisfied everywhere.
        if terms.iter().any(Vec::is_empty) {
            terms.clear();
        }
        let attached = match (spec.csi, spec.azure_disk, spec.azure_file) {
            (Some(csi), ..) => Some((
                csi.driver,
                if csi.volume_handle.is_empty() { meta.name.clone() } else { csi.volume_handle },
            )),
            (None, Some(disk), _) => Some((
                DISK_DRIVER.to_owned(),
                if disk.disk_uri.is_empty() { meta.name.clone() } else { disk.disk_uri },
            )),
            _ => None,
        };
        Ok(Self { terms, attached, is_deleting: meta.deletion_timestamp.is_some() })
    }
}

impl Class {
    pub(super) fn read(document: &Document, meta: &Meta) -> Result<Self, ManifestError> {
        let class: ClassObject = document.typed()?;
        let mark = meta.annotations.get("storageclass.kubernetes.io/is-default-class");
        let is_default = mark.is_some_and(|mark| mark == "true");
        let term = |allowed: &AllowedTopology| {
            let expressions = allowed.match_label_expressions.iter();
            expressions
                .map(|one| translated(Requirement::is_in(&one.key, one.values.iter().cloned())))
                .collect()
        };
        Ok(Self {
            waits_for_pod: class.volume_binding_mode == "WaitForFirstConsumer",
            terms: class.allowed_topologies.iter().map(term).collect(),
            provisioner: class.provisioner,
            default_since: is_default.then(|| meta.creation_timestamp.clone().unwrap_or_default()),
        })
    }
}

/// A requirement of a volume in the words of nodes.
fn translated(mut requirement: Requirement) -> Requirement {
    if requirement.key == DISK_ZONE {
        requirement.key = kubernetes::ZONE.to_owned();
        if requirement.operator == Operator::In {
            // The driver's name for "no zone"; nodes without zone have "0".
            for value in requirement.values.iter_mut().filter(|value| value.is_empty()) {
                "0".clone_into(value);
            }
        }
    }
    requirement
}
