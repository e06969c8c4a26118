//! NVIDIA GPUs: what the bus shows, each function beside what the driver's library says of it.

use assay_shared::Fact;
use assay_shared::report::{GpuDevice, GpuPartition, GpuState, GpuVendor, Gpus};

use super::library::{DeviceFault, GpuLibrary, GpuLibraryError, GpuLibraryFacts, LibraryDevice};
use super::{bound, count};
use crate::host::HostFs;
use crate::host::read::{self, Missing};
use crate::pci::PciDevice;

/// The kernel driver that the library talks to.
const DRIVER: &str = "nvidia";

/// Surveys the NVIDIA GPUs that are on the bus.
pub(super) fn probe(fs: &dyn HostFs, on_bus: &[&PciDevice], library: &dyn GpuLibrary) -> Gpus {
    let answer = library.read();
    let driver_bound = bound(on_bus, &[DRIVER]);
    let devices = match &answer {
        Ok(facts) => devices(fs, on_bus, facts),
        Err(error) => {
            on_bus.iter().map(|function| unlisted(fs, function, error.state(), error.to_string())).collect()
        }
    };
    let from_library = |fact: fn(&GpuLibraryFacts) -> &Fact<String>| match &answer {
        Ok(facts) => fact(facts).clone(),
        Err(error) => Fact::unavailable(error),
    };
    Gpus {
        pci: count(on_bus.len()),
        usable: usable(&devices, &answer, &driver_bound),
        driver_bound,
        partition: match &answer {
            Ok(facts) => partition(facts),
            Err(error) => Fact::unavailable(error),
        },
        devices: Fact::Measured(devices),
        driver_version: from_library(|facts| &facts.driver_version).or_else(|| driver_version(fs)),
        cuda_version: from_library(|facts| &facts.cuda_version),
    }
}

fn usable(
    devices: &[GpuDevice],
    answer: &Result<GpuLibraryFacts, GpuLibraryError>,
    driver_bound: &Fact<u32>,
) -> Fact<u32> {
    match answer {
        Err(error) if error.means_none_usable() || *driver_bound == Fact::Measured(0) => Fact::Measured(0),
        Err(error) => Fact::unavailable(error),
        // One of which nothing is known may be usable or not: then so is the count.
        Ok(_) => match devices.iter().find(|device| device.state == GpuState::Unknown) {
            Some(device) => Fact::Unavailable(device.reason.clone().unwrap_or_default()),
            None => count(devices.iter().filter(|device| device.state == GpuState::Usable).count()),
        },
    }
}

/// Each function with what the library says of it.
fn devices(fs: &dyn HostFs, on_bus: &[&PciDevice], facts: &GpuLibraryFacts) -> Vec<GpuDevice> {
    let described = |function: &PciDevice| {
        facts.devices.iter().flatten().find(|device| device.pci_address == function.address)
    };
    let faults = || facts.devices.iter().filter_map(|device| device.as_ref().err());
    let named =
        |function: &PciDevice| faults().find(|fault| fault.pci_address.as_ref() == Some(&function.address));
    let unaccounted = |function: &&&PciDevice| {
        is_bound(function) && described(function).is_none() && named(function).is_none()
    };
    // A device that the library cannot open has no address there. Where there are as many of those as functions that
    // nobody accounts for, they are the same, in the order of the bus; otherwise it is not known which is which.
    let nameless: Vec<_> = faults().filter(|fault| fault.pci_address.is_none()).collect();
    let told_apart = on_bus.iter().filter(unaccounted).count() == nameless.len();
    let mut in_order = nameless.iter();
    let one = |function: &&PciDevice| {
        if let Some(device) = described(function) {
            return listed(function, device);
        }
        let fault = match named(function) {
            None if told_apart && is_bound(function) => in_order.next().copied(),
            named => named,
        };
        let (state, reason) = match (fault, nameless.first()) {
            (Some(fault), _) => (fault.state, fault.reason.clone()),
            (None, None) => (GpuState::NotListed, "the driver's library does not list it".to_owned()),
            (None, Some(DeviceFault { reason, .. })) => {
                (GpuState::NotListed, format!("the driver's library lists it not, or says: {reason}"))
            }
        };
        unlisted(fs, function, state, reason)
    };
    on_bus.iter().map(one).collect()
}

