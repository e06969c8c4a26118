//! NodeClaims and their VMs: made in an order that a crash at any point leaves repairable, and let go in the reverse one.
//!
//! | step | if the scheduler dies right after it |
//! |---|---|
//! | create the NodeClaim, its choice of machine in its labels | whoever leads next asks for the VM again |
//! | create the VM, by the claim's name | the same; the cloud returns the one that is there |
//! | record it in the claim's status | the next one goes on from there |
//! | delete the NodeClaim: a finalizer holds it | the next one drains |
//! | delete the VM | the next one asks again, and hears that it is gone |
//! | delete the Node, take the finalizers off | nothing is left |

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use assay_core::engine::{Condition, ConditionStatus, Event, LaunchError, LaunchFailure};
use assay_core::lifecycle::LAUNCH_TIMEOUT;
use assay_core::model::{NodeClaim, Timestamp};
use assay_core::requirement::Requirement;
use assay_shared::labels::{azure, karpenter, kubernetes};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::gate::{Failed, Gate};
use super::told::Told;
use super::{FIELD_MANAGER, ObjectRef, as_ourselves};
use crate::cloud::{Cloud, CreateError};
use crate::kube::api::{conditions as kinds, hash, names};
use crate::quantities::quantities;

/// Instance types that a claim lists (Karpenter's limit).
const TYPES_LISTED: usize = 600;

/// One thing to do about a claim.
#[derive(Debug, Clone)]
pub(super) enum ClaimJob {
    /// Make its object and its VM.
    Create(Box<NodeClaim>),
    /// Set a condition, and what the status says of the machine.
    Condition { at: Timestamp, condition: Condition, machine: MachineStatus },
    /// Set an annotation.
    Annotate { key: &'static str, value: String },
    /// Delete its object.
    Delete,
    /// Delete its VM.
    DeleteInstance,
    /// Let go of its node and of itself.
    Release { node: Option<Arc<str>> },
}

/// What a claim's status says of its machine.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct MachineStatus {
    pub provider_id: Option<String>,
    pub node: Option<Arc<str>>,
    pub capacity: BTreeMap<String, String>,
    pub allocatable: BTreeMap<String, String>,
}

/// What is remembered of a claim.
#[derive(Debug, Default)]
pub(super) struct ClaimMemory {
    /// Its conditions by type; unknown until it was read.
    conditions: Option<BTreeMap<String, Value>>,
    /// Whether it was let go.
    released: bool,
}

impl ClaimMemory {
    pub(super) const fn is_over(&self) -> bool {
        self.released
    }
}

/// Writes claims.
#[derive(Debug)]
pub(super) struct ClaimWriter {
    claims: Api<DynamicObject>,
    pools: Api<DynamicObject>,
    nodes: Api<k8s_openapi::api::core::v1::Node>,
    cloud: Arc<dyn Cloud>,
    gate: Gate,
    told: Arc<Told>,
    answers: mpsc::Sender<Event>,
    /// Uids of pools, which own claims.
    owners: Mutex<HashMap<String, String>>,
    patience: Patience,
}

/// With a cloud that does not answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Pause before it is asked again.
    pub(super) pause: Duration,
    /// How long it is asked for one VM.
    pub(super) most: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { pause: Duration::from_secs(5), most: LAUNCH_TIMEOUT }
    }
}

impl ClaimWriter {
    pub(super) fn new(
        client: Client,
        cloud: Arc<dyn Cloud>,
        gate: Gate,
        told: Arc<Told>,
        answers: mpsc::Sender<Event>,
    ) -> Self {
        let resource = |kind: &str| ApiResource::from_gvk(&GroupVersionKind::gvk("karpenter.sh", "v1", kind));
        let claim = resource("NodeClaim");
        Self {
            claims: Api::all_with(client.clone(), &claim),
            pools: Api::all_with(client.clone(), &resource("NodePool")),
            nodes: Api::all(client),
            cloud,
            gate,
            told,
            answers,
            owners: Mutex::new(HashMap::new()),
            patience: Patience::default(),
        }
    }

    #[cfg(test)]
    pub(super) fn with_patience(self, patience: Patience) -> Self {
        Self { patience, ..self }
    }

