//! What the demand must cost at least, and what a unit of each resource is worth.
//!
//! Both come from one linear program: buy `x_k` machines of column `k` (room `r_k`, price `p_k`) so that every resource covers the
//! demand `D`, at the lowest price. Its dual gives each resource a price `y` with `r_k · y <= p_k` for every column, and `D · y` is
//! then a lower bound for any plan, fractional or not. The dual is solved in floating point, then brought to integers and checked:
//! an inexact solution costs tightness, never validity. Machines come whole, so `min(r_k, D)` may stand for `r_k`.

use assay_shared::units::UsdPerHour;

use super::Solver;
use super::axes::{Amounts, fits, real};
use super::catalog::Catalog;
use crate::model::ResourceList;

/// Room and price of something to buy.
#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) room: Amounts,
    pub(super) price: UsdPerHour,
}

/// Price per unit of each resource, billionths of a dollar per hour: the dual of covering `demand`.
pub(super) fn dual_prices(columns: &[Column], demand: &[u64]) -> Vec<f64> {
    const EPSILON: f64 = 1e-9;
    let axes: Vec<usize> = (0..demand.len()).filter(|axis| demand[*axis] > 0).collect();
    let (rows, width) = (columns.len(), axes.len());
    let mut prices = vec![0.0; demand.len()];
    // Condensed tableau of: max Σu, Σ (min(room, demand) / demand) u <= price, u >= 0; u is what the whole demand of an axis pays.
    let mut table: Vec<f64> = Vec::with_capacity(rows * (width + 1));
    for column in columns {
        table.extend(
            axes.iter().map(|axis| real(column.room[*axis].min(demand[*axis])) / real(demand[*axis])),
        );
        table.push(real(column.price.0.max(1)));
    }
    let stride = width + 1;
    let mut gain = vec![1.0; width];
    // Variables by number: 0..width are the u, the rest slacks.
    let mut outside: Vec<usize> = (0..width).collect();
    let mut inside: Vec<usize> = (width..width + rows).collect();
    for _ in 0..16 * (width + 4) {
        let entering = (0..width)
            .filter(|j| gain[*j] > EPSILON)
            .max_by(|a, b| gain[*a].total_cmp(&gain[*b]).then(b.cmp(a)));
        let Some(j) = entering else { break };
        let ratio = |i: usize| table[i * stride + width] / table[i * stride + j];
        let limiting = (0..rows).filter(|i| table[i * stride + j] > EPSILON);
        // No column has this resource: nothing can be said about it.
        let Some(i) = limiting.min_by(|a, b| ratio(*a).total_cmp(&ratio(*b))) else {
            gain[j] = 0.0;
            continue;
        };
        let pivot = table[i * stride + j];
        let row: Vec<f64> = table[i * stride..(i + 1) * stride].to_vec();
        for other in 0..rows {
            let factor = table[other * stride + j] / pivot;
            if other == i || factor.abs() < f64::MIN_POSITIVE {
                continue;
            }
            for (cell, row) in table[other * stride..(other + 1) * stride].iter_mut().zip(&row) {
                *cell -= factor * row;
            }
            table[other * stride + j] = -factor;
        }
        for (position, cell) in row.iter().enumerate() {
            table[i * stride + position] = if position == j { 1.0 / pivot } else { cell / pivot };
        }
        let factor = gain[j] / pivot;
        for (position, cell) in gain.iter_mut().enumerate() {
            *cell = if position == j { -factor } else { *cell - factor * row[position] };
        }
        std::mem::swap(&mut outside[j], &mut inside[i]);
    }
    for (row, variable) in inside.iter().enumerate() {
        if let Some(axis) = axes.get(*variable) {
            prices[*axis] = table[row * stride + width].max(0.0) / real(demand[*axis]);
        }
    }
    prices
}

/// `Σ demand · prices` after bringing `prices` into the feasible region exactly; zero where numbers are absurdly large.
fn certified(columns: &[Column], demand: &[u64], prices: &[f64]) -> UsdPerHour {
    const SHIFT: u32 = 40;
    // Non-negative and far below 2^127: prices are below 1e18 per unit.
    #[allow(clippy::cast_possible_truncation)]
    let mut fixed: Vec<i128> = prices.iter().map(|price| (price * (1u64 << SHIFT) as f64) as i128).collect();
    let total = |fixed: &[i128], amounts: &dyn Fn(usize) -> u64| -> Option<i128> {
        fixed
            .iter()
            .enumerate()
            .try_fold(0i128, |sum, (axis, y)| sum.checked_add(y.checked_mul(i128::from(amounts(axis)))?))
    };
    for column in columns {
        let most = i128::from(column.price.0) << SHIFT;
        let Some(worth) = total(&fixed, &|axis| column.room[axis].min(demand[axis])) else {
            return UsdPerHour::ZERO;
        };
        if worth > most {
            // Scaling down keeps every earlier column feasible, and rounding down only helps. Forty bits of the ratio are
            // enough, and leave room for the product: a pod slot alone may be worth 2^60.
            let spare = (i128::BITS - worth.leading_zeros()).saturating_sub(40);
            let (over, under) = (most >> spare, (worth >> spare) + 1);
            for y in &mut fixed {
                let Some(product) = y.checked_mul(over) else { return UsdPerHour::ZERO };
                *y = product / under;
            }
        }
    }
    let bound = total(&fixed, &|axis| demand[axis]).map_or(0, |sum| sum >> SHIFT);
    UsdPerHour(u64::try_from(bound).unwrap_or(0))
}

