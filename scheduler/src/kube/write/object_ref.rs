//! Which object something is about.

use std::fmt;

/// An object, as events name it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: String,
    /// Its namespace, for kinds that have one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid, where known: `kubectl describe` selects events by it.
    pub uid: Option<String>,
}

impl ObjectRef {
    pub(super) fn node(name: &str) -> Self {
        // By custom of the kubelet, the uid in events about a node is its name.
        Self { kind: "Node".to_owned(), namespace: None, name: name.to_owned(), uid: Some(name.to_owned()) }
    }

    pub(crate) fn cluster(kind: &str, name: &str) -> Self {
        if kind == "Node" {
            return Self::node(name);
        }
        Self { kind: kind.to_owned(), namespace: None, name: name.to_owned(), uid: None }
    }

    pub(super) fn pod(namespace: &str, name: &str) -> Self {
        Self {
            kind: "Pod".to_owned(),
            namespace: Some(namespace.to_owned()),
            name: name.to_owned(),
            uid: None,
        }
    }

    /// Reads the core's way of naming: `Pod/default/web-1`, `Node/x`; `None` for what is no object, such as `Plan`.
    #[must_use]
    pub fn parse(object: &str) -> Option<Self> {
        match *object.split('/').collect::<Vec<_>>() {
            [kind, namespace, name] => Some(Self { kind: kind.to_owned(), ..Self::pod(namespace, name) }),
            [kind, name] => Some(Self::cluster(kind, name)),
            _ => None,
        }
    }

    pub(super) fn api_version(&self) -> &'static str {
        match self.kind.as_str() {
            "NodeClaim" | "NodePool" => "karpenter.sh/v1",
            "AKSNodeClass" => "karpenter.azure.com/v1beta1",
            "SkuProfile" | "NodeHardware" => "assay.dev/v1alpha1",
            _ => "v1",
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{}/{namespace}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_s_names_of_objects_are_read_back() {
        for text in ["Pod/default/web-1", "Node/x", "NodeClaim/default-abcde", "NodePool/gpu"] {
            assert_eq!(ObjectRef::parse(text).map(|object| object.to_string()).as_deref(), Some(text));
        }
        assert_eq!(ObjectRef::parse("Plan"), None);
    }
}
