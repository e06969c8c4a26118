//! Processors.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::paths::{facts, leaf_facts};
use crate::fact::Fact;
use crate::units::Bytes;

facts! {
    /// The processors of a machine. All of one model: no cloud VM mixes them.
    pub struct Cpu {
        /// Instruction set family, in Kubernetes' names.
        architecture: Fact<Architecture>,
        /// `GenuineIntel`, `AuthenticAMD`, or the name of the Arm implementer.
        vendor: Fact<String>,
        /// Model name for people, such as `Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz` or `Neoverse-N1`.
        model: Fact<String>,
        /// x86 family; absent on Arm.
        family: Fact<u32>,
        /// x86 model number, or the Arm part number.
        model_id: Fact<u32>,
        /// x86 stepping, or the Arm revision.
        stepping: Fact<u32>,
        /// Highest x86-64 psABI level that processor and kernel support; absent on Arm.
        isa_level: Fact<IsaLevel>,
        /// Feature flags in the kernel's spelling, sorted.
        features: Fact<Vec<String>>,
        /// CPUs the kernel has online.
        logical_cpus: Fact<u32>,
        /// Distinct cores.
        physical_cores: Fact<u32>,
        /// Distinct packages.
        sockets: Fact<u32>,
        /// Threads that share a core.
        threads_per_core: Fact<u32>,
        /// Distinct L3 caches.
        l3_domains: Fact<u32>,
        /// Size of one L3 cache.
        l3_bytes: Fact<Bytes>,
    }
}

/// Instruction set family, by the value of `kubernetes.io/arch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// 64-bit Arm.
    Arm64,
}

impl Architecture {
    /// The value of the `kubernetes.io/arch` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Micro-architecture level of the x86-64 psABI (<https://gitlab.com/x86-psABIs/x86-64-ABI>, "low-level system
/// information"): each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IsaLevel {
    /// The baseline: SSE2.
    V1,
    /// SSE4.2, POPCNT, CX16.
    V2,
    /// AVX2, BMI, FMA.
    V3,
    /// AVX-512 F, BW, CD, DQ, VL.
    V4,
}

impl IsaLevel {
    /// The value of the `hardware.assay.dev/cpu-isa` label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::V3 => "v3",
            Self::V4 => "v4",
        }
    }
}

impl fmt::Display for IsaLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

leaf_facts!(Architecture, IsaLevel);
