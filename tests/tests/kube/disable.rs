//! The way out that AKS documents for node autoprovisioning: limits of zero, a taint on all pools, and pods move to fixed nodes.

use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{Cluster, ServeOptions, deployment, node_pool};
use serde_json::{Value, json};

/// A node that somebody else provides, with a heartbeat that does not end.
fn fixed_node(name: &str) -> Value {
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64"}},
        "spec": {},
        "status": {
            "capacity": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                "lastHeartbeatTime": now, "lastTransitionTime": now}],
        },
    })
}

/// Ends with what it is kept in.
struct Heartbeat(tokio::task::JoinHandle<()>);

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Keeps the fixed node alive, as its kubelet would.
fn heartbeat(cluster: &Cluster<'_>) -> Heartbeat {
    let leases: kube::Api<k8s_openapi::api::coordination::v1::Lease> =
        kube::Api::namespaced(cluster.client(), "kube-node-lease");
    Heartbeat(tokio::spawn(async move {
        loop {
            let now = k8s_openapi::jiff::Timestamp::now();
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "fixed"},
                "spec": {"holderIdentity": "fixed", "leaseDurationSeconds": 40, "renewTime": format!("{now:.6}")},
            });
            let params = kube::api::PatchParams::apply("kubelet").force();
            // The next one comes in time.
            let _ = leases.patch("fixed", &params, &kube::api::Patch::Apply(&lease)).await;
            tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        }
    }))
}

#[test]
fn the_disable_protocol_moves_pods_to_fixed_nodes_and_empties_the_cluster() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("off").await?;
        let budgets = json!({"disruption": {"budgets": [{"nodes": "100%"}]}});
        let mut pool = node_pool("off", &budgets);
        pool["spec"]["template"]["spec"].as_object_mut().unwrap().remove("taints");
        cluster.apply(&pool).await?;
        // Pods that may run anywhere.
        let mut pods = deployment(&namespace, "off", "off", 3, &json!({}));
        pods["spec"]["template"]["spec"].as_object_mut().unwrap().remove("nodeSelector");
        cluster.apply(&pods).await?;
        cluster.running(&namespace, "off", 3).await?;

        let nodes: kube::Api<k8s_openapi::api::core::v1::Node> = kube::Api::all(cluster.client());
        let fixed: k8s_openapi::api::core::v1::Node = serde_json::from_value(fixed_node("fixed"))?;
        nodes.create(&Default::default(), &fixed).await?;
        let _alive = heartbeat(&cluster);
        cluster
            .until("the fixed node takes pods", async |_| {
                let spec = nodes.get("fixed").await?.spec.unwrap_or_default();
                Ok(spec.taints.unwrap_or_default().is_empty())
            })
            .await?;
        let off = json!({"spec": {
            "limits": {"cpu": "0"},
            "template": {"spec": {"taints": [{"key": "karpenter.azure.com/disable", "effect": "NoSchedule"}]}},
        }});
        cluster.patch(&pool, &off).await?;
        cluster
            .until("every machine that was bought is gone", async |cluster| {
                Ok(cluster.nodes("off").await?.is_empty() && cluster.claims("off").await?.is_empty())
            })
            .await?;
        let by_node = cluster.pods(&namespace, "off").await?;
        let bound = |pod: &k8s_openapi::api::core::v1::Pod| {
            pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some("fixed")
        };
        assert!(by_node.values().flatten().all(bound), "on the fixed node: {:?}", by_node.keys());
        Ok(())
    });
}
