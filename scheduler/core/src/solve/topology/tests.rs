//! Constraints between pods, as tables: who ends where.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};

use crate::catalog::CapacityType::{OnDemand, Spot};
use crate::model::{
    Gang, GangScope, HostPort, Labels, Limits, Namespaces, Node, NodeInclusion, NodePool, Plan, Pod,
    PodAffinityTerm, PodPhase, PodSelector, PodSpec, Protocol, ReasonCode, ResourceList, Snapshot,
    TopologySpread, WeightedPodAffinityTerm, WhenUnsatisfiable,
};
use crate::requirement::Requirement;
use crate::solve::testing::*;

const ZONES: [&str; 3] = ["z-1", "z-2", "z-3"];

fn three_zones(slots: u64) -> Snapshot {
    let offered = ZONES.map(|zone| (zone, OnDemand, 1.0));
    snapshot(vec![instance_type("only", 4, 16, slots, &offered)], Vec::new())
}

fn selector(app: &str) -> PodSelector {
    PodSelector {
        namespaces: Namespaces::only("default"),
        labels: Some(vec![Requirement::is_in("app", [app])]),
    }
}

fn spread(key: &str, max_skew: u32, app: &str) -> TopologySpread {
    TopologySpread {
        topology_key: key.to_owned(),
        max_skew,
        min_domains: 1,
        selector: selector(app),
        when_unsatisfiable: WhenUnsatisfiable::DoNotSchedule,
        node_affinity_policy: NodeInclusion::Honor,
        node_taints_policy: NodeInclusion::Ignore,
    }
}

fn term(key: &str, app: &str) -> PodAffinityTerm {
    PodAffinityTerm { topology_key: key.to_owned(), selector: selector(app) }
}

fn labelled(mut pods: Vec<Pod>, app: &str) -> Vec<Pod> {
    let labels: Arc<Labels> = Arc::new(Labels::from([("app".to_owned(), app.to_owned())]));
    for pod in &mut pods {
        pod.labels = Arc::clone(&labels);
    }
    pods
}

fn app(name: &str, count: usize, spec: &PodSpec) -> Vec<Pod> {
    labelled(pods(name, count, spec), name)
}

/// Pods of names that start so, by zone of the claim or node they are on.
fn by_zone(input: &Snapshot, plan: &Plan, name: &str) -> BTreeMap<String, usize> {
    let mut zones = BTreeMap::new();
    let placed = plan.claims.iter().map(|claim| (claim.zone.to_string(), &claim.pods));
    let node_zone = |node: &str| {
        let node = input.nodes.iter().find(|one| &*one.name == node).unwrap();
        node.labels[kubernetes::ZONE].clone()
    };
    for (zone, pods) in placed.chain(plan.existing.iter().map(|one| (node_zone(&one.name), &one.pods))) {
        let count = pods.iter().filter(|pod| pod.name.starts_with(name)).count();
        if count > 0 {
            *zones.entry(zone).or_default() += count;
        }
    }
    zones
}

fn counts(input: &Snapshot, plan: &Plan, name: &str) -> Vec<usize> {
    let mut counts: Vec<usize> = by_zone(input, plan, name).into_values().collect();
    counts.sort_unstable();
    counts
}

fn node_in(zone: &str, name: &str) -> Node {
    node(name, 4, 16, &[(kubernetes::ZONE, zone)])
}

fn running(mut pods: Vec<Pod>, node: &str) -> Vec<Pod> {
    for pod in &mut pods {
        pod.node = Some(node.into());
        pod.phase = PodPhase::Running;
    }
    pods
}

#[test]
fn pods_spread_over_zones_as_evenly_as_they_can() {
    for (count, expected) in [(1, vec![1]), (2, vec![1, 1]), (11, vec![3, 4, 4]), (12, vec![4, 4, 4])] {
        let mut input = three_zones(110);
        let mut spec = spec(100, 100);
        spec.topology_spread = vec![spread(kubernetes::ZONE, 1, "web")];
        input.pods = app("web", count, &spec);
        let plan = solved(&input);
        assert_eq!(counts(&input, &plan, "web"), expected);
        assert_eq!(plan.claims.len(), expected.len());
    }
}

