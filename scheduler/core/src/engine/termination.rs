//! The end of a machine, in Karpenter's order.
//!
//! ```text
//!  decision -> claim's object deleted (on record) -> node closed -> drained -> volumes detached -> VM deleted -> claim let go
//! ```
//!
//! Each step waits for the one before it to have been seen, so that whoever takes over after a crash finds on the objects how
//! far it got. What gets no answer is asked for again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use assay_shared::labels::{karpenter, kubernetes};

use super::claims::REPEAT;
use super::{Condition, ConditionStatus, Effect, Ending, Engine, EventKind, LeaveReason};
use crate::lifecycle::Step;
use crate::model::{Labels, Taint, TaintEffect, Timestamp};

/// From closing a node to deleting its VM, at least: load balancers and kube-scheduler must have noticed.
const MIN_DRAIN: Duration = Duration::from_secs(5);

/// Karpenter's taint on a node that goes.
pub(crate) fn disrupted_taint() -> Taint {
    Taint {
        key: karpenter::DISRUPTED_TAINT.to_owned(),
        value: String::new(),
        effect: TaintEffect::NoSchedule,
    }
}

impl Engine {
    /// Decides that a machine goes now; once that is on record, its pods leave and its VM is deleted. `on_record`: it is.
    pub(super) fn end(&mut self, now: Timestamp, claim: &Arc<str>, reason: LeaveReason, on_record: bool) {
        let Some(machine) = self.machines.get_mut(claim) else { return };
        if machine.is_ending() {
            return;
        }
        // What it was leaving for stays the reason, unless force comes on top.
        let reason = machine.leaving.filter(|_| !reason.is_forced()).unwrap_or(reason);
        machine.leaving = Some(reason);
        machine.ending = Some(Ending { on_record, ..Ending::default() });
        *self.stats.released.entry(reason).or_default() += 1;
        let message = format!("{reason}: {} at {}", machine.claim.instance_type, machine.claim.price);
        self.record_event(format!("NodeClaim/{claim}"), EventKind::Normal, "DisruptionTerminating", message);
        self.step(now, claim, Step::Released);
        self.forget_nominations(now, claim);
        self.set_claim_condition(claim, disruption(reason));
        self.wake(now);
        self.solve_soon(now);
    }

    /// Notes by when the pods of an ending machine are gone whatever holds them.
    pub(super) fn limit_draining(&mut self, claim: &Arc<str>, deleted: Timestamp) {
        let Some(machine) = self.machines.get_mut(claim) else { return };
        let Some(grace) = machine.claim.termination_grace_period else { return };
        if machine.claim.terminate_by.is_some() {
            return;
        }
        let at = deleted + grace;
        machine.claim.terminate_by = Some(at);
        self.effects.push(Effect::SetTerminationDeadline { claim: Arc::clone(claim), at });
        let message =
            format!("whatever holds its pods, they are gone {} s after its deletion", grace.as_secs());
        let object = format!("NodeClaim/{claim}");
        self.record_event(object, EventKind::Warning, "TerminationGracePeriodExpiring", message);
    }

    /// Moves ending machines on.
    pub(super) fn move_ending(&mut self, now: Timestamp) {
        self.sort_out();
        let ending = self.listed(&self.roll.ending).filter_map(|(claim, machine)| {
            let node = machine.claim.node.clone().filter(|node| self.nodes.contains_key(node));
            Some((Arc::clone(claim), node, machine.ending?, machine.deadline()))
        });
        let ending: Vec<_> = ending.collect();
        for (claim, node, state, deadline) in ending {
            let due = |asked: Option<Timestamp>| asked.is_none_or(|asked| now >= asked + REPEAT);
            if !state.on_record {
                if due(state.claim_asked) {
                    self.note_ending(&claim, |ending| ending.claim_asked = Some(now));
                    self.effects.push(Effect::DeleteClaim { claim });
                    self.wake(now + REPEAT);
                }
                continue;
            }
            if let Some(node) = node.filter(|_| state.instance_asked.is_none()) {
                let closed = self.close(now, &claim, &node, state);
                let over = deadline.is_some_and(|deadline| now >= deadline);
                let drained = self.drain(now, &claim, &node) || over;
                let condition = stage(drained, "Drained", "Draining", "its pods leave, tier by tier");
                self.set_claim_condition(&claim, condition);
                if !drained {
                    continue;
                }
                if now < closed + MIN_DRAIN && !over {
                    self.wake(closed + MIN_DRAIN);
                    continue;
                }
                let volumes = if over { BTreeSet::new() } else { self.volumes_of_drained(now, &node) };
                self.tell_volumes(&claim, &node, &volumes, state);
                if !volumes.is_empty() {
                    continue;
                }
            }
            if due(state.instance_asked) {
                self.note_ending(&claim, |ending| ending.instance_asked = Some(now));
                let message = "its VM is being deleted".to_owned();
                self.set_claim_condition(&claim, Condition::holds("InstanceTerminating", message));
                self.effects.push(Effect::DeleteInstance { claim });
                self.wake(now + REPEAT);
            }
        }
    }

