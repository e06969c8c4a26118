//! Plans that break a rule are refused, with the object and the rule: plans of the solver, spoilt.

use std::collections::BTreeMap;

use assay_shared::labels::kubernetes;

use super::check;
use crate::catalog::NumaLayout;
use crate::model::{
    AlignedRequest, AttachedVolume, CpuManagerPolicy, NodeClass, Plan, PodSpec, Snapshot,
    TopologyManagerPolicy,
};
use crate::requirement::{Operator, Requirement};
use crate::solve::testing::*;

fn refused(input: &Snapshot, plan: &Plan, expected: &str) {
    let violations = check(input, plan).expect_err("the plan is spoilt");
    let texts: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|text| text.contains(expected)), "{expected}: {texts:#?}");
}

fn with_disks(count: usize, limit: u64) -> Snapshot {
    let mut large = plain("large", 8, 32, 0.4);
    large.capacity.set_extended(&AttachedVolume::limit_name("disk"), limit);
    let mut input = snapshot(vec![large], pods("db", count, &spec(100, 100)));
    for (index, pod) in input.pods.iter_mut().enumerate() {
        pod.volumes = [AttachedVolume { driver: "disk".into(), id: format!("v{index}").into() }].into();
    }
    input
}

#[test]
fn options_with_too_few_values_of_a_label() {
    let types = vec![plain("a", 2, 8, 0.1), plain("b", 4, 16, 0.2), plain("c", 8, 32, 0.4)];
    let mut input = snapshot(types, pods("web", 1, &spec(100, 100)));
    input.pools[0].requirements.push(Requirement {
        operator: Operator::Exists,
        values: Vec::new(),
        min_values: Some(3),
        ..Requirement::is_in(kubernetes::INSTANCE_TYPE, ["x"])
    });
    let mut plan = solved(&input);
    plan.claims[0].options.pop();
    refused(&input, &plan, "2 values of node.kubernetes.io/instance-type, minValues is 3");
    let mut plan = solved(&input);
    plan.claims[0].min_values_relaxed.push(kubernetes::INSTANCE_TYPE.to_owned());
    refused(&input, &plan, "says that node.kubernetes.io/instance-type has fewer than 3 values");
}

#[test]
fn more_volumes_than_an_option_attaches() {
    let plan = solved(&with_disks(4, 4));
    refused(&with_disks(4, 3), &plan, "4 volumes of disk");
}

#[test]
fn more_volumes_than_a_node_attaches() {
    let with_node = |limit| {
        let mut input = with_disks(3, 8);
        let mut there = node("n1", 8, 32, &[]);
        there.allocatable.set_extended(&AttachedVolume::limit_name("disk"), limit);
        input.nodes.push(there);
        input
    };
    let plan = solved(&with_node(3));
    assert_eq!(plan.existing[0].pods.len(), 3);
    refused(&with_node(2), &plan, "3 volumes of disk");
}

#[test]
fn a_container_that_no_numa_node_holds() {
    let with_nodes_of = |cpus| {
        let mut large = plain("large", 16, 64, 0.4);
        large.numa = Some(NumaLayout { nodes: 2, cpus, devices: BTreeMap::new() });
        let own = AlignedRequest { cpus: 6, devices: BTreeMap::new() };
        let pinned = PodSpec { aligned: vec![own], ..spec(6000, 100) };
        let mut input = snapshot(vec![large], pods("pinned", 2, &pinned));
        let mut class = NodeClass::with_defaults("default");
        class.topology_manager = TopologyManagerPolicy::SingleNumaNode;
        class.cpu_manager = CpuManagerPolicy::Static;
        input.classes = vec![class];
        input
    };
    let plan = solved(&with_nodes_of(8));
    assert_eq!(plan.claims.len(), 1);
    refused(&with_nodes_of(5), &plan, "no NUMA node of large holds one of its containers");
}
