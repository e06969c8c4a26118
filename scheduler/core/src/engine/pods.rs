//! The pods of the cluster, and which of them are on a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Pod, PodId};

/// All pods, also by node.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_id: BTreeMap<PodId, Arc<Pod>>,
    by_node: BTreeMap<Arc<str>, OnNode>,
    /// Those that came, changed or went since this was last asked, and the nodes that they are or were on.
    changed: BTreeSet<PodId>,
    changed_nodes: BTreeSet<Arc<str>>,
}

/// Pods bound to one node.
#[derive(Debug, Default)]
struct OnNode {
    all: BTreeSet<PodId>,
    /// How many of them would have to run elsewhere if it went; counted, for it is asked of every node all the time.
    reschedulable: usize,
}

impl Pods {
    pub(super) fn get(&self, id: &PodId) -> Option<&Pod> {
        self.by_id.get(id).map(|pod| &**pod)
    }

    pub(super) fn shared(&self, id: &PodId) -> Option<&Arc<Pod>> {
        self.by_id.get(id)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Pod> {
        self.by_id.values().map(|pod| &**pod)
    }

    /// Whether there is nothing to look at.
    pub(super) fn is_settled(&self) -> bool {
        self.changed.is_empty()
    }

    /// Pods that may have changed since this was last asked, and nodes that others may be on.
    pub(super) fn take_changed(&mut self) -> (BTreeSet<PodId>, BTreeSet<Arc<str>>) {
        (std::mem::take(&mut self.changed), std::mem::take(&mut self.changed_nodes))
    }

    /// Adds a pod or replaces what was known of it.
    pub(super) fn insert(&mut self, pod: Pod) {
        self.remove(&pod.id);
        if let Some(node) = &pod.node {
            let there = self.by_node.entry(Arc::clone(node)).or_default();
            there.all.insert(pod.id.clone());
            there.reschedulable += usize::from(pod.is_reschedulable());
            self.changed_nodes.insert(Arc::clone(node));
        }
        self.changed.insert(pod.id.clone());
        self.by_id.insert(pod.id.clone(), Arc::new(pod));
    }

    pub(super) fn remove(&mut self, id: &PodId) -> Option<Arc<Pod>> {
        let (id, pod) = self.by_id.remove_entry(id)?;
        if let Some(node) = &pod.node
            && let Some(there) = self.by_node.get_mut(node)
        {
            self.changed_nodes.insert(Arc::clone(node));
            there.all.remove(&id);
            there.reschedulable -= usize::from(pod.is_reschedulable());
            if there.all.is_empty() {
                self.by_node.remove(node);
            }
        }
        self.changed.insert(id);
        Some(pod)
    }

    /// Pods bound to a node, by name.
    pub(super) fn on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        let there = self.by_node.get(node).into_iter().flat_map(|there| &there.all);
        there.filter_map(|id| self.get(id))
    }

    /// How many pods of a node would have to run elsewhere if it went.
    pub(super) fn reschedulable_on(&self, node: &str) -> usize {
        self.by_node.get(node).map_or(0, |there| there.reschedulable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PodOwner, PodPhase, Timestamp};

    #[test]
    fn a_node_counts_the_pods_it_has_now() {
        let mut pods = Pods::default();
        let mut pod = Pod::new(PodId::new("default", "a"), Arc::default());
        pods.insert(pod.clone());
        assert_eq!((pods.on("n").count(), pods.reschedulable_on("n")), (0, 0));
        pod.node = Some("n".into());
        pod.phase = PodPhase::Running;
        for _ in 0..2 {
            pods.insert(pod.clone());
            assert_eq!((pods.on("n").count(), pods.reschedulable_on("n")), (1, 1));
        }
        let daemon =
            Pod { owner: PodOwner::DaemonSet, ..Pod { id: PodId::new("default", "d"), ..pod.clone() } };
        pods.insert(daemon);
        assert_eq!((pods.on("n").count(), pods.reschedulable_on("n")), (2, 1));
        pod.terminating = Some(Timestamp(1));
        pods.insert(pod.clone());
        assert_eq!((pods.on("n").count(), pods.reschedulable_on("n")), (2, 0));
        pods.remove(&pod.id);
        pods.remove(&PodId::new("default", "d"));
        assert_eq!((pods.on("n").count(), pods.by_node.len()), (0, 0));
        let (changed, nodes) = pods.take_changed();
        assert_eq!((changed.len(), nodes), (2, BTreeSet::from(["n".into()])));
        assert!(pods.is_settled());
    }
}
