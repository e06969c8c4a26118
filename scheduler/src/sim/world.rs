//! The simulated world: a queue of things to come, and the engine in the middle of it.
//!
//! A driver asks [`World::next_due`] and calls [`World::advance`] at that time; what comes from outside (reports over a real
//! link) it hands over with [`World::deliver`].

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use assay_agent::tree::Machine;
use assay_core::catalog::{CapacityType, Catalog, CatalogError};
use assay_core::engine::{Effect, Engine, Event, EventKind, LaunchError, Settings};
use assay_core::model::{Labels, Node, NodeClaim, NodeClass, ResourceList, Timestamp};
use assay_core::profile::ProfileStore;
use assay_shared::labels::hardware;
use assay_shared::protocol::Notice;
use assay_shared::report::{EventType, GpuState, ScheduledEvent};

use super::agents::Agents;
use super::cloud::{ANSWER, Answer, Cloud, DELETION, PREEMPTION_NOTICE};
use super::cluster::{Change, Cluster};
use super::scenario::{Scenario, Step};
use super::timeline::{Entry, Summary};

/// From a node's start to its agent's first report.
const AGENT_START: Duration = Duration::from_secs(2);
/// Rounds of effects and their consequences at one moment; more means that two sides undo each other's work.
const ROUNDS_MAX: usize = 1000;

/// Something to come.
#[derive(Debug)]
enum Action {
    Step(Box<Step>),
    Answered { claim: Box<NodeClaim>, answer: Answer },
    Booted(Arc<str>),
    AgentStarts(Arc<str>),
    Gone(Arc<str>),
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
struct Vm {
    claim: Box<NodeClaim>,
    /// None until the cloud has answered.
    machine: Option<Box<Machine>>,
    /// Whether its end was asked for.
    ending: bool,
}

/// The world.
#[derive(Debug)]
pub struct World {
    scenario: Scenario,
    engine: Engine,
    cluster: Cluster,
    cloud: Cloud,
    vms: BTreeMap<Arc<str>, Vm>,
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
        let settings = Settings { seed, ..Settings::default() };
        let mut engine = Engine::new(settings, Box::new(catalog), profiles);
        let mut cluster = Cluster::default();
        let start = Timestamp(0);
        for class in &scenario.manifests.classes {
            engine.handle(start, Event::ClassApplied(Box::new(class.clone())));
        }
        for pool in &scenario.manifests.pools {
            if !scenario.manifests.classes.iter().any(|class| class.name == pool.node_class) {
                let class = NodeClass::with_defaults(&pool.node_class);
                engine.handle(start, Event::ClassApplied(Box::new(class)));
            }
        }
        for pool in &scenario.manifests.pools {
            engine.handle(start, Event::PoolApplied(Box::new(pool.clone())));
        }
        for daemon_set in &scenario.manifests.daemon_sets {
            engine.handle(start, Event::DaemonSetApplied(Box::new(daemon_set.clone())));
            cluster.add_daemon_set(daemon_set.clone());
        }
        let cloud = Cloud::new(scenario.cloud.clone(), seed);
        let steps = scenario.steps.clone();
        let mut world = Self {
            scenario,
            engine,
            cluster,
            cloud,
            vms: BTreeMap::new(),
            queue: BinaryHeap::new(),
            sequence: 0,
            entries: Vec::new(),
        };
        for step in steps {
            world.schedule(start + step.at, Action::Step(Box::new(step)));
        }
        Ok(world)
    }

    /// When something happens next.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let queued = self.queue.peek().map(|Reverse(due)| due.at);
        [queued, self.engine.next_wakeup()].into_iter().flatten().min()
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

    /// Hands over what happened outside. [`Self::advance`] acts on it.
    pub fn deliver(&mut self, now: Timestamp, event: Event) {
        self.engine.handle(now, event);
    }

