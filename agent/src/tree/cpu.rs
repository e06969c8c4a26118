//! Processors of simulated machines: `/proc/cpuinfo` and `/sys/devices/system/cpu`.
//!
//! Family, model, stepping and flags are those that Azure VMs of each generation show; `docs/hardware-report.md` lists
//! which sizes can come with which. Flags are the kernel's spelling, without those that only name a mitigation.

use std::fmt::Write as _;

use serde::Deserialize;

use super::MemTree;

/// The processors of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cpu {
    /// Which processor.
    pub model: CpuModel,
    /// `model name` to show in place of the model's own: some hypervisors shorten it.
    #[serde(default)]
    pub name: Option<String>,
    /// CPUs online.
    pub logical: u32,
    /// 2 with SMT, otherwise 1.
    #[serde(default = "one")]
    pub threads_per_core: u32,
    /// Packages; CPUs are dealt out evenly.
    #[serde(default = "one")]
    pub sockets: u32,
    /// NUMA nodes; CPUs and memory are dealt out evenly.
    #[serde(default = "one")]
    pub numa_nodes: u32,
    /// Flags that the hypervisor hides, although the processor has them.
    #[serde(default)]
    pub hidden_flags: Vec<String>,
}

fn one() -> u32 {
    1
}

/// A processor that Azure runs VMs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CpuModel {
    /// Intel Xeon E5-2673 v3.
    Haswell,
    /// Intel Xeon E5-2673 v4.
    Broadwell,
    /// Intel Xeon Platinum 8171M.
    Skylake,
    /// Intel Xeon Platinum 8272CL.
    CascadeLake,
    /// Intel Xeon Platinum 8370C.
    IceLake,
    /// Intel Xeon Platinum 8473C.
    SapphireRapids,
    /// Intel Xeon Platinum 8573C.
    EmeraldRapids,
    /// AMD EPYC 7551.
    Naples,
    /// AMD EPYC 7452 and its siblings.
    Rome,
    /// AMD EPYC 7763.
    Milan,
    /// AMD EPYC 9004.
    Genoa,
    /// AMD EPYC 9005.
    Turin,
    /// Ampere Altra.
    NeoverseN1,
    /// Microsoft Azure Cobalt 100, a Neoverse N2.
    Cobalt100,
}

/// What the kernel shows of an x86 processor.
struct X86 {
    vendor: &'static str,
    name: &'static str,
    family: u32,
    model: u32,
    stepping: u32,
    flags: &'static [&'static str],
    /// One L3 cache, KiB.
    l3_kib: u32,
    /// Cores that share it; `u32::MAX` for all of the package.
    l3_cores: u32,
}

/// What the kernel shows of an Arm processor.
struct Arm {
    implementer: u32,
    variant: u32,
    part: u32,
    revision: u32,
    features: &'static str,
}

enum Shown {
    X86(X86),
    Arm(Arm),
}

const INTEL: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ss \
    ht syscall nx pdpe1gb rdtscp lm constant_tsc rep_good nopl xtopology cpuid pni pclmulqdq ssse3 fma cx16 pcid sse4_1 \
    sse4_2 movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm abm fsgsbase bmi1 avx2 smep bmi2 erms invpcid \
    xsaveopt";
const BROADWELL: &str = "3dnowprefetch rdseed adx smap";
const AVX512: &str = "avx512f avx512dq avx512cd avx512bw avx512vl clflushopt xsavec xsaves";
const ICE_LAKE: &str = "avx512_vnni avx512ifma avx512vbmi avx512_vbmi2 avx512_bitalg avx512_vpopcntdq umip gfni vaes \
    vpclmulqdq sha_ni la57 rdpid fsrm";
const SAPPHIRE_RAPIDS: &str = "avx_vnni avx512_bf16 avx512_fp16 amx_bf16 amx_tile amx_int8 cldemote movdiri movdir64b serialize tsxldtrk";
const AMD: &str = "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht \
    syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm constant_tsc rep_good nopl tsc_reliable nonstop_tsc cpuid extd_apicid \
    aperfmperf pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 movbe popcnt aes xsave avx f16c rdrand hypervisor lahf_lm \
    cmp_legacy cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw topoext vmmcall fsgsbase bmi1 avx2 smep bmi2 rdseed \
    adx smap clflushopt sha_ni xsaveopt xsavec xgetbv1 xsaves clzero xsaveerptr arat";
const ROME: &str = "clwb umip rdpid";
const MILAN: &str = "erms invpcid vaes vpclmulqdq fsrm";
const GENOA: &str = "avx512f avx512dq avx512ifma avx512cd avx512bw avx512vl avx512_bf16 avx512vbmi avx512_vbmi2 gfni \
    avx512_vnni avx512_bitalg avx512_vpopcntdq";
const TURIN: &str = "avx_vnni movdiri movdir64b avx512_vp2intersect";
const ARMV8_2: &str = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp \
    ssbs";
const ARMV9: &str = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc \
    dcpop sha3 sm3 sm4 asimddp sha512 sve asimdfhm uscat ilrcpc flagm ssbs sb dcpodp sve2 sveaes svepmull svebitperm \
    svesha3 svesm4 flagm2 frint svei8mm svebf16 i8mm bf16";

