//! NVIDIA's management library, loaded at run time.
//!
//! A wedged driver blocks its callers for half a minute and longer, so every survey asks on a thread of its own and waits for
//! [`PATIENCE`]. While a thread hangs no second one is started: a stuck machine costs one thread and one wait, not one per
//! survey.

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use assay_shared::Fact;
use assay_shared::report::GpuState;
use assay_shared::units::Bytes;
use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::device::{EccCounter, GpuVirtualizationMode, MemoryError, MemoryLocation};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;

use super::library::{DeviceFault, GpuLibrary, GpuLibraryError, GpuLibraryFacts, LibraryDevice};

/// How long the library may take. Without persistence mode each GPU may need seconds to wake up.
const PATIENCE: Duration = Duration::from_secs(5);
/// Devices looked at; no machine has more than 16.
const DEVICES_MAX: u32 = 64;
/// Words of the mask of NUMA nodes: 1,024 nodes, the most that Linux is built for.
const NODE_WORDS: usize = 16;
/// `NVML_AFFINITY_SCOPE_NODE` of nvml.h.
const SCOPE_NODE: u32 = 0;
/// `NVML_FI_DEV_REMAPPED_UNC`, `…_PENDING` and `…_FAILURE` of nvml.h.
const REMAPPED_UNCORRECTABLE: FieldId = FieldId(143);
const REMAPPED_PENDING: FieldId = FieldId(144);
const REMAPPED_FAILURE: FieldId = FieldId(145);
/// Rows remapped for uncorrectable errors above which Azure's own health checks (azurehpc-health-checks, NHC2007) take a GPU
/// out of service.
const REMAPPED_UNCORRECTABLE_MAX: u64 = 512;

/// What the one thread that talks to the library is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    Idle,
    /// Asking, on behalf of somebody who waits.
    Asking,
    /// Asking still, after whoever waited went away.
    Stuck,
}

static READER: Mutex<Reader> = Mutex::new(Reader::Idle);
/// Told when the reader becomes idle.
static IDLE: Condvar = Condvar::new();

fn reader() -> MutexGuard<'static, Reader> {
    // Nothing is done under the lock that could leave it half done.
    READER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to ask; given back when dropped, by a panic too.
struct Turn;

impl Turn {
    /// Waits until nobody else in this process asks; `None` where the reader is stuck.
    fn take() -> Option<Self> {
        let asking = |reader: &mut Reader| *reader == Reader::Asking;
        let (mut reader, _) =
            IDLE.wait_timeout_while(reader(), PATIENCE, asking).unwrap_or_else(PoisonError::into_inner);
        match *reader {
            Reader::Idle => {
                *reader = Reader::Asking;
                Some(Self)
            }
            Reader::Asking | Reader::Stuck => {
                *reader = Reader::Stuck;
                None
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *reader() = Reader::Idle;
        IDLE.notify_one();
    }
}

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
        let hangs = || GpuLibraryError::Hangs { seconds: PATIENCE.as_secs() };
        let turn = Turn::take().ok_or_else(hangs)?;
        let path = self.path.clone();
        let (sender, receiver) = mpsc::sync_channel(1);
        thread::Builder::new()
            .name("nvml".to_owned())
            .spawn(move || {
                // The turn ends with the thread, after the library is closed.
                let _turn = turn;
                ask(path, |answer| {
                    // Nobody listens any more where patience was over; the next survey asks again.
                    let _ = sender.send(answer);
                });
            })
            .map_err(|error| GpuLibraryError::Failed(error.to_string()))?;
        match receiver.recv_timeout(PATIENCE) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let mut reader = reader();
                // It may have answered just now.
                receiver.try_recv().unwrap_or_else(|_| {
                    if *reader == Reader::Asking {
                        *reader = Reader::Stuck;
                    }
                    Err(hangs())
                })
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                Err(GpuLibraryError::Failed("its reader ended without an answer".to_owned()))
            }
        }
    }
}