    /// A node that is no VM of this cloud joins, such as the machine that a demo runs on.
    pub fn join(&mut self, now: Timestamp, node: Node) {
        self.note(now, format!("Node/{}", node.name), "Joined", "a machine of yours".to_owned());
        self.cluster.join(now, node);
    }

    /// Does everything that is due, and everything that follows from it at this moment.
    pub fn advance(&mut self, now: Timestamp, agents: &mut dyn Agents) {
        for _ in 0..ROUNDS_MAX {
            while self.queue.peek().is_some_and(|Reverse(due)| due.at <= now) {
                if let Some(Reverse(due)) = self.queue.pop() {
                    self.act(now, due.action, agents);
                }
            }
            self.tell_changes(now);
            let effects = self.engine.advance(now);
            let quiet = effects.is_empty();
            for effect in effects {
                self.carry_out(now, effect);
            }
            let bound = self.cluster.bind();
            if bound > 0 {
                self.note(now, "Pods".to_owned(), "Bound", format!("{bound} pods start"));
            }
            let changed = self.tell_changes(now);
            let due_now = self.queue.peek().is_some_and(|Reverse(due)| due.at <= now);
            if quiet && bound == 0 && !changed && !due_now {
                return;
            }
        }
        self.note(now, "World".to_owned(), "Restless", format!("no end after {ROUNDS_MAX} rounds"));
    }

    fn schedule(&mut self, at: Timestamp, action: Action) {
        self.sequence += 1;
        self.queue.push(Reverse(Due { at, sequence: self.sequence, action }));
    }

    fn note(&mut self, at: Timestamp, object: String, reason: &str, message: String) {
        self.entries.push(Entry { at, object, kind: EventKind::Normal, reason: reason.to_owned(), message });
    }

    /// Tells the engine what changed in the cluster; whether anything did.
    fn tell_changes(&mut self, now: Timestamp) -> bool {
        let changes = self.cluster.take_changes();
        let any = !changes.is_empty();
        for change in changes {
            self.engine.handle(
                now,
                match change {
                    Change::Pod(pod) => Event::PodApplied(pod),
                    Change::PodGone(id) => Event::PodDeleted(id),
                    Change::Node(node) => Event::NodeApplied(node),
                    Change::NodeGone(name) => Event::NodeDeleted(name),
                },
            );
        }
        any
    }

    fn act(&mut self, now: Timestamp, action: Action, agents: &mut dyn Agents) {
        match action {
            Action::Step(step) => self.step(now, &step, agents),
            Action::Answered { claim, answer } => self.answered(now, claim, answer),
            Action::Booted(name) => self.booted(now, &name),
            Action::AgentStarts(name) => {
                if let Some(machine) = self.vms.get(&name).and_then(|vm| vm.machine.as_ref()) {
                    let events = agents.start(&name, machine);
                    events.into_iter().for_each(|event| self.engine.handle(now, event));
                }
            }
            Action::Gone(name) => self.gone(now, &name, agents),
        }
    }

    fn step(&mut self, now: Timestamp, step: &Step, agents: &mut dyn Agents) {
        for (name, replicas) in &step.scale {
            if let Some(workload) = self.scenario.workloads.get(name).cloned() {
                self.note(now, format!("Workload/{name}"), "Scaled", format!("to {replicas} pods"));
                self.cluster.scale(now, workload, *replicas);
            }
        }
        let running = |spot_only: bool, vms: &BTreeMap<Arc<str>, Vm>| -> Vec<Arc<str>> {
            let alive = vms.iter().filter(|(_, vm)| {
                let spot = vm.claim.capacity_type == CapacityType::Spot;
                let gpu = vm.machine.as_ref().is_some_and(|machine| !machine.gpus.is_empty());
                !vm.ending && vm.machine.is_some() && if spot_only { spot } else { gpu }
            });
            alive.map(|(name, _)| Arc::clone(name)).collect()
        };
        let mut spot = running(true, &self.vms);
        for _ in 0..step.preempt {
            let Some(name) = self.cloud.draw(&mut spot) else { break };
            let at = now + PREEMPTION_NOTICE;
            let event = ScheduledEvent { event_type: EventType::Preempt, not_before: at.to_string() };
            self.engine
                .handle(now, Event::Notice { node: Arc::clone(&name), notice: Notice::Scheduled(event) });
            self.schedule(at, Action::Gone(name));
        }
        let mut with_gpu = running(false, &self.vms);
        for _ in 0..step.lose_gpu {
            let Some(name) = self.cloud.draw(&mut with_gpu) else { break };
            if let Some(machine) = self.vms.get_mut(&name).and_then(|vm| vm.machine.as_mut()) {
                if let Some(gpu) = machine.gpus.first_mut() {
                    gpu.state = GpuState::Lost;
                }
                let events = agents.changed(&name, machine);
                events.into_iter().for_each(|event| self.engine.handle(now, event));
            }
        }
    }

