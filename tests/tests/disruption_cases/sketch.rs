//! Clusters in few lines. A document of kind `Sketch` stands for one pool, nodes with their claims, and pods on them:
//!
//! ```yaml
//! kind: Sketch
//! pool: {consolidateAfter: 0s}          # spec.disruption of NodePool `general`; `annotations`, `spec` for the rest
//! nodes:
//!   a: {type: large, pods: [500m, 500m]}   # zone z-1, on-demand; a pod by its CPU, named a-0, a-1
//! pods: {a-0: {annotations: {…}, labels: {…}, spec: {…}, status: {…}}}   # more of a pod
//! ```
//!
//! Of a node may be told: `type`, `zone`, `capacity`, `pool`, `pods`, `count` (so many alike, named a0, a1, …), `age` and `quiet`
//! (for how long, of each), `annotations`, `claim` (more annotations of the claim), `taints`, `ready`, `initialized: false`, `conditions`,
//! `claimConditions`, `claimSpec`, `claimStatus`, `kubelet`, `deleted`.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// Noon of 4 March 2026 in seconds since the epoch.
const NOON: i64 = 1_772_625_600;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Sketch {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    pool: Option<Value>,
    #[serde(default)]
    nodes: BTreeMap<String, SketchedNode>,
    #[serde(default)]
    pods: BTreeMap<String, Map<String, Value>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SketchedNode {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default = "zone")]
    zone: String,
    #[serde(default = "on_demand")]
    capacity: String,
    #[serde(default = "general")]
    pool: String,
    #[serde(default)]
    pods: Vec<String>,
    count: Option<usize>,
    #[serde(default = "days")]
    age: String,
    quiet: Option<String>,
    #[serde(default)]
    annotations: Map<String, Value>,
    #[serde(default)]
    labels: Map<String, Value>,
    #[serde(default)]
    claim: Map<String, Value>,
    #[serde(default)]
    taints: Vec<Value>,
    #[serde(default = "yes")]
    ready: bool,
    #[serde(default = "yes")]
    initialized: bool,
    #[serde(default)]
    conditions: Vec<Value>,
    #[serde(default)]
    claim_conditions: Vec<Value>,
    #[serde(default)]
    claim_spec: Map<String, Value>,
    #[serde(default)]
    claim_status: Map<String, Value>,
    kubelet: Option<String>,
    #[serde(default)]
    deleted: bool,
}

fn zone() -> String {
    "z-1".to_owned()
}

fn on_demand() -> String {
    "on-demand".to_owned()
}

fn general() -> String {
    "general".to_owned()
}

fn days() -> String {
    "100h".to_owned()
}

fn yes() -> bool {
    true
}

/// What can be bought: a catalogue of `tests/plans/catalogs` by name; or a list of types as `[name, cores, GiB, {offering: price}]`,
/// an offering being `zone/capacity type`; or anything else as it is.
pub(crate) fn catalog(told: &Value) -> Value {
    match told {
        Value::String(name) => {
            let path = format!("{}/plans/catalogs/{name}.json", env!("CARGO_MANIFEST_DIR"));
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
        }
        Value::Array(types) => json!({"instanceTypes": types.iter().map(of_line).collect::<Vec<_>>()}),
        other => other.clone(),
    }
}

fn of_line(line: &Value) -> Value {
    let offerings = line[3].as_object().into_iter().flatten().map(|(offering, price)| {
        let (zone, capacity_type) = offering.split_once('/').unwrap_or((offering, "on-demand"));
        json!({"zone": zone, "capacityType": capacity_type, "price": price, "available": true})
    });
    json!({"name": line[0], "capacity": {"cpu": line[1].to_string(), "memory": format!("{}Gi", line[2]), "pods": "110"},
        "requirements": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
            {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}],
        "offerings": offerings.collect::<Vec<_>>()})
}

