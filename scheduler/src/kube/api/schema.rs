//! Pieces of schemas that several kinds share: amounts, labels, conditions.

use std::collections::BTreeMap;

use assay_shared::Quantity;
use schemars::{Schema, SchemaGenerator, json_schema};

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// A label value.
pub(super) const LABEL_VALUE: &str = "^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
/// A label key: a name, before which a domain may stand.
pub(super) const LABEL_KEY: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*\/)?([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$";
/// A quantity, in any of the forms that Kubernetes takes.
const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";

/// Schema of [`Amounts`].
pub(super) fn amounts(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {
            "pattern": QUANTITY,
            "x-kubernetes-int-or-string": true,
        },
    })
}

/// Schema of the labels of a pool's nodes.
pub(super) fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "additionalProperties": {"type": "string", "maxLength": 63, "pattern": LABEL_VALUE},
        "maxProperties": 100,
        "x-kubernetes-map-type": "atomic",
    })
}

/// What a condition's reason looks like where one is required.
const REASON: &str = "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$";
/// The same where it may be empty.
const REASON_OR_NONE: &str = "^([A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?|)$";

fn condition(reason_required: bool) -> serde_json::Value {
    let mut schema = serde_json::json!({
        "type": "object",
        "description": "One thing that is true of the object, or not, or not yet known.",
        "properties": {
            "type": {
                "description": "What it is about, in CamelCase.",
                "type": "string",
                "maxLength": 316,
                "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
            },
            "status": {
                "description": "Whether it is so.",
                "type": "string",
                "enum": ["True", "False", "Unknown"],
            },
            "reason": {
                "description": "Why, in one CamelCase word for programs.",
                "type": "string",
                "maxLength": 1024,
                "pattern": if reason_required { REASON } else { REASON_OR_NONE },
            },
            "message": {
                "description": "Why, in words for people.",
                "type": "string",
                "maxLength": 32768,
            },
            "lastTransitionTime": {
                "description": "Since when the status is what it is.",
                "type": "string",
                "format": "date-time",
            },
            "observedGeneration": {
                "description": "The metadata.generation that this was said of; an older one may not hold any more.",
                "type": "integer",
                "format": "int64",
                "minimum": 0,
            },
        },
        "required": ["lastTransitionTime", "status", "type"],
    });
    if reason_required {
        schema["required"] = ["lastTransitionTime", "message", "reason", "status", "type"].into();
        schema["properties"]["reason"]["minLength"] = 1.into();
    }
    schema
}

/// Schema of the conditions of pools: each once, with a reason.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": condition(true),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// Schema of the conditions of claims: each once, some without a reason.
pub(super) fn claim_conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "items": condition(false),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    })
}

/// Schema of the conditions of classes. Karpenter's provider writes the list as a whole; so must whoever writes beside it.
pub(super) fn class_conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "items": condition(true)})
}
