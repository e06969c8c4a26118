//! Gives every pending pod a domain for each label that matters to it, and room on a machine that exists where there is any.
//!
//! Classes are taken in order. For each, the ways it may be placed are its *cells*: one value for each label that its
//! constraints, or those of others that count it, speak of. Every pod goes to the cell that its constraints allow and that is
//! emptiest; within the cell existing room is used first, and what is left becomes a [`Piece`] for packing. A class that has to
//! wait for another (affinity to pods that are not placed yet) is looked at again as long as anything moves.

mod cells;

use std::cmp::Reverse;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;

use self::cells::Cell;
use super::Solver;
use super::axes::{fits, take, times};
use super::classes::Class;
use super::host::{HostRules, Need};
use super::ladder::Rung;
use super::place::Place;
use super::topology::{Constraint, ConstraintKind, Domain, GroupId};
use crate::requirement::Requirements;

/// Values chosen for labels, both by number.
pub(super) type Pins = SmallVec<[(usize, usize); 2]>;

/// Pods of one class that machines must be bought for, with one choice of domains.
#[derive(Debug, Clone)]
pub(super) struct Piece {
    pub(super) class: usize,
    pub(super) rung: usize,
    pub(super) count: u64,
    pub(super) pins: Pins,
    /// Offerings they may use, by shape.
    pub(super) masks: Arc<Vec<u64>>,
    /// What the machine must be.
    pub(super) requirements: Arc<Requirements>,
    pub(super) host: Arc<HostRules>,
    /// Where each pod of the piece was counted.
    pub(super) counted: Arc<[(GroupId, Option<usize>)]>,
}

impl Piece {
    /// The choice of domains of its pods.
    pub(super) fn choice(&self) -> Choice {
        let (counted, masks) = (Arc::clone(&self.counted), Arc::clone(&self.masks));
        Choice { pins: self.pins.clone(), counted, masks }
    }
}

/// Pods of one class that still wait, and the rung they are on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub(super) class: usize,
    pub(super) count: u64,
    pub(super) rung: usize,
}

/// What an earlier try taught about room that could not be had.
#[derive(Debug, Clone, Default)]
pub(super) struct Lessons {
    /// Pods of a class for which there is room.
    pub(super) total: FxHashMap<usize, u64>,
    /// The same for one choice of domains.
    pub(super) cells: FxHashMap<(usize, Pins), u64>,
    /// Choices of domains that nobody gets: all that have these values, and these very ones.
    pub(super) closed: Vec<Pins>,
    pub(super) tried: Vec<Choice>,
    /// Classes that are left out as a whole.
    pub(super) excluded: FxHashSet<usize>,
    /// Whether nothing more is to be learned.
    pub(super) is_final: bool,
}

/// A choice of domains, and where pods that made it are counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) pins: Pins,
    pub(super) counted: Arc<[(GroupId, Option<usize>)]>,
    masks: Arc<Vec<u64>>,
}

/// Pods of a class put on a machine that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) place: usize,
    pub(super) class: usize,
    pub(super) count: u64,
    pub(super) choice: Choice,
}

/// What settling decided so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Settled {
    pub(super) pieces: Vec<Piece>,
    pub(super) placed: Vec<Placed>,
    /// Pods assigned so far, by class and by cell of a class.
    total: FxHashMap<usize, u64>,
    cells: FxHashMap<(usize, Pins), u64>,
    /// Groups whose first pod has a machine.
    started: FxHashSet<GroupId>,
    /// The choice of domains made last.
    pub(super) latest: Choice,
}

impl Settled {
    /// Pods of a class that have a place or are part of a piece.
    pub(super) fn placed_total(&self, class: usize) -> u64 {
        self.total.get(&class).copied().unwrap_or(0)
    }

    /// Pods of a class that have a place or a machine in one choice of domains.
    pub(super) fn in_cell(&self, class: usize, pins: &Pins) -> u64 {
        self.cells.get(&(class, pins.clone())).copied().unwrap_or(0)
    }