/// Pods of one kind that machines are bought for.
#[derive(Debug)]
pub(super) struct Demand {
    pub(super) requests: Amounts,
    pub(super) count: u64,
    /// Offerings they may use, by shape.
    pub(super) masks: Vec<u64>,
}

impl Solver {
    /// What each of these amounts is worth by the dual prices of covering all of them.
    pub(super) fn worth(&self, amounts: &[ResourceList]) -> Vec<f64> {
        let catalog = &self.catalog;
        let amounts: Vec<Amounts> = amounts.iter().map(|list| catalog.axes.amounts(list)).collect();
        let mut total = Amounts::from_elem(0, catalog.axes.len());
        for one in &amounts {
            total.iter_mut().zip(one).for_each(|(sum, amount)| *sum = sum.saturating_add(*amount));
        }
        let columns = catalog.shapes.iter().filter_map(|shape| {
            let price = shape.list_price(shape.available & shape.paid)?;
            Some(Column { room: shape.room.clone(), price })
        });
        let prices = dual_prices(&columns.collect::<Vec<_>>(), &total);
        let worth =
            |one: &Amounts| one.iter().zip(&prices).map(|(amount, price)| real(*amount) * price).sum();
        amounts.iter().map(worth).collect()
    }
}

/// No plan can place these pods on new machines for less.
pub(super) fn lower_bound(catalog: &Catalog, demands: &[Demand]) -> UsdPerHour {
    components(catalog, demands).into_iter().map(|members| bound_of(catalog, &members)).sum()
}

/// Demands that share shapes, directly or through others: machines are never shared between components.
fn components<'d>(catalog: &Catalog, demands: &'d [Demand]) -> Vec<Vec<&'d Demand>> {
    let mut component: Vec<Option<usize>> = vec![None; catalog.shapes.len()];
    let mut members: Vec<Vec<&Demand>> = Vec::new();
    for demand in demands.iter().filter(|demand| demand.count > 0) {
        let target = members.len();
        members.push(vec![demand]);
        let shapes = (0..catalog.shapes.len()).filter(|shape| demand.masks[*shape] != 0);
        let touched: Vec<usize> = shapes.clone().filter_map(|shape| component[shape]).collect();
        for shape in shapes {
            component[shape] = Some(target);
        }
        for old in touched {
            let moved = std::mem::take(&mut members[old]);
            if old != target {
                members[target].extend(moved);
            } else {
                members[target] = moved;
            }
        }
        for slot in &mut component {
            if slot.is_some_and(|slot| members[slot].is_empty()) {
                *slot = Some(target);
            }
        }
    }
    members.retain(|members| !members.is_empty());
    members
}

fn bound_of(catalog: &Catalog, demands: &[&Demand]) -> UsdPerHour {
    let mut total: Amounts = Amounts::from_elem(0, catalog.axes.len());
    for demand in demands {
        for (total, one) in total.iter_mut().zip(&demand.requests) {
            *total = total.saturating_add(one.saturating_mul(demand.count));
        }
    }
    let usable = |shape: usize, mask: u64| {
        let shape = &catalog.shapes[shape];
        Some(Column { room: shape.room.clone(), price: shape.list_price(mask)? })
    };
    let columns: Vec<Column> = (0..catalog.shapes.len())
        .filter_map(|shape| usable(shape, demands.iter().fold(0, |mask, demand| mask | demand.masks[shape])))
        .collect();
    let fractional = certified(&columns, &total, &dual_prices(&columns, &total));
    // The dearest single pod needs a whole machine, whatever else shares it.
    let whole = demands.iter().filter_map(|demand| {
        let shapes =
            (0..catalog.shapes.len()).filter(|shape| fits(&demand.requests, &catalog.shapes[*shape].room));
        shapes.filter_map(|shape| catalog.shapes[shape].list_price(demand.masks[shape])).min()
    });
    whole.max().map_or(fractional, |whole| whole.max(fractional))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inexact_prices_cost_tightness_and_no_more() {
        // Machines of 250 slots for a dollar, 10,000 pods that fill nothing but slots.
        let room = Amounts::from_slice(&[250]);
        let columns = [Column { room, price: UsdPerHour(1_000_000_000) }];
        for excess in [0.0, 1e-9, 1e-3] {
            let bound = certified(&columns, &[10_000], &[4e6 * (1.0 + excess)]);
            assert!(bound <= UsdPerHour(40_000_000_000), "{bound:?} is not below what 40 machines cost");
            assert!(bound >= UsdPerHour(39_999_999_000), "{bound:?} says next to nothing");
        }
    }
}
