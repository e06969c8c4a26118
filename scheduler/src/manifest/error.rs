//! What is wrong with a manifest, in one line.

use std::fmt;

/// A manifest that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// File, or `-` for standard input; empty for an object of a cluster.
    pub file: String,
    /// Number of the document in the file, from 1; 0 where the file as a whole is meant.
    pub document: usize,
    /// Kind and name of the object, where known.
    pub object: String,
    /// Path of the field, where one is meant.
    pub field: String,
    /// What was expected and what was found.
    pub problem: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}: ", self.file)?;
        }
        if self.document > 0 {
            write!(f, "document {}: ", self.document)?;
        }
        for part in [&self.object, &self.field] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ManifestError {}

/// What serde says, as "expected …, found …".
pub(crate) fn problem_of(text: &str) -> String {
    // serde_json adds where in its input the value stood, which means nothing for a document already parsed.
    let text = text.split(" at line ").next().unwrap_or(text);
    if text.starts_with("invalid length") {
        // serde reads a list as the fields of an object in their order, and misses some.
        return "expected an object, found a list".to_owned();
    }
    let rest = ["invalid type: ", "invalid value: "].iter().find_map(|prefix| text.strip_prefix(prefix));
    match rest.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => {
            format!("expected {}, found {}", in_manifest_words(expected), in_manifest_words(found))
        }
        None => text.to_owned(),
    }
}

/// The words of people who write manifests for those of people who write Rust.
fn in_manifest_words(text: &str) -> &str {
    match text {
        "a map" | "map" => "an object",
        "a sequence" | "sequence" => "a list",
        "u32" | "u64" => "a whole number of zero or more",
        "i32" | "i64" => "a whole number",
        "null" | "unit value" => "nothing",
        text if text.starts_with("struct ") => "an object",
        text => text,
    }
}
