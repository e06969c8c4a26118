//! Which 64-bit Arm processor: implementer and part, by cpuinfo or by the main id register.

use assay_shared::Fact;
use assay_shared::report::{Architecture, Cpu};

use super::cpuinfo::CpuInfo;
use crate::host::HostFs;
use crate::host::read::{self, Missing};

/// The main id register (`MIDR_EL1`) of the first CPU.
const MIDR: &str = "sys/devices/system/cpu/cpu0/regs/identification/midr_el1";

/// Implementers, by the Arm Architecture Reference Manual ("MIDR_EL1, Implementer") and Linux `cputype.h`.
const IMPLEMENTERS: [(u32, &str); 9] = [
    (0x41, "ARM"),
    (0x42, "Broadcom"),
    (0x43, "Cavium"),
    (0x46, "Fujitsu"),
    (0x48, "HiSilicon"),
    (0x4e, "NVIDIA"),
    (0x61, "Apple"),
    (0x6d, "Microsoft"),
    (0xc0, "Ampere"),
];

/// Server processors, by Linux `cputype.h`. Ampere Altra, which Azure's Dpsv5 has, names itself Neoverse-N1.
const PARTS: [(u32, u32, &str); 15] = [
    (0x41, 0xd03, "Cortex-A53"),
    (0x41, 0xd07, "Cortex-A57"),
    (0x41, 0xd08, "Cortex-A72"),
    (0x41, 0xd0c, "Neoverse-N1"),
    (0x41, 0xd40, "Neoverse-V1"),
    (0x41, 0xd49, "Neoverse-N2"),
    (0x41, 0xd4f, "Neoverse-V2"),
    (0x41, 0xd83, "Neoverse-V3AE"),
    (0x41, 0xd84, "Neoverse-V3"),
    (0x41, 0xd8e, "Neoverse-N3"),
    (0x43, 0x0af, "ThunderX2"),
    (0x48, 0xd01, "TaiShan v110"),
    (0x6d, 0xd49, "Azure Cobalt 100 (Neoverse-N2)"),
    (0xc0, 0xac3, "AmpereOne"),
    (0xc0, 0xac4, "AmpereOne A"),
];

/// The part of an Arm processor that does not come from topology; `None` where nothing says that it is one.
pub(super) fn identify(fs: &dyn HostFs, cpuinfo: &Fact<CpuInfo>) -> Option<Cpu> {
    let info = cpuinfo.measured().filter(|info| info.get("CPU implementer").is_some());
    let (id, features) = match info {
        Some(info) => {
            let id = Id {
                implementer: info.number("CPU implementer"),
                part: info.number("CPU part"),
                revision: info.number("CPU revision"),
                architecture: info.number("CPU architecture"),
            };
            (id, info.flags("Features"))
        }
        None => {
            let register = read::hex(fs, MIDR, Missing::Absent).get()?;
            let unread = match cpuinfo {
                Fact::Unavailable(reason) => reason.clone(),
                _ => "no field \"Features\": proc/cpuinfo".to_owned(),
            };
            (Id::from_register(register), Fact::Unavailable(unread))
        }
    };
    Some(Cpu {
        architecture: id.architecture.clone().and_then(|version| match version {
            8.. => Fact::Measured(Architecture::Arm64),
            _ => Fact::Unavailable(format!("neither amd64 nor arm64: Arm version {version}")),
        }),
        vendor: id.implementer.clone().and_then(vendor),
        model: id.model(),
        family: Fact::Absent,
        model_id: id.part,
        stepping: id.revision,
        isa_level: Fact::Absent,
        features,
        ..Cpu::default()
    })
}

/// The fields of the main id register.
struct Id {
    implementer: Fact<u32>,
    part: Fact<u32>,
    revision: Fact<u32>,
    /// Version of the architecture: 8 and above is 64-bit.
    architecture: Fact<u32>,
}

impl Id {
    /// Bits 31-24 implementer, 15-4 part, 3-0 revision. The register exists in this place on 64-bit kernels only.
    fn from_register(register: u64) -> Self {
        let bits = |from: u32, count: u32| {
            let field = (register >> from) & ((1 << count) - 1);
            u32::try_from(field).map_or_else(|_| Fact::unavailable("MIDR field out of range"), Fact::Measured)
        };
        Self {
            implementer: bits(24, 8),
            part: bits(4, 12),
            revision: bits(0, 4),
            architecture: Fact::Measured(8),
        }
    }

    fn model(&self) -> Fact<String> {
        self.implementer.clone().and_then(|implementer| {
            self.part.clone().and_then(|part| {
                let known = PARTS.iter().find(|(by, number, _)| (*by, *number) == (implementer, part));
                known.map_or_else(
                    || {
                        Fact::Unavailable(format!(
                            "unknown Arm part {part:#x} of implementer {implementer:#x}"
                        ))
                    },
                    |(_, _, name)| Fact::Measured((*name).to_owned()),
                )
            })
        })
    }
}

fn vendor(implementer: u32) -> Fact<String> {
    let known = IMPLEMENTERS.iter().find(|(number, _)| *number == implementer);
    known.map_or_else(
        || Fact::Unavailable(format!("unknown Arm implementer {implementer:#x}")),
        |(_, name)| Fact::Measured((*name).to_owned()),
    )
}
