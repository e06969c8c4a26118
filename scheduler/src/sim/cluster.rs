//! The simulated cluster: pods, nodes, and a binder that stands in for kube-scheduler.
//!
//! It keeps what an API server would keep and obeys what the engine asks of it. Pods of a workload are made again when they
//! are evicted or their node goes, as a controller would.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use assay_core::check::pod_fits_node;
use assay_core::engine::Condition;
use assay_core::model::{
    DaemonSet, Labels, Node, Pod, PodId, PodOwner, PodPhase, PodSpec, ResourceList, Taint, Timestamp,
};

/// A controller's worth of equal pods.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its name; its pods are `<name>-<n>`.
    pub name: String,
    /// Namespace of its pods.
    pub namespace: String,
    /// What each pod needs.
    pub spec: Arc<PodSpec>,
    /// Priority of each pod.
    pub priority: i32,
    /// Labels of each pod.
    pub labels: Arc<Labels>,
    /// Pods it should have.
    pub replicas: u32,
    /// Number of the next pod.
    next: u32,
}

impl Workload {
    /// A workload that has no pods yet.
    #[must_use]
    pub fn new(name: &str, namespace: &str, spec: PodSpec) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            spec: Arc::new(spec),
            priority: 0,
            labels: Arc::new(Labels::from([("app".to_owned(), name.to_owned())])),
            replicas: 0,
            next: 0,
        }
    }
}

/// Something that changed and that the engine must hear of.
#[derive(Debug, Clone)]
pub enum Change {
    /// A pod was created or changed.
    Pod(Box<Pod>),
    /// A pod is gone.
    PodGone(PodId),
    /// A node was created or changed.
    Node(Box<Node>),
    /// A node is gone.
    NodeGone(Arc<str>),
}

/// The cluster's state.
#[derive(Debug, Default)]
pub struct Cluster {
    pods: BTreeMap<PodId, Pod>,
    nodes: BTreeMap<Arc<str>, Node>,
    workloads: BTreeMap<String, Workload>,
    daemon_sets: Vec<DaemonSet>,
    conditions: BTreeMap<(Arc<str>, &'static str), Condition>,
    /// Where the engine expects a pod to run.
    nominations: BTreeMap<PodId, Arc<str>>,
    changes: Vec<Change>,
}

impl Cluster {
    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
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

    /// Creates a workload or changes its number of pods. The newest pods go first, as a ReplicaSet does it.
    pub fn scale(&mut self, now: Timestamp, workload: Workload, replicas: u32) {
        let kept = self.workloads.entry(workload.name.clone()).or_insert(workload);
        kept.replicas = replicas;
        let name = kept.name.clone();
        self.reconcile(now, &name);
    }

    /// Makes missing pods of a workload and deletes surplus ones.
    fn reconcile(&mut self, now: Timestamp, name: &str) {
        let Some(workload) = self.workloads.get_mut(name) else { return };
        let own = |pod: &&Pod| *pod.id.namespace == *workload.namespace && pod.labels == workload.labels;
        let mut running: Vec<_> =
            self.pods.values().filter(own).map(|pod| (pod.created, pod.id.clone())).collect();
        running.sort();
        let wanted = workload.replicas as usize;
        for (_, id) in running.drain(wanted.min(running.len())..).rev() {
            self.pods.remove(&id);
            self.nominations.remove(&id);
            self.changes.push(Change::PodGone(id));
        }
        for _ in running.len()..wanted {
            let id = PodId::new(&workload.namespace, &format!("{}-{}", workload.name, workload.next));
            workload.next += 1;
            let pod = Pod {
                labels: Arc::clone(&workload.labels),
                priority: workload.priority,
                created: now,
                ..Pod::new(id.clone(), Arc::clone(&workload.spec))
            };
            self.changes.push(Change::Pod(Box::new(pod.clone())));
            self.pods.insert(id, pod);
        }
    }

    /// Removes a pod; its workload makes another.
    pub fn evict(&mut self, now: Timestamp, id: &PodId) {
        let Some(pod) = self.pods.remove(id) else { return };
        self.nominations.remove(id);
        self.changes.push(Change::PodGone(id.clone()));
        let owner = self.workloads.values().find(|workload| workload.labels == pod.labels);
        if let Some(name) = owner.map(|workload| workload.name.clone()) {
            self.reconcile(now, &name);
        }
    }

    /// A node joins, with a pod of every DaemonSet that belongs there.
    pub fn join(&mut self, now: Timestamp, node: Node) {
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
                self.changes.push(Change::Pod(Box::new(pod.clone())));
                self.pods.insert(id, pod);
            }
        }
        self.changes.push(Change::Node(Box::new(node.clone())));
        self.nodes.insert(Arc::clone(&node.name), node);
    }

    /// Changes a node in place; the engine hears of it if anything changed.
    fn update_node(&mut self, name: &str, change: impl FnOnce(&mut Node)) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let before = node.clone();
        change(node);
        if *node != before {
            self.changes.push(Change::Node(Box::new(node.clone())));
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

    /// Notes where the engine expects a pod to run.
    pub fn nominate(&mut self, pod: PodId, target: Arc<str>) {
        self.nominations.insert(pod, target);
    }

    /// A node is gone, and the pods on it; workloads make theirs again.
    pub fn remove_node(&mut self, now: Timestamp, name: &str) -> bool {
        let Some(node) = self.nodes.remove(name) else { return false };
        self.conditions.retain(|(of, _), _| *of != node.name);
        self.changes.push(Change::NodeGone(Arc::clone(&node.name)));
        let on_it = |pod: &&Pod| pod.node.as_ref() == Some(&node.name);
        let lost: Vec<_> = self.pods.values().filter(on_it).map(|pod| (pod.id.clone(), pod.owner)).collect();
        for (id, owner) in lost {
            if owner == PodOwner::Controller {
                self.evict(now, &id);
            } else {
                self.pods.remove(&id);
                self.changes.push(Change::PodGone(id));
            }
        }
        true
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

    /// Binds pending pods to nodes that can take them now, in kube-scheduler's order (priority, then age): the nominated node
    /// first, then the fullest one by CPU.
    /// Returns how many were bound.
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
            if let Some(pod) = self.pods.get_mut(&id) {
                pod.node = Some(target);
                pod.phase = PodPhase::Running;
                self.changes.push(Change::Pod(Box::new(pod.clone())));
                bound += 1;
            }
            self.nominations.remove(&id);
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
        self.pods.values().filter(|pod| pod.owner == PodOwner::Controller && pod.uses_node()).count()
    }
}

#[cfg(test)]
mod tests {
    use assay_core::model::TaintEffect;

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
