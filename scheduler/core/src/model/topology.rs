//! Constraints between pods: how they spread over domains, which want to be together and which apart.
//!
//! A *domain* is one value of a node label (the topology key): a zone, a host, a capacity type. `matchLabelKeys` and
//! `mismatchLabelKeys` are merged into the selector, and `namespaceSelector` is resolved, where the manifest is read.

use std::collections::BTreeSet;

use super::Labels;
use crate::requirement::{Requirement, Requirements};

/// Which pods a constraint is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodSelector {
    /// Namespaces they are in.
    pub namespaces: Namespaces,
    /// What their labels satisfy, all of it: In, NotIn, Exists, DoesNotExist. `None` matches no pod, an empty list every pod.
    pub labels: Option<Vec<Requirement>>,
}

impl PodSelector {
    /// Whether a pod in `namespace` with `labels` is selected. A selector that cannot be read selects nothing.
    #[must_use]
    pub fn matches(&self, namespace: &str, labels: &Labels) -> bool {
        self.namespaces.contains(namespace)
            && self.labels.as_ref().is_some_and(|list| {
                Requirements::from_list(list).is_ok_and(|needs| needs.check_labels(labels).is_ok())
            })
    }
}

/// A set of namespaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Namespaces {
    /// Every one.
    All,
    /// These.
    Named(BTreeSet<String>),
}

impl Namespaces {
    /// Only this one.
    #[must_use]
    pub fn only(name: &str) -> Self {
        Self::Named(BTreeSet::from([name.to_owned()]))
    }

    /// Whether `name` is among them.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(name),
        }
    }
}

/// One of `topologySpreadConstraints`, its own or a default of the cluster's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopologySpread {
    /// Node label whose values are the domains.
    pub topology_key: String,
    /// By how many pods the fullest domain may exceed the emptiest; at least 1.
    pub max_skew: u32,
    /// With fewer eligible domains than this the emptiest counts as holding none; 1 where the manifest has none.
    pub min_domains: u32,
    /// Pods that are counted.
    pub selector: PodSelector,
    /// Whether it binds.
    pub when_unsatisfiable: WhenUnsatisfiable,
    /// Whether domains that the pod's node selector and affinity exclude are left out of account. Default: they are.
    pub node_affinity_policy: NodeInclusion,
    /// Whether domains whose nodes have taints the pod does not tolerate are left out of account. Default: they are not.
    pub node_taints_policy: NodeInclusion,
}

/// What happens where a spread constraint cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WhenUnsatisfiable {
    /// The pod waits.
    DoNotSchedule,
    /// A preference only.
    ScheduleAnyway,
}

/// Whether a filter decides which nodes count as domains (`nodeAffinityPolicy`, `nodeTaintsPolicy`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NodeInclusion {
    /// Nodes that the filter excludes do not count.
    Honor,
    /// All nodes count.
    Ignore,
}

/// A term of pod affinity or anti-affinity: some pod of the selector is (not) in the same domain.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodAffinityTerm {
    /// Node label whose values are the domains.
    pub topology_key: String,
    /// The other pods.
    pub selector: PodSelector,
}

/// A preferred term of pod affinity or anti-affinity.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightedPodAffinityTerm {
    /// 1 to 100; the heaviest is given up first, as Karpenter does.
    pub weight: u32,
    /// The term.
    pub term: PodAffinityTerm,
}

/// A port of the node that a pod takes for itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Address it listens on; `None` is every address (`0.0.0.0`, `::` or not given).
    pub ip: Option<String>,
    /// The port, 1 to 65535.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl HostPort {
    /// Whether two pods with these ports cannot share a node.
    #[must_use]
    pub fn conflicts(&self, other: &Self) -> bool {
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip.is_none() || other.ip.is_none() || self.ip == other.ip)
    }
}

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}
