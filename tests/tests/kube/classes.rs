//! Node classes: ready by what the cloud has for them, held while they are used, and what they say on record with every claim.

use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{Cluster, ServeOptions, condition, deployment, node_pool};
use serde_json::{Value, json};

const VERSION: &str = "karpenter.azure.com/v1beta1";

fn class(more: &Value) -> Value {
    let mut class = json!({"apiVersion": VERSION, "kind": "AKSNodeClass", "metadata": {"name": "other"}, "spec": {"imageFamily": "Ubuntu"}});
    for (key, value) in more.as_object().unwrap() {
        class["spec"][key] = value.clone();
    }
    class
}

fn pool(name: &str) -> Value {
    let reference = json!({"group": "karpenter.azure.com", "kind": "AKSNodeClass", "name": "other"});
    let mut pool = node_pool(name, &json!({}));
    pool["spec"]["template"]["spec"]["nodeClassRef"] = reference;
    pool
}

async fn named(
    cluster: &Cluster<'_>,
    version: &str,
    kind: &str,
    name: &str,
) -> anyhow::Result<Option<Value>> {
    let there = cluster.list(version, kind, "").await?;
    Ok(there.into_iter().find(|one| one["metadata"]["name"] == name))
}

fn annotation<'v>(object: &'v Value, key: &str) -> &'v str {
    object["metadata"]["annotations"][key].as_str().unwrap_or_default()
}

/// A class gets ready, its hash is on it and on claims, a change of it replaces nodes one by one, and its deletion waits for them.
#[test]
fn a_class_is_made_ready_its_changes_replace_nodes_and_its_end_waits_for_theirs() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("class").await?;
        cluster.apply(&class(&json!({}))).await?;
        cluster.apply(&pool("class")).await?;
        cluster.apply(&deployment(&namespace, "class", "class", 2, &json!({}))).await?;
        let before = cluster.running(&namespace, "class", 2).await?;
        let there = named(&cluster, VERSION, "AKSNodeClass", "other").await?.unwrap();
        for one in [
            "ValidationSucceeded",
            "ImagesReady",
            "KubernetesVersionReady",
            "SubnetsReady",
            "LocalDNSReady",
            "Ready",
        ] {
            assert_eq!(condition(&there, one), "True", "{one} of {there:#}");
        }
        assert_eq!(there["metadata"]["finalizers"], json!(["karpenter.azure.com/termination"]));
        assert_eq!(there["status"]["kubernetesVersion"], "1.36.3");
        let class_hash = annotation(&there, "karpenter.azure.com/aksnodeclass-hash").to_owned();
        let pool_object = named(&cluster, "karpenter.sh/v1", "NodePool", "class").await?.unwrap();
        let pool_hash = annotation(&pool_object, "karpenter.sh/nodepool-hash");
        let claim = cluster.claims("class").await?.remove(0);
        for (object, version, key, hash) in [
            (
                &there,
                "karpenter.azure.com/aksnodeclass-hash-version",
                "karpenter.azure.com/aksnodeclass-hash",
                &*class_hash,
            ),
            (&pool_object, "karpenter.sh/nodepool-hash-version", "karpenter.sh/nodepool-hash", pool_hash),
            (
                &claim,
                "karpenter.azure.com/aksnodeclass-hash-version",
                "karpenter.azure.com/aksnodeclass-hash",
                &*class_hash,
            ),
            (&claim, "karpenter.sh/nodepool-hash-version", "karpenter.sh/nodepool-hash", pool_hash),
        ] {
            assert_eq!((annotation(object, version), annotation(object, key)), ("v3", hash), "{object:#}");
            assert!(!hash.is_empty());
        }

        // Tags are changed where they are: nothing is replaced, and the hash stays.
        cluster.apply(&class(&json!({"tags": {"team": "web"}}))).await?;
        // Another size of disk is another machine.
        cluster.apply(&class(&json!({"tags": {"team": "web"}, "osDiskSizeGB": 256}))).await?;
        cluster
            .until("every node is made from the class as it is now", async |cluster| {
                let claims = cluster.claims("class").await?;
                let there = named(cluster, VERSION, "AKSNodeClass", "other").await?.unwrap();
                let hash = annotation(&there, "karpenter.azure.com/aksnodeclass-hash");
                Ok(hash != class_hash
                    && !claims.is_empty()
                    && claims
                        .iter()
                        .all(|claim| annotation(claim, "karpenter.azure.com/aksnodeclass-hash") == hash))
            })
            .await?;
        let after = cluster.running(&namespace, "class", 2).await?;
        assert!(before.iter().all(|node| !after.contains(node)));
        let told = cluster.events("DisruptionTerminating").await?;
        assert!(told.iter().any(|event| event.contains("Drifted")), "{told:?}");

        // It is held as long as machines are made from it, and nothing more is bought.
        cluster.delete(&class(&json!({}))).await?;
        cluster
            .until("people are told what holds it", async |cluster| {
                let told = cluster.events("WaitingOnNodeClaimTermination").await?;
                Ok(told.iter().any(|event| event.contains(&after[0])))
            })
            .await?;
        cluster
            .until("its pool is not ready", async |cluster| {
                let pool = named(cluster, "karpenter.sh/v1", "NodePool", "class").await?.unwrap();
                Ok(condition(&pool, "NodeClassReady") == "False")
            })
            .await?;
        assert!(named(&cluster, VERSION, "AKSNodeClass", "other").await?.is_some());
        cluster.delete(&pool("class")).await?;
        cluster
            .until("it goes after its nodes", async |cluster| {
                let class = named(cluster, VERSION, "AKSNodeClass", "other").await?;
                let claims = cluster.claims("class").await?;
                assert!(class.is_some() || claims.is_empty(), "the class went first");
                Ok(class.is_none())
            })
            .await?;
        cluster.serving.stop().await
    });
}

