//! The API server's audit log: who asked for what, and with what answer. Counts the API calls of a program, and says what was
//! refused.

use std::path::Path;

use anyhow::Context;
use serde::Deserialize;

use super::ControlPlane;
use super::binaries::Component;

/// How many refused requests go into a message.
const LINES: usize = 20;

/// An answered request.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// What was asked for, with its query.
    #[serde(rename = "requestURI")]
    pub uri: String,
    /// Who asked.
    pub user: User,
    /// What the program calls itself.
    #[serde(default)]
    pub user_agent: String,
    /// The object.
    #[serde(default)]
    pub object_ref: Object,
    /// The answer.
    #[serde(default)]
    pub response_status: Status,
}

/// Who asked.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct User {
    /// The user's name.
    #[serde(default)]
    pub username: String,
}

/// What a request is about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Object {
    /// `pods`, `nodes`.
    pub resource: String,
    /// `status`, `eviction`, or nothing.
    pub subresource: String,
    /// Empty for what belongs to no namespace.
    pub namespace: String,
    /// Empty for lists.
    pub name: String,
}

/// How a request was answered.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    /// As in HTTP.
    pub code: u16,
    /// Why not.
    pub message: String,
}

impl Entry {
    /// Whether the answer is an error, other than to looking for what is not there.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        let code = self.response_status.code;
        code >= 400 && !(code == 404 && self.verb == "get")
    }

    /// Whether a component of Kubernetes asked: controllers do so as service accounts of their own.
    #[must_use]
    pub fn is_of_kubernetes(&self) -> bool {
        Component::ALL.iter().any(|component| {
            self.user_agent.strip_prefix(component.name()).is_some_and(|rest| rest.starts_with('/'))
        })
    }
}

impl ControlPlane {
    /// All requests answered so far, but for most of those of Kubernetes' own components.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn audit(&self) -> anyhow::Result<Vec<Entry>> {
        read(&self.logs().join("audit.log"))
    }
}

/// Reads an audit log. The last line may be half written.
pub(super) fn read(log: &Path) -> anyhow::Result<Vec<Entry>> {
    let text = std::fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    let Some((whole, _)) = text.rsplit_once('\n') else { return Ok(Vec::new()) };
    let entry = |line| serde_json::from_str(line).with_context(|| format!("in {}: {line}", log.display()));
    whole.lines().map(entry).collect()
}

/// The last requests of programs under test that were refused, a line each.
pub(super) fn refused(entries: &[Entry]) -> Vec<String> {
    let mut lines: Vec<_> = entries
        .iter()
        .rev()
        .filter(|entry| entry.is_refused() && !entry.is_of_kubernetes())
        .take(LINES)
        .map(|Entry { verb, uri, user, response_status: Status { code, message }, .. }| {
            format!("{code} for {verb} {uri} by {}: {message}", user.username)
        })
        .collect();
    lines.reverse();
    lines
}

#[cfg(test)]
mod tests {
    use super::{read, refused};

    fn line(verb: &str, agent: &str, code: u16) -> String {
        format!(
            "{{\"verb\":\"{verb}\",\"requestURI\":\"/api/v1/nodes\",\"user\":{{\"username\":\"someone\"}},\"userAgent\":\"{agent}\",\
             \"responseStatus\":{{\"code\":{code},\"message\":\"because\"}}}}\n"
        )
    }

    #[test]
    fn what_a_program_was_refused_is_listed_and_a_half_written_line_waits() {
        let log = tempfile::NamedTempFile::new().expect("a file");
        let mut text = line("list", "assay/0.1", 200);
        text += &line("patch", "assay/0.1", 403);
        text += &line("get", "assay/0.1", 404);
        text += &line("delete", "assay/0.1", 404);
        text += &line("update", "kube-controller-manager/v1.36.3", 409);
        text += "{\"verb\":\"get\",\"reques";
        std::fs::write(log.path(), text).expect("writable");

        let entries = read(log.path()).expect("readable");
        assert_eq!(entries.len(), 5);
        assert_eq!(
            refused(&entries),
            [
                "403 for patch /api/v1/nodes by someone: because",
                "404 for delete /api/v1/nodes by someone: because",
            ]
        );
    }

    #[test]
    fn a_line_that_is_no_entry_is_shown() {
        let log = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(log.path(), "{}\n").expect("writable");
        let error = read(log.path()).expect_err("no entry");
        assert!(format!("{error:#}").contains("verb"), "{error:#}");
    }
}
