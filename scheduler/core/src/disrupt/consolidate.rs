//! Nodes whose pods can run for less elsewhere: any set of nodes for any cheaper set, or for nothing where others have room.
//!
//! ```text
//!  alone:    each node by itself, what it saves per eviction first     -> its pods elsewhere, or on smaller machines
//!  together: badly used nodes in groups of growing size                -> fewer or cheaper machines
//!  merge:    a node that took pods, with those they came from          -> what neither would do alone
//! ```
//!
//! Each step is kept only if it is worth more than it disrupts, all rules hold, and the base found a place for every pod. All
//! candidates are looked at, whatever their number; `steps` bounds how many groups are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use assay_shared::units::UsdPerHour;

use super::balanced::unbalanced;
use super::base::Trial;
use super::candidate::Candidate;
use super::cost::{payback, savings_ratio};
use super::plan::{BlockReason, DisruptionReason, Payback};
use super::planner::{Decided, Planner, stranded, takes_pods};
use super::price::{Refusal, narrow};
use crate::model::{ConsolidationPolicy, Pod, PodId, ResourceList};

/// Sizes of groups that are looked at together.
const GROUPS: [usize; 9] = [2, 3, 4, 6, 8, 12, 16, 24, 32];
/// Work on a cheaper packing of what is bought for a node by itself, and for each node of a group.
const STEPS_ALONE: u64 = 1_000_000;
const STEPS_EACH: u64 = 2_000_000;
/// The same for a group, at most.
pub(super) const STEPS_TOGETHER: u64 = 40_000_000;
/// Nodes of one command, at most, when commands are merged.
const MERGED_AT_MOST: usize = 24;

pub(super) fn steps_for(nodes: usize) -> u64 {
    STEPS_EACH.saturating_mul(nodes as u64).min(STEPS_TOGETHER)
}

/// Something that could be done, and what it is worth beyond what it costs, in billionths of a dollar.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    pub(super) decided: Decided,
    pub(super) net: i128,
}

impl Planner<'_, '_> {
    /// Looks for everything that saves money.
    pub(super) fn consolidate(&mut self) {
        let mut candidates = Vec::new();
        for node in self.staying() {
            match self.not_underutilized(node) {
                Some(refusal) => {
                    if !self.is_refused(node) {
                        self.refuse(node, refusal);
                    }
                }
                None => candidates.push(node),
            }
        }
        let first = self.decided.len();
        self.search(&candidates);
        if let Some(most) = self.options.max_moves {
            self.within_moves(first, most, &candidates);
        }
    }

    pub(super) fn search(&mut self, candidates: &[usize]) {
        let nodes: Vec<_> = self.staying().into_iter().map(|node| self.fleet.candidates[node].node).collect();
        self.base.pass_over_full(nodes);
        let later = self.alone(candidates);
        self.work = 0;
        self.merge(candidates);
        self.together(candidates, &later);
    }

    /// Why a candidate is none for saving money.
    fn not_underutilized(&self, node: usize) -> Option<Refusal> {
        let candidate = &self.fleet.candidates[node];
        if let Some(refusal) = self.not_consolidatable(node) {
            return Some(refusal);
        }
        if candidate.is_static {
            let detail = "its pool has a fixed number of nodes".to_owned();
            return Some(Refusal::new(BlockReason::ConsolidationPolicy, detail));
        }
        if candidate.pool.disruption.consolidation_policy == ConsolidationPolicy::WhenEmpty {
            let detail = "its pool consolidates empty nodes only".to_owned();
            return Some(Refusal::new(BlockReason::ConsolidationPolicy, detail));
        }
        if candidate.movable.is_empty() {
            // Empty ones were seen to before: pods are about to come back.
            let detail = "a pod of a StatefulSet is about to come back".to_owned();
            return Some(Refusal::new(BlockReason::Nominated, detail));
        }
        if candidate.price.is_none() {
            let detail = "its type is not sold where it runs".to_owned();
            return Some(Refusal::new(BlockReason::UnknownPrice, detail));
        }
        let period = self.options.payback.of(candidate.pool).period;
        let age = self.snapshot.now.since(candidate.claim.created);
        (age < period).then(|| {
            let left = (period - age).as_secs();
            let detail = format!("bought {} s ago: it stays for {left} s more", age.as_secs());
            let fix = "a shorter assay.dev/payback-period on its NodePool".to_owned();
            Refusal { reason: BlockReason::PaybackPeriod, detail, fix: Some(fix) }
        })
    }

