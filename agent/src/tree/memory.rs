//! Memory of simulated machines: `/proc/meminfo`, memory blocks, NUMA nodes, huge pages, the control group of the pods.

use assay_shared::units::Bytes;
use serde::{Deserialize, Deserializer};

use super::MemTree;
use super::cpu::Cpu;

/// The memory of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Memory {
    /// RAM the hypervisor gives: a multiple of 128 MiB, the smallest memory block.
    #[serde(deserialize_with = "size")]
    pub installed: Bytes,
    /// `MemTotal`. Where not given, what a kernel leaves: [`kernel_total`].
    #[serde(default, deserialize_with = "some_size")]
    pub total: Option<Bytes>,
    /// Pages of 2 MiB set aside.
    #[serde(default)]
    pub hugepages_2mib: u64,
    /// Pages of 1 GiB set aside.
    #[serde(default)]
    pub hugepages_1gib: u64,
    /// Memory limit of the `kubepods` control group; none without a kubelet.
    #[serde(default, deserialize_with = "some_size")]
    pub kubepods_limit: Option<Bytes>,
}

/// What a Linux kernel leaves of RAM: 1/64 goes to page structures, and about 110 MiB to itself. Fitted to published
/// `MemTotal` figures of Azure VMs, which lie 100 to 320 MiB below the 63/64.
#[must_use]
pub const fn kernel_total(installed: Bytes) -> Bytes {
    Bytes(installed.0 - installed.0 / 64).saturating_sub(Bytes::mib(110))
}

impl Memory {
    /// So much RAM, and an ordinary kernel on it.
    #[must_use]
    pub const fn new(installed: Bytes) -> Self {
        Self { installed, total: None, hugepages_2mib: 0, hugepages_1gib: 0, kubepods_limit: None }
    }

    /// `MemTotal`.
    #[must_use]
    pub fn kernel_total(&self) -> Bytes {
        self.total.unwrap_or_else(|| kernel_total(self.installed))
    }

    pub(super) fn write(&self, cpu: &Cpu, tree: &mut MemTree) {
        let total_kib = self.kernel_total().0 / 1024;
        tree.file("proc/meminfo", self.meminfo(total_kib));

        let block = self.block_size();
        let blocks = "sys/devices/system/memory";
        tree.file(&format!("{blocks}/block_size_bytes"), format!("{:x}\n", block.0));
        // RAM leaves a hole for devices below 4 GiB, on Azure from 1 GiB on; block numbers go on behind it.
        let hole = (1 << 30) / block.0..(4 << 30) / block.0;
        let numbers = (0..).filter(|number| !hole.contains(number));
        for number in numbers.take(usize::try_from(self.installed.0 / block.0).unwrap_or(usize::MAX)) {
            tree.file(&format!("{blocks}/memory{number}/state"), "online\n");
        }

        let nodes = cpu.numa_nodes.max(1);
        let online = if nodes == 1 { "0\n".to_owned() } else { format!("0-{}\n", nodes - 1) };
        for file in ["online", "possible", "has_cpu", "has_memory", "has_normal_memory"] {
            tree.file(&format!("sys/devices/system/node/{file}"), online.as_str());
        }
        for node in 0..nodes {
            let dir = format!("sys/devices/system/node/node{node}");
            let distances: Vec<&str> =
                (0..nodes).map(|other| if other == node { "10" } else { "21" }).collect();
            let share = total_kib / u64::from(nodes);
            tree.file(&format!("{dir}/cpulist"), format!("{}\n", cpu.node_cpus(node)));
            tree.file(&format!("{dir}/distance"), format!("{}\n", distances.join(" ")));
            tree.file(
                &format!("{dir}/meminfo"),
                format!(
                    "Node {node} MemTotal:       {share:8} kB\nNode {node} MemFree:        {:8} kB\n\
                     Node {node} MemUsed:        {:8} kB\nNode {node} HugePages_Total: {:5}\n",
                    share / 2,
                    share - share / 2,
                    self.hugepages_2mib / u64::from(nodes),
                ),
            );
        }

        for (kib, pages) in [(2048, self.hugepages_2mib), (1_048_576, self.hugepages_1gib)] {
            let dir = format!("sys/kernel/mm/hugepages/hugepages-{kib}kB");
            for (file, count) in [("nr", pages), ("free", pages), ("resv", 0), ("surplus", 0)] {
                tree.file(&format!("{dir}/{file}_hugepages"), format!("{count}\n"));
            }
        }
        if let Some(limit) = self.kubepods_limit {
            tree.file("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n");
            tree.file("sys/fs/cgroup/kubepods.slice/memory.max", format!("{}\n", limit.0));
        }
    }

    /// 128 MiB, and from 64 GiB of RAM on the largest that divides it (`probe_memory_block_size`,
    /// arch/x86/mm/init_64.c), up to 1 GiB because the hole starts there.
    fn block_size(&self) -> Bytes {
        let sizes = [1024, 512, 256].map(Bytes::mib);
        let large = self.installed >= Bytes::gib(64);
        let fits = sizes.into_iter().find(|size| large && self.installed.0.is_multiple_of(size.0));
        fits.unwrap_or(Bytes::mib(128))
    }

    fn meminfo(&self, total_kib: u64) -> String {
        let hugepages = self.hugepages_2mib * 2048 + self.hugepages_1gib * 1_048_576;
        let free = total_kib.saturating_sub(hugepages) * 7 / 10;
        format!(
            "MemTotal:       {total_kib:8} kB\nMemFree:        {free:8} kB\nMemAvailable:   {free:8} kB\n\
             Buffers:           15788 kB\nCached:          1538024 kB\nSwapCached:            0 kB\n\
             SwapTotal:             0 kB\nSwapFree:              0 kB\nAnonPages:         19132 kB\n\
             Slab:             212172 kB\nPageTables:         2092 kB\nHugePages_Total:   {:5}\n\
             HugePages_Free:    {:5}\nHugePages_Rsvd:        0\nHugePages_Surp:        0\n\
             Hugepagesize:       2048 kB\nHugetlb:        {hugepages:8} kB\n",
            self.hugepages_2mib, self.hugepages_2mib,
        )
    }
}

/// A size in a machine file: a number of bytes, or text such as `16 GiB`, `16403296 KiB`.
pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected bytes or a size such as \"16 GiB\"")]
    enum Written {
        Bytes(u64),
        Text(String),
    }
    match Written::deserialize(deserializer)? {
        Written::Bytes(bytes) => Ok(Bytes(bytes)),
        Written::Text(text) => parse_size(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("expected a size such as \"16 GiB\", found {text:?}"))
        }),
    }
}

pub(super) fn some_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    size(deserializer).map(Some)
}

fn parse_size(text: &str) -> Option<Bytes> {
    let (number, unit) = text.trim().split_once(' ')?;
    let scale = match unit.trim() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(scale).map(Bytes)
}
