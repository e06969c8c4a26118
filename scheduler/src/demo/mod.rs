//! `assay demo`: the whole loop on one machine, without a cluster and without a cloud account.
//!
//! ```text
//!  this machine --assay-agent run-----\
//!  simulated VMs --the agent's link----+--QUIC on loopback--> fleet server --> world (engine, cloud, cluster)
//! ```
//!
//! The world is the simulator's, driven by the wall clock at a multiple of its speed; every report comes over a real QUIC
//! connection with a real client certificate.

mod clock;
mod fleet;
mod local;
mod narrate;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use assay_core::model::Timestamp;
use assay_core::profile::ProfileStore;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::sim::{Scenario, Summary, World};
use clock::Clock;
use fleet::DemoFleet;
use local::LocalAgent;
use narrate::Narrator;

/// What the demo plays.
const SCENARIO: &str = include_str!("scenario.yaml");
/// Fleet events that wait for the world; more slow their agents down.
const EVENTS_WAITING: usize = 1024;
/// How often the status line is drawn anew.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// With nothing due, the world is looked at this often.
const IDLE: Duration = Duration::from_secs(1);

/// How the demo is played.
#[derive(Debug, Clone)]
pub struct Options {
    /// Seconds of the world in one second of the clock.
    pub speed: u32,
    /// Seed of everything random, instead of the scenario's.
    pub seed: Option<u64>,
    /// Stay until interrupted.
    pub keep: bool,
    /// The agent's program, for this machine to join; it stays out where there is none.
    pub agent: Option<PathBuf>,
}

/// Plays the demo and tells `out` what happens; returns once it is over or interrupted.
///
/// # Errors
/// Where no socket or directory can be had, or the output is gone.
pub fn run(options: &Options, out: &mut dyn Write) -> anyhow::Result<Summary> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let summary = runtime.block_on(play(options, out));
    runtime.shutdown_timeout(Duration::from_secs(1));
    summary
}

async fn play(options: &Options, out: &mut dyn Write) -> anyhow::Result<Summary> {
    let scenario = Scenario::parse("the demo's scenario", SCENARIO)?;
    let end = Timestamp(0) + scenario.duration;
    let seed = options.seed.unwrap_or(scenario.seed);
    let (sender, mut reports) = mpsc::channel(EVENTS_WAITING);
    let mut fleet = DemoFleet::start(sender).context("start the fleet server")?;
    let mut world = World::new(scenario, seed, ProfileStore::new()).context("catalogue")?;
    let mut narrator = Narrator::new(std::io::stdout().is_terminal());
    narrator.opening(out, &fleet, options)?;
    let clock = Clock::start(options.speed);

    let local = match &options.agent {
        Some(program) => Some(LocalAgent::start(program, &fleet)?),
        None => None,
    };
    if local.is_some() {
        world.join(clock.now(), local::node(clock.now()));
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut status = tokio::time::interval(STATUS_INTERVAL);
    let ended_at = loop {
        let now = clock.now();
        if now >= end && !options.keep {
            break end;
        }
        let until = [world.next_due(), (now < end).then_some(end)].into_iter().flatten().min();
        let until = until.map_or_else(|| Instant::now() + IDLE, |at| clock.instant(at));
        tokio::select! {
            () = sleep_until(until) => {}
            report = reports.recv() => {
                let mut next = report;
                // Everything at hand is one decision.
                while let Some(event) = next {
                    let now = clock.now();
                    narrator.fleet_event(now, &event, &world, out)?;
                    world.deliver(now, event.into());
                    next = reports.try_recv().ok();
                }
            }
            _ = status.tick() => {}
            _ = interrupt.recv() => break clock.now(),
            // As politely: the agent of this machine must not outlive the demo.
            _ = terminate.recv() => break clock.now(),
        }
        world.advance(clock.now(), &mut fleet);
        let entries = world.take_entries();
        narrator.entries(&entries, out)?;
        narrator.status(&world.summary(clock.now()), fleet.connected(), out)?;
    };
    narrator.clear_status(out)?;
    let summary = world.summary(ended_at);
    let counters = fleet.stop().await;
    drop(local);
    narrator.closing(out, &summary, &counters)?;
    Ok(summary)
}