    /// Whether nodes may go together and would be worth it.
    pub(super) fn consider(&mut self, nodes: &[usize], steps: u64) -> Result<Proposal, Refusal> {
        if nodes.iter().any(|node| self.takers.contains(&self.fleet.candidates[*node].node.name)) {
            return Err(takes_pods());
        }
        if let Some(refusal) = self.over_budget(nodes, DisruptionReason::Underutilized) {
            return Err(refusal);
        }
        if let Some(why) = self.evictions.refuses_beside(&self.candidates(nodes)) {
            return Err(Refusal::new(BlockReason::PodDisruptionBudget, why));
        }
        if let Some(left) = self.moves_left {
            let moves: usize = nodes.iter().map(|node| self.fleet.candidates[*node].movable.len()).sum();
            if moves > left {
                return Err(too_many_moves(self.options.max_moves.unwrap_or(left)));
            }
        }
        let mut trial = self.evaluate(nodes, steps);
        if let Some(one) = trial.stranded.first() {
            return Err(stranded(one));
        }
        if let Some(name) = self.base.counts_on_unready(&trial) {
            let detail = format!("its pods would have to wait for {name}, which is not ready");
            return Err(Refusal::new(BlockReason::NoPlaceForPod, detail));
        }
        let candidates: Vec<&Candidate<'_>> =
            nodes.iter().map(|node| &self.fleet.candidates[*node]).collect();
        narrow(self.snapshot, &candidates, &mut trial.claims, self.options.spot_to_spot)?;
        let price: UsdPerHour = candidates.iter().filter_map(|candidate| candidate.price).sum();
        let replacements: UsdPerHour = trial.claims.iter().map(|claim| claim.price).sum();
        if replacements >= price {
            let detail = format!("the cheapest replacement costs {replacements}, the nodes {price}");
            return Err(Refusal::new(BlockReason::NoCheaperReplacement, detail));
        }
        if let Some(why) = unbalanced(&self.fleet, &candidates, price, replacements) {
            return Err(Refusal::new(BlockReason::Balanced, why));
        }
        let paid = payback(&candidates, price, replacements, self.options.payback);
        let any_saving_will_do = paid.period_seconds == 0;
        if !any_saving_will_do && paid.worth <= paid.cost() {
            return Err(not_worth_it(price, replacements, &paid));
        }
        let saving = i128::from(price.0) - i128::from(replacements.0);
        let net =
            if any_saving_will_do { saving } else { i128::from(paid.worth.0) - i128::from(paid.cost().0) };
        let names: Vec<&str> = trial.claims.iter().map(|claim| &*claim.instance_type).collect();
        let detail = if names.is_empty() {
            "other nodes have room for its pods".to_owned()
        } else {
            format!("its pods fit on {}", names.join(", "))
        };
        let decided = Decided::new(DisruptionReason::Underutilized, detail, trial);
        Ok(Proposal { decided: Decided { payback: Some(paid), ..decided }, net })
    }

    fn is_spent(&self) -> bool {
        self.work >= self.options.steps
    }

    /// Candidates that neither go nor took pods.
    fn left(&self, candidates: &[usize]) -> Vec<usize> {
        let left = candidates.iter().copied().filter(|node| !self.gone[*node]);
        left.filter(|node| !self.takers.contains(&self.fleet.candidates[*node].node.name)).collect()
    }

