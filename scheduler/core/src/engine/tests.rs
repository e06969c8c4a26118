//! Scenarios in virtual time: a scripted driver hands over events and looks at the effects.

use std::sync::Arc;
use std::time::Duration;

use assay_shared::labels::{assay, hardware, karpenter};
use assay_shared::report::HardwareReport;
use assay_shared::units::{Bytes, MilliCpu, UsdPerHour};
use assay_shared::{Fact, labels};

use super::*;
use crate::catalog::{CapacityType, Offering, PriceSource};
use crate::model::{ClaimState, Labels, NodeClaim, Pod, PodPhase, PodSpec, ResourceList, Taint, TaintEffect};
use crate::requirement::{Requirement, Requirements, ValueSet};

/// One GPU size in two zones, and nothing else.
#[derive(Debug)]
struct OneSize;

impl InstanceTypes for OneSize {
    fn for_class(&self, _: &NodeClass, measured: &dyn Fn(&str) -> Option<Bytes>) -> Vec<InstanceType> {
        let memory = measured("gpu-size").unwrap_or(Bytes::gib(60));
        let mut capacity = ResourceList { cpu: MilliCpu(8000), memory, pods: 30, ..ResourceList::default() };
        capacity.set_extended("nvidia.com/gpu", 1);
        let mut requirements = Requirements::new();
        requirements.constrain(labels::kubernetes::INSTANCE_TYPE, &ValueSet::of(["gpu-size"]));
        requirements.constrain(labels::kubernetes::ZONE, &ValueSet::of(["z-1", "z-2"]));
        requirements.constrain(karpenter::CAPACITY_TYPE, &ValueSet::of(["on-demand"]));
        let offering = |zone: &str, usd| Offering {
            zone: zone.into(),
            capacity_type: CapacityType::OnDemand,
            price: UsdPerHour::from_usd(usd).unwrap(),
            price_source: PriceSource::Listed,
            available: true,
            reservation: None,
            overrides: None,
        };
        vec![InstanceType {
            name: "gpu-size".into(),
            requirements,
            offerings: vec![offering("z-1", 1.0), offering("z-2", 1.1)],
            capacity,
            overhead: ResourceList::default(),
            numa: None,
            lotteries: Vec::new(),
        }]
    }

    fn sold_memory(&self, _: &str) -> Option<Bytes> {
        Some(Bytes::gib(64))
    }

    fn region(&self) -> &str {
        "eastus"
    }
}

/// A pod that waits for a GPU, or runs on a node.
fn pod_of(name: &str, node: Option<&str>) -> Event {
    let mut requests = ResourceList { cpu: MilliCpu(4000), ..ResourceList::one_pod() };
    requests.set_extended("nvidia.com/gpu", 1);
    let spec = PodSpec { requests, ..PodSpec::default() };
    Event::PodApplied(Box::new(Pod {
        phase: if node.is_some() { PodPhase::Running } else { PodPhase::Pending },
        node: node.map(Into::into),
        ..Pod::new(PodId::new("default", name), Arc::new(spec))
    }))
}

struct Driver {
    engine: Engine,
    now: Timestamp,
    /// Everything that was asked for, in order.
    log: Vec<Effect>,
}

impl Driver {
    fn new() -> Self {
        let engine = Engine::new(Settings::default(), Box::new(OneSize), ProfileStore::new());
        let mut driver = Self { engine, now: Timestamp(0), log: Vec::new() };
        driver.tell(Event::ClassApplied(Box::new(NodeClass::with_defaults("default"))));
        let mut pool = NodePool::with_defaults("gpu");
        pool.disruption.consolidate_after = crate::model::Wait::After(Duration::from_secs(30));
        driver.tell(Event::PoolApplied(Box::new(pool)));
        driver
    }

    /// A pod waits, and the machine bought for it has booted; nobody has measured it.
    fn with_booted_machine() -> (Self, NodeClaim) {
        let mut driver = Self::new();
        driver.pod("a", None);
        let claim = driver.bought().remove(0);
        driver.boot(&claim);
        (driver, claim)
    }

    /// The pod runs on its machine, which is all that was bought.
    fn with_running_pod() -> (Self, NodeClaim) {
        let (mut driver, claim) = Self::with_booted_machine();
        driver.measure(&claim, 1);
        driver.pod("a", Some(&claim.name));
        (driver, claim)
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(self.now, event);
        self.advance();
    }

