//! Items that are all equal: which bins together hold all of them for least is a knapsack over their number, solved exactly.

use std::sync::Arc;

use super::model::{Model, Pattern, small};
use super::search::Packing;

/// Items times kinds of bins, at most: beyond, the last bins weigh too little to matter.
const CELLS_AT_MOST: u64 = 20_000_000;

/// The cheapest packing, of as few bins as that can be, and the steps it took; `None` where the problem is not of this form.
pub(super) fn packing(model: &Model) -> Option<(Packing, u64)> {
    let mut present = (0..model.items).filter(|item| model.count[*item] > 0);
    let (item, None) = (present.next()?, present.next()) else { return None };
    let count = usize::try_from(model.count[item]).ok()?;
    let work = model.count[item].checked_mul(model.kinds.len() as u64)?;
    if work > CELLS_AT_MOST || model.kinds.iter().any(|kind| kind.most.is_some()) {
        return None;
    }
    let holds: Vec<(usize, usize)> = (0..model.kinds.len())
        .filter(|kind| model.kinds[*kind].allowed.contains(item))
        .map(|kind| {
            let fit = model.request(item).iter().zip(&model.kinds[kind].room);
            let fit = fit.filter_map(|(need, room)| room.checked_div(*need)).min().unwrap_or(u64::MAX);
            let groups = model.groups_of[item].iter().map(|group| model.group_most[*group]).min();
            let fit = fit.min(model.cap[item]).min(groups.unwrap_or(u64::MAX));
            (kind, usize::try_from(fit).unwrap_or(usize::MAX))
        })
        .filter(|(_, fit)| *fit > 0)
        .collect();
    // For so many items: cost, bins, and the kind of one of them.
    let mut best: Vec<(u64, u32, usize)> = Vec::with_capacity(count + 1);
    best.push((0, 0, 0));
    for number in 1..=count {
        let with = |(kind, fit): &(usize, usize)| {
            let (cost, bins, _) = best[number.saturating_sub(*fit)];
            (cost.saturating_add(model.kinds[*kind].nano), bins + 1, *kind)
        };
        best.push(holds.iter().map(with).min()?);
    }
    let mut packing = Packing::new();
    let mut left = count;
    while left > 0 {
        let (.., kind) = best[left];
        let fit = holds.iter().find(|(one, _)| *one == kind).map_or(1, |(_, fit)| (*fit).min(left));
        left -= fit;
        let items = vec![(small(item), small(fit))];
        packing.push((Arc::new(Pattern { kind: small(kind), items }), 1));
    }
    Some((packing, work * 4))
}