/// The documents with what the sketch stands for, as one list.
pub(crate) fn manifests(documents: &str) -> anyhow::Result<String> {
    let mut items = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(documents) {
        let value = Value::deserialize(document)?;
        if value["kind"] == "Sketch" {
            let sketch: Sketch = serde_json::from_value(value)?;
            items.extend(expand(&sketch)?);
        } else if !value.is_null() {
            items.push(value);
        }
    }
    Ok(json!({"kind": "List", "items": items}).to_string())
}

fn expand(sketch: &Sketch) -> anyhow::Result<Vec<Value>> {
    let mut items = Vec::new();
    if let Some(told) = &sketch.pool {
        let mut spec = told.get("spec").cloned().unwrap_or_else(|| json!({}));
        let mut disruption = told.clone();
        let annotations = disruption.as_object_mut().and_then(|fields| {
            fields.remove("spec");
            fields.remove("annotations")
        });
        let template = json!({"spec": {"requirements": []}});
        let spec_fields = spec.as_object_mut().context("pool.spec")?;
        spec_fields.entry("template").or_insert(template);
        spec_fields.entry("disruption").or_insert(disruption);
        items.push(json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "spec": spec,
            "metadata": {"name": "general", "annotations": annotations}}));
    }
    let mut known = sketch.pods.clone();
    for (name, node) in &sketch.nodes {
        match node.count {
            None => items.extend(node_and_claim(name, node, &mut known)?),
            Some(count) => {
                for number in 0..count {
                    items.extend(node_and_claim(&format!("{name}{number}"), node, &mut known)?);
                }
            }
        }
    }
    if let Some(pod) = known.keys().next() {
        bail!("no node has pod {pod}");
    }
    Ok(items)
}

fn node_and_claim(
    name: &str,
    node: &SketchedNode,
    known: &mut BTreeMap<String, Map<String, Value>>,
) -> anyhow::Result<Vec<Value>> {
    let created = before_noon(&node.age)?;
    let mut labels = json!({"karpenter.sh/nodepool": node.pool, "karpenter.sh/capacity-type": node.capacity,
        "karpenter.sh/registered": "true", "node.kubernetes.io/instance-type": node.kind,
        "topology.kubernetes.io/zone": node.zone, "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"});
    let mut conditions = vec![
        json!({"type": "Launched", "status": "True", "lastTransitionTime": created}),
        json!({"type": "Registered", "status": "True", "lastTransitionTime": created}),
    ];
    if node.initialized {
        labels["karpenter.sh/initialized"] = json!("true");
        conditions.push(json!({"type": "Initialized", "status": "True", "lastTransitionTime": created}));
    }
    let claim_labels = labels.clone();
    labels["kubernetes.io/hostname"] = json!(name);
    if let Some(fields) = labels.as_object_mut() {
        fields.extend(node.labels.clone());
    }
    conditions.extend(node.claim_conditions.iter().cloned());
    let capacity = capacity_of(&node.kind);
    let mut metadata = json!({"name": name, "labels": claim_labels, "annotations": node.claim, "creationTimestamp": created});
    if node.deleted {
        metadata["deletionTimestamp"] = json!(before_noon("1m")?);
    }
    let mut status =
        json!({"nodeName": name, "conditions": conditions, "capacity": capacity, "allocatable": capacity});
    if let Some(quiet) = &node.quiet {
        status["lastPodEventTime"] = json!(before_noon(quiet)?);
    }
    if let Some(fields) = status.as_object_mut() {
        fields.extend(node.claim_status.clone());
    }
    let mut spec = json!({"requirements": []});
    if let Some(fields) = spec.as_object_mut() {
        fields.extend(node.claim_spec.clone());
    }
    let claim = json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim", "metadata": metadata, "spec": spec, "status": status});
    let mut node_conditions = node.conditions.clone();
    if node_conditions.iter().all(|one| one["type"] != "Ready") {
        node_conditions.push(json!({"type": "Ready", "status": if node.ready { "True" } else { "False" }}));
    }
    let kubelet = node.kubelet.as_ref().map(|version| json!({"kubeletVersion": version}));
    let mut items = vec![
        claim,
        json!({"apiVersion": "v1", "kind": "Node", "spec": {"taints": node.taints},
            "metadata": {"name": name, "labels": labels, "annotations": node.annotations, "creationTimestamp": created},
            "status": {"capacity": capacity, "allocatable": capacity, "conditions": node_conditions,
                "nodeInfo": kubelet.unwrap_or_else(|| json!({}))}}),
    ];
    for (number, cpu) in node.pods.iter().enumerate() {
        let pod = format!("{name}-{number}");
        let more = known.remove(&pod).unwrap_or_default();
        items.push(pod_on(name, &pod, cpu, &more));
    }
    Ok(items)
}