    /// Does all jobs of one claim, in order.
    pub(super) async fn run(
        &self,
        name: &Arc<str>,
        memory: &mut ClaimMemory,
        term: u64,
        jobs: Vec<ClaimJob>,
    ) {
        let mut conditions = Vec::new();
        let mut latest = MachineStatus::default();
        for job in jobs {
            let done = match job {
                // One write for all that are at hand.
                ClaimJob::Condition { at, condition, machine } => {
                    conditions.push((at, condition));
                    latest = machine;
                    continue;
                }
                other => {
                    let told = std::mem::take(&mut conditions);
                    self.set_conditions(name, memory, term, told, &latest)
                        .await
                        .and(self.other(name, memory, term, other).await)
                }
            };
            self.note(name, memory, done);
        }
        let done = self.set_conditions(name, memory, term, conditions, &latest).await;
        self.note(name, memory, done);
    }

    fn note(&self, name: &str, memory: &mut ClaimMemory, done: Result<(), Failed>) {
        match done {
            Ok(()) | Err(Failed::NotLeading) => {}
            Err(Failed::Gone) => memory.released = true,
            Err(Failed::Refused(why)) => self.told.not_written(&ObjectRef::cluster("NodeClaim", name), why),
            Err(failed) => warn!(claim = name, ?failed, "claim not written"),
        }
    }

    async fn other(
        &self,
        name: &Arc<str>,
        memory: &mut ClaimMemory,
        term: u64,
        job: ClaimJob,
    ) -> Result<(), Failed> {
        match job {
            ClaimJob::Create(claim) => self.create(&claim, memory, term).await,
            ClaimJob::Annotate { key, value } => {
                let patch = Patch::Merge(json!({"metadata": {"annotations": {key: value}}}));
                let params = as_ourselves();
                self.gate.insist(term, || self.claims.patch(name, &params, &patch)).await.map(|_| ())
            }
            ClaimJob::Delete => match self.delete(name, term).await {
                // Nothing holds it back: the engine hears that from the watch, or never knew it.
                Err(Failed::Gone) => {
                    let _ = self.answers.send(Event::ClaimDeleted { claim: Arc::clone(name) }).await;
                    memory.released = true;
                    Ok(())
                }
                done => done,
            },
            ClaimJob::DeleteInstance => self.delete_instance(name, term).await,
            ClaimJob::Release { node } => {
                if let Some(node) = node {
                    self.release_node(&node, term).await?;
                }
                self.drop_finalizer(name, term).await?;
                memory.released = true;
                let _ = self.answers.send(Event::ClaimDeleted { claim: Arc::clone(name) }).await;
                Ok(())
            }
            ClaimJob::Condition { .. } => Ok(()),
        }
    }

    async fn create(&self, claim: &NodeClaim, memory: &mut ClaimMemory, term: u64) -> Result<(), Failed> {
        let owner = self.owner(&claim.pool, term).await?;
        let object: DynamicObject = serde_json::from_value(manifest(claim, owner.as_deref()))
            .map_err(|error| Failed::Refused(error.to_string()))?;
        let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.gate.insist(term, || self.claims.create(&params, &object)).await {
            Ok(_) => memory.conditions = Some(BTreeMap::new()),
            // An earlier run made it, or this one before a time-out.
            Err(Failed::Exists) => {}
            // What is there was allowed once; what is made of it anew need not be, and the definition may have changed.
            Err(Failed::Refused(_)) if self.is_there(&claim.name, term).await? => {}
            // Without an object on record nothing is bought.
            Err(Failed::Refused(why)) => {
                self.refused(claim, LaunchFailure::Other, format!("NodeClaim refused: {why}")).await;
                return Err(Failed::Refused(why));
            }
            Err(failed) => return Err(failed),
        }
        let began = Instant::now();
        loop {
            if !self.gate.admits(term) {
                return Err(Failed::NotLeading);
            }
            match self.cloud.create(claim).await {
                Ok(vm) => {
                    let launched = Event::Launched {
                        claim: Arc::clone(&claim.name),
                        provider_id: vm.provider_id,
                        instance_type: vm.instance_type,
                        zone: vm.zone,
                        capacity_type: vm.capacity_type,
                        price: vm.price,
                    };
                    let _ = self.answers.send(launched).await;
                    return Ok(());
                }
                Err(CreateError::Refused(error)) => {
                    self.discard(claim, term).await?;
                    memory.released = true;
                    let _ = self
                        .answers
                        .send(Event::LaunchFailed { claim: Arc::clone(&claim.name), error })
                        .await;
                    return Ok(());
                }
                // No answer is no refusal: the VM may be there. So it is the same one that is asked for, for as long as a launch
                // may take; another plan would have to ask the same cloud, and pay for both.
                Err(CreateError::Cloud(error)) if began.elapsed() < self.patience.most => {
                    debug!(claim = %claim.name, %error, "the cloud is asked again");
                    tokio::time::sleep(self.patience.pause).await;
                    if !self.is_wanted(&claim.name, term).await? {
                        return Ok(());
                    }
                }
                Err(CreateError::Cloud(error)) => {
                    // It may have been made after all: then the claim's deletion takes it along.
                    if self.cloud.delete(&claim.name).await.is_ok() {
                        self.discard(claim, term).await?;
                        memory.released = true;
                    }
                    self.refused(claim, LaunchFailure::Other, error.to_string()).await;
                    return Ok(());
                }
            }
        }
    }

