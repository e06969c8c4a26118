//! Turns bins into claims: each becomes the cheapest machine that holds its pods, with the alternatives beside it.

use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::UsdPerHour;

use super::axes::{Amounts, fits};
use super::catalog::Catalog;
use super::classes::Class;
use super::limits::Allowance;
use super::pack::Bin;
use crate::model::{InstanceTypeOption, PlannedClaim, PodId};
use crate::requirement::ValueSet;

/// A shape that holds a bin's pods, and the offerings that all of them allow.
struct Choice {
    price: UsdPerHour,
    shape: usize,
    mask: u64,
}

/// Shapes of the bin's pool that hold its pods, cheapest first.
fn choices(catalog: &Catalog<'_>, classes: &[Class<'_>], allowance: &Allowance, bin: &Bin) -> Vec<Choice> {
    let planned = &catalog.shapes[bin.shape];
    let mut need = Amounts::from_elem(0, catalog.axes.len());
    for (class, count) in &bin.pods {
        for (need, one) in need.iter_mut().zip(&classes[*class].requests) {
            *need = need.saturating_add(one.saturating_mul(*count));
        }
    }
    let mut found: Vec<Choice> = Vec::new();
    for (index, shape) in catalog.shapes.iter().enumerate() {
        let candidate = shape.pool == planned.pool
            && fits(&need, &shape.room)
            && allowance.may_replace(
                shape.pool,
                &planned.instance_type.capacity,
                &shape.instance_type.capacity,
            );
        if !candidate {
            continue;
        }
        let mask = shape.available & shape.mask_of_all(&bin.requirements);
        if let Some(price) = shape.price(mask) {
            found.push(Choice { price, shape: index, mask });
        }
    }
    found.sort_by(|a, b| {
        let name = |choice: &Choice| &catalog.shapes[choice.shape].instance_type.name;
        a.price.cmp(&b.price).then_with(|| name(a).cmp(name(b))).then(a.shape.cmp(&b.shape))
    });
    found
}

/// What a bin costs once it is the cheapest machine that holds its pods.
pub(super) fn collapsed_price(
    catalog: &Catalog<'_>,
    classes: &[Class<'_>],
    allowance: &Allowance,
    bin: &Bin,
) -> UsdPerHour {
    choices(catalog, classes, allowance, bin).first().map_or(UsdPerHour::ZERO, |choice| choice.price)
}

/// Claims for bins; `next` gives the pods of a class one after the other.
pub(super) fn claims(
    catalog: &Catalog<'_>,
    classes: &[Class<'_>],
    allowance: &Allowance,
    bins: &[Bin],
    first_claim: usize,
    options: usize,
    mut next: impl FnMut(usize, u64) -> Vec<PodId>,
) -> Vec<PlannedClaim> {
    let mut claims: Vec<PlannedClaim> = Vec::with_capacity(bins.len());
    let mut previous: Option<(&Bin, PlannedClaim)> = None;
    for bin in bins {
        let number = first_claim + claims.len();
        // Bins come in runs of equals: only the name and the pods differ.
        let same = previous.as_ref().filter(|(last, _)| {
            last.shape == bin.shape
                && last.mask == bin.mask
                && last.pods == bin.pods
                && last.requirements == bin.requirements
        });
        let claim = match same {
            Some((_, claim)) => Some(claim.clone()),
            None => claim(catalog, classes, &choices(catalog, classes, allowance, bin), bin, options),
        };
        let Some(mut claim) = claim else { continue };
        previous = Some((bin, claim.clone()));
        claim.name = format!("{}-{number}", claim.pool);
        claim.pods = bin.pods.iter().flat_map(|(class, count)| next(*class, *count)).collect();
        claims.push(claim);
    }
    claims
}

fn claim(
    catalog: &Catalog<'_>,
    classes: &[Class<'_>],
    choices: &[Choice],
    bin: &Bin,
    options: usize,
) -> Option<PlannedClaim> {
    let first = choices.first()?;
    let shape = &catalog.shapes[first.shape];
    let offering = shape.cheapest(first.mask)?;
    let pool = &catalog.pools[shape.pool];
    let mut listed: Vec<InstanceTypeOption> = Vec::new();
    let (mut zones, mut capacity_types) = (Vec::new(), Vec::new());
    // DaemonSets that select a zone can make a type too small there: a claim must not leave that to luck.
    let unsure = |choice: &Choice| {
        let own = &catalog.shapes[choice.shape];
        catalog.shapes.iter().enumerate().any(|(index, other)| {
            other.pool == own.pool
                && std::ptr::eq(other.instance_type, own.instance_type)
                && other.available & other.mask_of_all(&bin.requirements) != 0
                && choices.iter().all(|choice| choice.shape != index)
        })
    };
    let only = unsure(first);
    let narrowed = Choice { mask: shape.mask_where(|one| std::ptr::eq(one, offering)), ..*first };
    let choices = if only { std::slice::from_ref(&narrowed) } else { choices };
    for choice in choices.iter().filter(|choice| only || !unsure(choice)) {
        let shape = &catalog.shapes[choice.shape];
        let name = &shape.instance_type.name;
        if listed.iter().all(|option| option.name != *name) {
            if listed.len() == options.max(1) {
                break;
            }
            listed.push(InstanceTypeOption { name: Arc::clone(name), price: choice.price });
        }
        let bits = shape.offerings.iter().enumerate().filter(|(bit, _)| choice.mask & (1 << bit) != 0);
        for (_, offering) in bits {
            zones.push(offering.zone.to_string());
            capacity_types.push(offering.capacity_type.as_str().to_owned());
        }
    }
    let mut requirements = pool.requirements.as_ref().ok()?.intersect(&bin.requirements);
    // Set once the node runs, not asked of the cloud.
    requirements.remove(karpenter::REGISTERED);
    requirements.remove(karpenter::INITIALIZED);
    requirements
        .constrain(kubernetes::INSTANCE_TYPE, &ValueSet::of(listed.iter().map(|option| &*option.name)));
    requirements.constrain(kubernetes::ZONE, &ValueSet::of(zones));
    requirements.constrain(karpenter::CAPACITY_TYPE, &ValueSet::of(capacity_types));
    let mut requests = shape.daemons.clone();
    for (class, count) in &bin.pods {
        for _ in 0..*count {
            requests += &classes[*class].spec.requests;
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
        reservation: None,
        min_values_relaxed: Vec::new(),
        explanation: None,
    })
}
