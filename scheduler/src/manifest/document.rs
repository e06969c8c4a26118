//! Files into documents: YAML or JSON, any number per file, lists unfolded.

use std::io::Read;
use std::path::Path;

use assay_core::model::PodId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::error::{ManifestError, problem_of};

/// Longest input that is read. 100,000 pods with their status are about 500 MB; more is a mistake.
const INPUT_LIMIT: u64 = 1 << 30;
/// How deep `List`s may hold `List`s.
const LIST_DEPTH_MAX: usize = 8;

/// Characters of a field's path in a message; longer ones name a key that nobody reads to its end.
const FIELD_AT_MOST: usize = 400;
/// Characters of what is wrong with it.
const PROBLEM_AT_MOST: usize = 400;

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
pub(crate) struct Document {
    /// File it stands in.
    pub(crate) file: String,
    /// Its number in the file, from 1.
    pub(crate) number: usize,
    /// Its kind; where another project has a kind of the same name, with that project's group: `Job.batch.volcano.sh`.
    pub(crate) kind: String,
    /// The object, without fields that are null.
    pub(crate) value: Value,
}

/// Kinds that are read, with their API group.
const KINDS: [(&str, &str); 23] = [
    ("KubeSchedulerConfiguration", "kubescheduler.config.k8s.io"),
    ("Service", ""),
    ("PriorityClass", "scheduling.k8s.io"),
    ("RuntimeClass", "node.k8s.io"),
    ("CSINode", "storage.k8s.io"),
    ("PodGroup", "scheduling.x-k8s.io"),
    ("Pod", ""),
    ("Node", ""),
    ("Namespace", ""),
    ("PersistentVolume", ""),
    ("PersistentVolumeClaim", ""),
    ("ReplicationController", ""),
    ("Deployment", "apps"),
    ("ReplicaSet", "apps"),
    ("StatefulSet", "apps"),
    ("DaemonSet", "apps"),
    ("Job", "batch"),
    ("CronJob", "batch"),
    ("StorageClass", "storage.k8s.io"),
    ("PodDisruptionBudget", "policy"),
    ("NodePool", "karpenter.sh"),
    ("NodeClaim", "karpenter.sh"),
    ("AKSNodeClass", "karpenter.azure.com"),
];

/// Kinds that live in a namespace, `default` where they name none.
const NAMESPACED: [&str; 12] = [
    "Service",
    "PodGroup",
    "Pod",
    "PersistentVolumeClaim",
    "ReplicationController",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "PodDisruptionBudget",
];

/// The kind as it is told from another project's of the same name; else what `apiVersion` was expected to be.
fn qualified(kind: &str, api_version: Option<&str>) -> Result<String, String> {
    let Some((_, expected)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        return Ok(kind.to_owned());
    };
    // Items of a list may leave their version out.
    let Some(version) = api_version else { return Ok(kind.to_owned()) };
    let group = version.split_once('/').map_or("", |(group, _)| group);
    if group == *expected {
        Ok(kind.to_owned())
    } else if group.contains('.') {
        // Volcano, for one, has Jobs too.
        Ok(format!("{kind}.{group}"))
    } else {
        let expected =
            if expected.is_empty() { "v1".to_owned() } else { format!("{expected}/ and a version") };
        Err(format!("expected {expected} for a {kind}, found {version:?}"))
    }
}

impl Document {
    /// An object of a cluster: it stands in no file.
    pub(crate) fn of_object(kind: &str, value: Value) -> Self {
        Self { file: String::new(), number: 0, kind: kind.to_owned(), value }
    }

    /// Kind, namespace and name, for messages.
    pub(crate) fn object(&self) -> String {
        let meta = |field: &str| self.value.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
        // A spec that stands in no file has no namespace either.
        let default = Some("default").filter(|_| self.number > 0 && NAMESPACED.contains(&self.kind.as_str()));
        match (meta("namespace").or(default), meta("name").or_else(|| meta("generateName"))) {
            (Some(namespace), Some(name)) => format!("{} {namespace}/{name}", self.kind),
            (None, Some(name)) => format!("{} {name}", self.kind),
            _ => self.kind.clone(),
        }
    }

    /// The namespace it lives in.
    pub(crate) fn namespace(&self) -> &str {
        self.value.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or("default")
    }

    /// Whether objects of its kind live in a namespace.
    pub(crate) fn is_namespaced(&self) -> bool {
        NAMESPACED.contains(&self.kind.as_str())
    }

    /// Its name, empty where it has none.
    pub(crate) fn name(&self) -> &str {
        self.value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default()
    }

    /// Namespace and name, where the object has a name at all.
    pub(crate) fn pod_id(&self) -> Option<PodId> {
        let name = self.value.pointer("/metadata/name")?.as_str().filter(|name| !name.is_empty())?;
        Some(PodId::new(self.namespace(), name))
    }

