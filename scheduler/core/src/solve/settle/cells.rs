//! The choices of domains that a class has, and which of them the next pod gets.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{Binding, Choice, Lessons, Pins, Settled, Waiting};
use crate::requirement::{Requirements, ValueSet};
use crate::solve::Solver;
use crate::solve::axes::fits;
use crate::solve::classes::Class;
use crate::solve::reach::Places;
use crate::solve::topology::{ConstraintKind, Domain, GroupId};

/// One choice of domains for a class.
pub(super) struct Cell {
    pub(super) pins: Pins,
    pub(super) masks: Arc<Vec<u64>>,
    pub(super) requirements: Arc<Requirements>,
    /// Price of the cheapest machine, where one could be bought.
    pub(super) price: Option<u64>,
    /// The heaviest tier of pools that has one.
    tier: usize,
    /// Places that might take a pod, in order, and how many of them are known to be full.
    pub(super) places: Places,
    pub(super) full: usize,
    pub(super) counted: Arc<[(GroupId, Option<usize>)]>,
    /// Pods that go to new machines.
    pub(super) bought: u64,
}

impl Cell {
    pub(super) fn choice(&self) -> Choice {
        let (counted, masks) = (Arc::clone(&self.counted), Arc::clone(&self.masks));
        Choice { pins: self.pins.clone(), counted, masks }
    }
}

/// Where a pod is counted.
type Counted = SmallVec<[(GroupId, Option<usize>); 4]>;

/// How good a cell is, best first: tier of pools, whether constraints of pods there would be worse off, pods it is compared by,
/// whether others of the group are elsewhere, whether places are full, price, company.
type Rank = (usize, bool, u32, bool, bool, u64, u32);

/// Most choices of domains that are looked at for one class.
const CELLS_AT_MOST: usize = 4_096;

impl Solver {
    /// The domains of a class under these constraints, and whether machines could be bought there.
    pub(in crate::solve) fn domains(
        &mut self,
        class: &Class<'_>,
        binding: &Binding,
        requirements: &Arc<Requirements>,
        masks: &Arc<Vec<u64>>,
        places: &Places,
    ) -> Vec<(Pins, bool)> {
        let cells = self.cells(class, binding, requirements, masks, places);
        cells.into_iter().map(|cell| (cell.pins, cell.price.is_some())).collect()
    }

