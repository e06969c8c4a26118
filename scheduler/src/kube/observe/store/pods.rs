//! The pods: by far the most of what there is, so each keeps only what is its own, and shares the rest with its siblings.
//!
//! What a pod means depends on other objects (its claims, the labels of namespaces, the others of its gang), so it is read when all
//! of these are known, and again when one of them changes. For that its spec is kept as text, once for all that have the same.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use assay_core::engine::Event;
use assay_core::model::{Gang, GangScope, Labels, Pod, PodId, PodPhase, PodSpec, Timestamp};
use assay_shared::labels::karpenter;
use serde_json::{Value, json};

use super::super::kind::Kind;
use super::super::object::SlimPod;
use super::intern::Interner;
use super::problems::{Problem, Problems};
use crate::manifest::live::{
    self, Context, Document, ManifestError, Members, Meta, Own, OwnerReference, Template, Touched,
};

/// A pod as it was last seen.
#[derive(Debug)]
struct Record {
    uid: u128,
    /// The listing that last had it.
    round: u32,
    labels: Arc<Labels>,
    annotations: Arc<Labels>,
    owners: Arc<Vec<OwnerReference>>,
    spec: Arc<SpecText>,
    /// Empty for most.
    volumes: Box<str>,
    node: Option<Arc<str>>,
    phase: PodPhase,
    created: Option<Timestamp>,
    terminating: Option<Timestamp>,
    /// The gang it is of.
    gang: Option<Arc<str>>,
    /// As the engine knows it.
    told: Option<Pod>,
}

/// A spec as text, and what other objects can change what it means.
#[derive(Debug, PartialEq, Eq, Hash)]
struct SpecText {
    json: Box<str>,
    selects_namespaces: bool,
    has_runtime: bool,
    has_no_priority: bool,
    has_no_spread: bool,
}

impl SpecText {
    /// Looks for words only: a pod that is read once more for nothing is still the same.
    fn new(json: String) -> Self {
        Self {
            selects_namespaces: json.contains("namespaceSelector"),
            has_runtime: json.contains("runtimeClassName"),
            has_no_priority: !json.contains("\"priority\":"),
            has_no_spread: !json.contains("topologySpreadConstraints"),
            json: json.into(),
        }
    }
}

/// All pods.
#[derive(Debug, Default)]
pub(super) struct Pods {
    /// In boxes: most come in the order of their names, which leaves the nodes of a tree half empty.
    records: BTreeMap<PodId, Box<Record>>,
    /// To be read.
    unread: BTreeSet<PodId>,
    /// Gone, while the engine still knows them.
    gone: BTreeSet<PodId>,
    /// Pods by the claims they use, `namespace/name`.
    by_claim: BTreeMap<String, BTreeSet<PodId>>,
    gangs: BTreeMap<Arc<str>, BTreeMap<PodId, GangScope>>,
    /// Gangs whose pods have to agree anew.
    unsettled: BTreeSet<Arc<str>>,
    names: Interner<str>,
    labels: Interner<Labels>,
    owners: Interner<Vec<OwnerReference>>,
    texts: Interner<SpecText>,
    specs: Interner<PodSpec>,
}

impl Pods {
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Tells it from another pod of the same name.
    pub(super) fn uid(&self, id: &PodId) -> Option<u128> {
        self.records.get(id).map(|record| record.uid)
    }

    /// Takes in a pod as it is now.
    pub(super) fn apply(&mut self, id: PodId, uid: &str, round: u32, pod: SlimPod, context: &mut Context) {
        let id = PodId { namespace: self.names.intern(&*id.namespace), name: id.name };
        let SlimPod { meta, node, phase, spec, volumes, created, terminating } = pod;
        let mut record = Record {
            uid: parse_uid(uid),
            round,
            labels: self.labels.intern(Box::new(meta.labels)),
            annotations: self.labels.intern(Box::new(meta.annotations)),
            owners: self.owners.intern(Box::new(meta.owner_references)),
            spec: self.texts.intern(Box::new(SpecText::new(spec))),
            volumes: volumes.into(),
            node: node.map(|name| self.names.intern(name)),
            phase,
            created,
            terminating,
            gang: None,
            told: None,
        };
        if let Some(known) = self.records.get_mut(&id) {
            if known.is_same(&record) {
                known.round = round;
                return;
            }
            if known.uid == record.uid {
                record.told = known.told.take();
            }
            self.forget(&id, context);
        }
        if let Some(group) = live::group_of(&id.namespace, &record.labels) {
            *context.group_sizes.entry(group.clone()).or_default() += 1;
            self.unsettled.insert(group.into());
        }
        for claim in claims(&id, &record.volumes) {
            self.by_claim.entry(claim).or_default().insert(id.clone());
        }
        self.unread.insert(id.clone());
        self.records.insert(id, Box::new(record));
    }

