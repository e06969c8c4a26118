//! How machines go: which reasons there are, and what lies between the decision and the end.
//!
//! A machine that goes by our own choice while pods run on it *leaves* first: its pods are expected elsewhere, or planned for as if
//! they were pending. Once every place is ready and a budget allows it, its end begins (`termination`). A machine that goes by
//! force ends at once, and its pods leave one by one as their places get ready. Which ones go is decided in `disruption`; here only
//! of those that never got anywhere, and of those that the cloud takes.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use assay_shared::labels::karpenter;

use super::termination::{disrupted_taint, disruption};
use super::{Condition, ConditionStatus, Engine};
use crate::disrupt::{allowed_disruptions, blocker};
use crate::lifecycle;
use crate::model::{ClaimState, NodePool, PodId, Timestamp};

/// The least notice Azure gives before it takes a machine back.
const PREEMPTION_NOTICE: Duration = Duration::from_secs(30);

/// Why a machine goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeaveReason {
    /// Nobody needs it.
    Empty,
    /// It is not what was bought.
    WrongHardware,
    /// It is not what its pool would make now.
    Drifted,
    /// Its pods can run for less elsewhere.
    Underutilized,
    /// It has been broken for too long.
    Unhealthy,
    /// It is older than its pool allows.
    Expired,
    /// Its pool has more nodes than it should.
    ScaledDown,
    /// The cloud takes it back.
    Preempted,
    /// It took too long to launch, to join, or to be measured.
    Overdue,
    /// Its claim was deleted.
    Deleted,
    /// Its node object was deleted.
    NodeDeleted,
    /// It vanished without our asking.
    Vanished,
}

impl LeaveReason {
    const ALL: [Self; 12] = [
        Self::Empty,
        Self::WrongHardware,
        Self::Drifted,
        Self::Underutilized,
        Self::Unhealthy,
        Self::Expired,
        Self::ScaledDown,
        Self::Preempted,
        Self::Overdue,
        Self::Deleted,
        Self::NodeDeleted,
        Self::Vanished,
    ];

    /// Karpenter's word for it where it has one; the `reason` label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::WrongHardware => "WrongHardware",
            Self::Drifted => "Drifted",
            Self::Underutilized => "Underutilized",
            Self::Unhealthy => "Unhealthy",
            Self::Expired => "Expired",
            Self::ScaledDown => "ScaledDown",
            Self::Preempted => "Preempted",
            Self::Overdue => "Overdue",
            Self::Deleted => "Deleted",
            Self::NodeDeleted => "NodeDeleted",
            Self::Vanished => "Vanished",
        }
    }

    /// The reason of this word.
    pub(super) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == word)
    }

    /// What it means, for people.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Empty => "no pod needs it",
            Self::WrongHardware => "its hardware is not what was bought",
            Self::Drifted => "it is not what its pool would make now",
            Self::Underutilized => "its pods can run for less elsewhere",
            Self::Unhealthy => "it has been broken for too long",
            Self::Expired => "it is older than its pool allows",
            Self::ScaledDown => "its pool has more nodes than it should",
            Self::Preempted => "the cloud takes it back",
            Self::Overdue => "it took too long to get ready",
            Self::Deleted => "its claim was deleted",
            Self::NodeDeleted => "its node was deleted",
            Self::Vanished => "its VM is gone",
        }
    }

    /// Whether it must go whatever the budgets say.
    pub(super) const fn is_forced(self) -> bool {
        self.is_a_wish()
            || matches!(
                self,
                Self::Preempted | Self::Overdue | Self::Vanished | Self::Unhealthy | Self::Expired
            )
    }

    /// Whether somebody asked for it: then it goes although its pods have no other place.
    pub(super) const fn is_a_wish(self) -> bool {
        matches!(self, Self::Deleted | Self::NodeDeleted)
    }
}