    /// Candidates by what they save for each unit of disruption.
    pub(super) fn best_ratio_first(&self, candidates: &[usize]) -> Vec<usize> {
        let ratio = |node: &usize| {
            let candidate = &self.fleet.candidates[*node];
            savings_ratio(candidate.price.unwrap_or_default(), candidate.disruption)
        };
        let mut order = candidates.to_vec();
        order.sort_by(|one, two| ratio(two).total_cmp(&ratio(one)).then(one.cmp(two)));
        order
    }

    /// Each node by itself, as far as nothing needs to be bought; those for which a cheaper machine could be.
    fn alone(&mut self, candidates: &[usize]) -> Vec<usize> {
        let order: Vec<usize> =
            self.best_ratio_first(candidates).into_iter().filter(|node| !self.gone[*node]).collect();
        let mut later: Vec<usize> = Vec::new();
        for node in order {
            if self.takers.contains(&self.fleet.candidates[node].node.name) {
                self.refuse(node, takes_pods());
                continue;
            }
            match self.consider(&[node], 0) {
                Ok(proposal) if proposal.decided.trial.claims.is_empty() => {
                    self.decide(proposal.decided);
                }
                Ok(_) => later.push(node),
                Err(refusal) => self.refuse(node, refusal),
            }
        }
        later
    }

    /// Badly used nodes in groups, the worst first; then one by one those for which a cheaper machine could be bought.
    fn together(&mut self, candidates: &[usize], alone: &[usize]) {
        loop {
            let order = self.worst_first(candidates);
            let found = self.best_group(&order);
            let Some(best) = found else { break };
            self.decide(best.decided);
        }
        for node in self.left(alone) {
            if self.is_spent() {
                self.refuse(node, not_looked_at());
                continue;
            }
            match self.consider(&[node], STEPS_ALONE) {
                Ok(proposal) => self.decide(proposal.decided),
                Err(refusal) => self.refuse(node, refusal),
            }
        }
    }

    /// By how much dearer a node is than what its pods are worth; only those that are dearer at all.
    fn worst_first(&mut self, candidates: &[usize]) -> Vec<usize> {
        let left = self.left(candidates);
        let amounts: Vec<_> = left
            .iter()
            .map(|node| self.fleet.candidates[*node].movable.iter().map(|pod| &pod.spec.requests).sum())
            .collect();
        let worth = self.base.worth(&amounts);
        let waste = |node: usize, worth: f64| {
            let price = self.fleet.candidates[node].price.unwrap_or_default();
            price.usd() - worth / 1e9
        };
        let mut wasted: Vec<(f64, usize)> =
            left.iter().zip(worth).map(|(node, worth)| (waste(*node, worth), *node)).collect();
        wasted.retain(|(waste, _)| *waste > 0.0);
        wasted.sort_by(|(one, a), (two, b)| two.total_cmp(one).then(a.cmp(b)));
        wasted.into_iter().map(|(_, node)| node).collect()
    }

    /// The group of growing size, from the worst on, that is worth most for each node.
    fn best_group(&mut self, order: &[usize]) -> Option<Proposal> {
        let mut best: Option<(i128, Proposal)> = None;
        for size in GROUPS {
            let Some(group) = order.get(..size) else { break };
            if self.is_spent() {
                break;
            }
            if let Ok(proposal) = self.consider(group, steps_for(size)) {
                let proposal = self.without_the_needless(proposal);
                let each = proposal.net;
                if best.as_ref().is_none_or(|(most, _)| each > *most) {
                    best = Some((each, proposal));
                }
            }
        }
        best.map(|(_, proposal)| proposal)
    }

