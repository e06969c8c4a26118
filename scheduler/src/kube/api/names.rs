//! Names that objects carry besides labels and taints (`assay_shared::labels`): groups, finalizers, annotations.

/// Group of `NodePool` and `NodeClaim`.
pub const KARPENTER_GROUP: &str = "karpenter.sh";
/// Group of `AKSNodeClass`.
pub const AZURE_GROUP: &str = "karpenter.azure.com";
/// Group of our own kinds.
pub const ASSAY_GROUP: &str = "assay.dev";

/// Finalizer of a `NodeClaim` and of its `Node`: neither goes before its pods and its machine have.
pub const TERMINATION_FINALIZER: &str = "karpenter.sh/termination";
/// Finalizer of an `AKSNodeClass`: it stays while a `NodeClaim` is of it.
pub const CLASS_TERMINATION_FINALIZER: &str = "karpenter.azure.com/termination";
