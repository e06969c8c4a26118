//! How the solver keeps up with a cluster that changes: nodes and claims come and go, pods are bound and end.
//!
//! Each change costs what it touches: a pod its place and the groups that count it, a machine its pods. What cannot be followed
//! one by one (other pools, classes or DaemonSets) is read again from what is kept; what only decides which offers there are is
//! compiled again.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::Solver;
use super::axes::{Axes, fits};
use super::catalog::{Catalog, Drawn, drawn_for, left_to_chance};
use super::classes::Masks;
use super::host::HostRules;
use super::limits::Held;
use super::place::{Place, Site};
use super::reach::Reach;
use super::residents::{Kind, KindId};
use super::topology::{Domain, GroupId};
use crate::model::{Change, HostPort, Market, Node, NodeClaim, Pod, PodId, PodSpec, ResourceList};

/// Answers of one kind that are remembered, at most: more than a cluster has constraints at one time.
const ANSWERS_AT_MOST: usize = 4_096;

/// A pod that takes room on a node, and its kind while its node is known.
#[derive(Debug)]
struct Tenant {
    pod: Arc<Pod>,
    kind: Option<KindId>,
}

/// Pods that are bound, and what they ask for.
#[derive(Debug, Default)]
pub(super) struct Bound {
    node_of: FxHashMap<PodId, Arc<str>>,
    on: FxHashMap<Arc<str>, Vec<Tenant>>,
    /// How many ask for each extended resource, have a volume of each driver, use each volume, and are of each gang.
    extended: FxHashMap<String, u32>,
    drivers: FxHashMap<Arc<str>, u32>,
    volumes: FxHashMap<Arc<str>, u32>,
    gangs: FxHashMap<Arc<str>, u32>,
}

fn count<K: std::hash::Hash + Eq>(counts: &mut FxHashMap<K, u32>, key: K, more: bool) {
    match counts.entry(key) {
        std::collections::hash_map::Entry::Occupied(mut held) => {
            *held.get_mut() = if more { held.get() + 1 } else { held.get().saturating_sub(1) };
            if *held.get() == 0 {
                held.remove();
            }
        }
        std::collections::hash_map::Entry::Vacant(new) => {
            if more {
                new.insert(1);
            }
        }
    }
}

impl Bound {
    /// Counts what a pod asks for, or takes it off.
    fn count(&mut self, pod: &Pod, more: bool) {
        for name in pod.spec.requests.extended.keys() {
            count(&mut self.extended, name.clone(), more);
        }
        for volume in &*pod.volumes {
            count(&mut self.drivers, Arc::clone(&volume.driver), more);
            count(&mut self.volumes, Arc::clone(&volume.id), more);
        }
        if let Some(gang) = &pod.gang {
            count(&mut self.gangs, Arc::clone(&gang.id), more);
        }
    }

    /// How many pods of a gang run.
    pub(super) fn of_gang(&self, id: &str) -> u64 {
        self.gangs.get(id).copied().unwrap_or(0).into()
    }

    /// How many pods that run use a volume.
    pub(super) fn of_volume(&self, id: &str) -> u32 {
        self.volumes.get(id).copied().unwrap_or(0)
    }

    /// All of them, in no order.
    fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.on.values().flatten().map(|tenant| &tenant.pod)
    }
}

impl Solver {
    /// A solver for what can be bought, with no machine yet. `pending` are the pods of the first decision: what they ask for
    /// decides what is compiled.
    pub(super) fn new(market: Market, bound: &[&Pod], pending: &[&Pod]) -> Self {
        let mut extended: BTreeSet<&str> = BTreeSet::new();
        let mut drivers: BTreeSet<&str> = BTreeSet::new();
        for pod in bound.iter().chain(pending) {
            extended.extend(pod.spec.requests.extended.keys().map(String::as_str));
            drivers.extend(pod.volumes.iter().map(|volume| &*volume.driver));
        }
        let daemons = market.daemon_sets.iter();
        extended.extend(daemons.flat_map(|set| set.spec.requests.extended.keys().map(String::as_str)));
        let axes = Axes::new(extended, drivers);
        let left_to_chance = left_to_chance(&market);
        let drawn = drawn_for(&left_to_chance, pending);
        let catalog = Catalog::compile(market, axes, drawn);
        let held = Held::nothing(&catalog);
        let mut solver = Self {
            catalog,
            left_to_chance,
            held,
            machines: Default::default(),
            bound: Bound::default(),
            residents: Default::default(),
            topology: Default::default(),
            counts: Default::default(),
            masks: Default::default(),
            reach: Default::default(),
            requirements_known: FxHashMap::default(),
            ports_of_shapes: Vec::new(),
            touched: Vec::new(),
            volume_numbers: FxHashMap::default(),
            volumes_pending: FxHashMap::default(),
        };
        solver.hold_ports_of_shapes();
        solver
    }

