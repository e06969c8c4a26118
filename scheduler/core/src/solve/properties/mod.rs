//! What holds for every snapshot: plans are valid, nothing is left out without need, and the input's order does not show.

mod after;
pub(crate) mod cluster;
mod follow;
pub(crate) mod together;

use assay_shared::labels::{karpenter, kubernetes};
use proptest::prelude::*;

use crate::catalog::{CapacityType, InstanceType};
use crate::model::{
    Limits, NodePool, Pod, PodSpec, PreferredTerm, Snapshot, Taint, TaintEffect, Toleration,
    TolerationOperator,
};
use crate::requirement::{Operator, Requirement};
use crate::solve::testing::*;
use crate::solve::{SolveOptions, solve};

fn types() -> impl Strategy<Value = Vec<InstanceType>> {
    let one = (1_u64..17, 1_u64..9, 5_u64..40, 1_u32..60, 0_usize..4, any::<bool>());
    prop::collection::vec(one, 1..8).prop_map(|list| {
        let build =
            |(n, (cores, per_core, slots, cents, gone, spot)): (usize, (u64, u64, u64, u32, usize, bool))| {
                let price = f64::from(cents) / 100.0;
                let mut offered = vec![
                    ("z-1", CapacityType::OnDemand, price),
                    ("z-2", CapacityType::OnDemand, price * 1.1),
                ];
                if spot {
                    offered.push(("z-1", CapacityType::Spot, price * 0.3));
                }
                let mut built = instance_type(&format!("type-{n}"), cores, cores * per_core, slots, &offered);
                if let Some(offering) = built.offerings.get_mut(gone) {
                    offering.available = false;
                }
                built
            };
        list.into_iter().enumerate().map(build).collect()
    })
}

fn constraint() -> impl Strategy<Value = Vec<Requirement>> {
    let of = |key: &str, operator, values: &[&str]| Requirement {
        key: key.to_owned(),
        operator,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
        min_values: None,
    };
    let list = vec![
        vec![],
        vec![of(kubernetes::ZONE, Operator::In, &["z-1"])],
        vec![of(kubernetes::ZONE, Operator::NotIn, &["z-1"])],
        vec![of(karpenter::CAPACITY_TYPE, Operator::In, &["on-demand"])],
        vec![of("team", Operator::In, &["a", "b"])],
        vec![of("team", Operator::In, &["b", "c"])],
        vec![of("team", Operator::DoesNotExist, &[])],
        vec![of(kubernetes::ARCH, Operator::In, &["arm64"])],
        vec![of(kubernetes::INSTANCE_TYPE, Operator::NotIn, &["type-0"])],
    ];
    prop::sample::select(list)
}

fn taint() -> Taint {
    Taint { key: "k".into(), value: String::new(), effect: TaintEffect::NoSchedule }
}

fn pod_spec() -> impl Strategy<Value = PodSpec> {
    let amounts = (1_u64..6000, 1_u64..20_000);
    (amounts, constraint(), prop::collection::vec(constraint(), 0..3), constraint(), any::<bool>()).prop_map(
        |((cpu, mib), node_selector, required_affinity, preferred, tolerant)| PodSpec {
            node_selector,
            required_affinity,
            preferred_affinity: vec![PreferredTerm { weight: 1, requirements: preferred }],
            tolerations: if tolerant {
                vec![Toleration { key: None, operator: TolerationOperator::Exists, effect: None }]
            } else {
                Vec::new()
            },
            ..spec(cpu, mib)
        },
    )
}

fn snapshots() -> impl Strategy<Value = Snapshot> {
    let pool = (0_u32..2, constraint(), any::<bool>(), any::<bool>(), prop::option::of(0_u64..4));
    let specs = prop::collection::vec((pod_spec(), 1_usize..12), 1..8);
    let nodes = prop::collection::vec((1_u64..16, any::<bool>()), 0..3);
    let daemons = prop::collection::vec((1_u64..500, constraint()), 0..3);
    (types(), prop::collection::vec(pool, 1..4), specs, nodes, daemons).prop_map(
        |(types, pools, specs, nodes, daemons)| {
            let mut input = snapshot(types, Vec::new());
            input.pools.clear();
            for (n, (weight, requirements, labelled, tainted, limit)) in pools.into_iter().enumerate() {
                let mut pool =
                    NodePool { weight, requirements, ..NodePool::with_defaults(&format!("pool-{n}")) };
                if labelled {
                    pool.requirements.push(Requirement::is_in("team", ["a", "b", "c"]));
                }
                if tainted {
                    pool.taints.push(taint());
                }
                pool.limits = Limits { nodes: limit, ..Limits::default() };
                input.pools.push(pool);
            }
            for (n, (spec, count)) in specs.iter().enumerate() {
                input.pods.extend(pods(&format!("class-{n}"), *count, spec));
            }
            for (n, (cores, first)) in nodes.into_iter().enumerate() {
                let zone = if first { "z-1" } else { "z-2" };
                input.nodes.push(node(&format!("node-{n}"), cores, cores * 4, &[(kubernetes::ZONE, zone)]));
            }
            for (n, (cpu, node_selector)) in daemons.into_iter().enumerate() {
                input
                    .daemon_sets
                    .push(daemon_set(&format!("daemon-{n}"), &PodSpec { node_selector, ..spec(cpu, 100) }));
            }
            input
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_plan_passes_the_check(input in snapshots()) {
        let _ = solved(&input);
    }

    #[test]
    fn nothing_is_left_out_that_would_fit_alone(input in snapshots()) {
        let mut input = input;
        input.pools.iter_mut().for_each(|pool| pool.limits = Limits::default());
        for left in solved(&input).unschedulable {
            let alone: Vec<Pod> = input.pods.iter().filter(|pod| pod.id == left.pod).cloned().collect();
            let plan = solved(&Snapshot { pods: alone, nodes: Vec::new(), ..input.clone() });
            prop_assert_eq!(plan.totals.pods, 0, "{} fits alone", left.pod);
        }
    }

    #[test]
    fn the_order_of_the_input_does_not_show(input in snapshots(), turn in 0_usize..50) {
        let plan = solve(&input, &SolveOptions::default());
        let mut turned = input;
        let count = turned.pods.len();
        turned.pods.rotate_left(turn % count);
        turned.pools.reverse();
        turned.nodes.reverse();
        turned.daemon_sets.reverse();
        prop_assert_eq!(solve(&turned, &SolveOptions::default()), plan);
    }
}
