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
mod nvidia;
mod nvml;

use assay_shared::Fact;
use assay_shared::report::{GpuPartition, Gpus};

pub use library::{
    DeviceFault, GpuLibrary, GpuLibraryError, GpuLibraryFacts, LibraryDevice, NvmlSource, Scripted, library,
};

use crate::host::HostFs;
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
    match (nvidia.is_empty(), amd.is_empty()) {
        (true, true) => none(),
        (false, true) => nvidia::probe(fs, &nvidia, library),
        (true, false) => amd::probe(fs, &amd),
        (false, false) => both(nvidia::probe(fs, &nvidia, library), amd::probe(fs, &amd)),
    }
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

fn none() -> Gpus {
    Gpus {
        pci: Fact::Measured(0),
        driver_bound: Fact::Measured(0),
        usable: Fact::Measured(0),
        partition: Fact::Absent,
        devices: Fact::Measured(Vec::new()),
        driver_version: Fact::Absent,
        cuda_version: Fact::Absent,
    }
}

/// A machine with both makes, such as a workstation whose processor has a GPU too. Versions are those of the NVIDIA driver,
/// because programs ask for that one.
fn both(nvidia: Gpus, amd: Gpus) -> Gpus {
    let sum = |a: Fact<u32>, b: Fact<u32>| a.and_then(|a| b.map(|b| a.saturating_add(b)));
    let devices = nvidia.devices.and_then(|mut all| {
        amd.devices.map(|amd| {
            all.extend(amd);
            all.sort_by(|a, b| a.pci_address.measured().cmp(&b.pci_address.measured()));
            all
        })
    });
    Gpus {
        pci: sum(nvidia.pci, amd.pci),
        driver_bound: sum(nvidia.driver_bound, amd.driver_bound),
        usable: sum(nvidia.usable, amd.usable),
        partition: match nvidia.partition {
            Fact::Measured(GpuPartition::None) => amd.partition,
            split_or_unknown => split_or_unknown,
        },
        devices,
        ..nvidia
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

#[cfg(test)]
mod tests;
