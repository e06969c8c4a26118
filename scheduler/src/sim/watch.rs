//! What must never happen, watched at every step by rules of their own: nothing here is shared with how the scheduler decides.
//!
//! What is broken is told as an entry `Violation`; a simulation with one has failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use assay_core::engine::{ConditionStatus, Effect};
use assay_core::model::{
    Budget, BudgetNodes, Node, NodeClaim, NodePool, Pod, PodId, ResourceList, Timestamp, Wait,
};
use assay_shared::labels::karpenter;

use super::cluster::Cluster;

/// A VM that nobody has a claim for is gone by then.
const OWNERLESS_AT_MOST: Duration = Duration::from_secs(10 * 60);
/// Reasons for which nobody is asked, and those among them that end pods by a deadline.
const FORCED: [&str; 8] =
    ["Deleted", "NodeDeleted", "Preempted", "Unhealthy", "Expired", "Overdue", "Vanished", "ScaledDown"];
const WISHED: [&str; 3] = ["Deleted", "NodeDeleted", "Preempted"];
const TIMED: [&str; 2] = ["Preempted", "Unhealthy"];
/// Reasons that save money: a fresh machine does not go for them.
const SAVING: &str = "Underutilized";

/// What is remembered from step to step. What the scheduler says may reach the API server later: it is judged when it is said.
#[derive(Debug, Default)]
pub(super) struct Watch {
    pending: BTreeMap<PodId, Timestamp>,
    ownerless: BTreeMap<Arc<str>, Timestamp>,
    /// Said and perhaps not done yet: why claims go, which are given up, which have a deadline, which are bought, which nodes serve.
    reasons: BTreeMap<Arc<str>, &'static str>,
    given_up: BTreeSet<Arc<str>>,
    timed: BTreeSet<Arc<str>>,
    bought: BTreeMap<Arc<str>, NodeClaim>,
    serving: BTreeSet<Arc<str>>,
    /// What was told, so that it is told once.
    told: BTreeSet<String>,
}

/// Something that must not be: what it is about, and what is wrong.
pub(super) type Broken = (String, String);

impl Watch {
    /// Looks at what the scheduler says.
    pub(super) fn effect(
        &mut self,
        now: Timestamp,
        effect: &Effect,
        cluster: &Cluster,
        pools: &[NodePool],
    ) -> Option<Broken> {
        match effect {
            Effect::CreateInstance { claim } => {
                let broken = self.over_limit(claim, cluster, pools);
                self.bought.insert(Arc::clone(&claim.name), NodeClaim::clone(claim));
                broken
            }
            Effect::SetClaimCondition { claim, condition }
                if condition.condition_type == "DisruptionReason" =>
            {
                if condition.status == ConditionStatus::True {
                    self.reasons.insert(Arc::clone(claim), condition.reason);
                } else {
                    self.reasons.remove(claim);
                }
                None
            }
            Effect::SetTerminationDeadline { claim, .. } => {
                self.timed.insert(Arc::clone(claim));
                None
            }
            Effect::LabelNode { node, labels } => {
                if labels.get(karpenter::INITIALIZED).is_some_and(|value| value == "true") {
                    self.serving.insert(Arc::clone(node));
                }
                None
            }
            Effect::DeleteClaim { claim: name } => {
                let claim = cluster.claim(name).filter(|claim| claim.deleting.is_none())?;
                let pool = pools.iter().find(|pool| pool.name == claim.pool);
                let is_news = self.given_up.insert(Arc::clone(name));
                self.wrongly_given_up(now, claim, pool.filter(|_| is_news)?, cluster)
            }
            Effect::EvictPod { pod, node } => Self::wrongly_evicted(now, pod, node, cluster),
            Effect::DeletePod { pod, node, .. } => {
                let claim = cluster.claims().find(|claim| claim.node.as_ref() == Some(node));
                let timed = claim.is_some_and(|claim| {
                    claim.terminate_by.is_some()
                        || self.timed.contains(&claim.name)
                        || TIMED.contains(&self.reason_of(claim))
                });
                (!timed)
                    .then(|| (format!("Pod/{pod}"), "deleted although its node has no deadline".to_owned()))
            }
            _ => None,
        }
    }

