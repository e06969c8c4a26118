//! The linear program over known patterns: cover every row's demand at the lowest price.
//!
//! A revised simplex with an explicit dense inverse, kept by columns: a few hundred rows, short sparse columns. The primal method
//! takes in new columns, the dual method a changed demand; both keep the inverse, so that a step costs a pivot and no more.

/// A column: what it costs and how much it covers, by row.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) cost: f64,
    pub(super) cover: Vec<(u32, f64)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Variable {
    Column(u32),
    /// What is covered beyond the demand of a row.
    Surplus(u32),
}

/// How a solve ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Optimal,
    /// No solution, numbers that went wrong, or no work left.
    GaveUp,
}

/// Columns one after another in memory: they are looked at far more often than they change.
#[derive(Debug, Clone, Default)]
struct Columns {
    cost: Vec<f64>,
    /// Where a column ends.
    end: Vec<usize>,
    cover: Vec<(u32, f64)>,
}

impl Columns {
    fn len(&self) -> usize {
        self.cost.len()
    }

    fn push(&mut self, cost: f64, cover: impl Iterator<Item = (u32, f64)>) {
        self.cost.push(cost);
        self.cover.extend(cover);
        self.end.push(self.cover.len());
    }

    fn cover(&self, column: usize) -> &[(u32, f64)] {
        let start = if column == 0 { 0 } else { self.end[column - 1] };
        &self.cover[start..self.end[column]]
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Master {
    rows: usize,
    columns: Columns,
    demand: Vec<f64>,
    /// The same, each a little off: equal ratios, of which whole numbers have many, would let the method turn in circles.
    shifted: Vec<f64>,
    /// Inverse of the basis, by columns.
    inverse: Vec<f64>,
    pub(super) basis: Vec<Variable>,
    /// Values of the basic variables.
    pub(super) value: Vec<f64>,
    /// Price of one unit of each row.
    pub(super) prices: Vec<f64>,
    basic: Vec<bool>,
    pivots: usize,
    /// Scratch: a column in terms of the basis.
    direction: Vec<f64>,
    /// Multiplications done since last asked.
    pub(super) work: u64,
}

const EPSILON: f64 = 1e-9;
/// Pivots between two inversions from scratch.
const REINVERT_AFTER: usize = 400;

impl Master {
    /// Starts with one column per row that covers only this row; `columns[row]` must be it. Rows beyond the columns say how much may
    /// be used at most: their demand is negative, and so is what columns cover of them.
    pub(super) fn new(demand: &[f64], own: &[Column]) -> Self {
        let rows = demand.len();
        let mut columns = Columns::default();
        own.iter().for_each(|column| columns.push(column.cost, column.cover.iter().copied()));
        let mut master = Self {
            rows,
            demand: demand.to_vec(),
            shifted: shifted(demand),
            inverse: vec![0.0; rows * rows],
            basis: (0..rows)
                .map(|row| {
                    let number = super::model::small(row);
                    if row < columns.len() { Variable::Column(number) } else { Variable::Surplus(number) }
                })
                .collect(),
            value: vec![0.0; rows],
            prices: vec![0.0; rows],
            basic: vec![false; columns.len()],
            columns,
            pivots: 0,
            direction: vec![0.0; rows],
            work: 0,
        };
        for (row, demand) in shifted(demand).iter().enumerate() {
            if row >= master.columns.len() {
                master.inverse[row * rows + row] = -1.0;
                master.value[row] = -demand;
                continue;
            }
            let own = master.columns.cover(row).first().map_or(1.0, |(_, amount)| *amount);
            master.inverse[row * rows + row] = 1.0 / own;
            master.value[row] = demand / own;
            master.prices[row] = master.columns.cost[row] / own;
            master.basic[row] = true;
        }
        master
    }

    /// Takes in a column.
    pub(super) fn add(&mut self, cost: f64, cover: impl Iterator<Item = (u32, f64)>) {
        self.columns.push(cost, cover);
        self.basic.push(false);
    }

    pub(super) fn objective(&self) -> f64 {
        self.demand.iter().zip(&self.prices).map(|(demand, price)| demand * price).sum()
    }

    fn reduced_cost(&self, column: usize) -> f64 {
        let cover = self.columns.cover(column).iter();
        cover
            .fold(self.columns.cost[column], |left, (row, amount)| left - self.prices[*row as usize] * amount)
    }

    /// Forgets the columns that cost at least `most` more than they are worth; `moved` gives the new number of each column.
    pub(super) fn forget(&mut self, most: f64) -> Vec<Option<u32>> {
        let keep: Vec<bool> = (0..self.columns.len())
            .map(|column| self.basic[column] || self.reduced_cost(column) < most)
            .collect();
        let mut columns = Columns::default();
        let mut moved = vec![None; keep.len()];
        for (column, _) in keep.iter().enumerate().filter(|(_, keep)| **keep) {
            moved[column] = Some(super::model::small(columns.len()));
            columns.cost.push(self.columns.cost[column]);
            columns.cover.extend_from_slice(self.columns.cover(column));
            columns.end.push(columns.cover.len());
        }
        let mut basic = keep.iter().zip(&self.basic);
        self.basic = basic.by_ref().filter(|(keep, _)| **keep).map(|(_, basic)| *basic).collect();
        for variable in &mut self.basis {
            if let Variable::Column(column) = variable {
                // Basic columns are kept.
                *column = moved[*column as usize].unwrap_or(*column);
            }
        }
        self.columns = columns;
        moved
    }

    /// The column of a variable in terms of the basis, into `direction`.
    fn solve_direction(&mut self, variable: Variable) {
        let rows = self.rows;
        self.direction.fill(0.0);
        let direction = &mut self.direction;
        let mut add = |row: usize, amount: f64| {
            let inverse = &self.inverse[row * rows..(row + 1) * rows];
            direction.iter_mut().zip(inverse).for_each(|(cell, inverse)| *cell += amount * inverse);
        };
        match variable {
            Variable::Surplus(row) => {
                add(row as usize, -1.0);
                self.work += rows as u64;
            }
            Variable::Column(column) => {
                let cover = self.columns.cover(column as usize);
                cover.iter().for_each(|(row, amount)| add(*row as usize, *amount));
                self.work += (rows * cover.len()) as u64;
            }
        }
    }

    /// Exchanges the basic variable of `leaving` for `entering`, whose column is in `direction`.
    fn pivot(&mut self, leaving: usize, entering: Variable, reduced: f64) {
        let rows = self.rows;
        let pivot = self.direction[leaving];
        let step = self.value[leaving] / pivot;
        for (value, direction) in self.value.iter_mut().zip(&self.direction) {
            *value -= step * direction;
        }
        self.value[leaving] = step;
        for column in 0..rows {
            let inverse = &mut self.inverse[column * rows..(column + 1) * rows];
            let factor = inverse[leaving] / pivot;
            if factor.abs() < 1e-14 {
                inverse[leaving] = 0.0;
                continue;
            }
            self.prices[column] += reduced * factor;
            for (cell, direction) in inverse.iter_mut().zip(&self.direction) {
                *cell -= factor * direction;
            }
            inverse[leaving] = factor;
            self.work += rows as u64;
        }
        self.mark(self.basis[leaving], false);
        self.mark(entering, true);
        self.basis[leaving] = entering;
        self.pivots += 1;
        if self.pivots >= REINVERT_AFTER {
            self.reinvert();
        }
    }

    /// Whether prices are off: what is in use costs exactly what it is worth.
    fn has_drifted(&self) -> bool {
        self.basis.iter().any(|variable| match variable {
            Variable::Surplus(row) => self.prices[*row as usize].abs() > 1e-7,
            Variable::Column(column) => {
                let column = *column as usize;
                self.reduced_cost(column).abs() > 1e-7 * (1.0 + self.columns.cost[column].abs())
            }
        })
    }

    fn mark(&mut self, variable: Variable, basic: bool) {
        if let Variable::Column(column) = variable {
            self.basic[column as usize] = basic;
        }
    }

    /// Recomputes inverse, values and prices from the basis. Keeps the old ones where the basis turns out singular.
    fn reinvert(&mut self) {
        self.pivots = 0;
        let rows = self.rows;
        let mut inverse = vec![0.0; rows * rows];
        (0..rows).for_each(|row| inverse[row * rows + row] = 1.0);
        let mut basis: Vec<Option<Variable>> = vec![None; rows];
        let mut direction = vec![0.0; rows];
        // Short columns first: they fill in least.
        let mut order: Vec<Variable> = self.basis.clone();
        order.sort_by_key(|variable| match variable {
            Variable::Surplus(row) => (0, *row),
            Variable::Column(column) => (self.columns.cover(*column as usize).len(), *column),
        });
        for variable in order {
            direction.fill(0.0);
            let surplus;
            let cover: &[(u32, f64)] = match variable {
                Variable::Surplus(row) => {
                    surplus = [(row, -1.0)];
                    &surplus
                }
                Variable::Column(column) => self.columns.cover(column as usize),
            };
            for (row, amount) in cover {
                let row = *row as usize;
                let column = &inverse[row * rows..(row + 1) * rows];
                direction.iter_mut().zip(column).for_each(|(cell, inverse)| *cell += amount * inverse);
            }
            let free = (0..rows).filter(|row| basis[*row].is_none());
            let Some(leaving) =
                free.max_by(|a, b| direction[*a].abs().total_cmp(&direction[*b].abs()).then(b.cmp(a)))
            else {
                return;
            };
            let pivot = direction[leaving];
            if pivot.abs() < 1e-8 {
                return;
            }
            for column in inverse.chunks_exact_mut(rows) {
                let factor = column[leaving] / pivot;
                if factor.abs() < 1e-14 {
                    column[leaving] = 0.0;
                    continue;
                }
                column.iter_mut().zip(&direction).for_each(|(cell, direction)| *cell -= factor * direction);
                column[leaving] = factor;
                self.work += rows as u64;
            }
            basis[leaving] = Some(variable);
        }
        self.basis = basis.into_iter().flatten().collect();
        self.inverse = inverse;
        self.recompute();
    }

    fn recompute(&mut self) {
        let rows = self.rows;
        self.value.fill(0.0);
        for (column, demand) in self.inverse.chunks_exact(rows.max(1)).zip(&self.shifted) {
            if demand.abs() > 0.0 {
                self.value.iter_mut().zip(column).for_each(|(value, cell)| *value += demand * cell);
            }
        }
        let cost = |variable: &Variable| match variable {
            Variable::Column(column) => self.columns.cost[*column as usize],
            Variable::Surplus(_) => 0.0,
        };
        let costs: Vec<f64> = self.basis.iter().map(cost).collect();
        for (column, price) in self.inverse.chunks_exact(rows.max(1)).zip(&mut self.prices) {
            *price = column.iter().zip(&costs).map(|(cell, cost)| cell * cost).sum();
        }
        self.work += 2 * (rows * rows) as u64;
    }

    /// Improves until no known column does; the values must be non-negative.
    pub(super) fn primal(&mut self) -> Outcome {
        for _ in 0..50 * (self.rows + 10) {
            let mut best = (-EPSILON, None);
            for index in 0..self.columns.len() {
                if self.basic[index] {
                    continue;
                }
                let reduced = self.reduced_cost(index);
                if reduced < best.0 {
                    best = (reduced, Some(Variable::Column(super::model::small(index))));
                }
            }
            for (row, price) in self.prices.iter().enumerate() {
                if *price < best.0 {
                    best = (*price, Some(Variable::Surplus(super::model::small(row))));
                }
            }
            self.work += 4 * self.columns.len() as u64;
            let (reduced, Some(entering)) = best else {
                if self.has_drifted() {
                    self.reinvert();
                    if !self.has_drifted() {
                        continue;
                    }
                }
                return Outcome::Optimal;
            };
            self.solve_direction(entering);
            let mut leaving: Option<(f64, usize)> = None;
            for row in 0..self.rows {
                let direction = self.direction[row];
                if direction > 1e-7 {
                    let ratio = self.value[row].max(0.0) / direction;
                    let better = leaving.is_none_or(|(least, at)| {
                        ratio < least - 1e-12 || (ratio < least + 1e-12 && direction > self.direction[at])
                    });
                    if better {
                        leaving = Some((ratio, row));
                    }
                }
            }
            let Some((_, leaving)) = leaving else { return Outcome::GaveUp };
            self.pivot(leaving, entering, reduced);
        }
        Outcome::GaveUp
    }

    /// Sets the demand and restores non-negative values; prices must be those of an optimum.
    pub(super) fn set_demand(&mut self, demand: &[f64]) -> Outcome {
        self.demand.clear();
        self.demand.extend_from_slice(demand);
        self.shifted = shifted(demand);
        self.recompute();
        let mut across = vec![0.0; self.rows];
        for _ in 0..20 * (self.rows + 10) {
            let mut worst = (-1e-7, None);
            for (row, value) in self.value.iter().enumerate() {
                if *value < worst.0 {
                    worst = (*value, Some(row));
                }
            }
            let (_, Some(leaving)) = worst else { return Outcome::Optimal };
            for (cell, column) in across.iter_mut().zip(self.inverse.chunks_exact(self.rows)) {
                *cell = column[leaving];
            }
            let mut best: Option<(f64, f64, Variable)> = None;
            let mut consider = |reduced: f64, pivot: f64, variable: Variable| {
                if pivot < -1e-7 {
                    let ratio = reduced.max(0.0) / -pivot;
                    if best.is_none_or(|(least, strongest, _)| {
                        ratio < least - 1e-10 || (ratio < least + 1e-10 && pivot < strongest)
                    }) {
                        best = Some((ratio, pivot, variable));
                    }
                }
            };
            for index in 0..self.columns.len() {
                if self.basic[index] {
                    continue;
                }
                let pivot: f64 = self
                    .columns
                    .cover(index)
                    .iter()
                    .map(|(row, amount)| across[*row as usize] * amount)
                    .sum();
                if pivot < -1e-7 {
                    let reduced = self.reduced_cost(index);
                    consider(reduced, pivot, Variable::Column(super::model::small(index)));
                }
            }
            for (row, cell) in across.iter().enumerate() {
                consider(self.prices[row], -cell, Variable::Surplus(super::model::small(row)));
            }
            self.work += 6 * self.columns.len() as u64;
            let Some((_, _, entering)) = best else { return Outcome::GaveUp };
            let reduced = match entering {
                Variable::Surplus(row) => self.prices[row as usize],
                Variable::Column(column) => self.reduced_cost(column as usize),
            };
            self.solve_direction(entering);
            if self.direction[leaving] > -1e-9 {
                return Outcome::GaveUp;
            }
            self.pivot(leaving, entering, reduced);
        }
        Outcome::GaveUp
    }
}

/// Each demand up to a part in a million larger, differently by row.
fn shifted(demand: &[f64]) -> Vec<f64> {
    let by_row = |(row, demand): (usize, &f64)| {
        let spread = super::model::real((row as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 44)
            / super::model::real(1 << 20);
        demand * (1.0 + 1e-6 * (0.1 + spread))
    };
    demand.iter().enumerate().map(by_row).collect()
}
