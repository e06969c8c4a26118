//! A lower bound from whole bins: the cheapest choice of bins that together have room for the sum of all items.
//!
//! The linear program buys bins by the fraction; where a handful of bins is all it takes, whole ones cost several per cent more.
//! What items do inside the bins is left aside, so this holds for every packing. Rows are what a packing must cover: each axis,
//! and any worth of items, of which a bin covers no more than its best filling is worth.
//!
//! Choices are searched depth first, dearest bins first, below a cost that is raised step by step; the last step that was
//! searched to its end is the bound. What is uncovered costs at least what covering it along one weighing of the rows would, a
//! knapsack that is tabled beforehand.

use super::generate::{LEFT_OUT, Scope, demand_by_axis};
use super::master::{Column, Master, Outcome};
use super::model::{Model, real, small};

/// What packings must cover: by all items together, and by kind of bin at most.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) demand: f64,
    pub(super) most: Vec<f64>,
}

/// Units of a table, along a whole demand.
const UNITS: usize = 2_048;
/// The same where a rough table will do.
const COARSE_UNITS: usize = 256;
/// With more bins, whole ones cost hardly more than fractions.
const BINS_AT_MOST: usize = 48;
/// Off what is to be covered, relatively: far more than arithmetic loses.
const MARGIN: f64 = 1e-9;
/// Kinds of which one costs less than one part in so many of everything are not chosen one by one.
const DEAR: [u64; 2] = [16, 200];
/// Steps from the linear bound to the best packing known.
const STAGES: u64 = 12;

/// The cheapest covering of one weighing of rows, by how much is to be covered.
struct Table {
    weights: Vec<f64>,
    /// By kind: units that it covers, rounded up.
    units: Vec<usize>,
    unit: f64,
    cost: Vec<u64>,
    /// What a unit costs at least, however bins are bought, in billionths of a dollar.
    rate: f64,
}

struct Search<'a> {
    rows: &'a [Row],
    /// Dearest first.
    kinds: Vec<usize>,
    /// How many of them are chosen one by one; the others, cheaper ones, cost at least what `cheap` says.
    dear: usize,
    price: Vec<u64>,
    tables: Vec<Table>,
    cheap: Vec<Table>,
    limit: u64,
    /// The least cost above the limit that was met.
    next: u64,
    /// Choices that are kept, at most, and those found: cheapest first.
    keep: usize,
    found: Vec<(u64, Vec<usize>)>,
    /// Bins of the choice that is looked at.
    chosen: Vec<usize>,
    work: u64,
    steps: u64,
}

impl<'a> Search<'a> {
    /// `None` where rows say nothing.
    fn new(
        model: &Model,
        rows: &'a [Row],
        most: &[Option<u64>],
        units: usize,
        dear: u64,
        steps: u64,
    ) -> Option<Self> {
        let open = || (0..model.kinds.len()).filter(|kind| most[*kind] != Some(0));
        let mut kinds: Vec<usize> = open().collect();
        kinds.sort_by(|a, b| model.kinds[*b].nano.cmp(&model.kinds[*a].nano).then(a.cmp(b)));
        if kinds.is_empty() || open().any(|kind| model.kinds[kind].nano == 0) {
            return None;
        }
        let mut search = Search {
            rows,
            price: model.kinds.iter().map(|kind| kind.nano).collect(),
            dear: kinds.iter().filter(|kind| model.kinds[**kind].nano >= dear).count(),
            kinds,
            tables: Vec::new(),
            cheap: Vec::new(),
            limit: 0,
            next: u64::MAX,
            keep: 1,
            found: Vec::new(),
            chosen: Vec::new(),
            work: 0,
            steps,
        };
        for weights in search.weighings(0) {
            let table = search.table(weights, units, 0);
            search.tables.extend(table);
        }
        if search.dear < search.kinds.len() {
            for weights in search.weighings(search.dear) {
                let table = search.table(weights, units, search.dear);
                search.cheap.extend(table);
            }
        }
        (!search.tables.is_empty()).then_some(search)
    }
}

/// The sum of what is in scope, by axis, with so much room to spare.
pub(super) fn axes(model: &Model, scope: &Scope, spare: f64) -> Vec<Row> {
    let demand = demand_by_axis(model, &scope.items, &scope.left);
    let most = |axis: usize| model.kinds.iter().map(|kind| kind.share[axis]).collect();
    let rows = demand.into_iter().enumerate().filter(|(_, demand)| *demand > 0.0);
    rows.map(|(axis, demand)| Row { demand: demand * (1.0 + spare), most: most(axis) }).collect()
}

