//! The driver: one loop in which the engine hears what happened, decides, and has it carried out.
//!
//! ```text
//!  observer (cluster) ----\
//!  fleet (reports) --------+--> Driver: Engine::handle, Engine::advance --> writer --> API server, cloud
//!  writer, cloud (answers)-/        ^
//!  lease (leads or follows) --------+
//! ```
//!
//! Whoever takes the lead makes a new engine and hands it everything that is known: a failover is a restart, and a restart is
//! no special case. Whoever follows keeps the observer's store and the reports of agents, and decides nothing.
//!
//! The engine is what takes time, so the loop runs on a thread of its own; watches, links and writes go on beside it.

mod catch_up;
mod classes;
mod clock;
mod counted;
mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use assay_core::engine::{Effect, Engine, Event, Instance};
use assay_core::model::PodId;
use assay_core::profile::ProfileStore;
use kube::Client;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::{info, warn};

use super::lease::Leadership;
use super::observe::{Kind, Observer};
use super::write::{Gate, Writer};
use crate::cloud::Cloud;
use crate::fleet::FleetEvent;
use crate::web::{Condition, Health, Metrics};
use clock::Clock;
use counted::Counted;
use records::{Record, RecordWriter, Records, Reported};

/// How often the cloud is asked for all VMs (Karpenter's garbage collection).
const INSTANCES_EVERY: Duration = Duration::from_secs(120);
/// How often what is on record is compared with what is known.
const RECORDS_EVERY: Duration = Duration::from_secs(1);
/// With nothing due, the loop turns this often.
const IDLE: Duration = Duration::from_secs(30);

/// Makes an engine that knows nothing of the cluster yet.
pub type MakeEngine = Box<dyn Fn(ProfileStore) -> Engine + Send>;

/// What the driver is made of.
pub struct Parts {
    /// Client for what the driver writes itself.
    pub client: Client,
    /// What happens in the cluster.
    pub observer: Observer,
    /// What agents tell.
    pub fleet: mpsc::Receiver<FleetEvent>,
    /// What comes of writes.
    pub answers: mpsc::Receiver<Event>,
    /// Where the cloud's lists are answered to.
    pub answer: mpsc::Sender<Event>,
    /// Whether this scheduler decides.
    pub leadership: watch::Receiver<Leadership>,
    /// What carries effects out.
    pub writer: Writer,
    /// Where VMs come from.
    pub cloud: Arc<dyn Cloud>,
    /// Makes engines.
    pub make: MakeEngine,
    /// Whether the loop lives.
    pub health: Health,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// The driver.
pub struct Driver {
    parts: Parts,
    clock: Clock,
    engine: Option<Led>,
    reports: BTreeMap<Arc<str>, Reported>,
    records: Records,
    counted: Counted,
    /// Problems of objects that were counted.
    unreadable: BTreeSet<(Kind, PodId)>,
    /// Records that are being written.
    writing: Option<JoinHandle<Vec<Record>>>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("leads", &self.engine.is_some()).finish_non_exhaustive()
    }
}

/// The engine of a term.
struct Led {
    term: u64,
    engine: Engine,
}

impl Driver {
    /// A driver that has not begun.
    pub async fn new(parts: Parts) -> Self {
        let clock = Clock::of_server(&parts.client).await;
        Self {
            parts,
            clock,
            engine: None,
            reports: BTreeMap::new(),
            records: Records::default(),
            counted: Counted::default(),
            unreadable: BTreeSet::new(),
            writing: None,
        }
    }

    /// Runs until `stop` turns true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut instances = interval(INSTANCES_EVERY);
        let mut records = interval(RECORDS_EVERY);
        for timer in [&mut instances, &mut records] {
            timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        while !*stop.borrow() {
            let due = self.engine.as_ref().and_then(|led| led.engine.next_wakeup());
            let until = due.map_or_else(|| Instant::now() + IDLE, |at| self.clock.instant(at));
            tokio::select! {
                () = self.parts.observer.changed() => self.observed(),
                Some(event) = self.parts.fleet.recv() => self.fleet(event),
                Some(answer) = self.parts.answers.recv() => self.answered(answer),
                changed = self.parts.leadership.changed() => if changed.is_err() { break },
                _ = instances.tick() => self.list_instances(),
                _ = records.tick() => self.write_records().await,
                () = sleep_until(until) => {}
                _ = stop.changed() => {}
            }
            // Everything at hand is one decision.
            while let Ok(event) = self.parts.fleet.try_recv() {
                self.fleet(event);
            }
            while let Ok(answer) = self.parts.answers.try_recv() {
                self.answered(answer);
            }
            self.lead_or_follow().await;
            self.decide();
            self.parts.health.turned();
        }
    }

    /// Makes or drops the engine as the lease says.
    async fn lead_or_follow(&mut self) {
        let synced = self.parts.observer.store().is_synced();
        self.parts.health.set(Condition::CachesSynced, synced);
        self.parts.metrics.synced(synced);
        let term = self.parts.leadership.borrow().term(Instant::now());
        if self.engine.as_ref().map(|led| led.term) == term {
            return;
        }
        if self.engine.take().is_some() {
            self.parts.metrics.leads(false);
            warn!("decides no more");
        }
        let Some(term) = term.filter(|_| synced) else { return };
        if !self.catch_up(term).await {
            return;
        }
        // Nothing that an earlier term left at hand is true for sure.
        self.clock = Clock::of_server(&self.parts.client).await;
        self.records = Records::default();
        self.counted = Counted::default();
        self.writing = None;
        let Some(profiles) = self.record_writer().profiles(term).await else { return };
        let mut engine = (self.parts.make)(profiles);
        let now = self.clock.now();
        while self.parts.answers.try_recv().is_ok() {}
        let mut count = 0_usize;
        self.parts.observer.replay(&mut |event| {
            count += 1;
            engine.handle(now, event);
        });
        for (node, reported) in &self.reports {
            self.records.touch_node(node);
            engine.handle(now, Event::AgentConnected { node: Arc::clone(node) });
            let report = Arc::clone(&reported.report);
            engine.handle(now, Event::Report { node: Arc::clone(node), report });
        }
        self.parts.metrics.leads(true);
        info!(term, objects = count, reports = self.reports.len(), "decides");
        self.engine = Some(Led { term, engine });
        self.list_instances();
    }

