//! The simulated world: a queue of things to come, and the engine in the middle of it.
//!
//! A driver asks [`World::next_due`] and calls [`World::advance`] at that time; what comes from outside (reports over a real
//! link) it hands over with [`World::deliver`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use assay_agent::tree::Machine;
use assay_core::catalog::{CapacityType, Catalog, CatalogError};
use assay_core::engine::{Effect, Engine, Event, EventKind, Instance, LaunchError, LaunchFailure, Stats};
use assay_core::model::{Node, NodeClaim, Timestamp};
use assay_core::profile::ProfileStore;
use assay_shared::protocol::Notice;
use assay_shared::report::{EventType, GpuState, ScheduledEvent};
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;

use super::agents::Agents;
use super::cloud::{Cloud, PREEMPTION_NOTICE};
use super::cluster::Cluster;
use super::restart;
use super::scenario::{Scenario, Step};
use super::timeline::{Entry, Summary};
use super::watch::Watch;

/// From a node's start to its agent's first report.
const AGENT_START: Duration = Duration::from_secs(2);
/// How often the cloud is asked for its VMs, and how long its answer takes.
const LIST_INTERVAL: Duration = Duration::from_secs(120);
const LIST_ANSWER: Duration = Duration::from_secs(2);
/// How long agents that go away stay away.
const AGENTS_AWAY: Duration = Duration::from_secs(5 * 60);
/// Rounds of effects and their consequences at one moment; more means that two sides undo each other's work.
const ROUNDS_MAX: usize = 1000;

/// Something to come. What is meant for the scheduler's ears names the run it was meant for.
#[derive(Debug)]
pub(super) enum Action {
    Step(Box<Step>),
    Accepted { claim: Arc<str>, run: u64 },
    Refused { claim: Box<NodeClaim>, failure: LaunchFailure, message: String, run: u64 },
    Booted(Arc<str>),
    AgentStarts(Arc<str>),
    AgentReconnects { node: Arc<str>, run: u64 },
    Gone(Arc<str>),
    AskForList,
    Listed { asked: Timestamp, instances: Vec<Instance>, run: u64 },
}

/// An action in the queue; the sequence number keeps those of one moment in their order.
#[derive(Debug)]
struct Due {
    at: Timestamp,
    sequence: u64,
    action: Action,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.sequence) == (other.at, other.sequence)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.sequence).cmp(&(other.at, other.sequence))
    }
}

/// A VM of the simulated cloud.
#[derive(Debug)]
pub(super) struct Vm {
    pub(super) claim: Box<NodeClaim>,
    pub(super) machine: Box<Machine>,
    pub(super) created: Timestamp,
    /// Whether its node has joined.
    pub(super) is_up: bool,
    /// Whether its end was asked for.
    pub(super) is_ending: bool,
}

impl Vm {
    /// The cloud's id of it.
    pub(super) fn provider_id(&self) -> String {
        format!("azure:///virtualMachines/{}", self.claim.name)
    }
}

/// The world.
#[derive(Debug)]
pub struct World {
    pub(super) scenario: Scenario,
    pub(super) seed: u64,
    pub(super) catalog: Catalog,
    pub(super) engine: Engine,
    /// Which run of the scheduler this is, from 0.
    pub(super) run: u64,
    /// When the scheduler comes back, while it is down.
    pub(super) back_at: Option<Timestamp>,
    /// What earlier runs counted, and what was spent beyond what this one knows of.
    pub(super) earlier: Stats,
    pub(super) spent_earlier: f64,
    pub(super) crashes: Pcg64Mcg,
    pub(super) cluster: Cluster,
    pub(super) cloud: Cloud,
    pub(super) vms: BTreeMap<Arc<str>, Vm>,
    /// By how many milliseconds the scheduler's clock is ahead.
    skew: i64,
    /// Until when the API server takes no writes, and what waits for it.
    api_back: Timestamp,
    pub(super) waiting: VecDeque<(Timestamp, Effect)>,
    pub(super) watch: Watch,
    queue: BinaryHeap<Reverse<Due>>,
    sequence: u64,
    entries: Vec<Entry>,
}

