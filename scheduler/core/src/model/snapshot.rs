//! Everything a decision depends on, at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{DaemonSet, DisruptionFacts, Node, NodeClaim, NodeClass, NodePool, Pod, Timestamp};
use crate::catalog::InstanceType;

/// The input of `solve` and `disrupt`. Equal snapshots give equal plans.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The moment.
    pub now: Timestamp,
    /// All pods that matter: pending ones, and those bound to nodes.
    pub pods: Vec<Pod>,
    /// All DaemonSets.
    pub daemon_sets: Vec<DaemonSet>,
    /// All nodes.
    pub nodes: Vec<Node>,
    /// Claims; `solve` needs those whose node has not joined yet, `disrupt` all.
    pub node_claims: Vec<NodeClaim>,
    /// All pools.
    pub pools: Vec<NodePool>,
    /// All node classes.
    pub classes: Vec<NodeClass>,
    /// What pools could buy, by [`NodePool::types_key`]: the catalogue, refined by what was measured.
    pub instance_types: BTreeMap<String, Arc<Vec<InstanceType>>>,
    /// What only `disrupt` asks about.
    pub disruption: DisruptionFacts,
}

impl Snapshot {
    /// What a pool could buy; empty where its class is not known.
    #[must_use]
    pub fn instance_types_of(&self, pool: &NodePool) -> &[InstanceType] {
        self.instance_types.get(&*pool.types_key()).map_or(&[], |types| types.as_slice())
    }
}
