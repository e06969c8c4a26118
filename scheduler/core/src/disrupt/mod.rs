//! Which nodes can go, and what takes their place.
//!
//! ```text
//!  snapshot --> candidates: what each node costs, who runs there, what forbids its going
//!      |             |
//!      v             v
//!    base  <---  methods: taken back, broken, expired, wrong hardware, too many, empty, drifted
//!      |             |
//!      |             v
//!      +------>  consolidate: alone, merged, together --> commands, and why the others stay
//! ```
//!
//! Data comes from a [`Snapshot`] with all claims and its
//! [`DisruptionFacts`](crate::model::DisruptionFacts); the plan goes to whoever asked: `assay disrupt` prints it, the engine carries it out. Every
//! question is put to one shared state of the solver ([`base`]), which is neither copied nor built again. `check` judges plans by
//! rules of its own.

mod balanced;
mod base;
mod blockers;
mod budget;
mod candidate;
mod consolidate;
mod cost;
mod drift;
mod eviction;
mod knapsack;
mod methods;
mod options;
mod outcome;
mod plan;
mod planner;
mod price;
#[cfg(test)]
mod properties;
mod repair;
mod within;

pub(crate) use base::claim_made;
pub use blockers::{Protection, blocker};
pub use budget::allowed_disruptions;
pub use cost::{eviction_cost, savings_ratio};
pub use options::{DisruptOptions, PaybackDefaults};
pub use outcome::carried_out;
pub use plan::{
    BlockReason, Blocked, Command, DisruptionPlan, DisruptionReason, DisruptionTotals, Move, Payback,
};
pub(crate) use repair::{preempted, repair_due};

use self::planner::Planner;
use crate::model::Snapshot;

/// What to do about the nodes of a snapshot now. Its claims are all there are, joined ones included.
pub fn disrupt(snapshot: &Snapshot, options: &DisruptOptions) -> DisruptionPlan {
    let mut planner = Planner::new(snapshot, options);
    planner.forced();
    planner.wrong_hardware();
    planner.scaled_down();
    planner.empty();
    planner.drifted();
    planner.close_restless();
    planner.consolidate();
    planner.finish()
}
