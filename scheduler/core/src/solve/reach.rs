//! Which of the machines that exist a class may use, whatever is on them: by taints and labels, then by domain. Every answer is
//! remembered and kept up when a machine comes or goes, so a pod that arrives later pays for none of it.

use std::cmp::Reverse;
use std::ops::Deref;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Solver;
use super::classes::Class;
use super::machines::Machines;
use super::place::{Place, Rank};
use super::settle::Pins;
use super::topology::{GroupId, Topology};
use crate::model::{PreferredTerm, TaintEffect, Toleration, untolerated};
use crate::requirement::Requirements;

/// Places by slot, in the order in which they are used, and which list of them it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    list: Option<usize>,
    slots: Arc<Vec<usize>>,
}

impl Deref for Places {
    type Target = Vec<usize>;

    fn deref(&self) -> &Vec<usize> {
        &self.slots
    }
}

/// Places by their values of some labels.
#[derive(Debug, Clone, Default)]
pub(super) struct ByDomain {
    whole: Places,
    /// Number of the division; `None` where there are no labels to tell places apart by.
    division: Option<usize>,
}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Reach {
    lists: Vec<List>,
    whole: FxHashMap<Wanted, usize>,
    /// Parts of lists, in the order in which they were asked for: a list stands before its parts.
    divisions: Vec<Division>,
    by_domain: FxHashMap<(usize, Vec<usize>, usize), usize>,
    by_group: FxHashMap<(usize, GroupId), usize>,
}

/// A list that is kept up.
#[derive(Debug)]
struct List {
    slots: Arc<Vec<usize>>,
    /// What it is all or a part of.
    whole: Arc<Whole>,
}

/// A list in parts.
#[derive(Debug)]
enum Division {
    /// By the values of the label keys, of which so many may be missing.
    Domains { list: usize, keys: Vec<usize>, optional: usize, parts: FxHashMap<Pins, usize> },
    /// By whether places count for the group.
    Group { list: usize, group: GroupId, inside: usize, outside: usize },
}

/// What decides which places a class may use.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Wanted {
    terms: Vec<Requirements>,
    tolerations: Vec<Toleration>,
    preferred: Vec<PreferredTerm>,
}

/// The same, ready to be asked.
#[derive(Debug)]
struct Whole {
    terms: Vec<Requirements>,
    tolerations: Vec<Toleration>,
    preferred: Vec<(u32, Requirements)>,
}

impl Whole {
    fn of(wanted: &Wanted) -> Self {
        let compiled =
            |term: &PreferredTerm| Some((term.weight, Requirements::from_list(&term.requirements).ok()?));
        Self {
            terms: wanted.terms.clone(),
            tolerations: wanted.tolerations.clone(),
            preferred: wanted.preferred.iter().filter_map(compiled).collect(),
        }
    }

    fn admits(&self, place: &Place) -> bool {
        let site = &place.site;
        site.rank.is_open()
            && untolerated(&site.taints, &self.tolerations).is_none()
            && self.terms.iter().any(|term| term.check_labels(site.labels()).is_ok())
    }

    /// Most preferred first, then in the places' own order.
    fn order<'p>(&self, place: &'p Place) -> (Reverse<u32>, usize, &'p Rank) {
        let site = &place.site;
        let liked = self.preferred.iter().filter(|(_, term)| term.check_labels(site.labels()).is_ok());
        let liked = liked.fold(0_u32, |sum, (weight, _)| sum.saturating_add(*weight));
        let soft = site.taints.iter().filter(|taint| taint.effect == TaintEffect::PreferNoSchedule);
        let disliked = soft.filter(|taint| !self.tolerations.iter().any(|t| t.tolerates(taint)));
        (Reverse(liked), disliked.count(), &site.rank)
    }
}

impl Reach {
    fn places(&self, list: usize) -> Places {
        Places { list: Some(list), slots: Arc::clone(&self.lists[list].slots) }
    }

    fn list(&mut self, slots: Vec<usize>, whole: Arc<Whole>) -> usize {
        self.lists.push(List { slots: Arc::new(slots), whole });
        self.lists.len() - 1
    }

    /// How many lists there are.
    pub(super) fn len(&self) -> usize {
        self.lists.len()
    }

    /// A machine is there now.
    pub(super) fn enter(&mut self, machines: &Machines, topology: &Topology, slot: usize) {
        self.update(machines, topology, slot, |list, at| list.insert(at, slot));
    }

    /// A machine is about to go.
    pub(super) fn leave(&mut self, machines: &Machines, topology: &Topology, slot: usize) {
        self.update(machines, topology, slot, |list, at| {
            debug_assert_eq!(list.get(at), Some(&slot));
            list.remove(at);
        });
    }

