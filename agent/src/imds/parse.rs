//! The documents of IMDS.
//!
//! Read with tolerance, because versions and clouds differ: numbers and booleans come as strings, keys vary in case
//! (the documentation's own sample has `Priority`), and what is not set is an empty string.

use assay_shared::Fact;
use assay_shared::report::{EventType, Priority, ScheduledEvent};
use assay_shared::units::Bytes;
use serde_json::Value;

use super::{Answer, Instance};
use crate::host::read::shown;

/// Longest value taken over; the longest that Azure gives to these fields is below 100.
const VALUE_LIMIT: usize = 256;
/// Most events taken over; Azure shows at most 100.
const EVENT_LIMIT: usize = 128;

/// The answer to `/metadata/instance`.
pub fn instance(body: &[u8]) -> Fact<Instance> {
    let document: Value = match serde_json::from_slice(body) {
        Ok(document) => document,
        Err(error) => return Fact::Unavailable(format!("IMDS instance: not JSON: {error}")),
    };
    let Some(compute) = member(&document, "compute").filter(|compute| compute.is_object()) else {
        return Fact::unavailable("IMDS instance: expected an object \"compute\", found none");
    };
    let storage = member(compute, "storageProfile");
    Fact::Measured(Instance {
        vm_id: text(compute, "vmId").map(|id| id.to_ascii_lowercase()),
        name: text(compute, "name"),
        vm_size: text(compute, "vmSize"),
        location: text(compute, "location"),
        zone: text(compute, "zone"),
        priority: text(compute, "priority").and_then(|priority| {
            match priority.to_ascii_lowercase().as_str() {
                "regular" => Fact::Measured(Priority::Regular),
                // "Low" is what Spot was called until 2020; such VMs are taken back as well.
                "spot" | "low" => Fact::Measured(Priority::Spot),
                _ => Fact::Unavailable(format!(
                    "IMDS compute.priority: expected Regular, Low or Spot, found {}",
                    shown(&priority)
                )),
            }
        }),
        ephemeral_os_disk: ephemeral_os_disk(storage),
        resource_disk_bytes: resource_disk(storage),
    })
}

/// The answer to `/metadata/scheduledevents`: those that name the VM called `vm_name`. Others belong to VMs of the same
/// availability or scale set.
pub fn scheduled_events(body: &[u8], vm_name: &Fact<String>) -> Fact<Vec<ScheduledEvent>> {
    let document: Value = match serde_json::from_slice(body) {
        Ok(document) => document,
        Err(error) => return Fact::Unavailable(format!("IMDS scheduled events: not JSON: {error}")),
    };
    let Some(events) = member(&document, "Events").and_then(Value::as_array) else {
        return Fact::unavailable("IMDS scheduled events: expected a list \"Events\", found none");
    };
    if events.is_empty() {
        return Fact::Measured(Vec::new());
    }
    let Fact::Measured(vm_name) = vm_name else {
        return Fact::unavailable(
            "IMDS scheduled events: they name VMs, and the name of this one is not known",
        );
    };
    let names_us = |event: &Value| {
        let resources = member(event, "Resources").and_then(Value::as_array);
        resources.is_some_and(|names| {
            names.iter().filter_map(Value::as_str).any(|name| name.eq_ignore_ascii_case(vm_name))
        })
    };
    let ours = events.iter().filter(|event| names_us(event)).filter_map(scheduled_event);
    Fact::Measured(ours.take(EVENT_LIMIT).collect())
}

/// A file that holds what IMDS would answer: the instance document, and beside `compute` a `scheduledEvents` document
/// where there is one.
pub fn file(content: &[u8]) -> Answer {
    let instance = instance(content);
    let name = instance.measured().map_or(Fact::Absent, |instance| instance.name.clone());
    let events = serde_json::from_slice::<Value>(content).ok().and_then(|document| {
        let events = member(&document, "scheduledEvents")?;
        Some(scheduled_events(events.to_string().as_bytes(), &name))
    });
    Answer { instance, events: events.unwrap_or(Fact::Absent) }
}

