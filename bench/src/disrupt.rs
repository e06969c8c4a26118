//! Whole disruption plans: `make bench-disrupt`. Writes `bench/results/disrupt.md` and the curve beside it.
//!
//! Three questions. How long does a plan take that looks at every node of a large cluster? How near the bound does plan after plan
//! come once pods have gone, and how many pods are moved for it, beside Karpenter's way? And what do so many moves buy, at once
//! and over a day?

mod beside;
mod curve;
mod day;
mod karpenter;
mod quality;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use assay_core::catalog::{CapacityType, Catalog, InstanceType};
use assay_core::check::check_disruption;
use assay_core::disrupt::{DisruptOptions, disrupt};
use assay_core::lifecycle::labels_of;
use assay_core::model::{
    Budget, BudgetNodes, ClaimState, Labels, Namespaces, Node, NodeClaim, NodeClass, NodeInclusion, NodePool,
    Pod, PodId, PodPhase, PodSelector, PodSpec, ResourceList, Snapshot, Timestamp, TopologySpread,
    WhenUnsatisfiable,
};
use assay_core::requirement::{Requirement, Requirements};
use assay_shared::labels::{karpenter as labels, kubernetes};
use assay_shared::units::{Bytes, MilliCpu};

use crate::report;

/// Noon of the day on which everything was bought long ago.
pub(crate) const NOW: Timestamp = Timestamp(1_000_000_000_000);

/// Measures, prints and writes the page.
pub(crate) fn run(only: Option<&str>) -> anyhow::Result<()> {
    let mut page = String::new();
    writeln!(page, "# Disruption plans\n")?;
    writeln!(
        page,
        "Machine: {}. Command: `make bench-disrupt`. Data: `../shared/data`.\n",
        report::machine()
    )?;
    if only.is_none_or(|only| "speed".contains(only)) {
        speed(&mut page)?;
    }
    if only.is_none_or(|only| "beside".contains(only)) {
        beside::run(&mut page)?;
    }
    let parts: Vec<(String, String)> = quality::run(&mut page, only)?;
    if only.is_none_or(|only| "day".contains(only)) {
        day::run(&mut page)?;
    }
    print!("{page}");
    if only.is_none() {
        let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("results");
        std::fs::write(results.join("disrupt.md"), page)?;
        for (name, text) in parts {
            std::fs::write(results.join(name), text)?;
        }
    }
    Ok(())
}

fn speed(page: &mut String) -> anyhow::Result<()> {
    writeln!(page, "## Time of one plan that looks at every node\n")?;
    writeln!(
        page,
        "Nodes of 16 CPUs in three zones, half used, with pods of 15 sizes; budgets allow everything, or a tenth of the nodes. From the \
         snapshot: reading it is part of the time, checking the plan is not.\n"
    )?;
    writeln!(
        page,
        "| nodes | pods | rules | budget | s | resident, MB | nodes that go | bought | pods moved | cost before | after |"
    )?;
    writeln!(page, "|--:|--:|---|---|--:|--:|--:|--:|--:|--:|--:|")?;
    for (nodes, each) in [(1_000, 30), (5_000, 20)] {
        for spread in [false, true] {
            for percent in [100, 10] {
                let input = cluster(nodes, each, spread, percent)?;
                let options = DisruptOptions::default();
                let mut fastest = f64::INFINITY;
                let mut plan = disrupt(&input, &options);
                for _ in 0..2 {
                    let started = Instant::now();
                    plan = disrupt(&input, &options);
                    fastest = fastest.min(started.elapsed().as_secs_f64());
                }
                if let Err(violations) = check_disruption(&input, &plan) {
                    let first = violations.first().map(ToString::to_string).unwrap_or_default();
                    ensure!(false, "the plan breaks a rule: {first}");
                }
                let totals = plan.totals;
                let rules = if spread { "a fifth spread over zones" } else { "none" };
                let line = format!(
                    "| {nodes} | {} | {rules} | {percent} % | {fastest:.2} | {} | {} | {} | {} | {:.2} | {:.2} |",
                    input.pods.len(),
                    resident_mb(),
                    totals.nodes,
                    totals.replacements,
                    totals.evictions,
                    totals.price.usd(),
                    totals.price_after.usd(),
                );
                eprintln!("{line}");
                writeln!(page, "{line}")?;
            }
        }
    }
    writeln!(page)?;
    Ok(())
}

/// Memory of this process now.
fn resident_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kib| kib / 1024)
}

