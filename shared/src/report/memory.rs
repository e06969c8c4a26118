//! Memory and its NUMA layout.

use serde::{Deserialize, Serialize};

use super::paths::{facts, leaf_facts};
use crate::fact::Fact;
use crate::units::Bytes;

facts! {
    /// The memory of a machine.
    pub struct Memory {
        /// RAM the hypervisor gave: online memory blocks times their size. What differs from the catalogue here is
        /// the cloud's doing; what is missing in `total_bytes` is the kernel's.
        installed_bytes: Fact<Bytes>,
        /// `MemTotal`: what the kubelet reports as capacity.
        total_bytes: Fact<Bytes>,
        /// Limit of the `kubepods` control group, the node's real budget for pods; absent without a kubelet.
        kubepods_limit_bytes: Fact<Bytes>,
        /// Preallocated huge pages, by page size. They are not part of the kubelet's memory allocatable.
        hugepages: Fact<Vec<Hugepages>>,
    }
}

/// Preallocated huge pages of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hugepages {
    /// Size of one page.
    pub size_bytes: Bytes,
    /// Pages set aside.
    pub total: u64,
    /// Pages nobody uses yet.
    pub free: u64,
}

facts! {
    /// One NUMA node.
    pub struct NumaNode {
        /// The kernel's number for it.
        id: u32,
        /// Its CPUs as the kernel lists them, such as `0-23`; empty for a node of memory only.
        cpus: Fact<String>,
        /// Its memory, without hot-added blocks: the sum over nodes may be below `memory.total_bytes`.
        memory_bytes: Fact<Bytes>,
        /// Relative distance to every node, in node order; 10 is itself.
        distances: Fact<Vec<u32>>,
    }
}

leaf_facts!(Hugepages);
