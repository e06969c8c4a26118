//! AMD GPUs, from `sys/class/drm` and the `amdgpu` module: the driver keeps everything needed in sysfs.

use assay_shared::Fact;
use assay_shared::report::{GpuDevice, GpuPartition, GpuState, GpuVendor, Gpus};
use assay_shared::units::Bytes;

use super::{bound, count};
use crate::host::HostFs;
use crate::host::read::{self, Missing};
use crate::pci::PciDevice;

/// Where the kernel lists graphics cards.
const CARDS: &str = "sys/class/drm";
/// Entries looked at there: cards, their connectors and render nodes.
const CARDS_MAX: usize = 1024;
/// The file with the memory of a card, bytes; only `amdgpu` makes it.
const MEMORY: &str = "mem_info_vram_total";

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
        let file = format!("{}/current_compute_partition", directory(fs, function));
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

/// Directory with the driver's files: that of the function. In a tree that was captured in parts they may only be found by
/// way of `sys/class/drm/card0/device`; entries such as `card0-DP-1` are connectors.
fn directory(fs: &dyn HostFs, function: &PciDevice) -> String {
    let own = format!("sys/bus/pci/devices/{}", function.address);
    if fs.exists(&format!("{own}/{MEMORY}")) {
        return own;
    }
    let entries = fs.list(CARDS).unwrap_or_default();
    let cards = entries.iter().take(CARDS_MAX).filter(|entry| {
        entry.strip_prefix("card").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let mut devices = cards.map(|card| format!("{CARDS}/{card}/device"));
    let same = |device: &String| {
        fs.resolve(device).is_ok_and(|target| target.ends_with(&format!("/{}", function.address)))
    };
    devices.find(same).unwrap_or(own)
}

fn device(fs: &dyn HostFs, function: &PciDevice) -> GpuDevice {
    let directory = directory(fs, function);
    let file = |name: &str| format!("{directory}/{name}");
    let memory = read::number(fs, &file(MEMORY), Missing::Unavailable).map(Bytes);
    let (state, reason) = match (&function.driver, &memory) {
        (Fact::Measured(driver), Fact::Measured(_)) if driver == "amdgpu" => (GpuState::Usable, None),
        (Fact::Measured(driver), Fact::Unavailable(reason)) if driver == "amdgpu" => {
            (GpuState::Unknown, Some(reason.clone()))
        }
        (Fact::Unavailable(reason), _) => (GpuState::Unknown, Some(reason.clone())),
        _ => (GpuState::NoDriver, Some("amdgpu is not bound to it".to_owned())),
    };
    let model = match read::line(fs, &file("product_name"), Missing::Absent) {
        Fact::Absent => function
            .device
            .clone()
            .and_then(|id| model(id).map_or(Fact::Absent, |name| name.to_owned().into())),
        told => told,
    };
    GpuDevice {
        vendor: GpuVendor::Amd,
        model,
        pci_address: Fact::Measured(function.address.clone()),
        uuid: read::line(fs, &file("unique_id"), Missing::Absent),
        memory_bytes: memory,
        compute_capability: Fact::Absent,
        numa_node: function.numa_node.clone(),
        state,
        reason,
    }
}

/// Names of the accelerators Azure has, by PCI device id (pci.ids): virtual functions have no product name.
const fn model(device: u16) -> Option<&'static str> {
    match device {
        0x74a1 | 0x74b5 => Some("AMD Instinct MI300X"),
        0x6860 | 0x686c => Some("AMD Radeon Instinct MI25"),
        0x7461 => Some("AMD Radeon PRO V710"),
        _ => None,
    }
}
