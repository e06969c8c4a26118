use assay_shared::units::Bytes;

use super::*;
use crate::tree::MemTree;

const ADDRESSES: [&str; 3] = ["0001:00:00.0", "0002:00:00.0", "0003:00:00.0"];

fn bus(drivers: [Option<&str>; 3]) -> MemTree {
    let mut tree = MemTree::default();
    tree.directory("sys/bus/pci/devices");
    for (address, driver) in ADDRESSES.into_iter().zip(drivers) {
        let dir = format!("sys/bus/pci/devices/{address}");
        for (file, text) in
            [("vendor", "0x10de"), ("device", "0x20b5"), ("class", "0x030200"), ("numa_node", "-1")]
        {
            tree.file(&format!("{dir}/{file}"), format!("{text}\n"));
        }
        if let Some(driver) = driver {
            let target = format!("sys/bus/pci/drivers/{driver}");
            tree.directory(&target).link_to(&format!("{dir}/driver"), &target);
        }
    }
    tree
}

fn device(address: &str) -> LibraryDevice {
    LibraryDevice {
        pci_address: address.to_owned(),
        name: Fact::Measured("NVIDIA A100 80GB PCIe".to_owned()),
        memory: Fact::Measured(Bytes::gib(80)),
        ..LibraryDevice::default()
    }
}

fn answer(devices: Vec<Result<LibraryDevice, DeviceFault>>) -> Result<GpuLibraryFacts, GpuLibraryError> {
    Ok(GpuLibraryFacts { devices, ..GpuLibraryFacts::default() })
}

fn states(gpus: &Gpus) -> Vec<GpuState> {
    gpus.devices.measured().unwrap().iter().map(|gpu| gpu.state).collect()
}

#[test]
fn each_way_of_counting_is_told_apart() {
    use GpuState::{DriverMismatch, Lost, NoDriver, NotListed, Unhealthy, Unknown, Usable};
    let bound = [Some("nvidia"); 3];
    let ok = |n: usize| Ok(device(ADDRESSES[n]));
    let lost = || Err(DeviceFault { state: Lost, reason: "GPU is lost".to_owned() });
    let mut sick = device(ADDRESSES[2]);
    sick.faults.push("a row remap is pending".to_owned());
    let cases = [
        ("all work", bound, answer(vec![ok(0), ok(1), ok(2)]), Some(3), Some(3), [Usable; 3]),
        ("one is lost", bound, answer(vec![ok(0), lost(), ok(2)]), Some(3), Some(2), [Usable, Lost, Usable]),
        (
            "one is not listed",
            bound,
            answer(vec![ok(0), ok(1)]),
            Some(3),
            Some(2),
            [Usable, Usable, NotListed],
        ),
        (
            "one is sick",
            bound,
            answer(vec![ok(0), ok(1), Ok(sick)]),
            Some(3),
            Some(2),
            [Usable, Usable, Unhealthy],
        ),
        (
            "one has no driver",
            [Some("nvidia"), Some("nvidia"), None],
            answer(vec![ok(0), ok(1)]),
            Some(2),
            Some(2),
            [Usable, Usable, NoDriver],
        ),
        (
            "versions differ",
            bound,
            Err(GpuLibraryError::DriverMismatch),
            Some(3),
            Some(0),
            [DriverMismatch; 3],
        ),
        ("nobody was asked", bound, Err(GpuLibraryError::Off), Some(3), None, [Unknown; 3]),
        ("the library hangs", bound, Err(GpuLibraryError::Hangs { seconds: 5 }), Some(3), None, [Unknown; 3]),
        ("no driver at all", [None; 3], Err(GpuLibraryError::Off), Some(0), Some(0), [NoDriver; 3]),
    ];
    for (what, drivers, answer, driver_bound, usable, expected) in cases {
        let gpus = probe(&bus(drivers), &Scripted(answer));
        assert_eq!(gpus.pci, Fact::Measured(3), "{what}");
        assert_eq!(gpus.driver_bound.get(), driver_bound, "{what}");
        assert_eq!(gpus.usable.get(), usable, "{what}");
        assert_eq!(states(&gpus), expected, "{what}");
    }
}

#[test]
fn a_machine_without_gpus_has_none_and_nobody_is_asked() {
    let mut tree = MemTree::default();
    tree.directory("sys/bus/pci/devices");
    let gpus = probe(&tree, &Scripted(Err(GpuLibraryError::Failed("must not matter".to_owned()))));
    assert_eq!((gpus.pci.get(), gpus.usable.get()), (Some(0), Some(0)));
    assert_eq!(gpus.driver_version, Fact::Absent);
}

#[test]
fn a_bus_that_cannot_be_read_is_no_count() {
    let mut tree = bus([Some("nvidia"); 3]);
    tree.file("sys/bus/pci/devices/0002:00:00.0/class", "no class\n");
    let gpus = probe(&tree, &Scripted(answer(Vec::new())));
    assert!(matches!(&gpus.pci, Fact::Unavailable(reason) if reason.contains("0002:00:00.0/class")));
    assert!(!gpus.usable.is_measured());
}

#[test]
fn the_driver_tells_its_version_without_the_library() {
    let mut tree = bus([Some("nvidia"); 3]);
    let line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n";
    tree.file("proc/driver/nvidia/version", line);
    let gpus = probe(&tree, &Scripted(Err(GpuLibraryError::Off)));
    assert_eq!(gpus.driver_version, Fact::Measured("550.54.15".to_owned()));
}
