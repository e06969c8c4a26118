//! Decides what to buy for the pods that wait, and says why the rest was left out.
//!
//! ```text
//! snapshot -> catalog (shapes, offerings as bits) -> places (room that exists) -> topology (groups, counts)
//! pods -> classes (equal pods, ladders of wishes) -> settle (domains, existing room) -> pack (new machines) -> finish -> plan
//!                                                         run: again, with what was learned, while something is left
//!                                                         bound (dual prices, lower bound), reasons (for what is left)
//! ```
//!
//! Semantics are Karpenter's: strict pool weights, OR terms in order, soft taints last, limits counted with whole machines.
//! The packing is not: domains of topology constraints are decided first, then machines are chosen by dual prices and filled
//! whole, instead of pods being placed one at a time. Priority decides who gets what is scarce, and gangs are placed wholly or
//! not at all. Single-threaded and deterministic: no decision depends on a hash, the clock, or the order of equal pods.

mod axes;
mod bound;
mod catalog;
mod cheaper;
mod classes;
mod explain;
mod finish;
mod host;
pub mod improve;
mod ladder;
mod limits;
mod numa;
mod options;
mod pack;
mod place;
#[cfg(test)]
mod properties;
mod reach;
mod reasons;
mod run;
mod settle;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod topology;
mod warm;
mod why;

use std::sync::Arc;

use assay_shared::units::UsdPerHour;
use rustc_hash::{FxHashMap, FxHashSet};

use self::axes::Amounts;
use self::catalog::Catalog;
use self::classes::{ByLabels, Class, ClassKey, Masks, Volumes};
use self::host::Occupancy;
use self::limits::{Allowance, Held};
pub use self::options::{MinValues, Preferences, SolveOptions};
use self::place::Place;
use self::reach::Reach;
use self::run::Outcome;
use self::topology::{Counts, Domain, GroupId, Topology};
pub use self::warm::Warm;
use crate::model::{
    ExistingAssignment, Plan, Pod, PodId, PodSpec, PoolReason, Snapshot, Totals, Unschedulable,
};
use crate::requirement::Requirements;

/// The plan for the pending pods of a snapshot. It passes [`check`](crate::check::check).
pub fn solve(snapshot: &Snapshot, options: &SolveOptions) -> Plan {
    let pending: Vec<&Pod> = snapshot.pods.iter().filter(|pod| pod.is_pending()).collect();
    Solver::new(snapshot).decide(&pending, options)
}

/// Everything a decision needs to know of a snapshot, and what is remembered between decisions.
#[derive(Debug)]
struct Solver {
    catalog: Catalog,
    /// Machines that exist; those that take pods first.
    places: Vec<Place>,
    open_places: usize,
    topology: Topology,
    counts: Counts,
    masks: Masks,
    /// What the machines of each pool hold of what is limited.
    held: Held,
    allowance: Allowance,
    reach: Reach,
    requirements_known: FxHashMap<Requirements, Arc<Requirements>>,
    /// Pods of each gang that run.
    gangs_running: FxHashMap<Arc<str>, u64>,
    /// Places as they were before the present decision touched them.
    touched: FxHashMap<usize, (Amounts, Occupancy)>,
    /// Pods that run, by place: labels and how many.
    running: Vec<Running>,
    /// Groups for which these were counted.
    groups_counted: usize,
    /// Volumes that more than one pod uses, by number.
    shared_volumes: FxHashMap<Arc<str>, u32>,
}

/// A pod that runs at a place.
#[derive(Debug)]
struct Running {
    place: usize,
    pod: Arc<Pod>,
}

impl Solver {
    fn new(snapshot: &Snapshot) -> Self {
        let catalog = Catalog::compile(snapshot);
        let places = place::places(snapshot, &catalog.axes);
        let open_places = places.iter().take_while(|place| place.open).count();
        let held = Held::of(snapshot, &catalog);
        let allowance = Allowance::of(&held, &catalog);
        let mut solver = Self {
            catalog,
            places,
            open_places,
            topology: Topology::default(),
            counts: Counts::default(),
            masks: Masks::default(),
            held,
            allowance,
            reach: Reach::default(),
            requirements_known: FxHashMap::default(),
            gangs_running: FxHashMap::default(),
            touched: FxHashMap::default(),
            running: Vec::new(),
            groups_counted: 0,
            shared_volumes: FxHashMap::default(),
        };
        solver.observe(&snapshot.pods);
        solver
    }

