//! Constraints between pods: `topologySpreadConstraints`, `podAffinity`, `podAntiAffinity`, and host ports.

use assay_core::model::{
    HostPort, Labels, Namespaces, NodeInclusion, PodAffinityTerm, PodSelector, Protocol, TopologySpread,
    WeightedPodAffinityTerm, WhenUnsatisfiable,
};
use assay_core::requirement::{Operator, Requirement, Requirements};
use serde::Deserialize;

use super::context::Context;
use super::document::Document;
use super::error::ManifestError;
use super::objects::{self, Expression};
use super::{node_terms, syntax};

/// A pod spec being read: where it stands and whose it is.
#[derive(Clone, Copy)]
pub(super) struct Subject<'a> {
    pub(super) document: &'a Document,
    pub(super) context: &'a Context,
    /// Namespace and labels of its pods.
    pub(super) namespace: &'a str,
    pub(super) labels: &'a Labels,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LabelSelector {
    match_labels: Labels,
    match_expressions: Vec<Expression>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SpreadConstraint {
    max_skew: i64,
    min_domains: Option<i64>,
    topology_key: String,
    when_unsatisfiable: String,
    label_selector: Option<LabelSelector>,
    node_affinity_policy: String,
    node_taints_policy: String,
    match_label_keys: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodAffinity {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Vec<AffinityTerm>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    preferred: Vec<WeightedTerm>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AffinityTerm {
    topology_key: String,
    label_selector: Option<LabelSelector>,
    namespaces: Vec<String>,
    namespace_selector: Option<LabelSelector>,
    match_label_keys: Vec<String>,
    mismatch_label_keys: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WeightedTerm {
    weight: i64,
    pod_affinity_term: AffinityTerm,
}

impl LabelSelector {
    /// What labels must satisfy.
    pub(super) fn requirements(
        &self,
        document: &Document,
        path: &str,
    ) -> Result<Vec<Requirement>, ManifestError> {
        syntax::check_labels(document, &format!("{path}.matchLabels"), &self.match_labels)?;
        let mut list: Vec<Requirement> =
            self.match_labels.iter().map(|(key, value)| Requirement::is_in(key, [value.as_str()])).collect();
        let path = format!("{path}.matchExpressions");
        let expressions = node_terms::requirements(document, &path, &self.match_expressions)?;
        for (index, one) in expressions.iter().enumerate() {
            if !matches!(
                one.operator,
                Operator::In | Operator::NotIn | Operator::Exists | Operator::DoesNotExist
            ) {
                let problem = format!("expected In, NotIn, Exists or DoesNotExist, found {}", one.operator);
                return Err(document.error(&format!("{path}[{index}].operator"), problem));
            }
        }
        list.extend(expressions);
        Ok(list)
    }
}

/// `topologySpreadConstraints`.
pub(super) fn spread(
    subject: Subject<'_>,
    path: &str,
    constraints: &[SpreadConstraint],
) -> Result<Vec<TopologySpread>, ManifestError> {
    let one = |(index, constraint): (usize, &SpreadConstraint)| {
        spread_one(subject, &format!("{path}[{index}]"), constraint)
    };
    constraints.iter().enumerate().map(one).collect()
}

fn spread_one(
    subject: Subject<'_>,
    path: &str,
    constraint: &SpreadConstraint,
) -> Result<TopologySpread, ManifestError> {
    let document = subject.document;
    let wrong = |field: &str, problem: String| document.error(&format!("{path}.{field}"), problem);
    let when_unsatisfiable = match constraint.when_unsatisfiable.as_str() {
        "DoNotSchedule" => WhenUnsatisfiable::DoNotSchedule,
        "ScheduleAnyway" => WhenUnsatisfiable::ScheduleAnyway,
        other => {
            let problem = format!("expected DoNotSchedule or ScheduleAnyway, found {other:?}");
            return Err(wrong("whenUnsatisfiable", problem));
        }
    };
    let positive = |field: &str, value: i64| {
        u32::try_from(value)
            .ok()
            .filter(|value| *value > 0)
            .ok_or_else(|| wrong(field, format!("expected a whole number of 1 or more, found {value}")))
    };
    if constraint.min_domains.is_some() && when_unsatisfiable == WhenUnsatisfiable::ScheduleAnyway {
        let problem = "expected none with whenUnsatisfiable ScheduleAnyway, found one".to_owned();
        return Err(wrong("minDomains", problem));
    }
    let policy = |field: &str, text: &str, default: NodeInclusion| match text {
        "" => Ok(default),
        "Honor" => Ok(NodeInclusion::Honor),
        "Ignore" => Ok(NodeInclusion::Ignore),
        other => Err(wrong(field, format!("expected Honor or Ignore, found {other:?}"))),
    };
    let mut labels = match &constraint.label_selector {
        Some(selector) => Some(selector.requirements(document, &format!("{path}.labelSelector"))?),
        None => None,
    };
    let keys = &constraint.match_label_keys;
    merge_keys(subject, &format!("{path}.matchLabelKeys"), keys, Operator::In, &mut labels)?;
    Ok(TopologySpread {
        topology_key: topology_key(document, path, &constraint.topology_key)?,
        max_skew: positive("maxSkew", constraint.max_skew)?,
        min_domains: constraint.min_domains.map_or(Ok(1), |value| positive("minDomains", value))?,
        selector: PodSelector { namespaces: Namespaces::only(subject.namespace), labels },
        when_unsatisfiable,
        node_affinity_policy: policy(
            "nodeAffinityPolicy",
            &constraint.node_affinity_policy,
            NodeInclusion::Honor,
        )?,
        node_taints_policy: policy(
            "nodeTaintsPolicy",
            &constraint.node_taints_policy,
            NodeInclusion::Ignore,
        )?,
    })
}

fn topology_key(document: &Document, path: &str, key: &str) -> Result<String, ManifestError> {
    if key.is_empty() {
        return Err(document.error(&format!("{path}.topologyKey"), "expected a node label, found none"));
    }
    syntax::check_key(document, || format!("{path}.topologyKey"), key)?;
    Ok(key.to_owned())
}

/// Adds the pod's own values of `keys` to a selector; keys that the pod does not have are ignored, as Kubernetes does.
fn merge_keys(
    subject: Subject<'_>,
    field: &str,
    keys: &[String],
    operator: Operator,
    selector: &mut Option<Vec<Requirement>>,
) -> Result<(), ManifestError> {
    for (index, key) in keys.iter().enumerate() {
        syntax::check_key(subject.document, || format!("{field}[{index}]"), key)?;
        if let (Some(list), Some(value)) = (selector.as_mut(), subject.labels.get(key)) {
            list.push(Requirement { operator, ..Requirement::is_in(key, [value.as_str()]) });
        }
    }
    Ok(())
}

/// Required and preferred terms of `podAffinity` or `podAntiAffinity`.
pub(super) fn affinity(
    subject: Subject<'_>,
    path: &str,
    affinity: &PodAffinity,
) -> Result<(Vec<PodAffinityTerm>, Vec<WeightedPodAffinityTerm>), ManifestError> {
    let mut required = Vec::new();
    for (index, one) in affinity.required.iter().enumerate() {
        let path = format!("{path}.requiredDuringSchedulingIgnoredDuringExecution[{index}]");
        required.push(term(subject, &path, one)?);
    }
    let mut preferred = Vec::new();
    for (index, one) in affinity.preferred.iter().enumerate() {
        let path = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
        let weight = u32::try_from(one.weight).ok().filter(|weight| (1..=100).contains(weight));
        let weight = weight.ok_or_else(|| {
            let problem = format!("expected 1 to 100, found {}", one.weight);
            subject.document.error(&format!("{path}.weight"), problem)
        })?;
        let term = term(subject, &format!("{path}.podAffinityTerm"), &one.pod_affinity_term)?;
        preferred.push(WeightedPodAffinityTerm { weight, term });
    }
    Ok((required, preferred))
}

fn term(subject: Subject<'_>, path: &str, one: &AffinityTerm) -> Result<PodAffinityTerm, ManifestError> {
    let document = subject.document;
    let mut labels = match &one.label_selector {
        Some(selector) => Some(selector.requirements(document, &format!("{path}.labelSelector"))?),
        None => None,
    };
    for (list, keys, operator) in [
        ("matchLabelKeys", &one.match_label_keys, Operator::In),
        ("mismatchLabelKeys", &one.mismatch_label_keys, Operator::NotIn),
    ] {
        merge_keys(subject, &format!("{path}.{list}"), keys, operator, &mut labels)?;
    }
    let mut named: std::collections::BTreeSet<String> = one.namespaces.iter().cloned().collect();
    let namespaces = match &one.namespace_selector {
        None if named.is_empty() => Namespaces::only(subject.namespace),
        None => Namespaces::Named(named),
        Some(selector) => {
            let list = selector.requirements(document, &format!("{path}.namespaceSelector"))?;
            if list.is_empty() {
                Namespaces::All
            } else {
                let field = format!("{path}.namespaceSelector");
                let needs = Requirements::from_list(&list)
                    .map_err(|error| document.error(&field, error.to_string()))?;
                named.extend(subject.context.namespaces_where(|labels| needs.check_labels(labels).is_ok()));
                Namespaces::Named(named)
            }
        }
    };
    let topology_key = topology_key(document, path, &one.topology_key)?;
    Ok(PodAffinityTerm { topology_key, selector: PodSelector { namespaces, labels } })
}

/// Ports of the node that the containers of a pod take, init containers and sidecars included.
pub(super) fn host_ports(
    document: &Document,
    path: &str,
    spec: &objects::PodSpec,
) -> Result<Vec<HostPort>, ManifestError> {
    let mut found = Vec::new();
    for (list, containers) in [("containers", &spec.containers), ("initContainers", &spec.init_containers)] {
        for (index, container) in containers.iter().enumerate() {
            for (number, port) in container.ports.iter().enumerate() {
                let field = format!("{path}.{list}[{index}].ports[{number}]");
                // On the host's network every port of a container is one of the host.
                let taken = if spec.host_network && port.host_port == 0 {
                    port.container_port
                } else {
                    port.host_port
                };
                if taken == 0 {
                    continue;
                }
                let taken = u16::try_from(taken).map_err(|_| {
                    document
                        .error(&format!("{field}.hostPort"), format!("expected 1 to 65535, found {taken}"))
                })?;
                let protocol = match port.protocol.as_str() {
                    "" | "TCP" => Protocol::Tcp,
                    "UDP" => Protocol::Udp,
                    "SCTP" => Protocol::Sctp,
                    other => {
                        let problem = format!("expected TCP, UDP or SCTP, found {other:?}");
                        return Err(document.error(&format!("{field}.protocol"), problem));
                    }
                };
                let every = matches!(port.host_ip.as_str(), "" | "0.0.0.0" | "::");
                let ip = (!every).then(|| port.host_ip.clone());
                found.push(HostPort { ip, port: taken, protocol });
            }
        }
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}