    /// Something wrong with a field of this object. What is long of it is cut: people read this.
    pub(crate) fn error(&self, field: &str, problem: impl Into<String>) -> ManifestError {
        ManifestError {
            file: self.file.clone(),
            document: self.number,
            object: self.object(),
            field: clipped(field.to_owned(), FIELD_AT_MOST),
            problem: clipped(problem.into(), PROBLEM_AT_MOST),
        }
    }

    /// The object as a type of ours; an error names the field.
    pub(crate) fn typed<T: DeserializeOwned>(&self) -> Result<T, ManifestError> {
        self.typed_at("", &self.value)
    }

    /// A part of the object as a type of ours; `path` is where the part stands.
    pub(crate) fn typed_at<T: DeserializeOwned>(
        &self,
        path: &str,
        value: &Value,
    ) -> Result<T, ManifestError> {
        serde_path_to_error::deserialize(value).map_err(|error| {
            let below = error.path().to_string();
            let below = Some(below.as_str()).filter(|below| *below != ".");
            let text = error.inner().to_string();
            let missing = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next());
            let parts = [Some(path).filter(|path| !path.is_empty()), below, missing];
            let field = parts.into_iter().flatten().collect::<Vec<_>>().join(".");
            match missing {
                Some(_) => self.error(&field, "expected a value, found none"),
                None => self.error(&field, problem_of(&text)),
            }
        })
    }
}

/// The configuration of a kube-scheduler, which is no object of any cluster.
pub(crate) fn scheduler_configuration(text: &str) -> Result<Document, ManifestError> {
    let name = "scheduler configuration";
    let source = Source { name: name.to_owned(), text: text.to_owned() };
    let kind = "KubeSchedulerConfiguration";
    let found = split(&source)?.into_iter().find(|document| document.kind == kind);
    found.ok_or_else(|| whole_file(name, format!("expected a {kind}, found none")))
}

/// The documents of a source. Empty ones are skipped, `List`s unfolded.
pub(super) fn split(source: &Source) -> Result<Vec<Document>, ManifestError> {
    let mut documents = Vec::new();
    let text = source.text.trim_start_matches('\u{feff}');
    let wrong = |number: usize, problem: String| ManifestError {
        document: number,
        ..whole_file(&source.name, problem)
    };
    // JSON is YAML, but its own parser is ten times faster and this is what kubectl writes for large clusters.
    if looks_like_json(text) {
        for (index, value) in serde_json::Deserializer::from_str(text).into_iter::<Value>().enumerate() {
            let value = value.map_err(|error| wrong(index + 1, format!("not JSON: {error}")))?;
            unfold(source, index + 1, value, 0, &mut documents)?;
        }
        return Ok(documents);
    }
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let number = index + 1;
        let not_yaml = |error: serde_yaml_ng::Error| wrong(number, format!("not YAML: {error}"));
        // Its own values know of `<<` and refuse a key that is given twice.
        let mut value = serde_yaml_ng::Value::deserialize(document).map_err(not_yaml)?;
        value.apply_merge().map_err(not_yaml)?;
        let value = serde_yaml_ng::from_value(value).map_err(not_yaml)?;
        unfold(source, number, value, 0, &mut documents)?;
    }
    Ok(documents)
}

/// Whether text starts as a JSON object does: `{` and a quoted name. YAML's short form does not quote names as a rule, and
/// is not followed by other documents in JSON's way.
fn looks_like_json(text: &str) -> bool {
    let inside = text.trim_start().strip_prefix('{').map(str::trim_start);
    inside.is_some_and(|inside| inside.starts_with('"')) && !text.contains("\n---")
}

/// At most so many characters; what is cut shows.
fn clipped(mut text: String, most: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// Takes out what is null: to Kubernetes a field that is null is not there.
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
    if value.is_array() {
        return Err(fail("", "expected a Kubernetes object, found a list"));
    }
    if !value.is_object() {
        return Err(fail("", "expected a Kubernetes object, found a plain value"));
    }
    if depth == 0 {
        drop_nulls(&mut value);
    }
    let Some(kind) = value.get("kind").and_then(Value::as_str).map(str::to_owned) else {
        return Err(fail("kind", "expected the kind of a Kubernetes object, found none"));
    };
    if kind == "List" || (kind.ends_with("List") && value.get("items").is_some()) {
        if depth == LIST_DEPTH_MAX {
            return Err(fail("items", "expected objects, found lists of lists"));
        }
        let item_kind = kind.strip_suffix("List").filter(|kind| !kind.is_empty()).map(str::to_owned);
        let items = match value.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            // What Go writes for an empty list.
            None => Vec::new(),
            Some(_) => return Err(fail("items", "expected a list of objects")),
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
    let kind = qualified(&kind, value.get("apiVersion").and_then(Value::as_str))
        .map_err(|problem| fail("apiVersion", &problem))?;
    documents.push(Document { file: source.name.clone(), number, kind, value });
    Ok(())
}
