//! PodDisruptionBudgets: how many pods of a kind may be missing.

use super::{Pod, PodId, PodPhase, PodSelector};

/// A `PodDisruptionBudget`, as its controller last counted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisruptionBudget {
    /// Its namespace and name.
    pub id: PodId,
    /// Pods it is about, in its own namespace.
    pub selector: PodSelector,
    /// How many more of them may be evicted now (`status.disruptionsAllowed`).
    pub allowed: u32,
    /// Whether pods that are not ready may go in any case (`unhealthyPodEvictionPolicy: AlwaysAllow`).
    pub evicts_unhealthy: bool,
}

impl DisruptionBudget {
    /// Whether it is about `pod`. Pods that have ended or are ending are nobody's business any more.
    #[must_use]
    pub fn covers(&self, pod: &Pod) -> bool {
        pod.phase != PodPhase::Finished
            && pod.terminating.is_none()
            && self.selector.matches(&pod.id.namespace, &pod.labels)
    }
}
