//! A plan as a document: the stable form for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use assay_core::catalog::CapacityType;
use assay_core::model::{InstanceTypeOption, Plan, PlannedClaim, PodId, PoolReason, RuledOut, Snapshot};
use assay_core::requirement::Requirement;
use assay_shared::units::Bytes;
use serde::Serialize;

use crate::cli::output::API_VERSION;
use crate::quantities::quantities;

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    api_version: &'static str,
    kind: &'static str,
    node_claims: Vec<Claim>,
    existing_nodes: Vec<Existing>,
    unschedulable: Vec<LeftOut>,
    totals: Totals,
    stats: Stats,
}

/// A machine to buy.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Claim {
    name: String,
    node_pool: String,
    instance_type: String,
    zone: String,
    capacity_type: CapacityType,
    price_per_hour: f64,
    instance_type_options: Vec<String>,
    requirements: Vec<Requirement>,
    requests: BTreeMap<String, String>,
    pods: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reservation: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    min_values_relaxed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<Explanation>,
}

/// Why a machine was chosen.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation {
    /// What it gives to pods.
    allocatable: BTreeMap<String, String>,
    /// The next best types that would do, cheapest first.
    alternatives: Vec<Alternative>,
    /// Cheaper types that would not do, cheapest first.
    ruled_out: Vec<Excluded>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Excluded {
    instance_type: String,
    price_per_hour: f64,
    why: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Alternative {
    instance_type: String,
    price_per_hour: f64,
}

#[derive(Debug, Serialize)]
struct Existing {
    name: String,
    pods: Vec<String>,
}

#[derive(Debug, Serialize)]
struct LeftOut {
    pod: String,
    reasons: Vec<Reason>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reason {
    node_pool: Option<String>,
    reason: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    price_per_hour: f64,
    nodes: usize,
    pods: usize,
    lower_bound_price_per_hour: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    solve_seconds: f64,
    pods_per_second: f64,
    peak_rss_bytes: u64,
}

/// The document of a plan.
pub(super) fn plan(snapshot: &Snapshot, plan: &Plan, explain: bool, solve_time: Duration) -> Document {
    let seconds = solve_time.as_secs_f64();
    #[allow(clippy::cast_precision_loss)] // a rate for people
    let pods_per_second = if seconds > 0.0 { plan.totals.pods as f64 / seconds } else { 0.0 };
    let existing = plan.existing.iter();
    let left_out = plan.unschedulable.iter();
    Document {
        api_version: API_VERSION,
        kind: "Plan",
        node_claims: plan.claims.iter().map(|one| claim(snapshot, one, explain)).collect(),
        existing_nodes: existing
            .map(|one| Existing { name: one.name.to_string(), pods: names(&one.pods) })
            .collect(),
        unschedulable: left_out
            .map(|one| LeftOut {
                pod: one.pod.to_string(),
                reasons: one.reasons.iter().map(reason).collect(),
            })
            .collect(),
        totals: Totals {
            price_per_hour: plan.totals.price.usd(),
            nodes: plan.totals.nodes,
            pods: plan.totals.pods,
            lower_bound_price_per_hour: plan.totals.lower_bound.usd(),
        },
        stats: Stats { solve_seconds: seconds, pods_per_second, peak_rss_bytes: peak_rss().0 },
    }
}

fn names(pods: &[PodId]) -> Vec<String> {
    pods.iter().map(ToString::to_string).collect()
}

fn reason(reason: &PoolReason) -> Reason {
    let PoolReason { pool, reason, detail, fix } = reason;
    Reason { node_pool: pool.clone(), reason: reason.as_str(), detail: detail.clone(), fix: fix.clone() }
}

/// A machine to buy, as a document.
pub(in crate::cli) fn claim(snapshot: &Snapshot, claim: &PlannedClaim, explain: bool) -> Claim {
    Claim {
        name: claim.name.clone(),
        node_pool: claim.pool.clone(),
        instance_type: claim.instance_type.to_string(),
        zone: claim.zone.to_string(),
        capacity_type: claim.capacity_type,
        price_per_hour: claim.price.usd(),
        instance_type_options: claim.options.iter().map(|option| option.name.to_string()).collect(),
        requirements: claim.requirement_list(),
        requests: quantities(&claim.requests),
        pods: names(&claim.pods),
        reservation: claim.reservation.as_ref().map(ToString::to_string),
        min_values_relaxed: claim.min_values_relaxed.clone(),
        explanation: explain.then(|| explanation(snapshot, claim)),
    }
}

fn explanation(snapshot: &Snapshot, claim: &PlannedClaim) -> Explanation {
    let pool = snapshot.pools.iter().find(|pool| pool.name == claim.pool);
    let types = pool.map_or(&[][..], |pool| snapshot.instance_types_of(pool));
    let chosen = types.iter().find(|candidate| candidate.name == claim.instance_type);
    let why = claim.explanation.as_deref().cloned().unwrap_or_default();
    let alternative = |option: InstanceTypeOption| Alternative {
        instance_type: option.name.to_string(),
        price_per_hour: option.price.usd(),
    };
    let excluded = |one: RuledOut| Excluded {
        instance_type: one.name.to_string(),
        price_per_hour: one.price.usd(),
        why: one.why,
    };
    Explanation {
        allocatable: chosen.map(|chosen| quantities(&chosen.allocatable())).unwrap_or_default(),
        alternatives: why.next.into_iter().map(alternative).collect(),
        ruled_out: why.ruled_out.into_iter().map(excluded).collect(),
    }
}

/// Most memory this process ever had resident; zero where the system does not tell.
pub(in crate::cli) fn peak_rss() -> Bytes {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Bytes::KIB * kib.unwrap_or(0)
}
