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
fn ip_over_infiniband_is_no_virtual_function() {
    let mut tree = azure();
    add(&mut tree, "ib0", "mlx5_core", "0x1003", true);
    let address = ["00", "00", "01", "28", "fe", "80"].join(":") + &":aa".repeat(14);
    tree.file("sys/class/net/ib0/address", format!("{address}\n"));
    assert_eq!(state(&tree), Some(AcceleratedNetworking::SyntheticOnly));
    let network = probe(&tree, &Fact::Measured(Cloud::Azure));
    let ib0 =
        network.interfaces.measured().unwrap().iter().find(|interface| interface.name == "ib0").unwrap();
    assert_eq!((ib0.role, ib0.mac_address.measured()), (InterfaceRole::Other, Some(&address)));
}

#[test]
fn a_card_is_a_virtual_function_on_azure_only() {
    let mut tree = MemTree::default();
    add(&mut tree, "eth0", "mlx5_core", "0x1003", true);
    for (cloud, expected) in [(Cloud::Azure, InterfaceRole::Vf), (Cloud::None, InterfaceRole::Other)] {
        let network = probe(&tree, &Fact::Measured(cloud));
        assert_eq!(network.interfaces.measured().unwrap()[0].role, expected);
    }
}

#[test]
fn only_interfaces_with_a_device_are_listed() {
    let mut tree = azure();
    for name in ["lo", "cbr0", "azv1f2e3d4c5b6"] {
        tree.file(&format!("sys/class/net/{name}/flags"), "0x1003\n");
    }
    tree.file("sys/class/net/bonding_masters", "bond0\n");
    let network = probe(&tree, &Fact::Measured(Cloud::Azure));
    let names: Vec<_> =
        network.interfaces.measured().unwrap().iter().map(|interface| interface.name.as_str()).collect();
    assert_eq!(names, ["eth0"]);
}

/// A tree from which an interface goes after it has been listed once.
#[derive(Debug)]
struct Vanishing {
    before: MemTree,
    after: MemTree,
    listed: std::sync::atomic::AtomicBool,
}

impl HostFs for Vanishing {
    fn read(&self, path: &str) -> std::io::Result<Vec<u8>> {
        self.after.read(path)
    }

    fn list(&self, path: &str) -> std::io::Result<Vec<String>> {
        let first = path == CLASS && !self.listed.swap(true, std::sync::atomic::Ordering::Relaxed);
        if first { &self.before } else { &self.after }.list(path)
    }

    fn read_link(&self, path: &str) -> std::io::Result<String> {
        self.after.read_link(path)
    }

    fn resolve(&self, path: &str) -> std::io::Result<String> {
        self.after.resolve(path)
    }
}

#[test]
fn an_interface_that_goes_meanwhile_is_not_missed() {
    let mut before = azure();
    before.file("sys/class/net/azv1f2e3d4c5b6/flags", "0x1003\n");
    let tree = Vanishing { before, after: azure(), listed: false.into() };
    let network = probe(&tree, &Fact::Measured(Cloud::Azure));
    assert_eq!(network.interfaces.measured().map(Vec::len), Some(1));
}

#[test]
fn a_speed_is_a_number_only_where_the_driver_knows_it() {
    let cases =
        [("50000", Some(50_000)), ("-1", None), ("0", None), ("4294967295", None), ("-2", None), ("", None)];
    for (text, expected) in cases {
        let mut tree = azure();
        tree.file("sys/class/net/eth0/speed", format!("{text}\n"));
        let network = probe(&tree, &Fact::Measured(Cloud::Azure));
        let speed = &network.interfaces.measured().unwrap()[0].speed_mbps;
        assert_eq!(speed.get(), expected.map(Mbps), "{text}");
        assert!(speed.is_measured() || matches!(speed, Fact::Unavailable(_)), "{text}");
    }
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