impl fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Engine {
    /// Decides that a machine goes; its pods are planned for elsewhere.
    pub(super) fn leave(&mut self, now: Timestamp, claim: &Arc<str>, reason: LeaveReason) {
        let Some(machine) = self.machines.get_mut(claim) else { return };
        if machine.is_leaving() {
            return;
        }
        machine.leaving = Some(reason);
        let node = machine.claim.node.clone();
        if let Some(node) = node {
            self.taint(&node, disrupted_taint());
        }
        self.set_claim_condition(claim, disruption(reason));
        self.forget_nominations(now, claim);
        self.solve_soon(now);
        self.wake(now);
    }

    /// A machine stays after all, as long as its end has not begun.
    pub(super) fn call_off(&mut self, now: Timestamp, claim: &Arc<str>, why: &str) {
        let Some(machine) = self.machines.get_mut(claim).filter(|machine| !machine.is_ending()) else {
            return;
        };
        machine.leaving = None;
        let node = machine.claim.node.clone();
        if let Some(node) = node {
            let here: Vec<PodId> = self.pods.on(&node).map(|pod| pod.id.clone()).collect();
            for pod in here {
                self.nominations.remove(&pod);
            }
            self.untaint(&node, &disrupted_taint());
        }
        let condition = Condition {
            condition_type: "DisruptionReason",
            status: ConditionStatus::False,
            reason: "CalledOff",
            message: why.to_owned(),
        };
        self.set_claim_condition(claim, condition);
        self.solve_soon(now);
        self.wake(now);
    }

    /// What was missing is back before the machine's end began: it stays.
    pub(super) fn stay(&mut self, now: Timestamp, claim: &Arc<str>) {
        if self.machines.get(claim).and_then(|m| m.leaving) == Some(LeaveReason::WrongHardware) {
            self.undo(now, claim, "its hardware is what was bought");
        }
    }

    /// Undoes what an earlier run began with a machine whose end it had not come to: it is looked at anew. What the cloud takes
    /// goes all the same.
    pub(super) fn resume_leaving(&mut self, now: Timestamp, claim: &Arc<str>) {
        let Some(machine) = self.machines.get_mut(claim).filter(|machine| !machine.is_leaving()) else {
            return;
        };
        let decided = machine.claim.disruption_reason.take();
        match decided.as_deref().and_then(LeaveReason::parse) {
            Some(LeaveReason::Preempted) => self.preempted(now, claim, ""),
            _ => {
                let node = machine.claim.node.clone();
                if let Some(node) = node {
                    self.untaint(&node, &disrupted_taint());
                }
                if decided.is_some() {
                    self.call_off(now, claim, "decided by an earlier run; it is looked at anew");
                }
            }
        }
    }

    /// The cloud takes a machine back, not before the moment it names; empty is as soon as it may.
    pub(super) fn preempted(&mut self, now: Timestamp, claim: &Arc<str>, not_before: &str) {
        let at = Timestamp::from_http_date(not_before).unwrap_or(now + PREEMPTION_NOTICE);
        self.taken_back(now, claim, at);
    }

    /// The cloud takes a machine back at a moment.
    pub(super) fn taken_back(&mut self, now: Timestamp, claim: &Arc<str>, at: Timestamp) {
        self.end_by(now, claim, LeaveReason::Preempted, at);
    }

    /// A machine ends, and at `at` its pods are gone whatever holds them.
    pub(super) fn end_by(&mut self, now: Timestamp, claim: &Arc<str>, reason: LeaveReason, at: Timestamp) {
        let Some(machine) = self.machines.get_mut(claim) else { return };
        machine.taken_at = Some(machine.taken_at.map_or(at, |known| known.min(at)));
        self.wake(at);
        self.end(now, claim, reason, false);
    }

