//! Objects that cannot be read, or not as they were meant.

use std::collections::BTreeMap;

use assay_core::model::PodId;

use super::super::kind::Kind;

/// What is wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its kind.
    pub kind: Kind,
    /// Its name, and its namespace where it has one; both are empty where not even that can be read.
    pub id: PodId,
    /// The field that is at fault; empty where it is the whole.
    pub field: String,
    /// What was expected and what was found.
    pub message: String,
    /// Whether the object was put aside for it. Else it was read, and this is to be known.
    pub is_error: bool,
}

/// Problems by object.
#[derive(Debug, Default)]
pub(super) struct Problems {
    known: BTreeMap<(Kind, PodId), Vec<Problem>>,
    /// Objects whose problems are other than they were.
    changed: bool,
}

impl Problems {
    /// What is wrong with an object now, in place of what was.
    pub(super) fn set(&mut self, kind: Kind, id: &PodId, problems: Vec<Problem>) {
        let key = (kind, id.clone());
        if problems.is_empty() {
            self.changed |= self.known.remove(&key).is_some();
        } else if self.known.get(&key) != Some(&problems) {
            for problem in &problems {
                let Problem { field, message, .. } = problem;
                tracing::warn!(%kind, object = %id, field, "{message}");
            }
            self.known.insert(key, problems);
            self.changed = true;
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.known.values().flatten()
    }

    /// Whether they are other than when this was asked last.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }
}
