//! How machines of a size have been arriving in a zone: a score that each bad arrival raises and time lowers.

use std::time::Duration;

use crate::model::Timestamp;

/// The score halves in this time.
const HALF_LIFE: Duration = Duration::from_secs(3600);
/// What one bad arrival adds.
const BAD: u64 = 1000;
/// From here on the offering is not bought: the third bad machine within minutes is the last draw.
const AVOIDED: u64 = 2500;
/// The score grows no higher, so that no offering is avoided for longer than one half-life.
const WORST: u64 = 5000;

/// The score of one offering, in thousandths of a bad arrival.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Health {
    score: u64,
    at: Timestamp,
}

impl Health {
    pub(super) fn arrived_bad(&mut self, now: Timestamp) {
        self.score = (self.score_at(now) + BAD).min(WORST);
        self.at = now;
    }

    /// Halved for each half-life, and straight lines between: whole numbers, the same on every machine.
    fn score_at(&self, now: Timestamp) -> u64 {
        let half_life = HALF_LIFE.as_secs() * 1000;
        let age = now.0.saturating_sub(self.at.0);
        let halved = self.score.checked_shr(u32::try_from(age / half_life).unwrap_or(u32::MAX)).unwrap_or(0);
        halved - halved * (age % half_life) / (2 * half_life)
    }

    /// When the score falls below what is avoided.
    pub(super) fn avoided_until(&self) -> Timestamp {
        let over = self.score.saturating_sub(AVOIDED);
        // score * (1 - t / (2 * half-life)) = AVOIDED; the score is at most twice AVOIDED, so t is within one half-life.
        let millis = (2 * HALF_LIFE.as_secs() * 1000 * over).checked_div(self.score).unwrap_or(0);
        self.at + Duration::from_millis(millis)
    }
}
