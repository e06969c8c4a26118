//! Volumes of pods: where they can be reached from, and what of them is attached to the node.
//!
//! A claim that is bound asks for what its volume's node affinity says; one that is not yet, for what its class allows. A claim
//! that says nothing of place (Azure Files; a disk that is made once its pod has a node) leaves its pods free.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_core::model::{AttachedVolume, ReasonCode, Rejection};
use assay_core::requirement::{Operator, Requirement};
use assay_shared::labels::kubernetes;
use serde::Deserialize;
use serde_json::Value;

use super::document::Document;
use super::error::ManifestError;
use super::objects::{Expression, Meta};
use super::pod;

/// The volumes, claims and classes of the input.
#[derive(Debug, Default)]
pub(super) struct Storage {
    /// By namespace and name.
    claims: BTreeMap<String, Claim>,
    volumes: BTreeMap<String, Volume>,
    classes: BTreeMap<String, Class>,
    /// Class of claims that name none: the newest of those marked so.
    default_class: Option<(String, String)>,
}

#[derive(Debug, Clone, Default)]
struct Claim {
    spec: ClaimSpec,
    phase: String,
    is_bound: bool,
    is_deleting: bool,
}

/// A claim as a pod, a template or an object says it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ClaimSpec {
    volume_name: String,
    storage_class_name: Option<String>,
}

#[derive(Debug)]
struct Volume {
    /// Alternatives, each a conjunction; none where it can be reached from every node.
    terms: Vec<Vec<Requirement>>,
    /// Driver and handle, where nodes attach it.
    attached: Option<(String, String)>,
    is_deleting: bool,
}

#[derive(Debug)]
struct Class {
    provisioner: String,
    waits_for_pod: bool,
    terms: Vec<Vec<Requirement>>,
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

const DISK_DRIVER: &str = "disk.csi.azure.com";
const FILE_DRIVER: &str = "file.csi.azure.com";
/// In-tree provisioners with the CSI drivers they migrate to.
const MIGRATED: [(&str, &str); 2] =
    [("kubernetes.io/azure-disk", DISK_DRIVER), ("kubernetes.io/azure-file", FILE_DRIVER)];
/// Class of volumes that somebody makes by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// The disk driver's own name of the zone label.
const DISK_ZONE: &str = "topology.disk.csi.azure.com/zone";

/// What the volumes of a pod ask of its node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Needs {
    /// For each volume that says where, alternatives.
    pub(super) topology: Vec<Vec<Vec<Requirement>>>,
    pub(super) attached: Vec<AttachedVolume>,
    pub(super) rejections: Vec<Rejection>,
}

impl Storage {
    /// Reads a document of one of these kinds, passes over others.
    pub(super) fn read(&mut self, document: &Document) -> Result<(), ManifestError> {
        match document.kind.as_str() {
            "PersistentVolumeClaim" => {
                let ClaimObject { spec, status } = document.typed()?;
                let meta = Meta::read(document)?;
                let bound = meta.annotations.contains_key("pv.kubernetes.io/bind-completed");
                // A manifest written by hand has neither status nor annotation.
                let is_bound =
                    !spec.volume_name.is_empty() && (bound || matches!(status.phase.as_str(), "" | "Bound"));
                let is_deleting = meta.deletion_timestamp.is_some();
                let claim = Claim { spec, phase: status.phase, is_bound, is_deleting };
                self.claims.insert(meta.pod_id().to_string(), claim);
            }
            "PersistentVolume" => {
                let VolumeObject { spec } = document.typed()?;
                let meta = Meta::read(document)?;
                let volume = volume(document, &meta, spec)?;
                self.volumes.insert(meta.name, volume);
            }
            "StorageClass" => {
                let class: ClassObject = document.typed()?;
                let meta = Meta::read(document)?;
                let mark = meta.annotations.get("storageclass.kubernetes.io/is-default-class");
                if mark.is_some_and(|mark| mark == "true") {
                    let candidate = (meta.creation_timestamp.clone().unwrap_or_default(), meta.name.clone());
                    if self.default_class.as_ref().is_none_or(|newest| *newest < candidate) {
                        self.default_class = Some(candidate);
                    }
                }
                let term = |allowed: &AllowedTopology| {
                    let expressions = allowed.match_label_expressions.iter();
                    expressions
                        .map(|one| translated(Requirement::is_in(&one.key, one.values.iter().cloned())))
                        .collect()
                };
                let class = Class {
                    waits_for_pod: class.volume_binding_mode == "WaitForFirstConsumer",
                    terms: class.allowed_topologies.iter().map(term).collect(),
                    provisioner: class.provisioner,
                };
                self.classes.insert(meta.name, class);
            }
            _ => {}
        }
        Ok(())
    }

