//! Machines made from another template than their pool has now, or from a class that says something else now: replaced within the
//! pool's budgets, empty ones first, then one at a time, oldest drift first, and only where all their pods have somewhere to go.

use std::sync::Arc;
use std::time::Duration;

use super::{Condition, ConditionStatus, Engine, EventKind, LeaveReason};
use crate::model::{ClaimState, Timestamp};

/// A machine whose pods have nowhere to go is looked at again after this.
const RETRY: Duration = Duration::from_secs(60);
/// The same where room came free since. A look is a whole plan, so each that was in vain doubles it.
const RETRY_WITH_ROOM: Duration = Duration::from_secs(5);

/// A drifted machine whose pods had no other place.
#[derive(Debug)]
pub(super) struct Blocked {
    /// When that was found.
    tried: Timestamp,
    /// How often room had come free by then.
    room_freed: u64,
    /// How soon it is looked at again where room came free.
    patience: Duration,
}

impl Engine {
    /// Decides on drifted machines.
    pub(super) fn replace_drifted(&mut self, now: Timestamp) {
        self.mark_drifted(now);
        self.sort_out();
        let drifted = self.listed(&self.roll.drifted).filter_map(|(claim, machine)| {
            let steady = machine.claim.state == ClaimState::Initialized && !machine.is_leaving();
            Some((machine.drifted_since.filter(|_| steady)?, Arc::clone(claim)))
        });
        let mut drifted: Vec<_> = drifted.collect();
        if drifted.is_empty() {
            return;
        }
        drifted.sort();
        for (_, claim) in &drifted {
            if self.is_empty(claim) && self.may_go(now, claim) {
                self.end(now, claim, LeaveReason::Drifted, false);
                self.sort_out();
            }
        }
        // Places are looked for while nothing else waits for a plan, and for one machine at a time.
        if self.batch.is_some() {
            return;
        }
        for (_, claim) in drifted {
            if let Some(later) = self.drift_retry(&claim).filter(|later| *later > now) {
                self.wake(later);
            } else if !self.one_is_leaving(&claim) && self.may_go(now, &claim) {
                if self.pods_could_move(now, &claim) {
                    self.leave(now, &claim, LeaveReason::Drifted);
                } else {
                    self.drift_is_blocked(now, &claim, "its pods have nowhere else to go");
                }
                self.wake(now);
                return;
            }
        }
    }

    /// Notes which machines have another template than their pool, or another class than there is now.
    fn mark_drifted(&mut self, now: Timestamp) {
        let mut changed = Vec::new();
        self.sort_out();
        let to_compare = std::mem::take(&mut self.roll.to_compare);
        for name in &to_compare {
            let Some(machine) = self.machines.get(name) else { continue };
            let claim = &machine.claim;
            let pool = self.pools.get(&claim.pool).and_then(|pool| pool.template_hash.as_ref());
            let class = self.classes.get(&claim.node_class).and_then(|class| class.hash.as_ref());
            let drift = if differ(pool, claim.template_hash.as_ref()) {
                Some(("NodePoolDrifted", "its pool's template has changed"))
            } else if differ(class, claim.class_hash.as_ref()) {
                Some(("NodeClassDrift", "its node class has changed"))
            } else {
                None
            };
            if drift.is_some() != machine.drifted_since.is_some() {
                changed.push((Arc::clone(name), drift));
            }
        }
        for (claim, drift) in changed {
            if let Some(machine) = self.machines.get_mut(&claim) {
                machine.drifted_since = drift.is_some().then_some(now);
            }
            let condition = match drift {
                Some((reason, message)) => {
                    Condition { reason, ..Condition::holds("Drifted", message.to_owned()) }
                }
                None => Condition {
                    condition_type: "Drifted",
                    status: ConditionStatus::False,
                    reason: "NotDrifted",
                    message: "its pool's template and its node class are those it was made from".to_owned(),
                },
            };
            self.set_claim_condition(&claim, condition);
            if drift.is_none() {
                self.drift_blocked.remove(&claim);
                if self.machines.get(&claim).and_then(|machine| machine.leaving) == Some(LeaveReason::Drifted)
                {
                    self.call_off(now, &claim, "what it was made from is as it was again");
                }
            }
        }
    }

