//! Azure's instance metadata service (IMDS): what the cloud says about this VM.
//!
//! The answer comes from the service itself ([`client`]) or from a file that holds one; [`parse`] reads either. Nothing
//! is ever sent but GET: a POST to the scheduled events would approve them.

pub mod client;
pub mod parse;

use assay_shared::Fact;
use assay_shared::report::{Priority, ScheduledEvent};
use assay_shared::units::Bytes;

/// An answer of IMDS, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The VM.
    pub instance: Fact<Instance>,
    /// What is announced for it.
    pub events: Fact<Vec<ScheduledEvent>>,
}

/// What IMDS knows about a VM. An empty string there is an absent fact here.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Id of the VM, lower case.
    pub vm_id: Fact<String>,
    /// Name of the VM, by which scheduled events name it.
    pub name: Fact<String>,
    /// Size it was bought as, such as `Standard_D4s_v5`.
    pub vm_size: Fact<String>,
    /// Region, such as `eastus`.
    pub location: Fact<String>,
    /// Zone inside the region, such as `1`.
    pub zone: Fact<String>,
    /// Whether the cloud may take it back.
    pub priority: Fact<Priority>,
    /// Whether the operating system disk is kept on local storage.
    pub ephemeral_os_disk: Fact<bool>,
    /// Size of the SCSI temporary disk; absent without one. What it says on sizes with NVMe temporary disks is not
    /// documented, so a disk that is seen decides over it.
    pub resource_disk_bytes: Fact<Bytes>,
}
