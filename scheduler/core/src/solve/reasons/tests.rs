//! What left-out pods are told: the constraint, the numbers, and a change that works.

use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::MilliCpu;

use crate::model::{NodePool, PodSpec, PoolReason, ReasonCode, Snapshot, Taint, TaintEffect};
use crate::requirement::{Operator, Requirement};
use crate::solve::testing::{plain, pods, snapshot, solved, spec, usd};
use crate::solve::{SolveOptions, solve};

fn types() -> Vec<crate::catalog::InstanceType> {
    vec![plain("small", 2, 8, 1.0), plain("large", 8, 32, 4.0)]
}

fn selecting(key: &str, value: &str) -> PodSpec {
    let mut spec = spec(100, 100);
    spec.node_selector = vec![Requirement::is_in(key, [value])];
    spec
}

fn first_reason(snapshot: &Snapshot) -> PoolReason {
    solved(snapshot).unschedulable[0].reasons[0].clone()
}

fn allowing(key: &str, values: &[&str]) -> impl Fn(&mut NodePool) {
    let one = Requirement::is_in(key, values.iter().copied());
    move |pool| pool.requirements.push(one.clone())
}

type Change = Box<dyn Fn(&mut NodePool)>;

#[test]
fn the_fix_is_the_one_change_that_helps() {
    let taint = Taint { key: "gpu".into(), value: "true".into(), effect: TaintEffect::NoSchedule };
    let tainted = move |pool: &mut NodePool| pool.taints.push(taint.clone());
    let limited = |pool: &mut NodePool| {
        pool.limits.resources.cpu = MilliCpu(1000);
        pool.limits.limited = vec!["cpu".into()];
    };
    let no_change = |_: &mut NodePool| {};
    let varied = |pool: &mut NodePool| {
        let mut one = Requirement::is_in(kubernetes::INSTANCE_TYPE, ["small", "large"]);
        one.min_values = Some(3);
        pool.requirements.push(one);
    };
    let cases: Vec<(&str, Change, PodSpec, ReasonCode, Option<&str>)> = vec![
        (
            "taint",
            Box::new(tainted.clone()),
            spec(100, 100),
            ReasonCode::TaintNotTolerated,
            Some("tolerate gpu=true:NoSchedule"),
        ),
        (
            "a toleration alone would not help",
            Box::new(tainted),
            spec(100, 64 * 1024),
            ReasonCode::TaintNotTolerated,
            None,
        ),
        (
            "label",
            Box::new(no_change),
            selecting("team", "a"),
            ReasonCode::IncompatibleRequirements,
            Some("label pool default with team=a or add the key to its requirements"),
        ),
        (
            "typo in a key",
            Box::new(no_change),
            selecting("kubernetes.io/arc", "amd64"),
            ReasonCode::IncompatibleRequirements,
            Some("use kubernetes.io/arch instead of kubernetes.io/arc"),
        ),
        (
            "typo in a value",
            Box::new(no_change),
            selecting(kubernetes::INSTANCE_TYPE, "larqe"),
            ReasonCode::NoInstanceType,
            Some("use large instead of larqe"),
        ),
        (
            "no such architecture",
            Box::new(no_change),
            selecting(kubernetes::ARCH, "s390x"),
            ReasonCode::NoInstanceType,
            Some("drop kubernetes.io/arch In [s390x] from its node constraints"),
        ),
        (
            "zone kept out by the pool",
            Box::new(allowing(kubernetes::ZONE, &["z-1"])),
            selecting(kubernetes::ZONE, "z-2"),
            ReasonCode::IncompatibleRequirements,
            Some("allow zone z-2 in pool default"),
        ),
        (
            "a little too large",
            Box::new(no_change),
            spec(100, 34 * 1024),
            ReasonCode::InsufficientResources,
            Some("request at most 32 GiB of memory"),
        ),
        (
            "larger than the types allowed",
            Box::new(allowing(kubernetes::INSTANCE_TYPE, &["small"])),
            spec(6000, 100),
            ReasonCode::InsufficientResources,
            Some("allow large in pool default's instance-type requirement"),
        ),
        (
            "capacity type",
            Box::new(allowing(karpenter::CAPACITY_TYPE, &["spot"])),
            spec(100, 100),
            ReasonCode::NoInstanceType,
            Some("allow capacity type on-demand in pool default"),
        ),
        (
            "limit",
            Box::new(limited),
            spec(100, 100),
            ReasonCode::LimitExceeded,
            Some("raise pool default's cpu limit to 2"),
        ),
        (
            "variety",
            Box::new(varied),
            spec(100, 100),
            ReasonCode::MinValues,
            Some("lower minValues of node.kubernetes.io/instance-type in pool default to 2"),
        ),
    ];
    for (name, change, spec, code, fix) in cases {
        let mut input = snapshot(types(), pods("web", 1, &spec));
        change(&mut input.pools[0]);
        let reason = first_reason(&input);
        assert_eq!((reason.reason, reason.fix.as_deref()), (code, fix), "{name}: {}", reason.detail);
    }
}

#[test]
fn the_nearest_type_is_the_one_that_lacks_least_of_what_it_lacks_most() {
    // `wide` has too little memory by half, `tall` too little CPU by a tenth.
    let input = snapshot(
        vec![plain("wide", 16, 16, 1.0), plain("tall", 9, 64, 1.0)],
        pods("web", 1, &spec(10_000, 32 * 1024)),
    );
    let reason = first_reason(&input);
    assert_eq!(reason.detail, "needs 10 cpu, closest allowed type gives 9: tall");
    assert_eq!(reason.fix.as_deref(), Some("request at most 9 of cpu"));
}

