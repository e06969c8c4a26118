//! What plans cost: `make bench-cost`. Writes the tables to `bench/results/cost.md` too.
//!
//! Two questions. How far above a proven lower bound are plans for real pods on Azure's catalogue, beside what Karpenter's way of
//! packing costs with the same prices and the same room? And how good is the optimiser alone, on vector packing instances whose
//! optimum is known?

mod data;
mod pods;
mod problem;
mod vectorpack;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use assay_core::catalog::{CapacityType, Catalog, InstanceType, PriceList, PriceSource};
use assay_core::model::{NodeClass, NodePool, Pod, PodId, PodSpec, ResourceList, Snapshot};
use assay_core::solve::improve::{Problem, improve, lower_bound};
use assay_core::solve::{SolveOptions, solve};
use assay_shared::labels::kubernetes;
use assay_shared::units::{Bytes, MilliCpu, UsdPerHour};

use self::data::Table;
pub(crate) use self::data::archive;
pub(crate) use self::pods::{PodSet, Size};
use self::problem::NVIDIA;
pub(crate) use self::problem::problem as problem_of;

/// Steps of the optimiser where it is measured alone: those of a plan.
fn default_steps() -> u64 {
    SolveOptions::default().steps
}

const REPORT: &str = "bench/results/cost.md";

/// Runs everything, or the sets of pods with `only` in their names, and prints it; where the data is not there, says so.
pub(crate) fn run(machine: &str, only: Option<&str>, steps: Option<u64>) -> anyhow::Result<()> {
    let Some(folder) = data::folder() else {
        println!("../shared/data is not there: nothing to measure");
        return Ok(());
    };
    std::fs::create_dir_all("bench/results")?;
    let mut report = String::new();
    writeln!(report, "# What plans cost\n")?;
    writeln!(report, "Machine: {machine}. Command: `make bench-cost`. Data: `../shared/data`.\n")?;
    let mut sets = pods::sets(&folder)?;
    sets.retain(|set| only.is_none_or(|only| set.name.contains(only)));
    let catalogues = [
        (
            "built-in catalogue, eastus, on demand, amd64, AKS reservations; families D, E, F and N",
            families(builtin()?),
        ),
        ("built-in catalogue, the same with every family", builtin()?),
        ("115 sizes with raw capacity, eastus, on demand, prices repaired", extract(&folder)?),
    ];
    for (name, types) in catalogues {
        let text = table(&sets, name, &types, steps.unwrap_or_else(default_steps))?;
        print!("{text}");
        report.push_str(&text);
    }
    if only.is_some() || steps.is_some() {
        return Ok(());
    }
    for archive in ["New", "Panigrahy"] {
        let text = vectorpack::table(&folder, archive)?;
        print!("{text}");
        report.push_str(&text);
        std::fs::write(REPORT, &report).context(REPORT)?;
    }
    Ok(())
}

fn on_demand(mut types: Vec<InstanceType>) -> Vec<InstanceType> {
    for one in &mut types {
        one.offerings.retain(|offering| {
            offering.capacity_type == CapacityType::OnDemand && offering.price_source != PriceSource::Unknown
        });
    }
    let amd64 =
        |one: &InstanceType| one.requirements.get(kubernetes::ARCH).is_none_or(|set| set.allows("amd64"));
    types.retain(|one| !one.offerings.is_empty() && amd64(one));
    types
}

fn builtin() -> anyhow::Result<Vec<InstanceType>> {
    let class = NodeClass::with_defaults("default");
    Ok(on_demand(Catalog::builtin("eastus")?.instance_types(&class, |_| None)))
}

/// The families that pools are usually allowed: general purpose, memory, compute, GPU.
fn families(mut types: Vec<InstanceType>) -> Vec<InstanceType> {
    types.retain(|one| {
        let name = one.name.trim_start_matches("Standard_");
        name.starts_with(['D', 'E', 'F', 'N'])
    });
    types
}

