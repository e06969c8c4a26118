//! One pod arriving at an engine that runs a large cluster: how long from the event to what is to be done.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use assay_core::catalog::Catalog;
use assay_core::engine::{Effect, Engine, Event, Settings};
use assay_core::model::{
    ClaimState, Labels, Namespaces, Node, NodeClaim, NodeClass, NodeInclusion, NodePool, Pod,
    PodAffinityTerm, PodId, PodPhase, PodSelector, PodSpec, ResourceList, Snapshot, Timestamp,
    TopologySpread, WhenUnsatisfiable,
};
use assay_core::profile::ProfileStore;
use assay_core::requirement::{Operator, Requirement};
use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::{Bytes, MilliCpu};
use hdrhistogram::Histogram;

use crate::report::machine;

/// Applications that the pods belong to.
const APPS: usize = 200;

/// Pods that arrive.
const ARRIVALS: usize = 10_000;

/// Pods that arrive with a constraint that nobody had before.
const STRANGERS: usize = 400;

/// How long something took, many times.
struct Times(Histogram<u64>);

impl Times {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(Histogram::new(3).context("histogram")?))
    }

    fn time<T>(&mut self, what: impl FnOnce() -> T) -> anyhow::Result<T> {
        let started = Instant::now();
        let done = what();
        self.0.record(u64::try_from(started.elapsed().as_nanos())?)?;
        Ok(done)
    }

    /// A row of a table: p50, p90, p99 and the longest in microseconds.
    fn row(&self, name: &str) -> String {
        let micros = |percent: f64| {
            let nanos = u32::try_from(self.0.value_at_percentile(percent)).unwrap_or(u32::MAX);
            f64::from(nanos) / 1e3
        };
        format!(
            "| {name} | {} | {:.1} | {:.1} | {:.1} | {:.1} |\n",
            self.0.len(),
            micros(50.0),
            micros(90.0),
            micros(99.0),
            micros(100.0)
        )
    }
}

/// An engine, and the clock its events come by.
struct Cluster {
    engine: Engine,
    now: Timestamp,
}

impl Cluster {
    fn new() -> anyhow::Result<Self> {
        let catalog = Catalog::builtin("eastus").context("no built-in catalogue of eastus")?;
        let engine = Engine::new(Settings::default(), Box::new(Arc::new(catalog)), ProfileStore::new());
        Ok(Self { engine, now: Timestamp(1_000) })
    }

    fn tell(&mut self, event: Event) -> Vec<Effect> {
        self.now = self.now + Duration::from_millis(10);
        self.engine.handle(self.now, event);
        self.engine.advance(self.now)
    }

    /// A cluster that has been running for a while: each node is the machine of a claim.
    fn running(snapshot: &Snapshot) -> anyhow::Result<Self> {
        let claim = example_claim(snapshot)?;
        let mut cluster = Self::new()?;
        let mut note = |event| cluster.engine.handle(cluster.now, event);
        snapshot.classes.iter().cloned().for_each(|class| note(Event::ClassApplied(Box::new(class))));
        snapshot.pools.iter().cloned().for_each(|pool| note(Event::PoolApplied(Box::new(pool))));
        for node in &snapshot.nodes {
            note(Event::ClaimApplied(Box::new(NodeClaim {
                name: Arc::clone(&node.name),
                zone: node.label(kubernetes::ZONE).unwrap_or_default().into(),
                capacity: node.capacity.clone(),
                allocatable: node.allocatable.clone(),
                labels: node.labels.clone(),
                startup_taints: Vec::new(),
                state: ClaimState::Initialized,
                provider_id: Some(node.provider_id.clone()),
                node: Some(Arc::clone(&node.name)),
                ..claim.clone()
            })));
            note(Event::NodeApplied(Box::new(node.clone())));
        }
        snapshot.pods.iter().cloned().for_each(|pod| note(Event::PodApplied(Box::new(pod))));
        Ok(cluster)
    }

    /// A pod arrives, alone; where it is sent. The cluster's scheduler binds it there.
    fn arrive(&mut self, pod: Pod, arrival: &mut Times, binding: &mut Times) -> anyhow::Result<()> {
        let event = Event::PodApplied(Box::new(pod.clone()));
        let effects = arrival.time(|| self.tell(event))?;
        let target = effects.iter().find_map(|effect| match effect {
            Effect::NominatePod { pod: sent, target } if *sent == pod.id => Some(Arc::clone(target)),
            _ => None,
        });
        let target = target.with_context(|| format!("{} is sent nowhere: {effects:?}", pod.id))?;
        ensure!(self.engine.nodes().contains_key(&target), "{} has a machine bought", pod.id);
        let bound = Pod { node: Some(target), phase: PodPhase::Running, ..pod };
        let event = Event::PodApplied(Box::new(bound));
        binding.time(|| self.tell(event))?;
        Ok(())
    }
}

