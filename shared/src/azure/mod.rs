//! What Azure's catalogue promises for each VM size.
//!
//! `sizes.txt` holds the facts and names their sources. The agent prints them beside what it measured; the scheduler's
//! built-in catalogue is made of them. Prices are the scheduler's business and are not here.

mod parse;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::report::{Architecture, GpuVendor};
use crate::units::{Bytes, Gbps};

/// A VM size as Azure describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmSize {
    /// Name, such as `Standard_D4s_v5`.
    pub name: Arc<str>,
    /// Family line it belongs to: its name with `{n}` for the vCPUs. A price list by family uses the same words.
    pub family: Arc<str>,
    /// Instruction set.
    pub architecture: Architecture,
    /// vCPUs that the VM has.
    pub vcpus: u32,
    /// vCPUs on one physical core: 2 with simultaneous multithreading.
    pub vcpus_per_core: u32,
    /// Memory, of which the kernel keeps some: see `docs/catalog.md`.
    pub memory: Bytes,
    /// GPUs, where there are any.
    pub gpus: Option<Gpus>,
    /// Temporary SCSI disk; zero where there is none.
    pub temp_disk: Bytes,
    /// Local NVMe disks; `None` where there are none.
    pub local_nvme: Option<LocalNvme>,
    /// Largest operating system disk that can be put on local storage; zero where none can.
    pub ephemeral_os_max: Bytes,
    /// Whether that disk takes the place of the local NVMe disks.
    pub ephemeral_os_on_nvme: bool,
    /// Whether the NIC can bypass the host's virtual switch.
    pub accelerated_networking: bool,
    /// InfiniBand rate of one port; zero where there is none.
    pub rdma: Gbps,
    /// Whether premium disks can be attached.
    pub premium_io: bool,
    /// Whether ultra disks can be attached.
    pub ultra_ssd: bool,
    /// Whether it is sold as spot.
    pub spot: bool,
    /// Whether it is sold by availability zone, in regions that have them.
    pub zonal: bool,
    /// Whether it boots generation 1 images.
    pub generation1: bool,
    /// Whether it boots generation 2 images.
    pub generation2: bool,
}

/// GPUs of a VM size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus {
    /// Maker.
    pub vendor: GpuVendor,
    /// Model, such as `A100`.
    pub model: Arc<str>,
    /// How many devices the VM sees.
    pub count: u32,
    /// Memory of each of these devices.
    pub memory: Bytes,
    /// How many VMs share one GPU: 6 where each gets a sixth.
    pub shared_by: u32,
}

/// Local NVMe disks of a VM size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocalNvme {
    /// How many.
    pub count: u32,
    /// Size of one.
    pub size: Bytes,
}

impl LocalNvme {
    /// Size of all.
    #[must_use]
    pub fn total(self) -> Bytes {
        self.size * u64::from(self.count)
    }
}

/// By name in lower case. A line that cannot be read would be left out; a test keeps the file free of such lines.
static SIZES: LazyLock<BTreeMap<String, VmSize>> = LazyLock::new(|| {
    let sizes = parse::families(include_str!("sizes.txt")).filter_map(Result::ok).flatten();
    sizes.map(|size| (size.name.to_ascii_lowercase(), size)).collect()
});

/// What Azure promises for this size, or `None` where it is not known. Azure compares names without regard to case.
#[must_use]
pub fn size(name: &str) -> Option<&'static VmSize> {
    SIZES.get(&name.to_ascii_lowercase())
}

/// Every known size, by name.
pub fn sizes() -> impl Iterator<Item = &'static VmSize> {
    SIZES.values()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_read() {
        let errors: Vec<_> = parse::families(include_str!("sizes.txt"))
            .filter_map(Result::err)
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:#?}");
        let listed: usize = parse::families(include_str!("sizes.txt"))
            .filter_map(Result::ok)
            .map(|family| family.len())
            .sum();
        assert_eq!(listed, sizes().count(), "a size is listed twice");
    }

    #[test]
    fn every_family_that_kubernetes_users_buy_is_there() {
        for family in ["B", "D", "E", "F", "HB", "L", "M", "NC", "ND", "NV"] {
            let of_family = |size: &&VmSize| {
                let rest = size.name.strip_prefix("Standard_").and_then(|name| name.strip_prefix(family));
                rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            };
            assert!(sizes().filter(of_family).count() >= 4, "{family}");
        }
        assert!(sizes().count() >= 200);
    }

    #[test]
    fn sizes_are_what_the_vendor_documents() {
        let d4 = size("standard_d4S_v5").expect("known");
        assert_eq!((&*d4.name, d4.vcpus, d4.memory), ("Standard_D4s_v5", 4, Bytes::gib(16)));
        assert_eq!((d4.temp_disk, d4.ephemeral_os_max, d4.local_nvme), (Bytes::ZERO, Bytes::ZERO, None));
        assert!(d4.zonal && d4.spot && d4.premium_io && d4.generation1);

        let a100 = size("Standard_NC48ads_A100_v4").expect("known");
        let gpus = a100.gpus.as_ref().expect("has GPUs");
        assert_eq!((&*gpus.model, gpus.count, gpus.memory), ("A100", 2, Bytes::gib(80)));
        assert_eq!(a100.local_nvme.expect("has NVMe").count, 2);

        let a10 = size("Standard_NV6ads_A10_v5").expect("known");
        assert_eq!(a10.gpus.as_ref().map(|gpus| (gpus.shared_by, gpus.memory)), Some((6, Bytes::gib(4))));

        let d16 = size("Standard_D16ds_v6").expect("known");
        assert_eq!(d16.local_nvme, Some(LocalNvme { count: 2, size: Bytes::gib(440) }));
        assert_eq!(d16.ephemeral_os_max, Bytes::gib(880));

        assert_eq!(size("Standard_M8ms").map(|size| size.memory), Some(Bytes::mib(224_000)));
        assert_eq!(size("Standard_D4ps_v5").map(|size| size.architecture), Some(Architecture::Arm64));
        assert_eq!(size("Standard_Nope"), None);
    }

    #[test]
    fn no_size_promises_what_cannot_be() {
        for size in sizes() {
            let per_cpu = size.memory.as_mib() / u64::from(size.vcpus);
            assert!((1024..=64 * 1024).contains(&per_cpu), "{}: {per_cpu} MiB per vCPU", size.name);
            assert!(size.generation1 || size.generation2, "{}", size.name);
            assert!(!size.ephemeral_os_on_nvme || size.local_nvme.is_some(), "{}", size.name);
            if let Some(gpus) = &size.gpus {
                assert!((1..=8).contains(&gpus.count) && gpus.memory >= Bytes::gib(2), "{}", size.name);
            }
        }
    }
}
