//! The definitions of Assay's kinds on a real API server: it takes them, and every object of `tests/api` as the schemas say; and
//! what the scheduler writes is kept whole, with our definitions and with Karpenter's own.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use assay_core::model::Timestamp;
use assay_core::profile::ProfileStore;
use assay_scheduler::kube::api::conditions::{self, CLAIM_READY, CLASS_READY, POOL_READY, Status};
use assay_scheduler::kube::api::node_claim::{NodeClaimStatus, ResourceRequirements};
use assay_scheduler::kube::api::node_hardware::Verified;
use assay_scheduler::kube::api::{
    AKSNodeClassSpec, AKSNodeClassStatus, NodeClaim, NodeClaimSpec, NodeHardware, NodePool, NodePoolStatus,
    SkuProfile, crd, hash, names,
};
use assay_shared::labels::{azure, karpenter as karpenter_labels};
use assay_shared::{Fact, HardwareReport, units::Bytes};
use assay_tests::control_plane::shared::{on_own, on_shared};
use assay_tests::control_plane::{Options, eventually};
use assay_tests::{karpenter, objects, schema};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind, Request};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

const MANAGER: &str = "test";

/// Has an API server know kinds.
async fn define(client: &Client, definitions: &[Value]) -> anyhow::Result<()> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
    ));
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    for definition in definitions {
        let name = definition["metadata"]["name"].as_str().context("a definition has a name")?;
        let params = PatchParams::apply(MANAGER).force();
        api.patch(name, &params, &Patch::Apply(definition)).await.with_context(|| name.to_owned())?;
        eventually(name, async || {
            let conditions = &api.get(name).await?.data["status"]["conditions"];
            let established = |one: &&Value| one["type"] == "Established" && one["status"] == "True";
            Ok(conditions.as_array().into_iter().flatten().find(established).map(|_| ()))
        })
        .await?;
    }
    Ok(())
}

fn ours() -> Vec<Value> {
    crd::definitions().unwrap().into_iter().map(|definition| definition.object).collect()
}

/// Objects of the kind and version of `object`.
fn api_of(client: &Client, object: &Value) -> Api<DynamicObject> {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let (group, version) = text("apiVersion").split_once('/').unwrap_or_default();
    let kind = GroupVersionKind::gvk(group, version, text("kind"));
    let plural = match text("kind") {
        "AKSNodeClass" => "aksnodeclasses".to_owned(),
        kind => format!("{}s", kind.to_lowercase()),
    };
    Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, &plural))
}

fn object(value: &Value) -> DynamicObject {
    serde_json::from_value(value.clone()).expect("an object")
}

/// What the server would store.
async fn dry(client: &Client, value: &Value) -> Result<DynamicObject, kube::Error> {
    let params = PostParams { dry_run: true, ..PostParams::default() };
    api_of(client, value).create(&params, &object(value)).await
}

#[test]
fn valid_objects_are_stored_as_the_schemas_say() {
    on_shared(async |plane| {
        let client = plane.client().await?;
        define(&client, &ours()).await?;
        let definitions = crd::definitions()?;
        for (path, objects) in objects::valid()? {
            for value in objects {
                let stored =
                    dry(&client, &value).await.with_context(|| format!("{}: {value}", path.display()))?;
                let of_kind = |definition: &&crd::Definition| {
                    definition.object["spec"]["names"]["kind"] == value["kind"]
                };
                let definition = definitions.iter().find(of_kind).context("a kind of ours")?;
                let expected = schema::stored(definition.schema(), &value);
                // That the defaults are these, and nothing is dropped.
                assert_eq!(stored.data.get("spec"), expected.get("spec"), "{}", path.display());
            }
        }
        Ok(())
    });
}

/// What the server says of what a test of the table does.
async fn refusal(
    client: &Client,
    invalid: &objects::Invalid,
    known: &BTreeMap<String, Value>,
) -> anyhow::Result<Option<String>> {
    let (valid, changed) = invalid.made_from(known)?;
    let answer = if invalid.update {
        // Under a name of its own: other tests make objects too.
        let name = format!("table-{}", valid["metadata"]["name"].as_str().unwrap_or_default());
        let named = |value: &Value| {
            let mut value = value.clone();
            value["metadata"]["name"] = name.clone().into();
            value
        };
        let api = api_of(client, &valid);
        let there = api.create(&PostParams::default(), &object(&named(&valid))).await?;
        let mut changed = object(&named(&changed));
        changed.metadata.resource_version = there.metadata.resource_version;
        let answer = api.replace(&name, &PostParams::default(), &changed).await;
        api.delete(&name, &DeleteParams::default()).await?;
        answer
    } else {
        dry(client, &changed).await
    };
    match answer {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => Ok(Some(status.message)),
        Err(error) => bail!(error),
    }
}

