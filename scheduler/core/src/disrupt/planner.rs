//! The plan as it grows: what is decided so far, which budgets are left, and why the other nodes stay.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_shared::units::UsdPerHour;

use super::DisruptOptions;
use super::base::{Base, Trial};
use super::budget::allowed_disruptions;
use super::candidate::{Candidate, Fleet, Headcount};
use super::eviction::Evictions;
use super::plan::{
    BlockReason, Blocked, Command, DisruptionPlan, DisruptionReason, DisruptionTotals, Move, Payback,
};
use super::price::Refusal;
use crate::model::{BudgetWindow, PodId, Snapshot, Timestamp, Unschedulable, Wait};
use crate::solve::SolveOptions;

/// A plan in the making.
pub(super) struct Planner<'s, 'o> {
    pub(super) snapshot: &'s Snapshot,
    pub(super) options: &'o DisruptOptions,
    pub(super) fleet: Fleet<'s>,
    pub(super) evictions: Evictions<'s>,
    pub(super) base: Base<'s>,
    heads: BTreeMap<&'s str, Headcount>,
    pub(super) decided: Vec<Decided>,
    /// Candidates that go, by number.
    pub(super) gone: Vec<bool>,
    /// Nodes that take pods of others: they stay, for a pod moves once. And by how many commands.
    pub(super) takers: Takers,
    /// Why a candidate stays, as far as somebody asked.
    refusals: BTreeMap<usize, Refusal>,
    /// Elementary steps done.
    pub(super) work: u64,
    /// Pods that may still move to save money, where that is limited.
    pub(super) moves_left: Option<usize>,
}

/// Nodes that take pods, each with the number of commands that send some.
#[derive(Debug, Default)]
pub(super) struct Takers(BTreeMap<Arc<str>, usize>);

impl Takers {
    pub(super) fn contains(&self, node: &Arc<str>) -> bool {
        self.0.contains_key(node)
    }

    fn count(&mut self, trial: &Trial, more: bool) {
        for (name, _) in &trial.existing {
            let senders = self.0.entry(Arc::clone(name)).or_default();
            *senders = if more { *senders + 1 } else { senders.saturating_sub(1) };
            if *senders == 0 {
                self.0.remove(name);
            }
        }
    }
}

/// A command that is decided on, and how it is carried out on the state.
#[derive(Debug, Clone)]
pub(super) struct Decided {
    pub(super) reason: DisruptionReason,
    pub(super) detail: String,
    pub(super) trial: Trial,
    pub(super) payback: Option<Payback>,
    pub(super) deadline: Option<Timestamp>,
}

impl Decided {
    pub(super) fn new(reason: DisruptionReason, detail: String, trial: Trial) -> Self {
        Self { reason, detail, trial, payback: None, deadline: None }
    }

    /// Pods that it moves.
    pub(super) fn moves(&self) -> usize {
        let on_claims: usize = self.trial.claims.iter().map(|claim| claim.pods.len()).sum();
        on_claims + self.trial.existing.iter().map(|(_, pods)| pods.len()).sum::<usize>()
    }
}

impl<'s, 'o> Planner<'s, 'o> {
    pub(super) fn new(snapshot: &'s Snapshot, options: &'o DisruptOptions) -> Self {
        let evictions = Evictions::of(snapshot);
        let mut fleet = Fleet::of(snapshot, &evictions);
        let base = Base::new(snapshot, &fleet, &options.solve);
        for candidate in &mut fleet.candidates {
            if base.expecting.contains(&candidate.node.name) && candidate.ban.is_none() {
                let detail = "pods that wait are expected here".to_owned();
                candidate.ban = Some((BlockReason::Nominated, detail));
            }
        }
        Self {
            snapshot,
            options,
            heads: fleet.heads.clone(),
            gone: vec![false; fleet.candidates.len()],
            takers: Takers::default(),
            fleet,
            evictions,
            base,
            decided: Vec::new(),
            refusals: BTreeMap::new(),
            work: 0,
            moves_left: None,
        }
    }

