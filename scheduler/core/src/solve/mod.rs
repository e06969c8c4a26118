//! Decides what to buy for the pods that wait, and says why the rest was left out.
//!
//! ```text
//! snapshot, or changes of it -> follow: catalog (shapes, offerings as bits), machines (room that exists), residents (who runs
//!                               there), topology (groups, counts), reach (who may go where)
//! pods -> classes (equal pods, ladders of wishes) -> settle (domains, existing room) -> pack (new machines) -> finish -> plan
//!                                                         run: again, with what was learned, while something is left
//!                                                         bound (dual prices, lower bound), reasons (for what is left)
//! ```
//!
//! Semantics are Karpenter's: strict pool weights, OR terms in order, soft taints last, limits counted with whole machines.
//! The packing is not: domains of topology constraints are decided first, then machines are chosen by dual prices and filled
//! whole, instead of pods being placed one at a time. Priority decides who gets what is scarce, and gangs are placed wholly or
//! not at all. Single-threaded and deterministic: no decision depends on a hash, the clock, or the order of equal pods.

mod again;
mod axes;
mod bound;
mod catalog;
mod cheaper;
mod classes;
mod explain;
mod finish;
mod follow;
mod host;
pub mod improve;
mod ladder;
mod limits;
mod machines;
mod numa;
mod options;
mod pack;
mod place;
#[cfg(test)]
pub(crate) mod properties;
mod reach;
mod reasons;
mod residents;
mod run;
mod settle;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod tidy;
mod topology;
mod warm;
mod why;

use std::collections::BTreeSet;
use std::sync::Arc;

use assay_shared::units::UsdPerHour;
use rustc_hash::{FxHashMap, FxHashSet};

use self::axes::Amounts;
use self::catalog::Catalog;
pub(crate) use self::catalog::compatible_types;
use self::classes::{ByLabels, Class, ClassKey, Masks, Volumes};
use self::follow::Bound;
use self::host::Occupancy;
use self::limits::{Allowance, Held};
use self::machines::Machines;
use self::numa::NumaRoom;
pub use self::options::{MinValues, Preferences, SolveOptions};
use self::reach::Reach;
use self::residents::Residents;
use self::run::Outcome;
use self::topology::{Counts, GroupId, Topology};
pub use self::warm::Warm;
use crate::model::{
    Change, ExistingAssignment, Market, Plan, Pod, PodId, PodSpec, PoolReason, Snapshot, Totals,
    Unschedulable,
};
use crate::requirement::Requirements;

/// The plan for the pending pods of a snapshot. It passes [`check`](crate::check::check).
pub fn solve(snapshot: &Snapshot, options: &SolveOptions) -> Plan {
    let pending: Vec<&Pod> = snapshot.pods.iter().filter(|pod| pod.is_pending()).collect();
    Solver::of(snapshot, &pending).decide(&pending, options)
}

/// What decisions are made on: what can be bought, which machines there are and who runs there; and what is remembered between
/// decisions. `follow` keeps it up with the cluster. A decision leaves nothing behind: it is carried out by whoever asked for
/// it, and told like any other change.
#[derive(Debug)]
struct Solver {
    catalog: Catalog,
    /// Labels that some type leaves to chance.
    left_to_chance: BTreeSet<String>,
    /// What the machines of each pool hold of what is limited.
    held: Held,
    machines: Machines,
    bound: Bound,
    residents: Residents,
    topology: Topology,
    counts: Counts,
    masks: Masks,
    reach: Reach,
    requirements_known: FxHashMap<Requirements, Arc<Requirements>>,
    /// Groups that the ports of DaemonSets on machines to come make.
    ports_of_shapes: Vec<GroupId>,
    /// Places as they were before the present decision touched them; then, for each step within it that may have to be undone.
    touched: Vec<Before>,
    /// Volumes by number.
    volume_numbers: FxHashMap<Arc<str>, u32>,
    /// How many of the pods that are decided on use each volume.
    volumes_pending: FxHashMap<Arc<str>, u32>,
}

/// What is left of a place.
type Left = (Amounts, Occupancy, Option<NumaRoom>);

/// What changes of a state overwrote.
#[derive(Debug, Default)]
struct Before {
    places: FxHashMap<usize, Left>,
    counts: usize,
}

