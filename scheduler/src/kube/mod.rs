//! The Kubernetes driver: what runs the core against an API server.
//!
//! All deciding is in `assay-core`. Here objects become facts, and decisions become API calls.

pub mod api;
pub mod client;
pub mod driver;
pub mod fleet;
pub mod lease;
pub mod observe;
pub mod sim;
pub mod token_review;
pub mod write;