    /// The choices of domains of a class on one rung: those that could be bought, or that existing places are in.
    pub(super) fn cells(
        &mut self,
        class: &Class<'_>,
        binding: &Binding,
        requirements: &Arc<Requirements>,
        masks: &Arc<Vec<u64>>,
        places: &Places,
    ) -> Vec<Cell> {
        // Labels of groups that only count the class: a machine without one is as good as any. Then those it must have.
        let (mut keys, mut needed): (SmallVec<[usize; 2]>, SmallVec<[usize; 2]>) = <_>::default();
        let label = |group: GroupId| match self.topology.domain(group) {
            Domain::Label(key) => Some(key),
            Domain::Host => None,
        };
        needed.extend(binding.constraints.iter().filter_map(|one| label(one.group)));
        keys.extend(class.rules.counted.iter().filter_map(|group| label(*group)));
        keys.retain(|key| !needed.contains(key));
        for keys in [&mut keys, &mut needed] {
            keys.sort_unstable_by_key(|key| self.topology.key_name(*key));
            keys.dedup();
        }
        let optional = keys.len();
        keys.extend(needed);
        let buys = !masks.is_empty();
        let mut cells: Vec<(Pins, Arc<Vec<u64>>)> = vec![(Pins::new(), Arc::clone(masks))];
        for (at, key) in keys.iter().enumerate() {
            let name = self.topology.key_name(*key);
            let mut more = Vec::new();
            for (pins, masks) in &cells {
                let mut with_value = Vec::new();
                for (value, text) in self.topology.values(*key) {
                    // What is asked for excludes a value that a pool leaves open: no machine has both.
                    let excluded = requirements.get(name).is_some_and(|set| !set.allows(text));
                    let narrowed = if excluded {
                        self.masks.none()
                    } else if buys {
                        self.masks.pinned(&self.catalog, masks, (*key, name), (value, text))
                    } else {
                        Arc::clone(masks)
                    };
                    let mut pins = pins.clone();
                    pins.push((*key, value));
                    with_value.push((pins, narrowed));
                }
                if at < optional {
                    let without = if buys {
                        self.masks.without(masks, *key, with_value.iter().map(|(_, masks)| masks))
                    } else {
                        Arc::clone(masks)
                    };
                    more.push((pins.clone(), without));
                }
                more.extend(with_value);
            }
            more.truncate(CELLS_AT_MOST);
            cells = more;
        }
        cells.iter_mut().for_each(|(pins, _)| pins.sort_unstable());
        let mut found = Vec::new();
        let by_domain = self.by_domain(places, &keys, optional);
        for (pins, masks) in cells {
            let places = self.in_domain(&by_domain, &pins);
            for (masks, places, mut counted) in self.by_filter(class, &pins, masks, places, buys) {
                counted.extend(class.host.counted.iter().map(|group| (*group, None)));
                let buyable = buys && self.masks.holds(&self.catalog, &masks, &class.requests);
                if !buyable && places.is_empty() {
                    continue;
                }
                let price = buyable.then(|| self.masks.cheapest(&self.catalog, &masks));
                let tier = if places.is_empty() { self.first_tier(class, &masks) } else { 0 };
                let requirements = if pins.is_empty() {
                    Arc::clone(requirements)
                } else {
                    self.pinned_requirements(requirements, &pins)
                };
                let (pins, counted) = (pins.clone(), counted.as_slice().into());
                found.push(Cell {
                    pins,
                    masks,
                    requirements,
                    price,
                    tier,
                    places,
                    full: 0,
                    counted,
                    bought: 0,
                });
            }
        }
        // Machines without a zone are no company and no distance: nobody goes there to be with others or apart from them.
        for key in keys {
            let Some(zoneless) = self.topology.zoneless(key) else { continue };
            let is_zoneless = |cell: &Cell| cell.pins.contains(&(key, zoneless));
            if found.iter().any(|cell| cell.price.is_some() && !is_zoneless(cell)) {
                found.retain(|cell| !is_zoneless(cell));
            }
        }
        found
    }

    /// One choice of domains, taken apart by whether machines there count for each group that counts the class.
    fn by_filter(
        &mut self,
        class: &Class<'_>,
        pins: &Pins,
        masks: Arc<Vec<u64>>,
        places: Places,
        buys: bool,
    ) -> Vec<(Arc<Vec<u64>>, Places, Counted)> {
        let mut parts = vec![(masks, places, Counted::new())];
        for group in self.topology.in_order(&class.rules.counted) {
            let Domain::Label(key) = self.topology.domain(group) else { continue };
            let Some((_, value)) = pins.iter().find(|(one, _)| *one == key).copied() else { continue };
            let Some(offerings) = self.topology.counted_offerings(&self.catalog, group, pins) else {
                parts.iter_mut().for_each(|(.., counted)| counted.push((group, Some(value))));
                continue;
            };
            for (masks, places, counted) in std::mem::take(&mut parts) {
                let (inside, outside) = self.by_group(&places, group);
                // Neither part may leave types enough to choose from. A machine that may be of either counts.
                let either = (buys && self.catalog.varied).then(|| {
                    let mut counted = counted.clone();
                    counted.push((group, Some(value)));
                    (Arc::clone(&masks), Places::default(), counted)
                });
                for (places, counts) in [(inside, true), (outside, false)] {
                    let masks = if buys {
                        self.masks.filtered(&masks, &offerings, counts)
                    } else {
                        Arc::clone(&masks)
                    };
                    let mut counted = counted.clone();
                    if counts {
                        counted.push((group, Some(value)));
                    }
                    parts.push((masks, places, counted));
                }
                parts.extend(either);
            }
        }
        parts
    }

