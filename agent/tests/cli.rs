//! The program as a user runs it: its forms of output, its exit status and its one line on bad input.

// Helpers of tests are not seen as tests by clippy.
#![allow(clippy::unwrap_used, reason = "a test that panics says where")]

use std::path::Path;
use std::process::{Command, Output};

use assay_agent::tree::{Machine, Memory};
use assay_shared::azure;
use assay_shared::report::{HardwareReport, ReportDocument};
use assay_shared::units::Bytes;

fn survey(args: &[&str]) -> Output {
    let program = env!("CARGO_BIN_EXE_assay-agent");
    Command::new(program).arg("survey").args(args).env_remove("NODE_NAME").output().unwrap()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// A directory with the files of a VM like this size, and what IMDS says of it.
fn tree(size: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    // Little memory, because every block of it is a file.
    let machine =
        Machine { memory: Memory::new(Bytes::gib(2)), ..Machine::azure(azure::size(size).unwrap()) };
    machine.tree().write_to(root.path()).unwrap();
    std::fs::write(root.path().join("imds.json"), machine.imds_json().unwrap().to_string()).unwrap();
    root
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn json_and_yaml_hold_the_same_report() {
    let root = tree("Standard_D4s_v5");
    let arguments = ["--root", text(root.path()), "--node-name", "aks-1", "-o"];
    let of = |form: &str| survey(&[&arguments[..], &[form]].concat());
    let json: ReportDocument = serde_json::from_slice(&of("json").stdout).unwrap();
    let yaml: ReportDocument = serde_yaml_ng::from_slice(&of("yaml").stdout).unwrap();
    assert_eq!(json, yaml);
    let report = HardwareReport::try_from(json).unwrap();
    assert_eq!(report.identity.node_name.measured().map(String::as_str), Some("aks-1"));
    assert_eq!(report.platform.vm_size.measured().map(String::as_str), Some("Standard_D4s_v5"));
}

#[test]
fn the_table_is_plain_when_it_is_piped() {
    let root = tree("Standard_ND96asr_v4");
    let output = survey(&["--root", text(root.path())]);
    assert!(output.status.success());
    let table = stdout(&output);
    assert!(table.contains("Standard_ND96asr_v4 promises") && !table.contains('\u{1b}'), "{table}");
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
}

#[test]
fn a_tree_with_nothing_in_it_is_surveyed_all_the_same() {
    let root = tempfile::tempdir().unwrap();
    let output = survey(&["--root", text(root.path()), "-o", "json"]);
    assert!(output.status.success());
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["platform"]["cloud"], "none");
    assert!(json["memory"]["totalBytes"].is_null());
    let unavailable = json["unavailable"].as_array().unwrap();
    assert!(unavailable.iter().any(|entry| entry["fact"] == "memory.totalBytes"
        && entry["reason"] == "not found: proc/meminfo"));
}

#[test]
fn bad_input_is_status_two_and_says_what_was_expected() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let cases: [(&[&str], &str); 7] = [
        (&["--root", "/nonexistent"], "assay-agent: --root /nonexistent: no such file or directory\n"),
        (&["--root", text(file.path())], "not a directory\n"),
        (&["--imds", "/nonexistent"], "assay-agent: --imds /nonexistent: no such file or directory\n"),
        (&["--imds", "https://169.254.169.254"], "expected an address like http://169.254.169.254"),
        (&["--nvml", ""], "expected auto, off or a file, found nothing"),
        (&["-o", "xml"], "[possible values: table, json, yaml]"),
        (&["--colour"], "unexpected argument '--colour'"),
    ];
    for (arguments, expected) in cases {
        let output = survey(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

/// Every key of the JSON form, at any depth.
fn keys(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                found.push(key.clone());
                keys(value, found);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, found)),
        _ => {}
    }
}

#[test]
fn every_fact_is_documented() {
    let manual = include_str!("../../docs/hardware-report.md");
    // One with every kind of device.
    let root = tree("Standard_ND96asr_v4");
    let output = survey(&["--root", text(root.path()), "-o", "json"]);
    let mut found = Vec::new();
    keys(&serde_json::from_slice(&output.stdout).unwrap(), &mut found);
    for key in found.iter().filter(|key| !["apiVersion", "kind", "fact", "reason"].contains(&key.as_str())) {
        let is_word = |at: usize| {
            let around = [manual[..at].chars().next_back(), manual[at + key.len()..].chars().next()];
            around.iter().flatten().all(|c| !c.is_alphanumeric())
        };
        assert!(
            manual.match_indices(key.as_str()).any(|(at, _)| is_word(at)),
            "docs/hardware-report.md lacks {key}"
        );
    }
}
