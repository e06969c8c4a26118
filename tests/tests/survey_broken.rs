//! Every file of every machine, damaged in every way: the survey never panics or hangs, what it cannot know becomes
//! unavailable, and no fact ever gets another value than the healthy machine's.
//!
//! Machines have thousands of files that differ in a number only (`cpu17`, `memory300`); of each such group the first and
//! the last are damaged. What a variant has as its base has it is damaged there. Links that make up the machine itself
//! (a device's entry in its class, a device's driver, the master of an interface) are damaged like files, but not taken
//! away: without them it is another machine, not a broken one.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process::{Command, Stdio};

use assay_agent::gpu::Scripted;
use assay_agent::host::{HostFs, RootDir};
use assay_agent::survey::{SurveyOptions, survey};
use assay_agent::tree::{Damage, Machine, MemTree};
use assay_shared::report::ReportDocument;
use assay_tests::{json, machines, programs};
use serde_json::Value;

/// Which sections of a report may lose facts by a file, by the beginning of its path (first match).
const READERS: &[(&str, &[&str])] = &[
    ("proc/cpuinfo", &["cpu", "platform"]),
    ("sys/devices/system/cpu/", &["cpu"]),
    ("sys/devices/system/clocksource/", &["platform"]),
    ("sys/devices/system/memory/", &["memory"]),
    ("sys/devices/system/node/", &["numa"]),
    ("sys/kernel/mm/", &["memory"]),
    ("sys/fs/cgroup/", &["memory"]),
    ("proc/meminfo", &["memory"]),
    ("proc/1/mountinfo", &["disks"]),
    ("proc/swaps", &["disks"]),
    ("proc/sys/kernel/random/", &["identity"]),
    ("etc/machine-id", &["identity"]),
    // What the firmware tells decides whether there is an Azure to ask.
    ("sys/devices/virtual/dmi/", &["platform", "identity", "network", "events", "disks"]),
    ("sys/class/dmi/", &["platform", "identity", "network", "events", "disks"]),
    ("sys/firmware/", &["platform"]),
    ("sys/hypervisor/", &["platform"]),
    ("proc/sys/kernel/osrelease", &["platform"]),
    ("proc/cmdline", &["platform"]),
    ("etc/os-release", &["platform"]),
    ("usr/lib/os-release", &["platform"]),
    ("proc/driver/", &["gpus"]),
    ("sys/module/", &["gpus"]),
    ("sys/class/drm/", &["gpus"]),
    ("sys/class/net/", &["network"]),
    ("sys/class/infiniband/", &["network"]),
    ("sys/class/nvme/", &["disks"]),
    ("sys/class/block/", &["disks"]),
    ("sys/block/", &["disks"]),
    ("sys/dev/block/", &["disks"]),
    // GPUs, virtual functions and NVMe disks are found on the same bus.
    ("sys/bus/", &["gpus", "network", "disks", "platform"]),
    ("sys/devices/", &["gpus", "network", "disks", "platform"]),
];

/// Values that say "not known" where a field is always there.
fn says_unknown(path: &str, value: &Value) -> bool {
    path.ends_with(".reason")
        || (path.ends_with(".state") || path == "network.acceleratedNetworking") && value == "unknown"
        || path.ends_with(".role") && value == "other"
}

struct Healthy {
    report: Value,
    leaves: BTreeMap<String, Value>,
}

impl Healthy {
    fn new(report: Value) -> Self {
        Self { leaves: facts(&report), report }
    }

    /// What is wrong with the report of the same machine with one file damaged.
    fn faults(&self, path: &str, damaged: &Value) -> Vec<String> {
        let mut faults = Vec::new();
        if damaged == &self.report {
            return faults;
        }
        let leaves = facts(damaged);
        for (fact, value) in &leaves {
            match self.leaves.get(fact) {
                Some(healthy) if healthy == value => {}
                _ if says_unknown(fact, value) => {}
                healthy => faults.push(format!("{fact} is {value}, healthy is {healthy:?}")),
            }
        }
        // A list that is there is complete.
        for (fact, value) in &self.leaves {
            if let Some((list, _)) = fact.rsplit_once('[')
                && !leaves.contains_key(fact)
                && fact.ends_with(&format!("].{}", naming(value, fact)))
                && !is_null(damaged, list)
            {
                faults.push(format!("{fact} is gone from a list that counts as complete"));
            }
        }
        let readers =
            READERS.iter().find(|(prefix, _)| path.starts_with(prefix)).map_or(&[][..], |(_, by)| *by);
        for (section, healthy) in self.report.as_object().unwrap() {
            let kept =
                section == "unavailable" || section == "disagreements" || readers.contains(&section.as_str());
            if !kept && &damaged[section] != healthy {
                faults.push(format!("section {section} changed: {}", damaged[section]));
            }
        }
        faults
    }
}

/// The field that names elements of the list this fact is in.
fn naming<'a>(value: &Value, fact: &'a str) -> &'a str {
    let field = fact.rsplit('.').next().unwrap_or_default();
    let names =
        fact.contains(&format!("[{value}]")) && ["name", "device", "pciAddress", "id"].contains(&field);
    if names { field } else { "?" }
}

fn is_null(report: &Value, path: &str) -> bool {
    path.split('.').fold(report, |value, key| &value[key]).is_null()
}

fn facts(report: &Value) -> BTreeMap<String, Value> {
    let mut leaves = json::leaves(report);
    leaves.retain(|path, _| !path.starts_with("unavailable") && !path.starts_with("disagreements"));
    leaves
}

