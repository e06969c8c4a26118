//! Decisions, as small tables: what is bought for whom.

use assay_shared::labels::{karpenter, kubernetes};

use super::testing::*;
use crate::catalog::CapacityType::{OnDemand, Spot};
use crate::model::{
    Limits, NodePool, PodOwner, PreferredTerm, ReasonCode, Rejection, ResourceList, Snapshot, Taint,
    TaintEffect, Toleration, TolerationOperator,
};
use crate::requirement::Requirement;

fn three_zones() -> Snapshot {
    let offered = [("z-1", OnDemand, 1.0), ("z-2", OnDemand, 1.0), ("z-3", OnDemand, 1.0)];
    snapshot(vec![instance_type("only", 4, 16, 110, &offered)], Vec::new())
}

fn zone(value: &str) -> Vec<Requirement> {
    vec![Requirement::is_in(kubernetes::ZONE, [value])]
}

#[test]
fn the_first_or_term_that_can_hold_is_used() {
    let mut input = three_zones();
    let mut spec = spec(100, 100);
    spec.required_affinity = vec![zone("no-1"), zone("no-2"), zone("z-1"), zone("z-2")];
    input.pods = pods("web", 3, &spec);
    let plan = solved(&input);
    assert!(plan.claims.iter().all(|claim| &*claim.zone == "z-1"));
    spec.required_affinity = vec![zone("no-1")];
    input.pods = pods("web", 1, &spec);
    assert_eq!(solved(&input).unschedulable.len(), 1);
}

#[test]
fn the_heaviest_preference_that_can_be_kept_is_kept() {
    let mut input = three_zones();
    let mut spec = spec(100, 100);
    spec.preferred_affinity = [(1, "z-1"), (100, "no"), (50, "z-2")]
        .map(|(weight, value)| PreferredTerm { weight, requirements: zone(value) })
        .to_vec();
    input.pods = pods("web", 2, &spec);
    assert_eq!(&*solved(&input).claims[0].zone, "z-2");
    spec.node_selector = zone("z-3");
    input.pods = pods("web", 2, &spec);
    assert_eq!(&*solved(&input).claims[0].zone, "z-3", "a requirement stands above every preference");
}

#[test]
fn the_cheapest_type_wins_whatever_its_size_and_the_others_are_listed() {
    let types = vec![plain("medium", 2, 8, 3.0), plain("small", 1, 4, 2.0), plain("large", 4, 16, 1.0)];
    let plan = solved(&snapshot(types, pods("web", 1, &spec(100, 100))));
    assert_eq!(bought(&plan), ["large"]);
    let listed: Vec<&str> = plan.claims[0].options.iter().map(|option| &*option.name).collect();
    assert_eq!(listed, ["large", "small", "medium"]);
}

#[test]
fn prices_count_within_the_allowed_capacity_type() {
    let types = vec![
        instance_type("one", 4, 16, 110, &[("z-1", OnDemand, 1.0), ("z-1", Spot, 0.2)]),
        instance_type("two", 4, 16, 110, &[("z-1", OnDemand, 1.3), ("z-1", Spot, 0.1)]),
    ];
    let mut input = snapshot(types, pods("web", 1, &spec(100, 100)));
    assert_eq!((bought(&solved(&input))[0], solved(&input).claims[0].capacity_type), ("two", Spot));
    input.pools[0].requirements = vec![Requirement::is_in(karpenter::CAPACITY_TYPE, ["on-demand"])];
    assert_eq!((bought(&solved(&input))[0], solved(&input).claims[0].capacity_type), ("one", OnDemand));
}

#[test]
fn pod_slots_fill_up_too() {
    let tiny = |name, cores, price| instance_type(name, cores, 4, 5, &[("z-1", OnDemand, price)]);
    let plan =
        solved(&snapshot(vec![tiny("small", 2, 1.0), tiny("large", 8, 4.0)], pods("web", 25, &spec(10, 10))));
    assert_eq!(bought(&plan), ["small"; 5]);
}

