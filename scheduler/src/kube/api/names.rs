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

/// On pools and claims: hash of the pool's template as the claim was made ([`super::hash::node_pool()`]).
pub const NODE_POOL_HASH: &str = "karpenter.sh/nodepool-hash";
/// How [`NODE_POOL_HASH`] was computed. Hashes of different versions are not compared.
pub const NODE_POOL_HASH_VERSION: &str = "karpenter.sh/nodepool-hash-version";
/// On classes and claims: hash of the class as the claim was made ([`super::hash::aks_node_class()`]).
pub const AKS_NODE_CLASS_HASH: &str = "karpenter.azure.com/aksnodeclass-hash";
/// How [`AKS_NODE_CLASS_HASH`] was computed.
pub const AKS_NODE_CLASS_HASH_VERSION: &str = "karpenter.azure.com/aksnodeclass-hash-version";

/// On a claim that is being deleted: when its pods are deleted without being asked, RFC 3339.
pub const TERMINATION_TIMESTAMP: &str = "karpenter.sh/nodeclaim-termination-timestamp";
/// On a claim whose pool asked for more variety (`minValues`) than could be had.
pub const MIN_VALUES_RELAXED: &str = "karpenter.sh/nodeclaim-min-values-relaxed";
