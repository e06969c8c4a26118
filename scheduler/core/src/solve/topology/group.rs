//! Topology groups: pods that some constraint counts, over the domains of one node label.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_shared::labels::kubernetes;
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::keys::{KeyValues, shape_values, slot_of};
use crate::model::{
    GangScope, HostPort, Labels, Pod, PodSelector, PodSpec, Protocol, Toleration, untolerated,
};
use crate::requirement::{Operator, Requirement, Requirements};
use crate::solve::catalog::{Catalog, Shape, required_terms};
use crate::solve::machines::Machines;
use crate::solve::place::Site;

/// Number of a group.
pub(in crate::solve) type GroupId = u32;

/// What the domains of a group are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::solve) enum Domain {
    /// Single machines.
    Host,
    /// Values of the node label of this number.
    Label(usize),
}

/// What makes two constraints count the same pods on the same nodes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupKey {
    pub(super) topology_key: String,
    pub(super) selects: Selects,
    pub(super) filter: Option<FilterKey>,
}

/// Which pods a group counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Selects {
    /// Those of a selector.
    Pods(PodSelector),
    /// Those of a gang.
    Gang(Arc<str>),
    /// Those that take a port of their host on any address.
    Port(Protocol, u16),
    /// On every address (`None`), or on this one.
    PortOf(Protocol, u16, Option<String>),
}

/// Which nodes count for a spread constraint, as its pod's spec says it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FilterKey {
    /// Node selector and required affinity, where they are honoured and there are any.
    pub(super) affinity: Option<(Vec<Requirement>, Vec<Vec<Requirement>>)>,
    /// Tolerations, where taints are honoured.
    pub(super) tolerations: Option<Vec<Toleration>>,
}

/// The same, compiled.
#[derive(Debug)]
struct NodeFilter {
    terms: Vec<Requirements>,
    tolerations: Option<Vec<Toleration>>,
}

impl NodeFilter {
    fn admits_place(&self, site: &Site) -> bool {
        self.tolerations.as_ref().is_none_or(|list| untolerated(&site.taints, list).is_none())
            && (self.terms.is_empty()
                || self.terms.iter().any(|term| term.check_labels(site.labels()).is_ok()))
    }

    /// Offerings of a shape whose machines would count; `possible` says which terms can hold.
    fn admitted(&self, catalog: &Catalog, shape: &Shape, possible: impl Fn(&Requirements) -> bool) -> u64 {
        let taints = &catalog.pools[shape.pool].pool.taints;
        if self.tolerations.as_ref().is_some_and(|list| untolerated(taints, list).is_some()) {
            return 0;
        }
        if self.terms.is_empty() {
            return u64::MAX;
        }
        let terms = self.terms.iter().filter(|term| possible(term));
        terms.fold(0, |mask, term| mask | shape.mask_of_all(term))
    }
}

#[derive(Debug)]
struct Group {
    domain: Domain,
    selects: Selects,
    /// The selector's label part, compiled; `None` matches nothing by labels.
    labels: Option<Requirements>,
    filter: Option<NodeFilter>,
    /// Whether each place counts, by slot; not filled where all do.
    admits: Vec<bool>,
    /// Offerings whose machines count, by shape, by which terms of the filter are excluded; once somebody asked.
    offerings: FxHashMap<Vec<bool>, Arc<Vec<u64>>>,
    /// Values that machines to come could have, by number.
    offered: Vec<usize>,
    /// Places that count by the value they have.
    placed: Vec<u32>,
    /// Values that count as domains, by number: of these both.
    universe: Arc<Vec<usize>>,
    /// How many of those that run, or will with every machine, make the group by what they demand of others.
    holders: u32,
    /// The last decision that asked for it.
    asked: u64,
}

impl Group {
    /// Works out anew which values count; whether that is otherwise than before.
    fn renew_universe(&mut self) -> bool {
        let placed = (0..self.placed.len()).filter(|value| self.placed[*value] > 0);
        let mut universe: Vec<usize> = self.offered.iter().copied().chain(placed).collect();
        universe.sort_unstable();
        universe.dedup();
        let other = universe != *self.universe;
        if other {
            self.universe = Arc::new(universe);
        }
        other
    }
}