#[test]
fn invalid_objects_are_refused_with_the_reason() {
    on_shared(async |plane| {
        let client = plane.client().await?;
        define(&client, &ours()).await?;
        let known = objects::by_name()?;
        for invalid in objects::invalid()? {
            let told = refusal(&client, &invalid, &known).await?;
            let told = told.with_context(|| format!("{} is taken: {}", invalid.of, invalid.message))?;
            assert!(
                told.contains(&invalid.message),
                "{}: expected {:?}, found {told}",
                invalid.of,
                invalid.message
            );
        }
        Ok(())
    });
}

#[test]
fn a_static_pool_is_scaled_like_a_deployment() {
    on_shared(async |plane| {
        let client = plane.client().await?;
        define(&client, &ours()).await?;
        let mut pool = objects::by_name()?["NodePool/static"].clone();
        pool["metadata"]["name"] = "scaled".into();
        api_of(&client, &pool).create(&PostParams::default(), &object(&pool)).await?;
        let pools: Api<NodePool> = Api::all(client);
        let merge = PatchParams::default();
        pools.patch_status("scaled", &merge, &Patch::Merge(json!({"status": {"nodes": 2}}))).await?;
        let scale =
            pools.patch_scale("scaled", &merge, &Patch::Merge(json!({"spec": {"replicas": 5}}))).await?;
        assert_eq!(scale.status.map(|status| status.replicas), Some(2), "what there is");
        assert_eq!(pools.get("scaled").await?.spec.replicas, Some(5), "what there should be");
        Ok(())
    });
}

#[test]
fn a_class_is_the_same_in_both_versions() {
    on_shared(async |plane| {
        let client = plane.client().await?;
        define(&client, &ours()).await?;
        let older = json!({
            "apiVersion": "karpenter.azure.com/v1alpha2",
            "kind": "AKSNodeClass",
            "metadata": {"name": "older"},
            "spec": {"imageFamily": "AzureLinux", "maxPods": 30},
        });
        api_of(&client, &older).create(&PostParams::default(), &object(&older)).await?;
        let mut newer = older.clone();
        newer["apiVersion"] = "karpenter.azure.com/v1beta1".into();
        let read = api_of(&client, &newer).get("older").await?;
        assert_eq!(
            read.data["spec"],
            json!({"imageFamily": "AzureLinux", "maxPods": 30, "osDiskSizeGB": 128})
        );
        Ok(())
    });
}

/// The columns that kubectl shows of objects at `path`: a row per object, by its name.
async fn table(client: &Client, path: &str) -> anyhow::Result<BTreeMap<String, BTreeMap<String, Value>>> {
    let mut request = Request::new(path).list(&Default::default())?;
    request.headers_mut().insert("accept", "application/json;as=Table;v=v1;g=meta.k8s.io".parse()?);
    let table: Value = client.request(request).await?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let columns: Vec<String> = list(&table["columnDefinitions"])
        .iter()
        .filter_map(|column| Some(column["name"].as_str()?.to_owned()))
        .collect();
    let row = |row: &Value| {
        let cells: BTreeMap<String, Value> = columns.iter().cloned().zip(list(&row["cells"])).collect();
        (cells["Name"].as_str().unwrap_or_default().to_owned(), cells)
    };
    Ok(list(&table["rows"]).iter().map(row).collect())
}

