//! What `disrupt` returns: commands, each specific enough to be carried out, and nodes that stay with their reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_shared::units::{Usd, UsdPerHour};

use crate::model::{Drift, Plan, PlannedClaim, PodId, Timestamp};

/// Which nodes go, in which order, what is bought for them, and where their pods run afterwards.
#[must_use = "a plan does nothing until it is carried out"]
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DisruptionPlan {
    /// In the order in which they are carried out: each is valid in the state that those before it leave behind.
    pub commands: Vec<Command>,
    /// Nodes that stay although something speaks for their going, by name.
    pub blocked: Vec<Blocked>,
    /// What happens anyway and comes first: where pods go that wait already.
    pub assumed: Plan,
    /// Nodes that are on their way out already.
    pub leaving: Vec<Arc<str>>,
    /// Nodes that are not what their pool would make now, whether they go or not, and why.
    pub drifted: BTreeMap<Arc<str>, Drift>,
    /// Sums.
    pub totals: DisruptionTotals,
}

/// Nodes that go together.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Why.
    pub reason: DisruptionReason,
    /// What is meant by that, for people.
    pub detail: String,
    /// The nodes, by name.
    pub nodes: Vec<Arc<str>>,
    /// What is bought and ready before a pod leaves.
    pub replacements: Vec<PlannedClaim>,
    /// Where each pod goes, by pod.
    pub moves: Vec<Move>,
    /// Pods that have nowhere to go and lose their node all the same: only where it goes by force.
    pub stranded: Vec<PodId>,
    /// What the nodes cost.
    pub price: UsdPerHour,
    /// What the replacements cost.
    pub replacement_price: UsdPerHour,
    /// What it is worth and what it costs; for moves that are made to save money.
    pub payback: Option<Payback>,
    /// By when the pods must be gone, where somebody else takes the node.
    pub deadline: Option<Timestamp>,
}

impl Command {
    /// What the nodes cost more per hour than their replacements, in billionths of a dollar; negative where less.
    #[must_use]
    pub fn saving(&self) -> i128 {
        i128::from(self.price.0) - i128::from(self.replacement_price.0)
    }

    /// Pods that are evicted.
    #[must_use]
    pub fn evictions(&self) -> usize {
        self.moves.len() + self.stranded.len()
    }
}

/// A pod that goes from one node to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// The pod.
    pub pod: PodId,
    /// Node it leaves.
    pub from: Arc<str>,
    /// Node or claim that takes it; a replacement by its name in the plan.
    pub to: Arc<str>,
}

/// Whether a move is worth it: what it saves while it lasts against what it costs once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payback {
    /// How long the saving is counted.
    pub period_seconds: u64,
    /// What is saved in that time.
    pub worth: Usd,
    /// What evicting the pods costs.
    pub evictions: Usd,
    /// Capacity that the pods pay for and do not use while they move.
    pub lost_time: Usd,
    /// What the replacements cost before they take over.
    pub start_up: Usd,
}

impl Payback {
    /// What the move costs once.
    #[must_use]
    pub fn cost(&self) -> Usd {
        self.evictions + self.lost_time + self.start_up
    }
}

/// Why nodes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DisruptionReason {
    /// The cloud takes it back.
    Preempted,
    /// It has been broken for too long.
    Unhealthy,
    /// It is older than its pool allows.
    Expired,
    /// It is not what was bought.
    WrongHardware,
    /// Its pool has more nodes than it should.
    ScaledDown,
    /// Nobody needs it.
    Empty,
    /// It is not what its pool would make now.
    Drifted,
    /// Its pods can run for less elsewhere.
    Underutilized,
}

impl DisruptionReason {
    /// Karpenter's word where it has one: what budgets name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preempted => "Preempted",
            Self::Unhealthy => "Unhealthy",
            Self::Expired => "Expired",
            Self::WrongHardware => "WrongHardware",
            Self::ScaledDown => "ScaledDown",
            Self::Empty => "Empty",
            Self::Drifted => "Drifted",
            Self::Underutilized => "Underutilized",
        }
    }

    /// Whether the node goes whatever budgets, pods and annotations say.
    #[must_use]
    pub const fn is_forced(self) -> bool {
        matches!(self, Self::Preempted | Self::Unhealthy | Self::Expired)
    }
}

