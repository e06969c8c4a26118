//! A claim's way from asked for to gone, as the cloud and the API server tell it: new ones of earlier runs, launched, refused,
//! deleted, gone.

use std::sync::Arc;
use std::time::Duration;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::UsdPerHour;

use super::{
    Condition, ConditionStatus, Effect, Ending, Engine, EventKind, LaunchError, LeaveReason, Machine,
};
use crate::catalog::{CapacityType, InstanceType, Offering};
use crate::lifecycle::{self, Step, settled_labels};
use crate::model::{ClaimState, Labels, NodeClaim, NodeClass, Timestamp};
use crate::requirement::Requirements;

/// After so long without an answer, what must happen is asked for again.
pub(super) const REPEAT: Duration = Duration::from_secs(60);

/// What the API server says of a claim that is gone may be so much behind.
const LATE: Duration = Duration::from_secs(10 * 60);

/// A claim whose VM is gone, until its object is.
#[derive(Debug, Clone)]
pub(super) struct Release {
    node: Option<Arc<str>>,
    /// Whether the object is known to be on its way out.
    on_record: bool,
    /// When it was last asked for.
    asked: Timestamp,
}

impl Release {
    pub(super) fn is_of(&self, node: &str) -> bool {
        self.node.as_deref() == Some(node)
    }
}

impl Engine {
    /// Takes a claim one step further and sees to its deadline.
    pub(super) fn step(&mut self, now: Timestamp, claim: &str, step: Step) {
        let Some(machine) = self.machines.get_mut(claim) else { return };
        let state = lifecycle::next(machine.claim.state, step);
        if state != machine.claim.state {
            machine.claim.state = state;
            machine.claim.since = now;
            if let Some(deadline) = lifecycle::deadline(state) {
                self.wake(now + deadline);
            }
        }
    }

    /// Sets a condition of a claim where it is not what was set last.
    pub(super) fn set_claim_condition(&mut self, claim: &str, condition: Condition) {
        let Some((name, machine)) = self.machines.get_key_value(claim) else { return };
        if machine.claim_conditions.get(condition.condition_type) == Some(&condition) {
            return;
        }
        let claim = Arc::clone(name);
        if let Some(machine) = self.machines.get_mut(&claim) {
            machine.claim_conditions.insert(condition.condition_type, condition.clone());
        }
        self.effects.push(Effect::SetClaimCondition { claim, condition });
    }

    /// A claim of an earlier run goes on where that run left it, one that somebody made is launched.
    pub(super) fn claim_applied(&mut self, now: Timestamp, claim: NodeClaim) {
        // Nor is one bought anew of which is told, late, how it was made.
        let was_let_go = self.let_go_at.get(&claim.name).is_some_and(|at| claim.created <= *at);
        if was_let_go || self.releasing.contains_key(&claim.name) {
            return;
        }
        if let Some(machine) = self.machines.get_mut(&claim.name) {
            machine.claim.annotations = claim.annotations;
            machine.claim.template_hash = claim.template_hash;
            machine.claim.class_hash = claim.class_hash;
            if let Some(at) = claim.deleting {
                self.claim_deleting(now, &claim.name, at);
            }
            return;
        }
        let name = Arc::clone(&claim.name);
        if let Some((reason, message)) = self.why_not_launched(&claim) {
            self.record_event(format!("NodeClaim/{name}"), EventKind::Warning, reason, message);
            // An earlier run may have come to the VM.
            self.effects.push(Effect::DeleteInstance { claim: Arc::clone(&name) });
            self.let_go(now, name, None, false);
            return;
        }
        let Some(machine) = self.recalled(now, claim) else {
            let message = "no type that could be bought satisfies its requirements".to_owned();
            let object = format!("NodeClaim/{name}");
            self.record_event(object, EventKind::Warning, "InsufficientCapacityError", message);
            self.let_go(now, name, None, false);
            return;
        };
        let state = machine.claim.state;
        if let Some(deadline) = lifecycle::deadline(state) {
            self.wake(machine.claim.since + deadline);
        }
        let node = machine.claim.node.clone();
        if state == ClaimState::Launching {
            self.effects.push(Effect::CreateInstance { claim: Box::new(machine.claim.clone()) });
        }
        self.machines.insert(Arc::clone(&name), machine);
        match node {
            Some(node) => self.node_known(now, &name, &node),
            None => self.find_node(now, &name),
        }
        self.wake(now);
        self.solve_soon(now);
    }

