//! Objects as they come from the API server, cut down to what the store needs.

use assay_core::model::{PodId, PodPhase, Timestamp};
use serde_json::{Map, Value};

use super::kind::Kind;
use crate::manifest::live::{self, Document, Meta};

/// What the API server says there is: an object, or one that cannot be read.
pub(super) type Found = Result<Box<Object>, Unreadable>;

/// An object.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) kind: Kind,
    /// Its name, and its namespace where it has one.
    pub(super) id: PodId,
    /// Tells it from another of the same name.
    pub(super) uid: String,
    pub(super) body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Pod(Box<SlimPod>),
    Other(Document),
}

/// What is kept of a pod.
#[derive(Debug)]
pub(super) struct SlimPod {
    pub(super) meta: Meta,
    pub(super) node: Option<String>,
    pub(super) phase: PodPhase,
    pub(super) created: Option<Timestamp>,
    pub(super) terminating: Option<Timestamp>,
    /// Its spec and what its status says of resources, as JSON, without what is above and below: siblings have the same.
    pub(super) spec: String,
    /// Those of its volumes that can decide where it runs, as JSON; empty for most pods.
    pub(super) volumes: String,
}

/// An object that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unreadable {
    pub(super) kind: Kind,
    /// Its name, where that much can be read.
    pub(super) id: Option<PodId>,
    pub(super) field: String,
    pub(super) problem: String,
}

impl Unreadable {
    /// One of which nothing is known.
    pub(super) fn nameless(kind: Kind, problem: String) -> Self {
        Self { kind, id: None, field: String::new(), problem }
    }
}

impl Object {
    /// Reads an object.
    pub(super) fn read(kind: Kind, mut value: Value) -> Found {
        let Some(id) = Self::id_of(&value) else {
            let field = "metadata.name".to_owned();
            let problem = "expected a name, found none".to_owned();
            return Err(Unreadable { kind, id: None, field, problem });
        };
        let text = |value: &Value, path: &str| {
            value.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let uid = text(&value, "/metadata/uid");
        let wrong = |error: live::ManifestError| Unreadable {
            kind,
            id: Some(id.clone()),
            field: error.field,
            problem: error.problem,
        };
        let body = if kind == Kind::Pod {
            let phase = text(&value, "/status/phase");
            let volumes = take(&mut value, "/spec/volumes", Value::is_array);
            let node = take(&mut value, "/spec/nodeName", Value::is_string);
            take(&mut value, "/status/phase", Value::is_string);
            let document = Document::of_object(kind.name(), value);
            let meta = Meta::read(&document).map_err(wrong)?;
            let time = |field: &str, text: &Option<String>| live::time(&document, field, text.as_deref());
            Body::Pod(Box::new(SlimPod {
                created: time("metadata.creationTimestamp", &meta.creation_timestamp).map_err(wrong)?,
                terminating: time("metadata.deletionTimestamp", &meta.deletion_timestamp).map_err(wrong)?,
                meta,
                node: node
                    .as_ref()
                    .and_then(Value::as_str)
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned),
                phase: live::phase(&phase),
                spec: rest(document.value),
                volumes: volumes.map(deciding).unwrap_or_default(),
            }))
        } else {
            Body::Other(Document::of_object(kind.name(), value))
        };
        Ok(Box::new(Self { kind, id, uid, body }))
    }

    /// Namespace and name of a thing that may be an object.
    pub(super) fn id_of(value: &Value) -> Option<PodId> {
        let text = |path: &str| value.pointer(path).and_then(Value::as_str);
        let name = text("/metadata/name").filter(|name| !name.is_empty())?;
        Some(PodId::new(text("/metadata/namespace").unwrap_or_default(), name))
    }
}

/// Takes a field out, if it is what it should be. What is something else stays, for its reader to complain of.
fn take(value: &mut Value, path: &str, is_right: fn(&Value) -> bool) -> Option<Value> {
    let (parent, name) = path.rsplit_once('/')?;
    let fields = value.pointer_mut(parent)?.as_object_mut()?;
    if fields.get(name).is_some_and(is_right) { fields.remove(name) } else { None }
}

/// What siblings share, as text.
fn rest(mut value: Value) -> String {
    let mut parts = Map::new();
    for name in ["spec", "status"] {
        if let Some(part) = value.get_mut(name) {
            parts.insert(name.to_owned(), part.take());
        }
    }
    Value::Object(parts).to_string()
}

/// The volumes that can decide where a pod runs. The others differ by chance, such as `kube-api-access-x7x2b`.
fn deciding(volumes: Value) -> String {
    let Value::Array(mut volumes) = volumes else { return String::new() };
    volumes.retain(|volume| {
        let kinds = ["persistentVolumeClaim", "ephemeral", "csi", "azureDisk"];
        kinds.iter().any(|kind| volume.get(kind).is_some())
    });
    if volumes.is_empty() { String::new() } else { Value::Array(volumes).to_string() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: Value) -> Result<SlimPod, Unreadable> {
        let object = Object::read(Kind::Pod, value)?;
        match object.body {
            Body::Pod(pod) => Ok(*pod),
            Body::Other(document) => panic!("{document:?}"),
        }
    }

    #[test]
    fn siblings_have_the_same_text() {
        let one = |name: &str, node: &str, token: &str| {
            pod(json!({
                "metadata": {"name": name, "namespace": "d"},
                "spec": {"nodeName": node, "priority": 0, "volumes": [{"name": token}, {"name": "v", "csi": {"driver": "x"}}]},
                "status": {"phase": "Running"},
            }))
            .unwrap()
        };
        let (a, b) = (one("a", "n1", "kube-api-access-1"), one("b", "n2", "kube-api-access-2"));
        assert_eq!(a.spec, r#"{"spec":{"priority":0},"status":{}}"#);
        assert_eq!(a.spec, b.spec);
        assert_eq!(b.volumes, r#"[{"csi":{"driver":"x"},"name":"v"}]"#);
        assert_eq!((b.node.as_deref(), b.phase), (Some("n2"), PodPhase::Running));
    }

    #[test]
    fn what_is_wrong_stays_for_its_reader() {
        let odd =
            pod(json!({"metadata": {"name": "p"}, "spec": {"nodeName": 7, "volumes": "none"}, "status": 3}))
                .unwrap();
        assert_eq!(odd.spec, r#"{"spec":{"nodeName":7,"volumes":"none"},"status":3}"#);
        let labels = pod(json!({"metadata": {"name": "p", "labels": ["a"]}})).unwrap_err();
        assert_eq!(
            (labels.field.as_str(), labels.problem.as_str()),
            ("metadata.labels", "expected an object, found a list")
        );
    }
}
