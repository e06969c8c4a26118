//! Azure's VM sizes as instance types: labels, offerings, capacity.
//!
//! Labels have the names and values of Karpenter's Azure provider, so that its users' manifests select the same machines.

mod arm;
mod layout;
mod mig;
#[cfg(test)]
mod plausible;
mod prices;
mod sku_name;

use std::sync::Arc;

use assay_shared::azure::{LocalNvme, VmSize};
use assay_shared::labels::{azure, hardware, karpenter, kubernetes};
use assay_shared::report::{GpuPartition, GpuVendor};
use assay_shared::units::{Bytes, MilliCpu};

use super::overhead::{self, Reservations};
use super::{CapacityType, InstanceType, Offering};
use crate::model::{AttachedVolume, NodeClass, ResourceList};
use crate::requirement::{Requirements, ValueSet};
pub(super) use arm::parse_skus;
pub use mig::partitioned;
pub use prices::{BUILTIN_REGIONS, PriceList, UNKNOWN_PRICE};
use sku_name::SkuName;

/// CSI driver of Azure's managed disks.
const AZURE_DISK: &str = "disk.csi.azure.com";

/// A VM size as it is sold in one region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sku {
    /// What it promises.
    pub size: VmSize,
    /// Zones it is sold in, such as `1`; where there are none it is sold for the region as a whole.
    pub zones: Vec<String>,
    /// Whether some of its vCPUs are switched off.
    pub constrained: bool,
    /// Whether it encrypts the memory of the VM.
    pub confidential: bool,
    /// Disks that can be attached beside the one of the operating system; `None` where that is not known.
    pub data_disks: Option<u32>,
}

/// Why a size is never bought.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Exclusion {
    /// Kubernetes system pods need more.
    #[error("fewer than 2 vCPUs")]
    FewCpus,
    /// Kubernetes system pods need more.
    #[error("less than 3.5 GiB of memory")]
    LittleMemory,
    /// AKS does not accept it.
    #[error("AKS does not accept the size")]
    RefusedByAks,
    /// Same price as the full size, with fewer vCPUs.
    #[error("constrained vCPUs")]
    ConstrainedCpus,
    /// Needs an image and attestation of its own.
    #[error("confidential VM")]
    Confidential,
    /// A pod that asks for GPUs cannot be promised something unknown.
    #[error("unknown GPU")]
    UnknownGpu,
}

impl Sku {
    /// Why it is never bought; `None` where it can be. The rules are those of Karpenter's Azure provider.
    #[must_use]
    pub fn exclusion(&self) -> Option<Exclusion> {
        const REFUSED: [&str; 7] = ["A0", "A1", "A1_v2", "B1s", "B1ms", "F1", "F1s"];
        // Isolated sizes of a retired generation.
        const RETIRED: [&str; 2] = ["E64i_v3", "E64is_v3"];
        let name = self.size.name.strip_prefix("Standard_");
        let refused = name.is_none_or(|name| REFUSED.contains(&name) || RETIRED.contains(&name));
        let unknown_gpu = self.size.gpus.as_ref().is_some_and(|gpus| gpus.model.is_empty());
        if refused {
            Some(Exclusion::RefusedByAks)
        } else if self.size.vcpus < 2 {
            Some(Exclusion::FewCpus)
        } else if self.size.memory < Bytes::mib(3584) {
            Some(Exclusion::LittleMemory)
        } else if self.constrained {
            Some(Exclusion::ConstrainedCpus)
        } else if self.confidential {
            Some(Exclusion::Confidential)
        } else if unknown_gpu {
            Some(Exclusion::UnknownGpu)
        } else {
            None
        }
    }
}

