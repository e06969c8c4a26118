//! Disks.

use serde::{Deserialize, Serialize};

use super::paths::{facts, leaf_facts};
use crate::fact::Fact;
use crate::units::Bytes;

facts! {
    /// One disk. Partitions, loop devices and device-mapper targets are left out.
    pub struct Disk {
        /// The kernel's name, such as `sda` or `nvme0n1`.
        name: String,
        /// What it is for, told from its controller, never from its name.
        role: DiskRole,
        /// Its size.
        size_bytes: Fact<Bytes>,
        /// Model the controller reports.
        model: Fact<String>,
        /// Whether it is an operating system disk kept on local storage; only IMDS tells.
        ephemeral_os: Fact<bool>,
        /// Who uses it; absent where nobody does.
        in_use_by: Fact<DiskUser>,
    }
}

/// What a disk is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskRole {
    /// The operating system.
    Os,
    /// Azure's temporary (resource) disk.
    Temp,
    /// A local NVMe disk.
    LocalNvme,
    /// An attached data disk.
    Data,
    /// Anything else.
    #[default]
    Other,
}

/// Who uses a disk, most important first: of several users the first one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskUser {
    /// The operating system is on it, or swaps to it.
    Os,
    /// The kubelet's directory, or a volume of a pod, is on it.
    Kubelet,
    /// A software RAID is built on it.
    Md,
    /// A device-mapper target (LVM, encryption) is built on it.
    Dm,
    /// It is mounted somewhere else.
    Mount,
}

leaf_facts!(DiskRole, DiskUser);