    /// Lets the engine decide, and answers what a cluster and a cloud answer at once.
    fn advance(&mut self) {
        loop {
            let effects = self.engine.advance(self.now);
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                for answer in self.answers(&effect) {
                    self.engine.handle(self.now, answer);
                }
                self.log.push(effect);
            }
        }
    }

    fn answers(&self, effect: &Effect) -> Vec<Event> {
        match effect {
            Effect::DeleteClaim { claim } => {
                vec![Event::ClaimDeleting { claim: Arc::clone(claim), at: self.now }]
            }
            Effect::DeleteInstance { claim } => vec![Event::InstanceGone { claim: Arc::clone(claim) }],
            Effect::ReleaseClaim { claim, node } => {
                let mut events: Vec<_> = node.clone().map(Event::NodeDeleted).into_iter().collect();
                events.push(Event::ClaimDeleted { claim: Arc::clone(claim) });
                events
            }
            Effect::EvictPod { pod, .. } => {
                vec![Event::EvictionAnswered { pod: pod.clone(), answer: EvictionAnswer::Accepted }]
            }
            _ => Vec::new(),
        }
    }

    /// Lets time pass, waking the engine whenever it asked for it.
    fn wait(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        while let Some(at) = self.engine.next_wakeup().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.advance();
        }
        self.now = until;
    }

    fn pod(&mut self, name: &str, node: Option<&str>) {
        self.tell(pod_of(name, node));
    }

    /// Claims that were asked for, oldest first.
    fn bought(&self) -> Vec<NodeClaim> {
        let created = self.log.iter().filter_map(|effect| match effect {
            Effect::CreateInstance { claim } => Some((**claim).clone()),
            _ => None,
        });
        created.collect()
    }

    /// Reasons of the events about an object, in order.
    fn told(&self, about: &str) -> Vec<&'static str> {
        let told = self.log.iter().filter_map(|effect| match effect {
            Effect::RecordEvent { object, reason, .. } if object == about => Some(*reason),
            _ => None,
        });
        told.collect()
    }

    fn deleted(&self) -> Vec<Arc<str>> {
        let deleted = self.log.iter().filter_map(|effect| match effect {
            Effect::DeleteInstance { claim } => Some(Arc::clone(claim)),
            _ => None,
        });
        deleted.collect()
    }

    /// The cloud makes the VM and its node joins, ready.
    fn boot(&mut self, claim: &NodeClaim) {
        self.tell(Event::Launched {
            claim: Arc::clone(&claim.name),
            provider_id: format!("azure:///{}", claim.name),
            instance_type: Arc::clone(&claim.instance_type),
            zone: Arc::clone(&claim.zone),
            capacity_type: claim.capacity_type,
            price: claim.price,
        });
        let unregistered = Taint {
            key: karpenter::UNREGISTERED_TAINT.to_owned(),
            value: String::new(),
            effect: TaintEffect::NoExecute,
        };
        let taints = claim.taints.iter().chain(&claim.startup_taints).cloned().chain([unregistered]);
        let mut node = Node {
            name: Arc::clone(&claim.name),
            labels: claim.labels.clone(),
            annotations: Labels::new(),
            taints: taints.collect(),
            allocatable: claim.allocatable.clone(),
            capacity: claim.capacity.clone(),
            provider_id: String::new(),
            ready: true,
            unschedulable: false,
            deleting: false,
            created: self.now,
        };
        self.apply_effects_to(&mut node);
        self.tell(Event::NodeApplied(Box::new(node)));
    }

    /// The node as the engine's effects have made it.
    fn apply_effects_to(&self, node: &mut Node) {
        for effect in &self.log {
            match effect {
                Effect::LabelNode { node: name, labels } if *name == node.name => {
                    node.labels.extend(labels.clone())
                }
                Effect::TaintNode { node: name, taint } if *name == node.name => {
                    node.taints.push(taint.clone())
                }
                Effect::UntaintNode { node: name, taint } if *name == node.name => {
                    node.taints.retain(|kept| kept != taint);
                }
                _ => {}
            }
        }
    }

    fn measure(&mut self, claim: &NodeClaim, gpus: u32) {
        let mut report = HardwareReport::default();
        report.identity.vm_id = Fact::Measured(format!("vm-{}", claim.name));
        report.memory.total_bytes = Fact::Measured(Bytes::gib(62));
        report.gpus.usable = Fact::Measured(gpus);
        self.tell(Event::Report { node: Arc::clone(&claim.name), report: Arc::new(report) });
        if let Some(mut node) = self.engine.nodes.get(&claim.name).cloned() {
            self.apply_effects_to(&mut node);
            self.tell(Event::NodeApplied(Box::new(node)));
        }
    }

    fn state(&self, claim: &NodeClaim) -> Option<ClaimState> {
        self.engine.machines().get(&claim.name).map(|machine| machine.claim.state)
    }
}

#[test]
fn a_lone_pod_is_bought_for_at_once_and_once() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    driver.pod("a", None);
    driver.wait(60);
    assert_eq!(driver.bought().len(), 1);
    assert_eq!(&*driver.bought()[0].zone, "z-1", "the cheapest offering");
}

