//! Objects that say what others mean: read before anything else, whatever order they stand in.

use std::collections::{BTreeMap, BTreeSet};

use assay_core::model::{Labels, ResourceList};
use assay_core::requirement::Requirement;
use serde::Deserialize;
use serde_json::Value;

use super::amounts;
use super::constraints::LabelSelector;
use super::defaults::{DefaultSpread, Service};
use super::document::Document;
use super::error::ManifestError;
use super::gang::{self, PodGroup};
use super::objects::{Meta, PodSpec, Quantities};
use super::storage::Storage;

/// What the rest of the input says about namespaces, priorities, volumes and groups.
#[derive(Debug, Default)]
pub(super) struct Context {
    pub(super) storage: Storage,
    /// Labels of namespaces, by name; every namespace that is mentioned is there.
    pub(super) namespaces: BTreeMap<String, Labels>,
    priorities: BTreeMap<String, i32>,
    default_priority: i32,
    /// Overhead of RuntimeClasses, by name.
    pub(super) runtimes: BTreeMap<String, ResourceList>,
    pub(super) services: Vec<Service>,
    /// By namespace and name.
    pub(super) pod_groups: BTreeMap<String, PodGroup>,
    /// Pods of each group in the input, by namespace and name.
    pub(super) group_sizes: BTreeMap<String, u32>,
    pub(super) default_spread: DefaultSpread,
    /// Selectors of ReplicaSets, ReplicationControllers and StatefulSets (and of Deployments, whose ReplicaSets take theirs), by namespace, kind and name.
    selectors: BTreeMap<(String, String, String), Vec<Requirement>>,
    /// Volumes that nodes can attach: by node, each driver and its number.
    pub(super) volume_limits: BTreeMap<String, Vec<(String, u64)>>,
}

