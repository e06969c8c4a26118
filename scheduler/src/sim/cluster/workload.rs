//! Controllers: equal pods that are made again when they go, and the disruption budget over them.

use std::sync::Arc;
use std::time::Duration;

use assay_core::engine::Event;
use assay_core::model::{
    AttachedVolume, DisruptionBudget, Labels, Namespaces, Pod, PodId, PodPhase, PodSelector, PodSpec,
    Timestamp,
};
use assay_core::requirement::Requirement;

use super::Cluster;

/// Driver of the volumes of simulated pods.
const VOLUME_DRIVER: &str = "disk.csi.azure.com";
/// Label that pods of a workload have, with the workload's name.
const APP: &str = "app";

/// A controller's worth of equal pods.
#[derive(Debug, Clone)]
pub struct Workload {
    /// Its name; its pods are `<name>-<n>`.
    pub name: String,
    /// Namespace of its pods.
    pub namespace: String,
    /// What each pod needs.
    pub spec: Arc<PodSpec>,
    /// How long each pod takes to end.
    pub grace: Duration,
    /// Volumes that each pod has attached.
    pub volumes: u32,
    /// Pods that evictions must leave.
    pub min_available: Option<u32>,
    /// Priority of each pod.
    pub priority: i32,
    /// Labels of each pod.
    pub labels: Arc<Labels>,
    /// Annotations of each pod.
    pub annotations: Arc<Labels>,
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
            grace: Pod::DEFAULT_GRACE,
            volumes: 0,
            min_available: None,
            priority: 0,
            labels: Arc::new(Labels::from([(APP.to_owned(), name.to_owned())])),
            annotations: Arc::default(),
            replicas: 0,
            next: 0,
        }
    }

    fn owns(&self, pod: &Pod) -> bool {
        *pod.id.namespace == *self.namespace && pod.labels == self.labels
    }

    /// Its next pod.
    fn pod(&mut self, now: Timestamp) -> Pod {
        let name = format!("{}-{}", self.name, self.next);
        self.next += 1;
        let volume = |n| AttachedVolume { driver: VOLUME_DRIVER.into(), id: format!("pv-{name}-{n}").into() };
        Pod {
            labels: Arc::clone(&self.labels),
            annotations: Arc::clone(&self.annotations),
            priority: self.priority,
            created: now,
            termination_grace: self.grace,
            volumes: (0..self.volumes).map(volume).collect(),
            ..Pod::new(PodId::new(&self.namespace, &name), Arc::clone(&self.spec))
        }
    }
}

impl Cluster {
    /// Creates a workload or changes its number of pods. The newest pods go first, as a ReplicaSet does it.
    pub fn scale(&mut self, now: Timestamp, workload: Workload, replicas: u32) {
        let kept = self.workloads.entry(workload.name.clone()).or_insert(workload);
        kept.replicas = replicas;
        let name = kept.name.clone();
        self.reconcile(now, &name);
    }

    /// Makes missing pods of a workload and ends surplus ones. A pod that is ending counts no more.
    pub(super) fn reconcile(&mut self, now: Timestamp, name: &str) {
        let Some(workload) = self.workloads.get_mut(name) else { return };
        let own = self.pods.values().filter(|pod| pod.terminating.is_none() && workload.owns(pod));
        let mut present: Vec<_> = own.map(|pod| (pod.created, pod.id.clone())).collect();
        present.sort();
        let wanted = workload.replicas as usize;
        let surplus = present.split_off(wanted.min(present.len()));
        let missing: Vec<Pod> = (present.len()..wanted).map(|_| workload.pod(now)).collect();
        for pod in missing {
            self.put(pod);
        }
        for (_, id) in surplus.into_iter().rev() {
            let grace = self.pods.get(&id).map_or(Duration::ZERO, |pod| pod.termination_grace);
            self.begin_end(now, &id, grace);
        }
        self.count_budgets();
    }

    /// The workload a pod is of.
    pub(super) fn owner_of(&self, pod: &Pod) -> Option<&Workload> {
        self.workloads.values().find(|workload| workload.owns(pod))
    }

    /// How many more pods of a workload its budget lets go.
    pub(super) fn may_go(&self, workload: &Workload) -> u32 {
        let Some(least) = workload.min_available else { return u32::MAX };
        let healthy = self
            .pods
            .values()
            .filter(|pod| workload.owns(pod) && pod.phase == PodPhase::Running && pod.terminating.is_none());
        u32::try_from(healthy.count()).unwrap_or(u32::MAX).saturating_sub(least)
    }

    /// Tells of budgets whose count has changed.
    pub(super) fn count_budgets(&mut self) {
        let limited = self.workloads.values().filter(|workload| workload.min_available.is_some());
        let counted: Vec<_> = limited.map(|workload| self.budget(workload)).collect();
        for budget in counted {
            if self.budgets.get(&budget.id) != Some(&budget) {
                self.events.push(Event::DisruptionBudgetApplied(Box::new(budget.clone())));
                self.budgets.insert(budget.id.clone(), budget);
            }
        }
    }

    fn budget(&self, workload: &Workload) -> DisruptionBudget {
        DisruptionBudget {
            id: PodId::new(&workload.namespace, &workload.name),
            selector: PodSelector {
                namespaces: Namespaces::only(&workload.namespace),
                labels: Some(vec![Requirement::is_in(APP, [workload.name.as_str()])]),
            },
            allowed: self.may_go(workload),
            evicts_unhealthy: false,
        }
    }
}
