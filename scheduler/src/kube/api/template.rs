//! What pools and claims have in common: requirements, taints, and the class of their nodes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::rule;
use super::schema::{LABEL_KEY, LABEL_VALUE};
use super::texts::texts;

/// One demand on the labels of a node: its size, its zone, its architecture, or labels of your own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rule::requirement()))]
pub struct Requirement {
    /// The label.
    #[schemars(length(max = 316), regex(pattern = LABEL_KEY))]
    pub key: String,
    /// How values are compared: one of the values (In), none of them (NotIn), any value (Exists), no such label
    /// (DoesNotExist), or a whole number above (Gt), at or above (Gte), below (Lt), at or below (Lte) the value.
    pub operator: RequirementOperator,
    /// What the label is compared with: any number of values for In and NotIn, none for Exists and DoesNotExist, one whole
    /// number for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", inner(length(max = 63), regex(pattern = LABEL_VALUE)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Option<Vec<String>>,
    /// How many different values of the label must stay possible, so that one that is sold out does not stop the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 50))]
    pub min_values: Option<i64>,
}

texts! {
    /// How a requirement compares.
    RequirementOperator {
        In = "In",
        NotIn = "NotIn",
        Exists = "Exists",
        DoesNotExist = "DoesNotExist",
        Gt = "Gt",
        Gte = "Gte",
        Lt = "Lt",
        Lte = "Lte",
    }
    /// What a taint does.
    TaintEffect { NoSchedule = "NoSchedule", PreferNoSchedule = "PreferNoSchedule", NoExecute = "NoExecute" }
}

fn requirements(generator: &mut SchemaGenerator, of_claim: bool) -> Schema {
    let mut item = Requirement::json_schema(generator);
    if let Some(key) = item.pointer_mut("/properties/key") {
        key["x-kubernetes-validations"] = json!(rule::requirement_key(of_claim));
    }
    json_schema!({"type": "array", "items": item, "maxItems": 100, "x-kubernetes-list-type": "atomic"})
}

/// Schema of the requirements of a pool.
pub(super) fn pool_requirements(generator: &mut SchemaGenerator) -> Schema {
    requirements(generator, false)
}

/// Schema of the requirements of a claim, which may name its pool.
pub(super) fn claim_requirements(generator: &mut SchemaGenerator) -> Schema {
    requirements(generator, true)
}

/// What keeps pods off a node that do not tolerate it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Taint {
    /// Its name.
    #[schemars(length(min = 1), regex(pattern = LABEL_KEY))]
    pub key: String,
    /// Its value, if it has one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(extend("pattern" = LABEL_KEY))]
    pub value: String,
    /// What happens to pods that do not tolerate it: they are not placed here (NoSchedule), placed here last
    /// (PreferNoSchedule), or not placed here and evicted (NoExecute).
    pub effect: TaintEffect,
    /// When it was added; of no use in a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_added: Option<Time>,
}

/// The object that says the cloud's side of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeClassReference {
    /// Its group: karpenter.azure.com.
    #[schemars(regex(pattern = "^[^/]*$"), extend("x-kubernetes-validations" = rule::not_empty("group")))]
    pub group: String,
    /// Its kind: AKSNodeClass.
    #[schemars(extend("x-kubernetes-validations" = rule::not_empty("kind")))]
    pub kind: String,
    /// Its name.
    #[schemars(extend("x-kubernetes-validations" = rule::not_empty("name")))]
    pub name: String,
}