/// The built-in sizes that are sold in a region with built-in prices. A size whose price is known in no region is kept.
pub(super) fn builtin_skus(region: &str) -> Vec<Sku> {
    let priced = |name: &str, region: &str| prices::builtin(name, region).flatten().is_some();
    let sold = assay_shared::azure::sizes().filter(|size| {
        priced(&size.name, region) || !BUILTIN_REGIONS.iter().any(|other| priced(&size.name, other))
    });
    let sku = |size: &VmSize| Sku {
        size: size.clone(),
        // All regions with built-in prices have three zones.
        zones: if size.zonal { ["1", "2", "3"].map(str::to_owned).to_vec() } else { Vec::new() },
        constrained: false,
        confidential: false,
        data_disks: layout::data_disks(size),
    };
    sold.map(sku).collect()
}

/// A size as an instance type of a node class. `measured` is the kernel memory its VMs were seen to have.
pub(super) fn instance_type(
    sku: &Sku,
    region: &str,
    prices: &PriceList,
    class: &NodeClass,
    measured: Option<Bytes>,
) -> InstanceType {
    let size = &sku.size;
    let pods = class.pods_per_node();
    let mut capacity = ResourceList {
        cpu: MilliCpu(u64::from(size.vcpus) * 1000),
        memory: measured.unwrap_or_else(|| overhead::kernel_memory(size.memory)),
        ephemeral_storage: class.os_disk,
        pods: u64::from(pods),
        ..ResourceList::default()
    };
    if let Some(gpus) = &size.gpus {
        let resource = match gpus.vendor {
            GpuVendor::Nvidia => "nvidia.com/gpu",
            GpuVendor::Amd => "amd.com/gpu",
        };
        capacity.set_extended(resource, u64::from(gpus.count));
    }
    if let Some(disks) = sku.data_disks {
        capacity.set_extended(&AttachedVolume::limit_name(AZURE_DISK), u64::from(disks));
    }
    let reservations = Reservations::default();
    let overhead = overhead::reserved(reservations, size.vcpus, size.memory, pods, class.os_disk);
    let offerings = offerings(sku, region, prices);
    let requirements = requirements(sku, region, class, &offerings);
    InstanceType {
        name: Arc::clone(&size.name),
        requirements,
        offerings,
        capacity,
        overhead,
        numa: layout::numa(size),
        lotteries: Vec::new(),
    }
}

/// Each zone, or the region as zone `0`, on demand and as spot.
fn offerings(sku: &Sku, region: &str, prices: &PriceList) -> Vec<Offering> {
    let zones: Vec<Arc<str>> = if sku.zones.is_empty() {
        vec![azure::REGIONAL_ZONE.into()]
    } else {
        sku.zones.iter().map(|zone| format!("{region}-{zone}").into()).collect()
    };
    let on_demand = prices.on_demand(&sku.size.name, region);
    let spot = sku.size.spot.then(|| prices.spot(&sku.size, region));
    let ways = [(CapacityType::OnDemand, Some(on_demand)), (CapacityType::Spot, spot)];
    let priced = ways.into_iter().filter_map(|(capacity_type, price)| Some((capacity_type, price?)));
    let offering = |(capacity_type, price): (CapacityType, prices::Price), zone: &Arc<str>| Offering {
        zone: Arc::clone(zone),
        capacity_type,
        price: price.usd,
        price_source: price.source,
        available: true,
        reservation: None,
        overrides: None,
    };
    priced.flat_map(|way| zones.iter().map(move |zone| offering(way, zone))).collect()
}