/// One event; `None` for a type that means nothing to a node.
fn scheduled_event(event: &Value) -> Option<ScheduledEvent> {
    let event_type = match member(event, "EventType")?.as_str()?.to_ascii_lowercase().as_str() {
        "preempt" => EventType::Preempt,
        "terminate" => EventType::Terminate,
        "reboot" => EventType::Reboot,
        "redeploy" => EventType::Redeploy,
        "freeze" => EventType::Freeze,
        _ => return None,
    };
    let not_before = text(event, "NotBefore").measured().cloned().unwrap_or_default();
    Some(ScheduledEvent { event_type, not_before })
}

/// Only ephemeral disks have the settings, and `Local` is the one value that they have.
fn ephemeral_os_disk(storage: Option<&Value>) -> Fact<bool> {
    let Some(disk) = storage.and_then(|storage| member(storage, "osDisk")).filter(|disk| disk.is_object())
    else {
        return Fact::unavailable("IMDS compute.storageProfile.osDisk: not found");
    };
    let option = member(disk, "diffDiskSettings").map_or(Fact::Absent, |settings| text(settings, "option"));
    match option {
        Fact::Measured(option) => Fact::Measured(option.eq_ignore_ascii_case("local")),
        Fact::Absent => Fact::Measured(false),
        Fact::Unavailable(reason) => Fact::Unavailable(reason),
    }
}

/// `size` is in KiB; zero means that there is none.
fn resource_disk(storage: Option<&Value>) -> Fact<Bytes> {
    let disk = storage.and_then(|storage| member(storage, "resourceDisk"));
    disk.map_or(Fact::Absent, |disk| text(disk, "size")).and_then(|size| match size.parse::<u64>() {
        Ok(0) => Fact::Absent,
        Ok(kib) => Fact::Measured(Bytes::KIB * kib),
        Err(_) => {
            Fact::Unavailable(format!("IMDS resourceDisk.size: expected a number, found {}", shown(&size)))
        }
    })
}

/// A member of an object, whatever the case of its key.
fn member<'a>(object: &'a Value, key: &str) -> Option<&'a Value> {
    let object = object.as_object()?;
    object
        .get(key)
        .or_else(|| object.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value))
}

