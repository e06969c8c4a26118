//! Surveys the hardware of one machine and reports it.
//!
//! ```text
//!   /proc /sys /etc  (HostFs)  --+
//!   libnvidia-ml     (gpu)     --+--> survey --> HardwareReport --> output (json, yaml, table)
//!   IMDS             (imds)    --+                              \-> link   (QUIC to the scheduler)
//! ```
//!
//! Everything is read below a root directory, so that a `/host` mount or a test tree works like the machine itself, and
//! nothing of the running machine leaks into a survey of another tree. What cannot be read becomes an unavailable fact
//! with its reason: a probe never panics, never hangs and never guesses.

pub mod cli;
pub mod cpu;
pub mod disks;
pub mod gpu;
pub mod host;
pub mod imds;
pub mod link;
pub mod memory;
pub mod network;
pub mod numa;
pub mod output;
pub mod pci;
pub mod platform;
pub mod sources;
pub mod survey;
pub mod tree;

pub use survey::{SurveyOptions, survey};
