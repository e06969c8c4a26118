//! Pods: whose they are and what they need.

use std::sync::Arc;
use std::time::Duration;

use assay_core::model::{
    Gang, Labels, Pod, PodId, PodOwner, PodPhase, PodSpec, ReasonCode, Rejection, Timestamp,
};
use assay_core::requirement::Requirement;
use serde_json::{Value, json};

use super::constraints::{self, Subject};
use super::context::Context;
use super::document::Document;
use super::error::ManifestError;
use super::objects::{self, Meta, OwnerReference, PodObject, time, timestamp};
use super::storage::Needs;
use super::{aligned, amounts, gang, node_terms, syntax, taints};

/// Why a pod spec that stands in another document cannot be used.
pub type PodTemplateError = ManifestError;

/// A pod spec on its own, such as a scenario holds; `what` names it in errors.
pub fn pod_spec_from_value(file: &str, what: &str, value: Value) -> Result<PodSpec, PodTemplateError> {
    let value = json!({"kind": "Pod", "metadata": {"name": what}, "spec": value});
    let document = Document { file: file.to_owned(), number: 0, kind: "Pod".to_owned(), value };
    let object: PodObject = document.typed()?;
    let (context, labels) = (Context::default(), Labels::new());
    let subject = Subject { document: &document, context: &context, namespace: "default", labels: &labels };
    let mut read = spec(subject, "spec", &object.spec)?;
    apply(&context.storage.needs(("default", what), &object.spec.volumes, &[]), &mut read);
    Ok(read)
}

/// A pod.
pub(super) fn read(document: &Document, meta: &Meta, context: &Context) -> Result<Pod, ManifestError> {
    let object: PodObject = document.typed()?;
    let phase = phase(&object.status.phase);
    let node = Some(object.spec.node_name.as_str()).filter(|name| !name.is_empty()).map(Arc::from);
    let volumes = object.spec.volumes.clone();
    let template = Template::read(document, meta, object, context)?;
    let own = Own {
        id: meta.pod_id(),
        node,
        phase,
        created: timestamp(document, meta.creation_timestamp.as_deref())?,
        is_admitted: meta.creation_timestamp.is_some(),
        terminating: time(document, "metadata.deletionTimestamp", meta.deletion_timestamp.as_deref())?,
        labels: Arc::new(meta.labels.clone()),
        annotations: Arc::new(meta.annotations.clone()),
        volumes: &volumes,
    };
    template.pod(own, context)
}

/// How far a pod got, as its status says.
pub(crate) fn phase(text: &str) -> PodPhase {
    match text {
        "" | "Pending" => PodPhase::Pending,
        "Succeeded" | "Failed" => PodPhase::Finished,
        _ => PodPhase::Running,
    }
}

/// What pods with the same namespace, labels, annotations, owners and spec have in common; their volumes are each one's own.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    spec: Arc<PodSpec>,
    priority: i32,
    grace: Duration,
    owner: PodOwner,
    /// Before its pods have met the others of their gang.
    gang: Option<Arc<Gang>>,
    /// What is said of a pod that no API server has admitted yet.
    unknown_runtime: Option<ManifestError>,
}

/// What is one pod's own.
#[derive(Debug)]
pub(crate) struct Own<'a> {
    pub(crate) id: PodId,
    pub(crate) node: Option<Arc<str>>,
    pub(crate) phase: PodPhase,
    pub(crate) created: Timestamp,
    /// Whether an API server has taken it in.
    pub(crate) is_admitted: bool,
    /// By when its kubelet ends it, once its deletion has begun.
    pub(crate) terminating: Option<Timestamp>,
    pub(crate) labels: Arc<Labels>,
    pub(crate) annotations: Arc<Labels>,
    pub(crate) volumes: &'a [Value],
}

impl Template {
    /// Reads what a pod has in common with its siblings.
    pub(crate) fn read(
        document: &Document,
        meta: &Meta,
        mut object: PodObject,
        context: &Context,
    ) -> Result<Self, ManifestError> {
        meta.check(document, "metadata")?;
        let id = meta.pod_id();
        let subject = Subject { document, context, namespace: &id.namespace, labels: &meta.labels };
        amounts::set_aside(&mut object);
        let class = &object.spec.priority_class_name;
        let grace = object.spec.termination_grace_period_seconds;
        Ok(Self {
            spec: Arc::new(spec(subject, "spec", &object.spec)?),
            grace: grace.map_or(Pod::DEFAULT_GRACE, |seconds| Duration::from_secs(seconds.into())),
            priority: context.priority(document, "spec", object.spec.priority, class)?,
            owner: owner(&meta.annotations, &meta.owner_references),
            gang: gang::of_pod(document, context, &id.namespace, &meta.labels, &meta.annotations)?
                .or_else(|| context.gang_of_job(meta)),
            unknown_runtime: context.check_runtime(document, "spec", &object.spec).err(),
        })
    }

