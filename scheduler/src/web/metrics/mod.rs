//! What is measured: Karpenter's metrics under Karpenter's names, and ours under `assay_`.
//!
//! ```text
//!  things that happen --methods of Metrics--> counters and histograms (karpenter, own)
//!  the engine --Metrics::sample, every few seconds while somebody reads--> sample (gauges of pools, nodes, claims, pods)
//!  fleet server, token reviews, certificate, Kubernetes client --when read--> sources
//! ```
//!
//! What has a name of its own (a node, a claim, a pod) is written from a sample that each new one replaces: what is gone leaves
//! no metric behind, and there is one copy of it.

mod family;
mod karpenter;
mod own;
mod sample;
mod sources;
mod write;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use assay_shared::units::UsdPerHour;
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

use crate::fleet::{FleetMonitor, ServerCertificate};
use crate::kube::client::ApiCalls;
use crate::kube::token_review::TokenAuthenticator;
use karpenter::Karpenter;
use own::Own;
pub use sample::{
    ClaimSample, ClusterSample, NodeLabels, NodeSample, PODS_SHOWN, PodSample, PoolSample, WaitingSample,
};
use sample::{SampleCollector, Samples};
use sources::{Sources, SourcesCollector};

/// A sample this young is good enough: Karpenter looks every five seconds as well.
const SAMPLE_LIFE: Duration = Duration::from_secs(5);

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus's older text, which everything reads.
    Prometheus,
}

impl TextFormat {
    /// The one to answer an `Accept` header with.
    pub(super) fn wanted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
        }
    }
}

/// Something that was bought, and at what price.
#[derive(Debug, Clone, Copy)]
pub struct Purchase<'a> {
    /// Its pool.
    pub pool: &'a str,
    /// What it costs.
    pub price: UsdPerHour,
    /// What the cheapest costs that would have done, by the catalogue of that moment.
    pub cheapest: UsdPerHour,
}

/// A VM that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Its size.
    pub size: &'a str,
    /// Its zone.
    pub zone: &'a str,
    /// How it is paid for.
    pub capacity_type: &'a str,
    /// Its pool.
    pub pool: &'a str,
}

/// Who goes and how, for [`Metrics::claim_disrupted`].
#[derive(Debug, Clone, Copy)]
pub struct Disruption<'a> {
    /// Why: `empty`, `drifted`, `expired`, `underutilized`, `hardware_mismatch` and the like.
    pub reason: &'a str,
    /// Its pool.
    pub pool: &'a str,
    /// How it was paid for.
    pub capacity_type: &'a str,
    /// Its pool's policy, such as `WhenEmpty`.
    pub consolidation_policy: &'a str,
    /// `graceful` or `forceful`.
    pub termination_mode: &'a str,
}