const fn intel(
    name: &'static str,
    model: u32,
    stepping: u32,
    flags: &'static [&'static str],
    l3_kib: u32,
) -> Shown {
    Shown::X86(X86 {
        vendor: "GenuineIntel",
        name,
        family: 6,
        model,
        stepping,
        flags,
        l3_kib,
        l3_cores: u32::MAX,
    })
}

const fn amd(
    name: &'static str,
    (family, model, stepping): (u32, u32, u32),
    flags: &'static [&'static str],
    l3_kib: u32,
    l3_cores: u32,
) -> Shown {
    Shown::X86(X86 { vendor: "AuthenticAMD", name, family, model, stepping, flags, l3_kib, l3_cores })
}

impl CpuModel {
    const fn shown(self) -> Shown {
        match self {
            Self::Haswell => intel("Intel(R) Xeon(R) CPU E5-2673 v3 @ 2.40GHz", 63, 2, &[INTEL], 30_720),
            Self::Broadwell => {
                intel("Intel(R) Xeon(R) CPU E5-2673 v4 @ 2.30GHz", 79, 1, &[INTEL, BROADWELL], 51_200)
            }
            Self::Skylake => intel(
                "Intel(R) Xeon(R) Platinum 8171M CPU @ 2.60GHz",
                85,
                4,
                &[INTEL, BROADWELL, AVX512],
                36_608,
            ),
            Self::CascadeLake => intel(
                "Intel(R) Xeon(R) Platinum 8272CL CPU @ 2.60GHz",
                85,
                7,
                &[INTEL, BROADWELL, AVX512, "avx512_vnni"],
                36_608,
            ),
            Self::IceLake => intel(
                "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz",
                106,
                6,
                &[INTEL, BROADWELL, AVX512, ICE_LAKE],
                49_152,
            ),
            Self::SapphireRapids => intel(
                "Intel(R) Xeon(R) Platinum 8473C",
                143,
                8,
                &[INTEL, BROADWELL, AVX512, ICE_LAKE, SAPPHIRE_RAPIDS],
                107_520,
            ),
            Self::EmeraldRapids => intel(
                "INTEL(R) XEON(R) PLATINUM 8573C",
                207,
                2,
                &[INTEL, BROADWELL, AVX512, ICE_LAKE, SAPPHIRE_RAPIDS],
                266_240,
            ),
            Self::Naples => amd("AMD EPYC 7551 32-Core Processor", (23, 1, 2), &[AMD], 8_192, 4),
            Self::Rome => amd("AMD EPYC 7452 32-Core Processor", (23, 49, 0), &[AMD, ROME], 16_384, 4),
            Self::Milan => amd("AMD EPYC 7763 64-Core Processor", (25, 1, 1), &[AMD, ROME, MILAN], 32_768, 8),
            Self::Genoa => {
                amd("AMD EPYC 9V74 80-Core Processor", (25, 17, 1), &[AMD, ROME, MILAN, GENOA], 32_768, 8)
            }
            Self::Turin => amd(
                "AMD EPYC 9V45 96-Core Processor",
                (26, 2, 1),
                &[AMD, ROME, MILAN, GENOA, TURIN],
                32_768,
                8,
            ),
            Self::NeoverseN1 => {
                Shown::Arm(Arm { implementer: 0x41, variant: 3, part: 0xd0c, revision: 1, features: ARMV8_2 })
            }
            Self::Cobalt100 => {
                Shown::Arm(Arm { implementer: 0x6d, variant: 0, part: 0xd49, revision: 0, features: ARMV9 })
            }
        }
    }
}

impl Cpu {
    /// So many CPUs of a model: one thread a core, one package, one node.
    #[must_use]
    pub const fn new(model: CpuModel, logical: u32) -> Self {
        Self {
            model,
            name: None,
            logical,
            threads_per_core: 1,
            sockets: 1,
            numa_nodes: 1,
            hidden_flags: Vec::new(),
        }
    }

    /// CPUs of the NUMA node, as the kernel lists them.
    pub(super) fn node_cpus(&self, node: u32) -> String {
        let size = self.logical.div_ceil(self.numa_nodes.max(1)).max(1);
        list(node * size, size.min(self.logical.saturating_sub(node * size)))
    }

