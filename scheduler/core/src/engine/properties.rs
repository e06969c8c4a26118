//! An engine that followed its cluster decides as one that has just read it: whatever happened, its plan is that of a snapshot,
//! and its lists of machines are those that looking at every machine gives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::protocol::Notice;
use assay_shared::report::{EventType, ScheduledEvent};
use assay_shared::units::Bytes;
use assay_shared::{Fact, HardwareReport};
use proptest::prelude::*;

use super::hardware::unverified_taint;
use super::registration::is_ephemeral;
use super::*;
use crate::catalog::types_of_pools;
use crate::check::check;
use crate::disrupt::Protection;
use crate::model::{ClaimState, NodeClaim, PodPhase, Snapshot, Taint, TaintEffect, Wait};
use crate::solve::properties::cluster::{Kind, clusters, kind, of_kind};
use crate::solve::properties::together::config;
use crate::solve::solve;
use crate::solve::testing::{daemon_set, node, spec};

/// The types of a snapshot.
#[derive(Debug)]
struct Given(Vec<InstanceType>);

impl InstanceTypes for Given {
    fn for_class(&self, _: &NodeClass, measured: &dyn Fn(&str) -> Option<Bytes>) -> Vec<InstanceType> {
        let learned = |mut one: InstanceType| {
            one.capacity.memory = measured(&one.name).unwrap_or(one.capacity.memory);
            one
        };
        self.0.iter().cloned().map(learned).collect()
    }

    fn sold_memory(&self, _: &str) -> Option<Bytes> {
        Some(Bytes::gib(4_096))
    }

    fn region(&self) -> &str {
        "eastus"
    }
}

/// Something that happens. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    PodsCome(Box<Kind>),
    PodBound {
        pod: usize,
        node: usize,
    },
    PodChanges {
        pod: usize,
        how: usize,
    },
    PodGone {
        pod: usize,
    },
    NodeJoins {
        cores: u64,
        zone: usize,
    },
    NodeChanges {
        node: usize,
        how: usize,
    },
    NodeGone {
        node: usize,
    },
    Launched {
        claim: usize,
    },
    LaunchFailed {
        claim: usize,
        how: usize,
    },
    Boots {
        claim: usize,
    },
    /// Every machine on its way joins and is used as planned.
    AllBoot,
    Reports {
        node: usize,
        percent: u64,
        vendor: bool,
    },
    ClaimDeleting {
        claim: usize,
    },
    InstanceGone {
        claim: usize,
    },
    Preempted {
        node: usize,
    },
    PoolChanges {
        pool: usize,
        how: usize,
    },
    DaemonSetChanges {
        cpu: u64,
        which: usize,
    },
    TimePasses {
        seconds: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let some = || 0_usize..1_000;
    let pods = prop_oneof![
        2 => kind().prop_map(|kind| Step::PodsCome(Box::new(Kind { count: kind.count.min(8), ..kind }))),
        3 => (some(), some()).prop_map(|(pod, node)| Step::PodBound { pod, node }),
        2 => (some(), some()).prop_map(|(pod, how)| Step::PodChanges { pod, how }),
        1 => some().prop_map(|pod| Step::PodGone { pod }),
    ];
    let nodes = prop_oneof![
        1 => (2_u64..17, 0_usize..3).prop_map(|(cores, zone)| Step::NodeJoins { cores, zone }),
        2 => (some(), some()).prop_map(|(node, how)| Step::NodeChanges { node, how }),
        1 => some().prop_map(|node| Step::NodeGone { node }),
        4 => (some(), 80_u64..101, any::<bool>())
            .prop_map(|(node, percent, vendor)| Step::Reports { node, percent, vendor }),
        1 => some().prop_map(|node| Step::Preempted { node }),
    ];
    let claims = prop_oneof![
        3 => some().prop_map(|claim| Step::Launched { claim }),
        1 => (some(), some()).prop_map(|(claim, how)| Step::LaunchFailed { claim, how }),
        2 => some().prop_map(|claim| Step::Boots { claim }),
        4 => Just(Step::AllBoot),
        1 => some().prop_map(|claim| Step::ClaimDeleting { claim }),
        1 => some().prop_map(|claim| Step::InstanceGone { claim }),
    ];
    let rest = prop_oneof![
        2 => (some(), some()).prop_map(|(pool, how)| Step::PoolChanges { pool, how }),
        1 => (1_u64..300, some()).prop_map(|(cpu, which)| Step::DaemonSetChanges { cpu, which }),
        3 => prop::sample::select(vec![1_u64, 5, 25, 70, 1_000, 4_000])
            .prop_map(|seconds| Step::TimePasses { seconds }),
    ];
    prop_oneof![3 => pods, 3 => nodes, 3 => claims, 2 => rest]
}

