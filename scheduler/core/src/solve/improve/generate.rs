//! Column generation: the linear program over all patterns, of which only the useful ones are ever written down.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use rustc_hash::{FxHashSet, FxHasher};

use super::fill::{Ask, Depth, Filler};
use super::master::{Column, Master, Outcome, Variable};
use super::model::{Model, Pattern, real, small};

/// A part of the problem: some items, and how many of each.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    /// Items with something left, ascending: the rows of the program.
    pub(super) items: Vec<u32>,
    /// By item of the model.
    pub(super) left: Vec<u64>,
    /// Bins that can still be had, by kind; `None` is any number.
    pub(super) most: Vec<Option<u64>>,
}

impl Scope {
    pub(super) fn new(left: Vec<u64>, most: Vec<Option<u64>>) -> Self {
        let items = (0..left.len()).filter(|item| left[*item] > 0).map(small).collect();
        Self { items, left, most }
    }
}

/// The program of one scope, and the patterns that its columns are.
#[derive(Debug, Clone)]
pub(super) struct Program {
    pub(super) master: Master,
    /// `None`: leaving an item out, at a price nobody would pay.
    pub(super) patterns: Vec<Option<Arc<Pattern>>>,
    rows: Vec<u32>,
    row_of: Vec<u32>,
    /// Row of a limited kind, after those of the items.
    kind_row: Vec<Option<u32>>,
    /// Hashes of the patterns: one lost to a collision is no loss.
    known: FxHashSet<u64>,
    /// Last axis prices by kind: most kinds are ruled out by them without a search.
    axis_prices: Vec<Vec<f64>>,
    /// What the best filling of a kind was worth for its price, when last looked at.
    ratio: Vec<f64>,
    /// The worth of items with the best bound so far. What is worked with lies between this and the program's own prices, which
    /// swing widely at first.
    centre: Vec<f64>,
    centre_bound: f64,
}

pub(super) fn hash(pattern: &Pattern) -> u64 {
    let mut hasher = FxHasher::default();
    pattern.hash(&mut hasher);
    hasher.finish()
}

/// What a generation may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    pub(super) rounds: usize,
    /// For one filling, at first, and where nothing was found with less.
    pub(super) nodes: u64,
    pub(super) nodes_at_most: u64,
    pub(super) work: u64,
    /// Kinds searched in one round, and patterns taken in.
    pub(super) kinds: usize,
    pub(super) columns: usize,
    pub(super) steadied: Steadied,
}

/// Whether worth is kept near the centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Steadied {
    Yes,
    No,
}

/// How a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// No pattern can improve the program.
    Proven,
    /// None was found.
    Quiet,
    /// Rounds or work ran out.
    Stopped,
    /// The program could not be solved.
    Failed,
}

pub(super) const LEFT_OUT: f64 = 1e7;