/// Hashes that were computed in another way say nothing: claims that carry one are given ours, and none is replaced for it.
#[test]
fn claims_with_a_hash_of_another_version_are_kept_and_given_ours() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("stamp").await?;
        cluster.apply(&node_pool("stamp", &json!({}))).await?;
        cluster.apply(&deployment(&namespace, "stamp", "stamp", 2, &json!({}))).await?;
        let before = cluster.running(&namespace, "stamp", 2).await?;
        cluster.serving.kill()?;
        // As an earlier version of the hashes left them.
        let old = |keys: [&str; 2]| {
            let annotations: Value = keys
                .iter()
                .flat_map(|key| [((*key).to_owned(), json!("1")), (format!("{key}-version"), json!("v2"))])
                .collect::<serde_json::Map<_, _>>()
                .into();
            json!({"metadata": {"annotations": annotations}})
        };
        let both = ["karpenter.sh/nodepool-hash", "karpenter.azure.com/aksnodeclass-hash"];
        let pool = node_pool("stamp", &json!({}));
        let class = json!({"apiVersion": VERSION, "kind": "AKSNodeClass", "metadata": {"name": "default"}});
        for claim in cluster.claims("stamp").await? {
            cluster.patch(&claim, &old(both)).await?;
        }
        cluster.patch(&pool, &old([both[0], both[0]])).await?;
        cluster.patch(&class, &old([both[1], both[1]])).await?;
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "assay-leader-election", "namespace": assay_tests::serving::NAMESPACE}});
        let _ = cluster.delete(&lease).await;
        cluster.serving = assay_tests::serving::Serving::start(plane, &ServeOptions::default())?;
        cluster
            .until("all carry hashes of the present version", async |cluster| {
                let claims = cluster.claims("stamp").await?;
                let pool = named(cluster, "karpenter.sh/v1", "NodePool", "stamp").await?.unwrap();
                let class = named(cluster, VERSION, "AKSNodeClass", "default").await?.unwrap();
                let same = |claim: &Value, of: &Value, key: &str| {
                    annotation(claim, &format!("{key}-version")) == "v3"
                        && annotation(claim, key) == annotation(of, key)
                        && annotation(of, key) != "1"
                };
                Ok(claims.iter().all(|claim| same(claim, &pool, both[0]) && same(claim, &class, both[1])))
            })
            .await?;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert_eq!(cluster.running(&namespace, "stamp", 2).await?, before, "the same machines");
        Ok(())
    });
}
