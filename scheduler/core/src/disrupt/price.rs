//! Whether replacements are sure to cost less than what they replace, whichever of their alternatives is launched.
//!
//! Karpenter's rules: what counts is the dearest offering that a launch may end with; where an on-demand machine might be
//! replaced by either, the claim is held to spot; a spot machine is replaced by another only where enough cheaper types are
//! offered that the new one is not the next to go; and nothing is bought that is there already.

use std::collections::BTreeSet;
use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::UsdPerHour;

use super::candidate::Candidate;
use super::plan::BlockReason;
use crate::catalog::{CapacityType, InstanceType, Offering};
use crate::model::{InstanceTypeOption, NodePool, PlannedClaim, Snapshot};
use crate::requirement::{Requirements, ValueSet};

/// Types that a claim for a spot machine must leave to choose from where it replaces one spot machine.
const SPOT_TYPES: usize = 15;

/// Why something is not done, and what it would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: BlockReason,
    pub(super) detail: String,
    pub(super) fix: Option<String>,
}

impl Refusal {
    pub(super) const fn new(reason: BlockReason, detail: String) -> Self {
        Self { reason, detail, fix: None }
    }
}

/// A type that a claim lists, with what it costs at best and at worst.
struct Listed<'s> {
    one: &'s InstanceType,
    best: &'s Offering,
    worst: UsdPerHour,
}

/// Offerings of a type that a claim may end with.
fn offerings<'s>(
    one: &'s InstanceType,
    requirements: &Requirements,
) -> impl Iterator<Item = &'s Offering> + use<'s> {
    let set = |key: &str| requirements.get(key).cloned();
    let (zones, capacity_types) = (set(kubernetes::ZONE), set(karpenter::CAPACITY_TYPE));
    one.offerings.iter().filter(move |offering| {
        let allows = |set: &Option<ValueSet>, value: &str| set.as_ref().is_none_or(|set| set.allows(value));
        offering.available
            && allows(&zones, &offering.zone)
            && allows(&capacity_types, offering.capacity_type.as_str())
    })
}

/// The dearest offering that a launch may end with: of reserved ones where there are any, else of spot, else on demand.
fn worst_launch_price(one: &InstanceType, requirements: &Requirements) -> Option<UsdPerHour> {
    [CapacityType::Reserved, CapacityType::Spot, CapacityType::OnDemand].into_iter().find_map(|kind| {
        let of_kind = offerings(one, requirements).filter(|offering| offering.capacity_type == kind);
        of_kind.map(|offering| offering.price).max()
    })
}

fn listed<'s>(types: &'s [InstanceType], claim: &PlannedClaim) -> Vec<Listed<'s>> {
    let mut list: Vec<Listed<'s>> = claim
        .options
        .iter()
        .filter_map(|option| {
            let one = types.iter().find(|one| one.name == option.name)?;
            let best = offerings(one, &claim.requirements).min_by_key(|offering| offering.price)?;
            Some(Listed { one, best, worst: worst_launch_price(one, &claim.requirements)? })
        })
        .collect();
    list.sort_by(|one, two| (one.best.price, &one.one.name).cmp(&(two.best.price, &two.one.name)));
    list
}

