//! The observer against a real API server: it knows what there is, hears what changes, and outlives a restart.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use assay_core::engine::Event;
use assay_core::model::{Node, Pod, PodId};
use assay_scheduler::kube::client::{ApiCalls, ClientSettings, client, configuration};
use assay_scheduler::kube::observe::{Kind, Observer, ObserverSettings};
use assay_scheduler::manifest::{Manifests, Source};
use assay_tests::control_plane::clients::{Identity, TokenFor};
use assay_tests::control_plane::shared::on_own;
use assay_tests::control_plane::{ControlPlane, Options};
use kube::Client;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind, Request};
use serde_json::{Value, json};

/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(120);

/// An observer as `identity`, by a kubeconfig file, as the scheduler reads one.
async fn observe(plane: &ControlPlane, identity: &Identity) -> anyhow::Result<(Observer, ApiCalls)> {
    let file = plane.kubeconfig_file("observer", identity)?;
    let calls = ApiCalls::default();
    let client = client(configuration(Some(&file), None).await?, ClientSettings::default(), calls.clone())?;
    Ok((Observer::start(&client, ObserverSettings::default(), Box::new(|_| Vec::new()))?, calls))
}

/// The kinds of Karpenter and of our own.
async fn install_kinds(client: &Client) -> anyhow::Result<()> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/crds");
    for file in std::fs::read_dir(directory)? {
        let text = std::fs::read_to_string(file?.path())?;
        create(client, "", &serde_yaml_ng::from_str(&text)?).await?;
    }
    Ok(())
}

fn api(client: &Client, namespace: &str, object: &Value) -> anyhow::Result<kube::Api<DynamicObject>> {
    let text = |field: &str| object[field].as_str().context("it says its kind and version");
    let version = text("apiVersion")?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, text("kind")?));
    Ok(match namespace {
        "" => kube::Api::all_with(client.clone(), &resource),
        namespace => kube::Api::namespaced_with(client.clone(), namespace, &resource),
    })
}

/// Creates an object, and gives it the status that it has.
async fn create(client: &Client, namespace: &str, object: &Value) -> anyhow::Result<()> {
    let api = api(client, namespace, object)?;
    let typed: DynamicObject = serde_json::from_value(object.clone())?;
    let created = api.create(&PostParams::default(), &typed).await.with_context(|| object.to_string())?;
    if object["status"].is_object() && !object["kind"].as_str().unwrap_or_default().ends_with("Definition") {
        let name = created.metadata.name.context("it has a name")?;
        let status = Patch::Merge(json!({"status": object["status"]}));
        api.patch_status(&name, &PatchParams::default(), &status)
            .await
            .with_context(|| object.to_string())?;
    }
    Ok(())
}

/// What an engine knows after these events, by the events alone.
#[derive(Debug, Default)]
struct Known {
    pods: BTreeMap<PodId, Pod>,
    nodes: BTreeMap<String, Node>,
    pools: usize,
}

impl Known {
    fn hear(&mut self, event: Event) {
        match event {
            Event::PodApplied(pod) => drop(self.pods.insert(pod.id.clone(), *pod)),
            Event::PodDeleted(id) => drop(self.pods.remove(&id)),
            Event::NodeApplied(node) => drop(self.nodes.insert(node.name.to_string(), *node)),
            Event::NodeDeleted(name) => drop(self.nodes.remove(&*name)),
            Event::PoolApplied(_) => self.pools += 1,
            _ => {}
        }
    }

    /// Listens until something is so.
    async fn until(&mut self, observer: &mut Observer, what: impl Fn(&Self) -> bool) -> anyhow::Result<()> {
        let heard = async {
            while !what(self) {
                observer.changed().await;
                observer.tell(&mut |event| self.hear(event));
            }
        };
        let heard = tokio::time::timeout(PATIENCE, heard).await;
        heard.with_context(|| format!("streams: {:#?}", observer.health()))
    }
}

fn pod(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["containers"] =
        json!([{"name": "c", "image": "i", "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}}}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec})
}

fn node(name: &str) -> Value {
    let amounts = json!({"cpu": "4", "memory": "8Gi", "pods": "20"});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"zone": "a"}}, "spec": {"providerID": format!("azure:///{name}")},
        "status": {"capacity": amounts, "allocatable": amounts, "conditions": [{"type": "Ready", "status": "True"}]}})
}

/// Objects of most kinds, each valid to a real API server.
fn objects(namespace: &str) -> Vec<(String, Value)> {
    let cluster = |object: Value| (String::new(), object);
    let inside = |object: Value| (namespace.to_owned(), object);
    let term = json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}, "namespaceSelector": {"matchLabels": {"team": "red"}}});
    vec![
        cluster(
            json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 1000}),
        ),
        cluster(
            json!({"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "kata"}, "handler": "kata", "overhead": {"podFixed": {"cpu": "100m"}}}),
        ),
        cluster(
            json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "late"}, "provisioner": "disk.csi.azure.com",
            "volumeBindingMode": "WaitForFirstConsumer"}),
        ),
        cluster(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "red", "labels": {"team": "red"}}}),
        ),
        cluster(node("n1")),
        cluster(json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "n1"},
            "spec": {"drivers": [{"name": "disk.csi.azure.com", "nodeID": "n1", "topologyKeys": [], "allocatable": {"count": 8}}]}})),
        cluster(
            json!({"apiVersion": "karpenter.azure.com/v1beta1", "kind": "AKSNodeClass", "metadata": {"name": "default"}, "spec": {}}),
        ),
        cluster(
            json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "default"}, "spec": {"template": {"spec": {
            "nodeClassRef": {"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "default"},
            "requirements": [{"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]}}}}),
        ),
        inside(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
            "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "late", "resources": {"requests": {"storage": "1Gi"}}}})),
        inside(
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "web"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}}),
        ),
        inside(pod("plain", json!({}))),
        inside(pod("urgent", json!({"priorityClassName": "high", "runtimeClassName": "kata"}))),
        inside(pod(
            "stored",
            json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}),
        )),
        inside(pod(
            "apart",
            json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}),
        )),
        inside(pod("placed", json!({"nodeName": "n1"}))),
    ]
}

