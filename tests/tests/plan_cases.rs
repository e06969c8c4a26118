//! The decisions of `tests/plans`: manifests, and the plan that a person expects for them.
//!
//! Each case ends with a document of kind `ExpectedPlan`. Of machines it names what matters to the case; everything else of the
//! plan is free, but there are no other machines, no other nodes with pods and no other pods left out.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::collections::BTreeMap;
use std::path::Path;

use assay_tests::programs;
use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExpectedPlan {
    #[serde(rename = "kind")]
    _kind: String,
    /// Fields of `nodeClaims`.
    #[serde(default)]
    machines: Vec<Map<String, Value>>,
    /// Pods by node.
    #[serde(default)]
    existing: BTreeMap<String, Vec<String>>,
    /// `pool reason` by pod.
    #[serde(default)]
    left_out: BTreeMap<String, Vec<String>>,
}

fn check(case: &Path) {
    let text = std::fs::read_to_string(case).unwrap();
    let (manifests, expected) = text.rsplit_once("\n---\n").expect("a document with what is expected");
    let expected: ExpectedPlan = serde_yaml_ng::from_str(expected).unwrap();
    let catalog = case.with_file_name("catalog.json");
    let output = programs::assay(
        &["plan", "-f", "-", "--catalog", catalog.to_str().unwrap(), "-o", "json"],
        manifests,
    );
    let output = output.expect("assay runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();

    let mut machines = plan["nodeClaims"].as_array().unwrap().clone();
    for expected in &expected.machines {
        let found = machines.iter().position(|machine| {
            expected.iter().all(|(field, value)| {
                let is_list = value.is_array();
                if is_list { sorted(&machine[field]) == sorted(value) } else { machine[field] == *value }
            })
        });
        let found = found.unwrap_or_else(|| panic!("no machine {expected:?} in {machines:#?}"));
        machines.remove(found);
    }
    assert!(machines.is_empty(), "nobody expects {machines:#?}");

    let existing: BTreeMap<String, Vec<String>> = plan["existingNodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| (node["name"].as_str().unwrap().to_owned(), sorted(&node["pods"])))
        .collect();
    assert_eq!(existing, expected.existing);

    let left_out: BTreeMap<String, Vec<String>> = plan["unschedulable"]
        .as_array()
        .unwrap()
        .iter()
        .map(|pod| {
            let reasons = pod["reasons"].as_array().unwrap().iter().map(|reason| {
                format!(
                    "{} {}",
                    reason["nodePool"].as_str().unwrap_or("-"),
                    reason["reason"].as_str().unwrap()
                )
            });
            (pod["pod"].as_str().unwrap().to_owned(), reasons.collect())
        })
        .collect();
    assert_eq!(left_out, expected.left_out);
}

fn sorted(list: &Value) -> Vec<String> {
    let mut texts: Vec<_> =
        list.as_array().into_iter().flatten().map(|item| item.as_str().unwrap().to_owned()).collect();
    texts.sort();
    texts
}

#[test]
fn plans_are_what_a_person_expects() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
    let mut cases: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    cases.sort();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in &cases {
        if std::panic::catch_unwind(|| check(case)).is_err() {
            wrong.push(case.file_name().unwrap());
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}; what was wrong stands above");
}
