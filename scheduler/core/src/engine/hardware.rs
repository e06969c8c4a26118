//! What a report means: the profile learns, the node's labels are refined, its conditions set, a mismatch acted on.

use std::sync::Arc;
use std::time::Duration;

use assay_shared::HardwareReport;
use assay_shared::labels::{assay, hardware};
use assay_shared::report::GpuState;

use super::{Condition, ConditionStatus, Effect, Engine, EventKind, LeaveReason, ReportTimeoutPolicy};
use crate::model::{ClaimState, Labels, MismatchPolicy, Taint, TaintEffect, Timestamp};
use crate::profile::{self, NETWORK_GRACE, Observation, ProfileKey};

/// Startup taint of every node until its hardware was verified.
#[must_use]
pub(super) fn unverified_taint() -> Taint {
    taint(assay::HARDWARE_UNVERIFIED_TAINT)
}

fn taint(key: &str) -> Taint {
    Taint { key: key.to_owned(), value: String::new(), effect: TaintEffect::NoSchedule }
}

impl Engine {
    /// A node was measured.
    pub(super) fn report(&mut self, now: Timestamp, node: &Arc<str>, report: &Arc<HardwareReport>) {
        let Some(claim) = self.claim_on(node) else {
            if self.nodes.contains_key(node) {
                // A node that is not ours: its labels are refined, nothing else is known about it.
                self.refine_labels(node, report, Labels::new());
            } else {
                // An agent may be faster than the news of its node.
                self.early_reports.insert(Arc::clone(node), Arc::clone(report));
            }
            return;
        };
        let Some(machine) = self.machines.get(&claim) else { return };
        if machine.claim.state == ClaimState::Terminating {
            return;
        }
        let bought = Arc::clone(&machine.bought);
        let vm = report.identity.vm_id.measured().map_or_else(|| node.to_string(), Clone::clone);
        let image = [&report.platform.os_image, &report.platform.kernel_release].map(|fact| fact.measured());
        let image = image.into_iter().flatten().cloned().collect::<Vec<_>>().join(" / ");
        let key = ProfileKey { sku: bought.name.to_string(), region: self.types.region().to_owned(), image };
        let sold = self.types.sold_memory(&bought.name).unwrap_or(bought.capacity.memory);
        let told_before = self.profiles.tells(&key.sku, &key.region);
        let observed = self.profiles.observe(&key, &vm, now, report, &bought, sold);
        if self.profiles.is_full() || told_before != self.profiles.tells(&key.sku, &key.region) {
            self.picture.market_changed();
        }
        match observed {
            Observation::Quarantined(why) => {
                self.stats.quarantined += 1;
                let message = format!("report put aside: {why}");
                self.record_event(format!("Node/{node}"), EventKind::Warning, "ImpossibleReport", message);
                return;
            }
            Observation::Accepted { memory_changed: Some(memory), .. } => {
                self.solve_soon(now);
                let message = format!("{}: memory of a purchase is now {memory}, as measured", bought.name);
                self.record_event(
                    format!("SkuProfile/{}", bought.name),
                    EventKind::Normal,
                    "Learned",
                    message,
                );
            }
            Observation::Accepted { memory_changed: None, changed: true } => self.solve_soon(now),
            Observation::Accepted { .. } => {}
        }
        let Some(machine) = self.machines.get_mut(&claim) else { return };
        machine.report = Some(Arc::clone(report));
        let active = report.network.accelerated_networking.get().is_none_or(|state| state.is_active());
        machine.network_inactive_since =
            if active { None } else { machine.network_inactive_since.or(Some(now)) };
        if !active {
            self.wake(now + NETWORK_GRACE);
        }
        self.judge(now, &claim);
    }

