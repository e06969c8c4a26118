//! From the linear program to whole bins: diving, and emptying some bins to pack them again.

use std::sync::Arc;

use assay_shared::units::UsdPerHour;
use rustc_hash::FxHashSet;

use super::bound;
use super::equal;
use super::fill::{Ask, Depth, Filler};
use super::generate::{Effort, Ended, Program, Scope, Steadied, hash, resource_worth};
use super::master::Outcome;
use super::mix::{self, Mixed};
use super::model::{Model, Pattern, real, small};

pub(super) type Packing = Vec<(Arc<Pattern>, u64)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Search<'m> {
    model: &'m Model,
    filler: Filler<'m>,
    /// Patterns worth remembering, oldest first.
    pool: Vec<Arc<Pattern>>,
    known: FxHashSet<u64>,
    random: Random,
    /// Work left; below zero when used up.
    budget: i64,
    pub(super) best: Packing,
    pub(super) best_cost: u64,
    /// No packing costs less.
    pub(super) lower_bound: UsdPerHour,
    pub(super) work: u64,
}

/// Small and fast, the same on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or(0)
    }

    /// In `[0, 1)`.
    fn unit(&mut self) -> f64 {
        real(self.next() >> 11) / real(1 << 53)
    }
}

/// Between two steps of a dive.
const DIVE: Effort = Effort {
    rounds: 4,
    nodes: 200,
    nodes_at_most: 200,
    work: 0,
    kinds: usize::MAX,
    columns: 40,
    steadied: Steadied::No,
};
const POOL_AT_MOST: usize = 20_000;
/// Rows of one linear program, at most.
const ROWS_AT_MOST: usize = 320;
/// A packing within one part in so many of the lower bound is not worth more work.
const CLOSE_ENOUGH: u64 = 2_000;
/// Choices of bins that are completed.
const MIXES: usize = 4;
/// Kinds of items in the bins that are emptied together, more or less.
const NEIGHBOURHOOD_ROWS: usize = 120;

impl<'m> Search<'m> {
    pub(super) fn new(model: &'m Model, start: Packing, budget: u64) -> Self {
        let best_cost = if start.is_empty() { u64::MAX } else { model.cost(&start) };
        let mut search = Self {
            model,
            filler: Filler::new(model),
            pool: Vec::new(),
            known: FxHashSet::default(),
            random: Random(0),
            budget: i64::try_from(budget).unwrap_or(i64::MAX),
            best: start,
            best_cost,
            lower_bound: UsdPerHour::ZERO,
            work: 0,
        };
        let patterns = search.best.iter().map(|(pattern, _)| Arc::clone(pattern)).collect();
        search.remember(patterns);
        search
    }

    fn remember(&mut self, patterns: Vec<Arc<Pattern>>) {
        for pattern in patterns {
            if self.pool.len() < POOL_AT_MOST && self.known.insert(hash(&pattern)) {
                self.pool.push(pattern);
            }
        }
    }

    fn pay(&mut self, work: u64) {
        self.work += work;
        self.budget -= i64::try_from(work).unwrap_or(i64::MAX);
    }

    fn pay_filler(&mut self) {
        let work = std::mem::take(&mut self.filler.work);
        self.pay(work);
    }

    fn done(&self) -> bool {
        self.budget <= 0 || self.best_cost - self.best_cost / CLOSE_ENOUGH <= self.lower_bound.0
    }

    /// Only the lower bound.
    pub(super) fn bound(&mut self) {
        let scope = self.everything();
        if scope.items.is_empty() {
            return;
        }
        self.lower_bound = UsdPerHour(self.resource_bound(&scope));
        if scope.items.len() <= ROWS_AT_MOST && self.budget > 0 {
            self.root(&scope);
        }
    }

    pub(super) fn run(&mut self) {
        let scope = self.everything();
        if scope.items.is_empty() {
            self.best.clear();
            return;
        }
        if let Some((packing, work)) = equal::packing(self.model) {
            self.pay(work);
            let cost = self.model.cost(&packing);
            let bins = |packing: &Packing| packing.iter().map(|(_, times)| *times).sum::<u64>();
            if cost < self.best_cost || cost == self.best_cost && bins(&packing) < bins(&self.best) {
                self.best_cost = cost;
                self.best = packing;
                self.merge();
            }
            self.lower_bound = UsdPerHour(self.best_cost);
            return;
        }
        self.lower_bound = UsdPerHour(self.resource_bound(&scope).min(self.best_cost));
        if self.best.is_empty()
            && let Some(packing) = self.greedy(&scope)
        {
            self.remember(packing.iter().map(|(pattern, _)| Arc::clone(pattern)).collect());
            self.take(packing);
        }
        self.mix(&scope);
        let program =
            if scope.items.len() <= ROWS_AT_MOST && self.budget > 0 { self.root(&scope) } else { None };
        for attempt in 0..6 {
            let Some(program) = program.as_ref().filter(|_| !self.done()) else { break };
            let cutoff = self.best_cost.saturating_sub(self.model.price_step);
            if let Some(packing) = self.dive(program.clone(), scope.clone(), cutoff, attempt > 0) {
                self.take(packing);
            }
        }
        self.neighbourhoods();
    }

