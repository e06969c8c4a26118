//! Many nodes out and in again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, ensure};
use assay_scheduler::kube::api::NodeClaim;
use assay_tests::control_plane::audit::Entry;
use assay_tests::control_plane::{ControlPlane, Options};
use assay_tests::serving::{Cluster, deployment, node_pool};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::Api;
use kube::core::PartialObjectMeta;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::counts::Counts;
use super::quiet;
use crate::process::Usage;

/// How long either way may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// Where ten pods of a tenth of [`NODE_CPU`] find room, and not eleven.
const SIZE: &str = "Standard_D4s_v5";
/// CPU that the pods of such a node have together, in thousandths.
const NODE_CPU: usize = 3_600;

/// What is watched.
struct Watched {
    pods: Counts,
    claims: Counts,
    nodes: Counts,
    initialized: Counts,
    vms: Counts,
}

pub(super) async fn measure(nodes: usize, pods_per_node: usize) -> anyhow::Result<String> {
    let plane = ControlPlane::start(Options::whole()).await?;
    let cluster = Cluster::start(&plane, &quiet().with_default_batch()).await?;
    let namespace = plane.namespace("scale").await?;
    let client = cluster.client();
    let all = json!({"disruption": {"budgets": [{"nodes": "100%"}]}});
    let mut pool = node_pool("scale", &all);
    pool["spec"]["template"]["spec"]["requirements"] = json!([
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
        {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": [SIZE]},
    ]);
    cluster.apply(&pool).await?;
    let mut watched = Watched {
        pods: Counts::watch(Api::<PartialObjectMeta<Pod>>::namespaced(client.clone(), &namespace), |_| true),
        claims: Counts::watch(Api::<PartialObjectMeta<NodeClaim>>::all(client.clone()), |_| true),
        nodes: Counts::watch(Api::<PartialObjectMeta<Node>>::all(client.clone()), |_| true),
        initialized: Counts::watch(Api::<PartialObjectMeta<Node>>::all(client.clone()), |meta| {
            meta.labels.iter().flatten().any(|(key, _)| key == "karpenter.sh/initialized")
        }),
        vms: Counts::watch(
            Api::<PartialObjectMeta<ConfigMap>>::namespaced(client.clone(), assay_tests::serving::NAMESPACE),
            |meta| meta.labels.iter().flatten().any(|(key, _)| key == "assay.dev/simulated-vm"),
        ),
    };
    sleep(Duration::from_secs(2)).await;

    let pods = nodes * pods_per_node;
    let cpu = format!("{}m", NODE_CPU / pods_per_node);
    let spec = json!({"containers": [{"name": "c", "image": "registry.invalid/none",
        "resources": {"requests": {"cpu": cpu, "memory": "256Mi"}}}]});
    let manifest = deployment(&namespace, "scale", "scale", u32::try_from(pods)?, &spec);
    let usage = |cluster: &Cluster<'_>| Usage::of(cluster.serving.process());
    let before = usage(&cluster)?;
    let out = Instant::now();
    cluster.apply(&manifest).await?;
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &namespace);
    let running = async {
        loop {
            let status = deployments.get_status("scale").await?.status.unwrap_or_default();
            if usize::try_from(status.ready_replicas.unwrap_or(0))? == pods {
                return anyhow::Ok(Instant::now());
            }
            eprintln!(
                "{:6.1} s: {} pods, {} claims, {} nodes, {} initialized, {} ready",
                out.elapsed().as_secs_f64(),
                watched.pods.now(),
                watched.claims.now(),
                watched.nodes.now(),
                watched.initialized.now(),
                status.ready_replicas.unwrap_or(0)
            );
            sleep(Duration::from_millis(500)).await;
        }
    };
    let running = timeout(PATIENCE, running).await.context("not all pods run in time")??;
    let bought = watched.claims.now();
    ensure!(bought >= nodes, "{bought} nodes for {pods} pods: {nodes} were meant");
    let grown = usage(&cluster)?;
    // What is put on record follows.
    sleep(Duration::from_secs(15)).await;
    let calls = calls(&plane.audit()?);

    let back = Instant::now();
    cluster.patch(&manifest, &json!({"spec": {"replicas": 0}})).await?;
    for counts in [&mut watched.pods, &mut watched.vms, &mut watched.nodes, &mut watched.claims] {
        timeout(PATIENCE, counts.reach(|count| count == 0)).await.context("not all is given back in time")?;
    }
    let shrunk = usage(&cluster)?;

    let mut page = format!(
        "## {nodes} nodes and {pods} pods, out and in again\n\nA Deployment goes from nothing to {pods} pods, ten a node, and back. Default batches; VMs boot in 1 to \
         2 s; every node is measured by an agent before pods may use it; empty nodes go after 5 s.\n\n| out: seconds after the Deployment's creation, until | first | all |\n|---|---|---|\n"
    );
    let mut row = |what: &str, from: Instant, first: Option<Instant>, last: Option<Instant>| {
        let seconds = |at: Option<Instant>| {
            at.map_or_else(|| "-".to_owned(), |at| format!("{:.1}", at.duration_since(from).as_secs_f64()))
        };
        // Writing to a String does not fail.
        let _ = writeln!(page, "| {what} | {} | {} |", seconds(first), seconds(last));
    };
    for (what, counts, enough) in [
        ("pods are there", &watched.pods, pods),
        ("NodeClaims are there", &watched.claims, bought),
        ("VMs are bought", &watched.vms, bought),
        ("nodes have joined", &watched.nodes, bought),
        ("nodes are measured and ready for pods", &watched.initialized, bought),
    ] {
        row(what, out, counts.first(out, |count| count > 0), counts.first(out, |count| count >= enough));
    }
    row("pods run", out, None, Some(running));
    let cpu = |before: Usage, after: Usage| after.cpu.saturating_sub(before.cpu).as_secs_f64();
    let _ = writeln!(
        page,
        "\n{bought} nodes were bought. `assay serve`, simulated machines included, took {:.1} s of CPU time and {} MiB.\n\n\
         | in: seconds after the Deployment went to nothing, until | first | all |\n|---|---|---|",
        cpu(before, grown),
        grown.peak >> 20,
    );
    let mut row = |what: &str, first: Option<Instant>, last: Option<Instant>| {
        let seconds = |at: Option<Instant>| {
            at.map_or_else(|| "-".to_owned(), |at| format!("{:.1}", at.duration_since(back).as_secs_f64()))
        };
        let _ = writeln!(page, "| {what} | {} | {} |", seconds(first), seconds(last));
    };
    for (what, counts, there) in [
        ("pods are gone", &watched.pods, pods),
        ("VMs are given back", &watched.vms, bought),
        ("nodes are gone", &watched.nodes, bought),
        ("NodeClaims are gone", &watched.claims, bought),
    ] {
        row(what, counts.first(back, |count| count < there), counts.first(back, |count| count == 0));
    }
    let _ = writeln!(
        page,
        "\n`assay serve` took {:.1} s of CPU time for it.\n\n## API calls per node bought\n\nBy the API server's audit log over the way out, without the leader's \
         lease, first lists and watches, and without the calls of simulated machines and their agents.\n\n| call | per node |\n|---|---|",
        cpu(grown, shrunk)
    );
    let each = |count: u64| count as f64 / bought as f64;
    for (call, count) in calls.iter().filter(|(_, count)| each(**count) >= 0.005) {
        let _ = writeln!(page, "| {call} | {:.2} |", each(*count));
    }
    let _ = writeln!(page, "| together | {:.2} |", each(calls.values().sum()));
    Ok(page)
}

/// Calls of the scheduler for the nodes it buys.
fn calls(entries: &[Entry]) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for entry in entries {
        let Entry { verb, object_ref, user_agent, .. } = entry;
        if user_agent.starts_with("assay/")
            && !matches!(verb.as_str(), "watch" | "list")
            && object_ref.resource != "leases"
        {
            let part = if object_ref.subresource.is_empty() { "" } else { "/" };
            let call = format!("{verb} {}{part}{}", object_ref.resource, object_ref.subresource);
            *calls.entry(call).or_default() += 1;
        }
    }
    calls
}
