//! Node pools: who may be bought for whom, how much of it, and when it goes again.

use std::borrow::Cow;
use std::time::Duration;

use assay_shared::labels::hardware;
use assay_shared::units::Usd;

use super::{Labels, ResourceList, Schedule, Taint, Timestamp};
use crate::requirement::{Operator, Requirement};

/// One `NodePool`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePool {
    /// Its name.
    pub name: String,
    /// Node class of its nodes.
    pub node_class: String,
    /// Larger is tried first; 0 where the manifest has none.
    pub weight: u32,
    /// Labels its nodes get.
    pub labels: Labels,
    /// Annotations its nodes get.
    pub annotations: Labels,
    /// Taints its nodes keep.
    pub taints: Vec<Taint>,
    /// Taints its nodes start with and lose once they are ready.
    pub startup_taints: Vec<Taint>,
    /// What its nodes must be.
    pub requirements: Vec<Requirement>,
    /// How much it may hold.
    pub limits: Limits,
    /// When its nodes go.
    pub disruption: DisruptionPolicy,
    /// Age at which a node is replaced.
    pub expire_after: Wait,
    /// How long draining a node may take; `None` waits for ever.
    pub termination_grace_period: Option<Duration>,
    /// What happens to a node whose hardware is not what was bought.
    pub mismatch_policy: MismatchPolicy,
    /// Hash of its template, as the edge computes it; a claim with another one has drifted.
    pub template_hash: Option<String>,
    /// What is wrong with it beyond what the API server refuses: such a pool buys nothing.
    pub problem: Option<String>,
    /// Whether its deletion has begun.
    pub deleting: bool,
}

impl NodePool {
    /// What decides which instance types it can buy: its class, and how the GPUs of its nodes are cut.
    #[must_use]
    pub fn types_key(&self) -> Cow<'_, str> {
        self.mig_config().map_or(Cow::Borrowed(&self.node_class), |config| {
            Cow::Owned(format!("{} {}={config}", self.node_class, hardware::MIG_CONFIG))
        })
    }

    /// The value of `nvidia.com/mig.config` that all its nodes have, by its labels or requirements.
    #[must_use]
    pub fn mig_config(&self) -> Option<&str> {
        let required = || {
            let mut required = self.requirements.iter().filter(|one| one.key == hardware::MIG_CONFIG);
            let one = required.find(|one| one.operator == Operator::In)?;
            if one.values.len() == 1 { one.values.first() } else { None }
        };
        self.labels.get(hardware::MIG_CONFIG).or_else(required).map(String::as_str)
    }

    /// A pool of this name with every default and no requirement.
    #[must_use]
    pub fn with_defaults(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            node_class: "default".to_owned(),
            weight: 0,
            labels: Labels::new(),
            annotations: Labels::new(),
            taints: Vec::new(),
            startup_taints: Vec::new(),
            requirements: Vec::new(),
            limits: Limits::default(),
            disruption: DisruptionPolicy::default(),
            expire_after: Wait::After(Duration::from_secs(720 * 3600)),
            termination_grace_period: None,
            mismatch_policy: MismatchPolicy::Replace,
            template_hash: None,
            problem: None,
            deleting: false,
        }
    }
}

/// The most a pool may hold. A resource that is not named is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Limited resources. A resource is limited where it is named in `limited`, so that a limit of zero can be told from none.
    pub resources: ResourceList,
    /// Kubernetes names of the limited resources.
    pub limited: Vec<String>,
    /// Nodes.
    pub nodes: Option<u64>,
}

/// When the nodes of a pool go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DisruptionPolicy {
    /// Which nodes may be consolidated.
    pub consolidation_policy: ConsolidationPolicy,
    /// How long a node must have been quiet.
    pub consolidate_after: Wait,
    /// How many nodes may go at once.
    pub budgets: Vec<Budget>,
    /// What a move must be worth, where the pool says.
    pub payback: PaybackRule,
}

/// What a pool says of how much a move must be worth; what it leaves out is as for all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PaybackRule {
    /// How long what is bought now can be expected to stay as it is. Zero: any saving will do.
    pub period: Option<Duration>,
    /// What evicting one ordinary pod costs.
    pub eviction: Option<Usd>,
}

impl Default for DisruptionPolicy {
    /// Karpenter's: empty or underutilised, at once, a tenth of the pool at a time.
    fn default() -> Self {
        Self {
            consolidation_policy: ConsolidationPolicy::WhenEmptyOrUnderutilized,
            consolidate_after: Wait::After(Duration::ZERO),
            budgets: vec![Budget::always(BudgetNodes::Percent(10))],
            payback: PaybackRule::default(),
        }
    }
}

/// A wait that may be for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// This long.
    After(Duration),
    /// It never happens.
    Never,
}

/// Which nodes may be consolidated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsolidationPolicy {
    /// Only empty ones.
    WhenEmpty,
    /// Empty ones, and ones that cheaper nodes could replace.
    WhenEmptyOrUnderutilized,
    /// The same, weighing savings against disruption.
    Balanced,
}

/// A limit on how many nodes of a pool may be disrupted at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// How many.
    pub nodes: BudgetNodes,
    /// For which reasons; empty is all.
    pub reasons: Vec<String>,
    /// At which times.
    pub window: BudgetWindow,
}

impl Budget {
    /// So many at any time, for any reason.
    #[must_use]
    pub const fn always(nodes: BudgetNodes) -> Self {
        Self { nodes, reasons: Vec::new(), window: BudgetWindow::Always }
    }
}

/// When a budget counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BudgetWindow {
    /// At any time.
    #[default]
    Always,
    /// For so long from each beginning.
    From(Box<Schedule>, Duration),
    /// Nobody knows, for this reason: nothing goes.
    Malformed(String),
}

impl BudgetWindow {
    /// Whether the budget counts at a moment. Like upstream, a schedule that never begins counts at all times.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        match self {
            Self::Always | Self::Malformed(_) => true,
            Self::From(schedule, duration) => {
                let length = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
                schedule.next(Timestamp(now.0.saturating_sub(length))).is_none_or(|begins| begins <= now)
            }
        }
    }
}

/// A number of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetNodes {
    /// So many.
    Count(u64),
    /// So many per hundred of the pool, rounded up.
    Percent(u32),
}

/// What happens to a node whose hardware is not what was bought.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MismatchPolicy {
    /// It is tainted and replaced.
    #[default]
    Replace,
    /// It is tainted and kept.
    Taint,
    /// It is labelled with what it is, and kept.
    Label,
}
