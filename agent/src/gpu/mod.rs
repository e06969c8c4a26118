//! GPUs, as the bus, the driver and the driver's library see them.
//!
//! ```text
//!  sys/bus/pci (pci) --+
//!  libnvidia-ml (nvml) +--> probe --> Gpus
//!  sys/class/drm (amd) +
//! ```
//!
//! They are counted separately on purpose: eight on the bus, eight bound to their driver and seven in the library is how a
//! lost GPU looks. The fourth count, what was bought, is the catalogue's.

mod amd;
mod library;
mod nvml;

use assay_shared::Fact;
use assay_shared::report::{GpuDevice, GpuPartition, GpuState, GpuVendor, Gpus};

pub use library::{
    DeviceFault, GpuLibrary, GpuLibraryError, GpuLibraryFacts, LibraryDevice, NvmlSource, Scripted, library,
};

use crate::host::HostFs;
use crate::host::read::{self, Missing};
use crate::pci::{self, PciDevice};

const NVIDIA: u16 = 0x10de;
const AMD: u16 = 0x1002;

/// Surveys the GPUs.
pub fn probe(fs: &dyn HostFs, library: &dyn GpuLibrary) -> Gpus {
    let devices = match pci::scan(fs) {
        Fact::Measured(devices) => devices,
        Fact::Absent => Vec::new(),
        Fact::Unavailable(reason) => return unknown(&reason),
    };
    let of = |vendor| {
        devices.iter().filter(|device| device.vendor == vendor && is_gpu(device)).collect::<Vec<_>>()
    };
    let (nvidia, amd) = (of(NVIDIA), of(AMD));
    if nvidia.is_empty() && !amd.is_empty() {
        return amd::probe(fs, &amd);
    }
    if nvidia.is_empty() {
        return Gpus {
            pci: Fact::Measured(0),
            driver_bound: Fact::Measured(0),
            usable: Fact::Measured(0),
            partition: Fact::Absent,
            devices: Fact::Measured(Vec::new()),
            driver_version: Fact::Absent,
            cuda_version: Fact::Absent,
        };
    }
    nvidia_gpus(fs, &nvidia, library.read())
}

/// VGA controllers (0x0300) and 3D controllers (0x0302); AMD's accelerators call themselves display (0x0380) or processing
/// accelerators (0x1200). NVSwitches are bridges (0x0680).
fn is_gpu(device: &PciDevice) -> bool {
    match device.class >> 8 {
        0x0300 | 0x0302 => true,
        0x0380 | 0x1200 => device.vendor == AMD,
        _ => false,
    }
}

fn unknown(reason: &str) -> Gpus {
    let why = || reason.to_owned();
    Gpus {
        pci: Fact::Unavailable(why()),
        driver_bound: Fact::Unavailable(why()),
        usable: Fact::Unavailable(why()),
        partition: Fact::Unavailable(why()),
        devices: Fact::Unavailable(why()),
        driver_version: Fact::Unavailable(why()),
        cuda_version: Fact::Unavailable(why()),
    }
}

/// `n` as a report counts.
fn count(n: usize) -> Fact<u32> {
    u32::try_from(n).map_or_else(Fact::unavailable, Fact::Measured)
}

/// How many functions a driver is bound to; unavailable where one does not tell.
fn bound(devices: &[&PciDevice], drivers: &[&str]) -> Fact<u32> {
    let mut number = 0;
    for device in devices {
        match &device.driver {
            Fact::Measured(driver) => number += usize::from(drivers.contains(&driver.as_str())),
            Fact::Absent => {}
            Fact::Unavailable(reason) => return Fact::Unavailable(reason.clone()),
        }
    }
    count(number)
}

