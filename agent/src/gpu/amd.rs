//! AMD GPUs, from `sys/class/drm` and the `amdgpu` module: the driver keeps everything needed in sysfs.

use assay_shared::Fact;
use assay_shared::report::{GpuDevice, GpuPartition, GpuState, GpuVendor, Gpus};
use assay_shared::units::Bytes;

use super::{bound, count};
use crate::host::HostFs;
use crate::host::read::{self, Missing};
use crate::pci::PciDevice;

/// Surveys the AMD GPUs that are on the bus.
pub(super) fn probe(fs: &dyn HostFs, on_bus: &[&PciDevice]) -> Gpus {
    let devices: Vec<_> = on_bus.iter().map(|function| device(fs, function)).collect();
    let driver_bound = bound(on_bus, &["amdgpu"]);
    // One of which nothing is known may be usable or not: then so is the count.
    let unknown = devices.iter().find(|device| device.state == GpuState::Unknown);
    let usable = match unknown {
        Some(device) => Fact::Unavailable(device.reason.clone().unwrap_or_default()),
        None => count(devices.iter().filter(|device| device.state == GpuState::Usable).count()),
    };
    Gpus {
        pci: count(on_bus.len()),
        driver_bound,
        usable,
        partition: partition(fs, on_bus),
        devices: Fact::Measured(devices),
        driver_version: read::line(fs, "sys/module/amdgpu/version", Missing::Absent),
        cuda_version: Fact::Absent,
    }
}

/// SPX is the whole device; DPX, QPX and CPX split it.
fn partition(fs: &dyn HostFs, on_bus: &[&PciDevice]) -> Fact<GpuPartition> {
    for function in on_bus {
        let file = file(function, "current_compute_partition");
        let mode = read::parsed(fs, &file, Missing::Absent, "a partition mode", |mode| match mode {
            "SPX" => Some(GpuPartition::None),
            "DPX" | "TPX" | "QPX" | "CPX" => Some(GpuPartition::Mig),
            _ => None,
        });
        match mode {
            // Devices and drivers that cannot split do not have the file.
            Fact::Measured(GpuPartition::None) | Fact::Absent => {}
            split_or_unknown => return split_or_unknown,
        }
    }
    Fact::Measured(GpuPartition::None)
}

fn file(function: &PciDevice, name: &str) -> String {
    format!("sys/bus/pci/devices/{}/{name}", function.address)
}

fn device(fs: &dyn HostFs, function: &PciDevice) -> GpuDevice {
    let memory = read::number(fs, &file(function, "mem_info_vram_total"), Missing::Unavailable).map(Bytes);
    let (state, reason) = match (&function.driver, &memory) {
        (Fact::Measured(driver), Fact::Measured(_)) if driver == "amdgpu" => (GpuState::Usable, None),
        (Fact::Measured(driver), Fact::Unavailable(reason)) if driver == "amdgpu" => {
            (GpuState::Unknown, Some(reason.clone()))
        }
        (Fact::Unavailable(reason), _) => (GpuState::Unknown, Some(reason.clone())),
        _ => (GpuState::NoDriver, Some("amdgpu is not bound to it".to_owned())),
    };
    let model = read::line(fs, &file(function, "product_name"), Missing::Absent).or_else(|| {
        function.device.clone().and_then(|id| model(id).map_or(Fact::Absent, |name| name.to_owned().into()))
    });
    GpuDevice {
        vendor: GpuVendor::Amd,
        model,
        pci_address: Fact::Measured(function.address.clone()),
        uuid: read::line(fs, &file(function, "unique_id"), Missing::Absent),
        memory_bytes: memory,
        compute_capability: Fact::Absent,
        numa_node: function.numa_node.clone(),
        state,
        reason,
    }
}

/// Names of the accelerators Azure has, by PCI device id (pci.ids).
const fn model(device: u16) -> Option<&'static str> {
    match device {
        0x74a1 | 0x74b5 => Some("AMD Instinct MI300X"),
        0x740c | 0x740f => Some("AMD Instinct MI210"),
        0x6860 | 0x686c => Some("AMD Radeon Instinct MI25"),
        0x7461 => Some("AMD Radeon PRO V710"),
        _ => None,
    }
}
