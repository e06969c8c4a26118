//! Controllers given without their pods: expanded to the pods they would make.
//!
//! A controller that owns a pod of the input is not: its pods are all there, waiting ones included, as the API server has them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use assay_core::model::{AttachedVolume, Gang, Labels, Pod, PodId, PodSpec, Timestamp};
use serde_json::Value;

use super::constraints::Subject;
use super::context::Context;
use super::document::Document;
use super::error::ManifestError;
use super::gang;
use super::objects::{Meta, PodTemplate, Workload, WorkloadSpec, WorkloadStatus, holds, timestamp};
use super::owners::Owner;
use super::storage::{ClaimSpec, Needs};
use super::{Manifests, owners, pod};

/// The most pods that controllers may stand for together; Kubernetes clusters end at 150,000.
pub(super) const PODS_MAX: u32 = 1_000_000;

/// Objects of a circle that are named.
const NAMED_AT_MOST: usize = 5;

/// A controller that waits for its pods.
#[derive(Debug)]
pub(super) struct Controller {
    kind: String,
    id: PodId,
    owners: Vec<Owner>,
    /// Where its owners stand, for what is told of them.
    told_at: ManifestError,
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
    /// Without what its volumes ask for, which may differ from pod to pod.
    spec: Arc<PodSpec>,
    priority: i32,
    gang: Option<Arc<Gang>>,
    volumes: Vec<Value>,
    /// Claims that a StatefulSet makes for each pod, by volume name.
    claims: Vec<(String, ClaimSpec)>,
}