    /// A pod of it.
    pub(crate) fn pod(&self, own: Own<'_>, context: &Context) -> Result<Pod, ManifestError> {
        // A pod that an API server has taken in had its class then.
        if let Some(error) = &self.unknown_runtime
            && own.node.is_none()
            && !own.is_admitted
        {
            return Err(error.clone());
        }
        let mut needs = context.storage.needs((&own.id.namespace, &own.id.name), own.volumes, &[]);
        if own.node.is_some() {
            // It runs: what may be wrong with its claims is over.
            needs.rejections.clear();
            needs.topology.clear();
        }
        let mut spec = Arc::clone(&self.spec);
        if !needs.topology.is_empty() || !needs.rejections.is_empty() {
            apply(&needs, Arc::make_mut(&mut spec));
        }
        Ok(Pod {
            labels: own.labels,
            annotations: own.annotations,
            priority: self.priority,
            created: own.created,
            phase: own.phase,
            owner: self.owner,
            node: own.node,
            terminating: own.terminating,
            termination_grace: self.grace,
            volumes: if needs.attached.is_empty() { Arc::default() } else { needs.attached.into() },
            gang: self.gang.clone(),
            ..Pod::new(own.id, spec)
        })
    }
}

/// Who made a pod with these annotations and owners.
pub(crate) fn owner(annotations: &Labels, owners: &[OwnerReference]) -> PodOwner {
    let mirror = annotations.contains_key("kubernetes.io/config.mirror");
    let owned_by = |kind: &str| owners.iter().any(|owner| owner.kind == kind);
    if mirror || owned_by("Node") {
        PodOwner::Node
    } else if owned_by("DaemonSet") {
        PodOwner::DaemonSet
    } else if owners.is_empty() {
        PodOwner::Nobody
    } else {
        PodOwner::Controller
    }
}

/// Adds what volumes ask for to a spec.
pub(super) fn apply(needs: &Needs, spec: &mut PodSpec) {
    spec.volume_topology.extend(needs.topology.iter().cloned());
    spec.rejections.extend(needs.rejections.iter().cloned());
}

/// What a pod with this spec needs, its volumes apart. `path` is where the spec stands in the document.
pub(super) fn spec(
    subject: Subject<'_>,
    path: &str,
    spec: &objects::PodSpec,
) -> Result<PodSpec, ManifestError> {
    let Subject { document, context, .. } = subject;
    syntax::check_labels(document, &format!("{path}.nodeSelector"), &spec.node_selector)?;
    let mut selector = Vec::new();
    for (key, value) in &spec.node_selector {
        selector.push(Requirement::is_in(key, [value.as_str()]));
    }
    let mut rejections = rejections(path, spec);
    let affinity = &spec.affinity.node_affinity;
    let affinity_path = format!("{path}.affinity.nodeAffinity");
    let required_affinity = match &affinity.required {
        Some(terms) => node_terms::required(document, &affinity_path, terms, &mut rejections)?,
        None => Vec::new(),
    };
    let affinity_path = format!("{path}.affinity");
    let together =
        constraints::affinity(subject, &format!("{affinity_path}.podAffinity"), &spec.affinity.pod_affinity)?;
    let apart = constraints::affinity(
        subject,
        &format!("{affinity_path}.podAntiAffinity"),
        &spec.affinity.pod_anti_affinity,
    )?;
    let spread_path = format!("{path}.topologySpreadConstraints");
    let mut topology_spread = constraints::spread(subject, &spread_path, &spec.topology_spread_constraints)?;
    if topology_spread.is_empty() && !context.default_spread.is_empty() {
        let owner = context.selector_of_owner(document);
        topology_spread = context.default_spread.of_pod(
            context.services.values(),
            subject.namespace,
            subject.labels,
            owner.as_deref(),
        );
    }
    let mut requests = amounts::of_pod(document, path, spec)?;
    if spec.overhead.is_empty()
        && !spec.runtime_class_name.is_empty()
        && let Some(overhead) = context.runtimes.get(&spec.runtime_class_name)
    {
        requests += overhead;
    }
    Ok(PodSpec {
        requests,
        node_selector: selector,
        required_affinity,
        preferred_affinity: node_terms::preferred(document, &affinity_path, &affinity.preferred)?,
        tolerations: taints::tolerations(document, &format!("{path}.tolerations"), &spec.tolerations)?,
        topology_spread,
        pod_affinity: together.0,
        pod_anti_affinity: apart.0,
        preferred_pod_affinity: together.1,
        preferred_pod_anti_affinity: apart.1,
        host_ports: constraints::host_ports(document, path, spec)?,
        volume_topology: Vec::new(),
        aligned: aligned::aligned(spec),
        rejections,
    })
}

/// What keeps a pod from being placed, whatever there is.
fn rejections(path: &str, spec: &objects::PodSpec) -> Vec<Rejection> {
    let mut found = Vec::new();
    if !spec.scheduling_gates.is_empty() {
        let names = spec.scheduling_gates.iter().filter_map(|gate| gate.get("name")?.as_str());
        let names: Vec<&str> = names.collect();
        let detail = format!("{path}.schedulingGates holds it back: {}", names.join(", "));
        found.push(Rejection { reason: ReasonCode::SchedulingGated, detail });
    }
    if !spec.resource_claims.is_empty() {
        let names = spec.resource_claims.iter().filter_map(|claim| claim.get("name")?.as_str());
        let names: Vec<&str> = names.collect();
        let detail = format!(
            "{path}.resourceClaims: devices asked for by claims are not provided: {}",
            names.join(", ")
        );
        found.push(Rejection { reason: ReasonCode::ResourceClaims, detail });
    }
    found
}

