//! Which machines go by our own choice: the planner of [`disrupt`](crate::disrupt) is asked from what is known, and what it says is
//! carried out.
//!
//! ```text
//!  something changed --> plan --> must go: drifted, wrong hardware, broken, expired --------------> carried out
//!                          |
//!                          +----> saves money: proposed --15 s--> held against the cluster of then --> carried out
//!
//!  carried out: nodes tainted, replacements bought, pods expected there --> all ready --> their end begins (`termination`)
//!                                                                 |
//!                                                                 +--> one fails, or it takes too long: undone
//! ```
//!
//! Nothing of this is kept anywhere but on objects: a taint, a claim's condition, the replacements. Whoever takes over takes the
//! taints off and plans anew; what was bought and serves nobody goes as any empty machine does.

mod running;
mod seen;
mod tell;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use self::running::Running;
use self::tell::Told;
use super::{Engine, EventKind, LeaveReason};
use crate::check::check_disruption;
use crate::disrupt::{
    Command, DisruptOptions, DisruptionPlan, DisruptionReason, disrupt, preempted, repair_due,
};
use crate::model::{ClaimState, ClassFacts, NodeFacts, Snapshot, Timestamp, Wait};
use crate::solve::SolveOptions;

/// Where nothing changes it is looked at again this often, for time passes too (Karpenter's).
const PLAN_AGAIN: Duration = Duration::from_secs(5 * 60);
/// Commands that are validated one by one where they do not hold together; the others are found again.
const ONE_BY_ONE: usize = 16;

/// What is planned, and what is being done.
#[derive(Debug, Default)]
pub(super) struct Disruption {
    /// Something changed since the last plan.
    stale: bool,
    /// Something happened that does not wait for its turn.
    urgent: bool,
    /// When the last plan was made.
    planned: Option<Timestamp>,
    /// Moments at which time alone changes what may go.
    later: BTreeSet<Timestamp>,
    /// What the last plan would do to save money, and since when.
    proposed: Option<(Timestamp, Vec<Command>)>,
    /// Commands whose machines wait for the places of their pods.
    running: BTreeMap<u64, Running>,
    begun: u64,
    /// Machines of commands that failed, and until when they are left alone.
    spared: BTreeMap<Arc<str>, Timestamp>,
    /// What a driver says of nodes, by node.
    facts: BTreeMap<Arc<str>, NodeFacts>,
    /// Image and age limit of each claim.
    of_claims: BTreeMap<Arc<str>, (Option<String>, Option<Wait>)>,
    /// And of classes.
    classes: BTreeMap<String, ClassFacts>,
    told: Told,
    counts: DisruptionCounts,
}

/// What was decided, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DisruptionCounts {
    /// Plans made.
    pub plans: u64,
    /// Commands by decision (`delete`, `replace`), reason and kind of consolidation.
    pub decisions: BTreeMap<(&'static str, &'static str, &'static str), u64>,
    /// Commands that no longer held when they were validated, by reason.
    pub failed_validations: BTreeMap<&'static str, u64>,
    /// Commands that were undone after they had begun, by reason.
    pub failures: BTreeMap<&'static str, u64>,
    /// Plans that ran out of work before every node was looked at.
    pub timeouts: u64,
    /// Nodes of the last plan that could go, by reason.
    pub eligible: BTreeMap<&'static str, u64>,
}

impl Disruption {
    /// Something changed that may let machines go.
    pub(super) fn changed(&mut self) {
        self.stale = true;
    }

    /// The same, and it does not wait.
    pub(super) fn changed_urgently(&mut self) {
        (self.stale, self.urgent) = (true, true);
    }

    /// A claim is gone.
    pub(super) fn forget_claim(&mut self, claim: &str) {
        self.of_claims.remove(claim);
        self.spared.remove(claim);
    }

    /// A node is gone.
    pub(super) fn forget_node(&mut self, node: &str) {
        self.facts.remove(node);
        self.told.forget(node);
    }
}

impl Engine {
    /// A driver tells what is known of a node beside its object: conditions, version, image.
    pub(super) fn node_facts(&mut self, node: &Arc<str>, facts: NodeFacts) {
        if self.disruption.facts.get(node) == Some(&facts) {
            return;
        }
        if preempted(&facts).is_some() {
            self.disruption.changed_urgently();
        }
        self.disruption.later.extend(repair_due(&facts));
        self.disruption.changed();
        self.disruption.facts.insert(Arc::clone(node), facts);
    }

