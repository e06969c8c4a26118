//! GPUs, as the bus, the driver and the driver's library see them.

use std::fmt::Debug;
use std::path::PathBuf;

use assay_shared::report::Gpus;

use crate::host::HostFs;

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
#[derive(Debug, Clone, Default)]
pub struct GpuLibraryFacts {}

/// Why the library does not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the library was not asked")]
pub struct GpuLibraryError;

/// The driver's management library.
pub trait GpuLibrary: Debug {
    /// Reads everything it knows.
    ///
    /// # Errors
    /// It cannot be loaded, does not answer in time, or fails as a whole.
    fn read(&self) -> Result<GpuLibraryFacts, GpuLibraryError>;
}

/// The library at `source`.
#[must_use]
pub fn library(_source: NvmlSource) -> Box<dyn GpuLibrary> {
    Box::new(Off)
}

#[derive(Debug)]
struct Off;

impl GpuLibrary for Off {
    fn read(&self) -> Result<GpuLibraryFacts, GpuLibraryError> {
        Err(GpuLibraryError)
    }
}

/// Surveys the GPUs.
pub fn probe(_fs: &dyn HostFs, _library: &dyn GpuLibrary) -> Gpus {
    Gpus::default()
}