impl Program {
    pub(super) fn new(model: &Model, scope: &Scope, filler: &mut Filler<'_>) -> Self {
        let rows = scope.items.clone();
        let mut row_of = vec![u32::MAX; model.items];
        rows.iter().enumerate().for_each(|(row, item)| row_of[*item as usize] = small(row));
        let mut kind_row = vec![None; model.kinds.len()];
        let mut demand: Vec<f64> = rows.iter().map(|item| real(scope.left[*item as usize])).collect();
        let mut columns = Vec::with_capacity(rows.len());
        let mut patterns = Vec::with_capacity(rows.len());
        for (row, item) in rows.iter().enumerate() {
            let mut best: Option<(f64, usize, u64)> = None;
            for (index, kind) in model.kinds.iter().enumerate() {
                if kind.allowed.contains(*item as usize) && kind.most.is_none() && scope.most[index].is_none()
                {
                    let fit = super::fill::room_for(model, *item as usize, &kind.room, &model.group_most);
                    let fit = fit.min(model.cap[*item as usize]).min(scope.left[*item as usize]);
                    let price = kind.price / real(fit.max(1));
                    if fit > 0 && best.is_none_or(|(least, _, _)| price < least) {
                        best = Some((price, index, fit));
                    }
                }
            }
            filler.work += (2 * model.kinds.len() * (model.axes + 2)) as u64 + 100;
            let (cost, pattern, amount) = match best {
                Some((_, kind, fit)) => {
                    let count = u32::try_from(fit).unwrap_or(u32::MAX);
                    let pattern = Pattern { kind: small(kind), items: vec![(*item, count)] };
                    (model.kinds[kind].price, Some(pattern), f64::from(count))
                }
                None => (LEFT_OUT, None, 1.0),
            };
            columns.push(Column { cost, cover: vec![(small(row), amount)] });
            patterns.push(pattern.map(Arc::new));
        }
        let mut limited = rows.len();
        for (kind, most) in scope.most.iter().enumerate() {
            if let Some(most) = most {
                kind_row[kind] = Some(small(limited));
                limited += 1;
                demand.push(-real(*most));
            }
        }
        let known = patterns.iter().flatten().map(|pattern| hash(pattern)).collect();
        Self {
            master: Master::new(&demand, &columns),
            patterns,
            rows,
            row_of,
            kind_row,
            known,
            axis_prices: vec![Vec::new(); model.kinds.len()],
            ratio: vec![f64::INFINITY; model.kinds.len()],
            centre: Vec::new(),
            centre_bound: 0.0,
        }
    }

    /// What items are worth where that is known better than from resources alone.
    pub(super) fn begin_at(&mut self, worth: &[f64]) {
        self.centre = worth.to_vec();
        self.centre_bound = 0.0;
    }

    /// Takes in a pattern, without the items that are not in scope; whether it was new.
    pub(super) fn add(&mut self, model: &Model, pattern: &Arc<Pattern>) -> bool {
        let outside = |(item, _): &(u32, u32)| self.row_of[*item as usize] == u32::MAX;
        self.master.work += 80 + 15 * pattern.items.len() as u64;
        let pattern = if pattern.items.iter().any(outside) {
            let items = pattern.items.iter().filter(|item| !outside(item)).copied().collect();
            Arc::new(Pattern { kind: pattern.kind, items })
        } else {
            Arc::clone(pattern)
        };
        if pattern.items.is_empty() || !self.known.insert(hash(&pattern)) {
            return false;
        }
        let kind = pattern.kind as usize;
        let cover =
            pattern.items.iter().map(|(item, count)| (self.row_of[*item as usize], f64::from(*count)));
        let limit = self.kind_row[kind].map(|row| (row, -1.0));
        self.master.add(model.kinds[kind].price, cover.chain(limit));
        self.patterns.push(Some(pattern));
        true
    }

    /// Forgets the patterns that cost at least `most` dollars more than they are worth now.
    pub(super) fn forget(&mut self, most: f64) {
        let moved = self.master.forget(most);
        let mut kept = Vec::with_capacity(moved.len());
        for (pattern, moved) in std::mem::take(&mut self.patterns).into_iter().zip(moved) {
            if moved.is_some() {
                kept.push(pattern);
            }
        }
        self.patterns = kept;
    }

    /// Rows that still matter, and all of them.
    pub(super) fn active(&self, scope: &Scope) -> (usize, usize) {
        (self.rows.iter().filter(|item| scope.left[**item as usize] > 0).count(), self.rows.len())
    }

    /// Values of the patterns in use.
    pub(super) fn solution(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        self.master.basis.iter().zip(&self.master.value).filter_map(|(variable, value)| match variable {
            Variable::Column(column) if *value > 1e-5 => Some((*column as usize, *value)),
            _ => None,
        })
    }

    /// Bins in use, by kind.
    pub(super) fn amounts(&self, model: &Model) -> Vec<f64> {
        let mut amounts = vec![0.0; model.kinds.len()];
        for (column, value) in self.solution() {
            if let Some(pattern) = &self.patterns[column] {
                amounts[pattern.kind as usize] += value;
            }
        }
        amounts
    }

    /// Demand by row for what is left.
    pub(super) fn demand(&self, scope: &Scope) -> Vec<f64> {
        let items = self.rows.iter().map(|item| real(scope.left[*item as usize]));
        items.chain(scope.most.iter().flatten().map(|most| -real(*most))).collect()
    }

