//! What a test asks of the cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::{ServeOptions, Serving, install_crds, namespace_objects, node_class};
use crate::control_plane::ControlPlane;

/// A cluster that Assay runs.
#[derive(Debug)]
pub struct Cluster<'p> {
    /// Its control plane.
    pub plane: &'p ControlPlane,
    client: ClientOf,
    /// Its scheduler.
    pub serving: Serving,
}

/// `kube::Client` has no `Debug`.
struct ClientOf(Client);

impl std::fmt::Debug for ClientOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl<'p> Cluster<'p> {
    /// Installs what Assay needs into the cluster of `plane`, and starts it.
    ///
    /// # Errors
    /// Something of it does not work.
    pub async fn start(plane: &'p ControlPlane, options: &ServeOptions) -> anyhow::Result<Self> {
        let client = plane.client().await?;
        install_crds(&client).await?;
        namespace_objects(&client).await?;
        Self::installed(plane, options).await
    }

    /// Starts Assay in the cluster of `plane`, where the chart has installed what it needs.
    ///
    /// # Errors
    /// It does not start.
    pub async fn installed(plane: &'p ControlPlane, options: &ServeOptions) -> anyhow::Result<Self> {
        let client = plane.client().await?;
        node_class(&client, "default").await?;
        Ok(Self { plane, client: ClientOf(client), serving: Serving::start(plane, options)? })
    }

    /// The administrator's client.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.0.clone()
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn apply(&self, object: &Value) -> anyhow::Result<()> {
        apply(&self.client.0, object).await
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn patch(&self, object: &Value, patch: &Value) -> anyhow::Result<()> {
        let name = name_of(object)?;
        api_of(&self.client.0, object)?.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Deletes an object.
    ///
    /// # Errors
    /// It is not there.
    pub async fn delete(&self, object: &Value) -> anyhow::Result<()> {
        api_of(&self.client.0, object)?.delete(name_of(object)?, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Objects of a kind, such as `("karpenter.sh/v1", "NodeClaim")`, with this label where one is given.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn list(&self, version: &str, kind: &str, selector: &str) -> anyhow::Result<Vec<Value>> {
        let api = api_of(&self.client.0, &json!({"apiVersion": version, "kind": kind, "metadata": {}}))?;
        let params =
            if selector.is_empty() { ListParams::default() } else { ListParams::default().labels(selector) };
        let objects = api.list(&params).await?;
        objects
            .items
            .into_iter()
            .map(|object| serde_json::to_value(object).context("an object is JSON"))
            .collect()
    }

    /// Claims of a pool.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn claims(&self, pool: &str) -> anyhow::Result<Vec<Value>> {
        self.list("karpenter.sh/v1", "NodeClaim", &format!("karpenter.sh/nodepool={pool}")).await
    }

    /// Names of the VMs that there are.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn vms(&self) -> anyhow::Result<BTreeSet<String>> {
        let vms = self.list("v1", "ConfigMap", "assay.dev/simulated-vm=true").await?;
        Ok(vms.iter().filter_map(|vm| Some(vm["metadata"]["name"].as_str()?.to_owned())).collect())
    }

    /// Names of all VMs that were ever made, by the audit log.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn vms_made(&self) -> anyhow::Result<BTreeSet<String>> {
        let made = self.plane.audit()?.into_iter().filter(|entry| {
            entry.verb == "create"
                && entry.object_ref.resource == "configmaps"
                && entry.object_ref.namespace == super::NAMESPACE
                && entry.response_status.code == 201
        });
        // Controllers make one of their own in every namespace.
        Ok(made.map(|entry| entry.object_ref.name).filter(|name| name != "kube-root-ca.crt").collect())
    }

    /// Whether every VM has a claim and every claim a VM.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn is_balanced(&self, pool: &str) -> anyhow::Result<bool> {
        let vms = self.vms().await?;
        let claims = self.claims(pool).await?;
        let claims = claims.iter().filter_map(|claim| Some(claim["metadata"]["name"].as_str()?.to_owned()));
        Ok(vms == claims.collect())
    }