    /// Bins chosen for the sum of all items, and what does not go into them packed besides.
    fn mix(&mut self, scope: &Scope) {
        let (mut found, work) = mix::packings(self.model, scope);
        self.pay(work);
        found.sort_by(|a, b| a.estimate.total_cmp(&b.estimate));
        // Packing what is left of one takes about as long as packing everything did.
        found.truncate(MIXES);
        for Mixed { mut packing, left, estimate } in found {
            if self.done() || estimate * 1e9 >= real(self.best_cost) {
                continue;
            }
            if left.iter().any(|left| *left > 0) {
                let rest = Scope::new(left, scope.most.clone());
                let Some(more) = self.greedy(&rest) else { continue };
                packing.extend(more);
            }
            let packing = self.trim(packing);
            if self.model.cost(&packing) < self.best_cost {
                self.remember(packing.iter().map(|(pattern, _)| Arc::clone(pattern)).collect());
                self.take(packing);
            }
        }
        self.merge();
    }

    /// Bin after bin, each filled with what is worth most for its price. `None` where something fits nowhere.
    fn greedy(&mut self, scope: &Scope) -> Option<Packing> {
        let model = self.model;
        let mut scope = scope.clone();
        let mut packing = Packing::new();
        let mut items = scope.items.clone();
        let worth = resource_worth(model, &items, &scope.left);
        // Worth nothing would be left out.
        let least = worth.iter().copied().fold(0.0, f64::max) * 1e-6;
        let worth: Vec<f64> = worth.into_iter().map(|worth| worth.max(least).max(1e-9)).collect();
        let mut ratio = vec![f64::INFINITY; model.kinds.len()];
        loop {
            items.retain(|item| scope.left[*item as usize] > 0);
            if items.is_empty() {
                return Some(self.trim(packing));
            }
            let mut order: Vec<usize> =
                (0..model.kinds.len()).filter(|kind| scope.most[*kind] != Some(0)).collect();
            order.sort_by(|a, b| ratio[*b].total_cmp(&ratio[*a]).then(a.cmp(b)));
            let mut best: Option<(f64, Pattern)> = None;
            for kind in order {
                // What a kind gives for its price only falls as items go.
                if best.as_ref().is_some_and(|(most, _)| ratio[kind] <= *most) {
                    break;
                }
                let price = model.kinds[kind].price.max(1e-9);
                let ask = Ask {
                    kind,
                    items: &items,
                    worth: &worth,
                    left: &scope.left,
                    above: 0.0,
                    nodes: 60,
                    depth: Depth::Rest,
                };
                let filling = self.filler.best(&ask).0.pop();
                self.pay_filler();
                ratio[kind] = filling.as_ref().map_or(0.0, |(worth, _)| worth / price);
                let better = filling.filter(|_| best.as_ref().is_none_or(|(most, _)| ratio[kind] > *most));
                best = better.map(|(_, items)| (ratio[kind], Pattern { kind: small(kind), items })).or(best);
            }
            let (_, pattern) = best?;
            let repeats =
                pattern.items.iter().map(|(item, count)| scope.left[*item as usize] / u64::from(*count));
            let times = repeats.min().unwrap_or(0).min(scope.most[pattern.kind as usize].unwrap_or(u64::MAX));
            fix(&mut scope, &pattern, times);
            packing.push((Arc::new(pattern), times));
        }
    }

    fn everything(&self) -> Scope {
        let most = self.model.kinds.iter().map(|kind| kind.most).collect();
        Scope::new(self.model.count.clone(), most)
    }

    /// What resources alone cost: the relaxation of one bin is all it takes, for any number of items.
    fn resource_bound(&mut self, scope: &Scope) -> u64 {
        let model = self.model;
        let limits = vec![0.0; model.kinds.len()];
        let worth = resource_worth(model, &scope.items, &scope.left);
        let (bound, _) = bound::certified(model, scope, &mut self.filler, &worth, &limits, 0);
        self.pay_filler();
        bound
    }

