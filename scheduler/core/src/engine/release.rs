//! Which machines go, and when: overdue ones, ones with wrong hardware, preempted ones, empty ones.
//!
//! A machine that must go while pods run on it *leaves*: its pods are planned for elsewhere as if they were pending, evicted
//! once the place they were planned for is ready, and only then is the VM deleted.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use assay_shared::labels::karpenter;

use super::{Effect, Engine, EventKind, Machine};
use crate::disrupt::{Candidate, allowed_disruptions, blocker, empty_nodes};
use crate::lifecycle::{self, Step};
use crate::model::{ClaimState, NodePool, Pod, PodId, Taint, TaintEffect, Timestamp};

/// Why a machine goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LeaveReason {
    /// Nobody needs it.
    Empty,
    /// It is not what was bought.
    WrongHardware,
    /// The cloud takes it back.
    Preempted,
    /// It took too long to launch, to join, or to be measured.
    Overdue,
    /// Its node object was deleted.
    NodeDeleted,
    /// It vanished without our asking.
    Vanished,
}

impl LeaveReason {
    /// Karpenter's word for it where it has one; the `reason` label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::WrongHardware => "WrongHardware",
            Self::Preempted => "Preempted",
            Self::Overdue => "Overdue",
            Self::NodeDeleted => "NodeDeleted",
            Self::Vanished => "Vanished",
        }
    }

    /// Whether it must go whatever the budgets say.
    const fn is_forced(self) -> bool {
        matches!(self, Self::Preempted | Self::Overdue | Self::NodeDeleted | Self::Vanished)
    }
}