    /// Kills the scheduler and starts another one, which need not wait for the lease of the first.
    ///
    /// # Errors
    /// It does not start.
    pub async fn crash(&mut self, options: &ServeOptions) -> anyhow::Result<()> {
        self.serving.kill()?;
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "assay-leader-election", "namespace": super::NAMESPACE}});
        // It may not have got so far as to have one.
        let _ = self.delete(&lease).await;
        self.serving = Serving::start(self.plane, options)?;
        Ok(())
    }

    /// Nodes of a pool.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn nodes(&self, pool: &str) -> anyhow::Result<Vec<Node>> {
        let nodes: Api<Node> = Api::all(self.client());
        let params = ListParams::default().labels(&format!("karpenter.sh/nodepool={pool}"));
        Ok(nodes.list(&params).await?.items)
    }

    /// Pods of an app, by the node they run on; those that wait are under the empty name.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn pods(&self, namespace: &str, app: &str) -> anyhow::Result<BTreeMap<String, Vec<Pod>>> {
        let pods: Api<Pod> = Api::namespaced(self.client(), namespace);
        let mut by_node: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
        for pod in pods.list(&ListParams::default().labels(&format!("app={app}"))).await? {
            let running = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|_| running);
            by_node.entry(node.unwrap_or_default()).or_default().push(pod);
        }
        Ok(by_node)
    }

    /// Waits until all `count` pods of an app run; the nodes they run on.
    ///
    /// # Errors
    /// They do not in time.
    pub async fn running(&mut self, namespace: &str, app: &str, count: usize) -> anyhow::Result<Vec<String>> {
        let what = format!("{count} pods of {app} run");
        let mut nodes = Vec::new();
        self.until_with(&what, Duration::from_secs(120), async |cluster| {
            let by_node = cluster.pods(namespace, app).await?;
            let running: usize =
                by_node.iter().filter(|(node, _)| !node.is_empty()).map(|(_, pods)| pods.len()).sum();
            nodes = by_node.keys().filter(|node| !node.is_empty()).cloned().collect();
            let total: usize = by_node.values().map(Vec::len).sum();
            Ok((running == count && total == count, format!("{running} of {total} run")))
        })
        .await?;
        Ok(nodes)
    }

    /// Waits until `holds` says so.
    ///
    /// # Errors
    /// It does not in time; the message says what was last seen, and the last words of the scheduler.
    pub async fn until(
        &mut self,
        what: &str,
        holds: impl AsyncFnMut(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let mut holds = holds;
        self.until_with(what, Duration::from_secs(120), async |cluster| {
            Ok((holds(cluster).await?, String::new()))
        })
        .await
    }

    async fn until_with(
        &mut self,
        what: &str,
        patience: Duration,
        mut look: impl AsyncFnMut(&Self) -> anyhow::Result<(bool, String)>,
    ) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            self.serving.check()?;
            let seen = look(self).await;
            if matches!(seen, Ok((true, _))) {
                return Ok(());
            }
            if begin.elapsed() > patience {
                let seen = match seen {
                    Ok((_, seen)) => seen,
                    Err(error) => format!("{error:#}"),
                };
                bail!("not in time: {what}; {seen}\n{}", self.serving.last_words());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Events with the source `karpenter` and a reason.
    ///
    /// # Errors
    /// The API server refuses.
    pub async fn events(&self, reason: &str) -> anyhow::Result<Vec<String>> {
        let events: Api<k8s_openapi::api::core::v1::Event> = Api::all(self.client());
        let params = ListParams::default().fields(&format!("source=karpenter,reason={reason}"));
        let events = events.list(&params).await?;
        let line = |event: &k8s_openapi::api::core::v1::Event| {
            let object = &event.involved_object;
            let name = object.name.as_deref().unwrap_or_default();
            format!(
                "{}/{name}: {}",
                object.kind.as_deref().unwrap_or_default(),
                event.message.as_deref().unwrap_or_default()
            )
        };
        Ok(events.iter().map(line).collect())
    }
}

/// A condition's status of an object.
#[must_use]
pub fn condition<'v>(object: &'v Value, name: &str) -> &'v str {
    let conditions = object["status"]["conditions"].as_array();
    let it = conditions.into_iter().flatten().find(|condition| condition["type"] == name);
    it.and_then(|condition| condition["status"].as_str()).unwrap_or_default()
}

pub(super) fn name_of(object: &Value) -> anyhow::Result<&str> {
    object["metadata"]["name"].as_str().context("the object has a name")
}

/// The API of an object's kind, in its namespace where it has one.
///
/// # Errors
/// It has no `apiVersion` or `kind`.
pub fn api_of(client: &Client, object: &Value) -> anyhow::Result<Api<DynamicObject>> {
    let version = object["apiVersion"].as_str().context("the object has an apiVersion")?;
    let kind = object["kind"].as_str().context("the object has a kind")?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    if kind == "NodeHardware" {
        resource.plural = "nodehardware".to_owned();
    }
    Ok(match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    })
}

/// Applies a manifest as the test.
///
/// # Errors
/// The API server refuses.
pub async fn apply(client: &Client, object: &Value) -> anyhow::Result<()> {
    let name = name_of(object)?;
    let params = PatchParams::apply("test").force();
    api_of(client, object)?
        .patch(name, &params, &Patch::Apply(object))
        .await
        .with_context(|| format!("apply {} {name}", object["kind"].as_str().unwrap_or_default()))?;
    Ok(())
}

/// Names of nodes.
#[must_use]
pub fn names(nodes: &[Node]) -> Vec<String> {
    nodes.iter().map(ResourceExt::name_any).collect()
}