    /// Holds the last report of a machine against its claim and acts on the verdict.
    fn judge(&mut self, now: Timestamp, claim: &Arc<str>) {
        let Some(machine) = self.machines.get_mut(claim) else { return };
        let (Some(report), Some(node)) = (machine.report.clone(), machine.claim.node.clone()) else { return };
        let node = &node;
        let inactive = machine.network_inactive_since.map_or(Duration::ZERO, |since| now.since(since));
        let bought = Arc::clone(&machine.bought);
        // What every machine of the size lacks is no fault of this one, and another would lack it too.
        let mut counted_on = machine.claim.capacity.clone();
        let learned = self.profiles.memory_for(&bought.name, self.types.region());
        counted_on.memory = learned.map_or(counted_on.memory, |learned| learned.min(counted_on.memory));
        let mismatches =
            profile::compare(&report, &bought, &counted_on, &machine.claim.requirements, inactive);
        let fresh = mismatches
            .iter()
            .filter(|found| !machine.mismatches.iter().any(|known| known.kind == found.kind));
        let fresh: Vec<_> = fresh.cloned().collect();
        let recovered = mismatches.is_empty() && !machine.mismatches.is_empty();
        machine.mismatches.clone_from(&mismatches);
        let enough = profile::tells_enough(&report, &bought);
        // Once verified, a count that fails does not undo it: the facts are stale, not wrong.
        let holds = mismatches.is_empty() && (enough || machine.verified);
        let first_time = !std::mem::replace(&mut machine.verified, holds) && holds;

        for condition in profile::conditions(&report, &bought, &mismatches) {
            self.set_condition(claim, node, condition);
        }
        let verdict = if holds { Some("true") } else { (!mismatches.is_empty()).then_some("false") };
        let verified = verdict.map(|verdict| (hardware::VERIFIED.to_owned(), verdict.to_owned()));
        self.refine_labels(node, &report, verified.into_iter().collect());
        if first_time {
            self.untaint(node, &unverified_taint());
        }
        if recovered {
            self.untaint(node, &taint(assay::HARDWARE_MISMATCH_TAINT));
            self.stay(now, claim);
        }
        if fresh.is_empty() {
            return;
        }
        for mismatch in &fresh {
            *self.stats.mismatches.entry(mismatch.kind).or_default() += 1;
            if mismatch.kind.is_health() {
                self.arrived_unhealthy(now, claim);
            }
            let message = format!("bought {}, found {}", mismatch.expected, mismatch.found);
            self.record_event(format!("Node/{node}"), EventKind::Warning, mismatch.kind.as_str(), message);
        }
        let policy = self.mismatch_policy(claim);
        if policy != MismatchPolicy::Label {
            self.taint(node, taint(assay::HARDWARE_MISMATCH_TAINT));
        }
        match policy {
            MismatchPolicy::Replace => match self.machines.get(claim).map(|machine| machine.claim.state) {
                Some(ClaimState::Initialized) => {
                    self.forget_nominations(now, claim);
                    self.disruption.changed_urgently();
                }
                // It never served anybody.
                _ => self.leave(now, claim, LeaveReason::WrongHardware),
            },
            MismatchPolicy::Taint => self.forget_nominations(now, claim),
            // It is kept as it is: what it is now counts as what was bought.
            MismatchPolicy::Label => {
                if let Some(machine) = self.machines.get_mut(claim) {
                    machine.verified = true;
                }
                self.untaint(node, &unverified_taint());
            }
        }
    }

    /// What is done about a machine that is less than bought. One that somebody made by hand is never taken away.
    fn mismatch_policy(&self, claim: &str) -> MismatchPolicy {
        let Some(machine) = self.machines.get(claim) else { return MismatchPolicy::Taint };
        if machine.claim.is_standalone() {
            return MismatchPolicy::Taint;
        }
        self.pools.get(&machine.claim.pool).map_or(MismatchPolicy::Replace, |pool| pool.mismatch_policy)
    }

    /// Judges machines again whose fast path has been off for too long.
    pub(super) fn verify_networks(&mut self, now: Timestamp) {
        self.sort_out();
        let due = self.listed(&self.roll.slow).filter(|(_, machine)| {
            !machine.is_leaving()
                && machine.network_inactive_since.is_some_and(|since| now.since(since) >= NETWORK_GRACE)
        });
        let due: Vec<_> = due.map(|(name, _)| Arc::clone(name)).collect();
        for claim in due {
            self.judge(now, &claim);
        }
    }

    /// Sets the labels of a node that differ from what was measured.
    fn refine_labels(&mut self, node: &Arc<str>, report: &HardwareReport, more: Labels) {
        let Some(known) = self.nodes.get(node) else { return };
        let mut labels = profile::hardware_labels(report);
        labels.extend(profile::sku_label_corrections(report, &known.labels));
        labels.extend(more);
        labels.retain(|key, value| known.labels.get(key) != Some(value));
        self.stats.labels_refined += self.set_labels(node, labels);
    }

    /// Sets the labels that differ from what the node has, and counts them as set.
    pub(super) fn set_labels(&mut self, node: &Arc<str>, mut labels: Labels) -> u64 {
        let Some(known) = self.nodes.get_mut(node) else { return 0 };
        labels.retain(|key, value| known.labels.get(key) != Some(value));
        let changed = labels.len() as u64;
        if changed > 0 {
            known.labels.extend(labels.clone());
            self.effects.push(Effect::LabelNode { node: Arc::clone(node), labels });
        }
        changed
    }

