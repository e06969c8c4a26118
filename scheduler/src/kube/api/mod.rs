//! The kinds that Assay reads and writes: Karpenter's, the Azure provider's, and our own.

/// Finalizers, annotations and field managers: one constant per name.
pub mod names;