fn nvidia_gpus(
    fs: &dyn HostFs,
    on_bus: &[&PciDevice],
    answer: Result<GpuLibraryFacts, GpuLibraryError>,
) -> Gpus {
    let driver_bound = bound(on_bus, &["nvidia"]);
    let (facts, failure) = match answer {
        Ok(facts) => (Some(facts), None),
        Err(error) => (None, Some(error)),
    };
    let listed = facts.as_ref().map_or(&[][..], |facts| &facts.devices);
    // A device that the library cannot open has no address there: it is one of those nobody else accounts for.
    let mut faults = listed.iter().filter_map(|device| device.as_ref().err());
    let mut devices = Vec::new();
    for function in on_bus {
        let known = listed.iter().flatten().find(|device| device.pci_address == function.address);
        devices.push(match known {
            Some(device) => listed_device(function, device),
            None => unlisted_device(function, failure.as_ref(), || faults.next().cloned()),
        });
    }
    let usable = match &failure {
        None => count(devices.iter().filter(|device| device.state == GpuState::Usable).count()),
        Some(error) if error.means_none_usable() || driver_bound == Fact::Measured(0) => Fact::Measured(0),
        Some(error) => Fact::unavailable(error),
    };
    let partition = match (&facts, &failure) {
        (Some(facts), _) => partition_of(facts),
        (None, Some(error)) => Fact::unavailable(error),
        (None, None) => Fact::Absent,
    };
    let from_library = |fact: fn(&GpuLibraryFacts) -> &Fact<String>| match (&facts, &failure) {
        (Some(facts), _) => fact(facts).clone(),
        (None, Some(error)) => Fact::unavailable(error),
        (None, None) => Fact::Absent,
    };
    Gpus {
        pci: count(on_bus.len()),
        driver_bound,
        usable,
        partition,
        devices: Fact::Measured(devices),
        driver_version: from_library(|facts| &facts.driver_version).or_else(|| driver_version(fs)),
        cuda_version: from_library(|facts| &facts.cuda_version),
    }
}

fn listed_device(function: &PciDevice, device: &LibraryDevice) -> GpuDevice {
    GpuDevice {
        vendor: GpuVendor::Nvidia,
        model: device.name.clone(),
        pci_address: Fact::Measured(function.address.clone()),
        uuid: device.uuid.clone(),
        memory_bytes: device.memory.clone(),
        compute_capability: device.compute_capability.clone(),
        numa_node: function.numa_node.clone().or_else(|| device.numa_node.clone()),
        state: if device.faults.is_empty() { GpuState::Usable } else { GpuState::Unhealthy },
        reason: (!device.faults.is_empty()).then(|| device.faults.join("; ")),
    }
}

/// A GPU on the bus that the library does not describe.
fn unlisted_device(
    function: &PciDevice,
    failure: Option<&GpuLibraryError>,
    next_fault: impl FnOnce() -> Option<DeviceFault>,
) -> GpuDevice {
    let unbound = function.driver == Fact::Absent;
    let (state, reason) = match failure {
        _ if unbound => (GpuState::NoDriver, "no driver is bound to it".to_owned()),
        Some(error) => (error.state(), error.to_string()),
        None => next_fault().map_or_else(
            || (GpuState::NotListed, "the driver's library does not list it".to_owned()),
            |fault| (fault.state, fault.reason),
        ),
    };
    let unread = || Fact::Unavailable(reason.clone());
    GpuDevice {
        vendor: GpuVendor::Nvidia,
        model: unread(),
        pci_address: Fact::Measured(function.address.clone()),
        uuid: unread(),
        memory_bytes: Fact::Unavailable(reason.clone()),
        compute_capability: unread(),
        numa_node: function.numa_node.clone(),
        state,
        reason: Some(reason),
    }
}

fn partition_of(facts: &GpuLibraryFacts) -> Fact<GpuPartition> {
    let devices = || facts.devices.iter().flatten();
    if devices().any(|device| device.vgpu == Fact::Measured(true)) {
        return Fact::Measured(GpuPartition::Vgpu);
    }
    if devices().any(|device| device.mig == Fact::Measured(true)) {
        return Fact::Measured(GpuPartition::Mig);
    }
    if devices().next().is_none() {
        return Fact::unavailable("no GPU answers");
    }
    let not_told = |fact: &Fact<bool>| match fact {
        Fact::Unavailable(reason) => Some(Fact::Unavailable(reason.clone())),
        Fact::Measured(_) | Fact::Absent => None,
    };
    let unknown = devices().flat_map(|device| [&device.vgpu, &device.mig]).find_map(not_told);
    unknown.unwrap_or(Fact::Measured(GpuPartition::None))
}

/// The kernel driver's version without its library: `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  …`.
fn driver_version(fs: &dyn HostFs) -> Fact<String> {
    read::line(fs, "sys/module/nvidia/version", Missing::Absent).or_else(|| {
        let path = "proc/driver/nvidia/version";
        read::text(fs, path, Missing::Absent).and_then(|text| {
            let version = |word: &&str| {
                word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.') && word.len() > 2
            };
            let found = text.lines().next().and_then(|line| line.split_whitespace().find(version));
            found.map_or_else(
                || read::expected("a driver version", &text, path),
                |version| Fact::Measured(version.to_owned()),
            )
        })
    })
}

#[cfg(test)]
mod tests;
