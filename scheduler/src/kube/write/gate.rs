//! The gate before every write: only a leader writes, and only what was decided in its present term.

use std::sync::Arc;

use tokio::sync::{RwLock, watch};
use tokio::time::{Instant, sleep};

use super::retry::{Pauses, Verdict, verdict};
use crate::kube::lease::Leadership;

/// Says whether this scheduler may write.
#[derive(Debug, Clone)]
pub struct Gate {
    leadership: watch::Receiver<Leadership>,
    /// Held by every call on its way, by all who have this gate.
    calls: Arc<RwLock<()>>,
}

/// Why a write did not happen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failed {
    /// Not the leader any more: whoever is decides anew.
    NotLeading,
    /// The object is not there.
    Gone,
    /// It changed in between.
    Conflict,
    /// A create of what is there already.
    Exists,
    /// The API server will not have it.
    Refused(String),
}

impl Gate {
    /// A gate that opens with leadership.
    #[must_use]
    pub fn new(leadership: watch::Receiver<Leadership>) -> Self {
        Self { leadership, calls: Arc::default() }
    }

    /// Waits until every call that is on its way was answered. What was let through in an earlier term is done by then, or never.
    pub async fn quiet(&self) {
        drop(self.calls.write().await);
    }

    /// Whether what was decided in `term` may be written now.
    #[must_use]
    pub fn admits(&self, term: u64) -> bool {
        self.leadership.borrow().term(Instant::now()) == Some(term)
    }

    /// Makes a call that names the version it was decided on, until it succeeds or fails for good, as long as the term lasts.
    pub(super) async fn call<T, F>(&self, term: u64, attempt: impl FnMut() -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        self.repeat(term, false, attempt).await
    }

    /// The same for a call that names no version: a conflict means no more than that the API server was busy with the object.
    pub(super) async fn insist<T, F>(&self, term: u64, attempt: impl FnMut() -> F) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        self.repeat(term, true, attempt).await
    }

    async fn repeat<T, F>(
        &self,
        term: u64,
        conflicts_pass: bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Failed>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let mut pauses = Pauses::new();
        loop {
            let on_its_way = self.calls.read().await;
            if !self.admits(term) {
                return Err(Failed::NotLeading);
            }
            let answer = attempt().await;
            drop(on_its_way);
            let error = match answer {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let asked = match verdict(&error) {
                Verdict::Transient(asked) => asked,
                Verdict::Conflict if conflicts_pass => None,
                Verdict::Conflict => return Err(Failed::Conflict),
                Verdict::Exists => return Err(Failed::Exists),
                Verdict::Gone => return Err(Failed::Gone),
                Verdict::Refused(why) => return Err(Failed::Refused(why)),
            };
            tracing::debug!(%error, "API call fails, tried again");
            let drawn = rand::random::<f64>();
            sleep(pauses.next(asked, drawn)).await;
        }
    }
}
