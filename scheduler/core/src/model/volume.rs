//! Volumes, as far as they decide where a pod may run.

use std::sync::Arc;

use super::ResourceList;

/// A volume that its driver attaches to the node. Pods that use the same claim share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttachedVolume {
    /// CSI driver, such as `disk.csi.azure.com`; in-tree plugins count as the driver they migrate to.
    pub driver: Arc<str>,
    /// What makes two mentions the same volume: the PersistentVolume, or `namespace/claim` while unbound.
    pub id: Arc<str>,
}

impl AttachedVolume {
    /// Name under which nodes and instance types say how many volumes of a driver they can attach, among their allocatable
    /// resources (from CSINode, or from the size's data disks). A machine that does not name it has no limit.
    #[must_use]
    pub fn limit_name(driver: &str) -> String {
        format!("{VOLUME_LIMIT_PREFIX}{driver}")
    }

    /// How many volumes of this driver fit; `None` is no limit.
    #[must_use]
    pub fn limit(driver: &str, allocatable: &ResourceList) -> Option<u64> {
        allocatable.extended.get(&Self::limit_name(driver)).copied()
    }
}

/// Prefix of the resources that limit volumes.
pub const VOLUME_LIMIT_PREFIX: &str = "attachable-volumes-csi-";