    /// Choices of domains that have pods of a class.
    pub(super) fn cells_with_pods(&self) -> impl Iterator<Item = (usize, &Pins)> {
        self.cells.iter().filter(|(_, count)| **count > 0).map(|((class, pins), _)| (*class, pins))
    }

    /// Lets pods that must be with others have any machine that these are on.
    pub(super) fn forget_started(&mut self) {
        self.started.clear();
    }

    /// Forgets what was settled since there were so many pieces and placements; whose pods these are is the caller's to give back.
    pub(super) fn back_to(&mut self, pieces: usize, placed: usize) {
        self.pieces.truncate(pieces);
        self.placed.truncate(placed);
    }

    /// Counts pods of a class that have neither any more.
    pub(super) fn give_back(&mut self, class: usize, pins: &Pins, count: u64) {
        if let Some(cell) = self.cells.get_mut(&(class, pins.clone())) {
            *cell = cell.saturating_sub(count);
        }
        if let Some(total) = self.total.get_mut(&class) {
            *total = total.saturating_sub(count);
        }
    }
}

/// What binds the pods of one class on one rung.
pub(super) struct Binding {
    pub(super) constraints: Vec<Constraint>,
    pub(super) host: Arc<HostRules>,
}

impl Solver {
    /// Settles waiting pods; adds to `settled`. Returns those that no domain takes now, for any rung.
    pub(super) fn settle(
        &mut self,
        classes: &[Class<'_>],
        mut waiting: Vec<Waiting>,
        lessons: &Lessons,
        settled: &mut Settled,
    ) -> Vec<Waiting> {
        waiting.retain(|one| !lessons.excluded.contains(&one.class));
        // Those that cannot choose their domain before those that can, for they are compared with each other.
        if waiting.iter().any(|one| self.is_pinned(&classes[one.class])) {
            waiting.sort_by_key(|one| {
                (Reverse(classes[one.class].priority), !self.is_pinned(&classes[one.class]))
            });
        }
        loop {
            let mut moved = false;
            for one in &mut waiting {
                let before = one.count;
                self.settle_class(&classes[one.class], one, lessons, settled);
                moved |= one.count < before;
            }
            waiting.retain(|one| one.count > 0);
            let depends = |one: &Waiting| {
                let class = &classes[one.class];
                !class.rules.hard.is_empty() || !class.host.needs.is_empty()
            };
            if !moved || !waiting.iter().any(depends) {
                return waiting;
            }
        }
    }

    /// Whether a class is compared by a label that its own needs decide, such as the zone of its volume.
    fn is_pinned(&self, class: &Class<'_>) -> bool {
        let Ok(terms) = &class.terms else { return false };
        let decides = |key: usize| {
            let name = self.topology.key_name(key);
            !terms.is_empty() && terms.iter().all(|term| term.get(name).is_some())
        };
        let spread = class.rules.hard.iter().filter(|one| matches!(one.kind, ConstraintKind::Spread { .. }));
        spread.map(|one| self.topology.domain(one.group)).any(|domain| match domain {
            Domain::Label(key) => decides(key),
            Domain::Host => false,
        })
    }

    fn settle_class(
        &mut self,
        class: &Class<'_>,
        waiting: &mut Waiting,
        lessons: &Lessons,
        settled: &mut Settled,
    ) {
        let Ok(terms) = &class.terms else { return };
        if let Some(most) = lessons.total.get(&waiting.class) {
            let so_far = settled.total.get(&waiting.class).copied().unwrap_or(0);
            if so_far >= *most {
                return;
            }
        }
        let places = self.places_for(class, terms);
        if !places.is_empty() && waiting.rung == 0 && class.ladder.rungs.len() > 1 {
            // Room that is paid for is used whatever a pod would prefer, as kube-scheduler will.
            let binding = Binding { constraints: class.rules.hard.clone(), host: Arc::clone(&class.host) };
            let nothing = Arc::new(Vec::new());
            let cells = self.cells(class, &binding, &Arc::default(), &nothing, &places);
            self.fill(class, waiting, usize::MAX, &binding, cells, lessons, settled);
        }
        for index in waiting.rung..class.ladder.rungs.len() {
            if waiting.count == 0 {
                return;
            }
            let rung = class.ladder.rungs[index];
            let requirements = self.requirements(class, terms, &rung);
            let pools = if rung.soft_taints { &class.pools } else { &class.clean_pools };
            let masks = self.masks.of(&self.catalog, &requirements, pools);
            let masks = self.masks.aligned(&self.catalog, masks, &class.spec.aligned);
            let (constraints, host) =
                rung.constraints(&class.rules, &class.host, |group| class.is_counted(group));
            let binding = Binding { constraints, host };
            let cells = self.cells(class, &binding, &Arc::new(requirements), &masks, &places);
            self.fill(class, waiting, index, &binding, cells, lessons, settled);
        }
    }

    /// What machines must be on one rung.
    pub(super) fn requirements(
        &self,
        class: &Class<'_>,
        terms: &[Requirements],
        rung: &Rung,
    ) -> Requirements {
        match rung.preference {
            Some(preference) => terms[rung.term].intersect(&class.ladder.preferences[preference]),
            None => terms[rung.term].clone(),
        }
    }

    /// Gives pods cells until none is left or no cell takes more.
    #[allow(clippy::too_many_arguments)] // one step of `settle_class`, cut out to be read by itself
    fn fill(
        &mut self,
        class: &Class<'_>,
        waiting: &mut Waiting,
        rung: usize,
        binding: &Binding,
        mut cells: Vec<Cell>,
        lessons: &Lessons,
        settled: &mut Settled,
    ) {
        let mut host = Arc::clone(&binding.host);
        if host.needs.iter().any(|need| need.starts) {
            let first = |need: &Need| need.starts && self.counts.anywhere(need.group) == 0;
            if !host.needs.iter().all(first) {
                let mut followers = HostRules::clone(&host);
                for need in &mut followers.needs {
                    need.starts = first(need);
                }
                host = Arc::new(followers);
            }
        }
        if host.needs.iter().any(|need| !need.starts && self.counts.anywhere(need.group) == 0) {
            // Nobody is there to be with, yet.
            return;
        }
        let free = class.rules.is_free() && binding.constraints.is_empty();
        while waiting.count > 0 {
            let most = match lessons.total.get(&waiting.class) {
                Some(most) => most - settled.total.get(&waiting.class).copied().unwrap_or(0).min(*most),
                None => u64::MAX,
            };
            if most == 0 {
                break;
            }
            let mut taken = 0;
            if let Some(index) = self.best_cell(class, waiting, binding, &cells, lessons, settled) {
                let cell = &mut cells[index];
                let most = if free { waiting.count.min(most) } else { 1 };
                taken = self.on_places(class, waiting.class, &host, cell, most, settled);
                // A machine of its own is of no use to pods that must follow to one that exists.
                let follows = host.needs.iter().any(|need| settled.started.contains(&need.group));
                if taken == 0 && cell.price.is_some() && !follows {
                    cell.bought += most;
                    taken = most;
                }
                if taken == 0 {
                    // Every place of the cell is full, and nothing can be bought there.
                    cells.remove(index);
                    continue;
                }
                let cell = &cells[index];
                let count = u32::try_from(taken).unwrap_or(u32::MAX);
                for (group, value) in cell.counted.iter() {
                    self.counts.add(*group, *value, count);
                }
                for constraint in &class.rules.hard {
                    if let Some(value) = self.value_in(&cell.pins, constraint.group) {
                        self.counts.bind(*constraint, value, count);
                    }
                }
                settled.latest = cell.choice();
                *settled.total.entry(waiting.class).or_default() += taken;
                if !cell.pins.is_empty() {
                    *settled.cells.entry((waiting.class, cell.pins.clone())).or_default() += taken;
                }
                waiting.count -= taken;
            }
            if taken == 0 {
                break;
            }
        }
        for cell in cells.into_iter().filter(|cell| cell.bought > 0) {
            settled.pieces.push(Piece {
                class: waiting.class,
                rung,
                count: cell.bought,
                pins: cell.pins,
                masks: cell.masks,
                requirements: cell.requirements,
                host: Arc::clone(&host),
                counted: cell.counted,
            });
        }
    }

    /// Counts pods no more that had this choice of domains; whether they kept others away by a label.
    pub(super) fn uncount(&mut self, class: &Class<'_>, choice: &Choice, count: u64) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        for (group, value) in choice.counted.iter() {
            self.counts.remove(*group, *value, count);
        }
        let mut averse = false;
        for constraint in class.rules.hard.iter().filter(|one| one.kind == ConstraintKind::AntiAffinity) {
            if let Some(value) = self.value_in(&choice.pins, constraint.group) {
                self.counts.remove_averse(constraint.group, value, count);
                averse = true;
            }
        }
        averse
    }

