//! Changes of a snapshot, told to whoever keeps what was made of it.

use std::sync::Arc;

use super::{Node, NodeClaim, Pod, PodId};

/// One object of a [`Snapshot`](super::Snapshot) came, is otherwise than it was, or went. The same change twice is the same
/// as once.
#[derive(Debug, Clone)]
pub enum Change {
    /// This is the pod now.
    Pod(Arc<Pod>),
    /// There is no such pod any more.
    PodGone(PodId),
    /// This is the node now.
    Node(Arc<Node>),
    /// There is no such node any more.
    NodeGone(Arc<str>),
    /// This is the claim now.
    Claim(Arc<NodeClaim>),
    /// There is no such claim any more, or nothing is to be expected of it.
    ClaimGone(Arc<str>),
}
