//! How many pods of each group are in each domain, and what those that are there demand of newcomers.

use std::sync::Arc;

use super::group::{GroupId, Topology};
use super::rules::{Constraint, ConstraintKind};

/// Counts of all groups over labels; those over hosts are kept with the hosts. By group, then value of the label.
#[derive(Debug, Default)]
pub(in crate::solve) struct Counts {
    groups: Vec<GroupCounts>,
    /// What was changed, oldest first: a try that is given up costs what it changed, not what is known.
    changes: Vec<Change>,
}

/// What a change overwrote.
#[derive(Debug)]
enum Change {
    Pods { group: GroupId, value: usize, before: u32 },
    Averse { group: GroupId, value: usize, before: u32 },
    Spread { group: GroupId, value: usize, before: Option<(u32, u32)> },
    Anywhere { group: GroupId, before: u64 },
}

#[derive(Debug, Clone, Default)]
struct GroupCounts {
    /// Pods of the group.
    pods: Vec<u32>,
    /// Pods that want none of the group beside them.
    averse: Vec<u32>,
    /// Strictest hard spread constraint of a planned pod there: largest skew, domains needed.
    spread: Vec<Option<(u32, u32)>>,
    /// Pods of the group anywhere, hosts without the label included.
    anywhere: u64,
    /// Values that count as domains.
    universe: Arc<Vec<usize>>,
}

impl GroupCounts {
    fn at(&self, value: usize) -> u32 {
        self.pods.get(value).copied().unwrap_or(0)
    }

    /// Pods in the emptiest domain that counts.
    fn least(&self, min_domains: u32) -> u32 {
        if self.universe.len() < min_domains as usize {
            return 0;
        }
        self.universe.iter().map(|value| self.at(*value)).min().unwrap_or(0)
    }
}

fn slot<T: Clone + Default>(list: &mut Vec<T>, index: usize) -> &mut T {
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}

impl Counts {
    /// How many groups are counted.
    pub(in crate::solve) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Makes room for the groups that are known by now.
    pub(in crate::solve) fn grow(&mut self, topology: &Topology) {
        while self.groups.len() < topology.len() {
            let group = GroupId::try_from(self.groups.len()).unwrap_or(GroupId::MAX);
            let universe = Arc::clone(topology.universe(group));
            self.groups.push(GroupCounts { universe, ..GroupCounts::default() });
        }
    }

    /// Takes over which values count as domains of these groups.
    pub(in crate::solve) fn take_universes(&mut self, topology: &Topology, groups: &[GroupId]) {
        for group in groups {
            if let Some(counts) = self.groups.get_mut(*group as usize) {
                counts.universe = Arc::clone(topology.universe(*group));
            }
        }
    }

    /// Makes the present a state from which nothing leads back.
    pub(in crate::solve) fn forget_changes(&mut self) {
        self.changes.clear();
    }

    /// How many changes there were, to return to this state.
    pub(in crate::solve) fn changes(&self) -> usize {
        self.changes.len()
    }

    /// Takes back all but the first changes.
    pub(in crate::solve) fn back_to(&mut self, changes: usize) {
        while self.changes.len() > changes {
            let Some(change) = self.changes.pop() else { return };
            match change {
                Change::Pods { group, value, before } => self.groups[group as usize].pods[value] = before,
                Change::Averse { group, value, before } => self.groups[group as usize].averse[value] = before,
                Change::Spread { group, value, before } => self.groups[group as usize].spread[value] = before,
                Change::Anywhere { group, before } => self.groups[group as usize].anywhere = before,
            }
        }
    }

    /// Counts pods of a group; `value` is their domain, `None` where their machine has none.
    pub(in crate::solve) fn add(&mut self, group: GroupId, value: Option<usize>, count: u32) {
        self.change(group, value, |held| held.saturating_add(count), u64::from(count), 0);
    }

    /// Takes counted pods back.
    pub(in crate::solve) fn remove(&mut self, group: GroupId, value: Option<usize>, count: u32) {
        self.change(group, value, |held| held.saturating_sub(count), 0, u64::from(count));
    }

