//! Crashes, fail-overs, and API servers that go away.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{Call, Cluster, Fault, FaultyApi, ServeOptions, apart, deployment, node_pool};
use hyper::Method;
use serde_json::json;

/// A launch that is watched, to be stopped at one of its writes.
#[derive(Debug)]
struct Launch {
    /// Claims of earlier launches.
    known: BTreeSet<String>,
    claim: Option<String>,
    writes: Vec<String>,
    /// Number of the write that is stopped, and whether before it is made or after.
    stop: Option<(usize, Fault)>,
}

impl Launch {
    fn watch(&mut self, call: &Call) -> Fault {
        if !call.is_write() {
            return Fault::None;
        }
        let named = ["nodeclaims", "configmaps", "nodes"].into_iter().find(|kind| call.is_of(kind));
        let Some(name) = named.and_then(|kind| call.name(kind)) else { return Fault::None };
        // Its kubelet makes the node.
        if call.method == Method::POST && call.is_of("nodes") {
            return Fault::None;
        }
        if call.method == Method::POST && call.is_of("nodeclaims") && self.known.insert(name.to_owned()) {
            self.claim.get_or_insert_with(|| name.to_owned());
        }
        if self.claim.as_deref() != Some(name) {
            return Fault::None;
        }
        self.writes.push(format!("{} {}", call.method, call.path));
        match self.stop {
            Some((number, fault)) if number == self.writes.len() => fault,
            _ => Fault::None,
        }
    }
}

/// Killed right before and right after every single write of a launch: nothing is bought twice, nothing is left behind.
#[test]
fn a_scheduler_killed_between_any_two_writes_of_a_launch_buys_nothing_twice() {
    on_own(Options::whole(), async |plane| {
        let proxy = FaultyApi::start(plane).await?;
        let launch = Launch { known: BTreeSet::new(), claim: None, writes: Vec::new(), stop: None };
        let launch = Arc::new(Mutex::new(launch));
        let watched = Arc::clone(&launch);
        proxy.misbehave(move |call| watched.lock().unwrap().watch(call));
        let mut options = ServeOptions::through(&proxy);
        options.boot = Some((0, 0));
        let mut cluster = Cluster::start(plane, &options).await?;
        let namespace = plane.namespace("crash").await?;
        cluster.apply(&node_pool("crash", &json!({}))).await?;
        let pods = deployment(&namespace, "crash", "crash", 0, &apart("crash"));
        cluster.apply(&pods).await?;

        let mut replicas = 0;
        let stops = (1..).flat_map(|number| [(number, Fault::Hold), (number, Fault::HoldAnswer)]);
        for stop in stops {
            {
                let mut launch = launch.lock().unwrap();
                (launch.claim, launch.stop) = (None, Some(stop));
                launch.writes.clear();
            }
            replicas += 1;
            cluster.patch(&pods, &json!({"spec": {"replicas": replicas}})).await?;
            let is_over = async {
                // What was left of earlier launches is finished by now, too.
                cluster.running(&namespace, "crash", replicas).await?;
                tokio::time::sleep(Duration::from_secs(3)).await;
                anyhow::Ok(())
            };
            let is_over = tokio::select! {
                () = proxy.held() => false,
                over = is_over => { over?; true }
            };
            if is_over {
                break;
            }
            cluster.crash(&options).await?;
        }
        let writes = launch.lock().unwrap().writes.clone();
        assert!(
            writes.len() >= 6,
            "a launch is an object, a VM, its status, a node that is adopted: {writes:#?}"
        );
        assert!(replicas > 2 * writes.len().min(8), "each was stopped twice: {replicas} for {writes:#?}");
        assert_eq!(cluster.claims("crash").await?.len(), replicas, "one machine a pod");
        assert_eq!(cluster.vms_made()?.len(), replicas, "and never one more");
        cluster.until("VMs and claims are the same", async |cluster| cluster.is_balanced("crash").await).await
    });
}

/// Two schedulers: when the one that leads is killed, the other one takes over within 20 s and has all reports.
#[test]
fn another_scheduler_takes_over_within_twenty_seconds() {
    on_own(Options::whole(), async |plane| {
        let mut first = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("lead").await?;
        first.apply(&node_pool("lead", &json!({}))).await?;
        first.apply(&deployment(&namespace, "lead", "lead", 2, &json!({}))).await?;
        first.running(&namespace, "lead", 2).await?;

        let mut second = Cluster::start(plane, &ServeOptions::default()).await?;
        second
            .until("the second one follows", async |cluster| {
                Ok(cluster.serving.metric("karpenter_cluster_state_synced", &[]).await? > 0.5)
            })
            .await?;
        first.serving.kill()?;
        let killed = Instant::now();
        second
            .patch(&deployment(&namespace, "lead", "lead", 2, &json!({})), &json!({"spec": {"replicas": 12}}))
            .await?;
        second
            .until("the second one leads", async |cluster| Ok(cluster.serving.log().contains("\"decides\"")))
            .await?;
        let took = killed.elapsed();
        eprintln!("took over after {took:?}");
        assert!(took <= Duration::from_secs(20), "took over after {took:?}");
        second.running(&namespace, "lead", 12).await?;
        second.until("VMs and claims are the same", async |cluster| cluster.is_balanced("lead").await).await
    });
}

