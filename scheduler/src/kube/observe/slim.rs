//! What is kept of an object's JSON while it is read. A pod of an API server is about 10 KB of text; what is kept of it is about
//! 1 KB, and all but its name is shared with its siblings.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::kind::Kind;

/// What is kept of a value. Of a list, every item is treated so; what is null is not there.
#[derive(Debug)]
pub(super) enum Keep {
    All,
    Nothing,
    /// These fields, and no others.
    Only(&'static [(&'static str, Keep)]),
    /// All fields; these in part.
    Rest(&'static [(&'static str, Keep)]),
}

use Keep::{All, Nothing, Only, Rest};

impl Keep {
    /// What readers look at in an object of this kind.
    pub(super) const fn of(kind: Kind) -> &'static Self {
        match kind {
            Kind::Pod => &POD,
            Kind::DaemonSet => &DAEMON_SET,
            Kind::Node => &NODE,
            Kind::Job => &JOB,
            Kind::ReplicaSet | Kind::StatefulSet => &SELECTOR,
            _ => &OBJECT,
        }
    }
}

/// What a deleted object is known by.
pub(super) const IDENTITY: Keep = Only(&[("metadata", Only(NAMES))]);

const NAMES: &[(&str, Keep)] = &[("name", All), ("namespace", All), ("uid", All), ("resourceVersion", All)];

const METADATA: Keep = Rest(&[("managedFields", Nothing), ("selfLink", Nothing), ("finalizers", Nothing)]);

const OBJECT: Keep = Rest(&[("metadata", METADATA)]);

/// A node's list of images is most of its text.
const NODE: Keep = Rest(&[
    ("metadata", METADATA),
    (
        "status",
        Only(&[
            ("capacity", All),
            ("allocatable", All),
            ("conditions", All),
            ("nodeInfo", Only(&[("kubeletVersion", All)])),
        ]),
    ),
]);

/// Of objects that only say what they select.
const SELECTOR: Keep = Only(&[("metadata", Only(NAMES)), ("spec", Only(&[("selector", All)]))]);

const JOB: Keep = Only(&[
    ("metadata", METADATA),
    ("spec", Rest(&[("template", Only(&[]))])),
    ("status", Only(&[("succeeded", All), ("conditions", All)])),
]);

const DAEMON_SET: Keep = Only(&[
    ("metadata", METADATA),
    ("spec", Only(&[("template", Only(&[("metadata", METADATA), ("spec", POD_SPEC)]))])),
]);

const POD: Keep = Only(&[
    (
        "metadata",
        Only(&[
            ("name", All),
            ("namespace", All),
            ("uid", All),
            ("resourceVersion", All),
            ("labels", All),
            ("annotations", All),
            ("creationTimestamp", All),
            ("deletionTimestamp", All),
            ("ownerReferences", Only(&[("kind", All), ("name", All)])),
        ]),
    ),
    ("spec", POD_SPEC),
    (
        "status",
        Only(&[
            ("phase", All),
            ("containerStatuses", CONTAINER_STATUS),
            ("initContainerStatuses", CONTAINER_STATUS),
        ]),
    ),
]);

const CONTAINER_STATUS: Keep =
    Only(&[("name", All), ("allocatedResources", All), ("resources", Only(&[("requests", All)]))]);

const POD_SPEC: Keep = Only(&[
    ("nodeName", All),
    ("nodeSelector", All),
    ("affinity", Rest(&[("nodeAffinity", NODE_AFFINITY)])),
    ("tolerations", Rest(&[("tolerationSeconds", Nothing)])),
    ("containers", CONTAINER),
    ("initContainers", CONTAINER),
    ("overhead", All),
    ("resources", RESOURCES),
    ("priority", All),
    ("priorityClassName", All),
    ("runtimeClassName", All),
    ("terminationGracePeriodSeconds", All),
    ("topologySpreadConstraints", All),
    ("volumes", VOLUME),
    ("resourceClaims", Only(&[("name", All)])),
    ("hostNetwork", All),
    ("schedulingGates", All),
]);

