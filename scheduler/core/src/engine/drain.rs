//! Getting the pods off an ending machine: in four tiers through the Eviction API, and by deletion where its time is up.
//!
//! A pod that must run elsewhere is evicted once the place it was planned for is ready. Only force breaks that: a deadline
//! (the cloud takes the machine back, or `terminationGracePeriod` is over), and somebody who deleted the machine although
//! there is no place for the pod.

use std::sync::Arc;
use std::time::Duration;

use super::termination::disrupted_taint;
use super::{Effect, Engine, EventKind, EvictionAnswer};
use crate::disrupt::Protection;
use crate::model::{ClaimState, Pod, PodId, PodOwner, PodPhase, ResourceList, Timestamp};

/// A pod that is still there so long after its end was due is not waited for.
const STUCK: Duration = Duration::from_secs(60);
/// How long the Eviction API and a pod's end may take to be heard of.
const ANSWER: Duration = Duration::from_secs(30);
/// A refused eviction is asked for again after this, then twice as long each time.
const BACKOFF: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// The least a pod is given to end.
const GRACE_MIN: Duration = Duration::from_secs(1);

/// How far the eviction of a pod got.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Eviction {
    refusals: u32,
    /// When it may be asked for next.
    next: Timestamp,
    /// Whether the pod was deleted outright.
    deleted: bool,
}

/// Order in which pods leave: the cluster leans on the later ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tier {
    Ordinary,
    Daemon,
    Critical,
    CriticalDaemon,
}

/// A pod on its way off a node.
#[derive(Debug)]
struct Leaver {
    id: PodId,
    tier: Tier,
    grace: Duration,
    ends: Option<Timestamp>,
    protection: Option<Protection>,
    needs_place: bool,
}

/// Whether draining a node is about this pod at all: one that has ended is no matter, the kubelet's own and those that
/// tolerate Karpenter's taint stay to the end, and one that does not end is given up.
pub(super) fn is_drainable(pod: &Pod, now: Timestamp) -> bool {
    let stuck = pod.terminating.is_some_and(|due| now > due + STUCK);
    let tolerates = pod.spec.tolerations.iter().any(|toleration| toleration.tolerates(&disrupted_taint()));
    pod.phase != PodPhase::Finished && pod.owner != PodOwner::Node && !tolerates && !stuck
}

impl Leaver {
    fn of(pod: &Pod, now: Timestamp) -> Self {
        let tier = match (pod.is_critical(), pod.owner == PodOwner::DaemonSet) {
            (false, false) => Tier::Ordinary,
            (false, true) => Tier::Daemon,
            (true, false) => Tier::Critical,
            (true, true) => Tier::CriticalDaemon,
        };
        Self {
            id: pod.id.clone(),
            tier,
            grace: pod.termination_grace,
            ends: pod.terminating,
            protection: Protection::of(pod, now),
            needs_place: pod.is_reschedulable(),
        }
    }
}

impl Engine {
    /// Moves the draining of a node on; whether none of its pods is waited for any more.
    pub(super) fn drain(&mut self, now: Timestamp, claim: &Arc<str>, node: &Arc<str>) -> bool {
        let leavers = self.pods.on(node).filter(|pod| is_drainable(pod, now));
        let leavers: Vec<Leaver> = leavers.map(|pod| Leaver::of(pod, now)).collect();
        let Some(tier) = leavers.iter().map(|pod| pod.tier).min() else { return true };
        let deadline = self.machines.get(claim).and_then(super::Machine::deadline);
        let wished = self.machines.get(claim).and_then(|m| m.leaving).is_some_and(|why| why.is_a_wish());
        for pod in leavers {
            if let Some(ends) = pod.ends {
                self.wake(ends + STUCK + Duration::from_millis(1));
            }
            if deadline.is_some_and(|deadline| self.delete_in_time(now, &pod, node, deadline)) {
                continue;
            }
            if pod.tier != tier || pod.ends.is_some() {
                continue;
            }
            if let Some(protection) = pod.protection {
                if let Protection::Until(over) = protection {
                    self.recoveries.insert(over);
                    self.wake(over);
                }
                let why =
                    format!("{} is annotated {}", pod.id, assay_shared::labels::karpenter::DO_NOT_DISRUPT);
                self.tell_refusal(claim, node, &why);
                continue;
            }
            let no_place_at_all = wished && self.placeless.contains(&pod.id);
            if pod.needs_place && !no_place_at_all && !self.place_is_ready(&pod.id) {
                continue;
            }
            let eviction = self.evictions.entry(pod.id.clone()).or_default();
            if now >= eviction.next {
                eviction.next = now + ANSWER;
                self.effects.push(Effect::EvictPod { pod: pod.id.clone(), node: Arc::clone(node) });
            }
            let next = eviction.next;
            self.wake(next);
        }
        false
    }

