//! Machines whose clock is wrong.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use assay_tests::control_plane::shared::on_own;
use assay_tests::control_plane::{ControlPlane, Options};
use assay_tests::serving::{Cluster, FaultyApi, ServeOptions, apart, deployment, node_pool};
use serde_json::json;

/// Builds the library that puts a program's wall clock wrong.
fn skewed_clock(plane: &ControlPlane) -> anyhow::Result<String> {
    let library = plane.directory().join("skewed-clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("skewed-clock/clock.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(source).status();
    ensure!(built.context("cc is needed")?.success(), "the skewed clock does not build");
    Ok(library.display().to_string())
}

/// A scheduler whose clock is so many seconds off.
fn skewed(proxy: &FaultyApi, library: &str, seconds: i64) -> ServeOptions {
    let mut options = ServeOptions::through(proxy);
    options.environment =
        vec![("LD_PRELOAD".to_owned(), library.to_owned()), ("SKEW_SECONDS".to_owned(), seconds.to_string())];
    options.boot = Some((3, 3));
    // Certificates of agents are about true time, too: their nodes are used unmeasured.
    options.arguments = ["--report-timeout", "1s"].map(str::to_owned).into();
    options
}

/// One scheduler's clock is three hours slow, the other one's three hours fast. Leases, deadlines of launches and times on record
/// are safe: the one that follows does not take over while the other one leads, and when it does, in the middle of a launch,
/// it takes no machine for overdue.
#[test]
fn clocks_that_are_hours_off_end_no_leadership_and_no_launch() {
    on_own(Options::whole(), async |plane| {
        // By way of plain HTTP: certificates are about true time, rightly.
        let proxy = FaultyApi::start(plane).await?;
        let library = skewed_clock(plane)?;
        let mut slow = Cluster::start(plane, &skewed(&proxy, &library, -3 * 3_600)).await?;
        let namespace = plane.namespace("skew").await?;
        slow.apply(&node_pool("skew", &json!({}))).await?;
        let pods = deployment(&namespace, "skew", "skew", 2, &apart("skew"));
        slow.apply(&pods).await?;
        slow.running(&namespace, "skew", 2).await?;
        ensure!(
            slow.serving.log().contains("the clock of this machine and that of the API server differ"),
            "its clock is not off\n{}",
            slow.serving.last_words()
        );

        let mut fast = Cluster::start(plane, &skewed(&proxy, &library, 3 * 3_600)).await?;
        // Longer than a lease lasts.
        tokio::time::sleep(Duration::from_secs(16)).await;
        ensure!(!fast.serving.log().contains("\"decides\""), "it took over from one that leads");
        slow.patch(&pods, &json!({"spec": {"replicas": 4}})).await?;
        slow.until("two more are being launched", async |cluster| Ok(cluster.vms().await?.len() == 4))
            .await?;
        slow.serving.kill()?;
        fast.running(&namespace, "skew", 4).await?;
        assert_eq!(fast.vms_made()?.len(), 4, "none was taken for overdue");
        fast.until("VMs and claims are the same", async |cluster| cluster.is_balanced("skew").await).await
    });
}
