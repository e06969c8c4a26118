//! Turns bins into claims: each becomes the cheapest machine that holds its pods, with the alternatives beside it.

use std::collections::BTreeSet;
use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::UsdPerHour;
use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use super::Solver;
use super::axes::{Amounts, fits};
use super::catalog::Catalog;
use super::classes::Class;
use super::explain;
use super::limits::Allowance;
use super::options::SolveOptions;
use super::pack::{Bin, add_values, enough_variety, sure, wanted_variety};
use super::run::Outcome;
use super::settle::Piece;
use crate::model::{InstanceTypeOption, PlannedClaim, PodId};
use crate::requirement::ValueSet;

/// A shape that holds a bin's pods, and the offerings that all of them allow.
struct Choice {
    price: UsdPerHour,
    shape: usize,
    mask: u64,
}

/// Shapes of the bin's pool that hold its pods, cheapest first; at least the first `most`.
fn choices(
    solver: &Solver,
    classes: &[Class<'_>],
    pieces: &[Piece],
    allowance: &Allowance,
    bin: &Bin,
    most: usize,
) -> Vec<Choice> {
    let catalog = &solver.catalog;
    let planned = &catalog.shapes[bin.shape];
    let mut need = Amounts::from_elem(0, catalog.axes.len());
    let mut volumes: SmallVec<[(u16, u32); 4]> = SmallVec::new();
    for (piece, count) in &bin.pods {
        let piece = &pieces[*piece];
        for (need, one) in need.iter_mut().zip(&classes[piece.class].requests) {
            *need = need.saturating_add(one.saturating_mul(*count));
        }
        volumes.extend(piece.host.shared_volumes.iter().copied());
    }
    volumes.sort_unstable();
    volumes.dedup();
    for (axis, _) in volumes {
        need[usize::from(axis)] += 1;
    }
    let mut found: Vec<Choice> = Vec::new();
    // The price that a further choice must stay below to be among the first `most`.
    let mut worst = UsdPerHour(u64::MAX);
    let reserved = [(UsdPerHour::ZERO, bin.shape)];
    let order = if bin.reservation.is_some() { &reserved[..] } else { &catalog.by_price[planned.pool] };
    for (least, index) in order {
        if *least > worst {
            break;
        }
        let (index, shape) = (*index, &catalog.shapes[*index]);
        let candidate = fits(&need, &shape.room)
            && allowance.may_replace(
                shape.pool,
                &planned.instance_type.capacity,
                &shape.instance_type.capacity,
            );
        if !candidate {
            continue;
        }
        let mask =
            bin.pods.iter().fold(shape.available, |mask, (piece, _)| mask & pieces[*piece].masks[index]);
        // Reserved and other capacity never mix: a machine that was counted on a reservation is of that reservation.
        let mask = mask
            & match &bin.reservation {
                None => shape.paid,
                Some(_) if index == bin.shape => bin.mask,
                Some(_) => 0,
            };
        if mask == 0 {
            continue;
        }
        if let Some(mut numa) = shape.numa.clone() {
            let aligned = |piece: usize| &classes[pieces[piece].class].spec.aligned;
            let mut pods = bin.pods.iter().filter(|(piece, _)| !aligned(*piece).is_empty());
            if !pods.all(|(piece, count)| (0..*count).all(|_| numa.take(aligned(*piece)))) {
                continue;
            }
        }
        let mask = mask & shape.mask_of_all(&bin.requirements);
        if let Some(price) = shape.price(mask) {
            found.push(Choice { price, shape: index, mask });
            if found.len() >= most && price < worst {
                found.sort_by_key(|choice| choice.price);
                worst = found[most - 1].price;
            }
        }
    }
    found.sort_by(|a, b| {
        let name = |choice: &Choice| &catalog.shapes[choice.shape].instance_type.name;
        a.price.cmp(&b.price).then_with(|| name(a).cmp(name(b))).then(a.shape.cmp(&b.shape))
    });
    found
}

/// The shape that a bin becomes, and the offerings that it may be.
pub(super) fn cheapest(
    solver: &Solver,
    classes: &[Class<'_>],
    pieces: &[Piece],
    allowance: &Allowance,
    bin: &Bin,
) -> Option<(usize, u64)> {
    choices(solver, classes, pieces, allowance, bin, 1).first().map(|choice| (choice.shape, choice.mask))
}

/// What bins cost once each is the cheapest machine that holds its pods.
pub(super) fn price(
    solver: &Solver,
    classes: &[Class<'_>],
    pieces: &[Piece],
    allowance: &Allowance,
    bins: &[Bin],
) -> UsdPerHour {
    let mut sum = UsdPerHour::ZERO;
    let mut previous: Option<(&Bin, UsdPerHour)> = None;
    for bin in bins {
        // Bins come in runs of equals.
        let one = match previous {
            Some((last, price))
                if last.shape == bin.shape && last.pods == bin.pods && last.mask == bin.mask =>
            {
                price
            }
            _ => choices(solver, classes, pieces, allowance, bin, 1)
                .first()
                .map_or(UsdPerHour::ZERO, |choice| choice.price),
        };
        previous = Some((bin, one));
        sum += one;
    }
    sum
}

/// Claims for the bins of an outcome; `next` gives the pods of a class one after the other.
pub(super) fn claims(
    solver: &Solver,
    classes: &[Class<'_>],
    outcome: &Outcome,
    allowance: &Allowance,
    options: &SolveOptions,
    next: &mut impl FnMut(usize, u64) -> Vec<PodId>,
) -> Vec<PlannedClaim> {
    let pieces = &outcome.settled.pieces;
    let mut claims: Vec<PlannedClaim> = Vec::with_capacity(outcome.bins.len());
    let mut previous: Option<(&Bin, PlannedClaim)> = None;
    for bin in &outcome.bins {
        let number = options.first_claim + claims.len();
        // Bins come in runs of equals: only the name and the pods differ.
        let same = previous.as_ref().filter(|(last, _)| {
            last.shape == bin.shape
                && last.mask == bin.mask
                && last.pods == bin.pods
                && last.reservation == bin.reservation
                && last.requirements == bin.requirements
        });
        let claim = match same {
            Some((_, claim)) => Some(claim.clone()),
            None => {
                let pool = &solver.catalog.pools[solver.catalog.shapes[bin.shape].pool].pool;
                let wanted = wanted_variety(pool);
                // What is listed must be varied enough: then everything has to be known.
                let types =
                    options.instance_type_options.max(if options.explain { explain::CHOICES } else { 1 });
                let most = types.saturating_mul(solver.catalog.siblings);
                let most = if wanted.is_empty() { most } else { usize::MAX };
                let choices = choices(solver, classes, pieces, allowance, bin, most);
                let mut made = claim(solver, classes, pieces, &choices, bin, &wanted, options);
                if let Some(made) = made.as_mut().filter(|_| options.explain) {
                    let shapes = choices.iter().map(|choice| (choice.shape, choice.price));
                    let why = explain::explanation(solver, classes, outcome, bin, shapes, made);
                    made.explanation = Some(Box::new(why));
                }
                made
            }
        };
        let Some(mut claim) = claim else { continue };
        previous = Some((bin, claim.clone()));
        claim.name = format!("{}-{number}", claim.pool);
        claim.pods = bin.pods.iter().flat_map(|(piece, count)| next(pieces[*piece].class, *count)).collect();
        claims.push(claim);
    }
    claims
}

fn claim(
    solver: &Solver,
    classes: &[Class<'_>],
    pieces: &[Piece],
    choices: &[Choice],
    bin: &Bin,
    wanted: &[(&str, usize)],
    options: &SolveOptions,
) -> Option<PlannedClaim> {
    let catalog = &solver.catalog;
    let all: Vec<(usize, u64)> = choices.iter().map(|choice| (choice.shape, choice.mask)).collect();
    let sure = sure(catalog, &bin.requirements, bin.reservation.is_some(), wanted, &all);
    let sure: Vec<Choice> = sure
        .into_iter()
        .filter_map(|(shape, mask)| Some(Choice { price: catalog.shapes[shape].price(mask)?, shape, mask }))
        .collect();
    let first = sure.first()?;
    let shape = &catalog.shapes[first.shape];
    let offering = shape.cheapest(first.mask)?;
    let pool = &catalog.pools[shape.pool];
    // A lottery may have a lower list price and still cost more: it is no alternative to a machine that is sure.
    let list_price = |choice: &Choice| catalog.shapes[choice.shape].list_price(choice.mask);
    let sure: Vec<&Choice> =
        sure.iter().filter(|choice| list_price(choice) >= Some(offering.price)).collect();
    let mut listed_choices = listed(catalog, &sure, wanted, options.instance_type_options.max(1));
    listed_choices.sort_by_key(|choice| list_price(choice));
    let mut listed: Vec<InstanceTypeOption> = Vec::new();
    let (mut zones, mut capacity_types): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for choice in &listed_choices {
        let shape = &catalog.shapes[choice.shape];
        let name = &shape.instance_type.name;
        if listed.iter().all(|option| option.name != *name) {
            let price = list_price(choice).unwrap_or(choice.price);
            listed.push(InstanceTypeOption { name: Arc::clone(name), price });
        }
        let bits = shape.offerings.iter().enumerate().filter(|(bit, _)| choice.mask & (1 << bit) != 0);
        for (_, offering) in bits {
            if !zones.contains(&&*offering.zone) {
                zones.push(&offering.zone);
            }
            if !capacity_types.contains(&offering.capacity_type.as_str()) {
                capacity_types.push(offering.capacity_type.as_str());
            }
        }
    }
    let relaxed = wanted.iter().filter(|(key, least)| {
        let choices = listed_choices.iter().map(|choice| (choice.shape, choice.mask));
        enough_variety(catalog, &bin.requirements, &[(*key, *least)], choices).is_err()
    });
    let relaxed: Vec<String> = relaxed.map(|(key, _)| (*key).to_owned()).collect();
    let mut requirements = pool.requirements.as_ref().ok()?.intersect(&bin.requirements);
    // Set once the node runs, not asked of the cloud.
    requirements.remove(karpenter::REGISTERED);
    requirements.remove(karpenter::INITIALIZED);
    requirements
        .constrain(kubernetes::INSTANCE_TYPE, &ValueSet::of(listed.iter().map(|option| &*option.name)));
    requirements.constrain(kubernetes::ZONE, &ValueSet::of(zones));
    requirements.constrain(karpenter::CAPACITY_TYPE, &ValueSet::of(capacity_types));
    let mut requests = shape.daemons.clone();
    for (piece, count) in &bin.pods {
        for _ in 0..*count {
            requests += &classes[pieces[*piece].class].spec.requests;
        }
    }
    Some(PlannedClaim {
        name: String::new(),
        pool: pool.pool.name.clone(),
        instance_type: Arc::clone(&shape.instance_type.name),
        zone: Arc::clone(&offering.zone),
        capacity_type: offering.capacity_type,
        price: offering.price,
        options: listed,
        requirements,
        requests,
        pods: Vec::new(),
        reservation: bin.reservation.clone(),
        min_values_relaxed: relaxed,
        explanation: None,
    })
}

/// The choices that a claim lists: the cheapest `most` types, with as many values of each wanted label as there should be.
fn listed<'c>(
    catalog: &Catalog,
    choices: &[&'c Choice],
    wanted: &[(&str, usize)],
    most: usize,
) -> Vec<&'c Choice> {
    let mut kept = vec![false; choices.len()];
    for (key, least) in wanted {
        let mut values = BTreeSet::new();
        for (index, choice) in choices.iter().enumerate() {
            if values.len() >= *least {
                break;
            }
            let before = values.len();
            add_values(&catalog.shapes[choice.shape], choice.mask, key, &mut values);
            kept[index] |= values.len() > before;
        }
    }
    let name = |choice: &Choice| &catalog.shapes[choice.shape].instance_type.name;
    let mut names: FxHashSet<&Arc<str>> =
        choices.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(choice, _)| name(choice)).collect();
    for (choice, kept) in choices.iter().zip(&mut kept) {
        // Another shape of a type that is listed takes no place of its own.
        if names.contains(name(choice)) {
            *kept = true;
        } else if names.len() < most {
            names.insert(name(choice));
            *kept = true;
        }
    }
    choices.iter().zip(kept).filter(|(_, kept)| *kept).map(|(choice, _)| *choice).collect()
}
