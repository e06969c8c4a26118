//! Nodes joining their claims: which node is whose, what a node gets when it joins, and when pods may count on it.

use std::sync::Arc;

use assay_shared::labels::{assay, karpenter};

use super::provision::NOMINATION_WINDOW;
use super::{Condition, ConditionStatus, Effect, Engine, EventKind, Machine};
use crate::lifecycle::Step;
use crate::model::{ClaimState, Labels, Node, Taint, TaintEffect, Timestamp};

/// Karpenter's taint on nodes that have not joined their claim yet.
fn unregistered_taint() -> Taint {
    Taint {
        key: karpenter::UNREGISTERED_TAINT.to_owned(),
        value: String::new(),
        effect: TaintEffect::NoExecute,
    }
}

/// Taints that Kubernetes and Karpenter take off by themselves while a node starts.
pub(super) fn is_ephemeral(taint: &Taint) -> bool {
    const KEYS: [&str; 4] = [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
        "node.cloudprovider.kubernetes.io/uninitialized",
        karpenter::UNREGISTERED_TAINT,
    ];
    KEYS.contains(&taint.key.as_str()) || taint.key.starts_with("readiness.k8s.io/")
}

fn same_taint(one: &Taint, other: &Taint) -> bool {
    one.key == other.key && one.effect == other.effect
}

impl Engine {
    /// The claim whose machine a node is.
    pub(super) fn claim_on(&self, node: &str) -> Option<Arc<str>> {
        self.claim_by_node.get(node).cloned()
    }

    /// The machine behind a node.
    #[must_use]
    pub fn machine_on(&self, node: &str) -> Option<&Machine> {
        self.machines.get(self.claim_by_node.get(node)?)
    }

    /// The node of a claim, while its object is there.
    pub(super) fn node_of(&self, claim: &str) -> Option<&Node> {
        self.nodes.get(self.machines.get(claim)?.claim.node.as_ref()?)
    }

    /// A node joined or changed.
    pub(super) fn node_applied(&mut self, now: Timestamp, node: Node) {
        let name = Arc::clone(&node.name);
        let deleting = node.deleting;
        let before = self.nodes.insert(Arc::clone(&name), node);
        let came_back = before.is_none();
        match self.claim_on(&name) {
            None => {
                self.sort_out();
                if let Some(claim) = self.claim_for(&name) {
                    self.join(now, &claim, &name);
                }
            }
            Some(claim) if came_back => self.node_known(now, &claim, &name),
            Some(claim) => self.keep_node(&claim, &name),
        }
        if let Some(report) = self.early_reports.remove(&name) {
            self.report(now, &name, &report);
        }
        if let Some(claim) = self.claim_on(&name).filter(|_| deleting) {
            // Somebody deleted the node: the machine goes too, as with Karpenter.
            self.end(now, &claim, super::LeaveReason::NodeDeleted, false);
        }
        self.wake(now);
    }

    /// The claim that a node belongs to: by the cloud's id of its machine, or by the name where neither side says otherwise.
    fn claim_for(&self, node: &str) -> Option<Arc<str>> {
        let node = self.nodes.get(node)?;
        let same_machine = |machine: &Machine| {
            let id = machine.claim.provider_id.as_ref().filter(|_| machine.claim.node.is_none());
            id.is_some_and(|id| !id.is_empty() && id.eq_ignore_ascii_case(&node.provider_id))
        };
        let by_id = || {
            let mut waiting = self.roll.nodeless.iter();
            waiting.find(|claim| self.machines.get(*claim).is_some_and(same_machine))
        };
        let by_name = || {
            let (claim, machine) = self.machines.get_key_value(&node.name)?;
            let says_otherwise =
                !node.provider_id.is_empty() && machine.claim.provider_id.is_some() && !same_machine(machine);
            (machine.claim.node.is_none() && !says_otherwise).then_some(claim)
        };
        by_name().or_else(by_id).cloned()
    }

    /// Looks for the node of a claim among those that joined before it was known.
    pub(super) fn find_node(&mut self, now: Timestamp, claim: &Arc<str>) {
        self.sort_out();
        let own = |node: &&Arc<str>| self.claim_for(node).as_ref() == Some(claim);
        if let Some(node) = self.roll.unclaimed.iter().find(own).cloned() {
            self.join(now, claim, &node);
        }
    }

