//! A solver that stays: pods that arrive one by one are decided on in microseconds, not after another look at everything.

use super::{SolveOptions, Solver};
use crate::model::{Plan, Pod, Snapshot};

/// A snapshot, made ready. Decisions add to it: the room that one takes is gone for the next.
#[derive(Debug)]
pub struct Warm {
    solver: Solver,
    options: SolveOptions,
}

impl Warm {
    /// Reads a snapshot; its pending pods are left alone. A single pod leaves nothing to make cheaper: no step is spent on it.
    #[must_use]
    pub fn new(snapshot: &Snapshot, options: &SolveOptions) -> Self {
        Self { solver: Solver::new(snapshot), options: SolveOptions { steps: 0, ..options.clone() } }
    }

    /// Decides on one pod. `None` where only another look at a new snapshot can: it asks for a resource or a kind of volume that
    /// no pod of the snapshot asked for.
    pub fn arrive(&mut self, pod: &Pod) -> Option<Plan> {
        if !self.solver.catalog.axes.cover(pod) {
            return None;
        }
        let plan = self.solver.decide(&[pod], &self.options);
        self.options.first_claim += plan.claims.len();
        Some(plan)
    }
}
