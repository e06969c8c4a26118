//! NodeClaim objects, as an API server keeps them: with conditions, held by a finalizer.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_core::engine::{Condition, ConditionStatus, Event, Machine};
use assay_core::lifecycle;
use assay_core::model::{ClaimState, NodeClaim, Timestamp};

use super::Cluster;

/// A claim's object.
#[derive(Debug, Clone)]
pub(super) struct Object {
    claim: NodeClaim,
    /// Whether each condition is true.
    conditions: BTreeMap<&'static str, bool>,
}

impl Cluster {
    /// Claims by name.
    pub fn claims(&self) -> impl Iterator<Item = &NodeClaim> {
        self.claims.values().map(|object| &object.claim)
    }

    /// A claim.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&NodeClaim> {
        self.claims.get(name).map(|object| &object.claim)
    }

    /// Creates a claim's object, unless it is there.
    pub fn create_claim(&mut self, claim: &NodeClaim) {
        self.claims
            .entry(Arc::clone(&claim.name))
            .or_insert_with(|| Object { claim: claim.clone(), conditions: BTreeMap::new() });
    }

    /// Writes a condition of a claim and what its status says of the machine.
    pub fn record(&mut self, now: Timestamp, name: &str, condition: &Condition, machine: Option<&Machine>) {
        let Some(Object { claim, conditions }) = self.claims.get_mut(name) else { return };
        let holds = condition.status == ConditionStatus::True;
        conditions.insert(condition.condition_type, holds);
        if condition.condition_type == "DisruptionReason" {
            claim.disruption_reason = holds.then(|| condition.reason.to_owned());
        }
        if let Some(known) = machine.map(|machine| &machine.claim) {
            claim.provider_id.clone_from(&known.provider_id);
            claim.node.clone_from(&known.node);
            claim.labels.clone_from(&known.labels);
            claim.instance_type = Arc::clone(&known.instance_type);
            claim.zone = Arc::clone(&known.zone);
            claim.capacity_type = known.capacity_type;
            claim.price = known.price;
        }
        let told =
            |state: ClaimState| state.condition().is_some_and(|name| conditions.get(name) == Some(&true));
        let state = lifecycle::recorded(told, claim.deleting.is_some());
        if state != claim.state {
            claim.state = state;
            claim.since = now;
        }
    }

    /// Notes by when a claim's pods are gone.
    pub fn limit_termination(&mut self, name: &str, at: Timestamp) {
        if let Some(object) = self.claims.get_mut(name) {
            object.claim.terminate_by = Some(at);
        }
    }

    /// Asks for a claim's deletion; its finalizer holds it.
    pub fn delete_claim(&mut self, now: Timestamp, name: &Arc<str>) {
        let Some(Object { claim, .. }) = self.claims.get_mut(name) else {
            self.events.push(Event::ClaimDeleted { claim: Arc::clone(name) });
            return;
        };
        let at = *claim.deleting.get_or_insert(now);
        if claim.state != ClaimState::Terminating {
            claim.state = ClaimState::Terminating;
            claim.since = now;
        }
        self.events.push(Event::ClaimDeleting { claim: Arc::clone(name), at });
    }

    /// Takes the finalizers off a claim and its node, and deletes the node.
    pub fn release_claim(&mut self, now: Timestamp, name: &Arc<str>, node: Option<&str>) {
        if let Some(node) = node {
            self.remove_node(now, node);
        }
        if self.claims.get(name).is_none_or(|object| object.claim.deleting.is_some()) {
            self.claims.remove(name);
            self.events.push(Event::ClaimDeleted { claim: Arc::clone(name) });
        }
    }
}
