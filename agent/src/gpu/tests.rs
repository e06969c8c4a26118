use assay_shared::report::{GpuState, GpuVendor};
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
        mig: Fact::Measured(false),
        vgpu: Fact::Absent,
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
    let lost = || Err(DeviceFault { pci_address: None, state: Lost, reason: "GPU is lost".to_owned() });
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

fn fault(address: Option<&str>, state: GpuState) -> Result<LibraryDevice, DeviceFault> {
    Err(DeviceFault { pci_address: address.map(str::to_owned), state, reason: "GPU is lost".to_owned() })
}

#[test]
fn a_fault_is_put_down_to_a_gpu_only_where_it_is_known_to_which() {
    use GpuState::{Lost, NoDriver, NotListed, Unhealthy, Usable};
    let bound = [Some("nvidia"); 3];
    let ok = |n: usize| Ok(device(ADDRESSES[n]));
    let cases = [
        ("the only one left", bound, vec![ok(0), fault(None, Lost), ok(2)], [Usable, Lost, Usable]),
        (
            "as many as are left",
            bound,
            vec![fault(None, Unhealthy), ok(1), fault(None, Lost)],
            [Unhealthy, Usable, Lost],
        ),
        ("one of two", bound, vec![ok(0), fault(None, Lost)], [Usable, NotListed, NotListed]),
        (
            "named, beside one that is not listed",
            bound,
            vec![ok(0), fault(Some(ADDRESSES[2]), Lost)],
            [Usable, NotListed, Lost],
        ),
        (
            "the one without a driver cannot be meant",
            [Some("nvidia"), None, Some("nvidia")],
            vec![ok(0), fault(None, Lost)],
            [Usable, NoDriver, Lost],
        ),
        (
            "nor the one with another driver",
            [Some("nvidia"), Some("vfio-pci"), Some("nvidia")],
            vec![ok(0), fault(None, Lost)],
            [Usable, NoDriver, Lost],
        ),
    ];
    for (what, drivers, listed, expected) in cases {
        let gpus = probe(&bus(drivers), &Scripted(answer(listed)));
        assert_eq!(states(&gpus), expected, "{what}");
        let works = expected.iter().filter(|state| **state == Usable).count();
        assert_eq!(gpus.usable.get(), u32::try_from(works).ok(), "{what}");
    }
}

#[test]
fn a_gpu_of_which_nothing_is_known_makes_the_count_unknown() {
    let listed = vec![Ok(device(ADDRESSES[0])), Ok(device(ADDRESSES[1])), fault(None, GpuState::Unknown)];
    let gpus = probe(&bus([Some("nvidia"); 3]), &Scripted(answer(listed)));
    assert!(matches!(gpus.usable, Fact::Unavailable(_)));
    assert_eq!(gpus.driver_bound, Fact::Measured(3));
}

#[test]
fn how_gpus_are_split_is_what_the_library_says() {
    let yes = Fact::Measured(true);
    let cases = [
        (Fact::Measured(false), Fact::Measured(false), Fact::Measured(GpuPartition::None)),
        (Fact::Absent, Fact::Absent, Fact::Measured(GpuPartition::None)),
        (yes.clone(), Fact::Measured(false), Fact::Measured(GpuPartition::Mig)),
        (Fact::Absent, yes.clone(), Fact::Measured(GpuPartition::Vgpu)),
        (Fact::unavailable("unknown error"), Fact::Absent, Fact::unavailable("unknown error")),
    ];
    for (mig, vgpu, expected) in cases {
        let one = LibraryDevice { mig, vgpu, ..device(ADDRESSES[0]) };
        let listed = answer(vec![Ok(one), Ok(device(ADDRESSES[1]))]);
        let found = probe(&bus([Some("nvidia"), Some("nvidia"), None]), &Scripted(listed)).partition;
        assert_eq!(found, expected);
    }
}

#[test]
fn the_kernel_driver_tells_the_model_where_the_library_does_not() {
    let mut tree = bus([Some("nvidia"); 3]);
    for (address, uuid) in [(ADDRESSES[0], "GPU-1"), (ADDRESSES[1], "GPU-????????-????")] {
        tree.file(
            &format!("proc/driver/nvidia/gpus/{address}/information"),
            format!("Model: \t\t NVIDIA A100-SXM4-40GB\nIRQ:   \t\t 0\nGPU UUID: \t {uuid}\n"),
        );
    }
    let gpus = probe(&tree, &Scripted(Err(GpuLibraryError::Off)));
    let found: Vec<_> = gpus
        .devices
        .measured()
        .unwrap()
        .iter()
        .map(|gpu| (gpu.model.measured().map(String::as_str), gpu.uuid.measured().map(String::as_str)))
        .collect();
    let model = Some("NVIDIA A100-SXM4-40GB");
    assert_eq!(found, [(model, Some("GPU-1")), (model, None), (None, None)]);
}

#[test]
fn nvswitches_and_other_makes_are_no_gpus() {
    let mut tree = bus([Some("nvidia"); 3]);
    for (address, vendor, class) in [
        ("0004:00:00.0", "0x10de", "0x068000"),
        ("0005:00:00.0", "0x10de", "0x040300"),
        ("0006:00:00.0", "0x1414", "0x030000"),
        ("0007:00:00.0", "0x1002", "0x040300"),
    ] {
        let dir = format!("sys/bus/pci/devices/{address}");
        for (file, text) in [("vendor", vendor), ("device", "0x1"), ("class", class)] {
            tree.file(&format!("{dir}/{file}"), format!("{text}\n"));
        }
    }
    assert_eq!(probe(&tree, &Scripted(answer(Vec::new()))).pci, Fact::Measured(3));
}