/// All groups that some pod's constraints make, and who is counted in which.
#[derive(Debug, Default)]
pub(in crate::solve) struct Topology {
    groups: Vec<Group>,
    numbers: BTreeMap<GroupKey, GroupId>,
    /// Where each group stands among all by what it is, whichever was met first.
    ranks: Arc<Vec<u32>>,
    keys: Vec<KeyValues>,
    /// Groups by a label that their pods must have; the rest, which every pod must be tried with.
    by_label: FxHashMap<(String, String), Vec<GroupId>>,
    general: Vec<GroupId>,
    /// The present decision.
    decision: u64,
}

impl Topology {
    /// The number of a group, made where it is new.
    pub(super) fn group(&mut self, catalog: &Catalog, machines: &Machines, key: GroupKey) -> GroupId {
        if let Some(number) = self.numbers.get(&key).copied() {
            self.groups[number as usize].asked = self.decision;
            return number;
        }
        let number = GroupId::try_from(self.groups.len()).unwrap_or(GroupId::MAX);
        let domain = if crate::requirement::normalize_key(&key.topology_key) == kubernetes::HOSTNAME {
            Domain::Host
        } else {
            Domain::Label(self.key(catalog, machines, &key.topology_key))
        };
        let labels = match &key.selects {
            Selects::Pods(PodSelector { labels: Some(list), .. }) => Requirements::from_list(list).ok(),
            _ => None,
        };
        if labels.is_some() {
            self.index(number, &key);
        }
        let filter = key.filter.as_ref().map(|filter| NodeFilter {
            terms: filter.affinity.as_ref().map_or_else(Vec::new, |(selector, affinity)| {
                let spec = PodSpec {
                    node_selector: selector.clone(),
                    required_affinity: affinity.clone(),
                    ..PodSpec::default()
                };
                required_terms(&spec).unwrap_or_default()
            }),
            tolerations: filter.tolerations.clone(),
        });
        let mut group = Group {
            domain,
            selects: key.selects.clone(),
            labels,
            filter,
            admits: Vec::new(),
            offerings: FxHashMap::default(),
            offered: Vec::new(),
            placed: Vec::new(),
            universe: Arc::default(),
            holders: 0,
            asked: self.decision,
        };
        if group.filter.is_some() {
            group.admits.resize(machines.len(), false);
        }
        for (slot, place) in machines.iter() {
            if let Some(filter) = &group.filter {
                group.admits[slot] = filter.admits_place(&place.site);
            }
            if let (Domain::Label(key), true) = (domain, group.admits.get(slot).copied().unwrap_or(true))
                && let Some(value) = self.keys[key].of_place.get(slot).copied().flatten()
            {
                *slot_of(&mut group.placed, value) += 1;
            }
        }
        group.offered = offered_to(&self.keys, &group, catalog);
        group.renew_universe();
        self.groups.push(group);
        self.numbers.insert(key, number);
        let mut ranks = vec![0; self.groups.len()];
        for (rank, number) in self.numbers.values().enumerate() {
            ranks[*number as usize] = u32::try_from(rank).unwrap_or(u32::MAX);
        }
        self.ranks = Arc::new(ranks);
        number
    }

    fn index(&mut self, number: GroupId, key: &GroupKey) {
        let Selects::Pods(PodSelector { labels: Some(list), .. }) = &key.selects else { return };
        let fewest = list
            .iter()
            .filter(|one| one.operator == Operator::In && !one.values.is_empty())
            .min_by_key(|one| one.values.len());
        match fewest {
            Some(one) => {
                for value in &one.values {
                    self.by_label.entry((one.key.clone(), value.clone())).or_default().push(number);
                }
            }
            None => self.general.push(number),
        }
    }

