//! Assay's scheduler: what acts on the core's decisions.
//!
//! ```text
//!  agents --QUIC--> fleet --FleetEvent--> the loop
//!  files --manifest--> snapshot --core--> plan --cli--> people and programs
//! ```
//!
//! All deciding is in `assay-core`; here are the drivers and the command line.

pub mod cli;
pub mod cloud;
pub mod demo;
pub mod fleet;
pub mod kube;
pub mod manifest;
mod quantities;
pub mod sim;
pub mod web;