#[test]
fn running_pods_count_and_a_domain_that_cannot_grow_still_counts() {
    // zone-1 and zone-2 hold one each and only zone-3 can be bought: 1 + 5 there, the rest waits.
    let offered = [("z-3", OnDemand, 1.0)];
    let mut input = snapshot(vec![instance_type("only", 16, 64, 110, &offered)], Vec::new());
    let mut spec = spec(100, 100);
    spec.topology_spread = vec![spread(kubernetes::ZONE, 5, "web")];
    for zone in ["z-1", "z-2"] {
        let mut node = node_in(zone, zone);
        node.allocatable = needs(0, 0);
        input.nodes.push(node);
        input.pods.extend(running(labelled(pods(&format!("run-{zone}"), 1, &spec), "web"), zone));
    }
    input.pods.extend(app("web", 10, &spec));
    let plan = solved(&input);
    assert_eq!(by_zone(&input, &plan, "web"), BTreeMap::from([("z-3".to_owned(), 6)]));
    assert_eq!(plan.unschedulable.len(), 4);
    assert_eq!(plan.unschedulable[0].reasons[0].reason, ReasonCode::TopologyConstraint);
}

#[test]
fn too_few_domains_count_as_an_empty_one() {
    let mut input = three_zones(110);
    let mut spec = spec(100, 100);
    let two = Requirement::is_in(kubernetes::ZONE, ["z-1", "z-2"]);
    spec.topology_spread = vec![TopologySpread { min_domains: 3, ..spread(kubernetes::ZONE, 1, "web") }];
    spec.node_selector = vec![two];
    input.pods = app("web", 3, &spec);
    let plan = solved(&input);
    assert_eq!(counts(&input, &plan, "web"), [1, 1]);
    assert_eq!(plan.unschedulable.len(), 1);
    let fix = plan.unschedulable[0].reasons[0].fix.as_deref();
    assert_eq!(fix, Some("raise maxSkew over topology.kubernetes.io/zone to 2"));
}

#[test]
fn a_pool_at_its_limit_still_has_its_domain() {
    let mut input = three_zones(110);
    let pool = |name: &str, zones: &[&str]| NodePool {
        requirements: vec![Requirement::is_in(kubernetes::ZONE, zones.to_vec())],
        ..NodePool::with_defaults(name)
    };
    let closed = Limits { limited: vec!["cpu".to_owned()], resources: ResourceList::default(), nodes: None };
    input.pools = vec![pool("a", &["z-1", "z-2"]), NodePool { limits: closed, ..pool("b", &["z-3"]) }];
    let mut spec = spec(100, 100);
    spec.topology_spread = vec![spread(kubernetes::ZONE, 1, "web")];
    input.pods = app("web", 10, &spec);
    let plan = solved(&input);
    assert_eq!(counts(&input, &plan, "web"), [1, 1]);
    assert_eq!(plan.unschedulable.len(), 8);
}

#[test]
fn a_limit_that_binds_leaves_the_rest_in_balance() {
    let mut input = three_zones(110);
    // Four machines of four cores; each pod fills half a machine.
    input.pools[0].limits =
        Limits { limited: Vec::new(), resources: ResourceList::default(), nodes: Some(4) };
    let mut spec = spec(2000, 100);
    spec.topology_spread = vec![spread(kubernetes::ZONE, 1, "web")];
    input.pods = app("web", 20, &spec);
    let plan = solved(&input);
    let counts = counts(&input, &plan, "web");
    assert!(counts.iter().sum::<usize>() >= 6, "{counts:?}");
    assert!(counts.last().unwrap() - counts.first().unwrap() <= 1 && counts.len() == 3, "{counts:?}");
}

#[test]
fn spread_over_capacity_types_and_over_labels_of_pools() {
    let offered = [("z-1", OnDemand, 1.0), ("z-1", Spot, 0.3)];
    let mut input = snapshot(vec![instance_type("only", 4, 16, 110, &offered)], Vec::new());
    let mut spec = spec(100, 100);
    spec.topology_spread = vec![spread(karpenter::CAPACITY_TYPE, 1, "web")];
    input.pods = app("web", 4, &spec);
    let plan = solved(&input);
    let spot: usize =
        plan.claims.iter().filter(|claim| claim.capacity_type == Spot).map(|claim| claim.pods.len()).sum();
    assert_eq!((spot, plan.totals.pods), (2, 4));

    let racks = Requirement::is_in("example.com/rack", ["a", "b"]);
    let mut input = three_zones(110);
    input.pools[0].requirements = vec![racks];
    spec.topology_spread = vec![spread("example.com/rack", 1, "web")];
    input.pods = app("web", 6, &spec);
    let plan = solved(&input);
    assert_eq!(plan.claims.iter().map(|claim| claim.pods.len()).collect::<Vec<_>>(), [3, 3]);
}

