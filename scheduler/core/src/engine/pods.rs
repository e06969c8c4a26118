//! The pods of the cluster, and which of them are on a node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{Pod, PodId};

/// All pods, also by node.
#[derive(Debug, Default)]
pub(super) struct Pods {
    by_id: BTreeMap<PodId, Pod>,
    by_node: BTreeMap<Arc<str>, OnNode>,
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
        self.by_id.get(id)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Pod> {
        self.by_id.values()
    }

    /// Adds a pod or replaces what was known of it.
    pub(super) fn insert(&mut self, pod: Pod) {
        self.remove(&pod.id);
        if let Some(node) = &pod.node {
            let there = self.by_node.entry(Arc::clone(node)).or_default();
            there.all.insert(pod.id.clone());
            there.reschedulable += usize::from(pod.is_reschedulable());
        }
        self.by_id.insert(pod.id.clone(), pod);
    }

    pub(super) fn remove(&mut self, id: &PodId) -> Option<Pod> {
        let pod = self.by_id.remove(id)?;
        if let Some(node) = &pod.node
            && let Some(there) = self.by_node.get_mut(node)
        {
            there.all.remove(id);
            there.reschedulable -= usize::from(pod.is_reschedulable());
            if there.all.is_empty() {
                self.by_node.remove(node);
            }
        }
        Some(pod)
    }

    /// Pods bound to a node, by name.
    pub(super) fn on(&self, node: &str) -> impl Iterator<Item = &Pod> {
        let there = self.by_node.get(node).into_iter().flat_map(|there| &there.all);
        there.filter_map(|id| self.by_id.get(id))
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
    }
}
