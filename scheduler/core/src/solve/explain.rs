//! Why a machine was chosen: the next best that would do, and what ruled out those that cost less.
//!
//! Asked once per run of equal machines, and only where the caller wants it.

use std::collections::BTreeSet;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::UsdPerHour;
use smallvec::SmallVec;

use super::Solver;
use super::axes::Amounts;
use super::catalog::Shape;
use super::classes::Class;
use super::pack::Bin;
use super::reasons::{amount, clipped, requirement, shortages_of};
use super::run::Outcome;
use crate::catalog::Offering;
use crate::model::{ClaimExplanation, InstanceTypeOption, PlannedClaim, RuledOut, untolerated};

/// Next best machines that are listed.
const NEXT: usize = 3;

/// Types that must be known for that: these and the choice.
pub(super) const CHOICES: usize = NEXT + 1;

/// Cheaper machines that are listed.
const RULED_OUT: usize = 5;

/// Characters of what ruled a machine out.
const WHY_AT_MOST: usize = 200;

/// Why `claim` was made of `bin`; `choices` are the shapes that hold it, cheapest first, with their price.
pub(super) fn explanation(
    solver: &Solver,
    classes: &[Class<'_>],
    outcome: &Outcome,
    bin: &Bin,
    choices: impl Iterator<Item = (usize, UsdPerHour)>,
    claim: &PlannedClaim,
) -> ClaimExplanation {
    let mut next: Vec<InstanceTypeOption> = Vec::new();
    for (shape, price) in choices {
        let name = &solver.catalog.shapes[shape].instance_type.name;
        if *name != claim.instance_type && next.iter().all(|one| one.name != *name) {
            next.push(InstanceTypeOption { name: name.clone(), price });
        }
        if next.len() == NEXT {
            break;
        }
    }
    let one = Explained { solver, classes, outcome, bin, need: need(solver, classes, outcome, bin) };
    ClaimExplanation { next, ruled_out: one.ruled_out(claim.price) }
}

/// What the pods of a bin take together, volumes they share once.
fn need(solver: &Solver, classes: &[Class<'_>], outcome: &Outcome, bin: &Bin) -> Amounts {
    let mut need = Amounts::from_elem(0, solver.catalog.axes.len());
    let mut volumes: SmallVec<[(u16, u32); 4]> = SmallVec::new();
    for (piece, count) in &bin.pods {
        let piece = &outcome.settled.pieces[*piece];
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
    need
}

struct Explained<'a, 'p> {
    solver: &'a Solver,
    classes: &'a [Class<'p>],
    outcome: &'a Outcome,
    bin: &'a Bin,
    need: Amounts,
}

impl Explained<'_, '_> {
    /// Types with an offering below `price` in pools that are as important, cheapest first, and why not.
    fn ruled_out(&self, price: UsdPerHour) -> Vec<RuledOut> {
        let catalog = &self.solver.catalog;
        let tier = catalog.shapes[self.bin.shape].tier;
        let mut cheaper: Vec<(UsdPerHour, &str, usize, usize)> = Vec::new();
        for (index, shape) in catalog.shapes.iter().enumerate().filter(|(_, shape)| shape.tier == tier) {
            let below = shape.offerings.iter().enumerate().filter(|(_, offering)| offering.price < price);
            let name = &*shape.instance_type.name;
            cheaper.extend(below.map(|(bit, offering)| (offering.price, name, index, bit)));
        }
        cheaper.sort_unstable();
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut found = Vec::new();
        for (price, name, index, bit) in cheaper {
            if found.len() == RULED_OUT {
                break;
            }
            if seen.contains(name) {
                continue;
            }
            let shape = &catalog.shapes[index];
            if let Some(why) = self.why_not(index, shape, &shape.offerings[bit].offering, 1 << bit) {
                seen.insert(name);
                let why = clipped(why, WHY_AT_MOST);
                found.push(RuledOut { name: shape.instance_type.name.clone(), price, why });
            }
        }
        found
    }

    /// The first constraint that an offering fails; `None` where it would have done.
    fn why_not(&self, index: usize, shape: &Shape, offering: &Offering, bit: u64) -> Option<String> {
        let (solver, catalog) = (self.solver, &self.solver.catalog);
        let pool = &catalog.pools[shape.pool].pool;
        let pieces = || self.bin.pods.iter().map(|(piece, _)| &self.outcome.settled.pieces[*piece]);
        let untolerated =
            pieces().find_map(|piece| untolerated(&pool.taints, &self.classes[piece.class].spec.tolerations));
        if let Some(taint) = untolerated {
            return Some(format!("pool {} has taint {taint}", pool.name));
        }
        for (key, set) in self.bin.requirements.iter() {
            if shape.mask_of(key, set) & bit != 0 {
                continue;
            }
            let is_pinned = pieces()
                .any(|piece| piece.pins.iter().any(|(number, _)| solver.topology.key_name(*number) == key));
            let pinned = if is_pinned { ", chosen for its topology constraints" } else { "" };
            let has = match key {
                kubernetes::ZONE => format!("in {}: ", offering.zone),
                karpenter::CAPACITY_TYPE => format!("{}: ", offering.capacity_type),
                _ => String::new(),
            };
            return Some(format!("{has}needs {}{pinned}", requirement(key, set)));
        }
        let short = shortages_of(&catalog.axes, &self.need, shape);
        if !short.is_empty() {
            let list = short.iter().map(|one| format!("needs {}, gives {}", one.need, one.room));
            return Some(list.collect::<Vec<_>>().join("; "));
        }
        if shape.available & bit == 0 {
            return Some(format!("{} in {} cannot be had now", offering.capacity_type, offering.zone));
        }
        if let Some(reservation) = &offering.reservation
            && self.outcome.allowance.reserved(&reservation.id) == 0
        {
            return Some(format!("no machine is left of reservation {}", reservation.id));
        }
        let planned = &catalog.shapes[self.bin.shape];
        let capacity = &shape.instance_type.capacity;
        let limited = self.outcome.allowance.describe(shape.pool).into_iter().find(|(name, left)| {
            let (need, spare) = match name.as_str() {
                "nodes" => (1, 1),
                name => (capacity.amount(name), planned.instance_type.capacity.amount(name)),
            };
            // What was planned would be given back.
            need > left.saturating_add(if shape.pool == planned.pool { spare } else { 0 })
        });
        if let Some((name, left)) = limited {
            return Some(format!(
                "pool {}'s {name} limit leaves {}, it has {}",
                pool.name,
                amount(&name, left),
                amount(&name, capacity.amount(&name)),
            ));
        }
        let is_kept_out = pieces().any(|piece| piece.masks[index] & bit == 0);
        is_kept_out.then(|| "preferences or topology constraints of its pods keep it out".to_owned())
    }
}
