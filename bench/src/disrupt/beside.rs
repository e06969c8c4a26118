//! Beside Karpenter's own simulation of consolidation (`bench/karpenter`), on the same nodes and pods: time for each candidate.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use assay_core::catalog::InstanceType;
use assay_core::disrupt::{DisruptOptions, disrupt};
use assay_core::model::{Pod, ResourceList, Snapshot};
use assay_shared::labels::{karpenter as labels, kubernetes};
use serde::Deserialize;

use super::cluster;
use crate::karpenter::build;

/// Candidates that Karpenter simulates each alone, at most, and for how long.
const ALONE: usize = 100;
const SECONDS: u64 = 30;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    pods: usize,
    candidates: usize,
    candidates_seconds: f64,
    alone: usize,
    alone_seconds: f64,
    together: usize,
    together_seconds: f64,
    peak_rss_bytes: u64,
}

/// Writes the table; where Go is missing, says so.
pub(super) fn run(page: &mut String) -> anyhow::Result<()> {
    let go = Command::new("go").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !go.is_ok_and(|status| status.success()) {
        let missing = "Go is missing (https://go.dev/dl): Karpenter's own simulation was not measured.";
        eprintln!("{missing}");
        writeln!(page, "{missing}\n")?;
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let program = build(Path::new(env!("CARGO_MANIFEST_DIR")), folder.path())?;
    writeln!(page, "## Beside Karpenter's own simulation\n")?;
    writeln!(
        page,
        "The same clusters, 30 pods a node, no rules. Karpenter v1.14.1's `SimulateScheduling` over its own state of the cluster and a \
         cache of pods by node, as its disruption controller calls it: *alone*, once for each candidate, the best savings ratio first \
         (the mean of {ALONE} candidates or {SECONDS} s); *together*, its binary search for a prefix of the first 100, shared among them; \
         finding the candidates is not counted. Assay: *alone*, every node by itself (a plan with no work for groups); *whole plan*, \
         groups, merging and order of moves included; both from the snapshot, reading it included, shared among all nodes.\n"
    )?;
    writeln!(
        page,
        "| nodes | pods | Karpenter alone, ms each | together, ms each | Assay alone, ms each | whole plan, ms each | alone / alone | \
         together / whole plan | Karpenter, peak MB |"
    )?;
    writeln!(page, "|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
    for nodes in [100, 500, 1_000] {
        let input = cluster(nodes, 30, false, 100)?;
        let path = folder.path().join("cluster.json");
        std::fs::write(&path, as_json(&input)?.to_string())?;
        let output = Command::new(&program)
            .arg("disrupt")
            .arg(&path)
            .args([ALONE.to_string(), SECONDS.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .context("bench/karpenter")?;
        ensure!(output.status.success(), "bench/karpenter failed on {nodes} nodes");
        let theirs: Report = serde_json::from_slice(&output.stdout).context("what bench/karpenter prints")?;
        ensure!(theirs.candidates == nodes, "Karpenter takes {} of {nodes} nodes", theirs.candidates);
        let alone = fastest(&input, &DisruptOptions { steps: 0, ..DisruptOptions::default() });
        let whole = fastest(&input, &DisruptOptions::default());
        let each = |seconds: f64, count: usize| seconds * 1e3 / f64::from(u32::try_from(count).unwrap_or(1));
        let (their_alone, their_together) =
            (each(theirs.alone_seconds, theirs.alone), each(theirs.together_seconds, theirs.together));
        let (alone, whole) = (each(alone, nodes), each(whole, nodes));
        eprintln!("{nodes} nodes: Karpenter found its candidates in {:.2} s", theirs.candidates_seconds);
        let line = format!(
            "| {nodes} | {} | {their_alone:.1} | {their_together:.1} | {alone:.3} | {whole:.3} | {:.0} x | {:.0} x | {} |",
            theirs.pods,
            their_alone / alone,
            their_together / whole,
            theirs.peak_rss_bytes / 1_000_000,
        );
        eprintln!("{line}");
        writeln!(page, "{line}")?;
    }
    writeln!(page)?;
    Ok(())
}

fn fastest(input: &Snapshot, options: &DisruptOptions) -> f64 {
    let time = || {
        let started = Instant::now();
        let plan = disrupt(input, options);
        let seconds = started.elapsed().as_secs_f64();
        drop(plan);
        seconds
    };
    (0..3).map(|_| time()).fold(f64::INFINITY, f64::min)
}

/// The nodes, their pods and the types that can be bought, as `bench/karpenter` reads them.
fn as_json(input: &Snapshot) -> anyhow::Result<serde_json::Value> {
    let pool = input.pools.first().context("a pool")?;
    let types: Vec<serde_json::Value> = input.instance_types_of(pool).iter().map(type_as_json).collect();
    let mut by_node: HashMap<&str, Vec<&Pod>> = HashMap::new();
    for pod in &input.pods {
        by_node.entry(pod.node.as_deref().unwrap_or_default()).or_default().push(pod);
    }
    let nodes = input.nodes.iter().map(|node| {
        let pods = by_node.remove(&*node.name).unwrap_or_default();
        let pods: Vec<serde_json::Value> = pods.iter().map(|pod| pod_as_json(pod)).collect();
        serde_json::json!({
            "name": &*node.name,
            "instanceType": node.label(kubernetes::INSTANCE_TYPE),
            "zone": node.label(kubernetes::ZONE),
            "capacityType": node.label(labels::CAPACITY_TYPE),
            "pods": pods,
        })
    });
    let nodes: Vec<serde_json::Value> = nodes.collect();
    Ok(serde_json::json!({"instanceTypes": types, "nodes": nodes}))
}

fn pod_as_json(pod: &Pod) -> serde_json::Value {
    let requests = &pod.spec.requests;
    serde_json::json!({"name": &*pod.id.name, "milliCpu": requests.cpu.0, "memoryBytes": requests.memory.0})
}

fn type_as_json(one: &InstanceType) -> serde_json::Value {
    let amounts = |list: &ResourceList| {
        serde_json::json!({
            "cpu": format!("{}m", list.cpu.0),
            "memory": list.memory.0.to_string(),
            "pods": list.pods.to_string(),
        })
    };
    let allocatable = one.allocatable();
    let overhead = ResourceList {
        cpu: assay_shared::units::MilliCpu(one.capacity.cpu.0 - allocatable.cpu.0),
        memory: assay_shared::units::Bytes(one.capacity.memory.0 - allocatable.memory.0),
        ..ResourceList::default()
    };
    let offerings = one.offerings.iter().map(|offering| {
        serde_json::json!({
            "zone": &*offering.zone,
            "capacityType": offering.capacity_type.as_str(),
            "price": offering.price.usd(),
        })
    });
    let offerings: Vec<serde_json::Value> = offerings.collect();
    let fixed = [kubernetes::ARCH, kubernetes::OS].into_iter().filter_map(|key| {
        let values: Vec<&String> = one.requirements.get(key)?.finite()?.iter().collect();
        Some(serde_json::json!({"key": key, "operator": "In", "values": values}))
    });
    let requirements: Vec<serde_json::Value> = fixed.collect();
    serde_json::json!({
        "name": &*one.name,
        "capacity": amounts(&one.capacity),
        "overhead": amounts(&overhead),
        "requirements": requirements,
        "offerings": offerings,
    })
}