    /// Deletes a pod whose own grace would not end before the deadline otherwise; whether it did.
    fn delete_in_time(&mut self, now: Timestamp, pod: &Leaver, node: &Arc<str>, deadline: Timestamp) -> bool {
        let grace = u64::try_from(pod.grace.max(GRACE_MIN).as_millis()).unwrap_or(u64::MAX);
        let latest = Timestamp(deadline.0.saturating_sub(grace));
        if pod.ends.is_some_and(|ends| ends <= deadline) {
            return false;
        }
        if now < latest {
            self.wake(latest);
            return false;
        }
        let eviction = self.evictions.entry(pod.id.clone()).or_default();
        if !eviction.deleted || now >= eviction.next {
            *eviction = Eviction { deleted: true, next: now + ANSWER, ..*eviction };
            let grace = deadline.since(now).max(GRACE_MIN).min(pod.grace.max(GRACE_MIN));
            self.effects.push(Effect::DeletePod { pod: pod.id.clone(), node: Arc::clone(node), grace });
            let message = format!("deleted with {} s to end: its node goes", grace.as_secs());
            self.record_event(format!("Pod/{}", pod.id), EventKind::Warning, "Disrupted", message);
            self.wake(now + ANSWER);
        }
        true
    }

    /// The Eviction API answered.
    pub(super) fn eviction_answered(&mut self, now: Timestamp, id: &PodId, answer: EvictionAnswer) {
        let Some(node) = self.pods.get(id).and_then(|pod| pod.node.clone()) else { return };
        match answer {
            EvictionAnswer::Accepted => {
                self.stats.evicted += 1;
                let message = format!("evicted from {node}, which goes");
                self.record_event(format!("Pod/{id}"), EventKind::Normal, "Evicted", message);
            }
            EvictionAnswer::Gone => {}
            EvictionAnswer::Refused { message } => {
                let Some(eviction) = self.evictions.get_mut(id) else { return };
                let wait = BACKOFF.saturating_mul(1 << eviction.refusals.min(10)).min(BACKOFF_MAX);
                eviction.refusals += 1;
                eviction.next = now + wait;
                self.wake(now + wait);
                if let Some(claim) = self.claim_on(&node) {
                    let budgets = self.budgets_of(id);
                    let budgets = if budgets.is_empty() { String::new() } else { format!(" ({budgets})") };
                    self.tell_refusal(&claim, &node, &format!("{id}: {message}{budgets}"));
                }
            }
        }
    }

    /// Disruption budgets that are about a pod, with what they still allow.
    fn budgets_of(&self, id: &PodId) -> String {
        let Some(pod) = self.pods.get(id) else { return String::new() };
        let covering = self.disruption_budgets.values().filter(|budget| budget.covers(pod));
        let told = covering.map(|budget| format!("{} allows {}", budget.id, budget.allowed));
        told.collect::<Vec<_>>().join(", ")
    }

    /// Says what holds the draining of a node up, once.
    fn tell_refusal(&mut self, claim: &Arc<str>, node: &Arc<str>, why: &str) {
        let Some(ending) = self.machines.get_mut(claim).and_then(|machine| machine.ending.as_mut()) else {
            return;
        };
        if !std::mem::replace(&mut ending.refusal_told, true) {
            self.record_event(format!("Node/{node}"), EventKind::Warning, "FailedDraining", why.to_owned());
        }
    }

    /// Whether the place a pod is to move to could take it now. Others may have been quicker.
    pub(super) fn place_is_ready(&self, pod: &PodId) -> bool {
        let Some(target) = self.nominations.get(pod) else { return false };
        let node = match self.machines.get(target) {
            Some(machine) if machine.is_leaving() || machine.claim.state != ClaimState::Initialized => {
                return false;
            }
            Some(machine) => machine.claim.node.as_ref().and_then(|node| self.nodes.get(node)),
            None => self.nodes.get(target),
        };
        let Some(node) = node.filter(|node| node.ready && node.accepts_pods()) else { return false };
        let here = self.pods.on(&node.name).filter(|other| other.uses_node() && other.id != *pod);
        let mut used: ResourceList = here.map(|other| &other.spec.requests).sum();
        if let Some(pod) = self.pods.get(pod) {
            used += &pod.spec.requests;
        }
        used.fits(&node.allocatable)
    }

    /// Whether a node or claim could take all pods that are expected there together.
    pub(super) fn takes_all(&self, target: &str) -> bool {
        let node = self.node_of(target).or_else(|| self.nodes.get(target));
        let Some(node) = node else { return self.machines.contains_key(target) };
        let expected: Vec<&Pod> = self.nominations.on(target).filter_map(|id| self.pods.get(id)).collect();
        let here = self.pods.on(&node.name).filter(|pod| pod.uses_node());
        let others = here.filter(|pod| !expected.iter().any(|one| one.id == pod.id));
        let used: ResourceList = others.chain(expected.iter().copied()).map(|pod| &pod.spec.requests).sum();
        used.fits(&node.allocatable)
    }
}
