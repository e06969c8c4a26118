//! Processors: `proc/cpuinfo` for what they are, `sys/devices/system/cpu` for how they hang together.
//!
//! The kernel's flags are the ones that matter, because the kernel leaves out what it does not support or was told to
//! hide. On the running machine the CPUID instruction is a second witness ([`cpuid`]).

mod arm;
pub mod cpuid;
pub mod cpuinfo;
pub mod isa;
mod topology;

use assay_shared::Fact;
use assay_shared::report::{Architecture, Cpu, Disagreement};

use crate::host::HostFs;
use cpuid::Cpuid;
use cpuinfo::CpuInfo;
use topology::Topology;

/// Surveys the processors. `cpuid` is given only where the tree is the running machine's own.
pub fn probe(fs: &dyn HostFs, cpuinfo: &Fact<CpuInfo>, cpuid: Option<&Cpuid>) -> (Cpu, Vec<Disagreement>) {
    let (mut cpu, disagreements) = match cpuinfo {
        Fact::Measured(info) if info.get("vendor_id").is_some() => x86(info, cpuid),
        // Also without cpuinfo the kernel shows the main id register of an Arm processor.
        _ => match arm::identify(fs, cpuinfo) {
            Some(cpu) => (cpu, Vec::new()),
            None => (unidentified(cpuinfo), Vec::new()),
        },
    };
    let Topology { logical_cpus, physical_cores, sockets, threads_per_core, l3_domains, l3_bytes } =
        topology::read(fs);
    cpu.logical_cpus = logical_cpus;
    cpu.physical_cores = physical_cores;
    cpu.sockets = sockets;
    cpu.threads_per_core = threads_per_core;
    cpu.l3_domains = l3_domains;
    cpu.l3_bytes = l3_bytes;
    (cpu, disagreements)
}

/// The part of an x86 processor that cpuinfo tells, with CPUID as second witness.
fn x86(info: &CpuInfo, cpuid: Option<&Cpuid>) -> (Cpu, Vec<Disagreement>) {
    let mut disagreements = Vec::new();
    let mut features = info.flags("flags");
    if let (Fact::Measured(features), Some(cpuid)) = (&mut features, cpuid) {
        disagreements.extend(cpuid.check_features(features));
    }
    let architecture = features.as_ref().and_then(|features| {
        if features.iter().any(|flag| flag == "lm") {
            Fact::Measured(Architecture::Amd64)
        } else {
            Fact::unavailable("neither amd64 nor arm64: the flags in proc/cpuinfo lack long mode (lm)")
        }
    });
    let cpu = Cpu {
        architecture,
        vendor: info.text("vendor_id"),
        model: info.text("model name"),
        family: info.number("cpu family"),
        model_id: info.number("model"),
        stepping: info.number("stepping"),
        isa_level: features.as_ref().and_then(|features| isa::level(features)),
        features,
        ..Cpu::default()
    };
    if let Some(cpuid) = cpuid {
        disagreements.extend(cpuid.check_identity(&cpu));
    }
    (cpu, disagreements)
}

/// Nothing tells which processor this is.
fn unidentified(cpuinfo: &Fact<CpuInfo>) -> Cpu {
    let reason = match cpuinfo {
        Fact::Unavailable(reason) => reason.clone(),
        _ => "expected vendor_id or CPU implementer, found neither: proc/cpuinfo".to_owned(),
    };
    Cpu {
        architecture: Fact::unavailable(&reason),
        vendor: Fact::unavailable(&reason),
        model: Fact::unavailable(&reason),
        family: Fact::unavailable(&reason),
        model_id: Fact::unavailable(&reason),
        stepping: Fact::unavailable(&reason),
        isa_level: Fact::unavailable(&reason),
        features: Fact::Unavailable(reason),
        ..Cpu::default()
    }
}

#[cfg(test)]
mod tests {
    use assay_shared::report::IsaLevel;
    use assay_shared::units::Bytes;

    use super::*;
    use crate::tree::MemTree;

    const MILAN: &str = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 1\n\
        model name\t: AMD EPYC 7763 64-Core Processor\nstepping\t: 1\n\
        flags\t\t: fpu cx8 cmov mmx fxsr sse sse2 syscall lm pni ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt xsave avx \
        f16c lahf_lm abm bmi1 avx2 bmi2 hypervisor\n\nprocessor\t: 1\nvendor_id\t: Other\nmodel\t\t: 99\n";

    const COBALT: &str = "processor\t: 0\nBogoMIPS\t: 2000.00\nFeatures\t: fp asimd sve2\nCPU implementer\t: 0x6d\n\
        CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd49\nCPU revision\t: 0\n";

