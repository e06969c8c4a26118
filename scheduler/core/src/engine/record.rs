//! What an event means for what is known. Nothing is decided here.

use std::sync::Arc;

use assay_shared::labels::{azure, karpenter, kubernetes};
use assay_shared::protocol::Notice;
use assay_shared::report::EventType;

use super::{Effect, Engine, Event, EventKind, LaunchError, LeaveReason, Machine};
use crate::catalog::InstanceType;
use crate::lifecycle::{self, Step};
use crate::model::{ClaimState, Labels, Node, NodeClaim, NodeClass, Pod, PodId, Timestamp};
use crate::requirement::Requirements;

impl Engine {
    /// Records what happened. The same event twice is the same as once.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::PodApplied(pod) => self.pod_applied(now, *pod),
            Event::PodDeleted(id) => self.pod_deleted(now, &id),
            Event::NodeApplied(node) => self.node_applied(now, *node),
            Event::NodeDeleted(name) => self.node_deleted(now, &name),
            Event::PoolApplied(pool) => {
                self.pools.insert(pool.name.clone(), *pool);
                self.solve_soon(now);
            }
            Event::PoolDeleted(name) => {
                self.pools.remove(&name);
            }
            Event::ClassApplied(class) => {
                self.classes.insert(class.name.clone(), *class);
                self.solve_soon(now);
            }
            Event::DaemonSetApplied(daemon_set) => {
                self.daemon_sets.insert(daemon_set.id.clone(), *daemon_set);
            }
            Event::DaemonSetDeleted(id) => {
                self.daemon_sets.remove(&id);
            }
            Event::ClaimApplied(claim) => self.claim_applied(now, *claim),
            Event::Launched { claim, provider_id, instance_type, zone, capacity_type, price } => {
                let Some(machine) = self.machines.get_mut(&claim) else {
                    // Nobody wants it any more: it must not stay.
                    self.effects.push(Effect::DeleteInstance { claim });
                    return;
                };
                machine.launched.get_or_insert(now);
                machine.provider_id = Some(provider_id);
                machine.claim.instance_type = instance_type;
                machine.claim.zone = zone;
                machine.claim.capacity_type = capacity_type;
                machine.claim.price = price;
                self.step(now, &claim, Step::Accepted);
            }
            Event::LaunchFailed { claim, error } => self.launch_failed(now, &claim, error),
            Event::InstanceGone { claim } => self.instance_gone(now, &claim),
            Event::AgentConnected { node } => {
                let object = format!("Node/{node}");
                self.record_event(
                    object,
                    EventKind::Normal,
                    "AgentConnected",
                    "the agent is connected".to_owned(),
                );
            }
            Event::Report { node, report } => self.report(now, &node, &report),
            Event::Notice { node, notice } => self.notice(now, &node, &notice),
            Event::AgentLost { node } => self.agent_lost(&node),
            Event::Tick => {}
        }
    }

    /// Takes a claim one step further and sees to its deadline.
    pub(super) fn step(&mut self, now: Timestamp, claim: &str, step: Step) {
        let Some(machine) = self.machines.get_mut(claim) else { return };
        let state = lifecycle::next(machine.claim.state, step);
        if state != machine.claim.state {
            machine.claim.state = state;
            machine.since = now;
            if let Some(deadline) = lifecycle::deadline(state) {
                self.wake(now + deadline);
            }
        }
    }

    /// A claim of an earlier run goes on where that run left it.
    fn claim_applied(&mut self, now: Timestamp, claim: NodeClaim) {
        if self.machines.contains_key(&claim.name) {
            return;
        }
        let class = self.pools.get(&claim.pool).map(|pool| pool.node_class.as_str());
        let class = class
            .map(|name| self.classes.get(name).cloned().unwrap_or_else(|| NodeClass::with_defaults(name)));
        let known = class.and_then(|class| {
            let types = self.instance_types(now, &class);
            types.into_iter().find(|known| known.name == claim.instance_type)
        });
        // A size that is not sold any more still is what the claim says.
        let bought = known.unwrap_or_else(|| InstanceType {
            name: Arc::clone(&claim.instance_type),
            requirements: Requirements::from_labels(&claim.labels),
            offerings: Vec::new(),
            capacity: claim.capacity.clone(),
            overhead: claim.capacity.clone() - &claim.allocatable,
            numa: None,
            lotteries: Vec::new(),
        });
        let (name, state) = (Arc::clone(&claim.name), claim.state);
        let mut machine = Machine::new(claim, Arc::new(bought), now);
        machine.launched = (state >= ClaimState::Launched).then_some(now);
        machine.verified = state == ClaimState::Initialized;
        self.machines.insert(name, machine);
        if let Some(deadline) = lifecycle::deadline(state) {
            self.wake(now + deadline);
        }
        self.solve_soon(now);
    }

    fn pod_applied(&mut self, now: Timestamp, pod: Pod) {
        let known = self.pods.get(&pod.id);
        if known == Some(&pod) {
            return;
        }
        if let Some(node) =
            pod.node.as_ref().filter(|node| known.and_then(|pod| pod.node.as_ref()) != Some(node))
        {
            self.touch(now, node);
        }
        if !pod.is_pending() {
            // A pod of a leaving node keeps its nomination: it says where it will go.
            let leaving =
                pod.node.as_ref().and_then(|node| self.machines.get(node)).is_some_and(|m| m.is_leaving());
            if !leaving {
                self.nominations.remove(&pod.id);
            }
            self.reported.remove(&pod.id);
        } else if !self.nominations.contains_key(&pod.id) {
            self.solve_soon(now);
        }
        self.pods.insert(pod.id.clone(), pod);
    }

    fn pod_deleted(&mut self, now: Timestamp, id: &PodId) {
        self.reported.remove(id);
        if let Some(target) = self.nominations.remove(id) {
            self.touch(now, &target);
        }
        if let Some(node) = self.pods.remove(id).and_then(|pod| pod.node) {
            self.touch(now, &node);
            // There is room now for a pod that found none.
            self.solve_soon(now);
        }
    }

    /// Notes that pods come or go on a node.
    fn touch(&mut self, now: Timestamp, node: &str) {
        if let Some(machine) = self.machines.get_mut(node) {
            machine.quiet_since = now;
            self.wake(now);
        }
    }

    fn node_applied(&mut self, now: Timestamp, node: Node) {
        let name = Arc::clone(&node.name);
        let joined = self
            .machines
            .get_mut(&name)
            .is_some_and(|machine| machine.claim.node.replace(Arc::clone(&name)).is_none());
        self.nodes.insert(Arc::clone(&name), node);
        self.keep_refined_labels(&name);
        if joined {
            self.stats.joined += 1;
            self.step(now, &name, Step::Joined);
            let registered = Labels::from([(karpenter::REGISTERED.to_owned(), "true".to_owned())]);
            self.set_labels(&name, registered);
            self.wake(now + self.settings.report_timeout);
        }
        self.wake(now);
    }

    /// Somebody deleted the node object: the machine goes too, as with Karpenter.
    fn node_deleted(&mut self, now: Timestamp, name: &str) {
        self.nodes.remove(name);
        let alive = self.machines.get(name).is_some_and(|machine| machine.claim.node.is_some());
        if alive {
            self.release(now, name, LeaveReason::NodeDeleted);
        }
    }

    fn launch_failed(&mut self, now: Timestamp, claim: &str, error: LaunchError) {
        let Some(machine) = self.machines.remove(claim) else { return };
        self.stats.launch_failures += 1;
        self.unavailable.note(now, &error, &machine.bought);
        self.forget_nominations(now, claim);
        let what = format!("{} in {} ({})", error.instance_type, error.zone, error.capacity_type);
        let message = format!("{}: {what}: {}", error.failure, error.message);
        self.record_event(
            format!("NodeClaim/{claim}"),
            EventKind::Warning,
            "InsufficientCapacityError",
            message,
        );
        self.effects.push(Effect::OfferingUnavailable {
            instance_type: error.instance_type,
            zone: error.zone,
            capacity_type: error.capacity_type,
        });
    }

    fn instance_gone(&mut self, now: Timestamp, claim: &str) {
        let Some(machine) = self.machines.remove(claim) else { return };
        self.spent += machine.spent(now);
        // Its share of a limit is free again.
        self.solve_soon(now);
        self.forget_nominations(now, claim);
        if !machine.is_leaving() {
            let message = "the VM is gone without our asking".to_owned();
            self.record_event(format!("NodeClaim/{claim}"), EventKind::Warning, "InstanceGone", message);
            *self.stats.released.entry(LeaveReason::Vanished).or_default() += 1;
        }
    }

    /// Pods that were to run on `target` wait for another place.
    pub(super) fn forget_nominations(&mut self, now: Timestamp, target: &str) {
        let before = self.nominations.len();
        self.nominations.retain(|_, place| **place != *target);
        if self.nominations.len() != before {
            self.solve_soon(now);
        }
    }

    fn notice(&mut self, now: Timestamp, node: &Arc<str>, notice: &Notice) {
        let (reason, message) = match notice {
            Notice::Scheduled(event) => {
                let leaves = matches!(event.event_type, EventType::Preempt | EventType::Terminate);
                if leaves {
                    self.leave(now, node, LeaveReason::Preempted);
                }
                let when = if event.not_before.is_empty() { "now" } else { &event.not_before };
                ("ScheduledEvent", format!("{:?}, not before {when}", event.event_type))
            }
            Notice::GpuLost { pci_address, reason } => {
                self.gpu_lost(now, node, pci_address, reason);
                ("GPULost", format!("GPU {pci_address}: {reason}"))
            }
        };
        self.record_event(format!("Node/{node}"), EventKind::Warning, reason, message);
    }
}

/// Labels that the node of a claim will have: what the pool gives, what the type and the choice settle.
#[must_use]
pub fn labels_of(
    pool: &crate::model::NodePool,
    bought: &crate::catalog::InstanceType,
    zone: &str,
    capacity_type: crate::catalog::CapacityType,
) -> Labels {
    let settled = bought.requirements.iter().filter_map(|(key, set)| {
        let values = set.finite().filter(|values| values.len() == 1)?;
        Some((key.to_owned(), values.first()?.clone()))
    });
    let mut labels: Labels = settled.collect();
    labels.extend(pool.labels.clone());
    labels.insert(kubernetes::INSTANCE_TYPE.to_owned(), bought.name.to_string());
    labels.insert(kubernetes::ZONE.to_owned(), zone.to_owned());
    labels.insert(karpenter::CAPACITY_TYPE.to_owned(), capacity_type.as_str().to_owned());
    labels.insert(karpenter::NODEPOOL.to_owned(), pool.name.clone());
    labels.insert(azure::AKS_NODE_CLASS.to_owned(), pool.node_class.clone());
    labels
}
