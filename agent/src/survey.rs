//! One survey of one machine: every probe, once.
//!
//! A pure function of the tree below the root and of what the caller read elsewhere (IMDS, CPUID, the GPU library), so
//! that the same tree gives the same report on any machine. A probe that fails loses its own facts only.

use assay_shared::report::HardwareReport;

use crate::cpu::cpuid::Cpuid;
use crate::cpu::cpuinfo::CpuInfo;
use crate::gpu::GpuLibrary;
use crate::host::HostFs;
use crate::imds::Answer;
use crate::platform::Dmi;
use crate::{cpu, disks, gpu, memory, network, numa, platform};

/// What a survey takes besides the tree.
#[derive(Debug)]
pub struct SurveyOptions<'a> {
    /// Kubernetes name of the node, where the agent was given one.
    pub node_name: Option<String>,
    /// What IMDS said, where it was asked.
    pub imds: Option<Answer>,
    /// CPUID of the processor, where the tree is that of the running machine.
    pub cpuid: Option<Cpuid>,
    /// The driver's view of the GPUs.
    pub gpu_library: &'a dyn GpuLibrary,
}

/// Surveys the machine whose files are below `fs`.
pub fn survey(fs: &dyn HostFs, options: &SurveyOptions<'_>) -> HardwareReport {
    let cpuid = options.cpuid.as_ref();
    let cpuinfo = CpuInfo::read(fs);
    let (cpu, mut disagreements) = cpu::probe(fs, &cpuinfo, cpuid);
    let dmi = Dmi::read(fs);
    let cloud = dmi.cloud();
    let instance = platform::instance(&cloud, options.imds.as_ref());
    let (platform, more) = platform::probe(fs, &dmi, &instance, &cpuinfo, cpuid);
    disagreements.extend(more);
    HardwareReport {
        identity: platform::identity(fs, options.node_name.as_deref(), &instance),
        platform,
        cpu,
        memory: memory::probe(fs),
        numa: numa::probe(fs),
        gpus: gpu::probe(fs, options.gpu_library),
        network: network::probe(fs, &cloud),
        disks: disks::probe(fs, &instance),
        events: match &options.imds {
            Some(answer) => answer.events.clone(),
            None => platform::not_asked(&cloud),
        },
        disagreements,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use assay_shared::Fact;

    use super::*;
    use crate::gpu::{NvmlSource, library};
    use crate::host::RootDir;

    #[test]
    fn the_machine_that_runs_this_test_is_measured() {
        let fs = RootDir::open(Path::new("/")).unwrap();
        let gpu_library = library(NvmlSource::Off);
        let cpuid = Cpuid::of_running_machine();
        let options = SurveyOptions { node_name: None, imds: None, cpuid, gpu_library: &*gpu_library };
        let report = survey(&fs, &options);
        assert!(report.cpu.architecture.is_measured() && report.cpu.logical_cpus.is_measured());
        assert!(report.memory.total_bytes.is_measured());
        assert!(report.identity.boot_id.is_measured());
        if let (Fact::Measured(installed), Fact::Measured(total)) =
            (report.memory.installed_bytes, report.memory.total_bytes)
        {
            assert!(installed >= total);
        }
    }
}
