//! Topology groups: pods that some constraint counts, over the domains of one node label.

use std::sync::Arc;

use assay_shared::labels::{azure, kubernetes};
use rustc_hash::FxHashMap;

use crate::model::{HostPort, Labels, PodSelector, PodSpec, Protocol, Toleration, untolerated};
use crate::requirement::{Operator, Requirement, Requirements};
use crate::solve::catalog::{Catalog, Shape, required_terms};
use crate::solve::place::Place;

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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct GroupKey {
    pub(super) topology_key: String,
    pub(super) selects: Selects,
    pub(super) filter: Option<FilterKey>,
}

/// Which pods a group counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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
    fn admits_place(&self, place: &Place) -> bool {
        self.tolerations.as_ref().is_none_or(|list| untolerated(&place.taints, list).is_none())
            && (self.terms.is_empty()
                || self.terms.iter().any(|term| term.check_labels(&place.labels).is_ok()))
    }

    /// Offerings of a shape whose machines would count.
    fn admitted(&self, catalog: &Catalog, shape: &Shape) -> u64 {
        let taints = &catalog.pools[shape.pool].pool.taints;
        if self.tolerations.as_ref().is_some_and(|list| untolerated(taints, list).is_some()) {
            return 0;
        }
        if self.terms.is_empty() {
            return u64::MAX;
        }
        self.terms.iter().fold(0, |mask, term| mask | shape.mask_of_all(term))
    }
}

#[derive(Debug)]
struct Group {
    domain: Domain,
    selects: Selects,
    /// The selector's label part, compiled; `None` matches nothing by labels.
    labels: Option<Requirements>,
    filter: Option<NodeFilter>,
    /// Values that count as domains, by number; filled when first asked for.
    universe: Option<Arc<Vec<usize>>>,
}

/// Values of one node label.
#[derive(Debug)]
struct KeyValues {
    key: String,
    values: Vec<Arc<str>>,
    numbers: FxHashMap<Arc<str>, usize>,
    /// Values that an offering that can be had now would have, by number.
    offered: Vec<usize>,
    /// The value that stands for no zone, where no node has it: it is no domain while there are zones to be had.
    zoneless: Option<usize>,
}

impl KeyValues {
    /// Of offered values, those that are domains.
    fn domains(&self, mut offered: Vec<usize>) -> Vec<usize> {
        if let Some(zoneless) = self.zoneless.filter(|_| offered.len() > 1) {
            offered.retain(|value| *value != zoneless);
        }
        offered
    }
}

/// All groups that some pod's constraints make, and who is counted in which.
#[derive(Debug, Default)]
pub(in crate::solve) struct Topology {
    groups: Vec<Group>,
    numbers: FxHashMap<GroupKey, GroupId>,
    keys: Vec<KeyValues>,
    /// Groups by a label that their pods must have; the rest, which every pod must be tried with.
    by_label: FxHashMap<(String, String), Vec<GroupId>>,
    general: Vec<GroupId>,
}