#[test]
fn room_that_is_paid_for_is_used_first() {
    let mut input = three_zones();
    input.nodes = vec![node("here", 4, 16, &[(kubernetes::ZONE, "z-2")])];
    let mut near = spec(1000, 1000);
    near.node_selector = vec![Requirement::is_in(kubernetes::ZONE, ["z-1", "z-2"])];
    let mut far = spec(1000, 1000);
    far.node_selector = vec![Requirement::is_in(kubernetes::ZONE, ["z-1", "z-3"])];
    input.pods = vec![pod("near", &near), pod("far", &far)];
    let plan = solved(&input);
    assert_eq!(plan.existing[0].pods[0].name.as_ref(), "near");
    assert_eq!(plan.claims.len(), 1);
}

#[test]
fn a_running_daemon_pod_is_not_counted_twice() {
    let mut input = three_zones();
    input.daemon_sets = vec![daemon_set("agent", &spec(1000, 0))];
    input.nodes = vec![node("here", 4, 16, &[])];
    let mut running = pod("agent-x", &spec(1000, 0));
    (running.owner, running.node) = (PodOwner::DaemonSet, Some("here".into()));
    input.pods = vec![running, pod("web", &spec(3000, 100))];
    assert_eq!(solved(&input).existing.len(), 1);
    input.pods.remove(0);
    input.pods[0].spec = std::sync::Arc::new(spec(3001, 100));
    let plan = solved(&input);
    assert_eq!((plan.existing.len(), plan.unschedulable.len()), (0, 1), "its room is kept until it runs");
}

#[test]
fn only_daemon_sets_that_will_run_there_take_room() {
    let mut input = snapshot(vec![plain("only", 4, 16, 1.0)], pods("web", 1, &spec(4000, 100)));
    let mut elsewhere = spec(1000, 100);
    elsewhere.node_selector = vec![Requirement::is_in(kubernetes::ARCH, ["arm64"])];
    input.daemon_sets = vec![daemon_set("arm", &elsewhere)];
    assert_eq!(solved(&input).claims.len(), 1);
    let mut started = spec(1000, 100);
    started.node_selector = vec![Requirement::is_in(karpenter::INITIALIZED, ["true"])];
    input.daemon_sets = vec![daemon_set("late", &started)];
    assert_eq!(solved(&input).unschedulable[0].reasons[0].reason, ReasonCode::InsufficientResources);
    let mut zonal = spec(1000, 100);
    zonal.node_selector = zone("z-1");
    input.daemon_sets = vec![daemon_set("zonal", &zonal)];
    assert_eq!(&*solved(&input).claims[0].zone, "z-2", "room differs by zone");
}

#[test]
fn a_heavier_pool_is_always_used_first() {
    let mut input = three_zones();
    input.pods = pods("web", 3, &spec(100, 100));
    input.pools = [("none", 0), ("some", 20), ("most", 100)]
        .map(|(name, weight)| NodePool { weight, ..NodePool::with_defaults(name) })
        .to_vec();
    assert!(solved(&input).claims.iter().all(|claim| claim.pool == "most"));
    let mut chosen = spec(100, 100);
    chosen.node_selector = vec![Requirement::is_in(karpenter::NODEPOOL, ["some"])];
    input.pods = pods("web", 1, &chosen);
    assert_eq!(solved(&input).claims[0].pool, "some");
}

#[test]
fn limits_count_whole_machines_and_the_next_pool_takes_the_rest() {
    let limit = |resources: ResourceList, limited: &[&str], nodes| Limits {
        resources,
        limited: limited.iter().map(|name| (*name).to_owned()).collect(),
        nodes,
    };
    let pods = pods("web", 3, &spec(3000, 100));
    let mut input = snapshot(vec![plain("only", 4, 16, 1.0)], pods);
    for (limits, placed) in [
        (limit(needs(4500, 0), &["cpu"], None), 1),
        (limit(needs(3000, 0), &["cpu"], None), 0),
        (limit(ResourceList::default(), &["nvidia.com/gpu"], None), 3),
        (limit(ResourceList::default(), &[], Some(2)), 2),
        (limit(needs(0, 0), &["pods"], None), 0),
    ] {
        input.pools[0].limits = limits;
        let plan = solved(&input);
        assert_eq!(plan.totals.pods, placed);
        assert!(plan.unschedulable.iter().all(|left| left.reasons[0].reason == ReasonCode::LimitExceeded));
    }
    input.pools[0].limits = limit(ResourceList::default(), &[], Some(2));
    input.pools[0].weight = 10;
    input.pools.push(NodePool::with_defaults("second"));
    let plan = solved(&input);
    assert_eq!(plan.claims.iter().filter(|claim| claim.pool == "second").count(), 1);
}

