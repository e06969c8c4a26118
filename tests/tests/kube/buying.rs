//! What is bought for pods that wait.

use std::collections::BTreeMap;

use assay_tests::control_plane::shared::on_own;
use assay_tests::control_plane::{Options, eventually};
use assay_tests::serving::{Cluster, ServeOptions, apart, condition, deployment, names, node_pool};
use serde_json::{Value, json};

/// Pending pods of a Deployment -> claims -> nodes -> the real kube-scheduler binds them all; a claim's life on record; given back
/// when nobody needs it.
#[test]
fn a_cluster_grows_for_its_pods_and_shrinks_without_them() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("web").await?;
        // Only what it sees begin is timed.
        cluster
            .until("it leads", async |cluster| Ok(cluster.serving.metric("assay_leader", &[]).await? > 0.5))
            .await?;

        cluster.apply(&node_pool("web", &json!({}))).await?;
        cluster.apply(&deployment(&namespace, "web", "web", 9, &apart("web"))).await?;
        cluster.running(&namespace, "web", 9).await?;

        let nodes = cluster.nodes("web").await?;
        assert_eq!(nodes.len(), 9);
        for node in &nodes {
            let labels = node.metadata.labels.as_ref().unwrap();
            assert_eq!(labels["karpenter.sh/registered"], "true");
            assert_eq!(labels["hardware.assay.dev/verified"], "true", "measured before it was used");
            let spec = node.spec.as_ref().unwrap();
            let taints: Vec<&str> = spec.taints.iter().flatten().map(|taint| taint.key.as_str()).collect();
            assert_eq!(taints, ["test"], "of what it started with nothing is left");
        }
        // The record of a claim.
        cluster
            .until("claims say that they are ready", async |cluster| {
                let claims = cluster.claims("web").await?;
                Ok(claims.iter().all(|claim| condition(claim, "Ready") == "True"))
            })
            .await?;
        let claims = cluster.claims("web").await?;
        assert_eq!(claims.len(), nodes.len());
        for claim in &claims {
            for name in ["Launched", "Registered", "Initialized", "Ready"] {
                assert_eq!(condition(claim, name), "True", "{name} of {claim:#}");
            }
            assert_eq!(claim["metadata"]["finalizers"], json!(["karpenter.sh/termination"]));
            assert_eq!(claim["metadata"]["ownerReferences"][0]["kind"], "NodePool");
            assert!(claim["status"]["providerID"].as_str().unwrap().starts_with("assay-sim:///"));
            assert_eq!(claim["status"]["nodeName"], claim["metadata"]["name"]);
        }
        cluster
            .until("the pool tells its resources and that it is ready", async |cluster| {
                let pools = cluster.list("karpenter.sh/v1", "NodePool", "").await?;
                let pool = pools.iter().find(|pool| pool["metadata"]["name"] == "web").unwrap();
                Ok(pool["status"]["nodes"] == json!(claims.len())
                    && condition(pool, "Ready") == "True"
                    && pool["status"]["resources"]["cpu"].is_string())
            })
            .await?;
        cluster
            .until("what was measured is on record", async |cluster| {
                let hardware = cluster.list("assay.dev/v1alpha1", "NodeHardware", "").await?;
                Ok(nodes.iter().all(|node| {
                    hardware.iter().any(|one| one["metadata"]["name"] == json!(node.metadata.name))
                }))
            })
            .await?;
        assert!(!cluster.events("Nominated").await?.is_empty(), "people were told");
        let web = ("nodepool", "web");
        counted(
            &cluster,
            &[
                ("karpenter_nodeclaims_created_total", &[web, ("min_values_relaxed", "false")]),
                ("karpenter_nodes_created_total", &[web]),
                ("karpenter_pods_scheduling_decision_duration_seconds_count", &[]),
                ("karpenter_pods_bound_duration_seconds_count", &[]),
                ("karpenter_pods_startup_duration_seconds_count", &[]),
                ("karpenter_scheduler_scheduling_duration_seconds_count", &[("controller", "provisioner")]),
                ("karpenter_cloudprovider_duration_seconds_count", &[("method", "Create")]),
                ("karpenter_nodepools_allowed_disruptions", &[web, ("reason", "Empty")]),
                ("assay_purchase_price_ratio_count", &[web]),
                ("assay_nodeclaims_cheapest_price", &[web]),
                ("assay_memory_predicted_allocatable_bytes", &[]),
                ("assay_memory_measured_allocatable_bytes", &[]),
                ("assay_nodeclaims_step_duration_seconds_count", &[web, ("step", "initialized")]),
            ],
        )
        .await?;

        // Nobody needs them any more.
        cluster
            .patch(&deployment(&namespace, "web", "web", 0, &json!({})), &json!({"spec": {"replicas": 0}}))
            .await?;
        cluster
            .until("nodes, claims and VMs are gone", async |cluster| {
                let vms = cluster.list("v1", "ConfigMap", "assay.dev/simulated-vm=true").await?;
                Ok(cluster.nodes("web").await?.is_empty()
                    && cluster.claims("web").await?.is_empty()
                    && vms.is_empty())
            })
            .await?;
        counted(
            &cluster,
            &[
                ("karpenter_nodeclaims_terminated_total", &[web]),
                ("karpenter_nodeclaims_termination_duration_seconds_count", &[web]),
                ("karpenter_nodeclaims_instance_termination_duration_seconds_count", &[web]),
                (
                    "karpenter_nodeclaims_disrupted_total",
                    &[web, ("reason", "Empty"), ("consolidation_policy", "WhenEmpty")],
                ),
                ("karpenter_nodes_terminated_total", &[web]),
                ("karpenter_nodes_lifetime_duration_seconds_count", &[web]),
                (
                    "karpenter_voluntary_disruption_decisions_total",
                    &[("decision", "delete"), ("reason", "Empty")],
                ),
                ("karpenter_cloudprovider_duration_seconds_count", &[("method", "Delete")]),
            ],
        )
        .await?;
        let errors = cluster.serving.metric("assay_effects_failed_total", &[]).await?;
        assert!(errors < 0.5, "nothing was refused");
        cluster.serving.stop().await
    });
}

