//! The survey of the running machine, as `assay-agent survey --nvml off --imds off` makes it.

use std::path::Path;

use anyhow::{Context, ensure};
use assay_agent::cpu::cpuid::Cpuid;
use assay_agent::gpu::{NvmlSource, library};
use assay_agent::host::RootDir;
use assay_agent::survey::{SurveyOptions, survey};

use crate::report::{measure, row};

pub(crate) fn run() -> anyhow::Result<()> {
    row("survey of this machine, without GPU", &measure(30, once)?);
    Ok(())
}

fn once() -> anyhow::Result<()> {
    let fs = RootDir::open(Path::new("/")).context("/")?;
    let gpu_library = library(NvmlSource::Off);
    let cpuid = Cpuid::of_running_machine();
    let options = SurveyOptions { node_name: None, imds: None, cpuid, gpu_library: &*gpu_library };
    let report = survey(&fs, &options);
    ensure!(report.memory.total_bytes.is_measured(), "this machine cannot be surveyed");
    Ok(())
}