#[test]
fn pods_run_only_where_the_hardware_was_verified() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let claim = driver.bought().remove(0);
    assert!(claim.startup_taints.iter().any(|taint| taint.key == assay::HARDWARE_UNVERIFIED_TAINT));
    driver.boot(&claim);
    assert_eq!(driver.state(&claim), Some(ClaimState::Registered), "ready is not enough");
    driver.measure(&claim, 1);
    assert_eq!(driver.state(&claim), Some(ClaimState::Initialized));
    let node = &driver.engine.nodes[&claim.name];
    assert!(node.taints.is_empty());
    assert_eq!(node.label(hardware::VERIFIED), Some("true"));
    assert_eq!(node.label(hardware::MEMORY_TOTAL_MIB), Some("63488"));
}

#[test]
fn a_refused_offering_is_left_alone_and_another_one_is_bought() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let first = driver.bought().remove(0);
    let error = LaunchError {
        failure: LaunchFailure::ZonalAllocationFailed,
        instance_type: Arc::clone(&first.instance_type),
        zone: Arc::clone(&first.zone),
        capacity_type: first.capacity_type,
        message: "no capacity".to_owned(),
    };
    driver.tell(Event::LaunchFailed { claim: first.name, error });
    driver.wait(30);
    let zones: Vec<_> = driver.bought().into_iter().map(|claim| claim.zone).collect();
    assert_eq!(zones, ["z-1".into(), "z-2".into()] as [Arc<str>; 2]);
}

#[test]
fn a_machine_that_comes_without_its_gpu_is_replaced_and_given_back() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let broken = driver.bought().remove(0);
    driver.boot(&broken);
    driver.measure(&broken, 0);
    driver.wait(30);
    assert_eq!(driver.deleted(), [Arc::clone(&broken.name)], "nothing runs there: it goes at once");
    assert_eq!(driver.bought().len(), 2, "and another one is bought");
    assert_eq!(driver.engine.stats().mismatches.get(&MismatchKind::Gpus), Some(&1));
    assert!(driver.log.iter().any(
        |effect| matches!(effect, Effect::TaintNode { taint, .. } if taint.key == assay::HARDWARE_MISMATCH_TAINT)
    ));
}

#[test]
fn a_running_pod_moves_only_to_a_place_that_is_ready() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let old = driver.bought().remove(0);
    driver.boot(&old);
    driver.measure(&old, 1);
    driver.pod("a", Some(&old.name));
    // The GPU is lost while the pod runs.
    driver.measure(&old, 0);
    driver.wait(30);
    let new = driver.bought().remove(1);
    let evicted = |driver: &Driver| driver.log.iter().any(|effect| matches!(effect, Effect::EvictPod { .. }));
    driver.boot(&new);
    assert!(!evicted(&driver) && driver.deleted().is_empty(), "the new machine is not verified yet");
    driver.measure(&new, 1);
    driver.wait(1);
    assert!(evicted(&driver), "now there is a place");
    assert!(driver.deleted().is_empty(), "the pod is still there");
    driver.tell(Event::PodDeleted(PodId::new("default", "a")));
    driver.wait(6);
    assert_eq!(driver.deleted(), [old.name]);
}

#[test]
fn a_machine_that_never_joins_is_given_back_and_bought_again() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let lost = driver.bought().remove(0);
    driver.wait(6 * 60);
    assert_eq!(driver.deleted(), [lost.name]);
    assert_eq!(driver.bought().len(), 2);
}

#[test]
fn an_empty_machine_goes_once_it_was_quiet_for_long_enough() {
    let (mut driver, claim) = Driver::with_running_pod();
    driver.wait(120);
    assert!(driver.deleted().is_empty(), "a pod runs there");
    driver.tell(Event::PodDeleted(PodId::new("default", "a")));
    driver.wait(29);
    assert!(
        !driver.log.iter().any(|effect| matches!(effect, Effect::DeleteClaim { .. })),
        "not quiet for long enough"
    );
    let asked = |driver: &Driver| driver.log.iter().any(|one| matches!(one, Effect::DeleteClaim { .. }));
    driver.wait(15);
    assert!(!asked(&driver), "it is looked at twice");
    driver.wait(2);
    assert!(asked(&driver) && driver.deleted().is_empty(), "load balancers get a moment to notice");
    driver.wait(5);
    assert_eq!(driver.deleted(), [claim.name]);
}