    pub(super) fn value_in(&self, pins: &Pins, group: GroupId) -> Option<usize> {
        let Domain::Label(key) = self.topology.domain(group) else { return None };
        pins.iter().find(|(one, _)| *one == key).map(|(_, value)| *value)
    }

    /// Puts up to `most` pods on the places of a cell; how many found room.
    fn on_places(
        &mut self,
        class: &Class<'_>,
        number: usize,
        host: &HostRules,
        cell: &mut Cell,
        most: u64,
        settled: &mut Settled,
    ) -> u64 {
        let mut taken = 0;
        let mut skipped = false;
        for position in cell.full..cell.places.len() {
            let index = cell.places[position];
            let place = &mut self.machines[index];
            let fitting = if fits(&class.requests, &place.room) {
                let starting = match place.occupancy.missing(host) {
                    Some(need) if !need.starts || settled.started.contains(&need.group) => None,
                    Some(need) => Some(Some(need.group)),
                    None => Some(None),
                };
                starting.map(|start| (place_takes(class, host, place), start))
            } else {
                None
            };
            let Some((room, start)) = fitting.filter(|(room, _)| *room > 0) else {
                // A place that lacks company may get it; one that is full stays full.
                skipped |= !host.needs.is_empty();
                if !skipped {
                    cell.full = position + 1;
                }
                continue;
            };
            if let Some(group) = start {
                settled.started.insert(group);
            }
            let count = room.min(most - taken);
            self.touch(index);
            let place = &mut self.machines[index];
            for axis in place.occupancy.volumes_to_attach(host).collect::<SmallVec<[u16; 2]>>() {
                let room = &mut place.room[usize::from(axis)];
                *room = room.saturating_sub(1);
            }
            take(&mut place.room, &class.requests, count);
            place.occupancy.add(host, count);
            place.align(&class.spec.aligned, count);
            settled.placed.push(Placed { place: index, class: number, count, choice: cell.choice() });
            taken += count;
            if taken == most {
                break;
            }
        }
        taken
    }
}

/// How many pods of a class a place takes now.
fn place_takes(class: &Class<'_>, host: &HostRules, place: &Place) -> u64 {
    let mut room = std::borrow::Cow::Borrowed(&place.room);
    for axis in place.occupancy.volumes_to_attach(host) {
        let left = &mut room.to_mut()[usize::from(axis)];
        if *left == 0 {
            return 0;
        }
        *left -= 1;
    }
    let most = times(&class.requests, &room).min(place.occupancy.space(host));
    place.numa.as_ref().map_or(most, |numa| numa.times(&class.spec.aligned, most))
}
