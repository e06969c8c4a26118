//! Machines by what a pass may have to do about them, so that it looks at these and not at all there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::holdings::Held;
use super::{Engine, Machine};
use crate::model::ClaimState;

/// Names of claims. What the sets say holds after [`Engine::sort_out`]; the machine has the last word.
#[derive(Debug, Default)]
pub(super) struct Roll {
    /// Not ready for pods yet.
    pub(super) starting: BTreeSet<Arc<str>>,
    /// Without a node so far.
    pub(super) nodeless: BTreeSet<Arc<str>>,
    /// The node they had is not to be found.
    pub(super) missing: BTreeSet<Arc<str>>,
    /// The fast path of their network is off.
    pub(super) slow: BTreeSet<Arc<str>>,
    /// To go; their end has not begun.
    pub(super) leaving: BTreeSet<Arc<str>>,
    /// Their end has begun.
    pub(super) ending: BTreeSet<Arc<str>>,
    /// Changed since it was last asked how long pods have left them alone.
    pub(super) to_weigh: BTreeSet<Arc<str>>,
    /// Nodes that are no machine's.
    pub(super) unclaimed: BTreeSet<Arc<str>>,
    standings: BTreeMap<Arc<str>, (String, Standing)>,
    tallies: BTreeMap<String, Tally>,
}

/// What a machine counts as among those of its pool.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Standing {
    counts: bool,
    going: bool,
    leaving: bool,
}

/// The machines of a pool, as budgets count them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tally {
    total: u64,
    going: u64,
    going_or_leaving: u64,
}

impl Standing {
    fn of(machine: &Machine, ready: bool) -> Self {
        if machine.claim.node.is_none() {
            return Self::default();
        }
        let in_service = machine.claim.state == ClaimState::Initialized;
        Self {
            counts: in_service || machine.is_ending(),
            going: machine.is_ending() || in_service && !ready,
            leaving: machine.leaving.is_some(),
        }
    }
}

impl Tally {
    fn count(&mut self, one: Standing, more: bool) {
        let step = |held: &mut u64, counts: bool| {
            *held = if more { *held + u64::from(counts) } else { held.saturating_sub(u64::from(counts)) };
        };
        step(&mut self.total, one.counts);
        step(&mut self.going, one.going);
        step(&mut self.going_or_leaving, one.going || one.leaving);
    }
}

/// A machine and what the sets depend on beside it.
struct Entry<'e> {
    machine: &'e Machine,
    /// Whether its node is there and ready.
    ready: bool,
}

impl Roll {
    fn enter(&mut self, name: &Arc<str>, entry: Option<&Entry<'_>>) {
        let is = |test: &dyn Fn(&Machine) -> bool| entry.is_some_and(|entry| test(entry.machine));
        let keep = |set: &mut BTreeSet<Arc<str>>, kept: bool| {
            if !kept {
                set.remove(name);
            } else if !set.contains(name) {
                set.insert(Arc::clone(name));
            }
        };
        keep(&mut self.starting, is(&|machine| machine.claim.state < ClaimState::Initialized));
        keep(&mut self.nodeless, is(&|machine| machine.claim.node.is_none()));
        keep(&mut self.missing, is(&|machine| machine.missing_since.is_some()));
        keep(&mut self.slow, is(&|machine| machine.network_inactive_since.is_some()));
        keep(&mut self.leaving, is(&|machine| machine.leaving.is_some() && !machine.is_ending()));
        keep(&mut self.ending, is(&|machine| machine.ending.is_some()));
        keep(&mut self.to_weigh, entry.is_some());
        let next = entry.map(|entry| (&entry.machine.claim.pool, Standing::of(entry.machine, entry.ready)));
        let before = self.standings.get(name);
        if before.map(|(pool, standing)| (pool, *standing)) == next {
            return;
        }
        if let Some((pool, standing)) = self.standings.remove(name) {
            self.tallies.entry(pool).or_default().count(standing, false);
        }
        if let Some((pool, standing)) = next {
            self.tallies.entry(pool.clone()).or_default().count(standing, true);
            self.standings.insert(Arc::clone(name), (pool.clone(), standing));
        }
    }

    /// How many machines of a pool there are for its budgets, and how many of them are on their way out or not ready; `leaving`
    /// says whether those count that only wait for places. `asking` is not among the latter.
    pub(super) fn going(&self, pool: &str, leaving: bool, asking: &str) -> (u64, u64) {
        let tally = self.tallies.get(pool).copied().unwrap_or_default();
        let own = self.standings.get(asking).filter(|(of, _)| of == pool).map(|(_, standing)| *standing);
        let own = own.is_some_and(|own| own.going || leaving && own.leaving);
        let going = if leaving { tally.going_or_leaving } else { tally.going };
        (tally.total, going.saturating_sub(u64::from(own)))
    }
}

impl Engine {
    /// Enters what changed.
    pub(super) fn sort_out(&mut self) {
        let settled = self.machines.is_settled() && self.nodes.is_settled();
        if settled && self.pods.is_settled() && self.nominations.is_settled() {
            return;
        }
        let nodes = self.nodes.take_changed();
        let mut claims = self.machines.take_changed();
        claims.extend(nodes.iter().filter_map(|node| self.claim_on(node)));
        for node in &nodes {
            if self.nodes.contains_key(node) && !self.claim_by_node.contains_key(node) {
                self.roll.unclaimed.insert(Arc::clone(node));
            } else {
                self.roll.unclaimed.remove(node);
            }
        }
        let (mut pods, nodes_of_pods) = self.pods.take_changed();
        let (nominated, targets) = self.nominations.take_changed();
        let needed_otherwise = nodes_of_pods.iter().filter_map(|node| self.claim_on(node)).chain(targets);
        let needed_otherwise: BTreeSet<Arc<str>> = needed_otherwise.collect();
        for name in claims.union(&needed_otherwise) {
            let held = self.machines.get(name).map(|machine| {
                let node = machine.claim.node.as_ref().and_then(|node| self.nodes.get(node));
                Held {
                    pool: machine.claim.pool.clone(),
                    class: machine.claim.node_class.clone(),
                    capacity: node.map_or(&machine.claim.capacity, |node| &node.capacity).clone(),
                }
            });
            self.holdings.enter(name, held);
            let entry = self.machines.get(name).map(|machine| {
                let node = machine.claim.node.as_ref();
                let ready = node.and_then(|node| self.nodes.get(node)).is_some_and(|node| node.ready);
                Entry { machine, ready }
            });
            self.roll.enter(name, entry.as_ref());
        }
        pods.extend(nominated);
        self.picture.note(claims, nodes, pods);
    }

    /// Has every machine held against its pool again: it has changed.
    pub(super) fn look_at_all(&mut self) {
        self.roll.to_weigh.extend(self.machines.keys().cloned());
        self.disruption.changed();
    }
}
