//! What we write to Nodes: labels and conditions that are ours, by server-side apply; taints, with the version they were read
//! at.
//!
//! An apply names every field that we own: one that it leaves out goes. What we own is therefore read from the Node's
//! `managedFields` once, and remembered. A label that somebody else owns is left to them and told of, with one exception:
//! what the kubelet said of itself when it registered (`--node-labels`, made from the catalogue) is what refinement exists to
//! correct, and is taken over once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_core::engine::{Condition, ConditionStatus};
use assay_core::model::{Labels, Taint, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, Time};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, Error};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::gate::{Failed, Gate};
use super::told::Told;
use super::{FIELD_MANAGER, ObjectRef, as_ourselves};
use crate::kube::api::{conditions as kinds, names};

/// Whose registration of a node we correct.
const KUBELET: &str = "kubelet";
/// A Node changes all the time; a change of a list is tried again so often.
const CHANGE_TRIES: usize = 20;

/// One thing to do to a node.
#[derive(Debug, Clone)]
pub(super) enum NodeJob {
    /// Set labels.
    Label(Labels),
    /// Put a taint on.
    Taint(Taint),
    /// Take a taint off, by key and effect.
    Untaint(Taint),
    /// Set a condition.
    Condition { at: Timestamp, condition: Condition },
    /// Tie it to its claim: our finalizer, its owner, annotations.
    Adopt { claim: Arc<str>, annotations: Labels },
    /// The node is gone: forget it.
    Forget,
}

/// What is remembered of a node.
#[derive(Debug, Default)]
pub(super) struct NodeMemory {
    /// What we own of it; unknown until it was read.
    owned: Option<Owned>,
    /// Labels that others own, told of already.
    left: BTreeSet<String>,
}

impl NodeMemory {
    pub(super) const fn is_over(&self) -> bool {
        self.owned.is_none()
    }
}

#[derive(Debug, Default)]
struct Owned {
    labels: Labels,
    conditions: BTreeMap<String, NodeCondition>,
}

/// Writes nodes.
#[derive(Debug)]
pub(super) struct NodeWriter {
    nodes: Api<Node>,
    claims: Api<DynamicObject>,
    gate: Gate,
    told: Arc<Told>,
}

impl NodeWriter {
    pub(super) fn new(client: Client, gate: Gate, told: Arc<Told>) -> Self {
        let claim = ApiResource::from_gvk(&GroupVersionKind::gvk("karpenter.sh", "v1", "NodeClaim"));
        Self { nodes: Api::all(client.clone()), claims: Api::all_with(client, &claim), gate, told }
    }

    /// Does all jobs of one node.
    pub(super) async fn run(&self, name: &str, memory: &mut NodeMemory, term: u64, jobs: Vec<NodeJob>) {
        if jobs.iter().any(|job| matches!(job, NodeJob::Forget)) {
            *memory = NodeMemory::default();
            return;
        }
        match self.write(name, memory, term, jobs).await {
            Ok(()) | Err(Failed::NotLeading) => {}
            // Its machine goes too, which the engine hears from the watch.
            Err(Failed::Gone) => *memory = NodeMemory::default(),
            Err(Failed::Refused(why)) => self.told.not_written(&ObjectRef::node(name), why),
            Err(failed) => warn!(node = name, ?failed, "node not written"),
        }
    }

    async fn write(
        &self,
        name: &str,
        memory: &mut NodeMemory,
        term: u64,
        jobs: Vec<NodeJob>,
    ) -> Result<(), Failed> {
        let mut read = None;
        if memory.owned.is_none() {
            let node = self.gate.call(term, || self.nodes.get(name)).await?;
            memory.owned = Some(owned_of(&node));
            read = Some(node);
        }
        let mut changes: Vec<(Taint, bool)> = Vec::new();
        let (mut labels, mut conditions, mut adopted) = (Labels::new(), Vec::new(), None);
        for job in jobs {
            match job {
                NodeJob::Label(more) => labels.extend(more),
                NodeJob::Condition { at, condition } => conditions.push((at, condition)),
                NodeJob::Taint(taint) => changes.push((taint, true)),
                NodeJob::Untaint(taint) => changes.push((taint, false)),
                NodeJob::Adopt { claim, annotations } => adopted = Some((claim, annotations)),
                NodeJob::Forget => {}
            }
        }
        if !(labels.is_empty() && conditions.is_empty()) {
            // It will have another version.
            read = None;
        }
        // Labels before taints come off: what is let onto the node may ask for them.
        self.apply_labels(name, memory, term, labels).await?;
        self.apply_conditions(name, memory, term, conditions).await?;
        self.change(name, term, read, adopted, &changes).await
    }

