//! The chart in clusters that have something already: an earlier version of itself, GPUs' runtime class, Karpenter's definitions.

use anyhow::{Context, ensure};
use assay_tests::control_plane::shared::on_own;
use assay_tests::control_plane::{ControlPlane, Options};
use assay_tests::karpenter;
use assay_tests::serving::{Cluster, NAMESPACE, api_of, apply, deployment, node_pool};
use serde_json::{Value, json};

use crate::{as_account, helm, install};

async fn get(plane: &ControlPlane, version: &str, kind: &str, name: &str) -> anyhow::Result<Value> {
    let mut object = json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
    if !matches!(kind, "CustomResourceDefinition") {
        object["metadata"]["namespace"] = json!(NAMESPACE);
    }
    let found = api_of(&plane.client().await?, &object)?.get(name).await;
    Ok(serde_json::to_value(found.with_context(|| format!("{kind} {name}"))?)?)
}

#[test]
fn an_upgrade_keeps_the_authority_that_agents_trust_and_finds_the_runtime_class_of_gpus() {
    let helm = helm!();
    on_own(Options::bare(), async |plane| {
        install(&helm, plane, &json!({}))?;
        let class = async || {
            let set = get(plane, "apps/v1", "DaemonSet", "assay-agent-gpu").await?;
            anyhow::Ok(set["spec"]["template"]["spec"]["runtimeClassName"].clone())
        };
        let secret = async || anyhow::Ok(get(plane, "v1", "Secret", "assay-fleet").await?["data"].clone());
        ensure!(class().await?.is_null(), "there is none");
        let before = secret().await?;
        let nvidia = json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": {"name": "nvidia"}, "handler": "nvidia"});
        apply(&plane.client().await?, &nvidia).await?;
        install(&helm, plane, &json!({"scheduler": {"replicas": 3}}))?;
        ensure!(get(plane, "apps/v1", "Deployment", "assay").await?["spec"]["replicas"] == 3);
        ensure!(class().await? == "nvidia", "an operator made one");
        ensure!(secret().await? == before, "agents would trust nobody");
        Ok(())
    });
}

#[test]
fn karpenter_s_own_definitions_stay_as_they_are_and_do() {
    let helm = helm!();
    let Some(definitions) = karpenter::definitions().unwrap() else { return };
    on_own(Options::whole(), async |plane| {
        let client = plane.client().await?;
        for definition in &definitions {
            apply(&client, definition).await?;
        }
        let of = async || {
            get(plane, "apiextensions.k8s.io/v1", "CustomResourceDefinition", "nodepools.karpenter.sh").await
        };
        let before = of().await?;
        install(&helm, plane, &json!({}))?;
        let after = of().await?;
        ensure!(before["metadata"]["uid"] == after["metadata"]["uid"] && before["spec"] == after["spec"]);
        let mut cluster = Cluster::installed(plane, &as_account(plane).await?).await?;
        let namespace = plane.namespace("beside").await?;
        cluster.apply(&node_pool("beside", &json!({}))).await?;
        cluster.apply(&deployment(&namespace, "beside", "beside", 2, &json!({}))).await?;
        cluster.running(&namespace, "beside", 2).await?;
        cluster
            .until("the pool is ready and tells its nodes", async |cluster| {
                let pools = cluster.list("karpenter.sh/v1", "NodePool", "").await?;
                Ok(pools[0]["status"]["nodes"] == 1
                    && assay_tests::serving::condition(&pools[0], "Ready") == "True")
            })
            .await?;
        cluster.serving.stop().await
    });
}