    fn change(
        &mut self,
        group: GroupId,
        value: Option<usize>,
        pods: impl FnOnce(u32) -> u32,
        more: u64,
        fewer: u64,
    ) {
        let counts = &mut self.groups[group as usize];
        self.changes.push(Change::Anywhere { group, before: counts.anywhere });
        counts.anywhere = (counts.anywhere + more).saturating_sub(fewer);
        if let Some(value) = value {
            let held = slot(&mut counts.pods, value);
            self.changes.push(Change::Pods { group, value, before: *held });
            *held = pods(*held);
        }
    }

    /// Counts pods that want none of the group beside them.
    pub(in crate::solve) fn add_averse(&mut self, group: GroupId, value: usize, count: u32) {
        let averse = slot(&mut self.groups[group as usize].averse, value);
        self.changes.push(Change::Averse { group, value, before: *averse });
        *averse = averse.saturating_add(count);
    }

    /// Takes back pods that wanted none of the group beside them.
    pub(in crate::solve) fn remove_averse(&mut self, group: GroupId, value: usize, count: u32) {
        let averse = slot(&mut self.groups[group as usize].averse, value);
        self.changes.push(Change::Averse { group, value, before: *averse });
        *averse = averse.saturating_sub(count);
    }

    /// Remembers the constraints of planned pods in a domain, so that later ones do not break them.
    pub(in crate::solve) fn bind(&mut self, constraint: Constraint, value: usize, count: u32) {
        let group = constraint.group;
        match constraint.kind {
            ConstraintKind::Spread { max_skew, min_domains } => {
                let kept = slot(&mut self.groups[group as usize].spread, value);
                let before = *kept;
                *kept = Some(before.map_or((max_skew, min_domains), |(skew, domains)| {
                    (skew.min(max_skew), domains.max(min_domains))
                }));
                if *kept != before {
                    self.changes.push(Change::Spread { group, value, before });
                }
            }
            ConstraintKind::AntiAffinity => self.add_averse(group, value, count),
            ConstraintKind::Affinity => {}
        }
    }

    /// Pods of a group in a domain.
    pub(in crate::solve) fn pods(&self, group: GroupId, value: usize) -> u32 {
        self.groups[group as usize].at(value)
    }

    /// Pods of a group, wherever they are.
    pub(in crate::solve) fn anywhere(&self, group: GroupId) -> u64 {
        self.groups[group as usize].anywhere
    }

    /// Pods in the emptiest domain of a group.
    pub(in crate::solve) fn least(&self, group: GroupId, min_domains: u32) -> u32 {
        self.groups[group as usize].least(min_domains)
    }

    /// By how many pods `here` a domain is over what a spread constraint allows.
    pub(in crate::solve) fn excess(
        &self,
        group: GroupId,
        value: usize,
        here: u32,
        (max_skew, min_domains): (u32, u32),
    ) -> u32 {
        let counts = &self.groups[group as usize];
        let is_domain = counts.universe.binary_search(&value).is_ok();
        let most = counts.least(min_domains).saturating_add(max_skew);
        if is_domain { here.saturating_sub(most) } else { 0 }
    }

    /// Whether one more pod with this constraint may go to a domain; `counted` is whether it counts itself.
    pub(in crate::solve) fn allows(&self, constraint: Constraint, value: usize, counted: bool) -> bool {
        let counts = &self.groups[constraint.group as usize];
        match constraint.kind {
            ConstraintKind::Spread { max_skew, min_domains } => {
                // A domain that does not count has nothing to be compared with.
                counts.universe.binary_search(&value).is_err()
                    || counts.at(value) + u32::from(counted) <= counts.least(min_domains) + max_skew
            }
            ConstraintKind::Affinity => counts.at(value) > 0 || counted && counts.anywhere == 0,
            ConstraintKind::AntiAffinity => counts.at(value) == 0,
        }
    }

    /// Whether those already in a domain put up with a pod of the group.
    pub(in crate::solve) fn tolerates(&self, group: GroupId, value: usize) -> bool {
        self.groups[group as usize].averse.get(value).copied().unwrap_or(0) == 0
    }

    /// Whether the spread constraints of planned pods in a domain still hold with one more pod of the group.
    pub(in crate::solve) fn keeps_balance(&self, group: GroupId, value: usize) -> bool {
        let counts = &self.groups[group as usize];
        counts.spread.get(value).copied().flatten().is_none_or(|(max_skew, min_domains)| {
            counts.at(value) < counts.least(min_domains).saturating_add(max_skew)
        })
    }
}
