//! Controllers given without their pods: expanded to the pods they would make.
//!
//! A controller that owns a pod of the input is not: its pods are all there, waiting ones included, as the API server has them.

use std::collections::BTreeSet;
use std::sync::Arc;

use assay_core::model::{Labels, Pod, PodId, PodSpec, Timestamp};

use super::document::Document;
use super::error::ManifestError;
use super::objects::{Meta, PodTemplate, Workload, WorkloadSpec, WorkloadStatus, holds};
use super::storage::Storage;
use super::{Manifests, pod};

/// The most pods that controllers may stand for together; Kubernetes clusters end at 150,000.
pub(super) const PODS_MAX: u32 = 1_000_000;

/// Who owns something: namespace, kind and name.
pub(super) type Owner = (Arc<str>, String, String);

/// A controller that waits for its pods.
#[derive(Debug)]
pub(super) struct Controller {
    kind: String,
    id: PodId,
    owners: Vec<Owner>,
    /// Pods it would make.
    pub(super) replicas: u32,
    /// One of these pods, or why it cannot be read.
    pod: Result<Replica, String>,
    created: Timestamp,
}

#[derive(Debug)]
struct Replica {
    labels: Arc<Labels>,
    annotations: Arc<Labels>,
    spec: Arc<PodSpec>,
    priority: i32,
}

impl Controller {
    pub(super) fn read(document: &Document, meta: &Meta, storage: &Storage) -> Result<Self, ManifestError> {
        let Workload { spec, status } = document.typed()?;
        let gone = meta.deletion_timestamp.is_some();
        let replicas = match document.kind.as_str() {
            _ if gone => 0,
            "Job" => job_pods(&spec, &status),
            _ => spec.replicas.unwrap_or(1),
        };
        Ok(Self {
            kind: document.kind.clone(),
            id: meta.pod_id(),
            owners: meta.owners(),
            replicas,
            pod: replica(document, &spec, storage).map_err(|error| error.to_string()),
            created: pod::timestamp(document, meta.creation_timestamp.as_deref())?,
        })
    }

    fn as_owner(&self) -> Owner {
        (Arc::clone(&self.id.namespace), self.kind.clone(), self.id.name.to_string())
    }

    /// Whether one of `owned` shows that the pods of this controller are in the input.
    fn owns_one_of(&self, owned: &BTreeSet<Owner>) -> bool {
        owned.contains(&self.as_owner())
            || self.kind == "Deployment"
                && owned.iter().any(|(namespace, kind, name)| {
                    // Its ReplicaSets, which may not be in the input themselves: name, dash, hash of the template.
                    let hash = name.strip_prefix(&*self.id.name).and_then(|rest| rest.strip_prefix('-'));
                    let hash = hash.filter(|hash| !hash.is_empty() && !hash.contains('-'));
                    *namespace == self.id.namespace && kind == "ReplicaSet" && hash.is_some()
                })
    }
}

/// Pods that a Job would run at once.
fn job_pods(spec: &WorkloadSpec, status: &WorkloadStatus) -> u32 {
    let over = holds(&status.conditions, "Complete") || holds(&status.conditions, "Failed");
    if spec.suspend || over {
        return 0;
    }
    let parallelism = spec.parallelism.unwrap_or(1);
    // Without either, a Job is one pod; with parallelism alone it is a work queue.
    let completions = spec.completions.or_else(|| spec.parallelism.is_none().then_some(1));
    completions
        .map_or(parallelism, |completions| completions.saturating_sub(status.succeeded).min(parallelism))
}

fn replica(document: &Document, spec: &WorkloadSpec, storage: &Storage) -> Result<Replica, ManifestError> {
    let template: PodTemplate = document.typed_at("spec.template", &spec.template)?;
    Ok(Replica {
        labels: Arc::new(template.metadata.labels),
        annotations: Arc::new(template.metadata.annotations),
        spec: Arc::new(pod::spec(document, "spec.template.spec", &template.spec, storage)?),
        priority: template.spec.priority.unwrap_or(0),
    })
}

/// Makes the pods of controllers that have none in the input. `owned` are the owners of pods that are.
pub(super) fn expand(controllers: Vec<Controller>, mut owned: BTreeSet<Owner>, read: &mut Manifests) {
    let known: BTreeSet<Owner> = controllers.iter().map(Controller::as_owner).collect();
    // A Deployment has pods where one of its ReplicaSets has.
    for controller in &controllers {
        if owned.contains(&controller.as_owner()) {
            owned.extend(controller.owners.iter().cloned());
        }
    }
    let mut names: BTreeSet<PodId> = read.pods.iter().map(|pod| pod.id.clone()).collect();
    names.extend(read.invalid_pods.iter().map(|(id, _)| id.clone()));
    for controller in controllers {
        // A ReplicaSet beside its Deployment makes no pods of its own.
        let made_by_another = controller.owners.iter().any(|owner| known.contains(owner));
        if made_by_another || controller.owns_one_of(&owned) {
            continue;
        }
        for index in 0..controller.replicas {
            let id = free_name(&controller, index, &names);
            names.insert(id.clone());
            match &controller.pod {
                Ok(replica) => read.pods.push(Pod {
                    labels: Arc::clone(&replica.labels),
                    annotations: Arc::clone(&replica.annotations),
                    priority: replica.priority,
                    created: controller.created,
                    ..Pod::new(id, Arc::clone(&replica.spec))
                }),
                Err(problem) => read.invalid_pods.push((id, problem.clone())),
            }
        }
    }
}

/// `web-0`; where that is taken, such as by a StatefulSet beside a Deployment of the same name, `web-deployment-0`.
fn free_name(controller: &Controller, index: u32, names: &BTreeSet<PodId>) -> PodId {
    let PodId { namespace, name } = &controller.id;
    let kind = controller.kind.to_ascii_lowercase();
    let mut id = PodId::new(namespace, &format!("{name}-{index}"));
    let mut longer = format!("{name}-{kind}");
    while names.contains(&id) {
        id = PodId::new(namespace, &format!("{longer}-{index}"));
        longer.push_str("-x");
    }
    id
}
