//! What the driver puts on record beside the engine's effects: statuses and hashes of pools, classes (`classes`), what was measured
//! (`NodeHardware`), what was learned (`SkuProfile`).
//!
//! All of it is told anew from what is known, so a write that fails is simply made again at the next turn.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use assay_core::engine::{Engine, PoolStatus};
use assay_core::model::{ClassReadiness, Timestamp};
use assay_core::profile::{ProfileKey, ProfileStore, SkuProfile as SkuProfileFacts};
use assay_shared::HardwareReport;
use assay_shared::labels::hardware;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tracing::{debug, warn};

use super::classes::ClassNews;
use crate::cloud::Cloud;
use crate::kube::api::conditions::{self, Status};
use crate::kube::api::node_hardware::Verified;
use crate::kube::api::{NodeHardware, NodePool, SkuProfile};
use crate::kube::write::{FIELD_MANAGER, Gate, Told, as_ourselves};
use crate::quantities::quantities;

/// A profile that changes with every report is written this seldom.
const PROFILE_INTERVAL: Duration = Duration::from_secs(10);
/// Pause before what earlier leaders learned is asked for again.
const PROFILES_RETRY: Duration = Duration::from_millis(500);
/// Images, and what else the cloud has for a class, change by themselves.
const CLASS_INTERVAL: Duration = Duration::from_secs(300);
/// A class that is to go is looked at again this often.
const CLASS_GOES_INTERVAL: Duration = Duration::from_secs(5);
/// Records written in one turn; the rest follow in the next ones.
const AT_ONCE: usize = 50;

/// A node's last report.
#[derive(Debug, Clone)]
pub(super) struct Reported {
    pub report: Arc<HardwareReport>,
    pub at: Timestamp,
}

/// What was last written.
#[derive(Debug, Default)]
pub(super) struct Records {
    pools: BTreeMap<String, PoolStatus>,
    hashes: BTreeMap<String, String>,
    classes: BTreeMap<String, (Timestamp, ClassNews)>,
    profiles: BTreeMap<ProfileKey, (Timestamp, SkuProfileFacts)>,
    hardware: BTreeMap<Arc<str>, (Timestamp, Verified)>,
    /// Nodes whose report or label may be another than was written.
    touched: BTreeSet<Arc<str>>,
}

/// One thing to write.
#[derive(Debug)]
pub(super) enum Record {
    Pool { name: String, status: Box<PoolStatus> },
    Hash { pool: String, hash: String },
    Class { name: String, news: ClassNews },
    Profile { key: ProfileKey, profile: Box<SkuProfileFacts> },
    Hardware { node: Arc<str>, reported: Reported, verified: Verified },
}

impl Records {
    /// A node is gone; its record goes with it.
    pub(super) fn forget_node(&mut self, node: &str) {
        self.hardware.remove(node);
        self.touched.remove(node);
    }

    /// A node was measured, or is labelled otherwise.
    pub(super) fn touch_node(&mut self, node: &Arc<str>) {
        if !self.touched.contains(node) {
            self.touched.insert(Arc::clone(node));
        }
    }

    /// What has changed, as much as one turn writes; the rest follows in the next ones.
    pub(super) fn due(
        &mut self,
        engine: &Engine,
        reports: &BTreeMap<Arc<str>, Reported>,
        now: Timestamp,
    ) -> Vec<Record> {
        // What comes again under an old name has nothing on it yet.
        self.pools.retain(|name, _| engine.pools().contains_key(name));
        self.hashes.retain(|name, _| engine.pools().contains_key(name));
        self.classes.retain(|name, _| engine.classes().contains_key(name));
        let mut due = Vec::new();
        for (name, class) in engine.classes() {
            let deleting = class.readiness == ClassReadiness::Terminating;
            let news = ClassNews { hash: class.hash.clone(), deleting, in_use: engine.uses_class(name) };
            let interval = if deleting { CLASS_GOES_INTERVAL } else { CLASS_INTERVAL };
            let known = self.classes.get(name);
            if known.is_none_or(|(at, seen)| *seen != news || now.since(*at) >= interval) {
                due.push(Record::Class { name: name.clone(), news });
            }
        }
        for (name, pool) in engine.pools() {
            if let Some(hash) = pool.template_hash.as_ref().filter(|hash| self.hashes.get(name) != Some(hash))
            {
                due.push(Record::Hash { pool: name.clone(), hash: hash.clone() });
            }
        }
        for name in engine.pools().keys() {
            if let Some(status) =
                engine.pool_status(name).filter(|status| self.pools.get(name) != Some(status))
            {
                due.push(Record::Pool { name: name.clone(), status: Box::new(status) });
            }
        }
        for (key, profile) in engine.profiles().iter() {
            let fresh = self
                .profiles
                .get(key)
                .is_none_or(|(at, written)| written != profile && now.since(*at) >= PROFILE_INTERVAL);
            if fresh {
                due.push(Record::Profile { key: key.clone(), profile: Box::new(profile.clone()) });
            }
        }
        let room = AT_ONCE.saturating_sub(due.len());
        due.extend(self.hardware_due(engine, reports).into_iter().take(room));
        due.truncate(AT_ONCE);
        due
    }

