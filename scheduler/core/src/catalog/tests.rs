use std::collections::BTreeSet;
use std::path::Path;

use assay_shared::labels::{azure as labels, karpenter, kubernetes};
use assay_shared::units::MilliCpu;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn class() -> NodeClass {
    NodeClass::with_defaults("default")
}

fn unmeasured(_: &str) -> Option<Bytes> {
    None
}

fn find<'t>(types: &'t [InstanceType], name: &str) -> &'t InstanceType {
    types.iter().find(|found| &*found.name == name).unwrap_or_else(|| panic!("{name} is not there"))
}

fn label(found: &InstanceType, key: &str) -> String {
    let set = found.requirements.get(key).unwrap_or_else(|| panic!("{}: {key} is not set", found.name));
    let values: Vec<_> = set.finite().into_iter().flatten().cloned().collect();
    assert_eq!(values.is_empty(), set.allows_absence(), "{key}");
    values.join(",")
}

#[test]
fn the_built_in_catalogue_knows_four_regions() {
    for region in BUILTIN_REGIONS {
        let types = Catalog::builtin(region).unwrap().instance_types(&class(), unmeasured);
        assert!(types.len() >= 200, "{region}: {}", types.len());
        for found in &types {
            assert!(!found.offerings.is_empty(), "{}", found.name);
            assert!(!found.allocatable().memory.is_zero(), "{}", found.name);
            assert!(found.offerings.iter().all(|offering| !offering.price.is_zero()), "{}", found.name);
        }
    }
    let error = Catalog::builtin("moon").unwrap_err().to_string();
    assert_eq!(error, "region: expected one of eastus, westeurope, uksouth, southcentralus, found \"moon\"");
}

#[test]
fn a_size_has_the_labels_that_karpenter_gives_it() {
    let types = Catalog::builtin("EastUS").unwrap().instance_types(&class(), unmeasured);
    let cases = [
        ("Standard_D4s_v5", labels::SKU_FAMILY, "D"),
        ("Standard_D4s_v5", labels::SKU_SERIES, "Ds_v5"),
        ("Standard_D4s_v5", labels::SKU_VERSION, "5"),
        ("Standard_D4s_v5", labels::SKU_CPU, "4"),
        ("Standard_D4s_v5", labels::AKS_SKU_CPU, "4"),
        ("Standard_D4s_v5", labels::SKU_MEMORY, "16384"),
        ("Standard_D4s_v5", labels::AKS_SKU_MEMORY, "16384"),
        ("Standard_D4s_v5", labels::SKU_GPU_NAME, ""),
        ("Standard_D4s_v5", labels::SKU_GPU_COUNT, ""),
        ("Standard_D4s_v5", labels::SKU_STORAGE_EPHEMERAL_OS_MAX_SIZE, ""),
        ("Standard_D4s_v5", labels::SKU_NETWORKING_ACCELERATED, "true"),
        ("Standard_D4s_v5", labels::SKU_HYPERV_GENERATION, "1,2"),
        ("Standard_D4s_v5", labels::PLACEMENT_SCOPE, "zonal"),
        ("Standard_D4s_v5", kubernetes::ARCH, "amd64"),
        ("Standard_D4s_v5", kubernetes::OS, "linux"),
        ("Standard_D4s_v5", kubernetes::REGION, "eastus"),
        ("Standard_D4s_v5", kubernetes::ZONE, "eastus-1,eastus-2,eastus-3"),
        ("Standard_D4s_v5", karpenter::CAPACITY_TYPE, "on-demand,spot"),
        ("Standard_D4_v3", labels::SKU_STORAGE_PREMIUM_CAPABLE, "false"),
        ("Standard_D4ps_v5", kubernetes::ARCH, "arm64"),
        ("Standard_D128ds_v6", labels::SKU_STORAGE_EPHEMERAL_OS_MAX_SIZE, "7559"),
        ("Standard_B4ms", karpenter::CAPACITY_TYPE, "on-demand"),
        ("Standard_NC24ads_A100_v4", labels::SKU_FAMILY, "N"),
        ("Standard_NC24ads_A100_v4", labels::SKU_GPU_NAME, "A100"),
        ("Standard_NC24ads_A100_v4", labels::SKU_GPU_MANUFACTURER, "nvidia"),
        ("Standard_NC6s_v3", labels::SKU_GPU_NAME, "V100"),
        ("Standard_HB120rs_v3", kubernetes::ZONE, "0"),
        ("Standard_HB120rs_v3", labels::PLACEMENT_SCOPE, "regional"),
    ];
    for (name, key, value) in cases {
        assert_eq!(label(find(&types, name), key), value, "{name} {key}");
    }
    assert_eq!(find(&types, "Standard_NC48ads_A100_v4").capacity.extended("nvidia.com/gpu"), 2);
}

