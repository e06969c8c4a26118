//! What the chart makes is what the API server takes, to the last field.

use anyhow::{Context, ensure};
use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{NAMESPACE, api_of, apply, install_crds};
use kube::Client;
use kube::api::{Patch, PatchParams, PostParams, ValidationDirective};
use serde_json::{Value, json};

use crate::helm;

/// Kinds of the chart that belong to no namespace.
const CLUSTER_KINDS: [&str; 6] = [
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "RuntimeClass",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
];

fn value_sets() -> Vec<(&'static str, Value)> {
    vec![
        ("defaults", json!({})),
        (
            "nothing that is optional",
            json!({
                "agent": {"gpu": {"enabled": false}},
                "networkPolicy": {"enabled": false},
                "admissionPolicy": {"enabled": false},
                "podDisruptionBudget": {"enabled": false},
                "scheduler": {"replicas": 1},
            }),
        ),
        (
            "everything that is optional",
            json!({
                "nameOverride": "nodes",
                "image": {"registry": "registry.example.com/team", "tag": "1.2.3", "pullPolicy": "Always"},
                "imagePullSecrets": [{"name": "pull"}],
                "scheduler": {
                    "replicas": 3,
                    "region": "westeurope",
                    "preferencePolicy": "Ignore",
                    "minValuesPolicy": "BestEffort",
                    "reportTimeoutPolicy": "Replace",
                    "kubeSchedulerConfig": "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n",
                    "podAnnotations": {"team": "platform"},
                    "serviceAccountAnnotations": {"azure.workload.identity/client-id": "00000000-0000-0000-0000-000000000000"},
                    "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}],
                },
                "fleet": {
                    "port": 17443,
                    "authentication": "audit",
                    "audience": "someone",
                    "tls": {"existingSecret": "own-certificate"},
                    "kubeletCaSecret": "kubelet-ca",
                },
                "agent": {"podAnnotations": {"team": "platform"}, "gpu": {"createRuntimeClass": true}},
                "metrics": {"port": 18080},
                "health": {"port": 18081},
                "networkPolicy": {"metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
            }),
        ),
        ("a runtime class of another name", json!({"agent": {"gpu": {"runtimeClassName": "nvidia-cdi"}}})),
        (
            "a certificate from cert-manager",
            json!({"fleet": {"tls": {"certManagerIssuer": {"name": "ca", "kind": "ClusterIssuer", "group": "cert-manager.io"}}}}),
        ),
    ]
}

/// Asks the API server whether it would take a manifest, every field of it.
async fn would_take(client: &Client, manifest: &Value) -> anyhow::Result<()> {
    let mut manifest = manifest.clone();
    let kind = manifest["kind"].as_str().context("a kind")?.to_owned();
    if !CLUSTER_KINDS.contains(&kind.as_str()) && manifest["metadata"]["namespace"].is_null() {
        manifest["metadata"]["namespace"] = json!(NAMESPACE);
    }
    let name = manifest["metadata"]["name"].as_str().context("a name")?.to_owned();
    let params = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("helm").dry_run()
    };
    let taken = api_of(client, &manifest)?.patch(&name, &params, &Patch::Apply(&manifest)).await;
    taken.map(drop).with_context(|| format!("{kind} {name}: {manifest:#}"))
}

async fn own_namespace(client: &Client) -> anyhow::Result<()> {
    apply(client, &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})).await
}

fn of_kind<'m>(manifests: &'m [Value], kind: &str) -> Vec<&'m Value> {
    manifests.iter().filter(|one| one["kind"] == kind).collect()
}

