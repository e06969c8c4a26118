//! API servers that refuse, break off and forget.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use assay_tests::control_plane::Options;
use assay_tests::control_plane::shared::on_own;
use assay_tests::serving::{Call, Cluster, Fault, FaultyApi, ServeOptions, apart, deployment, node_pool};
use serde_json::json;

/// Numbers that look drawn by chance and are the same in every run.
#[derive(Default)]
struct Chance(AtomicU64);

impl Chance {
    /// A number below 100.
    fn draw(&self) -> u64 {
        let mut bits = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % 100
    }

    /// A third of all calls go wrong, in every way they can.
    fn storm(&self, call: &Call) -> Fault {
        match self.draw() {
            0..13 => Fault::Refuse(429, "TooManyRequests"),
            13..16 => Fault::Refuse(503, "ServiceUnavailable"),
            16..20 => Fault::Drop,
            20..26 if call.is_write() => Fault::DropAnswer,
            26..34 if call.is_write() => Fault::Refuse(409, "Conflict"),
            _ => Fault::None,
        }
    }
}

/// A third of all calls is refused with 429, 409 or 503, or their connections break before or after they did their work: all pods
/// get nodes, nothing is bought twice, and all of it is given back.
#[test]
fn storms_of_refusals_hold_nothing_up_for_good_and_buy_nothing_twice() {
    on_own(Options::whole(), async |plane| {
        let proxy = FaultyApi::start(plane).await?;
        let mut cluster = Cluster::start(plane, &ServeOptions::through(&proxy)).await?;
        let namespace = plane.namespace("storm").await?;
        let chance = Chance::default();
        proxy.misbehave(move |call| chance.storm(call));
        let at_once = json!({"disruption": {"budgets": [{"nodes": "100%"}]}});
        cluster.apply(&node_pool("storm", &at_once)).await?;
        let pods = deployment(&namespace, "storm", "storm", 8, &apart("storm"));
        cluster.apply(&pods).await?;
        cluster.running(&namespace, "storm", 8).await?;
        assert!(proxy.faults() > 50, "there was a storm: {}", proxy.faults());
        assert_eq!(cluster.vms_made()?.len(), 8, "one machine a pod, and never one more");
        cluster.patch(&pods, &json!({"spec": {"replicas": 0}})).await?;
        cluster
            .until("nodes, claims and VMs are gone", async |cluster| {
                Ok(cluster.claims("storm").await?.is_empty()
                    && cluster.nodes("storm").await?.is_empty()
                    && cluster.vms().await?.is_empty())
            })
            .await?;
        assert_eq!(cluster.vms_made()?.len(), 8);
        Ok(())
    });
}

/// All watches break, and for a while each new one is told that its version is too old (410): what happened in between is seen.
#[test]
fn watches_that_expire_miss_nothing() {
    on_own(Options::whole(), async |plane| {
        let proxy = FaultyApi::start(plane).await?;
        let mut cluster = Cluster::start(plane, &ServeOptions::through(&proxy)).await?;
        let namespace = plane.namespace("expiry").await?;
        cluster.apply(&node_pool("before", &json!({}))).await?;
        let before = deployment(&namespace, "before", "before", 3, &json!({}));
        cluster.apply(&before).await?;
        cluster.running(&namespace, "before", 3).await?;

        let chance = Chance::default();
        proxy.misbehave(move |call| match chance.draw() {
            _ if !call.is_watch() => Fault::None,
            0..50 => Fault::Refuse(410, "Expired"),
            _ => Fault::ExpireWatch,
        });
        proxy.cut_watches();
        // Pods and a pool come, others go, in the dark.
        cluster.apply(&node_pool("after", &json!({}))).await?;
        cluster.apply(&deployment(&namespace, "after", "after", 3, &json!({}))).await?;
        cluster.delete(&before).await?;
        tokio::time::sleep(Duration::from_secs(4)).await;
        proxy.behave();
        proxy.cut_watches();

        cluster.running(&namespace, "after", 3).await?;
        cluster
            .until("what nobody needs is given back", async |cluster| {
                Ok(cluster.claims("before").await?.is_empty() && cluster.is_balanced("after").await?)
            })
            .await?;
        assert_eq!(cluster.claims("after").await?.len(), 1);
        Ok(())
    });
}