#[test]
fn what_three_machines_showed_changes_the_next_purchase() {
    let mut driver = Driver::new();
    for name in ["a", "b", "c"] {
        driver.pod(name, None);
        driver.wait(5);
        let claim = driver.bought().pop().unwrap();
        assert_eq!(claim.capacity.memory, Bytes::gib(60), "the model's guess");
        driver.boot(&claim);
        driver.measure(&claim, 1);
        driver.pod(name, Some(&claim.name));
    }
    driver.pod("d", None);
    driver.wait(5);
    assert_eq!(driver.bought().pop().unwrap().capacity.memory, Bytes::gib(62), "what was measured");
    assert_eq!(driver.engine.stats().learned_purchases, 1);
}

#[test]
fn a_machine_whose_gpus_were_not_counted_waits_until_they_are() {
    let (mut driver, claim) = Driver::with_booted_machine();
    // The driver has not answered yet: one GPU on the bus, nobody knows whether it works.
    let mut early = HardwareReport::default();
    early.memory.total_bytes = Fact::Measured(Bytes::gib(62));
    early.gpus.pci = Fact::Measured(1);
    driver.tell(Event::Report { node: Arc::clone(&claim.name), report: Arc::new(early) });
    assert_eq!(driver.state(&claim), Some(ClaimState::Registered));
    assert_eq!(driver.engine.nodes[&claim.name].label(hardware::VERIFIED), None, "neither true nor false");
    driver.measure(&claim, 1);
    assert_eq!(driver.state(&claim), Some(ClaimState::Initialized));
}

#[test]
fn the_same_events_give_the_same_effects() {
    let run = || {
        let mut driver = Driver::new();
        driver.pod("a", None);
        driver.pod("b", None);
        driver.wait(20);
        for claim in driver.bought() {
            driver.boot(&claim);
            driver.measure(&claim, 0);
        }
        driver.wait(100);
        driver.log
    };
    assert_eq!(run(), run());
}

#[test]
fn an_impossible_report_changes_nothing() {
    let (mut driver, claim) = Driver::with_booted_machine();
    driver.measure(&claim, 8);
    assert_eq!(driver.state(&claim), Some(ClaimState::Registered));
    assert_eq!(driver.engine.stats().quarantined, 1);
    assert_eq!(driver.engine.nodes[&claim.name].label(hardware::GPU_COUNT), None);
}

#[test]
fn repeated_events_change_nothing() {
    let (mut driver, claim) = Driver::with_running_pod();
    driver.wait(60);
    let before = driver.log.len();
    driver.boot(&claim);
    driver.measure(&claim, 1);
    driver.pod("a", Some(&claim.name));
    driver.wait(60);
    assert_eq!(driver.log[before..], []);
}

#[test]
fn a_silent_agent_holds_a_node_up_only_for_so_long() {
    let (mut driver, claim) = Driver::with_booted_machine();
    driver.wait(299);
    assert_eq!(driver.state(&claim), Some(ClaimState::Registered));
    driver.wait(2);
    assert_eq!(driver.state(&claim), Some(ClaimState::Initialized));
    assert!(driver.log.iter().any(|effect| matches!(
        effect,
        Effect::SetNodeCondition { condition, .. } if condition.reason == "ReportTimeout"
    )));
    assert!(driver.deleted().is_empty() && driver.bought().len() == 1, "silence deletes nothing");
}

#[test]
fn a_silent_node_is_replaced_where_the_operator_says_so() {
    let mut driver = Driver::new();
    driver.engine.settings.report_timeout_policy = ReportTimeoutPolicy::Replace;
    driver.pod("a", None);
    let claim = driver.bought().remove(0);
    driver.boot(&claim);
    driver.wait(310);
    assert_eq!(driver.deleted(), [claim.name]);
    assert_eq!(driver.bought().len(), 2);
}

#[test]
fn an_agent_that_goes_away_makes_its_facts_stale_and_nothing_else() {
    let (mut driver, claim) = Driver::with_running_pod();
    driver.wait(60);
    let before = driver.log.len();
    driver.tell(Event::AgentLost { node: Arc::clone(&claim.name) });
    driver.tell(Event::AgentLost { node: Arc::clone(&claim.name) });
    driver.wait(3600);
    let stale = Labels::from([(hardware::VERIFIED.to_owned(), "stale".to_owned())]);
    let done = driver.log[before..].iter().filter(|effect| !matches!(effect, Effect::RecordEvent { .. }));
    let expected = Effect::LabelNode { node: Arc::clone(&claim.name), labels: stale };
    assert_eq!(done.collect::<Vec<_>>(), [&expected]);
    driver.measure(&claim, 1);
    assert_eq!(driver.engine.nodes[&claim.name].label(hardware::VERIFIED), Some("true"), "it came back");
}

#[test]
fn a_pod_that_is_not_bound_to_its_ready_node_is_planned_anew() {
    let (mut driver, claim) = Driver::with_booted_machine();
    driver.measure(&claim, 1);
    // Somebody else took the GPU, so the cluster's scheduler cannot bind the pod.
    driver.pod("other", Some(&claim.name));
    driver.wait(19);
    assert_eq!(driver.bought().len(), 1);
    driver.wait(5);
    assert_eq!(driver.bought().len(), 2);
}

