//! Commands on their way: begun, watched, and undone where something they count on fails.

use std::sync::Arc;
use std::time::Duration;

use crate::disrupt::{Command, DisruptionReason};
use crate::engine::{Engine, EventKind, LeaveReason};
use crate::model::{ClaimState, PodId, Timestamp};

/// A command that takes longer to get everything ready is undone (Karpenter's least).
const TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Machines of a command that failed are left alone for so long.
const SPARED: Duration = Duration::from_secs(5 * 60);
/// What a broken node gets before its pods are ended whatever holds them.
const REPAIR: Duration = Duration::from_secs(15 * 60);

/// A command whose machines are to go once all is ready.
#[derive(Debug)]
pub(super) struct Running {
    reason: DisruptionReason,
    since: Timestamp,
    /// Claims of the machines that go.
    leaving: Vec<Arc<str>>,
    /// Claims that were made for it.
    replacements: Vec<Arc<str>>,
    /// People were told that its replacements are waited for.
    told: bool,
}

impl Engine {
    /// Begins a command: its machines take no more pods, what takes their place is bought, and their pods are expected there.
    pub(super) fn begin(&mut self, now: Timestamp, command: Command) {
        let claims = command.nodes.iter().filter_map(|node| self.claim_on(node));
        let staying =
            claims.filter(|claim| self.machines.get(claim).is_some_and(|machine| !machine.is_leaving()));
        let leaving: Vec<Arc<str>> = staying.collect();
        let forced = command.reason.is_forced();
        let spared = |claim: &Arc<str>| self.disruption.spared.contains_key(claim);
        if leaving.len() != command.nodes.len() || !forced && leaving.iter().any(spared) {
            return;
        }
        self.count(&command);
        let reason = LeaveReason::from(command.reason);
        if forced || command.moves.is_empty() && command.replacements.is_empty() {
            for claim in &leaving {
                match (command.reason, command.deadline) {
                    (DisruptionReason::Preempted, Some(deadline)) => self.taken_back(now, claim, deadline),
                    (DisruptionReason::Unhealthy, _) => self.end_by(now, claim, reason, now + REPAIR),
                    _ => self.end(now, claim, reason, false),
                }
            }
            self.make_places(now, command);
            return;
        }
        for claim in &leaving {
            self.leave(now, claim, reason);
        }
        let (reason, detail) = (command.reason, command.detail.clone());
        let replacements = self.make_places(now, command);
        for claim in &leaving {
            let instead =
                if replacements.is_empty() { "other nodes".to_owned() } else { replacements.join(", ") };
            let message = format!("{}: {detail}; its pods go to {instead}", reason.as_str());
            self.record_event(
                format!("NodeClaim/{claim}"),
                EventKind::Normal,
                "DisruptionLaunching",
                message,
            );
        }
        self.disruption.begun += 1;
        let running = Running { reason, since: now, leaving, replacements, told: false };
        self.disruption.running.insert(self.disruption.begun, running);
        self.wake(now + TIMEOUT);
    }

    /// Buys what a command replaces its nodes by, and notes where each pod is expected.
    fn make_places(&mut self, now: Timestamp, command: Command) -> Vec<Arc<str>> {
        let bought_for: Vec<String> = command.replacements.iter().map(|claim| claim.name.clone()).collect();
        let bought = command.replacements.into_iter().filter_map(|planned| self.buy(now, planned)).collect();
        for one in command.moves {
            if !bought_for.iter().any(|name| **name == *one.to) {
                self.nominate(now, one.pod, &one.to);
            }
        }
        bought
    }

    /// Sees to commands that wait: done, failed, or still on their way.
    pub(in crate::engine) fn watch_commands(&mut self, now: Timestamp) {
        if self.disruption.running.is_empty() {
            return;
        }
        let numbers: Vec<u64> = self.disruption.running.keys().copied().collect();
        for number in numbers {
            let Some(running) = self.disruption.running.get(&number) else { continue };
            let waits = |claim: &&Arc<str>| {
                self.machines
                    .get(*claim)
                    .is_some_and(|machine| machine.leaving.is_some() && !machine.is_ending())
            };
            if !running.leaving.iter().any(|claim| waits(&claim)) {
                self.disruption.running.remove(&number);
            } else if let Some(why) = self.failure(now, running) {
                self.roll_back(now, number, &why);
            } else if !running.told {
                self.tell_waiting(number);
            }
        }
    }

