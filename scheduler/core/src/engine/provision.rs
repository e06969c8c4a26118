//! What is bought for pending pods: when the batch is due, and what a plan becomes.

use std::sync::Arc;
use std::time::Duration;

use super::hardware::unverified_taint;
use super::{Effect, Engine, EventKind, Machine};
use crate::lifecycle::{Step, claim_of};
use crate::model::{ClaimState, Plan, PlannedClaim, PodId, Timestamp, Unschedulable};

/// How long a pod may take to be bound to a ready node it was nominated to (Karpenter's window: twice the longest batch).
pub(super) const NOMINATION_WINDOW: Duration = Duration::from_secs(20);

impl Engine {
    /// Drops nominations that the cluster's scheduler did not follow although the node is ready: the pod is planned anew.
    pub(super) fn expire_nominations(&mut self, now: Timestamp) {
        let mut over: Vec<PodId> = Vec::new();
        for (target, pods) in self.nominations.targets() {
            let ready_since = match self.machines.get(target) {
                Some(machine) if machine.claim.state == ClaimState::Initialized => machine.claim.since,
                Some(_) => continue,
                None => Timestamp::default(),
            };
            let late = pods.filter(|(_, at)| now >= (*at).max(ready_since) + NOMINATION_WINDOW);
            // A pod that runs is not bound elsewhere; but the place it waits for may have closed.
            let not_there = late.filter(|(id, _)| {
                self.pods.get(id).is_none_or(|pod| pod.node.is_none()) || !self.place_is_ready(id)
            });
            over.extend(not_there.map(|(id, _)| id.clone()));
        }
        for pod in over {
            self.nominations.remove(&pod);
            self.solve_soon(now);
        }
    }

    /// Notes that there may be something to solve.
    pub(super) fn solve_soon(&mut self, now: Timestamp) {
        let first = self.batch.map_or(now, |(first, _)| first);
        self.batch = Some((first, now));
    }

    /// When the waiting pods are to be solved: after an idle second, after ten at most. A single pod on a cluster where
    /// nothing is on its way does not wait, for nothing would be gained.
    pub(super) fn batch_due(&self) -> Option<Timestamp> {
        let (first, last) = self.batch?;
        let on_the_way = !self.roll.starting.is_empty();
        let waiting = self.picture.waiting();
        if waiting < 2 && !on_the_way {
            return Some(last);
        }
        Some((last + self.settings.batch_idle).min(first + self.settings.batch_max))
    }

    pub(super) fn provision_if_due(&mut self, now: Timestamp) {
        self.follow();
        if self.batch_due().is_none_or(|due| due > now) {
            return;
        }
        self.batch = None;
        if self.picture.waiting() == 0 {
            return;
        }
        let (plan, broken) = self.plan(now);
        self.tell_pools();
        if let Some(first) = broken.first() {
            // A bug of ours must not spend money or break a promise.
            self.stats.plans_refused += 1;
            let message = format!("{} rules broken, first: {first}", broken.len());
            self.record_event("Plan".to_owned(), EventKind::Warning, "PlanRefused", message);
            return;
        }
        self.carry_out(now, plan);
    }

    fn carry_out(&mut self, now: Timestamp, plan: Plan) {
        for assignment in plan.existing {
            for pod in assignment.pods {
                self.nominate(now, pod, &assignment.name);
            }
        }
        for planned in plan.claims {
            self.buy(now, planned);
        }
        self.placeless.clear();
        for left_out in plan.unschedulable {
            self.left_without_place(now, &left_out.pod);
            self.report_unschedulable(left_out);
        }
    }

    /// Notes that a running pod has nowhere else to go. A machine that may as well stay does.
    fn left_without_place(&mut self, now: Timestamp, pod: &PodId) {
        let Some(node) = self.pods.get(pod).and_then(|pod| pod.node.as_ref()) else { return };
        let Some(claim) = self.claim_on(node) else { return };
        self.placeless.insert(pod.clone());
        let stays = |machine: &Machine| {
            !machine.is_ending() && machine.leaving.is_some_and(|reason| !reason.is_forced())
        };
        if self.machines.get(&claim).is_some_and(stays) {
            self.undo(now, &claim, "its pods have nowhere else to go");
        }
    }

