//! Pods: what they take and where they may go.
//!
//! The amount a pod takes follows Kubernetes' resource helpers: the larger of its running containers together and its init
//! containers one by one, with restartable init containers (KEP-753) running on, plus overhead; a pod-level request (KEP-2837)
//! stands for the containers'; a limit stands for a missing request.

use std::sync::Arc;

use assay_core::model::{
    Labels, Pod, PodOwner, PodPhase, PodSpec, PreferredTerm, ReasonCode, Rejection, ResourceList, Taint,
    TaintEffect, Timestamp, Toleration, TolerationOperator,
};
use assay_core::requirement::{Operator, Requirement, ValueSet};
use serde_json::{Value, json};

use super::constraints::{self, Subject};
use super::context::Context;
use super::document::Document;
use super::error::ManifestError;
use super::objects::{self, Expression, Meta, PodObject, Quantities, Resources, TaintObject};
use super::storage::Needs;
use super::{aligned, gang, syntax};

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
    meta.check(document, "metadata")?;
    let mut object: PodObject = document.typed()?;
    let id = meta.pod_id();
    let subject = Subject { document, context, namespace: &id.namespace, labels: &meta.labels };
    set_aside(&mut object);
    let mut spec = spec(subject, "spec", &object.spec)?;
    // A pod that an API server has taken in had its class then.
    if object.spec.node_name.is_empty() && meta.creation_timestamp.is_none() {
        context.check_runtime(document, "spec", &object.spec)?;
    }
    let node = Some(object.spec.node_name).filter(|name| !name.is_empty());
    let mut needs = context.storage.needs((&id.namespace, &id.name), &object.spec.volumes, &[]);
    if node.is_some() {
        // It runs: what may be wrong with its claims is over.
        needs.rejections.clear();
        needs.topology.clear();
    }
    apply(&needs, &mut spec);
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
    let class = &object.spec.priority_class_name;
    Ok(Pod {
        labels: Arc::new(meta.labels.clone()),
        annotations: Arc::new(meta.annotations.clone()),
        priority: context.priority(document, "spec", object.spec.priority, class)?,
        created: timestamp(document, meta.creation_timestamp.as_deref())?,
        phase,
        owner,
        node: node.map(Into::into),
        terminating: meta.deletion_timestamp.is_some(),
        volumes: needs.attached.into(),
        gang: gang::of_pod(document, context, &id.namespace, &meta.labels, &meta.annotations)?,
        ..Pod::new(id, Arc::new(spec))
    })
}

/// Adds what volumes ask for to a spec.
pub(super) fn apply(needs: &Needs, spec: &mut PodSpec) {
    spec.volume_topology.extend(needs.topology.iter().cloned());
    spec.rejections.extend(needs.rejections.iter().cloned());
}

/// Raises requests to what the kubelet has set aside: while a pod is resized in place, the larger counts.
fn set_aside(object: &mut PodObject) {
    let status = &object.status;
    for (containers, statuses) in [
        (&mut object.spec.containers, &status.container_statuses),
        (&mut object.spec.init_containers, &status.init_container_statuses),
    ] {
        for container in containers {
            let Some(status) = statuses.iter().find(|status| status.name == container.name) else { continue };
            for list in [&status.allocated_resources, &status.resources.requests] {
                for (name, amount) in list {
                    // A limit stands for a missing request here too.
                    let Resources { requests, limits } = &mut container.resources;
                    let limit = limits.get(name).copied().unwrap_or(*amount);
                    let asked = requests.entry(name.clone()).or_insert(limit);
                    if asked.milli_value() < amount.milli_value() {
                        *asked = *amount;
                    }
                }
            }
        }
    }
}

pub(super) fn timestamp(document: &Document, text: Option<&str>) -> Result<Timestamp, ManifestError> {
    let Some(text) = text else { return Ok(Timestamp::default()) };
    let parsed: jiff::Timestamp = text.parse().map_err(|_| {
        let field = "metadata.creationTimestamp";
        document.error(field, format!("expected a time such as 2026-01-31T12:00:00Z, found {text:?}"))
    })?;
    Ok(Timestamp(u64::try_from(parsed.as_millisecond()).unwrap_or(0)))
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
    let affinity = &spec.affinity.node_affinity;
    let affinity_path = format!("{path}.affinity.nodeAffinity");
    let mut rejections = rejections(path, spec);
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
                required.push(vec![
                    Requirement { operator: Operator::DoesNotExist, ..nothing.clone() },
                    Requirement { operator: Operator::Exists, ..nothing },
                ]);
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
            &context.services,
            subject.namespace,
            subject.labels,
            owner.as_deref(),
        );
    }
    let mut requests = requests(document, path, spec)?;
    if spec.overhead.is_empty()
        && !spec.runtime_class_name.is_empty()
        && let Some(overhead) = context.runtimes.get(&spec.runtime_class_name)
    {
        requests += overhead;
    }
    Ok(PodSpec {
        requests,
        node_selector: selector,
        required_affinity: required,
        preferred_affinity: preferred,
        tolerations,
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
        syntax::check_key(document, || format!("{field}.key"), &expression.key)?;
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
        // The other operators' values are numbers, or none.
        if matches!(operator, Operator::In | Operator::NotIn) {
            for (number, value) in requirement.values.iter().enumerate() {
                syntax::check_value(document, || format!("{field}.values[{number}]"), value)?;
            }
        }
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
    if !object.key.is_empty() {
        syntax::check_key(document, || format!("{path}.key"), &object.key)?;
    }
    if let TolerationOperator::Equal(value) = &operator {
        syntax::check_value(document, || format!("{path}.value"), value)?;
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
        syntax::check_key(document, || format!("{path}[{index}].key"), &object.key)?;
        syntax::check_value(document, || format!("{path}[{index}].value"), &object.value)?;
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

    use assay_core::model::{HostPort, Namespaces, NodeInclusion, Protocol};

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
