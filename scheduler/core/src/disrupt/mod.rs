//! Which nodes can go: budgets and emptiness. The engine adds nodes with wrong hardware, which go the same way.
//!
//! Data comes in as plain candidates, so that every rule can be told in a table.

mod blockers;
mod budget;
mod emptiness;

pub use blockers::{Protection, blocker};
pub use budget::allowed_disruptions;
pub use emptiness::{Candidate, empty_nodes};
