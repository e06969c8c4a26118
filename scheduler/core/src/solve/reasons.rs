//! Why a pod was left out: per pool, the first constraint that failed, the numbers, and one change that would make it fit.
//!
//! Asked once per class after the plan is made, on the state the plan leaves behind: what other pods took is gone.

mod fix;
#[cfg(test)]
mod tests;
mod words;

use std::collections::BTreeSet;

pub(super) use self::fix::Changed;
pub(super) use self::words::{amount, clipped, requirement};
use self::words::{nearest_key, nearest_value, port};
use super::Solver;
use super::axes::{Axes, fits, real};
use super::catalog::Shape;
use super::classes::{Class, Flaw};
use super::host::HostRules;
use super::limits::Allowance;
use super::options::{MinValues, SolveOptions};
use super::pack::{add_values, wanted_variety};
use super::run::Outcome;
use super::why::Blocked;
use crate::model::{PodSpec, PoolReason, ReasonCode, Rejection, untolerated};
use crate::requirement::{Requirements, ValueSet};

/// Characters of a detail or a fix.
const TEXT_AT_MOST: usize = 400;

/// Host ports that a reason names.
const PORTS_AT_MOST: usize = 10;

/// Excess up to which a smaller request is the first thing to suggest: a twentieth too much is a rounding, double is not.
const SMALL_EXCESS: f64 = 1.25;

/// What failed in one pool.
struct Finding {
    reason: ReasonCode,
    detail: String,
    fix: Option<String>,
}

impl Finding {
    fn new(reason: ReasonCode, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into(), fix: None }
    }

    fn fix(self, fix: Option<String>) -> Self {
        Self { fix, ..self }
    }

    fn of(self, pool: Option<&str>) -> PoolReason {
        PoolReason {
            pool: pool.map(str::to_owned),
            reason: self.reason,
            detail: clipped(self.detail, TEXT_AT_MOST),
            fix: self.fix.map(|fix| clipped(fix, TEXT_AT_MOST)),
        }
    }
}

/// A class and a pool that did not take it.
struct Case<'a, 'p> {
    solver: &'a Solver,
    class: &'a Class<'p>,
    /// What pools may still buy after the plan.
    allowance: &'a Allowance,
    pool: usize,
    blocked: Option<&'a Blocked>,
    min_values: MinValues,
    /// Whether machines of the pool were planned for more important pods.
    outranked: bool,
}

/// A label that a pool does not define.
struct Unlike<'a> {
    key: &'a str,
    needed: &'a ValueSet,
    /// What was probably meant.
    near: Option<String>,
}

