//! Disks, by the controller they hang on.
//!
//! Names mean nothing on Azure: `sda` may be the temporary disk, `nvme0n1` the operating system. The VMBus identity of a SCSI
//! controller and the model of an NVMe controller tell what a disk is for, as Azure's own udev rules (azure-vm-utils) do it.

mod usage;

use assay_shared::Fact;
use assay_shared::report::{Disk, DiskRole, DiskUser};
use assay_shared::units::Bytes;

use crate::host::HostFs;
use crate::host::read::{self, Missing};
use crate::imds::Instance;
use usage::Mounts;

const BLOCK: &str = "sys/block";
/// Disks looked at; a node with many volumes has a few hundred block devices.
const DISKS_MAX: usize = 4096;
/// `size` counts in these, whatever the disk's own block size.
const SECTOR: Bytes = Bytes(512);
/// SCSI controller of the operating system (LUN 0) and temporary disk (LUN 1) on Gen2 machines.
const GEN2_SYSTEM: &str = "f8b3781a-1e82-4818-a1c3-63d806ec15bb";
/// SCSI controllers of data disks.
const DATA: [&str; 3] = [
    "f8b3781b-1e82-4818-a1c3-63d806ec15bb",
    "f8b3781c-1e82-4818-a1c3-63d806ec15bb",
    "f8b3781d-1e82-4818-a1c3-63d806ec15bb",
];
/// IDE controllers of Gen1 machines: the operating system on the first, the temporary disk on the second.
const GEN1_OS: &str = "00000000-0000-";
const GEN1_TEMP: &str = "00000000-0001-";
/// Devices that are no disks, though some of them hang on a controller.
const NO_DISKS: [&str; 9] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "drbd"];
/// Where the kernel keeps block devices that no controller stands behind.
const VIRTUAL: &str = "sys/devices/virtual/block/";

/// Surveys the disks. Only IMDS knows whether the operating system disk is ephemeral.
pub fn probe(fs: &dyn HostFs, instance: &Fact<Instance>) -> Fact<Vec<Disk>> {
    read::directory(fs, BLOCK, Missing::Unavailable).and_then(|names| {
        if names.len() > DISKS_MAX {
            return Fact::unavailable(format!("more than {DISKS_MAX} block devices: {BLOCK}"));
        }
        let mounts = Mounts::read(fs);
        let real = names.into_iter().filter(|name| is_disk(fs, name));
        let mut disks: Vec<_> = real.map(|name| disk(fs, name, instance, &mounts)).collect();
        settle_operating_system(&mut disks);
        Fact::Measured(disks)
    })
}

fn path(name: &str, file: &str) -> String {
    format!("{BLOCK}/{name}/{file}")
}

fn is_disk(fs: &dyn HostFs, name: &str) -> bool {
    let virtual_device =
        fs.resolve(&format!("{BLOCK}/{name}")).is_ok_and(|device| device.starts_with(VIRTUAL));
    !virtual_device && !is_nvme_path(name) && !NO_DISKS.iter().any(|prefix| name.starts_with(prefix))
}

/// With NVMe multipath the kernel shows a namespace (`nvme0n1`) and, as hidden devices, each path to it (`nvme0c1n1`).
fn is_nvme_path(name: &str) -> bool {
    name.strip_prefix("nvme")
        .is_some_and(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with('c'))
}

fn disk(fs: &dyn HostFs, name: String, instance: &Fact<Instance>, mounts: &Fact<Mounts>) -> Disk {
    let model = read::line(fs, &path(&name, "device/model"), Missing::Absent);
    let role = match (name.starts_with("nvme"), model.measured()) {
        (true, Some(model)) => nvme_role(fs, &name, model),
        (true, None) => DiskRole::Other,
        (false, _) => scsi_role(fs, &name),
    };
    let ephemeral_os = if role == DiskRole::Os {
        instance.as_ref().and_then(|instance| instance.ephemeral_os_disk.clone())
    } else {
        Fact::Absent
    };
    let sectors = read::number::<u64>(fs, &path(&name, "size"), Missing::Unavailable);
    Disk {
        in_use_by: usage::user(fs, &name, mounts),
        size_bytes: sectors.map(|sectors| SECTOR * sectors),
        role,
        model,
        ephemeral_os,
        name,
    }
}