    pub(super) fn write(&self, tree: &mut MemTree) {
        let base = "sys/devices/system/cpu";
        let all = list(0, self.logical);
        for file in ["online", "present", "possible"] {
            tree.file(&format!("{base}/{file}"), format!("{all}\n"));
        }
        let smt = self.threads_per_core > 1;
        tree.file(&format!("{base}/smt/active"), if smt { "1\n" } else { "0\n" });
        tree.file(&format!("{base}/smt/control"), if smt { "on\n" } else { "notsupported\n" });

        let threads = self.threads_per_core.max(1);
        let per_socket = self.logical.div_ceil(self.sockets.max(1)).max(1);
        let shown = self.model.shown();
        for cpu in 0..self.logical {
            let socket = cpu / per_socket;
            let first_of_socket = socket * per_socket;
            let in_socket = per_socket.min(self.logical - first_of_socket);
            let core = (cpu - first_of_socket) / threads;
            let dir = format!("{base}/cpu{cpu}");
            let siblings = list(first_of_socket + core * threads, threads);
            let package = list(first_of_socket, in_socket);
            for (file, text) in [
                ("core_id", &core.to_string()),
                ("physical_package_id", &socket.to_string()),
                ("die_id", &"0".to_owned()),
                ("thread_siblings_list", &siblings),
                ("core_cpus_list", &siblings),
                ("core_siblings_list", &package),
                ("package_cpus_list", &package),
            ] {
                tree.file(&format!("{dir}/topology/{file}"), format!("{text}\n"));
            }
            match &shown {
                Shown::X86(x86) => {
                    let sharing = x86.l3_cores.saturating_mul(threads).min(in_socket).max(1);
                    let first = (cpu - first_of_socket) / sharing * sharing;
                    let shared = list(first_of_socket + first, sharing.min(in_socket - first));
                    let id = (first_of_socket + first) / sharing;
                    write_cache(tree, &dir, 0, (1, 32, "Data"), &siblings);
                    write_cache(tree, &dir, 3, (3, x86.l3_kib, "Unified"), &shared);
                    tree.file(&format!("{dir}/cache/index3/id"), format!("{id}\n"));
                }
                Shown::Arm(arm) => {
                    // The firmware tables of these machines describe no L3.
                    write_cache(tree, &dir, 0, (1, 64, "Data"), &siblings);
                    let midr =
                        arm.implementer << 24 | arm.variant << 20 | 0xf << 16 | arm.part << 4 | arm.revision;
                    tree.file(&format!("{dir}/regs/identification/midr_el1"), format!("0x{midr:016x}\n"));
                }
            }
        }
        tree.file("proc/cpuinfo", self.cpuinfo(&shown));
    }

    fn cpuinfo(&self, shown: &Shown) -> String {
        let mut text = String::new();
        let per_socket = self.logical.div_ceil(self.sockets.max(1)).max(1);
        let threads = self.threads_per_core.max(1);
        for cpu in 0..self.logical {
            // Writing to a string cannot fail.
            let _ = match shown {
                Shown::X86(x86) => {
                    let flags = x86.flags.iter().flat_map(|set| set.split_whitespace());
                    let flags: Vec<&str> =
                        flags.filter(|flag| !self.hidden_flags.iter().any(|hidden| hidden == flag)).collect();
                    write!(
                        text,
                        "processor\t: {cpu}\nvendor_id\t: {}\ncpu family\t: {}\nmodel\t\t: {}\nmodel name\t: {}\n\
                         stepping\t: {}\nmicrocode\t: 0xffffffff\ncpu MHz\t\t: 2593.907\ncache size\t: {} KB\n\
                         physical id\t: {}\nsiblings\t: {per_socket}\ncore id\t\t: {}\ncpu cores\t: {}\n\
                         apicid\t\t: {cpu}\ninitial apicid\t: {cpu}\nfpu\t\t: yes\nfpu_exception\t: yes\n\
                         cpuid level\t: 21\nwp\t\t: yes\nflags\t\t: {}\nbugs\t\t: spectre_v1 spectre_v2\n\
                         bogomips\t: 5187.81\nclflush size\t: 64\ncache_alignment\t: 64\n\
                         address sizes\t: 46 bits physical, 48 bits virtual\npower management:\n\n",
                        x86.vendor,
                        x86.family,
                        x86.model,
                        self.name.as_deref().unwrap_or(x86.name),
                        x86.stepping,
                        x86.l3_kib,
                        cpu / per_socket,
                        cpu % per_socket / threads,
                        per_socket.div_ceil(threads),
                        flags.join(" "),
                    )
                }
                Shown::Arm(arm) => write!(
                    text,
                    "processor\t: {cpu}\nBogoMIPS\t: 50.00\nFeatures\t: {}\nCPU implementer\t: {:#04x}\n\
                     CPU architecture: 8\nCPU variant\t: {:#x}\nCPU part\t: {:#05x}\nCPU revision\t: {}\n\n",
                    arm.features, arm.implementer, arm.variant, arm.part, arm.revision,
                ),
            };
        }
        text
    }
}

/// One cache: level, KiB, type, and the CPUs that share it.
fn write_cache(
    tree: &mut MemTree,
    cpu: &str,
    index: u32,
    (level, kib, kind): (u32, u32, &str),
    shared: &str,
) {
    let dir = format!("{cpu}/cache/index{index}");
    tree.file(&format!("{dir}/level"), format!("{level}\n"));
    tree.file(&format!("{dir}/type"), format!("{kind}\n"));
    tree.file(&format!("{dir}/size"), format!("{kib}K\n"));
    tree.file(&format!("{dir}/shared_cpu_list"), format!("{shared}\n"));
}

/// `count` CPUs from `first` on, as the kernel lists them: `0-3`, `5`, or nothing.
fn list(first: u32, count: u32) -> String {
    match count {
        0 => String::new(),
        1 => first.to_string(),
        _ => format!("{first}-{}", first + count - 1),
    }
}