    /// A node of a type that is bought again might have stayed: without it where that is worth no less.
    fn without_the_needless(&mut self, mut proposal: Proposal) -> Proposal {
        loop {
            let nodes = proposal.decided.trial.nodes.clone();
            let bought: BTreeSet<&Arc<str>> =
                proposal.decided.trial.claims.iter().map(|claim| &claim.instance_type).collect();
            let again = nodes.iter().copied().find(|node| {
                let own = self.fleet.candidates[*node].instance_type.map(|one| &one.name);
                own.is_some_and(|own| bought.contains(own))
            });
            let Some(again) = again.filter(|_| nodes.len() > 2 && !self.is_spent()) else { return proposal };
            let rest: Vec<usize> = nodes.iter().copied().filter(|node| *node != again).collect();
            match self.consider(&rest, steps_for(rest.len())) {
                Ok(fewer) if fewer.net >= proposal.net => proposal = fewer,
                _ => return proposal,
            }
        }
    }

    /// Takes nodes that took pods together with those that the pods came from, where that is worth more.
    fn merge(&mut self, candidates: &[usize]) {
        let own: BTreeSet<usize> = candidates.iter().copied().collect();
        let mut takers: BTreeMap<usize, ()> = BTreeMap::new();
        for (name, _) in self.decided.iter().flat_map(|decided| &decided.trial.existing) {
            let found = self.fleet.candidates.binary_search_by(|one| one.node.name.cmp(name));
            if let Ok(number) = found
                && own.contains(&number)
            {
                takers.insert(number, ());
            }
        }
        // Takers first that cost most beyond what all pods on them are worth by now.
        let takers: Vec<usize> = takers.into_keys().collect();
        let mut taken: BTreeMap<&Arc<str>, ResourceList> = BTreeMap::new();
        for (pod, to) in self.sent() {
            *taken.entry(to).or_default() += &pod.spec.requests;
        }
        let amounts: Vec<ResourceList> = takers
            .iter()
            .map(|taker| {
                let candidate = &self.fleet.candidates[*taker];
                let own: ResourceList = candidate.movable.iter().map(|pod| &pod.spec.requests).sum();
                own + &taken.get(&candidate.node.name).cloned().unwrap_or_default()
            })
            .collect();
        let mut gains: Vec<(f64, usize)> = self
            .base
            .worth(&amounts)
            .into_iter()
            .zip(&takers)
            .map(|(worth, taker)| {
                (self.fleet.candidates[*taker].price.unwrap_or_default().usd() - worth / 1e9, *taker)
            })
            .collect();
        gains.sort_by(|(one, a), (two, b)| two.total_cmp(one).then(a.cmp(b)));
        let mut changed = false;
        for (_, taker) in gains {
            // Half of the work is for groups.
            if self.work >= self.options.steps / 2 {
                break;
            }
            changed |= self.merge_into(taker);
        }
        if changed {
            self.replay();
        }
    }

    /// Pods that move to nodes which exist, and where to.
    fn sent(&self) -> Vec<(&Pod, &Arc<str>)> {
        let mut to: HashMap<&PodId, &Arc<str>> = HashMap::new();
        for (name, pods) in self.decided.iter().flat_map(|decided| &decided.trial.existing) {
            to.extend(pods.iter().map(|pod| (pod, name)));
        }
        let gone = self.decided.iter().flat_map(|decided| &decided.trial.nodes);
        let pods = gone.flat_map(|node| &self.fleet.candidates[*node].movable);
        pods.filter_map(|pod| Some((*pod, *to.get(&pod.id)?))).collect()
    }

    fn merge_into(&mut self, taker: usize) -> bool {
        let name = Arc::clone(&self.fleet.candidates[taker].node.name);
        let sends = |decided: &Decided| decided.trial.existing.iter().any(|(to, _)| *to == name);
        let ours = |decided: &Decided| decided.reason == DisruptionReason::Underutilized;
        let all_ours = self.decided.iter().filter(|decided| sends(decided)).all(ours);
        let senders: Vec<usize> =
            (0..self.decided.len()).filter(|index| sends(&self.decided[*index])).collect();
        let mut nodes: Vec<usize> =
            senders.iter().flat_map(|index| self.decided[*index].trial.nodes.clone()).collect();
        nodes.push(taker);
        if self.gone[taker] || senders.is_empty() || !all_ours || nodes.len() > MERGED_AT_MOST {
            return false;
        }
        let mut taken: Vec<(usize, Decided)> = Vec::new();
        for index in senders.into_iter().rev() {
            taken.push((index, self.take_back(index)));
        }
        let before: i128 = taken.iter().map(|(_, decided)| self.net_of(decided)).sum();
        match self.consider(&nodes, steps_for(nodes.len())) {
            Ok(proposal) if proposal.net > before => {
                self.decide(proposal.decided);
                true
            }
            _ => {
                for (index, decided) in taken.into_iter().rev() {
                    self.decide_at(index, decided);
                }
                false
            }
        }
    }