/// The cluster's scheduler binds the first pod to the second one's machine, which was ready first. The first one's machine is not
/// empty then: the second pod needs it, however late the taint on it goes.
#[test]
fn a_pod_whose_place_another_one_took_is_expected_at_the_other_s_place() {
    let mut driver = Driver::new();
    for pod in ["a", "b"] {
        driver.engine.handle(driver.now, pod_of(pod, None));
    }
    driver.wait(2);
    let claims = driver.bought();
    let place = |driver: &Driver, pod: &str| {
        driver.engine.nomination(&PodId::new("default", pod)).map(ToString::to_string)
    };
    let own = claims.iter().find(|claim| Some(&*claim.name) == place(&driver, "a").as_deref()).unwrap();
    let other = claims.iter().find(|claim| claim.name != own.name).unwrap();
    driver.boot(other);
    driver.measure(other, 1);
    driver.pod("a", Some(&other.name));
    assert_eq!(place(&driver, "b").as_deref(), Some(&*own.name));
    driver.boot(own);
    driver.measure(own, 1);
    driver.wait(300);
    assert_eq!((driver.bought().len(), driver.deleted()), (2, Vec::new()));
}

/// The same where the two are not alike: the second is planned anew, and nothing is given back before.
#[test]
fn pods_whose_place_is_taken_are_planned_anew_before_a_machine_counts_as_empty() {
    let mut driver = Driver::new();
    let mut pool = NodePool::with_defaults("gpu");
    pool.disruption.consolidate_after = crate::model::Wait::After(Duration::ZERO);
    driver.tell(Event::PoolApplied(Box::new(pool)));
    let labelled = |name: &str, node: Option<&str>| {
        let Event::PodApplied(mut pod) = pod_of(name, node) else { unreachable!() };
        pod.labels = Arc::new(Labels::from([("pod".to_owned(), name.to_owned())]));
        Event::PodApplied(pod)
    };
    for pod in ["a", "b"] {
        driver.engine.handle(driver.now, labelled(pod, None));
    }
    driver.wait(2);
    let claims = driver.bought();
    let expected = driver.engine.nomination(&PodId::new("default", "a")).cloned();
    let (own, other): (Vec<_>, Vec<_>) =
        claims.iter().partition(|claim| Some(&claim.name) == expected.as_ref());
    for claim in [other[0], own[0]] {
        driver.boot(claim);
        driver.measure(claim, 1);
    }
    driver.tell(labelled("a", Some(&other[0].name)));
    driver.wait(60);
    assert_eq!(driver.engine.nomination(&PodId::new("default", "b")), Some(&own[0].name));
    assert_eq!((driver.bought().len(), driver.deleted()), (2, Vec::new()));
}

/// A watch that was cut tells of a claim's making when the claim is gone already.
#[test]
fn a_claim_that_was_let_go_is_not_bought_again_for_late_news_of_it() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let claim = driver.bought().remove(0);
    driver.tell(Event::PodDeleted(PodId::new("default", "a")));
    let error = LaunchError {
        failure: LaunchFailure::AllocationFailed,
        instance_type: Arc::clone(&claim.instance_type),
        zone: Arc::clone(&claim.zone),
        capacity_type: claim.capacity_type,
        message: String::new(),
    };
    driver.tell(Event::LaunchFailed { claim: Arc::clone(&claim.name), error });
    driver.tell(Event::ClaimApplied(Box::new(claim.clone())));
    assert!(driver.engine.machines().is_empty());
    assert_eq!(driver.bought().len(), 1);
    driver.tell(Event::ClaimDeleted { claim: Arc::clone(&claim.name) });
    // One that somebody makes later has nothing but the name in common.
    driver.wait(1);
    let another = NodeClaim { created: driver.now, ..claim };
    driver.tell(Event::ClaimApplied(Box::new(another)));
    assert_eq!(driver.bought().len(), 2);
}

#[test]
fn a_zone_that_keeps_delivering_broken_machines_is_left_alone() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    for _ in 0..3 {
        let broken = driver.bought().pop().unwrap();
        assert_eq!(&*broken.zone, "z-1");
        driver.boot(&broken);
        driver.measure(&broken, 0);
        driver.tell(Event::InstanceGone { claim: Arc::clone(&broken.name) });
        driver.tell(Event::NodeDeleted(broken.name));
        driver.wait(5);
    }
    assert_eq!(&*driver.bought().pop().unwrap().zone, "z-2");
    assert_eq!(driver.bought().len(), 4);
}

