//! The cloud port: what Assay needs of a cloud, whichever it is.
//!
//! A VM has the name of its claim. That makes everything here safe to repeat: making a VM that is there returns it, deleting
//! one that is not there succeeds, and a list tells whose each VM is.

mod measured;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use assay_core::catalog::CapacityType;
use assay_core::engine::LaunchError;
use assay_core::model::{NodeClaim, Timestamp};
use assay_shared::units::UsdPerHour;

use crate::kube::api::AKSNodeClassSpec;
use crate::kube::api::aks_node_class::NodeImage;

pub use measured::MeasuredCloud;

/// What a cloud answers with, later.
pub type CloudFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A cloud that sells VMs.
pub trait Cloud: Debug + Send + Sync + 'static {
    /// Its name in metrics.
    fn name(&self) -> &'static str;

    /// Makes the VM of a claim, of the size, in the zone and by the capacity type that it names, and returns once the cloud
    /// has accepted it. A VM of that name that is there already is returned as it is.
    fn create<'a>(&'a self, claim: &'a NodeClaim) -> CloudFuture<'a, Result<Instance, CreateError>>;

    /// Deletes the VM of a claim and what belongs to it, and returns once it is gone; at once where there is none.
    fn delete<'a>(&'a self, claim: &'a str) -> CloudFuture<'a, Result<(), CloudError>>;

    /// What machines of a class would be made from.
    fn class<'a>(&'a self, spec: &'a AKSNodeClassSpec) -> CloudFuture<'a, Result<ClassFacts, CloudError>>;

    /// All VMs that were made for claims of this cluster.
    fn list(&self) -> CloudFuture<'_, Result<Vec<Instance>, CloudError>>;
}

/// A VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// The claim it was made for.
    pub claim: Arc<str>,
    /// The cloud's id of it, as the node's `spec.providerID` will have it.
    pub provider_id: String,
    /// Its size.
    pub instance_type: Arc<str>,
    /// Where it is.
    pub zone: Arc<str>,
    /// How it is paid for.
    pub capacity_type: CapacityType,
    /// What it costs.
    pub price: UsdPerHour,
    /// When it was made.
    pub created: Timestamp,
}

/// What machines of a class are made from, each with why it cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassFacts {
    /// Images, each with the sizes it is for.
    pub images: Result<Vec<NodeImage>, String>,
    /// Version of Kubernetes on its nodes.
    pub kubernetes_version: Result<String, String>,
    /// The subnet of its nodes.
    pub subnet: Result<(), String>,
}

/// Why there is no VM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// The cloud will not make it: another offering must do.
    #[error("{}: {}", .0.failure, .0.message)]
    Refused(LaunchError),
    /// The cloud could not be asked; asking again may help.
    #[error(transparent)]
    Cloud(#[from] CloudError),
}

/// The cloud could not be asked, or did not answer in its own terms.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CloudError(pub String);
