//! What an event means for what is known. Nothing is decided here.

use std::sync::Arc;

use assay_shared::protocol::Notice;
use assay_shared::report::EventType;

use super::claims::Given;
use super::provision::NOMINATION_WINDOW;
use super::{Engine, Event, EventKind, Machine};
use crate::model::{DaemonSet, NodeClass, Pod, PodId, Timestamp};

impl Engine {
    /// Records what happened. The same event twice is the same as once.
    pub fn handle(&mut self, now: Timestamp, event: Event) {
        self.now = self.now.max(now);
        self.record(now, event);
        self.follow();
    }

    fn record(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::PodApplied(pod) => self.pod_applied(now, *pod),
            Event::PodDeleted(id) => self.pod_deleted(now, &id),
            Event::NodeApplied(node) => self.node_applied(now, *node),
            Event::NodeDeleted(name) => self.node_deleted(now, &name),
            Event::PoolApplied(pool) => {
                if self.pool_applied(*pool) {
                    self.offer_changed();
                }
                self.solve_soon(now);
            }
            Event::PoolDeleted(name) => {
                self.pools.remove(&name);
                self.registrations.forget(&name);
                self.offer_changed();
            }
            Event::ClassApplied(class) => {
                let name = class.name.clone();
                self.types_told.remove(&name);
                let before = self.classes.insert(name.clone(), NodeClass::clone(&class));
                if before.as_ref() != Some(&*class) {
                    self.offer_changed();
                }
                if before.is_some_and(|before| before != *class) {
                    self.class_changed(&name);
                }
                self.solve_soon(now);
            }
            Event::ClassDeleted(name) => {
                self.classes.remove(&name);
                self.class_changed(&name);
                self.offer_changed();
            }
            Event::DaemonSetApplied(daemon_set) => {
                let id = daemon_set.id.clone();
                if self.daemon_sets.insert(id, DaemonSet::clone(&daemon_set)).as_ref() != Some(&*daemon_set) {
                    self.picture.market_changed();
                }
            }
            Event::DaemonSetDeleted(id) => {
                self.daemon_sets.remove(&id);
                self.picture.market_changed();
            }
            Event::DisruptionBudgetApplied(budget) => {
                self.disruption.changed();
                self.disruption_budgets.insert(budget.id.clone(), *budget);
            }
            Event::DisruptionBudgetDeleted(id) => {
                self.disruption.changed();
                self.disruption_budgets.remove(&id);
            }
            Event::NodeFacts { node, facts } => self.node_facts(&node, *facts),
            Event::ClaimFacts { claim, image, expire_after } => {
                self.claim_facts(&claim, (image, expire_after));
            }
            Event::ClassFacts { class, facts } => self.class_facts(&class, facts),
            Event::ClaimApplied(claim) => self.claim_applied(now, *claim),
            Event::ClaimDeleting { claim, at } => self.claim_deleting(now, &claim, at),
            Event::ClaimDeleted { claim } => self.claim_deleted(now, &claim),
            Event::EvictionAnswered { pod, answer } => self.eviction_answered(now, &pod, answer),
            Event::VolumeAttachments { node, volumes } => {
                self.attachments.insert(node, volumes);
            }
            Event::InstancesListed { asked, instances } => self.instances_listed(now, asked, &instances),
            Event::Launched { claim, provider_id, instance_type, zone, capacity_type, price } => {
                let given = Given { provider_id, instance_type, zone, capacity_type, price };
                self.launched(now, &claim, given);
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

    fn pod_applied(&mut self, now: Timestamp, pod: Pod) {
        let known = self.pods.get(&pod.id);
        if known == Some(&pod) {
            return;
        }
        if known.is_none_or(|known| known.annotations != pod.annotations) {
            self.tell_annotation(&pod);
        }
        let from = self.pods.get(&pod.id).and_then(|pod| pod.node.clone());
        let known = self.pods.get(&pod.id);
        let ends = pod.terminating.is_some() && known.is_some_and(|known| known.terminating.is_none());
        if let Some(node) = pod.node.as_ref().filter(|node| from.as_ref() != Some(node)) {
            self.evictions.remove(&pod.id);
            self.touch(now, node);
        }
        if !pod.is_pending() {
            // A pod of a leaving node keeps its nomination until it goes: it says where it will go.
            let leaving =
                pod.node.as_ref().and_then(|node| self.machine_on(node)).is_some_and(Machine::is_leaving);
            if (!leaving || ends)
                && let Some(target) = self.nominations.remove(&pod.id)
            {
                self.touch_claim(now, &target);
                if let Some(node) = pod.node.as_ref().filter(|_| !ends) {
                    self.took_another_place(now, &pod, node, &target);
                }
            }
            self.reported.remove(&pod.id);
        } else if !self.nominations.contains(&pod.id) {
            self.solve_soon(now);
        }
        self.pods.insert(pod);
    }

    /// The cluster's scheduler goes by no nominations. Where it gave a pod a place that others are expected at, one of them that is
    /// like the pod is expected at the pod's place instead; where none is, they are planned anew. Left as it was, the pod's place
    /// would look empty and be given back while one waits that needs it.
    fn took_another_place(&mut self, now: Timestamp, pod: &Pod, node: &Arc<str>, free: &Arc<str>) {
        let taken = self.claim_on(node).unwrap_or_else(|| Arc::clone(node));
        if taken == *free {
            return;
        }
        let unbound = |id: &&PodId| self.pods.get(id).is_some_and(|other| other.node.is_none());
        let expected: Vec<PodId> = self.nominations.on(&taken).filter(unbound).cloned().collect();
        if let Some(like) =
            expected.iter().find(|id| self.pods.get(id).is_some_and(|other| other.is_like(pod)))
        {
            self.nominations.insert(like.clone(), Arc::clone(free), now);
            self.wake(now + NOMINATION_WINDOW);
            return;
        }
        for other in expected {
            self.nominations.remove(&other);
            self.solve_soon(now);
        }
    }

    fn pod_deleted(&mut self, now: Timestamp, id: &PodId) {
        self.reported.remove(id);
        self.evictions.remove(id);
        self.placeless.remove(id);
        if let Some(target) = self.nominations.remove(id) {
            self.touch_claim(now, &target);
        }
        if let Some(node) = self.pods.remove(id).and_then(|pod| pod.node.clone()) {
            self.touch(now, &node);
            // There is room now for a pod that found none.
            self.solve_soon(now);
        }
    }

    /// Pools or classes changed: what could be bought, and what machines are held against.
    fn offer_changed(&mut self) {
        self.picture.market_changed();
        self.look_at_all();
    }

    /// Notes that pods come or go on a node.
    fn touch(&mut self, now: Timestamp, node: &str) {
        if let Some(claim) = self.claim_on(node) {
            self.touch_claim(now, &claim);
        }
    }

    /// Notes that pods come or go on a machine.
    fn touch_claim(&mut self, now: Timestamp, claim: &str) {
        if let Some(machine) = self.machines.get_mut(claim) {
            machine.quiet_since = now;
            self.wake(now);
        }
    }

    /// A node turned out to be the machine of a claim of another name.
    pub(super) fn rename_nominations(&mut self, node: &Arc<str>, claim: &Arc<str>) {
        if node != claim {
            self.nominations.rename(node, claim);
        }
    }

    /// Pods that were to run on `target` wait for another place.
    pub(super) fn forget_nominations(&mut self, now: Timestamp, target: &str) {
        if self.nominations.clear(target) > 0 {
            self.solve_soon(now);
        }
    }

    fn notice(&mut self, now: Timestamp, node: &Arc<str>, notice: &Notice) {
        let (reason, message) = match notice {
            Notice::Scheduled(event) => {
                let leaves = matches!(event.event_type, EventType::Preempt | EventType::Terminate);
                if let Some(claim) = self.claim_on(node).filter(|_| leaves) {
                    self.preempted(now, &claim, &event.not_before);
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
