//! Reassignment under constraints, beside what is known to be possible: `make bench-roadef`. Writes `bench/results/roadef.md`.
//!
//! The machine reassignment problem of the ROADEF/EURO challenge 2012 (Google): processes of services move between machines, with
//! spread, dependencies, resources that are held on both sides of a move, and costs of moving. It asks of a search what
//! consolidation asks. What a search gives is judged by a checker of its own ([`checker`]).

mod anneal;
mod checker;
mod model;
mod state;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, ensure};

use self::anneal::anneal;
use self::model::Instance;
use self::state::State;
use crate::cost::archive;
use crate::report;

/// Instances and the best that is known of them.
const KNOWN: [(&str, i64); 5] = [
    ("a1_1", 44_306_501),
    ("a1_2", 777_532_896),
    ("a1_3", 583_005_717),
    ("a1_4", 244_875_200),
    ("a1_5", 727_578_309),
];

/// Searches of an instance, each from a seed of its own, and the proposals of each.
const SEEDS: u64 = 8;
const PROPOSALS: u64 = 50_000_000;
const ARCHIVE: &str = "../../shared/data/roadef2012/roadef2012_a1.tar.gz";

/// The files of the challenge; `None` where they are not there.
fn files() -> anyhow::Result<Option<BTreeMap<String, String>>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(ARCHIVE);
    if !path.exists() {
        eprintln!("{} is not there: the challenge is left out", path.display());
        return Ok(None);
    }
    archive(&path).map(Some)
}

fn instance(files: &BTreeMap<String, String>, name: &str) -> anyhow::Result<Instance> {
    let file = |kind: &str| {
        let name = format!("{kind}_{name}.txt");
        files.get(&name).with_context(|| format!("{name} is not in the archive"))
    };
    Instance::parse(file("model")?, file("assignment")?).with_context(|| name.to_owned())
}

/// What the best search comes to, by the checker.
fn solved(instance: &Instance, proposals: u64, seeds: u64) -> anyhow::Result<i64> {
    let state = State::new(instance);
    let before = checker::cost(instance, &instance.start)?;
    ensure!(before == state.cost, "the search takes the start for {}, the checker for {before}", state.cost);
    let mut best = before;
    for seed in 1..=seeds {
        let assignment = anneal(&state, instance.machines.len(), proposals, seed);
        let cost = checker::cost(instance, &assignment)?;
        let told = state.clone().with(&assignment).cost;
        ensure!(told == cost, "the search takes its answer for {told}, the checker for {cost}");
        best = best.min(cost);
    }
    Ok(best)
}

/// Measures, prints and writes the page.
pub(crate) fn run(only: Option<&str>) -> anyhow::Result<()> {
    let Some(files) = files()? else { return Ok(()) };
    let mut page = String::new();
    writeln!(page, "# Reassignment under constraints\n")?;
    writeln!(
        page,
        "Machine: {}. Command: `make bench-roadef`. Data: `../shared/data/roadef2012`, the instances a1 of the ROADEF/EURO challenge 2012. \
         One thread, the best of {SEEDS} searches of {} million proposals each, all with the same settings; cost by a checker that shares nothing with the search. \
         Best known: proven for a1_1; the others as published after the challenge, not verified here.\n",
        report::machine(),
        PROPOSALS / 1_000_000,
    )?;
    writeln!(page, "| instance | machines | processes | at the start | found | best known | above it | s |")?;
    writeln!(page, "|---|--:|--:|--:|--:|--:|--:|--:|")?;
    for (name, best) in KNOWN.into_iter().filter(|(name, _)| only.is_none_or(|only| name.contains(only))) {
        let instance = instance(&files, name)?;
        let before = checker::cost(&instance, &instance.start)?;
        let started = Instant::now();
        let cost = solved(&instance, PROPOSALS, SEEDS)?;
        let seconds = started.elapsed().as_secs_f64();
        #[allow(clippy::cast_precision_loss)] // percent
        let above = (cost as f64 / best as f64 - 1.0) * 100.0;
        let line = format!(
            "| {name} | {} | {} | {before} | {cost} | {best} | {above:.3} % | {seconds:.1} |",
            instance.machines.len(),
            instance.processes.len()
        );
        eprintln!("{line}");
        writeln!(page, "{line}")?;
    }
    print!("{page}");
    if only.is_none() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("results/roadef.md"), page)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_instance_is_solved_to_the_optimum() {
        let Some(files) = files().unwrap() else { return };
        let instance = instance(&files, "a1_1").unwrap();
        let cost = solved(&instance, 250_000, 16).unwrap();
        assert_eq!(cost, KNOWN[0].1);
    }

    #[test]
    fn search_and_checker_agree_on_every_instance() {
        let Some(files) = files().unwrap() else { return };
        for (name, best) in KNOWN {
            let instance = instance(&files, name).unwrap();
            let cost = solved(&instance, 50_000, 1).unwrap();
            let before = checker::cost(&instance, &instance.start).unwrap();
            assert!(best <= cost && cost < before, "{name}: {cost}");
        }
    }
}
