//! Pods of real and made-up sets are provisioned for, a part of them goes, and plan after plan is carried out until none is left.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use assay_core::catalog::InstanceType;
use assay_core::check::check_disruption;
use assay_core::disrupt::{DisruptOptions, PaybackDefaults, carried_out, disrupt};
use assay_core::model::{Pod, PodPhase, Snapshot};
use assay_core::solve::improve::lower_bound;
use assay_core::solve::{SolveOptions, solve};
use assay_shared::labels::kubernetes;
use assay_shared::units::UsdPerHour;
use rand::SeedableRng;
use rand::seq::SliceRandom;

use super::curve::{self, Line};
use super::karpenter::{Cluster, Kind, Outcome, Resident};
use super::{add_node, empty};
use crate::cost::{self, PodSet, Size};

/// Parts of the surviving pods that may move, of a hundred.
const PARTS: [usize; 6] = [2, 5, 10, 25, 50, 100];

/// One set with a part of its pods gone.
struct Case {
    name: String,
    start: Snapshot,
    bound: UsdPerHour,
}

/// Writes tables; gives the files that go with them.
pub(super) fn run(page: &mut String, only: Option<&str>) -> anyhow::Result<Vec<(String, String)>> {
    let Some((sets, types)) = cost::placement_sets()? else {
        writeln!(page, "../shared/data is not there: quality was not measured.")?;
        return Ok(Vec::new());
    };
    writeln!(page, "## Cost at the end of plan after plan\n")?;
    writeln!(
        page,
        "The pod sets of the cost report on the 115 sizes with raw capacity, eastus, on demand: provisioned for by a plan, then 30 % \
         or 60 % of the pods go. Budgets allow everything and any saving will do, as with Karpenter. Both start from the same \
         nodes. *Karpenter's way* is its algorithm, written again for this page: prefixes of a hundred candidates, at most one \
         machine bought, then single nodes. *Within its moves* is plan after plan of Assay that moves no more pods in all than that did \
         (`--max-moves` at what is left of them); *paying back* is plan \
         after plan with Assay's own rule, that a move must pay back within an hour. Moves in percent of the pods that are left.\n"
    )?;
    writeln!(
        page,
        "| pods | gone | left | at least, USD/h | before | Karpenter's way | moved | commands | Assay within its moves | moved | \
         paying back | moved | any saving | moved | plans | s |"
    )?;
    writeln!(page, "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")?;
    let (mut ours, mut theirs, mut within, mut payings, mut dearer) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), 0);
    let mut lines: Vec<Line> = Vec::new();
    for set in sets.iter().filter(|set| only.is_none_or(|only| set.name.contains(only))) {
        for gone in [30, 60] {
            let case = case(set, &types, gone)?;
            let left = case.start.pods.len();
            let karpenter = as_cluster(&case.start, &types).consolidate();
            let (cost, moves, rounds, time) = to_the_end(&case, &options())?;
            let limited = DisruptOptions { max_moves: Some(karpenter.moves), ..options() };
            let (limited, limited_moves, ..) = to_the_end(&case, &limited)?;
            ensure!(limited_moves <= karpenter.moves, "{}: {limited_moves} moves", case.name);
            let paying = DisruptOptions { payback: PaybackDefaults::default(), ..options() };
            let (paid, paid_moves, ..) = to_the_end(&case, &paying)?;
            let ratio = |cost: UsdPerHour| cost.usd() / case.bound.usd();
            ours.push(ratio(cost));
            theirs.push(ratio(karpenter.cost));
            within.push(ratio(limited));
            payings.push(ratio(paid));
            dearer += usize::from(limited > karpenter.cost);
            let line = format!(
                "| {} | {gone} % | {left} | {:.3} | {:.4} | {:.4} | {} % | {} | {:.4} | {} % | {:.4} | {} % | {:.4} | {} % | {rounds} | {:.2} |",
                set.name,
                case.bound.usd(),
                ratio(price_of(&case.start)),
                ratio(karpenter.cost),
                percent(karpenter.moves, left),
                karpenter.commands,
                ratio(limited),
                percent(limited_moves, left),
                ratio(paid),
                percent(paid_moves, left),
                ratio(cost),
                percent(moves, left),
                time.as_secs_f64(),
            );
            eprintln!("{line}");
            writeln!(page, "{line}")?;
            lines.push(curve_of(&case, karpenter)?);
        }
    }
    let mean =
        |list: &[f64]| list.iter().sum::<f64>() / f64::from(u32::try_from(list.len().max(1)).unwrap_or(1));
    writeln!(
        page,
        "\nMean: Karpenter's way {:.4}; Assay {:.4} within as many moves (dearer than Karpenter's way in {dearer} of {} cases), {:.4} where \
         moves pay back, {:.4} where any saving will do.\n",
        mean(&theirs),
        mean(&within),
        ours.len(),
        mean(&payings),
        mean(&ours),
    )?;
    writeln!(page, "## What moves buy\n")?;
    writeln!(
        page,
        "Cost by lower bound of one plan with `--max-moves` at a part of the pods that are left. ![curve](disrupt.svg)\n"
    )?;
    curve::table(page, &PARTS, &lines)?;
    Ok(vec![("disrupt.svg".to_owned(), curve::svg(&lines))])
}

fn percent(part: usize, whole: usize) -> usize {
    part * 100 / whole.max(1)
}

