//! Manifests written for Karpenter on Azure, as they are.

use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{Cluster, ServeOptions, deployment, node_pool};
use serde_json::json;

/// Weights, limits and selections of several pools together, in the spelling that AKS documents.
#[test]
fn pools_with_weights_limits_and_selections_are_used_as_karpenter_uses_them() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("pools").await?;
        // Heaviest first, until its limit; then the next.
        let mut heavy = node_pool("heavy", &json!({"weight": 50, "limits": {"cpu": "4"}}));
        let mut light = node_pool("light", &json!({}));
        for pool in [&mut heavy, &mut light] {
            pool["spec"]["template"]["metadata"]["labels"]["test"] = json!("both");
            pool["spec"]["template"]["spec"]["taints"] =
                json!([{"key": "test", "value": "both", "effect": "NoSchedule"}]);
        }
        cluster.apply(&heavy).await?;
        cluster.apply(&light).await?;
        let big = json!({"containers": [{"name": "c", "image": "registry.invalid/none",
            "resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}}}]});
        cluster.apply(&deployment(&namespace, "pools", "both", 4, &big)).await?;
        cluster.running(&namespace, "pools", 4).await?;
        let cpus = |nodes: &[k8s_openapi::api::core::v1::Node]| -> u64 {
            nodes
                .iter()
                .map(|node| {
                    node.status.as_ref().unwrap().capacity.as_ref().unwrap()["cpu"].0.parse::<u64>().unwrap()
                })
                .sum()
        };
        let heavy = cpus(&cluster.nodes("heavy").await?);
        assert!((1..=4).contains(&heavy), "the heavy pool is used, and not over its limit: {heavy}");
        assert!(cpus(&cluster.nodes("light").await?) > 0, "the rest went to the light one");
        Ok(())
    });
}

/// The older spellings of the AKS page are taken.
#[test]
fn the_older_spellings_of_the_aks_page_are_accepted() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("old").await?;
        let disruption =
            json!({"disruption": {"consolidationPolicy": "WhenUnderutilized", "expireAfter": "Never"}});
        let mut pool = node_pool("old", &disruption);
        pool["spec"]["disruption"].as_object_mut().unwrap().remove("consolidateAfter");
        cluster.apply(&pool).await?;
        cluster.apply(&deployment(&namespace, "old", "old", 1, &json!({}))).await?;
        cluster.running(&namespace, "old", 1).await?;
        Ok(())
    });
}
