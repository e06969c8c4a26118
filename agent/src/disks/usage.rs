//! Who uses a disk: mounts of the machine's first process, and devices built on it.

use std::collections::BTreeMap;

use assay_shared::Fact;
use assay_shared::report::DiskUser;

use super::path;
use crate::host::HostFs;
use crate::host::read::{self, Missing};

/// Mounts of the machine itself, not of the container the agent may run in.
const MOUNTINFO: &str = "proc/1/mountinfo";

/// Mount points by device number, such as `8:1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Mounts {
    by_device: BTreeMap<String, Vec<String>>,
}

impl Mounts {
    /// Fields of a line: id, parent, major:minor, root, mount point, … (proc_pid_mountinfo(5)).
    pub(super) fn read(fs: &dyn HostFs) -> Fact<Self> {
        read::text(fs, MOUNTINFO, Missing::Unavailable).and_then(|text| {
            let mut by_device: BTreeMap<_, Vec<_>> = BTreeMap::new();
            for line in text.lines() {
                let mut fields = line.split_whitespace().skip(2);
                if let (Some(device), Some(_), Some(point)) = (fields.next(), fields.next(), fields.next()) {
                    by_device.entry(device.to_owned()).or_default().push(point.to_owned());
                }
            }
            // Every machine has its root mounted: without it this is another file.
            if by_device.values().flatten().any(|point| point == "/") || by_device.len() > 1 {
                return Fact::Measured(Self { by_device });
            }
            read::expected("mounts", &text, MOUNTINFO)
        })
    }

    fn points(&self, device: &str) -> &[String] {
        self.by_device.get(device).map_or(&[], Vec::as_slice)
    }
}

/// The most important user of a disk, its partitions included.
pub(super) fn user(fs: &dyn HostFs, disk: &str, mounts: &Fact<Mounts>) -> Fact<DiskUser> {
    mounts.as_ref().and_then(|mounts| {
        let partitions = match read::directory(fs, &path(disk, ""), Missing::Unavailable) {
            Fact::Measured(names) => names,
            Fact::Absent => Vec::new(),
            Fact::Unavailable(reason) => return Fact::Unavailable(reason),
        };
        let partitions = partitions.into_iter().filter(|name| name.starts_with(disk));
        let parts = std::iter::once(String::new()).chain(partitions.map(|name| format!("{name}/")));
        let mut users = Vec::new();
        for part in parts {
            match read::line(fs, &path(disk, &format!("{part}dev")), Missing::Absent) {
                Fact::Measured(device) => {
                    users.extend(mounts.points(&device).iter().map(|point| user_of(point)))
                }
                Fact::Absent => {}
                Fact::Unavailable(reason) => return Fact::Unavailable(reason),
            }
            if let Fact::Measured(holders) =
                read::directory(fs, &path(disk, &format!("{part}holders")), Missing::Absent)
                && holders.iter().any(|holder| holder.starts_with("md"))
            {
                users.push(DiskUser::Md);
            }
        }
        let rank = |user: &DiskUser| {
            [DiskUser::Os, DiskUser::Kubelet, DiskUser::Md].iter().position(|one| one == user)
        };
        users
            .into_iter()
            .min_by_key(|user| rank(user).unwrap_or(usize::MAX))
            .map_or(Fact::Absent, Fact::Measured)
    })
}

fn user_of(point: &str) -> DiskUser {
    match point {
        "/" | "/boot" | "/boot/efi" | "/usr" => DiskUser::Os,
        point if point.starts_with("/var/lib/kubelet") => DiskUser::Kubelet,
        _ => DiskUser::Mount,
    }
}
