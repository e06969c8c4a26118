//! Scenarios in virtual time: a scripted driver hands over events and looks at the effects.

mod buying;
mod going;
mod places;
mod reports;
mod telling;

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

    /// The cloud does not make the VM.
    fn refuse(&mut self, claim: &NodeClaim, failure: LaunchFailure) {
        let error = LaunchError {
            failure,
            instance_type: Arc::clone(&claim.instance_type),
            zone: Arc::clone(&claim.zone),
            capacity_type: claim.capacity_type,
            message: "no capacity".to_owned(),
        };
        self.tell(Event::LaunchFailed { claim: Arc::clone(&claim.name), error });
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
