//! How machines go to save money.

use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{Cluster, ServeOptions, deployment, node_pool};
use serde_json::json;

/// Two nodes with half a load each become one, not before a PodDisruptionBudget lets a pod go, and never with none running.
#[test]
fn two_half_used_nodes_become_one_once_a_budget_lets_them() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("halves").await?;
        let mut pool = node_pool(
            "halves",
            &json!({"disruption": {"consolidationPolicy": "WhenEmptyOrUnderutilized", "consolidateAfter": "5s",
                "budgets": [{"nodes": "100%"}]}}),
        );
        pool["metadata"]["annotations"] = json!({"assay.dev/payback-period": "0s"});
        pool["spec"]["template"]["spec"]["requirements"] = json!([
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
            {"key": "karpenter.azure.com/sku-family", "operator": "In", "values": ["D"]},
            {"key": "karpenter.azure.com/sku-cpu", "operator": "In", "values": ["4"]},
        ]);
        cluster.apply(&pool).await?;
        let sized = |cpu: &str| {
            json!({"containers": [{"name": "c", "image": "registry.invalid/none",
                "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]})
        };
        // One of these fills a node but for one of those.
        cluster.apply(&deployment(&namespace, "large", "halves", 2, &sized("2500m"))).await?;
        cluster.running(&namespace, "large", 2).await?;
        cluster.apply(&deployment(&namespace, "halves", "halves", 2, &sized("1200m"))).await?;
        assert_eq!(cluster.running(&namespace, "halves", 2).await?.len(), 2, "one on each node");

        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "halves", "namespace": namespace},
            "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "halves"}}}});
        cluster.apply(&budget).await?;
        cluster.apply(&deployment(&namespace, "large", "halves", 0, &sized("2500m"))).await?;
        cluster
            .until("people are told what holds the nodes", async |cluster| {
                let told = cluster.events("DisruptionBlocked").await?;
                Ok(told.iter().any(|event| event.contains("PodDisruptionBudget")))
            })
            .await?;
        assert_eq!(cluster.nodes("halves").await?.len(), 2);

        let looser = json!({"spec": {"minAvailable": 1}});
        cluster.patch(&budget, &looser).await?;
        let mut fewest = usize::MAX;
        cluster
            .until("one node is left", async |cluster| {
                let pods = cluster.pods(&namespace, "halves").await?;
                let running = pods.iter().filter(|(node, _)| !node.is_empty()).flat_map(|(_, pods)| pods);
                let staying = running.filter(|pod| pod.metadata.deletion_timestamp.is_none());
                fewest = fewest.min(staying.count());
                Ok(cluster.nodes("halves").await?.len() == 1 && cluster.claims("halves").await?.len() == 1)
            })
            .await?;
        assert!(fewest >= 1, "the budget keeps one");
        assert_eq!(cluster.running(&namespace, "halves", 2).await?.len(), 1, "both on what is left");
        let told = cluster.events("DisruptionTerminating").await?;
        assert!(told.iter().any(|event| event.contains("Underutilized")), "{told:?}");
        Ok(())
    });
}
