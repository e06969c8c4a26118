//! Whether a pod may run on a node: the scheduler's filter, for one pod and one node.

use crate::model::{Node, Pod, PodSpec, ResourceList, Taint, untolerated};
use crate::requirement::{Incompatible, Requirement, Requirements};

/// Why a pod may not run on a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The node is cordoned or going away.
    #[error("the node takes no new pods")]
    Closed,
    /// A hard taint.
    #[error("taint {0} is not tolerated")]
    Taint(Taint),
    /// Node selector or affinity.
    #[error("{0}")]
    Labels(Box<Incompatible>),
    /// The node selector or affinity cannot be read, or has no term.
    #[error("its node constraints cannot be read: {0}")]
    Invalid(String),
    /// There is not enough of something.
    #[error("needs more than is left of {0}")]
    Resources(String),
    /// It was found wrong when it was read.
    #[error("{0}")]
    Rejected(String),
}

/// Whether `pod` may run on `node` beside pods that use `used`.
///
/// # Errors
/// The first filter that fails.
pub fn pod_fits_node(pod: &Pod, node: &Node, used: &ResourceList) -> Result<(), Misfit> {
    if !node.accepts_pods() {
        return Err(Misfit::Closed);
    }
    if let Some(rejection) = pod.spec.rejections.first() {
        return Err(Misfit::Rejected(rejection.detail.clone()));
    }
    if let Some(taint) = untolerated(&node.taints, &pod.spec.tolerations) {
        return Err(Misfit::Taint(taint.clone()));
    }
    labels_allow(&pod.spec, |requirements| requirements.check_labels(&node.labels))?;
    let lacking = lacking(&pod.spec.requests, &(node.allocatable.clone() - used));
    lacking.map_or(Ok(()), |name| Err(Misfit::Resources(name)))
}

/// Node selector and required affinity of a pod, read once.
#[derive(Debug)]
pub(super) struct Needs {
    selector: Requirements,
    terms: Vec<Requirements>,
}

impl Needs {
    /// What a pod needs of a node's labels.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub(super) fn of(spec: &PodSpec) -> Result<Self, Misfit> {
        Self::read(&spec.node_selector, &spec.required_affinity)
    }

    /// The same of a node selector and alternative terms.
    ///
    /// # Errors
    /// Where that cannot be read.
    pub(super) fn read(selector: &[Requirement], terms: &[Vec<Requirement>]) -> Result<Self, Misfit> {
        let read = |list: &[Requirement]| {
            Requirements::from_list(list).map_err(|error| Misfit::Invalid(error.to_string()))
        };
        let terms = terms.iter().map(|term| read(term)).collect::<Result<_, _>>()?;
        Ok(Self { selector: read(selector)?, terms })
    }

    /// Whether the selector and one of the terms pass `test`.
    ///
    /// # Errors
    /// What failed.
    pub(super) fn test(
        &self,
        test: impl Fn(&Requirements) -> Result<(), Box<Incompatible>>,
    ) -> Result<(), Misfit> {
        test(&self.selector).map_err(Misfit::Labels)?;
        let mut failed = None;
        for term in &self.terms {
            match test(term) {
                Ok(()) => return Ok(()),
                Err(incompatible) => failed = Some(incompatible),
            }
        }
        failed.map_or(Ok(()), |incompatible| Err(Misfit::Labels(incompatible)))
    }
}

/// Whether node selector and one of the required terms pass `test`.
pub(super) fn labels_allow(
    spec: &PodSpec,
    test: impl Fn(&Requirements) -> Result<(), Box<Incompatible>>,
) -> Result<(), Misfit> {
    Needs::of(spec)?.test(test)
}

/// A resource of which `room` has less than `need`.
pub(super) fn lacking(need: &ResourceList, room: &ResourceList) -> Option<String> {
    let common = [
        ("cpu", need.cpu.0, room.cpu.0),
        ("memory", need.memory.0, room.memory.0),
        ("ephemeral-storage", need.ephemeral_storage.0, room.ephemeral_storage.0),
        ("pods", need.pods, room.pods),
    ];
    let extended = need.extended.iter().map(|(name, need)| (name.as_str(), *need, room.extended(name)));
    common.into_iter().chain(extended).find(|(_, need, room)| need > room).map(|(name, ..)| name.to_owned())
}
