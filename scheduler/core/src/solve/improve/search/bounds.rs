//! Lower bounds: from resources, from what kinds of bins offer, from the linear program over patterns, and from whole bins.

use std::sync::Arc;

use super::{ROWS_AT_MOST, Search};
use crate::solve::improve::bound;
use crate::solve::improve::coarse;
use crate::solve::improve::cover::{self, Row};
use crate::solve::improve::fill::Filler;
use crate::solve::improve::generate::{Effort, Ended, Program, Scope, Steadied, axis_prices, resource_worth};
use crate::solve::improve::model::Pattern;
use crate::solve::improve::offers;

/// Groups of items of about one size.
const GROUPS: usize = 200;
/// Rounds of certifying the program's bound and taking in what shows that it is not there yet.
const CERTIFIED: usize = 12;
/// Nodes of certifying what a row of whole bins covers.
const ROW_NODES: u64 = 50_000;
/// Prices that a kind of bin is given of which the program buys a part, as a share of its own.
const REPRICED: [f64; 4] = [0.88, 0.95, 1.05, 1.12];

impl Search<'_> {
    /// What resources alone cost: the relaxation of one bin is all it takes, for any number of items.
    pub(super) fn resource_bound(&mut self, scope: &Scope) -> u64 {
        let model = self.model;
        let limits = vec![0.0; model.kinds.len()];
        let worth = resource_worth(model, &scope.items, &scope.left);
        let (bound, _) = bound::certified(model, scope, &mut self.filler, &worth, &limits, 0);
        self.pay_filler();
        bound
    }

    /// What items are worth by the offers of each kind, and the lower bound that this gives.
    pub(super) fn offers(&mut self, scope: &Scope) {
        if self.done() {
            return;
        }
        let model = self.model;
        let Some(prices) = axis_prices(model, &scope.items, &scope.left) else { return };
        self.groups = coarse::groups(model, scope, &prices, GROUPS);
        self.pay(40 * scope.items.len() as u64);
        let found = offers::offers(model, scope, &self.groups, &prices, self.part(8));
        self.pay(found.work);
        self.raise_bound(bound::rounded_up(model, found.bound));
        self.worth = found.worth;
    }

    /// The linear program of everything, and its lower bound; `None` where there are too many rows for it.
    pub(super) fn root(&mut self, scope: &Scope) -> Option<Program> {
        if scope.items.len() > ROWS_AT_MOST || self.budget <= 0 {
            return None;
        }
        let model = self.model;
        let mut program = Program::new(model, scope, &mut self.filler);
        for (pattern, _) in &self.best {
            program.add(model, pattern);
        }
        if !self.worth.is_empty() {
            program.begin_at(&self.worth);
        }
        let mut new = Vec::new();
        let work = self.part(5) * 2;
        let reserve = self.budget / 2;
        let effort = Effort {
            rounds: 500,
            nodes: 300,
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
        for _ in 0..CERTIFIED {
            let worth = program.worth(model);
            let limits = program.limit_prices();
            // A node is some fifty steps.
            let nodes = self.part(400);
            let (mut bound, better) =
                bound::certified(model, scope, &mut self.filler, &worth, &limits, nodes);
            let centre = program.centre();
            let objective = program.master.objective();
            if !centre.is_empty() && bound < bound::rounded_up(model, objective * (1.0 - 1e-5)) {
                let (found, _) = bound::certified(model, scope, &mut self.filler, centre, &limits, nodes);
                bound = bound.max(found);
            }
            self.raise_bound(bound);
            let better: Vec<Arc<Pattern>> = better.into_iter().map(Arc::new).collect();
            self.pay_filler();
            let added = better.iter().filter(|pattern| program.add(model, pattern)).count();
            if added == 0
                || self.budget < reserve
                || bound >= bound::rounded_up(model, objective * (1.0 - 1e-7))
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
        Some(program)
    }

    /// Raises the lower bound to what whole bins cost at least.
    pub(super) fn cover(&mut self, scope: &Scope, program: Option<&Program>) {
        if self.done() {
            return;
        }
        let model = self.model;
        let mut worths = vec![resource_worth(model, &scope.items, &scope.left)];
        if let Some(program) = program {
            worths.push(program.worth(model));
            worths.extend(self.repriced(program, scope));
        }
        let limits = vec![0.0; model.kinds.len()];
        let mut rows = cover::axes(model, scope, 0.0);
        for worth in worths {
            let fillings = bound::fillings(model, scope, &mut self.filler, &worth, &limits, ROW_NODES);
            rows.push(Row { demand: bound::worth_of_all(scope, &worth), most: fillings.most });
        }
        self.pay_filler();
        rows.append(&mut self.rows);
        let (bound, work) = cover::bound(model, &rows, &scope.most, self.best_cost, self.part(4));
        self.pay(work);
        self.raise_bound(bound);
    }

    /// What items are worth where bins of which the program buys a part are a little cheaper or dearer: whoever must cover that
    /// too cannot buy a part of them.
    fn repriced(&mut self, program: &Program, scope: &Scope) -> Vec<Vec<f64>> {
        let model = self.model;
        let mut worths = Vec::new();
        let Some(kind) = self.dear_kinds(program, scope).first().copied() else { return worths };
        for change in REPRICED {
            if self.done() {
                break;
            }
            let repriced = model.repriced(kind, model.kinds[kind].price * change);
            let mut filler = Filler::new(&repriced);
            let mut other = Program::new(&repriced, scope, &mut filler);
            for (column, _) in program.solution() {
                if let Some(pattern) = &program.patterns[column] {
                    other.add(&repriced, pattern);
                }
            }
            let mut new = Vec::new();
            let effort = Effort {
                rounds: 100,
                nodes: 1_000,
                nodes_at_most: 1_000,
                work: self.part(16),
                kinds: usize::MAX,
                columns: scope.items.len() / 3 + 12,
                steadied: Steadied::Yes,
            };
            let ended = other.generate(&repriced, scope, &mut filler, effort, &mut new);
            self.pay(other.master.work + filler.work);
            self.remember(new);
            if ended != Ended::Failed {
                worths.push(other.worth(&repriced));
                worths.push(other.centre().to_vec());
            }
        }
        worths
    }
}