    /// The linear program of everything, and the lower bound.
    fn root(&mut self, scope: &Scope) -> Option<Program> {
        let model = self.model;
        let mut program = Program::new(model, scope, &mut self.filler);
        for (pattern, _) in &self.best {
            program.add(model, pattern);
        }
        let mut new = Vec::new();
        let work = u64::try_from(self.budget / 5 * 2).unwrap_or(0);
        let reserve = self.budget / 2;
        let effort = Effort {
            rounds: 500,
            nodes: 1_000,
            nodes_at_most: 8_000,
            work,
            kinds: usize::MAX,
            columns: scope.items.len() / 3 + 12,
            steadied: Steadied::Yes,
        };
        let ended = program.generate(model, scope, &mut self.filler, effort, &mut new);
        self.pay_program(&mut program);
        self.remember(new);
        if ended == Ended::Failed {
            return None;
        }
        let mut bound = self.resource_bound(scope);
        for _ in 0..12 {
            let worth = program.worth(model);
            let limits = program.limit_prices();
            // A node is some hundred steps.
            let nodes = u64::try_from(self.budget / 400).unwrap_or(0) / model.kinds.len().max(1) as u64;
            let nodes = nodes.min(500_000);
            let (found, better) = bound::certified(model, scope, &mut self.filler, &worth, &limits, nodes);
            bound = bound.max(found);
            let centre = program.centre();
            if !centre.is_empty()
                && bound < bound::rounded_up(model, program.master.objective() * (1.0 - 1e-5))
            {
                let (found, _) = bound::certified(model, scope, &mut self.filler, centre, &limits, nodes);
                bound = bound.max(found);
            }
            let better: Vec<Arc<Pattern>> = better.into_iter().map(Arc::new).collect();
            self.pay_filler();
            let added = better.iter().filter(|pattern| program.add(model, pattern)).count();
            if added == 0
                || self.budget < reserve
                || bound >= bound::rounded_up(model, program.master.objective() * (1.0 - 1e-7))
            {
                break;
            }
            self.remember(better);
            let mut new = Vec::new();
            let effort =
                Effort { rounds: 50, nodes_at_most: 1_000, work: work / 4, steadied: Steadied::No, ..effort };
            if program.generate(model, scope, &mut self.filler, effort, &mut new) == Ended::Failed {
                return None;
            }
            self.remember(new);
            self.pay_program(&mut program);
        }
        self.lower_bound = UsdPerHour(bound.min(self.best_cost));
        Some(program)
    }

    fn pay_program(&mut self, program: &mut Program) {
        let work = std::mem::take(&mut program.master.work);
        self.pay(work);
        self.pay_filler();
    }

    fn take(&mut self, packing: Packing) {
        let cost = self.model.cost(&packing);
        if cost < self.best_cost {
            self.best_cost = cost;
            self.best = packing;
        }
    }

