//! What `assay serve` tells others about itself, over HTTP: metrics, and whether it lives and is ready.
//!
//! ```text
//!  the loop ----launched, registered, ...---> Metrics --/metrics--> Prometheus
//!  fleet server, Kubernetes client --counters, when read-->  |
//!  the loop, watches ---------> Health --/healthz, /readyz--> kubelet
//! ```
//!
//! Nothing that can be read here is a secret, and whatever a client does costs bounded time and memory: see `server`.
//! `docs/metrics.md` lists every metric.

mod health;
mod metrics;
mod server;
#[cfg(test)]
mod tests;

pub use health::{Condition, Health, STUCK_AFTER};
pub use metrics::{
    ClaimSample, ClusterSample, Disruption, Launch, Metrics, NodeLabels, NodeSample, PODS_SHOWN, PodSample,
    PoolSample, Purchase, TextFormat, WaitingSample,
};
pub use server::{WebConfig, WebHandle, WebServer};
