//! Clusters of hundreds of pods with every kind of constraint between them: spread, affinity and anti-affinity, ports, volumes,
//! gangs, priorities, GPUs, reservations, `minValues`, limits, taints, DaemonSets, and pods that run already.

use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::MilliCpu;
use proptest::prelude::*;

use super::{constraint, taint};
use crate::catalog::{CapacityType, InstanceType, Reservation};
use crate::model::{
    AttachedVolume, Gang, GangScope, HostPort, Labels, Limits, Namespaces, NodeInclusion, NodePool, Pod,
    PodAffinityTerm, PodPhase, PodSelector, PodSpec, PreferredTerm, Protocol, ResourceList, Snapshot, Taint,
    TaintEffect, Toleration, TolerationOperator, TopologySpread, WeightedPodAffinityTerm, WhenUnsatisfiable,
};
use crate::requirement::{Operator, Requirement};
use crate::solve::testing::*;
use crate::solve::{MinValues, SolveOptions};

const APPS: [&str; 3] = ["a", "b", "c"];

const GPU: &str = "nvidia.com/gpu";

/// Work of the optimiser in these tests: enough to change plans.
pub(super) fn options() -> impl Strategy<Value = SolveOptions> {
    prop::sample::select(vec![MinValues::Strict, MinValues::BestEffort]).prop_map(|min_values| SolveOptions {
        steps: 2_000_000,
        min_values,
        ..SolveOptions::default()
    })
}

fn selector(app: usize) -> PodSelector {
    PodSelector {
        namespaces: Namespaces::only("default"),
        labels: Some(vec![Requirement::is_in("app", [APPS[app]])]),
    }
}

fn labels(app: usize) -> Arc<Labels> {
    Arc::new(Labels::from([("app".to_owned(), APPS[app].to_owned())]))
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![kubernetes::ZONE, kubernetes::HOSTNAME, karpenter::CAPACITY_TYPE, "team"])
}

fn spread() -> impl Strategy<Value = TopologySpread> {
    (key(), 1_u32..4, 1_u32..4, 0..APPS.len(), any::<(bool, bool, bool)>()).prop_map(
        |(key, max_skew, min_domains, app, (hard, affinity, taints))| {
            let policy = |honour| if honour { NodeInclusion::Honor } else { NodeInclusion::Ignore };
            TopologySpread {
                topology_key: key.to_owned(),
                max_skew,
                min_domains: if hard { min_domains } else { 1 },
                selector: selector(app),
                when_unsatisfiable: if hard {
                    WhenUnsatisfiable::DoNotSchedule
                } else {
                    WhenUnsatisfiable::ScheduleAnyway
                },
                node_affinity_policy: policy(affinity),
                node_taints_policy: policy(taints),
            }
        },
    )
}

fn term() -> impl Strategy<Value = PodAffinityTerm> {
    (key(), 0..APPS.len())
        .prop_map(|(key, app)| PodAffinityTerm { topology_key: key.to_owned(), selector: selector(app) })
}

fn few<S: Strategy + 'static>(one: S) -> impl Strategy<Value = Vec<S::Value>>
where
    S::Value: Clone,
{
    prop_oneof![4 => Just(0_usize), 1 => Just(1)].prop_flat_map({
        let one = one.boxed();
        move |count| prop::collection::vec(one.clone(), count)
    })
}

/// Pods of one kind: how many, of which application, of what priority; with how many volumes each, and of which gang.
#[derive(Debug, Clone)]
pub(crate) struct Kind {
    pub(crate) spec: PodSpec,
    pub(crate) count: usize,
    pub(crate) app: usize,
    pub(crate) priority: i32,
    pub(crate) volumes: usize,
    pub(crate) gang: Option<bool>,
}

/// Terms of which any will do, and preferred ones.
fn alternatives() -> impl Strategy<Value = (Vec<Vec<Requirement>>, Vec<PreferredTerm>)> {
    let term = || few(constraint());
    (term(), term(), term()).prop_map(|(one, other, preferred)| {
        let preferred = preferred.into_iter().map(|requirements| PreferredTerm { weight: 3, requirements });
        (one.into_iter().chain(other).collect(), preferred.collect())
    })
}

