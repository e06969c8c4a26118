//! What holds objects until what they stand for is gone.

use std::time::{Duration, Instant};

use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{Cluster, ServeOptions, apart, condition, deployment, node_pool};
use serde_json::{Value, json};

fn named(objects: &[Value], name: &str) -> bool {
    objects.iter().any(|object| object["metadata"]["name"] == json!(name))
}

/// While a VM is there, so are its claim and its node, whoever deletes them; where somebody takes a finalizer off by hand, the VM
/// goes all the same, and pods get another one.
#[test]
fn claims_and_nodes_stay_until_their_vm_is_gone() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("held").await?;
        cluster.apply(&node_pool("held", &json!({}))).await?;
        cluster.apply(&deployment(&namespace, "held", "held", 2, &apart("held"))).await?;
        let first = cluster.running(&namespace, "held", 2).await?;
        for object in cluster.list("v1", "Node", "test=held").await? {
            assert_eq!(object["metadata"]["finalizers"], json!(["karpenter.sh/termination"]));
        }

        // In order: one after the other is deleted, its finalizer holds it.
        let gone = first[0].as_str();
        cluster.delete(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": gone}})).await?;
        let mut orphaned = false;
        cluster
            .until("the VM is gone, and then its objects", async |cluster| {
                // In this order: an object that was gone before the VM was seen went too early.
                let node = named(&cluster.list("v1", "Node", "test=held").await?, gone);
                let claim = named(&cluster.claims("held").await?, gone);
                let vm = cluster.vms().await?.contains(gone);
                orphaned |= vm && !(node && claim);
                Ok(!node && !claim && !vm)
            })
            .await?;
        assert!(!orphaned, "the VM was there without its claim or node");
        let second = cluster.running(&namespace, "held", 2).await?;

        // By hand: the claim is gone at once.
        let claim =
            json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": second[0]}});
        cluster.delete(&claim).await?;
        cluster.patch(&claim, &json!({"metadata": {"finalizers": []}})).await?;
        let gone = second[0].as_str();
        cluster
            .until("VM and node go after their claim", async |cluster| {
                Ok(!cluster.vms().await?.contains(gone)
                    && !named(&cluster.list("v1", "Node", "test=held").await?, gone))
            })
            .await?;
        let third = cluster.running(&namespace, "held", 2).await?;

        // The node is gone at once.
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": third[0]}});
        cluster.delete(&node).await?;
        cluster.patch(&node, &json!({"metadata": {"finalizers": []}})).await?;
        let gone = third[0].as_str();
        cluster
            .until("VM and claim go after their node", async |cluster| {
                Ok(!cluster.vms().await?.contains(gone) && !named(&cluster.claims("held").await?, gone))
            })
            .await?;
        cluster.running(&namespace, "held", 2).await?;
        cluster.until("VMs and claims are the same", async |cluster| cluster.is_balanced("held").await).await
    });
}

/// A VM stays until the volumes of its pods are detached, and says so.
#[test]
fn a_vm_goes_after_its_volumes_are_detached() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("disk").await?;
        cluster.apply(&node_pool("disk", &json!({}))).await?;
        cluster.apply(&deployment(&namespace, "disk", "disk", 1, &json!({}))).await?;
        let node = cluster.running(&namespace, "disk", 1).await?.remove(0);
        let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "disk"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": {"driver": "test.csi", "volumeHandle": "disk"}}});
        let attachment = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": "disk"}, "spec": {
            "attacher": "test.csi", "nodeName": node, "source": {"persistentVolumeName": "disk"}}});
        cluster.apply(&volume).await?;
        cluster.apply(&attachment).await?;
        let claim = json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": {"name": node}});
        cluster.delete(&claim).await?;
        cluster
            .until("it waits for the volume", async |cluster| {
                let claims = cluster.claims("disk").await?;
                let claim = claims.iter().find(|claim| claim["metadata"]["name"] == json!(node));
                Ok(claim.is_some_and(|claim| condition(claim, "VolumesDetached") == "Unknown"))
            })
            .await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(cluster.vms().await?.contains(&node), "its volume is attached");
        cluster.delete(&attachment).await?;
        cluster.until("the VM is gone", async |cluster| Ok(!cluster.vms().await?.contains(&node))).await?;
        let told = cluster.events("AwaitingVolumeDetachment").await?;
        assert!(
            told.iter().any(|event| event.starts_with(&format!("Node/{node}")) && event.contains("disk")),
            "{told:?}"
        );
        Ok(())
    });
}

/// A pod that must not be disrupted is not evicted from a node that somebody deletes; when the termination grace period of the
/// claim is over, it goes.
#[test]
fn do_not_disrupt_holds_a_deleted_node_until_its_grace_period_is_over() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("grace").await?;
        cluster
            .apply(&node_pool("grace", &json!({"template": {"spec": {"terminationGracePeriod": "20s"}}})))
            .await?;
        let mut held = deployment(&namespace, "grace", "grace", 1, &json!({}));
        held["spec"]["template"]["metadata"]["annotations"] = json!({"karpenter.sh/do-not-disrupt": "true"});
        cluster.apply(&held).await?;
        cluster.apply(&deployment(&namespace, "other", "grace", 1, &json!({}))).await?;
        let node = cluster.running(&namespace, "grace", 1).await?.remove(0);
        assert_eq!(cluster.running(&namespace, "other", 1).await?, std::slice::from_ref(&node));
        let deleted = Instant::now();
        cluster.delete(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})).await?;
        cluster
            .until("the other pod has left", async |cluster| {
                let pods = cluster.pods(&namespace, "other").await?;
                Ok(!pods.contains_key(&node))
            })
            .await?;
        let stays = cluster.pods(&namespace, "grace").await?;
        // Where this machine is so slow that the period is over, there is nothing to see.
        if deleted.elapsed() < Duration::from_secs(15) {
            assert!(
                stays
                    .get(&node)
                    .is_some_and(|pods| pods.iter().all(|pod| pod.metadata.deletion_timestamp.is_none()))
            );
        }
        // A scheduler that comes after reads the deadline.
        cluster.crash(&ServeOptions::default()).await?;
        cluster
            .until("node and VM are gone", async |cluster| {
                Ok(!cluster.vms().await?.contains(&node)
                    && !named(&cluster.list("v1", "Node", "test=grace").await?, &node))
            })
            .await?;
        assert!(deleted.elapsed() >= Duration::from_secs(15), "the pod had its time");
        cluster.running(&namespace, "grace", 1).await?;
        Ok(())
    });
}
