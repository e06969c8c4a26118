//! Comparing JSON documents leaf by leaf.

use std::collections::BTreeMap;

use serde_json::Value;

/// Where `actual` lacks what `expected` says, one line for each place. Objects may hold more than is expected; lists are
/// as long as expected.
#[must_use]
pub fn missing_from(actual: &Value, expected: &Value) -> Vec<String> {
    let mut differences = Vec::new();
    compare("", actual, expected, &mut differences);
    differences
}

fn compare(path: &str, actual: &Value, expected: &Value, differences: &mut Vec<String>) {
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            for (key, expected) in expected {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match actual.get(key) {
                    Some(actual) => compare(&path, actual, expected, differences),
                    None => differences.push(format!("{path}: expected {expected}, found no such key")),
                }
            }
        }
        (Value::Array(actual), Value::Array(expected)) if actual.len() == expected.len() => {
            for (index, (actual, expected)) in actual.iter().zip(expected).enumerate() {
                compare(&format!("{path}[{index}]"), actual, expected, differences);
            }
        }
        _ if actual == expected => {}
        _ => differences.push(format!("{path}: expected {expected}, found {actual}")),
    }
}

/// Every value that is not null, by its path. Elements of lists go by the field that names them (`name`, `device`,
/// `pciAddress`, `id`) rather than by place, so that a lost element does not move the others. A list of plain values is
/// one value, as is an empty one.
#[must_use]
pub fn leaves(value: &Value) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    collect(String::new(), value, &mut leaves);
    leaves
}

fn collect(path: String, value: &Value, leaves: &mut BTreeMap<String, Value>) {
    match value {
        Value::Null => {}
        Value::Object(members) => {
            for (key, value) in members {
                collect(if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, leaves);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                let name =
                    ["name", "device", "pciAddress", "id", "sizeBytes"].iter().find_map(|key| item.get(key));
                let name = name.map_or_else(|| index.to_string(), ToString::to_string);
                collect(format!("{path}[{name}]"), item, leaves);
            }
        }
        _ => {
            leaves.insert(path, value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_expected_is_compared() {
        let actual = json!({"a": 1, "b": {"c": [1, {"d": null}]}, "more": true});
        assert_eq!(missing_from(&actual, &json!({"a": 1, "b": {"c": [1, {"d": null}]}})), [""; 0]);
        assert_eq!(
            missing_from(&actual, &json!({"a": 2, "b": {"c": [1]}, "e": 0})),
            [
                "a: expected 2, found 1",
                "b.c: expected [1], found [1,{\"d\":null}]",
                "e: expected 0, found no such key"
            ]
        );
    }

    #[test]
    fn leaves_are_named_by_what_they_belong_to() {
        let found =
            leaves(&json!({"disks": [{"name": "sda", "size": 1, "model": null}], "flags": ["a", "b"]}));
        let paths: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(paths, ["disks[\"sda\"].name", "disks[\"sda\"].size", "flags"]);
    }
}
