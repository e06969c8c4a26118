//! Machines that are not what was bought.

use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{Cluster, ServeOptions, deployment, node_pool};
use serde_json::json;

/// A machine that loses memory while it runs is found out, told of, and replaced, its pods moved to a place that is ready
/// first; what was learned is on record and outlives the scheduler.
#[test]
fn a_broken_machine_is_replaced_and_what_was_learned_stays() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("hw").await?;
        cluster.apply(&node_pool("hw", &json!({}))).await?;
        cluster.apply(&deployment(&namespace, "hw", "hw", 3, &json!({}))).await?;
        let before = cluster.running(&namespace, "hw", 3).await?;
        assert_eq!(before.len(), 1);

        let vm = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": before[0], "namespace": assay_tests::serving::NAMESPACE}});
        cluster.patch(&vm, &json!({"metadata": {"annotations": {"assay.dev/fault": "lessMemory"}}})).await?;
        let broken = before[0].clone();
        cluster
            .until("the machine is replaced", async |cluster| {
                let nodes = cluster.nodes("hw").await?;
                Ok(!nodes.is_empty() && nodes.iter().all(|node| node.metadata.name.as_ref() != Some(&broken)))
            })
            .await?;
        let after = cluster.running(&namespace, "hw", 3).await?;
        assert!(!after.contains(&broken));
        let told = cluster.events("MemoryMissing").await?;
        assert!(told.iter().any(|event| event.starts_with(&format!("Node/{broken}"))), "{told:?}");
        assert!(
            cluster.serving.log().contains("Evicted")
                || !cluster.events("DisruptionTerminating").await?.is_empty()
        );

        cluster
            .until("what was learned is on record", async |cluster| {
                Ok(!cluster.list("assay.dev/v1alpha1", "SkuProfile", "").await?.is_empty())
            })
            .await?;
        let learned = cluster.list("assay.dev/v1alpha1", "SkuProfile", "").await?;

        // Another run goes on from there.
        cluster.serving.kill()?;
        let mut next = Cluster::start(plane, &ServeOptions::default()).await?;
        next.patch(&deployment(&namespace, "hw", "hw", 3, &json!({})), &json!({"spec": {"replicas": 6}}))
            .await?;
        next.running(&namespace, "hw", 6).await?;
        let kept = next.list("assay.dev/v1alpha1", "SkuProfile", "").await?;
        for profile in learned {
            let again = kept.iter().find(|one| one["metadata"]["uid"] == profile["metadata"]["uid"]);
            let again = again.expect("the same object is still there");
            let reports = |object: &serde_json::Value| {
                object["profile"]["reports"].as_u64().or_else(|| object["reports"].as_u64())
            };
            assert!(reports(again) >= reports(&profile), "what was learned was not forgotten");
        }
        Ok(())
    });
}

/// A machine that loses a GPU is found out and replaced; its pod gets all the GPUs it asked for elsewhere.
#[test]
fn a_machine_that_loses_a_gpu_is_replaced() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("gpu").await?;
        let mut pool = node_pool("gpu", &json!({}));
        pool["spec"]["template"]["spec"]["requirements"] = json!([
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
            {"key": "karpenter.azure.com/sku-family", "operator": "In", "values": ["N"]},
        ]);
        cluster.apply(&pool).await?;
        let gpus = json!({"containers": [{"name": "c", "image": "registry.invalid/none",
            "resources": {"limits": {"nvidia.com/gpu": "2"}}}]});
        cluster.apply(&deployment(&namespace, "gpu", "gpu", 1, &gpus)).await?;
        let broken = cluster.running(&namespace, "gpu", 1).await?.remove(0);

        let vm = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": broken, "namespace": assay_tests::serving::NAMESPACE}});
        cluster.patch(&vm, &json!({"metadata": {"annotations": {"assay.dev/fault": "lostGpu"}}})).await?;
        cluster
            .until("the machine is replaced", async |cluster| {
                let nodes = cluster.nodes("gpu").await?;
                Ok(!nodes.is_empty() && nodes.iter().all(|node| node.metadata.name.as_ref() != Some(&broken)))
            })
            .await?;
        let after = cluster.running(&namespace, "gpu", 1).await?;
        assert_ne!(after, std::slice::from_ref(&broken));
        let told = cluster.events("GPUsMissing").await?;
        assert!(told.iter().any(|event| event.starts_with(&format!("Node/{broken}"))), "{told:?}");
        Ok(())
    });
}
