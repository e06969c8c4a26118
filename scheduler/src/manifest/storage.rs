//! Claims of volumes, as far as they say where a pod may go.
//!
//! A claim leaves its pods free where its volume can be reached from every node (Azure Files), or where the volume is only made
//! once a pod has its node (`WaitForFirstConsumer`, as AKS' disk classes do) and may be made anywhere.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::document::Document;
use super::error::ManifestError;
use super::objects::Meta;

/// The volumes, claims and classes of the input.
#[derive(Debug, Default)]
pub(super) struct Storage {
    /// By namespace and name.
    claims: BTreeMap<String, ClaimSpec>,
    /// Whether a volume may be used from every node, by name.
    volumes: BTreeMap<String, bool>,
    /// Whether a volume of the class may be made wherever its pod goes, by name.
    classes: BTreeMap<String, bool>,
    /// Class of claims that name none.
    default_class: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Claim {
    spec: ClaimSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimSpec {
    volume_name: String,
    storage_class_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Volume {
    spec: VolumeSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeSpec {
    node_affinity: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Class {
    volume_binding_mode: String,
    allowed_topologies: Vec<Value>,
}

impl Storage {
    /// Reads a document of one of these kinds, passes over others.
    pub(super) fn read(&mut self, document: &Document) -> Result<(), ManifestError> {
        match document.kind.as_str() {
            "PersistentVolumeClaim" => {
                let Claim { spec } = document.typed()?;
                self.claims.insert(Meta::read(document)?.pod_id().to_string(), spec);
            }
            "PersistentVolume" => {
                let Volume { spec } = document.typed()?;
                self.volumes.insert(Meta::read(document)?.name, spec.node_affinity.is_none());
            }
            "StorageClass" => {
                let class: Class = document.typed()?;
                let meta = Meta::read(document)?;
                let mark = meta.annotations.get("storageclass.kubernetes.io/is-default-class");
                if mark.is_some_and(|mark| mark == "true") {
                    self.default_class = Some(meta.name.clone());
                }
                let waits = class.volume_binding_mode == "WaitForFirstConsumer";
                self.classes.insert(meta.name, waits && class.allowed_topologies.is_empty());
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a volume of a pod in `namespace` says nothing of where the pod may go. A claim that is not in the input could
    /// say anything.
    pub(super) fn leaves_free(&self, namespace: &str, volume: &Value) -> bool {
        if let Some(claim) = volume.pointer("/persistentVolumeClaim/claimName").and_then(Value::as_str) {
            return self
                .claims
                .get(&format!("{namespace}/{claim}"))
                .is_some_and(|claim| self.claim_leaves_free(claim));
        }
        if let Some(spec) = volume.pointer("/ephemeral/volumeClaimTemplate/spec") {
            return ClaimSpec::deserialize(spec).is_ok_and(|spec| self.claim_leaves_free(&spec));
        }
        volume.get("persistentVolumeClaim").is_none() && volume.get("ephemeral").is_none()
    }

    fn claim_leaves_free(&self, claim: &ClaimSpec) -> bool {
        let known = |list: &BTreeMap<String, bool>, name: &str| list.get(name).copied().unwrap_or(false);
        if claim.volume_name.is_empty() {
            let class = claim.storage_class_name.as_ref().or(self.default_class.as_ref());
            class.is_some_and(|class| known(&self.classes, class))
        } else {
            known(&self.volumes, &claim.volume_name)
        }
    }
}