/// What the API server has, read as one file.
async fn read_all(client: &Client) -> anyhow::Result<Manifests> {
    let mut sources = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::PodGroup) {
        let request = Request::new(kind.path()).list(&ListParams::default())?;
        let text = client.request_text(request).await?;
        sources.push(Source { name: kind.name().to_owned(), text });
    }
    Ok(Manifests::parse(&sources)?)
}

#[test]
fn what_a_real_api_server_has_is_what_a_file_of_it_holds() {
    on_own(Options::bare(), async |plane| {
        let admin = plane.client().await?;
        install_kinds(&admin).await?;
        let namespace = plane.namespace("observe").await?;
        for (namespace, object) in objects(&namespace) {
            create(&admin, &namespace, &object).await?;
        }
        let (mut observer, calls) = observe(plane, &Identity::Admin).await?;
        let mut known = Known::default();
        known.until(&mut observer, |known| known.pods.len() == 5).await?;
        let read = read_all(&admin).await?;
        let pods = read.pods.into_iter().map(|pod| (pod.id.clone(), pod)).collect::<BTreeMap<_, _>>();
        assert_eq!(known.pods, pods);
        assert_eq!(known.nodes.values().cloned().collect::<Vec<_>>(), read.nodes);
        assert_eq!(known.pools, 1);
        assert_eq!(observer.store().problems().collect::<Vec<_>>(), [] as [&_; 0]);
        let urgent = &known.pods[&PodId::new(&namespace, "urgent")];
        // Filled in at admission.
        assert_eq!((urgent.priority, urgent.spec.requests.cpu.0), (1000, 350));
        assert!(observer.store().uid(Kind::Pod, &urgent.id).is_some_and(|uid| uid.len() == 36));
        assert!(
            calls
                .counted()
                .keys()
                .any(|call| call.verb == "watch" && call.resource == "pods" && call.code == 200)
        );

        // Changes are heard, and what depends on them is read again.
        let red = json!({"apiVersion": "v1", "kind": "Namespace"});
        let label = Patch::Merge(json!({"metadata": {"labels": {"team": "blue"}}}));
        api(&admin, "", &red)?.patch("red", &PatchParams::default(), &label).await?;
        let apart = PodId::new(&namespace, "apart");
        let is_blue =
            |known: &Known| !format!("{:?}", known.pods[&apart].spec.pod_anti_affinity).contains("\"red\"");
        known.until(&mut observer, is_blue).await?;
        let gone = api(&admin, &namespace, &pod("plain", json!({})))?;
        gone.delete("plain", &DeleteParams::default().grace_period(0)).await?;
        known
            .until(&mut observer, |known| !known.pods.contains_key(&PodId::new(&namespace, "plain")))
            .await?;
        let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        gone.patch_status("urgent", &PatchParams::default(), &ended).await?;
        known.until(&mut observer, |known| known.pods.len() == 3).await?;
        let mut replayed = 0;
        observer.replay(&mut |event| replayed += usize::from(matches!(event, Event::PodApplied(_))));
        ensure!(replayed == 3, "{replayed} pods");
        Ok(())
    });
}

#[test]
fn a_restart_of_the_api_server_loses_nothing() {
    on_own(Options::bare(), async |plane| {
        let admin = plane.client().await?;
        install_kinds(&admin).await?;
        create(&admin, "", &node("n1")).await?;
        let (mut observer, _) = observe(plane, &Identity::Admin).await?;
        let mut known = Known::default();
        known.until(&mut observer, |known| known.nodes.contains_key("n1")).await?;
        plane.stop_apiserver()?;
        plane.start_apiserver().await?;
        create(&admin, "", &node("n2")).await?;
        api(&admin, "", &node("n1"))?.delete("n1", &DeleteParams::default()).await?;
        known.until(&mut observer, |known| known.nodes.keys().eq(["n2"])).await?;
        let health = observer.health();
        ensure!(health[&Kind::Node].failures > 0, "it noticed: {health:#?}");
        Ok(())
    });
}

#[test]
fn rights_that_are_missing_are_named_and_waited_for() {
    on_own(Options::bare(), async |plane| {
        let admin = plane.client().await?;
        install_kinds(&admin).await?;
        let namespace = plane.namespace("observe").await?;
        let token = plane.token(&TokenFor::account(&namespace, "default")).await?;
        let (mut observer, calls) = observe(plane, &Identity::Token(token)).await?;
        let refused = async {
            while calls.counted().keys().filter(|call| call.code == 403).count() < 10 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, refused).await?;
        let failure = observer.health()[&Kind::Node].last_failure.clone().unwrap_or_default();
        ensure!(failure.contains("403") && failure.contains("cannot list resource \"nodes\""), "{failure}");
        ensure!(!observer.store().is_synced());
        let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["list", "watch"]}]);
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "observe"}, "rules": rules});
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "observe"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "observe"},
            "subjects": [{"kind": "ServiceAccount", "namespace": namespace, "name": "default"}]});
        create(&admin, "", &role).await?;
        create(&admin, "", &binding).await?;
        tokio::time::timeout(PATIENCE, observer.changed()).await?;
        ensure!(observer.store().is_synced());
        Ok(())
    });
}