    /// What volumes of a pod ask for. `made` are claims that the pod's controller makes for it, by the volume's name.
    pub(super) fn needs(
        &self,
        (namespace, pod): (&str, &str),
        volumes: &[Value],
        made: &[(String, String, ClaimSpec)],
    ) -> Needs {
        let mut needs = Needs::default();
        for (_, name, spec) in made {
            let id = format!("{namespace}/{name}");
            match self.claims.get(&id) {
                Some(claim) => self.of_claim(&id, claim, &mut needs),
                None => self.of_unbound(&id, spec, &mut needs),
            }
        }
        for volume in volumes {
            let name = volume.get("name").and_then(Value::as_str).unwrap_or_default();
            if made.iter().any(|(of_template, ..)| of_template == name) {
                continue;
            }
            if let Some(claim) = volume.get("persistentVolumeClaim") {
                let claim = claim.get("claimName").and_then(Value::as_str).unwrap_or_default();
                let id = format!("{namespace}/{claim}");
                match self.claims.get(&id) {
                    Some(claim) => self.of_claim(&id, claim, &mut needs),
                    None => reject(&mut needs, format!("claim {id} is not found")),
                }
            } else if let Some(ephemeral) = volume.get("ephemeral") {
                let id = format!("{namespace}/{pod}-{name}");
                let spec = ephemeral.pointer("/volumeClaimTemplate/spec").map(ClaimSpec::deserialize);
                match (self.claims.get(&id), spec) {
                    (Some(claim), _) => self.of_claim(&id, claim, &mut needs),
                    (None, Some(Ok(spec))) => self.of_unbound(&id, &spec, &mut needs),
                    (None, _) => reject(&mut needs, format!("ephemeral volume {name} has no claim template")),
                }
            } else if let Some(driver) = volume.pointer("/csi/driver").and_then(Value::as_str) {
                attach(&mut needs, driver, format!("{namespace}/{pod}-{name}"));
            } else if let Some(disk) = volume.get("azureDisk") {
                let uri = disk.get("diskURI").and_then(Value::as_str).unwrap_or(name);
                attach(&mut needs, DISK_DRIVER, uri.to_owned());
            }
        }
        needs
    }

    fn of_claim(&self, id: &str, claim: &Claim, needs: &mut Needs) {
        if claim.is_deleting {
            return reject(needs, format!("claim {id} is being deleted"));
        }
        if claim.phase == "Lost" {
            return reject(needs, format!("claim {id} has lost its volume"));
        }
        let name = &claim.spec.volume_name;
        if name.is_empty() {
            return self.of_unbound(id, &claim.spec, needs);
        }
        if !claim.is_bound {
            return reject(needs, format!("claim {id} is not yet bound to volume {name}"));
        }
        let Some(volume) = self.volumes.get(name) else {
            return reject(needs, format!("claim {id}: volume {name} is not found"));
        };
        if volume.is_deleting {
            return reject(needs, format!("claim {id}: volume {name} is being deleted"));
        }
        if !volume.terms.is_empty() {
            needs.topology.push(volume.terms.clone());
        }
        if let Some((driver, handle)) = &volume.attached {
            attach(needs, driver, handle.clone());
        }
    }

    fn of_unbound(&self, id: &str, spec: &ClaimSpec, needs: &mut Needs) {
        let named = spec.storage_class_name.as_ref().filter(|name| !name.is_empty());
        // An empty name asks for no class at all.
        let default = self.default_class.as_ref().map(|(_, name)| name);
        let name = named.or_else(|| default.filter(|_| spec.storage_class_name.is_none()));
        let Some(name) = name else {
            return reject(needs, format!("claim {id} is not bound and has no storage class"));
        };
        let Some(class) = self.classes.get(name) else {
            return reject(needs, format!("claim {id}: storage class {name} is not found"));
        };
        if !class.waits_for_pod {
            return reject(needs, format!("claim {id} is not bound, and class {name} binds immediately"));
        }
        if class.provisioner == NO_PROVISIONER {
            return reject(needs, format!("claim {id} is not bound, and class {name} has no provisioner"));
        }
        if !class.terms.is_empty() {
            needs.topology.push(class.terms.clone());
        }
        let migrated = MIGRATED.iter().find(|(old, _)| *old == class.provisioner);
        attach(needs, migrated.map_or(class.provisioner.as_str(), |(_, new)| new), id.to_owned());
    }
}

fn reject(needs: &mut Needs, detail: String) {
    needs.rejections.push(Rejection { reason: ReasonCode::VolumeConstraint, detail });
}