/// Namespace 1 of Azure's remote-disk controller is the operating system, the others are data disks.
fn nvme_role(fs: &dyn HostFs, name: &str, model: &str) -> DiskRole {
    if model.starts_with("Microsoft NVMe Direct Disk") {
        return DiskRole::LocalNvme;
    }
    if !model.starts_with("MSFT NVMe Accelerator") {
        return DiskRole::Other;
    }
    let from_name = || name.rsplit_once('n').and_then(|(_, namespace)| namespace.parse::<u32>().ok());
    match read::number::<u32>(fs, &path(name, "nsid"), Missing::Absent).get().or_else(from_name) {
        Some(1) => DiskRole::Os,
        Some(_) => DiskRole::Data,
        None => DiskRole::Other,
    }
}

/// The VMBus identity stands in the path of the device: `…/<guid>/host0/target0:0:0/0:0:0:1`. Older kernels number the
/// directories (`vmbus_0_1`) and have it in the file `device_id` only.
fn scsi_role(fs: &dyn HostFs, name: &str) -> DiskRole {
    let Ok(device) = fs.resolve(&path(name, "device")) else { return DiskRole::Other };
    let lun = device.rsplit_once(':').and_then(|(_, lun)| lun.parse::<u32>().ok());
    if let Some(role) = device.split('/').find_map(|part| controller_role(part, lun)) {
        return role;
    }
    let ids = device.match_indices('/').map(|(end, _)| format!("{}/device_id", &device[..end]));
    let roles = ids.filter_map(|id| match read::line(fs, &id, Missing::Absent) {
        Fact::Measured(id) => controller_role(id.trim_matches(['{', '}']), lun),
        Fact::Absent | Fact::Unavailable(_) => None,
    });
    roles.last().unwrap_or(DiskRole::Other)
}

/// What a controller of this identity is for; `None` where it is not one of Azure's.
fn controller_role(id: &str, lun: Option<u32>) -> Option<DiskRole> {
    let id = id.to_ascii_lowercase();
    if id == GEN2_SYSTEM {
        return Some(match lun {
            Some(0) => DiskRole::Os,
            Some(1) => DiskRole::Temp,
            _ => DiskRole::Other,
        });
    }
    if DATA.contains(&id.as_str()) {
        return Some(DiskRole::Data);
    }
    if id.starts_with(GEN1_OS) {
        return Some(DiskRole::Os);
    }
    id.starts_with(GEN1_TEMP).then_some(DiskRole::Temp)
}