/// Whether the library can know of a function. Where the driver cannot be read it may.
fn is_bound(function: &PciDevice) -> bool {
    match &function.driver {
        Fact::Measured(driver) => driver == DRIVER,
        Fact::Absent => false,
        Fact::Unavailable(_) => true,
    }
}

/// A GPU that the library describes.
fn listed(function: &PciDevice, device: &LibraryDevice) -> GpuDevice {
    let numa_node = match &device.numa_node {
        Fact::Measured(node) if !function.numa_node.is_measured() => Fact::Measured(*node),
        _ => function.numa_node.clone(),
    };
    GpuDevice {
        vendor: GpuVendor::Nvidia,
        model: device.name.clone(),
        pci_address: Fact::Measured(function.address.clone()),
        uuid: device.uuid.clone(),
        memory_bytes: device.memory.clone(),
        compute_capability: device.compute_capability.clone(),
        numa_node,
        state: if device.faults.is_empty() { GpuState::Usable } else { GpuState::Unhealthy },
        reason: (!device.faults.is_empty()).then(|| device.faults.join("; ")),
    }
}

/// A GPU on the bus that the library does not describe.
fn unlisted(fs: &dyn HostFs, function: &PciDevice, state: GpuState, reason: String) -> GpuDevice {
    let (state, reason) = match &function.driver {
        Fact::Measured(driver) if driver != DRIVER => {
            (GpuState::NoDriver, format!("another driver is bound to it: {driver}"))
        }
        Fact::Absent => (GpuState::NoDriver, "no driver is bound to it".to_owned()),
        Fact::Measured(_) | Fact::Unavailable(_) => (state, reason),
    };
    let (model, uuid) = information(fs, &function.address, &reason);
    GpuDevice {
        vendor: GpuVendor::Nvidia,
        model,
        pci_address: Fact::Measured(function.address.clone()),
        uuid,
        memory_bytes: Fact::Unavailable(reason.clone()),
        compute_capability: Fact::Unavailable(reason.clone()),
        numa_node: function.numa_node.clone(),
        state,
        reason: Some(reason),
    }
}

/// Model and unique id as the kernel driver knows them without its library; `otherwise` is why they are not known where it
/// says nothing. Lines are `Model: NVIDIA A100-SXM4-40GB`, `GPU UUID: GPU-…`.
fn information(fs: &dyn HostFs, address: &str, otherwise: &str) -> (Fact<String>, Fact<String>) {
    let path = format!("proc/driver/nvidia/gpus/{address}/information");
    let Fact::Measured(text) = read::text(fs, &path, Missing::Absent) else {
        return (Fact::unavailable(otherwise), Fact::unavailable(otherwise));
    };
    let value = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        match found.map(str::trim) {
            // Before its first use the driver shows `GPU-????????-????-…`.
            Some(value) if !value.is_empty() && !value.contains(|c: char| c == '?' || c.is_control()) => {
                Fact::Measured(value.to_owned())
            }
            _ => Fact::unavailable(otherwise),
        }
    };
    (value("Model"), value("GPU UUID"))
}

fn partition(facts: &GpuLibraryFacts) -> Fact<GpuPartition> {
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

/// The kernel driver's version without its library: a file of its module, or of the first line of another one
/// `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  …`.
fn driver_version(fs: &dyn HostFs) -> Fact<String> {
    let path = "proc/driver/nvidia/version";
    let of_module = read::line(fs, "sys/module/nvidia/version", Missing::Absent);
    if of_module.is_measured() {
        return of_module;
    }
    let told = read::text(fs, path, Missing::Absent).and_then(|text| {
        let version = |word: &&str| {
            word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.') && word.len() > 2
        };
        let found = text.lines().next().and_then(|line| line.split_whitespace().find(version));
        found.map_or_else(
            || read::expected("a driver version", &text, path),
            |version| Fact::Measured(version.to_owned()),
        )
    });
    // Absent only where neither file is there.
    if told == Fact::Absent { of_module } else { told }
}