    /// The scheduler died: what it said and nobody did was never said.
    pub(super) fn forget_unsaid(&mut self) {
        self.reasons.clear();
        self.given_up.clear();
        self.timed.clear();
        self.bought.clear();
    }

    fn reason_of<'w>(&'w self, claim: &'w NodeClaim) -> &'w str {
        let said = self.reasons.get(&claim.name).copied();
        said.or(claim.disruption_reason.as_deref()).unwrap_or_default()
    }

    /// Looks at everything at the end of a step.
    pub(super) fn moment<'v>(
        &mut self,
        now: Timestamp,
        cluster: &Cluster,
        vms: impl Iterator<Item = &'v Arc<str>>,
        pending_at_most: Option<Duration>,
    ) -> Vec<Broken> {
        let mut broken = Vec::new();
        self.bought.retain(|name, _| cluster.claim(name).is_none());
        self.given_up.retain(|name| cluster.claim(name).is_some());
        self.reasons.retain(|name, _| cluster.claim(name).is_some());
        self.serving.retain(|name| cluster.node(name).is_some());
        let ownerless: BTreeSet<&Arc<str>> = vms.filter(|vm| cluster.claim(vm).is_none()).collect();
        self.ownerless.retain(|vm, _| ownerless.contains(vm));
        for vm in ownerless {
            let since = *self.ownerless.entry(Arc::clone(vm)).or_insert(now);
            if now.since(since) > OWNERLESS_AT_MOST {
                broken.push((format!("VM/{vm}"), "nobody has had a claim for it for ten minutes".to_owned()));
            }
        }
        let waiting: BTreeSet<&PodId> =
            cluster.pods().filter(|pod| pod.is_pending()).map(|pod| &pod.id).collect();
        self.pending.retain(|pod, _| waiting.contains(pod));
        for pod in waiting {
            let since = *self.pending.entry(pod.clone()).or_insert(now);
            if pending_at_most.is_some_and(|most| now.since(since) > most) {
                broken.push((format!("Pod/{pod}"), format!("has waited since {since}")));
            }
        }
        broken.retain(|(object, _)| self.told.insert(object.clone()));
        broken
    }
}

impl Watch {
    /// A purchase must leave its pool within its limits.
    fn over_limit(&self, claim: &NodeClaim, cluster: &Cluster, pools: &[NodePool]) -> Option<Broken> {
        let pool = pools.iter().find(|pool| pool.name == claim.pool)?;
        if cluster.claim(&claim.name).is_some() || self.bought.contains_key(&claim.name) {
            return None;
        }
        let said = self.bought.values().filter(|one| cluster.claim(&one.name).is_none());
        let said: Vec<&NodeClaim> = said.chain([claim]).collect();
        let own = || cluster.claims().chain(said.iter().copied()).filter(|one| one.pool == pool.name);
        let held: ResourceList = own().map(|one| &one.capacity).sum();
        let over =
            pool.limits.limited.iter().find(|name| held.amount(name) > pool.limits.resources.amount(name));
        let too_many = pool.limits.nodes.is_some_and(|most| own().count() as u64 > most);
        let what = over.map(String::as_str).or_else(|| too_many.then_some("nodes"))?;
        Some((format!("NodeClaim/{}", claim.name), format!("takes {} over its limit of {what}", pool.name)))
    }