    /// Groups that count a pod in `namespace` with `labels` by their selectors, ascending.
    pub(in crate::solve) fn selecting(&self, namespace: &str, labels: &Labels) -> Vec<GroupId> {
        if self.by_label.is_empty() && self.general.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<GroupId> = Vec::new();
        let mut try_all = |candidates: &[GroupId]| {
            for number in candidates {
                let group = &self.groups[*number as usize];
                let Selects::Pods(selector) = &group.selects else { continue };
                if selector.namespaces.contains(namespace)
                    && group.labels.as_ref().is_some_and(|needs| needs.check_labels(labels).is_ok())
                {
                    found.push(*number);
                }
            }
        };
        if !self.by_label.is_empty() {
            for (key, value) in labels {
                if let Some(candidates) = self.by_label.get(&(key.clone(), value.clone())) {
                    try_all(candidates);
                }
            }
        }
        try_all(&self.general);
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The number of a group that is known.
    pub(super) fn known(&self, key: &GroupKey) -> Option<GroupId> {
        self.numbers.get(key).copied()
    }

    /// Whether a group counts a pod.
    pub(super) fn counts_pod(&self, group: GroupId, pod: &Pod) -> bool {
        let group = &self.groups[group as usize];
        let ports = |protocol: Protocol, number: u16| {
            pod.spec.host_ports.iter().filter(move |port| port.protocol == protocol && port.port == number)
        };
        match &group.selects {
            Selects::Pods(selector) => {
                selector.namespaces.contains(&pod.id.namespace)
                    && group.labels.as_ref().is_some_and(|needs| needs.check_labels(&pod.labels).is_ok())
            }
            Selects::Gang(id) => {
                pod.gang.as_ref().is_some_and(|gang| gang.scope == GangScope::Zone && gang.id == *id)
            }
            Selects::Port(protocol, number) => ports(*protocol, *number).next().is_some(),
            Selects::PortOf(protocol, number, ip) => ports(*protocol, *number).any(|port| port.ip == *ip),
        }
    }

    /// Whether a group is about a port.
    pub(in crate::solve) fn is_port(&self, group: GroupId) -> bool {
        matches!(self.groups[group as usize].selects, Selects::Port(..) | Selects::PortOf(..))
    }

    /// How many groups there are.
    pub(in crate::solve) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Begins a decision: groups that nobody holds are out of account until somebody asks for them.
    pub(in crate::solve) fn begin(&mut self) {
        self.decision += 1;
    }

    /// Whether the present decision has to do with a group. The others are kept for later ones.
    pub(in crate::solve) fn is_live(&self, group: GroupId) -> bool {
        let group = &self.groups[group as usize];
        group.holders > 0 || group.asked == self.decision
    }

    /// How many groups the present decision has to do with.
    pub(in crate::solve) fn live(&self) -> usize {
        (0..self.groups.len())
            .filter(|group| self.is_live(GroupId::try_from(*group).unwrap_or(GroupId::MAX)))
            .count()
    }

    /// Takes note that somebody there makes a group, whatever is asked for, or no more does.
    pub(in crate::solve) fn hold(&mut self, group: GroupId, more: bool) {
        let holders = &mut self.groups[group as usize].holders;
        *holders = if more { *holders + 1 } else { holders.saturating_sub(1) };
    }

    /// Where each group stands among all, by number: an order that is the same whichever was met first.
    pub(in crate::solve) fn ranks(&self) -> &Arc<Vec<u32>> {
        &self.ranks
    }

    /// Groups in the order of their ranks.
    pub(in crate::solve) fn in_order(&self, groups: &[GroupId]) -> SmallVec<[GroupId; 4]> {
        let mut groups = SmallVec::from_slice(groups);
        if groups.len() > 1 {
            groups.sort_unstable_by_key(|group| self.ranks[*group as usize]);
        }
        groups
    }

    /// What the domains of a group are.
    pub(in crate::solve) fn domain(&self, group: GroupId) -> Domain {
        self.groups[group as usize].domain
    }

    /// The label key of this number.
    pub(in crate::solve) fn key_name(&self, key: usize) -> &str {
        &self.keys[key].key
    }

    /// Values of a label that a place has or an offering would have, with their numbers, in order.
    pub(in crate::solve) fn values(&self, key: usize) -> impl Iterator<Item = (usize, &Arc<str>)> {
        let keyed = &self.keys[key];
        let used = |value: &usize| keyed.offered[*value] || keyed.placed[*value] > 0;
        keyed.sorted.iter().copied().filter(used).map(|value| (value, &keyed.values[value]))
    }

    /// The value of this number of a label.
    pub(in crate::solve) fn text(&self, key: usize, value: usize) -> &Arc<str> {
        &self.keys[key].values[value]
    }

    /// The value of a label that a place has, by number.
    pub(in crate::solve) fn value_at(&self, key: usize, slot: usize) -> Option<usize> {
        self.keys[key].of_place.get(slot).copied().flatten()
    }

    /// The value of a label that is no domain while others are to be had.
    pub(in crate::solve) fn zoneless(&self, key: usize) -> Option<usize> {
        self.keys[key].zoneless()
    }

    /// Whether machines at this place count for the group.
    pub(in crate::solve) fn counts_at(&self, group: GroupId, slot: usize) -> bool {
        let group = &self.groups[group as usize];
        group.filter.is_none() || group.admits.get(slot).copied().unwrap_or(false)
    }

    /// Offerings, by shape, whose machines count for the group once they have these values; `None` where all do.
    pub(in crate::solve) fn counted_offerings(
        &mut self,
        catalog: &Catalog,
        group: GroupId,
        pins: &[(usize, usize)],
    ) -> Option<Arc<Vec<u64>>> {
        let Self { groups, keys, .. } = self;
        let Group { filter, offerings, .. } = &mut groups[group as usize];
        let filter = filter.as_ref()?;
        if filter.terms.is_empty() && filter.tolerations.is_none() {
            return None;
        }
        // Which terms the values exclude: the answer is the same wherever it is the same ones.
        let possible = |term: &Requirements| {
            pins.iter().all(|(key, value)| {
                let keyed = &keys[*key];
                term.get(&keyed.key).is_none_or(|set| set.allows(&keyed.values[*value]))
            })
        };
        let excluded: Vec<bool> = filter.terms.iter().map(|term| !possible(term)).collect();
        let counted = || {
            let counted = catalog.shapes.iter().map(|shape| filter.admitted(catalog, shape, possible));
            Arc::new(counted.collect())
        };
        Some(Arc::clone(offerings.entry(excluded).or_insert_with(counted)))
    }

    /// Values that count as domains of the group: those of nodes that count, and those of machines that could be bought.
    pub(in crate::solve) fn universe(&self, group: GroupId) -> &Arc<Vec<usize>> {
        &self.groups[group as usize].universe
    }

    /// A machine is there now; returns the groups of which other values count from now on.
    pub(in crate::solve) fn enter(&mut self, catalog: &Catalog, slot: usize, site: &Site) -> Vec<GroupId> {
        let mut other_zones = None;
        for (number, keyed) in self.keys.iter_mut().enumerate() {
            let Some(value) = site.label(&keyed.key) else { continue };
            let before = keyed.zoneless();
            let value = keyed.number(value);
            keyed.placed[value] += 1;
            *slot_of(&mut keyed.of_place, slot) = Some(value);
            if keyed.zoneless() != before {
                other_zones = Some(number);
            }
        }
        let mut changed = Vec::new();
        for (number, group) in self.groups.iter_mut().enumerate() {
            if let Some(filter) = &group.filter {
                *slot_of(&mut group.admits, slot) = filter.admits_place(site);
            }
            changed.extend(group.count_place(&self.keys, slot, true).then_some(number));
        }
        self.renew(catalog, changed, other_zones)
    }

    /// The machine is gone; returns the same.
    pub(in crate::solve) fn leave(&mut self, catalog: &Catalog, slot: usize) -> Vec<GroupId> {
        let mut changed = Vec::new();
        for (number, group) in self.groups.iter_mut().enumerate() {
            changed.extend(group.count_place(&self.keys, slot, false).then_some(number));
        }
        let mut other_zones = None;
        for (number, keyed) in self.keys.iter_mut().enumerate() {
            let Some(value) = keyed.of_place.get_mut(slot).and_then(Option::take) else { continue };
            let before = keyed.zoneless();
            keyed.placed[value] = keyed.placed[value].saturating_sub(1);
            if keyed.zoneless() != before {
                other_zones = Some(number);
            }
        }
        self.renew(catalog, changed, other_zones)
    }

    /// Works out the domains of groups anew; all of them where regional machines became a zone or ceased to be one.
    fn renew(&mut self, catalog: &Catalog, changed: Vec<usize>, zones: Option<usize>) -> Vec<GroupId> {
        let mut changed = changed;
        if let Some(key) = zones {
            for number in 0..self.groups.len() {
                if self.groups[number].domain == Domain::Label(key) {
                    self.groups[number].offered = offered_to(&self.keys, &self.groups[number], catalog);
                    changed.push(number);
                }
            }
        }
        changed.retain(|number| self.groups[*number].renew_universe());
        changed.into_iter().filter_map(|number| GroupId::try_from(number).ok()).collect()
    }

    /// Something else can be bought now; returns the groups of which other values count from now on.
    pub(in crate::solve) fn offer(&mut self, catalog: &Catalog) -> Vec<GroupId> {
        self.keys.iter_mut().for_each(|keyed| keyed.offer(catalog));
        for number in 0..self.groups.len() {
            self.groups[number].offerings.clear();
            self.groups[number].offered = offered_to(&self.keys, &self.groups[number], catalog);
        }
        self.renew(catalog, (0..self.groups.len()).collect(), None)
    }

    /// The number of a label key, with every value that nodes or offerings have.
    fn key(&mut self, catalog: &Catalog, machines: &Machines, key: &str) -> usize {
        let key = crate::requirement::normalize_key(key);
        if let Some(number) = self.keys.iter().position(|one| one.key == key) {
            return number;
        }
        let mut keyed = KeyValues::new(key);
        keyed.offer(catalog);
        keyed.of_place.resize(machines.len(), None);
        for (slot, place) in machines.iter() {
            if let Some(value) = place.site.label(key) {
                let value = keyed.number(value);
                keyed.placed[value] += 1;
                keyed.of_place[slot] = Some(value);
            }
        }
        self.keys.push(keyed);
        self.keys.len() - 1
    }
}

impl Group {
    /// Counts a place by its value, or takes it off; whether the value counts otherwise than before.
    fn count_place(&mut self, keys: &[KeyValues], slot: usize, more: bool) -> bool {
        let Domain::Label(key) = self.domain else { return false };
        let counts = self.filter.is_none() || self.admits.get(slot).copied().unwrap_or(false);
        let Some(value) = keys[key].of_place.get(slot).copied().flatten().filter(|_| counts) else {
            return false;
        };
        let placed = slot_of(&mut self.placed, value);
        let before = *placed;
        *placed = if more { before + 1 } else { before.saturating_sub(1) };
        (before == 0) != (*placed == 0)
    }
}

/// Values that machines to come could have and that count for a group.
fn offered_to(keys: &[KeyValues], group: &Group, catalog: &Catalog) -> Vec<usize> {
    let Domain::Label(key) = group.domain else { return Vec::new() };
    let keyed = &keys[key];
    let mut seen = vec![false; keyed.values.len()];
    match &group.filter {
        None => seen.clone_from(&keyed.offered),
        Some(filter) => {
            for shape in &catalog.shapes {
                let mask = shape.available & filter.admitted(catalog, shape, |_| true);
                let numbers = shape_values(shape, &keyed.key, mask);
                for number in numbers.iter().filter_map(|value| keyed.numbers.get(value)) {
                    seen[*number] = true;
                }
            }
        }
    }
    keyed.domains((0..seen.len()).filter(|number| seen[*number]).collect())
}

/// Groups of a port: everybody on it, and those on every address or on the same one.
pub(super) fn port_groups(port: &HostPort) -> (GroupKey, GroupKey, GroupKey) {
    let key = |selects| GroupKey { topology_key: kubernetes::HOSTNAME.to_owned(), selects, filter: None };
    (
        key(Selects::Port(port.protocol, port.port)),
        key(Selects::PortOf(port.protocol, port.port, port.ip.clone())),
        key(Selects::PortOf(port.protocol, port.port, None)),
    )
}
