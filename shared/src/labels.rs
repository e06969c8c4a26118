//! Names of labels, annotations and taints: Kubernetes', Karpenter's, Azure's and Assay's own.
//!
//! One constant per name, used everywhere.

/// Well-known Kubernetes labels.
pub mod kubernetes {
    /// Instruction set: `amd64`, `arm64`.
    pub const ARCH: &str = "kubernetes.io/arch";
    /// Operating system: `linux`, `windows`.
    pub const OS: &str = "kubernetes.io/os";
    /// Host name of the node.
    pub const HOSTNAME: &str = "kubernetes.io/hostname";
    /// Instance type: on Azure the VM size.
    pub const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
    /// Region.
    pub const REGION: &str = "topology.kubernetes.io/region";
    /// Zone: on Azure `<region>-<n>`, or `0` for a regional VM.
    pub const ZONE: &str = "topology.kubernetes.io/zone";
    /// Windows build of the node.
    pub const WINDOWS_BUILD: &str = "node.kubernetes.io/windows-build";
    /// Any value takes the node out of the load balancers' backends.
    pub const EXCLUDE_FROM_BALANCERS: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

    /// Older spellings that mean the same, as (alias, name).
    pub const ALIASES: &[(&str, &str)] = &[
        ("beta.kubernetes.io/arch", ARCH),
        ("beta.kubernetes.io/instance-type", INSTANCE_TYPE),
        ("beta.kubernetes.io/os", OS),
        ("failure-domain.beta.kubernetes.io/region", REGION),
        ("failure-domain.beta.kubernetes.io/zone", ZONE),
    ];
}

/// Karpenter's names, kept so that its users' manifests and dashboards go on working.
pub mod karpenter {
    /// Pool a node belongs to.
    pub const NODEPOOL: &str = "karpenter.sh/nodepool";
    /// `on-demand`, `spot` or `reserved`.
    pub const CAPACITY_TYPE: &str = "karpenter.sh/capacity-type";
    /// Set once the node has registered.
    pub const REGISTERED: &str = "karpenter.sh/registered";
    /// Set once the node is ready for pods.
    pub const INITIALIZED: &str = "karpenter.sh/initialized";
    /// Annotation: leave this pod or node alone.
    pub const DO_NOT_DISRUPT: &str = "karpenter.sh/do-not-disrupt";
    /// Taint on a node that is being removed.
    pub const DISRUPTED_TAINT: &str = "karpenter.sh/disrupted";
    /// Taint on a node that has not registered yet.
    pub const UNREGISTERED_TAINT: &str = "karpenter.sh/unregistered";
    /// Annotation of a pod: how dear its deletion is to its ReplicaSet.
    pub const POD_DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
    /// Annotation: hash of the template of a pool, or of the one a claim was made from.
    pub const NODEPOOL_HASH: &str = "karpenter.sh/nodepool-hash";
    /// Annotation: how [`NODEPOOL_HASH`] was computed. Hashes of different versions are not compared.
    pub const NODEPOOL_HASH_VERSION: &str = "karpenter.sh/nodepool-hash-version";
    /// Annotation of a claim whose pool asked for more variety (`minValues`) than could be had.
    pub const MIN_VALUES_RELAXED: &str = "karpenter.sh/nodeclaim-min-values-relaxed";
    /// Label: whoever bootstraps this node sees to its taints.
    pub const DO_NOT_SYNC_TAINTS: &str = "karpenter.sh/do-not-sync-taints";
    /// Annotation of a claim: by when its pods are gone whatever holds them.
    pub const TERMINATION_TIMESTAMP: &str = "karpenter.sh/nodeclaim-termination-timestamp";
    /// Value of [`EXCLUDE_FROM_BALANCERS`](super::kubernetes::EXCLUDE_FROM_BALANCERS) on a node that is being removed.
    pub const EXCLUDED_BY: &str = "karpenter";
}

