//! How CPUs share cores, packages and caches: `sys/devices/system/cpu`.
//!
//! One read per group, not per CPU: the first CPU of a core or cache names all that share it.

use std::collections::BTreeSet;

use assay_shared::Fact;
use assay_shared::units::Bytes;

use crate::host::HostFs;
use crate::host::read::{self, CpuSet, Missing};

const CPUS: &str = "sys/devices/system/cpu";

/// Counts over the CPUs that are online.
#[derive(Debug, Default)]
pub(super) struct Topology {
    pub(super) logical_cpus: Fact<u32>,
    pub(super) physical_cores: Fact<u32>,
    pub(super) sockets: Fact<u32>,
    pub(super) threads_per_core: Fact<u32>,
    pub(super) l3_domains: Fact<u32>,
    pub(super) l3_bytes: Fact<Bytes>,
}

/// Reads the topology.
pub(super) fn read(fs: &dyn HostFs) -> Topology {
    let path = format!("{CPUS}/online");
    match read::cpu_list(fs, &path, Missing::Unavailable) {
        Fact::Measured(online) => match online.first() {
            Some(first) => of(fs, &online, first),
            None => unknown(&format!("expected a list of CPUs, found nothing: {path}")),
        },
        Fact::Unavailable(reason) => unknown(&reason),
        Fact::Absent => unknown(&format!("not found: {path}")),
    }
}

/// Without the list of CPUs nothing can be counted.
fn unknown(reason: &str) -> Topology {
    Topology {
        logical_cpus: Fact::unavailable(reason),
        physical_cores: Fact::unavailable(reason),
        sockets: Fact::unavailable(reason),
        threads_per_core: Fact::unavailable(reason),
        l3_domains: Fact::unavailable(reason),
        l3_bytes: Fact::unavailable(reason),
    }
}

fn of(fs: &dyn HostFs, online: &CpuSet, first: u32) -> Topology {
    let cores = groups(fs, online, "topology/thread_siblings_list");
    let (l3_domains, l3_bytes) = l3(fs, online, first);
    Topology {
        logical_cpus: Fact::Measured(online.len()),
        sockets: sockets(fs, online, cores.measured()),
        physical_cores: cores.as_ref().map(|cores| count(cores.len())),
        threads_per_core: cores.map(|cores| largest(&cores)),
        l3_domains,
        l3_bytes,
    }
}

/// CPUs that are online and share something.
struct Group {
    first: u32,
    members: u32,
}

/// Divides the online CPUs by the list that `cpuN/{file}` holds.
fn groups(fs: &dyn HostFs, online: &CpuSet, file: &str) -> Fact<Vec<Group>> {
    let mut ungrouped: BTreeSet<u32> = online.iter().collect();
    let mut groups = Vec::new();
    while let Some(cpu) = ungrouped.pop_first() {
        let path = format!("{CPUS}/cpu{cpu}/{file}");
        let shared = match read::cpu_list(fs, &path, Missing::Unavailable) {
            Fact::Measured(shared) => shared,
            Fact::Unavailable(reason) => return Fact::Unavailable(reason),
            Fact::Absent => return Fact::Absent,
        };
        if !shared.contains(cpu) {
            return read::expected(format_args!("a list with CPU {cpu}"), &shared.to_string(), &path);
        }
        let others = shared.iter().filter(|other| ungrouped.remove(other)).count();
        groups.push(Group { first: cpu, members: count(others).saturating_add(1) });
    }
    Fact::Measured(groups)
}

/// Distinct packages. With the cores known, one CPU of each is enough to ask.
fn sockets(fs: &dyn HostFs, online: &CpuSet, cores: Option<&Vec<Group>>) -> Fact<u32> {
    let ask: Vec<u32> = match cores {
        Some(cores) => cores.iter().map(|core| core.first).collect(),
        None => online.iter().collect(),
    };
    let mut packages = BTreeSet::new();
    for cpu in ask {
        let path = format!("{CPUS}/cpu{cpu}/topology/physical_package_id");
        // -1 where the firmware does not say, which is not a number of a package.
        match read::number::<u32>(fs, &path, Missing::Unavailable) {
            Fact::Measured(package) => packages.insert(package),
            other => return other,
        };
    }
    Fact::Measured(count(packages.len()))
}

/// Number and size of the L3 caches. Absent where the processor shows caches but none of level 3.
fn l3(fs: &dyn HostFs, online: &CpuSet, first: u32) -> (Fact<u32>, Fact<Bytes>) {
    let cache = format!("{CPUS}/cpu{first}/cache");
    let index = read::directory(fs, &cache, Missing::Unavailable).and_then(|names| {
        for name in names.iter().filter(|name| name.starts_with("index")) {
            match read::number::<u32>(fs, &format!("{cache}/{name}/level"), Missing::Unavailable) {
                Fact::Measured(3) => return Fact::Measured(name.clone()),
                Fact::Measured(_) | Fact::Absent => {}
                Fact::Unavailable(reason) => return Fact::Unavailable(reason),
            }
        }
        Fact::Absent
    });
    let domains = index.as_ref().and_then(|index| {
        groups(fs, online, &format!("cache/{index}/shared_cpu_list")).map(|domains| count(domains.len()))
    });
    let size = index.and_then(|index| {
        read::parsed(
            fs,
            &format!("{cache}/{index}/size"),
            Missing::Unavailable,
            "a size like 8192K",
            cache_size,
        )
    });
    (domains, size)
}

/// The kernel prints kibibytes with a `K`.
fn cache_size(text: &str) -> Option<Bytes> {
    let kib: u64 = text.strip_suffix('K')?.parse().ok()?;
    kib.checked_mul(1024).filter(|bytes| *bytes > 0).map(Bytes)
}

fn largest(groups: &[Group]) -> u32 {
    groups.iter().map(|group| group.members).max().unwrap_or_default()
}

/// CPU numbers are below 65,536, so a count of them always fits.
fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}