pub(crate) fn kind() -> impl Strategy<Value = Kind> {
    let needs = ((50_u64..4_000, 50_u64..10_000, 0_u64..12), constraint(), alternatives(), any::<bool>());
    let between = (few(spread()), few(term()), few(term()), few(term()), few(term()));
    let rest = (1_usize..40, 0..APPS.len(), 0_i32..3, 0_u16..12, 0_usize..6, 0_usize..12, 0_usize..3);
    (needs, between, rest).prop_map(|(needs, between, rest)| {
        let ((cpu, mib, gpus), node_selector, (required_affinity, preferred_affinity), tolerant) = needs;
        let (topology_spread, pod_affinity, pod_anti_affinity, liked, disliked) = between;
        let (count, app, priority, port, volumes, gang, zone) = rest;
        let weighted = |list: Vec<PodAffinityTerm>| {
            list.into_iter().map(|term| WeightedPodAffinityTerm { weight: 7, term }).collect()
        };
        let tolerations = if tolerant {
            vec![Toleration { key: None, operator: TolerationOperator::Exists, effect: None }]
        } else {
            Vec::new()
        };
        let host_ports = (port == 0).then_some(HostPort { ip: None, port: 80, protocol: Protocol::Tcp });
        // A disk that exists is in one zone.
        let in_zone = (volumes == 1 && zone < 2)
            .then(|| vec![vec![Requirement::is_in(kubernetes::ZONE, [format!("z-{}", zone + 1)])]]);
        // Which machines count would hang on a label that pods choose, and no plan is as tight as the cluster after it.
        let chooses =
            |list: &Vec<Requirement>| list.iter().any(|one| one.key == "team" && !one.values.is_empty());
        let mut topology_spread = topology_spread;
        if chooses(&node_selector) || required_affinity.iter().any(chooses) {
            topology_spread.iter_mut().for_each(|one| one.node_affinity_policy = NodeInclusion::Ignore);
        }
        let mut spec = PodSpec {
            node_selector,
            required_affinity,
            preferred_affinity,
            tolerations,
            topology_spread,
            pod_affinity,
            pod_anti_affinity,
            preferred_pod_affinity: weighted(liked),
            preferred_pod_anti_affinity: weighted(disliked),
            host_ports: host_ports.into_iter().collect(),
            volume_topology: in_zone.into_iter().collect(),
            ..spec(cpu, mib)
        };
        if let 1..=2 = gpus {
            spec.requests.set_extended(GPU, gpus);
        }
        let volumes = if volumes < 3 { volumes } else { 0 };
        let gang = (gang < 2).then_some(gang == 0);
        Kind { spec, count: if port == 0 { count.min(4) } else { count }, app, priority, volumes, gang }
    })
}

pub(crate) fn of_kind(number: usize, kind: &Kind, name: &str) -> Vec<Pod> {
    let gang = kind.gang.map(|in_zone| {
        Arc::new(Gang {
            id: format!("default/gang-{number}").into(),
            min_member: u32::try_from(kind.count / 2 + 1).unwrap(),
            scope: if in_zone { GangScope::Zone } else { GangScope::Cluster },
        })
    });
    let mut pods = pods(&format!("{name}-{number}"), kind.count, &kind.spec);
    let shared = Arc::new(kind.spec.clone());
    for (index, pod) in pods.iter_mut().enumerate() {
        pod.spec = Arc::clone(&shared);
        pod.labels = labels(kind.app);
        pod.priority = kind.priority;
        pod.gang.clone_from(&gang);
        let volume = |n: usize| AttachedVolume {
            driver: "disk".into(),
            id: format!("{name}-{number}-{}-{n}", if n == 0 { index } else { 0 }).into(),
        };
        pod.volumes = (0..kind.volumes).map(volume).collect();
    }
    pods
}

fn types() -> impl Strategy<Value = Vec<InstanceType>> {
    let one = (2_u64..33, 1_u64..9, 1_u32..60, any::<(bool, bool)>(), 0_u64..6, 0_u64..6);
    prop::collection::vec(one, 2..8).prop_map(|list| {
        let build = |(n, (cores, per_core, cents, (spot, third), reserved, gpus))| {
            let price = f64::from(cents) / 100.0;
            let mut offered =
                vec![("z-1", CapacityType::OnDemand, price), ("z-2", CapacityType::OnDemand, price * 1.1)];
            if third {
                offered.push(("z-3", CapacityType::OnDemand, price));
            }
            if spot {
                offered.push(("z-2", CapacityType::Spot, price * 0.3));
            }
            if reserved == 1 {
                offered.push(("z-1", CapacityType::Reserved, 0.0));
            }
            let mut built = instance_type(&format!("type-{n}"), cores, cores * per_core, 30, &offered);
            for offering in
                built.offerings.iter_mut().filter(|one| one.capacity_type == CapacityType::Reserved)
            {
                offering.reservation = Some(Reservation { id: format!("r-{n}").into(), remaining: 2 });
            }
            if cores % 2 == 0 {
                built.capacity.set_extended(&AttachedVolume::limit_name("disk"), 1 + cores / 2);
            }
            if gpus < 2 {
                built.capacity.set_extended(GPU, 4_u64 << gpus);
            }
            built
        };
        list.into_iter().enumerate().map(build).collect()
    })
}