    async fn refused(&self, claim: &NodeClaim, failure: LaunchFailure, message: String) {
        let error = LaunchError {
            failure,
            instance_type: Arc::clone(&claim.instance_type),
            zone: Arc::clone(&claim.zone),
            capacity_type: claim.capacity_type,
            message,
        };
        let _ = self.answers.send(Event::LaunchFailed { claim: Arc::clone(&claim.name), error }).await;
    }

    async fn is_there(&self, name: &str, term: u64) -> Result<bool, Failed> {
        match self.gate.call(term, || self.claims.get_metadata(name)).await {
            Ok(_) => Ok(true),
            Err(Failed::Gone) => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// Whether a claim is there and nobody has deleted it.
    async fn is_wanted(&self, name: &str, term: u64) -> Result<bool, Failed> {
        match self.gate.call(term, || self.claims.get_metadata(name)).await {
            Ok(claim) => Ok(claim.metadata.deletion_timestamp.is_none()),
            Err(Failed::Gone) => Ok(false),
            Err(failed) => Err(failed),
        }
    }

    /// Takes the object of a claim away that never got a VM.
    async fn discard(&self, claim: &NodeClaim, term: u64) -> Result<(), Failed> {
        match self.delete(&claim.name, term).await {
            Ok(()) => self.drop_finalizer(&claim.name, term).await,
            Err(Failed::Gone) => Ok(()),
            Err(failed) => Err(failed),
        }
    }

    /// The uid of the pool that owns a claim; `None` for a claim without pool, and one whose pool is gone.
    async fn owner(&self, pool: &str, term: u64) -> Result<Option<String>, Failed> {
        if pool.is_empty() {
            return Ok(None);
        }
        let known = self.owners.lock().unwrap_or_else(PoisonError::into_inner).get(pool).cloned();
        if known.is_some() {
            return Ok(known);
        }
        let uid = match self.gate.call(term, || self.pools.get_metadata(pool)).await {
            Ok(object) => object.metadata.uid,
            Err(Failed::Gone) => None,
            Err(failed) => return Err(failed),
        };
        if let Some(uid) = &uid {
            self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(pool.to_owned(), uid.clone());
        }
        Ok(uid)
    }

    /// Forgets a pool that is gone: another one of its name has another uid.
    pub(super) fn forget_pool(&self, pool: &str) {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).remove(pool);
    }

    async fn set_conditions(
        &self,
        name: &str,
        memory: &mut ClaimMemory,
        term: u64,
        conditions: Vec<(Timestamp, Condition)>,
        machine: &MachineStatus,
    ) -> Result<(), Failed> {
        let Some((at, _)) = conditions.last().filter(|_| !memory.released) else { return Ok(()) };
        let latest = rfc3339(*at);
        if memory.conditions.is_none() {
            let object = self.gate.call(term, || self.claims.get(name)).await?;
            let there = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let by_type = there.into_iter().filter_map(|one| Some((one["type"].as_str()?.to_owned(), one)));
            memory.conditions = Some(by_type.collect());
        }
        let Some(known) = memory.conditions.as_mut() else { return Ok(()) };
        let mut changed = false;
        for (at, condition) in &conditions {
            changed |= set(known, condition, &rfc3339(*at));
        }
        if !changed {
            return Ok(());
        }
        set(known, &ready(known), &latest);
        let mut status = json!({"conditions": known.values().collect::<Vec<_>>()});
        if let Some(id) = &machine.provider_id {
            status["providerID"] = json!(id);
        }
        if let Some(node) = &machine.node {
            status["nodeName"] = json!(node);
        }
        for (field, amounts) in [("capacity", &machine.capacity), ("allocatable", &machine.allocatable)] {
            if !amounts.is_empty() {
                status[field] = json!(amounts);
            }
        }
        let patch = Patch::Merge(json!({"status": status}));
        let params = as_ourselves();
        let written = self.gate.insist(term, || self.claims.patch_status(name, &params, &patch)).await;
        if written.is_err() {
            memory.conditions = None;
        }
        written.map(|_| ())
    }

    async fn merge(&self, name: &str, term: u64, patch: &Value) -> Result<(), Failed> {
        let params = as_ourselves();
        let patch = Patch::Merge(patch);
        self.gate.call(term, || self.claims.patch(name, &params, &patch)).await.map(|_| ())
    }

    async fn delete(&self, name: &str, term: u64) -> Result<(), Failed> {
        let params = DeleteParams::default();
        self.gate.insist(term, || self.claims.delete(name, &params)).await.map(|_| ())
    }

    async fn delete_instance(&self, name: &Arc<str>, term: u64) -> Result<(), Failed> {
        loop {
            if !self.gate.admits(term) {
                return Err(Failed::NotLeading);
            }
            match self.cloud.delete(name).await {
                Ok(()) => break,
                Err(error) => {
                    let object = ObjectRef::cluster("NodeClaim", name);
                    self.told.warn(
                        &object,
                        "FailedTermination",
                        format!("the VM is not deleted yet: {error}"),
                    );
                    tokio::time::sleep(self.patience.pause).await;
                }
            }
        }
        let _ = self.answers.send(Event::InstanceGone { claim: Arc::clone(name) }).await;
        Ok(())
    }

    /// Deletes a node and takes our finalizer off it.
    async fn release_node(&self, name: &str, term: u64) -> Result<(), Failed> {
        let params = DeleteParams::default();
        match self.gate.insist(term, || self.nodes.delete(name, &params)).await {
            Ok(_) => {}
            Err(Failed::Gone) => return Ok(()),
            Err(failed) => return Err(failed),
        }
        loop {
            let node = match self.gate.call(term, || self.nodes.get_metadata(name)).await {
                Ok(node) => node,
                Err(Failed::Gone) => return Ok(()),
                Err(failed) => return Err(failed),
            };
            let Some(patch) = without_finalizer(&node.metadata) else { return Ok(()) };
            let (patch, params) = (Patch::Merge(patch), as_ourselves());
            match self.gate.call(term, || self.nodes.patch_metadata(name, &params, &patch)).await {
                Ok(_) | Err(Failed::Gone) => return Ok(()),
                Err(Failed::Conflict) => {}
                Err(failed) => return Err(failed),
            }
        }
    }

    async fn drop_finalizer(&self, name: &str, term: u64) -> Result<(), Failed> {
        loop {
            let claim = match self.gate.call(term, || self.claims.get_metadata(name)).await {
                Ok(claim) => claim,
                Err(Failed::Gone) => return Ok(()),
                Err(failed) => return Err(failed),
            };
            let Some(patch) = without_finalizer(&claim.metadata) else { return Ok(()) };
            match self.merge(name, term, &patch).await {
                Ok(()) | Err(Failed::Gone) => return Ok(()),
                Err(Failed::Conflict) => {}
                Err(failed) => return Err(failed),
            }
        }
    }
}

/// A patch that takes our finalizer off; `None` where it is not there.
fn without_finalizer(metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> Option<Value> {
    let there = metadata.finalizers.as_deref().unwrap_or_default();
    let kept: Vec<&String> =
        there.iter().filter(|finalizer| *finalizer != names::TERMINATION_FINALIZER).collect();
    (kept.len() < there.len())
        .then(|| json!({"metadata": {"resourceVersion": metadata.resource_version, "finalizers": kept}}))
}

/// Sets a condition; whether it changed.
fn set(known: &mut BTreeMap<String, Value>, condition: &Condition, now: &str) -> bool {
    let status = match condition.status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    };
    let before = known.get(condition.condition_type);
    let kept =
        before.filter(|before| before["status"] == status).map(|before| before["lastTransitionTime"].clone());
    let one = json!({
        "type": condition.condition_type,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": kept.unwrap_or_else(|| json!(now)),
    });
    if before == Some(&one) {
        return false;
    }
    known.insert(condition.condition_type.to_owned(), one);
    true
}

/// The condition over the three that make a claim ready.
fn ready(known: &BTreeMap<String, Value>) -> Condition {
    let missing = ["Launched", "Registered", "Initialized"]
        .into_iter()
        .find(|name| known.get(*name).is_none_or(|condition| condition["status"] != "True"));
    let (status, reason, message) = match missing {
        None => (ConditionStatus::True, "Ready", String::new()),
        Some(name) => (ConditionStatus::Unknown, "AwaitingReconciliation", format!("{name} is not true yet")),
    };
    Condition { condition_type: "Ready", status, reason, message }
}

/// The object of a claim, as it is made.
fn manifest(claim: &NodeClaim, owner: Option<&str>) -> Value {
    let mut labels = claim.labels.clone();
    // The choice, on record before anything is bought.
    labels.insert(kubernetes::INSTANCE_TYPE.to_owned(), claim.instance_type.to_string());
    labels.insert(kubernetes::ZONE.to_owned(), claim.zone.to_string());
    labels.insert(karpenter::CAPACITY_TYPE.to_owned(), claim.capacity_type.as_str().to_owned());
    let mut annotations = claim.annotations.clone();
    if let Some(hash) = &claim.template_hash {
        annotations.insert(karpenter::NODEPOOL_HASH.to_owned(), hash.clone());
        annotations.insert(karpenter::NODEPOOL_HASH_VERSION.to_owned(), hash::NODE_POOL_VERSION.to_owned());
    }
    if let Some(hash) = &claim.class_hash {
        annotations.insert(azure::AKS_NODE_CLASS_HASH.to_owned(), hash.clone());
        annotations
            .insert(azure::AKS_NODE_CLASS_HASH_VERSION.to_owned(), hash::AKS_NODE_CLASS_VERSION.to_owned());
    }
    let requirements = claim.requirements.iter().flat_map(|(key, set)| set.to_requirements(key));
    let requirements: Vec<Value> = requirements.map(|one| requirement(&one)).collect();
    let taints = |taints: &[assay_core::model::Taint]| -> Vec<Value> {
        let one = |taint: &assay_core::model::Taint| {
            let mut one = json!({"key": taint.key, "effect": taint.effect});
            if !taint.value.is_empty() {
                one["value"] = json!(taint.value);
            }
            one
        };
        taints.iter().map(one).collect()
    };
    let mut spec = json!({
        "nodeClassRef": {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": claim.node_class},
        "requirements": requirements,
        "resources": {"requests": quantities(&claim.requests)},
    });
    for (field, list) in [("taints", &claim.taints), ("startupTaints", &claim.startup_taints)] {
        if !list.is_empty() {
            spec[field] = json!(taints(list));
        }
    }
    if let Some(period) = claim.termination_grace_period {
        spec["terminationGracePeriod"] = json!(format!("{}s", period.as_secs()));
    }
    let mut metadata = json!({
        "name": claim.name,
        "labels": labels,
        "annotations": annotations,
        "finalizers": [names::TERMINATION_FINALIZER],
    });
    if let Some(uid) = owner {
        metadata["ownerReferences"] = json!([{
            "apiVersion": "karpenter.sh/v1", "kind": "NodePool", "name": claim.pool, "uid": uid,
            "blockOwnerDeletion": true,
        }]);
    }
    json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": metadata, "spec": spec})
}

fn requirement(requirement: &Requirement) -> Value {
    let mut one = json!({"key": requirement.key, "operator": requirement.operator});
    if !requirement.values.is_empty() {
        let values: Vec<&String> = requirement.values.iter().take(TYPES_LISTED).collect();
        one["values"] = json!(values);
    }
    one
}

/// A time as annotations have it.
pub(super) fn rfc3339(at: Timestamp) -> String {
    kinds::time(at).0.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        assert_eq!(rfc3339(Timestamp(1_790_000_000_500)), "2026-09-21T14:13:20.5Z");
    }
}