/// A scheduler loses the lease right after it bought, and leads again while its watch of claims is cut: it has never seen the claims
/// that it made itself. It decides nothing until it has.
#[test]
fn a_leader_whose_watch_is_behind_buys_nothing_twice() {
    on_own(Options::whole(), async |plane| {
        let proxy = FaultyApi::start(plane).await?;
        let mut options = ServeOptions::through(&proxy);
        options.boot = Some((5, 5));
        let mut cluster = Cluster::start(plane, &options).await?;
        let namespace = plane.namespace("behind").await?;
        cluster.apply(&node_pool("behind", &json!({}))).await?;
        let pods = deployment(&namespace, "behind", "behind", 0, &apart("behind"));
        cluster.apply(&pods).await?;
        cluster
            .until("it leads", async |cluster| Ok(cluster.serving.metric("assay_leader", &[]).await? > 0.5))
            .await?;

        let leases = Arc::new(AtomicBool::new(true));
        let (claims_seen, may_lead) = (Arc::new(AtomicBool::new(false)), Arc::clone(&leases));
        let seen = Arc::clone(&claims_seen);
        proxy.misbehave(move |call| {
            let cut = call.is_watch() && call.is_of("nodeclaims") && !seen.load(Relaxed);
            let loses = call.is_of("leases") && !may_lead.load(Relaxed);
            if cut || loses { Fault::Refuse(503, "ServiceUnavailable") } else { Fault::None }
        });
        proxy.cut_watches();
        cluster.patch(&pods, &json!({"spec": {"replicas": 2}})).await?;
        cluster.until("two are bought", async |cluster| Ok(cluster.vms().await?.len() == 2)).await?;
        leases.store(false, Relaxed);
        cluster
            .until("it leads no more", async |cluster| {
                Ok(cluster.serving.log().contains("\"decides no more\""))
            })
            .await?;
        leases.store(true, Relaxed);
        cluster
            .until("it waits for the watch", async |cluster| {
                Ok(cluster.serving.log().contains("\"waits for the watch of claims\""))
            })
            .await?;
        // Longer than pods are collected, and than a decision takes.
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(cluster.vms_made()?.len(), 2);
        claims_seen.store(true, Relaxed);
        cluster.running(&namespace, "behind", 2).await?;
        assert_eq!(cluster.vms_made()?.len(), 2);
        cluster
            .until("VMs and claims are the same", async |cluster| cluster.is_balanced("behind").await)
            .await
    });
}

/// The API server goes away and comes back while sixty pods wait, machines boot and others are given back: work goes on where it
/// was, and nothing is bought twice.
#[test]
fn an_api_server_that_restarts_under_load_holds_nothing_up_for_good() {
    on_own(Options::whole(), async |plane| {
        let mut cluster = Cluster::start(plane, &ServeOptions::default()).await?;
        let namespace = plane.namespace("api").await?;
        for name in ["api", "old"] {
            cluster.apply(&node_pool(name, &json!({}))).await?;
        }
        let old = deployment(&namespace, "old", "old", 6, &apart("old"));
        cluster.apply(&old).await?;
        cluster.running(&namespace, "old", 6).await?;
        let mut pods = apart("api");
        pods["containers"] = json!([{"name": "c", "image": "registry.invalid/none", "resources": {"requests": {"cpu": "100m"}}}]);
        let few = deployment(&namespace, "api", "api", 12, &pods);
        let many = deployment(&namespace, "many", "api", 48, &json!({}));
        cluster.apply(&many).await?;
        cluster.apply(&few).await?;
        cluster.delete(&old).await?;
        cluster
            .until("machines are being bought", async |cluster| Ok(!cluster.claims("api").await?.is_empty()))
            .await?;
        plane.stop_apiserver()?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        plane.start_apiserver().await?;
        cluster.running(&namespace, "api", 12).await?;
        cluster.running(&namespace, "many", 48).await?;
        cluster
            .until("what nobody needs is given back", async |cluster| {
                Ok(cluster.claims("old").await?.is_empty() && cluster.is_balanced("api").await?)
            })
            .await?;
        for deployment in [&few, &many] {
            cluster.patch(deployment, &json!({"spec": {"replicas": 0}})).await?;
        }
        cluster
            .until("everything is given back", async |cluster| {
                Ok(cluster.claims("api").await?.is_empty() && cluster.nodes("api").await?.is_empty())
            })
            .await
    });
}
