//! Objects of one kind as the engine knows them, and which of them it has not heard of yet.

use std::collections::{BTreeMap, BTreeSet};

use assay_core::model::PodId;

/// Values by the name of their object; cluster-wide ones have an empty namespace.
#[derive(Debug)]
pub(super) struct Shelf<V> {
    values: BTreeMap<PodId, V>,
    changed: BTreeSet<PodId>,
    gone: BTreeSet<PodId>,
}

impl<V> Default for Shelf<V> {
    fn default() -> Self {
        Self { values: BTreeMap::new(), changed: BTreeSet::new(), gone: BTreeSet::new() }
    }
}

/// What became of an object.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News<'a, V> {
    /// It is gone; an object of the same name may follow.
    Gone(&'a PodId),
    /// It is new, or another than it was.
    Is(&'a PodId, &'a V),
}

impl<V: PartialEq> Shelf<V> {
    /// Puts a value in its place; whether it is another than before.
    pub(super) fn put(&mut self, id: PodId, value: V) -> bool {
        if self.values.get(&id) == Some(&value) {
            return false;
        }
        self.changed.insert(id.clone());
        self.values.insert(id, value);
        true
    }
}

impl<V> Shelf<V> {
    pub(super) fn get(&self, id: &PodId) -> Option<&V> {
        self.values.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&PodId, &V)> {
        self.values.iter()
    }

    /// Whether a value was there.
    pub(super) fn remove(&mut self, id: &PodId) -> bool {
        self.changed.remove(id);
        let there = self.values.remove(id).is_some();
        if there {
            self.gone.insert(id.clone());
        }
        there
    }

    /// Changes values in place; those that `change` says it changed are told of.
    pub(super) fn update(&mut self, mut change: impl FnMut(&PodId, &mut V) -> bool) {
        for (id, value) in &mut self.values {
            if change(id, value) {
                self.changed.insert(id.clone());
            }
        }
    }

    /// Everything is to be told of, as to one who knows nothing.
    pub(super) fn tell_all(&mut self) {
        self.changed.extend(self.values.keys().cloned());
        self.gone.clear();
    }

    /// Whether there is something to tell.
    pub(super) fn has_news(&self) -> bool {
        !self.gone.is_empty() || !self.changed.is_empty()
    }

    /// Tells what is new since the last time, in the order of names.
    pub(super) fn tell(&mut self, mut tell: impl FnMut(News<'_, V>)) {
        for id in std::mem::take(&mut self.gone) {
            tell(News::Gone(&id));
        }
        for id in std::mem::take(&mut self.changed) {
            if let Some(value) = self.values.get(&id) {
                tell(News::Is(&id, value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(name: &str) -> PodId {
        PodId::new("", name)
    }

    fn told(shelf: &mut Shelf<u8>) -> Vec<String> {
        let mut told = Vec::new();
        shelf.tell(|news| {
            told.push(match news {
                News::Gone(id) => format!("-{}", id.name),
                News::Is(id, value) => format!("{}={value}", id.name),
            });
        });
        told
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut shelf = Shelf::default();
        assert!(shelf.put(id("b"), 1));
        shelf.put(id("a"), 1);
        assert_eq!(told(&mut shelf), ["a=1", "b=1"]);
        assert!(!shelf.put(id("b"), 1), "nothing new");
        shelf.put(id("a"), 2);
        assert!(shelf.remove(&id("b")) && !shelf.remove(&id("b")));
        assert_eq!(told(&mut shelf), ["-b", "a=2"]);
        shelf.remove(&id("a"));
        shelf.put(id("a"), 3);
        assert_eq!(told(&mut shelf), ["-a", "a=3"], "another of the same name");
        shelf.tell_all();
        assert_eq!(told(&mut shelf), ["a=3"]);
        assert_eq!(told(&mut shelf), [""; 0]);
    }
}