struct World {
    engine: Engine,
    now: Timestamp,
    made: usize,
}

impl World {
    fn of(input: Snapshot) -> Self {
        let types = input.instance_types.values().next().map(|types| types.to_vec()).unwrap_or_default();
        let solve = SolveOptions { steps: 20_000, ..SolveOptions::default() };
        let disrupt = crate::disrupt::DisruptOptions { steps: 1_000_000, ..Default::default() };
        let settings = Settings { solve, disrupt, ..Settings::default() };
        let engine = Engine::new(settings, Box::new(Given(types)), ProfileStore::new());
        let mut world = Self { engine, now: Timestamp(0), made: 0 };
        world.tell(Event::ClassApplied(Box::new(NodeClass::with_defaults("default"))));
        for mut pool in input.pools {
            pool.disruption.consolidate_after = Wait::After(Duration::from_secs(30));
            world.tell(Event::PoolApplied(Box::new(pool)));
        }
        input.nodes.into_iter().for_each(|node| world.tell(Event::NodeApplied(Box::new(node))));
        for mut pod in input.pods {
            // Few are enough here, and solved twice for each step.
            let number = pod.id.name.rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
            if number.is_none_or(|number| number < 4) {
                pod.created = Timestamp(0);
                world.tell(Event::PodApplied(Box::new(pod)));
            }
        }
        world
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(self.now, event);
    }

