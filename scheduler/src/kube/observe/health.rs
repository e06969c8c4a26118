//! How the streams are doing, for metrics and for people who ask why nothing is decided.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::kind::Kind;

/// How one stream is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamHealth {
    /// Whether it hears of changes now.
    pub is_connected: bool,
    /// Lists that were read to their end.
    pub lists: u64,
    /// Times that a list or watch failed.
    pub failures: u64,
    /// Why it failed last.
    pub last_failure: Option<String>,
}

/// What all streams write to.
#[derive(Debug, Clone, Default)]
pub(super) struct Health(Arc<Mutex<BTreeMap<Kind, StreamHealth>>>);

impl Health {
    pub(super) fn of_all(&self) -> BTreeMap<Kind, StreamHealth> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn listed(&self, kind: Kind) {
        self.change(kind, |health| health.lists += 1);
    }

    pub(super) fn connected(&self, kind: Kind) {
        self.change(kind, |health| health.is_connected = true);
    }

    pub(super) fn failed(&self, kind: Kind, why: String) {
        self.change(kind, |health| {
            health.is_connected = false;
            health.failures += 1;
            health.last_failure = Some(why);
        });
    }

    fn change(&self, kind: Kind, change: impl FnOnce(&mut StreamHealth)) {
        change(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(kind).or_default());
    }
}
