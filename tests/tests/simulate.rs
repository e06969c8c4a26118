//! The whole loop in virtual time: the engine, a cloud that does not keep its word, and the agent's real survey.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::path::PathBuf;

use assay_core::model::Timestamp;
use assay_core::profile::ProfileStore;
use assay_scheduler::sim::{DirectAgents, Entry, Scenario, Summary, World};
use assay_tests::programs;

fn assay(arguments: &[&str]) -> std::process::Output {
    programs::assay(arguments, "").expect("assay runs")
}

fn example() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples/scenarios/mismatch.yaml"))
}

/// Plays a scenario to its end.
fn play(scenario: Scenario, seed: u64) -> (Vec<Entry>, Summary, World) {
    let end = Timestamp(0) + scenario.duration;
    let mut world = World::new(scenario, seed, ProfileStore::new()).unwrap();
    let mut entries = Vec::new();
    while let Some(due) = world.next_due().filter(|due| *due <= end) {
        world.advance(due, &mut DirectAgents);
        entries.extend(world.take_entries());
    }
    let summary = world.summary(end);
    (entries, summary, world)
}

#[test]
fn machines_that_are_less_than_bought_are_found_and_replaced_and_empty_ones_go() {
    let (entries, summary, world) = play(Scenario::read(&example()).unwrap(), 1);
    assert_eq!(summary.mismatches.get("GPUsMissing"), Some(&1));
    assert_eq!(summary.mismatches.get("MemoryMissing"), Some(&1));
    assert_eq!(summary.released.get("WrongHardware"), Some(&2));
    assert!(summary.learned_purchases > 0, "what was measured changes what is bought");
    assert!(summary.labels_refined > 0);
    assert_eq!((summary.pods_running, summary.pods_pending), (20, 0));
    for node in world.cluster().nodes() {
        assert_eq!(node.label("hardware.assay.dev/verified"), Some("true"), "{}", node.name);
    }
    assert!(!entries.iter().any(|entry| entry.reason == "Restless" || entry.reason == "PlanRefused"));
}

#[test]
fn the_same_seed_gives_the_same_bytes_and_another_seed_others() {
    let run = |seed: &str| {
        let path = example().display().to_string();
        let output = assay(&["simulate", &path, "--seed", seed, "-o", "json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let first = run("3");
    assert_eq!(first, run("3"));
    assert_ne!(first, run("4"));
}

/// Seeds, each with a cloud that refuses a tenth of all requests and gives one machine in ten with a defect.
const SEEDS: u64 = 12;

#[test]
fn whatever_the_seed_every_pod_runs_in_the_end_and_no_machine_is_left_without_owner() {
    let text = std::fs::read_to_string(example()).unwrap();
    let text = text.replace("failureRate: 0.02", "failureRate: 0.1\n    defectRates: {lessMemory: 0.1}");
    // The last step takes everything away, so that whatever is left afterwards is a leak.
    let text = text.replace(
        "{at: 20m, scale: {web: 20, cache: 0, train: 0}}",
        "{at: 30m, scale: {web: 0, cache: 0, train: 0}}",
    );
    for seed in 0..SEEDS {
        let scenario = Scenario::parse("scenario.yaml", &text).unwrap();
        let end = Timestamp(0) + scenario.duration;
        let mut world = World::new(scenario, seed, ProfileStore::new()).unwrap();
        let before_last = Timestamp(29 * 60 * 1000);
        let mut checked = false;
        while let Some(due) = world.next_due().filter(|due| *due <= end) {
            if due > before_last && !checked {
                checked = true;
                assert_eq!(world.cluster().pending(), 0, "seed {seed}: pods wait long after they came");
            }
            world.advance(due, &mut DirectAgents);
        }
        let summary = world.summary(end);
        assert!(checked);
        assert_eq!(summary.nodes, 0, "seed {seed}: {:?}", summary);
        assert!(world.engine().machines().is_empty(), "seed {seed}: machines without node");
        assert_eq!(world.engine().stats().plans_refused, 0, "seed {seed}");
    }
}

#[test]
fn a_wrong_scenario_is_one_line_and_exit_2() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("scenario.yaml");
    for (text, expected) in [
        ("[]", "expected an object, found a list"),
        ("kind: Pod", "missing field `apiVersion`"),
        (
            "apiVersion: assay.dev/v1alpha1\nkind: Scenario\nmetadata: {name: x}\nspec: {duration: 1m, region: atlantis}",
            "spec.region: ",
        ),
    ] {
        std::fs::write(&path, text).unwrap();
        let output = assay(&["simulate", &path.display().to_string()]);
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{line}");
        assert!(line.contains(expected) && line.trim_end().lines().count() == 1, "{line}");
    }
    assert_eq!(assay(&["simulate", "/does/not/exist"]).status.code(), Some(2));
}
