//! A disruption plan as a document: the stable form for programs.

use std::time::Duration;

use assay_core::disrupt::{Blocked, Command, DisruptionPlan, Payback};
use assay_core::model::{Snapshot, Timestamp};
use assay_shared::units::UsdPerHour;
use serde::Serialize;

use crate::cli::output::API_VERSION;
use crate::cli::plan::document::{Claim, claim, peak_rss};

/// The document.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    api_version: &'static str,
    kind: &'static str,
    commands: Vec<CommandDocument>,
    blocked: Vec<BlockedDocument>,
    totals: Totals,
    stats: Stats,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CommandDocument {
    reason: &'static str,
    detail: String,
    nodes: Vec<String>,
    replacements: Vec<Claim>,
    moves: Vec<MoveDocument>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stranded: Vec<String>,
    price_per_hour: f64,
    replacement_price_per_hour: f64,
    savings_per_hour: f64,
    evictions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    payback: Option<PaybackDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<String>,
}

#[derive(Debug, Serialize)]
struct MoveDocument {
    pod: String,
    from: String,
    to: String,
}

/// US dollars.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct PaybackDocument {
    period_seconds: u64,
    worth: f64,
    cost: f64,
    evictions: f64,
    lost_time: f64,
    start_up: f64,
}

#[derive(Debug, Serialize)]
struct BlockedDocument {
    node: String,
    reason: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Totals {
    price_per_hour: f64,
    price_per_hour_after: f64,
    savings_per_hour: f64,
    nodes: usize,
    replacements: usize,
    evictions: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    plan_seconds: f64,
    peak_rss_bytes: u64,
}

/// The document of a plan.
pub(super) fn plan(snapshot: &Snapshot, plan: &DisruptionPlan, explain: bool, time: Duration) -> Document {
    let totals = plan.totals;
    Document {
        api_version: API_VERSION,
        kind: "DisruptionPlan",
        commands: plan.commands.iter().map(|one| command(snapshot, one, explain)).collect(),
        blocked: plan.blocked.iter().map(blocked).collect(),
        totals: Totals {
            price_per_hour: totals.price.usd(),
            price_per_hour_after: totals.price_after.usd(),
            savings_per_hour: difference(totals.price, totals.price_after),
            nodes: totals.nodes,
            replacements: totals.replacements,
            evictions: totals.evictions,
        },
        stats: Stats { plan_seconds: time.as_secs_f64(), peak_rss_bytes: peak_rss().0 },
    }
}

/// In dollars per hour; negative where the second is more.
pub(super) fn difference(before: UsdPerHour, after: UsdPerHour) -> f64 {
    (before - after).usd() - (after - before).usd()
}

fn command(snapshot: &Snapshot, one: &Command, explain: bool) -> CommandDocument {
    let moves = one.moves.iter().map(|one| MoveDocument {
        pod: one.pod.to_string(),
        from: one.from.to_string(),
        to: one.to.to_string(),
    });
    CommandDocument {
        reason: one.reason.as_str(),
        detail: one.detail.clone(),
        nodes: one.nodes.iter().map(ToString::to_string).collect(),
        replacements: one.replacements.iter().map(|one| claim(snapshot, one, explain)).collect(),
        moves: moves.collect(),
        stranded: one.stranded.iter().map(ToString::to_string).collect(),
        price_per_hour: one.price.usd(),
        replacement_price_per_hour: one.replacement_price.usd(),
        savings_per_hour: difference(one.price, one.replacement_price),
        evictions: one.evictions(),
        payback: one.payback.map(payback),
        deadline: one.deadline.map(rfc3339),
    }
}

fn payback(paid: Payback) -> PaybackDocument {
    PaybackDocument {
        period_seconds: paid.period_seconds,
        worth: paid.worth.usd(),
        cost: paid.cost().usd(),
        evictions: paid.evictions.usd(),
        lost_time: paid.lost_time.usd(),
        start_up: paid.start_up.usd(),
    }
}

fn blocked(one: &Blocked) -> BlockedDocument {
    BlockedDocument {
        node: one.node.to_string(),
        reason: one.reason.as_str(),
        detail: one.detail.clone(),
        fix: one.fix.clone(),
    }
}

fn rfc3339(time: Timestamp) -> String {
    let millis = i64::try_from(time.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| time.to_string(), |time| time.to_string())
}