fn report(machine: &Machine, fs: &dyn HostFs) -> Value {
    let imds =
        machine.imds_json().map(|answer| assay_agent::imds::parse::file(answer.to_string().as_bytes()));
    let gpu_library = Scripted(machine.gpu_facts());
    let options = SurveyOptions { node_name: None, imds, cpuid: None, gpu_library: &gpu_library };
    serde_json::to_value(ReportDocument::from(survey(fs, &options))).unwrap()
}

/// The first and the last of the files whose paths differ in numbers only.
fn representatives(tree: &MemTree) -> BTreeSet<String> {
    let mut groups: BTreeMap<String, (String, String)> = BTreeMap::new();
    for path in tree.leaves() {
        let group = path.split('/').map(without_numbers).collect::<Vec<_>>().join("/");
        groups
            .entry(group)
            .and_modify(|(_, last)| last.clone_from(&path))
            .or_insert_with(|| (path.clone(), path));
    }
    groups.into_values().flat_map(|(first, last)| [first, last]).collect()
}

/// A name with each number as `#`. Addresses of buses are hexadecimal.
fn without_numbers(name: &str) -> String {
    let address = name.contains(':') || name.matches('-').count() == 4;
    let mut plain = String::new();
    for c in name.chars() {
        let digit = if address { c.is_ascii_hexdigit() } else { c.is_ascii_digit() };
        match digit {
            true if plain.ends_with('#') => {}
            true => plain.push('#'),
            false => plain.push(c),
        }
    }
    plain
}

/// Whether taking the node away makes another machine rather than a broken one.
fn makes_the_machine(tree: &MemTree, path: &str) -> bool {
    tree.read_link(path).is_ok()
}

fn damage_everything(name: &str) -> Vec<String> {
    let machine = machines::machine(name).unwrap();
    let tree = machine.tree();
    let healthy = Healthy::new(report(&machine, &tree));
    let base = machines::base(name).unwrap().map(|base| machines::machine(&base).unwrap().tree());
    let as_in_base = |path: &str| {
        let node =
            |tree: &MemTree| (tree.read_link(path).ok(), tree.read(path).map_err(|error| error.kind()));
        base.as_ref().is_some_and(|base| node(base) == node(&tree))
    };
    let mut faults = Vec::new();
    for path in representatives(&tree).into_iter().filter(|path| !as_in_base(path)) {
        for damage in Damage::ALL {
            if damage == Damage::Missing && makes_the_machine(&tree, &path) {
                continue;
            }
            let mut damaged = tree.clone();
            damaged.damage(&path, damage);
            for fault in healthy.faults(&path, &report(&machine, &damaged)) {
                faults.push(format!("{name}: {path} {damage}: {fault}"));
            }
        }
    }
    faults
}

#[test]
fn a_damaged_file_never_gives_another_value() {
    let names = machines::names().unwrap();
    // Two threads: the build machines have two processors.
    let (one, two) = names.split_at(names.len() / 2);
    let all = |names: &[String]| names.iter().flat_map(|name| damage_everything(name)).collect::<Vec<_>>();
    let faults = std::thread::scope(|scope| {
        let other = scope.spawn(|| all(two));
        let mut faults = all(one);
        faults.extend(other.join().unwrap());
        faults
    });
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn on_disk_a_damaged_file_never_gives_another_value() {
    let mut faults = Vec::new();
    for name in ["plain-kvm", "d4s-v5-mlx5"] {
        let machine = machines::machine(name).unwrap();
        let tree = machine.tree();
        let directory = tempfile::tempdir().unwrap();
        let (root, aside) = (directory.path().join("root"), directory.path().join("aside"));
        fs::create_dir(&root).unwrap();
        tree.write_to(&root).unwrap();
        let surveyed = || report(&machine, &RootDir::open(&root).unwrap());
        let healthy = Healthy::new(surveyed());
        for path in representatives(&tree) {
            let real = root.join(&path);
            fs::rename(&real, &aside).unwrap();
            // What memory and disk differ in: special files, and files that are too long.
            for damage in [Damage::Fifo, Damage::Huge, Damage::Loop, Damage::Directory] {
                MemTree::new().damage(&path, damage).write_to(&root).unwrap();
                for fault in healthy.faults(&path, &surveyed()) {
                    faults.push(format!("{name}: {path} {damage}: {fault}"));
                }
                if damage == Damage::Directory { fs::remove_dir(&real) } else { fs::remove_file(&real) }
                    .unwrap();
            }
            fs::rename(&aside, &real).unwrap();
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn the_program_survives_a_tree_of_nothing_but_damage() {
    let program = programs::program("assay-agent", "assay-agent").unwrap();
    for damage in Damage::ALL {
        let mut tree = machines::machine("nc24ads-a100-v4").unwrap().tree();
        for path in representatives(&tree) {
            tree.damage(&path, damage);
        }
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("root");
        fs::create_dir(&root).unwrap();
        tree.write_to(&root).unwrap();
        for format in ["json", "yaml", "table"] {
            let mut survey = Command::new(&program);
            survey.args(["survey", "--root"]).arg(&root).args(["-o", format]).stdin(Stdio::null());
            let output = survey.output().unwrap();
            assert!(
                output.status.success(),
                "{damage} {format}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(!output.stdout.is_empty(), "{damage} {format}");
        }
    }
}