/// A node that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocked {
    /// Its name.
    pub node: Arc<str>,
    /// What binds first.
    pub reason: BlockReason,
    /// The numbers, for people.
    pub detail: String,
    /// What it would take.
    pub fix: Option<String>,
}

/// Kinds of reasons to stay, stable words for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BlockReason {
    /// No NodeClaim speaks for it.
    NoNodeClaim,
    /// Its pool is unknown.
    NodePoolNotFound,
    /// It is not ready for pods yet.
    NotInitialized,
    /// Pods that wait are expected on it.
    Nominated,
    /// It, or a pod on it, is annotated `karpenter.sh/do-not-disrupt`.
    DoNotDisrupt,
    /// A PodDisruptionBudget lets none of its pods go.
    PodDisruptionBudget,
    /// Its pool's budget is spent, or is zero.
    Budget,
    /// A budget of its pool cannot be read.
    MalformedBudget,
    /// Too much of its pool, or of the cluster, is broken: then it is not the node.
    TooManyUnhealthy,
    /// Its pool's policy.
    ConsolidationPolicy,
    /// Pods came or went too short a time ago.
    ConsolidateAfter,
    /// It was bought too short a time ago.
    PaybackPeriod,
    /// Its price is unknown.
    UnknownPrice,
    /// A pod has nowhere else to go.
    NoPlaceForPod,
    /// Nothing cheaper holds its pods.
    NoCheaperReplacement,
    /// Too few cheaper types to replace a spot machine by another.
    SpotToSpot,
    /// It would save something, and disrupt more than that is worth.
    Payback,
    /// The same by the pool's policy `Balanced`.
    Balanced,
    /// More pods would move than were asked for.
    MaxMoves,
    /// Another node goes first.
    OneAtATime,
    /// Its pods share a node with others that move in this plan.
    TakesPods,
    /// The work allowed was spent before it was looked at.
    NotLookedAt,
}

impl BlockReason {
    /// The word in the output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoNodeClaim => "NoNodeClaim",
            Self::NodePoolNotFound => "NodePoolNotFound",
            Self::NotInitialized => "NotInitialized",
            Self::Nominated => "Nominated",
            Self::DoNotDisrupt => "DoNotDisrupt",
            Self::PodDisruptionBudget => "PodDisruptionBudget",
            Self::Budget => "Budget",
            Self::MalformedBudget => "MalformedBudget",
            Self::TooManyUnhealthy => "TooManyUnhealthy",
            Self::ConsolidationPolicy => "ConsolidationPolicy",
            Self::ConsolidateAfter => "ConsolidateAfter",
            Self::PaybackPeriod => "PaybackPeriod",
            Self::UnknownPrice => "UnknownPrice",
            Self::NoPlaceForPod => "NoPlaceForPod",
            Self::NoCheaperReplacement => "NoCheaperReplacement",
            Self::SpotToSpot => "SpotToSpot",
            Self::Payback => "Payback",
            Self::Balanced => "Balanced",
            Self::MaxMoves => "MaxMoves",
            Self::OneAtATime => "OneAtATime",
            Self::TakesPods => "TakesPods",
            Self::NotLookedAt => "NotLookedAt",
        }
    }

    /// Whether somebody forbade it, rather than that nothing would be gained: such a node is always listed.
    #[must_use]
    pub const fn is_a_ban(self) -> bool {
        !matches!(
            self,
            Self::NoCheaperReplacement
                | Self::NoPlaceForPod
                | Self::Payback
                | Self::PaybackPeriod
                | Self::ConsolidateAfter
                | Self::ConsolidationPolicy
                | Self::TakesPods
                | Self::NotLookedAt
        )
    }
}

/// Sums over a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DisruptionTotals {
    /// What all nodes with a known price cost now.
    pub price: UsdPerHour,
    /// What they and the replacements cost once the plan is carried out.
    pub price_after: UsdPerHour,
    /// Nodes that go.
    pub nodes: usize,
    /// Machines that are bought.
    pub replacements: usize,
    /// Pods that are evicted.
    pub evictions: usize,
}
