//! Files into documents: YAML or JSON, any number per file, lists unfolded.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{ManifestError, problem_of};

/// Longest input that is read. 100,000 pods with their status are about 500 MB; more is a mistake.
const INPUT_LIMIT: u64 = 1 << 30;
/// How deep `List`s may hold `List`s.
const LIST_DEPTH_MAX: usize = 8;

/// Text and where it came from.
#[derive(Debug, Clone)]
pub struct Source {
    /// File, or `-` for standard input.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Reads files, the YAML and JSON files of directories, and `-` for standard input.
pub fn read_sources(paths: &[String]) -> Result<Vec<Source>, ManifestError> {
    let mut sources = Vec::new();
    for path in paths {
        let fail = |error: &std::io::Error| whole_file(path, error.to_string());
        if path == "-" {
            let mut text = String::new();
            std::io::stdin().take(INPUT_LIMIT).read_to_string(&mut text).map_err(|error| fail(&error))?;
            sources.push(Source { name: path.clone(), text });
            continue;
        }
        let metadata = std::fs::metadata(path).map_err(|error| fail(&error))?;
        if !metadata.is_dir() {
            sources.push(read_file(Path::new(path))?);
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| fail(&error))?;
        let mut files: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        files.retain(|file| {
            let extension = file.extension().and_then(|extension| extension.to_str());
            file.is_file() && matches!(extension, Some("yaml" | "yml" | "json"))
        });
        files.sort();
        if files.is_empty() {
            return Err(whole_file(path, "expected .yaml, .yml or .json files, found none".to_owned()));
        }
        for file in files {
            sources.push(read_file(&file)?);
        }
    }
    Ok(sources)
}

fn read_file(path: &Path) -> Result<Source, ManifestError> {
    let name = path.display().to_string();
    let fail = |error: std::io::Error| whole_file(&name, error.to_string());
    let file = std::fs::File::open(path).map_err(fail)?;
    let mut text = String::new();
    file.take(INPUT_LIMIT).read_to_string(&mut text).map_err(|error| whole_file(&name, error.to_string()))?;
    Ok(Source { name, text })
}

fn whole_file(file: &str, problem: String) -> ManifestError {
    ManifestError { file: file.to_owned(), document: 0, object: String::new(), field: String::new(), problem }
}

/// One object of a manifest.
#[derive(Debug, Clone)]
pub(super) struct Document {
    /// File it stands in.
    pub(super) file: String,
    /// Its number in the file, from 1.
    pub(super) number: usize,
    /// Its kind.
    pub(super) kind: String,
    /// The object.
    pub(super) value: Value,
}

impl Document {
    /// Kind, namespace and name, for messages.
    pub(super) fn object(&self) -> String {
        let meta = |field: &str| self.value.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
        match (meta("namespace"), meta("name").or_else(|| meta("generateName"))) {
            (Some(namespace), Some(name)) => format!("{} {namespace}/{name}", self.kind),
            (None, Some(name)) => format!("{} {name}", self.kind),
            _ => self.kind.clone(),
        }
    }

    /// Something wrong with a field of this object.
    pub(super) fn error(&self, field: &str, problem: impl Into<String>) -> ManifestError {
        ManifestError {
            file: self.file.clone(),
            document: self.number,
            object: self.object(),
            field: field.to_owned(),
            problem: problem.into(),
        }
    }

    /// The object as a type of ours; an error names the field.
    pub(super) fn typed<T: DeserializeOwned>(&self) -> Result<T, ManifestError> {
        serde_path_to_error::deserialize(&self.value).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { "" } else { &path };
            self.error(field, problem_of(error.inner()))
        })
    }
}

/// The documents of a source. Empty ones are skipped, `List`s unfolded.
pub(super) fn split(source: &Source) -> Result<Vec<Document>, ManifestError> {
    let mut documents = Vec::new();
    let trimmed = source.text.trim_start_matches('\u{feff}');
    // JSON is YAML, but its own parser is ten times faster and this is what kubectl writes for large clusters.
    if trimmed.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str::<Value>(trimmed)
    {
        unfold(source, 1, value, 0, &mut documents)?;
        return Ok(documents);
    }
    for (index, document) in serde_yaml_ng::Deserializer::from_str(trimmed).enumerate() {
        let number = index + 1;
        let value = Value::deserialize(document).map_err(|error| ManifestError {
            document: number,
            ..whole_file(&source.name, format!("not YAML: {error}"))
        })?;
        unfold(source, number, value, 0, &mut documents)?;
    }
    Ok(documents)
}

fn unfold(
    source: &Source,
    number: usize,
    mut value: Value,
    depth: usize,
    documents: &mut Vec<Document>,
) -> Result<(), ManifestError> {
    let fail = |field: &str, problem: &str| ManifestError {
        document: number,
        field: field.to_owned(),
        ..whole_file(&source.name, problem.to_owned())
    };
    if value.is_null() {
        return Ok(());
    }
    if !value.is_object() {
        return Err(fail("", "expected a Kubernetes object, found a plain value"));
    }
    let Some(kind) = value.get("kind").and_then(Value::as_str).map(str::to_owned) else {
        return Err(fail("kind", "expected the kind of a Kubernetes object, found none"));
    };
    if kind == "List" || (kind.ends_with("List") && value.get("items").is_some()) {
        if depth == LIST_DEPTH_MAX {
            return Err(fail("items", "expected objects, found lists of lists"));
        }
        let item_kind = kind.strip_suffix("List").filter(|kind| !kind.is_empty()).map(str::to_owned);
        let Some(Value::Array(items)) = value.get_mut("items").map(Value::take) else {
            return Err(fail("items", "expected a list of objects"));
        };
        for mut item in items {
            // Items of a typed list may leave their kind out.
            if let (Some(kind), Some(object)) = (&item_kind, item.as_object_mut()) {
                object.entry("kind").or_insert_with(|| kind.clone().into());
            }
            unfold(source, number, item, depth + 1, documents)?;
        }
        return Ok(());
    }
    documents.push(Document { file: source.name.clone(), number, kind, value });
    Ok(())
}
