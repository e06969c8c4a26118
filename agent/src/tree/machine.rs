//! A machine in a few words, and the files it would show.
//!
//! [`Machine`] says what hardware there is; [`Machine::tree`] writes every file that a survey reads, in the kernel's
//! formats. The simulator builds machines in code; test fixtures are machine files, read by `Deserialize`.

use std::collections::BTreeMap;

use assay_shared::report::HardwareReport;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::cpu::Cpu;
use super::disks::Disk;
use super::gpu::{Gpu, GpuDriver, library_facts};
use super::memory::Memory;
use super::network::{Nic, RdmaPort, write_virtual};
use super::platform::{self, Host, Imds, System};
use super::{Damage, MemTree};
use crate::gpu::{GpuLibraryError, GpuLibraryFacts, Scripted};
use crate::imds;
use crate::survey::{SurveyOptions, survey};

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Machine {
    /// What it runs on.
    pub host: Host,
    /// Kernel and operating system.
    #[serde(default)]
    pub system: System,
    /// Its processors and NUMA nodes.
    pub cpu: Cpu,
    /// Its memory.
    pub memory: Memory,
    /// Its network interfaces.
    #[serde(default)]
    pub nics: Vec<Nic>,
    /// Its RDMA ports.
    #[serde(default)]
    pub rdma: Vec<RdmaPort>,
    /// Its GPUs.
    #[serde(default)]
    pub gpus: Vec<Gpu>,
    /// Their driver; without it no GPU is bound.
    #[serde(default)]
    pub gpu_driver: Option<GpuDriver>,
    /// Its disks.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// What IMDS answers; nothing without it.
    #[serde(default)]
    pub imds: Option<Imds>,
    /// Files to add or to replace, by path.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Files that are damaged, by path.
    #[serde(default, deserialize_with = "damages")]
    pub errors: BTreeMap<String, Damage>,
}

impl Machine {
    /// A machine without devices.
    #[must_use]
    pub fn new(host: Host, cpu: Cpu, memory: Memory) -> Self {
        Self {
            host,
            system: System::default(),
            cpu,
            memory,
            nics: Vec::new(),
            rdma: Vec::new(),
            gpus: Vec::new(),
            gpu_driver: None,
            disks: Vec::new(),
            imds: None,
            files: BTreeMap::new(),
            errors: BTreeMap::new(),
        }
    }

    /// Every file that a survey of this machine reads.
    #[must_use]
    pub fn tree(&self) -> MemTree {
        let mut tree = MemTree::new();
        self.cpu.write(&mut tree);
        self.memory.write(&self.cpu, &mut tree);
        let mountinfo: String =
            self.disks.iter().enumerate().map(|(index, disk)| disk.mountinfo(index)).collect();
        platform::write(&mut tree, self.host, &self.system, &mountinfo);
        // Every kernel with PCI and with block devices has these, used or not.
        for directory in ["sys/bus/pci/devices", "sys/class/net", "sys/block", "sys/class/block"] {
            tree.directory(directory);
        }
        write_virtual(&mut tree, self.memory.kubepods_limit.is_some());
        for (index, nic) in self.nics.iter().enumerate() {
            nic.write(&mut tree, index);
        }
        for port in &self.rdma {
            port.write(&mut tree);
        }
        for (index, gpu) in self.gpus.iter().enumerate() {
            gpu.write(&mut tree, self.gpu_driver.as_ref(), index);
        }
        for (index, disk) in self.disks.iter().enumerate() {
            disk.write(&mut tree, index);
        }
        for (path, text) in &self.files {
            tree.file(path, text.as_str());
        }
        for (path, damage) in &self.errors {
            tree.damage(path, *damage);
        }
        tree
    }

    /// What IMDS answers on this machine: the instance document, with the scheduled events under `scheduledEvents`.
    /// `assay-agent survey --imds FILE` takes the same.
    #[must_use]
    pub fn imds_json(&self) -> Option<Value> {
        let macs: Vec<&str> = self.nics.iter().map(|nic| nic.mac.as_str()).collect();
        self.imds.as_ref().map(|imds| imds.json(&macs))
    }

    /// What NVIDIA's library answers on this machine; AMD's GPUs are told by the tree alone.
    ///
    /// # Errors
    /// Those of the library: there is none, no driver, or the wrong one.
    pub fn gpu_facts(&self) -> Result<GpuLibraryFacts, GpuLibraryError> {
        library_facts(&self.gpus, self.gpu_driver.as_ref())
    }

    /// What an agent on this machine reports: the real survey of its tree, its IMDS and its GPU library.
    #[must_use]
    pub fn report(&self, node_name: Option<&str>) -> HardwareReport {
        self.report_of(&self.tree(), node_name)
    }

    /// The same of a tree that was changed after [`tree`](Self::tree) made it.
    #[must_use]
    pub fn report_of(&self, tree: &MemTree, node_name: Option<&str>) -> HardwareReport {
        let options = SurveyOptions {
            node_name: node_name.map(str::to_owned),
            imds: self.imds_json().map(|answer| imds::parse::file(answer.to_string().as_bytes())),
            cpuid: None,
            gpu_library: &Scripted(self.gpu_facts()),
        };
        survey(tree, &options)
    }
}

fn damages<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Damage>, D::Error> {
    let words = BTreeMap::<String, String>::deserialize(deserializer)?;
    let parse = |(path, word): (String, String)| match word.parse() {
        Ok(damage) => Ok((path, damage)),
        Err(error) => Err(serde::de::Error::custom(format!("{path:?}: {error}"))),
    };
    words.into_iter().map(parse).collect()
}