#[test]
fn a_type_without_the_resource_is_never_near() {
    let mut wanted = spec(9_000, 1024);
    wanted.requests.set_extended("nvidia.com/gpu", 1);
    let mut with_gpu = plain("gpu", 8, 32, 9.0);
    with_gpu.capacity.set_extended("nvidia.com/gpu", 1);
    let reason = first_reason(&snapshot(vec![plain("big", 64, 64, 1.0), with_gpu], pods("web", 1, &wanted)));
    assert_eq!(reason.detail, "needs 9 cpu, closest allowed type gives 8: gpu");
}

#[test]
fn more_important_pods_are_named_where_they_took_what_was_left() {
    let mut input = snapshot(vec![plain("only", 2, 8, 1.0)], Vec::new());
    input.pools[0].limits.resources.cpu = MilliCpu(2000);
    input.pools[0].limits.limited = vec!["cpu".into()];
    input.pods = pods("low", 1, &spec(1500, 100));
    let mut high = pods("high", 1, &spec(1500, 100));
    high[0].priority = 10;
    input.pods.extend(high);
    let reason = first_reason(&input);
    assert!(reason.detail.ends_with("more important pods took what the limit left"), "{}", reason.detail);
    assert_eq!(reason.fix.as_deref(), Some("raise pool default's cpu limit to 4"));
}

#[test]
fn a_limit_that_is_passed_already_gets_no_number() {
    let mut input = snapshot(vec![plain("only", 2, 8, 1.0)], pods("web", 1, &spec(1500, 100)));
    input.pools[0].limits.resources.cpu = MilliCpu(2000);
    input.pools[0].limits.limited = vec!["cpu".into()];
    let mut node = crate::solve::testing::node("full", 8, 1, &[(karpenter::NODEPOOL, "default")]);
    node.unschedulable = true;
    input.nodes.push(node);
    assert_eq!(first_reason(&input).fix, None);
}

#[test]
fn ten_thousand_equal_pods_share_their_reasons_and_long_ones_are_cut() {
    let mut spec = spec(100, 100);
    let many: Vec<String> = (0..1000).map(|n| format!("no-such-type-{n}")).collect();
    spec.node_selector = vec![Requirement {
        key: kubernetes::INSTANCE_TYPE.into(),
        operator: Operator::In,
        values: many,
        min_values: None,
    }];
    let plan = solved(&snapshot(types(), pods("web", 10_000, &spec)));
    let first = &plan.unschedulable[0].reasons;
    assert_eq!(plan.unschedulable.len(), 10_000);
    assert!(plan.unschedulable.iter().all(|one| Arc::ptr_eq(&one.reasons, first)));
    assert!(first.iter().all(|one| one.detail.chars().count() <= 401));
}

#[test]
fn a_claim_says_what_else_would_do_and_what_ruled_cheaper_ones_out() {
    let taint = Taint { key: "gpu".into(), value: "true".into(), effect: TaintEffect::NoSchedule };
    let mut gone = plain("gone", 8, 32, 0.6);
    gone.offerings.iter_mut().for_each(|offering| offering.available = false);
    let mut arm = plain("arm", 8, 32, 0.7);
    arm.requirements =
        crate::requirement::Requirements::from_list(&[Requirement::is_in(kubernetes::ARCH, ["arm64"])])
            .unwrap();
    let offered = vec![
        plain("small", 2, 8, 0.5),
        gone,
        arm,
        plain("fits", 8, 32, 1.0),
        plain("second", 8, 64, 1.5),
        plain("third", 16, 64, 2.0),
        plain("fourth", 32, 64, 3.0),
        plain("fifth", 64, 64, 4.0),
    ];
    let mut wanted = selecting(kubernetes::ARCH, "amd64");
    wanted.requests.cpu = MilliCpu(6000);
    let mut input = snapshot(offered, pods("web", 1, &wanted));
    let mut tainted = NodePool::with_defaults("tainted");
    tainted.taints.push(taint);
    input.pools.push(tainted);
    input.instance_types.insert("tainted".into(), Arc::new(vec![plain("cheap", 8, 32, 0.4)]));
    input.pools[1].node_class = "tainted".into();

    assert_eq!(solve(&input, &SolveOptions::default()).claims[0].explanation, None);
    let plan = solve(&input, &SolveOptions { explain: true, ..SolveOptions::default() });
    let why = plan.claims[0].explanation.as_ref().unwrap();
    assert_eq!(&*plan.claims[0].instance_type, "fits");
    let next: Vec<_> = why.next.iter().map(|one| (&*one.name, one.price)).collect();
    assert_eq!(next, [("second", usd(1.5)), ("third", usd(2.0)), ("fourth", usd(3.0))]);
    let ruled_out: Vec<_> = why.ruled_out.iter().map(|one| (&*one.name, one.price, &*one.why)).collect();
    assert_eq!(
        ruled_out,
        [
            ("cheap", usd(0.4), "pool tainted has taint gpu=true:NoSchedule"),
            ("small", usd(0.5), "needs 6 cpu, gives 2"),
            ("gone", usd(0.6), "on-demand in z-1 cannot be had now"),
            ("arm", usd(0.7), "needs kubernetes.io/arch In [amd64]"),
        ]
    );
}
