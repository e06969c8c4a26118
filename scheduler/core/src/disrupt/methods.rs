//! Nodes that go for their own sake: taken back, broken, expired, of wrong hardware, too many, empty, drifted. In this order,
//! which is also that of urgency; what saves money comes after.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_shared::labels::karpenter;

use super::base::Trial;
use super::drift::drift;
use super::plan::{BlockReason, DisruptionReason};
use super::planner::{Decided, Planner, stranded, takes_pods};
use super::price::Refusal;
use super::repair::{broken, count_broken, preempted, too_many_broken};
use crate::model::{Drift, MismatchPolicy, Timestamp, Wait};

/// Work on a cheaper packing of what is bought in a node's place.
const STEPS: u64 = 20_000_000;

impl Planner<'_, '_> {
    /// Nodes that go whatever anybody says: by a deadline of the cloud's, because they are broken, or because of their age.
    /// Budgets are not asked, and count them all the same.
    pub(super) fn forced(&mut self) {
        let mut forced: Vec<(usize, DisruptionReason, String, Option<Timestamp>)> = Vec::new();
        let counts = self.count_broken_nodes();
        for node in self.staying() {
            let candidate = &self.fleet.candidates[node];
            if let Some(deadline) = preempted(candidate.facts) {
                let notice = deadline.since(self.snapshot.now).as_secs();
                let detail = format!("the cloud takes it back in {notice} s");
                forced.push((node, DisruptionReason::Preempted, detail, Some(deadline)));
                continue;
            }
            let due = broken(candidate.facts).filter(|(_, due)| *due <= self.snapshot.now);
            if let Some((what, _)) = due {
                let (sick, total) = counts.get(&candidate.pool.name).copied().unwrap_or_default();
                if !too_many_broken(sick, total) {
                    forced.push((node, DisruptionReason::Unhealthy, what, None));
                    continue;
                }
                let detail = format!("{what}, as are {sick} of {total} nodes of its pool: more than a fifth");
                self.refuse(node, Refusal::new(BlockReason::TooManyUnhealthy, detail));
            }
            let candidate = &self.fleet.candidates[node];
            let age = candidate.facts.expire_after.unwrap_or(candidate.pool.expire_after);
            if let Wait::After(age) = age
                && candidate.claim.created > Timestamp(0)
                && candidate.claim.created + age <= self.snapshot.now
            {
                let detail = format!("older than {} s", age.as_secs());
                forced.push((node, DisruptionReason::Expired, detail, None));
            }
        }
        // The most urgent choose first, and nobody moves to a node that goes as well.
        forced.sort_by_key(|(node, reason, _, deadline)| (*reason, *deadline, *node));
        let nodes: Vec<usize> = forced.iter().map(|(node, ..)| *node).collect();
        self.base.shut(&self.fleet, &nodes);
        for (node, reason, detail, deadline) in forced {
            let trial = self.evaluate(&[node], STEPS);
            self.decide(Decided { deadline, ..Decided::new(reason, detail, trial) });
        }
    }

    /// Broken nodes and all nodes of each pool.
    fn count_broken_nodes(&self) -> BTreeMap<String, (usize, usize)> {
        let facts = &self.snapshot.disruption.nodes;
        let count =
            |nodes: &Vec<_>| (count_broken(nodes.iter().copied(), |node| facts.get(&node.name)), nodes.len());
        self.fleet.managed.iter().map(|(pool, nodes)| ((*pool).to_owned(), count(nodes))).collect()
    }

    /// What forbids that a node goes for its own sake: a limit on draining overrules its pods.
    fn objection(&self, node: usize) -> Option<Refusal> {
        let candidate = &self.fleet.candidates[node];
        if self.takers.contains(&candidate.node.name) {
            return Some(takes_pods());
        }
        let held = candidate.held.clone().filter(|_| !candidate.drains_in_time());
        let (reason, detail) = candidate.ban.clone().or(held)?;
        Some(Refusal::new(reason, detail))
    }

    /// A node goes if budgets, and places for its pods, are there; whether it does.
    fn replace(&mut self, node: usize, reason: DisruptionReason, detail: String) -> bool {
        let refusal = self.objection(node).or_else(|| self.over_budget(&[node], reason)).or_else(|| {
            let candidates = self.candidates(&[node]);
            let drains_in_time = candidates.iter().all(|candidate| candidate.drains_in_time());
            let why = self.evictions.refuses_beside(&candidates).filter(|_| !drains_in_time)?;
            Some(Refusal::new(BlockReason::PodDisruptionBudget, why))
        });
        if let Some(refusal) = refusal {
            self.refuse(node, refusal);
            return false;
        }
        let trial = self.evaluate(&[node], STEPS);
        if let Some(one) = trial.stranded.first() {
            self.refuse(node, stranded(one));
            return false;
        }
        if let Some(name) = self.base.counts_on_unready(&trial) {
            let detail = format!("its pods would have to wait for {name}, which is not ready");
            self.refuse(node, Refusal::new(BlockReason::NoPlaceForPod, detail));
            return false;
        }
        self.decide(Decided::new(reason, detail, trial));
        true
    }

    /// Nodes that are not what was bought, where their pool wants them replaced.
    pub(super) fn wrong_hardware(&mut self) {
        for node in self.staying() {
            let candidate = &self.fleet.candidates[node];
            if let Some(mismatch) = candidate.facts.mismatch.clone()
                && candidate.pool.mismatch_policy == MismatchPolicy::Replace
                && !candidate.is_static
            {
                self.replace(node, DisruptionReason::WrongHardware, mismatch);
            }
        }
    }

