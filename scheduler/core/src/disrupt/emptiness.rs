//! Nodes that nobody needs.

use std::sync::Arc;

use crate::model::{Timestamp, Wait};

/// A node that might go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its claim.
    pub claim: Arc<str>,
    /// Pods that would have to run elsewhere, or are expected here.
    pub needed_by: usize,
    /// Whether somebody forbade it (`karpenter.sh/do-not-disrupt`).
    pub protected: bool,
    /// Since when no pod came or went.
    pub quiet_since: Timestamp,
}

/// The candidates that are empty, were quiet for `consolidate_after`, and may go; quietest first, at most `allowed`.
/// Also the moment at which the next one will be due.
#[must_use]
pub fn empty_nodes(
    candidates: &[Candidate],
    consolidate_after: Wait,
    allowed: u64,
    now: Timestamp,
) -> (Vec<Arc<str>>, Option<Timestamp>) {
    let Wait::After(wait) = consolidate_after else { return (Vec::new(), None) };
    let mut empty: Vec<_> =
        candidates.iter().filter(|candidate| candidate.needed_by == 0 && !candidate.protected).collect();
    empty.sort_by_key(|candidate| (candidate.quiet_since, Arc::clone(&candidate.claim)));
    let (due, waiting): (Vec<_>, Vec<_>) =
        empty.into_iter().partition(|candidate| candidate.quiet_since + wait <= now);
    let next = waiting.first().map(|candidate| candidate.quiet_since + wait);
    let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
    (due.into_iter().take(allowed).map(|candidate| Arc::clone(&candidate.claim)).collect(), next)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_quiet_empty_unprotected_nodes_go_and_no_more_than_allowed() {
        let node = |name: &str, needed_by, protected, quiet: u64| Candidate {
            claim: name.into(),
            needed_by,
            protected,
            quiet_since: Timestamp(quiet * 1000),
        };
        let nodes = [
            node("busy", 1, false, 0),
            node("kept", 0, true, 0),
            node("second", 0, false, 20),
            node("first", 0, false, 10),
            node("fresh", 0, false, 95),
        ];
        let after = Wait::After(Duration::from_secs(30));
        let (gone, next) = empty_nodes(&nodes, after, 9, Timestamp(100_000));
        assert_eq!(gone, ["first".into(), "second".into()] as [Arc<str>; 2]);
        assert_eq!(next, Some(Timestamp(125_000)));
        assert_eq!(empty_nodes(&nodes, after, 1, Timestamp(100_000)).0.len(), 1);
        assert_eq!(empty_nodes(&nodes, Wait::Never, 9, Timestamp(100_000)), (vec![], None));
    }
}