/// The node that a DaemonSet's pod is made for is named there. That something is named is all that is read; the names would make
/// as many specs as there are nodes.
const NODE_AFFINITY: Keep = Only(&[
    (
        "requiredDuringSchedulingIgnoredDuringExecution",
        Only(&[(
            "nodeSelectorTerms",
            Only(&[("matchExpressions", All), ("matchFields", Only(&[("key", All)]))]),
        )]),
    ),
    ("preferredDuringSchedulingIgnoredDuringExecution", All),
]);

const CONTAINER: Keep = Only(&[
    ("name", All),
    ("resources", RESOURCES),
    ("restartPolicy", All),
    ("ports", Only(&[("containerPort", All), ("hostPort", All), ("hostIP", All), ("protocol", All)])),
]);

const RESOURCES: Keep = Only(&[("requests", All), ("limits", All)]);

const VOLUME: Keep = Only(&[
    ("name", All),
    ("persistentVolumeClaim", Only(&[("claimName", All)])),
    (
        "ephemeral",
        Only(&[(
            "volumeClaimTemplate",
            Only(&[("spec", Only(&[("volumeName", All), ("storageClassName", All)]))]),
        )]),
    ),
    ("csi", Only(&[("driver", All)])),
    ("azureDisk", Only(&[("diskURI", All)])),
]);

impl<'de> DeserializeSeed<'de> for &'static Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Nothing => deserializer.deserialize_ignored_any(IgnoredAny).map(|_| Value::Null),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for &'static Keep {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut kept = Map::new();
        while let Some((name, keep)) = fields.next_key_seed(Field(self))? {
            let value = fields.next_value_seed(keep)?;
            if !value.is_null() {
                kept.insert(name, value);
            }
        }
        Ok(kept.into())
    }
}

/// A field's name, and what is kept of the field. The name of what is not kept is not kept either.
#[derive(Debug)]
struct Field(&'static Keep);

impl<'de> DeserializeSeed<'de> for Field {
    type Value = (String, &'static Keep);

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Field {
    type Value = (String, &'static Keep);

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        let named = |fields: &'static [(&str, Keep)]| {
            fields.iter().find(|(known, _)| *known == name).map(|(_, keep)| keep)
        };
        let keep = match self.0 {
            All => &All,
            Nothing => &Nothing,
            Only(fields) => named(fields).unwrap_or(&Nothing),
            Rest(fields) => named(fields).unwrap_or(&All),
        };
        let name = if matches!(keep, Nothing) { String::new() } else { name.to_owned() };
        Ok((name, keep))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn kept(kind: Kind, value: &Value) -> Value {
        let text = value.to_string();
        Keep::of(kind).deserialize(&mut serde_json::Deserializer::from_str(&text)).unwrap()
    }

    #[test]
    fn of_a_pod_only_what_is_read_is_kept() {
        let pod = json!({
            "apiVersion": "v1",
            "metadata": {"name": "p", "namespace": "d", "labels": {"app": "web"}, "managedFields": [{"manager": "x"}],
                "ownerReferences": [{"kind": "ReplicaSet", "name": "rs", "uid": "u", "controller": true}], "annotations": null},
            "spec": {
                "containers": [{"name": "c", "image": "i", "env": [{"name": "A"}], "resources": {"requests": {"cpu": "1"}, "claims": []}}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}]}}},
                "volumes": [{"name": "v", "projected": {"sources": []}}, {"name": "d", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}],
            },
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready"}]},
        });
        let expected = json!({
            "metadata": {"name": "p", "namespace": "d", "labels": {"app": "web"},
                "ownerReferences": [{"kind": "ReplicaSet", "name": "rs"}]},
            "spec": {
                "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name"}]}]}}},
                "volumes": [{"name": "v"}, {"name": "d", "persistentVolumeClaim": {"claimName": "c"}}],
            },
            "status": {"phase": "Running"},
        });
        assert_eq!(kept(Kind::Pod, &pod), expected);
    }

    #[test]
    fn of_others_all_is_kept_but_who_wrote_which_field() {
        let pool = json!({"metadata": {"name": "a", "managedFields": []}, "spec": {"weight": 3, "limits": null, "x": [null, 1.5, true, -1]}});
        let expected = json!({"metadata": {"name": "a"}, "spec": {"weight": 3, "x": [null, 1.5, true, -1]}});
        assert_eq!(kept(Kind::NodePool, &pool), expected);
        assert_eq!(kept(Kind::NodePool, &json!("no object")), json!("no object"));
    }
}
