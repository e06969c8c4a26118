//! What the constraints of one class mean in groups: hard ones, and soft ones in the order in which they are given up.

use assay_shared::labels::kubernetes;
use smallvec::SmallVec;

use super::group::{Domain, FilterKey, GroupId, GroupKey, Selects, Topology, port_groups};
use crate::model::{
    GangScope, HostPort, NodeInclusion, Pod, PodAffinityTerm, PodSpec, TopologySpread,
    WeightedPodAffinityTerm, WhenUnsatisfiable,
};
use crate::solve::catalog::Catalog;
use crate::solve::host::{HostRules, Need};
use crate::solve::machines::Machines;
use crate::solve::options::Preferences;

/// A constraint over a label's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::solve) struct Constraint {
    pub(in crate::solve) group: GroupId,
    pub(in crate::solve) kind: ConstraintKind,
}

/// What it asks of the counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::solve) enum ConstraintKind {
    /// The pod's domain may exceed the emptiest by so many.
    Spread { max_skew: u32, min_domains: u32 },
    /// A pod of the group is in the domain.
    Affinity,
    /// No other pod of the group is.
    AntiAffinity,
}

/// A preference, as the constraint it is while it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::solve) enum Soft {
    /// Over a label.
    Label(Constraint),
    /// At most so many pods of the group on the machine.
    AtMost(GroupId, u32),
    /// The same for the sake of topology spread.
    Spread(GroupId, u32),
    /// A pod of the group on the machine.
    Needs(GroupId),
}

/// The constraints of a class.
#[derive(Debug, Clone, Default)]
pub(in crate::solve) struct ClassRules {
    /// Groups over labels that its pods are counted in, ascending.
    pub(in crate::solve) counted: Vec<GroupId>,
    /// Hard constraints over labels.
    pub(in crate::solve) hard: Vec<Constraint>,
    /// Hard rules within a machine.
    pub(in crate::solve) host: HostRules,
    /// Preferred pod affinity, heaviest first: the first is given up first. The same for the others.
    pub(in crate::solve) soft_affinity: Vec<Soft>,
    pub(in crate::solve) soft_anti_affinity: Vec<Soft>,
    pub(in crate::solve) soft_spread: Vec<Soft>,
}

impl ClassRules {
    /// Whether it is compared with others over a label.
    pub(in crate::solve) fn spreads(&self) -> bool {
        self.hard.iter().any(|one| matches!(one.kind, ConstraintKind::Spread { .. }))
    }

    /// Whether domains need no thought.
    pub(in crate::solve) fn is_free(&self) -> bool {
        self.counted.is_empty()
            && self.hard.is_empty()
            && self.soft_affinity.is_empty()
            && self.soft_anti_affinity.is_empty()
            && self.soft_spread.is_empty()
    }
}

/// Whether a spread constraint is more than a wish that is not heard.
fn counts(spread: &TopologySpread, preferences: Preferences) -> bool {
    preferences == Preferences::Respect || spread.when_unsatisfiable == WhenUnsatisfiable::DoNotSchedule
}

/// Whether a spec has constraints that make groups.
pub(in crate::solve) fn makes_groups(spec: &PodSpec) -> bool {
    !(spec.topology_spread.is_empty()
        && spec.pod_affinity.is_empty()
        && spec.pod_anti_affinity.is_empty()
        && spec.preferred_pod_affinity.is_empty()
        && spec.preferred_pod_anti_affinity.is_empty()
        && spec.host_ports.is_empty())
}

impl Topology {
    /// Makes the groups of a spec's hard anti-affinity and ports, which bind others too; returns each once.
    pub(in crate::solve) fn learn_binding(
        &mut self,
        catalog: &Catalog,
        machines: &Machines,
        spec: &PodSpec,
    ) -> Vec<GroupId> {
        let mut groups = Vec::new();
        for term in &spec.pod_anti_affinity {
            groups.push(self.of_term(catalog, machines, term));
        }
        for port in &spec.host_ports {
            let (all, same, every) = port_groups(port);
            groups.extend([all, same, every].map(|key| self.group(catalog, machines, key)));
        }
        groups.sort_unstable();
        groups.dedup();
        groups
    }

