//! A day on which pods come and go: what consolidation saves, and what it moves for that, by rule.
//!
//! The same pods come and go in every run, and the same plans buy what they need; only the rule by which nodes go differs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use assay_core::catalog::InstanceType;
use assay_core::check::check_disruption;
use assay_core::disrupt::{DisruptOptions, PaybackDefaults, carried_out, disrupt};
use assay_core::model::{Pod, PodPhase, Snapshot};
use assay_core::solve::{SolveOptions, solve};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::quality::{as_cluster, price_of};
use super::{add_node, empty};
use crate::cost::{self, PodSet};

const STEP: Duration = Duration::from_secs(300);
const STEPS: usize = 288;
/// Mean life of a pod.
const LIFE: f64 = 36.0;
/// Nodes that may go in a step, of a hundred, by Karpenter's default budget.
const BUDGET: u32 = 10;

/// By which rule nodes go.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// No node with pods goes.
    Empty,
    /// Karpenter's way.
    Karpenter,
    /// Assay's plans, where any saving will do.
    AnySaving,
    /// Assay's plans, where moves must pay back.
    Payback,
}

impl Rule {
    const ALL: [Self; 4] = [Self::Empty, Self::Karpenter, Self::AnySaving, Self::Payback];

    const fn name(self) -> &'static str {
        match self {
            Self::Empty => "only empty nodes go",
            Self::Karpenter => "Karpenter's way",
            Self::AnySaving => "Assay, any saving",
            Self::Payback => "Assay, moves pay back",
        }
    }
}

/// A pod, from step to step.
struct Visit {
    pod: Pod,
    from: usize,
    to: usize,
}

/// What a day came to.
#[derive(Debug, Default)]
struct Day {
    /// In dollars, with what replacements cost until they take over.
    cost: f64,
    /// Of that, for replacements that are not ready yet.
    start_up: f64,
    evictions: usize,
    bought: usize,
    replaced: usize,
    largest: usize,
}

pub(super) fn run(page: &mut String) -> anyhow::Result<()> {
    let Some((sets, types)) = cost::placement_sets()? else { return Ok(()) };
    writeln!(page, "\n## A day of churn\n")?;
    writeln!(
        page,
        "Pods come and go for a day in steps of five minutes: each stays three hours in the mean, and their number follows the time of \
         day between 0.6 and 1.4 times that of the set. Every run sees the same pods and buys by the same plans; a tenth of the nodes may \
         go in each step. A replacement is paid for three minutes before the pods move. *Evictions*: pods moved, of those that came.\n"
    )?;
    writeln!(
        page,
        "| pods | rule | USD a day | of them start-up | evictions | of pods that came | nodes bought | of them replacements | most nodes |"
    )?;
    writeln!(page, "|---|---|--:|--:|--:|--:|--:|--:|--:|")?;
    // Clusters of some dozens of nodes: a day of the largest sets would take long.
    for set in sets.iter().filter(|set| set.sizes.values().sum::<u64>() <= 1_500) {
        let visits = visits(set, &types);
        for rule in Rule::ALL {
            let day = simulate(&visits, &types, rule)?;
            let line = format!(
                "| {} | {} | {:.2} | {:.2} | {} | {} % | {} | {} | {} |",
                set.name,
                rule.name(),
                day.cost,
                day.start_up,
                day.evictions,
                day.evictions * 100 / visits.len().max(1),
                day.bought,
                day.replaced,
                day.largest,
            );
            eprintln!("{line}");
            writeln!(page, "{line}")?;
        }
    }
    Ok(())
}

/// Pods of a set over a day.
fn visits(set: &PodSet, types: &[InstanceType]) -> Vec<Visit> {
    let mut random = Pcg64::seed_from_u64(1);
    let drawn = cost::snapshot(set, types).pods;
    let (mut visits, mut staying): (Vec<Visit>, BTreeSet<usize>) = (Vec::new(), BTreeSet::new());
    for step in 0..STEPS {
        staying.retain(|visit| visits[*visit].to > step);
        // Some hundreds, never below zero.
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let wanted = {
            let angle = step as f64 / STEPS as f64 * std::f64::consts::TAU;
            (drawn.len() as f64 * (1.0 + 0.4 * angle.sin())) as usize
        };
        while staying.len() < wanted {
            let number = visits.len();
            let kind = &drawn[random.random_range(0..drawn.len())];
            let mut pod = kind.clone();
            pod.id.name = format!("pod-{number:06}").into();
            let life = -LIFE * (1.0 - random.random::<f64>()).ln();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // some hundreds
            let to = step + 1 + life as usize;
            staying.insert(number);
            visits.push(Visit { pod, from: step, to });
        }
    }
    visits
}

fn simulate(visits: &[Visit], types: &[InstanceType], rule: Rule) -> anyhow::Result<Day> {
    let mut state = empty(types.to_vec(), BUDGET);
    let (mut day, mut named) = (Day::default(), 0);
    let hours = STEP.as_secs_f64() / 3600.0;
    let paid = PaybackDefaults::default();
    for step in 0..STEPS {
        state.now = state.now + STEP;
        let gone: BTreeSet<_> =
            visits.iter().filter(|visit| visit.to == step).map(|visit| &visit.pod.id).collect();
        state.pods.retain(|pod| !gone.contains(&pod.id));
        state.pods.extend(visits.iter().filter(|visit| visit.from == step).map(|visit| visit.pod.clone()));
        day.bought += provision(&mut state, types, &mut named)?;
        let (evictions, replacements) = match rule {
            Rule::Empty => drop_empty(&mut state),
            Rule::Karpenter => theirs(&mut state, types, &mut named),
            Rule::AnySaving => ours(&mut state, PaybackDefaults::off())?,
            Rule::Payback => ours(&mut state, paid)?,
        };
        day.evictions += evictions;
        day.replaced += replacements.len();
        day.bought += replacements.len();
        day.start_up += replacements.iter().sum::<f64>() * paid.start_up.as_secs_f64() / 3600.0;
        day.largest = day.largest.max(state.nodes.len());
        day.cost += price_of(&state).usd() * hours;
    }
    day.cost += day.start_up;
    Ok(day)
}