    /// Takes note of what runs: who is where, which constraints bind newcomers, which volumes are shared.
    fn observe(&mut self, pods: &[Pod]) {
        let by_name: FxHashMap<&str, usize> =
            self.places.iter().enumerate().map(|(index, place)| (&*place.name, index)).collect();
        let mut uses: FxHashMap<&Arc<str>, u32> = FxHashMap::default();
        let mut running = Vec::new();
        for pod in pods {
            for volume in &*pod.volumes {
                *uses.entry(&volume.id).or_default() += 1;
            }
            let Some(node) = pod.node.as_ref().filter(|_| pod.uses_node()) else { continue };
            if let Some(gang) = &pod.gang {
                *self.gangs_running.entry(Arc::clone(&gang.id)).or_default() += 1;
            }
            if let Some(place) = by_name.get(&**node) {
                running.push(Running { place: *place, pod: Arc::new(pod.clone()) });
            }
        }
        let mut shared: Vec<&Arc<str>> =
            uses.into_iter().filter(|(_, count)| *count > 1).map(|(id, _)| id).collect();
        shared.sort_unstable();
        for id in shared {
            let number = u32::try_from(self.shared_volumes.len()).unwrap_or(u32::MAX);
            self.shared_volumes.insert(Arc::clone(id), number);
        }
        drop(by_name);
        // What is attached to a node already takes no room there again.
        for one in running.iter().filter(|one| !one.pod.volumes.is_empty()) {
            let shared = one.pod.volumes.iter().filter_map(|volume| {
                let axis = self.catalog.axes.of_driver(&volume.driver)?;
                Some((u16::try_from(axis).ok()?, *self.shared_volumes.get(&volume.id)?))
            });
            let rules = host::HostRules { shared_volumes: shared.collect(), ..host::HostRules::default() };
            self.places[one.place].occupancy.add(&rules, 1);
        }
        let binding = running.iter().filter(|one| binds_others(&one.pod.spec)).map(|one| &one.pod.spec);
        for spec in distinct(binding) {
            self.topology.learn_binding(&self.catalog, &self.places, spec);
        }
        for place in &self.places {
            let spec = PodSpec { host_ports: place.daemon_ports.clone(), ..PodSpec::default() };
            self.topology.learn_binding(&self.catalog, &self.places, &spec);
        }
        for shape in &self.catalog.shapes {
            let spec = PodSpec { host_ports: shape.daemon_ports.clone(), ..PodSpec::default() };
            self.topology.learn_binding(&self.catalog, &self.places, &spec);
        }
        self.running = running;
    }

    /// Makes the groups of pending pods' constraints and counts who is in them already.
    fn learn(&mut self, pending: &[&Pod], preferences: Preferences) {
        let making = pending.iter().map(|pod| &pod.spec).filter(|spec| topology::makes_groups(spec));
        for spec in distinct(making) {
            self.topology.learn(&self.catalog, &self.places, spec, preferences);
        }
        let mut in_gangs: Vec<&Pod> = pending.iter().copied().filter(|pod| pod.gang.is_some()).collect();
        in_gangs.sort_unstable_by(|a, b| a.gang.cmp(&b.gang));
        for pod in in_gangs {
            self.topology.learn_gang(&self.catalog, &self.places, pod);
        }
        self.counts.grow(&mut self.topology, &self.catalog, &self.places);
        self.count();
    }

    /// Counts what runs for the groups that are new.
    fn count(&mut self) {
        let known = std::mem::replace(&mut self.groups_counted, self.topology.len());
        if self.topology.len() == known {
            return;
        }
        let first = GroupId::try_from(known).unwrap_or(GroupId::MAX);
        let mut by_labels = ByLabels::default();
        let running = std::mem::take(&mut self.running);
        for Running { place: index, pod } in &running {
            let counted = self.counted_in(pod, &mut by_labels);
            let binding = binds_others(&pod.spec)
                .then(|| self.topology.binding(&self.catalog, &self.places, pod, &counted));
            let place = &self.places[*index];
            // Pods that go are no company any more, yet they hold their ports until they are gone.
            let counts = pod.terminating.is_none();
            let mut occupancy = host::HostRules::default();
            for group in counted.iter().filter(|group| **group >= first) {
                match self.topology.domain(*group) {
                    Domain::Host => {
                        if counts || self.topology.is_port(*group) {
                            occupancy.counted.push(*group);
                        }
                        self.counts.add(*group, None, u32::from(counts));
                    }
                    Domain::Label(key) if counts && self.topology.counts_place(*group, place) => {
                        let value = place.label(self.topology.key_name(key));
                        let value = value.and_then(|value| self.topology.value(key, value));
                        self.counts.add(*group, value, 1);
                    }
                    Domain::Label(_) => {}
                }
            }
            if let Some((apart, host)) = binding {
                occupancy.at_most =
                    host.at_most.iter().copied().filter(|(group, _)| *group >= first).collect();
                for constraint in apart.iter().filter(|one| counts && one.group >= first) {
                    let Domain::Label(key) = self.topology.domain(constraint.group) else { continue };
                    let value = place.label(self.topology.key_name(key));
                    if let Some(value) = value.and_then(|value| self.topology.value(key, value)) {
                        self.counts.add_averse(constraint.group, value, 1);
                    }
                }
            }
            if !occupancy.is_empty() {
                // A limit that is broken already binds newcomers no less.
                self.places[*index].occupancy.add(&occupancy, 1);
            }
        }
        self.running = running;
        if known == 0 {
            self.count_daemons();
        }
    }

