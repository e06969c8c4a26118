//! NVIDIA's management library, loaded at run time.
//!
//! A wedged driver blocks its callers for half a minute and longer, so every survey asks on a thread of its own and waits for
//! [`PATIENCE`]. While a thread hangs no second one is started: a stuck machine costs one thread, not one per survey.

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use assay_shared::Fact;
use assay_shared::report::GpuState;
use assay_shared::units::Bytes;
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::GpuVirtualizationMode;
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;

use super::library::{DeviceFault, GpuLibrary, GpuLibraryError, GpuLibraryFacts, LibraryDevice};

/// How long the library may take. Without persistence mode each GPU may need seconds to wake up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Devices looked at; no machine has more than 16.
const DEVICES_MAX: u32 = 64;
/// `NVML_FI_DEV_REMAPPED_PENDING` and `NVML_FI_DEV_REMAPPED_FAILURE` of nvml.h.
const REMAPPED_PENDING: FieldId = FieldId(144);
const REMAPPED_FAILURE: FieldId = FieldId(145);

/// Whether a thread of this process waits for the library.
static WAITING: AtomicBool = AtomicBool::new(false);

/// The library.
#[derive(Debug)]
pub(super) struct Nvml {
    path: Option<PathBuf>,
}

impl Nvml {
    /// The library at `path`, or where the loader finds it.
    pub(super) const fn new(path: Option<PathBuf>) -> Self {
        Self { path }
    }
}

impl GpuLibrary for Nvml {
    fn read(&self) -> Result<GpuLibraryFacts, GpuLibraryError> {
        let hangs = GpuLibraryError::Hangs { seconds: PATIENCE.as_secs() };
        if WAITING.swap(true, Ordering::AcqRel) {
            return Err(hangs);
        }
        let path = self.path.clone();
        let (sender, receiver) = mpsc::sync_channel(1);
        let spawned = thread::Builder::new().name("nvml".to_owned()).spawn(move || {
            let answer = ask(path);
            WAITING.store(false, Ordering::Release);
            // Nobody listens any more where patience was over; the next survey asks again.
            let _ = sender.send(answer);
        });
        if let Err(error) = spawned {
            WAITING.store(false, Ordering::Release);
            return Err(GpuLibraryError::Failed(error.to_string()));
        }
        match receiver.recv_timeout(PATIENCE) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(hangs),
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                WAITING.store(false, Ordering::Release);
                Err(GpuLibraryError::Failed("its reader ended without an answer".to_owned()))
            }
        }
    }
}

fn ask(path: Option<PathBuf>) -> Result<GpuLibraryFacts, GpuLibraryError> {
    let mut builder = nvml_wrapper::Nvml::builder();
    if let Some(path) = &path {
        builder.lib_path(path.as_os_str());
    }
    // The wrapper's Drop panics where the library has no nvmlShutdown, so it is only shut down where it can be.
    let nvml = ManuallyDrop::new(builder.init().map_err(|error| failure(&error))?);
    let facts = facts(&nvml);
    if nvml.lib().nvmlShutdown.is_ok() {
        let _ = ManuallyDrop::into_inner(nvml).shutdown();
    }
    facts
}

fn facts(nvml: &nvml_wrapper::Nvml) -> Result<GpuLibraryFacts, GpuLibraryError> {
    let count = nvml.device_count().map_err(|error| failure(&error))?.min(DEVICES_MAX);
    // CUDA 12.4 is 12040.
    let cuda =
        nvml.sys_cuda_driver_version().map(|version| format!("{}.{}", version / 1000, version % 1000 / 10));
    Ok(GpuLibraryFacts {
        driver_version: fact(nvml.sys_driver_version()),
        cuda_version: fact(cuda),
        devices: (0..count).map(|index| device(nvml, index)).collect(),
    })
}

