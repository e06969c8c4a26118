//! Disks of simulated machines: Hyper-V SCSI, NVMe, virtio, and what is mounted from them.

use assay_shared::units::Bytes;
use serde::Deserialize;

use super::MemTree;
use super::memory::size;
use super::pci::{Function, vmbus_device};

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// The kernel's name.
    pub name: String,
    /// Where it is attached.
    pub bus: DiskBus,
    /// Its size, a multiple of 512 bytes.
    #[serde(deserialize_with = "size")]
    pub size: Bytes,
    /// Mount points of its first partition, or of the whole disk where it has none.
    #[serde(default)]
    pub mounts: Vec<String>,
    /// Whether it has a partition.
    #[serde(default)]
    pub partitioned: bool,
    /// Software RAID that it is part of, such as `md0`.
    #[serde(default)]
    pub member_of: Option<String>,
}

/// Where a disk is attached: that tells what it is for, not its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    /// Generation 2: first controller, LUN 0.
    AzureScsiOs,
    /// Generation 2: first controller, LUN 1: the temporary disk.
    AzureScsiTemp,
    /// Second controller, with the LUN the disk was attached at.
    AzureScsiData(u8),
    /// Generation 1: its own controller for the operating system.
    AzureIdeOs,
    /// Generation 1: its own controller for the temporary disk.
    AzureIdeTemp,
    /// Remote disks shown as NVMe: namespace 1 holds the operating system, namespace n is LUN n - 2.
    AzureNvmeRemote(u32),
    /// A local NVMe disk of v5 and older sizes, and of all sizes with local storage as their purpose.
    AzureNvmeLocal,
    /// A local NVMe disk of v6 and later sizes.
    AzureNvmeLocalV2,
    /// KVM's.
    Virtio,
}

/// Controllers of Generation 2 VMs, as azure-vm-utils knows them.
const SCSI_SYSTEM: &str = "f8b3781a-1e82-4818-a1c3-63d806ec15bb";
const SCSI_DATA: &str = "f8b3781b-1e82-4818-a1c3-63d806ec15bb";
/// Those of Generation 1: only the beginning is fixed.
const IDE_OS: &str = "00000000-0000-8899-0000-000000000000";
const IDE_TEMP: &str = "00000000-0001-8899-0000-000000000000";
const SCSI_CLASS: &str = "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f";
const IDE_CLASS: &str = "32412632-86cb-44a2-9b5c-50d1417354f5";

impl Disk {
    /// A disk that nobody uses.
    #[must_use]
    pub fn new(name: &str, bus: DiskBus, size: Bytes) -> Self {
        Self { name: name.to_owned(), bus, size, mounts: Vec::new(), partitioned: false, member_of: None }
    }

    /// With one partition, mounted at these points.
    #[must_use]
    pub fn mounted(mut self, points: &[&str]) -> Self {
        self.partitioned = true;
        self.mounts = points.iter().map(|&point| point.to_owned()).collect();
        self
    }

    /// Major and minor number of the disk; its partition has the next minor.
    fn number(&self, index: usize) -> (u32, usize) {
        match self.bus {
            DiskBus::AzureNvmeRemote(_) | DiskBus::AzureNvmeLocal | DiskBus::AzureNvmeLocalV2 => {
                (259, index * 16)
            }
            DiskBus::Virtio => (254, index * 16),
            _ => (8, index * 16),
        }
    }

    fn partition(&self) -> String {
        let digit_last = self.name.ends_with(|last: char| last.is_ascii_digit());
        format!("{}{}1", self.name, if digit_last { "p" } else { "" })
    }

    /// Lines of `mountinfo` for this disk.
    pub(super) fn mountinfo(&self, index: usize) -> String {
        let (major, minor) = self.number(index);
        let (minor, device) =
            if self.partitioned { (minor + 1, self.partition()) } else { (minor, self.name.clone()) };
        let line = |(n, point): (usize, &String)| {
            format!(
                "{} 1 {major}:{minor} / {point} rw,relatime shared:1 - ext4 /dev/{device} rw\n",
                100 + index * 10 + n
            )
        };
        self.mounts.iter().enumerate().map(line).collect()
    }

    pub(super) fn write(&self, tree: &mut MemTree, index: usize) {
        let dir = match self.bus {
            DiskBus::AzureScsiOs => self.scsi(tree, SCSI_SYSTEM, SCSI_CLASS, 0, 0),
            DiskBus::AzureScsiTemp => self.scsi(tree, SCSI_SYSTEM, SCSI_CLASS, 0, 1),
            DiskBus::AzureScsiData(lun) => self.scsi(tree, SCSI_DATA, SCSI_CLASS, 1, lun),
            DiskBus::AzureIdeOs => self.scsi(tree, IDE_OS, IDE_CLASS, 0, 0),
            DiskBus::AzureIdeTemp => self.scsi(tree, IDE_TEMP, IDE_CLASS, 1, 0),
            DiskBus::AzureNvmeRemote(namespace) => {
                self.nvme(tree, "MSFT NVMe Accelerator v1.0", "c05b:00:00.0", 0xb111, namespace)
            }
            DiskBus::AzureNvmeLocal => {
                self.nvme(tree, "Microsoft NVMe Direct Disk", &local(&self.name), 0xb111, 1)
            }
            DiskBus::AzureNvmeLocalV2 => {
                self.nvme(tree, "Microsoft NVMe Direct Disk v2", &local(&self.name), 0x00a9, 1)
            }
            DiskBus::Virtio => {
                let pci = Function {
                    address: &format!("0000:00:{:02x}.0", 0x10 + index),
                    vendor: 0x1af4,
                    device: 0x1042,
                    class: 0x01_8000,
                    numa_node: None,
                    driver: Some("virtio-pci"),
                };
                let virtio = format!("{}/virtio{}", pci.write(tree, false), 16 + index);
                let driver = "sys/bus/virtio/drivers/virtio_blk";
                tree.directory(driver).link_to(&format!("{virtio}/driver"), driver);
                let dir = format!("{virtio}/block/{}", self.name);
                tree.link_to(&format!("{dir}/device"), &virtio);
                dir
            }
        };
        self.write_block(tree, &dir, index);
    }

