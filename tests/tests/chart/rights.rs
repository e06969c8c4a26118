//! What the chart's accounts may do: their work, and nothing else.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use assay_tests::control_plane::Options;
use assay_tests::control_plane::clients::{Identity, TokenFor};
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{AGENT_ACCOUNT, Cluster, NAMESPACE, deployment, node_pool};
use k8s_openapi::api::authorization::v1::SelfSubjectRulesReview;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::{ACCOUNT, USER, as_account, helm, install, send};

/// One thing that somebody may do: API group, resource, name (empty for any), verb.
type Right = (String, String, String, String);

fn rights<'r>(rules: impl IntoIterator<Item = &'r Value>) -> BTreeSet<Right> {
    let texts = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|one| Some(one.as_str()?.to_owned())).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rules {
        let mut names = texts(&rule["resourceNames"]);
        if names.is_empty() {
            names.push(String::new());
        }
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for name in &names {
                    for verb in texts(&rule["verbs"]) {
                        rights.insert((group.clone(), resource.clone(), name.clone(), verb));
                    }
                }
            }
        }
    }
    rights
}

/// What the API server says that somebody may do in a namespace.
async fn may_do(client: &Client, namespace: &str) -> anyhow::Result<BTreeSet<Right>> {
    let review: SelfSubjectRulesReview = serde_json::from_value(json!({"spec": {"namespace": namespace}}))?;
    let answer =
        Api::<SelfSubjectRulesReview>::all(client.clone()).create(&PostParams::default(), &review).await?;
    let status = serde_json::to_value(answer.status.context("an answer")?)?;
    ensure!(status["incomplete"] == false, "{status}");
    Ok(rights(status["resourceRules"].as_array().context("rules")?))
}

