//! How much of a VM pods get: from the RAM that is sold, over what the kernel counts, to what the kubelet allocates.
//!
//! Kernel: one `struct page` of 64 bytes for each 4 KiB page is 1/64 of RAM; firmware, crash kernel and initial allocations
//! take a further 100 to 320 MiB on public Azure nodes. Reservations: "Resource reservations" in the AKS documentation
//! (<https://learn.microsoft.com/azure/aks/node-resource-reservations>) and `kube-reserved` of AKS node images.

use assay_shared::units::{Bytes, MilliCpu};

use crate::model::ResourceList;

/// What the kernel keeps besides 1/64, at most, in the public measurements.
const KERNEL_CONSTANT: Bytes = Bytes::mib(320);

/// How the nodes' kubelet is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reservations {
    /// AKS from Kubernetes 1.29 on: by pod slots.
    #[default]
    ByPods,
    /// AKS before Kubernetes 1.29: by brackets of memory.
    ByMemory,
}

/// `MemTotal` of a VM sold with `installed` memory, and so the memory capacity that its kubelet reports: on the low side of
/// every node whose size is described truthfully.
#[must_use]
pub fn kernel_memory(installed: Bytes) -> Bytes {
    installed - Bytes(installed.0.div_ceil(64)) - KERNEL_CONSTANT
}

/// CPU that the kubelet keeps on a VM with so many vCPUs: 6 % of the first, 4 % of the second, 2 % of the third and fourth,
/// 1 % of each further one.
#[must_use]
pub fn reserved_cpu(vcpus: u32) -> MilliCpu {
    let first = match vcpus {
        0 => 0,
        1 => 60,
        2 => 100,
        3 => 120,
        more => 140 + 10 * (u64::from(more) - 4),
    };
    MilliCpu(first)
}

/// Memory that the kubelet keeps, eviction threshold included.
#[must_use]
pub fn reserved_memory(reservations: Reservations, installed: Bytes, pods: u32) -> Bytes {
    match reservations {
        Reservations::ByPods => {
            let by_pods = Bytes::mib(20) * u64::from(pods) + Bytes::mib(50);
            by_pods.min(Bytes(installed.0 / 4)) + Bytes::mib(100)
        }
        Reservations::ByMemory => {
            // (GiB of the bracket, per cent kept of it)
            const BRACKETS: [(u64, u64); 5] = [(4, 25), (4, 20), (8, 10), (112, 6), (u64::MAX, 2)];
            let mut left = installed;
            let mut kept = Bytes::ZERO;
            for (gib, per_cent) in BRACKETS {
                let part = left.min(Bytes::gib(gib));
                kept += Bytes(part.0 / 100 * per_cent);
                left -= part;
            }
            kept + Bytes::mib(750)
        }
    }
}

/// Everything that pods do not get of a node with this capacity.
#[must_use]
pub fn reserved(
    reservations: Reservations,
    vcpus: u32,
    installed: Bytes,
    pods: u32,
    os_disk: Bytes,
) -> ResourceList {
    ResourceList {
        cpu: reserved_cpu(vcpus),
        memory: reserved_memory(reservations, installed, pods),
        // The kubelet evicts pods when less than a tenth of its file system is free, and does not allocate that tenth.
        ephemeral_storage: Bytes(os_disk.0.div_ceil(10)),
        ..ResourceList::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (name, GiB sold, MemTotal in KiB) as nodes in public reports and Microsoft's node health checks show it.
    const PUBLIC_NODES: &[(&str, f64, u64)] = &[
        ("DS1_v2", 3.5, 3_500_452),
        ("B2s", 4.0, 4_017_088),
        ("F2s_v2", 4.0, 4_025_836),
        ("DS2_v2", 7.0, 7_113_660),
        ("16 GiB", 16.0, 16_403_296),
        ("NC24ads_A100_v4", 220.0, 221_450 * 1024),
        ("NC12s_v3", 224.0, 230_946_956),
        ("NC40ads_H100_v5", 320.0, 329_977_992),
        ("HC44rs", 352.0, 354_691 * 1024),
        ("NC80adis_H100_v5", 640.0, 660_463_936),
        ("ND40rs_v2", 672.0, 693_505_424),
        ("HB176rs_v4", 768.0, 792_561_408),
        ("NC96ads_A100_v4", 880.0, 908_185_720),
        ("ND96asr_v4", 900.0, 928_858_388),
        ("ND96isr_H200_v5", 1850.0, 1_909_409_116),
        ("ND96isr_H100_v5", 1900.0, 1_915_071 * 1024),
        ("HB120rs_v3", 448.0, 470_543_164),
        ("ND96isr_MI300X_v5", 1850.0, 1_915_059 * 1024),
    ];

    /// Sizes that have less RAM than their page says; only measuring helps.
    const OVERSTATED: &[(&str, f64, u64)] =
        &[("ND96amsr_A100_v4", 1900.0, 1_857_830_712), ("HX176rs", 1408.0, 1_444_918_756)];

    fn installed(gib: f64) -> Bytes {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the sizes above, below 2^11
        Bytes::mib((gib * 1024.0) as u64)
    }

    #[test]
    fn a_node_never_has_less_than_predicted() {
        for (name, gib, kib) in PUBLIC_NODES {
            let (predicted, real) = (kernel_memory(installed(*gib)), Bytes::KIB * *kib);
            assert!(real >= predicted, "{name}: predicted {predicted}, has {real}");
        }
    }

    #[test]
    fn the_prediction_wastes_little_where_the_size_is_described_truthfully() {
        for (name, gib, kib) in &PUBLIC_NODES[..16] {
            let unused = Bytes::KIB * *kib - kernel_memory(installed(*gib));
            assert!(unused <= Bytes::mib(320 - 100), "{name}: {unused}");
        }
    }

    #[test]
    fn overstated_sizes_are_the_known_ones() {
        for (name, gib, kib) in OVERSTATED {
            assert!(Bytes::KIB * *kib < kernel_memory(installed(*gib)), "{name}");
        }
    }

    #[test]
    fn cpu_reservations_are_those_aks_documents() {
        let cases = [(1, 60), (2, 100), (3, 120), (4, 140), (8, 180), (16, 260), (32, 420), (64, 740)];
        for (vcpus, milli) in cases {
            assert_eq!(reserved_cpu(vcpus), MilliCpu(milli), "{vcpus}");
        }
    }

    #[test]
    fn memory_reservations_are_those_aks_documents() {
        use Reservations::{ByMemory, ByPods};
        let cases = [
            (ByPods, 8, 30, 750),
            (ByPods, 8, 250, 2048 + 100),
            (ByPods, 64, 30, 750),
            (ByPods, 64, 250, 5150),
            (ByMemory, 7, 30, 1638 + 750),
            (ByMemory, 8, 250, 1843 + 750),
            (ByMemory, 64, 110, 5611 + 750),
        ];
        for (reservations, gib, pods, mib) in cases {
            let kept = reserved_memory(reservations, Bytes::gib(gib), pods);
            assert!(kept.as_mib().abs_diff(mib) <= 1, "{reservations:?} {gib} GiB, {pods} pods: {kept}");
        }
    }
}