    /// Ports that DaemonSets hold, on places and on machines to come.
    fn count_daemons(&mut self) {
        for index in 0..self.places.len() {
            let ports = std::mem::take(&mut self.places[index].daemon_ports);
            if let Some(rules) = self.topology.of_ports(&self.catalog, &self.places, &ports) {
                self.places[index].occupancy.add(&rules, 1);
            }
            self.places[index].daemon_ports = ports;
        }
        for index in 0..self.catalog.shapes.len() {
            let ports = std::mem::take(&mut self.catalog.shapes[index].daemon_ports);
            if let Some(rules) = self.topology.of_ports(&self.catalog, &self.places, &ports) {
                self.catalog.shapes[index].occupancy.add(&rules, 1);
            }
            self.catalog.shapes[index].daemon_ports = ports;
        }
    }

    /// Groups that count a pod.
    fn counted_in(&self, pod: &Pod, by_labels: &mut ByLabels) -> Arc<[GroupId]> {
        if self.topology.len() == 0 {
            return Arc::default();
        }
        let key = (Arc::as_ptr(&pod.id.namespace), Arc::as_ptr(&pod.labels));
        let by_selector = by_labels
            .entry(key)
            .or_insert_with(|| self.topology.selecting(&pod.id.namespace, &pod.labels).into());
        if pod.spec.host_ports.is_empty() && pod.gang.is_none() {
            return Arc::clone(by_selector);
        }
        self.topology.counting(pod, by_selector).into()
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
                self.topology.rules(&self.catalog, &self.places, pod, &key.counted, options.preferences);
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
    fn volumes(&self, pod: &Pod) -> Volumes {
        let mut volumes = Volumes::default();
        for volume in &*pod.volumes {
            let Some(axis) = self.catalog.axes.of_driver(&volume.driver) else { continue };
            let axis = u16::try_from(axis).unwrap_or(u16::MAX);
            match self.shared_volumes.get(&volume.id) {
                Some(number) => volumes.shared.push((axis, *number)),
                None => match volumes.own.iter_mut().find(|(one, _)| *one == axis) {
                    Some((_, count)) => *count += 1,
                    None => volumes.own.push((axis, 1)),
                },
            }
        }
        volumes.own.sort_unstable();
        volumes.shared.sort_unstable();
        volumes.shared.dedup();
        volumes
    }

    /// Remembers a place before it is changed.
    fn touch(&mut self, place: usize) {
        let one = &self.places[place];
        self.touched.entry(place).or_insert_with(|| (one.room.clone(), one.occupancy.clone()));
    }

    /// Makes the present the state that a try may have to return to.
    fn mark(&mut self) {
        self.touched.clear();
        self.counts.mark();
    }

    fn reset(&mut self) {
        for (place, (room, occupancy)) in self.touched.drain() {
            self.places[place].room = room;
            self.places[place].occupancy = occupancy;
        }
        self.counts.reset();
    }

    /// Places pending pods. The solver's state is then that after the plan.
    fn decide(&mut self, pending: &[&Pod], options: &SolveOptions) -> Plan {
        self.learn(pending, options.preferences);
        let classes = self.classes(pending, options);
        if classes.is_empty() {
            return Plan::default();
        }
        let allowance = self.allowance.clone();
        let mut outcome = self.run(&classes, &allowance, options);
        self.make_cheaper(&classes, &mut outcome, options.steps);
        let plan = self.plan(&classes, &outcome, &allowance, options);
        self.allowance = outcome.allowance;
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
        for (place, class, count) in &outcome.settled.placed {
            let index = *by_place.entry(*place).or_insert_with(|| {
                let name = Arc::clone(&self.places[*place].name);
                existing.push(ExistingAssignment { name, pods: Vec::new() });
                existing.len() - 1
            });
            existing[index].pods.extend(take(*class, *count));
        }
        let mut order: Vec<(usize, usize)> = by_place.into_iter().collect();
        order.sort_unstable();
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

/// Whether running pods of this spec keep others away.
fn binds_others(spec: &PodSpec) -> bool {
    !spec.pod_anti_affinity.is_empty() || !spec.host_ports.is_empty()
}