type Series<'s> = (&'s str, &'s [(&'s str, &'s str)]);

/// Waits until there is something of every series: the sample that has some of them is a few seconds old.
async fn counted(cluster: &Cluster<'_>, wanted: &[Series<'_>]) -> anyhow::Result<()> {
    for (name, labels) in wanted {
        eventually(name, async || {
            let there = cluster.serving.metric(name, labels).await? > 0.0;
            Ok(there.then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Pods that must be spread over zones: nodes are bought in each, and the real kube-scheduler finds a place for every pod.
#[test]
fn a_zonal_spread_buys_in_every_zone() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("spread").await?;
        cluster.apply(&node_pool("spread", &json!({}))).await?;
        let spread = json!({"topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "spread"}},
        }]});
        cluster.apply(&deployment(&namespace, "spread", "spread", 9, &spread)).await?;
        cluster.running(&namespace, "spread", 9).await?;
        let zone_of: BTreeMap<String, String> = cluster
            .nodes("spread")
            .await?
            .into_iter()
            .map(|node| {
                let labels = node.metadata.labels.unwrap();
                (node.metadata.name.unwrap(), labels["topology.kubernetes.io/zone"].clone())
            })
            .collect();
        let mut pods: BTreeMap<&str, usize> = BTreeMap::new();
        let by_node = cluster.pods(&namespace, "spread").await?;
        for (node, there) in &by_node {
            *pods.entry(zone_of[node].as_str()).or_default() += there.len();
        }
        assert_eq!(pods.values().collect::<Vec<_>>(), [&3, &3, &3], "{pods:?}");
        Ok(())
    });
}