    /// Follows one change.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Pod(pod) => {
                self.unbind(&pod.id);
                self.bind(pod);
            }
            Change::PodGone(id) => self.unbind(&id),
            Change::Node(node) => self.note_node(&Arc::clone(&node.name), Some(node)),
            Change::NodeGone(name) => self.note_node(&name, None),
            Change::Claim(claim) => self.note_claim(&Arc::clone(&claim.name), Some(claim)),
            Change::ClaimGone(name) => self.note_claim(&name, None),
        }
        self.counts.forget_changes();
    }

    /// Decides from now on as if a node and its pods were gone, except that it still counts against limits.
    pub(super) fn set_aside(&mut self, name: &Arc<str>) {
        self.machines.aside.insert(Arc::clone(name));
        self.renew_place(name);
        self.counts.forget_changes();
    }

    /// Whether a place has room for so much.
    pub(super) fn has_room(&self, name: &str, amounts: &ResourceList) -> bool {
        let need = self.catalog.axes.amounts(amounts);
        self.machines.slot(name).is_some_and(|slot| fits(&need, &self.machines[slot].room))
    }

    /// Takes that back.
    pub(super) fn put_back(&mut self, name: &Arc<str>) {
        self.machines.aside.remove(name);
        self.renew_place(name);
        self.counts.forget_changes();
    }

    fn note_node(&mut self, name: &Arc<str>, node: Option<Arc<Node>>) {
        let names = self.machines.names_beside_node(name);
        self.count_machines(&names, false);
        self.machines.note_node(name, node);
        self.count_machines(&names, true);
        names.iter().for_each(|name| self.renew_place(name));
    }

    fn note_claim(&mut self, name: &Arc<str>, claim: Option<Arc<NodeClaim>>) {
        let names = self.machines.names_beside_claim(name, claim.as_deref());
        self.count_machines(&names, false);
        self.machines.note_claim(name, claim);
        self.count_machines(&names, true);
        names.iter().for_each(|name| self.renew_place(name));
    }

    fn count_machines(&mut self, names: &BTreeSet<Arc<str>>, more: bool) {
        names.iter().for_each(|name| self.machines.count(name, &mut self.held, more));
    }

    /// Makes the place of a name what was noted of its node or claim.
    fn renew_place(&mut self, name: &Arc<str>) {
        let site = self.machines.site(name, &self.catalog.market);
        match (self.machines.slot(name), site) {
            (Some(slot), Some(site)) if self.machines[slot].site.is_like(&site) => {
                self.machines[slot].site = site;
                self.machines[slot].measure(&self.catalog.axes);
            }
            (slot, site) => {
                if let Some(slot) = slot {
                    self.remove_place(slot);
                }
                if let Some(site) = site {
                    self.add_place(name, site);
                }
            }
        }
    }

    fn add_place(&mut self, name: &Arc<str>, site: Site) {
        let slot = self.machines.add(Place::new(Arc::clone(name), site));
        let changed = self.topology.enter(&self.catalog, slot, &self.machines[slot].site);
        self.counts.take_universes(&self.topology, &changed);
        self.reach.enter(&self.machines, &self.topology, slot);
        let ports = self.machines[slot].site.daemon_ports.clone();
        if let Some((groups, rules)) = self.hold_ports(ports) {
            let place = &mut self.machines[slot];
            rules.counted.iter().for_each(|group| place.occupancy.count_in(*group, 1));
            (place.port_groups, place.port_limits) = (groups, rules.at_most);
        }
        let there = self.bound.on.get(name).map_or(0, Vec::len);
        for at in 0..there {
            let Some(pod) = self.bound.on.get(name).map(|tenants| Arc::clone(&tenants[at].pod)) else {
                continue;
            };
            let kind = self.seat(slot, &pod);
            if let Some(tenants) = self.bound.on.get_mut(name) {
                tenants[at].kind = Some(kind);
            }
        }
        self.set_limits(slot);
        self.set_volumes(slot);
        self.machines[slot].measure(&self.catalog.axes);
    }

    fn remove_place(&mut self, slot: usize) {
        let name = Arc::clone(&self.machines[slot].name);
        let tenants = self.bound.on.get_mut(&name).into_iter().flatten();
        let kinds: Vec<KindId> = tenants.filter_map(|tenant| tenant.kind.take()).collect();
        kinds.into_iter().for_each(|kind| self.unseat(slot, kind));
        for group in std::mem::take(&mut self.machines[slot].port_groups) {
            self.topology.hold(group, false);
        }
        self.reach.leave(&self.machines, &self.topology, slot);
        let changed = self.topology.leave(&self.catalog, slot);
        self.counts.take_universes(&self.topology, &changed);
        self.machines.remove(slot);
    }

    /// Makes the groups of ports that DaemonSets take, for as long as they do; `None` where there are none.
    fn hold_ports(&mut self, host_ports: Vec<HostPort>) -> Option<(Vec<GroupId>, HostRules)> {
        let spec = PodSpec { host_ports, ..PodSpec::default() };
        let rules = self.topology.of_ports(&self.catalog, &self.machines, &spec.host_ports)?;
        let groups = self.topology.learn_binding(&self.catalog, &self.machines, &spec);
        groups.iter().for_each(|group| self.topology.hold(*group, true));
        self.count_new_groups();
        Some((groups, rules))
    }

    /// The same for machines to come, for as long as these can be bought.
    fn hold_ports_of_shapes(&mut self) {
        for shape in 0..self.catalog.shapes.len() {
            let ports = self.catalog.shapes[shape].daemon_ports.clone();
            if let Some((groups, rules)) = self.hold_ports(ports) {
                self.catalog.shapes[shape].occupancy.add(&rules, 1);
                self.ports_of_shapes.extend(groups);
            }
        }
    }

    /// Reads everything again for another market. Where only what can be bought differs, that is compiled again.
    pub(super) fn set_market(&mut self, market: Market) {
        let known = &self.catalog.market;
        if *known == market {
            return;
        }
        let same_rules = known.pools == market.pools
            && known.classes == market.classes
            && known.daemon_sets == market.daemon_sets;
        if same_rules {
            self.left_to_chance = left_to_chance(&market);
            let (axes, drawn) = (self.catalog.axes.clone(), self.catalog.drawn.clone());
            self.compile(market, axes, drawn);
        } else {
            self.read_again(market);
        }
    }

    /// Begins anew with what is known of machines and pods.
    pub(super) fn read_again(&mut self, market: Market) {
        let pods: Vec<Arc<Pod>> = self.bound.pods().cloned().collect();
        let bound: Vec<&Pod> = pods.iter().map(|pod| &**pod).collect();
        let mut fresh = Self::new(market, &bound, &[]);
        fresh.machines.aside.clone_from(&self.machines.aside);
        pods.iter().cloned().map(Change::Pod).for_each(|change| fresh.apply(change));
        self.machines.nodes().cloned().map(Change::Node).for_each(|change| fresh.apply(change));
        self.machines.claims().cloned().map(Change::Claim).for_each(|change| fresh.apply(change));
        *self = fresh;
    }

    /// Compiles what can be bought.
    fn compile(&mut self, market: Market, axes: Axes, drawn: Drawn) {
        for group in std::mem::take(&mut self.ports_of_shapes) {
            self.topology.hold(group, false);
        }
        self.catalog = Catalog::compile(market, axes, drawn);
        self.masks = Masks::default();
        self.requirements_known = FxHashMap::default();
        self.hold_ports_of_shapes();
        let changed = self.topology.offer(&self.catalog);
        self.counts.take_universes(&self.topology, &changed);
        for (_, place) in self.machines.iter_mut() {
            place.site.look_up(&self.catalog.market);
            place.measure(&self.catalog.axes);
        }
    }

    /// Makes ready for a decision: every resource, driver and chance that these pods ask for is known.
    pub(super) fn prepare(&mut self, pending: &[&Pod]) {
        self.forget_what_is_old();
        self.volumes_pending.clear();
        for volume in pending.iter().flat_map(|pod| pod.volumes.iter()) {
            *self.volumes_pending.entry(Arc::clone(&volume.id)).or_default() += 1;
        }
        let mut extended: BTreeSet<&str> = self.bound.extended.keys().map(String::as_str).collect();
        let mut drivers: BTreeSet<&str> = self.bound.drivers.keys().map(|driver| &**driver).collect();
        let daemons = self.catalog.market.daemon_sets.iter().map(|set| &set.spec);
        for spec in pending.iter().map(|pod| &pod.spec).chain(daemons) {
            extended.extend(spec.requests.extended.keys().map(String::as_str));
        }
        drivers.extend(pending.iter().flat_map(|pod| pod.volumes.iter()).map(|volume| &*volume.driver));
        let known = &self.catalog.axes;
        let axes = (!known.are(&extended, &drivers)).then(|| Axes::new(extended, drivers));
        let drawn = drawn_for(&self.left_to_chance, pending);
        if axes.is_some() || drawn != self.catalog.drawn {
            let axes = axes.unwrap_or_else(|| self.catalog.axes.clone());
            let market = std::mem::take(&mut self.catalog.market);
            self.compile(market, axes, drawn);
        }
    }

    /// Keeps what is remembered for later decisions within bounds.
    fn forget_what_is_old(&mut self) {
        if self.masks.len() > ANSWERS_AT_MOST {
            self.masks = Masks::default();
            self.requirements_known = FxHashMap::default();
        }
        if self.reach.len() > ANSWERS_AT_MOST {
            self.reach = Reach::default();
        }
        if self.topology.len() > ANSWERS_AT_MOST.max(2 * self.topology.live()) {
            let market = std::mem::take(&mut self.catalog.market);
            self.read_again(market);
        }
    }

    fn bind(&mut self, pod: Arc<Pod>) {
        let Some(name) = pod.node.clone().filter(|_| pod.uses_node()) else { return };
        self.bound.count(&pod, true);
        self.bound.node_of.insert(pod.id.clone(), Arc::clone(&name));
        let slot = self.machines.slot(&name);
        let kind = slot.map(|slot| self.seat(slot, &pod));
        let volumes = !pod.volumes.is_empty();
        self.bound.on.entry(name).or_default().push(Tenant { pod, kind });
        if let (Some(slot), Some(kind)) = (slot, kind) {
            self.settle_up(slot, volumes, self.demands(kind));
        }
    }

    fn unbind(&mut self, id: &PodId) {
        let Some(name) = self.bound.node_of.remove(id) else { return };
        let Some(tenants) = self.bound.on.get_mut(&name) else { return };
        let Some(at) = tenants.iter().position(|tenant| tenant.pod.id == *id) else { return };
        let Tenant { pod, kind } = tenants.swap_remove(at);
        if tenants.is_empty() {
            self.bound.on.remove(&name);
        }
        self.bound.count(&pod, false);
        if let (Some(slot), Some(kind)) = (self.machines.slot(&name), kind) {
            let demands = self.demands(kind);
            self.machines[slot].dismiss(&pod);
            self.unseat(slot, kind);
            self.settle_up(slot, !pod.volumes.is_empty(), demands);
        }
    }

    /// Whether pods of a kind demand anything of others.
    fn demands(&self, kind: KindId) -> bool {
        self.residents.get(kind).is_some_and(Kind::binds)
    }

    /// Works out what is left at a place after its pods changed: room, and volumes and limits where they may have.
    fn settle_up(&mut self, slot: usize, volumes: bool, limits: bool) {
        if limits {
            self.set_limits(slot);
        }
        if volumes {
            self.set_volumes(slot);
        }
        self.machines[slot].measure(&self.catalog.axes);
    }

    /// Takes note of which volumes are attached at a place.
    fn set_volumes(&mut self, slot: usize) {
        let place = &mut self.machines[slot];
        let tenants = self.bound.on.get(&place.name).into_iter().flatten();
        place.volumes = tenants.flat_map(|tenant| tenant.pod.volumes.iter().cloned()).collect();
        place.volumes.sort_unstable();
        place.volumes.dedup();
        let numbers = &mut self.volume_numbers;
        let attached: SmallVec<[u32; 4]> =
            place.volumes.iter().map(|volume| super::number(numbers, &volume.id)).collect();
        place.occupancy.attach(attached.into_iter());
    }

    /// Counts a pod at a place and takes its room; what is left there is for the caller to work out.
    fn seat(&mut self, slot: usize, pod: &Arc<Pod>) -> KindId {
        self.machines[slot].admit(pod);
        let (kind, is_new) = self.residents.kind_of(pod);
        if is_new {
            self.learn_kind(kind);
        }
        if let Some(one) = self.residents.get_mut(kind) {
            *one.at.entry(slot).or_default() += 1;
        }
        self.tally(kind, slot, 1, 0, true);
        kind
    }

    /// Takes a pod of a kind off a place's counts.
    fn unseat(&mut self, slot: usize, kind: KindId) {
        self.tally(kind, slot, 1, 0, false);
        let Some(one) = self.residents.get_mut(kind) else { return };
        if let Some(here) = one.at.get_mut(&slot) {
            *here -= 1;
            if *here == 0 {
                one.at.remove(&slot);
            }
        }
        if one.at.is_empty() {
            let gone = self.residents.remove(kind);
            for group in gone.iter().flat_map(|kind| &kind.holds) {
                self.topology.hold(*group, false);
            }
        }
    }

    /// Finds out whom a new kind is counted by and what it demands of others.
    fn learn_kind(&mut self, number: KindId) {
        let Some(kind) = self.residents.get(number) else { return };
        let (example, binds) = (Arc::clone(&kind.example), kind.binds());
        let mut holds = Vec::new();
        if binds {
            holds = self.topology.learn_binding(&self.catalog, &self.machines, &example.spec);
            holds.iter().for_each(|group| self.topology.hold(*group, true));
            self.count_new_groups();
        }
        let selecting = self.topology.selecting(&example.id.namespace, &example.labels);
        let counted = self.topology.counting(&example, &selecting);
        let (apart, host) = if binds {
            self.topology.binding(&self.catalog, &self.machines, &example, &counted)
        } else {
            Default::default()
        };
        if let Some(kind) = self.residents.get_mut(number) {
            (kind.counted, kind.holds, kind.apart, kind.host) = (counted, holds, apart, host);
        }
    }

    /// Counts who is in the groups that are new.
    pub(super) fn count_new_groups(&mut self) {
        let first = self.counts.len();
        self.counts.grow(&self.topology);
        if self.counts.len() == first {
            return;
        }
        let first = GroupId::try_from(first).unwrap_or(GroupId::MAX);
        let mut joining: Vec<(KindId, Vec<GroupId>)> = Vec::new();
        for (number, kind) in self.residents.iter() {
            let new = self.topology.counting_from(first, &kind.example);
            if !new.is_empty() {
                joining.push((number, new));
            }
        }
        for (number, new) in joining {
            let Some(kind) = self.residents.get_mut(number) else { continue };
            kind.counted.extend(new);
            let places: Vec<(usize, u32)> = kind.at.iter().map(|(slot, count)| (*slot, *count)).collect();
            for (slot, count) in places {
                self.tally(number, slot, count, first, true);
            }
        }
    }

    /// Counts pods of a kind at a place in its groups from `first` on, or takes them off.
    fn tally(&mut self, kind: KindId, slot: usize, count: u32, first: GroupId, more: bool) {
        let Some(kind) = self.residents.get(kind) else { return };
        let (topology, counts) = (&self.topology, &mut self.counts);
        let company = kind.is_company();
        let occupancy = &mut self.machines[slot].occupancy;
        for group in kind.counted.iter().copied().filter(|group| *group >= first) {
            let value = match topology.domain(group) {
                Domain::Host => {
                    if company || topology.is_port(group) {
                        if more {
                            occupancy.count_in(group, count);
                        } else {
                            occupancy.remove(group, count);
                        }
                    }
                    None
                }
                Domain::Label(_) if !topology.counts_at(group, slot) => continue,
                Domain::Label(key) => topology.value_at(key, slot),
            };
            match (company, more) {
                (true, true) => counts.add(group, value, count),
                (true, false) => counts.remove(group, value, count),
                (false, _) => {}
            }
        }
        for constraint in kind.apart.iter().filter(|one| company && one.group >= first) {
            let Domain::Label(key) = topology.domain(constraint.group) else { continue };
            let Some(value) = topology.value_at(key, slot) else { continue };
            if more {
                counts.add_averse(constraint.group, value, count);
            } else {
                counts.remove_averse(constraint.group, value, count);
            }
        }
    }

    /// Holds newcomers at a place to what those that are there demand, DaemonSets included. A limit that is broken already binds
    /// newcomers no less.
    fn set_limits(&mut self, slot: usize) {
        let place = &mut self.machines[slot];
        place.occupancy.lift();
        for (group, limit) in &place.port_limits {
            place.occupancy.limit(*group, *limit);
        }
        for tenant in self.bound.on.get(&place.name).into_iter().flatten() {
            let kind = tenant.kind.and_then(|kind| self.residents.get(kind));
            for (group, limit) in kind.into_iter().flat_map(|kind| &kind.host.at_most) {
                place.occupancy.limit(*group, *limit);
            }
        }
    }
}
