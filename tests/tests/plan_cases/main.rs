//! The decisions of `tests/plans`: manifests, and the plan that a person expects for them.
//!
//! One file of YAML each, by topic in folders. The last document is of kind `ExpectedPlan`; all before it is what `assay plan`
//! reads. The plan comes out of the program, so that reading, solving, the independent check of the plan and printing are all
//! in it. In an expectation pods of the namespace `default` go without it, and `web-*` stands for all pods whose names
//! begin so. What is not said is free, except where a line below says otherwise.
//!
//! | field | says |
//! |---|---|
//! | `pending` | why this does not hold yet: the case is listed, and fails once it *does* hold |
//! | `catalog` | what can be bought: a name (`catalogs/NAME.json`), `azure:REGION`, or a catalogue; `general` where not given |
//! | `arguments` | more arguments for `assay plan` |
//! | `schedulerConfig`, `profiles` | documents for `--scheduler-config` and `--profiles` |
//! | `refused` | the input is refused with exit code 2 and one line that holds these texts |
//! | `machines` | all machines that are bought, each by some fields of `nodeClaims`; see [`expected`] |
//! | `nodes` | how many machines are bought, a list being a choice; 0 where neither this nor `machines` is given |
//! | `existing` | all nodes and machines on their way that get pods: their pods, or how many |
//! | `leftOut` | all pods that are left out, with their reasons, see [`expected::LeftOut`] |
//! | `pods` | facts of the machine that a pod is on: `zone`, `instanceType`, `capacityType`, `pool`, `node`, or any label |
//! | `together`, `apart` | lists of pods on one machine, lists of pods on a machine each |
//! | `spread` | `{pods, by, counts}`: how many pods per value of a label, by value or in any order |
//! | `price` | `totals.pricePerHour` |
//! | `warnings` | texts on standard error |

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

mod expected;
mod judge;
mod large;
mod outcome;

use std::path::Path;

use assay_tests::cases::cases;
use assay_tests::programs;
use serde::Deserialize;
use serde_json::Value;

use crate::expected::ExpectedPlan;
use crate::outcome::Outcome;

/// Where a case and the plan differ; none where all holds.
fn differences(case: &Path, directory: &Path) -> (Option<String>, Vec<String>) {
    let text = std::fs::read_to_string(case).unwrap();
    let (manifests, expected) = text.rsplit_once("\n---\n").expect("a document with what is expected");
    let expected: ExpectedPlan = match serde_yaml_ng::from_str(expected) {
        Ok(expected) => expected,
        Err(error) => return (None, vec![format!("the expectation cannot be read: {error}")]),
    };
    let scratch = tempfile::tempdir().unwrap();
    let written = |name: &str, value: &Value| {
        let path = scratch.path().join(name);
        std::fs::write(&path, value.to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let catalog = match &expected.catalog {
        Value::String(region) if region.starts_with("azure:") => region.clone(),
        Value::String(name) => directory.join(format!("catalogs/{name}.json")).to_str().unwrap().to_owned(),
        inline => written("catalog.json", inline),
    };
    let mut arguments = ["plan", "-f", "-", "-o", "json"].map(str::to_owned).to_vec();
    arguments.push(format!("--catalog={catalog}"));
    let documents = [("--scheduler-config", &expected.scheduler_config), ("--profiles", &expected.profiles)];
    for (flag, value) in documents {
        if let Some(value) = value {
            arguments.push(format!("{flag}={}", written(&format!("{flag}.json"), value)));
        }
    }
    arguments.extend(expected.arguments.iter().cloned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = programs::assay(&arguments, manifests).expect("assay runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();

    let found = if expected.refused.is_empty() {
        if output.status.success() {
            let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
            let catalog = std::fs::read_to_string(&catalog).ok();
            let catalog = catalog.map_or(Value::Null, |text| serde_json::from_str(&text).unwrap());
            let outcome = Outcome::new(plan, &documents_of(manifests), &catalog);
            judge::differences(&expected, &outcome, &said)
        } else {
            vec![format!("{}: {said}", output.status)]
        }
    } else {
        judge::refusal(&expected.refused, output.status.code(), &said)
    };
    (expected.pending, found)
}

/// The objects of a case, lists unfolded. Documents that are no YAML are passed over: those are for `assay` to refuse.
fn documents_of(manifests: &str) -> Vec<Value> {
    let mut objects = Vec::new();
    for document in serde_yaml_ng::Deserializer::from_str(manifests) {
        let Ok(mut value) = serde_yaml_ng::Value::deserialize(document) else { continue };
        if value.apply_merge().is_err() {
            continue;
        }
        let Ok(value) = serde_json::to_value(value) else { continue };
        match value.get("items").and_then(Value::as_array) {
            Some(items) => objects.extend(items.iter().cloned()),
            None => objects.push(value),
        }
    }
    objects
}

/// `ASSAY_CASE=spread/` runs the cases whose path holds that.
#[test]
fn plans_are_what_a_person_expects() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let cases = cases(&directory).unwrap();
    assert!(!cases.is_empty());
    let (mut wrong, mut pending) = (Vec::new(), 0);
    for case in &cases {
        let name = case.strip_prefix(&directory).unwrap().display();
        match differences(case, &directory) {
            (None, found) if found.is_empty() => {}
            (None, found) => wrong.push(format!("{name}:\n  {}", found.join("\n  "))),
            (Some(reason), found) if found.is_empty() => {
                wrong.push(format!("{name}: holds now, so it is not pending: {reason}"));
            }
            (Some(reason), found) => {
                pending += 1;
                println!("pending {name}: {reason}\n  {}", found.join("\n  "));
            }
        }
    }
    println!("{} cases, {pending} pending, {} wrong", cases.len(), wrong.len());
    assert!(wrong.is_empty(), "{} cases are wrong\n{}", wrong.len(), wrong.join("\n"));
}
