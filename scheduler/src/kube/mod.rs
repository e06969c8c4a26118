//! The Kubernetes driver: what runs the core against an API server.
//!
//! All deciding is in `assay-core`. Here objects become facts, and decisions become API calls.

pub mod api;
pub mod client;
pub mod observe;