/// Sizes of the extract. A price more than 15 % above the lowest rate per vCPU of its family is brought down to that rate.
fn extract(folder: &Path) -> anyhow::Result<Vec<InstanceType>> {
    let path = folder.join("azure_provisioning/azure_sku_price_2026-06-18.csv");
    let table = Table::parse(&std::fs::read_to_string(path)?, ',');
    let number = |cell: &str| cell.parse::<f64>().unwrap_or(0.0);
    let mut rates: BTreeMap<String, f64> = BTreeMap::new();
    for row in table.rows() {
        let rate = number(row.cell("usd_per_hour_eastus")) / number(row.cell("vcpu"));
        if rate > 0.0 {
            let least = rates.entry(row.cell("family").to_owned()).or_insert(rate);
            *least = least.min(rate);
        }
    }
    let mut entries = Vec::new();
    for row in table.rows() {
        let (vcpus, listed) = (number(row.cell("vcpu")), number(row.cell("usd_per_hour_eastus")));
        let family = row.cell("family");
        let arm = family.contains('p');
        if listed <= 0.0 || arm {
            continue;
        }
        let gpus: u64 = row.cell("gpus").parse().unwrap_or(0);
        let rate = rates.get(family).copied().unwrap_or(0.0);
        let price = if gpus == 0 && listed > 1.15 * rate * vcpus { rate * vcpus } else { listed };
        let (name, memory) = (row.cell("sku"), row.cell("memory_gib"));
        entries.push(format!(
            r#"{{"name": "{name}", "capacity": {{"cpu": {vcpus}, "memory": "{memory}Gi", "pods": 250,
                "ephemeral-storage": "128Gi", "{NVIDIA}": {gpus}}},
                "offerings": [{{"zone": "eastus-1", "capacityType": "on-demand", "price": {price}}}]}}"#
        ));
    }
    let text = format!(r#"{{"instanceTypes": [{}]}}"#, entries.join(","));
    let (catalogue, _) = Catalog::parse(&text, "eastus", PriceList::default())?;
    Ok(catalogue.instance_types(&NodeClass::with_defaults("default"), |_| None))
}

/// The sets and the catalogue that consolidation is measured on: those without GPUs, on the sizes of the extract.
pub(crate) fn placement_sets() -> anyhow::Result<Option<(Vec<PodSet>, Vec<InstanceType>)>> {
    let Some(folder) = data::folder() else { return Ok(None) };
    Ok(Some((pods::placement(&folder)?, extract(&folder)?)))
}

/// Its pods, waiting.
pub(crate) fn snapshot(set: &PodSet, types: &[InstanceType]) -> Snapshot {
    waiting(set.sizes.iter().map(|(size, count)| (requests(size), *count)), types)
}

/// What pods of a size request.
fn requests(size: &Size) -> ResourceList {
    let mut requests = ResourceList {
        cpu: MilliCpu(size.milli_cpu),
        memory: Bytes::mib(size.memory_mib),
        ..ResourceList::one_pod()
    };
    if size.gpus > 0 {
        requests.set_extended(NVIDIA, size.gpus);
    }
    requests
}

/// So many pods of each kind, and one pool of all types.
fn waiting(kinds: impl Iterator<Item = (ResourceList, u64)>, types: &[InstanceType]) -> Snapshot {
    let mut pods = Vec::new();
    for (index, (requests, count)) in kinds.enumerate() {
        let spec = Arc::new(PodSpec { requests, ..PodSpec::default() });
        let name = |n| PodId::new("bench", &format!("pod-{index}-{n}"));
        pods.extend((0..count).map(|n| Pod::new(name(n), Arc::clone(&spec))));
    }
    Snapshot {
        pods,
        pools: vec![NodePool::with_defaults("default")],
        instance_types: BTreeMap::from([("default".to_owned(), Arc::new(types.to_vec()))]),
        classes: vec![NodeClass::with_defaults("default")],
        ..Snapshot::default()
    }
}