impl fmt::Display for LeaveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Karpenter's taint on a node that goes.
fn disrupted_taint() -> Taint {
    Taint {
        key: karpenter::DISRUPTED_TAINT.to_owned(),
        value: String::new(),
        effect: TaintEffect::NoSchedule,
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
        self.close(claim);
        self.forget_nominations(now, claim);
        self.solve_soon(now);
        self.wake(now);
    }

    /// Lets nobody new onto a machine.
    fn close(&mut self, claim: &Arc<str>) {
        let taint = disrupted_taint();
        if let Some(node) = self.nodes.get_mut(claim).filter(|node| !node.taints.contains(&taint)) {
            node.taints.push(taint.clone());
            self.effects.push(Effect::TaintNode { node: Arc::clone(claim), taint });
        }
    }

    /// What was missing is back before anybody was asked to leave: the machine stays.
    pub(super) fn stay(&mut self, now: Timestamp, claim: &Arc<str>) {
        let asked = self.pods.values().any(|pod| pod.node.as_ref() == Some(claim) && pod.terminating);
        let Some(machine) = self.machines.get_mut(claim) else { return };
        let going = machine.claim.state == ClaimState::Terminating;
        if going || asked || machine.leaving != Some(LeaveReason::WrongHardware) {
            return;
        }
        machine.leaving = None;
        let here: Vec<PodId> = self.pods_on(claim).map(|pod| pod.id.clone()).collect();
        for pod in here {
            self.nominations.remove(&pod);
        }
        let taint = disrupted_taint();
        if let Some(node) = self.nodes.get_mut(claim) {
            node.taints.retain(|kept| *kept != taint);
        }
        self.effects.push(Effect::UntaintNode { node: Arc::clone(claim), taint });
        self.solve_soon(now);
        self.wake(now);
    }

    /// Gives a machine back now.
    pub(super) fn release(&mut self, now: Timestamp, claim: &str, reason: LeaveReason) {
        let Some((name, machine)) = self.machines.get_key_value(claim) else { return };
        if machine.claim.state == ClaimState::Terminating {
            return;
        }
        let name = Arc::clone(name);
        *self.stats.released.entry(reason).or_default() += 1;
        let message = format!("{reason}: {} at {}", machine.claim.instance_type, machine.claim.price);
        self.record_event(format!("NodeClaim/{name}"), EventKind::Normal, "DisruptionTerminating", message);
        self.step(now, claim, Step::Released);
        self.forget_nominations(now, claim);
        self.close(&name);
        self.effects.push(Effect::DeleteInstance { claim: name });
    }

    /// Gives back machines that took too long to get anywhere.
    pub(super) fn release_overdue(&mut self, now: Timestamp) {
        let overdue = self.machines.iter().filter(|(_, machine)| {
            lifecycle::deadline(machine.claim.state)
                .is_some_and(|deadline| now.since(machine.since) >= deadline)
        });
        // A node that serves pods although it was never found ready is not taken from under them.
        let overdue = overdue.filter(|(name, _)| self.pods_on(name).next().is_none());
        let overdue: Vec<_> = overdue.map(|(name, _)| Arc::clone(name)).collect();
        for name in overdue {
            self.release(now, &name, LeaveReason::Overdue);
        }
    }

    /// Pods on a machine that would have to run elsewhere.
    fn pods_on<'e>(&'e self, claim: &'e str) -> impl Iterator<Item = &'e Pod> {
        let here = |pod: &&Pod| pod.node.as_deref() == Some(claim) && pod.is_reschedulable();
        self.pods.values().filter(here)
    }

    /// Machines of a pool: how many are initialised, and how many of all are on their way out.
    fn disruption_counts(&self, pool: &str) -> (u64, u64) {
        let own = || {
            self.machines
                .values()
                .filter(|machine| machine.claim.pool == pool && machine.claim.node.is_some())
        };
        let total = own().filter(|machine| machine.claim.state >= ClaimState::Initialized).count();
        let going = own().filter(|machine| machine.claim.state == ClaimState::Terminating).count();
        (total as u64, going as u64)
    }

    fn allowed(&self, pool: &NodePool, reason: LeaveReason) -> u64 {
        let (total, going) = self.disruption_counts(&pool.name);
        allowed_disruptions(&pool.disruption.budgets, reason.as_str(), total, going)
    }

    /// Moves leaving machines on: evicts pods whose new place is ready, gives back machines without pods.
    pub(super) fn drain_leaving(&mut self, now: Timestamp) {
        let leaving = self.machines.iter().filter_map(|(name, machine)| {
            let reason = machine.leaving.filter(|_| machine.claim.state != ClaimState::Terminating)?;
            Some((Arc::clone(name), machine.claim.pool.clone(), reason))
        });
        let leaving: Vec<_> = leaving.collect();
        // Pods in the middle of a move count against the budget as their machine does.
        let mut draining: BTreeMap<String, u64> = BTreeMap::new();
        for (name, pool, reason) in leaving {
            let pods: Vec<PodId> = self.pods_on(&name).map(|pod| pod.id.clone()).collect();
            if pods.is_empty() {
                self.release(now, &name, reason);
                continue;
            }
            // A pool that limits how long draining may take lets nothing hold its machines for ever.
            let patient = self.pools.get(&pool).is_none_or(|pool| pool.termination_grace_period.is_none());
            if !reason.is_forced() && patient && self.blocker(&name, now).is_some() {
                continue;
            }
            let going = draining.entry(pool.clone()).or_default();
            let allowed = self.pools.get(&pool).map_or(0, |pool| self.allowed(pool, reason));
            if !reason.is_forced() && *going >= allowed {
                continue;
            }
            *going += 1;
            let places_ready = pods.iter().all(|pod| self.place_is_ready(pod));
            if places_ready {
                for pod in pods {
                    self.nominations.remove(&pod);
                    self.effects.push(Effect::EvictPod { pod, node: Arc::clone(&name) });
                }
            }
        }
    }

    /// What forbids disrupting a machine now.
    fn blocker(&self, claim: &str, now: Timestamp) -> Option<String> {
        let here = self.pods.values().filter(|pod| pod.node.as_deref() == Some(claim) && pod.uses_node());
        blocker(self.nodes.get(claim)?, here, now)
    }

    /// Whether the place a pod is to move to could take it now.
    fn place_is_ready(&self, pod: &PodId) -> bool {
        let Some(target) = self.nominations.get(pod) else { return false };
        let machine_ready = self
            .machines
            .get(target)
            .is_none_or(|machine| machine.claim.state == ClaimState::Initialized && !machine.is_leaving());
        machine_ready && self.nodes.get(target).is_some_and(|node| node.ready && node.accepts_pods())
    }

    /// Gives back machines that nobody needs, as far as policy and budgets allow.
    pub(super) fn release_empty(&mut self, now: Timestamp) {
        let mut needed: BTreeMap<&str, usize> = BTreeMap::new();
        for target in self.nominations.values() {
            *needed.entry(target).or_default() += 1;
        }
        for node in
            self.pods.values().filter(|pod| pod.is_reschedulable()).filter_map(|pod| pod.node.as_deref())
        {
            *needed.entry(node).or_default() += 1;
        }
        let mut due = Vec::new();
        let mut wakeups = Vec::new();
        for pool in self.pools.values() {
            let candidate = |(name, machine): (&Arc<str>, &Machine)| {
                let steady = machine.claim.state == ClaimState::Initialized && !machine.is_leaving();
                (steady && machine.claim.pool == pool.name).then(|| Candidate {
                    claim: Arc::clone(name),
                    needed_by: needed.get(&**name).copied().unwrap_or(0),
                    protected: self.blocker(name, now).is_some(),
                    quiet_since: machine.quiet_since,
                })
            };
            let candidates: Vec<_> = self.machines.iter().filter_map(candidate).collect();
            let allowed = self.allowed(pool, LeaveReason::Empty);
            let (empty, next) = empty_nodes(&candidates, pool.disruption.consolidate_after, allowed, now);
            due.extend(empty);
            wakeups.extend(next);
        }
        for at in wakeups {
            self.wake(at);
        }
        for claim in due {
            self.release(now, &claim, LeaveReason::Empty);
        }
    }
}
