//! Why a pod was left out: per pool, the first constraint that failed and the numbers that would have to change.

use assay_shared::labels::{hardware, karpenter, kubernetes};
use assay_shared::units::{Bytes, MilliCpu};

use super::Solver;
use super::axes::{Amounts, fits, real};
use super::catalog::{Catalog, Shape};
use super::classes::{Class, Flaw};
use super::limits::Allowance;
use super::run::Outcome;
use crate::model::{PodSpec, PoolReason, ReasonCode, Rejection, ResourceList, untolerated};
use crate::requirement::{Incompatible, Requirements, WELL_KNOWN};

/// Why no pool could take a pod of this class.
pub(super) fn reasons(
    solver: &mut Solver<'_>,
    class: &Class<'_>,
    outcome: &Outcome,
    gang_is_broken: bool,
) -> Vec<PoolReason> {
    let own = |reason, detail| vec![PoolReason { pool: None, reason, detail, fix: None }];
    if !class.spec.rejections.is_empty() {
        let of = |one: &Rejection| PoolReason {
            pool: None,
            reason: one.reason,
            detail: one.detail.clone(),
            fix: None,
        };
        return class.spec.rejections.iter().map(of).collect();
    }
    let terms = match &class.terms {
        Ok(terms) => terms,
        Err(Flaw::Unreadable(error)) => return own(ReasonCode::InvalidPod, error.clone()),
        Err(Flaw::Volumes) => {
            let detail = "its volumes and its node constraints leave no node".to_owned();
            return own(ReasonCode::VolumeConstraint, detail);
        }
    };
    if let (true, Some(gang)) = (gang_is_broken, class.gang) {
        let detail = format!("fewer than {} pods of gang {} can be placed", gang.min_member, gang.id);
        return own(ReasonCode::GangIncomplete, detail);
    }
    if solver.catalog.pools.is_empty() {
        return own(ReasonCode::NoNodePool, "there is no node pool".to_owned());
    }
    let blocked = solver.blocked_by(class);
    let (catalog, allowance) = (&solver.catalog, &outcome.allowance);
    let pools = 0..catalog.pools.len();
    pools
        .map(|pool| {
            // Of several OR terms, the one that got furthest says most.
            let tried =
                terms.iter().map(|term| reason(catalog, class, allowance, pool, term, blocked.as_deref()));
            let (reason, detail) = tried
                .reduce(|best, next| if next.0 > best.0 { next } else { best })
                .unwrap_or_else(|| (ReasonCode::InvalidPod, "no node selector term".to_owned()));
            PoolReason { pool: Some(catalog.pools[pool].pool.name.clone()), reason, detail, fix: None }
        })
        .collect()
}