    /// Makes every group of a spec; those of wishes only where these count.
    pub(in crate::solve) fn learn(
        &mut self,
        catalog: &Catalog,
        machines: &Machines,
        spec: &PodSpec,
        preferences: Preferences,
    ) {
        if !makes_groups(spec) {
            return;
        }
        self.learn_binding(catalog, machines, spec);
        for spread in spec.topology_spread.iter().filter(|spread| counts(spread, preferences)) {
            self.of_spread(catalog, machines, spec, spread);
        }
        for term in &spec.pod_affinity {
            self.of_term(catalog, machines, term);
        }
        if preferences == Preferences::Ignore {
            return;
        }
        let soft = spec.preferred_pod_affinity.iter().chain(&spec.preferred_pod_anti_affinity);
        for weighted in soft {
            self.of_term(catalog, machines, &weighted.term);
        }
    }

    /// Makes the group of a pod's gang, where it must stay in one zone.
    pub(in crate::solve) fn learn_gang(&mut self, catalog: &Catalog, machines: &Machines, pod: &Pod) {
        if let Some(gang) = pod.gang.as_ref().filter(|gang| gang.scope == GangScope::Zone) {
            self.group(catalog, machines, gang_key(&gang.id));
        }
    }

    /// What ports demand of a machine; `None` where there are none.
    pub(in crate::solve) fn of_ports(
        &mut self,
        catalog: &Catalog,
        machines: &Machines,
        ports: &[HostPort],
    ) -> Option<HostRules> {
        if ports.is_empty() {
            return None;
        }
        let mut rules = HostRules::default();
        for port in ports {
            let (all, same, every) = port_groups(port);
            let counted = [&all, &same].map(|key| self.group(catalog, machines, key.clone()));
            rules.counted.extend(counted);
            let limits = if port.ip.is_some() { [(same, 1), (every, 0)] } else { [(all, 1), (every, 1)] };
            for (key, limit) in limits {
                let group = self.group(catalog, machines, key);
                apply(&mut Vec::new(), &mut rules, Soft::AtMost(group, limit), |_| true);
            }
        }
        rules.counted.sort_unstable();
        rules.counted.dedup();
        Some(rules)
    }

    fn of_term(&mut self, catalog: &Catalog, machines: &Machines, term: &PodAffinityTerm) -> GroupId {
        let key = GroupKey {
            topology_key: term.topology_key.clone(),
            selects: Selects::Pods(term.selector.clone()),
            filter: None,
        };
        self.group(catalog, machines, key)
    }

    fn of_spread(
        &mut self,
        catalog: &Catalog,
        machines: &Machines,
        spec: &PodSpec,
        spread: &TopologySpread,
    ) -> GroupId {
        let constrained = !spec.node_selector.is_empty() || !spec.required_affinity.is_empty();
        let honoured = spread.node_affinity_policy == NodeInclusion::Honor && constrained;
        let affinity = honoured.then(|| (spec.node_selector.clone(), spec.required_affinity.clone()));
        let tolerations =
            (spread.node_taints_policy == NodeInclusion::Honor).then(|| spec.tolerations.clone());
        let filter =
            (affinity.is_some() || tolerations.is_some()).then_some(FilterKey { affinity, tolerations });
        // Nodes of one host are never compared with others, so a filter changes nothing there.
        let filter = filter.filter(|_| spread.topology_key != kubernetes::HOSTNAME);
        let key = GroupKey {
            topology_key: spread.topology_key.clone(),
            selects: Selects::Pods(spread.selector.clone()),
            filter,
        };
        self.group(catalog, machines, key)
    }

