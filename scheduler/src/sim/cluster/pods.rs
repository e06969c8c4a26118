//! Pods in motion: bound, evicted, ended, and the volumes they leave attached for a while.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use assay_core::check::pod_fits_node;
use assay_core::engine::{Event, EvictionAnswer};
use assay_core::model::{Pod, PodId, PodOwner, PodPhase, ResourceList, Timestamp};

use super::Cluster;

/// From a pod's end to its volumes' detachment.
const DETACHMENT: Duration = Duration::from_secs(4);

impl Cluster {
    /// Creates a pod or changes it.
    pub(super) fn put(&mut self, pod: Pod) {
        self.events.push(Event::PodApplied(Box::new(pod.clone())));
        self.pods.insert(pod.id.clone(), pod);
    }

    /// Answers a wish to evict a pod of a node as the Eviction API does.
    pub fn evict(&mut self, now: Timestamp, id: &PodId, node: &str) -> EvictionAnswer {
        let Some(pod) = self.pods.get(id).filter(|pod| pod.node.as_deref() == Some(node)) else {
            return EvictionAnswer::Gone;
        };
        if self.owner_of(pod).is_some_and(|workload| self.may_go(workload) == 0) {
            let message = "Cannot evict pod as it would violate the pod's disruption budget.".to_owned();
            return EvictionAnswer::Refused { message };
        }
        let grace = pod.termination_grace;
        self.begin_end(now, id, grace);
        EvictionAnswer::Accepted
    }

    /// Deletes a pod of a node whatever its budget says.
    pub fn delete_pod(&mut self, now: Timestamp, id: &PodId, node: &str, grace: Duration) {
        if self.pods.get(id).is_some_and(|pod| pod.node.as_deref() == Some(node)) {
            self.begin_end(now, id, grace);
        }
    }

    /// A pod is to end within `grace`; its workload makes another at once.
    pub(super) fn begin_end(&mut self, now: Timestamp, id: &PodId, grace: Duration) {
        self.nominations.remove(id);
        let Some(pod) = self.pods.get_mut(id) else { return };
        if pod.node.is_none() {
            self.drop_pod(now, id);
            return;
        }
        let ends = pod.terminating.map_or(now + grace, |ends| ends.min(now + grace));
        if pod.terminating == Some(ends) {
            return;
        }
        pod.terminating = Some(ends);
        let pod = pod.clone();
        self.ends.insert((ends, id.clone()));
        self.put(pod.clone());
        if let Some(name) = self.owner_of(&pod).map(|workload| workload.name.clone()) {
            self.reconcile(now, &name);
        }
    }

    /// When a pod ends or a volume is detached next.
    pub fn next_end(&self) -> Option<Timestamp> {
        let (pod, volume) = (self.ends.first(), self.detachments.first());
        [pod.map(|(at, _)| *at), volume.map(|(at, ..)| *at)].into_iter().flatten().min()
    }

    /// Ends the pods and detaches the volumes that are due.
    pub fn end_due(&mut self, now: Timestamp) {
        while let Some((at, id)) = self.ends.first().filter(|(at, _)| *at <= now).cloned() {
            self.ends.remove(&(at, id.clone()));
            if self.pods.get(&id).is_some_and(|pod| pod.terminating == Some(at)) {
                self.drop_pod(now, &id);
            }
        }
        while let Some(due) = self.detachments.first().filter(|(at, ..)| *at <= now).cloned() {
            self.detachments.remove(&due);
            let (_, node, volume) = due;
            if let Some(attached) = self.attachments.get_mut(&node) {
                attached.remove(&volume);
                self.tell_attachments(&node);
            }
        }
    }

