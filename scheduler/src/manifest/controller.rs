//! Controllers given without their pods: expanded to the pods they would make.

use std::collections::BTreeSet;
use std::sync::Arc;

use assay_core::model::{Labels, Pod, PodId, PodOwner, PodPhase, PodSpec, Timestamp};

use super::document::Document;
use super::error::ManifestError;
use super::objects::{Meta, Workload};
use super::{Manifests, pod};

/// The most pods one controller may stand for; Kubernetes clusters end at 150,000.
const PODS_MAX: u32 = 1_000_000;

/// A controller that waits for its pods.
#[derive(Debug)]
pub(super) struct Controller {
    kind: String,
    id: PodId,
    /// Controllers above it: a ReplicaSet of a Deployment is not expanded beside it.
    owners: Vec<(String, String)>,
    replicas: u32,
    labels: Arc<Labels>,
    spec: Result<Arc<PodSpec>, String>,
    priority: i32,
    created: Timestamp,
}

impl Controller {
    pub(super) fn read(document: &Document) -> Result<Self, ManifestError> {
        let meta = Meta::read(document)?;
        let object: Workload = document.typed()?;
        let replicas = match document.kind.as_str() {
            "Job" if object.spec.suspend == Some(true) => 0,
            "Job" => {
                let parallelism = object.spec.parallelism.unwrap_or(1);
                object.spec.completions.map_or(parallelism, |completions| completions.min(parallelism))
            }
            _ => object.spec.replicas.unwrap_or(1),
        };
        if replicas > PODS_MAX {
            return Err(
                document.error("spec.replicas", format!("expected at most {PODS_MAX}, found {replicas}"))
            );
        }
        let template = &object.spec.template;
        let spec = pod::spec(document, "spec.template.spec", &template.spec);
        Ok(Self {
            kind: document.kind.clone(),
            id: meta.pod_id(),
            owners: meta
                .owner_references
                .iter()
                .map(|owner| (owner.kind.clone(), owner.name.clone()))
                .collect(),
            replicas,
            labels: pod::template_labels(template),
            spec: spec.map(Arc::new).map_err(|error| error.to_string()),
            priority: template.spec.priority.unwrap_or(0),
            created: pod::timestamp(document, meta.creation_timestamp.as_deref())?,
        })
    }
}

/// Makes the pods of controllers that have none in the input.
pub(super) fn expand(controllers: Vec<Controller>, read: &mut Manifests) {
    let known: BTreeSet<_> = controllers
        .iter()
        .map(|one| (one.id.namespace.clone(), one.kind.clone(), one.id.name.to_string()))
        .collect();
    let labelled: BTreeSet<_> = read
        .pods
        .iter()
        .filter(|pod| pod.owner == PodOwner::Controller)
        .map(|pod| (Arc::clone(&pod.id.namespace), Arc::clone(&pod.labels)))
        .collect();
    for controller in controllers {
        let namespace = &controller.id.namespace;
        let of_another = controller
            .owners
            .iter()
            .any(|(kind, name)| known.contains(&(Arc::clone(namespace), kind.clone(), name.clone())));
        // Pods of a controller carry its template's labels, and a hash of their own.
        let has_pods = !controller.labels.is_empty()
            && labelled.iter().any(|(of, labels)| {
                of == namespace && controller.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            });
        if of_another || has_pods {
            continue;
        }
        for index in 0..controller.replicas {
            let id = PodId::new(namespace, &format!("{}-{index}", controller.id.name));
            match &controller.spec {
                Ok(spec) => read.pods.push(Pod {
                    id,
                    labels: Arc::clone(&controller.labels),
                    annotations: Arc::default(),
                    spec: Arc::clone(spec),
                    priority: controller.priority,
                    created: controller.created,
                    phase: PodPhase::Pending,
                    owner: PodOwner::Controller,
                    node: None,
                    terminating: false,
                }),
                Err(problem) => read.invalid_pods.push((id, problem.clone())),
            }
        }
    }
}