/// A DaemonSet of one CPU runs on every node that is bought: none is bought that has no room for it.
#[test]
fn a_daemon_set_is_counted_into_every_node() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("daemon").await?;
        let daemon = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "daemon", "namespace": namespace},
            "spec": {
                "selector": {"matchLabels": {"app": "daemon"}},
                "template": {"metadata": {"labels": {"app": "daemon"}}, "spec": {
                    "nodeSelector": {"test": "daemon"},
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "c", "image": "registry.invalid/none",
                        "resources": {"requests": {"cpu": "1"}}}],
                }},
            },
        });
        cluster.apply(&daemon).await?;
        cluster.apply(&node_pool("daemon", &json!({}))).await?;
        cluster.apply(&deployment(&namespace, "web", "daemon", 4, &apart("web"))).await?;
        cluster.running(&namespace, "web", 4).await?;
        let nodes = names(&cluster.nodes("daemon").await?);
        cluster
            .until("every node runs the daemon", async |cluster| {
                let daemons = cluster.pods(&namespace, "daemon").await?;
                Ok(nodes.iter().all(|node| daemons.contains_key(node)))
            })
            .await?;
        assert_eq!((nodes.len(), cluster.vms_made()?.len()), (4, 4));
        Ok(())
    });
}

/// A limit of zero buys nothing, a pool without its class says so, and pods are told why.
#[test]
fn limits_and_missing_classes_buy_nothing_and_say_so() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("none").await?;
        cluster.apply(&node_pool("none", &json!({"limits": {"cpu": "0"}}))).await?;
        let mut orphan = node_pool("orphan", &json!({}));
        orphan["spec"]["template"]["spec"]["nodeClassRef"]["name"] = json!("missing");
        cluster.apply(&orphan).await?;
        cluster.apply(&deployment(&namespace, "none", "none", 2, &json!({}))).await?;
        cluster
            .until("pods are told that the limit leaves nothing", async |cluster| {
                let told = cluster.events("FailedScheduling").await?;
                Ok(told.iter().any(|event| event.contains("limit")))
            })
            .await?;
        cluster
            .until("the pool without class is not ready", async |cluster| {
                let pools = cluster.list("karpenter.sh/v1", "NodePool", "").await?;
                let pool = pools.iter().find(|pool| pool["metadata"]["name"] == "orphan").unwrap();
                Ok(condition(pool, "NodeClassReady") == "False" && condition(pool, "Ready") == "False")
            })
            .await?;
        assert!(cluster.claims("none").await?.is_empty() && cluster.claims("orphan").await?.is_empty());

        // The limit goes, and the pods run.
        cluster.patch(&node_pool("none", &json!({})), &json!({"spec": {"limits": {"cpu": "1000"}}})).await?;
        cluster.running(&namespace, "none", 2).await?;
        assert_eq!(names(&cluster.nodes("none").await?).len(), 1);
        Ok(())
    });
}

/// One object that cannot be read stops nothing.
#[test]
fn an_object_that_cannot_be_read_stops_nothing() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("odd").await?;
        cluster.apply(&node_pool("odd", &json!({}))).await?;
        // Valid to the API server, and nothing that a scheduler can decide on.
        let odd: Value = deployment(
            &namespace,
            "odd",
            "odd",
            1,
            &json!({
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["no-such-node"]}]},
                ]}}},
            }),
        );
        cluster.apply(&odd).await?;
        cluster.apply(&deployment(&namespace, "fine", "odd", 3, &json!({}))).await?;
        cluster.running(&namespace, "fine", 3).await?;
        cluster
            .until("the odd pod is told why it waits", async |cluster| {
                Ok(cluster
                    .events("FailedScheduling")
                    .await?
                    .iter()
                    .any(|event| event.starts_with("Pod/odd-")))
            })
            .await
    });
}
