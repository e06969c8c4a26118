//! Volumes of pods: where they can be reached from, and what of them is attached to the node.
//!
//! A claim that is bound asks for what its volume's node affinity says; one that is not yet, for what its class allows. A claim
//! that says nothing of place (Azure Files; a disk that is made once its pod has a node) leaves its pods free.

mod object;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_core::model::{AttachedVolume, ReasonCode, Rejection};
use assay_core::requirement::Requirement;
use serde::Deserialize;
use serde_json::Value;

use super::context::Touched;
use super::document::Document;
use super::error::ManifestError;
use super::objects::Meta;
pub(super) use object::ClaimSpec;
use object::{Claim, Class, Volume};

/// The volumes, claims and classes of the input.
#[derive(Debug, Default)]
pub(crate) struct Storage {
    /// By namespace and name.
    claims: BTreeMap<String, Claim>,
    volumes: BTreeMap<String, Volume>,
    classes: BTreeMap<String, Class>,
    /// Claims that name each volume, by namespace and name.
    claims_of: BTreeMap<String, BTreeSet<String>>,
}

const DISK_DRIVER: &str = "disk.csi.azure.com";
const FILE_DRIVER: &str = "file.csi.azure.com";
/// In-tree provisioners with the CSI drivers they migrate to.
const MIGRATED: [(&str, &str); 2] =
    [("kubernetes.io/azure-disk", DISK_DRIVER), ("kubernetes.io/azure-file", FILE_DRIVER)];
/// Class of volumes that somebody makes by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// What the volumes of a pod ask of its node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Needs {
    /// For each volume that says where, alternatives.
    pub(super) topology: Vec<Vec<Vec<Requirement>>>,
    pub(super) attached: Vec<AttachedVolume>,
    pub(super) rejections: Vec<Rejection>,
}

impl Storage {
    /// Takes in an object of one of these kinds, in place of what it said before; tells what that changes.
    pub(super) fn apply(&mut self, document: &Document) -> Result<Option<Touched>, ManifestError> {
        let meta = Meta::read(document)?;
        match document.kind.as_str() {
            "PersistentVolumeClaim" => {
                let id = meta.pod_id().to_string();
                let claim = Claim::read(document, &meta)?;
                if self.claims.get(&id) == Some(&claim) {
                    return Ok(None);
                }
                self.forget_claim(&id);
                self.claims_of.entry(claim.spec.volume_name.clone()).or_default().insert(id.clone());
                self.claims.insert(id.clone(), claim);
                Ok(Some(Touched::Claim(id)))
            }
            "PersistentVolume" => {
                let volume = Volume::read(document, &meta)?;
                if self.volumes.get(&meta.name) == Some(&volume) {
                    return Ok(None);
                }
                self.volumes.insert(meta.name.clone(), volume);
                Ok(Some(Touched::Volume(meta.name)))
            }
            "StorageClass" => {
                let class = Class::read(document, &meta)?;
                if self.classes.get(&meta.name) == Some(&class) {
                    return Ok(None);
                }
                self.classes.insert(meta.name, class);
                Ok(Some(Touched::StorageClasses))
            }
            _ => Ok(None),
        }
    }

    /// Forgets an object; tells what that changes.
    pub(super) fn remove(&mut self, kind: &str, namespace: &str, name: &str) -> Option<Touched> {
        match kind {
            "PersistentVolumeClaim" => {
                let id = format!("{namespace}/{name}");
                self.forget_claim(&id).then_some(Touched::Claim(id))
            }
            "PersistentVolume" => self.volumes.remove(name).map(|_| Touched::Volume(name.to_owned())),
            "StorageClass" => self.classes.remove(name).map(|_| Touched::StorageClasses),
            _ => None,
        }
    }

    /// Claims that name a volume.
    pub(crate) fn claims_of(&self, volume: &str) -> impl Iterator<Item = &String> {
        self.claims_of.get(volume).into_iter().flatten()
    }

    fn forget_claim(&mut self, id: &str) -> bool {
        let Some(claim) = self.claims.remove(id) else { return false };
        let volume = &claim.spec.volume_name;
        if let Some(claims) = self.claims_of.get_mut(volume) {
            claims.remove(id);
            if claims.is_empty() {
                self.claims_of.remove(volume);
            }
        }
        true
    }

    /// Class of claims that name none: the newest of those marked so.
    fn default_class(&self) -> Option<&String> {
        let marked =
            self.classes.iter().filter_map(|(name, class)| Some((class.default_since.as_ref()?, name)));
        marked.max().map(|(_, name)| name)
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
        let is_silent = spec.storage_class_name.is_none();
        let name = named.or_else(|| self.default_class().filter(|_| is_silent));
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
