//! What decides which machines can be bought, and what runs on each before any pod does.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{DaemonSet, NodeClass, NodePool, Snapshot};
use crate::catalog::InstanceType;

/// The part of a [`Snapshot`] that changes rarely: pools, classes, DaemonSets, and what could be bought.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Market {
    /// All pools.
    pub pools: Vec<NodePool>,
    /// All node classes.
    pub classes: Vec<NodeClass>,
    /// All DaemonSets.
    pub daemon_sets: Vec<DaemonSet>,
    /// What pools could buy, by [`NodePool::types_key`].
    pub instance_types: BTreeMap<String, Arc<Vec<InstanceType>>>,
}

impl Market {
    /// That of a snapshot.
    #[must_use]
    pub fn of(snapshot: &Snapshot) -> Self {
        Self {
            pools: snapshot.pools.clone(),
            classes: snapshot.classes.clone(),
            daemon_sets: snapshot.daemon_sets.clone(),
            instance_types: snapshot.instance_types.clone(),
        }
    }

    /// A pool by name.
    #[must_use]
    pub fn pool(&self, name: &str) -> Option<&NodePool> {
        self.pools.iter().find(|pool| pool.name == name)
    }

    /// The class of a pool's nodes.
    #[must_use]
    pub fn class_of(&self, pool: &NodePool) -> Option<&NodeClass> {
        self.classes.iter().find(|class| class.name == pool.node_class)
    }

    /// What a pool could buy; empty where its class is not known.
    #[must_use]
    pub fn instance_types_of(&self, pool: &NodePool) -> &[InstanceType] {
        self.instance_types.get(&*pool.types_key()).map_or(&[], |types| types.as_slice())
    }
}
