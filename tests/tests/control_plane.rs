//! The control plane that other tests run against is a real one: its controllers, scheduler, authorisation and tokens work, it
//! keeps its data over a restart, and nothing of it outlives its owner.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use assay_tests::control_plane::audit::Entry;
use assay_tests::control_plane::clients::{Identity, TokenFor};
use assay_tests::control_plane::shared::{on_own, on_shared};
use assay_tests::control_plane::{ControlPlane, FLEET_AUDIENCE, Options, eventually};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a well-formed object")
}

/// A node that could run pods, as its kubelet would report it.
async fn add_node(client: &Client, name: &str) -> anyhow::Result<Node> {
    let nodes = Api::<Node>::all(client.clone());
    let node =
        object::<Node>(json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}));
    nodes.create(&PostParams::default(), &node).await?;
    let status = json!({"status": {
        "allocatable": {"cpu": "4", "memory": "16Gi", "pods": "110"},
        "capacity": {"cpu": "4", "memory": "16Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
    }});
    Ok(nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?)
}

fn deployment(name: &str, replicas: u32, node: &str) -> Deployment {
    object(json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "nodeSelector": {"kubernetes.io/hostname": node},
                    "containers": [{"name": "main", "image": "none", "resources": {"requests": {"cpu": "3"}}}],
                },
            },
        },
    }))
}

#[test]
fn a_namespace_gets_its_service_account() {
    on_shared(async |plane| {
        let namespace = plane.namespace("accounts").await?;
        let accounts = Api::<ServiceAccount>::namespaced(plane.client().await?, &namespace);
        let account = accounts.get("default").await?;
        ensure!(account.metadata.uid.is_some());
        Ok(())
    });
}

#[test]
fn pods_of_a_deployment_are_bound_as_far_as_there_is_room() {
    on_shared(async |plane| {
        let namespace = plane.namespace("deployment").await?;
        let client = plane.client().await?;
        let node = "room-for-one";
        Api::namespaced(client.clone(), &namespace)
            .create(&PostParams::default(), &deployment("web", 2, node))
            .await?;
        let pods = Api::<Pod>::namespaced(client.clone(), &namespace);
        let listed = eventually("two pods", async || {
            let listed = pods.list(&ListParams::default()).await?.items;
            Ok((listed.len() == 2).then_some(listed))
        })
        .await?;
        ensure!(listed.iter().all(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())));

        add_node(&client, node).await?;
        let (bound, refused) = eventually("one pod bound and one refused", async || {
            let listed = pods.list(&ListParams::default()).await?.items;
            let bound =
                |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_deref() == Some(node));
            let refused =
                |pod: &&Pod| unschedulable(pod).is_some_and(|message| message.contains("Insufficient cpu"));
            Ok(listed.iter().find(bound).cloned().zip(listed.iter().find(refused).cloned()))
        })
        .await?;
        ensure!(bound.name_any() != refused.name_any());
        Ok(())
    });
}

/// Why kube-scheduler says that it cannot place a pod.
fn unschedulable(pod: &Pod) -> Option<&str> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition =
        conditions.iter().find(|condition| condition.reason.as_deref() == Some("Unschedulable"))?;
    condition.message.as_deref()
}