fn attach(needs: &mut Needs, driver: &str, id: String) {
    // Shares are mounted, not attached: nodes do not limit them.
    if !driver.is_empty() && driver != FILE_DRIVER {
        needs.attached.push(AttachedVolume { driver: Arc::from(driver), id: id.into() });
    }
}

fn volume(document: &Document, meta: &Meta, spec: VolumeSpec) -> Result<Volume, ManifestError> {
    // The node of a local volume may be gone: what counts is that the pod gets a volume somewhere.
    let is_local = spec.local.is_some() || spec.host_path.is_some();
    let mut terms = Vec::new();
    for (index, term) in spec.node_affinity.required.node_selector_terms.iter().enumerate() {
        let path = format!("spec.nodeAffinity.required.nodeSelectorTerms[{index}].matchExpressions");
        let mut list = pod::requirements(document, &path, &term.match_expressions)?;
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
    Ok(Volume { terms, attached, is_deleting: meta.deletion_timestamp.is_some() })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn storage(objects: &[Value]) -> Storage {
        let mut storage = Storage::default();
        for object in objects {
            let kind = object["kind"].as_str().unwrap().to_owned();
            let document = Document { file: "-".to_owned(), number: 1, kind, value: object.clone() };
            storage.read(&document).unwrap();
        }
        storage
    }

    fn class(name: &str, mode: &str, zones: &[&str]) -> Value {
        let allowed = json!([{"matchLabelExpressions": [{"key": DISK_ZONE, "values": zones}]}]);
        json!({"kind": "StorageClass", "metadata": {"name": name}, "provisioner": DISK_DRIVER, "volumeBindingMode": mode,
            "allowedTopologies": if zones.is_empty() { json!([]) } else { allowed }})
    }

    fn claim(name: &str, spec: Value, phase: &str) -> Value {
        json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec, "status": {"phase": phase}})
    }

    #[test]
    fn every_claim_that_cannot_be_had_says_why() {
        let wait = class("wait", "WaitForFirstConsumer", &[]);
        let cases = [
            (vec![], "default/data is not found"),
            (vec![claim("data", json!({}), "")], "no storage class"),
            (vec![claim("data", json!({"storageClassName": "wait"}), "")], "storage class wait is not found"),
            (
                vec![
                    class("now", "Immediate", &[]),
                    claim("data", json!({"storageClassName": "now"}), "Pending"),
                ],
                "binds immediately",
            ),
            (vec![wait.clone(), claim("data", json!({"storageClassName": ""}), "")], "no storage class"),
            (vec![claim("data", json!({"volumeName": "v"}), "")], "volume v is not found"),
            (vec![claim("data", json!({"volumeName": "v"}), "Lost")], "lost its volume"),
            (vec![claim("data", json!({"volumeName": "v"}), "Pending")], "not yet bound"),
        ];
        for (objects, expected) in cases {
            let volumes = [json!({"name": "d", "persistentVolumeClaim": {"claimName": "data"}})];
            let needs = storage(&objects).needs(("default", "p"), &volumes, &[]);
            let detail = &needs.rejections.first().expect(expected).detail;
            assert!(detail.contains(expected), "{detail}\ndoes not contain\n{expected}");
        }
    }

    #[test]
    fn a_volume_is_reached_where_its_affinity_or_its_class_says() {
        let affinity = json!({"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": DISK_ZONE, "operator": "In", "values": ["eastus-1", ""]}]}]}});
        let volume = json!({"kind": "PersistentVolume", "metadata": {"name": "v"},
            "spec": {"csi": {"driver": DISK_DRIVER, "volumeHandle": "/disks/v"}, "nodeAffinity": affinity}});
        let storage = storage(&[
            volume,
            claim("data", json!({"volumeName": "v"}), "Bound"),
            class("zonal", "WaitForFirstConsumer", &["eastus-2"]),
            claim("later", json!({"storageClassName": "zonal"}), "Pending"),
        ]);
        let volumes = ["data", "later"].map(|name| json!({"persistentVolumeClaim": {"claimName": name}}));
        let needs = storage.needs(("default", "p"), &volumes, &[]);
        assert_eq!(needs.rejections, []);
        let zones = |values: &[&str]| vec![vec![Requirement::is_in(kubernetes::ZONE, values.to_vec())]];
        assert_eq!(needs.topology, [zones(&["eastus-1", "0"]), zones(&["eastus-2"])]);
        let attached: Vec<&str> = needs.attached.iter().map(|volume| &*volume.id).collect();
        assert_eq!(attached, ["/disks/v", "default/later"]);
    }
}
