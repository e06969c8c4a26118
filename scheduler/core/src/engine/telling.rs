//! What people are told although nothing is done about it: pools that can buy nothing, annotations that mean nothing or whose time is
//! over, machines that are not what their claim says. And claims that are not launched since their class is not ready.

use std::collections::BTreeMap;

use assay_shared::labels::karpenter;

use super::{Condition, ConditionStatus, Engine, EventKind};
use crate::disrupt::Protection;
use crate::model::{ClaimState, ClassReadiness, NodeClaim, Pod, PodId, ResourceList, Timestamp};
use crate::solve::compatible_types;

/// A node has at least so much of what its claim says, in percent (Karpenter's).
const CONSISTENT: u64 = 90;

impl Engine {
    /// Says which pools can buy nothing, whatever pods ask for; once, until that changes. After a plan.
    pub(super) fn tell_pools(&mut self) {
        if !self.picture.take_news_of_market() {
            return;
        }
        let market = self.picture.market();
        let told = market.pools.iter().filter_map(|pool| {
            let message = match compatible_types(market, pool)? {
                (_, true) => return None,
                (0, false) => "no instance type satisfies its requirements".to_owned(),
                (count, false) => {
                    format!("{count} instance types satisfy its requirements; none of them is to be had now")
                }
            };
            Some((pool.name.clone(), message))
        });
        let told: BTreeMap<String, String> = told.collect();
        for (pool, message) in &told {
            if self.reported_pools.get(pool) != Some(message) {
                let object = format!("NodePool/{pool}");
                self.record_event(object, EventKind::Warning, "NoCompatibleInstanceTypes", message.clone());
            }
        }
        self.reported_pools = told;
    }

    /// Says that a pod's annotation protects nothing.
    pub(super) fn tell_annotation(&mut self, pod: &Pod) {
        let Some(value) = Protection::unreadable(pod) else { return };
        let message = format!("{} is neither true nor a duration: {value:?}", karpenter::DO_NOT_DISRUPT);
        let object = format!("Pod/{}", pod.id);
        self.record_event(object, EventKind::Warning, "InvalidDoNotDisruptAnnotation", message);
    }

    /// Says until when a pod keeps its machine.
    pub(super) fn tell_protection(&mut self, pod: &Pod, until: Timestamp) {
        let seconds = until.since(self.now).as_secs();
        let message = format!("annotated {}: for {seconds} s more its node stays", karpenter::DO_NOT_DISRUPT);
        self.record_event(format!("Pod/{}", pod.id), EventKind::Normal, "DoNotDisruptUntil", message);
    }

    /// Says that it does so no longer.
    pub(super) fn tell_protection_is_over(&mut self, pod: &PodId) {
        if self.pods.get(pod).is_none() {
            return;
        }
        let message = format!("the time it was annotated {} for is over", karpenter::DO_NOT_DISRUPT);
        let reason = "DoNotDisruptGracePeriodElapsed";
        self.record_event(format!("Pod/{pod}"), EventKind::Normal, reason, message);
    }

    /// Holds a machine in service against what its claim says it has.
    pub(super) fn check_consistency(&mut self, claim: &str) {
        let (Some(machine), Some(node)) = (self.machines.get(claim), self.node_of(claim)) else { return };
        let too_little = too_little(&machine.claim.capacity, &node.capacity);
        let known = machine.claim_conditions.get("ConsistentStateFound");
        let condition = match too_little {
            None => Condition::holds("ConsistentStateFound", String::new()),
            Some(message) => Condition {
                condition_type: "ConsistentStateFound",
                status: ConditionStatus::False,
                reason: "ConsistencyCheckFailed",
                message,
            },
        };
        if condition.status == ConditionStatus::False && known != Some(&condition) {
            let (object, message) = (format!("NodeClaim/{claim}"), condition.message.clone());
            self.record_event(object, EventKind::Warning, "FailedConsistencyCheck", message);
        }
        self.set_claim_condition(claim, condition);
    }

    /// Why a claim that has no VM yet gets none: its class is not there or not ready. With the reason of the event.
    pub(super) fn why_not_launched(&self, claim: &NodeClaim) -> Option<(&'static str, String)> {
        if claim.state > ClaimState::Launching || claim.deleting.is_some() {
            return None;
        }
        let name = &claim.node_class;
        match self.classes.get(name).map(|class| &class.readiness) {
            None if claim.is_standalone() => {
                Some(("NodeClassResolutionError", format!("there is no class {name}")))
            }
            Some(ClassReadiness::NotReady(why)) => {
                Some(("NodeClassNotReady", format!("class {name} is not ready: {why}")))
            }
            Some(ClassReadiness::Terminating) => {
                Some(("NodeClassNotReady", format!("class {name} is being deleted")))
            }
            None | Some(ClassReadiness::Unknown | ClassReadiness::Ready) => None,
        }
    }
}

/// Of what there is much less than expected.
fn too_little(expected: &ResourceList, found: &ResourceList) -> Option<String> {
    let common = ["cpu", "memory", "ephemeral-storage", "pods"].into_iter();
    let mut names = common.chain(expected.extended.keys().map(String::as_str));
    names.find_map(|name| {
        let (expected, found) = (expected.amount(name), found.amount(name));
        let short = u128::from(found) * 100 < u128::from(expected) * u128::from(CONSISTENT);
        short.then(|| format!("expected {expected} of resource {name}, but found {found}"))
    })
}