/// `count` half-used nodes of one type with `each` pods on each.
fn cluster(count: usize, each: usize, spread: bool, percent: u32) -> anyhow::Result<Snapshot> {
    const MILLI_CPU: [u64; 5] = [50, 100, 250, 400, 500];
    const MEBI: [u64; 3] = [128, 512, 1_500];
    let class = NodeClass::with_defaults("default");
    let mut types = Catalog::builtin("eastus")?.instance_types(&class, |_| None);
    for one in &mut types {
        one.offerings.retain(|offering| offering.capacity_type == CapacityType::OnDemand);
    }
    types.retain(|one| {
        let name = one.name.trim_start_matches("Standard_");
        !one.offerings.is_empty() && name.starts_with(['D', 'E', 'F'])
    });
    let mut input = empty(types, percent);
    let pool = input.pools[0].clone();
    let bought = input.instance_types_of(&pool).iter().find(|one| &*one.name == "Standard_D16s_v5");
    let bought = bought.context("Standard_D16s_v5 is sold")?.clone();
    let mut specs: Vec<Arc<PodSpec>> = Vec::new();
    for number in 0..75 {
        let requests = ResourceList {
            cpu: MilliCpu(MILLI_CPU[number % 5]),
            memory: Bytes::mib(MEBI[number / 5 % 3]),
            ..ResourceList::one_pod()
        };
        let mut spec = PodSpec { requests, ..PodSpec::default() };
        if spread && number % 5 == number / 15 {
            spec.topology_spread.push(TopologySpread {
                topology_key: kubernetes::ZONE.to_owned(),
                max_skew: 100,
                min_domains: 1,
                selector: PodSelector {
                    namespaces: Namespaces::only("default"),
                    labels: Some(vec![Requirement::is_in("app", [format!("app-{number}")])]),
                },
                when_unsatisfiable: WhenUnsatisfiable::DoNotSchedule,
                node_affinity_policy: NodeInclusion::Honor,
                node_taints_policy: NodeInclusion::Ignore,
            });
        }
        specs.push(Arc::new(spec));
    }
    let app_labels: Vec<Arc<Labels>> =
        (0..75).map(|app| Arc::new([("app".to_owned(), format!("app-{app}"))].into())).collect();
    for number in 0..count {
        let zone = format!("eastus-{}", number % 3 + 1);
        let name: Arc<str> = format!("node-{number:05}").into();
        add_node(&mut input, &name, &bought, &zone);
        // Between a half and one and a half times as many as is usual.
        let own = each / 2 + number * 7_919 % (each + 1);
        for index in 0..own {
            let kind = (number * 31 + index * 17) % specs.len();
            input.pods.push(Pod {
                labels: Arc::clone(&app_labels[kind]),
                phase: PodPhase::Running,
                node: Some(Arc::clone(&name)),
                ..Pod::new(PodId::new("default", &format!("pod-{number}-{index}")), Arc::clone(&specs[kind]))
            });
        }
    }
    Ok(input)
}

/// A pool that may buy these types, whose nodes may all go, or so many of a hundred.
pub(crate) fn empty(types: Vec<InstanceType>, percent: u32) -> Snapshot {
    let mut pool = NodePool::with_defaults("default");
    pool.disruption.budgets = vec![Budget::always(BudgetNodes::Percent(percent))];
    pool.expire_after = assay_core::model::Wait::Never;
    Snapshot {
        now: NOW,
        pools: vec![pool],
        instance_types: BTreeMap::from([("default".to_owned(), Arc::new(types))]),
        classes: vec![NodeClass::with_defaults("default")],
        ..Snapshot::default()
    }
}

/// A node of a type with its claim, bought long ago.
pub(crate) fn add_node(input: &mut Snapshot, name: &Arc<str>, bought: &InstanceType, zone: &str) {
    let pool = &input.pools[0];
    let mut own = labels_of(pool, bought, zone, CapacityType::OnDemand);
    for key in [labels::REGISTERED, labels::INITIALIZED] {
        own.insert(key.to_owned(), "true".to_owned());
    }
    own.insert(kubernetes::HOSTNAME.to_owned(), name.to_string());
    let (capacity, allocatable) = (bought.capacity.clone(), bought.allocatable());
    input.node_claims.push(NodeClaim {
        name: Arc::clone(name),
        pool: pool.name.clone(),
        node_class: pool.node_class.clone(),
        instance_type: Arc::clone(&bought.name),
        zone: zone.into(),
        capacity_type: CapacityType::OnDemand,
        price: Default::default(),
        requirements: Requirements::new(),
        requests: ResourceList::default(),
        capacity: capacity.clone(),
        allocatable: allocatable.clone(),
        labels: own.clone(),
        annotations: Labels::new(),
        taints: Vec::new(),
        startup_taints: Vec::new(),
        termination_grace_period: None,
        template_hash: None,
        class_hash: None,
        state: ClaimState::Initialized,
        since: Timestamp(0),
        created: Timestamp(0),
        provider_id: None,
        node: Some(Arc::clone(name)),
        deleting: None,
        terminate_by: None,
        disruption_reason: None,
    });
    input.nodes.push(Node {
        name: Arc::clone(name),
        labels: own,
        annotations: Labels::new(),
        taints: Vec::new(),
        allocatable,
        capacity,
        provider_id: String::new(),
        ready: true,
        unschedulable: false,
        deleting: false,
        created: Timestamp(0),
    });
}
