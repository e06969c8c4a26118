//! Gangs: pods that are of use only together.

use std::sync::Arc;

/// The gang a pod is of: a `PodGroup` of scheduler-plugins (label `scheduling.x-k8s.io/pod-group`, or the older
/// `pod-group.scheduling.sigs.k8s.io`), or a Job with `completionMode: Indexed` annotated `assay.dev/gang: "true"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Gang {
    /// Namespace and name of the group, `namespace/name`.
    pub id: Arc<str>,
    /// How many of its pods must be placed (those running already count), or none is.
    pub min_member: u32,
    /// How close together.
    pub scope: GangScope,
}

/// How close together the pods of a gang must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GangScope {
    /// Anywhere.
    Cluster,
    /// All in one zone (annotation `assay.dev/gang-topology: topology.kubernetes.io/zone` on pod or group).
    Zone,
}