    pub(super) fn nominate(&mut self, now: Timestamp, pod: PodId, target: &Arc<str>) {
        let target = &self.claim_on(target).unwrap_or_else(|| Arc::clone(target));
        self.reported.remove(&pod);
        self.nominations.insert(pod.clone(), Arc::clone(target), now);
        self.wake(now + NOMINATION_WINDOW);
        self.effects.push(Effect::NominatePod { pod, target: Arc::clone(target) });
    }

    /// Makes a claim of what was planned and asks for its VM; its name.
    pub(super) fn buy(&mut self, now: Timestamp, planned: PlannedClaim) -> Option<Arc<str>> {
        let pool = self.pools.get(&planned.pool)?;
        let types = self.picture.market().instance_types_of(pool);
        let bought = types.iter().find(|candidate| candidate.name == planned.instance_type)?;
        let bought = Arc::new(bought.clone());
        let class = self.classes.get(&pool.node_class);
        let mut claim = claim_of(&planned, pool, class, &bought, now);
        claim.startup_taints.push(unverified_taint());
        let cheapest = planned.options.iter().map(|option| option.price).chain([planned.price]).min();
        let cheapest = cheapest.unwrap_or(planned.price);
        let name = self.new_name(&planned.pool);
        claim.name = Arc::clone(&name);
        let alternatives = planned.options.iter().filter(|option| option.name != claim.instance_type).take(3);
        let alternatives: Vec<_> =
            alternatives.map(|option| format!("{} {}", option.name, option.price)).collect();
        let message = format!(
            "{} in {} ({}) at {} for {} pods; next best: {}",
            claim.instance_type,
            claim.zone,
            claim.capacity_type,
            claim.price,
            planned.pods.len(),
            if alternatives.is_empty() { "none".to_owned() } else { alternatives.join(", ") }
        );
        if self.profiles.memory_for(&bought.name, self.types.region()).is_some() {
            self.stats.learned_purchases += 1;
        }
        self.record_event(format!("NodeClaim/{name}"), EventKind::Normal, "Launching", message);
        self.effects.push(Effect::CreateInstance { claim: Box::new(claim.clone()) });
        self.stats.bought += 1;
        let mut machine = Machine::new(claim, bought, now);
        machine.cheapest = Some(cheapest);
        self.machines.insert(Arc::clone(&name), machine);
        self.step(now, &name, Step::AskedFor);
        for pod in planned.pods {
            self.nominate(now, pod, &name);
        }
        Some(name)
    }

    /// `<pool>-<five letters>`: a fixed sequence per seed, skipping names that are taken.
    fn new_name(&mut self, pool: &str) -> Arc<str> {
        const LETTERS: &[u8; 32] = b"bcdfghjklmnpqrstvwxz0123456789ae";
        loop {
            self.names_given += 1;
            // SplitMix64 of the sequence number: names do not look alike, and cannot repeat within 2^64.
            let mut mixed = (self.settings.seed ^ self.names_given).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed ^= mixed >> 31;
            let letter = |place: u32| char::from(LETTERS[((mixed >> (5 * place)) & 31) as usize]);
            let name: Arc<str> = format!("{pool}-{}", (0..5).map(letter).collect::<String>()).into();
            let taken = self.machines.contains_key(&name)
                || self.nodes.contains_key(&name)
                || self.releasing.contains_key(&name);
            if !taken {
                return name;
            }
        }
    }

    /// Says why a pod was left out, once per reason.
    fn report_unschedulable(&mut self, left_out: Unschedulable) {
        let reasons = left_out.reasons.iter().map(|reason| match &reason.pool {
            Some(pool) => format!("{pool}: {}", reason.detail),
            None => reason.detail.clone(),
        });
        let message = reasons.collect::<Vec<_>>().join("; ");
        if self.reported.get(&left_out.pod) != Some(&message) {
            let object = format!("Pod/{}", left_out.pod);
            self.record_event(object, EventKind::Warning, "FailedScheduling", message.clone());
            self.reported.insert(left_out.pod, message);
        }
    }
}