    /// What is known of a claim's machine by its object alone; `None` where it names no type and none would do.
    fn recalled(&mut self, now: Timestamp, mut claim: NodeClaim) -> Option<Machine> {
        let class = self.pools.get(&claim.pool).map_or(&claim.node_class, |pool| &pool.node_class);
        let class = self.classes.get(class).cloned().unwrap_or_else(|| NodeClass::with_defaults(class));
        let types = self.types_for_told(now, &class);
        if claim.instance_type.is_empty() && claim.state <= ClaimState::Launching {
            choose(&mut claim, &types)?;
        }
        let known = types.iter().find(|known| known.name == claim.instance_type).cloned();
        // A size that is not sold any more still is what the claim says.
        let bought = known.unwrap_or_else(|| {
            Arc::new(InstanceType {
                name: Arc::clone(&claim.instance_type),
                requirements: Requirements::from_labels(&claim.labels),
                offerings: Vec::new(),
                capacity: claim.capacity.clone(),
                overhead: claim.capacity.clone() - &claim.allocatable,
                numa: None,
                lotteries: Vec::new(),
            })
        });
        if claim.price == UsdPerHour::ZERO {
            let same = |offering: &&Offering| {
                offering.zone == claim.zone && offering.capacity_type == claim.capacity_type
            };
            claim.price = bought.offerings.iter().find(same).map_or(UsdPerHour::ZERO, |found| found.price);
        }
        if claim.state <= ClaimState::Launching {
            // It is asked for again, and has as long as the first time.
            claim.state = ClaimState::Launching;
            claim.since = now;
        }
        claim.since = claim.since.min(now);
        let mut machine = Machine::new(claim, bought, now);
        let NodeClaim { state, created, deleting, .. } = machine.claim;
        machine.launched = (state >= ClaimState::Launched).then_some(created);
        machine.verified = state == ClaimState::Initialized;
        let decided = machine.claim.disruption_reason.as_deref().and_then(LeaveReason::parse);
        if let (ClaimState::Terminating, at) = (state, deleting.unwrap_or(now)) {
            machine.leaving = Some(decided.unwrap_or(LeaveReason::Deleted));
            machine.ending = Some(Ending { on_record: true, ..Ending::default() });
            let grace = machine.claim.termination_grace_period;
            machine.claim.terminate_by = machine.claim.terminate_by.or_else(|| grace.map(|grace| at + grace));
        }
        Some(machine)
    }

    /// What a class could buy, made once for all claims that are told together.
    fn types_for_told(&mut self, now: Timestamp, class: &NodeClass) -> Arc<[Arc<InstanceType>]> {
        if let Some(known) = self.types_told.get(&class.name) {
            return Arc::clone(known);
        }
        let types: Arc<[_]> = self.instance_types(now, class).into_iter().map(Arc::new).collect();
        self.types_told.insert(class.name.clone(), Arc::clone(&types));
        types
    }