#[test]
fn a_lost_gpu_is_acted_on_before_the_next_report() {
    use assay_shared::protocol::Notice;
    use assay_shared::report::{GpuDevice, GpuState};
    let (mut driver, claim) = Driver::with_booted_machine();
    let mut report = HardwareReport::default();
    report.memory.total_bytes = Fact::Measured(Bytes::gib(62));
    report.gpus.usable = Fact::Measured(1);
    let address = "0001:00:00.0".to_owned();
    let gpu = GpuDevice {
        pci_address: Fact::Measured(address.clone()),
        state: GpuState::Usable,
        ..GpuDevice::default()
    };
    report.gpus.devices = Fact::Measured(vec![gpu]);
    driver.tell(Event::Report { node: Arc::clone(&claim.name), report: Arc::new(report) });
    let notice = Notice::GpuLost { pci_address: address, reason: "Xid 79".to_owned() };
    for _ in 0..2 {
        driver.tell(Event::Notice { node: Arc::clone(&claim.name), notice: notice.clone() });
    }
    assert_eq!(driver.engine.stats().mismatches.get(&MismatchKind::Gpus), Some(&1));
    assert_eq!(driver.engine.machines()[&claim.name].leaving, Some(LeaveReason::WrongHardware));
}

#[test]
fn a_protected_pod_keeps_its_node() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let old = driver.bought().remove(0);
    driver.boot(&old);
    driver.measure(&old, 1);
    driver.pod("a", Some(&old.name));
    let mut pod = driver.engine.pods.values().next().cloned().unwrap();
    let keep = (karpenter::DO_NOT_DISRUPT.to_owned(), "true".to_owned());
    pod.annotations = Arc::new(Labels::from([keep]));
    driver.tell(Event::PodApplied(Box::new(pod)));
    driver.measure(&old, 0);
    driver.wait(600);
    assert!(!driver.log.iter().any(|effect| matches!(effect, Effect::EvictPod { .. })));
    assert_eq!(driver.bought().len(), 1, "no place is bought for a pod that does not move");
}

#[test]
fn a_restarted_engine_counts_on_claims_in_flight() {
    let mut first = Driver::new();
    first.pod("a", None);
    let claim = first.bought().remove(0);
    let mut second = Driver::new();
    for _ in 0..2 {
        second.tell(Event::ClaimApplied(Box::new(claim.clone())));
    }
    second.pod("a", None);
    second.wait(60);
    let names: Vec<_> = second.bought().into_iter().map(|claim| claim.name).collect();
    assert_eq!(names, [Arc::clone(&claim.name)], "the same machine is asked for once more");
    second.boot(&claim);
    second.measure(&claim, 1);
    assert_eq!(second.state(&claim), Some(ClaimState::Initialized));
}

#[test]
fn the_built_in_catalogue_is_a_source_of_instance_types() {
    let catalog = Catalog::builtin("eastus").unwrap();
    let source: &dyn InstanceTypes = &catalog;
    assert_eq!(source.region(), "eastus");
    assert_eq!(source.sold_memory("Standard_D4s_v5"), Some(Bytes::gib(16)));
    assert_eq!(source.sold_memory("Standard_None"), None);
}

#[test]
fn a_machine_whose_hardware_comes_back_in_time_stays() {
    let (mut driver, claim) = Driver::with_running_pod();
    driver.measure(&claim, 0);
    driver.wait(2);
    driver.measure(&claim, 1);
    assert!(driver.engine.nodes[&claim.name].taints.is_empty());
    let spare = driver.bought().remove(1);
    driver.wait(120);
    assert!(!driver.log.iter().any(|effect| matches!(effect, Effect::EvictPod { .. })));
    assert_eq!(driver.deleted(), [spare.name], "nobody needs the replacement");
}

#[test]
fn a_machine_made_from_what_has_changed_is_replaced() {
    for changes_class in [false, true] {
        let mut driver = Driver::new();
        let hashed = |template: &str, class: &str| {
            let pool = NodePool { template_hash: Some(template.into()), ..NodePool::with_defaults("gpu") };
            let class = NodeClass { hash: Some(class.into()), ..NodeClass::with_defaults("default") };
            [Event::PoolApplied(Box::new(pool)), Event::ClassApplied(Box::new(class))]
        };
        hashed("1", "1").into_iter().for_each(|event| driver.tell(event));
        driver.pod("a", None);
        let claim = driver.bought().remove(0);
        assert_eq!((claim.template_hash.as_deref(), claim.class_hash.as_deref()), (Some("1"), Some("1")));
        driver.boot(&claim);
        driver.measure(&claim, 1);
        driver.pod("a", Some(&claim.name));
        driver.wait(60);
        assert_eq!(driver.bought().len(), 1, "nothing has changed");

        let (template, class) = if changes_class { ("1", "2") } else { ("2", "1") };
        hashed(template, class).into_iter().for_each(|event| driver.tell(event));
        driver.wait(60);
        assert_eq!(driver.bought().len(), 2, "another machine is bought before this one goes");
        let told = driver.log.iter().find_map(|effect| match effect {
            Effect::SetClaimCondition { condition, .. } if condition.condition_type == "Drifted" => {
                Some(condition.reason)
            }
            _ => None,
        });
        assert_eq!(told, Some(if changes_class { "NodeClassDrift" } else { "NodePoolDrifted" }));
    }
}

