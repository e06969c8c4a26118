//! Karpenter's policy `Balanced`: the share of its pool's cost that a move saves against the share of its pods that it disrupts.

use std::collections::BTreeMap;

use assay_shared::units::UsdPerHour;

use super::candidate::{Candidate, Fleet};
use crate::model::ConsolidationPolicy;

/// A move must save at least half the share that it disrupts.
const K: f64 = 2.0;

/// Why the pools of these candidates that balance do not approve; each is asked for its own part of the saving.
pub(super) fn unbalanced(
    fleet: &Fleet<'_>,
    candidates: &[&Candidate<'_>],
    price: UsdPerHour,
    replacements: UsdPerHour,
) -> Option<String> {
    let balances = |candidate: &&&Candidate<'_>| {
        candidate.pool.disruption.consolidation_policy == ConsolidationPolicy::Balanced
    };
    let mut touched: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    for candidate in candidates.iter().filter(balances) {
        let (saved, disrupted) = touched.entry(&candidate.pool.name).or_default();
        let own = candidate.price.unwrap_or_default().usd();
        // Replacements are charged in proportion to what they replace.
        *saved += own - replacements.usd() * own / price.usd().max(f64::MIN_POSITIVE);
        *disrupted += candidate.disruption;
    }
    touched.into_iter().find_map(|(pool, (saved, disrupted))| {
        let own = fleet.candidates.iter().filter(|one| one.pool.name == pool);
        let (mut cost, mut disruption) = (0.0, 0.0);
        for one in own {
            cost += one.price.unwrap_or_default().usd();
            disruption += one.disruption;
        }
        let score = score(saved, cost, disrupted, disruption);
        (score < 1.0 / K).then(|| {
            format!("scores {score:.2} in NodePool {pool}, which asks for {:.2}: saves too little for what it disrupts", 1.0 / K)
        })
    })
}

fn score(saved: f64, cost: f64, disrupted: f64, disruption: f64) -> f64 {
    if saved <= 0.0 || cost <= 0.0 {
        return 0.0;
    }
    if disrupted <= 0.0 || disruption <= 0.0 {
        return f64::INFINITY;
    }
    (saved / cost) / (disrupted / disruption)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_scored_by_its_shares() {
        let cases = [
            // saved, cost of the pool, disrupted, disruption of the pool
            ((0.1, 1.0, 1.0, 10.0), 1.0),
            ((0.05, 1.0, 1.0, 10.0), 0.5),
            ((0.1, 1.0, 4.0, 10.0), 0.25),
            ((0.0, 1.0, 0.0, 10.0), 0.0),
            ((0.1, 1.0, 0.0, 10.0), f64::INFINITY),
        ];
        for ((saved, cost, disrupted, disruption), expected) in cases {
            let found = score(saved, cost, disrupted, disruption);
            let same = found.total_cmp(&expected).is_eq() || (found - expected).abs() < 1e-9;
            assert!(same, "{saved} of {cost} for {disrupted} of {disruption}: {found}");
        }
    }
}