    /// Why a command cannot be brought to its end.
    fn failure(&self, now: Timestamp, running: &Running) -> Option<String> {
        let lost = running
            .replacements
            .iter()
            .find(|claim| self.machines.get(*claim).is_none_or(super::super::Machine::is_leaving));
        if let Some(lost) = lost {
            return Some(format!("{lost}, which was to take its place, failed"));
        }
        if now >= running.since + TIMEOUT {
            return Some(format!("not everything was ready within {} s", TIMEOUT.as_secs()));
        }
        if running.reason != DisruptionReason::Underutilized {
            return None;
        }
        // What saves money is not worth another purchase.
        self.pods_of(running).iter().find_map(|pod| match self.nominations.get(pod) {
            None => Some(format!("the place for {pod} is gone")),
            Some(target) => (!self.takes_all(target)).then(|| format!("other pods came to {target}")),
        })
    }

    /// Pods that must have a place before the machines of a command go.
    fn pods_of(&self, running: &Running) -> Vec<PodId> {
        let nodes = running.leaving.iter().filter_map(|claim| self.node_of(claim));
        let pods = nodes.flat_map(|node| self.pods.on(&node.name)).filter(|pod| pod.is_reschedulable());
        pods.map(|pod| pod.id.clone()).collect()
    }

    /// Says once that replacements are waited for.
    fn tell_waiting(&mut self, number: u64) {
        let Some(running) = self.disruption.running.get_mut(&number) else { return };
        running.told = true;
        for claim in running.replacements.clone() {
            let message = "the nodes it replaces wait until it is ready".to_owned();
            let object = format!("NodeClaim/{claim}");
            self.record_event(object, EventKind::Normal, "DisruptionWaitingReadiness", message);
        }
    }

    fn command_of(&self, claim: &str) -> Option<(u64, &Running)> {
        let mut all = self.disruption.running.iter();
        let own = all.find(|(_, running)| running.leaving.iter().any(|one| **one == *claim))?;
        Some((*own.0, own.1))
    }

    /// Whether all that the command of a machine counts on is ready; `None` where it goes by itself.
    pub(in crate::engine) fn command_is_ready(&self, claim: &str) -> Option<bool> {
        let (_, running) = self.command_of(claim)?;
        let ready = |claim: &Arc<str>| {
            self.machines.get(claim).is_some_and(|machine| machine.claim.state == ClaimState::Initialized)
        };
        Some(
            running.replacements.iter().all(ready)
                && self.pods_of(running).iter().all(|pod| self.place_is_ready(pod)),
        )
    }

    /// A machine stays after all, and with it those that were to go by the same command.
    pub(in crate::engine) fn undo(&mut self, now: Timestamp, claim: &Arc<str>, why: &str) {
        match self.command_of(claim).map(|(number, _)| number) {
            Some(number) => self.roll_back(now, number, why),
            None => self.call_off(now, claim, why),
        }
    }

    /// Undoes a command: its machines stay, what was bought for them and serves nobody is given back.
    fn roll_back(&mut self, now: Timestamp, number: u64, why: &str) {
        let Some(running) = self.disruption.running.remove(&number) else { return };
        *self.disruption.counts.failures.entry(running.reason.as_str()).or_default() += 1;
        for claim in &running.leaving {
            self.disruption.spared.insert(Arc::clone(claim), now + SPARED);
            let waits = self.machines.get(claim).is_some_and(|machine| !machine.is_ending());
            if waits {
                let message = format!("{}: {why}", running.reason.as_str());
                let object = format!("NodeClaim/{claim}");
                self.record_event(object, EventKind::Warning, "DisruptionBlocked", message);
                self.call_off(now, claim, why);
            }
        }
        for claim in &running.replacements {
            let is_new = self.machines.get(claim).is_some_and(|machine| {
                machine.claim.state < ClaimState::Initialized && !machine.is_leaving()
            });
            if is_new && self.nominations.count_on(claim) == 0 {
                self.end(now, claim, LeaveReason::Empty, false);
            }
        }
        self.disruption.changed();
    }

    fn count(&mut self, command: &Command) {
        let decision = if command.replacements.is_empty() { "delete" } else { "replace" };
        let kind = match (command.reason, command.nodes.len()) {
            (DisruptionReason::Empty, _) => "empty",
            (DisruptionReason::Underutilized, 1) => "single",
            (DisruptionReason::Underutilized, _) => "multi",
            _ => "",
        };
        let key = (decision, command.reason.as_str(), kind);
        *self.disruption.counts.decisions.entry(key).or_default() += 1;
    }
}