impl Controller {
    pub(super) fn read(document: &Document, meta: &Meta, context: &Context) -> Result<Self, ManifestError> {
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
            told_at: document.error("metadata.ownerReferences", ""),
            replicas,
            pod: replica(document, meta, &spec, replicas, context).map_err(|error| error.to_string()),
            created: timestamp(document, meta.creation_timestamp.as_deref())?,
        })
    }

    fn as_owner(&self) -> Owner {
        let PodId { namespace, name } = &self.id;
        Owner { namespace: Arc::clone(namespace), kind: self.kind.clone(), name: name.to_string() }
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

/// The gang of the pods of a Job that asks for one.
pub(super) fn gang_of_job(document: &Document) -> Result<Option<Arc<Gang>>, ManifestError> {
    let meta = Meta::read(document)?;
    if !meta.annotations.contains_key(gang::GANG) {
        return Ok(None);
    }
    let Workload { spec, status } = document.typed()?;
    gang::of_job(document, &meta, spec.completion_mode == "Indexed", job_pods(&spec, &status))
}

fn replica(
    document: &Document,
    meta: &Meta,
    spec: &WorkloadSpec,
    replicas: u32,
    context: &Context,
) -> Result<Replica, ManifestError> {
    let template: PodTemplate = document.typed_at("spec.template", &spec.template)?;
    meta.check(document, "metadata")?;
    template.metadata.check(document, "spec.template.metadata")?;
    let namespace = meta.pod_id().namespace;
    let labels = &template.metadata.labels;
    let subject = Subject { document, context, namespace: &namespace, labels };
    let own_gang = gang::of_job(document, meta, spec.completion_mode == "Indexed", replicas)?;
    let gang = match own_gang {
        Some(gang) => Some(gang),
        None => gang::of_pod(document, context, &namespace, labels, &template.metadata.annotations)?,
    };
    context.check_runtime(document, "spec.template.spec", &template.spec)?;
    let class = &template.spec.priority_class_name;
    Ok(Replica {
        spec: Arc::new(pod::spec(subject, "spec.template.spec", &template.spec)?),
        priority: context.priority(document, "spec.template.spec", template.spec.priority, class)?,
        gang,
        volumes: template.spec.volumes,
        claims: spec
            .volume_claim_templates
            .iter()
            .map(|template| (template.metadata.name.clone(), template.spec.clone()))
            .collect(),
        labels: Arc::new(template.metadata.labels),
        annotations: Arc::new(template.metadata.annotations),
    })
}

impl Replica {
    /// The spec of one pod with its volumes, and what it attaches. `known` keeps specs that siblings share.
    fn with_volumes(
        &self,
        context: &Context,
        id: &PodId,
        ordinal: u32,
        set: &str,
        known: &mut HashMap<Needs, Arc<PodSpec>>,
    ) -> (Arc<PodSpec>, Arc<[AttachedVolume]>) {
        if self.volumes.is_empty() && self.claims.is_empty() {
            return (Arc::clone(&self.spec), Arc::default());
        }
        let made: Vec<(String, String, ClaimSpec)> = self
            .claims
            .iter()
            .map(|(name, spec)| (name.clone(), format!("{name}-{set}-{ordinal}"), spec.clone()))
            .collect();
        let mut needs = context.storage.needs((&id.namespace, &id.name), &self.volumes, &made);
        let attached = std::mem::take(&mut needs.attached).into();
        if needs == Needs::default() {
            return (Arc::clone(&self.spec), attached);
        }
        if let Some(spec) = known.get(&needs) {
            return (Arc::clone(spec), attached);
        }
        let mut spec = PodSpec::clone(&self.spec);
        pod::apply(&needs, &mut spec);
        let spec = Arc::new(spec);
        known.insert(needs, Arc::clone(&spec));
        (spec, attached)
    }
}

/// Makes the pods of controllers that have none in the input. `owned` are the owners of pods that are.
pub(super) fn expand(
    controllers: Vec<Controller>,
    mut owned: BTreeSet<Owner>,
    context: &Context,
    read: &mut Manifests,
) {
    let known: BTreeSet<Owner> = controllers.iter().map(Controller::as_owner).collect();
    read.warnings.extend(circles(&controllers));
    // A Deployment has pods where one of its ReplicaSets has.
    for controller in &controllers {
        if owned.contains(&controller.as_owner()) {
            owned.extend(controller.owners.iter().cloned());
        }
    }
    // Also where that ReplicaSet is not in the input itself: its name is the Deployment's, a dash, and a hash of the template.
    let named_after = owned.iter().filter(|owner| owner.kind == "ReplicaSet").filter_map(|owner| {
        let (deployment, hash) = owner.name.rsplit_once('-')?;
        let (kind, name) = ("Deployment".to_owned(), deployment.to_owned());
        (!hash.is_empty()).then(|| Owner { namespace: Arc::clone(&owner.namespace), kind, name })
    });
    let named_after: Vec<Owner> = named_after.collect();
    owned.extend(named_after);
    let mut names: BTreeSet<PodId> = read.pods.iter().map(|pod| pod.id.clone()).collect();
    names.extend(read.invalid_pods.iter().map(|(id, _)| id.clone()));
    for controller in controllers {
        // A ReplicaSet beside its Deployment makes no pods of its own.
        let made_by_another = controller.owners.iter().any(|owner| known.contains(owner));
        if made_by_another || owned.contains(&controller.as_owner()) {
            continue;
        }
        let mut known = HashMap::new();
        for index in 0..controller.replicas {
            let id = free_name(&controller, index, &names);
            names.insert(id.clone());
            match &controller.pod {
                Ok(replica) => {
                    let set = &controller.id.name;
                    let (spec, volumes) = replica.with_volumes(context, &id, index, set, &mut known);
                    read.pods.push(Pod {
                        labels: Arc::clone(&replica.labels),
                        annotations: Arc::clone(&replica.annotations),
                        priority: replica.priority,
                        created: controller.created,
                        volumes,
                        gang: replica.gang.clone(),
                        ..Pod::new(id, spec)
                    });
                }
                Err(problem) => read.invalid_pods.push((id, problem.clone())),
            }
        }
    }
}

/// What is told of controllers that own each other in a circle: none of them is the one that makes the pods.
fn circles(controllers: &[Controller]) -> Vec<String> {
    let owned: BTreeMap<Owner, Vec<Owner>> =
        controllers.iter().map(|one| (one.as_owner(), one.owners.clone())).collect();
    let places: BTreeMap<Owner, &ManifestError> =
        controllers.iter().map(|one| (one.as_owner(), &one.told_at)).collect();
    let told = |circle: Vec<&Owner>| {
        let place = places.get(circle.first()?)?;
        let named: Vec<String> = circle.iter().skip(1).take(NAMED_AT_MOST).map(ToString::to_string).collect();
        let by = match (circle.len(), named.len() + 1) {
            (1, _) => "itself".to_owned(),
            (all, told) if all > told => format!("{} and {} more", named.join(", "), all - told),
            _ => named.join(", "),
        };
        let problem = format!("owned in a circle, by {by}: no pods are made of them");
        Some(ManifestError { problem, ..ManifestError::clone(place) }.to_string())
    };
    owners::circles(&owned).into_iter().filter_map(told).collect()
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
