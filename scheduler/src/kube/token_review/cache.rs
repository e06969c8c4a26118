//! Verdicts of the API server, for a minute.
//!
//! Kept by the SHA-256 of the token: whoever reads this memory finds no token in it. Bounded: since all are kept for the same
//! time, the oldest is the next to go in any case.

use std::collections::{HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::judge::Vouched;
use crate::fleet::AuthError;

/// SHA-256 of a token.
pub(super) type Key = [u8; 32];

/// What the API server said.
pub(super) type Verdict = Result<Arc<Vouched>, AuthError>;

#[derive(Debug)]
pub(super) struct VerdictCache {
    capacity: NonZeroUsize,
    life: Duration,
    verdicts: HashMap<Key, (Verdict, Instant)>,
    /// The same keys, oldest first; one that was given anew is in it twice.
    by_age: VecDeque<(Key, Instant)>,
}

impl VerdictCache {
    pub(super) fn new(capacity: NonZeroUsize, life: Duration) -> Self {
        Self { capacity, life, verdicts: HashMap::new(), by_age: VecDeque::new() }
    }

    /// A verdict that is young enough.
    pub(super) fn get(&self, key: &Key, now: Instant) -> Option<Verdict> {
        let (verdict, given) = self.verdicts.get(key)?;
        (now.saturating_duration_since(*given) < self.life).then(|| verdict.clone())
    }

    /// Keeps a verdict, and drops those that are too old or too many.
    pub(super) fn insert(&mut self, key: Key, verdict: Verdict, now: Instant) {
        self.verdicts.insert(key, (verdict, now));
        self.by_age.push_back((key, now));
        while let Some((oldest, given)) = self.by_age.front().copied() {
            let old = now.saturating_duration_since(given) >= self.life;
            if !old && self.by_age.len() <= self.capacity.get() {
                break;
            }
            self.by_age.pop_front();
            if self.verdicts.get(&oldest).is_some_and(|(_, last)| *last == given) {
                self.verdicts.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use assay_shared::protocol::RefusalReason;

    use super::*;

    fn verdict(detail: &str) -> Verdict {
        Err(AuthError::new(RefusalReason::TokenInvalid, detail))
    }

    #[test]
    fn a_verdict_is_used_for_its_life_and_no_longer() {
        let mut cache = VerdictCache::new(NonZeroUsize::MIN.saturating_add(9), Duration::from_secs(60));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        cache.insert([1; 32], verdict("first"), at(0));
        assert_eq!(cache.get(&[1; 32], at(59)), Some(verdict("first")));
        assert_eq!(cache.get(&[1; 32], at(60)), None);
        assert_eq!(cache.get(&[2; 32], at(0)), None);
        cache.insert([1; 32], verdict("second"), at(30));
        cache.insert([2; 32], verdict("other"), at(61));
        assert_eq!(cache.get(&[1; 32], at(89)), Some(verdict("second")), "given anew");
        cache.insert([3; 32], verdict("other"), at(200));
        assert_eq!((cache.verdicts.len(), cache.by_age.len()), (1, 1), "what is too old takes no room");
    }

    #[test]
    fn there_are_never_more_than_there_may_be() {
        let capacity = NonZeroUsize::MIN.saturating_add(3);
        let mut cache = VerdictCache::new(capacity, Duration::from_secs(60));
        let now = Instant::now();
        for number in 0..100 {
            cache.insert([number; 32], verdict("x"), now);
            // The same again takes no more room than another.
            cache.insert([number; 32], verdict("x"), now);
            assert!(cache.by_age.len() <= capacity.get() && cache.verdicts.len() <= capacity.get());
        }
        assert!(cache.get(&[99; 32], now).is_some(), "the youngest is kept");
        assert!(cache.get(&[1; 32], now).is_none());
    }
}
