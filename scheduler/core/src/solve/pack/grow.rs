//! One more pod on a machine that is planned, by making that a larger one: under a limit there may be no other way.

use super::join::put;
use super::machine::{Bin, Opened};
use super::variety::Variety;
use super::{Demand, MinValues};
use crate::solve::axes::{Amounts, fits};
use crate::solve::catalog::{Catalog, Shape};
use crate::solve::limits::Allowance;

/// Puts one pod on the machine that becomes dearer by least with it; whether there is one. Pods that depend on NUMA nodes are left
/// to new machines.
pub(in crate::solve) fn grow(
    catalog: &Catalog,
    one: &Demand,
    allowance: &mut Allowance,
    min_values: MinValues,
    opened: &mut Opened,
) -> bool {
    if catalog.aligns && !one.aligned.is_empty() {
        return false;
    }
    opened.pieces.insert(one.piece, one.clone());
    let mut best: Option<(u64, usize, Bin)> = None;
    for (index, bin) in opened.bins.iter().enumerate() {
        let shape = &catalog.shapes[bin.shape];
        let possible = bin.reservation.is_none()
            && allowance.is_limited(shape.pool)
            && one
                .masks
                .iter()
                .zip(&catalog.shapes)
                .any(|(mask, other)| *mask != 0 && other.pool == shape.pool)
            && bin.occupancy.missing(&one.host).is_none()
            && bin.occupancy.space(&one.host) > 0;
        if !possible || catalog.aligns && bin.pods.iter().any(|(piece, _)| is_aligned(opened, *piece)) {
            continue;
        }
        let mut need: Amounts = shape
            .room
            .iter()
            .zip(&bin.room)
            .zip(&one.requests)
            .map(|((all, left), more)| (all - left.min(all)).saturating_add(*more))
            .collect();
        for axis in bin.occupancy.volumes_to_attach(&one.host) {
            need[usize::from(axis)] += 1;
        }
        let now = shape.price(bin.mask).map_or(0, |price| price.0);
        for (least, other) in &catalog.by_price[shape.pool] {
            if best.as_ref().is_some_and(|(more, ..)| least.0.saturating_sub(now) >= *more) {
                break;
            }
            let larger = &catalog.shapes[*other];
            if !fits(&need, &larger.room) || !may_become(allowance, shape, larger) {
                continue;
            }
            let Some(grown) = grown(catalog, one, bin, *other, opened) else { continue };
            let Some(price) = larger.price(grown.mask) else { continue };
            let more = price.0.saturating_sub(now);
            let variety = Variety { catalog, pieces: &opened.pieces, allowance, min_values };
            if best.as_ref().is_none_or(|(least, ..)| more < *least)
                && variety.is_enough(*other, false, &grown.pods)
            {
                best = Some((more, index, grown));
            }
        }
    }
    let Some((_, index, grown)) = best else { return false };
    let (old, new) = (&catalog.shapes[opened.bins[index].shape], &catalog.shapes[grown.shape]);
    allowance.give_back(old.pool, &old.instance_type.capacity);
    allowance.buy(new.pool, &new.instance_type.capacity, 1);
    opened.bins[index] = grown;
    true
}

fn is_aligned(opened: &Opened, piece: usize) -> bool {
    opened.pieces.get(&piece).is_none_or(|one| !one.aligned.is_empty())
}

fn may_become(allowance: &Allowance, shape: &Shape, other: &Shape) -> bool {
    // Who is on a machine before any pod is, is counted in what the planned one holds.
    shape.occupancy == other.occupancy
        && allowance.may_become(shape.pool, &shape.instance_type.capacity, &other.instance_type.capacity)
}

/// A machine as another shape with one more pod, where all of its pods allow that shape.
fn grown(catalog: &Catalog, one: &Demand, bin: &Bin, shape: usize, opened: &Opened) -> Option<Bin> {
    let other = &catalog.shapes[shape];
    let mut grown = bin.clone();
    grown.empty_into(catalog, shape, other.available & other.paid);
    for (piece, count) in std::mem::take(&mut grown.pods) {
        put(opened.pieces.get(&piece)?, &mut grown, count);
    }
    put(one, &mut grown, 1);
    grown.mask &= other.mask_of_all(&grown.requirements);
    (grown.mask != 0).then_some(grown)
}
