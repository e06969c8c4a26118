//! One pod arriving while everything else is known: how long until it is decided where it goes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use assay_core::catalog::Catalog;
use assay_core::model::{
    Change, Labels, Namespaces, Node, NodeClass, NodeInclusion, NodePool, Pod, PodAffinityTerm, PodId,
    PodPhase, PodSelector, PodSpec, ResourceList, Snapshot, Timestamp, TopologySpread, WhenUnsatisfiable,
};
use assay_core::requirement::Requirement;
use assay_core::solve::{SolveOptions, Warm};
use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::{Bytes, MilliCpu};
use hdrhistogram::Histogram;

use crate::report::machine;

/// Applications that the pods belong to.
const APPS: usize = 200;

/// Pods that arrive.
const ARRIVALS: usize = 10_000;

/// Measures, prints and writes `bench/results/warm.md`.
pub(crate) fn run() -> anyhow::Result<()> {
    let snapshot = cluster(5_000, 20);
    let started = Instant::now();
    let mut warm = Warm::of(&snapshot);
    let ready = started.elapsed();
    let options = SolveOptions::default();
    let mut times: Histogram<u64> = Histogram::new(3).context("histogram")?;
    let (mut existing, mut bought) = (0, 0);
    for pod in arrivals(ARRIVALS) {
        let started = Instant::now();
        let plan = warm.decide(&[&pod], &options);
        if let Some(there) = plan.existing.first() {
            let node = Some(Arc::clone(&there.name));
            warm.apply(Change::Pod(Arc::new(Pod { node, phase: PodPhase::Running, ..pod })));
        }
        times.record(u64::try_from(started.elapsed().as_nanos())?)?;
        ensure!(plan.unschedulable.is_empty(), "{:?}", plan.unschedulable);
        existing += plan.existing.len();
        bought += plan.claims.len();
    }
    let at = |percent: f64| {
        let nanos = u32::try_from(times.value_at_percentile(percent)).unwrap_or(u32::MAX);
        f64::from(nanos) / 1e3
    };
    let page = format!(
        "# One pod arriving\n\nMachine: {}. `make bench-warm` makes this page.\n\n5,000 nodes with 100,000 pods, then {ARRIVALS} arrivals \
         one by one: plain, selecting a zone, spread over zones, apart on hosts. {existing} found room on a node, {bought} bought \
         a machine. Making the state ready took {:.0} ms once.\n\n| decision | µs |\n|---|---|\n| p50 | {:.1} |\n| p90 | {:.1} |\n| p99 | {:.1} |\n| longest | {:.1} |\n",
        machine(),
        ready.as_secs_f64() * 1e3,
        at(50.0),
        at(90.0),
        at(99.0),
        at(100.0)
    );
    print!("{page}");
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("results/warm.md"), page)?;
    Ok(())
}

fn labels(app: usize) -> Labels {
    Labels::from([("app".to_owned(), format!("app-{app}"))])
}

/// `count` nodes of 16 CPUs in three zones with `each` small pods on each, and the built-in catalogue to buy from.
pub(crate) fn cluster(count: usize, each: usize) -> Snapshot {
    let class = NodeClass::with_defaults("default");
    let types = Catalog::builtin("eastus").map(|catalog| catalog.instance_types(&class, |_| None));
    let mut pool = NodePool::with_defaults("default");
    pool.requirements = vec![
        Requirement::is_in(kubernetes::ARCH, ["amd64"]),
        Requirement::is_in(karpenter::CAPACITY_TYPE, ["on-demand"]),
    ];
    let mut snapshot = Snapshot {
        pools: vec![pool],
        instance_types: BTreeMap::from([("default".to_owned(), Arc::new(types.unwrap_or_default()))]),
        classes: vec![class],
        ..Snapshot::default()
    };
    let spec = Arc::new(spec(500, 1_500));
    let app_labels: Vec<Arc<Labels>> = (0..APPS).map(|app| Arc::new(labels(app))).collect();
    for number in 0..count {
        let name: Arc<str> = format!("node-{number:05}").into();
        let amount = ResourceList {
            cpu: MilliCpu(16_000),
            memory: Bytes::gib(60),
            ephemeral_storage: Bytes::gib(100),
            pods: 250,
            ..ResourceList::default()
        };
        let zone = format!("eastus-{}", number % 3 + 1);
        snapshot.nodes.push(Node {
            name: Arc::clone(&name),
            labels: [
                (kubernetes::ZONE, zone.as_str()),
                (kubernetes::ARCH, "amd64"),
                (kubernetes::HOSTNAME, &*name),
                (karpenter::NODEPOOL, "default"),
                (karpenter::INITIALIZED, "true"),
                (karpenter::CAPACITY_TYPE, "on-demand"),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
            annotations: Labels::new(),
            taints: Vec::new(),
            allocatable: amount.clone(),
            capacity: amount,
            provider_id: String::new(),
            ready: true,
            unschedulable: false,
            deleting: false,
            created: Timestamp(0),
        });
        snapshot.pods.extend((0..each).map(|index| Pod {
            labels: Arc::clone(&app_labels[(number * each + index) % APPS]),
            phase: PodPhase::Running,
            node: Some(Arc::clone(&name)),
            ..Pod::new(PodId::new("default", &format!("running-{number}-{index}")), Arc::clone(&spec))
        }));
    }
    snapshot
}

fn spec(milli: u64, mebi: u64) -> PodSpec {
    let requests = ResourceList { cpu: MilliCpu(milli), memory: Bytes::mib(mebi), ..ResourceList::one_pod() };
    PodSpec { requests, ..PodSpec::default() }
}

/// Pods of four kinds and several sizes, in turn.
pub(crate) fn arrivals(count: usize) -> Vec<Pod> {
    let mut specs: Vec<(Arc<PodSpec>, Arc<Labels>)> = Vec::new();
    for size in [100, 250, 500, 1_000] {
        for kind in 0..4 {
            for app in (0..APPS).step_by(20) {
                let mut one = spec(size, 2 * size);
                let selector = PodSelector {
                    namespaces: Namespaces::only("default"),
                    labels: Some(vec![Requirement::is_in("app", [format!("app-{app}")])]),
                };
                match kind {
                    1 => one.node_selector = vec![Requirement::is_in(kubernetes::ZONE, ["eastus-2"])],
                    2 => {
                        one.topology_spread = vec![TopologySpread {
                            topology_key: kubernetes::ZONE.to_owned(),
                            max_skew: 1,
                            min_domains: 1,
                            selector,
                            when_unsatisfiable: WhenUnsatisfiable::DoNotSchedule,
                            node_affinity_policy: NodeInclusion::Honor,
                            node_taints_policy: NodeInclusion::Ignore,
                        }]
                    }
                    3 => {
                        one.pod_anti_affinity =
                            vec![PodAffinityTerm { topology_key: kubernetes::HOSTNAME.to_owned(), selector }]
                    }
                    _ => {}
                }
                specs.push((Arc::new(one), Arc::new(labels(app))));
            }
        }
    }
    (0..count)
        .map(|number| {
            let (spec, labels) = &specs[number * 7919 % specs.len()];
            Pod {
                labels: Arc::clone(labels),
                ..Pod::new(PodId::new("default", &format!("new-{number}")), Arc::clone(spec))
            }
        })
        .collect()
}
