//! A real cluster: kube-apiserver, its controllers and its scheduler on this machine, `assay serve` with the simulated cloud. How soon
//! a pod has its NodeClaim, what a node costs in API calls, and how long many nodes take.

mod counts;
mod scale;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use assay_scheduler::kube::api::NodeClaim;
use assay_tests::control_plane::{ControlPlane, Options};
use assay_tests::serving::{Cluster, ServeOptions, apart, deployment, node_pool};
use hdrhistogram::Histogram;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::PostParams;
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::report::machine;
use counts::Counts;

/// Size of the cluster on the page of results.
pub(crate) const NODES: usize = 500;
pub(crate) const PODS_PER_NODE: usize = 10;
/// Pods whose way to their claims is timed.
const SAMPLES: u32 = 60;
/// Between two of these.
const PAUSE: Duration = Duration::from_secs(1);
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures, prints and writes `bench/results/kube.md`.
pub(crate) fn run(nodes: usize, pods_per_node: usize) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let page = runtime.block_on(async {
        let latency = latency().await.context("latency")?;
        eprint!("{latency}");
        let scale = scale::measure(nodes, pods_per_node).await.context("scale")?;
        anyhow::Ok(format!(
            "# A real cluster\n\nMachine: {}, which runs etcd, kube-apiserver, kube-controller-manager, kube-scheduler, `assay serve`, the \
             machines of the simulated cloud with their agents, and the measurement. `make bench-kube` makes this page.\n\n{latency}\n{scale}",
            machine()
        ))
    })?;
    print!("{page}");
    if (nodes, pods_per_node) != (NODES, PODS_PER_NODE) {
        eprintln!("of another size than the page of results, which is left as it is");
        return Ok(());
    }
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("results/kube.md"), page)?;
    Ok(())
}

/// A scheduler that logs little.
fn quiet() -> ServeOptions {
    ServeOptions { environment: vec![("RUST_LOG".to_owned(), "warn".to_owned())], ..ServeOptions::default() }
}

/// One pod after the other on a cluster where nothing else happens.
async fn latency() -> anyhow::Result<String> {
    let plane = ControlPlane::start(Options::whole()).await?;
    // Machines that do not boot meanwhile keep still.
    let options = ServeOptions { batch_idle: Some(Duration::ZERO), boot: Some((600, 600)), ..quiet() };
    let cluster = Cluster::start(&plane, &options).await?;
    let namespace = plane.namespace("latency").await?;
    cluster.apply(&node_pool("latency", &json!({}))).await?;
    let claims: Api<PartialObjectMeta<NodeClaim>> = Api::all(cluster.client());
    let mut claims = Counts::watch(claims, |_| true);
    let pods: Api<Pod> = Api::namespaced(cluster.client(), &namespace);
    let template = deployment(&namespace, "latency", "latency", 1, &apart("latency"));
    // In microseconds; the first pods also find out what is cold.
    let (mut took, warm_up) = (Histogram::<u64>::new(3)?, 5);
    for number in 0..SAMPLES + warm_up {
        sleep(PAUSE).await;
        let before = claims.now();
        let sent = Instant::now();
        pods.create(&PostParams::default(), &pod(&template, number)?).await?;
        let seen = timeout(PATIENCE, claims.reach(|count| count > before)).await.context("no claim")?;
        if number >= warm_up {
            took.record(u64::try_from(seen.duration_since(sent).as_micros())?)?;
        }
    }
    let at = |quantile: f64| took.value_at_quantile(quantile) as f64 / 1e3;
    Ok(format!(
        "## From a pod to its NodeClaim\n\n{SAMPLES} pods, one after the other, on a cluster where nothing else happens, with the shortest batch \
         (`--batch-idle 0s`): from the moment the pod's creation is sent to the moment a watcher sees the claim. The machine is chosen among all \
         sizes of its family in between.\n\n| median | 90 % | slowest |\n|---|---|---|\n| {:.0} ms | {:.0} ms | {:.0} ms |\n",
        at(0.5),
        at(0.9),
        at(1.0)
    ))
}

/// A pod like those of a Deployment.
fn pod(deployment: &Value, number: u32) -> anyhow::Result<Pod> {
    let mut pod = deployment["spec"]["template"].clone();
    pod["metadata"]["name"] = json!(format!("pod-{number}"));
    serde_json::from_value(pod).context("a pod")
}
