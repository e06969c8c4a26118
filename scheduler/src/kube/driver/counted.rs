//! What the driver counts: what happens, what is decided, how long lies between, and the cluster as a sample.
//!
//! What was seen first is remembered until what ends it is seen. A scheduler that takes over has seen nothing: what was on its
//! way then is not timed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use assay_core::engine::{
    Condition, ConditionStatus, DisruptionCounts, Effect, Engine, Event, EvictionAnswer, LeaveReason, Machine,
};
use assay_core::model::{
    ConsolidationPolicy, Limits, Node, NodeClaim, Pod, PodId, PodOwner, PodPhase, ResourceList, Timestamp,
};
use assay_shared::labels::{karpenter, kubernetes};

use crate::web::{
    ClaimSample, ClusterSample, Disruption, Launch, Metrics, NodeLabels, NodeSample, PODS_SHOWN, PodSample,
    PoolSample, Purchase, WaitingSample,
};

/// Who solves, in Karpenter's words.
const PROVISIONER: &str = "provisioner";
const DISRUPTION: &str = "disruption";

/// What began and has not ended yet.
#[derive(Debug, Default)]
pub(super) struct Counted {
    /// Pods that wait.
    waiting: BTreeMap<PodId, Waiting>,
    /// How many of them it was not decided for.
    undecided: usize,
    /// Pods that are bound and do not run yet, and when it was decided where they go.
    starting: BTreeMap<PodId, Option<Timestamp>>,
    /// Pods that were asked to leave a node, and why it goes.
    evicted: BTreeMap<PodId, &'static str>,
    /// Claims that were given up.
    given_up: BTreeSet<Arc<str>>,
    /// VMs whose deletion was asked for.
    deleted: BTreeMap<Arc<str>, Timestamp>,
    /// Claims whose VM is gone.
    gone: BTreeMap<Arc<str>, NodeClaim>,
    /// Plans made so far.
    plans: u64,
    /// What was decided so far about machines that go.
    disruption: DisruptionCounts,
}

/// A pod that waits.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    /// Since when it was seen.
    seen: Timestamp,
    /// When it was decided where it goes.
    decided: Option<Timestamp>,
}

impl Counted {
    /// Counts what happened, before `engine` hears it.
    pub(super) fn heard(&mut self, metrics: &Metrics, event: &Event, engine: &Engine, now: Timestamp) {
        match event {
            Event::PodApplied(pod) => self.pod(metrics, pod, now),
            Event::PodDeleted(id) => {
                self.waits_no_more(id);
                self.starting.remove(id);
                if let Some(reason) = self.evicted.remove(id) {
                    metrics.pod_drained(reason);
                }
            }
            Event::InstanceGone { claim } => {
                let machine = engine.machines().get(claim);
                if let (Some(asked), Some(machine)) = (self.deleted.remove(claim), machine) {
                    metrics.instance_terminated(&machine.claim.pool, now.since(asked));
                }
                self.ends(claim, machine);
            }
            Event::LaunchFailed { claim, error } => {
                let machine = engine.machines().get(claim);
                if let Some(machine) = machine {
                    metrics.launch_failed(launch(&machine.claim), &error.failure.to_string());
                }
                self.ends(claim, machine);
            }
            Event::ClaimDeleted { claim } => {
                self.given_up.remove(claim);
                let Some(claim) = self.gone.remove(claim) else { return };
                let took = claim.deleting.map(|at| now.since(at)).unwrap_or_default();
                metrics.claim_terminated(&claim.pool, claim.capacity_type.as_str(), &claim.zone, took);
                if claim.node.is_some() {
                    metrics.node_terminated(&claim.pool, took, now.since(claim.created));
                }
            }
            Event::EvictionAnswered { answer, .. } => metrics.eviction_requested(match answer {
                EvictionAnswer::Accepted => 201,
                EvictionAnswer::Gone => 404,
                EvictionAnswer::Refused { .. } => 429,
            }),
            _ => {}
        }
    }

