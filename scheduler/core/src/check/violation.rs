//! Rules a plan can break.

use assay_shared::units::UsdPerHour;

use super::Misfit;
use crate::model::{PodId, Totals};

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A pod that does not wait.
    #[error("{0} is no pending pod")]
    UnknownPod(PodId),
    /// A pod with two places.
    #[error("{0} is placed or reported twice")]
    PodTwice(PodId),
    /// A pod that is neither placed nor reported.
    #[error("{0} is neither placed nor reported")]
    PodForgotten(PodId),
    /// A pod left out without a word.
    #[error("{0} is left out without a reason")]
    NoReason(PodId),
    /// A claim of an unknown pool, type or offering, or one that its pool does not allow.
    #[error("claim {claim}: {detail}")]
    Claim {
        /// The claim.
        claim: String,
        /// What is wrong.
        detail: String,
    },
    /// A pod that cannot run on the claim's machine, or on one of its alternatives.
    #[error("claim {claim}: {pod} does not fit {instance_type}: {misfit}")]
    PodOnClaim {
        /// The claim.
        claim: String,
        /// The pod.
        pod: PodId,
        /// The size.
        instance_type: String,
        /// Why.
        misfit: Misfit,
    },
    /// A pod that cannot run on the node it is sent to.
    #[error("node {node}: {pod} does not fit: {misfit}")]
    PodOnNode {
        /// The node or claim.
        node: String,
        /// The pod.
        pod: PodId,
        /// Why.
        misfit: Misfit,
    },
    /// A node, or claim, that does not exist or takes no pods.
    #[error("{0} is no node or claim that takes pods")]
    UnknownNode(String),
    /// A machine given more than it has.
    #[error("{machine}: more {resource} is asked for than {instance_type} has")]
    TooMuch {
        /// Claim or node.
        machine: String,
        /// The size, or the node itself.
        instance_type: String,
        /// The resource.
        resource: String,
    },
    /// A constraint between pods.
    #[error("{machine}: {pod} breaks a rule: {rule}")]
    Together {
        /// Node or claim.
        machine: String,
        /// The pod.
        pod: PodId,
        /// The rule and the numbers.
        rule: String,
    },
    /// More machines on a reservation than it has.
    #[error("reservation {id}: {drawn} machines draw on it, {remaining} are left")]
    Reservation {
        /// Its name.
        id: String,
        /// Claims that name it.
        drawn: u64,
        /// What it has.
        remaining: u64,
    },
    /// A pool over its limit.
    #[error("pool {pool}: over its limit of {resource}")]
    OverLimit {
        /// The pool.
        pool: String,
        /// The resource.
        resource: String,
    },
    /// Sums that do not add up.
    #[error("totals do not add up: {stated:?}")]
    Totals {
        /// What the plan says.
        stated: Totals,
    },
    /// A node that may not go, or not so.
    #[error("{node}: {detail}")]
    Disruption {
        /// The node, or the pod.
        node: String,
        /// What is wrong.
        detail: String,
    },
    /// A bound above a cost that was reached.
    #[error("the lower bound {bound} is above the price {price}")]
    LowerBound {
        /// The bound.
        bound: UsdPerHour,
        /// The price.
        price: UsdPerHour,
    },
}