    /// Puts back what was measured where somebody took it off or wrote the catalogue's promise over it.
    pub(super) fn keep_refined_labels(&mut self, claim: &Arc<str>, node: &Arc<str>) {
        let report = self.machines.get(claim).and_then(|machine| machine.report.clone());
        if let Some(report) = report {
            self.refine_labels(node, &report, Labels::new());
        }
    }

    fn set_condition(&mut self, claim: &Arc<str>, node: &Arc<str>, condition: Condition) {
        let Some(machine) = self.machines.get_mut(claim) else { return };
        if machine.conditions.get(condition.condition_type) != Some(&condition) {
            machine.conditions.insert(condition.condition_type, condition.clone());
            self.effects.push(Effect::SetNodeCondition { node: Arc::clone(node), condition });
        }
    }

    /// Remembers that an offering delivered a broken machine, so that the next draws are made elsewhere.
    fn arrived_unhealthy(&mut self, now: Timestamp, claim: &Arc<str>) {
        let Some(machine) = self.machines.get(claim) else { return };
        let (size, zone) = (Arc::clone(&machine.claim.instance_type), Arc::clone(&machine.claim.zone));
        self.profiles.arrived_unhealthy(&size, &zone, now);
        self.picture.market_changed();
        if let Some(until) = self.profiles.avoided_until(&size, &zone, now) {
            self.recoveries.insert(until);
            self.wake(until);
        }
    }

    /// Plans anew once an offering may be tried again that delivered broken machines.
    pub(super) fn retry_recovered(&mut self, now: Timestamp) {
        let later = self.recoveries.split_off(&Timestamp(now.0.saturating_add(1)));
        if !std::mem::replace(&mut self.recoveries, later).is_empty() {
            self.solve_soon(now);
        }
    }

    /// A GPU fell away: the last report less one GPU, until the next one says the same.
    pub(super) fn gpu_lost(&mut self, now: Timestamp, node: &Arc<str>, pci_address: &str, reason: &str) {
        let Some(report) = self.machine_on(node).and_then(|machine| machine.report.clone()) else { return };
        let mut report = HardwareReport::clone(&report);
        let lost = report.gpus.devices.measured_mut().into_iter().flatten().find(|gpu| {
            gpu.state == GpuState::Usable && gpu.pci_address.measured().is_some_and(|at| at == pci_address)
        });
        let Some(lost) = lost else { return };
        lost.state = GpuState::Lost;
        lost.reason = Some(reason.to_owned());
        if let Some(usable) = report.gpus.usable.measured_mut() {
            *usable = usable.saturating_sub(1);
        }
        self.report(now, node, &Arc::new(report));
    }

    /// Nodes that joined and never reported, or never told enough: used unmeasured, or given back, as the settings say.
    pub(super) fn settle_silent(&mut self, now: Timestamp) {
        let limit = self.settings.report_timeout;
        self.sort_out();
        let silent = self.listed(&self.roll.starting).filter(|(_, machine)| {
            machine.claim.state == ClaimState::Registered
                && machine
                    .report
                    .as_ref()
                    .is_none_or(|report| !profile::tells_enough(report, &machine.bought))
                && !machine.verified
                && !machine.is_leaving()
                && now.since(machine.claim.since) >= limit
        });
        let silent =
            silent.filter_map(|(name, machine)| Some((Arc::clone(name), machine.claim.node.clone()?)));
        let silent: Vec<_> = silent.collect();
        for (claim, node) in silent {
            let message = format!("no whole hardware report within {} s", limit.as_secs());
            let object = format!("Node/{node}");
            self.record_event(object, EventKind::Warning, "HardwareReportTimeout", message.clone());
            let standalone = self.machines.get(&claim).is_some_and(|machine| machine.claim.is_standalone());
            if self.settings.report_timeout_policy == ReportTimeoutPolicy::Replace && !standalone {
                self.leave(now, &claim, LeaveReason::Overdue);
                continue;
            }
            let condition = Condition {
                condition_type: "HardwareMatchesClaim",
                status: ConditionStatus::Unknown,
                reason: "ReportTimeout",
                message,
            };
            self.set_condition(&claim, &node, condition);
            if let Some(machine) = self.machines.get_mut(&claim) {
                machine.verified = true;
            }
            self.untaint(&node, &unverified_taint());
        }
    }

    /// An agent went away: its facts grow stale, nothing is taken back.
    pub(super) fn agent_lost(&mut self, node: &Arc<str>) {
        self.early_reports.remove(node);
        let verified = self.nodes.get(node).and_then(|node| node.label(hardware::VERIFIED));
        if verified == Some("true") {
            let labels = Labels::from([(hardware::VERIFIED.to_owned(), "stale".to_owned())]);
            self.set_labels(node, labels);
        }
    }
}