    /// Lets the engine decide, and answers what a cluster and a cloud answer at once.
    fn advance(&mut self) {
        for _ in 0..50 {
            let effects = self.engine.advance(self.now);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::DeleteClaim { claim } => self.tell(Event::ClaimDeleting { claim, at: self.now }),
                    Effect::DeleteInstance { claim } => self.tell(Event::InstanceGone { claim }),
                    Effect::ReleaseClaim { claim, node } => {
                        node.into_iter().for_each(|node| self.tell(Event::NodeDeleted(node)));
                        self.tell(Event::ClaimDeleted { claim });
                    }
                    Effect::EvictPod { pod, .. } => {
                        self.tell(Event::EvictionAnswered {
                            pod: pod.clone(),
                            answer: EvictionAnswer::Accepted,
                        });
                        self.tell(Event::PodDeleted(pod));
                    }
                    _ => {}
                }
            }
        }
    }

    fn pod(&self, number: usize) -> Option<Pod> {
        let count = self.engine.pods().count();
        self.engine.pods().nth(number.checked_rem(count)?).cloned()
    }

    fn node(&self, number: usize) -> Option<Node> {
        let count = self.engine.nodes.len();
        self.engine.nodes.values().nth(number.checked_rem(count)?).cloned()
    }

    fn claim(&self, number: usize) -> Option<NodeClaim> {
        let count = self.engine.machines.len();
        let machine = self.engine.machines.values().nth(number.checked_rem(count)?)?;
        Some(machine.claim.clone())
    }

    fn step(&mut self, step: &Step) -> Option<()> {
        self.made += 1;
        let event = match step {
            Step::PodsCome(kind) => {
                for pod in of_kind(self.made, kind, "came") {
                    self.tell(Event::PodApplied(Box::new(pod)));
                }
                return None;
            }
            Step::PodBound { pod, node } => {
                let mut pod = self.pod(*pod).filter(|pod| pod.node.is_none())?;
                let planned = self.engine.nomination(&pod.id).map(|target| self.engine.place_of(target));
                let planned = planned.filter(|name| self.engine.nodes.contains_key(name));
                pod.node = Some(planned.or_else(|| Some(self.node(*node)?.name))?);
                pod.phase = PodPhase::Running;
                Event::PodApplied(Box::new(pod))
            }
            Step::PodChanges { pod, how } => {
                let mut pod = self.pod(*pod)?;
                let protect = |pod: &mut Pod, value: &str| {
                    Arc::make_mut(&mut pod.annotations)
                        .insert(karpenter::DO_NOT_DISRUPT.to_owned(), value.to_owned());
                };
                let now = self.now;
                match how % 4 {
                    0 => pod.phase = PodPhase::Finished,
                    1 => pod.terminating = Some(self.now),
                    2 => protect(&mut pod, "true"),
                    _ => {
                        pod.created = now;
                        protect(&mut pod, "3m");
                    }
                }
                Event::PodApplied(Box::new(pod))
            }
            Step::PodGone { pod } => Event::PodDeleted(self.pod(*pod)?.id),
            Step::NodeJoins { cores, zone } => {
                let (name, zone) = (format!("late-{}", self.made), format!("z-{}", zone + 1));
                let own = [(kubernetes::ZONE, zone.as_str()), (kubernetes::HOSTNAME, &name)];
                Event::NodeApplied(Box::new(node(&name, *cores, cores * 4, &own)))
            }
            Step::NodeChanges { node, how } => {
                let mut node = self.node(*node)?;
                match how % 7 {
                    0 => node.unschedulable = !node.unschedulable,
                    1 => node.ready = !node.ready,
                    2 => node.taints.push(Taint {
                        key: "odd".to_owned(),
                        value: String::new(),
                        effect: TaintEffect::NoSchedule,
                    }),
                    3 => node.taints.clear(),
                    4 => drop(node.labels.insert("team".to_owned(), "b".to_owned())),
                    5 => node.deleting = true,
                    _ => node.allocatable.pods = 3,
                }
                Event::NodeApplied(Box::new(node))
            }
            Step::NodeGone { node } => Event::NodeDeleted(self.node(*node)?.name),
            Step::Launched { claim } => launched(&self.claim(*claim)?),
            Step::LaunchFailed { claim, how } => {
                let claim = self.claim(*claim)?;
                let failures = [
                    LaunchFailure::ZonalAllocationFailed,
                    LaunchFailure::LowPriorityQuotaExceeded,
                    LaunchFailure::SkuNotAvailable,
                    LaunchFailure::Other,
                ];
                let error = LaunchError {
                    failure: failures[how % failures.len()],
                    instance_type: claim.instance_type,
                    zone: claim.zone,
                    capacity_type: claim.capacity_type,
                    message: String::new(),
                };
                Event::LaunchFailed { claim: claim.name, error }
            }
            Step::Boots { claim } => self.boots(self.claim(*claim)?)?,
            Step::AllBoot => {
                let claims: Vec<NodeClaim> =
                    self.engine.machines.values().map(|machine| machine.claim.clone()).collect();
                for claim in claims {
                    if let Some(event) = self.boots(claim) {
                        self.tell(event);
                    }
                }
                self.pass(400);
                let pods: Vec<Pod> = self.engine.pods().filter(|pod| pod.node.is_none()).cloned().collect();
                for mut pod in pods {
                    let target = self.engine.nomination(&pod.id).map(|target| self.engine.place_of(target));
                    pod.node = target.filter(|name| self.engine.nodes.contains_key(name));
                    pod.phase = if pod.node.is_some() { PodPhase::Running } else { pod.phase };
                    self.tell(Event::PodApplied(Box::new(pod)));
                }
                Event::Tick
            }
            Step::Reports { node, percent, vendor } => {
                let node = self.node(*node)?;
                let size = self.engine.machine_on(&node.name)?.bought.name.clone();
                // All of its size say the same, but for one thing.
                let machines = self.engine.machines.values().filter(|machine| machine.bought.name == size);
                let nodes: Vec<Arc<str>> =
                    machines.filter_map(|machine| machine.claim.node.clone()).collect();
                for (number, node) in nodes.into_iter().enumerate() {
                    let report = self.measured(&node, *percent, *vendor && number == 0);
                    self.tell(Event::Report { node, report: Arc::new(report) });
                }
                Event::Tick
            }
            Step::ClaimDeleting { claim } => {
                Event::ClaimDeleting { claim: self.claim(*claim)?.name, at: self.now }
            }
            Step::InstanceGone { claim } => Event::InstanceGone { claim: self.claim(*claim)?.name },
            Step::Preempted { node } => {
                let event = ScheduledEvent { event_type: EventType::Preempt, not_before: String::new() };
                Event::Notice { node: self.node(*node)?.name, notice: Notice::Scheduled(event) }
            }
            Step::PoolChanges { pool, how } => {
                let count = self.engine.pools.len();
                let mut pool = self.engine.pools.values().nth(pool.checked_rem(count)?)?.clone();
                match how % 6 {
                    0 => pool.limits.nodes = Some(*how as u64 % 5),
                    1 | 2 => pool.template_hash = Some(format!("{}", how % 2)),
                    3 => pool.termination_grace_period = Some(Duration::from_secs(600)),
                    4 => pool.weight += 1,
                    _ => pool.problem = pool.problem.is_none().then(|| "odd".to_owned()),
                }
                Event::PoolApplied(Box::new(pool))
            }
            Step::DaemonSetChanges { cpu, which } => {
                let set = daemon_set(&format!("daemon-{}", which % 2), &spec(*cpu, 50));
                match which % 3 {
                    0 => Event::DaemonSetDeleted(set.id),
                    _ => Event::DaemonSetApplied(Box::new(set)),
                }
            }
            Step::TimePasses { seconds } => {
                self.pass(*seconds);
                Event::Tick
            }
        };
        self.tell(event);
        None
    }

    /// The cloud makes the VM of a claim, and its node joins.
    fn boots(&mut self, claim: NodeClaim) -> Option<Event> {
        if claim.node.is_some() {
            return None;
        }
        self.tell(launched(&claim));
        // Every other one has another name than its claim.
        self.made += 1;
        let own =
            if self.made.is_multiple_of(2) { claim.name.to_string() } else { format!("{}-vm", claim.name) };
        let mut joined = node(&own, 1, 1, &[]);
        joined.labels = claim.labels;
        joined.taints = claim.taints.into_iter().chain(claim.startup_taints).collect();
        joined.capacity = claim.capacity;
        joined.allocatable = claim.allocatable;
        joined.provider_id = format!("azure:///{}", claim.name);
        Some(Event::NodeApplied(Box::new(joined)))
    }

    fn measured(&self, node: &str, percent: u64, vendor: bool) -> HardwareReport {
        let bought = self.engine.machine_on(node).map(|machine| machine.bought.capacity.memory);
        let mut report = HardwareReport::default();
        report.identity.vm_id = Fact::Measured(format!("vm-{node}"));
        report.memory.total_bytes = Fact::Measured(Bytes(bought.unwrap_or(Bytes::gib(8)).0 / 100 * percent));
        let vendor = if vendor { "GenuineIntel" } else { "AuthenticAMD" };
        report.cpu.vendor = Fact::Measured(vendor.to_owned());
        report
    }

    /// Lets time pass, waking the engine whenever it asked for it.
    fn pass(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        for _ in 0..30 {
            let Some(at) = self.engine.next_wakeup().filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            self.advance();
        }
        self.now = self.now.max(until);
    }

    /// Compares what is followed with what is read anew.
    fn compare(&mut self) -> Result<(), TestCaseError> {
        self.engine.now = self.engine.now.max(self.now);
        let (plan, broken) = self.engine.plan(self.now);
        let snapshot = snapshot(&self.engine, self.now);
        let fresh = solve(&snapshot, &self.engine.settings.solve);
        prop_assert_eq!(&plan, &fresh);
        prop_assert_eq!(broken, check(&snapshot, &plan).err().unwrap_or_default());
        let waiting = snapshot.pods.iter().filter(|pod| pod.is_pending()).count();
        prop_assert_eq!(self.engine.picture.waiting(), waiting);
        same_lists(&self.engine)
    }
}

