//! The sections that list devices.

use std::fmt::Debug;

use assay_shared::Fact;
use assay_shared::report::{
    Disk, DiskRole, DiskUser, GpuDevice, GpuPartition, GpuState, Gpus, InterfaceRole, Network,
    NetworkInterface, NumaNode, RdmaDevice, RdmaLinkLayer, RdmaState, ScheduledEvent,
};

use super::super::grid::{Cell, Page, Tone};
use super::{cell, phrase, plural, say, sentence};

/// Devices shown of one kind; the JSON form has all.
const ROWS: usize = 20;

pub(super) fn numa(page: &mut Page, nodes: &Fact<Vec<NumaNode>>) {
    let Some(nodes) = nodes.measured() else { return section(page, "NUMA", nodes, "no NUMA nodes") };
    // One node is every ordinary machine.
    if let [node] = nodes.as_slice() {
        let line = sentence([Some("1 node".to_owned()), phrase("CPUs ", &node.cpus, "")]);
        return page.section("NUMA", &[Cell::plain(line)]);
    }
    page.section("NUMA", &[Cell::plain(format!("{} nodes", nodes.len()))]);
    let row = |node: &NumaNode| {
        let distances = node
            .distances
            .as_ref()
            .map(|distances| distances.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
        vec![Cell::plain(node.id.to_string()), cell(&node.cpus), cell(&node.memory_bytes), cell(&distances)]
    };
    list(page, ["NODE", "CPUS", "MEMORY", "DISTANCES"], nodes, row, 1);
}

pub(super) fn gpus(page: &mut Page, gpus: &Gpus) {
    if gpus.pci == Fact::Measured(0) && gpus.usable.get().is_none_or(|usable| usable == 0) {
        return page.section("GPU", &[Cell::new("none", Tone::Faint)]);
    }
    let split = gpus.partition.get().filter(|partition| *partition != GpuPartition::None);
    let counts = sentence([
        Some(format!("{} usable of {} on the bus", say(&gpus.usable), say(&gpus.pci))),
        phrase("", &gpus.driver_bound, " with a driver"),
        phrase("driver ", &gpus.driver_version, ""),
        phrase("CUDA ", &gpus.cuda_version, ""),
        split.map(|split| format!("split by {}", split.as_str())),
    ]);
    let whole = gpus.usable.is_measured() && gpus.usable == gpus.pci;
    page.section("GPU", &[Cell::new(counts, if whole { Tone::Plain } else { Tone::Bad })]);
    let row = |device: &GpuDevice| {
        let state = match (&device.reason, device.state) {
            (_, GpuState::Usable) => Cell::new("usable", Tone::Good),
            (Some(reason), state) => Cell::new(format!("{}: {reason}", word(&state)), Tone::Bad),
            (None, state) => Cell::new(word(&state), Tone::Bad),
        };
        vec![
            cell(&device.pci_address),
            cell(&device.model),
            cell(&device.memory_bytes),
            cell(&device.compute_capability),
            cell(&device.numa_node),
            state,
        ]
    };
    let devices = gpus.devices.measured().map_or(&[][..], Vec::as_slice);
    list(page, ["ADDRESS", "MODEL", "MEMORY", "CC", "NUMA", "STATE"], devices, row, 5);
}

pub(super) fn network(page: &mut Page, network: &Network) {
    let state = &network.accelerated_networking;
    let tone = match state.get() {
        Some(state) if state.is_active() => Tone::Good,
        _ => Tone::Plain,
    };
    let line = match state {
        // Only Azure has the notion.
        Fact::Absent => sentence([plural(&network.interfaces.as_ref().map(|all| count(all)), "interface")]),
        state => format!("accelerated networking: {}", say(&state.as_ref().map(|state| state.as_str()))),
    };
    page.section("Network", &[Cell::new(line, tone)]);
    let row = |interface: &NetworkInterface| {
        let role = match interface.role {
            InterfaceRole::Synthetic => "synthetic",
            InterfaceRole::Vf => "vf",
            InterfaceRole::Other => "other",
        };
        let up = interface.up.clone().map(|up| if up { "up" } else { "down" });
        vec![
            Cell::plain(&interface.name),
            cell(&interface.driver),
            Cell::plain(role),
            cell(&interface.speed_mbps),
            cell(&up),
            cell(&interface.mac_address),
        ]
    };
    let interfaces = network.interfaces.measured().map_or(&[][..], Vec::as_slice);
    list(page, ["NAME", "DRIVER", "ROLE", "SPEED", "STATE", "ADDRESS"], interfaces, row, 0);
    let ports = network.rdma.measured().map_or(&[][..], Vec::as_slice);
    if ports.is_empty() {
        return;
    }
    page.section("RDMA", &[Cell::plain(sentence([plural(&Fact::Measured(count(ports)), "port")]))]);
    let row = |port: &RdmaDevice| {
        let layer = port.link_layer.clone().map(|layer| match layer {
            RdmaLinkLayer::Infiniband => "InfiniBand",
            RdmaLinkLayer::Ethernet => "Ethernet",
        });
        let state = port.state.clone().map(|state| word(&state));
        let tone = if port.state == Fact::Measured(RdmaState::Active) { Tone::Good } else { Tone::Bad };
        vec![
            Cell::plain(&port.device),
            cell(&layer),
            cell(&port.rate_gbps),
            cell(&port.numa_node),
            Cell::new(say(&state), tone),
        ]
    };
    list(page, ["DEVICE", "LAYER", "RATE", "NUMA", "STATE"], ports, row, 0);
}

pub(super) fn disks(page: &mut Page, disks: &Fact<Vec<Disk>>) {
    let Some(disks) = disks.measured().filter(|disks| !disks.is_empty()) else {
        return section(page, "Disks", disks, "none");
    };
    page.section("Disks", &[Cell::plain(sentence([plural(&Fact::Measured(count(disks)), "disk")]))]);
    let row = |disk: &Disk| {
        let role = match (disk.role, disk.ephemeral_os.get()) {
            (DiskRole::Os, Some(true)) => "os (ephemeral)",
            (DiskRole::Os, _) => "os",
            (DiskRole::Temp, _) => "temp",
            (DiskRole::LocalNvme, _) => "local NVMe",
            (DiskRole::Data, _) => "data",
            (DiskRole::Other, _) => "other",
        };
        let user = disk.in_use_by.clone().map(|user| match user {
            DiskUser::Os => "os",
            DiskUser::Kubelet => "kubelet",
            DiskUser::Md => "software RAID",
            DiskUser::Dm => "device mapper",
            DiskUser::Mount => "mounted",
        });
        vec![
            Cell::plain(&disk.name),
            Cell::plain(role),
            cell(&disk.size_bytes),
            cell(&user),
            cell(&disk.model),
        ]
    };
    list(page, ["NAME", "ROLE", "SIZE", "USED BY", "MODEL"], disks, row, 4);
}

pub(super) fn events(page: &mut Page, events: &Fact<Vec<ScheduledEvent>>) {
    let lines: Vec<Cell> = events
        .measured()
        .into_iter()
        .flatten()
        .map(|event| {
            let when = if event.not_before.is_empty() { "has started" } else { &event.not_before };
            let not_before = if event.not_before.is_empty() { "" } else { "not before " };
            Cell::new(format!("{:?}: {not_before}{when}", event.event_type), Tone::Bad)
        })
        .collect();
    page.section("Events", &lines);
}

/// A section of which there is nothing to list.
fn section<T>(page: &mut Page, name: &str, fact: &Fact<T>, none: &str) {
    let line = match fact {
        Fact::Measured(_) | Fact::Absent => Cell::new(none, Tone::Faint),
        Fact::Unavailable(_) => Cell::new("?", Tone::Warning),
    };
    page.section(name, &[line]);
}

/// A grid with a heading, cut after [`ROWS`] devices.
fn list<T, const COLUMNS: usize>(
    page: &mut Page,
    heading: [&str; COLUMNS],
    devices: &[T],
    row: impl Fn(&T) -> Vec<Cell>,
    elastic: usize,
) {
    if devices.is_empty() {
        return;
    }
    let mut rows = vec![heading.map(Cell::from).to_vec()];
    rows.extend(devices.iter().take(ROWS).map(row));
    page.grid(&rows, elastic);
    if let Some(more) = devices.len().checked_sub(ROWS).filter(|more| *more > 0) {
        page.section("", &[Cell::new(format!("… and {more} more: see -o json"), Tone::Faint)]);
    }
}

/// How many there are.
fn count<T>(devices: &[T]) -> u32 {
    u32::try_from(devices.len()).unwrap_or(u32::MAX)
}

/// A variant's name as words: `NoDriver` is "no driver".
fn word(variant: &impl Debug) -> String {
    let mut out = String::new();
    for letter in format!("{variant:?}").chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.extend(letter.to_lowercase());
    }
    out
}
