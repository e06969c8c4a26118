//! Assay's decisions, without I/O.
//!
//! ```text
//!  events --> engine --> effects            a state machine: time and randomness are arguments
//!               |
//!               +--> snapshot --> solve, disrupt --> plan --> check
//!                      ^
//!      catalog + profile (what could be bought, and what really arrives)
//! ```
//!
//! Nothing here reads a clock, opens a socket or file, or knows of a thread runtime: drivers in `assay-scheduler` feed
//! events in and carry effects out. The same input gives the same output, whatever machine it runs on.

pub mod catalog;
pub mod check;
pub mod disrupt;
pub mod engine;
pub mod lifecycle;
pub mod model;
pub mod profile;
pub mod requirement;
pub mod solve;

pub use model::{Plan, Snapshot};
