//! Which of the machines that exist a class may use, whatever is on them: by taints and labels, then by domain. Neither changes
//! between decisions, so every answer is remembered, and a pod that arrives later pays for none of it.

use std::cmp::Reverse;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::Solver;
use super::classes::Class;
use super::settle::Pins;
use super::topology::GroupId;
use crate::model::{PreferredTerm, TaintEffect, Toleration, untolerated};
use crate::requirement::Requirements;

/// Places, by index.
pub(super) type Places = Arc<Vec<usize>>;

/// Places by their values of some labels.
type ByDomain = Arc<FxHashMap<Pins, Places>>;

/// What was found so far. Lists are known by their address, which stays theirs because the list is kept.
#[derive(Debug, Default)]
pub(super) struct Reach {
    by_key: FxHashMap<PlaceKey, Places>,
    /// With the list that was sorted, by it and the label keys, of which so many may be missing.
    by_domain: FxHashMap<(usize, Vec<usize>, usize), (Places, ByDomain)>,
    /// With the list that was split, by it and the group: places that count for the group, and those that do not.
    by_group: FxHashMap<(usize, GroupId), (Places, Places, Places)>,
}

/// What decides which places a class may use.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PlaceKey {
    terms: Vec<Requirements>,
    tolerations: Vec<Toleration>,
    preferred: Vec<PreferredTerm>,
}

fn address(places: &Places) -> usize {
    Arc::as_ptr(places).addr()
}

impl Solver {
    /// Places that a class may use: most preferred first, then in their own order.
    pub(super) fn places_for(&mut self, class: &Class<'_>, terms: &[Requirements]) -> Places {
        if self.open_places == 0 {
            return Arc::default();
        }
        let key = PlaceKey {
            terms: terms.to_vec(),
            tolerations: class.spec.tolerations.clone(),
            preferred: class.spec.preferred_affinity.clone(),
        };
        if let Some(known) = self.reach.by_key.get(&key) {
            return Arc::clone(known);
        }
        let preferred: Vec<(u32, Requirements)> = key
            .preferred
            .iter()
            .filter_map(|term| Some((term.weight, Requirements::from_list(&term.requirements).ok()?)))
            .collect();
        let mut found: Vec<(Reverse<u32>, usize, usize)> = Vec::new();
        for (index, place) in self.places[..self.open_places].iter().enumerate() {
            let possible = untolerated(&place.taints, &key.tolerations).is_none()
                && terms.iter().any(|term| term.check_labels(&place.labels).is_ok());
            if possible {
                let liked = preferred.iter().filter(|(_, term)| term.check_labels(&place.labels).is_ok());
                let liked = liked.fold(0_u32, |sum, (weight, _)| sum.saturating_add(*weight));
                let soft = place.taints.iter().filter(|taint| taint.effect == TaintEffect::PreferNoSchedule);
                let disliked = soft.filter(|taint| !key.tolerations.iter().any(|t| t.tolerates(taint)));
                found.push((Reverse(liked), disliked.count(), index));
            }
        }
        found.sort_unstable();
        let found: Places = Arc::new(found.into_iter().map(|(_, _, index)| index).collect());
        self.reach.by_key.insert(key, Arc::clone(&found));
        found
    }

    /// The same places by their values of the labels of these numbers. Those that lack one are left out, unless it is one of the
    /// `optional` first ones.
    pub(super) fn by_domain(&mut self, places: &Places, keys: &[usize], optional: usize) -> ByDomain {
        if places.is_empty() {
            return Arc::default();
        }
        if keys.is_empty() {
            return Arc::new([(Pins::new(), Arc::clone(places))].into_iter().collect());
        }
        let key = (address(places), keys.to_vec(), optional);
        if let Some((_, known)) = self.reach.by_domain.get(&key) {
            return Arc::clone(known);
        }
        let mut found: FxHashMap<Pins, Vec<usize>> = FxHashMap::default();
        for place in places.iter() {
            if let Some(pins) = self.place_pins(*place, keys, optional) {
                found.entry(pins).or_default().push(*place);
            }
        }
        let found: ByDomain =
            Arc::new(found.into_iter().map(|(pins, list)| (pins, Arc::new(list))).collect());
        self.reach.by_domain.insert(key, (Arc::clone(places), Arc::clone(&found)));
        found
    }

    /// The same places, split: those that count for a group, and those that do not.
    pub(super) fn by_group(&mut self, places: &Places, group: GroupId) -> (Places, Places) {
        if places.is_empty() {
            return Default::default();
        }
        let key = (address(places), group);
        if let Some((_, inside, outside)) = self.reach.by_group.get(&key) {
            return (Arc::clone(inside), Arc::clone(outside));
        }
        let (inside, outside): (Vec<usize>, Vec<usize>) =
            places.iter().partition(|place| self.topology.counts_place(group, &self.places[**place]));
        let (inside, outside): (Places, Places) = (Arc::new(inside), Arc::new(outside));
        self.reach.by_group.insert(key, (Arc::clone(places), Arc::clone(&inside), Arc::clone(&outside)));
        (inside, outside)
    }

    /// The values of a place for these labels; `None` where it lacks one that it must have.
    fn place_pins(&self, place: usize, keys: &[usize], optional: usize) -> Option<Pins> {
        let place = &self.places[place];
        let mut pins = Pins::new();
        for (at, key) in keys.iter().enumerate() {
            let value = place.label(self.topology.key_name(*key));
            match value.and_then(|value| self.topology.value(*key, value)) {
                Some(value) => pins.push((*key, value)),
                None if at < optional => {}
                None => return None,
            }
        }
        pins.sort_unstable();
        Some(pins)
    }
}