#[test]
fn blocked_drift_is_looked_at_again_soon_after_what_blocked_it_changed() {
    // What is changed a minute and a half after nothing was found, and whether that is waited for.
    for (change, soon) in [("nothing", false), ("limit", true), ("pod", true), ("room", true)] {
        let mut driver = Driver::new();
        let pool = |template: &str, nodes| {
            let mut pool =
                NodePool { template_hash: Some(template.into()), ..NodePool::with_defaults("gpu") };
            pool.limits.nodes = Some(nodes);
            Event::PoolApplied(Box::new(pool))
        };
        driver.tell(pool("1", 1));
        driver.pod("a", None);
        let claim = driver.bought().remove(0);
        driver.boot(&claim);
        driver.measure(&claim, 1);
        driver.pod("a", Some(&claim.name));
        driver.tell(pool("2", 1));
        let blocked = |driver: &Driver| {
            let told = |effect: &&Effect| {
                matches!(effect, Effect::RecordEvent { object, reason: "DisruptionBlocked", .. }
                    if object.starts_with("NodeClaim/"))
            };
            driver.log.iter().filter(told).count()
        };
        driver.wait(601);
        assert_eq!((driver.bought().len(), blocked(&driver)), (1, 1), "no place for its pod, said once");
        match change {
            "limit" => driver.tell(pool("2", 2)),
            "pod" => {
                let pod = driver.engine.pods.values().next().unwrap().id.clone();
                driver.tell(Event::PodDeleted(pod));
            }
            "room" => {
                // Another node has a GPU that is free.
                let mut other = driver.engine.nodes[&claim.name].clone();
                other.name = "fixed".into();
                other.provider_id = "elsewhere".to_owned();
                other.labels.remove(karpenter::NODEPOOL);
                driver.tell(Event::NodeApplied(Box::new(other)));
            }
            _ => {}
        }
        // An empty one goes as such, which is looked at twice.
        driver.wait(31);
        let left = driver.engine.machines().get(&claim.name).is_none_or(Machine::is_leaving);
        assert_eq!(left, soon, "{change}");
    }
}

#[test]
fn what_would_save_money_is_abandoned_where_a_pod_came_meanwhile() {
    let (mut driver, claim) = Driver::with_running_pod();
    driver.wait(60);
    driver.tell(Event::PodDeleted(PodId::new("default", "a")));
    driver.wait(35);
    driver.pod("b", Some(&claim.name));
    driver.wait(60);
    assert!(!driver.log.iter().any(|effect| matches!(effect, Effect::DeleteClaim { .. })));
    assert_eq!(driver.engine.disruption_counts().failed_validations.get("Empty"), Some(&1));
}

#[test]
fn a_command_whose_replacement_fails_is_undone_and_tried_again_later() {
    let (mut driver, old) = Driver::with_running_pod();
    driver.measure(&old, 0);
    driver.wait(1);
    let spare = driver.bought().remove(1);
    let leaving = |driver: &Driver| driver.engine.machines()[&old.name].leaving;
    assert_eq!(leaving(&driver), Some(LeaveReason::WrongHardware));
    let disrupted = |driver: &Driver| {
        let taints = &driver.engine.nodes[&old.name].taints;
        taints.iter().any(|taint| taint.key == karpenter::DISRUPTED_TAINT)
    };
    assert!(disrupted(&driver));
    let error = LaunchError {
        failure: LaunchFailure::ZonalAllocationFailed,
        instance_type: Arc::clone(&spare.instance_type),
        zone: Arc::clone(&spare.zone),
        capacity_type: spare.capacity_type,
        message: "no capacity".to_owned(),
    };
    driver.tell(Event::LaunchFailed { claim: spare.name, error });
    driver.wait(20);
    assert_eq!((leaving(&driver), disrupted(&driver), driver.bought().len()), (None, false, 2));
    assert_eq!(driver.engine.disruption_counts().failures.get("WrongHardware"), Some(&1));
    driver.wait(400);
    assert_eq!((leaving(&driver), driver.bought().len()), (Some(LeaveReason::WrongHardware), 3));
    assert!(!driver.log.iter().any(|effect| matches!(effect, Effect::EvictPod { .. })));
}

