//! Equal things kept once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Things that many objects share. What nobody uses any more is let go in time.
#[derive(Debug)]
pub(super) struct Interner<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// How many there may be before the unused ones are looked for.
    sweep_at: usize,
}

/// Below this nobody looks for unused ones.
const SWEEP_AT_LEAST: usize = 1_024;

impl<T: ?Sized + Eq + Hash> Default for Interner<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: SWEEP_AT_LEAST }
    }
}

impl<T: ?Sized + Eq + Hash> Interner<T> {
    /// The one that is equal to this, which may be this.
    pub(super) fn intern<V>(&mut self, value: V) -> Arc<T>
    where
        V: AsRef<T> + Into<Arc<T>>,
    {
        if let Some(known) = self.known.get(value.as_ref()) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|one| Arc::strong_count(one) > 1);
            // Each one that is added pays for looking at one or two.
            self.sweep_at = SWEEP_AT_LEAST.max(self.known.len() * 2);
        }
        let value: Arc<T> = value.into();
        self.known.insert(Arc::clone(&value));
        value
    }

    /// How many are known.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_things_are_one_and_unused_ones_go() {
        let mut names = Interner::<str>::default();
        let (a, b) = (names.intern("a"), names.intern("a".to_owned()));
        assert!(Arc::ptr_eq(&a, &b));
        for number in 0..10 * SWEEP_AT_LEAST {
            names.intern(number.to_string());
        }
        assert!(names.len() <= 2 * SWEEP_AT_LEAST, "{}", names.len());
        assert!(Arc::ptr_eq(&a, &names.intern("a")), "what is used stays");
    }
}
