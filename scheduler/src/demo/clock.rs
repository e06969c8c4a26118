//! The wall clock, read as the world's time.

use std::time::Duration;

use assay_core::model::Timestamp;
use tokio::time::Instant;

/// A clock that runs at a multiple of the wall clock's speed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    speed: u32,
}

impl Clock {
    /// A clock that starts at zero now.
    pub(super) fn start(speed: u32) -> Self {
        Self { started: Instant::now(), speed: speed.max(1) }
    }

    /// The world's time.
    pub(super) fn now(self) -> Timestamp {
        Timestamp(0) + self.started.elapsed() * self.speed
    }

    /// When it will be `at` in the world.
    pub(super) fn instant(self, at: Timestamp) -> Instant {
        // Rounded up: a moment early would find nothing due.
        self.started + Duration::from_micros((at.0 * 1000).div_ceil(u64::from(self.speed)))
    }
}