    /// A pod is there, but cannot be taken in.
    pub(super) fn seen(&mut self, id: &PodId, round: u32) {
        if let Some(record) = self.records.get_mut(id) {
            record.round = round;
        }
    }

    /// A pod is gone.
    pub(super) fn remove(&mut self, id: &PodId, context: &mut Context) {
        self.forget(id, context);
    }

    /// Pods that the listing of this round did not have.
    pub(super) fn missing(&self, round: u32) -> Vec<PodId> {
        let missing = self.records.iter().filter(|(_, record)| record.round != round);
        missing.map(|(id, _)| id.clone()).collect()
    }

    /// Takes a pod out of every place where it is known.
    fn forget(&mut self, id: &PodId, context: &mut Context) {
        let Some(record) = self.records.remove(id) else { return };
        if record.told.is_some() {
            self.gone.insert(id.clone());
        }
        self.unread.remove(id);
        if let Some(group) = live::group_of(&id.namespace, &record.labels) {
            if let Some(size) = context.group_sizes.get_mut(&group) {
                *size = size.saturating_sub(1);
                if *size == 0 {
                    context.group_sizes.remove(&group);
                }
            }
            self.unsettled.insert(group.into());
        }
        for claim in claims(id, &record.volumes) {
            if let Some(users) = self.by_claim.get_mut(&claim) {
                users.remove(id);
                if users.is_empty() {
                    self.by_claim.remove(&claim);
                }
            }
        }
        if let Some(gang) = record.gang {
            self.leave_gang(&gang, id);
        }
    }

    fn leave_gang(&mut self, gang: &Arc<str>, id: &PodId) {
        if let Some(members) = self.gangs.get_mut(gang) {
            members.remove(id);
            if members.is_empty() {
                self.gangs.remove(gang);
            }
            self.unsettled.insert(Arc::clone(gang));
        }
    }

    /// Has those pods read again that a change can mean something for.
    pub(super) fn touch(&mut self, touched: &Touched, context: &Context) {
        let mut all_where = |matters: &dyn Fn(&PodId, &Record) -> bool| {
            let matching = self.records.iter().filter(|(id, record)| matters(id, record));
            self.unread.extend(matching.map(|(id, _)| id.clone()));
        };
        match touched {
            Touched::Namespaces => all_where(&|_, record| record.spec.selects_namespaces),
            Touched::Priorities => all_where(&|_, record| record.spec.has_no_priority),
            Touched::Runtimes => all_where(&|_, record| record.spec.has_runtime),
            Touched::Spread => all_where(&|_, record| record.spec.has_no_spread),
            Touched::StorageClasses => all_where(&|_, record| !record.volumes.is_empty()),
            Touched::Job(job) => all_where(&|id, record| {
                let names = |owner: &OwnerReference| format!("{}/{}", id.namespace, owner.name) == *job;
                record.owners.iter().any(|owner| owner.kind == "Job" && names(owner))
            }),
            Touched::Gang(gang) => {
                self.unsettled.insert(gang.as_str().into());
                let members = self.gangs.get(gang.as_str()).into_iter().flat_map(BTreeMap::keys);
                self.unread.extend(members.cloned());
            }
            Touched::Claim(claim) => self.touch_users(claim),
            Touched::Volume(volume) => {
                context.storage.claims_of(volume).for_each(|claim| self.touch_users(claim));
            }
            Touched::VolumeLimits(_) => {}
        }
    }

    fn touch_users(&mut self, claim: &str) {
        self.unread.extend(self.by_claim.get(claim).into_iter().flatten().cloned());
    }