    /// Groups that count a pod: by its labels, its ports and its gang. Ascending.
    pub(in crate::solve) fn counting(&self, pod: &Pod, selecting: &[GroupId]) -> Vec<GroupId> {
        let mut counted = selecting.to_vec();
        for port in &pod.spec.host_ports {
            let (all, same, _) = port_groups(port);
            counted.extend([all, same].iter().filter_map(|key| self.known(key)));
        }
        if let Some(gang) = pod.gang.as_ref().filter(|gang| gang.scope == GangScope::Zone) {
            counted.extend(self.known(&gang_key(&gang.id)));
        }
        counted.sort_unstable();
        counted.dedup();
        counted
    }

    /// The same for groups from `first` on.
    pub(in crate::solve) fn counting_from(&self, first: GroupId, pod: &Pod) -> Vec<GroupId> {
        let end = GroupId::try_from(self.len()).unwrap_or(GroupId::MAX);
        (first..end).filter(|group| self.counts_pod(*group, pod)).collect()
    }

    /// The constraints of pods like this one, which is counted in `counted`; every group must be known.
    pub(in crate::solve) fn rules(
        &mut self,
        catalog: &Catalog,
        machines: &Machines,
        pod: &Pod,
        counted: &[GroupId],
        preferences: Preferences,
    ) -> ClassRules {
        let spec = &*pod.spec;
        let mut rules = ClassRules::default();
        for group in counted {
            match self.domain(*group) {
                Domain::Host => rules.host.counted.push(*group),
                Domain::Label(_) => rules.counted.push(*group),
            }
        }
        let is_counted = |group: GroupId| counted.binary_search(&group).is_ok();
        let mut hard: Vec<Soft> = Vec::new();
        for spread in spec.topology_spread.iter().filter(|spread| counts(spread, preferences)) {
            let group = self.of_spread(catalog, machines, spec, spread);
            let constraint = match self.domain(group) {
                Domain::Host => Soft::Spread(group, spread.max_skew),
                Domain::Label(_) => Soft::Label(Constraint {
                    group,
                    kind: ConstraintKind::Spread {
                        max_skew: spread.max_skew,
                        min_domains: spread.min_domains,
                    },
                }),
            };
            match spread.when_unsatisfiable {
                WhenUnsatisfiable::DoNotSchedule => hard.push(constraint),
                WhenUnsatisfiable::ScheduleAnyway => rules.soft_spread.push(constraint),
            }
        }
        for term in &spec.pod_affinity {
            hard.push(self.together(catalog, machines, term));
        }
        for term in &spec.pod_anti_affinity {
            hard.push(self.apart(catalog, machines, term, is_counted));
        }
        let heaviest_first = |list: &[WeightedPodAffinityTerm]| {
            let mut list: Vec<WeightedPodAffinityTerm> = list.to_vec();
            list.sort_by_key(|weighted| std::cmp::Reverse(weighted.weight));
            list
        };
        if preferences == Preferences::Respect {
            for weighted in heaviest_first(&spec.preferred_pod_affinity) {
                let soft = self.together(catalog, machines, &weighted.term);
                rules.soft_affinity.push(soft);
            }
            for weighted in heaviest_first(&spec.preferred_pod_anti_affinity) {
                let soft = self.apart(catalog, machines, &weighted.term, is_counted);
                rules.soft_anti_affinity.push(soft);
            }
        }
        if let Some(ports) = self.of_ports(catalog, machines, &spec.host_ports) {
            hard.extend(ports.at_most.iter().map(|(group, limit)| Soft::AtMost(*group, *limit)));
        }
        if let Some(gang) = pod.gang.as_ref().filter(|gang| gang.scope == GangScope::Zone) {
            let group = self.group(catalog, machines, gang_key(&gang.id));
            if !is_counted(group) {
                rules.counted.push(group);
                rules.counted.sort_unstable();
            }
            rules.hard.push(Constraint { group, kind: ConstraintKind::Affinity });
        }
        for one in hard {
            apply(&mut rules.hard, &mut rules.host, one, is_counted);
        }
        rules
    }