#[test]
fn a_soft_taint_is_the_last_resort() {
    let soft = Taint { key: "k".into(), value: String::new(), effect: TaintEffect::PreferNoSchedule };
    let mut input = three_zones();
    input.pools[0].weight = 10;
    input.pools[0].taints = vec![soft];
    input.pods = pods("web", 1, &spec(100, 100));
    assert_eq!(solved(&input).claims.len(), 1, "nothing else is there");
    input.pools.push(NodePool::with_defaults("clean"));
    assert_eq!(solved(&input).claims[0].pool, "clean");
}

#[test]
fn hard_taints_need_tolerations() {
    let mut input = three_zones();
    input.pools[0].taints =
        vec![Taint { key: "k".into(), value: "v".into(), effect: TaintEffect::NoExecute }];
    let mut spec = spec(100, 100);
    input.pods = pods("web", 1, &spec);
    let reason = &solved(&input).unschedulable[0].reasons[0];
    assert_eq!(
        (reason.reason, reason.detail.as_str()),
        (ReasonCode::TaintNotTolerated, "does not tolerate k=v:NoExecute")
    );
    spec.tolerations = vec![Toleration {
        key: None,
        operator: TolerationOperator::Exists,
        effect: Some(TaintEffect::NoExecute),
    }];
    input.pods = pods("web", 1, &spec);
    assert_eq!(solved(&input).claims.len(), 1);
}

#[test]
fn pods_on_one_machine_agree_on_a_label_with_a_choice() {
    let mut input = three_zones();
    input.pools[0].requirements = vec![Requirement::is_in("team", ["a", "b", "c"])];
    let of = |teams: &[&str]| {
        let mut spec = spec(100, 100);
        spec.node_selector = vec![Requirement::is_in("team", teams.iter().copied())];
        spec
    };
    input.pods = vec![pod("ab", &of(&["a", "b"])), pod("bc", &of(&["b", "c"])), pod("a", &of(&["a"]))];
    let plan = solved(&input);
    assert_eq!(plan.claims.len(), 2);
}

#[test]
fn reasons_name_the_first_constraint_that_fails() {
    let mut input = snapshot(vec![plain("small", 2, 8, 1.0), plain("large", 8, 32, 4.0)], Vec::new());
    let with = |key: &str, value: &str| {
        let mut spec = spec(100, 100);
        spec.node_selector = vec![Requirement::is_in(key, [value])];
        spec
    };
    let mut unsupported = spec(100, 100);
    unsupported.rejections = vec![Rejection {
        reason: ReasonCode::UnsupportedConstraint,
        detail: "spec.topologySpreadConstraints[0]".into(),
    }];
    let cases = [
        (unsupported, ReasonCode::UnsupportedConstraint, "spec.topologySpreadConstraints[0]"),
        (with("team", "a"), ReasonCode::IncompatibleRequirements, "the label is not defined"),
        (
            with("kubernetes.io/arc", "amd64"),
            ReasonCode::IncompatibleRequirements,
            "did you mean kubernetes.io/arch?",
        ),
        (with(kubernetes::ARCH, "arm64"), ReasonCode::NoInstanceType, "kubernetes.io/arch In [arm64]"),
        (
            spec(100, 34 * 1024),
            ReasonCode::InsufficientResources,
            "needs 34 GiB memory, closest allowed type gives 32 GiB: large",
        ),
    ];
    for (spec, code, words) in cases {
        input.pods = pods("web", 1, &spec);
        let plan = solved(&input);
        let reason = &plan.unschedulable[0].reasons[0];
        assert_eq!(reason.reason, code);
        assert!(reason.detail.contains(words), "{}", reason.detail);
    }
    let mut types = vec![plain("only", 2, 8, 1.0)];
    types[0].offerings.iter_mut().for_each(|offering| offering.available = false);
    let gone = solved(&snapshot(types, pods("web", 1, &spec(100, 100))));
    assert_eq!(gone.unschedulable[0].reasons[0].reason, ReasonCode::NoOffering);
    let none = solved(&Snapshot { pods: pods("web", 1, &spec(1, 1)), ..Snapshot::default() });
    assert_eq!(none.unschedulable[0].reasons[0].reason, ReasonCode::NoNodePool);
}