/// A member that is text, or a number or boolean that should have been.
fn text(object: &Value, key: &str) -> Fact<String> {
    let text = match member(object, key) {
        None | Some(Value::Null) => return Fact::Absent,
        Some(Value::String(text)) => text.trim().to_owned(),
        Some(plain @ (Value::Number(_) | Value::Bool(_))) => plain.to_string(),
        Some(Value::Array(_) | Value::Object(_)) => {
            return Fact::Unavailable(format!("IMDS {key}: expected text, found a list or an object"));
        }
    };
    if text.is_empty() {
        return Fact::Absent;
    }
    if text.len() > VALUE_LIMIT || text.contains(char::is_control) {
        return Fact::Unavailable(format!("IMDS {key}: expected a line of text, found {}", shown(&text)));
    }
    Fact::Measured(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const D4S_V5: &str = r#"{"compute":{"vmId":"02AAB8A4-74EF-476E-8182-F6D2BA4166A6","name":"aks-1","vmSize":"Standard_D4s_v5",
        "location":"eastus","zone":"1","Priority":"Spot","storageProfile":{"osDisk":{"diffDiskSettings":{"option":"Local"}},
        "resourceDisk":{"size":"78643200"}}}}"#;

    #[test]
    fn an_instance_is_read_whatever_the_case_of_its_keys() {
        let Fact::Measured(instance) = instance(D4S_V5.as_bytes()) else { panic!("not read") };
        assert_eq!(instance.vm_id, Fact::Measured("02aab8a4-74ef-476e-8182-f6d2ba4166a6".to_owned()));
        assert_eq!(instance.vm_size, Fact::Measured("Standard_D4s_v5".to_owned()));
        assert_eq!(instance.priority, Fact::Measured(Priority::Spot));
        assert_eq!(instance.ephemeral_os_disk, Fact::Measured(true));
        assert_eq!(instance.resource_disk_bytes, Fact::Measured(Bytes::gib(75)));
    }

    #[test]
    fn what_is_not_set_is_absent_and_what_is_garbage_unavailable() {
        let of = |compute: &str| match instance(format!(r#"{{"compute":{compute}}}"#).as_bytes()) {
            Fact::Measured(instance) => instance,
            other => panic!("{other:?}"),
        };
        let empty = of(
            r#"{"zone":"","priority":"","vmSize":null,"storageProfile":{"osDisk":{},"resourceDisk":{"size":"0"}}}"#,
        );
        assert_eq!((empty.zone, empty.priority, empty.vm_size), (Fact::Absent, Fact::Absent, Fact::Absent));
        assert_eq!(empty.ephemeral_os_disk, Fact::Measured(false));
        assert_eq!(empty.resource_disk_bytes, Fact::Absent);
        let garbage = of(
            r#"{"zone":1,"priority":"Gold","vmSize":["a"],"location":"a\nb","storageProfile":{"resourceDisk":{"size":"big"}}}"#,
        );
        assert_eq!(garbage.zone, Fact::Measured("1".to_owned()));
        for (fact, word) in [(garbage.vm_size, "a list"), (garbage.location, r#""a\nb""#)] {
            assert!(matches!(&fact, Fact::Unavailable(reason) if reason.contains(word)), "{fact:?}");
        }
        assert!(matches!(garbage.priority, Fact::Unavailable(_)));
        assert!(matches!(garbage.resource_disk_bytes, Fact::Unavailable(_)));
        assert!(matches!(garbage.ephemeral_os_disk, Fact::Unavailable(_)));
        for body in ["", "<html>", "[]", "{}", r#"{"compute":"x"}"#] {
            assert!(matches!(instance(body.as_bytes()), Fact::Unavailable(_)), "{body}");
        }
    }

    #[test]
    fn events_of_other_machines_are_left_out() {
        let body = br#"{"DocumentIncarnation":1,"Events":[
            {"EventType":"Preempt","Resources":["AKS-1"],"EventStatus":"Scheduled","NotBefore":"Mon, 19 Sep 2016 18:29:47 GMT"},
            {"EventType":"Reboot","Resources":["aks-2"],"NotBefore":""},
            {"EventType":"Terminate","Resources":["aks-1","aks-2"],"EventStatus":"Started","NotBefore":""},
            {"EventType":"SpotRebalance","Resources":["aks-1"]}, 7]}"#;
        let Fact::Measured(events) = scheduled_events(body, &Fact::Measured("aks-1".to_owned())) else {
            panic!()
        };
        let types: Vec<_> = events.iter().map(|event| event.event_type).collect();
        assert_eq!(types, [EventType::Preempt, EventType::Terminate]);
        assert_eq!(events[0].not_before, "Mon, 19 Sep 2016 18:29:47 GMT");
        assert!(
            matches!(scheduled_events(body, &Fact::Absent), Fact::Unavailable(_)),
            "whose they are is not known"
        );
        assert_eq!(scheduled_events(br#"{"Events":[]}"#, &Fact::Absent), Fact::Measured(Vec::new()));
    }

    #[test]
    fn a_file_may_hold_events_beside_the_instance() {
        let with = D4S_V5.replacen(
            '{',
            r#"{"scheduledEvents":{"Events":[{"EventType":"Freeze","Resources":["aks-1"]}]},"#,
            1,
        );
        assert_eq!(file(with.as_bytes()).events.measured().map(Vec::len), Some(1));
        assert_eq!(file(D4S_V5.as_bytes()).events, Fact::Absent);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..D4S_V5.len()) {
            let _ = file(&body);
            let _ = file(&D4S_V5.as_bytes()[..cut]);
        }
    }
}