#[test]
fn what_was_measured_and_learned_is_kept_whole() {
    on_shared(async |plane| {
        let client = plane.client().await?;
        define(&client, &ours()).await?;
        let apply = PatchParams::apply(MANAGER).force();

        let mut report = HardwareReport::default();
        report.platform.vm_size = Fact::Measured("Standard_ND96isr_H100_v5".into());
        report.memory.total_bytes = Fact::Measured(Bytes::gib(1900));
        report.memory.installed_bytes = Fact::unavailable("permission denied");
        report.cpu.family = Fact::Absent;
        (report.gpus.usable, report.gpus.pci) = (Fact::Measured(7), Fact::Measured(8));
        let hardware =
            NodeHardware::of("node-1", None, report.clone(), Verified::False, Timestamp(1_700_000_000_000));
        let nodes: Api<NodeHardware> = Api::all(client.clone());
        nodes.patch("node-1", &apply, &Patch::Apply(&hardware)).await?;
        let kept = nodes.get("node-1").await?;
        assert_eq!(serde_json::to_value(&kept.spec)?, serde_json::to_value(&hardware.spec)?);
        assert_eq!(HardwareReport::try_from(kept.spec.report)?, report);
        let row = &table(&client, "/apis/assay.dev/v1alpha1/nodehardware").await?["node-1"];
        let shown: Vec<&Value> =
            ["Size", "Memory", "GPUs", "Network", "Verified"].iter().map(|name| &row[*name]).collect();
        assert_eq!(json!(shown), json!(["Standard_ND96isr_H100_v5", "1945600Mi", "7/8", null, "false"]));

        let document = json!({"apiVersion": "assay.dev/v1alpha1", "kind": "SkuProfileList", "items": [{
            "sku": "Standard_D4s_v5", "region": "eastus", "image": "Ubuntu 24.04",
            "reports": 9, "quarantined": 1,
            "samples": [
                {"vm": "a", "seen": 1_700_000_000_001_u64, "total": 16_795_041_792_u64, "labels": {"hardware.assay.dev/cpu-isa": "v4"}},
                {"vm": "b", "seen": 1_700_000_000_002_u64, "labels": {}},
            ],
            "settled": {"memory": 16_795_041_792_u64, "since": 1_700_000_000_001_u64},
        }]});
        let store = ProfileStore::import(&document.to_string())?;
        let profiles: Api<SkuProfile> = Api::all(client.clone());
        for (key, profile) in store.iter() {
            let profile = SkuProfile::of(key, profile);
            profiles.patch(&profile.name_any(), &apply, &Patch::Apply(&profile)).await?;
        }
        let listed = profiles.list(&Default::default()).await?.items;
        let restored =
            ProfileStore::of(listed.into_iter().map(|object| (object.spec.key, object.spec.profile)));
        assert!(restored.iter().eq(store.iter()));
        // The list as it comes is a file of profiles.
        let raw = client
            .request_text(Request::new("/apis/assay.dev/v1alpha1/skuprofiles").list(&Default::default())?)
            .await?;
        assert!(ProfileStore::import(&raw)?.iter().eq(store.iter()));
        let rows = table(&client, "/apis/assay.dev/v1alpha1/skuprofiles").await?;
        let row = rows.values().next().context("a profile")?;
        let shown: Vec<&Value> =
            ["Size", "Region", "VMs", "Memory", "Quarantined"].iter().map(|name| &row[*name]).collect();
        assert_eq!(json!(shown), json!(["Standard_D4s_v5", "eastus", 2, "16017Mi", 1]));
        Ok(())
    });
}

