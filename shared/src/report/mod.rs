//! The hardware report: everything Assay knows about one machine, as it was measured there.
//!
//! The agent's survey fills it, the fleet link carries it (`crate::wire`), the scheduler's profile and mismatch
//! detection read it, and [`document`] gives it the stable JSON form of `docs/hardware-report.md`. Which file each fact is
//! read from stands beside its probe in `assay-agent`.

mod cpu;
pub mod document;
mod gpu;
mod memory;
mod network;
mod paths;
mod platform;
mod storage;

use serde::{Deserialize, Serialize};

pub use cpu::{Architecture, Cpu, IsaLevel};
pub use document::{ReportDocument, UnavailableFact};
pub use gpu::{GpuDevice, GpuPartition, GpuState, GpuVendor, Gpus};
pub use memory::{Hugepages, Memory, NumaNode};
pub use network::{
    AcceleratedNetworking, InterfaceRole, Network, NetworkInterface, RdmaDevice, RdmaLinkLayer, RdmaState,
};
pub use paths::Facts;
pub use platform::{
    Cloud, EventType, Hypervisor, Identity, Platform, Priority, ScheduledEvent, VmGeneration,
};
pub use storage::{Disk, DiskRole, DiskUser};

use crate::fact::Fact;
use paths::facts;

facts! {
    /// What one survey of one machine found.
    pub struct HardwareReport {
        /// Which machine, and which boot of it.
        identity: Identity,
        /// Where it runs: cloud, size, zone, hypervisor, kernel.
        platform: Platform,
        /// Its processors.
        cpu: Cpu,
        /// Its memory.
        memory: Memory,
        /// Its NUMA nodes, by id.
        numa: Fact<Vec<NumaNode>>,
        /// Its GPUs, counted three ways; the fourth, what was bought, is the catalogue's.
        gpus: Gpus,
        /// Its network.
        network: Network,
        /// Its disks, by name.
        disks: Fact<Vec<Disk>>,
        /// What the cloud has announced for it.
        events: Fact<Vec<ScheduledEvent>>,
        /// Facts on which two sources disagree. The report holds the more careful of the two.
        disagreements: Vec<Disagreement>,
    }
}

/// Two sources told a different story about one fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Disagreement {
    /// Path of the fact in the report, such as `cpu.features`.
    pub fact: String,
    /// What each source said.
    pub detail: String,
}

paths::leaf_facts!(Disagreement);
