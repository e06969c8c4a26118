//! What the engine asks for, done to the simulated cloud and cluster.

use std::sync::Arc;

use assay_agent::tree::Machine;
use assay_core::engine::{Effect, Event};
use assay_core::model::{Labels, Node, NodeClaim, ResourceList, Taint, TaintEffect, Timestamp};
use assay_shared::labels::{hardware, karpenter};
use assay_shared::report::GpuState;

use super::cloud::{ANSWER, Answer, DELETION};
use super::timeline::Entry;
use super::world::{Action, Vm, World};

impl World {
    /// Carries an effect out. The scheduler may die after it, and in the middle of a purchase.
    pub(super) fn carry_out(&mut self, now: Timestamp, effect: Effect) {
        match effect {
            Effect::CreateInstance { claim } => {
                self.cluster.create_claim(&claim);
                if self.dies(now) {
                    return;
                }
                self.create_instance(now, claim);
            }
            Effect::DeleteInstance { claim } => match self.vms.get_mut(&claim) {
                Some(vm) if !vm.is_ending => {
                    vm.is_ending = true;
                    self.schedule(now + DELETION, Action::Gone(claim));
                }
                Some(_) => {}
                None => self.tell(now, Event::InstanceGone { claim }),
            },
            Effect::DeleteClaim { claim } => self.cluster.delete_claim(now, &claim),
            Effect::ReleaseClaim { claim, node } => {
                self.cluster.release_claim(now, &claim, node.as_deref());
            }
            Effect::SetClaimCondition { claim, condition } => {
                self.cluster.record(now, &claim, &condition, self.engine.machines().get(&claim));
            }
            Effect::SetTerminationDeadline { claim, at } => self.cluster.limit_termination(&claim, at),
            Effect::AdoptNode { node, annotations, .. } => self.cluster.annotate_node(&node, annotations),
            Effect::LabelNode { node, labels } => {
                self.note_refined(now, &node, &labels);
                self.cluster.label_node(&node, labels);
            }
            Effect::TaintNode { node, taint } => self.cluster.taint_node(&node, taint),
            Effect::UntaintNode { node, taint } => self.cluster.untaint_node(&node, &taint),
            Effect::SetNodeCondition { node, condition } => self.cluster.set_condition(&node, condition),
            Effect::EvictPod { pod, node } => {
                let answer = self.cluster.evict(now, &pod, &node);
                self.tell(now, Event::EvictionAnswered { pod, answer });
            }
            Effect::DeletePod { pod, node, grace } => self.cluster.delete_pod(now, &pod, &node, grace),
            Effect::NominatePod { pod, target } => self.cluster.nominate(pod, target),
            Effect::RecordEvent { object, kind, reason, message } => {
                self.enter(Entry { at: now, object, kind, reason: reason.to_owned(), message });
            }
            Effect::OfferingUnavailable { .. } => {}
        }
        self.dies(now);
    }

    /// Asks the cloud for a VM; one that is there already is the answer.
    fn create_instance(&mut self, now: Timestamp, claim: Box<NodeClaim>) {
        let (name, run) = (Arc::clone(&claim.name), self.run);
        if !self.vms.contains_key(&name) {
            match self.cloud.create(&claim) {
                Answer::Refused { failure, message } => {
                    self.schedule(now + ANSWER, Action::Refused { claim, failure, message, run });
                    return;
                }
                Answer::Accepted { boot, machine, .. } => {
                    let vm = Vm { claim, machine, created: now, is_up: false, is_ending: false };
                    self.vms.insert(Arc::clone(&name), vm);
                    self.schedule(now + ANSWER + boot, Action::Booted(Arc::clone(&name)));
                }
            }
        }
        self.schedule(now + ANSWER, Action::Accepted { claim: name, run });
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
}

impl Vm {
    /// Its node as it joins, with what its machine really has.
    pub(super) fn node(&self, now: Timestamp) -> Node {
        let claim = &self.claim;
        let (capacity, allocatable) = real_resources(claim, &self.machine);
        let unregistered = Taint {
            key: karpenter::UNREGISTERED_TAINT.to_owned(),
            value: String::new(),
            effect: TaintEffect::NoExecute,
        };
        let taints = claim.taints.iter().chain(&claim.startup_taints).cloned().chain([unregistered]);
        Node {
            name: Arc::clone(&claim.name),
            labels: claim.labels.clone(),
            annotations: Labels::new(),
            taints: taints.collect(),
            allocatable,
            capacity,
            provider_id: self.provider_id(),
            ready: true,
            unschedulable: false,
            deleting: false,
            created: now,
        }
    }
}

/// Capacity and allocatable of a machine: what the kubelet would find, less what was reserved at purchase.
pub(crate) fn real_resources(claim: &NodeClaim, machine: &Machine) -> (ResourceList, ResourceList) {
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