    /// `cpus` CPUs with `threads` to a core, `per_cache` to an L3 cache and `per_package` to a package.
    fn machine(cpuinfo: &str, cpus: u32, threads: u32, per_cache: u32, per_package: u32) -> MemTree {
        let mut tree = MemTree::new();
        tree.file("proc/cpuinfo", cpuinfo);
        tree.file("sys/devices/system/cpu/online", format!("0-{}\n", cpus - 1));
        let group = |cpu: u32, size: u32| {
            let first = cpu / size * size;
            if size == 1 { format!("{first}\n") } else { format!("{first}-{}\n", first + size - 1) }
        };
        for cpu in 0..cpus {
            let of = |file: &str| format!("sys/devices/system/cpu/cpu{cpu}/{file}");
            tree.file(&of("topology/thread_siblings_list"), group(cpu, threads));
            tree.file(&of("topology/physical_package_id"), format!("{}\n", cpu / per_package));
            tree.file(&of("cache/index0/level"), "1\n");
            tree.file(&of("cache/index3/level"), "3\n");
            tree.file(&of("cache/index3/size"), "32768K\n");
            tree.file(&of("cache/index3/shared_cpu_list"), group(cpu, per_cache));
        }
        tree
    }

    fn surveyed(tree: &MemTree, cpuid: Option<&Cpuid>) -> (Cpu, Vec<Disagreement>) {
        probe(tree, &CpuInfo::read(tree), cpuid)
    }

    #[test]
    fn an_x86_machine_is_told_by_its_first_processor() {
        let (cpu, disagreements) = surveyed(&machine(MILAN, 96, 1, 4, 48), None);
        assert_eq!(cpu.architecture, Fact::Measured(Architecture::Amd64));
        assert_eq!(cpu.vendor, Fact::Measured("AuthenticAMD".to_owned()));
        assert_eq!(cpu.model, Fact::Measured("AMD EPYC 7763 64-Core Processor".to_owned()));
        assert_eq!([&cpu.family, &cpu.model_id, &cpu.stepping].map(Fact::get), [Some(25), Some(1), Some(1)]);
        assert_eq!(cpu.isa_level, Fact::Measured(IsaLevel::V3));
        assert!(cpu.features.measured().unwrap().is_sorted());
        assert_eq!(
            [&cpu.logical_cpus, &cpu.physical_cores, &cpu.sockets].map(Fact::get),
            [Some(96), Some(96), Some(2)]
        );
        assert_eq!([&cpu.threads_per_core, &cpu.l3_domains].map(Fact::get), [Some(1), Some(24)]);
        assert_eq!(cpu.l3_bytes, Fact::Measured(Bytes::mib(32)));
        assert!(disagreements.is_empty());
    }

    #[test]
    fn an_arm_machine_is_told_by_implementer_and_part_or_by_its_register() {
        let (cpu, _) = surveyed(&machine(COBALT, 4, 1, 4, 4), None);
        assert_eq!(cpu.architecture, Fact::Measured(Architecture::Arm64));
        assert_eq!(cpu.vendor, Fact::Measured("Microsoft".to_owned()));
        assert_eq!(cpu.model, Fact::Measured("Azure Cobalt 100 (Neoverse-N2)".to_owned()));
        assert_eq!((cpu.family, cpu.isa_level), (Fact::Absent, Fact::Absent));
        assert_eq!(cpu.model_id, Fact::Measured(0xd49));

        let mut tree = machine("Processor: AArch64\n", 4, 1, 4, 4);
        tree.file("sys/devices/system/cpu/cpu0/regs/identification/midr_el1", "0x00000000413fd0c1\n");
        let (cpu, _) = surveyed(&tree, None);
        assert_eq!(cpu.model, Fact::Measured("Neoverse-N1".to_owned()));
        assert_eq!(cpu.stepping, Fact::Measured(1));
        assert!(matches!(cpu.features, Fact::Unavailable(_)));

        let (cpu, _) = surveyed(&machine(&COBALT.replace("0xd49", "0xfff"), 4, 1, 4, 4), None);
        assert_eq!(cpu.model, Fact::unavailable("unknown Arm part 0xfff of implementer 0x6d"));
    }

    #[test]
    fn only_cpus_that_are_online_count() {
        let mut tree = machine(MILAN, 8, 2, 8, 8);
        tree.file("sys/devices/system/cpu/online", "0-3,6\n");
        let (cpu, _) = surveyed(&tree, None);
        assert_eq!(
            [&cpu.logical_cpus, &cpu.physical_cores, &cpu.threads_per_core].map(Fact::get),
            [Some(5), Some(3), Some(2)]
        );
    }