    /// Reports that are to be written of the nodes that were touched. These stay touched until it is done.
    fn hardware_due(&mut self, engine: &Engine, reports: &BTreeMap<Arc<str>, Reported>) -> Vec<Record> {
        let mut due = Vec::new();
        let mut settled = Vec::new();
        for node in &self.touched {
            if due.len() == AT_ONCE {
                break;
            }
            // What is missing touches the node when it comes.
            let there = reports.get(node).zip(engine.nodes().get(node));
            let Some((reported, object)) = there else {
                settled.push(Arc::clone(node));
                continue;
            };
            let verified = match object.label(hardware::VERIFIED) {
                Some("true") => Verified::True,
                Some("stale") => Verified::Stale,
                _ => Verified::False,
            };
            if self.hardware.get(node) == Some(&(reported.at, verified)) {
                settled.push(Arc::clone(node));
            } else {
                due.push(Record::Hardware { node: Arc::clone(node), reported: reported.clone(), verified });
            }
        }
        for node in settled {
            self.touched.remove(&node);
        }
        due
    }

    /// A record was written.
    pub(super) fn note(&mut self, record: Record, now: Timestamp) {
        match record {
            Record::Pool { name, status } => {
                self.pools.insert(name, *status);
            }
            Record::Hash { pool, hash } => {
                self.hashes.insert(pool, hash);
            }
            Record::Class { name, news } => {
                self.classes.insert(name, (now, news));
            }
            Record::Profile { key, profile } => {
                self.profiles.insert(key, (now, *profile));
            }
            Record::Hardware { node, reported, verified } => {
                self.hardware.insert(node, (reported.at, verified));
            }
        }
    }
}

/// Writes records.
#[derive(Clone)]
pub(super) struct RecordWriter {
    pub client: Client,
    pub gate: Gate,
    pub cloud: Arc<dyn Cloud>,
    pub told: Arc<Told>,
}

impl RecordWriter {
    /// What earlier leaders learned. An object that cannot be read is left out, and said. The API server is asked until it
    /// answers: whoever began without what was learned would write over it.
    pub(super) async fn profiles(&self, term: u64) -> Option<ProfileStore> {
        let objects: Api<DynamicObject> = Api::all_with(self.client.clone(), &resource());
        let listed = loop {
            if !self.gate.admits(term) {
                return None;
            }
            match objects.list(&ListParams::default()).await {
                Ok(listed) => break listed,
                // Nobody has defined the kind, so nothing was ever kept.
                Err(kube::Error::Api(status)) if status.code == 404 => return Some(ProfileStore::new()),
                Err(error) => {
                    warn!(%error, "what earlier leaders learned cannot be read yet");
                    tokio::time::sleep(PROFILES_RETRY).await;
                }
            }
        };
        let read = listed.items.into_iter().filter_map(|object| {
            let name = object.name_any();
            match object.try_parse::<SkuProfile>() {
                Ok(profile) => Some((profile.spec.key, profile.spec.profile)),
                Err(error) => {
                    warn!(profile = name, %error, "SkuProfile left out");
                    None
                }
            }
        });
        Some(ProfileStore::of(read))
    }

    /// Writes records as long as the term lasts; those that were.
    pub(super) async fn write(self, term: u64, due: Vec<Record>, now: Timestamp) -> Vec<Record> {
        let mut written = Vec::with_capacity(due.len());
        for record in due {
            if !self.gate.admits(term) {
                break;
            }
            let done = match &record {
                Record::Pool { name, status } => self.write_pool(name, status, now).await,
                Record::Hash { pool, hash } => self.write_pool_hash(pool, hash).await,
                Record::Class { name, .. } => self.write_class(name, now).await,
                Record::Profile { key, profile } => {
                    let object = SkuProfile::of(key, profile);
                    self.apply(&object, &object.name_any(), "SkuProfile").await
                }
                Record::Hardware { node, reported, verified } => {
                    self.write_hardware(node, reported, *verified).await
                }
            };
            match done {
                Ok(()) => written.push(record),
                // A pool, class or node that is gone by now.
                Err(kube::Error::Api(status)) if status.code == 404 => written.push(record),
                Err(error) => debug!(%error, "record not written, tried again"),
            }
        }
        written
    }

