//! What the fleet server counts, and the log of what it refuses.
//!
//! Every refusal is counted. Of each reason one a second is logged, with the number of those left out: a flood fills a
//! counter and not a disk.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use assay_shared::protocol::RefusalReason;
use tracing::warn;

/// Shortest time between two log lines of one reason.
const LOG_EVERY: Duration = Duration::from_secs(1);

const REASONS: usize = RefusalReason::ALL.len();

/// A reading of the counters. All but `connected` only grow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FleetCounters {
    /// Agents connected now.
    pub connected: u64,
    /// Agents that were welcomed.
    pub welcomed: u64,
    /// Connections that a newer one of the same node replaced.
    pub replaced: u64,
    /// Full reports taken.
    pub full_reports: u64,
    /// Deltas taken.
    pub deltas: u64,
    /// Notices taken.
    pub notices: u64,
    /// Times an agent was asked for a full report, because its delta did not fit.
    pub resyncs: u64,
    /// Bytes of messages read.
    pub bytes: u64,
    /// Times an address had to be proved with a Retry.
    pub retries: u64,
    refused: [u64; REASONS],
}

impl FleetCounters {
    /// Refusals for this reason.
    #[must_use]
    pub const fn refused(&self, reason: RefusalReason) -> u64 {
        self.refused[reason as usize]
    }

    /// All refusals, by reason.
    pub fn refusals(&self) -> impl Iterator<Item = (RefusalReason, u64)> {
        RefusalReason::ALL.into_iter().zip(self.refused)
    }

    /// Reports taken, full or delta.
    #[must_use]
    pub const fn reports(&self) -> u64 {
        self.full_reports + self.deltas
    }
}

/// The counters themselves.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) welcomed: AtomicU64,
    pub(super) replaced: AtomicU64,
    pub(super) full_reports: AtomicU64,
    pub(super) deltas: AtomicU64,
    pub(super) notices: AtomicU64,
    pub(super) resyncs: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) retries: AtomicU64,
    refused: [Refused; REASONS],
    started: Instant,
}

#[derive(Debug, Default)]
struct Refused {
    count: AtomicU64,
    /// Count when the last line was logged.
    logged_count: AtomicU64,
    /// Earliest time of the next line, milliseconds after the start.
    log_after: AtomicU64,
}

/// Whom a refusal is about, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer<'a> {
    pub(super) address: SocketAddr,
    /// The name it gave itself; not to be trusted.
    pub(super) node: Option<&'a str>,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            welcomed: AtomicU64::default(),
            replaced: AtomicU64::default(),
            full_reports: AtomicU64::default(),
            deltas: AtomicU64::default(),
            notices: AtomicU64::default(),
            resyncs: AtomicU64::default(),
            bytes: AtomicU64::default(),
            retries: AtomicU64::default(),
            refused: Default::default(),
            started: Instant::now(),
        }
    }

    /// Adds one.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Counts a refusal, and logs it unless one like it was logged just now.
    pub(super) fn refuse(&self, reason: RefusalReason, peer: Peer<'_>, detail: &dyn fmt::Display) {
        let refused = &self.refused[reason as usize];
        let count = refused.count.fetch_add(1, Relaxed) + 1;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = self.started.elapsed();
        let log_after = refused.log_after.load(Relaxed);
        let next = millis(now + LOG_EVERY);
        if millis(now) < log_after
            || refused.log_after.compare_exchange(log_after, next, Relaxed, Relaxed).is_err()
        {
            return;
        }
        let left_out = count.saturating_sub(refused.logged_count.swap(count, Relaxed) + 1);
        warn!(
            reason = reason.as_str(),
            peer = %peer.address,
            node = peer.node.unwrap_or("-").escape_debug().to_string(),
            left_out,
            "refused: {detail}"
        );
    }

    pub(super) fn snapshot(&self, connected: usize) -> FleetCounters {
        let mut refused = [0; REASONS];
        for (count, refused) in refused.iter_mut().zip(&self.refused) {
            *count = refused.count.load(Relaxed);
        }
        FleetCounters {
            connected: connected as u64,
            welcomed: self.welcomed.load(Relaxed),
            replaced: self.replaced.load(Relaxed),
            full_reports: self.full_reports.load(Relaxed),
            deltas: self.deltas.load(Relaxed),
            notices: self.notices.load(Relaxed),
            resyncs: self.resyncs.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            retries: self.retries.load(Relaxed),
            refused,
        }
    }
}