    /// A node turned out to be the machine of a claim.
    fn join(&mut self, now: Timestamp, claim: &Arc<str>, node: &Arc<str>) {
        let Some(machine) = self.machines.get_mut(claim) else { return };
        machine.claim.node = Some(Arc::clone(node));
        self.node_known(now, claim, node);
    }

    /// The node of a claim is known by name: it is there, or it is not to be found.
    pub(super) fn node_known(&mut self, now: Timestamp, claim: &Arc<str>, node: &Arc<str>) {
        self.claim_by_node.insert(Arc::clone(node), Arc::clone(claim));
        self.nodes.mark(node);
        self.rename_nominations(node, claim);
        let known = self.nodes.contains_key(node);
        let Some(machine) = self.machines.get_mut(claim) else { return };
        machine.missing_since = if known { None } else { Some(now) };
        if !known {
            self.wake(now + crate::lifecycle::REGISTRATION_TIMEOUT);
            return;
        }
        if machine_is_new(machine) {
            self.register(now, claim, node);
        }
        self.resume_leaving(now, claim);
        self.keep_node(claim, node);
    }

    /// Gives a node what its claim says, once; from then on it counts as the claim's.
    fn register(&mut self, now: Timestamp, claim: &Arc<str>, node: &Arc<str>) {
        let (Some(machine), Some(joined)) = (self.machines.get(claim), self.nodes.get(node)) else { return };
        let wanted = machine.claim.clone();
        // An earlier run may have come to the label and not to the condition: what it gave may have changed since.
        if joined.label(karpenter::REGISTERED) != Some("true") {
            let off = |labels: &Labels| {
                labels.get(karpenter::DO_NOT_SYNC_TAINTS).is_some_and(|value| value == "true")
            };
            let sync_taints = !off(&joined.labels) && !off(&wanted.labels);
            let missing = wanted.taints.iter().chain(&wanted.startup_taints).filter(|taint| {
                sync_taints && !joined.taints.iter().any(|present| same_taint(present, taint))
            });
            let missing: Vec<Taint> = missing.cloned().collect();
            let was_kept_free = joined.taints.iter().any(|taint| same_taint(taint, &unregistered_taint()));
            let mut annotations = wanted.annotations.clone();
            annotations.retain(|key, value| joined.annotations.get(key) != Some(value));
            self.effects.push(Effect::AdoptNode {
                node: Arc::clone(node),
                claim: Arc::clone(claim),
                annotations,
            });
            for taint in missing {
                self.taint(node, taint);
            }
            if !was_kept_free {
                let message = format!("joined without {}: pods may have come early", unregistered_taint());
                let object = format!("NodeClaim/{claim}");
                self.record_event(object, EventKind::Warning, "UnregisteredTaintMissing", message);
            }
            let mut labels = wanted.labels;
            labels.insert(karpenter::REGISTERED.to_owned(), "true".to_owned());
            self.set_labels(node, labels);
        }
        self.stats.joined += 1;
        self.step(now, claim, Step::Joined);
        self.registered(&wanted.pool, true);
        self.set_claim_condition(claim, Condition::holds("Registered", format!("as node {node}")));
        self.wake(now + self.settings.report_timeout);
    }

    /// Puts right what a node of a claim must have and an effect may have failed to bring about.
    fn keep_node(&mut self, claim: &Arc<str>, node: &Arc<str>) {
        self.keep_refined_labels(claim, node);
        let Some(machine) = self.machines.get(claim) else { return };
        let (state, verified) = (machine.claim.state, machine.verified);
        if state >= ClaimState::Registered {
            self.untaint(node, &unregistered_taint());
        }
        if verified {
            self.untaint(node, &super::hardware::unverified_taint());
        }
        if state == ClaimState::Initialized {
            let labels = Labels::from([(karpenter::INITIALIZED.to_owned(), "true".to_owned())]);
            self.set_labels(node, labels);
            self.check_consistency(claim);
        }
    }

