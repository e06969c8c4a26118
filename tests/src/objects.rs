//! The objects of `tests/api`: valid ones, and ones that must be refused.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Deserialize as _;
use serde_json::{Map, Value};

/// Where they lie.
#[must_use]
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("api")
}

/// One object that must be refused.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invalid {
    /// The valid object it is made from, `Kind/name`.
    pub of: String,
    /// What is changed, by JSON pointer.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// What is taken away, by JSON pointer.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Whether the change is made to an object that is there.
    #[serde(default)]
    pub update: bool,
    /// Part of what is said.
    pub message: String,
    /// What the reader of manifests does, where it does otherwise.
    pub reader: Option<String>,
    /// What Karpenter's own definitions do, where they do otherwise.
    pub karpenter: Option<String>,
}

/// Valid objects by file, in the order they stand there.
///
/// # Errors
/// A file cannot be read.
pub fn valid() -> anyhow::Result<Vec<(PathBuf, Vec<Value>)>> {
    let directory = directory().join("valid");
    let entries = std::fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path)?;
        let documents = serde_yaml_ng::Deserializer::from_str(&text).map(Value::deserialize);
        let objects = documents.collect::<Result<Vec<_>, _>>().with_context(|| path.display().to_string())?;
        Ok((path, objects))
    };
    files.into_iter().map(read).collect()
}

/// Valid objects by `Kind/name`; of equal ones the first.
///
/// # Errors
/// A file cannot be read.
pub fn by_name() -> anyhow::Result<BTreeMap<String, Value>> {
    let mut objects = BTreeMap::new();
    for object in valid()?.into_iter().flat_map(|(_, objects)| objects) {
        let name = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        objects
            .entry(format!("{}/{}", name("/kind"), name("/metadata/name")))
            .or_insert_with(|| object.clone());
    }
    Ok(objects)
}

/// The objects that must be refused.
///
/// # Errors
/// The file cannot be read.
pub fn invalid() -> anyhow::Result<Vec<Invalid>> {
    let path = directory().join("invalid.yaml");
    serde_yaml_ng::from_str(&std::fs::read_to_string(&path)?).with_context(|| path.display().to_string())
}

impl Invalid {
    /// The valid object and what was made of it.
    ///
    /// # Errors
    /// There is no such object, or nothing at a pointer.
    pub fn made_from(&self, objects: &BTreeMap<String, Value>) -> anyhow::Result<(Value, Value)> {
        let valid = objects.get(&self.of).with_context(|| format!("no {}", self.of))?;
        let mut object = valid.clone();
        for (pointer, value) in &self.set {
            set(&mut object, pointer, expanded(value)).with_context(|| pointer.clone())?;
        }
        for pointer in &self.remove {
            let (parent, name) = pointer.rsplit_once('/').context("a pointer begins with a /")?;
            let parent = object.pointer_mut(parent).with_context(|| pointer.clone())?;
            match parent {
                Value::Object(fields) => ensure!(fields.remove(name).is_some(), "nothing at {pointer}"),
                Value::Array(items) => drop(items.remove(name.parse()?)),
                _ => anyhow::bail!("nothing at {pointer}"),
            }
        }
        ensure!(object != *valid, "{}: nothing is changed", self.message);
        Ok((valid.clone(), object))
    }
}

/// Puts a value where a pointer points; objects on the way there are made.
fn set(object: &mut Value, pointer: &str, value: Value) -> anyhow::Result<()> {
    let mut place = object;
    for part in pointer.split('/').skip(1) {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        place = match place {
            Value::Object(fields) => fields.entry(part).or_insert(Value::Null),
            Value::Array(items) => items.get_mut(part.parse::<usize>()?).context("beyond the end")?,
            _ => anyhow::bail!("{part} is in no object"),
        };
    }
    *place = value;
    Ok(())
}

/// A value with what stands for something long written out.
fn expanded(value: &Value) -> Value {
    let letters = |count: u64| "a".repeat(usize::try_from(count).unwrap_or(0));
    match value {
        Value::Object(fields) => {
            let of = |name: &str| fields.get(name).and_then(Value::as_u64);
            match (of("repeat"), of("entries"), of("text"), of("key")) {
                (Some(count), ..) => (0..count).map(|_| expanded(&fields["value"])).collect(),
                (_, Some(count), ..) => {
                    (0..count).map(|index| (format!("k{index}"), "v".into())).collect::<Map<_, _>>().into()
                }
                (_, _, Some(count), _) => letters(count).into(),
                (.., Some(count)) => Map::from_iter([(letters(count), "v".into())]).into(),
                _ => fields
                    .iter()
                    .map(|(name, value)| (name.clone(), expanded(value)))
                    .collect::<Map<_, _>>()
                    .into(),
            }
        }
        Value::Array(items) => items.iter().map(expanded).collect(),
        other => other.clone(),
    }
}