    fn observed(&mut self) {
        let Self { parts, clock, engine, reports, records, counted, .. } = self;
        let (now, writer) = (clock.now(), &mut parts.writer);
        let metrics = &parts.metrics;
        parts.observer.tell(&mut |event| {
            match &event {
                Event::NodeDeleted(node) => {
                    writer.forget_node(node);
                    records.forget_node(node);
                    reports.remove(node);
                }
                Event::NodeApplied(node) => records.touch_node(&node.name),
                Event::PoolDeleted(pool) => writer.forget_pool(pool),
                _ => {}
            }
            if let Some(led) = engine {
                counted.heard(metrics, &event, &led.engine, now);
                led.engine.handle(now, event);
            }
        });
    }

    fn fleet(&mut self, event: FleetEvent) {
        let now = self.clock.now();
        if let FleetEvent::Report { node, report, .. } = &event {
            let reported = Reported { report: Arc::clone(report), at: now };
            let node: Arc<str> = node.as_str().into();
            self.records.touch_node(&node);
            self.reports.insert(node, reported);
        }
        self.hear(event.into());
    }

    fn answered(&mut self, answer: Event) {
        self.hear(answer);
    }

    /// Tells the engine, where there is one.
    fn hear(&mut self, event: Event) {
        let now = self.clock.now();
        if let Some(led) = &mut self.engine {
            self.counted.heard(&self.parts.metrics, &event, &led.engine, now);
            led.engine.handle(now, event);
        }
    }

    fn decide(&mut self) {
        let Some(led) = &mut self.engine else { return };
        let now = self.clock.now();
        let begin = std::time::Instant::now();
        self.parts.metrics.works(true);
        let effects = led.engine.advance(now);
        self.parts.metrics.works(false);
        self.counted.turned(&self.parts.metrics, &led.engine, begin.elapsed());
        for effect in effects {
            self.counted.said(&self.parts.metrics, &effect, &led.engine, now);
            if let Effect::ReleaseClaim { node: Some(node), .. } = &effect {
                self.reports.remove(node);
            }
            if let Effect::LabelNode { node, .. } = &effect {
                self.records.touch_node(node);
            }
            self.parts.writer.carry_out(led.term, now, effect, &led.engine);
        }
        if self.parts.metrics.wants_sample() {
            self.parts.metrics.sample(counted::sample(&mut led.engine, &self.counted, now));
        }
    }

    /// Asks the cloud which VMs there are; the answer comes as an event.
    fn list_instances(&self) {
        if self.engine.is_none() {
            return;
        }
        let (cloud, answer, asked) =
            (Arc::clone(&self.parts.cloud), self.parts.answer.clone(), self.clock.now());
        tokio::spawn(async move {
            match cloud.list().await {
                Ok(vms) => {
                    let instance = |vm: crate::cloud::Instance| Instance {
                        claim: vm.claim,
                        provider_id: vm.provider_id,
                        created: vm.created,
                    };
                    let instances = vms.into_iter().map(instance).collect();
                    let _ = answer.send(Event::InstancesListed { asked, instances }).await;
                }
                Err(error) => warn!(%error, "the cloud does not list its VMs"),
            }
        });
    }

    fn record_writer(&self) -> RecordWriter {
        RecordWriter {
            client: self.parts.client.clone(),
            gate: Gate::new(self.parts.leadership.clone()),
            cloud: Arc::clone(&self.parts.cloud),
            told: Arc::clone(self.parts.writer.told()),
        }
    }

    /// Counts objects that cannot be understood, each once for as long as it cannot.
    fn count_unreadable(&mut self) {
        let metrics = &self.parts.metrics;
        let problems = self.parts.observer.store().problems().filter(|problem| problem.is_error);
        let now: BTreeSet<_> = problems.map(|problem| (problem.kind, problem.id.clone())).collect();
        for (kind, _) in now.difference(&self.unreadable) {
            metrics.object_unreadable(kind.name());
        }
        let pods = now.iter().filter(|(kind, _)| *kind == Kind::Pod).count();
        metrics.ignored(u32::try_from(pods).unwrap_or(u32::MAX));
        self.unreadable = now;
    }

    /// Puts on record what has changed, beside the loop.
    async fn write_records(&mut self) {
        if self.parts.observer.take_problems_changed() {
            self.count_unreadable();
        }
        if let Some(writing) = self.writing.take_if(|writing| writing.is_finished()) {
            for written in writing.await.unwrap_or_default() {
                self.records.note(written, self.clock.now());
            }
        }
        let Some(led) = self.engine.as_ref().filter(|_| self.writing.is_none()) else { return };
        let due = self.records.due(&led.engine, &self.reports, self.clock.now());
        if !due.is_empty() {
            self.writing = Some(tokio::spawn(self.record_writer().write(led.term, due, self.clock.now())));
        }
    }
}
