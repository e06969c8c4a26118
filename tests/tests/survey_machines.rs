//! The machines of `tests/machines` are surveyed and what must be found is found: in memory, and on disk by the program
//! with a library that is really loaded. Both ways give the same report.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::fs;
use std::process::Command;

use assay_agent::tree::Machine;
use assay_shared::report::{GpuState, ReportDocument};
use assay_tests::{json, machines, programs};
use serde_json::Value;

fn in_memory(machine: &Machine) -> Value {
    serde_json::to_value(ReportDocument::from(machine.report(None))).unwrap()
}

/// Runs `assay-agent survey` on the machine written to disk.
fn on_disk(machine: &Machine) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    machines::write(machine, &root).unwrap();
    let mut survey = Command::new(programs::program("assay-agent", "assay-agent").unwrap());
    survey.args(["survey", "-o", "json", "--root"]).arg(&root).env_remove("NODE_NAME");
    if let Some(script) = machines::nvml_script(machine) {
        let path = directory.path().join("nvml.toml");
        fs::write(&path, script).unwrap();
        survey.env("ASSAY_FAKE_NVML", path).arg("--nvml").arg(programs::fake_nvml().unwrap());
    }
    let output = survey.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_facts_that_matter_are_found() {
    let mut wrong = Vec::new();
    for name in machines::names().unwrap() {
        let expected = machines::expected(&name).unwrap();
        let found = in_memory(&machines::machine(&name).unwrap());
        wrong.extend(json::missing_from(&found, &expected).into_iter().map(|line| format!("{name}: {line}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_healthy_machine_has_nothing_unavailable_but_what_its_hardware_does_not_tell() {
    let mut wrong = Vec::new();
    for name in machines::names().unwrap() {
        let machine = machines::machine(&name).unwrap();
        if machine.gpus.iter().any(|gpu| gpu.state != GpuState::Usable)
            || machine.host.is_azure() != machine.imds.is_some()
        {
            continue;
        }
        for fact in in_memory(&machine)["unavailable"].as_array().unwrap() {
            // A driver that does not tell its speed, and an interface that is down.
            if !fact["fact"].as_str().unwrap().ends_with(".speedMbps") {
                wrong.push(format!("{name}: {fact}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_program_finds_the_same_on_disk() {
    for name in machines::names().unwrap() {
        let machine = machines::machine(&name).unwrap();
        let (mut disk, mut memory) = (on_disk(&machine), in_memory(&machine));
        // A file that fails with EINVAL is a directory on disk: the reasons differ, the facts do not.
        for report in [&mut disk, &mut memory] {
            for fact in report["unavailable"].as_array_mut().unwrap() {
                fact.as_object_mut().unwrap().remove("reason");
            }
            for device in report["gpus"]["devices"].as_array_mut().unwrap() {
                device.as_object_mut().unwrap().remove("reason");
            }
        }
        let differences = json::missing_from(&disk, &memory);
        assert!(differences.is_empty(), "{name}:\n{}", differences.join("\n"));
    }
}
