//! Which types a claim may list where DaemonSets differ from zone to zone: one that holds the pods in one zone may be too small
//! in the next, and a claim must not leave that to luck.

use std::sync::Arc;

use super::variety::enough_variety;
use crate::catalog::{CapacityType, Offering};
use crate::requirement::Requirements;
use crate::solve::catalog::Catalog;

/// A shape, and offerings of it.
pub(in crate::solve) type Choice = (usize, u64);

/// Of these, cheapest first, those that hold the pods whichever offering of the claim's zones is bought; where they are too few
/// for `wanted`, those of the first zone and capacity type that has enough.
pub(in crate::solve) fn sure(
    catalog: &Catalog,
    requirements: &Requirements,
    is_reserved: bool,
    wanted: &[(&str, usize)],
    choices: &[Choice],
) -> Vec<Choice> {
    let Some((first, mask)) = choices.first().copied() else { return Vec::new() };
    if catalog.siblings == 1 {
        return choices.to_vec();
    }
    // Another shape of the same type that does not hold the pods and yet may come.
    let unsure = |choice: &Choice, like: &dyn Fn(&Offering) -> bool| {
        let own = &catalog.shapes[choice.0];
        catalog.shapes.iter().enumerate().any(|(index, other)| {
            // What is paid for and what is reserved never mix.
            let mixes = if is_reserved { u64::MAX } else { other.paid };
            other.pool == own.pool
                && other.instance_type.is(&own.instance_type)
                && choices.iter().all(|(shape, _)| *shape != index)
                && other.available & mixes & other.mask_of_all(requirements) & other.mask_where(like) != 0
        })
    };
    let varied =
        |list: &[Choice]| enough_variety(catalog, requirements, wanted, list.iter().copied()).is_ok();
    let shape = &catalog.shapes[first];
    let list: Vec<Choice> = if unsure(&choices[0], &|_| true) {
        let cheapest = shape.cheapest(mask);
        vec![(first, shape.mask_where(|one| cheapest.is_some_and(|cheapest| std::ptr::eq(one, cheapest))))]
    } else {
        choices.iter().filter(|choice| !unsure(choice, &|_| true)).copied().collect()
    };
    if varied(&list) {
        return list;
    }
    for (zone, capacity_type) in places(catalog, choices) {
        let there = |one: &Offering| one.zone == zone && one.capacity_type == capacity_type;
        let within = choices.iter().filter(|choice| !unsure(choice, &there)).map(|(shape, mask)| {
            let within = mask & catalog.shapes[*shape].mask_where(there);
            (*shape, within)
        });
        let mut within: Vec<Choice> = within.filter(|(_, mask)| *mask != 0).collect();
        if varied(&within) {
            within.sort_by_key(|(shape, mask)| catalog.shapes[*shape].price(*mask));
            return within;
        }
    }
    list
}

/// Zones and capacity types of offerings, the cheapest first.
fn places(catalog: &Catalog, choices: &[Choice]) -> Vec<(Arc<str>, CapacityType)> {
    let mut offered: Vec<_> = choices
        .iter()
        .flat_map(|(shape, mask)| {
            let bits = catalog.shapes[*shape].offerings.iter().enumerate();
            bits.filter(move |(bit, _)| mask & (1 << bit) != 0).map(|(_, sold)| sold)
        })
        .map(|sold| (sold.price, Arc::clone(&sold.zone), sold.capacity_type))
        .collect();
    offered.sort();
    let mut places: Vec<(Arc<str>, CapacityType)> = Vec::new();
    for (_, zone, capacity_type) in offered {
        if places.iter().all(|place| *place != (Arc::clone(&zone), capacity_type)) {
            places.push((zone, capacity_type));
        }
    }
    places
}