impl World {
    /// The world of a scenario before anything happened.
    ///
    /// # Errors
    /// Where its region has no built-in catalogue.
    pub fn new(scenario: Scenario, seed: u64, profiles: ProfileStore) -> Result<Self, CatalogError> {
        let catalog = Catalog::builtin(&scenario.region)?;
        let mut cluster = Cluster::default();
        for daemon_set in &scenario.manifests.daemon_sets {
            cluster.add_daemon_set(daemon_set.clone());
        }
        let cloud = Cloud::new(scenario.cloud.clone(), seed);
        let steps = scenario.steps.clone();
        let start = Timestamp(0);
        let mut world = Self {
            engine: restart::engine(&scenario, catalog.clone(), seed, profiles, start),
            scenario,
            seed,
            catalog,
            run: 0,
            back_at: None,
            earlier: Stats::default(),
            spent_earlier: 0.0,
            crashes: Pcg64Mcg::seed_from_u64(seed.wrapping_mul(8).wrapping_add(4)),
            cluster,
            cloud,
            vms: BTreeMap::new(),
            skew: 0,
            api_back: start,
            waiting: VecDeque::new(),
            watch: Watch::default(),
            queue: BinaryHeap::new(),
            sequence: 0,
            entries: Vec::new(),
        };
        for event in world.cluster.everything() {
            world.engine.handle(start, event);
        }
        for step in steps {
            world.schedule(start + step.at, Action::Step(Box::new(step)));
        }
        world.schedule(start + LIST_INTERVAL, Action::AskForList);
        Ok(world)
    }

