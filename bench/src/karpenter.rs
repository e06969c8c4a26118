//! Side by side with Karpenter: its own scheduler (see `bench/karpenter`) and ours, on the same pods and instance types.
//!
//! Every run is a process of its own, so that the peak of memory is that of the run, and a single shot: nothing is amortised.
//! What is timed is set-up and solve on both sides, from objects in memory to a plan; reading the input is not.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use assay_core::catalog::Catalog;
use assay_core::model::NodePool;
use assay_scheduler::manifest::{Manifests, Source};
use serde::{Deserialize, Serialize};

use crate::process::sibling;
use crate::recipe::{self, Input};
use crate::report::machine;

/// What a run took and gave; both sides print one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    pods: usize,
    #[serde(default)]
    set_up_seconds: f64,
    solve_seconds: f64,
    nodes: usize,
    left_out: usize,
    price_per_hour: f64,
    peak_rss_bytes: u64,
}

impl Report {
    fn seconds(&self) -> f64 {
        self.set_up_seconds + self.solve_seconds
    }
}

/// A run on our side takes no longer than Karpenter's timeout of a provisioning round allows by far; Karpenter may take long.
const LONGEST: Duration = Duration::from_secs(600);

/// Runs both sides on every input, or ours `alone` on those with `only` in their names; prints the table and, where it is whole,
/// writes it to `bench/results/karpenter.md`.
pub(crate) fn run(most: usize, only: Option<&str>, alone: bool) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir()?;
    let program = if alone { None } else { Some(build(root, folder.path())?) };
    let mut table = String::new();
    writeln!(table, "| input | side | time | pods/s | nodes | USD/h | peak memory | left out |")?;
    writeln!(table, "|---|---|---|---|---|---|---|---|")?;
    let mut ratios = String::new();
    writeln!(
        ratios,
        "| input | times as fast | nodes, Assay / Karpenter | cost, Assay / Karpenter | memory, Assay / Karpenter |"
    )?;
    writeln!(ratios, "|---|---|---|---|---|")?;
    for (input, policy) in inputs(root, most)? {
        let path = folder.path().join("input.json");
        let name = match policy {
            Some(policy) => format!("{}, {policy}", input.name),
            None => input.name.clone(),
        };
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        eprintln!("{name} …");
        input.write(&path)?;
        let policy = policy.unwrap_or("respect");
        let own = start(Command::new(sibling("schedule")?).arg(&path).arg(policy))?;
        let program = program.as_ref().filter(|_| input.pods.len() <= 20_000);
        let peer = program.map(|program| start(Command::new(program).arg(&path).arg(policy))).transpose()?;
        for (side, report) in [("Assay", Some(&own)), ("Karpenter", peer.as_ref())] {
            let Some(report) = report else { continue };
            ensure!(side == "Karpenter" || report.left_out == 0, "{name}: {} pods left out", report.left_out);
            #[allow(clippy::cast_precision_loss)] // rates and sizes for people
            let (rate, mib) =
                (report.pods as f64 / report.seconds(), report.peak_rss_bytes as f64 / f64::from(1 << 20));
            let line = format!(
                "| {name} | {side} | {} | {rate:.0} | {} | {:.2} | {mib:.0} MiB | {} |",
                time(report.seconds()),
                report.nodes,
                report.price_per_hour,
                report.left_out
            );
            println!("{line}");
            writeln!(table, "{line}")?;
        }
        if let Some(peer) = peer {
            #[allow(clippy::cast_precision_loss)] // ratios for people
            let line = format!(
                "| {name} | {:.0} | {:.3} | {:.3} | {:.2} |",
                peer.seconds() / own.seconds(),
                own.nodes as f64 / peer.nodes.max(1) as f64,
                own.price_per_hour / peer.price_per_hour,
                own.peak_rss_bytes as f64 / peer.peak_rss_bytes as f64
            );
            println!("{line}");
            writeln!(ratios, "{line}")?;
        }
    }
    if only.is_some() || alone {
        return Ok(());
    }
    let page = format!(
        "# Side by side with Karpenter\n\nMachine: {}. `make bench-karpenter` makes this page: Karpenter v1.14.1's own scheduler \
         (`bench/karpenter`) and Assay's on the same pods and instance types, each run a process of its own and a single shot; time is \
         set-up and solve, without reading the input. Cost is that of the cheapest allowed offering of every machine.\n\n{ratios}\n{table}",
        machine()
    );
    std::fs::write(root.join("results/karpenter.md"), page)?;
    Ok(())
}

fn inputs(root: &Path, most: usize) -> anyhow::Result<Vec<(Input, Option<&'static str>)>> {
    let sizes = [1, 50, 100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000];
    let mut inputs: Vec<(Input, Option<&'static str>)> =
        sizes.into_iter().filter(|size| *size <= most).map(|size| (recipe::diverse(size), None)).collect();
    if most >= 4_000 {
        inputs.push((recipe::preferring(), Some("respect")));
        inputs.push((recipe::preferring(), Some("ignore")));
    }
    let data = root.join("../../shared/data");
    if data.is_dir() {
        inputs.push((recipe::openb(&data)?, None));
        inputs.push((recipe::dlrm(&data)?, None));
    } else {
        eprintln!("{} is not there: traces are left out", data.display());
    }
    Ok(inputs)
}

/// Builds Karpenter's side.
pub(crate) fn build(root: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    eprintln!("building bench/karpenter (Go; several minutes the first time) …");
    let program = folder.join("karpenter");
    let status = Command::new("go")
        .arg("build")
        .arg("-o")
        .arg(&program)
        .arg(".")
        .current_dir(root.join("karpenter"))
        .status()
        .context("go is missing: install Go 1.26 or newer (https://go.dev/dl), then run make bench-karpenter again")?;
    ensure!(status.success(), "go build failed in bench/karpenter");
    Ok(program)
}

fn start(command: &mut Command) -> anyhow::Result<Report> {
    let started = Instant::now();
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("{command:?}"))?;
    while child.try_wait()?.is_none() {
        if started.elapsed() > LONGEST {
            child.kill()?;
            bail!("{command:?} took longer than {} s", LONGEST.as_secs());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?} failed");
    serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?}"))
}

fn time(seconds: f64) -> String {
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
}

/// A snapshot of the recipe for measurements of ours alone.
pub(crate) fn snapshot(input: &Input) -> anyhow::Result<assay_core::model::Snapshot> {
    let types = serde_json::json!({"instanceTypes": input.types}).to_string();
    let (catalog, _) = Catalog::parse(&types, "", assay_core::catalog::PriceList::default())?;
    let items = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": input.pods}).to_string();
    let mut manifests = Manifests::parse(&[Source { name: "pods".to_owned(), text: items }])?;
    manifests.pools.push(NodePool::with_defaults("default"));
    let class = assay_core::model::NodeClass::with_defaults("default");
    let types = Arc::new(catalog.instance_types(&class, |_| None));
    let mut snapshot = manifests.into_snapshot(|_| Vec::new());
    snapshot.instance_types = BTreeMap::from([("default".to_owned(), types)]);
    Ok(snapshot)
}
