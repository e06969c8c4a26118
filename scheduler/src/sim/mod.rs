//! A cloud, a cluster and a fleet that exist only here, for `assay simulate` and `assay demo`.
//!
//! ```text
//!  scenario --> world --events--> engine (assay-core)
//!                 ^                  |
//!                 |                  v effects
//!    cloud (VMs that differ from the catalogue), cluster (pods, nodes, a binder), agents (the real survey)
//! ```
//!
//! `watch` holds what happens against rules of its own at every step; `random` draws scenarios from seeds.
//!
//! Time is an argument and every random choice comes from the seed, one stream per purpose, so that the same scenario and
//! seed give the same bytes. `assay simulate` drives the world in virtual time and hands reports over directly; the demo
//! drives it at wall-clock speed with the reports on real QUIC.

pub mod agents;
pub mod cloud;
pub mod cluster;
mod effects;
mod random;
mod restart;
pub mod scenario;
pub mod timeline;
mod watch;
pub mod world;

pub use agents::{Agents, DirectAgents};
pub(crate) use effects::real_resources;
pub use scenario::{Scenario, ScenarioError};
pub use timeline::{Entry, Summary};
pub use world::World;

#[cfg(test)]
mod tests;
