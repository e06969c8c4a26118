//! What the fleet server counts, and the log of what it refuses or only notes.
//!
//! Every refusal is counted, and in audit mode everything that would be one. Of each reason one a second is logged, with the
//! number of those left out: a flood fills a counter and not a disk.

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
    tolerated: [u64; REASONS],
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

    /// Agents let in without proof, for this reason.
    #[must_use]
    pub const fn tolerated(&self, reason: RefusalReason) -> u64 {
        self.tolerated[reason as usize]
    }

    /// All agents let in without proof, by reason.
    pub fn tolerations(&self) -> impl Iterator<Item = (RefusalReason, u64)> {
        RefusalReason::ALL.into_iter().zip(self.tolerated)
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
    refused: [Logged; REASONS],
    tolerated: [Logged; REASONS],
    started: Instant,
}

/// A counter whose changes are logged, now and then.
#[derive(Debug, Default)]
struct Logged {
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
            tolerated: Default::default(),
            started: Instant::now(),
        }
    }

    /// Adds one.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Relaxed);
    }

    /// Counts a refusal, and logs it unless one like it was logged just now.
    pub(super) fn refuse(&self, reason: RefusalReason, peer: Peer<'_>, detail: &dyn fmt::Display) {
        if let Some(left_out) = self.refused[reason as usize].count(self.started.elapsed()) {
            let node = peer.shown_node();
            warn!(reason = reason.as_str(), peer = %peer.address, node, left_out, "refused: {detail}");
        }
    }

    /// Counts somebody who is let in without proof, and logs it in the same way.
    pub(super) fn tolerate(&self, reason: RefusalReason, peer: Peer<'_>, detail: &dyn fmt::Display) {
        if let Some(left_out) = self.tolerated[reason as usize].count(self.started.elapsed()) {
            let node = peer.shown_node();
            warn!(reason = reason.as_str(), peer = %peer.address, node, left_out, "let in, for this is an audit: {detail}");
        }
    }

    pub(super) fn snapshot(&self, connected: usize) -> FleetCounters {
        let counts = |logged: &[Logged; REASONS]| logged.each_ref().map(|one| one.count.load(Relaxed));
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
            refused: counts(&self.refused),
            tolerated: counts(&self.tolerated),
        }
    }
}

impl Peer<'_> {
    /// The name, safe in a log.
    fn shown_node(&self) -> String {
        self.node.unwrap_or("-").escape_debug().to_string()
    }
}

impl Logged {
    /// Adds one. `Some` where it is to be logged, with the number of those that were not since the last.
    fn count(&self, now: Duration) -> Option<u64> {
        let count = self.count.fetch_add(1, Relaxed) + 1;
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let log_after = self.log_after.load(Relaxed);
        let next = millis(now + LOG_EVERY);
        let free = millis(now) >= log_after
            && self.log_after.compare_exchange(log_after, next, Relaxed, Relaxed).is_ok();
        free.then(|| count.saturating_sub(self.logged_count.swap(count, Relaxed) + 1))
    }
}
