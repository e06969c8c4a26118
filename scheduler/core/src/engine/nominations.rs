//! Where pods are expected to run that are not bound yet, or must move.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{PodId, Timestamp};

/// Targets of pods: a claim, or a node that has none. Notes whose pods and which targets may have changed.
#[derive(Debug, Default)]
pub(super) struct Nominations {
    of: BTreeMap<PodId, (Arc<str>, Timestamp)>,
    on: BTreeMap<Arc<str>, BTreeSet<PodId>>,
    changed_pods: BTreeSet<PodId>,
    changed_targets: BTreeSet<Arc<str>>,
}

impl Nominations {
    /// Where a pod is expected.
    pub(super) fn get(&self, pod: &PodId) -> Option<&Arc<str>> {
        self.of.get(pod).map(|(target, _)| target)
    }

    pub(super) fn contains(&self, pod: &PodId) -> bool {
        self.of.contains_key(pod)
    }

    /// Pods that are expected at a target.
    pub(super) fn on(&self, target: &str) -> impl Iterator<Item = &PodId> {
        self.on.get(target).into_iter().flatten()
    }

    /// How many are.
    pub(super) fn count_on(&self, target: &str) -> usize {
        self.on.get(target).map_or(0, BTreeSet::len)
    }

    /// All targets, and who is expected at each since when.
    pub(super) fn targets(
        &self,
    ) -> impl Iterator<Item = (&Arc<str>, impl Iterator<Item = (&PodId, Timestamp)>)> {
        self.on
            .iter()
            .map(|(target, pods)| (target, pods.iter().filter_map(|pod| Some((pod, self.of.get(pod)?.1)))))
    }

    pub(super) fn insert(&mut self, pod: PodId, target: Arc<str>, at: Timestamp) {
        self.remove(&pod);
        self.note(&pod, &target);
        self.on.entry(Arc::clone(&target)).or_default().insert(pod.clone());
        self.of.insert(pod, (target, at));
    }

    pub(super) fn remove(&mut self, pod: &PodId) -> Option<Arc<str>> {
        let (target, _) = self.of.remove(pod)?;
        self.note(pod, &target);
        if let Some(there) = self.on.get_mut(&target) {
            there.remove(pod);
            if there.is_empty() {
                self.on.remove(&target);
            }
        }
        Some(target)
    }

    /// Nobody is expected at `target` any more; how many were.
    pub(super) fn clear(&mut self, target: &str) -> usize {
        let there: Vec<PodId> = self.on(target).cloned().collect();
        there.iter().for_each(|pod| drop(self.remove(pod)));
        there.len()
    }

    /// Who was expected at `from` is expected at `to`, since the same moment.
    pub(super) fn rename(&mut self, from: &str, to: &Arc<str>) {
        let there: Vec<(PodId, Timestamp)> =
            self.on(from).filter_map(|pod| Some((pod.clone(), self.of.get(pod)?.1))).collect();
        for (pod, at) in there {
            self.insert(pod, Arc::clone(to), at);
        }
    }

    fn note(&mut self, pod: &PodId, target: &Arc<str>) {
        self.changed_pods.insert(pod.clone());
        self.changed_targets.insert(Arc::clone(target));
    }

    /// Whether there is nothing to look at.
    pub(super) fn is_settled(&self) -> bool {
        self.changed_pods.is_empty()
    }

    /// Pods whose target may have changed since this was last asked, and targets at which others may be expected.
    pub(super) fn take_changed(&mut self) -> (BTreeSet<PodId>, BTreeSet<Arc<str>>) {
        (std::mem::take(&mut self.changed_pods), std::mem::take(&mut self.changed_targets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_found_by_their_target() {
        let mut nominations = Nominations::default();
        let (a, b) = (PodId::new("default", "a"), PodId::new("default", "b"));
        nominations.insert(a.clone(), "n".into(), Timestamp(1));
        nominations.insert(b.clone(), "n".into(), Timestamp(2));
        assert_eq!(nominations.on("n").collect::<Vec<_>>(), [&a, &b]);
        nominations.insert(a.clone(), "m".into(), Timestamp(3));
        assert_eq!((nominations.count_on("n"), nominations.count_on("m")), (1, 1));
        nominations.rename("n", &"m".into());
        assert_eq!((nominations.get(&b).map(|to| &**to), nominations.count_on("m")), (Some("m"), 2));
        let since: Vec<_> = nominations.targets().flat_map(|(_, pods)| pods).collect();
        assert_eq!(since, [(&a, Timestamp(3)), (&b, Timestamp(2))]);
        assert_eq!((nominations.clear("m"), nominations.targets().count()), (2, 0));
        let (pods, targets) = nominations.take_changed();
        assert_eq!((pods, targets), (BTreeSet::from([a, b]), BTreeSet::from(["m".into(), "n".into()])));
        assert!(nominations.is_settled());
    }
}