    fn note_ending(&mut self, claim: &str, note: impl FnOnce(&mut Ending)) {
        if let Some(ending) = self.machines.get_mut(claim).and_then(|machine| machine.ending.as_mut()) {
            note(ending);
        }
    }

    /// Lets neither new pods nor load balancers onto the node of an ending machine; since when.
    fn close(&mut self, now: Timestamp, claim: &Arc<str>, node: &Arc<str>, state: Ending) -> Timestamp {
        self.taint(node, disrupted_taint());
        let off = (kubernetes::EXCLUDE_FROM_BALANCERS.to_owned(), karpenter::EXCLUDED_BY.to_owned());
        self.set_labels(node, Labels::from([off]));
        if let Some(closed) = state.closed {
            return closed;
        }
        self.note_ending(claim, |ending| ending.closed = Some(now));
        if let Some(deadline) = self.machines.get(claim).and_then(super::Machine::deadline) {
            self.wake(deadline);
        }
        now
    }

    /// Says which volumes are waited for, once, and that none is.
    fn tell_volumes(
        &mut self,
        claim: &Arc<str>,
        node: &Arc<str>,
        volumes: &BTreeSet<Arc<str>>,
        state: Ending,
    ) {
        let detached = volumes.is_empty();
        let message = "volumes of its pods are still attached";
        self.set_claim_condition(
            claim,
            stage(detached, "VolumesDetached", "AwaitingVolumeDetachment", message),
        );
        if !detached && !state.volumes_told {
            self.note_ending(claim, |ending| ending.volumes_told = true);
            let names = volumes.iter().map(|volume| &**volume).collect::<Vec<_>>().join(", ");
            let object = format!("Node/{node}");
            let message = format!("still attached: {names}");
            self.record_event(object, EventKind::Normal, "AwaitingVolumeDetachment", message);
        }
    }

    /// Volumes still attached to a node that none of the pods needs that stay on it to the end.
    fn volumes_of_drained(&self, now: Timestamp, node: &Arc<str>) -> BTreeSet<Arc<str>> {
        let Some(attached) = self.attachments.get(node).filter(|attached| !attached.is_empty()) else {
            return BTreeSet::new();
        };
        let staying = self.pods.on(node).filter(|pod| !super::drain::is_drainable(pod, now));
        let kept: BTreeSet<&Arc<str>> =
            staying.flat_map(|pod| pod.volumes.iter().map(|volume| &volume.id)).collect();
        attached.iter().filter(|volume| !kept.contains(volume)).cloned().collect()
    }
}

/// The condition that says why a machine goes.
pub(super) fn disruption(reason: LeaveReason) -> Condition {
    Condition {
        condition_type: "DisruptionReason",
        status: ConditionStatus::True,
        reason: reason.as_str(),
        message: reason.words().to_owned(),
    }
}

/// A stage of termination: reached, or what it waits for.
fn stage(
    reached: bool,
    condition_type: &'static str,
    waiting: &'static str,
    message: &'static str,
) -> Condition {
    if reached {
        return Condition::holds(condition_type, String::new());
    }
    Condition {
        condition_type,
        status: ConditionStatus::Unknown,
        reason: waiting,
        message: message.to_owned(),
    }
}
