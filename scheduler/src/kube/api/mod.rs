//! The kinds that Assay reads and writes: Karpenter's, the Azure provider's, and our own.
//!
//! ```text
//!  types --crd--> deploy/crds/*.yaml --kubectl, Helm--> API server, which checks every object by them
//!  pools, classes --hash--> annotations, by which nodes are found to have drifted
//!  engine's effects --write--> claims, statuses, NodeHardware, SkuProfile
//! ```
//!
//! Pools, claims and classes are *read* by `crate::manifest`, for the cluster as for files. Objects of Karpenter's kinds are
//! patched and never replaced: a cluster may have Karpenter's own definitions, with fields that these types do not know.

#![allow(
    clippy::duplicated_attributes,
    reason = "columns of a kind have the same keys, which the lint takes for one attribute"
)]

pub mod aks_node_class;
pub mod conditions;
pub mod crd;
pub mod hash;
pub mod names;
pub mod node_claim;
pub mod node_hardware;
pub mod node_pool;
pub mod period;
pub mod rule;
pub mod schema;
pub mod sku_profile;
pub mod template;
mod texts;

pub use aks_node_class::{AKSNodeClass, AKSNodeClassSpec, AKSNodeClassStatus};
pub use node_claim::{NodeClaim, NodeClaimSpec, NodeClaimStatus};
pub use node_hardware::NodeHardware;
pub use node_pool::{NodePool, NodePoolSpec, NodePoolStatus};
pub use sku_profile::SkuProfile;
