//! Memory: what the hypervisor gave, what the kernel kept, and what pods may use.
//!
//! Installed memory is the number of online memory blocks times their size (`sys/devices/system/memory`). Its
//! difference to the catalogue is the cloud's doing; its difference to `MemTotal` is the kernel's bookkeeping (about 1/64
//! for `struct page`, and a constant).

use assay_shared::Fact;
use assay_shared::report::{Hugepages, Memory};
use assay_shared::units::Bytes;

use crate::host::HostFs;
use crate::host::read::{self, Missing, expected};

const BLOCKS: &str = "sys/devices/system/memory";
const MEMINFO: &str = "proc/meminfo";
const HUGEPAGES: &str = "sys/kernel/mm/hugepages";
/// Limit of the pods' control group: version 2 with the systemd and the cgroupfs driver, then version 1 with either.
const KUBEPODS: [&str; 4] = [
    "sys/fs/cgroup/kubepods.slice/memory.max",
    "sys/fs/cgroup/kubepods/memory.max",
    "sys/fs/cgroup/memory/kubepods.slice/memory.limit_in_bytes",
    "sys/fs/cgroup/memory/kubepods/memory.limit_in_bytes",
];
/// Version 1 says "no limit" by the largest multiple of the page size that fits; nothing real comes near.
const NO_LIMIT: u64 = 1 << 62;

/// Surveys the memory.
pub fn probe(fs: &dyn HostFs) -> Memory {
    let total_bytes =
        read::text(fs, MEMINFO, Missing::Unavailable).and_then(|text| mem_total(&text, "MemTotal:", MEMINFO));
    Memory {
        installed_bytes: installed(fs, total_bytes.get()),
        total_bytes,
        kubepods_limit_bytes: kubepods_limit(fs),
        hugepages: hugepages(fs),
    }
}

/// The line of a `meminfo` that starts with `name`: kibibytes, printed as `kB`.
pub(crate) fn mem_total(text: &str, name: &str, path: &str) -> Fact<Bytes> {
    let Some(value) = text.lines().find_map(|line| line.trim_start().strip_prefix(name)) else {
        return Fact::Unavailable(format!("no line \"{name}\": {path}"));
    };
    let value = value.trim();
    let kib = value.strip_suffix("kB").and_then(|number| number.trim_end().parse::<u64>().ok());
    let bytes = kib.and_then(|kib| kib.checked_mul(1024));
    bytes.map_or_else(|| expected("a number of kB", value, path), |bytes| Fact::Measured(Bytes(bytes)))
}

fn installed(fs: &dyn HostFs, total: Option<Bytes>) -> Fact<Bytes> {
    let path = format!("{BLOCKS}/block_size_bytes");
    let block = read::hex(fs, &path, Missing::Unavailable).and_then(|size| {
        let wrong = || expected("a block size of a power of two", &format!("{size:x}"), &path);
        if size.is_power_of_two() { Fact::Measured(size) } else { wrong() }
    });
    let installed = block.and_then(|block| {
        online_blocks(fs).and_then(|blocks| {
            let bytes = block.checked_mul(blocks).map(Bytes);
            bytes.map_or_else(
                || {
                    Fact::Unavailable(format!(
                        "{blocks} blocks of {block} bytes are more than there can be: {path}"
                    ))
                },
                Fact::Measured,
            )
        })
    });
    // The kernel manages no more than what is online, so fewer blocks than that means that some were not shown.
    match (installed, total) {
        (Fact::Measured(installed), Some(total)) if installed < total => Fact::Unavailable(format!(
            "memory blocks add up to {installed}, less than MemTotal of {total}: {BLOCKS}"
        )),
        (installed, _) => installed,
    }
}

/// Blocks that are in use. One that is going offline still is.
fn online_blocks(fs: &dyn HostFs) -> Fact<u64> {
    read::directory(fs, BLOCKS, Missing::Unavailable).and_then(|names| {
        let mut online = 0;
        for name in names.iter().filter(|name| numbered(name, "memory").is_some()) {
            let path = format!("{BLOCKS}/{name}/state");
            match read::line(fs, &path, Missing::Unavailable) {
                Fact::Measured(state) => match state.as_str() {
                    "online" | "going-offline" => online += 1,
                    "offline" => {}
                    _ => return expected("online or offline", &state, &path),
                },
                Fact::Unavailable(reason) => return Fact::Unavailable(reason),
                Fact::Absent => return Fact::Absent,
            }
        }
        if online == 0 {
            Fact::Unavailable(format!("no memory block is online: {BLOCKS}"))
        } else {
            Fact::Measured(online)
        }
    })
}

fn hugepages(fs: &dyn HostFs) -> Fact<Vec<Hugepages>> {
    read::directory(fs, HUGEPAGES, Missing::Absent).and_then(|names| {
        let mut pools = Vec::new();
        for name in &names {
            let size = name.strip_prefix("hugepages-").and_then(|size| size.strip_suffix("kB"));
            let Some(kib) = size.and_then(|kib| kib.parse::<u64>().ok()) else { continue };
            let pages =
                |file: &str| read::number(fs, &format!("{HUGEPAGES}/{name}/{file}"), Missing::Unavailable);
            match (pages("nr_hugepages"), pages("free_hugepages")) {
                (Fact::Measured(total), Fact::Measured(free)) => {
                    pools.push(Hugepages { size_bytes: Bytes::KIB * kib, total, free });
                }
                (Fact::Unavailable(reason), _) | (_, Fact::Unavailable(reason)) => {
                    return Fact::Unavailable(reason);
                }
                (Fact::Absent, _) | (_, Fact::Absent) => {}
            }
        }
        pools.sort_unstable_by_key(|pool| pool.size_bytes);
        Fact::Measured(pools)
    })
}