    /// Worth of each item, by item of the model.
    pub(super) fn worth(&self, model: &Model) -> Vec<f64> {
        let mut worth = vec![0.0; model.items];
        for (item, price) in self.rows.iter().zip(&self.master.prices) {
            worth[*item as usize] = price.max(0.0);
        }
        worth
    }

    /// What one more bin of each limited kind would save, by kind.
    pub(super) fn limit_prices(&self) -> Vec<f64> {
        self.kind_row
            .iter()
            .map(|row| row.map_or(0.0, |row| self.master.prices[row as usize].max(0.0)))
            .collect()
    }

    /// Adds improving patterns, which go to `new` too, and solves again, until there are none.
    pub(super) fn generate(
        &mut self,
        model: &Model,
        scope: &Scope,
        filler: &mut Filler<'_>,
        effort: Effort,
        new: &mut Vec<Arc<Pattern>>,
    ) -> Ended {
        if self.master.primal() != Outcome::Optimal {
            return Ended::Failed;
        }
        let items: Vec<u32> =
            scope.items.iter().copied().filter(|item| scope.left[*item as usize] > 0).collect();
        let demand: Vec<(usize, f64)> =
            items.iter().map(|item| (*item as usize, real(scope.left[*item as usize]))).collect();
        if effort.steadied == Steadied::Yes && self.centre.is_empty() {
            self.centre = resource_worth(model, &items, &scope.left);
            self.centre_bound = 0.0;
        }
        let mut weight = CENTRE_WEIGHT;
        let mut nodes = effort.nodes;
        let until = filler.work + self.master.work;
        let mut round = 0;
        while round < effort.rounds {
            round += 1;
            if filler.work + self.master.work - until > effort.work {
                return Ended::Stopped;
            }
            let own = self.worth(model);
            let steadied = effort.steadied == Steadied::Yes && weight > 0.05;
            let worth: Vec<f64> = if steadied {
                own.iter()
                    .zip(&self.centre)
                    .map(|(own, centre)| weight * centre + (1.0 - weight) * own)
                    .collect()
            } else {
                own.clone()
            };
            let mut order: Vec<usize> =
                (0..model.kinds.len()).filter(|kind| scope.most[*kind] != Some(0)).collect();
            order.sort_by(|a, b| self.ratio[*b].total_cmp(&self.ratio[*a]).then(a.cmp(b)));
            let mut left = scope.left.clone();
            let (mut found, mut useful, mut searched) = (0, 0, 0);
            let mut proven = true;
            let mut highest: f64 = 1.0;
            let depth = if nodes > effort.nodes { Depth::Whole } else { Depth::Rest };
            for kind in order {
                let extra = self.kind_row[kind].map_or(0.0, |row| self.master.prices[row as usize].max(0.0));
                let price = model.kinds[kind].price + extra;
                let above = price * (1.0 + 1e-7) + 1e-9;
                let ask = Ask { kind, items: &items, worth: &worth, left: &scope.left, above, nodes, depth };
                if !self.axis_prices[kind].is_empty() {
                    let bound = filler.bound_at(&ask, &self.axis_prices[kind]);
                    if bound <= above {
                        self.ratio[kind] = bound / price;
                        continue;
                    }
                }
                if found >= effort.columns || searched >= effort.kinds {
                    proven = false;
                    break;
                }
                searched += 1;
                // Patterns that share no items, one after another: together they cover what is worth covering.
                let mut first = true;
                loop {
                    let ask = Ask { left: &left, ..ask };
                    let (fillings, axis_prices) = filler.best(&ask);
                    if first {
                        self.axis_prices[kind].clear();
                        self.axis_prices[kind].extend_from_slice(axis_prices);
                        self.ratio[kind] = fillings.last().map_or(1.0, |(worth, _)| worth / price);
                        highest = highest.max(self.ratio[kind]);
                    }
                    proven &= filler.was_exact();
                    let Some((_, items)) = fillings.last() else { break };
                    let mut any = false;
                    for (_, items) in fillings.iter().rev().take(2) {
                        let pattern = Arc::new(Pattern { kind: small(kind), items: items.clone() });
                        if self.add(model, &pattern) {
                            any = true;
                            found += 1;
                            let value =
                                items.iter().map(|(item, count)| own[*item as usize] * f64::from(*count));
                            useful += usize::from(value.sum::<f64>() > above);
                            new.push(pattern);
                        }
                    }
                    for (item, count) in items {
                        let left = &mut left[*item as usize];
                        *left -= u64::from(*count).min(*left);
                    }
                    first = false;
                    if !any || found >= effort.columns {
                        break;
                    }
                }
            }
            if effort.steadied == Steadied::Yes {
                let bound = demand.iter().map(|(item, count)| worth[*item] * count).sum::<f64>() / highest;
                if bound > self.centre_bound {
                    self.centre_bound = bound;
                    self.centre.clone_from(&worth);
                }
                let whole = |dollars: f64| super::bound::rounded_up(model, dollars * (1.0 - 1e-7));
                if proven && useful > 0 && whole(self.centre_bound) >= whole(self.master.objective()) {
                    let solved = self.master.primal() == Outcome::Optimal;
                    return if solved { Ended::Quiet } else { Ended::Failed };
                }
            }
            if useful == 0 {
                if steadied {
                    // Closer to the program's own prices.
                    weight = if weight > 0.2 { weight - 0.3 } else { 0.0 };
                    if found > 0 && self.master.primal() != Outcome::Optimal {
                        return Ended::Failed;
                    }
                    continue;
                }
                if left != scope.left {
                    // Only known patterns were found: numbers are at their end.
                    return Ended::Quiet;
                }
                if proven {
                    return Ended::Proven;
                }
                if nodes >= effort.nodes_at_most {
                    return Ended::Quiet;
                }
                nodes *= 8;
                continue;
            }
            weight = CENTRE_WEIGHT;
            if self.master.primal() != Outcome::Optimal {
                return Ended::Failed;
            }
        }
        Ended::Stopped
    }