    /// Puts a taint on a node that does not have it.
    pub(super) fn taint(&mut self, node: &Arc<str>, taint: Taint) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        if !known.taints.contains(&taint) {
            known.taints.retain(|kept| !same_taint(kept, &taint));
            known.taints.push(taint.clone());
            self.effects.push(Effect::TaintNode { node: Arc::clone(node), taint });
        }
    }

    /// Takes a taint off a node that has it.
    pub(super) fn untaint(&mut self, node: &Arc<str>, taint: &Taint) {
        let Some(known) = self.nodes.get_mut(node) else { return };
        let before = known.taints.len();
        known.taints.retain(|kept| !same_taint(kept, taint));
        if known.taints.len() < before {
            self.effects.push(Effect::UntaintNode { node: Arc::clone(node), taint: taint.clone() });
        }
    }

    /// Machines are ready for pods once nothing is in the way any more.
    pub(super) fn initialize_ready(&mut self, now: Timestamp) {
        self.sort_out();
        let starting = self.listed(&self.roll.starting).filter(|(_, machine)| {
            machine.claim.state == ClaimState::Registered && machine.leaving.is_none()
        });
        let starting: Vec<_> =
            starting.map(|(name, machine)| (Arc::clone(name), self.in_the_way(machine))).collect();
        for (claim, in_the_way) in starting {
            if let Some((reason, message)) = in_the_way {
                let status = ConditionStatus::Unknown;
                let condition = Condition { condition_type: "Initialized", status, reason, message };
                self.set_claim_condition(&claim, condition);
                continue;
            }
            self.step(now, &claim, Step::Verified);
            let Some(machine) = self.machines.get_mut(&claim) else { continue };
            machine.quiet_since = now;
            let node = machine.claim.node.clone();
            if let Some(node) = &node {
                let labels = Labels::from([(karpenter::INITIALIZED.to_owned(), "true".to_owned())]);
                self.set_labels(node, labels);
            }
            let message = "ready, and its hardware is what was bought".to_owned();
            self.set_claim_condition(&claim, Condition::holds("Initialized", message));
            self.check_consistency(&claim);
            self.wake(now + NOMINATION_WINDOW);
            self.wake(now);
        }
    }

    /// What keeps a registered machine from being ready for pods, by Karpenter's words where it has one.
    fn in_the_way(&self, machine: &Machine) -> Option<(&'static str, String)> {
        let Some(node) = machine.claim.node.as_ref().and_then(|node| self.nodes.get(node)) else {
            return Some(("NodeNotFound", "its node is gone".to_owned()));
        };
        if !node.ready {
            return Some(("NodeNotReady", "the kubelet does not report it ready".to_owned()));
        }
        let starting = |taint: &&Taint| {
            taint.key != assay::HARDWARE_UNVERIFIED_TAINT
                && machine.claim.startup_taints.iter().any(|startup| same_taint(startup, taint))
        };
        if let Some(taint) = node.taints.iter().find(starting) {
            return Some(("StartupTaintsExist", format!("startup taint {taint} is still there")));
        }
        if let Some(taint) = node.taints.iter().find(|taint| is_ephemeral(taint)) {
            return Some(("KnownEphemeralTaintsExist", format!("taint {taint} is still there")));
        }
        let requested = &machine.claim.requests;
        let common = ["cpu", "memory", "ephemeral-storage", "pods"].into_iter();
        let mut names = common.chain(requested.extended.keys().map(String::as_str));
        if let Some(name) =
            names.find(|name| requested.amount(name) > 0 && node.allocatable.amount(name) == 0)
        {
            return Some(("ResourceNotRegistered", format!("{name} is requested and not there yet")));
        }
        if let Some(mismatch) = machine.mismatches.first().filter(|_| !machine.verified) {
            let message = format!("bought {}, found {}", mismatch.expected, mismatch.found);
            return Some((mismatch.kind.as_str(), message));
        }
        let closed = node.taints.iter().any(|taint| taint.key == assay::HARDWARE_UNVERIFIED_TAINT);
        if !machine.verified || closed {
            return Some((
                "HardwareUnverified",
                "no whole report of its hardware was checked yet".to_owned(),
            ));
        }
        None
    }

    /// A node object is gone: so is the machine, or it goes now.
    pub(super) fn node_deleted(&mut self, now: Timestamp, name: &Arc<str>) {
        self.nodes.remove(name);
        self.disruption.forget_node(name);
        self.attachments.remove(name);
        self.early_reports.remove(name);
        match self.claim_on(name) {
            Some(claim) => self.end(now, &claim, super::LeaveReason::NodeDeleted, false),
            None => self.forget_nominations(now, name),
        }
        self.wake(now);
    }
}

/// Whether no node has joined it yet.
const fn machine_is_new(machine: &Machine) -> bool {
    matches!(machine.claim.state, ClaimState::Pending | ClaimState::Launching | ClaimState::Launched)
}
