//! `assay simulate`: plays a scenario in virtual time and prints what happened.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use assay_core::engine::EventKind;
use assay_core::model::Timestamp;
use serde::Serialize;

use super::Answer;
use super::output::{self, API_VERSION, Format};
use super::{narration, profiles};
use crate::sim::{DirectAgents, Entry, Scenario, Summary, World};

/// Arguments of `assay simulate`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  assay simulate docs/examples/scenarios/mismatch.yaml
  assay simulate docs/examples/scenarios/mismatch.yaml --seed 7 -o json
  assay simulate random --seed 7

The whole engine runs, and the agent's real survey of every simulated machine. The same scenario and
seed print the same bytes. `random` is a scenario drawn from the seed. What must never happen is watched
at every step; a simulation in which it does ends with 1. docs/simulate.md describes the file.")]
pub(super) struct Arguments {
    /// Scenario file, or `random`.
    #[arg(value_name = "SCENARIO")]
    scenario: PathBuf,
    /// Seed of everything random, instead of the scenario's.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// What was learned before: a file that --profiles-out wrote.
    #[arg(long, value_name = "FILE")]
    profiles: Option<PathBuf>,
    /// Write what was learned to this file.
    #[arg(long, value_name = "FILE")]
    profiles_out: Option<PathBuf>,
    /// Output form; a table on a terminal, else JSON.
    #[arg(short, long, value_enum, value_name = "FORM")]
    output: Option<Format>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: &'static str,
    kind: &'static str,
    scenario: String,
    seed: u64,
    timeline: Vec<EntryDocument>,
    summary: Summary,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EntryDocument {
    at_seconds: f64,
    object: String,
    #[serde(rename = "type")]
    kind: &'static str,
    reason: String,
    message: String,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let scenario = if arguments.scenario.as_os_str() == "random" {
        Scenario::random(arguments.seed.unwrap_or_default())?
    } else {
        Scenario::read(&arguments.scenario)?
    };
    let profiles = profiles::read(arguments.profiles.as_deref())?;
    for warning in &scenario.manifests.warnings {
        eprintln!("assay: warning: {warning}");
    }
    let format = Format::or_default(arguments.output);
    let name = scenario.name.clone();
    let seed = arguments.seed.unwrap_or(scenario.seed);
    let end = Timestamp(0) + scenario.duration;
    let mut world = World::new(scenario, seed, profiles).context("spec.region")?;
    let mut timeline = Vec::new();
    let mut broken = 0_usize;
    loop {
        let due = world.next_due().filter(|due| *due <= end);
        match due {
            Some(due) => world.advance(due, &mut DirectAgents),
            None => world.conclude(end),
        }
        let entries = world.take_entries();
        broken += entries.iter().filter(|entry| entry.is_failure()).count();
        if format == Format::Table {
            // As it happens: a long simulation shows its progress.
            for entry in &entries {
                writeln!(out, "{}", narration::line(entry))?;
            }
        } else {
            timeline.extend(entries.iter().map(entry_document));
        }
        if due.is_none() {
            break;
        }
    }
    let summary = world.summary(end);
    if let Some(path) = &arguments.profiles_out {
        std::fs::write(path, world.engine().profiles().export()?)
            .with_context(|| path.display().to_string())?;
    }
    if format == Format::Table {
        narration::summary(out, &summary)?;
    } else {
        let document = Document {
            api_version: API_VERSION,
            kind: "Simulation",
            scenario: name,
            seed,
            timeline,
            summary,
        };
        output::document(out, format, &document)?;
    }
    if broken > 0 {
        eprintln!("assay: {broken} things happened that must not; look for Violation");
        return Ok(Answer::No);
    }
    Ok(Answer::Yes)
}

fn entry_document(entry: &Entry) -> EntryDocument {
    #[allow(clippy::cast_precision_loss)] // a year in milliseconds is exact
    let at_seconds = entry.at.0 as f64 / 1000.0;
    EntryDocument {
        at_seconds,
        object: entry.object.clone(),
        kind: if entry.kind == EventKind::Warning { "Warning" } else { "Normal" },
        reason: entry.reason.clone(),
        message: entry.message.clone(),
    }
}