    /// Removes a pod; its workload makes another where one is missing.
    pub(super) fn drop_pod(&mut self, now: Timestamp, id: &PodId) {
        let Some(pod) = self.pods.remove(id) else { return };
        self.nominations.remove(id);
        self.events.push(Event::PodDeleted(id.clone()));
        if let Some(node) = &pod.node {
            let volumes = pod.volumes.iter().map(|volume| Arc::clone(&volume.id));
            self.detachments.extend(volumes.map(|volume| (now + DETACHMENT, Arc::clone(node), volume)));
        }
        if let Some(name) = self.owner_of(&pod).map(|workload| workload.name.clone()) {
            self.reconcile(now, &name);
        }
    }

    fn attach(&mut self, pod: &Pod) {
        let Some(node) = pod.node.as_ref().filter(|_| !pod.volumes.is_empty()) else { return };
        let volumes = pod.volumes.iter().map(|volume| Arc::clone(&volume.id));
        self.attachments.entry(Arc::clone(node)).or_default().extend(volumes);
        self.tell_attachments(node);
    }

    fn tell_attachments(&mut self, node: &Arc<str>) {
        let volumes = self.attachments.get(node).cloned().unwrap_or_default();
        self.events.push(Event::VolumeAttachments { node: Arc::clone(node), volumes });
    }

    /// What is used of each node that is ready.
    fn used(&self) -> BTreeMap<Arc<str>, ResourceList> {
        let ready = self.nodes.values().filter(|node| node.ready);
        let mut used: BTreeMap<_, _> =
            ready.map(|node| (Arc::clone(&node.name), ResourceList::default())).collect();
        for pod in self.pods.values().filter(|pod| pod.uses_node()) {
            if let Some(used) = pod.node.as_ref().and_then(|node| used.get_mut(node)) {
                *used += &pod.spec.requests;
            }
        }
        used
    }

    /// Whether some other node that is ready could take a pod now.
    pub fn has_room_elsewhere(&self, id: &PodId) -> bool {
        let Some(pod) = self.pods.get(id) else { return true };
        let used = self.used();
        used.iter().filter(|(name, _)| pod.node.as_ref() != Some(*name)).any(|(name, used)| {
            self.nodes.get(name).is_some_and(|node| pod_fits_node(pod, node, used).is_ok())
        })
    }

    /// Binds pending pods to nodes that can take them now, in kube-scheduler's order (priority, then age): the nominated node
    /// first, then the fullest one by CPU. Returns how many were bound.
    pub fn bind(&mut self) -> usize {
        let mut used = self.used();
        let waiting = self.pods.values().filter(|pod| pod.is_pending());
        let mut pending: Vec<_> =
            waiting.map(|pod| (Reverse(pod.priority), pod.created, pod.id.clone())).collect();
        pending.sort();
        let mut bound = 0;
        for (_, _, id) in pending {
            let Some(pod) = self.pods.get(&id) else { continue };
            let fits = |name: &Arc<str>| {
                let node = self.nodes.get(name)?;
                let used = used.get(name)?;
                pod_fits_node(pod, node, used).ok().map(|()| node.allocatable.cpu - used.cpu)
            };
            let nominated = self.nominations.get(&id).filter(|name| fits(name).is_some());
            let fullest = || {
                let fitting = used.keys().filter_map(|name| Some((fits(name)?, name)));
                fitting.min().map(|(_, name)| name)
            };
            let Some(target) = nominated.or_else(fullest).cloned() else { continue };
            if let Some(used) = used.get_mut(&target) {
                *used += &pod.spec.requests;
            }
            let pod = Pod { node: Some(target), phase: PodPhase::Running, ..pod.clone() };
            self.attach(&pod);
            self.put(pod);
            bound += 1;
            self.nominations.remove(&id);
        }
        if bound > 0 {
            self.count_budgets();
        }
        bound
    }

    /// Pods that wait for a node.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.pods.values().filter(|pod| pod.is_pending()).count()
    }

    /// Pods of workloads that run.
    #[must_use]
    pub fn running(&self) -> usize {
        let running =
            |pod: &&Pod| pod.owner == PodOwner::Controller && pod.uses_node() && pod.terminating.is_none();
        self.pods.values().filter(running).count()
    }
}
