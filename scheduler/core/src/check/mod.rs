//! Whether a plan keeps the rules. It knows the rules and nothing of how plans are made: it reads model types only.

mod claims;
mod disruption;
mod domains;
mod existing;
mod fits;
mod fleet;
mod flocks;
mod ledger;
mod limits;
mod numa;
mod options;
#[cfg(test)]
mod tests;
mod together;
mod violation;
mod volumes;

use std::collections::BTreeSet;

use assay_shared::units::UsdPerHour;

pub use self::disruption::check_disruption;
pub use self::fits::{Misfit, pod_fits_node};
pub use self::ledger::Ledger;
pub use self::violation::Violation;
use crate::model::{Plan, Snapshot};

/// Whether `plan` is a valid answer to `snapshot`.
///
/// # Errors
/// Every rule that is broken.
pub fn check(snapshot: &Snapshot, plan: &Plan) -> Result<(), Vec<Violation>> {
    Ledger::of(snapshot).check(plan)
}

impl Ledger {
    /// Whether `plan` is a valid answer to what is known: it speaks of every pod that waits, and breaks no rule.
    ///
    /// # Errors
    /// Every rule that is broken.
    pub fn check(&mut self, plan: &Plan) -> Result<(), Vec<Violation>> {
        let mut violations = Vec::new();
        every_pod_once(self, plan, &mut violations);
        claims::check_claims(self, plan, &mut violations);
        existing::check_existing(self, plan, &mut violations);
        limits::check(self, plan, &mut violations);
        options::check(self, plan, &mut violations);
        numa::check(self, plan, &mut violations);
        volumes::check(self, plan, &mut violations);
        together::prepare(self, plan);
        together::check(self, plan, &mut violations);
        check_totals(plan, &mut violations);
        if violations.is_empty() { Ok(()) } else { Err(violations) }
    }
}

fn every_pod_once(ledger: &Ledger, plan: &Plan, violations: &mut Vec<Violation>) {
    let on_claims = plan.claims.iter().flat_map(|claim| &claim.pods);
    let on_existing = plan.existing.iter().flat_map(|assignment| &assignment.pods);
    let left_out = plan.unschedulable.iter().map(|left| &left.pod);
    let mut seen = BTreeSet::new();
    for id in on_claims.chain(on_existing).chain(left_out) {
        if !ledger.all_waiting().contains(id) {
            violations.push(Violation::UnknownPod(id.clone()));
        } else if !seen.insert(id) {
            violations.push(Violation::PodTwice(id.clone()));
        }
    }
    let forgotten = ledger.all_waiting().iter().filter(|id| !seen.contains(id));
    violations.extend(forgotten.map(|id| Violation::PodForgotten(id.clone())));
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
