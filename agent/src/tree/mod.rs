//! Machine trees in memory: what `/proc` and `/sys` of a machine would hold, without the machine.
//!
//! [`MemTree`] is the file tree that probes read through [`HostFs`](crate::host::HostFs). Simulated machines and tests
//! survey such trees with the probes that survey real machines, so that nothing is measured two ways.

mod mem;

pub use mem::{Damage, MemTree};