/// Limits of a pool: of nodes, CPU or GPUs, or of nothing.
fn limits() -> impl Strategy<Value = Limits> {
    (0_u32..8, 0_u64..12).prop_map(|(of, most)| {
        let limited =
            |name: &str, resources| Limits { resources, limited: vec![name.to_owned()], nodes: None };
        let mut gpus = ResourceList::default();
        gpus.set_extended(GPU, most);
        match of {
            0 | 1 => Limits { nodes: Some(most), ..Limits::default() },
            2 | 3 => limited("cpu", ResourceList { cpu: MilliCpu(most * 10_000), ..ResourceList::default() }),
            4 => limited(GPU, gpus),
            5 => {
                let cpu =
                    limited("cpu", ResourceList { cpu: MilliCpu(most * 20_000), ..ResourceList::default() });
                Limits { nodes: Some(1 + most), ..cpu }
            }
            _ => Limits::default(),
        }
    })
}

fn pools() -> impl Strategy<Value = Vec<NodePool>> {
    let one = (0_u32..2, constraint(), any::<bool>(), 0_u32..4, limits(), 0_u32..12);
    prop::collection::vec(one, 1..4).prop_map(|list| {
        let build = |(n, (weight, requirements, labelled, tainted, limits, varied))| {
            let mut pool =
                NodePool { weight, requirements, limits, ..NodePool::with_defaults(&format!("pool-{n}")) };
            if labelled {
                pool.requirements.push(Requirement::is_in("team", ["a", "b", "c"]));
            }
            match tainted {
                0 => pool.taints.push(taint()),
                1 => pool.taints.push(Taint { effect: TaintEffect::PreferNoSchedule, ..taint() }),
                _ => {}
            }
            if varied < 2 {
                let any = Requirement {
                    operator: Operator::Exists,
                    values: Vec::new(),
                    min_values: Some(2 + varied),
                    ..Requirement::is_in(kubernetes::INSTANCE_TYPE, ["x"])
                };
                pool.requirements.push(any);
            }
            pool
        };
        list.into_iter().enumerate().map(build).collect()
    })
}

pub(crate) fn clusters() -> impl Strategy<Value = Snapshot> {
    let nodes = prop::collection::vec((2_u64..17, 0_usize..3, 0_u32..4, kind()), 0..5);
    let daemons = prop::collection::vec((1_u64..500, constraint(), 0_u32..6), 0..3);
    let kinds = prop::collection::vec(kind(), 1..12);
    (types(), pools(), kinds, nodes, daemons).prop_map(|(types, pools, kinds, nodes, daemons)| {
        let mut input = snapshot(types, Vec::new());
        input.pools = pools;
        for (number, kind) in kinds.iter().enumerate() {
            input.pods.extend(of_kind(number, kind, "waits"));
        }
        for (number, (cores, zone, tainted, kind)) in nodes.into_iter().enumerate() {
            let name = format!("node-{number}");
            let zone = format!("z-{}", zone + 1);
            let own = [(kubernetes::ZONE, zone.as_str()), (kubernetes::HOSTNAME, name.as_str())];
            let mut node = node(&name, cores, cores * 4, &own);
            if tainted == 0 {
                node.taints.push(taint());
            }
            input.nodes.push(node);
            // What runs need not have come there by the rules.
            for mut pod in of_kind(number, &Kind { count: 2, gang: None, ..kind }, "runs") {
                pod.node = Some(name.as_str().into());
                pod.phase = PodPhase::Running;
                input.pods.push(pod);
            }
        }
        for (n, (cpu, mut node_selector, port)) in daemons.into_iter().enumerate() {
            // One that asks for a label that pods choose is counted wherever a pool leaves it open, as Karpenter does: no plan
            // is as tight as the cluster after it.
            node_selector.retain(|one| one.key != "team" || one.operator == Operator::DoesNotExist);
            let host_ports = (port == 0).then_some(HostPort { ip: None, port: 80, protocol: Protocol::Tcp });
            let spec =
                PodSpec { node_selector, host_ports: host_ports.into_iter().collect(), ..spec(cpu, 100) };
            input.daemon_sets.push(daemon_set(&format!("daemon-{n}"), &spec));
        }
        input
    })
}
