//! The state machine: what happened goes in, what to do comes out.
//!
//! ```text
//!  driver --handle(now, event)--> Engine --advance(now)--> effects --> driver
//!                                   |
//!                    claims (lifecycle), profiles, pods, nodes, pools
//! ```
//!
//! A driver (the simulator, the demo, later the Kubernetes driver) hands over every [`Event`] at hand with
//! [`Engine::handle`], which only records it, and then calls [`Engine::advance`], which decides and returns [`Effect`]s. It
//! calls `advance` again when [`Engine::next_wakeup`] is due. The same events at the same times give the same effects.
//!
//! An engine keeps nothing that is not on an object or in the cloud. At start a driver hands over all there is (pools and
//! classes first, then claims, nodes, pods), and the engine goes on where an earlier one stopped.
//!
//! | file | what it decides |
//! |---|---|
//! | `record` | what an event means for what is known |
//! | `roll` | which machines a pass has to look at |
//! | `picture` | what the solver sees: followed, not read again |
//! | `provision` | what is bought for pending pods |
//! | `claims` | what the cloud's and the API server's word on a claim means: launched, refused, deleted, gone |
//! | `registration` | which node is whose, what it gets, and when pods may count on it |
//! | `hardware` | what a report means: profile, labels, conditions, mismatch |
//! | `disruption` | which machines go by our own choice: planned, validated, carried out, undone |
//! | `release` | why machines go, and what lies between the decision and the end |
//! | `termination`, `drain` | how they go: pods, volumes, VM, claim |
//! | `collect` | VMs without claim, claims without VM |
//! | `telling` | what people are told although nothing is done about it |
//! | `pools` | what a pool's status says, and whether it may buy |

mod claims;
mod collect;
mod disruption;
mod drain;
mod effect;
mod event;
mod hardware;
mod holdings;
mod machine;
mod nominations;
mod picture;
mod pods;
mod pools;
mod provision;
mod record;
mod registration;
mod release;
mod roll;
mod telling;
mod termination;
mod timers;
mod tracked;
mod unavailable;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use assay_shared::HardwareReport;
use assay_shared::units::Bytes;

pub use disruption::DisruptionCounts;
pub use effect::{Condition, ConditionStatus, Effect, EventKind};
pub use event::{Event, EvictionAnswer, Instance, LaunchError, LaunchFailure};
pub use machine::{Ending, Machine};
pub use pools::PoolStatus;
pub use release::LeaveReason;
pub(crate) use termination::disrupted_taint;

use crate::catalog::{Catalog, InstanceType};
use crate::disrupt::DisruptOptions;
use crate::model::{DaemonSet, DisruptionBudget, Node, NodeClass, NodePool, Pod, PodId, Timestamp};
use crate::profile::{MismatchKind, ProfileStore};
use crate::solve::SolveOptions;
use claims::Release;
use disruption::Disruption;
use drain::Eviction;
use holdings::Holdings;
use nominations::Nominations;
use picture::Picture;
use pods::Pods;
use pools::Registrations;
use roll::Roll;
use timers::Timers;
use tracked::Tracked;
use unavailable::Unavailable;

/// What could be bought: the catalogue behind an interface, so that the engine does not care where it comes from.
pub trait InstanceTypes: Debug + Send {
    /// The types for machines of a class. `measured` gives the kernel memory that was learned for a size.
    fn for_class(&self, class: &NodeClass, measured: &dyn Fn(&str) -> Option<Bytes>) -> Vec<InstanceType>;

    /// Memory that a size is sold with; what a report can be held against.
    fn sold_memory(&self, instance_type: &str) -> Option<Bytes>;

    /// Region the types are sold in.
    fn region(&self) -> &str;
}

impl<T: InstanceTypes + Sync> InstanceTypes for Arc<T> {
    fn for_class(&self, class: &NodeClass, measured: &dyn Fn(&str) -> Option<Bytes>) -> Vec<InstanceType> {
        T::for_class(self, class, measured)
    }