    /// Changes every list that a place belongs to, at its position.
    fn update(
        &mut self,
        machines: &Machines,
        topology: &Topology,
        slot: usize,
        change: impl Fn(&mut Vec<usize>, usize),
    ) {
        let place = &machines[slot];
        let mut has = vec![false; self.lists.len()];
        for list in self.whole.values() {
            has[*list] = self.lists[*list].whole.admits(place);
        }
        for number in 0..self.divisions.len() {
            let found = match &self.divisions[number] {
                Division::Domains { list, .. } | Division::Group { list, .. } if !has[*list] => None,
                Division::Domains { list, keys, optional, parts } => pins_of(topology, slot, keys, *optional)
                    .map(|pins| parts.get(&pins).copied().ok_or((*list, pins))),
                Division::Group { group, inside, outside, .. } => {
                    Some(Ok(if topology.counts_at(*group, slot) { *inside } else { *outside }))
                }
            };
            let part = match found {
                None => continue,
                Some(Ok(part)) => part,
                Some(Err((list, pins))) => {
                    let part = self.list(Vec::new(), Arc::clone(&self.lists[list].whole));
                    if let Division::Domains { parts, .. } = &mut self.divisions[number] {
                        parts.insert(pins, part);
                    }
                    has.push(false);
                    part
                }
            };
            has[part] = true;
        }
        for (list, _) in self.lists.iter_mut().zip(has).filter(|(_, has)| *has) {
            let own = list.whole.order(place);
            let at = list.slots.partition_point(|other| list.whole.order(&machines[*other]) < own);
            change(Arc::make_mut(&mut list.slots), at);
        }
    }
}

impl Solver {
    /// Places that a class may use: most preferred first, then in their own order.
    pub(super) fn places_for(&mut self, class: &Class<'_>, terms: &[Requirements]) -> Places {
        if self.machines.open().is_empty() {
            return Places::default();
        }
        let wanted = Wanted {
            terms: terms.to_vec(),
            tolerations: class.spec.tolerations.clone(),
            preferred: class.spec.preferred_affinity.clone(),
        };
        if let Some(list) = self.reach.whole.get(&wanted) {
            return self.reach.places(*list);
        }
        let whole = Whole::of(&wanted);
        let machines = &self.machines;
        let open = machines.open().iter().copied();
        let mut found: Vec<usize> = open.filter(|slot| whole.admits(&machines[*slot])).collect();
        // They are in their own order already.
        found.sort_by_cached_key(|slot| {
            let (liked, disliked, _) = whole.order(&machines[*slot]);
            (liked, disliked)
        });
        let list = self.reach.list(found, Arc::new(whole));
        self.reach.whole.insert(wanted, list);
        self.reach.places(list)
    }

    /// The same places by their values of the labels of these numbers. Those that lack one are left out, unless it is one of the
    /// `optional` first ones.
    pub(super) fn by_domain(&mut self, places: &Places, keys: &[usize], optional: usize) -> ByDomain {
        let Some(list) = places.list.filter(|_| !keys.is_empty()) else {
            return ByDomain { whole: places.clone(), division: None };
        };
        let key = (list, keys.to_vec(), optional);
        if let Some(division) = self.reach.by_domain.get(&key) {
            return ByDomain { whole: places.clone(), division: Some(*division) };
        }
        let mut found: FxHashMap<Pins, Vec<usize>> = FxHashMap::default();
        for place in places.iter() {
            if let Some(pins) = pins_of(&self.topology, *place, keys, optional) {
                found.entry(pins).or_default().push(*place);
            }
        }
        let whole = Arc::clone(&self.reach.lists[list].whole);
        let parts =
            found.into_iter().map(|(pins, part)| (pins, self.reach.list(part, Arc::clone(&whole)))).collect();
        let division = self.reach.divisions.len();
        self.reach.divisions.push(Division::Domains { list, keys: keys.to_vec(), optional, parts });
        self.reach.by_domain.insert(key, division);
        ByDomain { whole: places.clone(), division: Some(division) }
    }

    /// The places of one choice of values.
    pub(super) fn in_domain(&self, by_domain: &ByDomain, pins: &Pins) -> Places {
        let Some(division) = by_domain.division else {
            return if pins.is_empty() { by_domain.whole.clone() } else { Places::default() };
        };
        match &self.reach.divisions[division] {
            Division::Domains { parts, .. } => {
                parts.get(pins).map_or_else(Places::default, |part| self.reach.places(*part))
            }
            Division::Group { .. } => Places::default(),
        }
    }

    /// The same places, split: those that count for a group, and those that do not.
    pub(super) fn by_group(&mut self, places: &Places, group: GroupId) -> (Places, Places) {
        let Some(list) = places.list else { return Default::default() };
        let division = match self.reach.by_group.get(&(list, group)) {
            Some(division) => *division,
            None => {
                let (inside, outside): (Vec<usize>, Vec<usize>) =
                    places.iter().partition(|place| self.topology.counts_at(group, **place));
                let whole = Arc::clone(&self.reach.lists[list].whole);
                let inside = self.reach.list(inside, Arc::clone(&whole));
                let outside = self.reach.list(outside, whole);
                self.reach.divisions.push(Division::Group { list, group, inside, outside });
                self.reach.by_group.insert((list, group), self.reach.divisions.len() - 1);
                self.reach.divisions.len() - 1
            }
        };
        match &self.reach.divisions[division] {
            Division::Group { inside, outside, .. } => {
                (self.reach.places(*inside), self.reach.places(*outside))
            }
            Division::Domains { .. } => Default::default(),
        }
    }
}

/// The values of a place for these labels; `None` where it lacks one that it must have.
fn pins_of(topology: &Topology, slot: usize, keys: &[usize], optional: usize) -> Option<Pins> {
    let mut pins = Pins::new();
    for (at, key) in keys.iter().enumerate() {
        match topology.value_at(*key, slot) {
            Some(value) => pins.push((*key, value)),
            None if at < optional => {}
            None => return None,
        }
    }
    pins.sort_unstable();
    Some(pins)
}