#[test]
fn unlike_pods_get_machines_that_suit_them_together() {
    // A memory machine holds four of the large-memory pods and two of the others exactly; balanced ones waste a core each.
    let types =
        vec![plain("balanced", 4, 16, 0.2), plain("compute", 4, 8, 0.17), plain("memory", 4, 32, 0.26)];
    let mut all = pods("cpu", 100, &spec(1000, 1024));
    all.extend(pods("mem", 40, &spec(500, 7680)));
    let plan = solved(&snapshot(types, all));
    let (price, bound) = (plan.totals.price.usd(), plan.totals.lower_bound.usd());
    assert!(price <= 1.06 * bound, "{price} against a bound of {bound}");
}

/// A limit of machines keeps some pods out: whoever still fits beside others is not.
#[test]
fn room_on_the_last_machine_under_a_limit_is_used() {
    use crate::model::{HostPort, Limits, PodSpec, Protocol};
    let small = plain("small", 2, 2, 0.01);
    let large = plain("large", 7, 14, 0.01);
    // They leave it open which of two teams their machine is of.
    let teams = vec![Requirement::is_in("team", ["a", "b"])];
    let mut all = pods("important", 13, &PodSpec { node_selector: teams, ..spec(50, 3172) });
    all.iter_mut().for_each(|pod| pod.priority = 2);
    let port = HostPort { ip: None, port: 80, protocol: Protocol::Tcp };
    all.extend(pods("port", 4, &PodSpec { host_ports: vec![port], ..spec(50, 4821) }));
    let mut input = snapshot(vec![small, large], all);
    input.pools[0].requirements.push(Requirement::is_in("team", ["a", "b", "c"]));
    input.pools[0].limits = Limits { nodes: Some(5), ..Limits::default() };
    let plan = solved(&input);
    assert_eq!(plan.totals.pods, 15, "{:?}", plan.unschedulable);
}

/// As many machines as pods that keep each other away, of which one needs more of something than the rest.
#[test]
fn pods_that_hold_one_port_get_a_machine_each() {
    use crate::model::{AttachedVolume, HostPort, PodSpec, Protocol};
    let port = HostPort { ip: None, port: 80, protocol: Protocol::Tcp };
    let held = |cpu, mib| PodSpec { host_ports: vec![port.clone()], ..spec(cpu, mib) };
    let mut all = pods("memory", 4, &held(50, 6145));
    all.extend(pods("cpu", 1, &held(2001, 50)));
    let mut input = snapshot(vec![plain("small", 2, 2, 0.01), plain("large", 6, 18, 0.01)], all);
    assert_eq!(solved(&input).totals.nodes, 5);
    for (index, pod) in input.pods.iter_mut().enumerate() {
        let volume = |id: &str| AttachedVolume { driver: "disk".into(), id: id.into() };
        pod.volumes = [volume(&format!("own-{index}")), volume("shared")].into();
    }
    assert_eq!(solved(&input).totals.nodes, 5);
}

