//! Vector packing instances with known optimum: one kind of bin, as few of them as possible.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use assay_core::catalog::{Catalog, PriceList};
use assay_core::check::check;
use assay_core::model::{NodeClass, ResourceList};
use assay_core::solve::improve::{BinKind, Item, Problem, improve};
use assay_core::solve::{SolveOptions, solve};
use assay_shared::units::UsdPerHour;
use fixedbitset::FixedBitSet;

use super::data::{self, Table};

/// About half a second.
const STEPS: u64 = 500_000_000;
/// Larger instances are left out: few optima are known.
const ITEMS_AT_MOST: u64 = 250;
const BIN: UsdPerHour = UsdPerHour(1_000_000_000);

fn parse(text: &str) -> Option<Problem> {
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let axes = next()?;
    let room: Option<Vec<u64>> = (0..axes).map(|_| next()).collect();
    let lines = next()?;
    let mut items: BTreeMap<Vec<u64>, u64> = BTreeMap::new();
    for _ in 0..lines {
        let requests: Option<Vec<u64>> = (0..axes).map(|_| next()).collect();
        *items.entry(requests?).or_default() += next()?;
    }
    let mut bins = FixedBitSet::with_capacity(1);
    bins.insert(0);
    let item = |(requests, count)| Item { requests, count, bins: bins.clone(), groups: Vec::new() };
    Some(Problem {
        items: items.into_iter().map(item).collect(),
        bins: vec![BinKind { room: room?, price: BIN, most: None }],
        groups: Vec::new(),
    })
}

/// The same as pods of an extended resource for each axis, and one type of machine; solved as any pods are.
fn planned(problem: &Problem) -> anyhow::Result<Planned> {
    let axis = |index: usize| format!("vectorpack.example/axis-{index}");
    let bin = &problem.bins[0];
    let room: Vec<String> =
        bin.room.iter().enumerate().map(|(index, room)| format!(r#""{}": {room}"#, axis(index))).collect();
    let pods: u64 = problem.items.iter().map(|item| item.count).sum();
    let catalogue = format!(
        r#"{{"instanceTypes": [{{"name": "bin", "capacity": {{"cpu": 1, "memory": "1Gi", "pods": {pods}, {}}},
            "offerings": [{{"zone": "zone-1", "capacityType": "on-demand", "price": {}}}]}}]}}"#,
        room.join(", "),
        bin.price.usd()
    );
    let (catalogue, _) = Catalog::parse(&catalogue, "nowhere", PriceList::default())?;
    let types = catalogue.instance_types(&NodeClass::with_defaults("default"), |_| None);
    let pods = problem.items.iter().map(|item| {
        let mut requests = ResourceList::one_pod();
        for (index, amount) in item.requests.iter().enumerate() {
            requests.set_extended(&axis(index), *amount);
        }
        (requests, item.count)
    });
    let snapshot = super::waiting(pods, &types);
    let started = Instant::now();
    let plan = solve(&snapshot, &SolveOptions::default());
    let seconds = started.elapsed().as_secs_f64();
    ensure!(plan.unschedulable.is_empty(), "{} pods are left out", plan.unschedulable.len());
    if let Err(violations) = check(&snapshot, &plan) {
        bail!("the plan breaks rules: {violations:?}");
    }
    Ok(Planned { bins: plan.totals.price.usd(), bound: plan.totals.lower_bound.usd(), seconds })
}

/// What a plan came to.
struct Planned {
    bins: f64,
    bound: f64,
    seconds: f64,
}

#[derive(Default)]
struct Group {
    instances: u32,
    optimal: u32,
    proven: u32,
    over: f64,
    heuristics: f64,
    under: f64,
    seconds: f64,
    slowest: f64,
    planned: f64,
    plan_seconds: f64,
    slowest_plan: f64,
}

