//! What there is in the cluster, kept up to date: the reading half of the driver.
//!
//! ```text
//!  API server --list, watch--> stream (one a kind) --wire, slim--> Change --channel--> Store --> Event --> Engine
//! ```
//!
//! The driver owns the [`Observer`] and with it the [`Store`]: one task, no locks. When something changed it is told what is new,
//! hands that to its engine if it leads, and drops it if it follows. To take the lead is to make an engine and have it told
//! everything by [`Observer::replay`]: nothing is missing between that and the next [`Observer::tell`], and nothing comes twice.
//! Events are told one by one and never held together: all of a large cluster's are 200 MB.
//!
//! ```no_run
//! # use assay_core::engine::Engine;
//! # use assay_scheduler::kube::observe::{Observer, ObserverSettings};
//! # async fn example(client: kube::Client, mut engine: Option<Engine>, new_engine: fn() -> Engine, now: assay_core::model::Timestamp)
//! # -> anyhow::Result<()> {
//! let mut observer = Observer::start(&client, ObserverSettings::default(), Box::new(|_| Vec::new()))?;
//! loop {
//!     // Waits until every kind was listed, then until something changes. May be dropped while it waits.
//!     observer.changed().await;
//!     observer.tell(&mut |event| if let Some(engine) = &mut engine { engine.handle(now, event) });
//!     if engine.is_none() /* and now we lead */ {
//!         let mut fresh = new_engine();
//!         observer.replay(&mut |event| fresh.handle(now, event));
//!         engine = Some(fresh);
//!     }
//! }
//! # }
//! ```
//!
//! Memory: a pod's text is cut down while it is parsed ([`slim`]), its spec is kept once for all pods that have the same, and what
//! the engine knows shares both (`bench/results/observe.md`).

mod backoff;
mod health;
mod kind;
#[cfg(test)]
mod mock;
mod object;
mod slim;
mod store;
mod stream;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_core::engine::Event;
use kube::Client;
use rand::SeedableRng;
use rand_pcg::Pcg64Mcg;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::manifest::ManifestError;
use crate::manifest::live;
pub use health::StreamHealth;
pub use kind::Kind;
pub use store::{Problem, Store, TypesOf};
pub use stream::StreamSettings;

/// What is observed, and how.
#[derive(Debug, Clone, Default)]
pub struct ObserverSettings {
    /// The kube-scheduler's configuration, as YAML or JSON, where it spreads pods by default.
    pub scheduler_configuration: Option<String>,
    /// Limits of the streams.
    pub streams: StreamSettings,
    /// Makes waits differ between schedulers.
    pub seed: u64,
}

/// Changes on their way to the store. A page of pods is 500.
const CHANGES_WAITING: usize = 1_024;
/// Parts of lists that are held at once: each is some megabytes, its objects as much again.
const PAGES_AT_ONCE: usize = 3;
/// Changes that are taken in before the driver gets to do something else.
const CHANGES_AT_ONCE: usize = 2_048;

/// The cluster as it is now.
#[derive(Debug)]
pub struct Observer {
    store: Store,
    changes: mpsc::Receiver<store::Change>,
    health: health::Health,
    /// Ends them when it is dropped.
    _streams: JoinSet<()>,
}

impl Observer {
    /// Starts to watch. `types` tells what can be bought, for claims that do not say what they became.
    pub fn start(client: &Client, settings: ObserverSettings, types: TypesOf) -> Result<Self, ManifestError> {
        let configuration = settings.scheduler_configuration.as_deref().map(live::scheduler_configuration);
        let configuration = configuration.transpose()?;
        let is_wanted = |kind: &Kind| configuration.is_some() || !kind.is_for_default_spread();
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(is_wanted).collect();
        let store = Store::new(&kinds, configuration.as_ref(), types)?;
        let (sender, changes) = mpsc::channel(CHANGES_WAITING);
        let pages = Arc::new(Semaphore::new(PAGES_AT_ONCE));
        let health = health::Health::default();
        let mut streams = JoinSet::new();
        for (number, kind) in (0..).zip(kinds) {
            let stream = stream::Stream {
                client: client.clone(),
                kind,
                settings: settings.streams,
                changes: sender.clone(),
                pages: Arc::clone(&pages),
                health: health.clone(),
                random: Pcg64Mcg::seed_from_u64(settings.seed.wrapping_add(number)),
            };
            streams.spawn(stream.run());
        }
        Ok(Self { store, changes, health, _streams: streams })
    }

    /// Waits until there is something to tell: the first time until every kind has been listed. Loses nothing if it is dropped
    /// while it waits.
    pub async fn changed(&mut self) {
        loop {
            let mut new = Vec::new();
            if self.changes.recv_many(&mut new, CHANGES_AT_ONCE).await == 0 {
                // The streams hold senders for as long as this lives.
                return std::future::pending().await;
            }
            let was_synced = self.store.is_synced();
            new.into_iter().for_each(|change| self.store.apply(change));
            if self.store.has_news() || was_synced != self.store.is_synced() {
                return;
            }
        }
    }

    /// Tells what is new since the last time; the first time everything.
    pub fn tell(&mut self, tell: &mut dyn FnMut(Event)) {
        self.store.tell(tell);
    }

    /// Tells everything, to an engine that knows nothing yet; nothing before all is known.
    pub fn replay(&mut self, tell: &mut dyn FnMut(Event)) {
        self.store.replay(tell);
    }

    /// What there is.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Whether the problems of [`Store::problems`] are other than when this was asked last.
    pub fn take_problems_changed(&mut self) -> bool {
        self.store.take_problems_changed()
    }

    /// How the streams are doing.
    #[must_use]
    pub fn health(&self) -> BTreeMap<Kind, StreamHealth> {
        self.health.of_all()
    }
}