#[test]
fn measured_memory_replaces_the_prediction() {
    let catalog = Catalog::builtin("eastus").unwrap();
    let predicted = catalog.instance_types(&class(), unmeasured);
    let d4 = find(&predicted, "Standard_D4s_v5");
    assert_eq!(d4.capacity.memory, Bytes::mib(16_384 - 256 - 320));
    assert_eq!(d4.overhead.memory, Bytes::mib(4096 + 100), "a quarter, with 250 pods");
    assert_eq!(d4.overhead.cpu, MilliCpu(140));
    let seen = Bytes::KIB * 16_403_296;
    let measured = catalog.instance_types(&class(), |name| (name == "Standard_D4s_v5").then_some(seen));
    assert_eq!(find(&measured, "Standard_D4s_v5").capacity.memory, seen);
    assert_eq!(find(&measured, "Standard_D8s_v5"), find(&predicted, "Standard_D8s_v5"));
}

fn capability(name: &str, value: &str) -> Value {
    json!({"name": name, "value": value})
}

fn arm_size(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut entry = json!({
        "resourceType": "virtualMachines", "name": name, "locations": ["WestUS2"],
        "locationInfo": [{"location": "westus2", "zones": ["3", "1"]}],
        "capabilities": [capability("vCPUs", "4"), capability("MemoryGB", "16"), capability("Shine", "much")],
        "restrictions": [],
    });
    change(&mut entry);
    entry
}

fn parse(entries: &[Value]) -> (Vec<InstanceType>, Vec<String>) {
    let text = json!(entries).to_string();
    let (catalog, warnings) = Catalog::parse(&text, "westus2", PriceList::default()).unwrap();
    let warnings = warnings.iter().map(ToString::to_string).collect();
    (catalog.instance_types(&class(), unmeasured), warnings)
}

#[test]
fn a_bad_arm_entry_is_named_and_the_others_are_kept() {
    let mut no_memory = arm_size("Standard_X4_v1", |_| {});
    no_memory["capabilities"] = json!([capability("vCPUs", "4")]);
    let mut odd = arm_size("Standard_Y4_v1", |_| {});
    odd["capabilities"] = json!([capability("vCPUs", "many"), capability("MemoryGB", "16"),]);
    let mut soft = arm_size("Standard_Z4_v1", |_| {});
    soft["capabilities"] =
        json!([capability("vCPUs", "4"), capability("MemoryGB", "16"), capability("PremiumIO", "perhaps"),]);
    let disk = json!({"resourceType": "disks", "name": "Premium_LRS"});
    let good = arm_size("Standard_D4s_v5", |_| {});
    let (types, warnings) = parse(&[json!(7), no_memory, odd, soft, disk, good.clone(), good]);
    let names: Vec<_> = types.iter().map(|found| &*found.name).collect();
    assert_eq!(names, ["Standard_D4s_v5", "Standard_Z4_v1"]);
    assert_eq!(
        warnings,
        [
            "entry 0: entry: expected an object, found a number",
            "entry 1 (Standard_X4_v1): MemoryGB: expected a number, found nothing",
            "entry 2 (Standard_Y4_v1): vCPUs: expected a number, found \"many\"",
            "entry 2 (Standard_Y4_v1): vCPUs: expected a number, found nothing",
            "entry 3 (Standard_Z4_v1): PremiumIO: expected True or False, found \"perhaps\"",
            "entry 6 (Standard_D4s_v5): name: expected each size once per region, found a second entry",
        ]
    );
}

#[test]
fn arm_restrictions_and_locations_are_honoured() {
    let restriction = |kind: &str, location: &str, zones: &[&str]| {
        json!([{"type": kind, "reasonCode": "NotAvailableForSubscription", "values": [location],
                "restrictionInfo": {"locations": [location], "zones": zones}}])
    };
    let cases = [
        ("plain", json!([]), Some("westus2-1,westus2-3")),
        ("zone", restriction("Zone", "WestUS2", &["1"]), Some("westus2-3")),
        ("elsewhere", restriction("Location", "eastus", &[]), Some("westus2-1,westus2-3")),
        ("location", restriction("Location", "westus2", &[]), None),
        ("all zones", restriction("Zone", "westus2", &["1", "2", "3"]), None),
    ];
    for (case, restrictions, zones) in cases {
        let (types, warnings) =
            parse(&[arm_size("Standard_D4s_v5", |entry| entry["restrictions"] = restrictions)]);
        assert_eq!(types.first().map(|found| label(found, kubernetes::ZONE)).as_deref(), zones, "{case}");
        assert!(warnings.is_empty(), "{case}: {warnings:?}");
    }
    let (types, _) = parse(&[arm_size("Standard_D4s_v5", |entry| {
        entry["locations"] = json!(["eastus"]);
        entry["locationInfo"] = json!([{"location": "eastus", "zones": ["1"]}]);
    })]);
    assert!(types.is_empty(), "sold elsewhere only");
}