/// Everything that is measured.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    karpenter: Karpenter,
    own: Own,
    sources: Arc<Sources>,
    samples: Arc<Samples>,
    /// Whether somebody has read since the last sample.
    read: AtomicBool,
    sampled: Mutex<Option<Instant>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics of a process that just began.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let (sources, samples) = (Arc::<Sources>::default(), Arc::<Samples>::default());
        let karpenter = Karpenter::register(&mut registry);
        let own = Own::register(&mut registry);
        registry.register_collector(Box::new(SourcesCollector(Arc::clone(&sources))));
        registry.register_collector(Box::new(SampleCollector(Arc::clone(&samples))));
        let metrics = Self {
            registry,
            karpenter,
            own,
            sources,
            samples,
            // The first reader finds something.
            read: AtomicBool::new(true),
            sampled: Mutex::default(),
        };
        metrics.leads(false);
        metrics
    }

    /// All of it as text.
    ///
    /// # Errors
    /// Never: it is written to memory.
    pub fn encode(&self, format: TextFormat) -> Result<String, fmt::Error> {
        self.read.store(true, Relaxed);
        let mut page = String::new();
        match format {
            TextFormat::OpenMetrics => text::encode(&mut page, &self.registry)?,
            TextFormat::Prometheus => prometheus_text::encode(&mut page, &self.registry)?,
        }
        Ok(page)
    }

    // What is counted elsewhere.

    /// Shows what is asked of the API server. The first one stays.
    pub fn watch_api_calls(&self, calls: ApiCalls) {
        let _ = self.sources.api_calls.set(calls);
    }

    /// Shows what this fleet server counts. The first one stays.
    pub fn watch_fleet(&self, fleet: FleetMonitor, certificate: ServerCertificate) {
        let _ = self.sources.fleet.set(fleet);
        let _ = self.sources.certificate.set(certificate);
    }

    /// Shows what is asked about tokens. The first one stays.
    pub fn watch_reviews(&self, reviews: Arc<TokenAuthenticator>) {
        let _ = self.sources.reviews.set(reviews);
    }

    // What the cluster is.

    /// Whether it is time for [`Metrics::sample`]: somebody reads, and the last one is a few seconds old.
    #[must_use]
    pub fn wants_sample(&self) -> bool {
        let sampled = *self.sampled.lock().unwrap_or_else(PoisonError::into_inner);
        self.read.load(Relaxed) && sampled.is_none_or(|at| at.elapsed() >= SAMPLE_LIFE)
    }

    /// Shows the cluster as it is now.
    pub fn sample(&self, sample: ClusterSample) {
        self.read.store(false, Relaxed);
        *self.sampled.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.samples.replace(sample);
    }

    /// Whether everything is known that the API server has.
    pub fn synced(&self, synced: bool) {
        self.karpenter.synced.set([], f64::from(u8::from(synced)));
        let mut unsynced = self.sources.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if synced {
            *unsynced = None;
        } else {
            unsynced.get_or_insert_with(Instant::now);
        }
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.own.leading.set([], f64::from(u8::from(leads)));
    }

    // What happens to claims and nodes.

    /// A NodeClaim was created; the reason is `provisioned` for pods that wait, or that of what it replaces.
    pub fn claim_created(&self, reason: &str, pool: &str, min_values_relaxed: bool) {
        let relaxed = if min_values_relaxed { "true" } else { "false" };
        self.karpenter.claims_created.add([reason, pool, relaxed]);
    }

    /// A VM is asked for.
    pub fn launch_began(&self, launch: Launch<'_>) {
        let Launch { size, zone, capacity_type, pool } = launch;
        self.karpenter.vm_create_starts.add([size, zone, capacity_type, pool]);
    }

    /// The cloud refused it, with this word for why.
    pub fn launch_failed(&self, launch: Launch<'_>, error: &str) {
        let Launch { size, zone, capacity_type, pool } = launch;
        self.karpenter.vm_create_failures.add([size, zone, capacity_type, pool, "sync", error]);
    }

    /// Something was bought.
    #[allow(clippy::cast_precision_loss)] // a ratio of prices
    pub fn bought(&self, purchase: Purchase<'_>) {
        // What is free has no ratio, and is no worse than anything.
        let ratio = match purchase.cheapest.0 {
            0 => 1.0,
            cheapest => purchase.price.0 as f64 / cheapest as f64,
        };
        self.own.purchase_ratio.observe([purchase.pool], ratio);
    }

    /// The VM of a claim exists, so long after the claim was created.
    pub fn launched(&self, pool: &str, after: Duration) {
        self.own.claim_steps.took([pool, "launched"], after);
    }

    /// The node of a claim has joined, so long after the claim was created.
    pub fn registered(&self, pool: &str, after: Duration) {
        self.own.claim_steps.took([pool, "registered"], after);
        self.karpenter.nodes_created.add([pool]);
    }

    /// The node of a claim is ready and measured, so long after the claim was created.
    pub fn initialized(&self, pool: &str, after: Duration) {
        self.own.claim_steps.took([pool, "initialized"], after);
    }

    /// A claim was given up.
    pub fn claim_disrupted(&self, disruption: Disruption<'_>) {
        let Disruption { reason, pool, capacity_type, consolidation_policy, termination_mode } = disruption;
        let labels = [reason, pool, capacity_type, consolidation_policy, termination_mode];
        self.karpenter.claims_disrupted.add(labels);
    }

    /// A claim was given up for this condition of its node.
    pub fn unhealthy_disrupted(&self, condition: &str, pool: &str, capacity_type: &str) {
        self.karpenter.unhealthy_disrupted.add([condition, pool, capacity_type]);
    }

    /// A claim is gone, so long after its deletion began.
    pub fn claim_terminated(&self, pool: &str, capacity_type: &str, zone: &str, took: Duration) {
        self.karpenter.claims_terminated.add([pool, capacity_type, zone]);
        self.karpenter.claim_termination.took([pool], took);
    }

    /// A VM is gone, so long after its deletion was asked for.
    pub fn instance_terminated(&self, pool: &str, took: Duration) {
        self.karpenter.instance_termination.took([pool], took);
    }

    /// The last pod left a node that was drained.
    pub fn drained(&self, pool: &str) {
        self.karpenter.nodes_drained.add([pool]);
    }

    /// A node is gone: so long after its deletion began, and so long after it joined.
    pub fn node_terminated(&self, pool: &str, took: Duration, lived: Duration) {
        self.karpenter.nodes_terminated.add([pool]);
        self.karpenter.node_termination.took([pool], took);
        self.karpenter.node_lifetime.took([pool], lived);
    }

    /// Nodes are to go. Decision is `delete` or `replace`; the type is empty where it is no consolidation.
    pub fn disruption_decided(&self, decision: &str, reason: &str, consolidation_type: &str) {
        self.karpenter.decisions.add([decision, reason, consolidation_type]);
    }

    /// So many nodes would go by the last plan for a reason.
    pub fn eligible(&self, reason: &str, nodes: u32) {
        self.karpenter.eligible.set([reason], nodes.into());
    }

    /// A command held no more when it was looked at again.
    pub fn validation_failed(&self, reason: &str) {
        self.karpenter.failed_validations.add([reason]);
    }

    /// A command was undone after it had begun.
    pub fn disruption_undone(&self, reason: &str) {
        self.karpenter.queue_failures.add([reason]);
    }

    /// A plan ran out of work before every node was looked at.
    pub fn consolidation_timed_out(&self) {
        self.karpenter.consolidation_timeouts.add(["multi"]);
    }

    // What happens to pods.

    /// A pod was bound, so long after its creation, and so long after it was decided where it goes, where it was.
    pub fn pod_bound(&self, after: Duration, decided: Option<Duration>) {
        self.karpenter.pods_bound.took([], after);
        if let Some(after) = decided {
            self.karpenter.pods_provisioning_bound.took([], after);
        }
    }

    /// A pod is ready, likewise.
    pub fn pod_started(&self, after: Duration, decided: Option<Duration>) {
        self.karpenter.pods_startup.took([], after);
        if let Some(after) = decided {
            self.karpenter.pods_provisioning_startup.took([], after);
        }
    }

    /// It was decided where a pod goes, so long after it was first seen.
    pub fn pod_decided(&self, after: Duration) {
        self.karpenter.pods_decision.took([], after);
    }

    /// A pod is asked to leave a node that goes for this reason.
    pub fn pod_disruption_initiated(&self, reason: &str) {
        self.karpenter.pods_disruption_initiated.add([reason]);
    }

    /// The API server answered a request for an eviction with this status.
    pub fn eviction_requested(&self, code: u16) {
        self.karpenter.evictions.add([&code.to_string()]);
    }

    /// A pod left a node that is drained for this reason.
    pub fn pod_drained(&self, reason: &str) {
        self.karpenter.pods_drained.add([reason]);
    }

    // What the scheduler does.

    /// A turn begins in which there may be a solve, or ends.
    pub fn works(&self, works: bool) {
        *self.sources.works.lock().unwrap_or_else(PoisonError::into_inner) = works.then(Instant::now);
    }

    /// A solve took so long. Controllers are `provisioner` and `disruption`.
    pub fn solved(&self, controller: &str, took: Duration) {
        self.karpenter.scheduling.took([controller], took);
    }

    /// So many pods wait to be solved.
    pub fn queued(&self, controller: &str, pods: u32) {
        self.karpenter.queue_depth.set([controller], pods.into());
    }

    /// For so many pods nothing can be bought.
    pub fn unschedulable(&self, controller: &str, pods: u32) {
        self.karpenter.unschedulable.set([controller], pods.into());
    }

    /// So many pods are left out since they cannot be understood.
    pub fn ignored(&self, pods: u32) {
        self.karpenter.ignored.set([], pods.into());
    }

    /// A call to the cloud took so long. The error is the cloud's word for it, such as `InsufficientCapacityError`.
    pub fn cloud_called(
        &self,
        controller: &str,
        method: &str,
        provider: &str,
        took: Duration,
        error: Option<&str>,
    ) {
        self.karpenter.cloud.took([controller, method, provider], took);
        if let Some(error) = error {
            self.karpenter.cloud_errors.add([controller, method, provider, error]);
        }
    }

    /// A decision could not be carried out.
    pub fn effect_failed(&self, effect: &str) {
        self.own.effects_failed.add([effect]);
    }

    /// An object was put aside since it cannot be understood.
    pub fn object_unreadable(&self, kind: &str) {
        self.own.objects_unreadable.add([kind]);
    }
}