    async fn apply_labels(
        &self,
        name: &str,
        memory: &mut NodeMemory,
        term: u64,
        mut labels: Labels,
    ) -> Result<(), Failed> {
        let Some(owned) = memory.owned.as_mut() else { return Ok(()) };
        labels.retain(|key, value| !memory.left.contains(key) && owned.labels.get(key) != Some(value));
        // One conflict may hide another; each round takes at least one label out or over.
        while !labels.is_empty() {
            let mut all = owned.labels.clone();
            all.extend(labels.clone());
            let Some(conflicts) = self.apply(name, term, &all, false).await? else {
                owned.labels = all;
                return Ok(());
            };
            let (ours, theirs): (Vec<_>, Vec<_>) =
                conflicts.into_iter().partition(|conflict| conflict.manager == KUBELET);
            for Conflict { key, manager } in theirs {
                let told = format!(
                    "label {key} belongs to {manager} and is left as it is; measured: {}",
                    labels[&key]
                );
                self.told.warn(&ObjectRef::node(name), "LabelConflict", told);
                labels.remove(&key);
                memory.left.insert(key);
            }
            if !ours.is_empty() {
                // The kubelet does not set them again until it restarts, and then it is heard.
                let taken: Labels =
                    ours.iter().filter_map(|conflict| labels.remove_entry(&conflict.key)).collect();
                let mut all = owned.labels.clone();
                all.extend(taken.clone());
                info!(node = name, labels = ?taken.keys().collect::<Vec<_>>(), "corrected what the kubelet registered");
                self.apply(name, term, &all, true).await?;
                owned.labels = all;
            }
        }
        Ok(())
    }

    /// Applies all labels of ours; the conflicts where there are any.
    async fn apply(
        &self,
        name: &str,
        term: u64,
        labels: &Labels,
        force: bool,
    ) -> Result<Option<Vec<Conflict>>, Failed> {
        let patch = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels},
        });
        let params = PatchParams { force, ..PatchParams::apply(FIELD_MANAGER) };
        let attempt = || async {
            match self.nodes.patch_metadata(name, &params, &Patch::Apply(&patch)).await {
                Ok(_) => Ok(None),
                Err(Error::Api(status)) if status.code == 409 => {
                    let causes = status.details.iter().flat_map(|details| &details.causes);
                    let conflicts = causes.filter_map(|cause| conflict_of(&cause.field, &cause.message));
                    let conflicts: Vec<_> = conflicts.filter(|one| labels.contains_key(&one.key)).collect();
                    if conflicts.is_empty() { Err(Error::Api(status)) } else { Ok(Some(conflicts)) }
                }
                Err(error) => Err(error),
            }
        };
        self.gate.insist(term, attempt).await
    }

    async fn apply_conditions(
        &self,
        name: &str,
        memory: &mut NodeMemory,
        term: u64,
        conditions: Vec<(Timestamp, Condition)>,
    ) -> Result<(), Failed> {
        let Some(owned) = memory.owned.as_mut() else { return Ok(()) };
        let mut changed = false;
        for (at, condition) in conditions {
            changed |= set_condition(&mut owned.conditions, &condition, &kinds::time(at));
        }
        if !changed {
            return Ok(());
        }
        let all: Vec<&NodeCondition> = owned.conditions.values().collect();
        let patch = Patch::Apply(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name},
            "status": {"conditions": all},
        }));
        // Our condition types are ours: nobody else is to set them.
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let written = self.gate.insist(term, || self.nodes.patch_status(name, &params, &patch)).await;
        if written.is_err() {
            // What is really there is read anew.
            memory.owned = None;
        }
        written.map(|_| ())
    }

    /// Ties a node to its claim and changes its taints, in one write. `read` is the node as it was just read.
    async fn change(
        &self,
        name: &str,
        term: u64,
        mut read: Option<Node>,
        adopted: Option<(Arc<str>, Labels)>,
        changes: &[(Taint, bool)],
    ) -> Result<(), Failed> {
        if adopted.is_none() && changes.is_empty() {
            return Ok(());
        }
        let adopted = match adopted {
            None => None,
            Some((claim, annotations)) => {
                let object = self.gate.call(term, || self.claims.get_metadata(&claim)).await?;
                let owner = json!({
                    "apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "name": claim, "uid": object.metadata.uid,
                    "blockOwnerDeletion": true,
                });
                Some((owner, annotations))
            }
        };
        for _ in 0..CHANGE_TRIES {
            let node = match read.take() {
                Some(node) => node,
                None => self.gate.call(term, || self.nodes.get(name)).await?,
            };
            let mut patch = json!({});
            if let Some((owner, annotations)) = &adopted {
                patch["metadata"] = tied(&node, owner, annotations);
            }
            let before = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
            let before: Vec<Value> = before.iter().map(|taint| json!(taint)).collect();
            let after = changed_taints(before.clone(), changes);
            if after != before {
                patch["spec"]["taints"] = json!(after);
            } else if adopted.is_none() {
                return Ok(());
            }
            // A list is replaced as a whole: the version makes sure that it is the one that was read.
            patch["metadata"]["resourceVersion"] = json!(node.metadata.resource_version);
            let (patch, params) = (Patch::Merge(patch), as_ourselves());
            match self.gate.call(term, || self.nodes.patch(name, &params, &patch)).await {
                Err(Failed::Conflict) => {}
                done => return done.map(|_| ()),
            }
        }
        Err(Failed::Conflict)
    }
}