/// Why no pool could take the pods of class number `index` that were left out.
pub(super) fn reasons(
    solver: &mut Solver,
    classes: &[Class<'_>],
    index: usize,
    outcome: &Outcome,
    options: &SolveOptions,
    changed: &mut Changed,
) -> Vec<PoolReason> {
    let class = &classes[index];
    if !class.spec.rejections.is_empty() {
        let of = |one: &Rejection| Finding::new(one.reason, one.detail.clone()).of(None);
        return class.spec.rejections.iter().map(of).collect();
    }
    let terms = match &class.terms {
        Ok(terms) => terms,
        Err(Flaw::Unreadable(error)) => {
            return vec![Finding::new(ReasonCode::InvalidPod, error.clone()).of(None)];
        }
        Err(Flaw::Volumes) => {
            return vec![Finding::new(ReasonCode::VolumeConstraint, apart(class.spec)).of(None)];
        }
    };
    let mut found = Vec::new();
    if let (true, Some(gang)) = (outcome.broken_gangs.contains(&index), class.gang) {
        let detail = format!("fewer than {} pods of gang {} can be placed", gang.min_member, gang.id);
        found.push(Finding::new(ReasonCode::GangIncomplete, detail).of(None));
    }
    if solver.catalog.pools.is_empty() {
        if found.is_empty() {
            found.push(Finding::new(ReasonCode::NoNodePool, "there is no node pool").of(None));
        }
        return found;
    }
    let in_gang = !found.is_empty();
    let blocked = solver.blocked_by(class);
    // What one pool may do in its domains, another may not in its own.
    let count = solver.catalog.pools.len();
    let mut blocked_in: Vec<Option<Blocked>> = Vec::with_capacity(count);
    for pool in 0..count {
        let only: Vec<bool> = (0..count).map(|one| one == pool && class.pools[one]).collect();
        blocked_in.push(match &blocked {
            None if count > 1 && class.pools[pool] => solver.blocked_in(class, &only),
            known => known.clone(),
        });
    }
    let solver = &*solver;
    for (pool, one) in solver.catalog.pools.iter().enumerate() {
        let outranked = outcome.bins.iter().any(|bin| {
            solver.catalog.shapes[bin.shape].pool == pool
                && bin
                    .pods
                    .iter()
                    .any(|(piece, _)| classes[outcome.settled.pieces[*piece].class].priority > class.priority)
        });
        let case = Case {
            solver,
            class,
            allowance: &outcome.allowance,
            pool,
            blocked: blocked_in[pool].as_ref(),
            min_values: options.min_values,
            outranked,
        };
        // Of several OR terms, the one that got furthest says most.
        let tried = terms.iter().map(|term| case.finding(term, changed)).collect::<Vec<_>>();
        if in_gang && (tried.is_empty() || tried.iter().any(Option::is_none)) {
            // By itself it could have been here.
            continue;
        }
        let furthest = tried
            .into_iter()
            .map(|one| one.unwrap_or_else(|| case.taken_by_others()))
            .reduce(|best, next| if next.reason > best.reason { next } else { best })
            .unwrap_or_else(|| Finding::new(ReasonCode::InvalidPod, "no node selector term can hold"));
        if in_gang {
            // One reason for the gang. What lets one pod in need not let the gang in: no fix.
            let detail = format!("{}; pool {}: {}", found[0].detail, one.pool.name, furthest.detail);
            found[0].detail = clipped(detail, TEXT_AT_MOST);
            continue;
        }
        found.push(furthest.of(Some(&one.pool.name)));
    }
    found
}

impl Case<'_, '_> {
    /// The first constraint that fails; `None` where one more pod could be bought a machine.
    fn finding(&self, term: &Requirements, changed: &mut Changed) -> Option<Finding> {
        let (catalog, class) = (&self.solver.catalog, self.class);
        let pool = &catalog.pools[self.pool];
        let requirements = match &pool.requirements {
            Ok(requirements) => requirements,
            Err(error) => {
                let detail = format!("the pool cannot be read: {error}");
                return Some(Finding::new(ReasonCode::IncompatibleRequirements, detail));
            }
        };
        let shapes: Vec<&Shape> = catalog.shapes.iter().filter(|shape| shape.pool == self.pool).collect();
        let as_is = |term: &Requirements| self.taking(shapes.iter().copied(), term, &class.requests);
        let mut taints = pool
            .pool
            .taints
            .iter()
            .filter(|taint| untolerated(std::slice::from_ref(taint), &class.spec.tolerations).is_some());
        if let Some(taint) = taints.next() {
            let alone = taints.next().is_none() && as_is(term).is_some();
            let fix = alone.then(|| format!("tolerate {taint}"));
            let detail = format!("does not tolerate {taint}");
            return Some(Finding::new(ReasonCode::TaintNotTolerated, detail).fix(fix));
        }
        if let Err(error) = term.check_offered(requirements) {
            // What only hardware defines is missing from the pool and yet may be had from a type.
            let from_types =
                error.found.is_none() && shapes.iter().any(|shape| shape.offered.get(&error.key).is_some());
            if !from_types {
                let mut detail = error.to_string();
                let fix = if error.found.is_none() {
                    let near = nearest_key(&error, requirements, &shapes);
                    if let Some(near) = &near {
                        detail = format!("{}; did you mean {near}?", clipped(detail, TEXT_AT_MOST / 2));
                    }
                    self.define(&shapes, term, &Unlike { key: &error.key, needed: &error.needed, near })
                } else {
                    self.allow_in_pool(changed, term)
                };
                return Some(Finding::new(ReasonCode::IncompatibleRequirements, detail).fix(fix));
            }
        }
        let compatible: Vec<(&Shape, u64)> = shapes
            .iter()
            .map(|shape| (*shape, shape.mask_of_all(term)))
            .filter(|(_, mask)| *mask != 0)
            .collect();
        if compatible.is_empty() {
            return Some(self.no_type(&shapes, term, changed));
        }
        let fitting: Vec<(&Shape, u64)> =
            compatible.iter().copied().filter(|(shape, _)| fits(&class.requests, &shape.room)).collect();
        if fitting.is_empty() {
            return Some(self.too_large(&shapes, &compatible, term, changed));
        }
        if !fitting.iter().any(|(shape, _)| shape.aligns(&class.spec.aligned)) {
            let most = class.spec.aligned.iter().map(|one| one.cpus).max().unwrap_or(0);
            let largest =
                fitting.iter().filter_map(|(shape, _)| Some((shape.numa.as_ref()?.cpus_each(), *shape)));
            let detail = largest.max_by_key(|(cpus, _)| *cpus).map_or_else(String::new, |(cpus, shape)| {
                let name = &shape.instance_type.name;
                format!(": a container asks for {most} CPUs, each NUMA node of {name} has {cpus}")
            });
            let devices = class.spec.aligned.iter().flat_map(|one| &one.devices);
            let devices: String =
                devices.map(|(name, count)| format!(", and for {count} {name} of one node")).collect();
            let detail = format!("single-numa-node turns it away from every type{detail}{devices}");
            return Some(Finding::new(ReasonCode::NumaAlignment, &detail));
        }
        let available: Vec<(&Shape, u64)> = fitting
            .iter()
            .map(|(shape, mask)| (*shape, self.to_be_had(shape, *mask)))
            .filter(|(_, mask)| *mask != 0)
            .collect();
        if available.is_empty() {
            let fix = self.allow_in_pool(changed, term).or_else(|| self.allow_in_pod(&shapes, term));
            return Some(Finding::new(ReasonCode::NoOffering, self.gone(&fitting)).fix(fix));
        }
        if let Some(blocked) = self.blocked {
            let finding = Finding::new(ReasonCode::TopologyConstraint, blocked.detail.clone());
            return Some(finding.fix(blocked.fix.clone()));
        }
        if available.iter().all(|(shape, _)| shape.occupancy.space(&class.host) == 0) {
            return Some(Finding::new(ReasonCode::TopologyConstraint, self.beside_daemons(&available)));
        }
        let within = |shape: &Shape| self.allowance.machines(self.pool, &shape.instance_type.capacity) > 0;
        let allowed: Vec<(&Shape, u64)> =
            available.iter().copied().filter(|(shape, _)| within(shape)).collect();
        if allowed.is_empty() {
            return Some(self.over_limit(&available));
        }
        self.too_alike(&allowed)
    }

    /// Which requirement leaves no type, alone or with the others.
    fn no_type(&self, shapes: &[&Shape], term: &Requirements, changed: &mut Changed) -> Finding {
        let reason = ReasonCode::NoInstanceType;
        if shapes.is_empty() {
            let fix = self.allow_in_pool(changed, term);
            return Finding::new(reason, "the pool allows no instance type").fix(fix);
        }
        let alone = term.iter().find(|(key, set)| shapes.iter().all(|shape| shape.mask_of(key, set) == 0));
        let mut near = None;
        let mut detail = match alone {
            Some((key, set)) => {
                near = nearest_value(key, set, shapes).map(|near| (key, near));
                format!("none of {} types has {}", shapes.len(), requirement(key, set))
            }
            None => format!("none of {} types satisfies all of its requirements together", shapes.len()),
        };
        let mut fix = None;
        if let Some((key, (value, meant))) = near {
            detail = format!("{detail}; did you mean {meant}?");
            let mut corrected = term.clone();
            corrected.remove(key);
            corrected.constrain(key, &ValueSet::of([meant.as_str()]));
            fix = self
                .taking(shapes.iter().copied(), &corrected, &self.class.requests)
                .map(|_| format!("use {meant} instead of {value}"));
        }
        let fix =
            fix.or_else(|| self.allow_in_pool(changed, term)).or_else(|| self.allow_in_pod(shapes, term));
        Finding::new(reason, detail).fix(fix)
    }

    /// The type that comes nearest, and by how much it is too small.
    fn too_large(
        &self,
        shapes: &[&Shape],
        compatible: &[(&Shape, u64)],
        term: &Requirements,
        changed: &mut Changed,
    ) -> Finding {
        let reason = ReasonCode::InsufficientResources;
        let (requests, axes) = (&self.class.requests, &self.solver.catalog.axes);
        let nearest = compatible
            .iter()
            .map(|(shape, mask)| (excess(requests, shape), shape.price(*mask), *shape))
            .min_by(|(a, a_price, one), (b, b_price, two)| {
                a.0.total_cmp(&b.0)
                    .then(a.1.cmp(&b.1))
                    .then(a.2.total_cmp(&b.2))
                    .then(a_price.cmp(b_price))
                    .then_with(|| one.instance_type.name.cmp(&two.instance_type.name))
            });
        let Some(((worst, short, _), _, shape)) = nearest else {
            return Finding::new(reason, "no type is large enough");
        };
        let missing = shortages(axes, self.class, shape);
        let parts: Vec<String> = missing
            .iter()
            .map(|one| format!("needs {}, closest allowed type gives {}", one.need, one.room))
            .collect();
        let mut detail = if parts.is_empty() {
            "its DaemonSets alone fill every type".to_owned()
        } else {
            parts.join("; ")
        };
        detail = format!("{detail}: {}", shape.instance_type.name);
        if missing.iter().any(|one| one.daemons_are_to_blame) {
            detail += " (DaemonSets take the rest)";
        }
        let less = || {
            let [one] = missing.as_slice() else { return None };
            let (resource, room) = (one.resource?, one.amount);
            let mut lower = requests.clone();
            lower[one.axis] = room;
            (short == 1 && room > 0 && resource != "pods").then_some(())?;
            self.taking(compatible.iter().map(|(shape, _)| *shape), term, &lower)?;
            Some(format!("request at most {} of {resource}", amount(resource, room)))
        };
        let wider = |changed: &mut Changed| {
            self.allow_in_pool(changed, term).or_else(|| self.allow_in_pod(shapes, term))
        };
        let fix = if worst <= SMALL_EXCESS {
            less().or_else(|| wider(changed))
        } else {
            wider(changed).or_else(less)
        };
        Finding::new(reason, detail).fix(fix)
    }

    /// Of these offerings, those that can be had: reservations that are used up cannot.
    fn to_be_had(&self, shape: &Shape, mask: u64) -> u64 {
        mask & shape.available
            & shape.mask_where(|offering| {
                offering.reservation.as_ref().is_none_or(|one| self.allowance.reserved(&one.id) > 0)
            })
    }

    /// Offerings of types that would fit, none of which can be had.
    fn gone(&self, fitting: &[(&Shape, u64)]) -> String {
        let reserved: BTreeSet<&str> = fitting
            .iter()
            .flat_map(|(shape, mask)| {
                let had = mask & shape.available;
                shape.offerings.iter().enumerate().filter(move |(bit, _)| had & (1 << bit) != 0)
            })
            .filter_map(|(_, offering)| Some(&*offering.reservation.as_ref()?.id))
            .collect();
        if !reserved.is_empty() {
            let list: Vec<&str> = reserved.into_iter().collect();
            return format!(
                "{} types fit, but no machine is left of reservation {}",
                fitting.len(),
                list.join(", ")
            );
        }
        let (shape, mask) = fitting[0];
        let (count, name) = (mask.count_ones(), &shape.instance_type.name);
        format!(
            "{} types fit, none can be had now: all {count} allowed offerings of {name} are unavailable",
            fitting.len()
        )
    }

    /// What of the class excludes the DaemonSets of every type.
    fn beside_daemons(&self, available: &[(&Shape, u64)]) -> String {
        let is_port = |group: u32| self.solver.topology.is_port(group);
        let mut without_ports = HostRules::clone(&self.class.host);
        without_ports.at_most.retain(|(group, _)| !is_port(*group));
        without_ports.counted.retain(|group| !is_port(*group));
        let ports: Vec<String> = self.class.spec.host_ports.iter().take(PORTS_AT_MOST).map(port).collect();
        let of_ports = available.iter().all(|(shape, _)| shape.occupancy.space(&without_ports) > 0);
        match ports.as_slice() {
            [port] if of_ports => format!("DaemonSets hold host port {port} on every type"),
            ports if of_ports => {
                format!("DaemonSets hold one of host ports {} on every type", ports.join(", "))
            }
            _ => "its rules for one machine exclude the DaemonSets of every type".to_owned(),
        }
    }

    /// The limit that keeps every type out.
    fn over_limit(&self, available: &[(&Shape, u64)]) -> Finding {
        let Some((shape, _)) =
            available.iter().min_by_key(|(shape, mask)| (shape.price(*mask), &shape.instance_type.name))
        else {
            return self.taken_by_others();
        };
        let (capacity, name) = (&shape.instance_type.capacity, &shape.instance_type.name);
        let over = self.allowance.describe(self.pool).into_iter().find(|(what, left)| match what.as_str() {
            "nodes" => *left == 0,
            what => capacity.amount(what) > *left,
        });
        let mut detail = match over {
            Some((what, _)) if what == "nodes" => "the pool's limit of nodes is reached".to_owned(),
            Some((what, left)) => format!(
                "the pool's {what} limit leaves {}; the cheapest machine that fits, {name}, has {}",
                amount(&what, left),
                amount(&what, capacity.amount(&what)),
            ),
            None => return self.taken_by_others(),
        };
        if self.outranked {
            detail += "; more important pods took what the limit left";
        }
        Finding::new(ReasonCode::LimitExceeded, detail).fix(self.raise(available))
    }

    /// The label of which too few values are left for `minValues`.
    fn too_alike(&self, allowed: &[(&Shape, u64)]) -> Option<Finding> {
        let pool = &self.solver.catalog.pools[self.pool].pool;
        if self.min_values == MinValues::BestEffort {
            return None;
        }
        let short: Vec<(&str, usize, usize)> = wanted_variety(pool)
            .into_iter()
            .map(|(key, least)| {
                let mut values = BTreeSet::new();
                for (shape, mask) in allowed {
                    add_values(shape, mask & shape.paid, key, &mut values);
                }
                (key, least, values.len())
            })
            .filter(|(_, least, found)| found < least)
            .collect();
        let (key, least, found) = *short.first()?;
        let detail = format!("minValues asks for {least} values of {key}, {found} would be left");
        let fix = (short.len() == 1 && found > 0)
            .then(|| format!("lower minValues of {key} in pool {} to {found}", pool.name));
        Some(Finding::new(ReasonCode::MinValues, detail).fix(fix))
    }

    /// Nothing is in the way now, for one pod by itself.
    fn taken_by_others(&self) -> Finding {
        let pool = &self.solver.catalog.pools[self.pool].pool;
        let who = if self.outranked { "more important pods" } else { "other pods" };
        let limited = !pool.limits.limited.is_empty() || pool.limits.nodes.is_some();
        if limited || self.class.rules.is_free() {
            let detail = format!("the pool's limit is used up by {who} of this plan");
            Finding::new(ReasonCode::LimitExceeded, detail)
        } else {
            let detail = format!("its domains could not be kept in balance with {who} of this plan");
            Finding::new(ReasonCode::TopologyConstraint, detail)
        }
    }
}

/// How far a shape is from holding a pod: the worst ratio, how many resources are short, the sum of ratios. A resource that a
/// shape has nothing of is infinitely short.
fn excess(requests: &[u64], shape: &Shape) -> (f64, u32, f64) {
    let over = requests.iter().zip(&shape.room).filter(|(need, room)| need > room);
    let ratios = over.map(|(need, room)| if *room == 0 { f64::INFINITY } else { real(*need) / real(*room) });
    ratios.fold((0.0, 0, 0.0), |(worst, count, sum), ratio| (ratio.max(worst), count + 1, sum + ratio))
}

/// A resource of which a type has too little.
pub(super) struct Shortage<'a> {
    pub(super) axis: usize,
    /// `None` for volumes.
    pub(super) resource: Option<&'a str>,
    /// What the type gives.
    pub(super) amount: u64,
    /// Both, for people.
    pub(super) need: String,
    pub(super) room: String,
    /// Whether it would be enough without DaemonSets.
    pub(super) daemons_are_to_blame: bool,
}

