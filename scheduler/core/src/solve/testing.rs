//! Small builders for tests of decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_shared::labels::kubernetes;
use assay_shared::units::{Bytes, MilliCpu, UsdPerHour};

use crate::catalog::{CapacityType, InstanceType, Offering, PriceSource};
use crate::check::check;
use crate::model::{
    DaemonSet, Labels, Node, NodePool, Plan, Pod, PodId, PodSpec, ResourceList, Snapshot, Timestamp,
};
use crate::requirement::{Requirement, Requirements};
use crate::solve::{SolveOptions, solve};

/// CPU in millicores and memory in MiB, one pod slot.
pub(crate) fn needs(cpu: u64, mib: u64) -> ResourceList {
    ResourceList { cpu: MilliCpu(cpu), memory: Bytes::mib(mib), pods: 1, ..ResourceList::default() }
}

pub(crate) fn spec(cpu: u64, mib: u64) -> PodSpec {
    PodSpec { requests: needs(cpu, mib), ..PodSpec::default() }
}

pub(crate) fn pod(name: &str, spec: &PodSpec) -> Pod {
    Pod::new(PodId::new("default", name), Arc::new(spec.clone()))
}

/// `count` pods named `<name>-<n>`.
pub(crate) fn pods(name: &str, count: usize, spec: &PodSpec) -> Vec<Pod> {
    (0..count).map(|n| pod(&format!("{name}-{n}"), spec)).collect()
}

pub(crate) fn usd(price: f64) -> UsdPerHour {
    UsdPerHour::from_usd(price).unwrap()
}

/// A type with whole cores, GiB and pod slots, without overhead; offered as (zone, capacity type, price).
pub(crate) fn instance_type(
    name: &str,
    cores: u64,
    gib: u64,
    slots: u64,
    offered: &[(&str, CapacityType, f64)],
) -> InstanceType {
    let offering = |(zone, capacity_type, price): &(&str, CapacityType, f64)| Offering {
        zone: (*zone).into(),
        capacity_type: *capacity_type,
        price: usd(*price),
        price_source: PriceSource::Listed,
        available: true,
        reservation: None,
        overrides: None,
    };
    InstanceType {
        name: name.into(),
        requirements: Requirements::from_list(&[Requirement::is_in(kubernetes::ARCH, ["amd64"])]).unwrap(),
        offerings: offered.iter().map(offering).collect(),
        capacity: ResourceList {
            cpu: MilliCpu(cores * 1000),
            memory: Bytes::gib(gib),
            pods: slots,
            ephemeral_storage: Bytes::gib(100),
            extended: BTreeMap::new(),
        },
        overhead: ResourceList::default(),
        numa: None,
        lotteries: Vec::new(),
    }
}

/// The same price on demand in `z-1` and `z-2`.
pub(crate) fn plain(name: &str, cores: u64, gib: u64, price: f64) -> InstanceType {
    let on_demand = CapacityType::OnDemand;
    instance_type(name, cores, gib, 110, &[("z-1", on_demand, price), ("z-2", on_demand, price)])
}

/// One pool `default` that may buy these types.
pub(crate) fn snapshot(types: Vec<InstanceType>, pods: Vec<Pod>) -> Snapshot {
    Snapshot {
        pods,
        pools: vec![NodePool::with_defaults("default")],
        instance_types: BTreeMap::from([("default".to_owned(), Arc::new(types))]),
        ..Snapshot::default()
    }
}

pub(crate) fn node(name: &str, cores: u64, gib: u64, labels: &[(&str, &str)]) -> Node {
    let amount = ResourceList {
        cpu: MilliCpu(cores * 1000),
        memory: Bytes::gib(gib),
        ephemeral_storage: Bytes::gib(100),
        pods: 110,
        extended: BTreeMap::new(),
    };
    let labels: Labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Node {
        name: name.into(),
        labels,
        annotations: Labels::new(),
        taints: Vec::new(),
        allocatable: amount.clone(),
        capacity: amount,
        provider_id: String::new(),
        ready: true,
        unschedulable: false,
        deleting: false,
        created: Timestamp(0),
    }
}

pub(crate) fn daemon_set(name: &str, spec: &PodSpec) -> DaemonSet {
    DaemonSet { id: PodId::new("kube-system", name), spec: Arc::new(spec.clone()) }
}

/// The plan, checked.
pub(crate) fn solved(snapshot: &Snapshot) -> Plan {
    let plan = solve(snapshot, &SolveOptions::default());
    if let Err(violations) = check(snapshot, &plan) {
        let list: Vec<String> = violations.iter().map(ToString::to_string).collect();
        panic!("invalid plan: {}\n{plan:#?}", list.join("\n"));
    }
    plan
}

/// Types of the claims in order, cheapest first.
pub(crate) fn bought(plan: &Plan) -> Vec<&str> {
    plan.claims.iter().map(|claim| &*claim.instance_type).collect()
}