/// Labels of the Azure provider.
pub mod azure {
    /// Node class a node was made from.
    pub const AKS_NODE_CLASS: &str = "karpenter.azure.com/aksnodeclass";
    /// VM size, such as `Standard_D4s_v5`.
    pub const SKU_NAME: &str = "karpenter.azure.com/sku-name";
    /// Family letters, such as `D`.
    pub const SKU_FAMILY: &str = "karpenter.azure.com/sku-family";
    /// Family with modifiers and version, such as `Ds_v5`.
    pub const SKU_SERIES: &str = "karpenter.azure.com/sku-series";
    /// Version number, such as `5`.
    pub const SKU_VERSION: &str = "karpenter.azure.com/sku-version";
    /// vCPUs.
    pub const SKU_CPU: &str = "karpenter.azure.com/sku-cpu";
    /// Memory in MiB.
    pub const SKU_MEMORY: &str = "karpenter.azure.com/sku-memory";
    /// Whether accelerated networking is on.
    pub const SKU_NETWORKING_ACCELERATED: &str = "karpenter.azure.com/sku-networking-accelerated";
    /// Whether premium disks can be attached.
    pub const SKU_STORAGE_PREMIUM_CAPABLE: &str = "karpenter.azure.com/sku-storage-premium-capable";
    /// Whether ultra disks can be attached.
    pub const SKU_STORAGE_ULTRA_SSD: &str = "karpenter.azure.com/sku-storage-ultra-ssd";
    /// Largest ephemeral OS disk, in GB.
    pub const SKU_STORAGE_EPHEMERAL_OS_MAX_SIZE: &str = "karpenter.azure.com/sku-storage-ephemeralos-maxsize";
    /// GPU model, such as `A100`.
    pub const SKU_GPU_NAME: &str = "karpenter.azure.com/sku-gpu-name";
    /// GPU maker: `nvidia` or `amd`.
    pub const SKU_GPU_MANUFACTURER: &str = "karpenter.azure.com/sku-gpu-manufacturer";
    /// Number of GPUs.
    pub const SKU_GPU_COUNT: &str = "karpenter.azure.com/sku-gpu-count";
    /// Hyper-V generation of the VM.
    pub const SKU_HYPERV_GENERATION: &str = "karpenter.azure.com/sku-hyperv-generation";
    /// Annotation: hash of a node class, or of the one a claim was made from.
    pub const AKS_NODE_CLASS_HASH: &str = "karpenter.azure.com/aksnodeclass-hash";
    /// Annotation: how [`AKS_NODE_CLASS_HASH`] was computed.
    pub const AKS_NODE_CLASS_HASH_VERSION: &str = "karpenter.azure.com/aksnodeclass-hash-version";
    /// `zonal` or `regional`.
    pub const PLACEMENT_SCOPE: &str = "karpenter.azure.com/placement-scope";
    /// Value of the zone label of a regional machine. It says that the zone is unknown, not that there is one of this name.
    pub const REGIONAL_ZONE: &str = "0";
    /// AKS twin of [`SKU_CPU`].
    pub const AKS_SKU_CPU: &str = "kubernetes.azure.com/sku-cpu";
    /// AKS twin of [`SKU_MEMORY`].
    pub const AKS_SKU_MEMORY: &str = "kubernetes.azure.com/sku-memory";
    /// `system` or `user`.
    pub const AKS_MODE: &str = "kubernetes.azure.com/mode";
    /// `spot` or `regular`.
    pub const AKS_PRIORITY: &str = "kubernetes.azure.com/priority";
    /// `spot` or `regular`, older name.
    pub const AKS_SCALE_SET_PRIORITY: &str = "kubernetes.azure.com/scalesetpriority";
    /// `Ubuntu` or `AzureLinux`.
    pub const AKS_OS_SKU: &str = "kubernetes.azure.com/os-sku";
    /// Cluster a node belongs to.
    pub const AKS_CLUSTER: &str = "kubernetes.azure.com/cluster";
    /// Whether the node's image is FIPS-enabled.
    pub const AKS_FIPS: &str = "kubernetes.azure.com/fips_enabled";
}

