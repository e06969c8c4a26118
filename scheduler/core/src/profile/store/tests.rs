//! What reports may change, and what they may not.

use assay_shared::Fact;
use assay_shared::report::IsaLevel;
use assay_shared::units::MilliCpu;

use super::*;
use crate::model::ResourceList;
use crate::requirement::Requirements;

fn bought() -> InstanceType {
    let capacity = ResourceList { cpu: MilliCpu(4000), memory: Bytes::gib(15), ..ResourceList::default() };
    InstanceType {
        name: "Standard_D4s_v5".into(),
        requirements: Requirements::new(),
        offerings: Vec::new(),
        capacity,
        overhead: ResourceList::default(),
        numa: None,
        lotteries: Vec::new(),
    }
}

fn key() -> ProfileKey {
    ProfileKey { sku: "Standard_D4s_v5".into(), region: "eastus".into(), image: "Ubuntu".into() }
}

fn report(total: Bytes) -> HardwareReport {
    let mut report = HardwareReport::default();
    report.memory.total_bytes = Fact::Measured(total);
    report
}

fn observe(store: &mut ProfileStore, vm: &str, total: Bytes) -> Observation {
    store.observe(&key(), vm, Timestamp(1), &report(total), &bought(), Bytes::gib(16))
}

#[test]
fn three_distinct_vms_make_a_profile_speak_and_the_smallest_counts() {
    let mut store = ProfileStore::new();
    for _ in 0..100 {
        observe(&mut store, "vm-1", Bytes::mib(16_018));
    }
    assert_eq!(store.memory_for("Standard_D4s_v5", "eastus"), None, "a hundred reports of one VM are one");
    observe(&mut store, "vm-2", Bytes::mib(16_016));
    let third = observe(&mut store, "vm-3", Bytes::mib(16_019));
    assert_eq!(third, Observation::Accepted { memory_changed: Some(Bytes::mib(16_016)), changed: true });
    assert_eq!(store.memory_for("Standard_D4s_v5", "westeurope"), None, "another region learns for itself");
}

#[test]
fn one_vm_that_reports_little_or_much_changes_nobody_elses_purchase() {
    let mut store = ProfileStore::new();
    for vm in ["vm-1", "vm-2", "vm-3"] {
        observe(&mut store, vm, Bytes::mib(16_018));
    }
    observe(&mut store, "tiny", Bytes::mib(64));
    assert_eq!(store.memory_for("Standard_D4s_v5", "eastus"), Some(Bytes::mib(16_018)));
    let huge = observe(&mut store, "huge", Bytes::gib(1024));
    assert!(matches!(huge, Observation::Quarantined(Quarantine::TooMuchMemory { .. })));
    assert_eq!(store.get(&key()).unwrap().quarantined, 1);
    assert_eq!(store.get(&key()).unwrap().vms(), 4, "a quarantined report leaves no sample");
}

#[test]
fn one_report_never_raises_what_a_quorum_settled() {
    let mut store = ProfileStore::new();
    let mut at = 0;
    let mut see = |store: &mut ProfileStore, vm: &str, mib| {
        at += 1;
        store.observe(&key(), vm, Timestamp(at), &report(Bytes::mib(mib)), &bought(), Bytes::gib(16));
        store.memory_for("Standard_D4s_v5", "eastus")
    };
    for vm in ["a", "b", "c"] {
        see(&mut store, vm, 15_000);
    }
    for vm in ["d", "e", "f"] {
        assert_eq!(see(&mut store, vm, 16_000), Some(Bytes::mib(15_000)), "a, b and c still say so");
    }
    see(&mut store, "d", 14_000);
    assert_eq!(see(&mut store, "a", 16_000), Some(Bytes::mib(16_000)), "d, e, f and a saw more since");
}

#[test]
fn labels_are_promised_where_all_agree_and_are_a_chance_where_they_differ() {
    let mut store = ProfileStore::new();
    for (vm, isa) in [("a", IsaLevel::V4), ("b", IsaLevel::V4), ("c", IsaLevel::V4), ("d", IsaLevel::V3)] {
        let mut report = report(Bytes::mib(16_000));
        report.cpu.isa_level = Fact::Measured(isa);
        report.cpu.vendor = Fact::Measured("GenuineIntel".into());
        store.observe(&key(), vm, Timestamp(1), &report, &bought(), Bytes::gib(16));
    }
    let mut size = bought();
    store.refine(&mut size, "eastus");
    assert_eq!(size.requirements.get(hardware::CPU_VENDOR), Some(&ValueSet::of(["intel"])));
    assert_eq!(size.requirements.get(hardware::CPU_ISA), None);
    let chance = store.chance("Standard_D4s_v5", "eastus", hardware::CPU_ISA, "v4");
    assert_eq!(chance, Some(0.75));
    assert_eq!(store.chance("Standard_D4s_v5", "westus", hardware::CPU_ISA, "v4"), None);
}

#[test]
fn an_offering_that_keeps_arriving_broken_is_avoided_for_a_while() {
    let mut store = ProfileStore::new();
    for minute in 0..3 {
        assert_eq!(store.avoided_until("nd", "z-1", Timestamp(minute * 60_000)), None);
        store.arrived_unhealthy("nd", "z-1", Timestamp(minute * 60_000));
    }
    let until = store.avoided_until("nd", "z-1", Timestamp(120_000)).unwrap();
    assert_eq!(store.avoided_until("nd", "z-2", Timestamp(120_000)), None);
    assert_eq!(store.avoided_until("nd", "z-1", until), None);
}

#[test]
fn samples_are_bounded() {
    let mut store = ProfileStore::new();
    for vm in 0..1000 {
        observe(&mut store, &format!("vm-{vm}"), Bytes::mib(16_000));
    }
    assert_eq!(store.get(&key()).unwrap().vms(), SAMPLES_KEPT);
}

#[test]
fn impossible_combinations_are_put_aside() {
    let mut other_size = report(Bytes::gib(15));
    other_size.platform.vm_size = Fact::Measured("Standard_D8s_v5".into());
    let mut gpus = report(Bytes::gib(15));
    gpus.gpus.usable = Fact::Measured(1);
    let mut cpus = report(Bytes::gib(15));
    cpus.cpu.logical_cpus = Fact::Measured(5);
    let mut installed = report(Bytes::gib(15));
    installed.memory.installed_bytes = Fact::Measured(Bytes::gib(14));
    for report in [other_size, gpus, cpus, installed] {
        let observation =
            ProfileStore::new().observe(&key(), "vm", Timestamp(1), &report, &bought(), Bytes::gib(16));
        assert!(matches!(observation, Observation::Quarantined(_)), "{observation:?}");
    }
}

#[test]
fn profiles_survive_export_and_import() {
    let mut store = ProfileStore::new();
    for vm in ["vm-1", "vm-2", "vm-3"] {
        observe(&mut store, vm, Bytes::mib(16_018));
    }
    let restored = ProfileStore::import(&store.export().unwrap()).unwrap();
    assert_eq!(restored.get(&key()), store.get(&key()));
    let wrong = ProfileStore::import(r#"{"apiVersion":"v1","kind":"List","items":[]}"#).unwrap_err();
    assert_eq!(wrong.to_string(), "apiVersion: expected \"assay.dev/v1alpha1\", found \"v1\"");
}
