//! Metrics of our own that are counted as things happen.

use prometheus_client::registry::Registry;

use super::family::{Counters, Gauges, Histograms};

#[derive(Debug)]
pub(super) struct Own {
    pub(super) leading: Gauges<0>,
    pub(super) purchase_ratio: Histograms<1>,
    pub(super) claim_steps: Histograms<2>,
    pub(super) effects_failed: Counters<1>,
    pub(super) objects_unreadable: Counters<1>,
}

impl Own {
    pub(super) fn register(r: &mut Registry) -> Self {
        Self {
            leading: Gauges::register(r, "assay_leader", "Whether this replica leads: 1 or 0", []),
            purchase_ratio: Histograms::ratios(
                r,
                "assay_purchase_price_ratio",
                "Price of what was bought over the cheapest that would have done, at each purchase",
                ["nodepool"],
            ),
            claim_steps: Histograms::durations(
                r,
                "assay_nodeclaims_step_duration_seconds",
                "From the creation of a NodeClaim until it has come this far",
                ["nodepool", "step"],
            ),
            effects_failed: Counters::register(
                r,
                "assay_effects_failed",
                "Decisions that could not be carried out, by kind",
                ["effect"],
            ),
            objects_unreadable: Counters::register(
                r,
                "assay_objects_unreadable",
                "Objects that were put aside since they cannot be understood, by kind",
                ["kind"],
            ),
        }
    }
}