#[test]
fn a_pool_that_can_buy_nothing_says_so_once() {
    let mut driver = Driver::new();
    let mut pool = NodePool::with_defaults("none");
    pool.requirements = vec![Requirement::is_in(labels::kubernetes::INSTANCE_TYPE, ["another-size"])];
    driver.tell(Event::PoolApplied(Box::new(pool.clone())));
    for name in ["a", "b"] {
        driver.pod(name, None);
        driver.wait(2);
    }
    assert_eq!(driver.told("NodePool/none"), ["NoCompatibleInstanceTypes"]);
    assert!(driver.told("NodePool/gpu").is_empty());
    // All that the other pool could buy is refused.
    for _ in 0..4 {
        let Some(claim) = driver.engine.machines().values().next().map(|machine| machine.claim.clone())
        else {
            break;
        };
        let error = LaunchError {
            failure: LaunchFailure::AllocationFailed,
            instance_type: Arc::clone(&claim.instance_type),
            zone: Arc::clone(&claim.zone),
            capacity_type: claim.capacity_type,
            message: String::new(),
        };
        driver.tell(Event::LaunchFailed { claim: Arc::clone(&claim.name), error });
        driver.wait(2);
    }
    assert_eq!(driver.told("NodePool/gpu"), ["NoCompatibleInstanceTypes"]);
}

#[test]
fn what_an_annotation_on_a_pod_means_is_said() {
    let (mut driver, claim) = Driver::with_running_pod();
    let annotated = |value: &str| {
        let Event::PodApplied(mut pod) = pod_of("a", Some(&claim.name)) else { unreachable!() };
        let annotation = (karpenter::DO_NOT_DISRUPT.to_owned(), value.to_owned());
        pod.annotations = Arc::new(Labels::from([annotation]));
        Event::PodApplied(pod)
    };
    for value in ["until noon", "until noon", "true"] {
        driver.tell(annotated(value));
    }
    assert_eq!(driver.told("Pod/default/a"), ["InvalidDoNotDisruptAnnotation"]);
    // Its machine is to go when it is annotated.
    driver.pod("a", Some(&claim.name));
    driver.measure(&claim, 0);
    driver.wait(1);
    assert!(driver.engine.machines()[&claim.name].is_leaving());
    driver.tell(annotated("10m"));
    assert_eq!(driver.told("Pod/default/a")[1..], ["DoNotDisruptUntil"]);
    driver.wait(600);
    assert!(driver.told("Pod/default/a").contains(&"DoNotDisruptGracePeriodElapsed"));
}

#[test]
fn a_machine_that_has_less_than_its_claim_says_is_told_of() {
    let (mut driver, claim) = Driver::with_running_pod();
    let object = format!("NodeClaim/{}", claim.name);
    let mut node = driver.engine.nodes()[&claim.name].clone();
    node.capacity.cpu = MilliCpu(7_200);
    driver.tell(Event::NodeApplied(Box::new(node.clone())));
    assert!(!driver.told(&object).contains(&"FailedConsistencyCheck"), "nine tenths will do");
    node.capacity.cpu = MilliCpu(7_199);
    for _ in 0..2 {
        driver.tell(Event::NodeApplied(Box::new(node.clone())));
    }
    assert_eq!(driver.told(&object).iter().filter(|one| **one == "FailedConsistencyCheck").count(), 1);
    let condition = |driver: &Driver| {
        driver.engine.machines()[&claim.name].claim_conditions["ConsistentStateFound"].status
    };
    assert_eq!(condition(&driver), ConditionStatus::False);
    node.capacity.cpu = MilliCpu(8_000);
    driver.tell(Event::NodeApplied(Box::new(node)));
    assert_eq!(condition(&driver), ConditionStatus::True);
}

#[test]
fn a_claim_made_by_hand_is_not_launched_without_a_class_that_is_ready() {
    let mut driver = Driver::new();
    driver.pod("a", None);
    let ours = driver.bought().remove(0);
    let mut broken = NodeClass::with_defaults("broken");
    broken.readiness = crate::model::ClassReadiness::NotReady("no image".to_owned());
    driver.tell(Event::ClassApplied(Box::new(broken)));
    for (class, reason) in [("broken", "NodeClassNotReady"), ("missing", "NodeClassResolutionError")] {
        let claim = NodeClaim {
            name: class.into(),
            pool: String::new(),
            node_class: class.to_owned(),
            state: ClaimState::Pending,
            ..ours.clone()
        };
        driver.tell(Event::ClaimApplied(Box::new(claim)));
        assert_eq!(driver.told(&format!("NodeClaim/{class}")), [reason]);
        assert!(!driver.engine.machines().contains_key(class), "it is let go");
    }
    assert_eq!(driver.bought().len(), 1);
}
