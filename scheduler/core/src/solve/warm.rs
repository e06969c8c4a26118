//! A solver that stays: it follows the cluster, so that pods which arrive one by one are decided on in microseconds, not after
//! another look at everything.

use super::{SolveOptions, Solver};
use crate::model::{Change, Market, Plan, Pod, Snapshot};

/// A snapshot that is kept up with changes, made ready. Plans are those that [`solve`](super::solve) makes of the snapshot.
#[derive(Debug)]
pub struct Warm {
    solver: Solver,
}

impl Warm {
    /// Nothing but what can be bought.
    #[must_use]
    pub fn new(market: Market) -> Self {
        Self { solver: Solver::new(market, &[], &[]) }
    }

    /// Reads a snapshot. Its pending pods are left to those who ask for decisions.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        Self { solver: Solver::of(snapshot, &[]) }
    }

    /// Follows one change. Pods that wait need not be told.
    pub fn apply(&mut self, change: Change) {
        self.solver.apply(change);
    }

    /// Takes over what can be bought now.
    pub fn set_market(&mut self, market: Market) {
        self.solver.set_market(market);
    }

    /// The plan for these pods, which wait. Nothing of it is done until it is told.
    pub fn decide(&mut self, pending: &[&Pod], options: &SolveOptions) -> Plan {
        self.solver.decide(pending, options)
    }
}
