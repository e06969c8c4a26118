//! The admission policy: what the scheduler may write to a Node, and what it may not although RBAC lets it patch Nodes.

use anyhow::{Context, ensure};
use assay_tests::control_plane::clients::Identity;
use assay_tests::control_plane::shared::on_own;
use assay_tests::control_plane::{Options, eventually};
use assay_tests::serving::{NAMESPACE, apply};
use serde_json::{Value, json};

use crate::{ACCOUNT, helm, install, send};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn condition(name: &str, status: &str) -> Value {
    json!({"status": {"conditions": [{"type": name, "status": status, "reason": "Test", "message": "",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
}

fn label(key: &str, value: impl Into<Value>) -> Value {
    json!({"metadata": {"labels": {key: value.into()}}})
}

fn annotation(key: &str) -> Value {
    json!({"metadata": {"annotations": {key: "x"}}})
}

/// What is written, to the Node or its status, and with which words it is refused.
fn writes() -> Vec<(Value, bool, Option<&'static str>)> {
    const LABELS: Option<&str> = Some("may not change labels of Kubernetes' own domains");
    const ANNOTATIONS: Option<&str> = Some("annotations of Karpenter's and its own domains only");
    const SPEC: Option<&str> = Some("taints only");
    const STATUS: Option<&str> = Some("conditions only");
    const CONDITIONS: Option<&str> = Some("conditions of its own types only");
    let taint = |key: &str| json!({"spec": {"taints": [{"key": key, "effect": "NoSchedule"}]}});
    vec![
        // What it is there for.
        (label("hardware.assay.dev/cpu-isa", "x86-64-v4"), false, None),
        (label("karpenter.azure.com/sku-memory", "8192"), false, None),
        (label("karpenter.sh/registered", "true"), false, None),
        (label("team.example.com/pool", "web"), false, None),
        (label("node.kubernetes.io/exclude-from-external-load-balancers", "karpenter"), false, None),
        (label("topology.kubernetes.io/zone", "eastus-2"), false, None),
        (annotation("karpenter.sh/nodepool-hash"), false, None),
        (annotation("hardware.assay.dev/digest"), false, None),
        (taint("karpenter.sh/disrupted"), false, None),
        (json!({"metadata": {"finalizers": ["karpenter.sh/termination"]}}), false, None),
        (condition("HardwareMatchesClaim", "False"), true, None),
        (condition("GPUsPresent", "True"), true, None),
        // What would carry trust, or break somebody else's work.
        (label("node-role.kubernetes.io/control-plane", ""), false, LABELS),
        (label("node-restriction.kubernetes.io/tenant", "a"), false, LABELS),
        (label("kubernetes.io/hostname", "other"), false, LABELS),
        (label("kubernetes.io/hostname", Value::Null), false, LABELS),
        (label("node.kubernetes.io/exclude-disruption", "true"), false, LABELS),
        (label("x.k8s.io/y", "z"), false, LABELS),
        (annotation("volumes.kubernetes.io/controller-managed-attach-detach"), false, ANNOTATIONS),
        (annotation("cluster-autoscaler.kubernetes.io/scale-down-disabled"), false, ANNOTATIONS),
        (annotation("example.com/x"), false, ANNOTATIONS),
        (json!({"metadata": {"annotations": {"theirs": null}}}), false, ANNOTATIONS),
        (json!({"spec": {"unschedulable": true}}), false, SPEC),
        (json!({"status": {"capacity": {"cpu": "64"}}}), true, STATUS),
        (json!({"status": {"allocatable": {"cpu": "64"}}}), true, STATUS),
        (json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}]}}), true, STATUS),
        (condition("Ready", "False"), true, CONDITIONS),
        (condition("DiskPressure", "True"), true, CONDITIONS),
    ]
}

#[test]
fn the_scheduler_writes_to_nodes_what_is_its_own() {
    let helm = helm!();
    on_own(Options::bare(), async |plane| {
        install(&helm, plane, &json!({}))?;
        let admin = plane.client().await?;
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "n", "labels": {"kubernetes.io/hostname": "n"}, "annotations": {"theirs": "x"}},
        });
        apply(&admin, &node).await?;
        let healthy = json!({"status": {
            "capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"},
            "conditions": condition("Ready", "True")["status"]["conditions"],
        }});
        let status = "/api/v1/nodes/n/status";
        let (code, answer) = send(&admin, "PATCH", status, STRATEGIC, &healthy.to_string()).await?;
        ensure!(code == 200, "{answer}");

        let client = plane.client_of_account(NAMESPACE, ACCOUNT).await?;
        let mut attempt = 0;
        eventually("the policy to be in force", async || {
            attempt += 1;
            let odd = label("x.kubernetes.io/attempt", attempt.to_string());
            let (code, _) = send(&client, "PATCH", "/api/v1/nodes/n", MERGE, &odd.to_string()).await?;
            Ok((code == 422).then_some(()))
        })
        .await?;
        for (patch, is_status, refused) in writes() {
            let (path, kind) = if is_status { (status, STRATEGIC) } else { ("/api/v1/nodes/n", MERGE) };
            let (code, answer) = send(&client, "PATCH", path, kind, &patch.to_string()).await?;
            match refused {
                None => ensure!(code == 200, "{patch}: {code} {answer}"),
                Some(words) => ensure!(code == 422 && answer.contains(words), "{patch}: {code} {answer}"),
            }
        }

        // Nobody else is held to this.
        let free = json!({"metadata": {"labels": {"node-role.kubernetes.io/worker": ""}}, "spec": {"unschedulable": true}});
        let (code, answer) = send(&admin, "PATCH", "/api/v1/nodes/n", MERGE, &free.to_string()).await?;
        ensure!(code == 200, "{answer}");
        let kubelet = plane.client_of(&Identity::kubelet("n")).await?;
        let beat = condition("Ready", "False").to_string();
        let (code, answer) = send(&kubelet, "PATCH", status, STRATEGIC, &beat).await.context("kubelet")?;
        ensure!(code == 200, "{answer}");
        Ok(())
    });
}