    /// When something happens next.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let queued = self.queue.peek().map(|Reverse(due)| due.at);
        let wakeup = || self.engine.next_wakeup().map(|at| shifted(at, -self.skew));
        let scheduler = self.back_at.or_else(wakeup);
        let writes = (!self.waiting.is_empty()).then_some(self.api_back);
        [queued, scheduler, writes, self.cluster.next_end()].into_iter().flatten().min()
    }

    /// Everything that happened since the last call.
    pub fn take_entries(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.entries)
    }

    /// The engine, to look at.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The cluster, to look at.
    #[must_use]
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Names of the VMs that the cloud has.
    pub fn vms(&self) -> impl Iterator<Item = &Arc<str>> {
        self.vms.keys()
    }

    /// Hands over what happened outside. [`Self::advance`] acts on it.
    pub fn deliver(&mut self, now: Timestamp, event: Event) {
        self.tell(now, event);
    }

    /// A node that is no VM of this cloud joins, such as the machine that a demo runs on.
    pub fn join(&mut self, now: Timestamp, node: Node) {
        self.note(now, format!("Node/{}", node.name), "Joined", "a machine of yours".to_owned());
        self.cluster.join(now, node);
    }

    /// Tells the scheduler; while it is down nobody listens.
    pub(super) fn tell(&mut self, now: Timestamp, event: Event) {
        if self.back_at.is_none() {
            let clock = self.clock(now);
            self.engine.handle(clock, event);
        }
    }

    /// What the scheduler's clock shows.
    pub(super) fn clock(&self, now: Timestamp) -> Timestamp {
        shifted(now, self.skew)
    }

    /// Does everything that is due, and everything that follows from it at this moment.
    pub fn advance(&mut self, now: Timestamp, agents: &mut dyn Agents) {
        for _ in 0..ROUNDS_MAX {
            while self.queue.peek().is_some_and(|Reverse(due)| due.at <= now) {
                if let Some(Reverse(due)) = self.queue.pop() {
                    self.act(now, due.action, agents);
                }
            }
            self.cluster.end_due(now);
            self.tell_changes(now);
            if self.back_at.is_some_and(|at| at <= now) {
                self.come_back(now);
            }
            let effects =
                if self.back_at.is_none() { self.engine.advance(self.clock(now)) } else { Vec::new() };
            for effect in &effects {
                let (time, pools) = (self.engine.now(), &self.scenario.manifests.pools);
                if let Some((object, wrong)) = self.watch.effect(time, effect, &self.cluster, pools) {
                    self.note(now, object, "Violation", wrong);
                }
            }
            self.waiting.extend(effects.into_iter().map(|effect| (now, effect)));
            let quiet = self.waiting.is_empty() || now < self.api_back;
            while let Some((said, effect)) = if now < self.api_back { None } else { self.waiting.pop_front() }
            {
                let broken = self.watch.at_once(&effect, &self.cluster).filter(|_| said == now);
                if let Some((object, wrong)) = broken {
                    self.note(now, object, "Violation", wrong);
                }
                self.carry_out(now, effect);
                if self.back_at.is_some() {
                    self.waiting.clear();
                }
            }
            let bound = self.cluster.bind();
            if bound > 0 {
                self.note(now, "Pods".to_owned(), "Bound", format!("{bound} pods start"));
            }
            let changed = self.tell_changes(now);
            let due_now = self.queue.peek().is_some_and(|Reverse(due)| due.at <= now);
            if quiet && bound == 0 && !changed && !due_now {
                let most = self.scenario.expect.pending_at_most;
                for (object, wrong) in self.watch.moment(now, &self.cluster, self.vms.keys(), most) {
                    self.note(now, object, "Violation", wrong);
                }
                return;
            }
        }
        self.note(now, "World".to_owned(), "Restless", format!("no end after {ROUNDS_MAX} rounds"));
    }

    /// Looks at what must hold at the end.
    pub fn conclude(&mut self, now: Timestamp) {
        if !self.scenario.expect.nothing_left {
            return;
        }
        let vms = self.vms.keys().map(|name| format!("VM/{name}"));
        let claims = self.cluster.claims().map(|claim| format!("NodeClaim/{}", claim.name));
        let nodes = self.cluster.nodes().map(|node| format!("Node/{}", node.name));
        let machines = self.engine.machines().keys().map(|name| format!("Machine/{name}"));
        let left: Vec<String> = vms.chain(claims).chain(nodes).chain(machines).collect();
        for object in left {
            self.note(now, object, "Violation", "left over at the end".to_owned());
        }
    }

    pub(super) fn schedule(&mut self, at: Timestamp, action: Action) {
        self.sequence += 1;
        self.queue.push(Reverse(Due { at, sequence: self.sequence, action }));
    }

    pub(super) fn note(&mut self, at: Timestamp, object: String, reason: &str, message: String) {
        self.enter(Entry { at, object, kind: EventKind::Normal, reason: reason.to_owned(), message });
    }

    pub(super) fn enter(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    /// Tells the engine what changed in the cluster; whether anything did.
    fn tell_changes(&mut self, now: Timestamp) -> bool {
        let events = self.cluster.take_events();
        let any = !events.is_empty();
        for event in events {
            self.tell(now, event);
        }
        any
    }

    fn act(&mut self, now: Timestamp, action: Action, agents: &mut dyn Agents) {
        match action {
            Action::Step(step) => self.step(now, &step, agents),
            Action::Accepted { claim, run } => self.accepted(now, claim, run),
            Action::Refused { claim, failure, message, run } => {
                let NodeClaim { name, instance_type, zone, capacity_type, .. } = *claim;
                let error = LaunchError { failure, instance_type, zone, capacity_type, message };
                if run == self.run {
                    self.tell(now, Event::LaunchFailed { claim: name, error });
                }
            }
            Action::Booted(name) => self.booted(now, &name),
            Action::AgentStarts(name) => {
                if let Some(vm) = self.vms.get(&name) {
                    let events = agents.start(&name, &vm.machine);
                    events.into_iter().for_each(|event| self.tell(now, event));
                }
            }
            Action::AgentReconnects { node, run } => {
                if let Some(vm) = self.vms.get(&node).filter(|vm| vm.is_up && run == self.run) {
                    let events = agents.reconnect(&node, &vm.machine);
                    events.into_iter().for_each(|event| self.tell(now, event));
                }
            }
            Action::Gone(name) => self.gone(now, &name, agents),
            Action::AskForList => {
                let instances = self.vms.values().map(|vm| Instance {
                    claim: Arc::clone(&vm.claim.name),
                    provider_id: vm.provider_id(),
                    created: vm.created,
                });
                let instances = instances.collect();
                self.schedule(now + LIST_ANSWER, Action::Listed { asked: now, instances, run: self.run });
                self.schedule(now + LIST_INTERVAL, Action::AskForList);
            }
            Action::Listed { asked, instances, run } => {
                if run == self.run {
                    self.tell(now, Event::InstancesListed { asked, instances });
                }
            }
        }
    }

    fn step(&mut self, now: Timestamp, step: &Step, agents: &mut dyn Agents) {
        for (name, replicas) in &step.scale {
            if let Some(workload) = self.scenario.workloads.get(name).cloned() {
                self.note(now, format!("Workload/{name}"), "Scaled", format!("to {replicas} pods"));
                self.cluster.scale(now, workload, *replicas);
            }
        }
        let mut spot = self.running(|vm| vm.claim.capacity_type == CapacityType::Spot);
        for _ in 0..step.preempt {
            let Some(name) = self.cloud.draw(&mut spot) else { break };
            let at = now + PREEMPTION_NOTICE;
            let event = ScheduledEvent { event_type: EventType::Preempt, not_before: http_date(at) };
            self.tell(now, Event::Notice { node: Arc::clone(&name), notice: Notice::Scheduled(event) });
            self.schedule(at, Action::Gone(name));
        }
        let mut with_gpu = self.running(|vm| !vm.machine.gpus.is_empty());
        for _ in 0..step.lose_gpu {
            let Some(name) = self.cloud.draw(&mut with_gpu) else { break };
            if let Some(vm) = self.vms.get_mut(&name) {
                if let Some(gpu) = vm.machine.gpus.first_mut() {
                    gpu.state = GpuState::Lost;
                }
                let events = agents.changed(&name, &vm.machine);
                events.into_iter().for_each(|event| self.tell(now, event));
            }
        }
        let mut nodes = self.running(|_| true);
        for _ in 0..step.delete_nodes {
            let Some(name) = self.cloud.draw(&mut nodes) else { break };
            self.note(now, format!("Node/{name}"), "Deleted", "somebody deletes the node".to_owned());
            self.cluster.delete_node(&name);
        }
        for _ in 0..step.delete_claims {
            let Some(name) = self.cloud.draw(&mut nodes) else { break };
            self.note(now, format!("NodeClaim/{name}"), "Deleted", "somebody deletes the claim".to_owned());
            self.cluster.delete_claim(now, &name);
        }
        for _ in 0..step.lose_agents {
            let Some(name) = self.cloud.draw(&mut nodes) else { break };
            let events = agents.stop(&name);
            events.into_iter().for_each(|event| self.tell(now, event));
            self.schedule(now + AGENTS_AWAY, Action::AgentReconnects { node: name, run: self.run });
        }
        if !step.api_down.is_zero() {
            let message = format!("no writes for {} s", step.api_down.as_secs());
            self.note(now, "APIServer".to_owned(), "Down", message);
            self.api_back = now + step.api_down;
        }
        if step.clock_step != 0 {
            self.skew += step.clock_step * 1000;
            let message = format!("by {} s", step.clock_step);
            self.note(now, "Scheduler".to_owned(), "ClockStepped", message);
        }
        if step.restart {
            self.crash(now);
        }
    }

    /// VMs whose node has joined and that nobody has asked to end.
    fn running(&self, which: impl Fn(&Vm) -> bool) -> Vec<Arc<str>> {
        let alive = self.vms.iter().filter(|(_, vm)| vm.is_up && !vm.is_ending && which(vm));
        alive.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// The cloud's answer reaches the scheduler, if it still is the one that asked.
    fn accepted(&mut self, now: Timestamp, claim: Arc<str>, run: u64) {
        let Some(vm) = self.vms.get(&claim).filter(|_| run == self.run) else { return };
        let event = Event::Launched {
            claim,
            provider_id: vm.provider_id(),
            instance_type: Arc::clone(&vm.claim.instance_type),
            zone: Arc::clone(&vm.claim.zone),
            capacity_type: vm.claim.capacity_type,
            price: vm.claim.price,
        };
        self.tell(now, event);
    }

    /// The node joins, with what its machine really has.
    fn booted(&mut self, now: Timestamp, name: &Arc<str>) {
        let Some(vm) = self.vms.get_mut(name).filter(|vm| !vm.is_ending) else { return };
        vm.is_up = true;
        let node = vm.node(now);
        let message = format!("{} in {}", vm.claim.instance_type, vm.claim.zone);
        self.note(now, format!("Node/{name}"), "Joined", message);
        self.cluster.join(now, node);
        self.schedule(now + AGENT_START, Action::AgentStarts(Arc::clone(name)));
    }

    fn gone(&mut self, now: Timestamp, name: &Arc<str>, agents: &mut dyn Agents) {
        let Some(vm) = self.vms.remove(name) else { return };
        self.cloud.deleted(&vm.claim.instance_type);
        for event in agents.stop(name) {
            self.tell(now, event);
        }
        self.cluster.lose_node(name);
        self.tell(now, Event::InstanceGone { claim: Arc::clone(name) });
        self.note(now, format!("NodeClaim/{name}"), "Gone", format!("{}", vm.claim.instance_type));
    }

    /// What all runs of the scheduler counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let mut stats = self.earlier.clone();
        stats += self.engine.stats();
        stats
    }

    /// The sums so far.
    #[must_use]
    pub fn summary(&self, now: Timestamp) -> Summary {
        let stats = self.stats();
        let machines = self.engine.machines().values();
        let price: f64 = machines
            .filter(|machine| machine.launched.is_some())
            .map(|machine| machine.claim.price.usd())
            .sum();
        Summary {
            seconds: now.0 / 1000,
            bought: stats.bought,
            launch_failures: stats.launch_failures,
            joined: stats.joined,
            learned_purchases: stats.learned_purchases,
            labels_refined: stats.labels_refined,
            mismatches: stats.mismatches.iter().map(|(kind, n)| (kind.as_str().to_owned(), *n)).collect(),
            released: stats.released.iter().map(|(reason, n)| (reason.as_str().to_owned(), *n)).collect(),
            quarantined: stats.quarantined,
            evicted: stats.evicted,
            restarts: self.run,
            pods_running: self.cluster.running(),
            pods_pending: self.cluster.pending(),
            nodes: self.cluster.nodes().count(),
            cost_usd: self.spent_earlier + self.engine.cost(self.clock(now)),
            price_per_hour: price,
        }
    }
}

/// A moment by another clock.
fn shifted(at: Timestamp, milliseconds: i64) -> Timestamp {
    Timestamp(at.0.saturating_add_signed(milliseconds))
}

/// A moment as Azure's Scheduled Events write it.
fn http_date(at: Timestamp) -> String {
    let millisecond = i64::try_from(at.0).unwrap_or(i64::MAX);
    let printed = jiff::Timestamp::from_millisecond(millisecond)
        .and_then(|at| jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at));
    printed.unwrap_or_default()
}