    /// The worth of items with the best bound so far.
    pub(super) fn centre(&self) -> &[f64] {
        &self.centre
    }
}

const CENTRE_WEIGHT: f64 = 0.6;

/// What each axis is worth where bins could be bought by the fraction, for one typical room's share.
pub(super) fn axis_prices(model: &Model, items: &[u32], left: &[u64]) -> Option<Vec<f64>> {
    let demand = demand_by_axis(model, items, left);
    let own: Vec<Column> =
        (0..model.axes).map(|axis| Column { cost: LEFT_OUT, cover: vec![(small(axis), 1.0)] }).collect();
    let mut program = Master::new(&demand, &own);
    for kind in &model.kinds {
        let cover = kind.share.iter().zip(&demand).enumerate();
        program.add(kind.price, cover.map(|(axis, (share, all))| (small(axis), share.min(*all))));
    }
    let optimal = program.primal() == Outcome::Optimal;
    optimal.then(|| program.prices.iter().take(model.axes).map(|price| price.max(0.0)).collect())
}

/// What all items take together, by axis, as shares.
pub(super) fn demand_by_axis(model: &Model, items: &[u32], left: &[u64]) -> Vec<f64> {
    let mut demand = vec![0.0; model.axes];
    for item in items {
        let shares = model.share(*item as usize);
        demand.iter_mut().zip(shares).for_each(|(sum, share)| *sum += share * real(left[*item as usize]));
    }
    demand
}

/// What items are worth when bins could be bought in parts: by what an amount along each axis costs at least.
pub(super) fn resource_worth(model: &Model, items: &[u32], left: &[u64]) -> Vec<f64> {
    let mut worth = vec![0.0; model.items];
    if let Some(prices) = axis_prices(model, items, left) {
        for item in items {
            let shares = model.share(*item as usize).iter().zip(&prices);
            worth[*item as usize] = shares.map(|(share, price)| share * price).sum();
        }
    }
    worth
}
