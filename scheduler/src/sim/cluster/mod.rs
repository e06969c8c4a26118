//! The simulated cluster: pods, nodes, claims, and a binder that stands in for kube-scheduler.
//!
//! It keeps what an API server would keep and obeys what the engine asks of it. Pods of a workload are made again when they
//! are evicted or their node goes, as a controller would.

mod claims;
mod pods;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_core::check::pod_fits_node;
use assay_core::engine::{Condition, Event};
use assay_core::model::{
    DaemonSet, DisruptionBudget, Labels, Node, Pod, PodId, PodOwner, PodPhase, ResourceList, Taint, Timestamp,
};

pub use workload::Workload;

/// The cluster's state.
#[derive(Debug, Default)]
pub struct Cluster {
    pods: BTreeMap<PodId, Pod>,
    nodes: BTreeMap<Arc<str>, Node>,
    claims: BTreeMap<Arc<str>, claims::Object>,
    workloads: BTreeMap<String, Workload>,
    budgets: BTreeMap<PodId, DisruptionBudget>,
    daemon_sets: Vec<DaemonSet>,
    conditions: BTreeMap<(Arc<str>, &'static str), Condition>,
    /// Where the engine expects a pod to run.
    nominations: BTreeMap<PodId, Arc<str>>,
    /// When pods end that are ending.
    ends: BTreeSet<(Timestamp, PodId)>,
    /// Volumes attached to each node, and when those are detached whose pods have ended.
    attachments: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    detachments: BTreeSet<(Timestamp, Arc<str>, Arc<str>)>,
    /// What changed and the engine must hear of.
    events: Vec<Event>,
}

impl Cluster {
    /// What changed since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// All there is, for an engine that knows nothing: claims before nodes before pods.
    #[must_use]
    pub fn everything(&self) -> Vec<Event> {
        let budgets = self.budgets.values().cloned().map(|one| Event::DisruptionBudgetApplied(Box::new(one)));
        let sets = self.daemon_sets.iter().cloned().map(|one| Event::DaemonSetApplied(Box::new(one)));
        let claims = self.claims().cloned().map(|one| Event::ClaimApplied(Box::new(one)));
        let nodes = self.nodes.values().cloned().map(|one| Event::NodeApplied(Box::new(one)));
        let pods = self.pods.values().cloned().map(|one| Event::PodApplied(Box::new(one)));
        let attached = self.attachments.iter().map(|(node, volumes)| Event::VolumeAttachments {
            node: Arc::clone(node),
            volumes: volumes.clone(),
        });
        sets.chain(budgets).chain(claims).chain(nodes).chain(pods).chain(attached).collect()
    }

    /// Pods by name.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// Nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// DaemonSets, in the order they were added.
    #[must_use]
    pub fn daemon_sets(&self) -> &[DaemonSet] {
        &self.daemon_sets
    }

    /// Adds a DaemonSet; nodes that join later run a pod of it.
    pub fn add_daemon_set(&mut self, daemon_set: DaemonSet) {
        self.daemon_sets.push(daemon_set);
    }

    /// A node joins, with a pod of every DaemonSet that belongs there.
    pub fn join(&mut self, now: Timestamp, node: Node) {
        let mut missing = Vec::new();
        for daemon_set in &self.daemon_sets {
            let mut started = node.clone();
            // These go once the node runs, and its DaemonSets' pods with them come then.
            started.taints.retain(|taint| !taint.key.starts_with("karpenter.sh/"));
            started.taints.retain(|taint| !taint.key.starts_with("assay.dev/"));
            let id = PodId::new(&daemon_set.id.namespace, &format!("{}-{}", daemon_set.id.name, node.name));
            let pod = Pod {
                labels: Arc::new(Labels::from([("daemonset".to_owned(), daemon_set.id.name.to_string())])),
                created: now,
                phase: PodPhase::Running,
                owner: PodOwner::DaemonSet,
                node: Some(Arc::clone(&node.name)),
                ..Pod::new(id.clone(), Arc::clone(&daemon_set.spec))
            };
            if pod_fits_node(&pod, &started, &ResourceList::default()).is_ok() {
                missing.push(pod);
            }
        }
        missing.into_iter().for_each(|pod| self.put(pod));
        self.events.push(Event::NodeApplied(Box::new(node.clone())));
        self.nodes.insert(Arc::clone(&node.name), node);
    }

