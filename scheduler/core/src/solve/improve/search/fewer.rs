//! Fewer bins for the same money, or next to: one machine of twice the size has one kubelet, one set of DaemonSets, one IP block.
//!
//! Where a provider's prices are in proportion to size, what fills two machines of one family fills one of twice the size at the
//! same price, and nothing that only looks at cost would say which. Two bins become one where that costs no more; then, for a
//! small part of the whole, also where it costs a little.

use std::sync::Arc;

use super::{Packing, Search, bins, merge};
use crate::solve::improve::model::{Pattern, small};

/// What fewer bins may cost more, as one part in so many of everything.
const ALLOWANCE: u64 = 1_000;
/// Other bins that are tried for one.
const PARTNERS: usize = 16;
/// Rounds, each of which may halve the number of bins.
const ROUNDS_AT_MOST: usize = 16;
const STEPS_AT_MOST: u64 = 10_000_000;

/// Bins of which two may become one, and what that may cost more.
struct Joining<'a, 'm> {
    search: &'a mut Search<'m>,
    allowance: u64,
    steps: u64,
}

impl Search<'_> {
    /// Makes two bins one, as long as that costs next to nothing.
    pub(super) fn fewer(&mut self) {
        let most = self.best_cost.saturating_add(self.best_cost / ALLOWANCE).min(self.ceiling);
        let mut packing = std::mem::take(&mut self.best);
        for allowance in [0, most.saturating_sub(self.best_cost)] {
            let mut joining = Joining { search: self, allowance, steps: STEPS_AT_MOST };
            for _ in 0..ROUNDS_AT_MOST {
                let before = bins(&packing);
                packing = joining.round(packing);
                if bins(&packing) == before {
                    break;
                }
            }
            let spent = STEPS_AT_MOST - joining.steps;
            self.pay(spent);
        }
        self.best_cost = self.model.cost(&packing);
        self.best = packing;
    }
}

impl Joining<'_, '_> {
    /// Joins equal bins, then each with one of the next few dearer ones.
    fn round(&mut self, mut packing: Packing) -> Packing {
        let kinds = &self.search.model.kinds;
        packing.sort_by(|a, b| {
            let price = |pattern: &Pattern| kinds[pattern.kind as usize].nano;
            (price(&a.0), a.0.kind, &a.0.items).cmp(&(price(&b.0), b.0.kind, &b.0.items))
        });
        let mut joined = Packing::new();
        let mut single: Vec<Option<Arc<Pattern>>> = Vec::new();
        for (pattern, times) in packing {
            let pairs = times / 2;
            match self.joined(&pattern, &pattern, pairs).filter(|_| pairs > 0) {
                Some(both) => {
                    joined.push((both, pairs));
                    single.extend((times % 2 > 0).then_some(Some(pattern)));
                }
                // Where two of them are no better as one, that of several is no different.
                None if times > 1 => joined.push((pattern, times)),
                None => single.push(Some(pattern)),
            }
        }
        for at in 0..single.len() {
            let Some(one) = single[at].take() else { continue };
            let others = (at + 1..single.len()).filter(|other| single[*other].is_some()).take(PARTNERS);
            let others: Vec<usize> = others.collect();
            let found = others.into_iter().find_map(|other| {
                let both = self.joined(&one, single[other].as_ref()?, 1)?;
                Some((other, both))
            });
            match found {
                Some((other, both)) => {
                    single[other] = None;
                    joined.push((both, 1));
                }
                None => joined.push((one, 1)),
            }
        }
        merge(&mut joined);
        joined
    }

    /// One bin for what is in two, so many times over, where that may be paid for.
    fn joined(&mut self, one: &Pattern, other: &Pattern, times: u64) -> Option<Arc<Pattern>> {
        let model = self.search.model;
        let mut items: Vec<(u32, u32)> = one.items.iter().chain(&other.items).copied().collect();
        items.sort_unstable();
        items.dedup_by(|later, first| {
            let same = later.0 == first.0;
            if same {
                first.1 = first.1.saturating_add(later.1);
            }
            same
        });
        let cost = (model.kinds.len() * (items.len() * (model.axes + 2) + 2)) as u64;
        self.steps = self.steps.checked_sub(cost)?;
        let kind = model.cheapest(&items)?;
        let before = model.kinds[one.kind as usize].nano + model.kinds[other.kind as usize].nano;
        let more = model.kinds[kind].nano.saturating_sub(before).saturating_mul(times);
        self.allowance = self.allowance.checked_sub(more)?;
        Some(Arc::new(Pattern { kind: small(kind), items }))
    }
}
