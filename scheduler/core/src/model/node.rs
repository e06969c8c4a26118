//! Nodes that exist.

use std::sync::Arc;

use super::{Labels, ResourceList, Taint, Timestamp};

/// One node of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Its labels as they are now, refined ones included.
    pub labels: Labels,
    /// Its annotations.
    pub annotations: Labels,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// What its kubelet gives to pods.
    pub allocatable: ResourceList,
    /// What it has.
    pub capacity: ResourceList,
    /// The cloud's id of its VM.
    pub provider_id: String,
    /// Whether the kubelet reports it ready.
    pub ready: bool,
    /// Whether it was cordoned.
    pub unschedulable: bool,
    /// Whether its deletion has begun.
    pub deleting: bool,
    /// When it joined.
    pub created: Timestamp,
}

impl Node {
    /// A label of the node.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    /// Whether it can still take pods.
    #[must_use]
    pub const fn accepts_pods(&self) -> bool {
        !self.unschedulable && !self.deleting
    }
}
