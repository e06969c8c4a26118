//! The state machine: what happened goes in, what to do comes out.
//!
//! A driver (the simulator, the demo, later the Kubernetes driver) feeds [`Event`]s with the time they happened and carries
//! out the [`Effect`]s. Nothing is done here.

mod effect;
mod event;

pub use effect::{Condition, ConditionStatus, Effect, EventKind};
pub use event::{Event, LaunchError, LaunchFailure};
