//! The CustomResourceDefinitions that `deploy/crds` holds.
//!
//! They come from the types of this module. What the generators leave in a schema that an API server does not take, or that
//! would make it behave otherwise than with Karpenter's, is put right here.

use kube::CustomResourceExt as _;
use serde_json::{Map, Value};

use super::{AKSNodeClass, NodeClaim, NodeHardware, NodePool, SkuProfile};

/// Where the files are made from, for whoever opens one.
const HEADER: &str = "# Made by `make crds` from scheduler/src/kube/api; a test proves that it is current.\n";

/// One definition.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// File it is kept in: `karpenter.sh_nodepools.yaml`.
    pub file: String,
    /// The object.
    pub object: Value,
}

impl Definition {
    /// Its file's content.
    pub fn yaml(&self) -> Result<String, serde_yaml_ng::Error> {
        Ok(format!("{HEADER}{}", serde_yaml_ng::to_string(&self.object)?))
    }

    /// The schema of its stored version.
    #[must_use]
    pub fn schema(&self) -> &Value {
        let versions = self.object["spec"]["versions"].as_array();
        let stored = versions.into_iter().flatten().find(|version| version["storage"] == true);
        stored.map_or(&Value::Null, |version| &version["schema"]["openAPIV3Schema"])
    }
}

/// All definitions, in a fixed order.
pub fn definitions() -> Result<Vec<Definition>, serde_json::Error> {
    let mut class = definition(&AKSNodeClass::crd())?;
    add_older_version(&mut class);
    Ok(vec![
        definition(&NodePool::crd())?,
        definition(&NodeClaim::crd())?,
        class,
        definition(&NodeHardware::crd())?,
        definition(&SkuProfile::crd())?,
    ])
}

fn definition(
    generated: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
) -> Result<Definition, serde_json::Error> {
    let mut object = serde_json::to_value(generated)?;
    if let Some(versions) = object["spec"]["versions"].as_array_mut() {
        for version in versions {
            put_right(&mut version["schema"]["openAPIV3Schema"]);
        }
    }
    let names = &object["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let file = format!("{}_{}.yaml", text(&names["group"]), text(&names["names"]["plural"]));
    Ok(Definition { file, object })
}

/// The class has an older version of the same shape, which people are told not to use. An object without a spec is a class
/// with nothing set.
fn add_older_version(class: &mut Definition) {
    let Some(versions) = class.object["spec"]["versions"].as_array_mut() else { return };
    for version in &mut *versions {
        if let Some(schema) = version["schema"]["openAPIV3Schema"].as_object_mut() {
            schema.remove("required");
        }
    }
    let Some(mut older) = versions.first().cloned() else { return };
    older["name"] = "v1alpha2".into();
    older["storage"] = false.into();
    older["deprecated"] = true.into();
    older["deprecationWarning"] =
        "use karpenter.azure.com/v1beta1 AKSNodeClass; its fields are the same".into();
    versions.push(older);
}

/// Puts a schema right, and all below it.
fn put_right(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (name, below) in fields.iter_mut() {
                // A default is a value, not a schema.
                if name != "default" {
                    put_right(below);
                }
            }
            if fields.get("type").is_some_and(Value::is_string)
                || fields.contains_key("x-kubernetes-int-or-string")
            {
                put_field_right(fields);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(put_right),
        _ => {}
    }
}

fn put_field_right(fields: &mut Map<String, Value>) {
    // Its kind is told already.
    fields.remove("title");
    // Lines end where the code's do; paragraphs stay.
    if let Some(Value::String(text)) = fields.get_mut("description") {
        let paragraphs = text.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
        *text = paragraphs.collect::<Vec<_>>().join("\n\n");
    }
    // Null is the same as nothing, as in every Go API: the API server drops it, and fills in the default.
    fields.remove("nullable");
    if let Some(values) = fields.get_mut("enum").and_then(Value::as_array_mut) {
        values.retain(|value| !value.is_null());
    }
    // Unsigned formats are not known there.
    let wider = match fields.get("format").and_then(Value::as_str) {
        Some("uint8" | "uint16" | "uint32") => Some("int32"),
        Some("uint64" | "uint") => Some("int64"),
        _ => None,
    };
    if let Some(format) = wider {
        fields.insert("format".to_owned(), format.into());
    }
    for bound in ["minimum", "maximum"] {
        // Whole numbers are written as such.
        #[allow(clippy::cast_possible_truncation, reason = "the bounds of a schema are small whole numbers")]
        let whole = fields
            .get(bound)
            .and_then(Value::as_f64)
            .filter(|bound| bound.fract() == 0.0)
            .map(|bound| bound as i64);
        if let Some(whole) = whole {
            fields.insert(bound.to_owned(), whole.into());
        }
    }
}