/// Narrows claims to what is sure to be cheaper than the candidates.
pub(super) fn narrow(
    snapshot: &Snapshot,
    candidates: &[&Candidate<'_>],
    claims: &mut [PlannedClaim],
    spot_to_spot: bool,
) -> Result<(), Refusal> {
    if claims.is_empty() {
        return Ok(());
    }
    let total: UsdPerHour = candidates.iter().filter_map(|candidate| candidate.price).sum();
    let from_spot = candidates.iter().all(|candidate| candidate.capacity_type == CapacityType::Spot);
    let mut lists: Vec<Vec<Listed<'_>>> = Vec::with_capacity(claims.len());
    let mut to_spot = false;
    for claim in &mut *claims {
        let types = types_of(snapshot, &claim.pool);
        let allows = |kind: CapacityType| {
            let listed =
                claim.options.iter().filter_map(|option| types.iter().find(|one| one.name == option.name));
            listed.flat_map(|one| offerings(one, &claim.requirements)).any(|one| one.capacity_type == kind)
        };
        let (spot, on_demand) = (allows(CapacityType::Spot), allows(CapacityType::OnDemand));
        to_spot |= from_spot && spot;
        if spot && (from_spot || on_demand) {
            let only = ValueSet::of([CapacityType::Spot.as_str()]);
            claim.requirements.constrain(karpenter::CAPACITY_TYPE, &only);
        }
        lists.push(listed(types, claim));
    }
    if to_spot && !spot_to_spot {
        let detail = "replacing a spot machine by another is switched off".to_owned();
        return Err(Refusal::new(BlockReason::SpotToSpot, detail));
    }
    let least: Option<Vec<UsdPerHour>> =
        lists.iter().map(|list| list.iter().map(|one| one.worst).min()).collect();
    let sum: UsdPerHour = least.iter().flatten().copied().sum();
    let Some(least) = least.filter(|_| sum < total) else {
        let detail = format!("the cheapest replacement costs {sum} at worst, the nodes {total}");
        return Err(Refusal::new(BlockReason::NoCheaperReplacement, detail));
    };
    for (list, least) in lists.iter_mut().zip(least) {
        // What all replacements may cost more than their least is shared in proportion.
        let below = u128::from(total.0) * u128::from(least.0) / u128::from(sum.0.max(1));
        let below = if sum == UsdPerHour::ZERO { u128::from(total.0) } else { below };
        list.retain(|one| u128::from(one.worst.0) < below || one.worst == least);
    }
    if let ([claim], [list]) = (&mut *claims, lists.as_mut_slice()) {
        if candidates.len() > 1 {
            not_what_is_there(candidates, list)?;
        }
        if to_spot && candidates.len() == 1 {
            let pool = snapshot.pools.iter().find(|pool| pool.name == claim.pool);
            enough_for_spot(list, pool)?;
        }
    }
    for (claim, list) in claims.iter_mut().zip(&lists) {
        let pool = snapshot.pools.iter().find(|pool| pool.name == claim.pool);
        enough_variety(claim, list, pool)?;
        take(claim, list);
    }
    Ok(())
}

/// Where a type is among the nodes already, the cheapest of these could have stayed: only what is cheaper counts.
fn not_what_is_there(candidates: &[&Candidate<'_>], list: &mut Vec<Listed<'_>>) -> Result<(), Refusal> {
    let same = candidates.iter().filter(|candidate| {
        let own = candidate.instance_type.map(|one| &one.name);
        list.iter().any(|one| Some(&one.one.name) == own)
    });
    let Some(cheapest) = same.filter_map(|candidate| candidate.price).min() else { return Ok(()) };
    list.retain(|one| one.worst < cheapest);
    if list.is_empty() {
        let detail = format!("the replacement would be of a type that one of the nodes has at {cheapest}");
        return Err(Refusal::new(BlockReason::NoCheaperReplacement, detail));
    }
    Ok(())
}

/// Leaves the cheapest types, as many as keep the new machine from being the next to go.
fn enough_for_spot(list: &mut Vec<Listed<'_>>, pool: Option<&NodePool>) -> Result<(), Refusal> {
    if list.len() < SPOT_TYPES {
        let detail = format!("needs {SPOT_TYPES} cheaper types, found {}", list.len());
        let fix = format!("let the pool buy {} more types below its price", SPOT_TYPES - list.len());
        return Err(Refusal { reason: BlockReason::SpotToSpot, detail, fix: Some(fix) });
    }
    let mut kept = SPOT_TYPES;
    while kept < list.len() && pool.is_some_and(|pool| lacking(pool, &list[..kept]).is_some()) {
        kept += 1;
    }
    list.truncate(kept);
    Ok(())
}

/// A label of which the pool wants more values than these types have, and how many.
fn lacking(pool: &NodePool, list: &[Listed<'_>]) -> Option<(String, u32, usize)> {
    pool.requirements.iter().find_map(|requirement| {
        let least = requirement.min_values?;
        let mut values: BTreeSet<&str> = BTreeSet::new();
        for one in list {
            if requirement.key == kubernetes::INSTANCE_TYPE {
                values.insert(&one.one.name);
            } else if let Some(finite) = one.one.requirements.get(&requirement.key).and_then(ValueSet::finite)
            {
                values.extend(finite.iter().map(String::as_str));
            }
        }
        ((values.len() as u64) < u64::from(least)).then(|| (requirement.key.clone(), least, values.len()))
    })
}

fn enough_variety(claim: &PlannedClaim, list: &[Listed<'_>], pool: Option<&NodePool>) -> Result<(), Refusal> {
    let lacking = pool.and_then(|pool| lacking(pool, list));
    match lacking.filter(|(key, ..)| !claim.min_values_relaxed.contains(key)) {
        None => Ok(()),
        Some((key, least, found)) => {
            let detail = format!("minValues of {key}: {least} wanted, {found} are cheaper");
            Err(Refusal::new(BlockReason::NoCheaperReplacement, detail))
        }
    }
}

/// Writes the list into the claim.
fn take(claim: &mut PlannedClaim, list: &[Listed<'_>]) {
    claim.options = list
        .iter()
        .map(|one| InstanceTypeOption { name: Arc::clone(&one.one.name), price: one.best.price })
        .collect();
    let names = ValueSet::of(list.iter().map(|one| &*one.one.name));
    claim.requirements.constrain(kubernetes::INSTANCE_TYPE, &names);
    let chosen = list.iter().find(|one| one.one.name == claim.instance_type);
    let as_it_was = chosen.is_some_and(|chosen| {
        offerings(chosen.one, &claim.requirements).any(|offering| {
            offering.zone == claim.zone
                && offering.capacity_type == claim.capacity_type
                && offering.price == claim.price
        })
    });
    if let Some(first) = list.first().filter(|_| !as_it_was) {
        claim.instance_type = Arc::clone(&first.one.name);
        claim.zone = Arc::clone(&first.best.zone);
        claim.capacity_type = first.best.capacity_type;
        claim.price = first.best.price;
    }
}

fn types_of<'s>(snapshot: &'s Snapshot, pool: &str) -> &'s [InstanceType] {
    let pool = snapshot.pools.iter().find(|one| one.name == pool);
    pool.map_or(&[], |pool| snapshot.instance_types_of(pool))
}