/// No choice of bins that covers all rows costs less than this, in billionths of a dollar; also the steps done.
///
/// `known` is what some packing costs: the bound is not taken higher.
pub(super) fn bound(model: &Model, rows: &[Row], most: &[Option<u64>], known: u64, steps: u64) -> (u64, u64) {
    let rows: Vec<Row> = rows.iter().filter(|row| row.demand > 0.0).cloned().collect();
    let demand: Vec<f64> = rows.iter().map(|row| row.demand * (1.0 - MARGIN)).collect();
    let round = |nano: u64| nano.div_ceil(model.price_step).saturating_mul(model.price_step);
    // Tables are worth a part of the work, no more.
    let cells = (model.kinds.len() * (rows.len() + 8)) as u64;
    let units = usize::try_from(steps / 8 / cells.max(1)).unwrap_or(UNITS).min(UNITS);
    if units < COARSE_UNITS {
        return (0, 0);
    }
    let (mut best, mut work) = (0, 0);
    let mut known = known;
    if known == u64::MAX {
        let Some(rough) = Search::new(model, &rows, most, COARSE_UNITS, 0, 0) else { return (0, 0) };
        work += rough.work;
        known = known.min(rough.at_least(&demand)).saturating_mul(2);
    }
    // First only the dearest kinds are chosen one by one.
    for part in DEAR {
        let left = (steps - steps.min(work)) / 2;
        let Some(mut search) = Search::new(model, &rows, most, units, known / part, left) else {
            return (best, work);
        };
        best = round(search.at_least(&demand).max(best));
        // Whole bins are never that much dearer.
        let known = known.min(best.saturating_add(best / 2));
        let stage = (known.saturating_sub(best) / STAGES).max(model.price_step);
        while best < known {
            search.limit = best.saturating_add(stage).min(known - 1);
            search.next = u64::MAX;
            if !search.descend(0, &demand, 0) {
                break;
            }
            if let Some((cost, _)) = search.found.first() {
                best = best.max(round(*cost));
                break;
            }
            best = best.max(round(search.next.min(known)));
        }
        best = best.min(known);
        work += search.work;
    }
    (best, work)
}

/// The cheapest choices of bins that cover all rows and cost less than `below`, a few of them; also the steps done.
pub(super) fn cheapest(
    model: &Model,
    rows: &[Row],
    most: &[Option<u64>],
    below: u64,
    few: usize,
    steps: u64,
) -> (Vec<Vec<usize>>, u64) {
    let Some(mut search) = Search::new(model, rows, most, COARSE_UNITS, 0, steps) else {
        return (Vec::new(), 0);
    };
    let demand: Vec<f64> = rows.iter().map(|row| row.demand).collect();
    let least = search.at_least(&demand);
    search.keep = few;
    // First what is much cheaper: the search is short where there is nothing.
    for part in [8, 4, 2, 1] {
        if least >= below || !search.found.is_empty() {
            break;
        }
        search.limit = least + (below - 1 - least) / part;
        if !search.descend(0, &demand, 0) {
            break;
        }
    }
    (search.found.into_iter().map(|(_, bins)| bins).collect(), search.work)
}