#[test]
fn a_service_account_may_do_what_it_was_granted_and_nothing_else() {
    on_shared(async |plane| {
        let namespace = plane.namespace("rights").await?;
        let admin = plane.client().await?;
        let role = object::<Role>(json!({
            "metadata": {"name": "reader"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}],
        }));
        let binding = object::<RoleBinding>(json!({
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
            "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}],
        }));
        Api::namespaced(admin.clone(), &namespace).create(&PostParams::default(), &role).await?;
        Api::namespaced(admin, &namespace).create(&PostParams::default(), &binding).await?;
        let account = plane.client_of_account(&namespace, "default").await?;
        let granted = Api::<ConfigMap>::namespaced(account.clone(), &namespace);
        // The authoriser watches the grants, so they come to count a moment later.
        eventually("the grant", async || Ok(granted.list(&ListParams::default()).await.ok())).await?;

        let denied = [
            Api::<ConfigMap>::all(account.clone()).list(&ListParams::default()).await.map(|_| ()),
            Api::<Node>::all(account.clone()).list(&ListParams::default()).await.map(|_| ()),
            Api::<Pod>::namespaced(account, &namespace).list(&ListParams::default()).await.map(|_| ()),
        ];
        for answer in denied {
            let Err(kube::Error::Api(status)) = answer else { anyhow::bail!("not refused: {answer:?}") };
            ensure!(status.code == 403, "{status:?}");
        }

        // Somebody the administrator pretends to be has that one's rights, not the administrator's.
        let nobody = Identity::Impersonated { user: "nobody".to_owned(), groups: Vec::new() };
        let answer = Api::<Node>::all(plane.client_of(&nobody).await?).list(&ListParams::default()).await;
        ensure!(matches!(&answer, Err(kube::Error::Api(status)) if status.code == 403), "{answer:?}");

        let name = format!("system:serviceaccount:{namespace}:default");
        let refused = |entry: &&Entry| entry.user.username == name && entry.response_status.code == 403;
        ensure!(plane.audit()?.iter().filter(refused).count() >= 3, "the audit log has every refusal");
        Ok(())
    });
}

#[test]
fn a_kubelet_may_write_to_its_own_node_only() {
    on_shared(async |plane| {
        let admin = plane.client().await?;
        add_node(&admin, "kubelet-own").await?;
        add_node(&admin, "kubelet-other").await?;
        let nodes = Api::<Node>::all(plane.client_of(&Identity::kubelet("kubelet-own")).await?);
        let label = Patch::Merge(json!({"metadata": {"labels": {"example.com/rack": "7"}}}));
        nodes.patch("kubelet-own", &PatchParams::default(), &label).await?;
        let answer = nodes.patch("kubelet-other", &PatchParams::default(), &label).await;
        ensure!(matches!(&answer, Err(kube::Error::Api(status)) if status.code == 403), "{answer:?}");
        Ok(())
    });
}

async fn review(plane: &ControlPlane, token: &str, audience: &str) -> anyhow::Result<TokenReviewStatus> {
    let spec = TokenReviewSpec { token: Some(token.to_owned()), audiences: Some(vec![audience.to_owned()]) };
    let review = TokenReview { spec, ..TokenReview::default() };
    let answer =
        Api::<TokenReview>::all(plane.client().await?).create(&PostParams::default(), &review).await?;
    answer.status.context("a review has a status")
}

#[test]
fn a_token_says_for_whom_and_on_which_node_it_is() {
    on_shared(async |plane| {
        let namespace = plane.namespace("tokens").await?;
        let client = plane.client().await?;
        add_node(&client, "tokens-node").await?;
        let pods = Api::<Pod>::namespaced(client, &namespace);
        let pod = object::<Pod>(json!({
            "metadata": {"name": "agent"},
            "spec": {"nodeName": "tokens-node", "containers": [{"name": "agent", "image": "none"}]},
        }));
        let pod = pods.create(&PostParams::default(), &pod).await?;
        let wanted = TokenFor::account(&namespace, "default").audience(FLEET_AUDIENCE).bound_to(&pod);
        let token = plane.token(&wanted).await?;

        let status = review(plane, &token, FLEET_AUDIENCE).await?;
        ensure!(status.authenticated == Some(true), "{status:?}");
        let user = status.user.context("an authenticated token has a user")?;
        ensure!(user.username == Some(format!("system:serviceaccount:{namespace}:default")), "{user:?}");
        let extra = user.extra.unwrap_or_default();
        for (key, value) in [("node-name", "tokens-node"), ("pod-name", "agent")] {
            let key = format!("authentication.kubernetes.io/{key}");
            ensure!(extra.get(&key) == Some(&vec![value.to_owned()]), "{key} in {extra:?}");
        }
        let status = review(plane, &token, "https://kubernetes.default.svc").await?;
        ensure!(status.authenticated != Some(true), "a token for another audience: {status:?}");
        Ok(())
    });
}

