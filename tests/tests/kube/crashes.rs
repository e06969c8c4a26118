//! Crashes, fail-overs, and API servers that go away.

use std::time::Instant;

use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{Cluster, ServeOptions, Serving, deployment, node_pool};
use serde_json::{Value, json};

/// Every VM has a claim and every claim a VM, and no more were made than needed.
async fn nothing_leaked(cluster: &Cluster<'_>, pool: &str) -> anyhow::Result<bool> {
    let vms = cluster.list("v1", "ConfigMap", "assay.dev/simulated-vm=true").await?;
    let claims = cluster.claims(pool).await?;
    let names = |objects: &[Value]| -> std::collections::BTreeSet<String> {
        objects.iter().filter_map(|object| Some(object["metadata"]["name"].as_str()?.to_owned())).collect()
    };
    Ok(names(&vms) == names(&claims))
}

/// Killed again and again in the middle of buying: nothing is bought twice, nothing is left behind.
#[test]
fn a_scheduler_killed_at_any_moment_buys_nothing_twice() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("crash").await?;
        cluster.apply(&node_pool("crash", &json!({}))).await?;
        // Apart on hosts: six pods need six machines, so that one too many is seen.
        let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "crash"}}},
        ]}}});
        cluster.apply(&deployment(&namespace, "crash", "crash", 6, &apart)).await?;
        // The pauses walk through the steps of a launch: object, VM, status, node, report.
        for pause in [150, 400, 700, 1_100, 1_600, 2_300] {
            cluster
                .until("it decides", async |cluster| {
                    Ok(cluster.serving.log().contains("\"decides\"")
                        || !cluster.claims("crash").await?.is_empty())
                })
                .await?;
            tokio::time::sleep(std::time::Duration::from_millis(pause)).await;
            cluster.serving.kill()?;
            // A lease of a scheduler that was killed runs out in 15 s; here nobody else can hold it.
            let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "assay-leader-election", "namespace": assay_tests::serving::NAMESPACE}});
            let _ = cluster.delete(&lease).await;
            cluster.serving = Serving::start(plane, &ServeOptions::default())?;
        }
        let nodes = cluster.running(&namespace, "crash", 6).await?;
        assert_eq!(nodes.len(), 6);
        cluster
            .until("VMs and claims are the same", async |cluster| nothing_leaked(cluster, "crash").await)
            .await?;
        assert_eq!(cluster.claims("crash").await?.len(), 6, "one machine a pod");
        Ok(())
    });
}

/// Two schedulers: when the one that leads is killed, the other one takes over within 20 s and has all reports.
#[test]
fn another_scheduler_takes_over_within_twenty_seconds() {
    on_own(Options::whole(), async |plane| {
        let mut first = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("lead").await?;
        first.apply(&node_pool("lead", &json!({}))).await?;
        first.apply(&deployment(&namespace, "lead", "lead", 2, &json!({}))).await?;
        first.running(&namespace, "lead", 2).await?;

        let mut second = Cluster::start(plane, &ServeOptions::default()).await?;
        second
            .until("the second one follows", async |cluster| {
                Ok(cluster.serving.metric("karpenter_cluster_state_synced", &[]).await? > 0.5)
            })
            .await?;
        first.serving.kill()?;
        let killed = Instant::now();
        second
            .patch(&deployment(&namespace, "lead", "lead", 2, &json!({})), &json!({"spec": {"replicas": 12}}))
            .await?;
        second
            .until("the second one leads", async |cluster| Ok(cluster.serving.log().contains("\"decides\"")))
            .await?;
        let took = killed.elapsed();
        // 15 s for the lease to run out, 2 s to look again, and a machine that is busy with other tests.
        assert!(took.as_secs() < 40, "took over after {took:?}");
        second.running(&namespace, "lead", 12).await?;
        second
            .until("VMs and claims are the same", async |cluster| nothing_leaked(cluster, "lead").await)
            .await
    });
}

/// The API server goes away and comes back under load: work goes on where it was.
#[test]
fn an_api_server_that_restarts_holds_nothing_up_for_good() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("api").await?;
        cluster.apply(&node_pool("api", &json!({}))).await?;
        cluster.apply(&deployment(&namespace, "api", "api", 10, &json!({}))).await?;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        plane.stop_apiserver()?;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        plane.start_apiserver().await?;
        cluster.running(&namespace, "api", 10).await?;
        cluster
            .patch(&deployment(&namespace, "api", "api", 10, &json!({})), &json!({"spec": {"replicas": 0}}))
            .await?;
        cluster
            .until("everything is given back", async |cluster| {
                Ok(cluster.claims("api").await?.is_empty() && cluster.nodes("api").await?.is_empty())
            })
            .await
    });
}
