//! What the cloud's list of VMs says: VMs that no claim wants, claims whose VM is gone.
//!
//! A list is old by the time it is read. What was made after it was asked for is not judged by it, and a VM that is listed
//! although it is gone is deleted once more, which does nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use assay_shared::labels::karpenter;

use super::{Effect, Engine, EventKind, Instance, Machine};
use crate::model::{ClaimState, Timestamp};

/// A VM without claim is left alone for so long after it was made, as in Karpenter's Azure provider.
const OWNERLESS_GRACE: Duration = Duration::from_secs(5 * 60);

/// The VMs of a list, by name and by the cloud's id.
struct Listed(BTreeSet<String>);

impl Listed {
    fn of(instances: &[Instance]) -> Self {
        let ids = instances.iter().map(|instance| instance.provider_id.to_ascii_lowercase());
        Self(ids.chain(instances.iter().map(|instance| instance.claim.to_string())).collect())
    }

    fn has(&self, claim: &str, provider_id: &str) -> bool {
        self.0.contains(claim) || self.0.contains(&provider_id.to_ascii_lowercase())
    }
}

impl Engine {
    /// The cloud listed its VMs.
    pub(super) fn instances_listed(&mut self, now: Timestamp, asked: Timestamp, instances: &[Instance]) {
        self.delete_ownerless(asked, instances);
        let listed = Listed::of(instances);
        let gone = self.machines.iter().filter(|(claim, machine)| {
            !listed.has(claim, machine.claim.provider_id.as_deref().unwrap_or_default())
                && self.is_gone(machine, asked)
        });
        let gone: Vec<_> = gone.map(|(claim, _)| Arc::clone(claim)).collect();
        for claim in gone {
            self.instance_gone(now, &claim);
        }
        self.release_nodes_without_claim(&listed);
    }

    /// Deletes VMs that nobody has a claim for.
    fn delete_ownerless(&mut self, asked: Timestamp, instances: &[Instance]) {
        let owned: BTreeSet<String> = self
            .machines
            .values()
            .filter_map(|machine| machine.claim.provider_id.as_ref().map(|id| id.to_ascii_lowercase()))
            .collect();
        for instance in instances {
            let has_claim = self.machines.contains_key(&instance.claim)
                || owned.contains(&instance.provider_id.to_ascii_lowercase());
            if !has_claim && asked.since(instance.created) >= OWNERLESS_GRACE {
                self.stats.collected += 1;
                let message = format!("no claim wants {}: it is deleted", instance.provider_id);
                let object = format!("NodeClaim/{}", instance.claim);
                self.record_event(object, EventKind::Warning, "InstanceWithoutClaim", message);
                self.effects.push(Effect::DeleteInstance { claim: Arc::clone(&instance.claim) });
            }
        }
    }

    /// Whether a machine that a list does not have is gone: it must have been there before the list was asked for, and its node
    /// must not say otherwise.
    fn is_gone(&self, machine: &Machine, asked: Timestamp) -> bool {
        let node = machine.claim.node.as_ref().and_then(|node| self.nodes.get(node));
        let alive = node.is_some_and(|node| node.ready);
        let before = machine.launched.is_some_and(|launched| launched < asked) && machine.claim.since < asked;
        match machine.claim.state {
            ClaimState::Pending | ClaimState::Launching | ClaimState::Launched => false,
            ClaimState::Registered | ClaimState::Initialized => before && !alive,
            ClaimState::Terminating => {
                let asked_for = machine.ending.and_then(|ending| ending.instance_asked);
                asked_for.is_some_and(|at| at < asked) || before && !alive
            }
        }
    }

    /// Nodes of ours that are to be deleted and that no claim speaks for any more are held by nothing but our finalizer.
    fn release_nodes_without_claim(&mut self, listed: &Listed) {
        let left = self.nodes.values().filter(|node| {
            node.deleting
                && node.label(karpenter::REGISTERED) == Some("true")
                && !self.claim_by_node.contains_key(&node.name)
                && !self.releasing.values().any(|release| release.is_of(&node.name))
                && !listed.has(&node.name, &node.provider_id)
        });
        let left: Vec<_> = left.map(|node| Arc::clone(&node.name)).collect();
        for node in left {
            self.effects.push(Effect::ReleaseClaim { claim: Arc::clone(&node), node: Some(node) });
        }
    }
}