fn pod_on(node: &str, name: &str, cpu: &str, more: &Map<String, Value>) -> Value {
    let owner = more.get("owner").and_then(Value::as_str).unwrap_or("ReplicaSet");
    let created = more.get("age").and_then(Value::as_str).and_then(|age| before_noon(age).ok());
    let mut metadata = json!({"name": name, "labels": more.get("labels"), "annotations": more.get("annotations"),
        "creationTimestamp": created.unwrap_or_else(|| "2026-03-01T00:00:00Z".to_owned()),
        "ownerReferences": [{"kind": owner, "name": "owner", "apiVersion": "apps/v1", "uid": "1"}]});
    if let Some(deleted) = more.get("deletionTimestamp") {
        metadata["deletionTimestamp"] = deleted.clone();
    }
    let mut spec = json!({"nodeName": node, "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}}]});
    if let (Some(fields), Some(own)) = (spec.as_object_mut(), more.get("spec").and_then(Value::as_object)) {
        fields.extend(own.clone());
    }
    let status = more.get("status").cloned().unwrap_or_else(|| json!({"phase": "Running"}));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
}

/// What nodes of a type have: cores from the end of its name, or of the types of `general`.
fn capacity_of(kind: &str) -> Value {
    let (cpu, memory) = match kind {
        "small" => (1_900, "3996Mi"),
        "large" => (7_800, "32268Mi"),
        "gpu" => (7_800, "64Gi"),
        other => {
            let digits: String = other.chars().rev().take_while(char::is_ascii_digit).collect();
            let cores: u64 = digits.chars().rev().collect::<String>().parse().unwrap_or(4);
            return json!({"cpu": cores.to_string(), "memory": format!("{}Gi", 4 * cores), "pods": "110"});
        }
    };
    json!({"cpu": format!("{cpu}m"), "memory": memory, "pods": "110"})
}

/// RFC 3339 of a time so long before noon; after it with a `-`.
fn before_noon(age: &str) -> anyhow::Result<String> {
    let (sign, age) = age.strip_prefix('-').map_or((1, age), |rest| (-1, rest));
    let mut seconds = 0_i64;
    let mut digits = String::new();
    for letter in age.chars() {
        let unit = match letter {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => {
                digits.push(letter);
                continue;
            }
        };
        seconds += unit * digits.parse::<i64>().with_context(|| age.to_owned())?;
        digits.clear();
    }
    let time = NOON - sign * seconds;
    let (day, rest) = (time.div_euclid(86_400), time.rem_euclid(86_400));
    // Days from 1 January 2026, on which the epoch was 20,454 days old.
    let mut left = day - 20_454;
    let mut year = 2026;
    while left < 0 {
        year -= 1;
        left += if year % 4 == 0 { 366 } else { 365 };
    }
    let february = if year % 4 == 0 { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if left < length {
            break;
        }
        left -= length;
        month += 1;
    }
    Ok(format!(
        "{year}-{month:02}-{:02}T{:02}:{:02}:{:02}Z",
        left + 1,
        rest / 3600,
        rest / 60 % 60,
        rest % 60
    ))
}