/// The first constraint of one term that fails in one pool.
fn reason(
    catalog: &Catalog<'_>,
    class: &Class<'_>,
    allowance: &Allowance,
    index: usize,
    term: &Requirements,
    blocked: Option<&str>,
) -> (ReasonCode, String) {
    let pool = &catalog.pools[index];
    let requirements = match &pool.requirements {
        Ok(requirements) => requirements,
        Err(error) => {
            return (ReasonCode::IncompatibleRequirements, format!("the pool cannot be read: {error}"));
        }
    };
    if let Some(taint) = untolerated(&pool.pool.taints, &class.spec.tolerations) {
        return (ReasonCode::TaintNotTolerated, format!("does not tolerate {taint}"));
    }
    let shapes: Vec<&Shape<'_>> = catalog.shapes.iter().filter(|shape| shape.pool == index).collect();
    if let Err(error) = term.check_offered(requirements) {
        // What only hardware defines is missing from the pool and yet may be had from a type.
        let from_types =
            error.found.is_none() && shapes.iter().any(|shape| shape.offered.get(&error.key).is_some());
        if !from_types {
            let hint =
                if error.found.is_none() { hint(&error, requirements, &shapes) } else { String::new() };
            return (ReasonCode::IncompatibleRequirements, format!("{error}{hint}"));
        }
    }
    let compatible: Vec<(&Shape<'_>, u64)> =
        shapes.iter().map(|shape| (*shape, shape.mask_of_all(term))).filter(|(_, mask)| *mask != 0).collect();
    if compatible.is_empty() {
        return (ReasonCode::NoInstanceType, no_type(&shapes, term));
    }
    let fitting: Vec<&(&Shape<'_>, u64)> =
        compatible.iter().filter(|(shape, _)| fits(&class.requests, &shape.room)).collect();
    if fitting.is_empty() {
        return (ReasonCode::InsufficientResources, too_large(class.spec, &class.requests, &compatible));
    }
    let available: Vec<&Shape<'_>> =
        fitting.iter().filter(|(shape, mask)| mask & shape.available != 0).map(|(shape, _)| *shape).collect();
    let Some(smallest) =
        available.iter().min_by_key(|shape| (shape.price(shape.available), &shape.instance_type.name))
    else {
        let (shape, mask) = fitting[0];
        let (count, name) = (mask.count_ones(), &shape.instance_type.name);
        return (
            ReasonCode::NoOffering,
            format!(
                "{} types fit, none can be had now: all {count} allowed offerings of {name} are unavailable",
                fitting.len()
            ),
        );
    };
    if let Some(blocked) = blocked {
        return (ReasonCode::TopologyConstraint, blocked.to_owned());
    }
    let capacity = &smallest.instance_type.capacity;
    let over = allowance.describe(index).into_iter().find(|(name, left)| match name.as_str() {
        "nodes" => *left == 0,
        name => capacity.amount(name) > *left,
    });
    let name = &smallest.instance_type.name;
    let detail = match over {
        Some((what, _)) if what == "nodes" => "the pool's limit of nodes is reached".to_owned(),
        Some((what, left)) => format!(
            "the pool's {what} limit leaves {}; the cheapest machine that fits, {name}, has {}",
            amount(&what, left),
            amount(&what, capacity.amount(&what)),
        ),
        None => format!("the pool's limit is used up by other pods of this plan; {name} would fit"),
    };
    (ReasonCode::LimitExceeded, detail)
}

/// Which requirement leaves no type, alone or with the others.
fn no_type(shapes: &[&Shape<'_>], term: &Requirements) -> String {
    if shapes.is_empty() {
        return "the pool allows no instance type".to_owned();
    }
    let alone = term.iter().find(|(key, set)| shapes.iter().all(|shape| shape.mask_of(key, set) == 0));
    match alone {
        Some((key, set)) => {
            let needed: Vec<String> = set.to_requirements(key).iter().map(ToString::to_string).collect();
            format!("none of {} types has {}", shapes.len(), needed.join(" and "))
        }
        None => format!("none of {} types satisfies all of its requirements together", shapes.len()),
    }
}

/// The type that comes nearest, and by how much it is too small.
fn too_large(spec: &PodSpec, requests: &Amounts, compatible: &[(&Shape<'_>, u64)]) -> String {
    let excess = |shape: &Shape<'_>| {
        let over = requests.iter().zip(&shape.room).filter(|(need, room)| need > room);
        over.map(|(need, room)| real(*need) / real((*room).max(1)))
            .fold((0_u32, 0.0_f64), |(count, most), ratio| (count + 1, most.max(ratio)))
    };
    let nearest = compatible.iter().map(|(shape, _)| (excess(shape), *shape)).min_by(|(a, one), (b, two)| {
        a.0.cmp(&b.0)
            .then(a.1.total_cmp(&b.1))
            .then_with(|| one.instance_type.name.cmp(&two.instance_type.name))
    });
    let Some((_, shape)) = nearest else { return "no type is large enough".to_owned() };
    let parts: Vec<String> = resources(&spec.requests)
        .into_iter()
        .map(|name| (spec.requests.amount(&name), shape.room_list.amount(&name), name))
        .filter(|(need, room, _)| need > room)
        .map(|(need, room, name)| {
            format!(
                "needs {} {name}, closest allowed type gives {}",
                amount(&name, need),
                amount(&name, room)
            )
        })
        .collect();
    let parts =
        if parts.is_empty() { "its DaemonSets alone fill every type".to_owned() } else { parts.join("; ") };
    format!("{parts}: {}", shape.instance_type.name)
}

fn resources(list: &ResourceList) -> Vec<String> {
    let common = ["cpu", "memory", "ephemeral-storage", "pods"].map(str::to_owned);
    common.into_iter().chain(list.extended.keys().cloned()).collect()
}

/// An amount as people read it.
fn amount(name: &str, amount: u64) -> String {
    match name {
        "cpu" => MilliCpu(amount).to_string(),
        "memory" | "ephemeral-storage" => Bytes(amount).to_string(),
        name if name.starts_with("hugepages-") => Bytes(amount).to_string(),
        _ => amount.to_string(),
    }
}

/// `; did you mean …?` where a known key is a few letters away.
fn hint(error: &Incompatible, pool: &Requirements, shapes: &[&Shape<'_>]) -> String {
    let from_types = shapes.iter().flat_map(|shape| shape.offered.iter()).map(|(key, _)| key);
    let measured = [
        hardware::GPU_MODEL,
        hardware::GPU_COUNT,
        hardware::CPU_MODEL,
        hardware::CPU_VENDOR,
        hardware::CPU_ISA,
    ];
    let known =
        WELL_KNOWN.iter().copied().chain(pool.iter().map(|(key, _)| key)).chain(from_types).chain(measured);
    let known = known
        .filter(|key| ![karpenter::REGISTERED, karpenter::INITIALIZED, kubernetes::HOSTNAME].contains(key));
    let near = known.map(|key| (distance(key, &error.key), key)).min();
    match near {
        Some((1..=2, key)) => format!("; did you mean {key}?"),
        // The right name under a wrong prefix.
        _ => {
            let name = error.key.rsplit('/').next().unwrap_or(&error.key);
            let same =
                WELL_KNOWN.iter().find(|key| key.rsplit('/').next() == Some(name) && **key != error.key);
            same.map_or_else(String::new, |key| format!("; did you mean {key}?"))
        }
    }
}

/// Levenshtein distance.
fn distance(one: &str, two: &str) -> usize {
    let two: Vec<char> = two.chars().collect();
    let mut row: Vec<usize> = (0..=two.len()).collect();
    for (i, c) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, d) in two.iter().enumerate() {
            let replaced = diagonal + usize::from(c != *d);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[two.len()]
}