    /// The same of a claim: image and age limit.
    pub(super) fn claim_facts(&mut self, claim: &Arc<str>, facts: (Option<String>, Option<Wait>)) {
        if self.disruption.of_claims.get(claim) != Some(&facts) {
            self.disruption.of_claims.insert(Arc::clone(claim), facts);
            self.disruption.changed();
        }
    }

    /// The same of a class.
    pub(super) fn class_facts(&mut self, class: &str, facts: ClassFacts) {
        if self.disruption.classes.get(class) != Some(&facts) {
            self.disruption.classes.insert(class.to_owned(), facts);
            self.disruption.changed();
        }
    }

    /// What was decided about machines that go.
    #[must_use]
    pub const fn disruption_counts(&self) -> &DisruptionCounts {
        &self.disruption.counts
    }

    /// When machines are to be looked at next. Pods that wait come first.
    pub(super) fn disruption_due(&self) -> Option<Timestamp> {
        let disruption = &self.disruption;
        if self.machines.is_empty() {
            return None;
        }
        if disruption.urgent {
            return Some(Timestamp::default());
        }
        let last = disruption.planned.unwrap_or_default();
        let at = match (&disruption.proposed, disruption.stale) {
            (Some((since, _)), _) => *since + self.settings.disruption_validation,
            (None, true) => last + self.settings.disruption_poll,
            (None, false) => {
                let later =
                    disruption.later.first().map(|at| (*at).max(last + self.settings.disruption_poll));
                later.map_or(last + PLAN_AGAIN, |at| at.min(last + PLAN_AGAIN))
            }
        };
        Some(self.batch_due().map_or(at, |batch| batch.max(at)))
    }

    /// Plans, or validates what was planned, when that is due.
    pub(super) fn decide_disruption(&mut self, now: Timestamp) {
        self.weigh(now);
        self.follow();
        if self.disruption_due().is_none_or(|due| due > now) {
            return;
        }
        let validation = self.settings.disruption_validation;
        let proposed = self.disruption.proposed.take_if(|(since, _)| *since + validation <= now);
        let validates = proposed.is_some();
        if let Some((_, commands)) = proposed {
            self.validate(now, commands);
        }
        if self.disruption.urgent || !validates {
            self.plan_disruption(now);
        }
    }

    fn disrupt_options(&self) -> DisruptOptions {
        let solve = SolveOptions { explain: false, ..self.settings.solve.clone() };
        DisruptOptions { solve, explain: true, ..self.settings.disrupt.clone() }
    }

    fn plan_disruption(&mut self, now: Timestamp) {
        let disruption = &mut self.disruption;
        (disruption.stale, disruption.urgent, disruption.planned) = (false, false, Some(now));
        disruption.later = disruption.later.split_off(&Timestamp(now.0.saturating_add(1)));
        disruption.spared.retain(|_, until| *until > now);
        let in_service = |machine: &super::Machine| {
            machine.claim.state == ClaimState::Initialized && !machine.is_leaving()
        };
        if !self.machines.values().any(in_service) {
            return;
        }
        self.disruption.counts.plans += 1;
        let snapshot = self.seen(now);
        let plan = disrupt(&snapshot, &self.disrupt_options());
        if let Err(broken) = check_disruption(&snapshot, &plan) {
            // A bug of ours must not break a promise.
            self.stats.plans_refused += 1;
            let first = broken.first().map(ToString::to_string).unwrap_or_default();
            let message = format!("disruption: {} rules broken, first: {first}", broken.len());
            self.record_event("Plan".to_owned(), EventKind::Warning, "PlanRefused", message);
            return;
        }
        self.tell_plan(now, &plan);
        let (waits, at_once): (Vec<Command>, Vec<Command>) =
            plan.commands.into_iter().partition(|command| saves_money(command.reason));
        for command in at_once {
            self.begin(now, command);
        }
        if !waits.is_empty() && self.disruption.proposed.is_none() {
            self.disruption.proposed = Some((now, waits));
        }
    }

