//! Kubernetes resource quantities: `1500m`, `16Gi`, `1e3`.

/// A Kubernetes quantity.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quantity;