    /// Changes a node in place; the engine hears of it if anything changed.
    fn update_node(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let before = node.clone();
        change(node);
        if *node != before {
            self.events.push(Event::NodeApplied(Box::new(node.clone())));
        }
    }

    /// Sets labels of a node.
    pub fn label_node(&mut self, name: &str, labels: Labels) {
        self.update_node(name, |node| node.labels.extend(labels));
    }

    /// Puts a taint on a node.
    pub fn taint_node(&mut self, name: &str, taint: Taint) {
        self.update_node(name, |node| {
            node.taints.retain(|kept| (&kept.key, kept.effect) != (&taint.key, taint.effect));
            node.taints.push(taint);
        });
    }

    /// Takes a taint off a node.
    pub fn untaint_node(&mut self, name: &str, taint: &Taint) {
        self.update_node(name, |node| {
            node.taints.retain(|kept| (&kept.key, kept.effect) != (&taint.key, taint.effect));
        });
    }

    /// Sets a condition of a node.
    pub fn set_condition(&mut self, node: &Arc<str>, condition: Condition) {
        self.conditions.insert((Arc::clone(node), condition.condition_type), condition);
    }

    /// Sets annotations of a node.
    pub fn annotate_node(&mut self, name: &str, annotations: Labels) {
        self.update_node(name, |node| node.annotations.extend(annotations));
    }

    /// Somebody deletes a node; our finalizer holds it.
    pub fn delete_node(&mut self, name: &str) {
        self.update_node(name, |node| node.deleting = true);
    }

    /// The machine of a node is gone: its kubelet is not heard of any more.
    pub fn lose_node(&mut self, name: &str) {
        self.update_node(name, |node| node.ready = false);
    }

    /// Notes where the engine expects a pod to run.
    pub fn nominate(&mut self, pod: PodId, target: Arc<str>) {
        self.nominations.insert(pod, target);
    }

    /// A node is gone, and the pods on it; workloads make theirs again.
    pub fn remove_node(&mut self, now: Timestamp, name: &str) {
        let Some(node) = self.nodes.remove(name) else { return };
        self.conditions.retain(|(of, _), _| *of != node.name);
        self.events.push(Event::NodeDeleted(Arc::clone(&node.name)));
        let on_it = self.pods.values().filter(|pod| pod.node.as_ref() == Some(&node.name));
        let lost: Vec<_> = on_it.map(|pod| pod.id.clone()).collect();
        lost.iter().for_each(|id| self.drop_pod(now, id));
        self.attachments.remove(name);
        self.detachments.retain(|(_, of, _)| *of != node.name);
    }
}

#[cfg(test)]
mod tests {
    use assay_core::model::{PodSpec, TaintEffect};

    use super::*;

    fn node(taints: &[&str]) -> Node {
        let taint = |key: &&str| Taint {
            key: (*key).to_owned(),
            value: String::new(),
            effect: TaintEffect::NoSchedule,
        };
        Node {
            name: "n".into(),
            labels: Labels::new(),
            annotations: Labels::new(),
            taints: taints.iter().map(taint).collect(),
            allocatable: ResourceList { pods: 10, ..ResourceList::default() },
            capacity: ResourceList::default(),
            provider_id: String::new(),
            ready: true,
            unschedulable: false,
            deleting: false,
            created: Timestamp(0),
        }
    }

    #[test]
    fn a_daemon_set_runs_where_it_tolerates_every_taint_that_stays() {
        let cases: [(&[&str], usize); 4] = [
            (&[], 1),
            (&["assay.dev/hardware-unverified"], 1),
            (&["gpu"], 0),
            (&["assay.dev/hardware-unverified", "gpu"], 0),
        ];
        for (taints, pods) in cases {
            let mut cluster = Cluster::default();
            let spec = Arc::new(PodSpec { requests: ResourceList::one_pod(), ..PodSpec::default() });
            cluster.add_daemon_set(DaemonSet { id: PodId::new("kube-system", "agent"), spec });
            cluster.join(Timestamp(0), node(taints));
            assert_eq!(cluster.pods().count(), pods, "{taints:?}");
        }
    }
}