    /// The cloud accepted a claim.
    pub(super) fn launched(&mut self, now: Timestamp, claim: &Arc<str>, given: Given) {
        let Some(machine) = self.machines.get_mut(claim) else {
            // Nobody wants it any more: it must not stay.
            self.effects.push(Effect::DeleteInstance { claim: Arc::clone(claim) });
            return;
        };
        machine.launched.get_or_insert(now);
        if let Some(ending) = &mut machine.ending {
            // It was not there when its end was asked for.
            ending.instance_asked = None;
        }
        let Given { provider_id, instance_type, zone, capacity_type, price } = given;
        let message = format!("{instance_type} in {zone} ({capacity_type}) at {price}: {provider_id}");
        machine.claim.labels.extend([
            (kubernetes::INSTANCE_TYPE.to_owned(), instance_type.to_string()),
            (kubernetes::ZONE.to_owned(), zone.to_string()),
            (karpenter::CAPACITY_TYPE.to_owned(), capacity_type.as_str().to_owned()),
        ]);
        machine.claim.provider_id = Some(provider_id);
        machine.claim.instance_type = instance_type;
        machine.claim.zone = zone;
        machine.claim.capacity_type = capacity_type;
        machine.claim.price = price;
        self.step(now, claim, Step::Accepted);
        self.set_claim_condition(claim, Condition::holds("Launched", message));
        if self.machines.get(claim).is_some_and(|machine| machine.claim.node.is_none()) {
            let condition = Condition {
                condition_type: "Registered",
                status: ConditionStatus::Unknown,
                reason: "NodeNotFound",
                message: "its node has not joined".to_owned(),
            };
            self.set_claim_condition(claim, condition);
            self.find_node(now, claim);
        }
    }

    /// The cloud refused a claim.
    pub(super) fn launch_failed(&mut self, now: Timestamp, claim: &Arc<str>, error: LaunchError) {
        let Some(machine) = self.machines.get(claim) else { return };
        self.stats.launch_failures += 1;
        self.unavailable.note(now, &error, &machine.bought);
        self.picture.market_changed();
        let what = format!("{} in {} ({})", error.instance_type, error.zone, error.capacity_type);
        let message = format!("{}: {what}: {}", error.failure, error.message);
        let object = format!("NodeClaim/{claim}");
        self.record_event(object, EventKind::Warning, "InsufficientCapacityError", message);
        self.effects.push(Effect::OfferingUnavailable {
            instance_type: error.instance_type,
            zone: error.zone,
            capacity_type: error.capacity_type,
        });
        self.finish(now, claim);
    }

    /// A VM is gone.
    pub(super) fn instance_gone(&mut self, now: Timestamp, claim: &Arc<str>) {
        let Some(machine) = self.machines.get(claim) else { return };
        if !machine.is_ending() {
            let message = "the VM is gone without our asking".to_owned();
            self.record_event(format!("NodeClaim/{claim}"), EventKind::Warning, "InstanceGone", message);
            *self.stats.released.entry(LeaveReason::Vanished).or_default() += 1;
        }
        self.finish(now, claim);
    }

    /// A claim's object is being deleted: by our own decision, or somebody else wishes it gone.
    pub(super) fn claim_deleting(&mut self, now: Timestamp, claim: &Arc<str>, at: Timestamp) {
        if let Some(release) = self.releasing.get_mut(claim) {
            release.on_record = true;
            return;
        }
        self.end(now, claim, LeaveReason::Deleted, true);
        let Some(machine) = self.machines.get_mut(claim) else { return };
        machine.claim.deleting.get_or_insert(at);
        if let Some(ending) = &mut machine.ending {
            ending.on_record = true;
        }
        self.limit_draining(claim, at);
        self.wake(now);
    }

    /// A claim's object is gone, with our leave or without.
    pub(super) fn claim_deleted(&mut self, now: Timestamp, claim: &Arc<str>) {
        if self.releasing.remove(claim).is_some() {
            self.let_go_at.retain(|_, at| now.since(*at) < LATE);
            self.let_go_at.insert(Arc::clone(claim), now);
            return;
        }
        self.end(now, claim, LeaveReason::Deleted, true);
        if let Some(ending) = self.machines.get_mut(claim).and_then(|machine| machine.ending.as_mut()) {
            ending.on_record = true;
            ending.object_gone = true;
        }
        self.wake(now);
    }