fn launched(claim: &NodeClaim) -> Event {
    Event::Launched {
        claim: Arc::clone(&claim.name),
        provider_id: format!("azure:///{}", claim.name),
        instance_type: Arc::clone(&claim.instance_type),
        zone: Arc::clone(&claim.zone),
        capacity_type: claim.capacity_type,
        price: claim.price,
    }
}

/// What the solver should see, read from everything that is known.
fn snapshot(engine: &Engine, now: Timestamp) -> Snapshot {
    let must_move = |pod: &Pod| {
        let machine = pod.node.as_ref().and_then(|node| engine.machine_on(node));
        machine.is_some_and(|machine| {
            let timed = machine.deadline().is_some() || machine.claim.termination_grace_period.is_some();
            machine.leaving.is_some()
                && pod.is_reschedulable()
                && (timed || Protection::of(pod, engine.now).is_none())
        })
    };
    let pods = engine.pods().map(|pod| {
        let mut pod = pod.clone();
        let moves = must_move(&pod);
        if let Some(target) = engine.nominations.get(&pod.id) {
            pod.node = Some(engine.place_of(target));
        } else if moves {
            pod.node = None;
        }
        if moves {
            pod.phase = PodPhase::Pending;
        }
        pod
    });
    let nodes = engine.nodes.values().map(|node| {
        let mut node = node.clone();
        if let Some(machine) = engine.machine_on(&node.name) {
            node.deleting |= machine.is_leaving();
            if machine.claim.state < ClaimState::Initialized {
                let startup = &machine.claim.startup_taints;
                node.taints.retain(|taint| *taint != unverified_taint() && !startup.contains(taint));
                node.taints.retain(|taint| !is_ephemeral(taint));
            }
        }
        node
    });
    let on_their_way = engine.machines.values().filter(|machine| {
        let joined = machine.claim.node.as_ref().is_some_and(|node| engine.nodes.contains_key(node));
        if machine.is_leaving() { !joined } else { machine.claim.state < ClaimState::Initialized }
    });
    let on_their_way = on_their_way.map(|machine| {
        let state = if machine.is_leaving() { ClaimState::Terminating } else { machine.claim.state };
        NodeClaim { state, ..machine.claim.clone() }
    });
    let pools: Vec<NodePool> = engine.buying_pools().cloned().collect();
    let classes: Vec<NodeClass> = engine.classes.values().cloned().collect();
    Snapshot {
        now,
        pods: pods.collect(),
        daemon_sets: engine.daemon_sets.values().cloned().collect(),
        nodes: nodes.collect(),
        node_claims: on_their_way.collect(),
        instance_types: types_of_pools(&classes, pools.iter(), |class| engine.instance_types(now, class)),
        pools,
        classes,
        disruption: Default::default(),
    }
}

