//! Names and values of labels, as the API server takes them.

use std::fmt;

use assay_core::model::Labels;
use assay_shared::labels::LABEL_VALUE_MAX;

use super::document::Document;
use super::error::ManifestError;

/// Longest name of a key, what stands behind its `/`.
const NAME_MAX: usize = 63;
/// Longest prefix of a key, a domain.
const PREFIX_MAX: usize = 253;
/// Longest part of a domain between dots.
const PART_MAX: usize = 63;

/// Why a text is no key or no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The name of a key.
    Name,
    /// The prefix of a key.
    Prefix,
    /// A value.
    Value,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => write!(
                f,
                "expected a key of 1 to {NAME_MAX} letters, digits, '-', '_' and '.', a letter or digit first and last"
            ),
            Self::Prefix => write!(
                f,
                "expected a key whose prefix is a domain of at most {PREFIX_MAX} small letters, digits, '-' and '.'"
            ),
            Self::Value => write!(
                f,
                "expected at most {LABEL_VALUE_MAX} letters, digits, '-', '_' and '.', a letter or digit first and last"
            ),
        }
    }
}

/// Whether a text can be the key of a label, an annotation or a taint.
pub(super) fn key(text: &str) -> Result<(), Fault> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    if prefix.is_some_and(|prefix| !is_domain(prefix)) {
        return Err(Fault::Prefix);
    }
    if name.is_empty() || name.len() > NAME_MAX || !is_word(name) { Err(Fault::Name) } else { Ok(()) }
}

/// Whether a text can be the value of a label.
pub(super) fn value(text: &str) -> Result<(), Fault> {
    if text.len() <= LABEL_VALUE_MAX && is_word(text) { Ok(()) } else { Err(Fault::Value) }
}

/// Letters, digits, `-`, `_` and `.`, of which the first and the last are a letter or digit; or nothing.
fn is_word(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let ends = [text.bytes().next(), text.bytes().next_back()];
    text.bytes().all(inside) && ends.into_iter().flatten().all(|byte| byte.is_ascii_alphanumeric())
}

/// A DNS subdomain of RFC 1123.
fn is_domain(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_part = |part: &str| {
        (1..=PART_MAX).contains(&part.len())
            && part.bytes().all(inside)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= PREFIX_MAX && text.split('.').all(is_part)
}

/// Labels that stand at `path`.
pub(super) fn check_labels(document: &Document, path: &str, labels: &Labels) -> Result<(), ManifestError> {
    for (name, text) in labels {
        let field = || format!("{path}[{name}]");
        check_key(document, field, name)?;
        check_value(document, field, text)?;
    }
    Ok(())
}

/// Annotations that stand at `path`: their values may be anything. As the API server does, large letters count as small ones.
pub(super) fn check_annotations(
    document: &Document,
    path: &str,
    annotations: &Labels,
) -> Result<(), ManifestError> {
    for name in annotations.keys() {
        check_key(document, || format!("{path}[{name}]"), &name.to_ascii_lowercase())?;
    }
    Ok(())
}

/// A key that stands at `field`.
pub(super) fn check_key(
    document: &Document,
    field: impl FnOnce() -> String,
    text: &str,
) -> Result<(), ManifestError> {
    key(text).map_err(|fault| document.error(&field(), format!("{fault}, found {text:?}")))
}

/// A value that stands at `field`.
pub(super) fn check_value(
    document: &Document,
    field: impl FnOnce() -> String,
    text: &str,
) -> Result<(), ManifestError> {
    value(text).map_err(|fault| document.error(&field(), format!("{fault}, found {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_that_the_api_server_takes() {
        let long = |count: usize| "a".repeat(count);
        let domain = |last: usize| format!("{}.{}.{}.{}", long(63), long(63), long(63), long(last));
        let cases = [
            ("app".to_owned(), Ok(())),
            ("App_1.b".to_owned(), Ok(())),
            ("example.com/app".to_owned(), Ok(())),
            (long(63), Ok(())),
            (long(64), Err(Fault::Name)),
            (format!("{}/a", domain(61)), Ok(())),
            (format!("{}/a", domain(62)), Err(Fault::Prefix)),
            (format!("{}.com/a", long(64)), Err(Fault::Prefix)),
            (String::new(), Err(Fault::Name)),
            ("example.com/".to_owned(), Err(Fault::Name)),
            ("/app".to_owned(), Err(Fault::Prefix)),
            ("Example.com/app".to_owned(), Err(Fault::Prefix)),
            ("-a".to_owned(), Err(Fault::Name)),
            ("a-".to_owned(), Err(Fault::Name)),
            ("a b".to_owned(), Err(Fault::Name)),
            ("a/b/c".to_owned(), Err(Fault::Name)),
            ("é".to_owned(), Err(Fault::Name)),
        ];
        for (text, expected) in cases {
            assert_eq!(key(&text), expected, "{text}");
        }
    }

    #[test]
    fn values_are_those_that_the_api_server_takes() {
        for right in ["", "a", "A.b_c-d", "1", &"a".repeat(63)] {
            assert_eq!(value(right), Ok(()), "{right}");
        }
        for wrong in ["-a", "a.", "a/b", "a b", "é", &"a".repeat(64)] {
            assert_eq!(value(wrong), Err(Fault::Value), "{wrong}");
        }
    }
}
