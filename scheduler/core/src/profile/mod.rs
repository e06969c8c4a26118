//! What really arrives when one buys a VM size: learned from reports, per size, region and image generation.
//!
//! Reports come from the engine, which has bounded and authenticated them; what was learned goes to the catalogue (memory
//! of the next purchase), to labels of nodes (`refine`) and to mismatch detection. A report is a claim made by a machine that
//! may be broken or hostile, so the rules say who may change what:
//!
//! - A single VM changes nothing but its own node. A profile speaks once [`QUORUM`] distinct VMs have.
//! - The profile takes the *smallest* memory seen, so one that over-reports never raises it, and one that under-reports
//!   by more than [`AGREEMENT_PER_MILLE`] is an outlier until a quorum of VMs says the same.
//! - What cannot be (more than the size has, by more than tolerance) is quarantined and counted.

mod health;
mod mismatch;
mod refine;
mod store;

pub use mismatch::{Mismatch, MismatchKind, NETWORK_GRACE, compare, conditions, tells_enough};
pub use refine::{hardware_labels, sku_label_corrections};
pub use store::{
    AGREEMENT_PER_MILLE, CURRENT_IMAGE, ImportError, KIND, Observation, PROFILES_KEPT, ProfileKey,
    ProfileStore, QUORUM, Quarantine, SAMPLES_KEPT, Sample, SkuProfile,
};
