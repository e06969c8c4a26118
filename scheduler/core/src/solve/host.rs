//! Rules between the pods of one machine: who may share it with whom, and how many.
//!
//! Topology spread, pod affinity and anti-affinity over `kubernetes.io/hostname`, host ports and shared volumes all become
//! the same few words: a class is *counted* in groups, tolerates *at most* so many pods of some groups beside and including
//! itself, and *needs* a pod of other groups to be there. Groups are numbered by `topology`; existing nodes and new machines
//! keep one [`Occupancy`] each.

use smallvec::SmallVec;

/// What the pods of a class ask of the others on their machine. Classes without rules have the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct HostRules {
    /// Groups that a pod of the class is counted in, ascending.
    pub(super) counted: SmallVec<[u32; 4]>,
    /// With a pod of the class on it, the machine holds at most so many pods of the group, that pod included where it is
    /// counted. By group, ascending.
    pub(super) at_most: SmallVec<[(u32, u32); 2]>,
    /// The same for topology spread: Kubernetes holds nobody else to it, so it binds others only while a plan has a choice.
    pub(super) spread: SmallVec<[(u32, u32); 1]>,
    /// The same as a wish: asked when a pod of the class is put on a machine, and of no use to those that are there.
    pub(super) wishes: SmallVec<[(u32, u32); 1]>,
    /// Groups of which a pod must be on the machine.
    pub(super) needs: SmallVec<[Need; 1]>,
    /// Volumes shared with other pods: the axis that counts their driver's, and the volume. They take room once a machine.
    pub(super) shared_volumes: SmallVec<[(u16, u32); 1]>,
}

/// A group of which a pod must be on the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Need {
    /// The group.
    pub(super) group: u32,
    /// Whether a pod of the class may be the group's first, on a machine that has none: it is counted in the group, and
    /// no pod of the group runs anywhere. Only one machine may be started so; the rest of the group must follow to it.
    pub(super) starts: bool,
}

impl HostRules {
    /// Limits that its pods ask for themselves.
    pub(super) fn limits(&self) -> impl Iterator<Item = &(u32, u32)> {
        self.at_most.iter().chain(&self.spread).chain(&self.wishes)
    }

    /// Whether any machine with room will do.
    pub(super) fn is_empty(&self) -> bool {
        self.counted.is_empty() && !self.binds()
    }

    /// Whether its pods ask anything themselves; those that do not may still be counted by others.
    pub(super) fn binds(&self) -> bool {
        !(self.at_most.is_empty()
            && self.spread.is_empty()
            && self.wishes.is_empty()
            && self.needs.is_empty()
            && self.shared_volumes.is_empty())
    }
}

/// Who is on a machine, as far as rules count them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Occupancy {
    /// Pods by group.
    counts: SmallVec<[(u32, u32); 4]>,
    /// Lowest limit by group of any pod that is there.
    ceilings: SmallVec<[(u32, u32); 2]>,
    /// The same, of topology spread.
    balance: SmallVec<[(u32, u32); 1]>,
    volumes: SmallVec<[u32; 2]>,
}

impl Occupancy {
    pub(super) fn count(&self, group: u32) -> u32 {
        find(&self.counts, group).unwrap_or(0)
    }

    /// How many pods of these rules may be added, room and needs apart.
    pub(super) fn space(&self, rules: &HostRules) -> u64 {
        let mut most = u64::MAX;
        for (group, limit) in rules.limits() {
            let held = self.count(*group);
            if rules.counted.binary_search(group).is_ok() {
                most = most.min(u64::from(limit.saturating_sub(held)));
            } else if held > *limit {
                return 0;
            }
        }
        for group in &rules.counted {
            for ceiling in
                [&self.ceilings[..], &self.balance[..]].into_iter().filter_map(|list| find(list, *group))
            {
                most = most.min(u64::from(ceiling.saturating_sub(self.count(*group))));
            }
        }
        most
    }

    /// Holds newcomers no more to the topology spread of those that are there.
    pub(super) fn forget_balance(&mut self) {
        self.balance.clear();
    }

    /// The first group that must be on the machine and is not.
    pub(super) fn missing(&self, rules: &HostRules) -> Option<Need> {
        rules.needs.iter().copied().find(|need| self.count(need.group) == 0)
    }

    /// Counts `count` pods of these rules.
    pub(super) fn add(&mut self, rules: &HostRules, count: u64) {
        if count == 0 {
            return;
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        for group in &rules.counted {
            self.count_in(*group, count);
        }
        for (group, limit) in &rules.at_most {
            self.limit(*group, *limit);
        }
        for (group, limit) in &rules.spread {
            let ceiling = entry(&mut self.balance, *group, u32::MAX);
            *ceiling = (*ceiling).min(*limit);
        }
        for (_, volume) in &rules.shared_volumes {
            if !self.volumes.contains(volume) {
                self.volumes.push(*volume);
            }
        }
    }

    /// Counts pods of one group.
    pub(super) fn count_in(&mut self, group: u32, count: u32) {
        let held = entry(&mut self.counts, group, 0);
        *held = held.saturating_add(count);
    }

    /// Takes pods of a group off.
    pub(super) fn remove(&mut self, group: u32, count: u32) {
        if let Some(index) = self.counts.iter().position(|(one, _)| *one == group) {
            let held = &mut self.counts[index].1;
            *held = held.saturating_sub(count);
            if *held == 0 {
                self.counts.swap_remove(index);
            }
        }
    }

    /// Forgets what those that are there demanded, to be told by those that stay.
    pub(super) fn lift(&mut self) {
        self.ceilings.clear();
    }

    /// Holds newcomers to one more limit.
    pub(super) fn limit(&mut self, group: u32, limit: u32) {
        let ceiling = entry(&mut self.ceilings, group, u32::MAX);
        *ceiling = (*ceiling).min(limit);
    }

    /// These are the volumes that are attached.
    pub(super) fn attach(&mut self, volumes: impl Iterator<Item = u32>) {
        self.volumes = volumes.collect();
    }

    /// Axes of the volumes that a first pod of these rules would attach besides, one each.
    pub(super) fn volumes_to_attach<'a>(&'a self, rules: &'a HostRules) -> impl Iterator<Item = u16> + 'a {
        rules
            .shared_volumes
            .iter()
            .filter(|(_, volume)| !self.volumes.contains(volume))
            .map(|(axis, _)| *axis)
    }
}

fn find(list: &[(u32, u32)], group: u32) -> Option<u32> {
    list.iter().find(|(one, _)| *one == group).map(|(_, value)| *value)
}

fn entry<const N: usize>(list: &mut SmallVec<[(u32, u32); N]>, group: u32, default: u32) -> &mut u32
where
    [(u32, u32); N]: smallvec::Array<Item = (u32, u32)>,
{
    let index = list.iter().position(|(one, _)| *one == group).unwrap_or_else(|| {
        list.push((group, default));
        list.len() - 1
    });
    &mut list[index].1
}