#[test]
fn the_api_server_takes_what_any_values_make() {
    let helm = helm!();
    on_own(Options::bare(), async |plane| {
        let client = plane.client().await?;
        install_crds(&client).await?;
        own_namespace(&client).await?;
        for (name, values) in value_sets() {
            helm.lint(&values).context(name)?;
            let manifests = helm.template(NAMESPACE, &values)?;
            ensure!(of_kind(&manifests, "CustomResourceDefinition").len() == 5, "{name}: all definitions");
            for manifest in &manifests {
                // Its definition is not here.
                if manifest["apiVersion"] != "cert-manager.io/v1" {
                    would_take(&client, manifest).await.context(name)?;
                }
            }
        }
        // A field that does not exist would have been noticed.
        let mut odd = of_kind(&helm.template(NAMESPACE, &json!({}))?, "Deployment")[0].clone();
        odd["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = json!("Always");
        let refused = would_take(&client, &odd).await.expect_err("unknown");
        ensure!(format!("{refused:#}").contains("imagePolicy"), "{refused:#}");
        Ok(())
    });
}

#[test]
fn values_decide_what_is_made() {
    let helm = helm!();
    for (name, values) in value_sets() {
        let manifests = helm.template(NAMESPACE, &values).unwrap();
        let classes: Vec<&Value> = of_kind(&manifests, "DaemonSet")
            .into_iter()
            .map(|set| &set["spec"]["template"]["spec"]["runtimeClassName"])
            .collect();
        let has = |kind| of_kind(&manifests, kind).len();
        match name {
            "nothing that is optional" => {
                assert_eq!(classes, [&Value::Null]);
                assert_eq!(
                    has("NetworkPolicy") + has("PodDisruptionBudget") + has("ValidatingAdmissionPolicy"),
                    0
                );
            }
            "everything that is optional" => {
                assert_eq!(classes, [&Value::Null, &json!("nvidia")]);
                assert_eq!((has("RuntimeClass"), has("Secret")), (1, 0));
                let deployment = of_kind(&manifests, "Deployment")[0];
                assert_eq!(deployment["metadata"]["name"], "nodes");
                assert_eq!(deployment["spec"]["replicas"], 3);
            }
            "a runtime class of another name" => {
                assert_eq!(classes, [&Value::Null, &json!("nvidia-cdi")]);
                assert_eq!(has("RuntimeClass"), 0);
            }
            "a certificate from cert-manager" => {
                assert_eq!((has("Certificate"), has("Secret")), (1, 0));
                let names = &of_kind(&manifests, "Certificate")[0]["spec"]["dnsNames"];
                assert_eq!(names[0], "assay-agents.assay-system.svc");
            }
            _ => {
                assert_eq!(classes, [&Value::Null, &Value::Null], "no runtime class that nobody made");
                assert_eq!((has("RuntimeClass"), has("Secret")), (0, 1));
                assert_eq!(of_kind(&manifests, "Deployment")[0]["spec"]["replicas"], 2);
            }
        }
    }
}

/// Pod Security Standards, judged by the API server: the scheduler meets the strictest, the agent all of it but for the
/// directories of the host that it reads.
#[test]
fn pods_ask_for_no_more_than_they_need() {
    let helm = helm!();
    on_own(Options::bare(), async |plane| {
        let client = plane.client().await?;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "strict",
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
        apply(&client, &namespace).await?;
        let manifests = helm.template(NAMESPACE, &json!({}))?;
        for account in of_kind(&manifests, "ServiceAccount") {
            let mut account = account.clone();
            account["metadata"]["namespace"] = json!("strict");
            apply(&client, &account).await?;
        }
        for (kind, count) in [("Deployment", 1), ("DaemonSet", 2)] {
            let sets = of_kind(&manifests, kind);
            ensure!(sets.len() == count);
            for set in sets {
                let template = &set["spec"]["template"];
                let pod = json!({"apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
                    "metadata": {"name": "one", "namespace": "strict", "labels": template["metadata"]["labels"]}});
                let params = PostParams { dry_run: true, ..PostParams::default() };
                let taken =
                    api_of(&client, &pod)?.create(&params, &serde_json::from_value(pod.clone())?).await;
                if kind == "Deployment" {
                    taken.context("the scheduler's pod")?;
                    continue;
                }
                let refused = taken.expect_err("it reads the host").to_string();
                ensure!(refused.contains("hostPath"), "{refused}");
                for other in
                    ["allowPrivilegeEscalation", "capabilities", "runAsNonRoot", "seccomp", "host namespaces"]
                {
                    ensure!(!refused.contains(other), "{other}: {refused}");
                }
                let volumes = template["spec"]["volumes"].as_array().context("volumes")?;
                let mounts =
                    template["spec"]["containers"][0]["volumeMounts"].as_array().context("mounts")?;
                for volume in volumes.iter().filter(|volume| volume["hostPath"].is_object()) {
                    let mount =
                        mounts.iter().find(|mount| mount["name"] == volume["name"]).context("mounted")?;
                    ensure!(mount["readOnly"] == true, "{mount}");
                }
            }
        }
        Ok(())
    });
}
