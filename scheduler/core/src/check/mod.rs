//! Whether a plan keeps the rules. It knows the rules and nothing of how plans are made: it reads model types only.

mod claims;
mod existing;
mod fits;
mod limits;
mod options;
#[cfg(test)]
mod tests;
mod together;
mod violation;
mod volumes;

use std::collections::{BTreeMap, BTreeSet};

use assay_shared::units::UsdPerHour;

pub use self::fits::{Misfit, pod_fits_node};
pub use self::violation::Violation;
use crate::model::{Plan, Pod, PodId, Snapshot};

/// Whether `plan` is a valid answer to `snapshot`.
///
/// # Errors
/// Every rule that is broken.
pub fn check(snapshot: &Snapshot, plan: &Plan) -> Result<(), Vec<Violation>> {
    let mut violations = Vec::new();
    let pods: BTreeMap<&PodId, &Pod> =
        snapshot.pods.iter().filter(|pod| pod.is_pending()).map(|pod| (&pod.id, pod)).collect();
    every_pod_once(&pods, plan, &mut violations);
    claims::check_claims(snapshot, &pods, plan, &mut violations);
    existing::check_existing(snapshot, &pods, plan, &mut violations);
    limits::check(snapshot, plan, &mut violations);
    options::check(snapshot, &pods, plan, &mut violations);
    volumes::check(snapshot, &pods, plan, &mut violations);
    together::check(snapshot, &pods, plan, &mut violations);
    check_totals(plan, &mut violations);
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

fn every_pod_once(pods: &BTreeMap<&PodId, &Pod>, plan: &Plan, violations: &mut Vec<Violation>) {
    let on_claims = plan.claims.iter().flat_map(|claim| &claim.pods);
    let on_existing = plan.existing.iter().flat_map(|assignment| &assignment.pods);
    let left_out = plan.unschedulable.iter().map(|left| &left.pod);
    let mut seen = BTreeSet::new();
    for id in on_claims.chain(on_existing).chain(left_out) {
        if !pods.contains_key(id) {
            violations.push(Violation::UnknownPod(id.clone()));
        } else if !seen.insert(id) {
            violations.push(Violation::PodTwice(id.clone()));
        }
    }
    violations.extend(
        pods.keys().filter(|id| !seen.contains(**id)).map(|id| Violation::PodForgotten((*id).clone())),
    );
    let silent = plan.unschedulable.iter().filter(|left| left.reasons.is_empty());
    violations.extend(silent.map(|left| Violation::NoReason(left.pod.clone())));
}

fn check_totals(plan: &Plan, violations: &mut Vec<Violation>) {
    let totals = &plan.totals;
    let price: UsdPerHour = plan.claims.iter().map(|claim| claim.price).sum();
    let on_claims: usize = plan.claims.iter().map(|claim| claim.pods.len()).sum();
    let on_existing: usize = plan.existing.iter().map(|assignment| assignment.pods.len()).sum();
    if totals.price != price || totals.nodes != plan.claims.len() || totals.pods != on_claims + on_existing {
        violations.push(Violation::Totals { stated: *totals });
    }
    if totals.lower_bound > price {
        violations.push(Violation::LowerBound { bound: totals.lower_bound, price });
    }
}
