//! Pauses between connections: exponential with full jitter.
//!
//! A scheduler that restarts loses all of its agents in one instant. If each came back after a fixed time, or after a
//! jittered one that is never short, they would come in waves; drawn uniformly from zero to a growing bound, they spread.

use std::time::Duration;

use assay_shared::protocol::limits;
use rand::Rng;

/// Bounds of the pauses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reconnect {
    /// Bound of the first pause.
    pub first: Duration,
    /// Bound that is not exceeded.
    pub longest: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self { first: limits::RECONNECT_FIRST, longest: limits::RECONNECT_LONGEST }
    }
}

/// How a pause is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// From zero to a bound that doubles each time.
    Usual,
    /// From half of the longest bound to all of it: trying again soon cannot help.
    Long,
    /// From zero to this, at least the first and at most the longest bound: as the scheduler asked.
    Spread(Duration),
}

/// The pauses of one agent.
#[derive(Debug, Clone)]
pub(super) struct Pauses {
    bounds: Reconnect,
    attempts: u32,
}

impl Reconnect {
    pub(super) const fn pauses(self) -> Pauses {
        Pauses { bounds: self, attempts: 0 }
    }
}

impl Pauses {
    /// The scheduler took a report: the next trouble is a new one.
    pub(super) const fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next pause.
    pub(super) fn next(&mut self, patience: Patience) -> Duration {
        let Reconnect { first, longest } = self.bounds;
        let (least, bound) = match patience {
            Patience::Usual => {
                let bound = first.saturating_mul(1 << self.attempts.min(16)).min(longest);
                self.attempts = self.attempts.saturating_add(1);
                (Duration::ZERO, bound)
            }
            Patience::Long => (longest / 2, longest),
            Patience::Spread(spread) => (Duration::ZERO, spread.max(first).min(longest)),
        };
        rand::rng().random_range(least..=bound.max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_are_drawn_from_zero_to_a_bound_that_doubles() {
        let bounds = Reconnect::default();
        let longest_of = |attempts: u32| {
            let mut longest = Duration::ZERO;
            for _ in 0..200 {
                let mut pauses = Pauses { bounds, attempts };
                longest = longest.max(pauses.next(Patience::Usual));
            }
            longest
        };
        for (attempts, bound) in [(0, 1.0), (1, 2.0), (5, 32.0), (6, 60.0), (99, 60.0)] {
            let longest = longest_of(attempts).as_secs_f64();
            assert!(longest <= bound && longest > bound / 2.0, "attempt {attempts}: {longest}");
        }
    }

    #[test]
    fn an_agent_stays_away_as_long_as_it_should() {
        let mut pauses = Reconnect::default().pauses();
        for _ in 0..200 {
            let long = pauses.next(Patience::Long);
            assert!((30.0..=60.0).contains(&long.as_secs_f64()), "{long:?}");
            assert!(pauses.next(Patience::Spread(Duration::from_secs(5))) <= Duration::from_secs(5));
            assert!(pauses.next(Patience::Spread(Duration::MAX)) <= Duration::from_secs(60));
        }
        assert_eq!(pauses.attempts, 0, "neither counts as a failed attempt");
    }
}
