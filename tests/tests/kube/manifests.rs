//! Manifests written for Karpenter on Azure, as they are.

use std::path::Path;

use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{Cluster, ServeOptions, deployment, names, node_pool};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// What node autoprovisioning makes for a new cluster, and a pool of spot machines beside it: applied as they are, each pool has
/// the pods that it is for.
#[test]
fn unmodified_manifests_of_karpenter_on_azure_buy_for_their_pods() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("nap").await?;
        for file in ["nap-defaults.yaml", "spot.yaml"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("api/valid").join(file);
            for document in serde_yaml_ng::Deserializer::from_str(&std::fs::read_to_string(path)?) {
                cluster.apply(&Value::deserialize(document)?).await?;
            }
        }
        let tolerant = json!({"tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}]});
        for (app, pool, selector, more) in [
            // The heaviest pool that takes them.
            ("any", "spot", json!({}), json!({})),
            ("general", "default", json!({"karpenter.sh/nodepool": "default"}), json!({})),
            // A label of AKS that no pool sets is given to the node that is bought for it.
            ("mode", "spot", json!({"kubernetes.azure.com/mode": "system"}), json!({})),
            ("system", "system-surge", json!({"karpenter.sh/nodepool": "system-surge"}), tolerant),
        ] {
            let mut pods = deployment(&namespace, app, app, 2, &more);
            pods["spec"]["template"]["spec"]["nodeSelector"] = selector;
            cluster.apply(&pods).await?;
            let on = cluster.running(&namespace, app, 2).await?;
            let nodes = names(&cluster.nodes(pool).await?);
            assert!(on.iter().all(|node| nodes.contains(node)), "{app} on {on:?}, of {pool} are {nodes:?}");
        }
        let spot = &cluster.nodes("spot").await?[0];
        assert_eq!(spot.metadata.labels.as_ref().unwrap()["karpenter.sh/capacity-type"], "spot");
        Ok(())
    });
}

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