#[cfg(test)]
mod tests {
    use assay_core::model::{HostPort, Namespaces, NodeInclusion, Protocol};

    use super::*;

    #[test]
    fn a_wrong_field_is_named_with_what_was_expected() {
        let cases = [
            (
                json!({"containers": [{"resources": {"requests": {"cpu": "lots"}}}]}),
                "pods.yaml: Pod p: spec.containers[0].resources.requests.cpu: ",
            ),
            (
                json!({"containers": [{"resources": {"requests": {"cpu": "-1"}}}]}),
                "pods.yaml: Pod p: spec.containers[0].resources.requests.cpu: expected a quantity of zero or more",
            ),
            (
                json!({"containers": [{"resources": {"limits": {"nvidia.com/gpu": "500m"}}}]}),
                "pods.yaml: Pod p: spec.containers[0].resources.limits.nvidia.com/gpu: expected a whole number, found 500m",
            ),
            (
                json!({"overhead": {"cpu": "-1"}}),
                "pods.yaml: Pod p: spec.overhead.cpu: expected a quantity of zero or more, found -1",
            ),
            (
                json!({"resources": {"requests": {"nvidia.com/gpu": "1"}}}),
                "pods.yaml: Pod p: spec.resources.requests.nvidia.com/gpu: expected cpu, memory or hugepages",
            ),
            (
                json!({"containers": 7}),
                "pods.yaml: Pod p: spec.containers: expected a list, found integer `7`",
            ),
            (
                json!({"tolerations": [{"key": "a", "operator": "Maybe"}]}),
                "pods.yaml: Pod p: spec.tolerations[0].operator: expected Exists or Equal, found \"Maybe\"",
            ),
        ];
        for (spec, start) in cases {
            let error = pod_spec_from_value("pods.yaml", "p", spec).unwrap_err().to_string();
            assert!(error.starts_with(start), "{error}\ndoes not start with\n{start}");
        }
    }

    #[test]
    fn what_holds_a_pod_back_is_named() {
        let spec = json!({
            "schedulingGates": [{"name": "example.com/quota"}],
            "resourceClaims": [{"name": "gpu"}],
            "volumes": [{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": "data"}}],
        });
        let spec = pod_spec_from_value("-", "p", spec).unwrap();
        let reasons: Vec<_> = spec.rejections.iter().map(|rejection| rejection.reason).collect();
        let expected =
            [ReasonCode::SchedulingGated, ReasonCode::ResourceClaims, ReasonCode::VolumeConstraint];
        assert_eq!(reasons, expected);
        assert!(spec.rejections[0].detail.contains("example.com/quota"));
    }

    #[test]
    fn constraints_between_pods_are_read_with_every_field() {
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]});
        let value = json!({"kind": "Pod", "metadata": {"name": "p", "labels": {"version": "2"}}, "spec": {
            "topologySpreadConstraints": [{"maxSkew": 2, "minDomains": 3, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
                "labelSelector": selector, "matchLabelKeys": ["version", "unknown"], "nodeTaintsPolicy": "Honor"}],
            "affinity": {"podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "host", "labelSelector": selector, "namespaceSelector": {}, "mismatchLabelKeys": ["version"]}],
                "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "podAffinityTerm": {"topologyKey": "zone"}}]}},
            "hostNetwork": true,
            "initContainers": [{"ports": [{"containerPort": 9, "hostIP": "10.0.0.1", "protocol": "UDP"}]}],
        }});
        let document = Document { file: "-".to_owned(), number: 1, kind: "Pod".to_owned(), value };
        let pod = read(&document, &Meta::read(&document).unwrap(), &Context::default()).unwrap();
        let spread = &pod.spec.topology_spread[0];
        assert_eq!(
            (spread.max_skew, spread.min_domains, spread.node_taints_policy),
            (2, 3, NodeInclusion::Honor)
        );
        let listed = |labels: &Option<Vec<Requirement>>| {
            labels.iter().flatten().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(listed(&spread.selector.labels), ["app In [web]", "tier Exists", "version In [2]"]);
        let term = &pod.spec.pod_anti_affinity[0];
        assert_eq!(listed(&term.selector.labels), ["app In [web]", "tier Exists", "version NotIn [2]"]);
        assert_eq!(term.selector.namespaces, Namespaces::All);
        let preferred = &pod.spec.preferred_pod_anti_affinity[0];
        assert_eq!((preferred.weight, &preferred.term.selector.labels), (7, &None));
        let port = HostPort { ip: Some("10.0.0.1".to_owned()), port: 9, protocol: Protocol::Udp };
        assert_eq!(pod.spec.host_ports, [port]);
    }
}