/// Metadata of a node that is tied to its claim: our finalizer, its owner, its annotations.
fn tied(node: &Node, owner: &Value, annotations: &Labels) -> Value {
    let mut finalizers = node.metadata.finalizers.clone().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == names::TERMINATION_FINALIZER) {
        finalizers.push(names::TERMINATION_FINALIZER.to_owned());
    }
    let mut owners = json!(node.metadata.owner_references.clone().unwrap_or_default());
    if let Some(owners) = owners.as_array_mut()
        && !owners.iter().any(|one| one["kind"] == "NodeClaim" && one["uid"] == owner["uid"])
    {
        owners.retain(|one| one["kind"] != "NodeClaim");
        owners.push(owner.clone());
    }
    json!({"finalizers": finalizers, "ownerReferences": owners, "annotations": annotations})
}

/// A label that another manager owns.
#[derive(Debug, PartialEq, Eq)]
struct Conflict {
    key: String,
    manager: String,
}

/// Reads one cause of a refused apply: field `.metadata.labels.<key>`, message `conflict with "<manager>" …`.
fn conflict_of(field: &str, message: &str) -> Option<Conflict> {
    let key = field.strip_prefix(".metadata.labels.")?.to_owned();
    let manager = message.split('"').nth(1).unwrap_or("another manager").to_owned();
    Some(Conflict { key, manager })
}

fn set_condition(known: &mut BTreeMap<String, NodeCondition>, condition: &Condition, now: &Time) -> bool {
    let status = match condition.status {
        ConditionStatus::True => "True",
        ConditionStatus::False => "False",
        ConditionStatus::Unknown => "Unknown",
    };
    let before = known.get(condition.condition_type);
    let since = before
        .filter(|before| before.status == status)
        .and_then(|before| before.last_transition_time.clone());
    let same = before.is_some_and(|before| {
        before.status == status
            && before.reason.as_deref() == Some(condition.reason)
            && before.message.as_deref() == Some(&condition.message)
    });
    if !same {
        let set = NodeCondition {
            type_: condition.condition_type.to_owned(),
            status: status.to_owned(),
            reason: Some(condition.reason.to_owned()),
            message: Some(condition.message.clone()),
            last_heartbeat_time: Some(now.clone()),
            last_transition_time: Some(since.unwrap_or_else(|| now.clone())),
        };
        known.insert(condition.condition_type.to_owned(), set);
    }
    !same
}

fn changed_taints(mut taints: Vec<Value>, changes: &[(Taint, bool)]) -> Vec<Value> {
    for (taint, wanted) in changes {
        let effect = json!(taint.effect);
        let is_it = |one: &Value| one["key"] == *taint.key && one["effect"] == effect;
        let there = taints.iter().position(is_it);
        match (there, wanted) {
            (None, true) => {
                let mut one = json!({"key": taint.key, "effect": effect});
                if !taint.value.is_empty() {
                    one["value"] = json!(taint.value);
                }
                taints.push(one);
            }
            (Some(index), true) => {
                if !taint.value.is_empty() && taints[index]["value"] != *taint.value {
                    taints[index]["value"] = json!(taint.value);
                }
            }
            (Some(index), false) => {
                taints.remove(index);
            }
            (None, false) => {}
        }
    }
    taints
}