    /// What a pod that runs demands of newcomers: its hard anti-affinity and its ports. Every group must be known.
    pub(in crate::solve) fn binding(
        &mut self,
        catalog: &Catalog,
        machines: &Machines,
        pod: &Pod,
        counted: &[GroupId],
    ) -> (Vec<Constraint>, HostRules) {
        let is_counted = |group: GroupId| counted.binary_search(&group).is_ok();
        let (mut label, mut host) = (Vec::new(), HostRules::default());
        for term in &pod.spec.pod_anti_affinity {
            let one = self.apart(catalog, machines, term, is_counted);
            apply(&mut label, &mut host, one, is_counted);
        }
        if let Some(ports) = self.of_ports(catalog, machines, &pod.spec.host_ports) {
            for (group, limit) in &ports.at_most {
                apply(&mut label, &mut host, Soft::AtMost(*group, *limit), is_counted);
            }
        }
        (label, host)
    }

    fn together(&mut self, catalog: &Catalog, machines: &Machines, term: &PodAffinityTerm) -> Soft {
        let group = self.of_term(catalog, machines, term);
        match self.domain(group) {
            Domain::Host => Soft::Needs(group),
            Domain::Label(_) => Soft::Label(Constraint { group, kind: ConstraintKind::Affinity }),
        }
    }

    fn apart(
        &mut self,
        catalog: &Catalog,
        machines: &Machines,
        term: &PodAffinityTerm,
        is_counted: impl Fn(GroupId) -> bool,
    ) -> Soft {
        let group = self.of_term(catalog, machines, term);
        match self.domain(group) {
            Domain::Host => Soft::AtMost(group, u32::from(is_counted(group))),
            Domain::Label(_) => Soft::Label(Constraint { group, kind: ConstraintKind::AntiAffinity }),
        }
    }
}

/// Adds a preference to what is asked of a place.
pub(in crate::solve) fn apply_wish(
    label: &mut Vec<Constraint>,
    host: &mut HostRules,
    one: Soft,
    is_counted: impl Fn(GroupId) -> bool,
) {
    match one {
        Soft::AtMost(group, limit) | Soft::Spread(group, limit) => host.wishes.push((group, limit)),
        other => apply(label, host, other, is_counted),
    }
}

/// Adds a constraint to those that bind; `starts` is left to the caller, who knows what runs.
pub(in crate::solve) fn apply(
    label: &mut Vec<Constraint>,
    host: &mut HostRules,
    one: Soft,
    is_counted: impl Fn(GroupId) -> bool,
) {
    match one {
        Soft::Label(constraint) => label.push(constraint),
        Soft::AtMost(group, limit) => lower(&mut host.at_most, group, limit),
        Soft::Spread(group, limit) => lower(&mut host.spread, group, limit),
        Soft::Needs(group) => {
            if host.needs.iter().all(|need| need.group != group) {
                host.needs.push(Need { group, starts: is_counted(group) });
            }
        }
    }
}

/// Keeps the lowest limit of each group; by group, ascending.
fn lower<const N: usize>(limits: &mut SmallVec<[(u32, u32); N]>, group: GroupId, limit: u32)
where
    [(u32, u32); N]: smallvec::Array<Item = (u32, u32)>,
{
    match limits.binary_search_by_key(&group, |(group, _)| *group) {
        Ok(index) => limits[index].1 = limits[index].1.min(limit),
        Err(index) => limits.insert(index, (group, limit)),
    }
}

fn gang_key(id: &std::sync::Arc<str>) -> GroupKey {
    GroupKey {
        topology_key: kubernetes::ZONE.to_owned(),
        selects: Selects::Gang(std::sync::Arc::clone(id)),
        filter: None,
    }
}
