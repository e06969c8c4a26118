//! How machines go.

use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{Cluster, ServeOptions, deployment, node_pool};
use serde_json::json;

/// `kubectl delete node` and `kubectl delete nodeclaim`: pods move first, budgets hold, finalizers keep both objects until the VM
/// is gone.
#[test]
fn a_deleted_node_or_claim_goes_gracefully_and_within_budgets() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("drain").await?;
        cluster.apply(&node_pool("drain", &json!({}))).await?;
        cluster.apply(&deployment(&namespace, "drain", "drain", 4, &json!({}))).await?;
        let before = cluster.running(&namespace, "drain", 4).await?;
        // Of four, one may be missing at a time.
        let budget = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
            "metadata": {"name": "drain", "namespace": namespace},
            "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "drain"}}}});
        cluster.apply(&budget).await?;

        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": before[0]}});
        cluster.delete(&node).await?;
        let gone = before[0].clone();
        let mut fewest = usize::MAX;
        cluster
            .until("the node is gone", async |cluster| {
                let pods = cluster.pods(&namespace, "drain").await?;
                let ready: usize = pods
                    .iter()
                    .filter(|(node, _)| !node.is_empty())
                    .flat_map(|(_, pods)| pods)
                    .filter(|pod| pod.metadata.deletion_timestamp.is_none())
                    .count();
                fewest = fewest.min(ready);
                let nodes = cluster.nodes("drain").await?;
                Ok(nodes.iter().all(|node| node.metadata.name.as_ref() != Some(&gone)))
            })
            .await?;
        assert!(fewest >= 3, "the budget allows one to be missing, {} were", 4 - fewest);
        let after = cluster.running(&namespace, "drain", 4).await?;
        assert!(!after.contains(&gone));
        let claims = cluster.claims("drain").await?;
        assert!(
            claims.iter().all(|claim| claim["metadata"]["name"] != json!(gone)),
            "its claim went with it"
        );

        let claim =
            json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": after[0]}});
        cluster.delete(&claim).await?;
        let gone = after[0].clone();
        cluster
            .until("claim, node and VM are gone", async |cluster| {
                let vms = cluster.list("v1", "ConfigMap", "assay.dev/simulated-vm=true").await?;
                let named = |object: &serde_json::Value| object["metadata"]["name"] == json!(gone);
                Ok(!cluster.claims("drain").await?.iter().any(named)
                    && !vms.iter().any(named)
                    && cluster
                        .nodes("drain")
                        .await?
                        .iter()
                        .all(|node| node.metadata.name.as_ref() != Some(&gone)))
            })
            .await?;
        cluster.running(&namespace, "drain", 4).await?;
        Ok(())
    });
}

/// A pod that must not be disrupted keeps its node although it drifted; once it is gone, the node goes.
#[test]
fn do_not_disrupt_keeps_a_node() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("keep").await?;
        cluster.apply(&node_pool("keep", &json!({"disruption": {"budgets": [{"nodes": "100%"}]}}))).await?;
        let mut held = deployment(&namespace, "keep", "keep", 1, &json!({}));
        held["spec"]["template"]["metadata"]["annotations"] = json!({"karpenter.sh/do-not-disrupt": "true"});
        cluster.apply(&held).await?;
        let before = cluster.running(&namespace, "keep", 1).await?;
        // Another template: the node has drifted.
        let drifted = json!({"spec": {"template": {"metadata": {"labels": {"generation": "two"}}}}});
        cluster.patch(&node_pool("keep", &json!({})), &drifted).await?;
        tokio::time::sleep(std::time::Duration::from_secs(15)).await;
        assert_eq!(cluster.running(&namespace, "keep", 1).await?, before, "the pod holds its node");

        held["spec"]["template"]["metadata"]["annotations"] = json!({"karpenter.sh/do-not-disrupt": "false"});
        let kept = before[0].clone();
        cluster.apply(&held).await?;
        cluster
            .until("the drifted node is replaced", async |cluster| {
                let nodes = cluster.nodes("keep").await?;
                Ok(!nodes.is_empty() && nodes.iter().all(|node| node.metadata.name.as_ref() != Some(&kept)))
            })
            .await?;
        cluster.running(&namespace, "keep", 1).await?;
        Ok(())
    });
}