    /// Fixes patterns one after another, solving again in between, until everything in scope is packed. `None` where that would
    /// cost more than `cutoff`.
    fn dive(&mut self, mut program: Program, mut scope: Scope, cutoff: u64, vary: bool) -> Option<Packing> {
        let bins: f64 = program.solution().map(|(_, value)| value).sum();
        let distinct = real(program.patterns.len() as u64).min(bins).max(1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of the budget
        let work = (real(u64::try_from(self.budget).unwrap_or(0)) / 16.0 / distinct) as u64;
        let effort = Effort { work, ..DIVE };
        let model = self.model;
        let mut packing: Packing = Vec::new();
        let mut cost = 0u64;
        let cutoff_dollars = real(cutoff) / 1e9 + 1e-7;
        program.forget((cutoff_dollars - program.master.objective()).max(0.0) + 1e-6);
        loop {
            if scope.left.iter().all(|left| *left == 0) {
                let packing = self.trim(packing);
                return (model.cost(&packing) <= cutoff).then_some(packing);
            }
            if self.budget <= 0 {
                return None;
            }
            if real(cost) / 1e9 + program.master.objective() > cutoff_dollars {
                return None;
            }
            let mut solution: Vec<(usize, f64)> = program.solution().collect();
            solution.sort_unstable_by_key(|(column, _)| *column);
            let mut fixed = false;
            // Whole parts first.
            for (column, value) in &solution {
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count of bins
                let mut whole = (value + 1e-4).floor() as u64;
                if vary && whole > 0 && self.random.unit() < 0.2 {
                    whole -= 1;
                }
                let Some(pattern) = &program.patterns[*column] else { return None };
                let repeat = pattern
                    .items
                    .iter()
                    .map(|(item, count)| scope.left[*item as usize] / u64::from(*count))
                    .min()
                    .unwrap_or(0);
                let kind = pattern.kind as usize;
                let times = whole.min(repeat).min(scope.most[kind].unwrap_or(u64::MAX));
                if times > 0 {
                    fix(&mut scope, pattern, times);
                    cost = cost.saturating_add(model.kinds[kind].nano.saturating_mul(times));
                    packing.push((Arc::clone(pattern), times));
                    fixed = true;
                }
            }
            if !fixed {
                let mut order: Vec<(f64, Arc<Pattern>)> = Vec::new();
                for (column, value) in &solution {
                    let Some(pattern) = &program.patterns[*column] else { return None };
                    if scope.most[pattern.kind as usize] == Some(0) {
                        continue;
                    }
                    let items = clipped(&scope, pattern);
                    if items.is_empty() {
                        continue;
                    }
                    let whole = items == pattern.items;
                    let fraction = value - value.floor();
                    let mut score = if whole { fraction } else { 0.5 * fraction };
                    if vary {
                        score *= 0.7 + 0.3 * self.random.unit();
                    }
                    order.push((
                        score,
                        if whole {
                            Arc::clone(pattern)
                        } else {
                            Arc::new(Pattern { kind: pattern.kind, items })
                        },
                    ));
                }
                order.sort_by(|a, b| b.0.total_cmp(&a.0));
                let many = (solution.len() / 24).max(1);
                let mut count = 0;
                for (score, pattern) in order {
                    if count > 0 && (count >= many || score < 0.6 || !covers(&scope, &pattern)) {
                        break;
                    }
                    fix(&mut scope, &pattern, 1);
                    cost = cost.saturating_add(model.kinds[pattern.kind as usize].nano);
                    packing.push((pattern, 1));
                    count += 1;
                }
                if count == 0 {
                    return None;
                }
            }
            if scope.left.iter().all(|left| *left == 0) {
                continue;
            }
            let (active, rows) = program.active(&scope);
            let part = |pattern: &Arc<Pattern>| {
                let left = |item: u32| scope.left[item as usize];
                pattern.items.iter().any(|(item, count)| left(*item) > 0 && left(*item) < u64::from(*count))
            };
            let part =
                solution.iter().any(|(column, _)| program.patterns[*column].as_ref().is_some_and(part));
            if part || (rows > 24 && active * 10 < rows * 7) {
                program = self.again(&program, &scope)?;
                continue;
            }
            let demand = program.demand(&scope);
            let mut outcome = program.master.set_demand(&demand);
            if outcome == Outcome::Optimal {
                let mut new = Vec::new();
                let ended = program.generate(model, &scope, &mut self.filler, effort, &mut new);
                self.remember(new);
                if ended == Ended::Failed {
                    outcome = Outcome::GaveUp;
                }
            }
            self.pay_program(&mut program);
            if outcome != Outcome::Optimal {
                program = self.again(&program, &scope)?;
            }
        }
    }

    /// A program for what is left, with the patterns that still fit.
    fn again(&mut self, old: &Program, scope: &Scope) -> Option<Program> {
        let scope = Scope::new(scope.left.clone(), scope.most.clone());
        let mut program = Program::new(self.model, &scope, &mut self.filler);
        for pattern in old.patterns.iter().flatten() {
            let items = clipped(&scope, pattern);
            program.add(self.model, &Arc::new(Pattern { kind: pattern.kind, items }));
        }
        let mut new = Vec::new();
        let effort = DIVE;
        let ended = program.generate(self.model, &scope, &mut self.filler, effort, &mut new);
        self.pay_program(&mut program);
        self.remember(new);
        (ended != Ended::Failed).then_some(program)
    }

    /// Each bin as cheap as its content allows.
    fn trim(&self, mut packing: Packing) -> Packing {
        for (pattern, _) in &mut packing {
            let nano = self.model.kinds[pattern.kind as usize].nano;
            let cheapest = self.model.cheapest(&pattern.items);
            if let Some(kind) = cheapest.filter(|kind| self.model.kinds[*kind].nano < nano) {
                *pattern = Arc::new(Pattern { kind: small(kind), items: pattern.items.clone() });
            }
        }
        packing
    }

    /// Empties some bins and packs what was in them again, over and over.
    fn neighbourhoods(&mut self) {
        let model = self.model;
        let mut round = 0;
        let mut size = 12;
        let mut failures = 0;
        while !self.done() && round < 100_000 {
            round += 1;
            // Bins one by one.
            let mut bins: Vec<usize> = Vec::new();
            for (index, (_, times)) in self.best.iter().enumerate() {
                bins.extend(std::iter::repeat_n(index, usize::try_from(*times).unwrap_or(0).min(64)));
            }
            if bins.len() < 2 {
                return;
            }
            let mut chosen = vec![0u64; self.best.len()];
            let mut inside = FxHashSet::default();
            for taken in 0..size.min(bins.len()) {
                let at = taken + self.random.below(bins.len() - taken);
                bins.swap(taken, at);
                let items = &self.best[bins[taken]].0.items;
                if taken > 1 && inside.len() + items.len() > NEIGHBOURHOOD_ROWS {
                    break;
                }
                inside.extend(items.iter().map(|(item, _)| *item));
                chosen[bins[taken]] += 1;
            }
            let mut left = vec![0u64; model.items];
            let mut cost = 0u64;
            let mut most: Vec<Option<u64>> = vec![Some(0); model.kinds.len()];
            for (kind, most) in model.kinds.iter().zip(&mut most) {
                *most = kind.most;
            }
            for ((pattern, times), taken) in self.best.iter().zip(&chosen) {
                let kind = pattern.kind as usize;
                if let Some(most) = &mut most[kind] {
                    *most = most.saturating_sub(times - taken);
                }
                if *taken > 0 {
                    cost += model.kinds[kind].nano * taken;
                    for (item, count) in &pattern.items {
                        left[*item as usize] += u64::from(*count) * taken;
                    }
                }
            }
            let scope = Scope::new(left, most);
            let mut program = Program::new(model, &scope, &mut self.filler);
            for pattern in &self.pool {
                if covers(&scope, pattern) {
                    program.add(model, pattern);
                }
            }
            self.pay(20 * self.pool.len() as u64);
            for ((pattern, _), taken) in self.best.iter().zip(&chosen) {
                if *taken > 0 {
                    program.add(model, pattern);
                }
            }
            let mut new = Vec::new();
            let budget = u64::try_from(self.budget).unwrap_or(0);
            let ended = program.generate(
                model,
                &scope,
                &mut self.filler,
                Effort {
                    rounds: 30,
                    nodes: 300,
                    nodes_at_most: 2_400,
                    work: budget,
                    kinds: 12,
                    columns: 30,
                    steadied: Steadied::No,
                },
                &mut new,
            );
            self.pay_program(&mut program);
            self.remember(new);
            if ended == Ended::Failed {
                continue;
            }
            if ended == Ended::Proven
                && bound::rounded_up(model, program.master.objective() * (1.0 - 1e-7)) >= cost
                && round % 4 != 0
            {
                failures += 1;
                if failures % 8 == 0 {
                    size = (size + size / 4 + 1).min(60);
                }
                continue;
            }
            let found = self.dive(program, scope, cost, true);
            let Some(found) = found else {
                failures += 1;
                continue;
            };
            for ((_, times), taken) in self.best.iter_mut().zip(&chosen) {
                *times -= taken;
            }
            self.best.retain(|(_, times)| *times > 0);
            self.best.extend(found);
            self.merge();
            self.best_cost = model.cost(&self.best);
        }
    }

    fn merge(&mut self) {
        self.best.sort_unstable_by(|a, b| (a.0.kind, &a.0.items).cmp(&(b.0.kind, &b.0.items)));
        self.best.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 += later.1;
            }
            same
        });
    }
}

/// Whether everything in a pattern is still to be packed.
fn covers(scope: &Scope, pattern: &Pattern) -> bool {
    pattern.items.iter().all(|(item, count)| u64::from(*count) <= scope.left[*item as usize])
}

/// A pattern without what is no longer to be packed.
fn clipped(scope: &Scope, pattern: &Pattern) -> Vec<(u32, u32)> {
    let clip = |(item, count): &(u32, u32)| {
        let count = (*count).min(u32::try_from(scope.left[*item as usize]).unwrap_or(u32::MAX));
        (count > 0).then_some((*item, count))
    };
    pattern.items.iter().filter_map(clip).collect()
}

fn fix(scope: &mut Scope, pattern: &Pattern, times: u64) {
    for (item, count) in &pattern.items {
        let left = &mut scope.left[*item as usize];
        *left = left.saturating_sub(u64::from(*count) * times);
    }
    if let Some(most) = &mut scope.most[pattern.kind as usize] {
        *most = most.saturating_sub(times);
    }
}
