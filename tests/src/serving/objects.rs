//! Manifests that tests apply.

use anyhow::Context;
use kube::Client;
use serde_json::{Value, json};

use super::cluster::{api_of, apply};
use super::{AGENT_ACCOUNT, NAMESPACE, deploy_directory};

/// Applies the definitions of all kinds, and waits until the API server serves them.
///
/// # Errors
/// There are none, or the API server refuses one.
pub async fn install_crds(client: &Client) -> anyhow::Result<()> {
    use serde::Deserialize as _;
    let directory = deploy_directory().join("crds");
    let mut found = false;
    for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let text = std::fs::read_to_string(entry?.path())?;
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let value = Value::deserialize(document)?;
            if value.is_object() {
                apply(client, &value).await?;
                found = true;
            }
        }
    }
    anyhow::ensure!(found, "no definitions in {}", directory.display());
    for (group, kind) in [
        ("karpenter.sh/v1", "NodePool"),
        ("karpenter.sh/v1", "NodeClaim"),
        ("karpenter.azure.com/v1beta1", "AKSNodeClass"),
        ("assay.dev/v1alpha1", "NodeHardware"),
        ("assay.dev/v1alpha1", "SkuProfile"),
    ] {
        let api = api_of(client, &json!({"apiVersion": group, "kind": kind, "metadata": {}}))?;
        let served = async {
            while api.list(&Default::default()).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(60), served)
            .await
            .with_context(|| format!("{kind} is not served"))?;
    }
    Ok(())
}

/// The namespace of the scheduler, with the service account of agents.
///
/// # Errors
/// The API server refuses.
pub async fn namespace_objects(client: &Client) -> anyhow::Result<()> {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": AGENT_ACCOUNT, "namespace": NAMESPACE}});
    for object in [namespace, account] {
        apply(client, &object).await?;
    }
    Ok(())
}

/// A node class, which the scheduler makes ready.
///
/// # Errors
/// The API server refuses.
pub async fn node_class(client: &Client, name: &str) -> anyhow::Result<()> {
    let class = json!({"apiVersion": "karpenter.azure.com/v1beta1", "kind": "AKSNodeClass",
        "metadata": {"name": name}, "spec": {"imageFamily": "Ubuntu"}});
    apply(client, &class).await
}

/// A pool whose nodes take only pods that select it: tests that share a cluster do not meet. `more` is merged into its spec.
#[must_use]
pub fn node_pool(name: &str, more: &Value) -> Value {
    let mut pool = json!({
        "apiVersion": "karpenter.sh/v1", "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {
            "template": {
                "metadata": {"labels": {"test": name}},
                "spec": {
                    "nodeClassRef": {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"},
                    "taints": [{"key": "test", "value": name, "effect": "NoSchedule"}],
                    "requirements": [
                        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
                        {"key": "karpenter.azure.com/sku-family", "operator": "In", "values": ["D"]},
                    ],
                },
            },
            "disruption": {
                "consolidationPolicy": "WhenEmpty",
                "consolidateAfter": "5s",
                // A tenth at a time, each looked at twice, takes minutes.
                "budgets": [{"nodes": "100%"}],
            },
        },
    });
    merge(&mut pool["spec"], more);
    pool
}

/// A Deployment whose pods run in the pool `pool` only. `more` is merged into the pods' spec.
#[must_use]
pub fn deployment(namespace: &str, name: &str, pool: &str, replicas: u32, more: &Value) -> Value {
    let mut spec = json!({
        "nodeSelector": {"test": pool},
        "tolerations": [{"key": "test", "value": pool, "effect": "NoSchedule"}],
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "c", "image": "registry.invalid/none",
            "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}}}],
    });
    merge(&mut spec, more);
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    })
}

/// What keeps pods of an app off each other's nodes: as many pods, as many machines, so that one too many is seen.
#[must_use]
pub fn apart(app: &str) -> Value {
    json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}},
    ]}}})
}

/// Puts `more` into `into`; objects are merged, all else is replaced.
fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}
