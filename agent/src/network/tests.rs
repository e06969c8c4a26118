use assay_shared::report::{AcceleratedNetworking, RdmaState};
use assay_shared::units::Gbps;

use super::*;
use crate::tree::MemTree;

const MAC: &str = "00:0d:3a:f5:76:bd";

/// Adds an interface with a driver of this name.
fn add(tree: &mut MemTree, name: &str, driver: &str, flags: &str, up: bool) {
    let target = format!("sys/bus/x/drivers/{driver}");
    let device = format!("sys/devices/{name}");
    tree.directory(&target).link_to(&format!("{device}/driver"), &target);
    let dir = format!("sys/class/net/{name}");
    tree.link_to(&format!("{dir}/device"), &device);
    let state = if up { "up\n" } else { "down\n" };
    for (file, text) in [("address", MAC), ("flags", flags), ("operstate", state), ("speed", "50000")] {
        tree.file(&format!("{dir}/{file}"), format!("{text}\n"));
    }
}

fn azure() -> MemTree {
    let mut tree = MemTree::default();
    tree.directory("sys/bus/pci/devices");
    add(&mut tree, "eth0", "hv_netvsc", "0x1003", true);
    tree
}

fn join(tree: &mut MemTree, function: &str) {
    tree.link_to(&format!("sys/class/net/{function}/master"), "sys/class/net/eth0");
}

fn state(tree: &MemTree) -> Option<AcceleratedNetworking> {
    probe(tree, &Fact::Measured(Cloud::Azure)).accelerated_networking.get()
}

#[test]
fn each_state_of_accelerated_networking_is_told_apart() {
    use AcceleratedNetworking::{
        ManaStandalone, PciNoDriver, SyntheticOnly, VfActive, VfPairedDown, VfUnpaired,
    };
    type Change = fn(&mut MemTree);
    let cases: [(Change, AcceleratedNetworking); 6] = [
        (|_| {}, SyntheticOnly),
        (
            |tree| {
                add(tree, "enP1s1", "mlx5_core", "0x1803", true);
                join(tree, "enP1s1");
            },
            VfActive,
        ),
        (
            |tree| {
                add(tree, "enP1s1", "mana", "0x1802", false);
                join(tree, "enP1s1");
            },
            VfPairedDown,
        ),
        (|tree| add(tree, "enP1s1", "mlx5_core", "0x1003", true), VfUnpaired),
        (
            |tree| {
                let dir = "sys/bus/pci/devices/cf63:00:02.0";
                for (file, text) in [("vendor", "0x15b3"), ("device", "0x1016"), ("class", "0x020000")] {
                    tree.file(&format!("{dir}/{file}"), format!("{text}\n"));
                }
            },
            PciNoDriver,
        ),
        (
            |tree| {
                *tree = MemTree::default();
                add(tree, "eth0", "mana", "0x1003", true);
            },
            ManaStandalone,
        ),
    ];
    for (change, expected) in cases {
        let mut tree = azure();
        change(&mut tree);
        assert_eq!(state(&tree), Some(expected));
    }
}

#[test]
fn accelerated_networking_is_absent_outside_azure() {
    assert_eq!(probe(&azure(), &Fact::Measured(Cloud::None)).accelerated_networking, Fact::Absent);
}

#[test]
fn an_unknown_speed_is_not_a_number() {
    let mut tree = azure();
    tree.file("sys/class/net/eth0/speed", "-1\n");
    let network = probe(&tree, &Fact::Measured(Cloud::Azure));
    assert!(matches!(network.interfaces.measured().unwrap()[0].speed_mbps, Fact::Unavailable(_)));
}

#[test]
fn rdma_ports_are_read_as_the_kernel_prints_them() {
    let mut tree = azure();
    let port = "sys/class/infiniband/mlx5_ib0/ports/1";
    for (file, text) in [("link_layer", "InfiniBand"), ("state", "1: DOWN"), ("rate", "200 Gb/sec (4X HDR)")]
    {
        tree.file(&format!("{port}/{file}"), format!("{text}\n"));
    }
    let network = probe(&tree, &Fact::Measured(Cloud::Azure));
    let rdma = network.rdma.measured().unwrap();
    assert_eq!((rdma[0].state.get(), rdma[0].rate_gbps.get()), (Some(RdmaState::Down), Some(Gbps(200))));
    assert_eq!(rdma[0].numa_node, Fact::Absent);
}