    fn sold_memory(&self, instance_type: &str) -> Option<Bytes> {
        T::sold_memory(self, instance_type)
    }

    fn region(&self) -> &str {
        T::region(self)
    }
}

impl InstanceTypes for Catalog {
    fn for_class(&self, class: &NodeClass, measured: &dyn Fn(&str) -> Option<Bytes>) -> Vec<InstanceType> {
        self.instance_types(class, measured)
    }

    fn sold_memory(&self, instance_type: &str) -> Option<Bytes> {
        let sku = self.skus().iter().find(|sku| &*sku.size.name == instance_type)?;
        Some(sku.size.memory)
    }

    /// Empty for a provider-neutral catalogue, which knows of no regions.
    fn region(&self) -> &str {
        Catalog::region(self).unwrap_or_default()
    }
}

/// What the engine may be told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Pods are collected until none came for this long.
    pub batch_idle: Duration,
    /// But never longer than this.
    pub batch_max: Duration,
    /// How long a node that has joined may take to report its hardware.
    pub report_timeout: Duration,
    /// What happens when it does not.
    pub report_timeout_policy: ReportTimeoutPolicy,
    /// How the solver works.
    pub solve: SolveOptions,
    /// How it is decided which machines go; `solve` in it is not looked at.
    pub disrupt: DisruptOptions,
    /// How often machines are looked at while things change.
    pub disruption_poll: Duration,
    /// How long what saves money waits before it is held against the cluster once more, and done.
    pub disruption_validation: Duration,
    /// Makes names of claims differ between clusters and restarts.
    pub seed: u64,
}

impl Default for Settings {
    /// Karpenter's: a batch window of 1 s idle and 10 s at most, machines looked at every 10 s, validation after 15 s.
    fn default() -> Self {
        Self {
            batch_idle: Duration::from_secs(1),
            batch_max: Duration::from_secs(10),
            report_timeout: Duration::from_secs(5 * 60),
            report_timeout_policy: ReportTimeoutPolicy::Trust,
            solve: SolveOptions::default(),
            disrupt: DisruptOptions::default(),
            disruption_poll: Duration::from_secs(10),
            disruption_validation: Duration::from_secs(15),
            seed: 0,
        }
    }
}

/// What happens to a node that joined and never reports its hardware.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReportTimeoutPolicy {
    /// It is used unmeasured: a broken agent must not keep a cluster from growing.
    #[default]
    Trust,
    /// It is given back, and its pods are planned anew.
    Replace,
}

/// Counters since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// VMs asked for.
    pub bought: u64,
    /// VMs the cloud refused.
    pub launch_failures: u64,
    /// Machines that joined.
    pub joined: u64,
    /// Machines that went, by reason.
    pub released: BTreeMap<LeaveReason, u64>,
    /// Machines found to be less than bought, by kind.
    pub mismatches: BTreeMap<MismatchKind, u64>,
    /// Pods evicted.
    pub evicted: u64,
    /// VMs found in the cloud that no claim wanted.
    pub collected: u64,
    /// Labels set to what was measured.
    pub labels_refined: u64,
    /// Reports put aside as impossible.
    pub quarantined: u64,
    /// Purchases whose memory came from a profile instead of the model.
    pub learned_purchases: u64,
    /// Plans made, for pods that wait and for machines that might go.
    pub plans: u64,
    /// Plans that the independent check refused: a bug, and nothing was bought.
    pub plans_refused: u64,
}

impl AddAssign<&Self> for Stats {
    fn add_assign(&mut self, other: &Self) {
        self.bought += other.bought;
        self.launch_failures += other.launch_failures;
        self.joined += other.joined;
        for (reason, count) in &other.released {
            *self.released.entry(*reason).or_default() += count;
        }
        for (kind, count) in &other.mismatches {
            *self.mismatches.entry(*kind).or_default() += count;
        }
        self.evicted += other.evicted;
        self.collected += other.collected;
        self.labels_refined += other.labels_refined;
        self.quarantined += other.quarantined;
        self.learned_purchases += other.learned_purchases;
        self.plans += other.plans;
        self.plans_refused += other.plans_refused;
    }
}