#[test]
fn debug_spread() {
    use crate::model::*;
    use crate::requirement::Operator;
    let types = vec![plain("type-0", 2, 10, 0.01), plain("type-1", 2, 2, 0.01)];
    let mut one = spec(50, 3414);
    let select = |app: &str| PodSelector {
        namespaces: Namespaces::only("default"),
        labels: Some(vec![Requirement {
            key: "app".into(),
            operator: Operator::In,
            values: [app.to_owned()].into_iter().collect(),
            min_values: None,
        }]),
    };
    one.topology_spread = vec![TopologySpread {
        topology_key: "team".into(),
        max_skew: 1,
        min_domains: 1,
        selector: select("c"),
        when_unsatisfiable: WhenUnsatisfiable::DoNotSchedule,
        node_affinity_policy: NodeInclusion::Ignore,
        node_taints_policy: NodeInclusion::Ignore,
    }];
    one.preferred_pod_affinity = vec![WeightedPodAffinityTerm {
        weight: 7,
        term: PodAffinityTerm { topology_key: kubernetes::ZONE.into(), selector: select("a") },
    }];
    let mut input = snapshot(types, pods("web", 10, &one));
    for pod in &mut input.pods {
        pod.labels = std::sync::Arc::new([("app".to_owned(), "c".to_owned())].into_iter().collect());
    }
    input.pools[0].requirements = vec![
        Requirement::is_in(karpenter::CAPACITY_TYPE, ["on-demand"]),
        Requirement::is_in("team", ["a", "b", "c"]),
    ];
    input.pools[0].limits = Limits {
        resources: ResourceList { cpu: assay_shared::units::MilliCpu(10000), ..ResourceList::default() },
        limited: vec!["cpu".into()],
        nodes: None,
    };
    input.nodes = vec![node("node-0", 2, 8, &[(kubernetes::ZONE, "z-1")])];
    let mut runs = pod("runs", &spec(50, 50));
    runs.labels = std::sync::Arc::new([("app".to_owned(), "a".to_owned())].into_iter().collect());
    runs.node = Some("node-0".into());
    runs.phase = PodPhase::Running;
    input.pods.push(runs);
    let plan = solved(&input);
    assert_eq!(plan.totals.pods, 8);
}

#[test]
fn debug_volumes() {
    use crate::model::*;
    use crate::requirement::Operator;
    use std::sync::Arc;
    let mut types = vec![plain("type-0", 14, 70, 0.01), plain("type-1", 2, 2, 0.01)];
    types[0].capacity.set_extended(&AttachedVolume::limit_name("disk"), 8);
    types[1].capacity.set_extended(&AttachedVolume::limit_name("disk"), 2);
    let one = PodSpec { node_selector: vec![Requirement::is_in("team", ["b", "c"])], ..spec(50, 50) };
    let mut input = snapshot(types, pods("waits", 26, &one));
    for (n, pod) in input.pods.iter_mut().enumerate() {
        let volume = |id: String| AttachedVolume { driver: "disk".into(), id: id.as_str().into() };
        pod.volumes = vec![volume(format!("{n}-0")), volume("0-1".to_owned())].into();
    }
    input.pools[0].requirements = vec![
        Requirement::is_in("team", ["a", "b"]),
        Requirement {
            operator: Operator::Exists,
            values: Vec::new(),
            min_values: Some(2),
            ..Requirement::is_in(kubernetes::INSTANCE_TYPE, ["x"])
        },
    ];
    input.pools[0].limits = Limits { nodes: Some(4), ..Limits::default() };
    let select = |app: &str| PodSelector {
        namespaces: Namespaces::only("default"),
        labels: Some(vec![Requirement {
            key: "app".into(),
            operator: Operator::In,
            values: [app.to_owned()].into_iter().collect(),
            min_values: None,
        }]),
    };
    let mut zero = PodSpec {
        pod_affinity: vec![PodAffinityTerm { topology_key: "team".into(), selector: select("a") }],
        ..spec(50, 513)
    };
    zero.requests.set_extended("nvidia.com/gpu", 1);
    zero.node_selector = vec![Requirement::is_in("nope", ["x"])];
    input.pods.push(pod("zero", &zero));
    for pod in &mut input.pods {
        pod.labels = Arc::new([("app".to_owned(), "a".to_owned())].into_iter().collect());
    }
    let plan = super::solve(
        &input,
        &crate::solve::SolveOptions { min_values: crate::solve::MinValues::BestEffort, ..Default::default() },
    );
    let bins: Vec<usize> = plan.claims.iter().map(|claim| claim.pods.len()).collect();
    assert_eq!(plan.totals.pods, 26, "{bins:?}");
}
