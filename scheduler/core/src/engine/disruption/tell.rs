//! What people and programs are told of a plan: conditions of claims, and why nodes stay.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::disrupt::{BlockReason, Blocked, DisruptionPlan};
use crate::engine::{Condition, ConditionStatus, Engine, EventKind};
use crate::model::{ClaimState, Drift, Timestamp, Wait};

/// The same is said of a node again after this (Karpenter's for `Unconsolidatable`).
const SAY_AGAIN: Duration = Duration::from_secs(15 * 60);

/// What was said of each node, and when.
#[derive(Debug, Default)]
pub(super) struct Told(BTreeMap<Arc<str>, BTreeMap<BlockReason, Timestamp>>);

impl Told {
    pub(super) fn forget(&mut self, node: &str) {
        self.0.remove(node);
    }

    /// Whether this was not said lately.
    fn is_news(&mut self, blocked: &Blocked, now: Timestamp) -> bool {
        let said = self.0.entry(Arc::clone(&blocked.node)).or_default();
        let news = said.get(&blocked.reason).is_none_or(|at| now.since(*at) >= SAY_AGAIN);
        if news {
            said.insert(blocked.reason, now);
        }
        news
    }
}

impl Engine {
    /// Says what a plan found beside its commands.
    pub(super) fn tell_plan(&mut self, now: Timestamp, plan: &DisruptionPlan) {
        self.mark_drifted(&plan.drifted);
        let mut eligible: BTreeMap<&'static str, u64> = BTreeMap::new();
        for command in &plan.commands {
            *eligible.entry(command.reason.as_str()).or_default() += command.nodes.len() as u64;
        }
        self.disruption.counts.eligible = eligible;
        let mut exhausted = false;
        for blocked in &plan.blocked {
            exhausted |= blocked.reason == BlockReason::NotLookedAt;
            let Some(claim) = self.claim_on(&blocked.node) else { continue };
            let must_go = plan.drifted.contains_key(&blocked.node)
                || self.machines.get(&claim).is_some_and(|machine| !machine.mismatches.is_empty());
            let Some(word) = word_for(blocked.reason, must_go) else { continue };
            if !self.disruption.told.is_news(blocked, now) {
                continue;
            }
            let fix = blocked.fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
            let message = format!("{}: {}{fix}", blocked.reason.as_str(), blocked.detail);
            for object in [format!("Node/{}", blocked.node), format!("NodeClaim/{claim}")] {
                self.record_event(object, EventKind::Normal, word, message.clone());
            }
        }
        self.disruption.counts.timeouts += u64::from(exhausted);
    }

    /// Says which machines are not what their pools would make now.
    fn mark_drifted(&mut self, drifted: &BTreeMap<Arc<str>, Drift>) {
        let is_judged = |machine: &crate::engine::Machine| {
            machine.claim.state == ClaimState::Initialized && !machine.is_leaving()
        };
        let changed =
            self.machines.iter().filter(|(_, machine)| is_judged(machine)).filter_map(|(claim, machine)| {
                let found = drifted.get(machine.claim.node.as_ref()?);
                (found != machine.drift.as_ref()).then(|| (Arc::clone(claim), found.cloned()))
            });
        for (claim, drift) in changed.collect::<Vec<_>>() {
            let condition = match &drift {
                Some(drift) => Condition {
                    reason: drift_word(&drift.reason),
                    ..Condition::holds("Drifted", "its pool would make another machine now".to_owned())
                },
                None => Condition {
                    condition_type: "Drifted",
                    status: ConditionStatus::False,
                    reason: "NotDrifted",
                    message: "it is what its pool would make now".to_owned(),
                },
            };
            if let Some(machine) = self.machines.get_mut(&claim) {
                machine.drift = drift;
            }
            self.set_claim_condition(&claim, condition);
        }
    }

    /// Says of machines whether pods have left them alone for as long as their pool says: of those that changed, and of those for
    /// which that time is up.
    pub(super) fn weigh(&mut self, now: Timestamp) {
        self.sort_out();
        let mut claims = std::mem::take(&mut self.roll.to_weigh);
        claims.extend(self.quiet.due(now));
        for claim in claims {
            let Some(machine) = self.machines.get(&claim) else { continue };
            if machine.claim.state != ClaimState::Initialized || machine.is_leaving() {
                continue;
            }
            let pool = self.pools.get(&machine.claim.pool);
            let Some(Wait::After(wait)) = pool.map(|pool| pool.disruption.consolidate_after) else {
                continue;
            };
            let over = machine.quiet_since + wait;
            if over > now {
                self.quiet.set(&claim, over);
                self.wake(over);
            } else {
                self.disruption.changed();
            }
            self.set_claim_condition(&claim, consolidatable(over <= now));
        }
    }
}

/// Whether pods have left a machine alone for as long as its pool says.
fn consolidatable(quiet: bool) -> Condition {
    if quiet {
        let message = "no pod came or went for as long as the pool says".to_owned();
        return Condition::holds("Consolidatable", message);
    }
    Condition {
        condition_type: "Consolidatable",
        status: ConditionStatus::False,
        reason: "PodsChanged",
        message: "pods came or went".to_owned(),
    }
}

/// Karpenter's reason word of the event about a node that stays; `None` where it is but a matter of time.
const fn word_for(reason: BlockReason, must_go: bool) -> Option<&'static str> {
    match reason {
        BlockReason::DoNotDisrupt
        | BlockReason::PodDisruptionBudget
        | BlockReason::Budget
        | BlockReason::MalformedBudget
        | BlockReason::TooManyUnhealthy
        | BlockReason::NodePoolNotFound
        | BlockReason::UnknownPrice => Some("DisruptionBlocked"),
        BlockReason::NoPlaceForPod if must_go => Some("DisruptionBlocked"),
        BlockReason::NoPlaceForPod
        | BlockReason::NoCheaperReplacement
        | BlockReason::SpotToSpot
        | BlockReason::Balanced
        | BlockReason::Payback => Some("Unconsolidatable"),
        BlockReason::NoNodeClaim
        | BlockReason::NotInitialized
        | BlockReason::Nominated
        | BlockReason::ConsolidationPolicy
        | BlockReason::ConsolidateAfter
        | BlockReason::PaybackPeriod
        | BlockReason::MaxMoves
        | BlockReason::OneAtATime
        | BlockReason::TakesPods
        | BlockReason::NotLookedAt => None,
    }
}

/// The words of drift are a closed list; one of somebody else's is told as drift.
fn drift_word(reason: &str) -> &'static str {
    const WORDS: [&str; 6] = [
        "NodePoolDrifted",
        "RequirementsDrifted",
        "InstanceTypeNotFound",
        "NodeClassDrift",
        "K8sVersionDrift",
        "ImageDrift",
    ];
    WORDS.into_iter().find(|word| *word == reason).unwrap_or("Drifted")
}
