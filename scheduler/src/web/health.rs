//! Whether the process lives, and whether it is ready for what others expect of it.
//!
//! It lives as long as its loop turns: one that is stuck is started anew by the kubelet. It is ready once its caches are filled
//! and agents can connect, whether it leads or not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A loop that has not turned for this long is stuck. The longest solve that is planned for takes seconds.
pub const STUCK_AFTER: Duration = Duration::from_secs(120);

/// Something that must hold before others can count on this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Everything that the API server has was listed once.
    CachesSynced,
    /// Agents can connect.
    FleetListens,
}

impl Condition {
    const ALL: [Self; 2] = [Self::CachesSynced, Self::FleetListens];

    const fn unmet(self) -> &'static str {
        match self {
            Self::CachesSynced => "caches are not synced",
            Self::FleetListens => "the fleet server does not listen",
        }
    }
}

/// What is known of the process. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Health(Arc<State>);

#[derive(Debug)]
struct State {
    conditions: [AtomicBool; Condition::ALL.len()],
    started: Instant,
    /// Milliseconds after the start, and one; 0 before the loop has turned once.
    turned: AtomicU64,
}

impl Default for Health {
    fn default() -> Self {
        let conditions = Default::default();
        Self(Arc::new(State { conditions, started: Instant::now(), turned: AtomicU64::new(0) }))
    }
}

impl Health {
    /// Whether a condition holds from now on.
    pub fn set(&self, condition: Condition, holds: bool) {
        self.0.conditions[condition as usize].store(holds, Relaxed);
    }

    /// The loop has turned.
    pub fn turned(&self) {
        self.turned_at(Instant::now());
    }

    fn turned_at(&self, now: Instant) {
        let millis = now.saturating_duration_since(self.0.started).as_millis();
        self.0.turned.store(u64::try_from(millis).unwrap_or(u64::MAX - 1) + 1, Relaxed);
    }

    /// What speaks against its life. A loop that has not begun to turn is not stuck: it may wait for an API server.
    pub(super) fn illness(&self, now: Instant) -> Option<String> {
        let turned = self.0.turned.load(Relaxed).checked_sub(1)?;
        let still = now.saturating_duration_since(self.0.started + Duration::from_millis(turned));
        (still > STUCK_AFTER).then(|| format!("the loop has not turned for {} s", still.as_secs()))
    }

    /// What it is not ready for, one line each.
    pub(super) fn unmet(&self) -> Vec<&'static str> {
        let unmet = Condition::ALL.into_iter().filter(|one| !self.0.conditions[*one as usize].load(Relaxed));
        unmet.map(Condition::unmet).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_once_everything_is_and_says_what_is_not() {
        let health = Health::default();
        assert_eq!(health.unmet().len(), 2);
        health.set(Condition::FleetListens, true);
        assert_eq!(health.unmet(), ["caches are not synced"]);
        health.set(Condition::CachesSynced, true);
        assert!(health.clone().unmet().is_empty());
        health.set(Condition::FleetListens, false);
        assert_eq!(health.unmet(), ["the fleet server does not listen"]);
    }

    #[test]
    fn a_loop_that_turned_once_must_go_on() {
        let health = Health::default();
        let at = |seconds| health.0.started + Duration::from_secs(seconds);
        assert_eq!(health.illness(at(100_000)), None, "it waits for something else");
        health.turned_at(at(10));
        assert_eq!(health.illness(at(10)), None);
        assert_eq!(health.illness(at(130)), None);
        assert_eq!(health.illness(at(131)), Some("the loop has not turned for 121 s".to_owned()));
        health.turned_at(at(131));
        assert_eq!(health.illness(at(131)), None);
    }
}
