//! One run of our side of the comparison with Karpenter: reads an input, solves it, prints a report as JSON.
//!
//! A program of its own, as its peer `bench/karpenter` is: what is measured is the memory of scheduling, not that of all benches.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use assay_core::catalog::{Catalog, PriceList};
use assay_core::check::check;
use assay_core::model::{Labels, NodeClass, NodePool, Pod, PodSpec, Snapshot};
use assay_core::solve::{Preferences, SolveOptions, solve};
use assay_scheduler::manifest::{Manifests, Source};
use clap::{Parser, ValueEnum};

/// Pods that are read at a time.
const PART: usize = 200;

/// Schedules the pods of an input of `assay-bench karpenter` once.
#[derive(Debug, Parser)]
struct Arguments {
    /// Instance types on the first line, a pod on each other one, as JSON.
    input: PathBuf,
    /// Whether preferences of pods count.
    #[arg(value_enum)]
    preferences: Policy,
}

/// As Karpenter's `preference-policy`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Policy {
    Respect,
    Ignore,
}

impl From<Policy> for Preferences {
    fn from(policy: Policy) -> Self {
        match policy {
            Policy::Respect => Self::Respect,
            Policy::Ignore => Self::Ignore,
        }
    }
}

/// Parts that pods have in common.
#[derive(Default)]
struct Shared {
    specs: HashSet<Arc<PodSpec>>,
    labels: BTreeSet<Arc<Labels>>,
    namespaces: BTreeSet<Arc<str>>,
}

impl Shared {
    fn interned(&mut self, mut pod: Pod) -> Pod {
        match self.specs.get(&pod.spec) {
            Some(known) => pod.spec = Arc::clone(known),
            None => drop(self.specs.insert(Arc::clone(&pod.spec))),
        }
        for own in [&mut pod.labels, &mut pod.annotations] {
            match self.labels.get(own) {
                Some(known) => *own = Arc::clone(known),
                None => drop(self.labels.insert(Arc::clone(own))),
            }
        }
        let namespace = &mut pod.id.namespace;
        match self.namespaces.get(namespace) {
            Some(known) => *namespace = Arc::clone(known),
            None => drop(self.namespaces.insert(Arc::clone(namespace))),
        }
        pod
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let file = File::open(&arguments.input).with_context(|| arguments.input.display().to_string())?;
    let snapshot = read(BufReader::new(file))?;
    let options = SolveOptions { preferences: arguments.preferences.into(), ..SolveOptions::default() };
    let started = Instant::now();
    let plan = solve(&snapshot, &options);
    let solve_seconds = started.elapsed().as_secs_f64();
    let peak_rss_bytes = peak_rss();
    if let Err(violations) = check(&snapshot, &plan) {
        bail!("the plan breaks a rule: {}", violations[0]);
    }
    let report = serde_json::json!({
        "pods": snapshot.pods.len(),
        "solveSeconds": solve_seconds,
        "nodes": plan.totals.nodes,
        "leftOut": plan.unschedulable.len(),
        "pricePerHour": plan.totals.price.usd(),
        "peakRssBytes": peak_rss_bytes,
    });
    println!("{report}");
    Ok(())
}

/// Pods are read in parts, as a watch delivers them, for their text is not part of what is measured.
fn read(input: impl BufRead) -> anyhow::Result<Snapshot> {
    let mut lines = input.lines();
    let types = lines.next().context("expected instance types on the first line, found nothing")??;
    let (catalog, _) = Catalog::parse(&types, "", PriceList::default())?;
    drop(types);
    let mut snapshot = Manifests::default().into_snapshot(|_| Vec::new());
    snapshot.pools.push(NodePool::with_defaults("default"));
    let types = Arc::new(catalog.instance_types(&NodeClass::with_defaults("default"), |_| None));
    snapshot.instance_types = BTreeMap::from([("default".to_owned(), types)]);
    let mut shared = Shared::default();
    loop {
        let part: Vec<String> = lines.by_ref().take(PART).collect::<Result<_, _>>()?;
        if part.is_empty() {
            return Ok(snapshot);
        }
        let text = format!(r#"{{"apiVersion":"v1","kind":"List","items":[{}]}}"#, part.join(","));
        let manifests = Manifests::parse(&[Source { name: "pods".to_owned(), text }])?;
        let invalid = manifests.invalid_pods.first();
        ensure!(invalid.is_none(), "pods cannot be read: {invalid:?}");
        snapshot.pods.extend(manifests.pods.into_iter().map(|pod| shared.interned(pod)));
    }
}

/// Most memory that this process has used.
fn peak_rss() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}
