//! The name of a Kubernetes node: a DNS-1123 subdomain.
//!
//! A name that reached this type is safe in a log line, a label and a file name.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest name that Kubernetes accepts, bytes.
const LONGEST: usize = 253;

/// Name of a node. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeName(Arc<str>);

/// A text that is no node name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "node name: expected a DNS-1123 subdomain (at most 253 lower-case letters, digits, '-' and '.', each part beginning \
     and ending with a letter or digit), found {found:?}"
)]
pub struct InvalidNodeName {
    /// Its beginning.
    found: String,
}

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeName {
    type Err = InvalidNodeName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let part = |part: &str| {
            let bytes = part.as_bytes();
            bytes.first().is_some_and(alphanumeric)
                && bytes.last().is_some_and(alphanumeric)
                && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
        };
        if text.len() <= LONGEST && text.split('.').all(part) {
            return Ok(Self(text.into()));
        }
        Err(InvalidNodeName { found: text.chars().take(64).collect() })
    }
}

impl Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_kubernetes_accepts() {
        let longest = "a".repeat(253);
        for name in ["a", "aks-gpu-12345678-vmss000000", "10.0.0.4", "node-1.example.com", longest.as_str()] {
            assert_eq!(name.parse::<NodeName>().unwrap().as_str(), name);
        }
        let too_long = "a".repeat(254);
        for wrong in
            ["", "Node", "-a", "a-", "a..b", ".a", "a.", "a_b", "a b", "*", "nöde", "a\n", too_long.as_str()]
        {
            wrong.parse::<NodeName>().unwrap_err();
        }
    }
}