    /// Nodes of static pools beyond their number: empty ones first, then those whose pods are cheapest to move, those that
    /// something holds last.
    pub(super) fn scaled_down(&mut self) {
        for one in &self.snapshot.disruption.static_pools {
            let own = |node: &usize| {
                let candidate = &self.fleet.candidates[*node];
                candidate.is_static && candidate.pool.name == one.pool.name
            };
            let mut nodes: Vec<usize> = self.staying().into_iter().filter(own).collect();
            let replicas = usize::try_from(one.replicas).unwrap_or(usize::MAX);
            let over = nodes.len().saturating_sub(replicas);
            let rank = |node: &usize| {
                let candidate = &self.fleet.candidates[*node];
                let holds = candidate.held.is_some() || candidate.ban.is_some();
                (holds, !candidate.is_empty, candidate.disruption)
            };
            nodes.sort_by(|a, b| {
                let ((holds_a, full_a, cost_a), (holds_b, full_b, cost_b)) = (rank(a), rank(b));
                (holds_a, full_a).cmp(&(holds_b, full_b)).then(cost_a.total_cmp(&cost_b)).then(a.cmp(b))
            });
            for node in nodes.into_iter().take(over) {
                if self.takers.contains(&self.fleet.candidates[node].node.name) {
                    self.refuse(node, takes_pods());
                    continue;
                }
                let trial = self.evaluate(&[node], STEPS);
                if let Some(first) = trial.stranded.first() {
                    self.refuse(node, stranded(first));
                    continue;
                }
                let detail = format!("NodePool {} has more than {replicas} nodes", one.pool.name);
                self.decide(Decided::new(DisruptionReason::ScaledDown, detail, trial));
            }
        }
    }

    /// Nodes that nobody needs, those that were quiet longest first: all in one command.
    pub(super) fn empty(&mut self) {
        let is_empty = |node: &usize| {
            let candidate = &self.fleet.candidates[*node];
            candidate.is_empty && !candidate.is_static
        };
        let mut nodes: Vec<usize> = self.staying().into_iter().filter(is_empty).collect();
        nodes.sort_by_key(|node| (self.fleet.candidates[*node].quiet_since(), *node));
        self.give_back(nodes, DisruptionReason::Empty, "nobody needs them", Self::not_consolidatable);
    }

    /// Nodes without pods that go together, as far as budgets allow.
    fn give_back(
        &mut self,
        nodes: Vec<usize>,
        reason: DisruptionReason,
        detail: &str,
        objection: impl Fn(&Self, usize) -> Option<Refusal>,
    ) {
        let mut going: Vec<usize> = Vec::new();
        for node in nodes {
            let refusal = objection(self, node).or_else(|| {
                going.push(node);
                let refusal = self.over_budget(&going, reason);
                if refusal.is_some() {
                    going.pop();
                }
                refusal
            });
            if let Some(refusal) = refusal {
                self.refuse(node, refusal);
            }
        }
        if !going.is_empty() {
            let trial =
                Trial { nodes: going, claims: Vec::new(), existing: Vec::new(), stranded: Vec::new() };
            self.decide(Decided::new(reason, detail.to_owned(), trial));
        }
    }

    /// Nodes that are not what their pool would make now: empty ones together, then of each pool the one that drifted first.
    pub(super) fn drifted(&mut self) {
        let mut drifts: Vec<(Drift, usize)> = Vec::new();
        for node in self.staying() {
            let candidate = &self.fleet.candidates[node];
            if let Some(drift) = drift(self.snapshot, candidate).filter(|_| !candidate.is_static) {
                self.fleet.drifts.insert(Arc::clone(&candidate.node.name), drift.clone());
                drifts.push((drift, node));
            }
        }
        drifts.sort_by(|(one, a), (two, b)| one.since.cmp(&two.since).then(a.cmp(b)));
        let (empty, full): (Vec<_>, Vec<_>) =
            drifts.into_iter().partition(|(_, node)| self.fleet.candidates[*node].is_empty);
        let empty: Vec<usize> = empty.into_iter().map(|(_, node)| node).collect();
        let detail = "not what their pool would make now, and empty";
        self.give_back(empty, DisruptionReason::Drifted, detail, Self::objection);
        let mut served: BTreeSet<String> = BTreeSet::new();
        for (drift, node) in full {
            let pool = self.fleet.candidates[node].pool.name.clone();
            if let Some(refusal) = self.objection(node) {
                self.refuse(node, refusal);
            } else if served.contains(&pool) {
                let detail = format!("{}, and another node of {pool} goes first", drift.reason);
                self.refuse(node, Refusal::new(BlockReason::OneAtATime, detail));
            } else if self.replace(node, DisruptionReason::Drifted, drift.reason) {
                served.insert(pool);
            }
        }
    }

    /// Closes nodes that may take no pods of others from here on: those in their own wait for quiet.
    pub(super) fn close_restless(&mut self) {
        let now = self.snapshot.now;
        let restless = self.snapshot.nodes.iter().filter(|node| {
            let Some(pool) = node.label(karpenter::NODEPOOL) else { return false };
            let pool = self.snapshot.pools.iter().find(|one| one.name == pool);
            let number = self.fleet.candidates.binary_search_by(|one| one.node.name.cmp(&node.name));
            match (pool.map(|pool| pool.disruption.consolidate_after), number) {
                (Some(Wait::After(wait)), Ok(number)) => {
                    !self.gone[number] && self.fleet.candidates[number].quiet_since() + wait > now
                }
                _ => false,
            }
        });
        let restless: Vec<_> = restless.collect();
        self.base.close(restless);
    }
}
