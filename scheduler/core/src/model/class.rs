//! Node classes: the cloud's side of a pool (`AKSNodeClass`).

use assay_shared::units::Bytes;

/// What an `AKSNodeClass` says about the machines made from it, as far as it changes what they can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeClass {
    /// Its name.
    pub name: String,
    /// Pods per node; `None` is the network plugin's default.
    pub max_pods: Option<u32>,
    /// Size of the OS disk, decimal gigabytes in the API, 128 by default.
    pub os_disk: Bytes,
    /// Image family: `Ubuntu`, `AzureLinux`.
    pub image_family: String,
}

impl NodeClass {
    /// Pods per node of Azure CNI overlay, the default network of AKS node autoprovisioning.
    pub const DEFAULT_MAX_PODS: u32 = 250;

    /// A class of this name with every default.
    #[must_use]
    pub fn with_defaults(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            max_pods: None,
            os_disk: Bytes(128_000_000_000),
            image_family: "Ubuntu".to_owned(),
        }
    }

    /// Pods per node.
    #[must_use]
    pub fn pods_per_node(&self) -> u32 {
        self.max_pods.unwrap_or(Self::DEFAULT_MAX_PODS)
    }
}