    pub(super) fn candidates(&self, nodes: &[usize]) -> Vec<&Candidate<'s>> {
        nodes.iter().map(|node| &self.fleet.candidates[*node]).collect()
    }

    /// Numbers of the candidates that do not go yet.
    pub(super) fn staying(&self) -> Vec<usize> {
        (0..self.fleet.candidates.len()).filter(|node| !self.gone[*node]).collect()
    }

    /// How many more nodes of a candidate's pool may go for a reason.
    pub(super) fn budget_left(&self, candidate: &Candidate<'s>, reason: DisruptionReason) -> u64 {
        let pool = candidate.pool;
        let heads = self.heads.get(pool.name.as_str()).copied().unwrap_or_default();
        let budgets = &pool.disruption.budgets;
        allowed_disruptions(budgets, reason.as_str(), self.snapshot.now, heads.total, heads.going)
    }

    /// Why a pool's budgets let these nodes not go together.
    pub(super) fn over_budget(&self, nodes: &[usize], reason: DisruptionReason) -> Option<Refusal> {
        let mut asked: BTreeMap<&str, u64> = BTreeMap::new();
        for node in nodes {
            let candidate = &self.fleet.candidates[*node];
            let count = asked.entry(&candidate.pool.name).or_default();
            *count += 1;
            let left = self.budget_left(candidate, reason);
            if *count <= left {
                continue;
            }
            let budgets = candidate.pool.disruption.budgets.iter();
            let malformed = budgets.clone().find_map(|budget| match &budget.window {
                BudgetWindow::Malformed(why) => Some(why),
                _ => None,
            });
            return Some(match malformed {
                Some(why) => {
                    let detail =
                        format!("a budget of NodePool {} cannot be read: {why}", candidate.pool.name);
                    Refusal::new(BlockReason::MalformedBudget, detail)
                }
                None => {
                    let pool = &candidate.pool.name;
                    let detail =
                        format!("NodePool {pool} lets {left} more nodes go now for {}", reason.as_str());
                    let fix =
                        "a larger budget, or the next plan, once those on their way are gone".to_owned();
                    Refusal { reason: BlockReason::Budget, detail, fix: Some(fix) }
                }
            });
        }
        None
    }

    /// Options for questions: `steps` bounds the search for a cheaper packing of what is bought.
    pub(super) fn asking(&self, steps: u64) -> SolveOptions {
        // Where the packing is not searched for, the first will do.
        let attempts = if steps == 0 { 1 } else { self.options.solve.attempts };
        SolveOptions { steps, attempts, ..self.options.solve.clone() }
    }

    /// Puts a question to the base.
    pub(super) fn evaluate(&mut self, nodes: &[usize], steps: u64) -> Trial {
        let pods: usize = nodes.iter().map(|node| self.fleet.candidates[*node].movable.len()).sum();
        self.work += 20_000 * nodes.len() as u64 + 4_000 * pods as u64 + steps;
        let options = self.asking(steps);
        self.base.evaluate(&self.fleet, nodes, &options)
    }

    /// Decides on a command and carries it out on the base.
    pub(super) fn decide(&mut self, decided: Decided) {
        self.base.commit(&self.fleet, &decided.trial);
        self.count(&decided.trial, true);
        self.decided.push(decided);
    }

    /// The same, as the `index`-th.
    pub(super) fn decide_at(&mut self, index: usize, decided: Decided) {
        self.decide(decided);
        self.decided[index..].rotate_right(1);
    }

    /// Takes a command back.
    pub(super) fn take_back(&mut self, index: usize) -> Decided {
        let decided = self.decided.remove(index);
        self.base.undo(&self.fleet, &decided.trial);
        self.count(&decided.trial, false);
        decided
    }

    fn count(&mut self, trial: &Trial, more: bool) {
        self.takers.count(trial, more);
        let nodes = &trial.nodes;
        for node in nodes {
            self.gone[*node] = more;
            let candidate = &self.fleet.candidates[*node];
            if let Some(heads) =
                self.heads.get_mut(candidate.pool.name.as_str()).filter(|_| candidate.node.ready)
            {
                heads.going = if more { heads.going + 1 } else { heads.going.saturating_sub(1) };
            }
        }
        let candidates: Vec<&Candidate<'s>> =
            nodes.iter().map(|node| &self.fleet.candidates[*node]).collect();
        let moves: usize = candidates.iter().map(|candidate| candidate.movable.len()).sum();
        self.evictions.count(&candidates, more);
        if let Some(left) = &mut self.moves_left {
            *left = if more { left.saturating_sub(moves) } else { *left + moves };
        }
    }

    /// Notes why a candidate stays; the first reason stays, unless a later one is about saving.
    pub(super) fn refuse(&mut self, node: usize, refusal: Refusal) {
        self.refusals.insert(node, refusal);
    }

    pub(super) fn is_refused(&self, node: usize) -> bool {
        self.refusals.contains_key(&node)
    }

    /// Why a candidate may not be consolidated at all now.
    pub(super) fn not_consolidatable(&self, node: usize) -> Option<Refusal> {
        let candidate = &self.fleet.candidates[node];
        if self.takers.contains(&candidate.node.name) {
            return Some(takes_pods());
        }
        if let Some((reason, detail)) = candidate.ban.clone().or_else(|| candidate.held.clone()) {
            return Some(Refusal::new(reason, detail));
        }
        match candidate.pool.disruption.consolidate_after {
            Wait::Never => {
                let detail = "consolidateAfter is Never".to_owned();
                Some(Refusal::new(BlockReason::ConsolidateAfter, detail))
            }
            Wait::After(wait) => {
                let due = candidate.quiet_since() + wait;
                let left = due.since(self.snapshot.now).as_secs_f64().ceil();
                (due > self.snapshot.now).then(|| {
                    let detail = format!("pods came or went: it must be quiet for {left} s more");
                    Refusal::new(BlockReason::ConsolidateAfter, detail)
                })
            }
        }
    }

    /// The finished plan.
    pub(super) fn finish(mut self) -> DisruptionPlan {
        let commands = self.commands();
        let mut totals = DisruptionTotals { price: self.fleet.price, ..DisruptionTotals::default() };
        totals.price_after = totals.price;
        for command in &commands {
            totals.nodes += command.nodes.len();
            totals.replacements += command.replacements.len();
            totals.evictions += command.evictions();
            totals.price_after = totals.price_after - command.price + command.replacement_price;
        }
        let mut blocked = std::mem::take(&mut self.fleet.blocked);
        let explain = self.options.explain;
        for (node, refusal) in std::mem::take(&mut self.refusals) {
            if self.gone[node] || !explain && !refusal.reason.is_a_ban() {
                continue;
            }
            let name = &self.fleet.candidates[node].node.name;
            let Refusal { reason, detail, fix } = refusal;
            blocked.insert(Arc::clone(name), Blocked { node: Arc::clone(name), reason, detail, fix });
        }
        let (assumed, leaving) =
            (std::mem::take(&mut self.base.assumed), std::mem::take(&mut self.fleet.going));
        let drifted = std::mem::take(&mut self.fleet.drifts);
        DisruptionPlan {
            commands,
            blocked: blocked.into_values().collect(),
            assumed,
            leaving,
            drifted,
            totals,
        }
    }

    fn commands(&self) -> Vec<Command> {
        let mut commands: Vec<Command> = Vec::with_capacity(self.decided.len());
        for decided in &self.decided {
            let Trial { nodes, claims, existing, stranded } = &decided.trial;
            let candidates = self.candidates(nodes);
            let mut from: BTreeMap<&PodId, &Arc<str>> = BTreeMap::new();
            for candidate in &candidates {
                from.extend(candidate.movable.iter().map(|pod| (&pod.id, &candidate.node.name)));
            }
            let on_claims = claims.iter().map(|claim| (Arc::from(claim.name.as_str()), &claim.pods));
            let on_existing = existing.iter().map(|(name, pods)| (Arc::clone(name), pods));
            let mut moves: Vec<Move> = Vec::new();
            for (to, pods) in on_existing.chain(on_claims) {
                moves.extend(pods.iter().filter_map(|pod| {
                    let from = Arc::clone(from.get(pod)?);
                    Some(Move { pod: pod.clone(), from, to: Arc::clone(&to) })
                }));
            }
            moves.sort_unstable_by(|one, two| one.pod.cmp(&two.pod));
            let mut names: Vec<Arc<str>> =
                candidates.iter().map(|candidate| Arc::clone(&candidate.node.name)).collect();
            names.sort_unstable();
            commands.push(Command {
                reason: decided.reason,
                detail: decided.detail.clone(),
                nodes: names,
                replacements: claims.clone(),
                moves,
                stranded: stranded.iter().map(|one| one.pod.clone()).collect(),
                price: candidates.iter().filter_map(|candidate| candidate.price).sum(),
                replacement_price: claims.iter().map(|claim| claim.price).sum::<UsdPerHour>(),
                payback: decided.payback,
                deadline: decided.deadline,
            });
        }
        commands
    }
}

/// Why a node stays that takes pods of nodes that go.
pub(super) fn takes_pods() -> Refusal {
    Refusal::new(BlockReason::TakesPods, "pods of nodes that go move to it".to_owned())
}

/// Why a pod has nowhere to go, in a line.
pub(super) fn stranded(one: &Unschedulable) -> Refusal {
    let mut reasons = one.reasons.iter().map(|reason| match &reason.pool {
        Some(pool) => format!("{pool}: {} ({})", reason.reason.as_str(), reason.detail),
        None => format!("{} ({})", reason.reason.as_str(), reason.detail),
    });
    let why = reasons.next().unwrap_or_default();
    let more = if one.reasons.len() > 1 { ", …" } else { "" };
    let fix = one.reasons.iter().find_map(|reason| reason.fix.clone());
    let detail = format!("pod {} has nowhere else to go: {why}{more}", one.pod);
    Refusal { reason: BlockReason::NoPlaceForPod, detail, fix }
}