/// Loads the library, asks it, tells the answer, and only then closes it: a driver that hangs on the way out costs nothing.
fn ask(path: Option<PathBuf>, tell: impl FnOnce(Result<GpuLibraryFacts, GpuLibraryError>)) {
    let mut builder = nvml_wrapper::Nvml::builder();
    if let Some(path) = &path {
        builder.lib_path(path.as_os_str());
    }
    // The wrapper's Drop panics where the library has no nvmlShutdown, so it is only shut down where it can be.
    let nvml = match builder.init() {
        Ok(nvml) => ManuallyDrop::new(nvml),
        Err(error) => return tell(Err(failure(&error))),
    };
    tell(facts(&nvml));
    if nvml.lib().nvmlShutdown.is_ok() {
        let _ = ManuallyDrop::into_inner(nvml).shutdown();
    }
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
    let device = nvml.device_by_index(index).map_err(|error| fault(&error, None))?;
    let pci = device.pci_info().map_err(|error| fault(&error, None))?;
    let pci_address = sysfs_address(&pci.bus_id);
    let memory = device.memory_info();
    if let Err(error @ (NvmlError::GpuLost | NvmlError::ResetRequired)) = &memory {
        // It had a handle, and is gone since: what it still says comes from the library's memory.
        return Err(fault(error, Some(pci_address)));
    }
    let capability = device.cuda_compute_capability();
    Ok(LibraryDevice {
        pci_address,
        name: fact(device.name()),
        uuid: fact(device.uuid()),
        memory: fact(memory.map(|memory| Bytes(memory.total))),
        compute_capability: fact(capability.map(|version| format!("{}.{}", version.major, version.minor))),
        numa_node: numa_node(&device),
        mig: fact(device.mig_mode().map(|mode| mode.current == 1)),
        vgpu: fact(device.virtualization_mode().map(|mode| mode == GpuVirtualizationMode::Vgpu)),
        faults: faults(&device),
    })
}

/// The node the device is close to. (`numa_node_id` is something else: the node that a coherent GPU's own memory forms.)
/// Where the hypervisor hides the topology the library names every node, or does not support the question.
fn numa_node(device: &Device<'_>) -> Fact<u32> {
    let mask = device.memory_affinity(NODE_WORDS, SCOPE_NODE).unwrap_or_default();
    let nodes = (0_u32..).zip(&mask).flat_map(|(word, bits)| {
        (0..u64::BITS).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| word * u64::BITS + bit)
    });
    match nodes.collect::<Vec<_>>()[..] {
        [node] => Fact::Measured(node),
        _ => Fact::Absent,
    }
}

/// What is wrong with a device that answers. A check it does not support finds nothing.
fn faults(device: &Device<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let fields = [REMAPPED_UNCORRECTABLE, REMAPPED_PENDING, REMAPPED_FAILURE];
    for sample in device.field_values_for(&fields).unwrap_or_default().into_iter().flatten() {
        let number = match sample.value {
            Ok(SampleValue::U32(number)) => number.into(),
            Ok(SampleValue::U64(number)) => number,
            Ok(SampleValue::I64(number)) => u64::try_from(number).unwrap_or(0),
            Ok(SampleValue::F64(_)) | Err(_) => 0,
        };
        match sample.field {
            REMAPPED_PENDING if number > 0 => faults.push("a row remap is pending".to_owned()),
            REMAPPED_FAILURE if number > 0 => faults.push("a row remap failed".to_owned()),
            REMAPPED_UNCORRECTABLE if number > REMAPPED_UNCORRECTABLE_MAX => {
                faults.push(format!("{number} rows were remapped for uncorrectable errors"));
            }
            _ => {}
        }
    }
    if device.are_pages_pending_retired().unwrap_or(false) {
        faults.push("memory pages wait for retirement".to_owned());
    }
    // Errors in device memory are answered by remaps and retirement; those in SRAM only by a reset. Since the driver was
    // loaded, because a reset clears them.
    let sram =
        device.memory_error_counter(MemoryError::Uncorrected, EccCounter::Volatile, MemoryLocation::SRAM);
    if let Ok(errors @ 1..) = sram {
        faults.push(format!("{errors} uncorrectable errors in SRAM"));
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

fn fault(error: &NvmlError, pci_address: Option<String>) -> DeviceFault {
    let state = match error {
        NvmlError::GpuLost => GpuState::Lost,
        NvmlError::LibRmVersionMismatch => GpuState::DriverMismatch,
        NvmlError::DriverNotLoaded => GpuState::NoDriver,
        // It says something of the caller or the library, nothing of the device.
        NvmlError::NoPermission | NvmlError::FailedToLoadSymbol(_) => GpuState::Unknown,
        _ => GpuState::Unhealthy,
    };
    DeviceFault { pci_address, state, reason: error.to_string() }
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

    #[test]
    fn surveys_of_one_process_take_turns() {
        let first = Turn::take().unwrap();
        let second = thread::spawn(|| Turn::take().is_some());
        drop(first);
        assert!(second.join().unwrap(), "the second one waited, rather than believe that the driver hangs");
    }

    #[test]
    fn a_library_that_is_not_there_is_a_reason_every_time() {
        let nvml = Nvml::new(Some(PathBuf::from("/nowhere/libnvidia-ml.so.1")));
        for _ in 0..2 {
            let error = nvml.read().unwrap_err();
            assert!(
                matches!(&error, GpuLibraryError::NotLoaded(why) if why.contains("/nowhere/")),
                "{error}"
            );
        }
    }
}
