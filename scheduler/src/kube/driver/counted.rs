//! What the driver counts: effects as they go out, answers as they come in, and the cluster as a sample.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_core::engine::{ConditionStatus, Effect, Engine, Event, EvictionAnswer};
use assay_core::model::{Limits, Node, PodOwner, PodPhase, ResourceList, Timestamp};
use assay_shared::labels::{karpenter, kubernetes};

use crate::web::{
    ClaimSample, ClusterSample, Disruption, Metrics, NodeLabels, NodeSample, PODS_SHOWN, PodSample,
    PoolSample,
};

/// Counts an effect of `engine` that goes out.
pub(super) fn effect(metrics: &Metrics, effect: &Effect, engine: &Engine, now: Timestamp) {
    match effect {
        Effect::CreateInstance { claim } => metrics.claim_created("provisioned", &claim.pool, false),
        Effect::SetClaimCondition { claim, condition } if condition.status == ConditionStatus::True => {
            let Some(machine) = engine.machines().get(claim) else { return };
            let (pool, after) = (machine.claim.pool.as_str(), now.since(machine.claim.created));
            match condition.condition_type {
                "Launched" => metrics.launched(pool, after),
                "Registered" => metrics.registered(pool, after),
                "Initialized" => metrics.initialized(pool, after),
                "Drained" => metrics.drained(pool),
                _ => {}
            }
        }
        Effect::DeleteClaim { claim } => {
            let Some(machine) = engine.machines().get(claim) else { return };
            let reason = machine.leaving.map_or("unknown", assay_core::engine::LeaveReason::as_str);
            metrics.claim_disrupted(Disruption {
                reason,
                pool: &machine.claim.pool,
                capacity_type: machine.claim.capacity_type.as_str(),
                consolidation_policy: "",
                termination_mode: "graceful",
            });
        }
        Effect::ReleaseClaim { claim, .. } => {
            let Some(machine) = engine.machines().get(claim) else { return };
            let took = machine.claim.deleting.map(|at| now.since(at)).unwrap_or_default();
            let pool = &machine.claim.pool;
            metrics.claim_terminated(pool, machine.claim.capacity_type.as_str(), &machine.claim.zone, took);
            if machine.claim.node.is_some() {
                metrics.node_terminated(pool, took, now.since(machine.claim.created));
            }
        }
        _ => {}
    }
}

/// Counts an answer.
pub(super) fn answer(metrics: &Metrics, event: &Event) {
    match event {
        Event::EvictionAnswered { answer, .. } => metrics.eviction_requested(match answer {
            EvictionAnswer::Accepted => 201,
            EvictionAnswer::Gone => 404,
            EvictionAnswer::Refused { .. } => 429,
        }),
        Event::LaunchFailed { error, .. } => {
            let error = error.failure.to_string();
            metrics.cloud_called(
                "nodeclaim.lifecycle",
                "Create",
                "azure",
                std::time::Duration::ZERO,
                Some(&error),
            );
        }
        _ => {}
    }
}

/// The cluster as the engine knows it.
pub(super) fn sample(engine: &Engine, now: Timestamp) -> ClusterSample {
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
            allowed_disruptions: Vec::new(),
        })
    });
    let claims = engine.machines().iter().map(|(name, machine)| {
        let node = machine.claim.node.as_ref().and_then(|node| engine.nodes().get(node));
        ClaimSample {
            name: Arc::clone(name),
            pool: machine.claim.pool.as_str().into(),
            instance_type: Arc::clone(&machine.claim.instance_type),
            price: machine.claim.price,
            cheapest: None,
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
    ClusterSample {
        pools: pools.collect(),
        nodes: nodes.collect(),
        claims: claims.collect(),
        pods: pods.collect(),
        pods_in_all: engine.pods().count(),
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