    fn answered(&mut self, now: Timestamp, claim: Box<NodeClaim>, answer: Answer) {
        let name = Arc::clone(&claim.name);
        match answer {
            Answer::Refused { failure, message } => {
                self.vms.remove(&name);
                let NodeClaim { instance_type, zone, capacity_type, .. } = *claim;
                let error = LaunchError { failure, instance_type, zone, capacity_type, message };
                self.engine.handle(now, Event::LaunchFailed { claim: name, error });
            }
            Answer::Accepted { boot, machine } => {
                let Some(vm) = self.vms.get_mut(&name) else { return };
                vm.machine = Some(machine);
                let event = Event::Launched {
                    claim: Arc::clone(&name),
                    provider_id: format!("azure:///virtualMachines/{name}"),
                    instance_type: Arc::clone(&claim.instance_type),
                    zone: Arc::clone(&claim.zone),
                    capacity_type: claim.capacity_type,
                    price: claim.price,
                };
                self.engine.handle(now, event);
                self.schedule(now + boot, Action::Booted(name));
            }
        }
    }

    /// The node joins, with what its machine really has.
    fn booted(&mut self, now: Timestamp, name: &Arc<str>) {
        let Some(vm) = self.vms.get(name).filter(|vm| !vm.ending) else { return };
        let Some(machine) = &vm.machine else { return };
        let claim = &vm.claim;
        let (capacity, allocatable) = real_resources(claim, machine);
        let node = Node {
            name: Arc::clone(name),
            labels: claim.labels.clone(),
            annotations: Default::default(),
            taints: claim.taints.iter().chain(&claim.startup_taints).cloned().collect(),
            allocatable,
            capacity,
            provider_id: format!("azure:///virtualMachines/{name}"),
            ready: true,
            unschedulable: false,
            deleting: false,
            created: now,
        };
        let message = format!("{} in {}", claim.instance_type, claim.zone);
        self.note(now, format!("Node/{name}"), "Joined", message);
        self.cluster.join(now, node);
        self.schedule(now + AGENT_START, Action::AgentStarts(Arc::clone(name)));
    }

    fn gone(&mut self, now: Timestamp, name: &Arc<str>, agents: &mut dyn Agents) {
        let Some(vm) = self.vms.remove(name) else { return };
        self.cloud.deleted(&vm.claim.instance_type);
        for event in agents.stop(name) {
            self.engine.handle(now, event);
        }
        self.engine.handle(now, Event::InstanceGone { claim: Arc::clone(name) });
        self.cluster.remove_node(now, name);
        self.note(now, format!("NodeClaim/{name}"), "Gone", format!("{}", vm.claim.instance_type));
    }