/// What was measured. Every value fits a Kubernetes label value: see `label_value`.
pub mod hardware {
    /// Prefix of all of them.
    pub const PREFIX: &str = "hardware.assay.dev/";
    /// `intel`, `amd`, `arm`.
    pub const CPU_VENDOR: &str = "hardware.assay.dev/cpu-vendor";
    /// CPU model, such as `xeon-platinum-8370c`.
    pub const CPU_MODEL: &str = "hardware.assay.dev/cpu-model";
    /// x86-64 level: `v1` to `v4`.
    pub const CPU_ISA: &str = "hardware.assay.dev/cpu-isa";
    /// Whether AMX can be used.
    pub const CPU_AMX: &str = "hardware.assay.dev/cpu-amx";
    /// RAM the hypervisor gave, MiB.
    pub const MEMORY_INSTALLED_MIB: &str = "hardware.assay.dev/memory-installed-mib";
    /// RAM the kernel has, MiB.
    pub const MEMORY_TOTAL_MIB: &str = "hardware.assay.dev/memory-total-mib";
    /// NUMA nodes.
    pub const NUMA_NODES: &str = "hardware.assay.dev/numa-nodes";
    /// `nvidia` or `amd`.
    pub const GPU_VENDOR: &str = "hardware.assay.dev/gpu-vendor";
    /// GPU product name.
    pub const GPU_MODEL: &str = "hardware.assay.dev/gpu-model";
    /// Usable GPUs.
    pub const GPU_COUNT: &str = "hardware.assay.dev/gpu-count";
    /// Memory of one GPU, MiB.
    pub const GPU_MEMORY_MIB: &str = "hardware.assay.dev/gpu-memory-mib";
    /// How NVIDIA's MIG manager is to cut the GPUs of a node, such as `all-1g.10gb`. Its own label, not one of ours.
    pub const MIG_CONFIG: &str = "nvidia.com/mig.config";
    /// `none`, `mig` or `vgpu`.
    pub const GPU_PARTITION: &str = "hardware.assay.dev/gpu-partition";
    /// State of accelerated networking.
    pub const NETWORK_ACCELERATED: &str = "hardware.assay.dev/network-accelerated";
    /// Driver of the fast path: `mlx5_core`, `mana`, `hv_netvsc`.
    pub const NETWORK_DRIVER: &str = "hardware.assay.dev/network-driver";
    /// Rate of one InfiniBand port, Gb/s.
    pub const RDMA_GBPS: &str = "hardware.assay.dev/rdma-gbps";
    /// Local NVMe disks.
    pub const LOCAL_NVME_COUNT: &str = "hardware.assay.dev/local-nvme-count";
    /// Local NVMe capacity, GiB.
    pub const LOCAL_NVME_GIB: &str = "hardware.assay.dev/local-nvme-gib";
    /// Temporary disk, GiB.
    pub const TEMP_DISK_GIB: &str = "hardware.assay.dev/temp-disk-gib";
    /// `ephemeral` or `managed`.
    pub const OS_DISK: &str = "hardware.assay.dev/os-disk";
    /// `true` once a report was checked against the claim, `stale` when its agent is gone.
    pub const VERIFIED: &str = "hardware.assay.dev/verified";
}

/// Assay's own taints.
pub mod assay {
    /// Startup taint: no report has been checked yet.
    pub const HARDWARE_UNVERIFIED_TAINT: &str = "assay.dev/hardware-unverified";
    /// Taint on a node whose hardware is not what was bought.
    pub const HARDWARE_MISMATCH_TAINT: &str = "assay.dev/hardware-mismatch";
    /// Annotation of a pool: what happens to a node whose hardware is not what was bought: `Replace`, `Taint` or `Label`.
    pub const HARDWARE_MISMATCH_POLICY: &str = "assay.dev/hardware-mismatch-policy";
    /// Annotation of a pool: how long a move must take at most to pay back what it disrupts, such as `1h`; `0s` takes any saving.
    pub const PAYBACK_PERIOD: &str = "assay.dev/payback-period";
    /// Annotation of a pool: what evicting one ordinary pod costs, in US dollars.
    pub const EVICTION_COST: &str = "assay.dev/eviction-cost";
}

/// Longest label value that Kubernetes accepts.
pub const LABEL_VALUE_MAX: usize = 63;

/// `text` as a label value: characters outside `[A-Za-z0-9_.-]` become `-`, runs of `-` one, ends are alphanumeric, at most
/// 63 characters. Empty where nothing usable is left.
#[must_use]
pub fn label_value(text: &str) -> String {
    let mut value = String::with_capacity(text.len().min(LABEL_VALUE_MAX));
    for c in text.chars() {
        let c = if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') { c } else { '-' };
        let starts = value.is_empty() && !c.is_ascii_alphanumeric();
        if starts || (c == '-' && value.ends_with('-')) {
            continue;
        }
        value.push(c);
        if value.len() == LABEL_VALUE_MAX {
            break;
        }
    }
    value.truncate(value.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len());
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_names_become_label_values() {
        let cases = [
            ("NVIDIA A100 80GB PCIe", "NVIDIA-A100-80GB-PCIe"),
            ("Intel(R) Xeon(R) @ 2.80GHz", "Intel-R-Xeon-R-2.80GHz"),
            ("  --x_ ", "x"),
            ("日本", ""),
        ];
        for (text, value) in cases {
            assert_eq!(label_value(text), value, "{text}");
        }
        assert_eq!(label_value(&"a".repeat(100)).len(), LABEL_VALUE_MAX);
        assert_eq!(label_value(&format!("{}-b", "a".repeat(62))), "a".repeat(62), "no dash at the cut");
    }
}