impl Solver {
    /// A solver that knows a snapshot.
    fn of(snapshot: &Snapshot, pending: &[&Pod]) -> Self {
        let bound: Vec<&Pod> = snapshot.pods.iter().filter(|pod| pod.uses_node()).collect();
        let mut solver = Self::new(Market::of(snapshot), &bound, pending);
        for pod in bound {
            solver.apply(Change::Pod(Arc::new(pod.clone())));
        }
        for node in &snapshot.nodes {
            solver.apply(Change::Node(Arc::new(node.clone())));
        }
        for claim in &snapshot.node_claims {
            solver.apply(Change::Claim(Arc::new(claim.clone())));
        }
        solver
    }

    /// Makes the groups of pending pods' constraints and counts who is in them already.
    fn learn(&mut self, pending: &[&Pod], preferences: Preferences) {
        self.topology.begin();
        let making = pending.iter().map(|pod| &pod.spec).filter(|spec| topology::makes_groups(spec));
        for spec in distinct(making) {
            self.topology.learn(&self.catalog, &self.machines, spec, preferences);
        }
        for pod in pending.iter().filter(|pod| pod.gang.is_some()) {
            self.topology.learn_gang(&self.catalog, &self.machines, pod);
        }
        self.count_new_groups();
    }

    /// Groups that count a pod, of those that matter now.
    fn counted_in(&self, pod: &Pod, by_labels: &mut ByLabels) -> Arc<[GroupId]> {
        if self.topology.len() == 0 {
            return Arc::default();
        }
        let live = |groups: Vec<GroupId>| -> Arc<[GroupId]> {
            groups.into_iter().filter(|group| self.topology.is_live(*group)).collect()
        };
        let key = (Arc::as_ptr(&pod.id.namespace), Arc::as_ptr(&pod.labels));
        let by_selector = by_labels
            .entry(key)
            .or_insert_with(|| live(self.topology.selecting(&pod.id.namespace, &pod.labels)));
        if pod.spec.host_ports.is_empty() && pod.gang.is_none() {
            return Arc::clone(by_selector);
        }
        live(self.topology.counting(pod, by_selector))
    }