/// Whether the lists have those machines that a look at all of them gives, and budgets count the same.
fn same_lists(engine: &Engine) -> Result<(), TestCaseError> {
    let of = |test: &dyn Fn(&Machine) -> bool| -> BTreeSet<Arc<str>> {
        let all = engine.machines.iter().filter(|(_, machine)| test(machine));
        all.map(|(name, _)| Arc::clone(name)).collect()
    };
    let roll = &engine.roll;
    prop_assert_eq!(&roll.starting, &of(&|machine| machine.claim.state < ClaimState::Initialized));
    prop_assert_eq!(&roll.nodeless, &of(&|machine| machine.claim.node.is_none()));
    prop_assert_eq!(&roll.missing, &of(&|machine| machine.missing_since.is_some()));
    prop_assert_eq!(&roll.slow, &of(&|machine| machine.network_inactive_since.is_some()));
    prop_assert_eq!(&roll.leaving, &of(&|machine| machine.leaving.is_some() && !machine.is_ending()));
    prop_assert_eq!(&roll.ending, &of(&|machine| machine.ending.is_some()));
    let unclaimed = engine.nodes.keys().filter(|node| !engine.claim_by_node.contains_key(*node));
    prop_assert_eq!(&roll.unclaimed, &unclaimed.cloned().collect());
    let mut by_pool: BTreeMap<&str, Vec<&Machine>> = BTreeMap::new();
    for machine in engine.machines.values() {
        by_pool.entry(&machine.claim.pool).or_default().push(machine);
    }
    for (pool, machines) in by_pool {
        let counted = || machines.iter().filter(|machine| machine.claim.node.is_some());
        let ready = |machine: &Machine| {
            machine.claim.node.as_ref().and_then(|node| engine.nodes.get(node)).is_some_and(|node| node.ready)
        };
        let serves = |machine: &Machine| machine.claim.state == ClaimState::Initialized;
        let goes = |machine: &Machine| machine.is_ending() || serves(machine) && !ready(machine);
        let total = counted().filter(|machine| serves(machine) || machine.is_ending()).count() as u64;
        let going = counted().filter(|machine| goes(machine)).count() as u64;
        let wide = counted().filter(|machine| goes(machine) || machine.leaving.is_some()).count() as u64;
        prop_assert_eq!(roll.going(pool, false, ""), (total, going));
        prop_assert_eq!(roll.going(pool, true, ""), (total, wide));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases.min(64), ..config() })]

    #[test]
    fn following_is_reading_again(input in clusters(), steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::of(input);
        world.compare()?;
        for step in &steps {
            world.step(step);
            world.compare()?;
            world.advance();
            world.compare()?;
        }
    }
}