#[test]
fn sizes_that_aks_nodes_cannot_be_are_left_out() {
    let with = |name: &str, cpus: &str, gib: &str| {
        arm_size(name, |entry| {
            entry["capabilities"] = json!([capability("vCPUs", cpus), capability("MemoryGB", gib)]);
        })
    };
    let excluded = [
        with("Standard_D1_v2", "1", "3.5"),
        with("Standard_B2ts_v2", "2", "1"),
        with("Standard_M8-2ms", "8", "218.75"),
        with("Standard_DC4as_v5", "4", "16"),
        with("Basic_A3", "4", "7"),
        with("Standard_E64i_v3", "64", "432"),
        arm_size("Standard_NX8_v1", |entry| {
            entry["capabilities"] =
                json!([capability("vCPUs", "8"), capability("MemoryGB", "56"), capability("GPUs", "1")]);
        }),
    ];
    let (types, warnings) = parse(&excluded);
    assert_eq!(types, []);
    assert_eq!(warnings, Vec::<String>::new());
    let (types, _) = parse(&[with("Standard_D2_v2", "2", "3.5")]);
    assert_eq!(types.len(), 1, "2 vCPUs and 3.5 GiB are enough");
    assert!(types[0].offerings.iter().all(|offering| offering.price_source == PriceSource::Unknown));
}

#[test]
fn the_neutral_form_is_read() {
    let text = r#"{"instanceTypes":[{"name":"small","capacity":{"cpu":"2","memory":"2Gi","pods":10,"example.com/fpga":1},
        "overhead":{"cpu":"100m","memory":"10Mi"},
        "requirements":[{"key":"kubernetes.io/arch","operator":"In","values":["amd64"]}],
        "offerings":[{"zone":"z-1","capacityType":"spot","price":0.02,"available":false},
                     {"zone":"z-2","capacityType":"on-demand","price":0.05}]}]}"#;
    let (catalog, warnings) = Catalog::parse(text, "", PriceList::default()).unwrap();
    assert_eq!(warnings, []);
    let types = catalog.instance_types(&class(), unmeasured);
    let small = find(&types, "small");
    let left = small.allocatable();
    assert_eq!((left.cpu, left.memory, left.pods), (MilliCpu(1900), Bytes::mib(2038), 10));
    assert_eq!(left.extended("example.com/fpga"), 1);
    assert_eq!(label(small, kubernetes::ZONE), "z-1,z-2");
    assert_eq!(label(small, karpenter::CAPACITY_TYPE), "on-demand,spot");
    assert_eq!(label(small, kubernetes::INSTANCE_TYPE), "small");
    let available: Vec<_> = small.offerings.iter().map(|offering| offering.available).collect();
    assert_eq!(available, [false, true]);
}

