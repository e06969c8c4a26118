//! The decisions of `tests/disruptions`: manifests of a cluster, and what a person expects to go.
//!
//! One file of YAML each, by topic in folders. The first document may be of kind `Sketch` and stands for nodes with their claims
//! and pods, see [`sketch`]; the last is of kind `ExpectedDisruption`; all other documents are what `assay disrupt` reads. The plan
//! comes out of the program, so that reading, deciding, the independent check and printing are all in it. Moments are told in
//! relation to noon of 4 March 2026, a Wednesday, which is `--now` where `now` says nothing else.
//!
//! | field | says |
//! |---|---|
//! | `catalog` | what can be bought, see [`sketch::catalog`]; `general` where not given |
//! | `now` | the moment, RFC 3339 |
//! | `arguments` | more arguments; `--payback-period=0s`, as with Karpenter, where they say nothing of it |
//! | `commands` | all commands in order: `reason`, `nodes` (in any order, or a number of them), and what else is told of fields by `assay disrupt` |
//! | `replacements` of a command | types that are bought, in any order; none where not given |
//! | `types` of a command | how many types its only replacement leaves to choose from |
//! | `requires` of a command | requirements of its only replacement that must be among them |
//! | `blocked` | for each node named: the reason, and after a colon texts that detail or fix hold, separated by ` & `; `-` for a node that is not listed |
//! | `warnings` | texts on standard error |

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

mod sketch;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use assay_tests::cases::cases;
use assay_tests::programs;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Expected {
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default = "general")]
    catalog: Value,
    #[serde(default = "noon")]
    now: String,
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    commands: Vec<ExpectedCommand>,
    #[serde(default)]
    blocked: BTreeMap<String, String>,
    #[serde(default)]
    warnings: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ExpectedCommand {
    reason: String,
    nodes: Nodes,
    #[serde(default)]
    replacements: Vec<String>,
    types: Option<usize>,
    #[serde(default)]
    requires: Vec<Value>,
    evictions: Option<u64>,
    savings_per_hour: Option<f64>,
    #[serde(default)]
    stranded: Vec<String>,
    deadline: Option<String>,
    detail: Option<String>,
    moves: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Nodes {
    Count(usize),
    Named(BTreeSet<String>),
}

fn general() -> Value {
    Value::from("general")
}

fn noon() -> String {
    "2026-03-04T12:00:00Z".to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|one| text(one).to_owned()).collect()
}