/// Work of every kind that the scheduler does: it buys, measures, records, labels, drains and gives back.
async fn whole_life(cluster: &mut Cluster<'_>, namespace: &str) -> anyhow::Result<()> {
    cluster.apply(&node_pool("rights", &json!({}))).await?;
    cluster.apply(&deployment(namespace, "rights", "rights", 3, &json!({}))).await?;
    let nodes = cluster.running(namespace, "rights", 3).await?;
    cluster
        .until("what was measured is on record", async |cluster| {
            let hardware = cluster.list("assay.dev/v1alpha1", "NodeHardware", "").await?;
            Ok(nodes.iter().all(|node| hardware.iter().any(|one| one["metadata"]["name"] == **node)))
        })
        .await?;
    // Somebody wants a node away: its pods are evicted.
    cluster.delete(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": nodes[0]}})).await?;
    cluster
        .until("the node is gone and its pods run elsewhere", async |cluster| {
            let there = cluster.nodes("rights").await?;
            let pods = cluster.pods(namespace, "rights").await?;
            let running: usize =
                pods.iter().filter(|(node, _)| !node.is_empty()).map(|(_, pods)| pods.len()).sum();
            Ok(there.iter().all(|node| node.metadata.name.as_deref() != Some(&nodes[0])) && running == 3)
        })
        .await?;
    cluster
        .patch(&deployment(namespace, "rights", "rights", 0, &json!({})), &json!({"spec": {"replicas": 0}}))
        .await?;
    cluster
        .until("everything is given back", async |cluster| {
            Ok(cluster.nodes("rights").await?.is_empty() && cluster.claims("rights").await?.is_empty())
        })
        .await
}

/// Rights that are needed and not seen in the audit log: an apply that creates is a patch, an owner's finalizers are asked about
/// where `OwnerReferencesPermissionEnforcement` is on, and a kind that is not defined is not watched.
const NOT_SEEN: [&str; 5] = [
    "create nodehardware",
    "create skuprofiles",
    "update nodeclaims/finalizers",
    "update nodepools/finalizers",
    "watch podgroups",
];

/// A control plane that asks for all rights that Kubernetes knows of.
fn strict() -> Options {
    let plugins = "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement";
    Options { apiserver_flags: vec![plugins.to_owned()], ..Options::whole() }
}

/// Requests that an intruder with the scheduler's token would like.
const FORBIDDEN: [(&str, &str); 34] = [
    ("GET", "/api/v1/secrets"),
    ("GET", "/api/v1/namespaces/assay-system/secrets/assay-fleet"),
    ("GET", "/api/v1/configmaps"),
    ("GET", "/api/v1/namespaces/kube-system/configmaps"),
    ("POST", "/api/v1/namespaces/default/pods"),
    ("PATCH", "/api/v1/namespaces/default/pods/web"),
    ("POST", "/api/v1/namespaces/default/pods/web/exec"),
    ("GET", "/api/v1/namespaces/default/pods/web/log"),
    ("POST", "/api/v1/namespaces/default/pods/web/binding"),
    ("DELETE", "/api/v1/namespaces/default/pods"),
    ("PUT", "/api/v1/nodes/n"),
    ("PUT", "/api/v1/nodes/n/status"),
    ("GET", "/api/v1/nodes/n/proxy/pods"),
    ("DELETE", "/api/v1/nodes"),
    ("DELETE", "/api/v1/namespaces/default"),
    ("DELETE", "/api/v1/persistentvolumes/data"),
    ("PATCH", "/api/v1/namespaces/default/persistentvolumeclaims/data"),
    ("POST", "/api/v1/namespaces/assay-system/serviceaccounts/assay/token"),
    ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/default/token"),
    ("PATCH", "/apis/apps/v1/namespaces/assay-system/deployments/assay"),
    ("DELETE", "/apis/apps/v1/namespaces/default/daemonsets/logs"),
    ("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"),
    ("PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterroles/assay"),
    ("DELETE", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/assay-node-writes"),
    ("DELETE", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/assay-node-writes"),
    ("PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/nodepools.karpenter.sh"),
    ("POST", "/apis/karpenter.sh/v1/nodepools"),
    ("DELETE", "/apis/karpenter.sh/v1/nodepools/default"),
    ("DELETE", "/apis/karpenter.azure.com/v1beta1/aksnodeclasses/default"),
    ("DELETE", "/apis/karpenter.sh/v1/nodeclaims"),
    ("PUT", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler"),
    ("PATCH", "/apis/coordination.k8s.io/v1/namespaces/assay-system/leases/another"),
    ("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests"),
    ("DELETE", "/apis/policy/v1/namespaces/default/poddisruptionbudgets/web"),
];

#[test]
fn the_scheduler_does_its_work_as_its_account_and_can_do_nothing_else() {
    let helm = helm!();
    on_own(strict(), async |plane| {
        install(&helm, plane, &json!({}))?;
        let mut cluster = Cluster::installed(plane, &as_account(plane).await?).await?;
        let namespace = plane.namespace("rights").await?;
        whole_life(&mut cluster, &namespace).await?;
        cluster.serving.stop().await?;
        let entries = plane.audit()?;
        let mine: Vec<_> = entries.iter().filter(|entry| entry.user.username == USER).collect();
        ensure!(mine.len() > 50, "it was this account: {}", mine.len());
        let refused: Vec<String> = mine
            .iter()
            // By RBAC or by the policy.
            .filter(|entry| matches!(entry.response_status.code, 401 | 403 | 422))
            .map(|entry| format!("{} {}: {}", entry.verb, entry.uri, entry.response_status.message))
            .collect();
        ensure!(refused.is_empty(), "{refused:#?}");

        let client = plane.client_of_account(NAMESPACE, ACCOUNT).await?;
        for (method, path) in FORBIDDEN {
            let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            let (code, answer) = send(&client, method, path, kind, "{}").await?;
            ensure!(code == 403, "{method} {path}: {code} {answer}");
        }
        let mut request = hyper::Request::get("/api/v1/secrets").body(kube::client::Body::empty())?;
        request.headers_mut().insert("impersonate-user", "system:admin".parse()?);
        ensure!(client.send(request).await?.status() == 403, "it cannot pretend to be somebody");

        // Exactly what the chart says, by the word of the API server.
        let manifests = helm.template(NAMESPACE, &json!({}))?;
        let rules = |kind: &str, namespace: &str| -> Vec<&Value> {
            let roles = manifests
                .iter()
                .filter(|one| one["kind"] == kind && (kind == "ClusterRole" || place_of(one) == namespace));
            roles.flat_map(|role| role["rules"].as_array().into_iter().flatten()).collect()
        };
        let everywhere = rights(rules("ClusterRole", ""));
        for place in ["default", NAMESPACE, "kube-node-lease"] {
            let anybody = may_do(&anybody(plane, place).await?, place).await?;
            let granted: BTreeSet<Right> = &everywhere | &rights(rules("Role", place));
            let told: BTreeSet<Right> = &may_do(&client, place).await? - &anybody;
            let more: Vec<_> = told.difference(&granted).collect();
            let less: Vec<_> = granted.difference(&told).collect();
            ensure!(more.is_empty() && less.is_empty(), "{place}: more {more:?}, less {less:?}");
        }

        // And nothing that is granted lies idle.
        let used: BTreeSet<(String, String)> = mine
            .iter()
            .map(|entry| {
                let object = &entry.object_ref;
                let resource = match object.subresource.as_str() {
                    "" => object.resource.clone(),
                    subresource => format!("{}/{subresource}", object.resource),
                };
                (resource, entry.verb.clone())
            })
            .collect();
        let mut idle: Vec<_> = everywhere
            .iter()
            .chain(&rights(rules("Role", NAMESPACE)))
            .filter(|(_, resource, _, verb)| !used.contains(&(resource.clone(), verb.clone())))
            .map(|(_, resource, _, verb)| format!("{verb} {resource}"))
            .collect();
        idle.sort();
        ensure!(idle == NOT_SEEN, "rights that nobody used: {idle:?}");
        Ok(())
    });
}

/// The namespace that a manifest is for.
fn place_of(manifest: &Value) -> &str {
    manifest["metadata"]["namespace"].as_str().unwrap_or(NAMESPACE)
}

/// A client of an account that nobody gave anything.
async fn anybody(
    plane: &assay_tests::control_plane::ControlPlane,
    namespace: &str,
) -> anyhow::Result<Client> {
    let token = plane.token(&TokenFor::account(namespace, "default")).await?;
    plane.client_of(&Identity::Token(token)).await
}

#[test]
fn agents_can_do_nothing_in_kubernetes() {
    let helm = helm!();
    on_own(Options::whole(), async |plane| {
        install(&helm, plane, &json!({}))?;
        let client = plane.client_of_account(NAMESPACE, AGENT_ACCOUNT).await?;
        for place in ["default", NAMESPACE] {
            let anybody = may_do(&anybody(plane, place).await?, place).await?;
            let told = may_do(&client, place).await?;
            ensure!(told == anybody, "{place}: {:?}", told.difference(&anybody).collect::<Vec<_>>());
        }
        for path in [
            "/api/v1/nodes",
            "/api/v1/pods",
            "/apis/assay.dev/v1alpha1/nodehardware",
            "/api/v1/namespaces/assay-system/secrets/assay-fleet",
        ] {
            let (code, answer) = send(&client, "GET", path, "application/json", "").await?;
            ensure!(code == 403, "{path}: {code} {answer}");
        }
        Ok(())
    });
}