/// What a pod of a class lacks on a shape.
fn shortages<'a>(axes: &'a Axes, class: &Class<'_>, shape: &Shape) -> Vec<Shortage<'a>> {
    shortages_of(axes, &class.requests, shape)
}

/// What these requests lack on a shape.
pub(super) fn shortages_of<'a>(axes: &'a Axes, requests: &[u64], shape: &Shape) -> Vec<Shortage<'a>> {
    let pairs = requests.iter().zip(&shape.room).enumerate();
    pairs
        .filter(|(_, (need, room))| need > room)
        .map(|(axis, (need, room))| match axes.resource(axis) {
            Some(resource) => {
                let (mut wanted, mut given) = (amount(resource, *need), amount(resource, *room));
                if wanted == given {
                    // Rounding would hide the difference.
                    (wanted, given) = (need.to_string(), room.to_string());
                }
                Shortage {
                    axis,
                    resource: Some(resource),
                    amount: *room,
                    need: format!("{wanted} {resource}"),
                    room: given,
                    daemons_are_to_blame: room.saturating_add(shape.daemons.amount(resource)) >= *need
                        && shape.daemons.amount(resource) > 0,
                }
            }
            None => Shortage {
                axis,
                resource: None,
                amount: *room,
                need: format!("{need} volumes of {}", axes.driver(axis).unwrap_or("its driver")),
                room: room.to_string(),
                daemons_are_to_blame: false,
            },
        })
        .collect()
}

/// Volumes and node constraints that exclude each other.
fn apart(spec: &PodSpec) -> String {
    let volumes = spec.volume_topology.iter().map(|alternatives| {
        let words = alternatives.iter().map(|term| {
            let list: Vec<String> = term.iter().map(ToString::to_string).collect();
            list.join(" and ")
        });
        words.collect::<Vec<_>>().join(" or ")
    });
    let reach: BTreeSet<String> = volumes.collect();
    let list: Vec<String> = reach.into_iter().collect();
    format!(
        "its volumes and its node constraints leave no node: volumes are reached from {}",
        list.join("; ")
    )
}