pub(super) fn price_of(snapshot: &Snapshot) -> UsdPerHour {
    let pool = &snapshot.pools[0];
    let prices: HashMap<&str, UsdPerHour> = snapshot
        .instance_types_of(pool)
        .iter()
        .filter_map(|one| Some((&*one.name, one.offerings.first()?.price)))
        .collect();
    let types = snapshot.nodes.iter().filter_map(|node| node.label(kubernetes::INSTANCE_TYPE));
    types.filter_map(|name| prices.get(name).copied()).sum()
}

/// Provisions for a set and takes a part of its pods away.
fn case(set: &PodSet, types: &[InstanceType], gone: usize) -> anyhow::Result<Case> {
    let waiting = cost::snapshot(set, types);
    let plan = solve(&waiting, &SolveOptions::default());
    ensure!(plan.unschedulable.is_empty(), "{}: a pod is left out", set.name);
    let mut start = empty(types.to_vec(), 100);
    let mut target: HashMap<_, Arc<str>> = HashMap::new();
    for (number, claim) in plan.claims.iter().enumerate() {
        let name: Arc<str> = format!("node-{number:05}").into();
        let bought = types.iter().find(|one| one.name == claim.instance_type);
        if let Some(bought) = bought {
            add_node(&mut start, &name, bought, &claim.zone);
        }
        target.extend(claim.pods.iter().map(|pod| (pod.clone(), Arc::clone(&name))));
    }
    let mut pods: Vec<Pod> = waiting.pods;
    let mut random = rand_pcg::Pcg64::seed_from_u64(gone as u64);
    pods.shuffle(&mut random);
    pods.truncate(pods.len() * (100 - gone) / 100);
    let mut sizes: BTreeMap<Size, u64> = BTreeMap::new();
    for mut pod in pods {
        *sizes.entry(Size::of(&pod.spec.requests)).or_default() += 1;
        pod.node = target.get(&pod.id).cloned();
        pod.phase = PodPhase::Running;
        start.pods.push(pod);
    }
    let left = PodSet { name: set.name.clone(), sizes };
    let bound = lower_bound(&cost::problem_of(&left, types), 2 * SolveOptions::default().steps);
    Ok(Case { name: format!("{}, {gone} % gone", set.name), start, bound })
}

/// The same for Karpenter's way. Pods and nodes keep their places.
pub(super) fn as_cluster(snapshot: &Snapshot, types: &[InstanceType]) -> Cluster {
    let amounts = |list: &assay_core::model::ResourceList| [list.cpu.0, list.memory.0, list.pods];
    let kinds = types.iter().map(|one| Kind {
        room: amounts(&one.allocatable()),
        price: one.offerings.first().map_or(UsdPerHour(u64::MAX), |offering| offering.price),
    });
    let mut by_node: HashMap<&str, Vec<Resident>> = HashMap::new();
    for (number, pod) in snapshot.pods.iter().enumerate() {
        let resident = Resident { need: amounts(&pod.spec.requests), number };
        by_node.entry(pod.node.as_deref().unwrap_or_default()).or_default().push(resident);
    }
    let nodes = snapshot.nodes.iter().map(|node| {
        let own = node.label(kubernetes::INSTANCE_TYPE).unwrap_or_default();
        let kind = types.iter().position(|one| *one.name == *own).unwrap_or(0);
        (kind, by_node.remove(&*node.name).unwrap_or_default())
    });
    Cluster { kinds: kinds.collect(), nodes: nodes.collect() }
}

fn options() -> DisruptOptions {
    DisruptOptions { payback: PaybackDefaults::off(), steps: 4_000_000_000, ..DisruptOptions::default() }
}

/// Plan after plan, within as many moves in all where they are limited; what it costs in the end, pods moved, plans and the time they took.
fn to_the_end(case: &Case, options: &DisruptOptions) -> anyhow::Result<(UsdPerHour, usize, usize, Duration)> {
    let mut state = case.start.clone();
    let (mut moves, mut rounds, mut time) = (0, 0, Duration::ZERO);
    loop {
        let started = Instant::now();
        let max_moves = options.max_moves.map(|most| most - moves);
        let plan = disrupt(&state, &DisruptOptions { max_moves, ..options.clone() });
        time += started.elapsed();
        if let Err(violations) = check_disruption(&state, &plan) {
            let first = violations.first().map(ToString::to_string).unwrap_or_default();
            ensure!(false, "{}: the plan breaks a rule: {first}", case.name);
        }
        if plan.commands.is_empty() {
            return Ok((price_of(&state), moves, rounds, time));
        }
        moves += plan.totals.evictions;
        rounds += 1;
        let now = state.now + Duration::from_secs(7_200);
        state = carried_out(&state, &plan, now);
    }
}

fn curve_of(case: &Case, karpenter: Outcome) -> anyhow::Result<Line> {
    let left = case.start.pods.len();
    let mut points = vec![(0.0, price_of(&case.start).usd() / case.bound.usd())];
    for part in PARTS {
        let most = left * part / 100;
        let plan = disrupt(&case.start, &DisruptOptions { max_moves: Some(most), ..options() });
        ensure!(plan.totals.evictions <= most, "{}: {} moves of {most}", case.name, plan.totals.evictions);
        #[allow(clippy::cast_precision_loss)] // percent
        points.push((part as f64, plan.totals.price_after.usd() / case.bound.usd()));
    }
    #[allow(clippy::cast_precision_loss)] // percent
    let theirs = (karpenter.moves as f64 * 100.0 / left as f64, karpenter.cost.usd() / case.bound.usd());
    Ok(Line { name: case.name.clone(), points, theirs })
}
