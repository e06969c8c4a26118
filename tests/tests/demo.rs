//! `assay demo` as a person runs it: piped, with the real agent of this machine, to its end.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::process::Command;

use assay_tests::programs::program;

#[test]
fn the_demo_shows_the_whole_loop_and_ends_by_itself() {
    let agent = program("assay-agent", "assay-agent").unwrap();
    let output = Command::new(program("assay-scheduler", "assay").unwrap())
        .args(["demo", "--speed", "180", "--agent"])
        .arg(agent)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains('\x1b'), "plain lines when piped");
    for told in [
        "Node/this-machine            MeasuredForReal", // the real agent, over QUIC
        "Launching",
        "MemoryMissing",
        "GPUsMissing",
        "DisruptionTerminating  WrongHardware",
        "Learned",
        "DisruptionTerminating  Empty",
        "1 GPUsMissing, 1 MemoryMissing",
        "20 pods run",
        "0 refused\n",
    ] {
        assert!(text.contains(told), "{told:?} is not in\n{text}");
    }
}