/// The state machine.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    types: Box<dyn InstanceTypes>,
    profiles: ProfileStore,
    /// The latest time that was told.
    now: Timestamp,
    pods: Pods,
    nodes: Tracked<Arc<str>, Node>,
    pools: BTreeMap<String, NodePool>,
    classes: BTreeMap<String, NodeClass>,
    daemon_sets: BTreeMap<PodId, DaemonSet>,
    disruption_budgets: BTreeMap<PodId, DisruptionBudget>,
    /// By claim.
    machines: Tracked<Arc<str>, Machine>,
    /// Machines by what may have to be done about them.
    roll: Roll,
    /// What they have, by pool.
    holdings: Holdings,
    /// The cluster as decisions see it.
    picture: Picture,
    /// When pods will have left each machine alone for as long as its pool says.
    quiet: Timers<Arc<str>>,
    /// The claim of each node that has one. Names of nodes and claims may differ.
    claim_by_node: BTreeMap<Arc<str>, Arc<str>>,
    /// Claims whose VM is gone and whose object may still be there.
    releasing: BTreeMap<Arc<str>, Release>,
    /// When claims of late were let go of for good.
    let_go_at: BTreeMap<Arc<str>, Timestamp>,
    /// Volumes attached to nodes.
    attachments: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// Reports that came before their node did.
    early_reports: BTreeMap<Arc<str>, Arc<HardwareReport>>,
    registrations: Registrations,
    /// Pods on their way off a node.
    evictions: BTreeMap<PodId, Eviction>,
    /// Pods of leaving machines for which the last plan found no other place.
    placeless: BTreeSet<PodId>,
    disruption: Disruption,
    /// Where each pod that is not bound yet, or must move, is expected to run: a claim, or a node that has none.
    nominations: Nominations,
    /// Pods already reported as unschedulable, with what was said, so that it is said once.
    reported: BTreeMap<PodId, String>,
    /// Pools that can buy nothing, with what was said.
    reported_pools: BTreeMap<String, String>,
    unavailable: Unavailable,
    /// What each class could buy, for the claims that are told until the next `advance`: a new leader is told thousands.
    types_told: BTreeMap<String, Arc<[Arc<InstanceType>]>>,
    /// First and last arrival of the pods that wait to be solved.
    batch: Option<(Timestamp, Timestamp)>,
    /// When something next becomes due for a reason other than the batch.
    wakeups: BTreeSet<Timestamp>,
    /// When offerings that delivered broken machines may be tried again.
    recoveries: BTreeSet<Timestamp>,
    names_given: u64,
    /// Cost of machines that are gone, in billionths of a dollar times milliseconds per hour.
    spent: u128,
    stats: Stats,
    effects: Vec<Effect>,
}

impl Engine {
    /// An engine that knows what could be bought and what was learned before, and nothing of the cluster.
    #[must_use]
    pub fn new(settings: Settings, types: Box<dyn InstanceTypes>, profiles: ProfileStore) -> Self {
        Self {
            settings,
            types,
            profiles,
            now: Timestamp::default(),
            pods: Pods::default(),
            nodes: Tracked::default(),
            pools: BTreeMap::new(),
            classes: BTreeMap::new(),
            daemon_sets: BTreeMap::new(),
            disruption_budgets: BTreeMap::new(),
            machines: Tracked::default(),
            roll: Roll::default(),
            holdings: Holdings::default(),
            picture: Picture::default(),
            quiet: Timers::default(),
            claim_by_node: BTreeMap::new(),
            releasing: BTreeMap::new(),
            let_go_at: BTreeMap::new(),
            attachments: BTreeMap::new(),
            early_reports: BTreeMap::new(),
            registrations: Registrations::default(),
            evictions: BTreeMap::new(),
            placeless: BTreeSet::new(),
            disruption: Disruption::default(),
            nominations: Nominations::default(),
            reported: BTreeMap::new(),
            reported_pools: BTreeMap::new(),
            unavailable: Unavailable::default(),
            types_told: BTreeMap::new(),
            batch: None,
            wakeups: BTreeSet::new(),
            recoveries: BTreeSet::new(),
            names_given: 0,
            spent: 0,
            stats: Stats::default(),
            effects: Vec::new(),
        }
    }