impl Search<'_> {
    /// Weighings of rows that are right for some amounts: those of the linear program for all, and for less along each row.
    fn weighings(&mut self, from: usize) -> Vec<Vec<f64>> {
        let rows = self.rows.len();
        // Each row alone, too.
        let alone = |row: usize| {
            (0..rows).map(|other| f64::from(u8::from(other == row)) / self.rows[row].demand).collect()
        };
        let mut found: Vec<Vec<f64>> = (0..rows).map(alone).collect();
        let scales = [1.0, 0.6, 0.25];
        for scaled in 0..rows {
            for scale in scales {
                // Nothing scaled: the same for every row.
                if scale > 0.99 && scaled > 0 {
                    continue;
                }
                let demand = |row: usize| self.rows[row].demand * if row == scaled { scale } else { 1.0 };
                let demand: Vec<f64> = (0..rows).map(demand).collect();
                let Some(weights) =
                    weights_of(&self.kinds[from..], &self.price, self.rows, &demand, &mut self.work)
                else {
                    continue;
                };
                let same = |other: &Vec<f64>| {
                    other.iter().zip(&weights).all(|(a, b)| (a - b).abs() <= 1e-6 * a.abs().max(b.abs()))
                };
                if !found.iter().any(same) {
                    found.insert(0, weights);
                }
            }
        }
        found
    }

    fn table(&mut self, weights: Vec<f64>, most: usize, from: usize) -> Option<Table> {
        let weigh = |amount: &dyn Fn(usize) -> f64| -> f64 {
            weights.iter().enumerate().map(|(row, weight)| weight * amount(row)).sum()
        };
        let all = weigh(&|row| self.rows[row].demand);
        if all <= 0.0 {
            return None;
        }
        let unit = all / real(most as u64);
        let units: Vec<usize> = (0..self.price.len())
            .map(|kind| {
                let covers = weigh(&|row| self.rows[row].most[kind]);
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // small, not negative
                let units = (covers / unit * (1.0 + MARGIN)).ceil() as usize;
                units.min(most)
            })
            .collect();
        let mut cost = vec![0_u64; most + 1];
        for amount in 1..=most {
            let with = |kind: &usize| {
                let covers = units[*kind];
                if covers == 0 {
                    u64::MAX
                } else {
                    cost[amount.saturating_sub(covers)].saturating_add(self.price[*kind])
                }
            };
            cost[amount] = self.kinds[from..].iter().map(with).min().unwrap_or(u64::MAX);
        }
        self.work += (most * self.kinds.len()) as u64;
        // No kind gives more than this for its price.
        let gives = |kind: &usize| {
            weigh(&|row| self.rows[row].most[*kind].min(self.rows[row].demand)) / real(self.price[*kind])
        };
        let most = self.kinds[from..].iter().map(gives).fold(f64::MIN_POSITIVE, f64::max);
        let rate = unit / most * (1.0 - MARGIN);
        Some(Table { weights, units, unit, cost, rate })
    }

    /// What covering the rest costs at least.
    fn at_least(&self, rest: &[f64]) -> u64 {
        self.tables.iter().map(|table| table.at_least(rest)).max().unwrap_or(0)
    }

    /// Looks at every choice below the limit; false where work ran out.
    fn descend(&mut self, from: usize, rest: &[f64], cost: u64) -> bool {
        self.work += 3 * (self.kinds.len() - from) as u64 + 20;
        if self.work > self.steps || self.chosen.len() == BINS_AT_MOST {
            return false;
        }
        if self.dear < self.kinds.len() {
            // Nothing dear any more.
            let rest = self.cheap.iter().map(|table| table.at_least(rest)).max().unwrap_or(0);
            let least = cost.saturating_add(rest);
            if least > self.limit {
                self.next = self.next.min(least);
            } else {
                self.keep_found(least);
            }
        }
        let first = self.tables.first().map_or(0.0, |table| table.amount(rest));
        let mut left = vec![0.0; rest.len()];
        for at in from..self.dear {
            let kind = self.kinds[at];
            let with = cost + self.price[kind];
            // The first table alone rules out most.
            if let Some(table) = self.tables.first() {
                let least = with.saturating_add(table.costs(first - real(table.units[kind] as u64)));
                if least > self.limit {
                    self.next = self.next.min(least);
                    continue;
                }
            }
            let mut covered = true;
            for ((left, rest), row) in left.iter_mut().zip(rest).zip(self.rows) {
                *left = rest - row.most[kind];
                covered &= *left <= 0.0;
            }
            self.work += (self.tables.len() * rest.len() * 2) as u64;
            if covered {
                self.chosen.push(kind);
                self.keep_found(with);
                self.chosen.pop();
                continue;
            }
            let least = with.saturating_add(self.at_least(&left));
            if least > self.limit {
                self.next = self.next.min(least);
                continue;
            }
            let left = left.clone();
            self.chosen.push(kind);
            let done = self.descend(at, &left, with);
            self.chosen.pop();
            if !done {
                return false;
            }
        }
        true
    }
}

/// What one unit of each row costs where bins are bought by the fraction, for some demand.
pub(super) fn weights(
    model: &Model,
    kinds: &[usize],
    rows: &[Row],
    demand: &[f64],
    work: &mut u64,
) -> Option<Vec<f64>> {
    let price: Vec<u64> = model.kinds.iter().map(|kind| kind.nano).collect();
    weights_of(kinds, &price, rows, demand, work)
}

fn weights_of(
    kinds: &[usize],
    price: &[u64],
    rows: &[Row],
    demand: &[f64],
    work: &mut u64,
) -> Option<Vec<f64>> {
    let own: Vec<Column> = (0..rows.len())
        .map(|row| Column { cost: LEFT_OUT, cover: vec![(small(row), demand[row].max(1e-9))] })
        .collect();
    let mut program = Master::new(demand, &own);
    for kind in kinds {
        let cover = rows.iter().zip(demand).enumerate();
        let cover = cover.map(|(row, (one, all))| (small(row), one.most[*kind].min(*all)));
        program.add(real(price[*kind]) / 1e9, cover);
    }
    let outcome = program.primal();
    *work += program.work;
    (outcome == Outcome::Optimal).then(|| program.prices.iter().map(|price| price.max(0.0)).collect())
}

impl Search<'_> {
    /// Takes note of the present choice, which costs so much; what costs more than those kept is of no more interest.
    fn keep_found(&mut self, cost: u64) {
        let at = self.found.partition_point(|(other, _)| *other <= cost);
        self.found.insert(at, (cost, self.chosen.clone()));
        self.found.truncate(self.keep);
        if let Some((worst, _)) = self.found.get(self.keep - 1) {
            self.limit = self.limit.min(worst.saturating_sub(1));
        }
    }
}

impl Table {
    /// Units of the rest.
    fn amount(&self, rest: &[f64]) -> f64 {
        let amount: f64 = self.weights.iter().zip(rest).map(|(weight, rest)| weight * rest.max(0.0)).sum();
        amount / self.unit * (1.0 - MARGIN)
    }

    /// What so many units cost at least: in whole bins, which are rounded up to units, and by the fraction.
    fn costs(&self, units: f64) -> u64 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative, at most the table
        let (whole, linear) = (units.max(0.0).floor() as usize, (units * self.rate).max(0.0).floor() as u64);
        self.cost[whole.min(self.cost.len() - 1)].max(linear)
    }

    fn at_least(&self, rest: &[f64]) -> u64 {
        self.costs(self.amount(rest))
    }
}