    fn pod(&mut self, metrics: &Metrics, pod: &Pod, now: Timestamp) {
        if pod.is_pending() {
            if !self.waiting.contains_key(&pod.id) {
                self.waiting.insert(pod.id.clone(), Waiting { seen: now, decided: None });
                self.undecided += 1;
            }
            return;
        }
        if let Some(waited) = self.waits_no_more(&pod.id)
            && pod.node.is_some()
        {
            if waited.decided.is_none() {
                metrics.pod_decided(now.since(waited.seen));
            }
            metrics.pod_bound(now.since(pod.created), waited.decided.map(|at| now.since(at)));
            self.starting.insert(pod.id.clone(), waited.decided);
        }
        if pod.phase == PodPhase::Running
            && let Some(decided) = self.starting.remove(&pod.id)
        {
            metrics.pod_started(now.since(pod.created), decided.map(|at| now.since(at)));
        }
    }

    fn waits_no_more(&mut self, pod: &PodId) -> Option<Waiting> {
        let waited = self.waiting.remove(pod)?;
        self.undecided -= usize::from(waited.decided.is_none());
        Some(waited)
    }

    /// Remembers a claim whose object is all that is left.
    fn ends(&mut self, name: &Arc<str>, machine: Option<&Machine>) {
        if let Some(machine) = machine {
            self.gone.insert(Arc::clone(name), machine.claim.clone());
        }
    }

    /// Counts an effect of `engine` that goes out.
    pub(super) fn said(&mut self, metrics: &Metrics, effect: &Effect, engine: &Engine, now: Timestamp) {
        match effect {
            Effect::CreateInstance { claim } => {
                let relaxed = claim.annotations.contains_key(karpenter::MIN_VALUES_RELAXED);
                metrics.claim_created("provisioned", &claim.pool, relaxed);
                metrics.launch_began(launch(claim));
                if let Some(cheapest) =
                    engine.machines().get(&claim.name).and_then(|machine| machine.cheapest)
                {
                    metrics.bought(Purchase { pool: &claim.pool, price: claim.price, cheapest });
                }
            }
            Effect::NominatePod { pod, .. } => {
                if let Some(waits) = self.waiting.get_mut(pod).filter(|waits| waits.decided.is_none()) {
                    waits.decided = Some(now);
                    self.undecided -= 1;
                    metrics.pod_decided(now.since(waits.seen));
                }
            }
            Effect::SetClaimCondition { claim, condition } if condition.status == ConditionStatus::True => {
                if let Some(machine) = engine.machines().get(claim) {
                    condition_set(metrics, machine, condition, now);
                }
            }
            Effect::DeleteClaim { claim } if self.given_up.insert(Arc::clone(claim)) => {
                let Some(machine) = engine.machines().get(claim) else { return };
                if machine.leaving == Some(LeaveReason::WrongHardware) {
                    let bad = machine.conditions.values().find(|one| one.status == ConditionStatus::False);
                    let condition = bad.map_or("HardwareMatchesClaim", |one| one.condition_type);
                    let paid = machine.claim.capacity_type.as_str();
                    metrics.unhealthy_disrupted(condition, &machine.claim.pool, paid);
                }
                let policy =
                    engine.pools().get(&machine.claim.pool).map(|pool| pool.disruption.consolidation_policy);
                metrics.claim_disrupted(Disruption {
                    reason: machine.leaving.map_or("unknown", LeaveReason::as_str),
                    pool: &machine.claim.pool,
                    capacity_type: machine.claim.capacity_type.as_str(),
                    consolidation_policy: match policy {
                        None => "",
                        Some(ConsolidationPolicy::WhenEmpty) => "WhenEmpty",
                        Some(ConsolidationPolicy::WhenEmptyOrUnderutilized) => "WhenEmptyOrUnderutilized",
                        Some(ConsolidationPolicy::Balanced) => "Balanced",
                    },
                    termination_mode: match machine.leaving {
                        Some(
                            LeaveReason::Preempted
                            | LeaveReason::Overdue
                            | LeaveReason::Vanished
                            | LeaveReason::Unhealthy
                            | LeaveReason::Expired,
                        ) => "forceful",
                        _ => "graceful",
                    },
                });
            }
            Effect::EvictPod { pod, node } | Effect::DeletePod { pod, node, .. } => {
                let leaving = engine.machine_on(node).and_then(|machine| machine.leaving);
                let reason = leaving.map_or("unknown", LeaveReason::as_str);
                if !self.evicted.contains_key(pod) {
                    self.evicted.insert(pod.clone(), reason);
                    metrics.pod_disruption_initiated(reason);
                }
            }
            Effect::DeleteInstance { claim } => {
                self.deleted.entry(Arc::clone(claim)).or_insert(now);
            }
            _ => {}
        }
    }