fn run(case: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(case).unwrap();
    let (documents, expected) = text.rsplit_once("\n---\n").expect("a document with what is expected");
    let expected: Expected = match serde_yaml_ng::from_str(expected) {
        Ok(expected) => expected,
        Err(error) => return vec![format!("the expectation cannot be read: {error}")],
    };
    let manifests = match sketch::manifests(documents) {
        Ok(manifests) => manifests,
        Err(error) => return vec![format!("the sketch cannot be read: {error}")],
    };
    let scratch = tempfile::tempdir().unwrap();
    let catalog = scratch.path().join("catalog.json");
    std::fs::write(&catalog, sketch::catalog(&expected.catalog).to_string()).unwrap();
    let mut arguments = ["disrupt", "-f", "-", "-o", "json"].map(str::to_owned).to_vec();
    if !expected.arguments.iter().any(|one| one.starts_with("--payback-period")) {
        arguments.push("--payback-period=0s".to_owned());
    }
    arguments.extend([format!("--catalog={}", catalog.display()), format!("--now={}", expected.now)]);
    arguments.extend(expected.arguments.iter().cloned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let output = programs::assay(&arguments, &manifests).expect("assay runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return vec![format!("{}: {said}", output.status)];
    }
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut wrong = Vec::new();
    let commands = plan["commands"].as_array().unwrap();
    if commands.len() != expected.commands.len() {
        wrong.push(format!("{} commands, expected {}", commands.len(), expected.commands.len()));
    }
    for (number, (found, expected)) in commands.iter().zip(&expected.commands).enumerate() {
        let lines = compare(found, expected);
        wrong.extend(lines.into_iter().map(|line| format!("command {number}: {line}")));
    }
    for (node, expected) in &expected.blocked {
        wrong.extend(stays(&plan, node, expected));
    }
    let missing = expected.warnings.iter().filter(|text| !said.contains(*text));
    wrong.extend(missing.map(|text| format!("no warning says {text:?}, but: {said}")));
    if !wrong.is_empty() {
        for command in commands {
            let bought: Vec<&Value> =
                command["replacements"].as_array().unwrap().iter().map(|one| &one["instanceType"]).collect();
            wrong.push(format!(
                "  found {} {} -> {bought:?}, {} evictions, saves {}",
                command["reason"], command["nodes"], command["evictions"], command["savingsPerHour"]
            ));
        }
        for one in plan["blocked"].as_array().unwrap() {
            wrong.push(format!("  stays {} {} {} {}", one["node"], one["reason"], one["detail"], one["fix"]));
        }
    }
    wrong
}

fn compare(found: &Value, expected: &ExpectedCommand) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut differs = |what: &str, found: &dyn std::fmt::Debug, expected: &dyn std::fmt::Debug| {
        wrong.push(format!("{what} {found:?}, expected {expected:?}"));
    };
    if text(&found["reason"]) != expected.reason {
        differs("reason", &found["reason"], &expected.reason);
    }
    let nodes: BTreeSet<String> = texts(&found["nodes"]).into_iter().collect();
    let right = match &expected.nodes {
        Nodes::Count(count) => nodes.len() == *count,
        Nodes::Named(names) => nodes == *names,
    };
    if !right {
        differs("nodes", &nodes, &expected.nodes);
    }
    let claims = found["replacements"].as_array().unwrap();
    let mut bought: Vec<&str> = claims.iter().map(|claim| text(&claim["instanceType"])).collect();
    let mut wanted: Vec<&str> = expected.replacements.iter().map(String::as_str).collect();
    bought.sort_unstable();
    wanted.sort_unstable();
    if bought != wanted {
        differs("replacements", &bought, &wanted);
    }
    let only = claims.first().unwrap_or(&Value::Null);
    let types = texts(&only["instanceTypeOptions"]).len();
    if expected.types.is_some_and(|expected| expected != types) {
        differs("types", &types, &expected.types);
    }
    for requirement in &expected.requires {
        if !only["requirements"].as_array().is_some_and(|list| list.contains(requirement)) {
            differs("requirements", &only["requirements"], requirement);
        }
    }
    if expected.evictions.is_some_and(|evictions| found["evictions"] != evictions) {
        differs("evictions", &found["evictions"], &expected.evictions);
    }
    if let Some(saving) = expected.savings_per_hour
        && found["savingsPerHour"].as_f64().is_none_or(|found| (found - saving).abs() > 1e-6)
    {
        differs("saving", &found["savingsPerHour"], &saving);
    }
    if texts(&found["stranded"]) != expected.stranded {
        differs("stranded", &found["stranded"], &expected.stranded);
    }
    if expected.deadline.as_ref().is_some_and(|deadline| found["deadline"] != **deadline) {
        differs("deadline", &found["deadline"], &expected.deadline);
    }
    if expected.detail.as_ref().is_some_and(|detail| !text(&found["detail"]).contains(detail)) {
        differs("detail", &found["detail"], &expected.detail);
    }
    for (pod, node) in expected.moves.iter().flatten() {
        let moves = found["moves"].as_array().unwrap();
        let to = moves.iter().find(|one| one["pod"] == format!("default/{pod}")).map(|one| text(&one["to"]));
        if to != Some(node) {
            differs(&format!("{pod} goes to"), &to, node);
        }
    }
    wrong
}

/// Whether a node stays for the reason that a line tells.
fn stays(plan: &Value, node: &str, expected: &str) -> Option<String> {
    let (reason, parts) = expected.split_once(": ").unwrap_or((expected, ""));
    let found = plan["blocked"].as_array().unwrap().iter().find(|one| one["node"] == node);
    let Some(found) = found else {
        return (reason != "-").then(|| format!("{node} is not blocked, expected {expected}"));
    };
    let told = format!("{} {}", text(&found["detail"]), text(&found["fix"]));
    let right = found["reason"] == reason && parts.split(" & ").all(|part| told.contains(part));
    (!right).then(|| format!("{node} is blocked by {}, expected {expected}", json!(found)))
}

/// `ASSAY_CASE=budgets/` runs the cases whose path holds that.
#[test]
fn disruptions_are_what_a_person_expects() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("disruptions");
    let cases = cases(&directory).unwrap();
    assert!(!cases.is_empty());
    let mut wrong = Vec::new();
    for case in &cases {
        let found = run(case);
        if !found.is_empty() {
            let name = case.strip_prefix(&directory).unwrap().display();
            wrong.push(format!("{name}:\n  {}", found.join("\n  ")));
        }
    }
    println!("{} cases, {} wrong", cases.len(), wrong.len());
    assert!(wrong.is_empty(), "{} cases are wrong\n{}", wrong.len(), wrong.join("\n"));
}