    /// What a decided command is worth beyond what it costs.
    pub(super) fn net_of(&self, decided: &Decided) -> i128 {
        let price =
            self.candidates(&decided.trial.nodes).iter().filter_map(|one| one.price).sum::<UsdPerHour>();
        let bought = decided.trial.claims.iter().map(|claim| claim.price).sum::<UsdPerHour>();
        match decided.payback {
            Some(paid) if paid.period_seconds > 0 => i128::from(paid.worth.0) - i128::from(paid.cost().0),
            _ => i128::from(price.0) - i128::from(bought.0),
        }
    }

    /// Decides on the commands that save money once more, in their order: each was found beside others that are gone since.
    fn replay(&mut self) {
        let ours = |decided: &Decided| decided.reason == DisruptionReason::Underutilized;
        let first = self.decided.iter().position(ours).unwrap_or(self.decided.len());
        let again: Vec<Trial> = self.take_back_from(first).into_iter().map(|decided| decided.trial).collect();
        self.once_more_in_turn(&again);
    }

    /// Decides on commands once more. Those whose turn comes later take no pods of those before.
    pub(super) fn once_more_in_turn(&mut self, trials: &[Trial]) {
        let nodes: Vec<usize> = trials.iter().flat_map(|trial| trial.nodes.iter().copied()).collect();
        self.base.shut(&self.fleet, &nodes);
        for trial in trials {
            self.base.reopen(&self.fleet, &trial.nodes);
            self.once_more(trial);
        }
    }

    fn once_more(&mut self, trial: &Trial) {
        let steps = if trial.claims.is_empty() { 0 } else { steps_for(trial.nodes.len()) };
        match self.consider(&trial.nodes, steps) {
            Ok(proposal) => self.decide(proposal.decided),
            Err(refusal) => {
                for node in &trial.nodes {
                    self.refuse(*node, refusal.clone());
                }
            }
        }
    }

    /// Takes all commands back from one on, the last first; they come in their order.
    pub(super) fn take_back_from(&mut self, first: usize) -> Vec<Decided> {
        let mut taken = Vec::new();
        while self.decided.len() > first {
            taken.push(self.take_back(self.decided.len() - 1));
        }
        taken.reverse();
        taken
    }
}

pub(super) fn too_many_moves(most: usize) -> Refusal {
    Refusal::new(BlockReason::MaxMoves, format!("no more than {most} pods are to move"))
}

fn not_looked_at() -> Refusal {
    let detail = "the work allowed was spent before it was looked at".to_owned();
    Refusal::new(BlockReason::NotLookedAt, detail)
}

fn not_worth_it(price: UsdPerHour, replacements: UsdPerHour, paid: &Payback) -> Refusal {
    let saving = price - replacements;
    let cost = paid.cost();
    let detail = format!(
        "saves {saving}, {} in {} s, and costs {cost}: evictions {}, lost time {}, start-up {}",
        paid.worth, paid.period_seconds, paid.evictions, paid.lost_time, paid.start_up
    );
    let hours = if saving.0 == 0 { f64::INFINITY } else { cost.usd() / saving.usd() };
    let fix = format!("a payback period of more than {:.1} h", hours);
    Refusal { reason: BlockReason::Payback, detail, fix: Some(fix) }
}
