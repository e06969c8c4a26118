//! Objects that say what others mean. Files are read for them before anything else, whatever order they stand in; of a running
//! cluster they come and go, and what was read with them is read again.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_core::model::{AttachedVolume, Gang, Labels, Node, ResourceList};
use assay_core::requirement::Requirement;
use serde::Deserialize;
use serde_json::Value;

use super::constraints::LabelSelector;
use super::defaults::{DefaultSpread, Service};
use super::document::Document;
use super::error::ManifestError;
use super::gang::{self, PodGroup};
use super::objects::{Meta, PodSpec, Quantities};
use super::storage::Storage;
use super::{amounts, controller};

/// What the rest of the input says about namespaces, priorities, volumes and groups.
#[derive(Debug, Default)]
pub(crate) struct Context {
    pub(crate) storage: Storage,
    /// Labels of namespaces, by name; every namespace that is mentioned is there.
    pub(super) namespaces: BTreeMap<String, Labels>,
    priorities: BTreeMap<String, PriorityClass>,
    /// Overhead of RuntimeClasses, by name.
    pub(super) runtimes: BTreeMap<String, ResourceList>,
    /// By namespace and name.
    pub(super) services: BTreeMap<String, Service>,
    /// By namespace and name.
    pub(super) pod_groups: BTreeMap<String, PodGroup>,
    /// Gangs of Jobs that ask for one, by namespace and name.
    pub(super) job_gangs: BTreeMap<String, Arc<Gang>>,
    /// Pods of each group in the input, by namespace and name.
    pub(crate) group_sizes: BTreeMap<String, u32>,
    pub(crate) default_spread: DefaultSpread,
    /// Selectors of ReplicaSets, ReplicationControllers and StatefulSets (and of Deployments, whose ReplicaSets take theirs), by namespace, kind and name.
    selectors: BTreeMap<(String, String, String), Vec<Requirement>>,
    /// Volumes that nodes can attach: by node, each driver and its number.
    volume_limits: BTreeMap<String, Vec<(String, u64)>>,
}

/// What a change of the context can mean something for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Touched {
    /// Terms with a `namespaceSelector`.
    Namespaces,
    /// Pods without a priority of their own.
    Priorities,
    /// Pods of a RuntimeClass.
    Runtimes,
    /// Pods that spread by default.
    Spread,
    /// Pods of this claim, `namespace/name`.
    Claim(String),
    /// Pods of the claim that is bound to this volume.
    Volume(String),
    /// Pods of claims that are not bound.
    StorageClasses,
    /// Pods of this group, `namespace/name`.
    Gang(String),
    /// Pods of this Job, `namespace/name`.
    Job(String),
    /// This node.
    VolumeLimits(String),
}