#[test]
fn pods_that_want_to_be_together_are() {
    let mut input = three_zones(2);
    let mut spec = spec(100, 100);
    spec.pod_affinity = vec![term(kubernetes::ZONE, "web")];
    input.pods = app("web", 7, &spec);
    let plan = solved(&input);
    assert_eq!(counts(&input, &plan, "web"), [7]);

    // A follower goes where its leader runs, and nowhere where there is none.
    let mut input = three_zones(110);
    spec.pod_affinity = vec![term(kubernetes::ZONE, "leader")];
    input.pods = app("web", 2, &spec);
    assert_eq!(solved(&input).unschedulable.len(), 2);
    let mut node = node_in("z-2", "n");
    node.allocatable = needs(0, 0);
    input.nodes = vec![node];
    input.pods.extend(running(labelled(pods("boss", 1, &PodSpec::default()), "leader"), "n"));
    assert_eq!(by_zone(&input, &solved(&input), "web"), BTreeMap::from([("z-2".to_owned(), 2)]));

    // Both new: together, whichever comes first.
    let mut input = three_zones(110);
    input.pods = app("web", 2, &spec);
    input.pods.extend(app("leader", 2, &crate::solve::testing::spec(50, 50)));
    let plan = solved(&input);
    assert!(plan.unschedulable.is_empty());
    let (web, leader) = (by_zone(&input, &plan, "web"), by_zone(&input, &plan, "leader"));
    assert!(web.keys().all(|zone| leader.contains_key(zone)), "{web:?} {leader:?}");
}

#[test]
fn pods_that_want_to_be_apart_are_in_one_decision() {
    let mut input = three_zones(110);
    let mut spec = spec(100, 100);
    spec.pod_anti_affinity = vec![term(kubernetes::ZONE, "web")];
    input.pods = app("web", 4, &spec);
    let plan = solved(&input);
    assert_eq!(counts(&input, &plan, "web"), [1, 1, 1]);
    assert_eq!(plan.unschedulable.len(), 1);
}

#[test]
fn those_that_run_keep_others_away() {
    let mut input = three_zones(110);
    let mut averse = spec(100, 100);
    averse.pod_anti_affinity = vec![term(kubernetes::ZONE, "web")];
    for zone in ZONES {
        let mut node = node_in(zone, zone);
        node.allocatable = needs(0, 0);
        input.nodes.push(node);
        input.pods.extend(running(labelled(pods(&format!("run-{zone}"), 1, &averse), "other"), zone));
    }
    input.pods.extend(app("web", 1, &spec(100, 100)));
    assert_eq!(solved(&input).unschedulable.len(), 1);
    for pod in &mut input.pods {
        let spec = Arc::make_mut(&mut pod.spec);
        let preferred = spec.pod_anti_affinity.drain(..);
        spec.preferred_pod_anti_affinity =
            preferred.map(|term| WeightedPodAffinityTerm { weight: 1, term }).collect();
    }
    assert!(solved(&input).unschedulable.is_empty(), "a preference of others binds nobody");
}

#[test]
fn a_preference_gives_way_pod_by_pod() {
    let mut input = three_zones(110);
    let mut spec = spec(100, 100);
    spec.preferred_pod_anti_affinity =
        vec![WeightedPodAffinityTerm { weight: 1, term: term(kubernetes::ZONE, "web") }];
    input.pods = app("web", 5, &spec);
    let plan = solved(&input);
    assert!(plan.unschedulable.is_empty());
    assert_eq!(by_zone(&input, &plan, "web").len(), 3, "three could have it, the others could not");
}