impl Topology {
    /// The number of a group, made where it is new.
    pub(super) fn group(&mut self, catalog: &Catalog, places: &[Place], key: GroupKey) -> GroupId {
        if let Some(number) = self.numbers.get(&key) {
            return *number;
        }
        let number = GroupId::try_from(self.groups.len()).unwrap_or(GroupId::MAX);
        let domain = if crate::requirement::normalize_key(&key.topology_key) == kubernetes::HOSTNAME {
            Domain::Host
        } else {
            Domain::Label(self.key(catalog, places, &key.topology_key))
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
        let selects = key.selects.clone();
        self.groups.push(Group { domain, selects, labels, filter, universe: None });
        self.numbers.insert(key, number);
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

    /// Whether a group is about a port.
    pub(in crate::solve) fn is_port(&self, group: GroupId) -> bool {
        matches!(self.groups[group as usize].selects, Selects::Port(..) | Selects::PortOf(..))
    }

    /// How many groups there are.
    pub(in crate::solve) fn len(&self) -> usize {
        self.groups.len()
    }

    /// What the domains of a group are.
    pub(in crate::solve) fn domain(&self, group: GroupId) -> Domain {
        self.groups[group as usize].domain
    }

    /// The label key of this number.
    pub(in crate::solve) fn key_name(&self, key: usize) -> &str {
        &self.keys[key].key
    }

    /// Values of a label, by number.
    pub(in crate::solve) fn values(&self, key: usize) -> &[Arc<str>] {
        &self.keys[key].values
    }

    /// The number of a value of a label.
    pub(in crate::solve) fn value(&self, key: usize, value: &str) -> Option<usize> {
        self.keys[key].numbers.get(value).copied()
    }

    /// The value of a label that is no domain while others are to be had.
    pub(in crate::solve) fn zoneless(&self, key: usize) -> Option<usize> {
        self.keys[key].zoneless
    }

    /// Whether machines at this place count for the group.
    pub(in crate::solve) fn counts_place(&self, group: GroupId, place: &Place) -> bool {
        self.groups[group as usize].filter.as_ref().is_none_or(|filter| filter.admits_place(place))
    }

    /// Offerings, by shape, whose machines count for the group; `None` where all do.
    pub(in crate::solve) fn counted_offerings(&self, catalog: &Catalog, group: GroupId) -> Option<Vec<u64>> {
        let filter = self.groups[group as usize].filter.as_ref()?;
        if filter.terms.is_empty() && filter.tolerations.is_none() {
            return None;
        }
        Some(catalog.shapes.iter().map(|shape| filter.admitted(catalog, shape)).collect())
    }

    /// Values that count as domains of the group: those of nodes that count, and those of machines that could be bought.
    pub(in crate::solve) fn universe(
        &mut self,
        catalog: &Catalog,
        places: &[Place],
        group: GroupId,
    ) -> Arc<Vec<usize>> {
        let one = &self.groups[group as usize];
        if let Some(known) = &one.universe {
            return Arc::clone(known);
        }
        let Domain::Label(key) = one.domain else { return Arc::default() };
        let keyed = &self.keys[key];
        let mut found: Vec<usize> = match &one.filter {
            None => keyed.domains(keyed.offered.clone()),
            Some(filter) => {
                let of_filter = catalog.shapes.iter().flat_map(|shape| {
                    let mask = shape.available & filter.admitted(catalog, shape);
                    shape_values(shape, &keyed.key, mask)
                });
                let numbers = of_filter.filter_map(|value| keyed.numbers.get(&*value).copied());
                let mut seen = vec![false; keyed.values.len()];
                numbers.for_each(|number| seen[number] = true);
                keyed.domains((0..seen.len()).filter(|number| seen[*number]).collect())
            }
        };
        for place in places.iter().filter(|place| self.counts_place(group, place)) {
            if let Some(number) = place.label(&keyed.key).and_then(|value| keyed.numbers.get(value)) {
                found.push(*number);
            }
        }
        found.sort_unstable();
        found.dedup();
        let found = Arc::new(found);
        self.groups[group as usize].universe = Some(Arc::clone(&found));
        found
    }

    /// The number of a label key, with every value that nodes or offerings have.
    fn key(&mut self, catalog: &Catalog, places: &[Place], key: &str) -> usize {
        let key = crate::requirement::normalize_key(key);
        if let Some(number) = self.keys.iter().position(|one| one.key == key) {
            return number;
        }
        let mut keyed = KeyValues {
            key: key.to_owned(),
            values: Vec::new(),
            numbers: FxHashMap::default(),
            offered: Vec::new(),
            zoneless: None,
        };
        let mut offered: Vec<Arc<str>> = catalog
            .shapes
            .iter()
            .filter(|shape| shape.available != 0)
            .flat_map(|shape| shape_values(shape, key, shape.available))
            .collect();
        offered.sort_unstable();
        offered.dedup();
        let placed = places.iter().filter_map(|place| place.label(key)).map(Arc::from);
        let mut all: Vec<Arc<str>> = offered.iter().cloned().chain(placed).collect();
        all.sort_unstable();
        all.dedup();
        for value in all {
            keyed.numbers.insert(Arc::clone(&value), keyed.values.len());
            keyed.values.push(value);
        }
        let zoneless = || keyed.numbers.get(azure::REGIONAL_ZONE).copied();
        let is_zone = key == kubernetes::ZONE;
        let has_node = || places.iter().any(|place| place.label(key) == Some(azure::REGIONAL_ZONE));
        keyed.zoneless = if is_zone && !has_node() { zoneless() } else { None };
        keyed.offered = offered.iter().filter_map(|value| keyed.numbers.get(value).copied()).collect();
        self.keys.push(keyed);
        self.keys.len() - 1
    }
}

/// Values of a label that machines of a shape can get with the offerings of `mask`.
fn shape_values(shape: &Shape, key: &str, mask: u64) -> Vec<Arc<str>> {
    use assay_shared::labels::karpenter;
    let offered =
        || shape.offerings.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, o)| o);
    match key {
        _ if mask == 0 => Vec::new(),
        kubernetes::ZONE => offered().map(|offering| Arc::clone(&offering.zone)).collect(),
        karpenter::CAPACITY_TYPE => {
            offered().map(|offering| Arc::from(offering.capacity_type.as_str())).collect()
        }
        _ => {
            let finite = shape.offered.get(key).and_then(|set| set.finite());
            finite.into_iter().flatten().map(|value| Arc::from(value.as_str())).collect()
        }
    }
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
