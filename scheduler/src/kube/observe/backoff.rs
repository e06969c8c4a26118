//! How long to wait before the next attempt. No clock: the answer is a duration.

use std::time::Duration;

use rand::Rng;

/// Waits that double, each shortened by chance, so that many who failed at once do not come back at once.
#[derive(Debug, Clone)]
pub(super) struct Backoff {
    least: Duration,
    most: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) const fn new(least: Duration, most: Duration) -> Self {
        Self { least, most, failures: 0 }
    }

    /// It worked.
    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed; how long to wait. Never shorter than what the server asked for.
    pub(super) fn next(&mut self, asked: Option<Duration>, random: &mut impl Rng) -> Duration {
        let doubled = self.least.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let wait = doubled.min(self.most).mul_f64(random.random_range(0.5..1.0));
        // Those that were asked to wait as long as this one are spread out, too.
        asked.map_or(wait, |asked| asked + wait.mul_f64(random.random_range(0.0..1.0)))
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_pcg::Pcg64Mcg;

    use super::*;

    #[test]
    fn waits_double_up_to_the_most_and_start_again() {
        let mut random = Pcg64Mcg::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for most in [100, 200, 400, 800, 1_000, 1_000] {
            let wait = backoff.next(None, &mut random).as_millis();
            assert!((most / 2..=most).contains(&wait), "{wait} ms of {most} ms");
        }
        let wait = backoff.next(Some(Duration::from_secs(7)), &mut random);
        assert!((7.0..8.0).contains(&wait.as_secs_f64()), "{wait:?}");
        backoff.reset();
        assert!(backoff.next(None, &mut random) <= Duration::from_millis(100));
        backoff.failures = u32::MAX;
        assert!(backoff.next(None, &mut random) <= Duration::from_secs(1));
    }
}