    /// Forgets a machine that is no more, and lets go of its claim.
    pub(super) fn finish(&mut self, now: Timestamp, claim: &Arc<str>) {
        let Some(machine) = self.machines.remove(claim) else { return };
        self.disruption.forget_claim(claim);
        self.spent += machine.spent(now);
        if let Some(node) = &machine.claim.node {
            self.claim_by_node.remove(node);
            self.nodes.mark(node);
            self.attachments.remove(node);
        }
        self.solve_soon(now);
        self.forget_nominations(now, claim);
        let ending = machine.ending.unwrap_or_default();
        if ending.object_gone {
            self.effects
                .push(Effect::ReleaseClaim { claim: Arc::clone(claim), node: machine.claim.node.clone() });
        } else {
            self.let_go(now, Arc::clone(claim), machine.claim.node, ending.on_record);
        }
    }

    fn let_go(&mut self, now: Timestamp, claim: Arc<str>, node: Option<Arc<str>>, on_record: bool) {
        self.say_release(&claim, node.clone(), on_record);
        self.releasing.insert(claim, Release { node, on_record, asked: now });
        self.wake(now + REPEAT);
    }

    fn say_release(&mut self, claim: &Arc<str>, node: Option<Arc<str>>, on_record: bool) {
        if !on_record {
            self.effects.push(Effect::DeleteClaim { claim: Arc::clone(claim) });
        }
        self.effects.push(Effect::ReleaseClaim { claim: Arc::clone(claim), node });
    }

    /// Asks again for claims to be let go of whose objects are still there.
    pub(super) fn repeat_releases(&mut self, now: Timestamp) {
        let mut due = Vec::new();
        for (claim, release) in &mut self.releasing {
            if now >= release.asked + REPEAT {
                release.asked = now;
                due.push((Arc::clone(claim), release.clone()));
            }
        }
        for (claim, release) in due {
            self.say_release(&claim, release.node, release.on_record);
            self.wake(now + REPEAT);
        }
    }
}

/// What the cloud gave for a claim.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) provider_id: String,
    pub(super) instance_type: Arc<str>,
    pub(super) zone: Arc<str>,
    pub(super) capacity_type: CapacityType,
    pub(super) price: UsdPerHour,
}

/// Settles what a claim that somebody else made leaves open: the cheapest of what is to be had and satisfies it.
fn choose(claim: &mut NodeClaim, types: &[Arc<InstanceType>]) -> Option<()> {
    let given = Requirements::from_labels(&claim.labels);
    let possible = types.iter().filter(|kind| {
        claim.requests.fits(&kind.allocatable())
            && claim.requirements.check_offered(&kind.requirements.intersect(&given)).is_ok()
    });
    let wanted = claim.requirements.intersect(&given);
    let allows = |key: &str, value: &str| wanted.get(key).is_none_or(|set| set.allows(value));
    let offerings = possible.flat_map(|kind| kind.offerings.iter().map(move |offering| (kind, offering)));
    let (kind, offering) = offerings
        .filter(|(_, offering)| {
            offering.available
                && allows(kubernetes::ZONE, &offering.zone)
                && allows(karpenter::CAPACITY_TYPE, offering.capacity_type.as_str())
        })
        .min_by_key(|(kind, offering)| {
            (offering.price, Arc::clone(&kind.name), Arc::clone(&offering.zone))
        })?;
    claim.instance_type = Arc::clone(&kind.name);
    claim.zone = Arc::clone(&offering.zone);
    claim.capacity_type = offering.capacity_type;
    claim.price = offering.price;
    claim.capacity = kind.capacity.clone();
    claim.allocatable = kind.allocatable();
    let mut labels: Labels = settled_labels(kind, &offering.zone, offering.capacity_type);
    labels.extend(std::mem::take(&mut claim.labels));
    claim.labels = labels;
    Some(())
}