    /// Whether budgets and annotations let a machine go for its drift now. After `sort_out`.
    fn may_go(&self, now: Timestamp, claim: &Arc<str>) -> bool {
        let Some(machine) = self.machines.get(claim) else { return false };
        let Some(pool) = self.pools.get(&machine.claim.pool) else { return false };
        let budget = |engine: &Self| engine.allowed(pool, LeaveReason::Drifted, true, claim) > 0;
        if machine.is_leaving() || self.nominations.count_on(claim) > 0 || !budget(self) {
            return false;
        }
        // A limit on draining overrules what holds pods, as with Karpenter.
        match machine.claim.termination_grace_period {
            None => self.blocker(claim, now).is_none(),
            Some(_) => {
                self.node_of(claim).is_none_or(|node| crate::disrupt::blocker(node, [], now).is_none())
            }
        }
    }

    fn is_empty(&self, claim: &Arc<str>) -> bool {
        self.node_of(claim).is_some_and(|node| self.pods.reschedulable_on(&node.name) == 0)
    }

    /// Whether a machine of the same pool is on its way out for its drift.
    fn one_is_leaving(&self, claim: &Arc<str>) -> bool {
        self.machines.get(claim).is_some_and(|machine| self.roll.drifting(&machine.claim.pool) > 0)
    }

    /// Whether all pods of a machine would find another place if it left: it is told as leaving, and that it stays after that.
    fn pods_could_move(&mut self, now: Timestamp, claim: &Arc<str>) -> bool {
        let pretend = |engine: &mut Self, leaving| {
            if let Some(machine) = engine.machines.get_mut(claim) {
                machine.leaving = leaving;
            }
        };
        pretend(self, Some(LeaveReason::Drifted));
        let (plan, broken) = self.plan(now);
        pretend(self, None);
        self.follow();
        let Some(node) = self.node_of(claim).map(|node| &node.name) else { return false };
        let stranded = plan
            .unschedulable
            .iter()
            .any(|left_out| self.pods.get(&left_out.pod).is_some_and(|pod| pod.node.as_ref() == Some(node)));
        !stranded && broken.is_empty()
    }

    /// A drifted machine cannot be replaced for now; said once.
    pub(super) fn drift_is_blocked(&mut self, now: Timestamp, claim: &Arc<str>, why: &str) {
        let before = self.drift_blocked.get(claim).map(|blocked| blocked.patience);
        let patience = before.map_or(RETRY_WITH_ROOM, |before| (before * 2).min(RETRY));
        let blocked = Blocked { tried: now, room_freed: self.room_freed, patience };
        self.drift_blocked.insert(Arc::clone(claim), blocked);
        if before.is_none() {
            let object = format!("NodeClaim/{claim}");
            self.record_event(object, EventKind::Normal, "DisruptionBlocked", format!("drifted: {why}"));
        }
        self.wake(now + RETRY);
    }

    /// When a machine whose pods had no other place is looked at again.
    fn drift_retry(&self, claim: &Arc<str>) -> Option<Timestamp> {
        let blocked = self.drift_blocked.get(claim)?;
        let is_roomier = blocked.room_freed != self.room_freed;
        Some(blocked.tried + if is_roomier { blocked.patience } else { RETRY })
    }

    /// What stood in the way of some drifted machines has changed: they are looked at again soon.
    pub(super) fn drift_may_go_on(&mut self, concerns: impl Fn(&Self, &str) -> bool) {
        let claims: Vec<_> =
            self.drift_blocked.keys().filter(|claim| concerns(self, claim)).cloned().collect();
        for claim in claims {
            let Some(blocked) = self.drift_blocked.get_mut(&claim) else { continue };
            blocked.patience = RETRY_WITH_ROOM;
            blocked.room_freed = u64::MAX;
            let at = blocked.tried + RETRY_WITH_ROOM;
            self.wake(at);
        }
    }

    /// The same for the machine behind a node.
    pub(super) fn drift_may_go_on_at(&mut self, node: &str) {
        if !self.drift_blocked.is_empty() {
            self.drift_may_go_on(|engine, claim| engine.claim_on(node).is_some_and(|own| *own == *claim));
        }
    }

    /// Pods may find a place where there was none.
    pub(super) fn room_is_free(&mut self) {
        self.room_freed += 1;
        let due = self.drift_blocked.values().map(|blocked| blocked.tried + blocked.patience).min();
        if let Some(due) = due {
            self.wake(due);
        }
    }
}

/// Whether two hashes are both known, and not the same.
fn differ(now: Option<&String>, own: Option<&String>) -> bool {
    matches!((now, own), (Some(now), Some(own)) if now != own)
}
