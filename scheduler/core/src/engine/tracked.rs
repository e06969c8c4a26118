//! Objects by name, and which of them may have changed since they were last looked at.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// A map that notes which entries were given out to be changed. Reading is as with any map.
#[derive(Debug)]
pub(super) struct Tracked<K, V> {
    entries: BTreeMap<K, V>,
    changed: BTreeSet<K>,
}

impl<K, V> Default for Tracked<K, V> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), changed: BTreeSet::new() }
    }
}

impl<K, V> Deref for Tracked<K, V> {
    type Target = BTreeMap<K, V>;

    fn deref(&self) -> &BTreeMap<K, V> {
        &self.entries
    }
}

impl<K: Ord + Clone, V> Tracked<K, V> {
    pub(super) fn insert(&mut self, key: K, value: V) -> Option<V> {
        self.changed.insert(key.clone());
        self.entries.insert(key, value)
    }

    pub(super) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let (key, value) = self.entries.remove_entry(key)?;
        self.changed.insert(key);
        Some(value)
    }

    /// An entry to be changed.
    pub(super) fn get_mut<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let (known, _) = self.entries.get_key_value(key)?;
        if !self.changed.contains(key) {
            self.changed.insert(known.clone());
        }
        self.entries.get_mut(key)
    }

    /// Has an entry looked at again although it did not change itself, or is gone.
    pub(super) fn mark(&mut self, key: &K) {
        self.changed.insert(key.clone());
    }

    /// Whether there is nothing to look at.
    pub(super) fn is_settled(&self) -> bool {
        self.changed.is_empty()
    }

    /// What may have changed since this was last asked.
    pub(super) fn take_changed(&mut self) -> BTreeSet<K> {
        std::mem::take(&mut self.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_out_to_be_changed_is_named_once() {
        let mut map: Tracked<&str, u32> = Tracked::default();
        map.insert("a", 1);
        map.insert("b", 2);
        assert_eq!(map.take_changed(), BTreeSet::from(["a", "b"]));
        assert_eq!((map.get("a"), map.len(), map.is_settled()), (Some(&1), 2, true));
        assert_eq!(map.get_mut("c"), None);
        assert!(map.is_settled(), "there is no such entry");
        for _ in 0..2 {
            *map.get_mut("b").unwrap() += 1;
        }
        map.remove("a");
        map.remove("a");
        assert_eq!(map.take_changed(), BTreeSet::from(["a", "b"]));
        assert_eq!(map.iter().collect::<Vec<_>>(), [(&"b", &4)]);
    }
}