impl Group {
    fn add(&mut self, other: &Self) {
        self.instances += other.instances;
        self.optimal += other.optimal;
        self.proven += other.proven;
        self.over += other.over;
        self.heuristics += other.heuristics;
        self.under += other.under;
        self.seconds += other.seconds;
        self.slowest = self.slowest.max(other.slowest);
        self.planned += other.planned;
        self.plan_seconds += other.plan_seconds;
        self.slowest_plan = self.slowest_plan.max(other.slowest_plan);
    }

    fn line(&self, name: &str) -> String {
        let mean = |sum: f64| sum / f64::from(self.instances.max(1));
        format!(
            "| {name} | {} | {:.4} | {:.4} | {:.2} | {:.2} | {:.4} | {:.4} | {} | {} | {:.2} | {:.2} |",
            self.instances,
            mean(self.heuristics),
            mean(self.planned),
            mean(self.plan_seconds),
            self.slowest_plan,
            mean(self.over),
            mean(self.under),
            self.optimal,
            self.proven,
            mean(self.seconds),
            self.slowest
        )
    }
}

/// Every instance of up to 250 items with a known optimum.
pub(super) fn table(folder: &Path, set: &str) -> anyhow::Result<String> {
    let files = data::archive(&folder.join(format!("vectorpack/{set}_instances.tar.gz")))?;
    let summary = std::fs::read_to_string(folder.join(format!("vectorpack/{set}_summary_known.csv")))?;
    let mut groups: BTreeMap<u64, Group> = BTreeMap::new();
    for row in Table::parse(&summary, '\t').rows() {
        let (name, optimum) = (row.cell("instance_name"), row.cell("OPT").parse::<i64>()?);
        let Ok(optimum) = u32::try_from(optimum) else { continue };
        let items: u64 = name.split('_').nth(1).and_then(|n| n.parse().ok()).context("n in the name")?;
        if items > ITEMS_AT_MOST {
            continue;
        }
        let text = files.get(&format!("{name}.vbp")).with_context(|| format!("{name}.vbp"))?;
        let problem = parse(text).with_context(|| format!("{name}.vbp"))?;
        let started = Instant::now();
        let improved = improve(&problem, &[], STEPS);
        let seconds = started.elapsed().as_secs_f64();
        problem.check(&improved.packing).with_context(|| name.to_owned())?;
        let (bins, optimum) = (problem.cost(&improved.packing).usd(), f64::from(optimum));
        let bound = improved.lower_bound.usd();
        ensure!(bound <= optimum + 1e-6, "{name}: the bound {bound} is above the optimum {optimum}");
        ensure!(bins >= optimum - 1e-6, "{name}: {bins} bins are fewer than the optimum {optimum}");
        let plan = planned(&problem).with_context(|| name.to_owned())?;
        ensure!(plan.bound <= optimum + 1e-6, "{name}: the plan's bound {} is above {optimum}", plan.bound);
        ensure!(
            plan.bins >= optimum - 1e-6,
            "{name}: the plan's {} bins are fewer than {optimum}",
            plan.bins
        );
        let best: f64 = row.cell("best_overall").parse()?;
        let is = |value: f64| u32::from((value - optimum).abs() < 1e-6);
        groups.entry(items).or_default().add(&Group {
            instances: 1,
            optimal: is(bins),
            proven: is(bins).min(is(bound)),
            over: bins / optimum,
            heuristics: best / optimum,
            under: bound / optimum,
            seconds,
            slowest: seconds,
            planned: plan.bins / optimum,
            plan_seconds: plan.seconds,
            slowest_plan: plan.seconds,
        });
    }
    let mut text = String::new();
    writeln!(text, "## Vectorpack \"{set}\": instances with a known optimum\n")?;
    writeln!(
        text,
        "| items | instances | best of some 275 heuristics ÷ optimum | plan ÷ optimum | mean, s | slowest, s | optimiser alone ÷ optimum | bound ÷ optimum | optimal | proven | mean, s | slowest, s |"
    )?;
    writeln!(text, "|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
    let mut all = Group::default();
    for (items, group) in &groups {
        writeln!(text, "{}", group.line(&items.to_string()))?;
        all.add(group);
    }
    writeln!(text, "{}\n", all.line("all"))?;
    Ok(text)
}