/// What earlier runs of ours own of a node.
fn owned_of(node: &Node) -> Owned {
    let fields = node.metadata.managed_fields.as_deref().unwrap_or_default();
    let ours = |entry: &&ManagedFieldsEntry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
    };
    let mut owned = Owned::default();
    let labels = node.metadata.labels.as_ref();
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    for entry in fields.iter().filter(ours) {
        let Some(fields) = &entry.fields_v1 else { continue };
        let keys = fields.0["f:metadata"]["f:labels"].as_object();
        for key in keys.into_iter().flatten().filter_map(|(key, _)| key.strip_prefix("f:")) {
            if let Some(value) = labels.and_then(|labels| labels.get(key)) {
                owned.labels.insert(key.to_owned(), value.clone());
            }
        }
        let keys = fields.0["f:status"]["f:conditions"].as_object();
        for condition in conditions {
            let key = format!("k:{{\"type\":\"{}\"}}", condition.type_);
            if keys.is_some_and(|keys| keys.contains_key(&key)) {
                owned.conditions.insert(condition.type_.clone(), condition.clone());
            }
        }
    }
    owned
}

#[cfg(test)]
mod tests {
    use assay_core::model::TaintEffect;

    use super::*;

    fn taint(key: &str, value: &str) -> Taint {
        Taint { key: key.to_owned(), value: value.to_owned(), effect: TaintEffect::NoSchedule }
    }

    #[test]
    fn taints_of_others_stay_as_they_are() {
        let before = vec![
            json!({"key": "theirs", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}),
            json!({"key": "a", "effect": "NoSchedule"}),
        ];
        let changes = [(taint("a", ""), false), (taint("b", "x"), true), (taint("theirs", ""), false)];
        let after = changed_taints(before.clone(), &changes);
        assert_eq!(after[0], before[0], "another effect is another taint");
        assert_eq!(after[1..], [json!({"key": "b", "effect": "NoSchedule", "value": "x"})]);
        let again = changed_taints(after.clone(), &changes);
        assert_eq!(again, after, "the same changes twice are the same as once");
    }

    #[test]
    fn the_causes_of_a_conflict_name_label_and_manager() {
        let conflict = conflict_of(
            ".metadata.labels.karpenter.azure.com/sku-memory",
            "conflict with \"kubelet\" using v1",
        );
        let expected =
            Conflict { key: "karpenter.azure.com/sku-memory".to_owned(), manager: "kubelet".to_owned() };
        assert_eq!(conflict, Some(expected));
        assert_eq!(conflict_of(".spec.taints", "conflict with \"x\""), None);
    }

    #[test]
    fn what_an_earlier_run_owns_is_read_from_the_node() {
        let node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": "n",
                "labels": {"hardware.assay.dev/cpu-isa": "v4", "theirs": "x"},
                "managedFields": [
                    {"manager": "kubelet", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {"f:theirs": {}}}}},
                    {"manager": FIELD_MANAGER, "operation": "Apply",
                     "fieldsV1": {"f:metadata": {"f:labels": {"f:hardware.assay.dev/cpu-isa": {}, "f:gone": {}}}}},
                    {"manager": FIELD_MANAGER, "operation": "Apply", "subresource": "status",
                     "fieldsV1": {"f:status": {"f:conditions": {"k:{\"type\":\"GPUsPresent\"}": {".": {}}}}}},
                ],
            },
            "status": {"conditions": [
                {"type": "Ready", "status": "True"}, {"type": "GPUsPresent", "status": "True"},
            ]},
        }))
        .unwrap();
        let owned = owned_of(&node);
        assert_eq!(owned.labels.keys().collect::<Vec<_>>(), ["hardware.assay.dev/cpu-isa"]);
        assert_eq!(owned.conditions.keys().collect::<Vec<_>>(), ["GPUsPresent"]);
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_last_transition() {
        let mut known = BTreeMap::new();
        let at = |second: u64| kinds::time(Timestamp(second * 1_000));
        let mut condition = Condition {
            condition_type: "HardwareMatchesClaim",
            status: ConditionStatus::True,
            reason: "Verified",
            message: "as bought".to_owned(),
        };
        assert!(set_condition(&mut known, &condition, &at(1)));
        assert!(!set_condition(&mut known, &condition, &at(2)), "nothing changed");
        condition.message = "still as bought".to_owned();
        assert!(set_condition(&mut known, &condition, &at(3)));
        assert_eq!(known["HardwareMatchesClaim"].last_transition_time, Some(at(1)));
        condition.status = ConditionStatus::False;
        assert!(set_condition(&mut known, &condition, &at(4)));
        assert_eq!(known["HardwareMatchesClaim"].last_transition_time, Some(at(4)));
    }
}
