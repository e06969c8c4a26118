//! A first packing: bins one after another, or bins for the sum of all items first.

use std::sync::Arc;

use super::{Packing, Search, fix};
use crate::solve::improve::fill::{Ask, Depth};
use crate::solve::improve::generate::{Scope, demand_by_axis, resource_worth};
use crate::solve::improve::mix::{Mixed, Mixer};
use crate::solve::improve::model::{Model, Pattern, real, small};

/// Choices of bins that are completed.
const MIXES: usize = 4;

/// What an item is worth to a bin that is being filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// What its resources cost at least. Often one axis is all that counts.
    Resources,
    /// What it takes of each axis times what is still demanded of that: the dot product of Panigrahy and others.
    Demand,
}

impl Worth {
    /// By item of the model. Nothing is worth nothing: it would be left out.
    fn of(self, model: &Model, items: &[u32], left: &[u64]) -> Vec<f64> {
        let mut worth = match self {
            Self::Resources => resource_worth(model, items, left),
            Self::Demand => {
                let demand = demand_by_axis(model, items, left);
                let mut worth = vec![0.0; model.items];
                for item in items {
                    let shares = model.share(*item as usize).iter().zip(&demand);
                    worth[*item as usize] = shares.map(|(share, demand)| share * demand).sum();
                }
                worth
            }
        };
        let least = worth.iter().copied().fold(0.0, f64::max) * 1e-6;
        worth.iter_mut().for_each(|worth| *worth = worth.max(least).max(1e-9));
        worth
    }

    /// Nodes of the search for a filling.
    const fn nodes(self) -> u64 {
        match self {
            Self::Resources => 60,
            Self::Demand => 300,
        }
    }
}

impl Search<'_> {
    /// Bins chosen for the sum of all items, and what does not go into them packed besides.
    pub(super) fn mix(&mut self, scope: &Scope) {
        if self.done() {
            return;
        }
        let steps = self.part(3);
        let mixer = Mixer::new(self.model, scope, &self.groups, &mut self.filler, steps);
        let Some((mut found, rows, work)) = mixer.map(Mixer::packings) else { return };
        self.pay(work);
        self.rows = rows;
        // Where something found no place, that takes more than its share.
        let whole = |one: &Mixed| one.left.iter().all(|left| *left == 0);
        found.sort_by(|a, b| whole(b).cmp(&whole(a)).then(a.estimate.total_cmp(&b.estimate)));
        // Packing what is left of one takes about as long as packing everything did.
        found.truncate(MIXES);
        for one in found {
            let whole = whole(&one);
            let Mixed { mut packing, left, estimate } = one;
            if self.done() && !whole || estimate * 1e9 >= real(self.best_cost) {
                continue;
            }
            if !whole {
                let rest = Scope::new(left, scope.most.clone());
                let Some(more) = self.greedy(&rest, Worth::Resources) else { continue };
                packing.extend(more);
            }
            let packing = self.trim(packing);
            if self.model.cost(&packing) < self.best_cost {
                self.remember(packing.iter().map(|(pattern, _)| Arc::clone(pattern)).collect());
                self.take(packing);
            }
        }
        self.merge();
    }

    /// Bin after bin, each filled with what is worth most for its price. `None` where something fits nowhere.
    pub(super) fn greedy(&mut self, scope: &Scope, by: Worth) -> Option<Packing> {
        let model = self.model;
        let mut scope = scope.clone();
        let mut packing = Packing::new();
        let mut items = scope.items.clone();
        let mut worth = by.of(model, &items, &scope.left);
        let mut ratio = vec![f64::INFINITY; model.kinds.len()];
        loop {
            items.retain(|item| scope.left[*item as usize] > 0);
            if items.is_empty() {
                return Some(self.trim(packing));
            }
            if by == Worth::Demand {
                worth = by.of(model, &items, &scope.left);
                ratio.fill(f64::INFINITY);
            }
            let mut order: Vec<usize> =
                (0..model.kinds.len()).filter(|kind| scope.most[*kind] != Some(0)).collect();
            order.sort_by(|a, b| ratio[*b].total_cmp(&ratio[*a]).then(a.cmp(b)));
            let mut best: Option<(f64, Pattern)> = None;
            for kind in order {
                // What a kind gives for its price only falls as items go.
                if best.as_ref().is_some_and(|(most, _)| ratio[kind] <= *most) {
                    break;
                }
                let price = model.kinds[kind].price.max(1e-9);
                let ask = Ask {
                    kind,
                    items: &items,
                    worth: &worth,
                    left: &scope.left,
                    above: 0.0,
                    nodes: by.nodes(),
                    depth: Depth::Rest,
                };
                let filling = self.filler.best(&ask).0.pop();
                self.pay_filler();
                ratio[kind] = filling.as_ref().map_or(0.0, |(worth, _)| worth / price);
                let better = filling.filter(|_| best.as_ref().is_none_or(|(most, _)| ratio[kind] > *most));
                best = better.map(|(_, items)| (ratio[kind], Pattern { kind: small(kind), items })).or(best);
            }
            let (_, pattern) = best?;
            let repeats =
                pattern.items.iter().map(|(item, count)| scope.left[*item as usize] / u64::from(*count));
            let times = repeats.min().unwrap_or(0).min(scope.most[pattern.kind as usize].unwrap_or(u64::MAX));
            fix(&mut scope, &pattern, times);
            packing.push((Arc::new(pattern), times));
        }
    }
}
