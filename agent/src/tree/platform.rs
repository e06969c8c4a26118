//! Platform of simulated machines: firmware, kernel, operating system, and what IMDS answers.

use assay_shared::report::{Priority, ScheduledEvent};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Damage, MemTree};

/// What a machine runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Host {
    /// An Azure VM that boots by UEFI.
    AzureGen2,
    /// An Azure VM that boots by BIOS.
    AzureGen1,
    /// A plain KVM guest without firmware tables, such as a microVM.
    Kvm,
}

impl Host {
    /// Whether it is an Azure VM, and so one on Hyper-V.
    #[must_use]
    pub const fn is_azure(self) -> bool {
        matches!(self, Self::AzureGen1 | Self::AzureGen2)
    }
}

/// Kernel and operating system.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct System {
    /// Kernel release.
    pub kernel: String,
    /// `PRETTY_NAME` of os-release.
    pub os: String,
    /// Boot id.
    pub boot_id: String,
    /// Machine id.
    pub machine_id: String,
}

impl Default for System {
    fn default() -> Self {
        Self {
            kernel: "5.15.0-1075-azure".to_owned(),
            os: "Ubuntu 22.04.5 LTS".to_owned(),
            boot_id: "0f1e2d3c-4b5a-4968-8776-655443322110".to_owned(),
            machine_id: "00112233445566778899aabbccddeeff".to_owned(),
        }
    }
}

/// What IMDS knows of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Imds {
    /// Azure's id of the VM.
    pub vm_id: String,
    /// Name of the VM.
    pub name: String,
    /// Size, such as `Standard_D4s_v5`.
    pub vm_size: String,
    /// Region.
    pub location: String,
    /// Zone; empty for a regional VM.
    #[serde(default)]
    pub zone: String,
    /// Whether it may be taken back.
    #[serde(default = "regular")]
    pub priority: Priority,
    /// Whether the operating system disk is on local storage.
    #[serde(default)]
    pub ephemeral_os: bool,
    /// Size of the temporary disk, KiB; 0 for none.
    #[serde(default)]
    pub resource_disk_kib: u64,
    /// What is announced for this VM.
    #[serde(default)]
    pub events: Vec<ScheduledEvent>,
}

fn regular() -> Priority {
    Priority::Regular
}

impl Imds {
    /// The instance document, every value text as in Azure's, and the scheduled events beside it.
    pub(super) fn json(&self, macs: &[&str]) -> Value {
        let priority = match self.priority {
            Priority::Regular => "Regular",
            Priority::Spot => "Spot",
        };
        let mut os_disk = json!({"caching": "ReadOnly", "createOption": "FromImage", "diskSizeGB": "128"});
        os_disk["diffDiskSettings"] = json!({"option": if self.ephemeral_os { "Local" } else { "" }});
        let interface = |mac: &&str| json!({"macAddress": mac.replace(':', "").to_uppercase()});
        let event = |(index, event): (usize, &ScheduledEvent)| {
            json!({
                "EventId": format!("00000000-0000-4000-8000-{index:012}"), "EventType": event.event_type,
                "ResourceType": "VirtualMachine", "Resources": [self.name], "NotBefore": event.not_before,
                "EventStatus": if event.not_before.is_empty() { "Started" } else { "Scheduled" },
                "Description": "", "EventSource": "Platform", "DurationInSeconds": -1,
            })
        };
        json!({
            "compute": {
                "vmId": self.vm_id, "name": self.name, "vmSize": self.vm_size, "location": self.location,
                "zone": self.zone, "priority": priority, "azEnvironment": "AzurePublicCloud", "osType": "Linux",
                "evictionPolicy": if self.priority == Priority::Spot { "Delete" } else { "" },
                "storageProfile": {
                    "dataDisks": [], "osDisk": os_disk,
                    "resourceDisk": {"size": self.resource_disk_kib.to_string()},
                },
            },
            "network": {"interface": macs.iter().map(interface).collect::<Vec<_>>()},
            "scheduledEvents": {
                "DocumentIncarnation": 1,
                "Events": self.events.iter().enumerate().map(event).collect::<Vec<_>>(),
            },
        })
    }
}

pub(super) fn write(tree: &mut MemTree, host: Host, system: &System, mountinfo: &str) {
    let System { kernel, os, boot_id, machine_id } = system;
    tree.file("proc/sys/kernel/osrelease", format!("{kernel}\n"));
    tree.file("proc/sys/kernel/random/boot_id", format!("{boot_id}\n"));
    tree.file("etc/machine-id", format!("{machine_id}\n"));
    let id = os.split_whitespace().next().unwrap_or("linux");
    tree.file(
        "usr/lib/os-release",
        format!("PRETTY_NAME=\"{os}\"\nNAME=\"{id}\"\nID={}\n", id.to_lowercase()),
    );
    tree.link("etc/os-release", "../usr/lib/os-release");
    tree.file("proc/cmdline", "BOOT_IMAGE=/boot/vmlinuz root=UUID=0 ro console=tty1 console=ttyS0\n");
    tree.file("proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
    tree.file(
        "proc/1/mountinfo",
        format!(
            "22 1 0:21 / /proc rw,nosuid shared:13 - proc proc rw\n23 1 0:22 / /sys rw,nosuid shared:7 - sysfs sysfs rw\n\
             {mountinfo}"
        ),
    );
    let clock = if host.is_azure() { "hyperv_clocksource_tsc_page" } else { "kvm-clock" };
    let clocks = "sys/devices/system/clocksource/clocksource0";
    tree.file(&format!("{clocks}/current_clocksource"), format!("{clock}\n"));
    tree.file(&format!("{clocks}/available_clocksource"), format!("{clock} tsc acpi_pm\n"));
    if host.is_azure() {
        let dmi = "sys/devices/virtual/dmi/id";
        for (file, text) in [
            ("sys_vendor", "Microsoft Corporation"),
            ("product_name", "Virtual Machine"),
            ("board_vendor", "Microsoft Corporation"),
            ("bios_vendor", "Microsoft Corporation"),
            // The tag by which Azure's VMs know themselves; Hyper-V elsewhere has none.
            ("chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77"),
        ] {
            tree.file(&format!("{dmi}/{file}"), format!("{text}\n"));
        }
        // For root only.
        tree.damage(&format!("{dmi}/product_uuid"), Damage::DENIED);
        tree.link_to("sys/class/dmi/id", dmi);
    }
    if host == Host::AzureGen2 {
        tree.file("sys/firmware/efi/fw_platform_size", "64\n");
    }
}
