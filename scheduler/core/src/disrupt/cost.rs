//! What it costs to evict pods: Karpenter's order of candidates, and whether a move pays back.

use assay_shared::labels::karpenter;
use assay_shared::units::{Usd, UsdPerHour};

use super::candidate::Candidate;
use super::options::PaybackDefaults;
use super::plan::Payback;
use crate::model::{Pod, ResourceList};

/// How dear a pod's eviction is, 1 being ordinary: its deletion cost and priority count, between -10 and 10.
#[must_use]
pub fn eviction_cost(pod: &Pod) -> f64 {
    let annotated = pod.annotations.get(karpenter::POD_DELETION_COST);
    let deletion = annotated.and_then(|text| text.parse::<f64>().ok()).filter(|cost| cost.is_finite());
    let cost =
        1.0 + deletion.unwrap_or(0.0) / f64::from(1 << 27) + f64::from(pod.priority) / f64::from(1 << 25);
    cost.clamp(-10.0, 10.0)
}

/// What a candidate saves for each unit of disruption: the order in which candidates are looked at, largest first.
#[must_use]
pub fn savings_ratio(price: UsdPerHour, disruption: f64) -> f64 {
    price.usd() / (1.0 + disruption)
}

/// What a move of all pods of these candidates to replacements of this price is worth and costs. The longest period and the
/// dearest eviction of their pools count.
pub(super) fn payback(
    candidates: &[&Candidate<'_>],
    price: UsdPerHour,
    replacements: UsdPerHour,
    defaults: PaybackDefaults,
) -> Payback {
    let rules = || candidates.iter().map(|candidate| defaults.of(candidate.pool));
    let period = rules().map(|rule| rule.period).min().unwrap_or(defaults.period);
    let mut evictions = 0.0;
    let mut lost = 0.0;
    for candidate in candidates {
        let rule = defaults.of(candidate.pool);
        evictions += rule.eviction.usd() * candidate.disruption;
        let own = candidate.price.unwrap_or_default().over(rule.lost).usd();
        let allocatable = &candidate.node.allocatable;
        lost += candidate.movable.iter().map(|pod| own * share(&pod.spec.requests, allocatable)).sum::<f64>();
    }
    Payback {
        period_seconds: period.as_secs(),
        worth: (price - replacements).over(period),
        evictions: Usd::from_usd(evictions).unwrap_or(Usd(u64::MAX)),
        lost_time: Usd::from_usd(lost).unwrap_or_default(),
        start_up: replacements.over(defaults.start_up),
    }
}

/// The largest share of CPU or memory that a pod takes.
#[allow(clippy::cast_precision_loss)] // a share, for weighing only
fn share(requests: &ResourceList, allocatable: &ResourceList) -> f64 {
    let of = |need: u64, all: u64| if all == 0 { 0.0 } else { need as f64 / all as f64 };
    of(requests.cpu.0, allocatable.cpu.0).max(of(requests.memory.0, allocatable.memory.0)).min(1.0)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::solve::testing::{pod, spec};

    #[test]
    fn deletion_cost_and_priority_make_an_eviction_dearer_within_bounds() {
        let cases = [
            (None, 0, 1.0),
            (Some("134217728"), 0, 2.0),
            (Some("-134217728"), 0, 0.0),
            (Some("lots"), 0, 1.0),
            (Some("NaN"), 0, 1.0),
            (None, 33_554_432, 2.0),
            (None, i32::MAX, 10.0),
            (None, i32::MIN, -10.0),
            (Some("2147483647"), 0, 10.0),
        ];
        for (deletion, priority, cost) in cases {
            let mut pod = pod("p", &spec(100, 100));
            pod.priority = priority;
            if let Some(text) = deletion {
                let annotations = [(karpenter::POD_DELETION_COST.to_owned(), text.to_owned())];
                pod.annotations = Arc::new(annotations.into());
            }
            let found = eviction_cost(&pod);
            assert!((found - cost).abs() < 1e-6, "{deletion:?} {priority}: {found}");
        }
    }
}
