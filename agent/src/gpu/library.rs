//! The driver's management library behind an interface: the real one, none, or what a simulated machine says.

use std::fmt::Debug;
use std::path::PathBuf;

use assay_shared::Fact;
use assay_shared::report::GpuState;
use assay_shared::units::Bytes;

use super::nvml::Nvml;

/// Where the NVIDIA management library comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NvmlSource {
    /// Where the system's loader finds it.
    #[default]
    System,
    /// This file.
    File(PathBuf),
    /// Nowhere: it is not asked.
    Off,
}

/// What the driver's library knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuLibraryFacts {
    /// Version of the kernel driver.
    pub driver_version: Fact<String>,
    /// Highest CUDA version the driver supports.
    pub cuda_version: Fact<String>,
    /// Every device it counts, by index; one that cannot be opened is a fault.
    pub devices: Vec<Result<LibraryDevice, DeviceFault>>,
}

/// A device that the library describes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LibraryDevice {
    /// PCI address as sysfs writes it: `0001:00:00.0`.
    pub pci_address: String,
    /// Product name.
    pub name: Fact<String>,
    /// Unique id.
    pub uuid: Fact<String>,
    /// Memory that programs can allocate from.
    pub memory: Fact<Bytes>,
    /// CUDA compute capability, such as `8.0`.
    pub compute_capability: Fact<String>,
    /// NUMA node it is close to; absent where the library does not tell or there are several.
    pub numa_node: Fact<u32>,
    /// Whether it is split into instances; absent where it cannot be.
    pub mig: Fact<bool>,
    /// Whether it is a share that the hypervisor cut; absent where the library has no notion of that.
    pub vgpu: Fact<bool>,
    /// What is wrong with it, though it answers: a pending row remap, retired pages.
    pub faults: Vec<String>,
}

/// A device that the library counts but cannot describe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFault {
    /// PCI address as sysfs writes it, where the library still knows it.
    pub pci_address: Option<String>,
    /// What it means.
    pub state: GpuState,
    /// What the library said.
    pub reason: String,
}

/// Why the library does not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuLibraryError {
    /// It was not to be asked.
    #[error("the management library was not asked")]
    Off,
    /// It is not there, or cannot be loaded.
    #[error("the management library cannot be loaded: {0}")]
    NotLoaded(String),
    /// No driver is loaded.
    #[error("the NVIDIA driver is not loaded")]
    DriverNotLoaded,
    /// Driver and library are of different versions.
    #[error("driver and library are of different versions")]
    DriverMismatch,
    /// It does not answer.
    #[error("the management library did not answer within {seconds} s")]
    Hangs {
        /// How long it was given.
        seconds: u64,
    },
    /// It fails as a whole.
    #[error("the management library failed: {0}")]
    Failed(String),
}

impl GpuLibraryError {
    /// Whether it follows that no GPU can be used.
    pub(super) const fn means_none_usable(&self) -> bool {
        matches!(self, Self::DriverNotLoaded | Self::DriverMismatch)
    }

    /// What it means for a GPU that is bound to its driver.
    pub(super) const fn state(&self) -> GpuState {
        match self {
            Self::DriverNotLoaded => GpuState::NoDriver,
            Self::DriverMismatch => GpuState::DriverMismatch,
            Self::Off | Self::NotLoaded(_) | Self::Hangs { .. } | Self::Failed(_) => GpuState::Unknown,
        }
    }
}

/// The driver's management library.
pub trait GpuLibrary: Debug + Send {
    /// Reads everything it knows.
    ///
    /// # Errors
    /// It cannot be loaded, does not answer in time, or fails as a whole.
    fn read(&self) -> Result<GpuLibraryFacts, GpuLibraryError>;
}

/// The library at `source`.
#[must_use]
pub fn library(source: NvmlSource) -> Box<dyn GpuLibrary> {
    match source {
        NvmlSource::System => Box::new(Nvml::new(None)),
        NvmlSource::File(path) => Box::new(Nvml::new(Some(path))),
        NvmlSource::Off => Box::new(Off),
    }
}

#[derive(Debug)]
struct Off;

impl GpuLibrary for Off {
    fn read(&self) -> Result<GpuLibraryFacts, GpuLibraryError> {
        Err(GpuLibraryError::Off)
    }
}

/// The library of a simulated machine: it says what it was told to.
#[derive(Debug, Clone)]
pub struct Scripted(pub Result<GpuLibraryFacts, GpuLibraryError>);

impl GpuLibrary for Scripted {
    fn read(&self) -> Result<GpuLibraryFacts, GpuLibraryError> {
        self.0.clone()
    }
}
