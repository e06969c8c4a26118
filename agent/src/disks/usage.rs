//! Who uses a disk: mounts of the machine's first process, swap, and devices built on it (RAID, LVM, encryption).

use std::collections::{BTreeMap, BTreeSet};

use assay_shared::Fact;
use assay_shared::fact::Reason;
use assay_shared::report::DiskUser;

use super::path;
use crate::host::HostFs;
use crate::host::read::{self, Missing};

/// Mounts of the machine itself, not of the container the agent may run in.
const MOUNTINFO: &str = "proc/1/mountinfo";
const SWAPS: &str = "proc/swaps";
/// The kubelet keeps the volumes of pods below it.
const KUBELET: &str = "/var/lib/kubelet";

/// Mounts and swap areas of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    /// By device number (`8:1`) and by the kernel's name (`sda1`). A btrfs mount has a number of its own, which no
    /// disk has, so the name is needed too; `/dev/root` is no name, so the number is.
    users: BTreeMap<String, BTreeSet<DiskUser>>,
}

impl Mounts {
    pub(super) fn read(fs: &dyn HostFs) -> Fact<Self> {
        let mut mounts = Self::default();
        let mountinfo = read::text(fs, MOUNTINFO, Missing::Unavailable).and_then(|text| {
            if mounts.add_mounts(&text) {
                Fact::Measured(())
            } else {
                read::expected("mounts", &text, MOUNTINFO)
            }
        });
        // A kernel without swap does not have the file.
        let swaps: Fact<()> = read::text(fs, SWAPS, Missing::Absent).and_then(|text| {
            if mounts.add_swaps(&text) { Fact::Absent } else { read::expected("swap areas", &text, SWAPS) }
        });
        match (mountinfo, swaps) {
            (Fact::Unavailable(reason), _) | (_, Fact::Unavailable(reason)) => Fact::Unavailable(reason),
            _ => Fact::Measured(mounts),
        }
    }

    /// Fields of a line: id, parent, major:minor, root, mount point, options, any number of others, `-`, type, source
    /// (proc_pid_mountinfo(5)). False where this is another file.
    fn add_mounts(&mut self, text: &str) -> bool {
        let mut lines = 0;
        let mut root = false;
        for line in text.lines() {
            let mut fields = line.split_whitespace().skip(2);
            let (Some(number), Some(_), Some(point)) = (fields.next(), fields.next(), fields.next()) else {
                continue;
            };
            let source = fields.skip_while(|field| *field != "-").nth(2);
            let name = source.and_then(|source| source.strip_prefix("/dev/"));
            for device in [Some(number), name].into_iter().flatten() {
                self.users.entry(device.to_owned()).or_default().insert(user_of(point));
            }
            lines += 1;
            root |= point == "/";
        }
        // Every machine has its root mounted, though a captured file may have lost that line.
        root || lines > 1
    }

    /// A heading, then lines of: name, `partition` or `file`, sizes. A swap file counts by its mount. False where this is
    /// another file.
    fn add_swaps(&mut self, text: &str) -> bool {
        let mut lines = text.lines();
        let heading = lines.next().is_some_and(|line| line.starts_with("Filename"));
        for line in lines {
            let mut fields = line.split_whitespace();
            if let (Some(name), Some("partition")) = (fields.next(), fields.next())
                && let Some(device) = name.strip_prefix("/dev/")
            {
                self.users.entry(device.to_owned()).or_default().insert(DiskUser::Os);
            }
        }
        heading
    }
}

/// The most important user of a disk: of itself, its partitions, and what is built on either.
pub(super) fn user(fs: &dyn HostFs, disk: &str, mounts: &Fact<Mounts>) -> Fact<DiskUser> {
    mounts.as_ref().and_then(|mounts| {
        let mut users = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut pending = vec![disk.to_owned()];
        while let Some(device) = pending.pop() {
            // A broken tree may lead in a circle.
            if !seen.insert(device.clone()) {
                continue;
            }
            match holders(fs, &device, mounts, &mut users) {
                Ok(holders) => pending.extend(holders),
                Err(reason) => return Fact::Unavailable(reason),
            }
        }
        users.first().copied().map_or(Fact::Absent, Fact::Measured)
    })
}

/// Adds the users of one block device and its partitions, and gives the devices that are built on them.
fn holders(
    fs: &dyn HostFs,
    device: &str,
    mounts: &Mounts,
    users: &mut BTreeSet<DiskUser>,
) -> Result<Vec<String>, Reason> {
    let inside = known(read::directory(fs, &path(device, ""), Missing::Unavailable))?.unwrap_or_default();
    let partitions = inside.into_iter().filter(|name| name.starts_with(device));
    let parts = partitions.map(|name| (format!("{name}/"), name));
    let mut above = Vec::new();
    for (below, name) in std::iter::once((String::new(), device.to_owned())).chain(parts) {
        let number = known(read::line(fs, &path(device, &format!("{below}dev")), Missing::Absent))?;
        for key in number.iter().chain([&name]) {
            users.extend(mounts.users.get(key).into_iter().flatten());
        }
        let holders = path(device, &format!("{below}holders"));
        for holder in known(read::directory(fs, &holders, Missing::Absent))?.unwrap_or_default() {
            users.insert(if holder.starts_with("md") { DiskUser::Md } else { DiskUser::Dm });
            // A tree that was captured in parts may lack it.
            if fs.exists(&path(&holder, "")) {
                above.push(holder);
            }
        }
    }
    Ok(above)
}