/// The pods of a set that fit some type at all.
fn fitting(set: &PodSet, types: &[InstanceType]) -> PodSet {
    let all = problem::problem(set, types);
    let fits = |at: usize| {
        let needs = &all.items[at].requests;
        all.bins.iter().any(|bin| needs.iter().zip(&bin.room).all(|(need, room)| need <= room))
    };
    let kept = set.sizes.iter().enumerate().filter(|(at, _)| fits(*at));
    PodSet { name: set.name.clone(), sizes: kept.map(|(_, (size, count))| (size.clone(), *count)).collect() }
}

/// One pod set on one catalogue.
struct Row {
    pods: u64,
    nodes: usize,
    bound: UsdPerHour,
    karpenter: UsdPerHour,
    single: Option<UsdPerHour>,
    /// `None` where a pod was left out that fits.
    plan: Option<UsdPerHour>,
    plan_time: Duration,
    alone: UsdPerHour,
    alone_time: Duration,
}

fn measure(set: &PodSet, types: &[InstanceType], steps: u64) -> anyhow::Result<Row> {
    let problem: Problem = problem::problem(set, types);
    let karpenter = problem::karpenter(&problem);
    problem.check(&karpenter).with_context(|| format!("{}: Karpenter's way", set.name))?;
    let snapshot = snapshot(set, types);
    let started = Instant::now();
    let plan = solve(&snapshot, &SolveOptions { steps, ..SolveOptions::default() });
    let plan_time = started.elapsed();
    let started = Instant::now();
    let alone = improve(&problem, &karpenter, steps);
    let alone_time = started.elapsed();
    problem.check(&alone.packing).with_context(|| format!("{}: the optimiser", set.name))?;
    let bound = lower_bound(&problem, 2 * default_steps())
        .max(alone.lower_bound)
        .max(if plan.unschedulable.is_empty() { plan.totals.lower_bound } else { UsdPerHour::ZERO });
    let row = Row {
        pods: set.pods(),
        nodes: plan.totals.nodes,
        bound,
        karpenter: problem.cost(&karpenter),
        single: problem::best_single_kind(&problem),
        plan: plan.unschedulable.is_empty().then_some(plan.totals.price),
        plan_time,
        alone: problem.cost(&alone.packing),
        alone_time,
    };
    ensure!(
        row.plan.is_none_or(|plan| bound <= plan) && bound <= row.alone,
        "{}: the bound is above a packing",
        set.name
    );
    Ok(row)
}

fn table(sets: &[PodSet], catalogue: &str, types: &[InstanceType], steps: u64) -> anyhow::Result<String> {
    let mut text = String::new();
    writeln!(text, "## Cost by lower bound: {catalogue} ({} types)\n", types.len())?;
    writeln!(
        text,
        "| pods | count | nodes | USD/h, at least | Karpenter's way | best single size | plan | plan, s | optimiser alone | alone, s |"
    )?;
    writeln!(text, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
    let (mut plans, mut alones) = (Vec::new(), Vec::new());
    for set in sets {
        let set = fitting(set, types);
        let row = measure(&set, types, steps)?;
        let over = |price: UsdPerHour| price.usd() / row.bound.usd();
        let planned = row.plan.map_or(f64::INFINITY, over);
        plans.push(planned);
        alones.push(over(row.alone));
        writeln!(
            text,
            "| {} | {} | {} | {:.3} | {:.4} | {} | {:.4} | {:.2} | {:.4} | {:.2} |",
            set.name,
            row.pods,
            row.nodes,
            row.bound.usd(),
            over(row.karpenter),
            row.single.map_or_else(|| "–".to_owned(), |price| format!("{:.4}", over(price))),
            planned,
            row.plan_time.as_secs_f64(),
            over(row.alone),
            row.alone_time.as_secs_f64(),
        )?;
    }
    for (what, mut ratios) in [("Plan", plans), ("Optimiser alone", alones)] {
        ratios.sort_by(f64::total_cmp);
        let worst = ratios.last().copied().unwrap_or(f64::NAN);
        let (low, high) = (ratios[(ratios.len() - 1) / 2], ratios[ratios.len() / 2]);
        writeln!(text, "\n{what}: median {:.4}, worst {worst:.4}.", f64::midpoint(low, high))?;
    }
    writeln!(text)?;
    Ok(text)
}
