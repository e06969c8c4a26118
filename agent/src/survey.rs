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

    use assay_shared::azure::{self, VmSize};
    use assay_shared::report::{Cloud, Hypervisor, ReportDocument, VmGeneration};
    use assay_shared::{Fact, units::Bytes};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::gpu::{NvmlSource, library};
    use crate::host::RootDir;
    use crate::imds::parse;
    use crate::tree::{Damage, Machine, MemTree};

    /// A survey of the tree's files, with IMDS's answer where there is one.
    fn surveyed(fs: &dyn HostFs, imds: Option<Answer>) -> HardwareReport {
        let gpu_library = library(NvmlSource::Off);
        survey(fs, &SurveyOptions { node_name: None, imds, cpuid: None, gpu_library: &*gpu_library })
    }

    fn size(name: &str) -> &'static VmSize {
        azure::size(name).expect("the catalogue has it")
    }

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
    }

    #[test]
    fn a_vm_of_any_size_is_found_to_be_what_it_is() {
        for size in azure::sizes().step_by(23) {
            let machine = Machine::azure(size);
            let imds = machine.imds_json().map(|json| parse::file(json.to_string().as_bytes()));
            let report = surveyed(&machine.tree(), imds);
            let (cpu, memory, platform) = (&report.cpu, &report.memory, &report.platform);
            let name = &size.name;
            assert_eq!(cpu.architecture, Fact::Measured(size.architecture), "{name}");
            assert_eq!(cpu.logical_cpus, Fact::Measured(size.vcpus), "{name}");
            assert!(cpu.model.is_measured() && cpu.features.is_measured(), "{name}");
            assert_eq!(memory.installed_bytes, Fact::Measured(size.memory), "{name}");
            assert!(memory.total_bytes.get().is_some_and(|total| total < size.memory), "{name}");
            let nodes = report.numa.measured().unwrap();
            let of_nodes: Bytes = nodes.iter().filter_map(|node| node.memory_bytes.get()).sum();
            assert!(of_nodes > Bytes::ZERO && of_nodes <= size.memory, "{name}");
            assert_eq!(platform.cloud, Fact::Measured(Cloud::Azure), "{name}");
            assert_eq!(platform.vm_size.measured().map(String::as_str), Some(&**name));
            assert_eq!(platform.hypervisor, Fact::Measured(Hypervisor::Hyperv), "{name}");
            let generation = if size.generation2 { VmGeneration::Two } else { VmGeneration::One };
            assert_eq!(platform.generation, Fact::Measured(generation), "{name}");
            assert!(report.disagreements.is_empty(), "{name}: {:?}", report.disagreements);
        }
    }

    /// The report as JSON, without the devices: those may come and go with a file.
    fn facts(report: HardwareReport) -> Value {
        let mut json = serde_json::to_value(ReportDocument::from(report)).unwrap();
        for devices in ["gpus", "network", "disks", "events", "unavailable"] {
            json[devices].take();
        }
        json
    }

    /// Paths at which `found` has another value than `before`, other than `null`.
    fn changed(path: &str, before: &Value, found: &Value, changes: &mut Vec<String>) {
        match (before, found) {
            (_, Value::Null) => {}
            (Value::Object(before), Value::Object(found)) => {
                for (name, value) in found {
                    changed(
                        &format!("{path}.{name}"),
                        before.get(name).unwrap_or(&Value::Null),
                        value,
                        changes,
                    );
                }
            }
            (Value::Array(before), Value::Array(found)) if before.len() == found.len() => {
                for (index, (before, found)) in before.iter().zip(found).enumerate() {
                    changed(&format!("{path}[{index}]"), before, found, changes);
                }
            }
            _ if before == found => {}
            _ => changes.push(format!("{path}: {before} became {found}")),
        }
    }

    /// Leaves of the tree, without the many memory blocks that are all alike.
    fn leaves(tree: &MemTree) -> Vec<String> {
        let alike = |path: &String| path.contains("memory/memory") && !path.contains("memory/memory7/");
        tree.leaves().into_iter().filter(|path| !alike(path)).collect()
    }

    #[test]
    fn a_damaged_file_never_makes_a_wrong_fact() {
        for name in ["Standard_D4s_v5", "Standard_D2ps_v6"] {
            let machine = Machine::azure(size(name)).tree();
            let before = facts(surveyed(&machine, None));
            for path in leaves(&machine) {
                for damage in Damage::ALL {
                    let mut tree = machine.clone();
                    tree.damage(&path, damage);
                    let mut changes = Vec::new();
                    changed("", &before, &facts(surveyed(&tree, None)), &mut changes);
                    assert!(changes.is_empty(), "{path} {damage}: {changes:?}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn arbitrary_bytes_in_any_files_never_panic(
            files in proptest::collection::vec((any::<prop::sample::Index>(), proptest::collection::vec(any::<u8>(), 0..64)), 1..8),
            cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..8),
        ) {
            let mut tree = Machine::azure(size("Standard_NC24ads_A100_v4")).tree();
            let leaves = leaves(&tree);
            for (leaf, content) in files {
                tree.file(leaf.get::<String>(&leaves), content);
            }
            // And files that break off.
            for (leaf, at) in cuts {
                let path = leaf.get::<String>(&leaves);
                if let Ok(content) = tree.read(path) && !content.is_empty() {
                    let end = at.index(content.len());
                    tree.file(path, &content[..end]);
                }
            }
            let report = surveyed(&tree, None);
            prop_assert!(crate::output::table(&report, true).contains("CPU"));
            prop_assert!(crate::output::json(report).is_ok());
        }
    }
}