/// Priorities that every cluster has.
const SYSTEM_PRIORITIES: [(&str, i32); 2] =
    [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
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
        if document.is_namespaced() && !document.name().is_empty() {
            self.mention(document.namespace());
        }
        match document.kind.as_str() {
            // Counted before pods are read: a group without a size of its own is as large as it is.
            "Pod" => {
                if let Some(labels) = document.value.pointer("/metadata/labels") {
                    let labels = Labels::deserialize(labels).unwrap_or_default();
                    if let Some(id) = gang::group_of(document.namespace(), &labels) {
                        *self.group_sizes.entry(id).or_default() += 1;
                    }
                }
            }
            // What is wrong with it is told where its pods are made.
            "Job" => drop(self.apply(document)),
            _ => drop(self.apply(document)?),
        }
        Ok(())
    }

    /// A namespace that something is in. Its object may come later, or never.
    pub(crate) fn mention(&mut self, namespace: &str) -> Option<Touched> {
        if self.namespaces.contains_key(namespace) {
            return None;
        }
        self.namespaces.insert(namespace.to_owned(), named(namespace));
        Some(Touched::Namespaces)
    }

    /// Takes in an object, in place of what it said before; tells what that changes. Passes over kinds that say nothing of others.
    pub(crate) fn apply(&mut self, document: &Document) -> Result<Option<Touched>, ManifestError> {
        let name = || document.name().to_owned();
        let full_name = || format!("{}/{}", document.namespace(), document.name());
        let touched = match document.kind.as_str() {
            "PersistentVolumeClaim" | "PersistentVolume" | "StorageClass" => {
                return self.storage.apply(document);
            }
            "Namespace" => {
                let meta = Meta::read(document)?;
                let mut labels = named(&meta.name);
                labels.extend(meta.labels);
                put(&mut self.namespaces, meta.name, labels).then_some(Touched::Namespaces)
            }
            "PriorityClass" => {
                let class: PriorityClass = document.typed()?;
                put(&mut self.priorities, name(), class).then_some(Touched::Priorities)
            }
            "RuntimeClass" => {
                let class: RuntimeClass = document.typed()?;
                let overhead = amounts::read(document, "overhead.podFixed", &class.overhead.pod_fixed)?;
                put(&mut self.runtimes, name(), overhead).then_some(Touched::Runtimes)
            }
            "CSINode" => {
                let node: CsiNode = document.typed()?;
                let drivers = node.spec.drivers.into_iter();
                let limits = drivers.filter_map(|driver| Some((driver.name, driver.allocatable.count?)));
                put(&mut self.volume_limits, name(), limits.collect()).then(|| Touched::VolumeLimits(name()))
            }
            "Service" => {
                let changed = match Service::read(document)? {
                    Some(service) => put(&mut self.services, full_name(), service),
                    None => self.services.remove(&full_name()).is_some(),
                };
                self.if_spread(changed)
            }
            "Deployment" | "ReplicaSet" | "StatefulSet" => {
                let selector = document.value.pointer("/spec/selector").map(LabelSelector::deserialize);
                let changed = match selector {
                    Some(Ok(selector)) => {
                        let list = selector.requirements(document, "spec.selector")?;
                        put(&mut self.selectors, own_key(document), list)
                    }
                    _ => self.selectors.remove(&own_key(document)).is_some(),
                };
                self.if_spread(changed)
            }
            "ReplicationController" => {
                // Its selector is a plain map and, where it has none, the labels of its template.
                let places = ["/spec/selector", "/spec/template/metadata/labels"];
                let labels = places.iter().find_map(|place| document.value.pointer(place));
                let changed = match labels.map(Labels::deserialize) {
                    Some(Ok(labels)) => {
                        let one =
                            |(key, value): (&String, &String)| Requirement::is_in(key, [value.as_str()]);
                        put(&mut self.selectors, own_key(document), labels.iter().map(one).collect())
                    }
                    _ => self.selectors.remove(&own_key(document)).is_some(),
                };
                self.if_spread(changed)
            }
            "Job" => {
                let changed = match controller::gang_of_job(document)? {
                    Some(gang) => put(&mut self.job_gangs, full_name(), gang),
                    None => self.job_gangs.remove(&full_name()).is_some(),
                };
                changed.then(|| Touched::Job(full_name()))
            }
            "KubeSchedulerConfiguration" => {
                self.default_spread = DefaultSpread::read(document)?;
                Some(Touched::Spread)
            }
            "PodGroup" => {
                let group = PodGroup::read(document)?;
                put(&mut self.pod_groups, full_name(), group).then(|| Touched::Gang(full_name()))
            }
            _ => None,
        };
        Ok(touched)
    }

    /// Forgets an object; tells what that changes.
    pub(crate) fn remove(&mut self, kind: &str, namespace: &str, name: &str) -> Option<Touched> {
        let full_name = || format!("{namespace}/{name}");
        match kind {
            "PersistentVolumeClaim" | "PersistentVolume" | "StorageClass" => {
                self.storage.remove(kind, namespace, name)
            }
            "Namespace" => self.namespaces.remove(name).map(|_| Touched::Namespaces),
            "PriorityClass" => self.priorities.remove(name).map(|_| Touched::Priorities),
            "RuntimeClass" => self.runtimes.remove(name).map(|_| Touched::Runtimes),
            "CSINode" => self.volume_limits.remove(name).map(|_| Touched::VolumeLimits(name.to_owned())),
            "Service" => {
                let changed = self.services.remove(&full_name()).is_some();
                self.if_spread(changed)
            }
            "Deployment" | "ReplicaSet" | "ReplicationController" | "StatefulSet" => {
                let key = (namespace.to_owned(), kind.to_owned(), name.to_owned());
                let changed = self.selectors.remove(&key).is_some();
                self.if_spread(changed)
            }
            "Job" => self.job_gangs.remove(&full_name()).map(|_| Touched::Job(full_name())),
            "PodGroup" => self.pod_groups.remove(&full_name()).map(|_| Touched::Gang(full_name())),
            _ => None,
        }
    }

    /// What selects pods matters only where pods spread by default.
    fn if_spread(&self, changed: bool) -> Option<Touched> {
        (changed && !self.default_spread.is_empty()).then_some(Touched::Spread)
    }

    /// How many volumes of each driver a node can attach, as its allocatable resources name them.
    pub(crate) fn limit_volumes(&self, node: &mut Node) {
        for (driver, count) in self.volume_limits.get(&*node.name).into_iter().flatten() {
            // A limit of nothing is a limit too.
            node.allocatable.extended.insert(AttachedVolume::limit_name(driver), *count);
        }
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
            None if class.is_empty() => {
                let defaults = self.priorities.values().filter(|class| class.global_default);
                Ok(defaults.map(|class| class.value).max().unwrap_or(0))
            }
            None => {
                let system = SYSTEM_PRIORITIES.iter().find(|(name, _)| *name == class);
                let known = system
                    .map(|(_, value)| *value)
                    .or_else(|| self.priorities.get(class).map(|class| class.value));
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

    /// The gang of the Job that owns a pod.
    pub(super) fn gang_of_job(&self, meta: &Meta) -> Option<Arc<Gang>> {
        let namespace = meta.pod_id().namespace;
        let jobs = meta.owner_references.iter().filter(|owner| owner.kind == "Job");
        jobs.filter_map(|owner| self.job_gangs.get(&format!("{namespace}/{}", owner.name))).next().cloned()
    }

    /// Names of namespaces whose labels `matches` accepts.
    pub(super) fn namespaces_where(&self, matches: impl Fn(&Labels) -> bool) -> BTreeSet<String> {
        self.namespaces.iter().filter(|(_, labels)| matches(labels)).map(|(name, _)| name.clone()).collect()
    }
}

/// Puts a value where it belongs; whether that changed anything.
fn put<K: Ord, V: PartialEq>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    match map.entry(key) {
        Entry::Occupied(entry) if *entry.get() == value => false,
        Entry::Occupied(mut entry) => {
            entry.insert(value);
            true
        }
        Entry::Vacant(entry) => {
            entry.insert(value);
            true
        }
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