#[test]
fn an_admission_policy_takes_effect() {
    on_shared(async |plane| {
        let namespace = plane.namespace("policy").await?;
        let client = plane.client().await?;
        let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
        let policy = json!({
            "metadata": {"name": "no-secrets-in-maps"},
            "spec": {
                "matchConstraints": {
                    "resourceRules": [{
                        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"],
                    }],
                },
                "validations": [{"expression": "!('password' in object.data)", "message": "no passwords"}],
            },
        });
        policies.create(&PostParams::default(), &object(policy)).await?;
        let binding = json!({
            "metadata": {"name": "no-secrets-in-maps"},
            "spec": {
                "policyName": "no-secrets-in-maps",
                "validationActions": ["Deny"],
                "matchResources": {
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                },
            },
        });
        Api::<ValidatingAdmissionPolicyBinding>::all(client.clone())
            .create(&PostParams::default(), &object(binding))
            .await?;
        let maps = Api::<ConfigMap>::namespaced(client, &namespace);
        let map =
            object::<ConfigMap>(json!({"metadata": {"generateName": "map-"}, "data": {"password": "x"}}));
        let message = eventually("the policy to be enforced", async || {
            match maps.create(&PostParams::default(), &map).await {
                Ok(_) => Ok(None),
                Err(kube::Error::Api(status)) => Ok(Some(status.message.clone())),
                Err(error) => Err(error.into()),
            }
        })
        .await?;
        ensure!(message.contains("no passwords"), "{message}");
        Ok(())
    });
}

#[test]
fn data_and_address_outlast_the_api_server() {
    on_own(Options::bare(), async |plane| {
        let namespace = plane.namespace("restart").await?;
        let client = plane.client().await?;
        let maps = Api::<ConfigMap>::namespaced(client, &namespace);
        let map = object::<ConfigMap>(json!({"metadata": {"name": "kept"}, "data": {"key": "value"}}));
        let before = maps.create(&PostParams::default(), &map).await?;
        let server = plane.server();

        plane.stop_apiserver()?;
        ensure!(maps.get("kept").await.is_err(), "nobody answers");
        plane.start_apiserver().await?;

        ensure!(plane.server() == server);
        // The client from before the restart finds it again.
        let after = maps.get("kept").await?;
        ensure!(after.metadata.uid == before.metadata.uid && after.data == before.data, "{after:?}");
        Ok(())
    });
}

#[test]
fn nothing_outlives_its_owner() {
    // What is shared is not touched; it tells whether there is a control plane to test with.
    on_shared(async |_| {
        let mut owner = Command::new(env!("CARGO_BIN_EXE_control-plane"))
            .args(["run"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(owner.stdout.take().context("a pipe was asked for")?).read_line(&mut line)?;
        let ready: Value =
            serde_json::from_str(&line).with_context(|| format!("not a ready line: {line:?}"))?;
        let processes: Vec<u64> =
            ready["pid"].as_object().context("processes")?.values().filter_map(Value::as_u64).collect();
        ensure!(processes.len() == 4, "{ready}");
        ensure!(processes.iter().all(|process| runs(*process)), "all of {processes:?} run");
        let directory = Path::new(ready["logs"].as_str().context("logs")?).parent().map(PathBuf::from);
        let directory = directory.context("logs lie in the directory of the control plane")?;
        ensure!(directory.is_dir());

        // Without a chance to clean up.
        owner.kill()?;
        owner.wait()?;
        eventually("the end of its processes", async || {
            Ok((!processes.iter().any(|process| runs(*process))).then_some(()))
        })
        .await?;
        eventually("the end of its directory", async || Ok((!directory.exists()).then_some(()))).await
    });
}

/// Whether a process is there and not just waiting to be collected.
fn runs(process: u64) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{process}/stat")) else { return false };
    // The name, in brackets, may contain anything.
    status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