    /// Carries out what was proposed, as far as it still holds.
    fn validate(&mut self, now: Timestamp, proposed: Vec<Command>) {
        let mut abandoned: BTreeMap<&'static str, u64> = BTreeMap::new();
        let mut snapshot = self.seen(now);
        // Those that wait for a place found none: they are no matter here.
        snapshot.pods.retain(|pod| !pod.is_pending());
        let mut holding: Vec<Command> = Vec::with_capacity(proposed.len());
        for mut command in proposed {
            let reason = command.reason.as_str();
            command.nodes.retain(|node| !command.moves.is_empty() || self.is_still_idle(now, node));
            let is_the_same = !command.nodes.is_empty() && self.has_the_same_pods(&command);
            if is_the_same { holding.push(command) } else { *abandoned.entry(reason).or_default() += 1 }
        }
        if !holds(&snapshot, &holding) {
            let mut one_by_one: Vec<Command> = Vec::new();
            for (number, command) in holding.into_iter().enumerate() {
                let reason = command.reason.as_str();
                one_by_one.push(command);
                if number >= ONE_BY_ONE || !holds(&snapshot, &one_by_one) {
                    one_by_one.pop();
                    *abandoned.entry(reason).or_default() += 1;
                }
            }
            holding = one_by_one;
        }
        for (reason, count) in abandoned {
            *self.disruption.counts.failed_validations.entry(reason).or_default() += count;
        }
        self.disruption.changed();
        self.disruption.planned = Some(now);
        for command in holding {
            self.begin(now, command);
        }
    }

    /// Whether nobody needs a node, and nobody has for as long as its pool says.
    fn is_still_idle(&self, now: Timestamp, node: &str) -> bool {
        let Some((claim, machine)) =
            self.claim_on(node).and_then(|claim| self.machines.get(&claim).map(|machine| (claim, machine)))
        else {
            return false;
        };
        let wait = self.pools.get(&machine.claim.pool).map(|pool| pool.disruption.consolidate_after);
        self.pods.reschedulable_on(node) == 0
            && self.nominations.count_on(&claim) == 0
            && matches!(wait, Some(Wait::After(wait)) if machine.quiet_since.max(machine.claim.since) + wait <= now)
    }

    /// Whether the nodes of a command are in service and have the pods that it moves, and no others.
    fn has_the_same_pods(&self, command: &Command) -> bool {
        let in_service = |node: &Arc<str>| {
            let claim = self.claim_on(node);
            let machine = claim.as_ref().and_then(|claim| self.machines.get(claim));
            machine.is_some_and(|machine| {
                machine.claim.state == ClaimState::Initialized
                    && !machine.is_leaving()
                    && self.nominations.count_on(&machine.claim.name) == 0
            })
        };
        let moved: BTreeSet<_> = command.moves.iter().map(|one| (&*one.from, &one.pod)).collect();
        let here = command.nodes.iter().flat_map(|node| self.pods.on(node).map(move |pod| (&**node, pod)));
        let here: BTreeSet<_> =
            here.filter(|(_, pod)| pod.is_reschedulable()).map(|(node, pod)| (node, &pod.id)).collect();
        command.nodes.iter().all(in_service) && moved == here
    }
}

/// Whether a command can wait, and so is looked at twice.
const fn saves_money(reason: DisruptionReason) -> bool {
    matches!(reason, DisruptionReason::Empty | DisruptionReason::Underutilized)
}

/// Whether these commands keep every promise in a cluster, one after the other.
fn holds(snapshot: &Snapshot, commands: &[Command]) -> bool {
    let plan = DisruptionPlan { commands: commands.to_vec(), ..DisruptionPlan::default() };
    check_disruption(snapshot, &plan).is_ok()
}

impl From<DisruptionReason> for LeaveReason {
    fn from(reason: DisruptionReason) -> Self {
        match reason {
            DisruptionReason::Preempted => Self::Preempted,
            DisruptionReason::Unhealthy => Self::Unhealthy,
            DisruptionReason::Expired => Self::Expired,
            DisruptionReason::WrongHardware => Self::WrongHardware,
            DisruptionReason::ScaledDown => Self::ScaledDown,
            DisruptionReason::Empty => Self::Empty,
            DisruptionReason::Drifted => Self::Drifted,
            DisruptionReason::Underutilized => Self::Underutilized,
        }
    }
}
