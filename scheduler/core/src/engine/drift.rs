//! Machines made from another template than their pool has now: replaced within the pool's budgets, empty ones first, then one
//! at a time, oldest drift first, and only where all their pods have somewhere to go.

use std::sync::Arc;
use std::time::Duration;

use super::{Condition, ConditionStatus, Engine, EventKind, LeaveReason};
use crate::model::{ClaimState, Timestamp};

/// A machine whose pods have nowhere to go is looked at again after this.
const RETRY: Duration = Duration::from_secs(60);

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
            let later = self.drift_retries.get(&claim).copied().filter(|at| *at > now);
            if let Some(later) = later {
                self.wake(later);
            } else if !self.one_is_leaving(&claim) && self.may_go(now, &claim) {
                if self.pods_could_move(now, &claim) {
                    self.leave(now, &claim, LeaveReason::Drifted);
                } else {
                    self.drift_blocked(now, &claim, "its pods have nowhere else to go");
                }
                self.wake(now);
                return;
            }
        }
    }

    /// Notes which machines have another template than their pool.
    fn mark_drifted(&mut self, now: Timestamp) {
        let mut changed = Vec::new();
        self.sort_out();
        let to_compare = std::mem::take(&mut self.roll.to_compare);
        for name in &to_compare {
            let Some(machine) = self.machines.get(name) else { continue };
            let pool = self.pools.get(&machine.claim.pool).and_then(|pool| pool.template_hash.as_ref());
            let own = machine.claim.template_hash.as_ref();
            let drifted = matches!((pool, own), (Some(pool), Some(own)) if pool != own);
            if drifted != machine.drifted_since.is_some() {
                changed.push((Arc::clone(name), drifted));
            }
        }
        for (claim, drifted) in changed {
            if let Some(machine) = self.machines.get_mut(&claim) {
                machine.drifted_since = drifted.then_some(now);
            }
            let condition = if drifted {
                Condition {
                    reason: "NodePoolDrifted",
                    ..Condition::holds("Drifted", "its pool's template has changed".to_owned())
                }
            } else {
                Condition {
                    condition_type: "Drifted",
                    status: ConditionStatus::False,
                    reason: "NotDrifted",
                    message: "its pool's template is the one it was made from".to_owned(),
                }
            };
            self.set_claim_condition(&claim, condition);
            if !drifted {
                self.drift_retries.remove(&claim);
                if self.machines.get(&claim).and_then(|machine| machine.leaving) == Some(LeaveReason::Drifted)
                {
                    self.call_off(now, &claim, "its pool's template is the old one again");
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
    pub(super) fn drift_blocked(&mut self, now: Timestamp, claim: &Arc<str>, why: &str) {
        if self.drift_retries.insert(Arc::clone(claim), now + RETRY).is_none() {
            let object = format!("NodeClaim/{claim}");
            self.record_event(object, EventKind::Normal, "DisruptionBlocked", format!("drifted: {why}"));
        }
        self.wake(now + RETRY);
    }
}
