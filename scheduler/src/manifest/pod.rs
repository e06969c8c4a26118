//! Pods: what they take and where they may go.
//!
//! The amount a pod takes follows Kubernetes' resource helpers: the larger of its running containers together and its init
//! containers one by one, with restartable init containers (KEP-753) running on, plus overhead; a pod-level request (KEP-2837)
//! stands for the containers'; a limit stands for a missing request.

use std::sync::Arc;

use assay_core::model::{
    Pod, PodOwner, PodPhase, PodSpec, PreferredTerm, ReasonCode, Rejection, ResourceList, Taint, TaintEffect,
    Timestamp, Toleration, TolerationOperator,
};
use assay_core::requirement::{Operator, Requirement, ValueSet};
use serde_json::{Value, json};

use super::document::Document;
use super::error::ManifestError;
use super::objects::{self, Expression, Meta, PodObject, Quantities, Resources, TaintObject};
use super::storage::Storage;

/// Why a pod spec that stands in another document cannot be used.
pub type PodTemplateError = ManifestError;

/// A pod spec on its own, such as a scenario holds; `what` names it in errors.
pub fn pod_spec_from_value(file: &str, what: &str, value: Value) -> Result<PodSpec, PodTemplateError> {
    let value = json!({"kind": "Pod", "metadata": {"name": what}, "spec": value});
    let document = Document { file: file.to_owned(), number: 0, kind: "Pod".to_owned(), value };
    let object: PodObject = document.typed()?;
    spec(&document, "spec", &object.spec, &Storage::default())
}

/// A pod.
pub(super) fn read(document: &Document, meta: &Meta, storage: &Storage) -> Result<Pod, ManifestError> {
    let object: PodObject = document.typed()?;
    let spec = Arc::new(spec(document, "spec", &object.spec, storage)?);
    let phase = match object.status.phase.as_str() {
        "" | "Pending" => PodPhase::Pending,
        "Succeeded" | "Failed" => PodPhase::Finished,
        _ => PodPhase::Running,
    };
    let mirror = meta.annotations.contains_key("kubernetes.io/config.mirror");
    let owned_by = |kind: &str| meta.owner_references.iter().any(|owner| owner.kind == kind);
    let owner = if mirror || owned_by("Node") {
        PodOwner::Node
    } else if owned_by("DaemonSet") {
        PodOwner::DaemonSet
    } else if meta.owner_references.is_empty() {
        PodOwner::Nobody
    } else {
        PodOwner::Controller
    };
    let node = Some(object.spec.node_name).filter(|name| !name.is_empty());
    Ok(Pod {
        id: meta.pod_id(),
        labels: Arc::new(meta.labels.clone()),
        annotations: Arc::new(meta.annotations.clone()),
        spec,
        priority: object.spec.priority.unwrap_or(0),
        created: timestamp(document, meta.creation_timestamp.as_deref())?,
        phase,
        owner,
        node: node.map(Into::into),
        terminating: meta.deletion_timestamp.is_some(),
        volumes: Arc::default(),
        gang: None,
    })
}

pub(super) fn timestamp(document: &Document, text: Option<&str>) -> Result<Timestamp, ManifestError> {
    let Some(text) = text else { return Ok(Timestamp::default()) };
    let parsed: jiff::Timestamp = text.parse().map_err(|_| {
        let field = "metadata.creationTimestamp";
        document.error(field, format!("expected a time such as 2026-01-31T12:00:00Z, found {text:?}"))
    })?;
    Ok(Timestamp(u64::try_from(parsed.as_millisecond()).unwrap_or(0)))
}

