use serde_json::json;

use assay_shared::labels::kubernetes;

use super::object::DISK_ZONE;
use super::*;

fn storage(objects: &[Value]) -> Storage {
    let mut storage = Storage::default();
    for object in objects {
        let kind = object["kind"].as_str().unwrap().to_owned();
        let document = Document { file: "-".to_owned(), number: 1, kind, value: object.clone() };
        storage.apply(&document).unwrap();
    }
    storage
}

fn class(name: &str, mode: &str, zones: &[&str]) -> Value {
    let allowed = json!([{"matchLabelExpressions": [{"key": DISK_ZONE, "values": zones}]}]);
    json!({"kind": "StorageClass", "metadata": {"name": name}, "provisioner": DISK_DRIVER, "volumeBindingMode": mode,
        "allowedTopologies": if zones.is_empty() { json!([]) } else { allowed }})
}

fn claim(name: &str, spec: Value, phase: &str) -> Value {
    json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec, "status": {"phase": phase}})
}

#[test]
fn every_claim_that_cannot_be_had_says_why() {
    let wait = class("wait", "WaitForFirstConsumer", &[]);
    let cases = [
        (vec![], "default/data is not found"),
        (vec![claim("data", json!({}), "")], "no storage class"),
        (vec![claim("data", json!({"storageClassName": "wait"}), "")], "storage class wait is not found"),
        (
            vec![
                class("now", "Immediate", &[]),
                claim("data", json!({"storageClassName": "now"}), "Pending"),
            ],
            "binds immediately",
        ),
        (vec![wait.clone(), claim("data", json!({"storageClassName": ""}), "")], "no storage class"),
        (vec![claim("data", json!({"volumeName": "v"}), "")], "volume v is not found"),
        (vec![claim("data", json!({"volumeName": "v"}), "Lost")], "lost its volume"),
        (vec![claim("data", json!({"volumeName": "v"}), "Pending")], "not yet bound"),
    ];
    for (objects, expected) in cases {
        let volumes = [json!({"name": "d", "persistentVolumeClaim": {"claimName": "data"}})];
        let needs = storage(&objects).needs(("default", "p"), &volumes, &[]);
        let detail = &needs.rejections.first().expect(expected).detail;
        assert!(detail.contains(expected), "{detail}\ndoes not contain\n{expected}");
    }
}

#[test]
fn a_volume_is_reached_where_its_affinity_or_its_class_says() {
    let affinity = json!({"required": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": DISK_ZONE, "operator": "In", "values": ["eastus-1", ""]}]}]}});
    let volume = json!({"kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"csi": {"driver": DISK_DRIVER, "volumeHandle": "/disks/v"}, "nodeAffinity": affinity}});
    let storage = storage(&[
        volume,
        claim("data", json!({"volumeName": "v"}), "Bound"),
        class("zonal", "WaitForFirstConsumer", &["eastus-2"]),
        claim("later", json!({"storageClassName": "zonal"}), "Pending"),
    ]);
    let volumes = ["data", "later"].map(|name| json!({"persistentVolumeClaim": {"claimName": name}}));
    let needs = storage.needs(("default", "p"), &volumes, &[]);
    assert_eq!(needs.rejections, []);
    let zones = |values: &[&str]| vec![vec![Requirement::is_in(kubernetes::ZONE, values.to_vec())]];
    assert_eq!(needs.topology, [zones(&["eastus-1", "0"]), zones(&["eastus-2"])]);
    let attached: Vec<&str> = needs.attached.iter().map(|volume| &*volume.id).collect();
    assert_eq!(attached, ["/disks/v", "default/later"]);
}