    #[test]
    fn what_is_broken_is_unavailable_and_costs_nothing_else() {
        let with = |path: &str, content: &str| {
            let mut tree = machine(MILAN, 4, 2, 4, 4);
            tree.file(path, content);
            surveyed(&tree, None).0
        };
        let cpus = "sys/devices/system/cpu";
        let cpu = with(&format!("{cpus}/online"), "0-4294967295\n");
        assert!(matches!(cpu.logical_cpus, Fact::Unavailable(_)) && cpu.family.is_measured());
        let cpu = with(&format!("{cpus}/cpu0/topology/thread_siblings_list"), "2-3\n");
        assert!(
            matches!(&cpu.physical_cores, Fact::Unavailable(reason) if reason.contains("a list with CPU 0"))
        );
        assert_eq!(cpu.sockets, Fact::Measured(1));
        let cpu = with(&format!("{cpus}/cpu0/topology/physical_package_id"), "-1\n");
        assert!(matches!(cpu.sockets, Fact::Unavailable(_)) && cpu.physical_cores.is_measured());
        let cpu = with(&format!("{cpus}/cpu0/cache/index3/level"), "2\n");
        assert_eq!((cpu.l3_domains, cpu.l3_bytes), (Fact::Absent, Fact::Absent));
        let cpu = with(&format!("{cpus}/cpu0/cache/index3/size"), "big");
        assert!(matches!(cpu.l3_bytes, Fact::Unavailable(_)) && cpu.l3_domains.is_measured());
    }

    #[test]
    fn a_broken_cpuinfo_is_never_a_wrong_processor() {
        let cases = [
            ("", "expected vendor_id or CPU implementer, found neither: proc/cpuinfo"),
            ("vendor_id : GenuineIntel\n", "no field \"flags\": proc/cpuinfo"),
            ("vendor_id : GenuineIntel\nflags : fpu\u{1b}[2J sse\n", "expected flags as a list of words"),
            ("vendor_id : GenuineIntel\nflags : fpu sse\n", "lack long mode"),
            ("CPU implementer : 0x41\nCPU architecture: 7\n", "neither amd64 nor arm64: Arm version 7"),
        ];
        for (text, expected) in cases {
            let (cpu, _) = surveyed(&machine(text, 1, 1, 1, 1), None);
            let Fact::Unavailable(reason) = cpu.architecture else { panic!("{text:?}") };
            assert!(reason.contains(expected), "{reason}");
        }
        let (cpu, _) =
            surveyed(&machine(&MILAN.replace(": 25", ": old").replace('\n', "\r\n"), 1, 1, 1, 1), None);
        assert_eq!(
            cpu.family,
            Fact::unavailable("expected cpu family as a number, found \"old\": proc/cpuinfo")
        );
        assert_eq!(cpu.isa_level, Fact::Measured(IsaLevel::V3), "carriage returns are no part of a value");
    }

    #[test]
    fn where_cpuid_disagrees_the_careful_value_stays() {
        let cpuid = Cpuid {
            vendor: Some("GenuineIntel".to_owned()),
            signature: Some([25, 1, 2]),
            features: vec![("avx512f", true), ("avx2", false), ("fma", true), ("amx_tile", false)],
            hypervisor: None,
        };
        let (cpu, disagreements) = surveyed(&machine(MILAN, 1, 1, 1, 1), Some(&cpuid));
        assert_eq!(cpu.isa_level, Fact::Measured(IsaLevel::V2), "without avx2");
        assert!(!cpu.features.measured().unwrap().iter().any(|flag| flag == "avx2" || flag == "avx512f"));
        assert_eq!(cpu.stepping, Fact::Measured(1));
        let found: Vec<&str> =
            disagreements.iter().map(|disagreement| disagreement.detail.as_str()).collect();
        assert_eq!(
            found,
            [
                "CPUID has avx512f, the kernel does not offer it",
                "proc/cpuinfo has avx2, CPUID does not",
                "proc/cpuinfo has 1, CPUID has 2",
                "proc/cpuinfo has AuthenticAMD, CPUID has GenuineIntel",
            ]
        );
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_instruction_can_be_asked() {
        let cpuid = Cpuid::of_running_machine().unwrap();
        assert!(
            cpuid.features.iter().any(|(flag, has)| *flag == "pni" && *has),
            "every 64-bit processor in use has SSE3"
        );
    }
}