/// The value, none where it is absent, the reason where it is not known.
fn known<T>(fact: Fact<T>) -> Result<Option<T>, Reason> {
    match fact {
        Fact::Measured(value) => Ok(Some(value)),
        Fact::Absent => Ok(None),
        Fact::Unavailable(reason) => Err(reason),
    }
}

fn user_of(point: &str) -> DiskUser {
    let kubelet = point.strip_prefix(KUBELET).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    match point {
        "/" | "/boot" | "/boot/efi" | "/usr" => DiskUser::Os,
        _ if kubelet => DiskUser::Kubelet,
        _ => DiskUser::Mount,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::MemTree;

    /// A block device of this number, and what is built on it.
    fn block(tree: &mut MemTree, dir: &str, number: &str, holders: &[&str]) {
        tree.file(&format!("sys/block/{dir}/dev"), format!("{number}\n"));
        for holder in holders {
            let target = format!("sys/block/{holder}");
            tree.directory(&target).link_to(&format!("sys/block/{dir}/holders/{holder}"), &target);
        }
    }

    #[test]
    fn a_disk_belongs_to_its_most_important_user() {
        let root = "20 1 254:1 / / rw shared:1 - ext4 /dev/root rw";
        type Build = fn(&mut MemTree);
        let sda: Build = |tree| block(tree, "sda", "8:0", &[]);
        let with_partition: Build = |tree| {
            block(tree, "sda", "8:0", &[]);
            block(tree, "sda/sda1", "8:1", &[]);
        };
        let cases: [(&str, Build, &str, Fact<DiskUser>); 11] = [
            ("nobody", with_partition, "", Fact::Absent),
            ("whole disk", sda, "30 1 8:0 / /data rw - xfs /dev/sda rw", DiskUser::Mount.into()),
            ("partition", with_partition, "30 1 8:1 / /data rw - xfs /dev/sda1 rw", DiskUser::Mount.into()),
            ("another disk", sda, "30 1 8:16 / /data rw - xfs /dev/sdb rw", Fact::Absent),
            (
                "system and pods",
                with_partition,
                "30 1 8:1 /pods /var/lib/kubelet/pods rw - ext4 /dev/root rw\n31 1 8:1 / /boot rw - ext4 /dev/root rw",
                DiskUser::Os.into(),
            ),
            (
                "pods",
                with_partition,
                "30 1 8:1 / /var/lib/kubelet rw - ext4 /dev/x rw",
                DiskUser::Kubelet.into(),
            ),
            ("not pods", sda, "30 1 8:0 / /var/lib/kubelet-old rw - ext4 /dev/x rw", DiskUser::Mount.into()),
            (
                "btrfs, which has a number of its own",
                with_partition,
                "30 1 0:31 /@ /boot rw shared:7 master:2 - btrfs /dev/sda1 rw",
                DiskUser::Os.into(),
            ),
            (
                "RAID that is mounted",
                |tree| {
                    block(tree, "sda", "8:0", &["md0"]);
                    block(tree, "md0", "9:0", &[]);
                },
                "30 1 9:0 / /mnt rw - xfs /dev/md0 rw",
                DiskUser::Md.into(),
            ),
            (
                "pods on LVM on RAID on a partition",
                |tree| {
                    block(tree, "sda", "8:0", &[]);
                    block(tree, "sda/sda1", "8:1", &["md0"]);
                    block(tree, "md0", "9:0", &["dm-0"]);
                    block(tree, "dm-0", "253:0", &[]);
                },
                "30 1 253:0 / /var/lib/kubelet rw - xfs /dev/mapper/vg-pods rw",
                DiskUser::Kubelet.into(),
            ),
            (
                "LVM that nobody mounts, in a circle",
                |tree| {
                    block(tree, "sda", "8:0", &["dm-0"]);
                    block(tree, "dm-0", "253:0", &["dm-0"]);
                },
                "",
                DiskUser::Dm.into(),
            ),
        ];
        for (what, build, mounts, expected) in cases {
            let mut tree = MemTree::default();
            build(&mut tree);
            tree.file("proc/1/mountinfo", format!("{root}\n{mounts}\nnot a line\n"));
            assert_eq!(user(&tree, "sda", &Mounts::read(&tree)), expected, "{what}");
        }
    }

    #[test]
    fn swap_is_of_the_operating_system() {
        let mut tree = MemTree::default();
        block(&mut tree, "sda", "8:0", &[]);
        tree.file("proc/1/mountinfo", "20 1 254:1 / / rw - ext4 /dev/root rw\n");
        tree.file(
            "proc/swaps",
            "Filename Type Size Used Priority\n/swapfile file 1 0 -2\n/dev/sda partition 1 0 -3\n",
        );
        assert_eq!(user(&tree, "sda", &Mounts::read(&tree)), DiskUser::Os.into());
    }

    #[test]
    fn without_mounts_nothing_is_said_of_users() {
        for (mounts, swaps) in [
            ("", ""),
            ("20 1 254:1 / / rw - ext4 /dev/root rw\n", ""),
            ("20 1 254:1 / / rw - ext4 /dev/root rw\n", "no heading\n"),
        ] {
            let mut tree = MemTree::default();
            block(&mut tree, "sda", "8:0", &[]);
            tree.file("proc/1/mountinfo", mounts).file("proc/swaps", swaps);
            assert!(
                matches!(user(&tree, "sda", &Mounts::read(&tree)), Fact::Unavailable(_)),
                "{mounts}{swaps}"
            );
        }
    }
}