    /// Counts what `engine` did in one turn, which took so long.
    pub(super) fn turned(&mut self, metrics: &Metrics, engine: &Engine, took: Duration) {
        let plans = engine.stats().plans;
        if std::mem::replace(&mut self.plans, plans) < plans {
            metrics.solved(PROVISIONER, took);
        }
        self.disruption(metrics, engine.disruption_counts(), took);
        let count = |pods: usize| u32::try_from(pods).unwrap_or(u32::MAX);
        metrics.queued(PROVISIONER, count(self.undecided));
        metrics.unschedulable(PROVISIONER, count(engine.left_out()));
    }
}

impl Counted {
    /// Counts what was decided since the last turn about machines that go.
    fn disruption(&mut self, metrics: &Metrics, now: &DisruptionCounts, took: Duration) {
        if *now == self.disruption {
            return;
        }
        let before = std::mem::replace(&mut self.disruption, now.clone());
        if now.plans > before.plans {
            metrics.solved(DISRUPTION, took);
        }
        for (key, count) in &now.decisions {
            let (decision, reason, kind) = *key;
            let more = count - before.decisions.get(key).copied().unwrap_or_default();
            (0..more).for_each(|_| metrics.disruption_decided(decision, reason, kind));
        }
        let more = |now: &BTreeMap<&'static str, u64>, before: &BTreeMap<&'static str, u64>| {
            let each = now
                .iter()
                .map(|(reason, count)| (*reason, count - before.get(reason).copied().unwrap_or_default()));
            each.flat_map(|(reason, count)| (0..count).map(move |_| reason)).collect::<Vec<_>>()
        };
        for reason in more(&now.failed_validations, &before.failed_validations) {
            metrics.validation_failed(reason);
        }
        for reason in more(&now.failures, &before.failures) {
            metrics.disruption_undone(reason);
        }
        (before.timeouts..now.timeouts).for_each(|_| metrics.consolidation_timed_out());
        for reason in before.eligible.keys().chain(now.eligible.keys()) {
            let nodes = now.eligible.get(reason).copied().unwrap_or_default();
            metrics.eligible(reason, u32::try_from(nodes).unwrap_or(u32::MAX));
        }
    }
}

fn launch(claim: &NodeClaim) -> Launch<'_> {
    Launch {
        size: &claim.instance_type,
        zone: &claim.zone,
        capacity_type: claim.capacity_type.as_str(),
        pool: &claim.pool,
    }
}

/// A machine came one step further.
fn condition_set(metrics: &Metrics, machine: &Machine, condition: &Condition, now: Timestamp) {
    let (pool, after) = (machine.claim.pool.as_str(), now.since(machine.claim.created));
    match condition.condition_type {
        "Launched" => metrics.launched(pool, after),
        "Registered" => metrics.registered(pool, after),
        "Initialized" => metrics.initialized(pool, after),
        "Drained" => metrics.drained(pool),
        _ => {}
    }
}

