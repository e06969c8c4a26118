//! What an API server says of an object by the schema of its kind, without one: types, bounds and patterns in its words, and the
//! CEL rules by `kube-cel`. The same table is put to a real API server, which keeps this honest.

use std::collections::BTreeSet;

use kube_cel::{Validator, apply_defaults};
use regex::Regex;
use serde_json::Value;

/// An object as it is stored: without nulls, with defaults.
#[must_use]
pub fn stored(schema: &Value, object: &Value) -> Value {
    let mut object = object.clone();
    drop_nulls(&mut object);
    apply_defaults(schema, &object)
}

/// What is wrong with an object, or with changing `old` into it.
#[must_use]
pub fn problems(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    let object = stored(schema, object);
    let old = old.map(|old| stored(schema, old));
    let mut found = Vec::new();
    check(schema, &object, "", &mut found);
    // As there: rules may count on the types being right.
    if found.is_empty() {
        let errors = Validator::new().validate(schema, &object, old.as_ref()).err();
        let errors = errors.into_iter().flat_map(kube_cel::ValidationErrors::into_vec);
        found.extend(errors.map(|error| format!("{}: Invalid value: {}", error.field_path, error.message)));
    }
    found
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn below(path: &str, field: &str) -> String {
    if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") }
}

fn check(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let mut wrong = |what: String| found.push(format!("{path}: {what}"));
    let number = |field: &str| schema.get(field).and_then(Value::as_f64);
    let size =
        |field: &str| schema.get(field).and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
    let either = schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true));
    let expected = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let is = match value {
        Value::Object(_) => "object",
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Null => "null",
    };
    if !(either && matches!(is, "string" | "integer") || expected == is || expected.is_empty() && !either) {
        wrong(format!("Invalid value: {is:?}: {path} in body must be of type {expected}: {is:?}"));
        return;
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array)
        && !values.contains(value)
    {
        wrong(format!("Unsupported value: {value}"));
    }
    match value {
        Value::String(text) => {
            if let Some(most) = size("maxLength").filter(|most| text.len() > *most) {
                wrong(format!("Too long: may not be more than {most} bytes"));
            }
            if let Some(least) = size("minLength").filter(|least| text.len() < *least) {
                wrong(format!(
                    "Invalid value: {value}: {path} in body should be at least {least} chars long"
                ));
            }
            if let Some(pattern) = schema.get("pattern").and_then(Value::as_str)
                && !Regex::new(pattern).is_ok_and(|regex| regex.is_match(text))
            {
                wrong(format!("Invalid value: {value}: {path} in body should match '{pattern}'"));
            }
        }
        Value::Number(amount) => {
            let amount = amount.as_f64().unwrap_or(f64::NAN);
            if let Some(least) = number("minimum").filter(|least| amount < *least) {
                wrong(format!(
                    "Invalid value: {value}: {path} in body should be greater than or equal to {least}"
                ));
            }
            if let Some(most) = number("maximum").filter(|most| amount > *most) {
                wrong(format!(
                    "Invalid value: {value}: {path} in body should be less than or equal to {most}"
                ));
            }
        }
        Value::Array(items) => {
            if let Some(most) = size("maxItems").filter(|most| items.len() > *most) {
                wrong(format!("Too many: {}: must have at most {most} items", items.len()));
            }
            let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}[{index}]");
                let key = match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
                    Some("set") => Some(item.to_string()),
                    Some("map") => keys.map(|keys| {
                        let of = |key: &Value| item.get(key.as_str().unwrap_or_default()).cloned();
                        keys.iter().filter_map(of).map(|part| part.to_string()).collect()
                    }),
                    _ => None,
                };
                if key.is_some_and(|key| !seen.insert(key)) {
                    found.push(format!("{path}: Duplicate value: {item}"));
                }
                check(&schema["items"], item, &path, found);
            }
        }
        Value::Object(fields) => {
            if let Some(most) = size("maxProperties").filter(|most| fields.len() > *most) {
                wrong(format!("Too many: {}: must have at most {most} items", fields.len()));
            }
            for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
                let name = name.as_str().unwrap_or_default();
                if !fields.contains_key(name) {
                    found.push(format!("{}: Required value", below(path, name)));
                }
            }
            for (name, field) in fields {
                let known = schema.get("properties").and_then(|known| known.get(name));
                // What is not known is dropped.
                if let Some(schema) = known.or_else(|| schema.get("additionalProperties")) {
                    check(schema, field, &below(path, name), found);
                }
            }
        }
        Value::Bool(_) | Value::Null => {}
    }
}
