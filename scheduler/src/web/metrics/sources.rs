//! Metrics that others count, read when they are asked for: the fleet server, its token reviews, its certificate, the
//! Kubernetes client.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::write::Writer;
use crate::fleet::{FleetMonitor, ServerCertificate};
use crate::kube::client::ApiCalls;
use crate::kube::token_review::TokenAuthenticator;

/// Where they are counted; each is set once it exists.
#[derive(Debug, Default)]
pub(super) struct Sources {
    pub(super) fleet: OnceLock<FleetMonitor>,
    pub(super) reviews: OnceLock<Arc<TokenAuthenticator>>,
    pub(super) certificate: OnceLock<ServerCertificate>,
    pub(super) api_calls: OnceLock<ApiCalls>,
    /// Since when the caches are not synced; never before the first word of it.
    pub(super) unsynced: std::sync::Mutex<Option<Instant>>,
    /// Since when it is being decided.
    pub(super) works: std::sync::Mutex<Option<Instant>>,
}

#[derive(Debug)]
pub(super) struct SourcesCollector(pub(super) Arc<Sources>);

impl Collector for SourcesCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut writer = Writer(&mut encoder);
        if let Some(fleet) = self.0.fleet.get() {
            fleet_metrics(fleet, &mut writer)?;
        }
        if let Some(reviews) = self.0.reviews.get() {
            let counts = reviews.counts();
            let outcomes = [
                ("answered", counts.answered),
                ("cached", counts.cached),
                ("failed", counts.failed),
                ("unasked", counts.unasked),
            ];
            writer.counters(
                "assay_fleet_token_reviews",
                "Tokens looked at: answered by the API server, known, not answered, or refused without asking",
                outcomes.map(|(outcome, count)| ([("outcome", outcome)], count)),
            )?;
        }
        let valid_until = self.0.certificate.get().and_then(ServerCertificate::valid_until);
        if let Some(until) = valid_until.and_then(|until| until.duration_since(UNIX_EPOCH).ok()) {
            writer.gauges(
                "assay_fleet_certificate_expiry_timestamp_seconds",
                "When the certificate that the fleet server shows expires",
                [([("", ""); 0], until.as_secs_f64())],
            )?;
        }
        if let Some(calls) = self.0.api_calls.get() {
            api_metrics(calls, &mut writer)?;
        }
        let works = *self.0.works.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writer.gauges(
            "karpenter_scheduler_unfinished_work_seconds",
            "For how long the decision takes that is being made",
            [([("controller", "provisioner")], works.map_or(0.0, |since| since.elapsed().as_secs_f64()))],
        )?;
        let unsynced = *self.0.unsynced.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writer.gauges(
            "karpenter_cluster_state_unsynced_time_seconds",
            "For how long not everything that the API server has is known",
            [([("", ""); 0], unsynced.map_or(0.0, |since| since.elapsed().as_secs_f64()))],
        )
    }
}

fn api_metrics(calls: &ApiCalls, writer: &mut Writer<'_, '_>) -> Result<(), fmt::Error> {
    let counted = calls.counted();
    let codes: Vec<_> = counted.keys().map(|call| call.code.to_string()).collect();
    let labels = || {
        let calls = counted.keys().zip(&codes);
        calls.map(|(call, code)| [("verb", call.verb), ("resource", call.resource.as_str()), ("code", code)])
    };
    writer.counters(
        "assay_kubernetes_requests",
        "Requests to the API server; code 0 is no answer",
        labels().zip(counted.values().map(|tally| tally.count)),
    )?;
    writer.counters(
        "assay_kubernetes_request_seconds",
        "Time until their answers began, all together",
        labels().zip(counted.values().map(|tally| tally.took.as_secs_f64())),
    )
}

fn fleet_metrics(fleet: &FleetMonitor, writer: &mut Writer<'_, '_>) -> Result<(), fmt::Error> {
    let counters = fleet.counters();
    writer.gauges(
        "assay_fleet_agents",
        "Agents connected",
        [([("", ""); 0], f64::from(u32::try_from(counters.connected).unwrap_or(u32::MAX)))],
    )?;
    writer.counters(
        "assay_fleet_refusals",
        "Connections, agents and messages refused, by reason",
        counters.refusals().map(|(reason, count)| ([("reason", reason.as_str())], count)),
    )?;
    writer.counters(
        "assay_fleet_tolerations",
        "Agents that were let in without proof, for this is an audit, by what would have kept them out",
        counters.tolerations().map(|(reason, count)| ([("reason", reason.as_str())], count)),
    )?;
    writer.counters(
        "assay_fleet_reports",
        "Reports taken",
        [([("kind", "full")], counters.full_reports), ([("kind", "delta")], counters.deltas)],
    )?;
    let plain = [
        ("assay_fleet_connections", "Agents that were welcomed", counters.welcomed),
        (
            "assay_fleet_connections_replaced",
            "Connections that a newer one of the node took the place of",
            counters.replaced,
        ),
        ("assay_fleet_notices", "Notices taken: GPUs lost, VMs about to be preempted", counters.notices),
        ("assay_fleet_resyncs", "Times an agent was asked for everything", counters.resyncs),
        ("assay_fleet_received_bytes", "Bytes of messages read", counters.bytes),
        ("assay_fleet_retries", "Times an address had to be proved", counters.retries),
    ];
    for (name, help, count) in plain {
        writer.counters(name, help, [([("", ""); 0], count)])?;
    }
    Ok(())
}