    /// Has all pods read, as for one who knows none.
    pub(super) fn tell_all(&mut self) {
        self.unread.extend(self.records.keys().cloned());
        self.records.values_mut().for_each(|record| record.told = None);
        self.gone.clear();
    }

    /// All pods, as they were last told.
    pub(super) fn told(&self) -> impl Iterator<Item = &Pod> {
        self.records.values().filter_map(|record| record.told.as_ref())
    }

    /// Whether there may be something to tell.
    pub(super) fn has_news(&self) -> bool {
        !self.gone.is_empty() || !self.unread.is_empty() || !self.unsettled.is_empty()
    }

    /// Reads what is unread, and tells what is new.
    pub(super) fn tell(&mut self, context: &Context, problems: &mut Problems, tell: &mut dyn FnMut(Event)) {
        for id in std::mem::take(&mut self.gone) {
            tell(Event::PodDeleted(id));
        }
        let mut memory = Memory::default();
        let mut waiting = BTreeMap::new();
        for id in std::mem::take(&mut self.unread) {
            let Some(record) = self.records.get(&id) else { continue };
            let read = memory.pod(&id, record, context);
            let wrong = read.as_ref().err().map(|error| Problem {
                kind: Kind::Pod,
                id: id.clone(),
                field: error.field.clone(),
                message: error.problem.clone(),
                is_error: true,
            });
            problems.set(Kind::Pod, &id, wrong.into_iter().collect());
            let pod = read.ok().or_else(|| record.stand_in(&id)).map(|mut pod| {
                pod.spec = self.specs.intern(pod.spec);
                pod
            });
            self.rejoin(&id, pod.as_ref().and_then(|pod| pod.gang.as_ref()));
            match pod {
                // It is told once its gang has agreed.
                Some(pod) if pod.gang.is_some() => drop(waiting.insert(id, pod)),
                pod => self.tell_one(id, pod, tell),
            }
        }
        for gang in std::mem::take(&mut self.unsettled) {
            let Some(scopes) = self.gangs.get(&gang) else { continue };
            let mut members = Members::default();
            scopes.iter().for_each(|(id, scope)| members.add(id, *scope, false));
            let (agreed, told) = members.agree(&gang, context);
            if let Some(told) = told {
                tracing::warn!("{told}");
            }
            let agreed = Arc::new(agreed);
            for id in scopes.keys().cloned().collect::<Vec<_>>() {
                let known = || self.records.get(&id).and_then(|record| record.told.clone());
                if let Some(mut pod) = waiting.remove(&id).or_else(known) {
                    pod.gang = Some(Arc::clone(&agreed));
                    self.tell_one(id, Some(pod), tell);
                }
            }
        }
    }

    /// Notes which gang a pod is of now, as it says itself.
    fn rejoin(&mut self, id: &PodId, gang: Option<&Arc<Gang>>) {
        let Some(record) = self.records.get_mut(id) else { return };
        let name = gang.map(|gang| Arc::clone(&gang.id));
        let before = std::mem::replace(&mut record.gang, name.clone());
        if let Some(before) = before.filter(|before| Some(before) != name.as_ref()) {
            self.leave_gang(&before, id);
        }
        if let (Some(name), Some(gang)) = (name, gang) {
            self.gangs.entry(Arc::clone(&name)).or_default().insert(id.clone(), gang.scope);
            self.unsettled.insert(name);
        }
    }

    fn tell_one(&mut self, id: PodId, pod: Option<Pod>, tell: &mut dyn FnMut(Event)) {
        let Some(record) = self.records.get_mut(&id) else { return };
        if record.told == pod {
            return;
        }
        record.told.clone_from(&pod);
        tell(match pod {
            Some(pod) => Event::PodApplied(Box::new(pod)),
            None => Event::PodDeleted(id),
        });
    }
}

impl Record {
    /// Whether nothing of it is other than in `new`, whose shared parts are interned too.
    fn is_same(&self, new: &Self) -> bool {
        self.uid == new.uid
            && Arc::ptr_eq(&self.labels, &new.labels)
            && Arc::ptr_eq(&self.annotations, &new.annotations)
            && Arc::ptr_eq(&self.owners, &new.owners)
            && Arc::ptr_eq(&self.spec, &new.spec)
            && self.volumes == new.volumes
            && self.node == new.node
            && (self.phase, self.created, self.terminating) == (new.phase, new.created, new.terminating)
    }