fn device(nvml: &nvml_wrapper::Nvml, index: u32) -> Result<LibraryDevice, DeviceFault> {
    let device = nvml.device_by_index(index).map_err(|error| fault(&error))?;
    let pci = device.pci_info().map_err(|error| fault(&error))?;
    let memory = device.memory_info();
    if let Err(error @ NvmlError::GpuLost) = &memory {
        // It had a handle, and is gone since: what it still says comes from the library's memory.
        return Err(fault(error));
    }
    let capability = device.cuda_compute_capability();
    Ok(LibraryDevice {
        pci_address: sysfs_address(&pci.bus_id),
        name: fact(device.name()),
        uuid: fact(device.uuid()),
        memory: fact(memory.map(|memory| Bytes(memory.total))),
        compute_capability: fact(capability.map(|version| format!("{}.{}", version.major, version.minor))),
        numa_node: fact(device.numa_node_id()),
        mig: fact(device.mig_mode().map(|mode| mode.current == 1)),
        vgpu: fact(device.virtualization_mode().map(|mode| mode == GpuVirtualizationMode::Vgpu)),
        faults: faults(&device),
    })
}

/// What is wrong with a device that answers. A check it does not support finds nothing.
fn faults(device: &Device<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let fields = device.field_values_for(&[REMAPPED_PENDING, REMAPPED_FAILURE]).unwrap_or_default();
    let set = |value: &SampleValue| match value {
        SampleValue::U32(value) => *value != 0,
        SampleValue::U64(value) => *value != 0,
        SampleValue::I64(value) => *value != 0,
        SampleValue::F64(_) => false,
    };
    for sample in fields.into_iter().flatten() {
        if sample.value.as_ref().is_ok_and(set) {
            let what = if sample.field == REMAPPED_PENDING {
                "a row remap is pending"
            } else {
                "a row remap failed"
            };
            faults.push(what.to_owned());
        }
    }
    if device.are_pages_pending_retired().unwrap_or(false) {
        faults.push("memory pages wait for retirement".to_owned());
    }
    faults
}

/// What the device does not support is absent; any other error is a reason.
fn fact<T>(result: Result<T, NvmlError>) -> Fact<T> {
    match result {
        Ok(value) => Fact::Measured(value),
        Err(NvmlError::NotSupported) => Fact::Absent,
        Err(error) => Fact::Unavailable(error.to_string()),
    }
}

fn failure(error: &NvmlError) -> GpuLibraryError {
    match error {
        NvmlError::LibloadingError(error) => GpuLibraryError::NotLoaded(error.to_string()),
        NvmlError::LibraryNotFound => GpuLibraryError::NotLoaded(error.to_string()),
        NvmlError::DriverNotLoaded => GpuLibraryError::DriverNotLoaded,
        NvmlError::LibRmVersionMismatch => GpuLibraryError::DriverMismatch,
        other => GpuLibraryError::Failed(other.to_string()),
    }
}

fn fault(error: &NvmlError) -> DeviceFault {
    let state = match error {
        NvmlError::GpuLost => GpuState::Lost,
        NvmlError::LibRmVersionMismatch => GpuState::DriverMismatch,
        NvmlError::DriverNotLoaded => GpuState::NoDriver,
        _ => GpuState::Unhealthy,
    };
    DeviceFault { state, reason: error.to_string() }
}

/// `00000001:00:00.0` of the library is `0001:00:00.0` in sysfs.
fn sysfs_address(bus_id: &str) -> String {
    let lower = bus_id.to_ascii_lowercase();
    match lower.split_once(':') {
        Some((domain, rest)) if domain.len() > 4 => {
            let domain = domain.trim_start_matches('0');
            format!("{domain:0>4}:{rest}")
        }
        _ => lower,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_library_become_those_of_sysfs() {
        for (library, sysfs) in [
            ("00000001:00:00.0", "0001:00:00.0"),
            ("0000000B:00:00.0", "000b:00:00.0"),
            ("00000000:3B:00.0", "0000:3b:00.0"),
            ("00010000:00:00.0", "10000:00:00.0"),
        ] {
            assert_eq!(sysfs_address(library), sysfs);
        }
    }
}
