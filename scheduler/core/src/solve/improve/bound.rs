//! A lower bound from the worth of items, whatever worth that is.
//!
//! If no filling of any kind of bin is worth more than `r` times its price, then no packing costs less than the worth of all items
//! divided by `r` (Farley's bound). The best filling is found exactly where the search ends within its nodes, and bounded by its
//! linear relaxation otherwise. Sums are of non-negative numbers, a few thousand at most, so that their error is far below the
//! margin of one part in 10^8 that is taken off; at last the bound is rounded up to what prices can add up to.

use super::fill::{Ask, Depth, Filler};
use super::generate::Scope;
use super::model::{Model, Pattern, real, small};

/// Off relative and absolute error, each many times over what arithmetic can lose.
const MARGIN: f64 = 1e-8;

/// No packing of what is in scope costs less than this, in billionths of a dollar per hour.
///
/// Also returns fillings that are worth more than they cost. `worth` is by item, `limit_price` by kind: what one more of a limited kind would save.
pub(super) fn certified(
    model: &Model,
    scope: &Scope,
    filler: &mut Filler<'_>,
    worth: &[f64],
    limit_price: &[f64],
    nodes: u64,
) -> (u64, Vec<Pattern>) {
    let Fillings { most, better } = fillings(model, scope, filler, worth, limit_price, nodes);
    let mut ratio: f64 = 1.0;
    for (kind, limit) in limit_price.iter().enumerate().filter(|(kind, _)| scope.most[*kind] != Some(0)) {
        let price = model.kinds[kind].price;
        if price <= 0.0 {
            return (0, better);
        }
        ratio = ratio.max((most[kind] - limit) / price);
    }
    let limits =
        scope.most.iter().zip(limit_price).map(|(most, limit)| most.map_or(0.0, |most| limit * real(most)));
    let total = worth_of_all(scope, worth) - limits.sum::<f64>() * (1.0 + MARGIN);
    (rounded_up(model, total / ratio * (1.0 - MARGIN)), better)
}

/// What everything in scope is worth, and no more.
pub(super) fn worth_of_all(scope: &Scope, worth: &[f64]) -> f64 {
    let items = scope.items.iter().map(|item| worth[*item as usize] * real(scope.left[*item as usize]));
    items.sum::<f64>() * (1.0 - MARGIN)
}

/// Fillings of bins by what they are worth.
#[derive(Debug)]
pub(super) struct Fillings {
    /// By kind: no filling is worth more.
    pub(super) most: Vec<f64>,
    /// Fillings that are worth more than they cost.
    pub(super) better: Vec<Pattern>,
}

/// What a filling of one kind of bin is worth at most, by the linear relaxation.
pub(super) fn relaxed(
    model: &Model,
    scope: &Scope,
    filler: &mut Filler<'_>,
    worth: &[f64],
    kind: usize,
) -> f64 {
    let above = f64::INFINITY;
    let (items, left) = (&scope.items, &scope.left);
    filler.best(&Ask { kind, items, worth, left, above, nodes: 0, depth: Depth::Whole });
    filler.relaxed() * (1.0 + MARGIN) + MARGIN * model.kinds[kind].price.min(1e-3)
}

/// The best filling of each kind of bin, by the worth of items.
pub(super) fn fillings(
    model: &Model,
    scope: &Scope,
    filler: &mut Filler<'_>,
    worth: &[f64],
    limit_price: &[f64],
    nodes: u64,
) -> Fillings {
    let mut better = Vec::new();
    let above = |kind: usize| model.kinds[kind].price + limit_price[kind];
    let ask = |kind: usize, nodes: u64| Ask {
        kind,
        items: &scope.items,
        worth,
        left: &scope.left,
        above: above(kind),
        nodes,
        depth: Depth::Whole,
    };
    let open = (0..model.kinds.len()).filter(|kind| scope.most[*kind] != Some(0));
    let mut all = vec![0.0; model.kinds.len()];
    // Most kinds are settled by their relaxation: the others share the nodes.
    let mut unsettled = Vec::new();
    for kind in open {
        filler.best(&ask(kind, 0));
        all[kind] = filler.relaxed();
        if all[kind] > above(kind) && nodes > 0 {
            unsettled.push(kind);
        }
    }
    let nodes = nodes / unsettled.len().max(1) as u64;
    for kind in unsettled {
        let above = above(kind);
        let (fillings, _) = filler.best(&ask(kind, nodes));
        all[kind] = if filler.was_exact() {
            fillings.last().map_or(above, |(worth, _)| *worth)
        } else {
            // Items that the search leaves out from the start cannot be part of anything above what was asked.
            all[kind].min(filler.tail_bound().map_or(f64::INFINITY, |tail| tail.max(above)))
        };
        // Only what makes a difference: numbers of the program are good to some nine digits.
        let worthwhile = fillings.iter().filter(|(worth, _)| *worth > above * (1.0 + 1e-6));
        better.extend(worthwhile.map(|(_, items)| Pattern { kind: small(kind), items: items.clone() }));
    }
    let most = all.into_iter().map(|most| most * (1.0 + MARGIN) + MARGIN).collect();
    Fillings { most, better }
}

/// The least a packing can cost that costs at least this many dollars.
pub(super) fn rounded_up(model: &Model, dollars: f64) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // non-negative; saturates
    let nano = (dollars * 1e9).max(0.0).floor() as u64;
    nano.div_ceil(model.price_step).saturating_mul(model.price_step)
}
