//! What happened, in order, and the sums.

use std::collections::BTreeMap;

use assay_core::engine::EventKind;
use assay_core::model::Timestamp;
use serde::Serialize;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// What it is about: `Node/x`, `NodeClaim/x`, `Pod/ns/x`.
    pub object: String,
    /// Whether somebody may want to know.
    pub kind: EventKind,
    /// A stable word.
    pub reason: String,
    /// For people.
    pub message: String,
}

impl Entry {
    /// Whether it says that something happened that must not.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        ["Violation", "Restless", "PlanRefused"].contains(&self.reason.as_str())
    }
}

/// The sums over a simulation.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Simulated time.
    pub seconds: u64,
    /// VMs asked for.
    pub bought: u64,
    /// Requests the cloud refused.
    pub launch_failures: u64,
    /// Machines that joined.
    pub joined: u64,
    /// Purchases whose memory was what had been measured, not what the model guessed.
    pub learned_purchases: u64,
    /// Labels set to what was measured.
    pub labels_refined: u64,
    /// Machines that were less than bought, by kind.
    pub mismatches: BTreeMap<String, u64>,
    /// Machines given back, by reason.
    pub released: BTreeMap<String, u64>,
    /// Reports put aside as impossible.
    pub quarantined: u64,
    /// Pods evicted from machines that went.
    pub evicted: u64,
    /// Times the scheduler died and came back.
    pub restarts: u64,
    /// Pods that run at the end.
    pub pods_running: usize,
    /// Pods that wait at the end.
    pub pods_pending: usize,
    /// Nodes at the end.
    pub nodes: usize,
    /// What all machines cost together.
    pub cost_usd: f64,
    /// What they cost per hour at the end.
    pub price_per_hour: f64,
}
