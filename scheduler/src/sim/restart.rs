//! The scheduler's death and return: an engine is dropped wherever it is, and a new one is fed with what the cluster and the
//! cloud have.

use std::sync::Arc;
use std::time::Duration;

use assay_core::catalog::Catalog;
use assay_core::engine::{Engine, Event, Settings};
use assay_core::model::{NodeClass, Timestamp};
use assay_core::profile::ProfileStore;
use rand::Rng;

use super::scenario::Scenario;
use super::world::{Action, World};

/// How long the scheduler is down at most, in seconds.
const DOWN_SECONDS: u64 = 20;
/// From the scheduler's return to the return of the agents.
const AGENTS_RETURN: Duration = Duration::from_secs(2);

/// An engine that knows the pools and classes of a scenario and nothing of the cluster.
pub(super) fn engine(
    scenario: &Scenario,
    catalog: Catalog,
    seed: u64,
    profiles: ProfileStore,
    now: Timestamp,
) -> Engine {
    let settings = Settings { seed, ..Settings::default() };
    let mut engine = Engine::new(settings, Box::new(catalog), profiles);
    let manifests = &scenario.manifests;
    for class in &manifests.classes {
        engine.handle(now, Event::ClassApplied(Box::new(class.clone())));
    }
    for pool in &manifests.pools {
        if !manifests.classes.iter().any(|class| class.name == pool.node_class) {
            let class = NodeClass::with_defaults(&pool.node_class);
            engine.handle(now, Event::ClassApplied(Box::new(class)));
        }
    }
    for pool in &manifests.pools {
        engine.handle(now, Event::PoolApplied(Box::new(pool.clone())));
    }
    engine
}

impl World {
    /// Whether chance kills the scheduler now.
    pub(super) fn dies(&mut self, now: Timestamp) -> bool {
        let rate = self.scenario.restart_rate;
        if self.back_at.is_none() && rate > 0.0 && self.crashes.random_bool(rate) {
            self.crash(now);
        }
        self.back_at.is_some()
    }

    /// The scheduler dies: what it had not said yet is never said, what is answered now is heard by nobody.
    pub(super) fn crash(&mut self, now: Timestamp) {
        if self.back_at.is_some() {
            return;
        }
        let down = Duration::from_secs(self.crashes.random_range(1..=DOWN_SECONDS));
        self.note(now, "Scheduler".to_owned(), "Died", format!("back in {} s", down.as_secs()));
        self.back_at = Some(now + down);
        self.run += 1;
    }

    /// A new engine takes over: what was learned is read back, and everything there is is handed over.
    pub(super) fn come_back(&mut self, now: Timestamp) {
        self.back_at = None;
        self.waiting.clear();
        self.watch.forget_unsaid();
        let world = now;
        let now = self.clock(now);
        self.earlier += self.engine.stats();
        let spent = self.spent_earlier + self.engine.cost(now);
        // Names differ from run to run.
        let seed = self.seed.wrapping_add(self.run << 32);
        let profiles = self.engine.profiles().clone();
        self.engine = engine(&self.scenario, self.catalog.clone(), seed, profiles, now);
        self.cluster.take_events();
        for event in self.cluster.everything() {
            self.engine.handle(now, event);
        }
        self.spent_earlier = spent - self.engine.cost(now);
        let up: Vec<_> =
            self.vms.iter().filter(|(_, vm)| vm.is_up).map(|(node, _)| Arc::clone(node)).collect();
        for node in up {
            self.schedule(world + AGENTS_RETURN, Action::AgentReconnects { node, run: self.run });
        }
        self.note(world, "Scheduler".to_owned(), "Returned", format!("run {}", self.run));
    }
}