    fn carry_out(&mut self, now: Timestamp, effect: Effect) {
        match effect {
            Effect::CreateInstance { claim } => {
                // Creating it twice makes one.
                if !self.vms.contains_key(&claim.name) {
                    let answer = self.cloud.create(&claim);
                    let vm = Vm { claim: claim.clone(), machine: None, ending: false };
                    self.vms.insert(Arc::clone(&claim.name), vm);
                    self.schedule(now + ANSWER, Action::Answered { claim, answer });
                }
            }
            Effect::DeleteInstance { claim } => match self.vms.get_mut(&claim) {
                Some(vm) if !vm.ending => {
                    vm.ending = true;
                    self.schedule(now + DELETION, Action::Gone(claim));
                }
                Some(_) => {}
                None => self.engine.handle(now, Event::InstanceGone { claim }),
            },
            Effect::LabelNode { node, labels } => {
                self.note_refined(now, &node, &labels);
                self.cluster.label_node(&node, labels);
            }
            Effect::TaintNode { node, taint } => self.cluster.taint_node(&node, taint),
            Effect::UntaintNode { node, taint } => self.cluster.untaint_node(&node, &taint),
            Effect::SetNodeCondition { node, condition } => self.cluster.set_condition(&node, condition),
            Effect::EvictPod { pod, .. } | Effect::DeletePod { pod, .. } => self.cluster.evict(now, &pod),
            Effect::DeleteClaim { claim } => {
                self.engine.handle(now, Event::ClaimDeleting { claim, at: now });
            }
            Effect::ReleaseClaim { claim, node } => {
                if let Some(node) = node {
                    self.cluster.remove_node(now, &node);
                }
                self.engine.handle(now, Event::ClaimDeleted { claim });
            }
            Effect::SetClaimCondition { .. }
            | Effect::SetTerminationDeadline { .. }
            | Effect::AdoptNode { .. } => {}
            Effect::NominatePod { pod, target } => self.cluster.nominate(pod, target),
            Effect::RecordEvent { object, kind, reason, message } => {
                self.entries.push(Entry { at: now, object, kind, reason: reason.to_owned(), message });
            }
            Effect::OfferingUnavailable { .. } => {}
        }
    }

    /// Tells of labels that say what was measured: the few that a buyer looks at first, and how many there are.
    fn note_refined(&mut self, now: Timestamp, node: &str, labels: &Labels) {
        const SHOWN: [&str; 6] = [
            hardware::GPU_COUNT,
            hardware::NETWORK_ACCELERATED,
            hardware::CPU_MODEL,
            hardware::CPU_ISA,
            hardware::MEMORY_TOTAL_MIB,
            hardware::VERIFIED,
        ];
        let refined = labels.keys().filter(|key| key.starts_with(hardware::PREFIX)).count();
        if refined == 0 {
            return;
        }
        let shown = SHOWN.iter().filter_map(|key| {
            let value = labels.get(*key)?;
            Some(format!("{}={value}", key.trim_start_matches(hardware::PREFIX)))
        });
        let shown = shown.collect::<Vec<_>>().join(" ");
        self.note(now, format!("Node/{node}"), "Relabelled", format!("{refined} labels: {shown}"));
    }

    /// The sums so far.
    #[must_use]
    pub fn summary(&self, now: Timestamp) -> Summary {
        let stats = self.engine.stats();
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
            pods_running: self.cluster.running(),
            pods_pending: self.cluster.pending(),
            nodes: self.cluster.nodes().count(),
            cost_usd: self.engine.cost(now),
            price_per_hour: price,
        }
    }
}

/// Capacity and allocatable of a machine: what the kubelet would find, less what was reserved at purchase.
fn real_resources(claim: &NodeClaim, machine: &Machine) -> (ResourceList, ResourceList) {
    let overhead = claim.capacity.clone() - &claim.allocatable;
    let mut capacity = claim.capacity.clone();
    capacity.memory = machine.memory.kernel_total();
    let usable = machine.gpus.iter().filter(|gpu| gpu.state == GpuState::Usable).count() as u64;
    for name in ["nvidia.com/gpu", "amd.com/gpu"] {
        let sold = capacity.extended(name);
        capacity.set_extended(name, sold.min(usable));
    }
    let allocatable = capacity.clone() - &overhead;
    (capacity, allocatable)
}