/// Buys for pods that wait; how many nodes.
fn provision(state: &mut Snapshot, types: &[InstanceType], named: &mut usize) -> anyhow::Result<usize> {
    let plan = solve(state, &SolveOptions { steps: 20_000_000, ..SolveOptions::default() });
    ensure!(plan.unschedulable.is_empty(), "a pod is left out");
    let mut to: Vec<(Vec<_>, Arc<str>)> = plan.existing.into_iter().map(|one| (one.pods, one.name)).collect();
    for claim in &plan.claims {
        if let Some(bought) = types.iter().find(|one| one.name == claim.instance_type) {
            to.push((claim.pods.clone(), join(state, bought, &claim.zone, named)));
        }
    }
    let to: std::collections::HashMap<_, _> = to
        .into_iter()
        .flat_map(|(pods, node)| pods.into_iter().map(move |pod| (pod, Arc::clone(&node))))
        .collect();
    for pod in state.pods.iter_mut().filter(|pod| pod.node.is_none()) {
        pod.node = to.get(&pod.id).cloned();
        pod.phase = PodPhase::Running;
    }
    Ok(plan.claims.len())
}

/// A node that is bought now.
fn join(state: &mut Snapshot, bought: &InstanceType, zone: &str, named: &mut usize) -> Arc<str> {
    *named += 1;
    let name: Arc<str> = format!("day-{named:05}").into();
    add_node(state, &name, bought, zone);
    let now = state.now;
    if let (Some(node), Some(claim)) = (state.nodes.last_mut(), state.node_claims.last_mut()) {
        node.created = now;
        (claim.created, claim.since) = (now, now);
    }
    name
}

fn remove(state: &mut Snapshot, gone: &BTreeSet<Arc<str>>) {
    state.nodes.retain(|node| !gone.contains(&node.name));
    state.node_claims.retain(|claim| claim.node.as_ref().is_none_or(|node| !gone.contains(node)));
}

fn drop_empty(state: &mut Snapshot) -> (usize, Vec<f64>) {
    let used: BTreeSet<Arc<str>> = state.pods.iter().filter_map(|pod| pod.node.clone()).collect();
    let most = (state.nodes.len() * BUDGET as usize).div_ceil(100);
    let free = state.nodes.iter().map(|node| Arc::clone(&node.name)).filter(|node| !used.contains(node));
    let gone: BTreeSet<Arc<str>> = free.take(most).collect();
    remove(state, &gone);
    (0, Vec::new())
}

/// Empty nodes, then command after command, as far as the budget goes.
fn theirs(state: &mut Snapshot, types: &[InstanceType], named: &mut usize) -> (usize, Vec<f64>) {
    let most = (state.nodes.len() * BUDGET as usize).div_ceil(100);
    let before = state.nodes.len();
    let _ = drop_empty(state);
    let (mut left, mut evictions, mut replacements) = (most - (before - state.nodes.len()), 0, Vec::new());
    while let Some((nodes, simulation)) = as_cluster(state, types).command(left) {
        left -= nodes.len();
        let names: Vec<Arc<str>> = state.nodes.iter().map(|node| Arc::clone(&node.name)).collect();
        let gone: BTreeSet<Arc<str>> = nodes.iter().map(|node| Arc::clone(&names[*node])).collect();
        evictions +=
            state.pods.iter().filter(|pod| pod.node.as_ref().is_some_and(|node| gone.contains(node))).count();
        for (node, resident) in &simulation.placed {
            state.pods[resident.number].node = Some(Arc::clone(&names[*node]));
        }
        if let Some((kind, residents)) = simulation.bought {
            let bought = &types[kind];
            let zone = bought.offerings.first().map_or_else(|| Arc::from(""), |one| Arc::clone(&one.zone));
            let name = join(state, bought, &zone, named);
            replacements.push(bought.offerings.first().map_or(0.0, |one| one.price.usd()));
            for resident in residents {
                state.pods[resident.number].node = Some(Arc::clone(&name));
            }
        }
        remove(state, &gone);
    }
    (evictions, replacements)
}

fn ours(state: &mut Snapshot, payback: PaybackDefaults) -> anyhow::Result<(usize, Vec<f64>)> {
    let plan = disrupt(state, &DisruptOptions { payback, ..DisruptOptions::default() });
    if let Err(violations) = check_disruption(state, &plan) {
        let first = violations.first().map(ToString::to_string).unwrap_or_default();
        ensure!(false, "the plan breaks a rule: {first}");
    }
    let bought = plan.commands.iter().flat_map(|command| &command.replacements);
    let replacements = bought.map(|claim| claim.price.usd()).collect();
    let now = state.now;
    *state = carried_out(state, &plan, now);
    Ok((plan.totals.evictions, replacements))
}