#[test]
fn a_wrong_neutral_entry_is_an_error_that_says_where() {
    let cases = [
        (r#"{"instanceTypes":[7]}"#, "instanceTypes[0]: entry: expected an object, found 7"),
        (r#"{"instanceTypes":[{}]}"#, "instanceTypes[0]: name: expected a name, found nothing"),
        (
            r#"{"instanceTypes":[{"name":"a","capacity":{"cpu":"2x"}}]}"#,
            "instanceTypes[0] (a): capacity.cpu: expected a quantity such as \"500m\", 2 or \"16Gi\", found \"2x\"",
        ),
        (
            r#"{"instanceTypes":[{"name":"a","capacity":{"memory":"-1"}}]}"#,
            "instanceTypes[0] (a): capacity.memory: expected zero or more, found \"-1\"",
        ),
        (
            r#"{"instanceTypes":[{"name":"a","capacity":{},"offerings":[{"zone":"z","capacityType":"free"}]}]}"#,
            "instanceTypes[0] (a): offerings[0].capacityType: expected reserved, spot or on-demand, found \"free\"",
        ),
        (
            r#"{"instanceTypes":[{"name":"a","capacity":{},"offerings":[{"zone":"z","capacityType":"spot","price":-1}]}]}"#,
            "instanceTypes[0] (a): offerings[0].price: expected US dollars per hour, found -1",
        ),
        (
            r#"{"instanceTypes":[{"name":"a","capcity":{}}]}"#,
            "instanceTypes[0] (a): capcity: expected one of name, capacity, overhead, requirements, offerings, \
             numa, lotteries, found an unknown field",
        ),
        (
            r#"{"instanceTypes":[{"name":"a","capacity":{}},{"name":"a","capacity":{}}]}"#,
            "instanceTypes[1] (a): name: expected each name once, found \"a\"",
        ),
        (r#"{"types":[]}"#, &format!("expected {EXPECTED}")),
    ];
    for (text, message) in cases {
        let error = Catalog::parse(text, "", PriceList::default()).unwrap_err();
        assert_eq!(error.to_string(), message, "{text}");
    }
}

/// A file of public data beside the repository, where it is checked out with it.
fn shared_data(name: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    let text = std::fs::read_to_string(&path).ok();
    if text.is_none() {
        eprintln!("skipped: {} is not there", path.display());
    }
    text
}

#[test]
fn a_real_answer_of_arm_is_read_without_a_warning() {
    let Some(text) = shared_data("azure-resource-skus-southcentralus.json") else { return };
    let (catalog, warnings) = Catalog::parse(&text, "southcentralus", PriceList::default()).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(catalog.skus().len(), 20);
    let types = catalog.instance_types(&class(), unmeasured);
    let excluded: BTreeSet<_> =
        catalog.skus().iter().filter(|sku| sku.exclusion().is_some()).map(|sku| &*sku.size.name).collect();
    let expected = ["Standard_A0", "Standard_B1s", "Standard_DC8s_v3", "Standard_M8-2ms"];
    assert_eq!(excluded, expected.into_iter().collect());
    assert_eq!(types.len() + excluded.len(), catalog.skus().len());
    let a100 = find(&types, "Standard_NC24ads_A100_v4");
    assert_eq!(label(a100, kubernetes::ZONE), "southcentralus-1,southcentralus-3");
    assert_eq!(label(find(&types, "Standard_NC6s_v3"), kubernetes::ZONE), "0");
    // What ARM says and what is built in agree.
    for sku in catalog.skus() {
        if let Some(builtin) = assay_shared::azure::size(&sku.size.name) {
            let same = |size: &assay_shared::azure::VmSize| {
                // The vendor's pages round disks to a GiB.
                let nvme = size.local_nvme.map(|nvme| (nvme.count, nvme.size.as_gib()));
                let disks = (size.temp_disk, nvme, size.ephemeral_os_max, size.ephemeral_os_on_nvme);
                let flags = (
                    size.accelerated_networking,
                    size.premium_io,
                    size.spot,
                    size.generation1,
                    size.generation2,
                );
                (
                    size.architecture,
                    size.vcpus,
                    size.vcpus_per_core,
                    size.memory,
                    size.gpus.clone(),
                    disks,
                    flags,
                )
            };
            assert_eq!(same(&sku.size), same(builtin), "{}", sku.size.name);
        }
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "name",
        "value",
        "capabilities",
        "locationInfo",
        "location",
        "locations",
        "zones",
        "restrictions",
        "type",
        "Zone",
        "vCPUs",
        "MemoryGB",
        "GPUs",
        "westus2",
        "1",
        "-1",
        "1e999",
        "NaN",
        "Standard_D4s_v5",
        "instanceTypes",
        "capacity",
        "offerings",
        "requirements",
        "key",
        "operator",
        "In",
        "cpu",
        "NvmeDiskSizeInMiB",
        "NvmeSizePerDiskInMiB",
        "0",
        "18446744073709551615",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused(value in any_json(), wrap in any::<bool>()) {
        let text = if wrap { json!({"value": [value]}) } else { value };
        if let Ok((catalog, _)) = Catalog::parse(&text.to_string(), "westus2", PriceList::default()) {
            let _ = catalog.instance_types(&class(), unmeasured);
        }
        let _ = PriceList::parse(&text.to_string());
    }

    #[test]
    fn any_capability_is_read_or_refused(
        values in prop::collection::vec("[0-9a-zA-Z.,-]{0,22}", 8),
        zones in prop::collection::vec(".{0,4}", 0..4),
    ) {
        let names = ["vCPUs", "MemoryGB", "GPUs", "NvmeDiskSizeInMiB", "NvmeSizePerDiskInMiB", "MaxResourceVolumeMB",
                     "CachedDiskBytes", "SupportedEphemeralOSDiskPlacements"];
        let entry = arm_size("Standard_D4s_v5", |entry| {
            entry["capabilities"] = names.iter().zip(&values).map(|(name, value)| capability(name, value)).collect();
            entry["locationInfo"][0]["zones"] = json!(zones);
        });
        parse(&[entry]);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
        let _ = Catalog::parse(&text, "eastus", PriceList::default());
        let _ = PriceList::parse(&text);
    }
}
