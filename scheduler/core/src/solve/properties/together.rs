//! What holds for clusters of hundreds of pods with every kind of constraint between them: spread, affinity and anti-affinity,
//! ports, volumes, gangs, priorities, reservations, `minValues`, limits, and pods that run already.

use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::{constraint, taint};
use crate::catalog::{CapacityType, InstanceType, Reservation};
use crate::engine::labels_of;
use crate::model::{
    AttachedVolume, ClaimState, Gang, GangScope, HostPort, Labels, Limits, Namespaces, NodeClaim,
    NodeInclusion, NodePool, Plan, Pod, PodAffinityTerm, PodPhase, PodSelector, PodSpec, Protocol, Snapshot,
    Timestamp, Toleration, TolerationOperator, TopologySpread, WeightedPodAffinityTerm, WhenUnsatisfiable,
};
use crate::requirement::{Operator, Requirement};
use crate::solve::testing::*;
use crate::solve::{SolveOptions, solve};

const APPS: [&str; 3] = ["a", "b", "c"];

/// Work of the optimiser in these tests: enough to change plans.
pub(super) fn options() -> SolveOptions {
    SolveOptions { steps: 2_000_000, ..SolveOptions::default() }
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

pub(crate) fn kind() -> impl Strategy<Value = Kind> {
    let needs = ((50_u64..4_000, 50_u64..10_000), constraint(), any::<bool>());
    let between = (few(spread()), few(term()), few(term()), few(term()), few(term()));
    let rest = (1_usize..40, 0..APPS.len(), 0_i32..3, 0_u16..12, 0_usize..6, 0_usize..12, 0_usize..3);
    (needs, between, rest).prop_map(|(needs, between, rest)| {
        let ((cpu, mib), node_selector, tolerant) = needs;
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
        let spec = PodSpec {
            node_selector,
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
    let one = (2_u64..33, 1_u64..9, 1_u32..60, any::<(bool, bool)>(), 0_u64..6);
    prop::collection::vec(one, 2..8).prop_map(|list| {
        let build = |(n, (cores, per_core, cents, (spot, third), reserved))| {
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
            built
        };
        list.into_iter().enumerate().map(build).collect()
    })
}

pub(crate) fn clusters() -> impl Strategy<Value = Snapshot> {
    let pool = (0_u32..2, constraint(), any::<(bool, bool)>(), prop::option::of(0_u64..12), 0_u32..12);
    let nodes = prop::collection::vec((2_u64..17, 0_usize..3, kind()), 0..5);
    let kinds = prop::collection::vec(kind(), 1..12);
    (types(), prop::collection::vec(pool, 1..4), kinds, nodes).prop_map(|(types, pools, kinds, nodes)| {
        let mut input = snapshot(types, Vec::new());
        input.pools.clear();
        for (n, (weight, requirements, (labelled, tainted), limit, varied)) in pools.into_iter().enumerate() {
            let mut pool = NodePool { weight, requirements, ..NodePool::with_defaults(&format!("pool-{n}")) };
            if labelled {
                pool.requirements.push(Requirement::is_in("team", ["a", "b", "c"]));
            }
            if tainted {
                pool.taints.push(taint());
            }
            if varied == 1 {
                let any = Requirement {
                    operator: Operator::Exists,
                    values: Vec::new(),
                    min_values: Some(2),
                    ..Requirement::is_in(kubernetes::INSTANCE_TYPE, ["x"])
                };
                pool.requirements.push(any);
            }
            pool.limits = Limits { nodes: limit, ..Limits::default() };
            input.pools.push(pool);
        }
        for (number, kind) in kinds.iter().enumerate() {
            input.pods.extend(of_kind(number, kind, "waits"));
        }
        for (number, (cores, zone, kind)) in nodes.into_iter().enumerate() {
            let name = format!("node-{number}");
            let zone = format!("z-{}", zone + 1);
            let own = [(kubernetes::ZONE, zone.as_str()), (kubernetes::HOSTNAME, name.as_str())];
            input.nodes.push(node(&name, cores, cores * 4, &own));
            // What runs need not have come there by the rules.
            for mut pod in of_kind(number, &Kind { count: 2, gang: None, ..kind }, "runs") {
                pod.node = Some(name.as_str().into());
                pod.phase = PodPhase::Running;
                input.pods.push(pod);
            }
        }
        input
    })
}

/// The cluster once a plan is carried out: machines on their way, pods bound to them.
pub(super) fn after(input: &Snapshot, plan: &Plan) -> Snapshot {
    let mut after = input.clone();
    let mut bind = |pod: &crate::model::PodId, to: &str| {
        let pod = after.pods.iter_mut().find(|one| one.id == *pod).unwrap();
        pod.node = Some(to.into());
        pod.phase = PodPhase::Running;
    };
    for assignment in &plan.existing {
        assignment.pods.iter().for_each(|pod| bind(pod, &assignment.name));
    }
    for planned in &plan.claims {
        planned.pods.iter().for_each(|pod| bind(pod, &planned.name));
    }
    for planned in &plan.claims {
        let pool = input.pools.iter().find(|pool| pool.name == planned.pool).unwrap();
        let types = input.instance_types_of(pool);
        let bought = types.iter().find(|one| one.name == planned.instance_type).unwrap();
        let mut labels = labels_of(pool, bought, &planned.zone, planned.capacity_type);
        labels.insert(kubernetes::HOSTNAME.to_owned(), planned.name.clone());
        for (key, set) in planned.requirements.iter() {
            if let Some(value) = set.finite().and_then(|values| values.first()) {
                labels.entry(key.to_owned()).or_insert_with(|| value.clone());
            }
        }
        after.node_claims.push(NodeClaim {
            name: planned.name.as_str().into(),
            pool: planned.pool.clone(),
            node_class: pool.node_class.clone(),
            instance_type: Arc::clone(&planned.instance_type),
            zone: Arc::clone(&planned.zone),
            capacity_type: planned.capacity_type,
            price: planned.price,
            requirements: planned.requirements.clone(),
            requests: planned.requests.clone(),
            capacity: bought.capacity.clone(),
            allocatable: bought.allocatable(),
            labels,
            annotations: Labels::new(),
            taints: pool.taints.clone(),
            startup_taints: Vec::new(),
            termination_grace_period: None,
            template_hash: None,
            state: ClaimState::Launched,
            since: Timestamp(0),
            created: Timestamp(0),
            provider_id: None,
            node: None,
            deleting: None,
            terminate_by: None,
            disruption_reason: None,
        });
    }
    after
}

/// The same cases every time, unless `PROPTEST_RNG_SEED` says otherwise; `PROPTEST_CASES` looks further.
pub(crate) fn config() -> ProptestConfig {
    let mut config = ProptestConfig::default();
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

/// A cluster and its plan in few lines, for who has to find out what went wrong.
pub(super) fn summary(input: &Snapshot, plan: &Plan) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for pool in &input.pools {
        let asks: Vec<String> = pool.requirements.iter().map(ToString::to_string).collect();
        let (name, limit) = (&pool.name, pool.limits.nodes);
        let _ = writeln!(text, "{name} weight {} nodes {limit:?} {asks:?} {:?}", pool.weight, pool.taints);
    }
    for one in input.instance_types.values().flat_map(|types| types.iter()) {
        let offered = one.offerings.iter().map(|o| format!("{} {} {}", o.zone, o.capacity_type, o.price));
        let offered: Vec<String> = offered.collect();
        let _ = writeln!(text, "{} {:?} {offered:?}", one.name, one.capacity);
    }
    for node in &input.nodes {
        let _ = writeln!(text, "{} {:?} {:?}", node.name, node.allocatable, node.labels);
    }
    let mut seen: Vec<&PodSpec> = Vec::new();
    for pod in &input.pods {
        if !seen.contains(&&*pod.spec) {
            seen.push(&pod.spec);
            let count = input.pods.iter().filter(|other| other.spec == pod.spec).count();
            let (id, app, at) = (&pod.id, &pod.labels, &pod.node);
            let _ =
                writeln!(text, "{count} x {id} {app:?} priority {} on {at:?} {:?}", pod.priority, pod.spec);
        }
    }
    let names = |pods: &[crate::model::PodId]| pods.iter().map(|id| id.name.to_string()).collect::<Vec<_>>();
    for claim in &plan.claims {
        let (name, size, zone) = (&claim.name, &claim.instance_type, &claim.zone);
        let _ = writeln!(text, "-> {name} {size} {zone} {} {:?}", claim.capacity_type, names(&claim.pods));
    }
    for one in &plan.existing {
        let _ = writeln!(text, "-> {} {:?}", one.name, names(&one.pods));
    }
    for left in &plan.unschedulable {
        let why: Vec<&str> = left.reasons.iter().map(|reason| reason.detail.as_str()).collect();
        let _ = writeln!(text, "left out {} {why:?}", left.pod.name);
    }
    text
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_plan_passes_the_check(input in clusters()) {
        let plan = solve(&input, &options());
        if let Err(violations) = crate::check::check(&input, &plan) {
            prop_assert!(false, "{}", violations[0]);
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_show(input in clusters(), turn in 0_usize..200) {
        let plan = solve(&input, &options());
        let mut turned = input;
        let count = turned.pods.len();
        turned.pods.rotate_left(turn % count);
        turned.pools.reverse();
        turned.nodes.reverse();
        prop_assert_eq!(solve(&turned, &options()), plan);
    }

    /// Gangs apart, which are placed together or not at all, and pods that must be with or without others, limits and
    /// reservations, under which it is a matter of who comes first.
    #[test]
    fn nobody_is_left_out_for_whom_there_is_room(input in clusters()) {
        let mut input = input;
        for pod in &mut input.pods {
            pod.gang = None;
            let mut spec =
                PodSpec { pod_affinity: Vec::new(), pod_anti_affinity: Vec::new(), ..(*pod.spec).clone() };
            // A plan keeps everybody to the spread of those on the same new machine, for nobody knows who is bound first.
            spec.topology_spread.retain(|spread| spread.topology_key != kubernetes::HOSTNAME);
            pod.spec = Arc::new(spec);
        }
        for pool in &mut input.pools {
            pool.limits = Limits::default();
            pool.requirements.iter_mut().for_each(|one| one.min_values = None);
        }
        for types in input.instance_types.values_mut() {
            for one in Arc::make_mut(types) {
                one.offerings.retain(|offering| offering.reservation.is_none());
            }
        }
        let plan = solve(&input, &options());
        let mut after = after(&input, &plan);
        let waiting: Vec<Pod> = after.pods.iter().filter(|pod| pod.is_pending()).cloned().collect();
        after.pods.retain(|pod| !pod.is_pending());
        let mut asked: Vec<(&PodSpec, &Labels)> = Vec::new();
        for pod in &waiting {
            if asked.contains(&(&*pod.spec, &*pod.labels)) {
                continue;
            }
            asked.push((&pod.spec, &pod.labels));
            after.pods.push(pod.clone());
            let alone = solve(&after, &options());
            after.pods.pop();
            let all = summary(&input, &plan);
            prop_assert_eq!(alone.totals.pods, 0, "{} could be placed: {}\n{}", pod.id, summary(&after, &alone), all);
        }
    }
}