/// Adds an AMD accelerator, with what its driver shows where one is bound.
fn add_amd(tree: &mut MemTree, address: &str, driver: Option<&str>, partition: Option<&str>) {
    let dir = format!("sys/bus/pci/devices/{address}");
    for (file, text) in [("vendor", "0x1002"), ("device", "0x74b5"), ("class", "0x120000")] {
        tree.file(&format!("{dir}/{file}"), format!("{text}\n"));
    }
    if let Some(driver) = driver {
        let target = format!("sys/bus/pci/drivers/{driver}");
        tree.directory(&target).link_to(&format!("{dir}/driver"), &target);
    }
    if driver == Some("amdgpu") {
        tree.file(&format!("{dir}/mem_info_vram_total"), "206141652992\n");
        tree.file(&format!("{dir}/unique_id"), "a1b2c3d4e5f60718\n");
    }
    if let Some(partition) = partition {
        tree.file(&format!("{dir}/current_compute_partition"), format!("{partition}\n"));
    }
}

#[test]
fn amd_gpus_are_counted_by_what_their_driver_shows() {
    let amdgpu = Some("amdgpu");
    let cases = [
        ("all work", [amdgpu, amdgpu], Some("SPX"), (2, 2), Fact::Measured(GpuPartition::None)),
        ("too old to be split", [amdgpu, amdgpu], None, (2, 2), Fact::Measured(GpuPartition::None)),
        ("split", [amdgpu, amdgpu], Some("CPX"), (2, 2), Fact::Measured(GpuPartition::Mig)),
        ("one without a driver", [amdgpu, None], Some("SPX"), (1, 1), Fact::Measured(GpuPartition::None)),
        (
            "one given to a guest",
            [amdgpu, Some("vfio-pci")],
            Some("SPX"),
            (1, 1),
            Fact::Measured(GpuPartition::None),
        ),
    ];
    for (what, drivers, mode, (driver_bound, usable), partition) in cases {
        let mut tree = MemTree::default();
        for (driver, address) in drivers.into_iter().zip(["0002:00:00.0", "0003:00:00.0"]) {
            add_amd(&mut tree, address, driver, mode);
        }
        tree.file("sys/module/amdgpu/version", "6.10.5\n");
        let gpus = probe(&tree, &Scripted(Err(GpuLibraryError::Failed("must not be asked".to_owned()))));
        let counts = (gpus.pci.get(), gpus.driver_bound.get(), gpus.usable.get());
        assert_eq!(counts, (Some(2), Some(driver_bound), Some(usable)), "{what}");
        assert_eq!(gpus.partition, partition, "{what}");
        assert_eq!(
            (gpus.driver_version.measured().unwrap().as_str(), &gpus.cuda_version),
            ("6.10.5", &Fact::Absent)
        );
        let first = &gpus.devices.measured().unwrap()[0];
        assert_eq!((first.vendor, first.memory_bytes.get()), (GpuVendor::Amd, Some(Bytes(206_141_652_992))));
        assert_eq!(first.model, Fact::Measured("AMD Instinct MI300X".to_owned()));
    }
}

#[test]
fn gpus_of_both_makes_are_all_counted() {
    let mut tree = bus([Some("nvidia"), Some("nvidia"), None]);
    add_amd(&mut tree, "0002:00:00.1", Some("amdgpu"), None);
    let listed = answer(vec![Ok(device(ADDRESSES[0])), Ok(device(ADDRESSES[1]))]);
    let gpus = probe(&tree, &Scripted(listed));
    assert_eq!((gpus.pci.get(), gpus.driver_bound.get(), gpus.usable.get()), (Some(4), Some(3), Some(3)));
    let vendors: Vec<_> = gpus.devices.measured().unwrap().iter().map(|gpu| gpu.vendor).collect();
    assert_eq!(vendors, [GpuVendor::Nvidia, GpuVendor::Nvidia, GpuVendor::Amd, GpuVendor::Nvidia]);
}

#[test]
fn files_of_an_amd_gpu_are_found_by_its_card_too() {
    let mut tree = MemTree::default();
    add_amd(&mut tree, "0002:00:00.0", Some("amdgpu"), None);
    let dir = "sys/devices/pci0002:00/0002:00:00.0";
    tree.file(&format!("{dir}/mem_info_vram_total"), "4096\n");
    tree.link_to("sys/class/drm/card0-DP-1/device", dir).link_to("sys/class/drm/card1/device", dir);
    tree.remove("sys/bus/pci/devices/0002:00:00.0/mem_info_vram_total");
    let gpus = probe(&tree, &Scripted(Err(GpuLibraryError::Off)));
    assert_eq!(gpus.devices.measured().unwrap()[0].memory_bytes, Fact::Measured(Bytes(4096)));
    tree.remove("sys/class/drm/card1");
    let gpus = probe(&tree, &Scripted(Err(GpuLibraryError::Off)));
    assert!(matches!(gpus.usable, Fact::Unavailable(_)), "a connector is no card");
}