    /// What stands for a pod that cannot be read: nothing, unless it is on a node. That node must not be taken for an empty one.
    fn stand_in(&self, id: &PodId) -> Option<Pod> {
        let node = self.node.clone()?;
        let mut spec = PodSpec::default();
        spec.requests.pods = 1;
        let mut annotations = Labels::clone(&self.annotations);
        annotations.insert(karpenter::DO_NOT_DISRUPT.to_owned(), "true".to_owned());
        Some(Pod {
            labels: Arc::clone(&self.labels),
            annotations: Arc::new(annotations),
            created: self.created.unwrap_or_default(),
            phase: self.phase,
            owner: live::owner(&self.annotations, &self.owners),
            node: Some(node),
            terminating: self.terminating,
            ..Pod::new(id.clone(), Arc::new(spec))
        })
    }
}

/// Templates that were read since the context last changed, by the addresses of what makes them up.
#[derive(Default)]
struct Memory(HashMap<Parts, Result<Template, ManifestError>>);

type Parts = (*const str, *const Labels, *const Labels, *const Vec<OwnerReference>, *const SpecText);

impl Memory {
    /// Reads a pod.
    fn pod(&mut self, id: &PodId, record: &Record, context: &Context) -> Result<Pod, ManifestError> {
        let parts = (
            Arc::as_ptr(&id.namespace),
            Arc::as_ptr(&record.labels),
            Arc::as_ptr(&record.annotations),
            Arc::as_ptr(&record.owners),
            Arc::as_ptr(&record.spec),
        );
        let template = self.0.entry(parts).or_insert_with(|| read_template(id, record, context));
        let volumes: Vec<Value> = if record.volumes.is_empty() {
            Vec::new()
        } else {
            // It was written from a list of values.
            serde_json::from_str(&record.volumes).unwrap_or_default()
        };
        let own = Own {
            id: id.clone(),
            node: record.node.clone(),
            phase: record.phase,
            created: record.created.unwrap_or_default(),
            is_admitted: record.created.is_some(),
            terminating: record.terminating,
            labels: Arc::clone(&record.labels),
            annotations: Arc::clone(&record.annotations),
            volumes: &volumes,
        };
        template.as_ref().map_err(Clone::clone)?.pod(own, context)
    }
}

fn read_template(id: &PodId, record: &Record, context: &Context) -> Result<Template, ManifestError> {
    let mut value: Value = serde_json::from_str(&record.spec.json).unwrap_or_default();
    let owners = record.owners.iter().map(|owner| json!({"kind": owner.kind, "name": owner.name}));
    let owners: Value = owners.collect();
    value["metadata"] = json!({"namespace": &*id.namespace, "name": &*id.name, "ownerReferences": owners});
    let document = Document::of_object(Kind::Pod.name(), value);
    let meta = Meta {
        namespace: id.namespace.to_string(),
        name: id.name.to_string(),
        labels: Labels::clone(&record.labels),
        annotations: Labels::clone(&record.annotations),
        owner_references: Vec::clone(&record.owners),
        ..Meta::default()
    };
    Template::read(&document, &meta, document.typed()?, context)
}

/// Claims that volumes can mean, as `namespace/name`.
fn claims(id: &PodId, volumes: &str) -> Vec<String> {
    if volumes.is_empty() {
        return Vec::new();
    }
    let volumes: Vec<Value> = serde_json::from_str(volumes).unwrap_or_default();
    let claim = |volume: &Value| {
        let text = |path: &str| volume.pointer(path).and_then(Value::as_str);
        match text("/persistentVolumeClaim/claimName") {
            Some(claim) => Some(format!("{}/{claim}", id.namespace)),
            None if volume.get("ephemeral").is_some() => {
                Some(format!("{}/{}-{}", id.namespace, id.name, text("/name").unwrap_or_default()))
            }
            None => None,
        }
    };
    volumes.iter().filter_map(claim).collect()
}

/// A UUID as a number; 0 where it is none.
fn parse_uid(text: &str) -> u128 {
    let digits: String = text.chars().filter(|digit| *digit != '-').collect();
    u128::from_str_radix(&digits, 16).unwrap_or(0)
}