/// The cluster as the engine knows it, and what is known of pods that wait.
pub(super) fn sample(engine: &mut Engine, counted: &Counted, now: Timestamp) -> ClusterSample {
    let allowed: BTreeMap<String, Vec<(&'static str, u64)>> = engine
        .pools()
        .keys()
        .cloned()
        .collect::<Vec<_>>()
        .into_iter()
        .map(|pool| {
            let allowed = engine.allowed_disruptions(&pool);
            (pool, allowed)
        })
        .collect();
    let engine = &*engine;
    let mut requests: BTreeMap<&str, (ResourceList, ResourceList)> = BTreeMap::new();
    for pod in engine.pods().filter(|pod| pod.uses_node()) {
        let Some(node) = pod.node.as_deref() else { continue };
        let (all, daemons) = requests.entry(node).or_default();
        *all += &pod.spec.requests;
        if pod.owner == PodOwner::DaemonSet {
            *daemons += &pod.spec.requests;
        }
    }
    let nodes = engine.nodes().values().map(|node| {
        let (pod_requests, daemon_requests) = requests.remove(&*node.name).unwrap_or_default();
        NodeSample {
            name: Arc::clone(&node.name),
            managed: node.label(karpenter::NODEPOOL).is_some(),
            labels: labels(node),
            allocatable: node.allocatable.clone(),
            capacity: node.capacity.clone(),
            pod_requests,
            daemon_requests,
            age_seconds: now.since(node.created).as_secs(),
        }
    });
    let pools = engine.pools().iter().filter_map(|(name, pool)| {
        let status = engine.pool_status(name)?;
        Some(PoolSample {
            name: name.as_str().into(),
            limits: limits(&pool.limits),
            usage: status.resources,
            nodes: status.nodes,
            allowed_disruptions: allowed.get(name).cloned().unwrap_or_default(),
        })
    });
    let claims = engine.machines().iter().map(|(name, machine)| {
        let node = machine.claim.node.as_ref().and_then(|node| engine.nodes().get(node));
        ClaimSample {
            name: Arc::clone(name),
            pool: machine.claim.pool.as_str().into(),
            instance_type: Arc::clone(&machine.claim.instance_type),
            price: machine.claim.price,
            cheapest: machine.cheapest,
            predicted_memory: machine.bought.allocatable().memory,
            measured_memory: node.map(|node| node.allocatable.memory),
        }
    });
    let pods = engine.pods().take(PODS_SHOWN).map(|pod| PodSample {
        id: pod.id.clone(),
        node: pod.node.clone(),
        phase: match pod.phase {
            PodPhase::Pending => "Pending",
            PodPhase::Running => "Running",
            PodPhase::Finished => "Finished",
        },
    });
    let unstarted = engine.pods().filter(|pod| pod.phase == PodPhase::Pending).take(PODS_SHOWN);
    let waiting = unstarted.map(|pod| {
        let seconds = |at: Timestamp| now.since(at).as_secs_f64();
        let waits = counted.waiting.get(&pod.id);
        let decided =
            waits.map_or_else(|| counted.starting.get(&pod.id).copied().flatten(), |one| one.decided);
        WaitingSample {
            id: pod.id.clone(),
            bound: pod.node.is_some(),
            age: seconds(pod.created),
            decided: decided.map(seconds),
            undecided: waits.filter(|one| one.decided.is_none()).map(|one| seconds(one.seen)),
        }
    });
    ClusterSample {
        pools: pools.collect(),
        nodes: nodes.collect(),
        claims: claims.collect(),
        pods: pods.collect(),
        pods_in_all: engine.pods().count(),
        waiting: waiting.collect(),
        stats: engine.stats().clone(),
    }
}

fn labels(node: &Node) -> NodeLabels {
    let label = |key: &str| node.label(key).unwrap_or_default().to_owned();
    NodeLabels {
        arch: label(kubernetes::ARCH),
        capacity_type: label(karpenter::CAPACITY_TYPE),
        instance_type: label(kubernetes::INSTANCE_TYPE),
        nodepool: label(karpenter::NODEPOOL),
        os: label(kubernetes::OS),
        region: label(kubernetes::REGION),
        zone: label(kubernetes::ZONE),
    }
}

fn limits(limits: &Limits) -> Vec<(String, u64)> {
    let resources = limits.limited.iter().map(|name| (name.clone(), limits.resources.amount(name)));
    resources.chain(limits.nodes.map(|nodes| ("nodes".to_owned(), nodes))).collect()
}
