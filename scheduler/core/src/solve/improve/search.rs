//! From the linear program to whole bins: diving, and emptying some bins to pack them again.

use assay_shared::units::UsdPerHour;
use rustc_hash::FxHashSet;

use super::bound;
use super::fill::Filler;
use super::generate::{Effort, Ended, Program, Scope};
use super::master::Outcome;
use super::model::{Model, Pattern, real, small};

pub(super) type Packing = Vec<(Pattern, u64)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Search<'m> {
    model: &'m Model,
    filler: Filler<'m>,
    /// Patterns worth remembering, oldest first.
    pool: Vec<Pattern>,
    known: FxHashSet<Pattern>,
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

const POOL_AT_MOST: usize = 20_000;
/// Rows of one linear program, at most.
const ROWS_AT_MOST: usize = 320;

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
        let patterns: Vec<Pattern> = search.best.iter().map(|(pattern, _)| pattern.clone()).collect();
        search.remember(patterns);
        search
    }

    fn remember(&mut self, patterns: Vec<Pattern>) {
        for pattern in patterns {
            if self.pool.len() < POOL_AT_MOST && self.known.insert(pattern.clone()) {
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
        self.budget <= 0 || self.best_cost <= self.lower_bound.0
    }

    /// Only the lower bound.
    pub(super) fn bound(&mut self) {
        let scope = self.everything();
        if !scope.items.is_empty() && scope.items.len() <= ROWS_AT_MOST {
            self.root(&scope);
        }
    }

    pub(super) fn run(&mut self) {
        let scope = self.everything();
        if scope.items.is_empty() {
            self.best.clear();
            return;
        }
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

    fn everything(&self) -> Scope {
        let most = self.model.kinds.iter().map(|kind| kind.most).collect();
        Scope::new(self.model.count.clone(), most)
    }

    /// The linear program of everything, and the lower bound.
    fn root(&mut self, scope: &Scope) -> Option<Program> {
        let model = self.model;
        let mut program = Program::new(model, scope, &mut self.filler);
        for (pattern, _) in &self.best {
            program.add(model, pattern);
        }
        let mut new = Vec::new();
        let work = u64::try_from(self.budget / 2).unwrap_or(0);
        let effort = Effort { rounds: 500, nodes: 1_000, nodes_at_most: 8_000, work };
        let ended = program.generate(model, scope, &mut self.filler, effort, &mut new);
        self.pay_program(&mut program);
        self.remember(new);
        if ended == Ended::Failed {
            return None;
        }
        let worth = program.worth(model);
        let limits = program.limit_prices();
        // A node is some hundred steps.
        let nodes = u64::try_from(self.budget / 400).unwrap_or(0) / model.kinds.len().max(1) as u64;
        let bound = bound::certified(model, scope, &mut self.filler, &worth, &limits, nodes.min(20_000));
        self.pay_filler();
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
                let mut whole = (value + 1e-5).floor() as u64;
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
                    packing.push((pattern.clone(), times));
                    fixed = true;
                }
            }
            if !fixed {
                let mut order: Vec<(f64, Pattern)> = Vec::new();
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
                    order.push((score, Pattern { kind: pattern.kind, items }));
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
            let part = |pattern: &Pattern| {
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
                let budget = u64::try_from(self.budget).unwrap_or(0);
                let ended = program.generate(
                    model,
                    &scope,
                    &mut self.filler,
                    Effort { rounds: 3, nodes: 200, nodes_at_most: 200, work: budget },
                    &mut new,
                );
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
            program.add(self.model, &Pattern { kind: pattern.kind, items });
        }
        let mut new = Vec::new();
        let effort = Effort { rounds: 3, nodes: 200, nodes_at_most: 200, work: u64::MAX };
        let ended = program.generate(self.model, &scope, &mut self.filler, effort, &mut new);
        self.pay_program(&mut program);
        self.remember(new);
        (ended != Ended::Failed).then_some(program)
    }

    /// Each bin as cheap as its content allows.
    fn trim(&self, mut packing: Packing) -> Packing {
        for (pattern, _) in &mut packing {
            pattern.items.sort_unstable();
            let nano = self.model.kinds[pattern.kind as usize].nano;
            let cheapest = self.model.cheapest(&pattern.items);
            if let Some(kind) = cheapest.filter(|kind| self.model.kinds[*kind].nano < nano) {
                pattern.kind = small(kind);
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
            let count = size.min(bins.len());
            let mut chosen = vec![0u64; self.best.len()];
            for taken in 0..count {
                let at = taken + self.random.below(bins.len() - taken);
                bins.swap(taken, at);
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
            if scope.items.len() > ROWS_AT_MOST {
                size = (size / 2).max(2);
                continue;
            }
            let mut program = Program::new(model, &scope, &mut self.filler);
            for pattern in &self.pool {
                if covers(&scope, pattern) {
                    program.add(model, pattern);
                }
            }
            self.pay(2 * self.pool.len() as u64);
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
                Effort { rounds: 30, nodes: 500, nodes_at_most: 4_000, work: budget },
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