fn kubepods_limit(fs: &dyn HostFs) -> Fact<Bytes> {
    let limit = |text: &str| match text {
        "max" => Some(None),
        number => number.parse().ok().map(|bytes: u64| (bytes < NO_LIMIT).then_some(Bytes(bytes))),
    };
    let found = KUBEPODS
        .iter()
        .map(|path| read::parsed(fs, path, Missing::Absent, "a number of bytes or max", limit))
        .find(|limit| *limit != Fact::Absent);
    found.unwrap_or(Fact::Absent).and_then(|limit| limit.map_or(Fact::Absent, Fact::Measured))
}

/// The number in a name like `memory12`.
pub(crate) fn numbered(name: &str, prefix: &str) -> Option<u32> {
    let digits = name.strip_prefix(prefix)?;
    if digits.starts_with('+') { None } else { digits.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::MemTree;

    fn machine(blocks: u32, block_size: &str, mem_total: &str) -> MemTree {
        let mut tree = MemTree::new();
        tree.file("sys/devices/system/memory/block_size_bytes", block_size);
        tree.file("sys/devices/system/memory/auto_online_blocks", "online\n");
        for block in 0..blocks {
            tree.file(&format!("sys/devices/system/memory/memory{block}/state"), "online\n");
        }
        tree.file("proc/meminfo", mem_total);
        tree
    }

    const GIB_16: &str = "MemTotal:       16403296 kB\nMemFree:         1 kB\n";

    #[test]
    fn installed_memory_is_the_blocks_that_are_online() {
        let mut tree = machine(130, "8000000\n", GIB_16);
        tree.file("sys/devices/system/memory/memory128/state", "offline\r\n");
        tree.file("sys/devices/system/memory/memory129/state", "offline\n");
        let memory = probe(&tree);
        assert_eq!(memory.installed_bytes, Fact::Measured(Bytes::gib(16)));
        assert_eq!(memory.total_bytes, Fact::Measured(Bytes(16_403_296 << 10)));
        assert_eq!(memory.kubepods_limit_bytes, Fact::Absent);
        assert_eq!(memory.hugepages, Fact::Absent);
    }

    #[test]
    fn a_sum_that_cannot_be_is_unavailable() {
        let cases = [
            (machine(2, "8000000", GIB_16), "memory blocks add up to 256 MiB, less than MemTotal"),
            (machine(128, "garbage", GIB_16), "expected a hexadecimal number, found \"garbage\""),
            (machine(128, "8000001", GIB_16), "expected a block size of a power of two, found \"8000001\""),
            (machine(128, "8000000000000000", GIB_16), "more than there can be"),
            (machine(0, "8000000", GIB_16), "no memory block is online"),
        ];
        for (tree, expected) in cases {
            let Fact::Unavailable(reason) = probe(&tree).installed_bytes else { panic!("{expected}") };
            assert!(reason.contains(expected), "{reason}");
        }
        let mut tree = machine(128, "8000000", GIB_16);
        tree.file("sys/devices/system/memory/memory7/state", "onl\n");
        let reason = "expected online or offline, found \"onl\": sys/devices/system/memory/memory7/state";
        assert_eq!(probe(&tree).installed_bytes, Fact::unavailable(reason));
    }

    #[test]
    fn mem_total_is_kibibytes_or_unavailable() {
        let cases = [
            ("MemTotal:       16403296 kB\r\n", Some(16_403_296 << 10)),
            ("MemTotal: 1 kB", Some(1024)),
            ("MemFree: 1 kB\n", None),
            ("MemTotal:       164", None),
            ("MemTotal: 16403296 MB\n", None),
            ("MemTotal: 18446744073709551615 kB\n", None),
            ("MemTotal: -5 kB\n", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(mem_total(text, "MemTotal:", MEMINFO).get(), expected.map(Bytes), "{text:?}");
        }
    }

    #[test]
    fn the_limit_of_pods_is_found_under_either_version_and_driver() {
        for path in KUBEPODS {
            for (text, expected) in [
                ("15032385536\n", Fact::Measured(Bytes::gib(14))),
                ("max\n", Fact::Absent),
                ("9223372036854771712\n", Fact::Absent),
                (
                    "much\n",
                    Fact::Unavailable(format!("expected a number of bytes or max, found \"much\": {path}")),
                ),
            ] {
                let mut tree = MemTree::new();
                tree.file(path, text);
                assert_eq!(probe(&tree).kubepods_limit_bytes, expected, "{path}");
            }
        }
    }

    #[test]
    fn huge_pages_are_listed_by_size() {
        let mut tree = MemTree::new();
        for (size, total, free) in [("2048", "512", "500"), ("1048576", "0", "0")] {
            tree.file(&format!("{HUGEPAGES}/hugepages-{size}kB/nr_hugepages"), total);
            tree.file(&format!("{HUGEPAGES}/hugepages-{size}kB/free_hugepages"), free);
        }
        let pools = vec![
            Hugepages { size_bytes: Bytes::mib(2), total: 512, free: 500 },
            Hugepages { size_bytes: Bytes::gib(1), total: 0, free: 0 },
        ];
        assert_eq!(probe(&tree).hugepages, Fact::Measured(pools));
        tree.file(&format!("{HUGEPAGES}/hugepages-2048kB/free_hugepages"), "many");
        assert!(matches!(probe(&tree).hugepages, Fact::Unavailable(_)));
    }
}