    /// A machine in service goes within its pool's budgets, not with a pod that must not be disturbed, and not while it is fresh.
    fn wrongly_given_up(
        &self,
        now: Timestamp,
        claim: &NodeClaim,
        pool: &NodePool,
        cluster: &Cluster,
    ) -> Option<Broken> {
        let reason = self.reason_of(claim);
        let node = cluster.node(claim.node.as_deref()?)?;
        let serves = |node: &Node| {
            node.label(karpenter::INITIALIZED) == Some("true") || self.serving.contains(&node.name)
        };
        // Nobody gave a reason: the machine is gone by itself.
        if reason.is_empty() || FORCED.contains(&reason) || !serves(node) {
            return None;
        }
        let wrong =
            |what: String| Some((format!("NodeClaim/{}", claim.name), format!("goes as {reason}: {what}")));
        let in_service: Vec<_> = cluster
            .nodes()
            .filter(|one| one.label(karpenter::NODEPOOL) == Some(pool.name.as_str()) && serves(one))
            .collect();
        let on_its_way = |name: &str| {
            let mut own = cluster.claims().filter(|claim| claim.node.as_deref() == Some(name));
            own.any(|claim| claim.deleting.is_some() || self.given_up.contains(&claim.name))
        };
        let going = in_service.iter().filter(|one| !one.ready || one.deleting || on_its_way(&one.name));
        let going = going.filter(|one| one.name != node.name).count() as u64;
        let most = budget(&pool.disruption.budgets, reason, now, in_service.len() as u64);
        if going >= most {
            return wrong(format!("{going} of {} are on their way, {most} may", in_service.len()));
        }
        let held = cluster.pods().find(|pod| {
            pod.node.as_ref() == Some(&node.name)
                && pod.uses_node()
                && pod.terminating.is_none()
                && is_protected(pod, now)
        });
        if let Some(pod) = held.filter(|_| claim.termination_grace_period.is_none()) {
            return wrong(format!("{} must not be disturbed", pod.id));
        }
        let period = pool.disruption.payback.period.unwrap_or(Duration::from_secs(3600));
        if reason == SAVING && now.since(claim.created) < period {
            return wrong(format!("{} s after it was bought", now.since(claim.created).as_secs()));
        }
        if reason == SAVING && pool.disruption.consolidate_after == Wait::Never {
            return wrong("its pool is never consolidated".to_owned());
        }
        None
    }

    /// A pod is evicted after its node's end is on record, and not where it must not be disturbed.
    fn wrongly_evicted(now: Timestamp, pod: &PodId, node: &Arc<str>, cluster: &Cluster) -> Option<Broken> {
        let claim = cluster.claims().find(|claim| claim.node.as_ref() == Some(node));
        let known = cluster.pods().find(|one| one.id == *pod);
        let wrong = if claim.is_none_or(|claim| claim.deleting.is_none()) {
            "evicted before the deletion of its claim is on record"
        } else if known.is_some_and(|pod| is_protected(pod, now)) {
            "evicted although it must not be disturbed"
        } else {
            return None;
        };
        Some((format!("Pod/{pod}"), wrong.to_owned()))
    }

    /// Looks at an effect that is carried out at the moment at which it was said: a pod that runs has somewhere to go, unless
    /// somebody takes its node away.
    pub(super) fn at_once(&self, effect: &Effect, cluster: &Cluster) -> Option<Broken> {
        let Effect::EvictPod { pod, node } = effect else { return None };
        let claim = cluster.claims().find(|claim| claim.node.as_ref() == Some(node));
        let reason = claim.map(|claim| self.reason_of(claim)).unwrap_or_default();
        let moves = cluster.pods().any(|one| one.id == *pod && one.is_reschedulable());
        let placeless = moves && !WISHED.contains(&reason) && !cluster.has_room_elsewhere(pod);
        placeless.then(|| (format!("Pod/{pod}"), format!("evicted without a place to go to: {reason}")))
    }
}

/// `karpenter.sh/do-not-disrupt`: for ever, or for whole minutes from the pod's creation.
fn is_protected(pod: &Pod, now: Timestamp) -> bool {
    let Some(text) = pod.annotations.get(karpenter::DO_NOT_DISRUPT) else { return false };
    let minutes = text.strip_suffix('m').and_then(|number| number.parse::<u64>().ok());
    text == "true" || minutes.is_some_and(|minutes| now < pod.created + Duration::from_secs(60 * minutes))
}

/// How many nodes of so many may be on their way out at once.
fn budget(budgets: &[Budget], reason: &str, now: Timestamp, nodes: u64) -> u64 {
    let mut most = nodes;
    for one in budgets.iter().filter(|one| one.window.is_open(now)) {
        if one.reasons.is_empty() || one.reasons.iter().any(|named| named == reason) {
            most = most.min(match one.nodes {
                BudgetNodes::Count(count) => count,
                BudgetNodes::Percent(percent) => (nodes * u64::from(percent)).div_ceil(100),
            });
        }
    }
    most
}
