//! What a caller may choose about a disruption plan.

use std::time::Duration;

use assay_shared::units::Usd;

use crate::model::{NodePool, PaybackRule};
use crate::solve::SolveOptions;

/// How `disrupt` decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisruptOptions {
    /// How replacements are chosen.
    pub solve: SolveOptions,
    /// Pods that are evicted to save money, at most; `None` is as many as pay.
    pub max_moves: Option<usize>,
    /// Whether a spot machine may be replaced by a cheaper one (`SpotToSpotConsolidation`).
    pub spot_to_spot: bool,
    /// What a move must be worth, where a pool says nothing of its own.
    pub payback: PaybackDefaults,
    /// Work spent on looking at nodes together, in elementary steps: about a nanosecond each. Each node by itself is looked at in
    /// any case. The same input gives the same plan.
    pub steps: u64,
    /// Whether every node that stays is listed with its reason.
    pub explain: bool,
}

impl Default for DisruptOptions {
    fn default() -> Self {
        Self {
            solve: SolveOptions::default(),
            max_moves: None,
            spot_to_spot: true,
            payback: PaybackDefaults::default(),
            steps: 60_000_000,
            explain: false,
        }
    }
}

/// What a move must be worth: its saving over `period` must be more than what it costs once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaybackDefaults {
    /// How long what is bought now can be expected to stay as it is; a node younger than this is left alone. Zero: any saving
    /// will do, as with Karpenter.
    pub period: Duration,
    /// What evicting one ordinary pod costs; dearer ones in proportion to their eviction cost.
    pub eviction: Usd,
    /// How long a replacement is paid for before pods can move to it.
    pub start_up: Duration,
    /// How long a pod that moves is away.
    pub lost: Duration,
}

impl Default for PaybackDefaults {
    fn default() -> Self {
        Self {
            period: Duration::from_secs(3600),
            // A tenth of a cent: thirty pods an hour are worth a seventh of a D4s v5.
            eviction: Usd(1_000_000),
            start_up: Duration::from_secs(180),
            lost: Duration::from_secs(30),
        }
    }
}

impl PaybackDefaults {
    /// Any saving will do.
    #[must_use]
    pub fn off() -> Self {
        Self { period: Duration::ZERO, ..Self::default() }
    }

    /// With what a pool says of its own.
    #[must_use]
    pub fn of(self, pool: &NodePool) -> Self {
        let PaybackRule { period, eviction } = pool.disruption.payback;
        Self { period: period.unwrap_or(self.period), eviction: eviction.unwrap_or(self.eviction), ..self }
    }
}
