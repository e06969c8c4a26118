//! Names that objects carry besides labels and taints: API groups, finalizers, annotations.

/// Group of `NodePool` and `NodeClaim`.
pub const KARPENTER_GROUP: &str = "karpenter.sh";
/// Group of `AKSNodeClass`.
pub const AZURE_GROUP: &str = "karpenter.azure.com";
/// Group of our own kinds.
pub const ASSAY_GROUP: &str = "assay.dev";
