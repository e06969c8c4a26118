//! Leader election: which of several schedulers decides and writes.
//!
//! ```text
//!  Lease object --read--> Elector (pure: what to do now) --create, update--> Lease object
//!                            |
//!                            +--Leadership (watch channel)--> driver: decide or follow; writer: may this be sent
//! ```
//!
//! Two things keep it safe. Every write names the `resourceVersion` it was decided on, so that of two candidates the API
//! server takes one. And no clock but the own monotonic one is trusted: a lease has run out once its record has not changed
//! for its whole duration *as seen here*, and a leader stops by itself once it has not managed to renew for
//! [`Timing::renew_deadline`], counted from before the request was sent. The times that stand in the record are for people.
//!
//! | file | what |
//! |---|---|
//! | `elector` | the pure state machine |
//! | `campaign` | its I/O: the Lease object, the retries, the end |

mod campaign;
mod elector;

pub use campaign::{Campaign, campaign};
pub use elector::{Action, Elector, Record, Timing};

use tokio::time::Instant;

/// What a scheduler is at present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// Another one decides, or nobody does.
    Follower {
        /// Who holds the lease, as far as is known.
        leader: Option<String>,
    },
    /// This one decides.
    Leader {
        /// Number of the term: it grows with every change of leader.
        epoch: u64,
        /// It may write until then, unless it renews before.
        until: Instant,
    },
}

impl Leadership {
    /// Number of the term, where this one may still write at `now`.
    #[must_use]
    pub fn term(&self, now: Instant) -> Option<u64> {
        match self {
            Self::Leader { epoch, until } if now < *until => Some(*epoch),
            Self::Leader { .. } | Self::Follower { .. } => None,
        }
    }
}