    /// Decides on everything that is due and returns what to do, in order.
    #[must_use = "effects that are not carried out are lost"]
    pub fn advance(&mut self, now: Timestamp) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.types_told.clear();
        self.wakeups = self.wakeups.split_off(&Timestamp(now.0.saturating_add(1)));
        if self.unavailable.expire(now) {
            self.picture.market_changed();
            self.solve_soon(now);
        }
        self.release_overdue(now);
        self.retry_recovered(now);
        self.settle_silent(now);
        self.initialize_ready(now);
        self.expire_nominations(now);
        self.watch_commands(now);
        self.verify_networks(now);
        self.provision_if_due(now);
        self.settle_leaving(now);
        self.decide_disruption(now);
        self.move_ending(now);
        self.repeat_releases(now);
        self.follow();
        std::mem::take(&mut self.effects)
    }

    /// When `advance` should be called next, if nothing happens before.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Timestamp> {
        let batch = self.batch_due();
        let others = [self.wakeups.first().copied(), self.unavailable.next_expiry(), self.disruption_due()];
        batch.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Asks to be woken at `at`.
    fn wake(&mut self, at: Timestamp) {
        self.wakeups.insert(at);
    }

    /// The latest time that was told.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Machines by claim name.
    #[must_use]
    pub fn machines(&self) -> &BTreeMap<Arc<str>, Machine> {
        &self.machines
    }

    /// Those machines of a list that are there.
    fn listed<'e>(
        &'e self,
        list: &'e BTreeSet<Arc<str>>,
    ) -> impl Iterator<Item = (&'e Arc<str>, &'e Machine)> {
        list.iter().filter_map(|name| self.machines.get_key_value(name))
    }

    /// Nodes by name, whoever made them.
    #[must_use]
    pub fn nodes(&self) -> &BTreeMap<Arc<str>, Node> {
        &self.nodes
    }

    /// All pods that it knows of.
    pub fn pods(&self) -> impl Iterator<Item = &Pod> {
        self.pods.values()
    }

    /// Pools by name.
    #[must_use]
    pub const fn pools(&self) -> &BTreeMap<String, NodePool> {
        &self.pools
    }

    /// Node classes by name.
    #[must_use]
    pub const fn classes(&self) -> &BTreeMap<String, NodeClass> {
        &self.classes
    }

    /// Whether machines made from a class are there.
    #[must_use]
    pub fn uses_class(&self, class: &str) -> bool {
        self.holdings.uses_class(class)
    }

    /// What was learned.
    #[must_use]
    pub const fn profiles(&self) -> &ProfileStore {
        &self.profiles
    }

    /// How many pods wait for which no machine can be bought.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.reported.len()
    }

    /// Counters.
    #[must_use]
    pub const fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Where a pod that is not bound yet is expected to run.
    #[must_use]
    pub fn nomination(&self, pod: &PodId) -> Option<&Arc<str>> {
        self.nominations.get(pod)
    }

    /// What all machines cost together, in dollars, from each one's launch until `now`.
    #[must_use]
    pub fn cost(&self, now: Timestamp) -> f64 {
        let running = self.machines.values().map(|machine| machine.spent(now)).sum::<u128>();
        #[allow(clippy::cast_precision_loss)] // 16 digits of a bill are enough
        let nano_dollar_milliseconds = (self.spent + running) as f64;
        nano_dollar_milliseconds / 1e9 / 3_600_000.0
    }

    fn record_event(&mut self, object: String, kind: EventKind, reason: &'static str, message: String) {
        self.effects.push(Effect::RecordEvent { object, kind, reason, message });
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