#[test]
fn existing_room_in_the_right_domain_is_used_first() {
    let mut input = three_zones(110);
    input.nodes = vec![node_in("z-1", "n")];
    let mut spec = spec(100, 100);
    spec.topology_spread = vec![spread(kubernetes::ZONE, 1, "web")];
    input.pods = app("web", 9, &spec);
    let plan = solved(&input);
    assert_eq!(counts(&input, &plan, "web"), [3, 3, 3]);
    assert_eq!(plan.existing[0].pods.len(), 3);
    assert_eq!(plan.claims.len(), 2);
}

#[test]

fn hosts_are_shared_by_as_many_as_their_rules_allow() {
    type Constrain = Box<dyn Fn(&mut PodSpec)>;
    let cases: [(&str, Constrain, usize); 4] = [
        ("spread", Box::new(|spec| spec.topology_spread = vec![spread(kubernetes::HOSTNAME, 2, "web")]), 3),
        ("apart", Box::new(|spec| spec.pod_anti_affinity = vec![term(kubernetes::HOSTNAME, "web")]), 6),
        (
            "ports",
            Box::new(|spec| {
                spec.host_ports = vec![HostPort { ip: None, port: 80, protocol: Protocol::Tcp }];
            }),
            6,
        ),
        ("free", Box::new(|_| {}), 1),
    ];
    for (what, constrain, nodes) in cases {
        let mut input = three_zones(110);
        let mut spec = spec(100, 100);
        constrain(&mut spec);
        input.pods = app("web", 6, &spec);
        let plan = solved(&input);
        assert_eq!((plan.claims.len(), plan.unschedulable.len()), (nodes, 0), "{what}");
    }
}

#[test]

fn two_workloads_that_spread_by_themselves_share_hosts() {
    let mut input = three_zones(110);
    for name in ["one", "two"] {
        let mut spec = spec(100, 100);
        spec.topology_spread = vec![spread(kubernetes::HOSTNAME, 1, name)];
        input.pods.extend(app(name, 2, &spec));
    }
    assert_eq!(solved(&input).claims.len(), 2);
}

#[test]

fn pods_bound_to_one_host_fill_one_and_the_rest_waits() {
    let mut input = three_zones(5);
    let mut spec = spec(100, 100);
    spec.pod_affinity = vec![term(kubernetes::HOSTNAME, "web")];
    input.pods = app("web", 10, &spec);
    let plan = solved(&input);
    assert_eq!((plan.claims.len(), plan.totals.pods, plan.unschedulable.len()), (1, 5, 5));
}

#[test]
fn a_gang_is_placed_wholly_or_not_at_all() {
    for (room, scope, placed) in
        [(3, GangScope::Cluster, 0), (4, GangScope::Cluster, 4), (4, GangScope::Zone, 4)]
    {
        let mut input = three_zones(110);
        input.pools[0].limits =
            Limits { limited: Vec::new(), resources: ResourceList::default(), nodes: Some(room) };
        let gang = Arc::new(Gang { id: "default/train".into(), min_member: 4, scope });
        input.pods = app("train", 4, &spec(4000, 100));
        for pod in &mut input.pods {
            pod.gang = Some(Arc::clone(&gang));
        }
        let plan = solved(&input);
        assert_eq!(plan.totals.pods, placed, "{room} {scope:?}");
        if placed == 0 {
            assert_eq!(plan.unschedulable[0].reasons[0].reason, ReasonCode::GangIncomplete);
        } else if scope == GangScope::Zone {
            assert_eq!(counts(&input, &plan, "train"), [4]);
        }
    }
}

#[test]

fn what_is_scarce_goes_to_the_most_important() {
    let mut input = three_zones(110);
    input.pools[0].limits =
        Limits { limited: Vec::new(), resources: ResourceList::default(), nodes: Some(2) };
    input.pods = pods("low", 8, &spec(1000, 100));
    let mut high = pods("high", 6, &spec(1000, 100));
    for pod in &mut high {
        pod.priority = 100;
    }
    input.pods.extend(high);
    let plan = solved(&input);
    assert_eq!(plan.totals.pods, 8);
    let left: Vec<_> = plan.unschedulable.iter().filter(|one| one.pod.name.starts_with("high")).collect();
    assert!(left.is_empty(), "{left:?}");
}
