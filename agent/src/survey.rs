//! One survey of one machine: every probe, once.
//!
//! A pure function of the tree below the root and of what the caller read elsewhere (IMDS, CPUID, the GPU library), so
//! that the same tree gives the same report on any machine. A probe that fails loses its own facts only.

use assay_shared::report::HardwareReport;
use assay_shared::{Fact, report};

use crate::gpu::GpuLibrary;
use crate::host::HostFs;
use crate::imds::Answer;
use crate::{disks, gpu, network};

/// What a survey takes besides the tree.
#[derive(Debug)]
pub struct SurveyOptions<'a> {
    /// Kubernetes name of the node, where the agent was given one.
    pub node_name: Option<String>,
    /// What IMDS said, where it was asked.
    pub imds: Option<Answer>,
    /// The driver's view of the GPUs.
    pub gpu_library: &'a dyn GpuLibrary,
}

/// Surveys the machine whose files are below `fs`.
pub fn survey(fs: &dyn HostFs, options: &SurveyOptions<'_>) -> HardwareReport {
    let instance = options.imds.as_ref().map_or(Fact::Absent, |answer| answer.instance.clone());
    let platform = report::Platform::default();
    HardwareReport {
        gpus: gpu::probe(fs, options.gpu_library),
        network: network::probe(fs, &platform.cloud),
        disks: disks::probe(fs, &instance),
        platform,
        ..HardwareReport::default()
    }
}