fn requirements(sku: &Sku, region: &str, class: &NodeClass, offerings: &[Offering]) -> Requirements {
    let size = &sku.size;
    let mut requirements = Requirements::new();
    let mut is = |key: &str, value: &str| requirements.constrain(key, &ValueSet::of([value]));
    let cpus = size.vcpus.to_string();
    let memory = size.memory.as_mib().to_string();
    is(kubernetes::INSTANCE_TYPE, &size.name);
    is(kubernetes::ARCH, size.architecture.as_str());
    is(kubernetes::OS, "linux");
    is(kubernetes::REGION, region);
    is(azure::SKU_NAME, &size.name);
    is(azure::SKU_CPU, &cpus);
    is(azure::AKS_SKU_CPU, &cpus);
    is(azure::SKU_MEMORY, &memory);
    is(azure::AKS_SKU_MEMORY, &memory);
    is(azure::SKU_NETWORKING_ACCELERATED, bool_label(size.accelerated_networking));
    is(azure::SKU_STORAGE_PREMIUM_CAPABLE, bool_label(size.premium_io));
    is(azure::SKU_STORAGE_ULTRA_SSD, bool_label(size.ultra_ssd));
    is(azure::PLACEMENT_SCOPE, if sku.zones.is_empty() { "regional" } else { "zonal" });
    is(azure::AKS_OS_SKU, if class.image_family.starts_with("Azure") { "AzureLinux" } else { "Ubuntu" });

    let mut one_of = |key: &str, values: Vec<String>| requirements.constrain(key, &ValueSet::of(values));
    one_of(kubernetes::ZONE, offerings.iter().map(|offering| offering.zone.to_string()).collect());
    let capacity_types = offerings.iter().map(|offering| offering.capacity_type.to_string()).collect();
    one_of(karpenter::CAPACITY_TYPE, capacity_types);
    let generations = [(size.generation1, "1"), (size.generation2, "2")];
    let generations = generations.iter().filter(|(boots, _)| *boots).map(|(_, name)| (*name).to_owned());
    one_of(azure::SKU_HYPERV_GENERATION, generations.collect());

    let name = SkuName::parse(&size.name);
    let mut is_or_missing = |key: &str, value: Option<String>| {
        requirements.constrain(key, &value.map_or_else(ValueSet::missing, |value| ValueSet::of([value])));
    };
    is_or_missing(azure::SKU_FAMILY, name.as_ref().map(|name| name.family.clone()));
    is_or_missing(azure::SKU_SERIES, name.as_ref().map(SkuName::series));
    is_or_missing(azure::SKU_VERSION, name.map(|name| name.version));
    let gpus = size.gpus.as_ref();
    is_or_missing(azure::SKU_GPU_NAME, gpus.map(|gpus| gpus.model.to_string()));
    is_or_missing(azure::SKU_GPU_MANUFACTURER, gpus.map(|gpus| gpus.vendor.as_str().to_owned()));
    is_or_missing(azure::SKU_GPU_COUNT, gpus.map(|gpus| gpus.count.to_string()));
    // What a machine will be measured to have, until it is.
    is_or_missing(hardware::GPU_COUNT, gpus.map(|gpus| gpus.count.to_string()));
    is_or_missing(hardware::GPU_VENDOR, gpus.map(|gpus| gpus.vendor.as_str().to_owned()));
    is_or_missing(hardware::GPU_MEMORY_MIB, gpus.map(|gpus| gpus.memory.as_mib().to_string()));
    let partition = |shared_by: u32| if shared_by > 1 { GpuPartition::Vgpu } else { GpuPartition::None };
    is_or_missing(hardware::GPU_PARTITION, gpus.map(|gpus| partition(gpus.shared_by).as_str().to_owned()));
    let ephemeral = Some(size.ephemeral_os_max).filter(|size| !size.is_zero());
    let gigabytes = ephemeral.map(|size| (size.0 / 1_000_000_000).to_string());
    is_or_missing(azure::SKU_STORAGE_EPHEMERAL_OS_MAX_SIZE, gigabytes);
    // An ephemeral OS disk takes the place of the NVMe disks, so they are promised only where it goes elsewhere.
    if let Some(LocalNvme { count, .. }) = size.local_nvme.filter(|_| !size.ephemeral_os_on_nvme) {
        is_or_missing(hardware::LOCAL_NVME_COUNT, Some(count.to_string()));
    }
    requirements
}

const fn bool_label(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}
