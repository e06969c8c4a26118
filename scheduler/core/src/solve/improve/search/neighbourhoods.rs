//! Empties some bins and solves for their content alone: by patterns, or by choosing other bins for the sum of it.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::{Packing, Search, covers};
use crate::solve::improve::bound;
use crate::solve::improve::cover;
use crate::solve::improve::generate::{Effort, Ended, Program, Scope, Steadied};
use crate::solve::improve::mix;
use crate::solve::improve::model::{Pattern, real, small};
use crate::solve::improve::squeeze;

/// Times that bins are emptied.
const ROUNDS_AT_MOST: usize = 100_000;
/// Kinds of items in the bins that are emptied together, more or less.
const NEIGHBOURHOOD_ROWS: usize = 120;

/// Bins that are emptied to choose others, at most, and failures in a row after which that ends.
const CHOSEN_AT_MOST: usize = 6;
const FAILURES_AT_MOST: usize = 200;
/// Other choices that are tried for some bins, the room that they must have to spare, and the steps for finding them.
const CHOICES: usize = 3;
const SPARE: f64 = 0.001;
const CHOOSING_STEPS: u64 = 300_000;
/// Steps of putting items into other bins, for each item.
const STEPS_PER_ITEM: u64 = 8_000;

impl Search<'_> {
    /// Empties some bins and packs what was in them again, over and over.
    pub(super) fn pack_again(&mut self) {
        let model = self.model;
        let mut round = 0;
        let mut size = 12;
        let mut failures = 0;
        let start = self.work;
        while !self.done() && !self.idle_since(start) && round < ROUNDS_AT_MOST {
            round += 1;
            let Some(bins) = self.draw_bins(size) else { return };
            let mut taken = vec![0u64; self.best.len()];
            let mut inside = FxHashSet::default();
            for (nth, bin) in bins.into_iter().enumerate() {
                let items = &self.best[bin].0.items;
                if nth > 1 && inside.len() + items.len() > NEIGHBOURHOOD_ROWS {
                    break;
                }
                inside.extend(items.iter().map(|(item, _)| *item));
                taken[bin] += 1;
            }
            let (scope, cost) = self.emptied(&taken);
            let mut program = Program::new(model, &scope, &mut self.filler);
            let own = self.best.iter().zip(&taken).filter(|(_, taken)| **taken > 0);
            let own = own.map(|((pattern, _), _)| pattern);
            for pattern in self.pool.iter().filter(|pattern| covers(&scope, pattern)).chain(own) {
                program.add(model, pattern);
            }
            self.pay(20 * self.pool.len() as u64);
            let mut new = Vec::new();
            let effort = Effort {
                rounds: 30,
                nodes: 300,
                nodes_at_most: 2_400,
                work: self.part(1),
                kinds: 12,
                columns: 30,
                steadied: Steadied::No,
            };
            let ended = program.generate(model, &scope, &mut self.filler, effort, &mut new);
            self.pay_program(&mut program);
            self.remember(new);
            if ended == Ended::Failed {
                continue;
            }
            let least = bound::rounded_up(model, program.master.objective() * (1.0 - 1e-7));
            if ended == Ended::Proven && least >= cost && round % 4 != 0 {
                failures += 1;
                if failures % 8 == 0 {
                    size = (size + size / 4 + 1).min(60);
                }
                continue;
            }
            match self.dive(program, scope, cost, true) {
                Some(found) => self.replace(&taken, found),
                None => failures += 1,
            }
        }
    }

    /// Empties a few bins and chooses others for the sum of what was in them, as long as that helps.
    pub(super) fn choose_again(&mut self) {
        let model = self.model;
        let units: u64 = model.count.iter().sum();
        if self.worth.is_empty()
            || !squeeze::applies(model)
            || units < squeeze::ITEMS_PER_BIN * super::bins(&self.best)
        {
            return;
        }
        let mut failures = 0;
        let start = self.work;
        while !self.done() && !self.idle_since(start) && failures < FAILURES_AT_MOST {
            let size = 2 + self.random.below(CHOSEN_AT_MOST - 1);
            let Some(bins) = self.draw_bins(size) else { return };
            let mut taken = vec![0u64; self.best.len()];
            bins.into_iter().for_each(|bin| taken[bin] += 1);
            let (mut scope, cost) = self.emptied(&taken);
            for most in scope.most.iter_mut().flatten() {
                *most = 0;
            }
            match self.chosen_again(&scope, cost) {
                Some(found) => {
                    failures = 0;
                    self.replace(&taken, found);
                }
                None => failures += 1,
            }
        }
    }

    /// What is in some bins (so many of each of the best packing), and what they cost.
    fn emptied(&self, taken: &[u64]) -> (Scope, u64) {
        let model = self.model;
        let mut left = vec![0u64; model.items];
        let mut cost = 0;
        let mut most: Vec<Option<u64>> = model.kinds.iter().map(|kind| kind.most).collect();
        for ((pattern, times), taken) in self.best.iter().zip(taken) {
            let kind = pattern.kind as usize;
            if let Some(most) = &mut most[kind] {
                *most = most.saturating_sub(times - taken);
            }
            cost += model.kinds[kind].nano * taken;
            for (item, count) in &pattern.items {
                left[*item as usize] += u64::from(*count) * taken;
            }
        }
        (Scope::new(left, most), cost)
    }

    /// A packing of what is in scope that costs less than so much.
    fn chosen_again(&mut self, scope: &Scope, cost: u64) -> Option<Packing> {
        let model = self.model;
        let of_item = |item: &u32| self.worth[*item as usize] * real(scope.left[*item as usize]);
        if bound::rounded_up(model, scope.items.iter().map(of_item).sum()) >= cost {
            self.pay(2 * scope.items.len() as u64 + 100);
            return None;
        }
        let rows = cover::axes(model, scope, SPARE);
        let (choices, work) = cover::cheapest(model, &rows, &scope.most, cost, CHOICES, CHOOSING_STEPS);
        self.pay(work);
        let order = mix::largest_first(model, scope);
        let steps = scope.left.iter().sum::<u64>() * STEPS_PER_ITEM;
        for choice in choices {
            let (contents, work) =
                squeeze::squeeze(model, &scope.left, &order, &choice, steps.min(self.part(1)));
            self.pay(work);
            if let Some(contents) = contents {
                let bins = choice.iter().zip(contents).filter(|(_, items)| !items.is_empty());
                let bins = bins.map(|(kind, items)| (Arc::new(Pattern { kind: small(*kind), items }), 1));
                return Some(self.trim(bins.collect()));
            }
        }
        None
    }
}
