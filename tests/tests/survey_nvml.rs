//! The program loads a real library, which answers from a script: what a driver can do to a survey, and what the survey
//! makes of it. The machine has eight A100; only what the library says changes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use assay_agent::tree::Machine;
use assay_shared::report::GpuState;
use assay_tests::{json, machines, programs};
use serde_json::{Value, json};

/// Eight GPUs that work.
fn machine() -> Machine {
    let mut machine = machines::machine("nd96asr-v4-one-gpu-lost").unwrap();
    for gpu in &mut machine.gpus {
        gpu.state = GpuState::Usable;
    }
    machine
}

/// The machine on disk.
struct Host {
    directory: tempfile::TempDir,
    program: PathBuf,
    /// The script by which every GPU works.
    script: String,
}

impl Host {
    fn new() -> Self {
        let machine = machine();
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("root")).unwrap();
        machines::write(&machine, &directory.path().join("root")).unwrap();
        let program = programs::program("assay-agent", "assay-agent").unwrap();
        Self { directory, program, script: machines::nvml_script(&machine).unwrap() }
    }

    /// Surveys it with this library answering from this script.
    fn survey(&self, library: &Path, script: &str) -> Value {
        let path = self.directory.path().join("nvml.toml");
        fs::write(&path, script).unwrap();
        let root = self.directory.path().join("root");
        let output = Command::new(&self.program)
            .args(["survey", "-o", "json", "--root"])
            .arg(root)
            .arg("--nvml")
            .arg(library)
            .env("ASSAY_FAKE_NVML", &path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A copy of the library that lacks a symbol, as one of another version would. The name in its table is changed, so
    /// that the loader does not find it.
    fn library_without(&self, symbol: &str) -> PathBuf {
        let mut content = fs::read(programs::fake_nvml().unwrap()).unwrap();
        let name = format!("\0{symbol}\0").into_bytes();
        let places: Vec<usize> =
            (0..content.len() - name.len()).filter(|&at| content[at..].starts_with(&name)).collect();
        assert!(!places.is_empty(), "{symbol} is not in the library");
        for at in places {
            content[at + 1] = b'X';
        }
        let path = self.directory.path().join("libnvidia-ml.so.1");
        fs::write(&path, content).unwrap();
        path
    }
}

/// Fails where the report lacks what is expected, or where anything but GPUs differs from the healthy report.
fn check(case: &str, report: &Value, healthy: &Value, expected: &Value) {
    let missing = json::missing_from(&report["gpus"], expected);
    assert!(missing.is_empty(), "{case}:\n{}\n{:#}", missing.join("\n"), report["unavailable"]);
    for (section, value) in healthy.as_object().unwrap() {
        if section != "gpus" && section != "unavailable" {
            assert_eq!(&report[section], value, "{case}: {section}");
        }
    }
}

/// `count` GPUs in one state, then one in another.
fn states(count: usize, state: &str, last: Option<&str>) -> Value {
    let all = std::iter::repeat_n(state, count).chain(last);
    all.map(|state| json!({"state": state})).collect()
}

#[test]
fn whatever_the_driver_does_costs_facts_about_gpus_only() {
    let host = Host::new();
    let library = programs::fake_nvml().unwrap();
    let healthy = host.survey(&library, &host.script);
    check(
        "healthy",
        &healthy,
        &healthy,
        &json!({"pci": 8, "driverBound": 8, "usable": 8, "partition": "none", "driverVersion": "550.54.15",
                "cudaVersion": "12.4", "devices": states(8, "usable", None)}),
    );

    let script = &host.script;
    // What is put behind the script is about the last device.
    let last = |more: &str| format!("{script}{more}");
    let call = |function: &str, how: &str| format!("{script}\n[calls.{function}]\n{how}\n");
    let none = json!({"pci": 8, "driverBound": 8, "usable": 0});
    let unknown = json!({"pci": 8, "driverBound": 8, "usable": null, "devices": states(8, "unknown", None)});
    let with_devices = |mut counts: Value, devices: Value| {
        counts["devices"] = devices;
        counts
    };
    let cases = [
        (
            "one is lost",
            script.replacen("lost = false", "lost = true", 1),
            json!({"usable": 7, "partition": "none", "devices": [{"state": "lost", "memoryBytes": null}, {}, {}, {}, {}, {}, {}, {}]}),
        ),
        (
            "one is lost once it is asked for its memory",
            last("[devices.calls.nvmlDeviceGetMemoryInfo_v2]\ncode = 15\n"),
            json!({"usable": 7, "devices": states(7, "usable", Some("lost"))}),
        ),
        (
            "one failed to remap a row",
            last("").replacen("failure = false", "failure = true", 1),
            json!({"usable": 7, "devices": [{"state": "unhealthy", "model": "NVIDIA A100-SXM4-40GB"}, {}, {}, {}, {}, {}, {}, {}]}),
        ),
        (
            "one remapped too many rows",
            last("").replacen("failure = false", "uncorrectable = 513", 1),
            json!({"usable": 7, "devices": [{"state": "unhealthy"}, {}, {}, {}, {}, {}, {}, {}]}),
        ),
        (
            "one has uncorrectable errors",
            last("").replacen("ecc = { enabled = true }", "ecc = { enabled = true, uncorrected = 1 }", 1),
            json!({"usable": 7, "devices": [{"state": "unhealthy"}, {}, {}, {}, {}, {}, {}, {}]}),
        ),
        (
            "one is not for us to open",
            last("[devices.calls.nvmlDeviceGetHandleByIndex_v2]\ncode = 4\n"),
            json!({"driverBound": 8, "usable": null, "devices": states(7, "usable", Some("unknown"))}),
        ),
        ("the way out never ends", call("nvmlShutdown", "hang = true"), json!({"usable": 8})),
        (
            "one does not tell its id",
            last("[devices.calls.nvmlDeviceGetUUID]\ncode = 999\n"),
            json!({"usable": 8, "devices": [{}, {}, {}, {}, {}, {}, {}, {"uuid": null, "state": "usable"}]}),
        ),
        (
            "one is not listed, as where its probe failed",
            script.rsplit_once("\n[[devices]]").unwrap().0.to_owned(),
            json!({"pci": 8, "usable": 7, "devices": states(7, "usable", Some("not_listed"))}),
        ),
        (
            "none is listed",
            script.split_once("\n[[devices]]").unwrap().0.to_owned(),
            with_devices(none.clone(), states(8, "not_listed", None)),
        ),
        (
            "the driver is not loaded",
            call("nvmlInit_v2", "code = 9"),
            with_devices(none.clone(), states(8, "no_driver", None)),
        ),
        (
            "driver and library differ",
            call("nvmlInit_v2", "code = 18"),
            with_devices(none.clone(), states(8, "driver_mismatch", None)),
        ),
        ("the library fails for reasons of its own", call("nvmlInit_v2", "code = 999"), unknown.clone()),
        ("initialization never ends", call("nvmlInit_v2", "hang = true"), unknown.clone()),
        ("a device never answers", last("[devices.calls.nvmlDeviceGetName]\nhang = true\n"), unknown.clone()),
        ("the count fails", call("nvmlDeviceGetCount_v2", "code = 999"), unknown.clone()),
        ("the script cannot be read", "devices = 8".to_owned(), unknown.clone()),
        (
            "nobody tells whether devices are split",
            call("nvmlDeviceGetMigMode", "code = 999"),
            json!({"usable": 8, "partition": null}),
        ),
        (
            "the versions are not told",
            format!(
                "{}\n[calls.nvmlSystemGetCudaDriverVersion_v2]\ncode = 999\n",
                call("nvmlSystemGetDriverVersion", "code = 13")
            ),
            // The kernel's own file still has the driver's.
            json!({"usable": 8, "driverVersion": "550.54.15", "cudaVersion": null}),
        ),
        ("every answer takes its time", call("nvmlDeviceGetName", "delay-ms = 20"), json!({"usable": 8})),
    ];
    for (case, script, expected) in &cases {
        check(case, &host.survey(&library, script), &healthy, expected);
    }

    check(
        "the library is missing",
        &host.survey(Path::new("/nowhere/libnvidia-ml.so.1"), script),
        &healthy,
        &unknown,
    );
    let not_a_library = host.directory.path().join("nvml.toml");
    check("the library is none", &host.survey(&not_a_library, script), &healthy, &unknown);
    for (symbol, expected) in [
        ("nvmlShutdown", json!({"usable": 8})),
        ("nvmlDeviceGetUUID", json!({"usable": 8})),
        ("nvmlDeviceGetFieldValues", json!({"usable": 8})),
        ("nvmlDeviceGetCount_v2", unknown.clone()),
        ("nvmlInit_v2", unknown.clone()),
    ] {
        check(symbol, &host.survey(&host.library_without(symbol), script), &healthy, &expected);
    }
}

#[test]
fn why_a_gpu_is_not_known_is_told() {
    let host = Host::new();
    let report = host.survey(Path::new("/nowhere/libnvidia-ml.so.1"), &host.script);
    let listed = report["unavailable"].as_array().unwrap();
    let usable = listed.iter().find(|fact| fact["fact"] == "gpus.usable").unwrap();
    let reason = usable["reason"].as_str().unwrap();
    assert!(reason.contains("cannot be loaded") && reason.contains("/nowhere/libnvidia-ml.so.1"), "{reason}");
}
