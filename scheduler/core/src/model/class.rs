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
    /// `kubelet.topologyManagerPolicy`.
    pub topology_manager: TopologyManagerPolicy,
    /// `kubelet.cpuManagerPolicy`.
    pub cpu_manager: CpuManagerPolicy,
    /// Whether machines can be made from it.
    pub readiness: ClassReadiness,
    /// Hash of what it says, as the edge computes it; a claim with another one has drifted.
    pub hash: Option<String>,
}

/// Whether machines can be made from a class (its condition `Ready`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ClassReadiness {
    /// They can.
    #[default]
    Ready,
    /// Nobody has found out yet.
    Unknown,
    /// They cannot, for this reason.
    NotReady(String),
    /// Its deletion has begun.
    Terminating,
}

/// How the kubelet aligns CPUs and devices of a container to NUMA nodes (scope `container`, the only one AKS offers).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TopologyManagerPolicy {
    /// Not at all.
    #[default]
    None,
    /// As far as it can.
    BestEffort,
    /// A container that could be aligned on an empty node is turned away where it cannot be now.
    Restricted,
    /// A container that does not fit one NUMA node is turned away.
    SingleNumaNode,
}

/// Whether containers get CPUs of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CpuManagerPolicy {
    /// They share.
    #[default]
    None,
    /// Containers of guaranteed pods with whole CPUs get their own.
    Static,
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
            topology_manager: TopologyManagerPolicy::None,
            cpu_manager: CpuManagerPolicy::None,
            readiness: ClassReadiness::Ready,
            hash: None,
        }
    }

    /// Pods per node.
    #[must_use]
    pub fn pods_per_node(&self) -> u32 {
        self.max_pods.unwrap_or(Self::DEFAULT_MAX_PODS)
    }
}
