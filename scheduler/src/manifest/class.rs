//! AKSNodeClasses (`karpenter.azure.com/v1beta1`), as far as they change what a machine holds.

use assay_core::model::{ClassReadiness, CpuManagerPolicy, NodeClass, TopologyManagerPolicy};
use assay_shared::units::Bytes;
use serde::Deserialize;

use super::document::Document;
use super::error::ManifestError;
use super::objects::{Condition, Meta};
use crate::kube::api::hash;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClassObject {
    spec: ClassSpec,
    status: ClassStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClassStatus {
    conditions: Vec<Condition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClassSpec {
    max_pods: Option<u32>,
    #[serde(rename = "osDiskSizeGB")]
    os_disk_size_gb: Option<u64>,
    image_family: Option<String>,
    kubelet: Kubelet,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Kubelet {
    topology_manager_policy: String,
    cpu_manager_policy: String,
}

/// A node class of a cluster: whether machines can be made from it is for its status to say.
pub(crate) fn read_live(document: &Document, meta: &Meta) -> Result<NodeClass, ManifestError> {
    let ClassObject { status, .. } = document.typed()?;
    let mut class = read(document, meta)?;
    if class.readiness == ClassReadiness::Ready && ready(&status.conditions).is_none() {
        class.readiness = ClassReadiness::Unknown;
    }
    Ok(class)
}

/// What a class says of itself; nothing where nobody has looked at it yet.
fn ready(conditions: &[Condition]) -> Option<ClassReadiness> {
    let condition = conditions.iter().find(|condition| condition.name == "Ready")?;
    match condition.status.as_str() {
        "True" => Some(ClassReadiness::Ready),
        "False" => Some(ClassReadiness::NotReady(condition.message.clone())),
        _ => None,
    }
}

/// A node class. One that nobody has looked at, as in a file, is taken for ready.
pub(crate) fn read(document: &Document, meta: &Meta) -> Result<NodeClass, ManifestError> {
    const FAMILIES: [&str; 4] = ["Ubuntu", "Ubuntu2204", "Ubuntu2404", "AzureLinux"];
    let ClassObject { spec, status } = document.typed()?;
    let mut class = NodeClass::with_defaults(&meta.name);
    if let Some(pods) = spec.max_pods {
        if !(10..=250).contains(&pods) {
            return Err(document.error("spec.maxPods", format!("expected 10 to 250, found {pods}")));
        }
        class.max_pods = Some(pods);
    }
    if let Some(gigabytes) = spec.os_disk_size_gb {
        if !(30..=2048).contains(&gigabytes) {
            return Err(
                document.error("spec.osDiskSizeGB", format!("expected 30 to 2048, found {gigabytes}"))
            );
        }
        class.os_disk = Bytes(gigabytes * 1_000_000_000);
    }
    if let Some(family) = spec.image_family {
        if !FAMILIES.contains(&family.as_str()) {
            let problem = format!("expected one of {}, found {family:?}", FAMILIES.join(", "));
            return Err(document.error("spec.imageFamily", problem));
        }
        class.image_family = family;
    }
    class.topology_manager = match spec.kubelet.topology_manager_policy.as_str() {
        "" | "none" => TopologyManagerPolicy::None,
        "best-effort" => TopologyManagerPolicy::BestEffort,
        "restricted" => TopologyManagerPolicy::Restricted,
        "single-numa-node" => TopologyManagerPolicy::SingleNumaNode,
        other => {
            let problem =
                format!("expected none, best-effort, restricted or single-numa-node, found {other:?}");
            return Err(document.error("spec.kubelet.topologyManagerPolicy", problem));
        }
    };
    class.cpu_manager = match spec.kubelet.cpu_manager_policy.as_str() {
        "" | "none" => CpuManagerPolicy::None,
        "static" => CpuManagerPolicy::Static,
        other => {
            let problem = format!("expected none or static, found {other:?}");
            return Err(document.error("spec.kubelet.cpuManagerPolicy", problem));
        }
    };
    class.hash = hash::of_aks_node_class(&document.value);
    class.readiness = match meta.deletion_timestamp {
        Some(_) => ClassReadiness::Terminating,
        None => ready(&status.conditions).unwrap_or_default(),
    };
    Ok(class)
}
