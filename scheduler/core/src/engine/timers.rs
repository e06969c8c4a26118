//! What is to be looked at again later, one moment for each.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::Timestamp;

/// Moments by key, to be asked for those that have come.
#[derive(Debug)]
pub(super) struct Timers<K> {
    by_time: BTreeSet<(Timestamp, K)>,
    of: BTreeMap<K, Timestamp>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), of: BTreeMap::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Sets the moment of `key`; an earlier one is forgotten. Whether it is another than before.
    pub(super) fn set(&mut self, key: &K, at: Timestamp) -> bool {
        let before = self.of.insert(key.clone(), at);
        if before == Some(at) {
            return false;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, key.clone()));
        }
        self.by_time.insert((at, key.clone()));
        true
    }

    /// Takes out those whose moment has come.
    pub(super) fn due(&mut self, now: Timestamp) -> Vec<K> {
        let mut due = Vec::new();
        while self.by_time.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.by_time.pop_first() {
                self.of.remove(&key);
                due.push(key);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_due_once_and_at_its_last_moment() {
        let mut timers = Timers::default();
        assert!(timers.set(&"a", Timestamp(1)) && timers.set(&"b", Timestamp(2)));
        assert!(timers.set(&"a", Timestamp(3)) && !timers.set(&"a", Timestamp(3)));
        assert_eq!(timers.due(Timestamp(1)), Vec::<&str>::new());
        assert_eq!(timers.due(Timestamp(3)), ["b", "a"]);
        assert_eq!(timers.due(Timestamp(9)), Vec::<&str>::new());
    }
}
