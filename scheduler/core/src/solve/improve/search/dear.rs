//! Dear bins come whole: where the linear program buys a part of one, packings with one fewer and with one more are tried.
//!
//! Emptying a few bins at a time never leads from one to the other, because it takes many cheap bins to make up for a dear one.

use std::sync::Arc;

use super::{Packing, Search, clipped, fix};
use crate::solve::improve::fill::{Ask, Depth};
use crate::solve::improve::generate::{Program, Scope};
use crate::solve::improve::model::{Pattern, real, small};

/// A single bin of a dear kind costs this share of everything.
const DEAR: f64 = 0.015;
/// Dear kinds that are looked at, bins of each that the program may buy, and rows of the program: each bin takes a program anew.
const KINDS_AT_MOST: usize = 2;
const BINS_AT_MOST: f64 = 4.0;
const ROWS_AT_MOST: usize = 64;
/// A part of a bin is more than this, and less than all but this.
const PART: f64 = 0.02;

/// Some dear bins, and a program for the rest without any.
struct Whole {
    /// Dollars per hour, by the program.
    estimate: f64,
    fixed: Packing,
    program: Program,
    scope: Scope,
}

impl Search<'_> {
    /// Kinds of which the program buys a part of a bin that is dear, the dearest first.
    pub(super) fn dear_kinds(&self, program: &Program, scope: &Scope) -> Vec<usize> {
        let model = self.model;
        let amounts = program.amounts(model);
        let least = DEAR * program.master.objective();
        let is_dear = |kind: &usize| {
            let amount = amounts[*kind];
            let part = amount - amount.floor();
            model.kinds[*kind].price > least
                && part > PART
                && part < 1.0 - PART
                && amount < BINS_AT_MOST
                && scope.most[*kind].is_none()
        };
        let mut dear: Vec<usize> = (0..model.kinds.len()).filter(is_dear).collect();
        dear.sort_by(|a, b| model.kinds[*b].nano.cmp(&model.kinds[*a].nano).then(a.cmp(b)));
        dear.truncate(KINDS_AT_MOST);
        dear
    }

    /// Tries whole numbers of dear bins.
    pub(super) fn whole_dear_bins(&mut self, program: &Program, scope: &Scope) {
        if scope.items.len() > ROWS_AT_MOST {
            return;
        }
        let model = self.model;
        let amounts = program.amounts(model);
        let mut tried: Vec<Whole> = Vec::new();
        for kind in self.dear_kinds(program, scope) {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count of bins
            let few = amounts[kind].floor() as u64;
            for count in [few, few + 1] {
                if self.done() {
                    return;
                }
                tried.extend(self.with_dear_bins(program, scope, kind, count));
            }
        }
        tried.sort_by(|a, b| a.estimate.total_cmp(&b.estimate));
        for Whole { estimate, fixed, program, scope } in tried {
            let spent = model.cost(&fixed);
            for vary in [false, true] {
                if self.done() || estimate * 1e9 >= real(self.best_cost) {
                    break;
                }
                let cutoff = self.best_cost.saturating_sub(model.price_step).saturating_sub(spent);
                if let Some(mut packing) = self.dive(program.clone(), scope.clone(), cutoff, vary) {
                    packing.extend(fixed.iter().cloned());
                    self.take(packing);
                }
            }
        }
        self.merge();
    }

    /// So many bins of a kind, filled one after another, and a program for the rest; `None` where that leads nowhere.
    fn with_dear_bins(&mut self, program: &Program, scope: &Scope, kind: usize, count: u64) -> Option<Whole> {
        let (mut program, mut scope, mut fixed) = (program.clone(), scope.clone(), Packing::new());
        for _ in 0..count {
            let of_kind = program.solution().filter_map(|(column, value)| {
                let pattern = program.patterns[column].as_ref()?;
                (pattern.kind as usize == kind).then_some((value, pattern))
            });
            let known = of_kind.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, pattern)| Arc::clone(pattern));
            let pattern = match known {
                Some(pattern) => pattern,
                None => self.best_filling(kind, &program, &scope)?,
            };
            let pattern = Arc::new(Pattern { kind: pattern.kind, items: clipped(&scope, &pattern) });
            fix(&mut scope, &pattern, 1);
            if pattern.items.is_empty() || scope.left.iter().all(|left| *left == 0) {
                return None;
            }
            fixed.push((pattern, 1));
            program = self.again(&program, &scope)?;
        }
        scope.most[kind] = Some(0);
        let scope = Scope::new(scope.left, scope.most);
        let program = self.again(&program, &scope)?;
        let estimate = program.master.objective() + real(self.model.cost(&fixed)) / 1e9;
        Some(Whole { estimate, fixed, program, scope })
    }

    /// The best filling of a kind, whatever it is worth.
    fn best_filling(&mut self, kind: usize, program: &Program, scope: &Scope) -> Option<Arc<Pattern>> {
        let left = |item: &u32| scope.left[*item as usize] > 0;
        let items: Vec<u32> = scope.items.iter().copied().filter(left).collect();
        let worth = program.worth(self.model);
        let ask = Ask {
            kind,
            items: &items,
            worth: &worth,
            left: &scope.left,
            above: 0.0,
            nodes: 2_000,
            depth: Depth::Rest,
        };
        let filling = self.filler.best(&ask).0.pop();
        self.pay_filler();
        filling.map(|(_, items)| Arc::new(Pattern { kind: small(kind), items }))
    }
}
