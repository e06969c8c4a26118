//! A plan, seen from its pods: which machine each is on, and what that machine is.

use std::collections::BTreeMap;

use assay_shared::labels::{karpenter, kubernetes};
use serde_json::Value;

/// Name of a machine or node, with its labels as far as they are certain.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) node: String,
    labels: BTreeMap<String, String>,
}

impl Place {
    /// A fact by its short name, or a label.
    pub(crate) fn fact(&self, name: &str) -> Option<&str> {
        let label = match name {
            "zone" => kubernetes::ZONE,
            "instanceType" => kubernetes::INSTANCE_TYPE,
            "capacityType" => karpenter::CAPACITY_TYPE,
            "pool" => karpenter::NODEPOOL,
            "node" => return Some(&self.node),
            label => label,
        };
        self.labels.get(label).map(String::as_str)
    }
}

/// What came out.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The document that was printed.
    pub(crate) plan: Value,
    /// Where each placed pod is.
    pub(crate) pods: BTreeMap<String, Place>,
}

impl Outcome {
    /// `objects` are the manifests, for labels of pools and nodes; `catalog` is for labels of sizes.
    pub(crate) fn new(plan: Value, objects: &[Value], catalog: &Value) -> Self {
        let of_kind = |kind: &str, name: &str| {
            objects.iter().find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        };
        let mut pods = BTreeMap::new();
        for machine in list(&plan["nodeClaims"]) {
            let mut labels = BTreeMap::new();
            let types = list(&catalog["instanceTypes"]);
            if let Some(size) = types.iter().find(|size| size["name"] == machine["instanceType"]) {
                settled(&size["requirements"], &mut labels);
            }
            if let Some(pool) = of_kind("NodePool", text(&machine["nodePool"])) {
                plain(&pool["spec"]["template"]["metadata"]["labels"], &mut labels);
            }
            settled(&machine["requirements"], &mut labels);
            for (label, field) in [
                (kubernetes::ZONE, "zone"),
                (kubernetes::INSTANCE_TYPE, "instanceType"),
                (karpenter::CAPACITY_TYPE, "capacityType"),
                (karpenter::NODEPOOL, "nodePool"),
                (kubernetes::HOSTNAME, "name"),
                ("reservation", "reservation"),
            ] {
                if let Some(value) = machine[field].as_str() {
                    labels.insert(label.to_owned(), value.to_owned());
                }
            }
            add(&mut pods, machine, labels);
        }
        for node in list(&plan["existingNodes"]) {
            let name = text(&node["name"]);
            let mut labels = BTreeMap::new();
            if let Some(claim) = of_kind("NodeClaim", name) {
                settled(&claim["spec"]["requirements"], &mut labels);
                plain(&claim["metadata"]["labels"], &mut labels);
            }
            if let Some(node) = of_kind("Node", name) {
                plain(&node["metadata"]["labels"], &mut labels);
            }
            labels.insert(kubernetes::HOSTNAME.to_owned(), name.to_owned());
            add(&mut pods, node, labels);
        }
        Self { plan, pods }
    }
}

fn add(pods: &mut BTreeMap<String, Place>, machine: &Value, labels: BTreeMap<String, String>) {
    let place = Place { node: text(&machine["name"]).to_owned(), labels };
    for pod in list(&machine["pods"]) {
        pods.insert(text(pod).to_owned(), place.clone());
    }
}

/// Labels of which a list of requirements leaves one value.
fn settled(requirements: &Value, labels: &mut BTreeMap<String, String>) {
    for requirement in list(requirements) {
        if let ("In", [value]) = (text(&requirement["operator"]), list(&requirement["values"])) {
            labels.insert(text(&requirement["key"]).to_owned(), text(value).to_owned());
        }
    }
}

fn plain(map: &Value, labels: &mut BTreeMap<String, String>) {
    for (key, value) in map.as_object().into_iter().flatten() {
        labels.insert(key.clone(), text(value).to_owned());
    }
}

pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