    fn scsi(&self, tree: &mut MemTree, controller: &str, class: &str, host: u8, lun: u8) -> String {
        let bus = vmbus_device(tree, controller, class, "hv_storvsc");
        let device = format!("{bus}/host{host}/target{host}:0:0/{host}:0:0:{lun}");
        tree.file(&format!("{device}/vendor"), "Msft    \n");
        tree.file(&format!("{device}/model"), "Virtual Disk    \n");
        tree.file(&format!("{device}/type"), "0\n");
        let dir = format!("{device}/block/{}", self.name);
        tree.link_to(&format!("{dir}/device"), &device);
        dir
    }

    fn nvme(&self, tree: &mut MemTree, model: &str, address: &str, device: u16, namespace: u32) -> String {
        let pci = Function {
            address,
            vendor: 0x1414,
            device,
            class: 0x01_0802,
            numa_node: None,
            driver: Some("nvme"),
        };
        let bus = pci.write(tree, true);
        let name = controller(&self.name);
        let dir = format!("{bus}/nvme/{name}");
        tree.file(&format!("{dir}/model"), format!("{model:<40}\n"));
        tree.file(&format!("{dir}/serial"), format!("{:<20}\n", "SN: 000001"));
        tree.file(&format!("{dir}/transport"), "pcie\n");
        tree.link_to(&format!("{dir}/device"), &bus);
        tree.link_to(&format!("sys/class/nvme/{name}"), &dir);
        let block = format!("{dir}/{}", self.name);
        tree.file(&format!("{block}/nsid"), format!("{namespace}\n"));
        tree.link_to(&format!("{block}/device"), &dir);
        block
    }

    fn write_block(&self, tree: &mut MemTree, dir: &str, index: usize) {
        let (major, minor) = self.number(index);
        let sectors = self.size.0 / 512;
        tree.file(&format!("{dir}/size"), format!("{sectors}\n"));
        tree.file(&format!("{dir}/dev"), format!("{major}:{minor}\n"));
        tree.file(&format!("{dir}/removable"), "0\n");
        tree.file(&format!("{dir}/ro"), "0\n");
        // Hyper-V says so of every virtual disk, whatever it is stored on.
        tree.file(&format!("{dir}/queue/rotational"), "1\n");
        tree.file(&format!("{dir}/queue/logical_block_size"), "512\n");
        tree.directory(&format!("{dir}/holders")).directory(&format!("{dir}/slaves"));
        for (class, name) in [("sys/block", self.name.as_str()), ("sys/class/block", &self.name)] {
            tree.link_to(&format!("{class}/{name}"), dir);
        }
        tree.link_to(&format!("sys/dev/block/{major}:{minor}"), dir);
        if self.partitioned {
            let name = self.partition();
            let partition = format!("{dir}/{name}");
            tree.file(&format!("{partition}/partition"), "1\n");
            tree.file(&format!("{partition}/start"), "2048\n");
            tree.file(&format!("{partition}/size"), format!("{}\n", sectors.saturating_sub(4096)));
            tree.file(&format!("{partition}/dev"), format!("{major}:{}\n", minor + 1));
            tree.directory(&format!("{partition}/holders"));
            tree.link_to(&format!("sys/class/block/{name}"), &partition);
            tree.link_to(&format!("sys/dev/block/{major}:{}", minor + 1), &partition);
        }
        if let Some(array) = &self.member_of {
            let md = format!("sys/devices/virtual/block/{array}");
            tree.file(&format!("{md}/size"), format!("{sectors}\n"));
            tree.file(&format!("{md}/dev"), "9:0\n");
            tree.link_to(&format!("{md}/slaves/{}", self.name), dir);
            tree.link_to(&format!("{dir}/holders/{array}"), &md);
            tree.link_to(&format!("sys/block/{array}"), &md);
            tree.link_to("sys/dev/block/9:0", &md);
        }
    }
}

/// Controller of a namespace: `nvme0` of `nvme0n1`.
fn controller(namespace: &str) -> &str {
    namespace.rfind('n').filter(|&at| at > 0).map_or(namespace, |at| &namespace[..at])
}

/// PCI address of a local NVMe disk: each one has a controller of its own.
fn local(namespace: &str) -> String {
    let digits: String = controller(namespace).chars().filter(char::is_ascii_digit).collect();
    let number: u16 = digits.parse().unwrap_or(0);
    format!("{:04x}:00:00.0", 0xc100_u16.saturating_add(number))
}