    /// Groups pending pods; most important first, then largest.
    fn classes<'p>(&mut self, pending: &[&'p Pod], options: &SolveOptions) -> Vec<Class<'p>> {
        let mut by_labels = ByLabels::default();
        let mut counted_known: FxHashSet<Arc<[GroupId]>> = FxHashSet::default();
        // By address first: siblings share their spec, and hashing a spec costs more than placing it.
        let mut specs: FxHashMap<*const PodSpec, &'p PodSpec> = FxHashMap::default();
        let mut by_spec: FxHashMap<&'p PodSpec, &'p PodSpec> = FxHashMap::default();
        let mut by_address: FxHashMap<(*const PodSpec, *const GroupId, Option<&'p str>, i32), usize> =
            FxHashMap::default();
        let mut with_volumes: FxHashMap<ClassKey<'p>, usize> = FxHashMap::default();
        let mut classes: Vec<Class<'p>> = Vec::new();
        for pod in pending {
            let spec: &'p PodSpec = specs
                .entry(Arc::as_ptr(&pod.spec))
                .or_insert_with(|| by_spec.entry(&pod.spec).or_insert(&pod.spec));
            let mut counted = self.counted_in(pod, &mut by_labels);
            match counted_known.get(&counted) {
                Some(known) => counted = Arc::clone(known),
                None => {
                    counted_known.insert(Arc::clone(&counted));
                }
            }
            let gang = pod.gang.as_ref().map(|gang| &*gang.id);
            let volumes = self.volumes(pod);
            let key = ClassKey { spec, counted, volumes, gang, priority: pod.priority };
            let plain = key.volumes == Volumes::default();
            let address = (std::ptr::from_ref(spec), key.counted.as_ptr(), gang, pod.priority);
            let known = if plain { by_address.get(&address) } else { with_volumes.get(&key) };
            if let Some(index) = known {
                classes[*index].pods.push(pod);
                continue;
            }
            let rules =
                self.topology.rules(&self.catalog, &self.machines, pod, &key.counted, options.preferences);
            classes.push(Class::new(&self.catalog, &key, pod, rules, options.preferences));
            if plain {
                by_address.insert(address, classes.len() - 1);
            } else {
                with_volumes.insert(key, classes.len() - 1);
            }
        }
        classes::sort(&mut classes);
        classes
    }

    /// Volumes that a pod attaches.
    fn volumes(&mut self, pod: &Pod) -> Volumes {
        let mut volumes = Volumes::default();
        for volume in &*pod.volumes {
            let Some(axis) = self.catalog.axes.of_driver(&volume.driver) else { continue };
            let axis = u16::try_from(axis).unwrap_or(u16::MAX);
            let pending = self.volumes_pending.get(&volume.id).copied().unwrap_or(0);
            if self.bound.of_volume(&volume.id) + pending > 1 {
                volumes.shared.push((axis, number(&mut self.volume_numbers, &volume.id)));
                continue;
            }
            match volumes.own.iter_mut().find(|(one, _)| *one == axis) {
                Some((_, count)) => *count += 1,
                None => volumes.own.push((axis, 1)),
            }
        }
        volumes.own.sort_unstable();
        volumes.shared.sort_unstable();
        volumes.shared.dedup();
        volumes
    }

    /// Remembers a place before it is changed.
    fn touch(&mut self, place: usize) {
        let one = &self.machines[place];
        if let Some(before) = self.touched.last_mut() {
            before
                .places
                .entry(place)
                .or_insert_with(|| (one.room.clone(), one.occupancy.clone(), one.numa.clone()));
        }
    }

    /// Makes the present the state that tries may have to return to.
    fn mark(&mut self) {
        self.touched.clear();
        self.counts.forget_changes();
        self.step();
    }

    /// Begins a step that may have to be undone.
    fn step(&mut self) {
        self.touched.push(Before { places: FxHashMap::default(), counts: self.counts.changes() });
    }

    /// Takes back all changes since the last step began, and the step.
    fn undo(&mut self) {
        let Some(before) = self.touched.pop() else { return };
        for (place, left) in before.places {
            let one = &mut self.machines[place];
            (one.room, one.occupancy, one.numa) = left;
        }
        self.counts.back_to(before.counts);
    }

    /// Makes the changes of the last step part of the one before.
    fn keep_step(&mut self) {
        let Some(inner) = self.touched.pop() else { return };
        let Some(outer) = self.touched.last_mut() else { return };
        for (place, before) in inner.places {
            outer.places.entry(place).or_insert(before);
        }
    }

    /// Takes back all changes since the last mark.
    fn reset(&mut self) {
        while !self.touched.is_empty() {
            self.undo();
        }
        self.step();
    }

    /// Places pending pods.
    fn decide(&mut self, pending: &[&Pod], options: &SolveOptions) -> Plan {
        self.prepare(pending);
        self.learn(pending, options.preferences);
        let classes = self.classes(pending, options);
        if classes.is_empty() {
            return Plan::default();
        }
        let allowance = Allowance::of(&self.held, &self.catalog);
        let mut outcome = self.run(&classes, &allowance, options);
        self.make_cheaper(&classes, &mut outcome, options.steps);
        self.look_again(&classes, &mut outcome, &allowance, options);
        let plan = self.plan(&classes, &outcome, &allowance, options);
        self.reset();
        plan
    }

    /// Turns an outcome into words.
    fn plan(
        &mut self,
        classes: &[Class<'_>],
        outcome: &Outcome,
        allowance: &Allowance,
        options: &SolveOptions,
    ) -> Plan {
        let mut next = vec![0; classes.len()];
        let mut take = |class: usize, count: u64| -> Vec<PodId> {
            let first = next[class];
            next[class] += usize::try_from(count).unwrap_or(usize::MAX);
            classes[class].pods[first..next[class]].iter().map(|pod| pod.id.clone()).collect()
        };
        let mut existing: Vec<ExistingAssignment> = Vec::new();
        let mut by_place: FxHashMap<usize, usize> = FxHashMap::default();
        for placed in &outcome.settled.placed {
            let index = *by_place.entry(placed.place).or_insert_with(|| {
                let name = Arc::clone(&self.machines[placed.place].name);
                existing.push(ExistingAssignment { name, pods: Vec::new() });
                existing.len() - 1
            });
            existing[index].pods.extend(take(placed.class, placed.count));
        }
        let mut order: Vec<(usize, usize)> = by_place.into_iter().collect();
        order.sort_unstable_by_key(|(place, _)| &self.machines[*place].site.rank);
        let existing: Vec<ExistingAssignment> = order
            .into_iter()
            .map(|(_, index)| {
                std::mem::replace(
                    &mut existing[index],
                    ExistingAssignment { name: Arc::from(""), pods: Vec::new() },
                )
            })
            .collect();
        let claims = finish::claims(self, classes, outcome, allowance, options, &mut take);
        let mut unschedulable = Vec::new();
        let mut changed = reasons::Changed::default();
        for (index, class) in classes.iter().enumerate().filter(|(index, _)| outcome.left[*index] > 0) {
            let reasons: Arc<[PoolReason]> =
                reasons::reasons(self, classes, index, outcome, options, &mut changed).into();
            let first = next[index].min(class.pods.len());
            unschedulable.extend(
                class.pods[first..]
                    .iter()
                    .map(|pod| Unschedulable { pod: pod.id.clone(), reasons: Arc::clone(&reasons) }),
            );
        }
        let on_claims: usize = claims.iter().map(|claim| claim.pods.len()).sum();
        let on_existing: usize = existing.iter().map(|assignment| assignment.pods.len()).sum();
        let totals = Totals {
            price: claims.iter().map(|claim| claim.price).sum(),
            nodes: claims.len(),
            pods: on_claims + on_existing,
            lower_bound: self.lower_bound(classes, outcome),
        };
        Plan { claims, existing, unschedulable, totals }
    }

    /// The bound for the pods that machines are bought for, wherever their constraints could have put them. Where a limit pushed
    /// pods to a less important pool, any of their pools counts.
    fn lower_bound(&mut self, classes: &[Class<'_>], outcome: &Outcome) -> UsdPerHour {
        let mut counts = vec![0_u64; classes.len()];
        for bin in &outcome.bins {
            for (piece, count) in &bin.pods {
                counts[outcome.settled.pieces[*piece].class] += count;
            }
        }
        let mut masks: Vec<Vec<u64>> = vec![Vec::new(); classes.len()];
        let mut seen: FxHashSet<(usize, usize)> = FxHashSet::default();
        let tiers = self.catalog.pools.last().map_or(0, |pool| pool.tier + 1);
        for piece in outcome.settled.pieces.iter().filter(|piece| piece.count > 0) {
            if !seen.insert((piece.class, piece.rung)) {
                continue;
            }
            let class = &classes[piece.class];
            let Ok(terms) = &class.terms else { continue };
            let rung = class.ladder.rungs[piece.rung];
            let requirements = self.requirements(class, terms, &rung);
            let pools = if rung.soft_taints { &class.pools } else { &class.clean_pools };
            let wide = self.masks.of(&self.catalog, &requirements, pools);
            let shapes = || self.catalog.shapes.iter().zip(wide.iter());
            let holding =
                shapes().filter(|(shape, mask)| **mask != 0 && axes::fits(&class.requests, &shape.room));
            let first = if outcome.limited || tiers == 1 {
                0
            } else {
                holding.map(|(shape, _)| shape.tier).min().unwrap_or(0)
            };
            // Constraints between pods may have sent some to a lighter pool, each for itself.
            let anywhere = outcome.limited || !class.rules.is_free() || !class.host.is_empty();
            let last = if anywhere { tiers } else { first };
            let all = &mut masks[piece.class];
            all.resize(self.catalog.shapes.len(), 0);
            for (all, (shape, mask)) in all.iter_mut().zip(shapes()) {
                *all |= if (first..=last).contains(&shape.tier) { *mask } else { 0 };
            }
        }
        let demands: Vec<bound::Demand> = classes
            .iter()
            .zip(counts)
            .zip(masks)
            .filter(|((_, count), masks)| *count > 0 && !masks.is_empty())
            .map(|((class, count), masks)| bound::Demand { requests: class.requests.clone(), count, masks })
            .collect();
        bound::lower_bound(&self.catalog, &demands)
    }
}

/// Each spec once, in an order that is not that of the input: groups are numbered as they are met.
fn distinct<'p>(specs: impl Iterator<Item = &'p Arc<PodSpec>>) -> Vec<&'p PodSpec> {
    let mut seen: FxHashSet<*const PodSpec> = FxHashSet::default();
    let mut distinct: Vec<&PodSpec> =
        specs.filter(|spec| seen.insert(Arc::as_ptr(spec))).map(|spec| &**spec).collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// The number of a name, given to it where it is new.
fn number(numbers: &mut FxHashMap<Arc<str>, u32>, name: &Arc<str>) -> u32 {
    let next = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
    *numbers.entry(Arc::clone(name)).or_insert(next)
}
