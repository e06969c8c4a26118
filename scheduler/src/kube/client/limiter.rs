//! How many calls a second: the generic cell rate algorithm, which is a token bucket that needs one number.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Limiter {
    /// Time that one call takes up on average.
    interval: Duration,
    /// How far calls may run ahead of that.
    ahead: Duration,
    /// When all calls so far are paid for.
    paid: Mutex<Option<Instant>>,
}

impl Limiter {
    pub(super) fn new(per_second: u32, burst: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, ahead: interval * burst.saturating_sub(1), paid: Mutex::default() }
    }

    /// Takes the next place; how long to wait for it. Places are given in the order they are asked for.
    pub(super) fn reserve(&self, now: Instant) -> Duration {
        let mut paid = self.paid.lock().unwrap_or_else(PoisonError::into_inner);
        let at = paid.map_or(now, |paid| paid.max(now));
        *paid = Some(at + self.interval);
        (at - now).saturating_sub(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_rate() {
        let limiter = Limiter::new(10, 3);
        let start = Instant::now();
        let millis = |after: u64| limiter.reserve(start + Duration::from_millis(after)).as_millis();
        assert_eq!([millis(0), millis(0), millis(0)], [0, 0, 0]);
        assert_eq!([millis(0), millis(0)], [100, 200], "each waits for its own place");
        assert_eq!(millis(250), 50, "two places are taken, and one has come free");
        assert_eq!(
            [millis(10_000), millis(10_000), millis(10_000)],
            [0, 0, 0],
            "what was not used adds up to a burst"
        );
        assert_eq!(millis(10_000), 100, "and to no more");
    }
}