    /// The heaviest tier of pools that could hold a pod of a class.
    fn first_tier(&self, class: &Class<'_>, masks: &[u64]) -> usize {
        if self.catalog.pools.last().is_none_or(|pool| pool.tier == 0) {
            return 0;
        }
        let shapes = self.catalog.shapes.iter().zip(masks);
        let holding = shapes.filter(|(shape, mask)| **mask != 0 && fits(&class.requests, &shape.room));
        holding.map(|(shape, _)| shape.tier).min().unwrap_or(usize::MAX)
    }

    fn pinned_requirements(&mut self, requirements: &Arc<Requirements>, pins: &Pins) -> Arc<Requirements> {
        let mut pinned = Requirements::clone(requirements);
        for (key, value) in pins {
            let text = self.topology.text(*key, *value);
            pinned.constrain(self.topology.key_name(*key), &ValueSet::of([&**text]));
        }
        Arc::clone(
            self.requirements_known.entry(pinned).or_insert_with_key(|pinned| Arc::new(pinned.clone())),
        )
    }

    /// The cell where the next pod of a class goes.
    pub(super) fn best_cell(
        &self,
        class: &Class<'_>,
        waiting: &Waiting,
        binding: &Binding,
        cells: &[Cell],
        lessons: &Lessons,
        settled: &Settled,
    ) -> Option<usize> {
        let is_closed = |cell: &Cell| {
            let tried = |one: &Choice| {
                one.pins == cell.pins && one.counted == cell.counted && one.masks == cell.masks
            };
            lessons.closed.iter().any(|closed| closed.iter().all(|pin| cell.pins.contains(pin)))
                || lessons.tried.iter().any(tried)
        };
        if let ([one], true, true) = (cells, binding.constraints.is_empty(), class.rules.counted.is_empty()) {
            if is_closed(one) {
                return None;
            }
            return Some(0);
        }
        let mut best: Option<(Rank, usize)> = None;
        for (index, cell) in cells.iter().enumerate() {
            if is_closed(cell) {
                continue;
            }
            if !lessons.cells.is_empty() {
                let key = (waiting.class, cell.pins.clone());
                let full = lessons
                    .cells
                    .get(&key)
                    .is_some_and(|most| settled.cells.get(&key).copied().unwrap_or(0) >= *most);
                if full {
                    continue;
                }
            }
            let is_counted = |group: GroupId| cell.counted.iter().any(|(one, _)| *one == group);
            let mut spread = 0_u32;
            let allowed = binding.constraints.iter().all(|constraint| {
                let Some(value) = self.value_in(&cell.pins, constraint.group) else { return false };
                if let ConstraintKind::Spread { .. } = constraint.kind {
                    spread = spread.saturating_add(self.counts.pods(constraint.group, value));
                }
                self.counts.allows(*constraint, value, is_counted(constraint.group))
            });
            let of_labels = || cell.counted.iter().filter_map(|(group, value)| Some((*group, (*value)?)));
            if !allowed || !of_labels().all(|(group, value)| self.counts.tolerates(group, value)) {
                continue;
            }
            // Kubernetes holds nobody to the spread of others; it is kept for them where that costs nothing.
            let unbalances = !of_labels().all(|(group, value)| self.counts.keeps_balance(group, value));
            // Where others of its groups are already, those that need them find them together.
            let company: u32 = cell
                .counted
                .iter()
                .filter_map(|(group, value)| Some(self.counts.pods(*group, (*value)?)))
                .fold(0, u32::saturating_add);
            // Those that must share a machine share its domains.
            let gregarious = !class.host.needs.is_empty()
                || binding.constraints.iter().any(|one| one.kind == ConstraintKind::Affinity);
            let alone = gregarious && company == 0;
            let full = cell.full >= cell.places.len();
            let rank = (cell.tier, unbalances, spread, alone, full, cell.price.unwrap_or(u64::MAX), company);
            if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                best = Some((rank, index));
            }
        }
        best.map(|(_, index)| index)
    }
}