/// Priorities that every cluster has.
const SYSTEM_PRIORITIES: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PriorityClass {
    value: i32,
    global_default: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeClass {
    overhead: Overhead,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Overhead {
    pod_fixed: Quantities,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CsiNode {
    spec: CsiNodeSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CsiNodeSpec {
    drivers: Vec<CsiDriver>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CsiDriver {
    name: String,
    allocatable: CsiAllocatable,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CsiAllocatable {
    count: Option<u64>,
}

impl Context {
    /// Reads a document of one of these kinds, passes over others.
    pub(super) fn read(&mut self, document: &Document) -> Result<(), ManifestError> {
        self.storage.read(document)?;
        if let Some(id) = document.pod_id().filter(|_| document.is_namespaced()) {
            let namespace = id.namespace.to_string();
            self.namespaces.entry(namespace).or_insert_with_key(|name| named(name));
        }
        match document.kind.as_str() {
            "Namespace" => {
                let meta = Meta::read(document)?;
                let mut labels = named(&meta.name);
                labels.extend(meta.labels);
                self.namespaces.insert(meta.name, labels);
            }
            "PriorityClass" => {
                let class: PriorityClass = document.typed()?;
                let meta = Meta::read(document)?;
                if class.global_default {
                    self.default_priority = self.default_priority.max(class.value);
                }
                self.priorities.insert(meta.name, class.value);
            }
            "RuntimeClass" => {
                let class: RuntimeClass = document.typed()?;
                let overhead = amounts::read(document, "overhead.podFixed", &class.overhead.pod_fixed)?;
                self.runtimes.insert(Meta::read(document)?.name, overhead);
            }
            "CSINode" => {
                let node: CsiNode = document.typed()?;
                let name = Meta::read(document)?.name;
                let limits = node.spec.drivers.into_iter();
                let limits = limits.filter_map(|driver| Some((driver.name, driver.allocatable.count?)));
                self.volume_limits.entry(name).or_default().extend(limits);
            }
            "Service" => self.services.extend(Service::read(document)?),
            "Deployment" | "ReplicaSet" | "StatefulSet" => {
                let selector = document.value.pointer("/spec/selector").map(LabelSelector::deserialize);
                if let Some(Ok(selector)) = selector {
                    let list = selector.requirements(document, "spec.selector")?;
                    self.selectors.insert(own_key(document), list);
                }
            }
            "ReplicationController" => {
                // Its selector is a plain map and, where it has none, the labels of its template.
                let places = ["/spec/selector", "/spec/template/metadata/labels"];
                let labels = places.iter().find_map(|place| document.value.pointer(place));
                if let Some(Ok(labels)) = labels.map(Labels::deserialize) {
                    let list =
                        labels.iter().map(|(key, value)| Requirement::is_in(key, [value.as_str()])).collect();
                    self.selectors.insert(own_key(document), list);
                }
            }
            "Pod" => {
                // Counted before pods are read: a group without a size of its own is as large as it is.
                if let Some(labels) = document.value.pointer("/metadata/labels") {
                    let labels = Labels::deserialize(labels).unwrap_or_default();
                    if let Some(id) = gang::group_of(document.namespace(), &labels) {
                        *self.group_sizes.entry(id).or_default() += 1;
                    }
                }
            }
            "KubeSchedulerConfiguration" => self.default_spread = DefaultSpread::read(document)?,
            "PodGroup" => {
                let group = PodGroup::read(document)?;
                self.pod_groups.insert(Meta::read(document)?.pod_id().to_string(), group);
            }
            _ => {}
        }
        Ok(())
    }

    /// The priority of a pod that says so much of it.
    pub(super) fn priority(
        &self,
        document: &Document,
        path: &str,
        value: Option<i32>,
        class: &str,
    ) -> Result<i32, ManifestError> {
        match value {
            Some(value) => Ok(value),
            None if class.is_empty() => Ok(self.default_priority),
            None => {
                let system = SYSTEM_PRIORITIES.iter().find(|(name, _)| *name == class);
                let known = system.map(|(_, value)| *value).or_else(|| self.priorities.get(class).copied());
                known.ok_or_else(|| {
                    let found = format!("expected a PriorityClass of the input, found {class:?}");
                    document.error(&format!("{path}.priorityClassName"), found)
                })
            }
        }
    }

    /// Whether the RuntimeClass of a pod is there. The API server admits no pod that names another.
    pub(super) fn check_runtime(
        &self,
        document: &Document,
        path: &str,
        spec: &PodSpec,
    ) -> Result<(), ManifestError> {
        let class = &spec.runtime_class_name;
        if class.is_empty() || self.runtimes.contains_key(class) {
            return Ok(());
        }
        let problem = format!("expected a RuntimeClass of the input, found {class:?}");
        Err(document.error(&format!("{path}.runtimeClassName"), problem))
    }

    /// What the controller of a pod, or the controller that a document is, selects.
    pub(super) fn selector_of_owner(&self, document: &Document) -> Option<Vec<Requirement>> {
        if let Some(selector) = self.selectors.get(&own_key(document)) {
            return Some(selector.clone());
        }
        let owners = document.value.pointer("/metadata/ownerReferences")?.as_array()?;
        let text = |owner: &Value, field: &str| {
            owner.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        owners.iter().find_map(|owner| {
            let key = (document.namespace().to_owned(), text(owner, "kind"), text(owner, "name"));
            self.selectors.get(&key).cloned()
        })
    }

    /// Names of namespaces whose labels `matches` accepts.
    pub(super) fn namespaces_where(&self, matches: impl Fn(&Labels) -> bool) -> BTreeSet<String> {
        self.namespaces.iter().filter(|(_, labels)| matches(labels)).map(|(name, _)| name.clone()).collect()
    }
}

/// What an object is found by: namespace, kind and name.
fn own_key(document: &Document) -> (String, String, String) {
    (document.namespace().to_owned(), document.kind.clone(), document.name().to_owned())
}

/// The label that every namespace has.
fn named(name: &str) -> Labels {
    Labels::from([("kubernetes.io/metadata.name".to_owned(), name.to_owned())])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(value: Value) -> Document {
        let kind = value["kind"].as_str().unwrap().to_owned();
        Document { file: "-".to_owned(), number: 1, kind, value }
    }

    fn context(objects: &[Value]) -> Context {
        let mut context = Context::default();
        for object in objects {
            context.read(&document(object.clone())).unwrap();
        }
        context
    }

    #[test]
    fn priority_is_the_pod_s_own_its_class_s_or_the_default() {
        let class = |name: &str, value: i32, default: bool| json!({"kind": "PriorityClass", "metadata": {"name": name}, "value": value, "globalDefault": default});
        let context = context(&[class("low", 10, false), class("usual", 100, true)]);
        let pod = document(json!({"kind": "Pod", "metadata": {"name": "p"}}));
        let of = |own, class: &str| context.priority(&pod, "spec", own, class);
        assert_eq!(of(Some(7), "low").unwrap(), 7);
        assert_eq!(of(None, "low").unwrap(), 10);
        assert_eq!(of(None, "").unwrap(), 100);
        assert_eq!(of(None, "system-node-critical").unwrap(), 2_000_001_000);
        let error = of(None, "none").unwrap_err();
        assert_eq!(error.field, "spec.priorityClassName");
        assert_eq!(error.problem, "expected a PriorityClass of the input, found \"none\"");
    }

    #[test]
    fn namespaces_that_are_only_mentioned_are_there_with_their_name() {
        let context = context(&[
            json!({"kind": "Namespace", "metadata": {"name": "a", "labels": {"team": "red"}}}),
            json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "b"}}),
            json!({"kind": "Pod", "metadata": {"name": "q", "namespace": "a"}}),
        ]);
        let all: Vec<String> = context.namespaces_where(|_| true).into_iter().collect();
        assert_eq!(all, ["a", "b"]);
        let red: Vec<String> =
            context.namespaces_where(|labels| labels.contains_key("team")).into_iter().collect();
        assert_eq!(red, ["a"]);
        assert_eq!(context.namespaces["b"]["kubernetes.io/metadata.name"], "b");
    }

    #[test]
    fn a_pod_finds_what_its_controller_selects() {
        let context = context(&[
            json!({"kind": "ReplicaSet", "metadata": {"name": "rs"}, "spec": {"selector": {"matchLabels": {"a": "1"}}}}),
            json!({"kind": "ReplicationController", "metadata": {"name": "rc"},
                "spec": {"template": {"metadata": {"labels": {"b": "2"}}}}}),
        ]);
        let selected = |kind: &str, name: &str| {
            let owners = json!([{"kind": kind, "name": name}]);
            let pod = document(json!({"kind": "Pod", "metadata": {"name": "p", "ownerReferences": owners}}));
            context.selector_of_owner(&pod).map(|list| list[0].to_string())
        };
        assert_eq!(selected("ReplicaSet", "rs").as_deref(), Some("a In [1]"));
        assert_eq!(selected("ReplicationController", "rc").as_deref(), Some("b In [2]"));
        assert_eq!(selected("ReplicaSet", "rc"), None);
    }

    #[test]
    fn only_a_runtime_class_that_is_there_can_be_named() {
        let context = context(&[json!({"kind": "RuntimeClass", "metadata": {"name": "kata"}})]);
        let pod = document(json!({"kind": "Pod", "metadata": {"name": "p"}}));
        let check = |class: &str| {
            let spec = PodSpec { runtime_class_name: class.to_owned(), ..PodSpec::default() };
            context.check_runtime(&pod, "spec", &spec).map_err(|error| error.field)
        };
        assert_eq!((check(""), check("kata")), (Ok(()), Ok(())));
        assert_eq!(check("gvisor"), Err("spec.runtimeClassName".to_owned()));
    }
}
