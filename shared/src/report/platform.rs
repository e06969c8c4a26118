//! Which machine this is and where it runs.

use serde::{Deserialize, Serialize};

use super::paths::{facts, leaf_facts};
use crate::fact::Fact;

facts! {
    /// Which machine, and which boot of it.
    pub struct Identity {
        /// Kubernetes node name the agent was given; absent in a one-off survey.
        node_name: Fact<String>,
        /// `boot_id` of the kernel: a new one means that every fact is read anew.
        boot_id: Fact<String>,
        /// `/etc/machine-id`.
        machine_id: Fact<String>,
        /// Azure's id of the VM; stable over deallocation, although the hardware below may change.
        vm_id: Fact<String>,
    }
}

facts! {
    /// Where the machine runs.
    pub struct Platform {
        /// Which cloud, told from DMI.
        cloud: Fact<Cloud>,
        /// Size it was bought as, such as `Standard_D4s_v5`.
        vm_size: Fact<String>,
        /// Region, such as `eastus`.
        location: Fact<String>,
        /// Zone inside the region, such as `1`; absent for a regional VM.
        zone: Fact<String>,
        /// Whether the cloud may take it back.
        priority: Fact<Priority>,
        /// What it runs on.
        hypervisor: Fact<Hypervisor>,
        /// Azure VM generation: 2 boots by UEFI.
        generation: Fact<VmGeneration>,
        /// Kernel release, as `uname -r` prints it.
        kernel_release: Fact<String>,
        /// `PRETTY_NAME` of os-release.
        os_image: Fact<String>,
    }
}

/// A cloud whose metadata Assay understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cloud {
    /// Microsoft Azure.
    Azure,
    /// None that is known here: bare metal, a laptop, a plain virtual machine.
    None,
}

/// Whether a VM may be taken back by the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Bought at the on-demand price, kept until deleted.
    Regular,
    /// Bought at the spot price, may be preempted.
    Spot,
}

/// What a machine runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hypervisor {
    /// Microsoft Hyper-V, which Azure uses.
    Hyperv,
    /// Linux KVM.
    Kvm,
    /// VMware.
    Vmware,
    /// Xen.
    Xen,
    /// A hypervisor that is none of these.
    Other,
    /// Bare metal.
    None,
}

/// Azure VM generation, `1` or `2` in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum VmGeneration {
    /// BIOS boot.
    One,
    /// UEFI boot.
    Two,
}

impl From<VmGeneration> for u8 {
    fn from(generation: VmGeneration) -> Self {
        match generation {
            VmGeneration::One => 1,
            VmGeneration::Two => 2,
        }
    }
}

impl TryFrom<u8> for VmGeneration {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        match number {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            other => Err(format!("VM generation: expected 1 or 2, found {other}")),
        }
    }
}

/// Something the cloud announced for this machine (Azure Scheduled Events).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledEvent {
    /// What will happen.
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// Not before this time, as the cloud wrote it; empty once it has started.
    pub not_before: String,
}

/// What the cloud will do to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EventType {
    /// The spot VM is taken back, 30 s notice at least.
    Preempt,
    /// The VM is deleted by request.
    Terminate,
    /// The VM reboots.
    Reboot,
    /// The VM moves to another host; ephemeral disks are lost.
    Redeploy,
    /// The VM pauses for a few seconds.
    Freeze,
}

leaf_facts!(Cloud, Priority, Hypervisor, VmGeneration, ScheduledEvent, EventType);
