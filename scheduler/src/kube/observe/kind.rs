//! The kinds that are watched: where they are, which of them are wanted, and what it means that there is no such kind.

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "Kubernetes' names")]
pub enum Kind {
    Namespace,
    PriorityClass,
    RuntimeClass,
    StorageClass,
    PersistentVolume,
    PersistentVolumeClaim,
    CsiNode,
    VolumeAttachment,
    PodDisruptionBudget,
    AksNodeClass,
    NodePool,
    NodeClaim,
    Node,
    DaemonSet,
    Job,
    PodGroup,
    Service,
    ReplicationController,
    ReplicaSet,
    StatefulSet,
    Pod,
}

/// What it means that the API server knows no such kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// It will: nothing is decided before.
    Awaited,
    /// There are none of it.
    Empty,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 21] = [
        Self::Namespace,
        Self::PriorityClass,
        Self::RuntimeClass,
        Self::StorageClass,
        Self::PersistentVolume,
        Self::PersistentVolumeClaim,
        Self::CsiNode,
        Self::VolumeAttachment,
        Self::PodDisruptionBudget,
        Self::AksNodeClass,
        Self::NodePool,
        Self::NodeClaim,
        Self::Node,
        Self::DaemonSet,
        Self::Job,
        Self::PodGroup,
        Self::Service,
        Self::ReplicationController,
        Self::ReplicaSet,
        Self::StatefulSet,
        Self::Pod,
    ];

    /// As manifests name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::PriorityClass => "PriorityClass",
            Self::RuntimeClass => "RuntimeClass",
            Self::StorageClass => "StorageClass",
            Self::PersistentVolume => "PersistentVolume",
            Self::PersistentVolumeClaim => "PersistentVolumeClaim",
            Self::CsiNode => "CSINode",
            Self::VolumeAttachment => "VolumeAttachment",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::AksNodeClass => "AKSNodeClass",
            Self::NodePool => "NodePool",
            Self::NodeClaim => "NodeClaim",
            Self::Node => "Node",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::PodGroup => "PodGroup",
            Self::Service => "Service",
            Self::ReplicationController => "ReplicationController",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::Pod => "Pod",
        }
    }

    /// Where all of its objects are listed.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Namespace => "/api/v1/namespaces",
            Self::PriorityClass => "/apis/scheduling.k8s.io/v1/priorityclasses",
            Self::RuntimeClass => "/apis/node.k8s.io/v1/runtimeclasses",
            Self::StorageClass => "/apis/storage.k8s.io/v1/storageclasses",
            Self::PersistentVolume => "/api/v1/persistentvolumes",
            Self::PersistentVolumeClaim => "/api/v1/persistentvolumeclaims",
            Self::CsiNode => "/apis/storage.k8s.io/v1/csinodes",
            Self::VolumeAttachment => "/apis/storage.k8s.io/v1/volumeattachments",
            Self::PodDisruptionBudget => "/apis/policy/v1/poddisruptionbudgets",
            Self::AksNodeClass => "/apis/karpenter.azure.com/v1beta1/aksnodeclasses",
            Self::NodePool => "/apis/karpenter.sh/v1/nodepools",
            Self::NodeClaim => "/apis/karpenter.sh/v1/nodeclaims",
            Self::Node => "/api/v1/nodes",
            Self::DaemonSet => "/apis/apps/v1/daemonsets",
            Self::Job => "/apis/batch/v1/jobs",
            Self::PodGroup => "/apis/scheduling.x-k8s.io/v1alpha1/podgroups",
            Self::Service => "/api/v1/services",
            Self::ReplicationController => "/api/v1/replicationcontrollers",
            Self::ReplicaSet => "/apis/apps/v1/replicasets",
            Self::StatefulSet => "/apis/apps/v1/statefulsets",
            Self::Pod => "/api/v1/pods",
        }
    }

    /// Which of its objects are wanted, as a field selector. Pods that have ended take no room and are owed none.
    pub(super) const fn selector(self) -> Option<&'static str> {
        match self {
            Self::Pod => Some("status.phase!=Succeeded,status.phase!=Failed"),
            _ => None,
        }
    }

    pub(super) const fn missing(self) -> Missing {
        match self {
            // Of scheduler-plugins, which few clusters have.
            Self::PodGroup => Missing::Empty,
            _ => Missing::Awaited,
        }
    }

    /// Whether it matters only where pods are spread by default: what selects a pod is what it is spread among.
    pub(super) const fn is_for_default_spread(self) -> bool {
        matches!(self, Self::Service | Self::ReplicationController | Self::ReplicaSet | Self::StatefulSet)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