    async fn write_pool(&self, name: &str, status: &PoolStatus, now: Timestamp) -> Result<(), kube::Error> {
        let pools: Api<NodePool> = Api::all(self.client.clone());
        let pool = pools.get(name).await?;
        let generation = pool.metadata.generation;
        let mut known = pool.status.map(|status| status.conditions).unwrap_or_default();
        for condition in &status.conditions {
            let told = (Status::from(condition.status), condition.reason, condition.message.as_str());
            conditions::set(&mut known, condition.condition_type, told, generation, now);
        }
        let patch = json!({"status": {
            "resources": quantities_with_zeros(status),
            "nodes": status.nodes,
            "conditions": known,
        }});
        let params = as_ourselves();
        pools.patch_status(name, &params, &Patch::Merge(&patch)).await.map(|_| ())
    }

    async fn write_hardware(
        &self,
        node: &str,
        reported: &Reported,
        verified: Verified,
    ) -> Result<(), kube::Error> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let owner = nodes.get(node).await?;
        let object = NodeHardware::of(node, Some(&owner), (*reported.report).clone(), verified, reported.at);
        self.apply(&object, node, "NodeHardware").await
    }

    async fn apply<K>(&self, object: &K, name: &str, kind: &str) -> Result<(), kube::Error>
    where
        K: kube::Resource<DynamicType = ()>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let objects: Api<K> = Api::all(self.client.clone());
        debug!(name, kind, "recorded");
        let params = PatchParams::apply(FIELD_MANAGER).force();
        objects.patch(name, &params, &Patch::Apply(object)).await.map(|_| ())
    }
}

fn resource() -> ApiResource {
    ApiResource::erase::<SkuProfile>(&())
}

/// What pools always tell, also where there is none of it, as Karpenter's do.
fn quantities_with_zeros(status: &PoolStatus) -> Value {
    let mut amounts = quantities(&status.resources);
    for name in ["cpu", "memory", "ephemeral-storage", "pods"] {
        amounts.entry(name.to_owned()).or_insert_with(|| "0".to_owned());
    }
    amounts.insert("nodes".to_owned(), status.nodes.to_string());
    json!(amounts)
}

#[cfg(test)]
mod tests {
    use assay_core::catalog::Catalog;
    use assay_core::engine::{Event, Settings};
    use assay_core::model::{Labels, Node, ResourceList};

    use super::*;

    fn node(name: &str, verified: &str) -> Event {
        Event::NodeApplied(Box::new(Node {
            name: name.into(),
            labels: Labels::from([(hardware::VERIFIED.to_owned(), verified.to_owned())]),
            annotations: Labels::new(),
            taints: Vec::new(),
            allocatable: ResourceList::default(),
            capacity: ResourceList::default(),
            provider_id: String::new(),
            ready: true,
            unschedulable: false,
            deleting: false,
            created: Timestamp(0),
        }))
    }

    /// Names of the nodes whose report is due, each written at once.
    fn written(
        records: &mut Records,
        engine: &Engine,
        reports: &BTreeMap<Arc<str>, Reported>,
    ) -> Vec<String> {
        let due = records.due(engine, reports, Timestamp(1_000));
        let named = due.iter().filter_map(|record| match record {
            Record::Hardware { node, .. } => Some(node.to_string()),
            _ => None,
        });
        let names = named.collect();
        due.into_iter().for_each(|record| records.note(record, Timestamp(1_000)));
        names
    }

    #[test]
    fn a_report_is_written_when_it_or_its_node_changed_and_no_node_is_looked_at_else() {
        let catalog = Catalog::builtin("eastus").unwrap();
        let mut engine = Engine::new(Settings::default(), Box::new(catalog), ProfileStore::new());
        let mut records = Records::default();
        let mut reports = BTreeMap::new();
        let mut report = |records: &mut Records, name: &str, at: u64| {
            let report = Arc::new(HardwareReport::default());
            reports.insert(Arc::from(name), Reported { report, at: Timestamp(at) });
            records.touch_node(&name.into());
            reports.clone()
        };
        // More than one turn writes, and one whose node has not joined.
        let mut known = report(&mut records, "early", 0);
        for number in 0..AT_ONCE + 10 {
            let name = format!("node-{number:03}");
            engine.handle(Timestamp(0), node(&name, "true"));
            known = report(&mut records, &name, 0);
        }
        assert_eq!(written(&mut records, &engine, &known).len(), AT_ONCE);
        assert_eq!(written(&mut records, &engine, &known).len(), 10);
        assert!(written(&mut records, &engine, &known).is_empty() && records.touched.is_empty());

        engine.handle(Timestamp(1), node("early", "true"));
        records.touch_node(&"early".into());
        assert_eq!(written(&mut records, &engine, &known), ["early"]);
        engine.handle(Timestamp(1), node("node-003", "stale"));
        records.touch_node(&"node-003".into());
        // Touched, and nothing is new.
        records.touch_node(&"node-004".into());
        assert_eq!(written(&mut records, &engine, &known), ["node-003"]);
        known = report(&mut records, "node-005", 7);
        assert_eq!(written(&mut records, &engine, &known), ["node-005"]);
        records.forget_node("node-005");
        assert!(written(&mut records, &engine, &known).is_empty() && records.touched.is_empty());
    }
}
