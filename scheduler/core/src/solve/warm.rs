//! A solver that stays: it follows the cluster, so that pods which arrive one by one are decided on in microseconds, not after
//! another look at everything.

use std::sync::Arc;

use super::{SolveOptions, Solver};
use crate::model::{Change, Market, Plan, Pod, ResourceList, Snapshot};

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

    /// Decides from now on as if a node and its pods were gone, except that it still counts against the limits of its pool:
    /// what is bought in its place is there before it goes.
    pub fn set_aside(&mut self, node: &Arc<str>) {
        self.solver.set_aside(node);
    }

    /// Takes [`Self::set_aside`] back: decisions are what they were before.
    pub fn put_back(&mut self, node: &Arc<str>) {
        self.solver.put_back(node);
    }

    /// Whether a node that takes pods has room for so much.
    #[must_use]
    pub fn has_room(&self, node: &str, amounts: &ResourceList) -> bool {
        self.solver.has_room(node, amounts)
    }

    /// What each of these amounts is worth, in billionths of a dollar per hour, by what machines cost that could be bought: no
    /// machines for all of them together cost less than the sum, and a machine whose pods are worth less than its price is one
    /// that is badly used.
    #[must_use]
    pub fn worth(&self, amounts: &[ResourceList]) -> Vec<f64> {
        self.solver.worth(amounts)
    }

    /// The plan for these pods, which wait. Nothing of it is done until it is told.
    pub fn decide(&mut self, pending: &[&Pod], options: &SolveOptions) -> Plan {
        self.solver.decide(pending, options)
    }
}