/// Writes what the scheduler writes, and finds all of it again: hashes, a claim, and every condition.
async fn write_everything(client: &Client) -> anyhow::Result<()> {
    let now = Timestamp(1_700_000_000_000);
    let merge = PatchParams::default();
    let known = objects::by_name()?;
    let all = |kinds: &[&str], ready: &[&str]| {
        let mut conditions = Vec::new();
        for kind in kinds {
            conditions::set(&mut conditions, kind, (Status::True, "", ""), Some(1), now);
        }
        conditions::set_ready(&mut conditions, ready, Some(1), now);
        conditions
    };

    let mut pool = known["NodePool/gpu"].clone();
    pool["metadata"]["name"] = "written".into();
    api_of(client, &pool).create(&PostParams::default(), &object(&pool)).await?;
    let pools: Api<NodePool> = Api::all(client.clone());
    let pool = pools.get("written").await?;
    let annotations = BTreeMap::from([
        (karpenter_labels::NODEPOOL_HASH.to_owned(), hash::node_pool(&pool.spec.template)),
        (karpenter_labels::NODEPOOL_HASH_VERSION.to_owned(), hash::NODE_POOL_VERSION.to_owned()),
    ]);
    let marked = pools
        .patch("written", &merge, &Patch::Merge(json!({"metadata": {"annotations": annotations}})))
        .await?;
    assert_eq!(marked.annotations(), &annotations);
    let status = NodePoolStatus {
        resources: serde_json::from_value(
            json!({"cpu": "0", "memory": "0", "nodes": "0", "nvidia.com/gpu": "8"}),
        )?,
        nodes: 3,
        node_class_observed_generation: Some(4),
        conditions: all(&["ValidationSucceeded", "NodeClassReady", "NodeRegistrationHealthy"], &POOL_READY),
    };
    let kept = pools.patch_status("written", &merge, &Patch::Merge(json!({"status": status}))).await?;
    assert_eq!(kept.status, Some(status));

    let claims: Api<NodeClaim> = Api::all(client.clone());
    let template = pool.spec.template.spec.clone();
    let mut claim = NodeClaim::new(
        "written-1",
        NodeClaimSpec {
            requirements: template.requirements,
            resources: Some(ResourceRequirements {
                requests: serde_json::from_value(json!({"cpu": "150m", "pods": "4"}))?,
            }),
            taints: template.taints,
            startup_taints: template.startup_taints,
            node_class_ref: template.node_class_ref,
            termination_grace_period: template.termination_grace_period,
            expire_after: template.expire_after,
        },
    );
    claim.metadata.annotations = Some(annotations);
    claim.metadata.finalizers = Some(vec![names::TERMINATION_FINALIZER.to_owned()]);
    let made = claims.create(&PostParams::default(), &claim).await?;
    assert_eq!(made.spec, claim.spec);
    let conditions = [
        "Launched",
        "Registered",
        "Initialized",
        "Consolidatable",
        "Drifted",
        "DisruptionReason",
        "Drained",
        "VolumesDetached",
        "InstanceTerminating",
        "ConsistentStateFound",
    ];
    let status = NodeClaimStatus {
        node_name: Some("written-1".into()),
        provider_id: Some("azure:///subscriptions/x".into()),
        image_id: Some("image".into()),
        capacity: serde_json::from_value(json!({"cpu": "4", "memory": "16Gi"}))?,
        allocatable: serde_json::from_value(json!({"cpu": "3860m", "memory": "14Gi"}))?,
        last_pod_event_time: Some(conditions::time(now)),
        conditions: all(&conditions, &CLAIM_READY),
    };
    let kept = claims.patch_status("written-1", &merge, &Patch::Merge(json!({"status": status}))).await?;
    assert_eq!(kept.status, Some(status));
    let rows = table(client, "/apis/karpenter.sh/v1/nodeclaims").await?;
    assert_eq!(
        (&rows["written-1"]["Node"], &rows["written-1"]["Ready"]),
        (&json!("written-1"), &json!("True"))
    );
    claims.patch("written-1", &merge, &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await?;
    claims.delete("written-1", &DeleteParams::default()).await?;

    let class = json!({
        "apiVersion": "karpenter.azure.com/v1beta1", "kind": "AKSNodeClass", "metadata": {"name": "written"}, "spec": {},
    });
    let classes = api_of(client, &class);
    let stored = classes.create(&PostParams::default(), &object(&class)).await?;
    let spec = AKSNodeClassSpec::of(&stored.data)?;
    let annotations = json!({
        azure::AKS_NODE_CLASS_HASH: hash::aks_node_class(&spec),
        azure::AKS_NODE_CLASS_HASH_VERSION: hash::AKS_NODE_CLASS_VERSION,
    });
    classes
        .patch("written", &merge, &Patch::Merge(json!({"metadata": {"annotations": annotations}})))
        .await?;
    let status = AKSNodeClassStatus {
        images: serde_json::from_value(
            json!([{"id": "i", "requirements": [{"key": "a", "operator": "In", "values": ["b"]}]}]),
        )?,
        kubernetes_version: Some("1.36.3".into()),
        local_dns_state: serde_json::from_value(json!("Disabled"))?,
        conditions: all(&CLASS_READY, &CLASS_READY),
    };
    let kept = classes.patch_status("written", &merge, &Patch::Merge(json!({"status": status}))).await?;
    assert_eq!(kept.data["status"], serde_json::to_value(&status)?);
    Ok(())
}

#[test]
fn everything_that_the_scheduler_writes_is_kept() {
    on_shared(async |plane| {
        let client = plane.client().await?;
        define(&client, &ours()).await?;
        write_everything(&client).await
    });
}

#[test]
fn it_works_the_same_with_karpenters_own_definitions() {
    on_own(Options::bare(), async |plane| {
        let Some(theirs) = karpenter::definitions()? else { return Ok(()) };
        let client = plane.client().await?;
        define(&client, &theirs).await?;
        write_everything(&client).await?;
        // Older spellings are not taken there, and of that version is no trustedLaunch yet.
        let only_here = ["NodePool/older", "AKSNodeClass/every-field", "AKSNodeClass/fips-trusted"];
        let mut known = objects::by_name()?;
        for (name, value) in known.iter().filter(|(name, _)| !only_here.contains(&name.as_str())) {
            dry(&client, value).await.with_context(|| name.clone())?;
        }
        // What is refused here is refused there, but for what would not work there either.
        known.get_mut("AKSNodeClass/every-field").context("it is there")?["spec"]["imageFamily"] =
            "AzureLinux".into();
        dry(&client, &known["AKSNodeClass/every-field"]).await.context("without what is newer")?;
        for invalid in
            objects::invalid()?.into_iter().filter(|invalid| !invalid.message.contains("trustedLaunch"))
        {
            let told = refusal(&client, &invalid, &known).await?;
            ensure!(
                told.is_none() == invalid.karpenter.is_some(),
                "{}: {}: Karpenter's definitions say {told:?}",
                invalid.of,
                invalid.message,
            );
        }
        Ok(())
    });
}