/// Away from Azure no controller tells: the disk the root file system is on is the operating system's.
fn settle_operating_system(disks: &mut [Disk]) {
    if disks.iter().all(|disk| disk.role == DiskRole::Other) {
        for disk in disks.iter_mut().filter(|disk| disk.in_use_by == Fact::Measured(DiskUser::Os)) {
            disk.role = DiskRole::Os;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::MemTree;

    fn scsi(tree: &mut MemTree, name: &str, controller: &str, lun: u32) {
        let device = format!("sys/devices/vmbus/{controller}/host0/target0:0:0/0:0:0:{lun}");
        tree.file(&format!("{device}/model"), "Virtual Disk    \n");
        block(tree, name, &device);
    }

    fn nvme(tree: &mut MemTree, name: &str, model: &str) {
        let device = format!("sys/devices/nvme/{name}");
        tree.file(&format!("{device}/model"), format!("{model:<40}\n"));
        block(tree, name, &device);
    }

    fn block(tree: &mut MemTree, name: &str, device: &str) {
        tree.file(&format!("sys/block/{name}/size"), "2097152\n");
        tree.link_to(&format!("sys/block/{name}/device"), device);
    }

    #[test]
    fn a_disk_is_what_its_controller_says_whatever_its_name() {
        let mut tree = MemTree::default();
        scsi(&mut tree, "sdb", GEN2_SYSTEM, 0);
        scsi(&mut tree, "sda", GEN2_SYSTEM, 1);
        scsi(&mut tree, "sdc", DATA[0], 0);
        nvme(&mut tree, "nvme0n1", "MSFT NVMe Accelerator v1.0");
        nvme(&mut tree, "nvme0n2", "MSFT NVMe Accelerator v1.0");
        nvme(&mut tree, "nvme1n1", "Microsoft NVMe Direct Disk v2");
        nvme(&mut tree, "nvme2n1", "Somebody's SSD");
        tree.file("sys/block/loop0/size", "8\n");
        let disks = probe(&tree, &Fact::Absent);
        let roles: Vec<_> =
            disks.measured().unwrap().iter().map(|disk| (disk.name.as_str(), disk.role)).collect();
        let expected = [
            ("nvme0n1", DiskRole::Os),
            ("nvme0n2", DiskRole::Data),
            ("nvme1n1", DiskRole::LocalNvme),
            ("nvme2n1", DiskRole::Other),
            ("sda", DiskRole::Temp),
            ("sdb", DiskRole::Os),
            ("sdc", DiskRole::Data),
        ];
        assert_eq!(roles, expected);
        assert_eq!(disks.measured().unwrap()[0].size_bytes, Fact::Measured(Bytes::GIB));
    }

    #[test]
    fn gen1_machines_have_ide_controllers() {
        let mut tree = MemTree::default();
        scsi(&mut tree, "sda", "00000000-0000-8899-0000-000000000000", 0);
        scsi(&mut tree, "sdb", "00000000-0001-8899-0000-000000000000", 0);
        let disks = probe(&tree, &Fact::Absent);
        let roles: Vec<_> = disks.measured().unwrap().iter().map(|disk| disk.role).collect();
        assert_eq!(roles, [DiskRole::Os, DiskRole::Temp]);
    }

    #[test]
    fn the_identity_of_a_controller_may_stand_in_a_file_only() {
        let mut tree = MemTree::default();
        for (name, bus, id, lun) in [
            ("sda", "vmbus_0_1", "{F8B3781A-1E82-4818-A1C3-63D806EC15BB}", 0),
            ("sdb", "vmbus_0_1", "{F8B3781A-1E82-4818-A1C3-63D806EC15BB}", 1),
            ("sdc", "vmbus_0_2", "{f8b3781b-1e82-4818-a1c3-63d806ec15bb}", 4),
            ("sdd", "vmbus_0_3", "{deadbeef-1e82-4818-a1c3-63d806ec15bb}", 0),
        ] {
            tree.file(&format!("sys/devices/vmbus/{bus}/device_id"), format!("{id}\n"));
            scsi(&mut tree, name, bus, lun);
        }
        let disks = probe(&tree, &Fact::Absent);
        let roles: Vec<_> = disks.measured().unwrap().iter().map(|disk| disk.role).collect();
        assert_eq!(roles, [DiskRole::Os, DiskRole::Temp, DiskRole::Data, DiskRole::Other]);
    }

    #[test]
    fn a_disk_counts_once_and_what_is_no_disk_never() {
        let mut tree = MemTree::default();
        nvme(&mut tree, "nvme0n1", "Microsoft NVMe Direct Disk v2");
        nvme(&mut tree, "nvme0c0n1", "Microsoft NVMe Direct Disk v2");
        for name in ["loop0", "ram0", "zram0", "dm-0", "md127", "sr0"] {
            tree.file(&format!("sys/block/{name}/size"), "8\n");
        }
        tree.file("sys/devices/virtual/block/zd0/size", "8\n");
        tree.link_to("sys/block/zd0", "sys/devices/virtual/block/zd0");
        let disks = probe(&tree, &Fact::Absent);
        let names: Vec<_> = disks.measured().unwrap().iter().map(|disk| disk.name.as_str()).collect();
        assert_eq!(names, ["nvme0n1"]);
    }

    #[test]
    fn away_from_azure_the_operating_system_is_where_its_root_is() {
        let mut tree = MemTree::default();
        for (name, number) in [("vda", "254:0"), ("vdb", "254:16")] {
            block(&mut tree, name, "sys/devices/virtio");
            tree.file(&format!("sys/block/{name}/dev"), format!("{number}\n"));
        }
        tree.file("sys/block/vdb/vdb1/dev", "254:17\n");
        tree.file("proc/1/mountinfo", "30 1 254:17 / / rw - ext4 /dev/root rw\n");
        let disks = probe(&tree, &Fact::Absent);
        let roles: Vec<_> = disks.measured().unwrap().iter().map(|disk| disk.role).collect();
        assert_eq!(roles, [DiskRole::Other, DiskRole::Os]);
    }
}