/// A claim as the engine makes them.
fn example_claim(snapshot: &Snapshot) -> anyhow::Result<NodeClaim> {
    let mut cluster = Cluster::new()?;
    snapshot
        .classes
        .iter()
        .cloned()
        .for_each(|class| drop(cluster.tell(Event::ClassApplied(Box::new(class)))));
    snapshot.pools.iter().cloned().for_each(|pool| drop(cluster.tell(Event::PoolApplied(Box::new(pool)))));
    let pod = Pod::new(PodId::new("default", "first"), Arc::new(spec(14_000, 50_000)));
    let effects = cluster.tell(Event::PodApplied(Box::new(pod)));
    let bought = effects.into_iter().find_map(|effect| match effect {
        Effect::CreateInstance { claim } => Some(*claim),
        _ => None,
    });
    bought.context("nothing is bought for a pod")
}

/// Measures, prints and writes `bench/results/warm.md`.
pub(crate) fn run() -> anyhow::Result<()> {
    let snapshot = cluster(5_000, 20);
    let started = Instant::now();
    let mut cluster = Cluster::running(&snapshot)?;
    let told = started.elapsed();
    let started = Instant::now();
    let first = arrivals(1).remove(0);
    cluster.arrive(
        Pod { id: PodId::new("default", "first"), ..first },
        &mut Times::new()?,
        &mut Times::new()?,
    )?;
    let ready = started.elapsed();
    let (mut arrival, mut binding, mut idle) = (Times::new()?, Times::new()?, Times::new()?);
    for pod in arrivals(ARRIVALS) {
        cluster.arrive(pod, &mut arrival, &mut binding)?;
        idle.time(|| cluster.tell(Event::Tick))?;
    }
    let mut rows = arrival.row("arrives");
    rows += &binding.row("is bound there");
    rows += &idle.row("nothing happens");
    for kind in STRANGE {
        let mut arrival = Times::new()?;
        for number in 0..STRANGERS / STRANGE.len() {
            cluster.arrive(stranger(kind, number), &mut arrival, &mut binding)?;
        }
        rows += &arrival.row(&format!("arrives, the first that {kind}"));
    }
    let page = format!(
        "# One pod arriving\n\nMachine: {}. `make bench-warm` makes this page.\n\nAn engine with 5,000 machines and 100,000 pods. Pods \
         arrive one by one: plain, selecting a zone, spread over zones, apart on hosts. Each is told to the engine, which decides, checks \
         what it decided by the rules, and says what is to be done; all of them find room on a node. Then come pods with constraints that \
         nobody had before. Telling the engine everything took {:.0} ms once, and its first decision {:.0} ms.\n\n| a pod | times | p50 µs | p90 \
         µs | p99 µs | longest µs |\n|---|---|---|---|---|---|\n{rows}",
        machine(),
        told.as_secs_f64() * 1e3,
        ready.as_secs_f64() * 1e3,
    );
    print!("{page}");
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("results/warm.md"), page)?;
    Ok(())
}

/// What constraints that nobody had before do.
const STRANGE: [&str; 6] = [
    "selects its label",
    "spreads its application over zones",
    "spreads its application over zones, on what it selects",
    "keeps off another application's nodes",
    "follows another application to its zone",
    "has its size",
];

/// The first pod that does one of these, for one application or value.
fn stranger(kind: &str, number: usize) -> Pod {
    let app = format!("app-{}", number % APPS);
    let selector = PodSelector {
        namespaces: Namespaces::only("default"),
        labels: Some(vec![Requirement::is_in("app", [app.clone(), format!("other-{number}")])]),
    };
    let mut one = spec(100, 200);
    let spread = |policy| TopologySpread {
        topology_key: kubernetes::ZONE.to_owned(),
        max_skew: 5_000,
        min_domains: 1,
        selector: selector.clone(),
        when_unsatisfiable: WhenUnsatisfiable::DoNotSchedule,
        node_affinity_policy: policy,
        node_taints_policy: NodeInclusion::Ignore,
    };
    let without = |value: String| Requirement {
        operator: Operator::NotIn,
        ..Requirement::is_in(kubernetes::HOSTNAME, [value])
    };
    match STRANGE.iter().position(|known| *known == kind) {
        Some(0) => one.node_selector = vec![without(format!("node-{number:05}"))],
        Some(1) => one.topology_spread = vec![spread(NodeInclusion::Ignore)],
        Some(2) => {
            one.node_selector = vec![without(format!("node-{:05}", number + 1_000))];
            one.topology_spread = vec![spread(NodeInclusion::Honor)];
        }
        Some(3) => {
            let term = PodAffinityTerm { topology_key: kubernetes::HOSTNAME.to_owned(), selector };
            one.pod_anti_affinity = vec![term];
        }
        Some(4) => {
            let term = PodAffinityTerm { topology_key: kubernetes::ZONE.to_owned(), selector };
            one.pod_affinity = vec![term];
        }
        _ => one = spec(101 + number as u64, 203 + number as u64),
    }
    let id = PodId::new("default", &format!("stranger-{}-{number}", kind.len()));
    Pod { labels: Arc::new(labels(number % APPS)), ..Pod::new(id, Arc::new(one)) }
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
            provider_id: format!("azure:///{name}"),
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