/// What a pod with this spec needs. `path` is where the spec stands in the document.
pub(super) fn spec(
    document: &Document,
    path: &str,
    spec: &objects::PodSpec,
    storage: &Storage,
) -> Result<PodSpec, ManifestError> {
    let mut selector = Vec::new();
    for (key, value) in &spec.node_selector {
        selector.push(Requirement::is_in(key, [value.as_str()]));
    }
    let affinity = &spec.affinity.node_affinity;
    let affinity_path = format!("{path}.affinity.nodeAffinity");
    let mut rejections = unsupported(document, path, spec, storage);
    let mut required = Vec::new();
    if let Some(terms) = &affinity.required {
        let path =
            format!("{affinity_path}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        if terms.node_selector_terms.is_empty() {
            return Err(document.error(&path, "expected at least one term, found none"));
        }
        for (index, term) in terms.node_selector_terms.iter().enumerate() {
            let path = format!("{path}[{index}]");
            if !term.match_fields.is_empty() {
                rejections.push(not_supported(format!("{path}.matchFields")));
            }
            // Kubernetes: an empty term matches no node.
            if !term.match_expressions.is_empty() {
                required.push(requirements(
                    document,
                    &format!("{path}.matchExpressions"),
                    &term.match_expressions,
                )?);
            } else if term.match_fields.is_empty() {
                let nothing =
                    Requirement::is_in(assay_shared::labels::kubernetes::HOSTNAME, Vec::<String>::new());
                required.push(vec![Requirement { operator: Operator::DoesNotExist, ..nothing }]);
            }
        }
    }
    let mut preferred = Vec::new();
    for (index, term) in affinity.preferred.iter().enumerate() {
        let path = format!("{affinity_path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
        if !(1..=100).contains(&term.weight) {
            let problem = format!("expected 1 to 100, found {}", term.weight);
            return Err(document.error(&format!("{path}.weight"), problem));
        }
        let expressions = &term.preference.match_expressions;
        let requirements =
            requirements(document, &format!("{path}.preference.matchExpressions"), expressions)?;
        preferred.push(PreferredTerm { weight: term.weight, requirements });
    }
    preferred.sort_by_key(|term| std::cmp::Reverse(term.weight));
    let mut tolerations = Vec::new();
    for (index, toleration) in spec.tolerations.iter().enumerate() {
        tolerations.push(tolerate(document, &format!("{path}.tolerations[{index}]"), toleration)?);
    }
    Ok(PodSpec {
        requests: requests(document, path, spec)?,
        node_selector: selector,
        required_affinity: required,
        preferred_affinity: preferred,
        tolerations,
        rejections,
        ..PodSpec::default()
    })
}

/// Hard constraints that placement does not understand yet. Soft ones are left out of account, as Kubernetes allows.
fn unsupported(
    document: &Document,
    path: &str,
    spec: &objects::PodSpec,
    storage: &Storage,
) -> Vec<Rejection> {
    let mut fields = Vec::new();
    for (index, constraint) in spec.topology_spread_constraints.iter().enumerate() {
        if constraint.when_unsatisfiable != "ScheduleAnyway" {
            fields.push(format!("{path}.topologySpreadConstraints[{index}]"));
        }
    }
    for (name, affinity) in
        [("podAffinity", &spec.affinity.pod_affinity), ("podAntiAffinity", &spec.affinity.pod_anti_affinity)]
    {
        if !affinity.required.is_empty() {
            fields.push(format!("{path}.affinity.{name}.requiredDuringSchedulingIgnoredDuringExecution"));
        }
    }
    let containers = [("containers", &spec.containers), ("initContainers", &spec.init_containers)];
    for (list, containers) in containers {
        for (index, container) in containers.iter().enumerate() {
            if spec.host_network || container.ports.iter().any(|port| port.host_port != 0) {
                let ports = container.ports.iter().filter(|port| spec.host_network || port.host_port != 0);
                if ports.count() > 0 {
                    fields.push(format!("{path}.{list}[{index}].ports"));
                }
            }
        }
    }
    for (index, volume) in spec.volumes.iter().enumerate() {
        if !storage.leaves_free(document.namespace(), volume) {
            fields.push(format!("{path}.volumes[{index}]"));
        }
    }
    if !spec.scheduling_gates.is_empty() {
        fields.push(format!("{path}.schedulingGates"));
    }
    if !spec.resource_claims.is_empty() {
        fields.push(format!("{path}.resourceClaims"));
    }
    fields.into_iter().map(not_supported).collect()
}

fn not_supported(field: String) -> Rejection {
    Rejection { reason: ReasonCode::UnsupportedConstraint, detail: format!("not supported: {field}") }
}

/// Requirements of a manifest, checked.
pub(super) fn requirements(
    document: &Document,
    path: &str,
    expressions: &[Expression],
) -> Result<Vec<Requirement>, ManifestError> {
    let mut list = Vec::new();
    for (index, expression) in expressions.iter().enumerate() {
        let field = format!("{path}[{index}]");
        if expression.key.is_empty() {
            return Err(document.error(&format!("{field}.key"), "expected a label key, found none"));
        }
        let operator: Operator = expression
            .operator
            .parse()
            .map_err(|problem| document.error(&format!("{field}.operator"), problem))?;
        let requirement = Requirement {
            key: expression.key.clone(),
            operator,
            values: expression.values.clone(),
            min_values: expression.min_values,
        };
        ValueSet::from_requirement(&requirement)
            .map_err(|error| document.error(&format!("{field}.values"), error.to_string()))?;
        list.push(requirement);
    }
    Ok(list)
}

fn effect(document: &Document, field: &str, text: &str) -> Result<TaintEffect, ManifestError> {
    match text {
        "NoSchedule" => Ok(TaintEffect::NoSchedule),
        "PreferNoSchedule" => Ok(TaintEffect::PreferNoSchedule),
        "NoExecute" => Ok(TaintEffect::NoExecute),
        other => {
            let problem = format!("expected NoSchedule, PreferNoSchedule or NoExecute, found {other:?}");
            Err(document.error(field, problem))
        }
    }
}

fn tolerate(
    document: &Document,
    path: &str,
    object: &objects::TolerationObject,
) -> Result<Toleration, ManifestError> {
    let operator = match object.operator.as_str() {
        "" | "Equal" => TolerationOperator::Equal(object.value.clone()),
        "Exists" => TolerationOperator::Exists,
        other => {
            let problem = format!("expected Exists or Equal, found {other:?}");
            return Err(document.error(&format!("{path}.operator"), problem));
        }
    };
    if object.key.is_empty() && operator != TolerationOperator::Exists {
        return Err(
            document.error(&format!("{path}.key"), "expected a key, or operator Exists, found neither")
        );
    }
    let effect = match object.effect.as_str() {
        "" => None,
        text => Some(effect(document, &format!("{path}.effect"), text)?),
    };
    Ok(Toleration { key: Some(object.key.clone()).filter(|key| !key.is_empty()), operator, effect })
}

/// Taints of a node or a pool.
pub(super) fn taints(
    document: &Document,
    path: &str,
    objects: &[TaintObject],
) -> Result<Vec<Taint>, ManifestError> {
    let taint = |(index, object): (usize, &TaintObject)| {
        let effect = effect(document, &format!("{path}[{index}].effect"), &object.effect)?;
        Ok(Taint { key: object.key.clone(), value: object.value.clone(), effect })
    };
    objects.iter().enumerate().map(taint).collect()
}

/// Amounts by resource name, in the core's units. `pods` is left to the caller.
pub(super) fn resource_list(
    document: &Document,
    path: &str,
    list: &Quantities,
) -> Result<ResourceList, ManifestError> {
    let mut resources = ResourceList::default();
    for (name, quantity) in list {
        let wrong = |error: assay_shared::quantity::QuantityError| {
            document.error(&format!("{path}.{name}"), error.to_string())
        };
        match name.as_str() {
            "cpu" => resources.cpu = quantity.to_milli_cpu().map_err(wrong)?,
            "memory" => resources.memory = quantity.to_bytes().map_err(wrong)?,
            "ephemeral-storage" => resources.ephemeral_storage = quantity.to_bytes().map_err(wrong)?,
            "pods" => resources.pods = quantity.to_count().map_err(wrong)?,
            other => resources.set_extended(other, quantity.to_count().map_err(wrong)?),
        }
    }
    Ok(resources)
}

/// What one container, or a pod as a whole, asks for: its requests, and its limits where a request is missing.
fn asked(document: &Document, path: &str, resources: &Resources) -> Result<ResourceList, ManifestError> {
    let missing = resources.limits.iter().filter(|(name, _)| !resources.requests.contains_key(*name));
    let limits: Quantities = missing.map(|(name, quantity)| (name.clone(), *quantity)).collect();
    let mut sum = ResourceList::default();
    for (list, listed) in [("requests", &resources.requests), ("limits", &limits)] {
        let path = format!("{path}.resources.{list}");
        for (name, quantity) in listed {
            // As the API server: half a GPU cannot be given.
            if !is_divisible(name) && quantity.milli_value() % 1000 != 0 {
                let problem = format!("expected a whole number, found {quantity}");
                return Err(document.error(&format!("{path}.{name}"), problem));
            }
        }
        sum += &resource_list(document, &path, listed)?;
    }
    Ok(sum)
}

/// Whether a container may ask for a fraction of it.
fn is_divisible(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

/// Whether a pod may ask for it as a whole (KEP-2837).
fn is_of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// What a pod takes, its slot included.
fn requests(document: &Document, path: &str, spec: &objects::PodSpec) -> Result<ResourceList, ManifestError> {
    let mut running = ResourceList::default();
    for (index, object) in spec.containers.iter().enumerate() {
        running += &asked(document, &format!("{path}.containers[{index}]"), &object.resources)?;
    }
    // Init containers run one after the other, beside the restartable ones that were started before them.
    let mut sidecars = ResourceList::default();
    let mut starting = ResourceList::default();
    for (index, object) in spec.init_containers.iter().enumerate() {
        let own = asked(document, &format!("{path}.initContainers[{index}]"), &object.resources)?;
        if object.restart_policy == "Always" {
            sidecars += &own;
            starting = starting.max_of_each(&sidecars);
        } else {
            starting = starting.max_of_each(&(own + &sidecars));
        }
    }
    let mut total = (running + &sidecars).max_of_each(&starting);
    let whole_pod = asked(document, path, &spec.resources)?;
    let containers = || spec.containers.iter().chain(&spec.init_containers);
    // The API server fills in a pod-level request from the containers', and from the pod-level limit only where none asks.
    let decides = |name: &str| {
        let of_container = |one: &objects::Container| {
            one.resources.requests.contains_key(name) || one.resources.limits.contains_key(name)
        };
        spec.resources.requests.contains_key(name)
            || spec.resources.limits.contains_key(name) && !containers().any(of_container)
    };
    for name in spec.resources.requests.keys().chain(spec.resources.limits.keys()) {
        if !is_of_pods(name) {
            let field = format!("{path}.resources.requests.{name}");
            return Err(document.error(&field, "expected cpu, memory or hugepages of a pod as a whole"));
        }
        match name.as_str() {
            _ if !decides(name) => {}
            "cpu" => total.cpu = whole_pod.cpu,
            "memory" => total.memory = whole_pod.memory,
            other => total.set_extended(other, whole_pod.extended(other)),
        }
    }
    total += &resource_list(document, &format!("{path}.overhead"), &spec.overhead)?;
    total.pods = 1;
    Ok(total)
}

#[cfg(test)]
mod tests {
    use assay_shared::units::{Bytes, MilliCpu};

    use super::*;

    fn taken(spec: Value) -> Result<ResourceList, String> {
        pod_spec_from_value("pods.yaml", "p", spec)
            .map(|spec| spec.requests)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_pod_takes_what_kubernetes_says_it_takes() {
        let c = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let cases = [
            (json!({"containers": [c("1"), c("500m")]}), 1500, "containers add up"),
            (
                json!({"containers": [c("1")], "initContainers": [c("2")]}),
                2000,
                "the larger of init and main",
            ),
            (json!({"containers": [c("1")], "initContainers": [sidecar("1")]}), 2000, "a sidecar runs on"),
            (
                json!({"containers": [c("1")], "initContainers": [sidecar("1"), c("3"), sidecar("2")]}),
                4000,
                "an init container runs beside the sidecars before it",
            ),
            (json!({"containers": [c("1")], "overhead": {"cpu": "250m"}}), 1250, "overhead is added"),
            (
                json!({"containers": [{"resources": {"limits": {"cpu": "2"}}}]}),
                2000,
                "a limit stands for a request",
            ),
            (
                json!({"containers": [c("1"), c("1")], "resources": {"requests": {"cpu": "3"}}}),
                3000,
                "a pod-level request stands for the containers'",
            ),
            (
                json!({"containers": [c("1"), c("1")], "resources": {"limits": {"cpu": "8"}}}),
                2000,
                "a pod-level limit stands for a request only where no container asks",
            ),
            (
                json!({"containers": [{}], "resources": {"limits": {"cpu": "8"}}}),
                8000,
                "a pod-level limit stands for a request where no container asks",
            ),
            (
                json!({"containers": [c("4")], "resources": {"requests": {"cpu": "3"}}}),
                3000,
                "a pod-level request counts even where it is smaller",
            ),
            (json!({}), 0, "nothing asked, nothing taken"),
        ];
        for (spec, milli, what) in cases {
            let taken = taken(spec).unwrap();
            assert_eq!((taken.cpu, taken.pods), (MilliCpu(milli), 1), "{what}");
        }
    }

    #[test]
    fn other_resources_are_kept_and_zeros_dropped() {
        let requests = json!({"nvidia.com/gpu": 2, "memory": "1Gi", "example.com/thing": "0"});
        let taken = taken(json!({"containers": [{"resources": {"requests": requests}}]})).unwrap();
        assert_eq!(taken.memory, Bytes::gib(1));
        assert_eq!(taken.extended.into_iter().collect::<Vec<_>>(), [("nvidia.com/gpu".to_owned(), 2)]);
    }

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
            let error = taken(spec).unwrap_err();
            assert!(error.starts_with(start), "{error}\ndoes not start with\n{start}");
        }
    }

    #[test]
    fn hard_constraints_that_are_not_understood_are_named_and_soft_ones_are_not() {
        let spec = json!({
            "topologySpreadConstraints": [{"whenUnsatisfiable": "ScheduleAnyway"}, {"whenUnsatisfiable": "DoNotSchedule"}],
            "volumes": [{"emptyDir": {}}, {"persistentVolumeClaim": {"claimName": "data"}}],
        });
        let spec = pod_spec_from_value("-", "p", spec).unwrap();
        let fields: Vec<_> = spec.rejections.into_iter().map(|rejection| rejection.detail).collect();
        assert_eq!(
            fields,
            ["not supported: spec.topologySpreadConstraints[1]", "not supported: spec.volumes[1]"]
        );
    }
}
