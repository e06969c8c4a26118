//! From the linear program to whole bins: patterns are fixed one after another, and the program solved again in between.

use std::sync::Arc;

use super::{Packing, Search, clipped, covers, fix};
use crate::solve::improve::generate::{Effort, Ended, Program, Scope, Steadied};
use crate::solve::improve::master::Outcome;
use crate::solve::improve::model::{Pattern, real};

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

impl Search<'_> {
    /// Fixes patterns one after another, solving again in between, until everything in scope is packed. `None` where that would
    /// cost more than `cutoff`.
    pub(super) fn dive(
        &mut self,
        mut program: Program,
        mut scope: Scope,
        cutoff: u64,
        vary: bool,
    ) -> Option<Packing> {
        let bins: f64 = program.solution().map(|(_, value)| value).sum();
        let distinct = real(program.patterns.len() as u64).min(bins).max(1.0);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of the budget
        let work = (real(u64::try_from(self.budget).unwrap_or(0)) / 16.0 / distinct) as u64;
        let effort = Effort { work, ..DIVE };
        // What a dive that leads nowhere takes must not be all there is.
        let (begun, least) = (self.budget, self.budget / 2);
        let units = |scope: &Scope| real(scope.left.iter().sum::<u64>());
        let all = units(&scope);
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
            if self.budget <= least {
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
                // Where the work would be used up before the items are, more is fixed at once.
                let spent = real((begun - self.budget).max(0).unsigned_abs())
                    / real((begun - least).max(1).unsigned_abs());
                let behind = (spent - (1.0 - units(&scope) / all)).max(0.0);
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a share of the patterns
                let more = (behind * real(solution.len() as u64)) as usize;
                let many = (solution.len() / 24).max(1) + more;
                let mut count = 0;
                for (score, pattern) in order {
                    if count > 0 && (count >= many || score < 0.6 && behind == 0.0) {
                        break;
                    }
                    if !covers(&scope, &pattern) {
                        if behind == 0.0 {
                            break;
                        }
                        continue;
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
    pub(super) fn again(&mut self, old: &Program, scope: &Scope) -> Option<Program> {
        let scope = Scope::new(scope.left.clone(), scope.most.clone());
        let mut program = Program::new(self.model, &scope, &mut self.filler);
        for pattern in old.patterns.iter().flatten() {
            if scope.most[pattern.kind as usize] == Some(0) {
                continue;
            }
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
}