    /// Gives back machines that took too long to get anywhere, and those whose node is not to be found.
    pub(super) fn release_overdue(&mut self, now: Timestamp) {
        let over = |since: Timestamp, limit: Duration| now.since(since) >= limit;
        self.sort_out();
        let late: BTreeSet<Arc<str>> = self.roll.starting.union(&self.roll.missing).cloned().collect();
        let overdue = self.listed(&late).filter(|(_, machine)| {
            let claim = &machine.claim;
            // Only Assay insists on a node being ready; who made a claim by hand waits for it himself.
            let limited = claim.state != ClaimState::Registered || !claim.is_standalone();
            let missing =
                machine.missing_since.is_some_and(|since| over(since, lifecycle::REGISTRATION_TIMEOUT));
            let late = lifecycle::deadline(claim.state).is_some_and(|limit| over(claim.since, limit));
            !machine.is_ending() && ((late && limited) || missing)
        });
        // A node that serves pods although it was never found ready is not taken from under them.
        let overdue = overdue.filter(|(_, machine)| {
            machine.claim.node.as_ref().is_none_or(|node| self.pods.reschedulable_on(node) == 0)
        });
        let overdue: Vec<_> = overdue
            .map(|(name, machine)| (Arc::clone(name), machine.claim.pool.clone(), machine.claim.state))
            .collect();
        for (claim, pool, state) in overdue {
            if state <= ClaimState::Launched {
                self.registered(&pool, false);
            }
            self.end(now, &claim, LeaveReason::Overdue, false);
        }
    }

    /// How many more machines of a pool may go for `reason`. Those on their way out and those that are not ready count
    /// already; `leaving` says whether those do that only wait for places. `asking` itself does not count. After `sort_out`.
    pub(super) fn allowed(&self, pool: &NodePool, reason: LeaveReason, leaving: bool, asking: &str) -> u64 {
        let (total, going) = self.roll.going(&pool.name, leaving, asking);
        allowed_disruptions(&pool.disruption.budgets, reason.as_str(), self.now, total, going)
    }

    /// How many nodes of a pool may go now, for each reason that budgets know of and we have.
    pub fn allowed_disruptions(&mut self, pool: &str) -> Vec<(&'static str, u64)> {
        self.sort_out();
        let Some(pool) = self.pools.get(pool) else { return Vec::new() };
        let reasons = [
            LeaveReason::Empty,
            LeaveReason::Drifted,
            LeaveReason::Underutilized,
            LeaveReason::WrongHardware,
        ];
        reasons.map(|reason| (reason.as_str(), self.allowed(pool, reason, true, ""))).to_vec()
    }

    /// Begins the end of leaving machines whose pods all have a place that is ready.
    pub(super) fn settle_leaving(&mut self, now: Timestamp) {
        self.sort_out();
        let leaving = self.listed(&self.roll.leaving).filter_map(|(name, machine)| {
            let reason = machine.leaving.filter(|_| !machine.is_ending())?;
            let served = machine.claim.state == ClaimState::Initialized;
            let patient = machine.claim.termination_grace_period.is_none();
            Some((Arc::clone(name), machine.claim.node.clone(), reason, served, patient))
        });
        let leaving: Vec<_> = leaving.collect();
        for (claim, node, reason, served, patient) in leaving {
            self.sort_out();
            let pods = node.iter().flat_map(|node| self.pods.on(node)).filter(|pod| pod.is_reschedulable());
            let pods: Vec<PodId> = pods.map(|pod| pod.id.clone()).collect();
            if !reason.is_forced() && (served || !pods.is_empty()) {
                // A pool that limits how long draining may take lets nothing hold its machines for ever.
                if patient && self.blocker(&claim, now).is_some() {
                    continue;
                }
                let pool = self.machines.get(&claim).and_then(|machine| self.pools.get(&machine.claim.pool));
                if pool.is_none_or(|pool| self.allowed(pool, reason, false, &claim) == 0) {
                    continue;
                }
            }
            let ready = self.command_is_ready(&claim);
            if ready.unwrap_or_else(|| pods.iter().all(|pod| self.place_is_ready(pod))) {
                self.end(now, &claim, reason, false);
            }
        }
    }

    /// What forbids disrupting a machine now.
    pub(super) fn blocker(&self, claim: &str, now: Timestamp) -> Option<String> {
        let machine = self.machines.get(claim)?;
        let annotated = machine.claim.annotations.get(karpenter::DO_NOT_DISRUPT);
        if annotated.is_some_and(|value| value == "true") {
            return Some(format!("the claim is annotated {}", karpenter::DO_NOT_DISRUPT));
        }
        let node = self.node_of(claim)?;
        blocker(node, self.pods.on(&node.name).filter(|pod| pod.uses_node()), now)
    }
}
