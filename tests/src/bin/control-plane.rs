//! The control plane of the tests, for a person and for the makefile: `build` builds its program and Helm, `run` starts one, prints
//! where it is as one line of JSON, and keeps it until standard input ends.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use assay_tests::control_plane::binaries::{Binaries, Component, Missing};
use assay_tests::control_plane::shared::must_run;
use assay_tests::control_plane::{ControlPlane, Options};
use assay_tests::helm::Helm;

const USAGE: &str = "usage: control-plane build | run [--bare]";

fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["build"] => build(),
        ["run"] => run(Options::whole()),
        ["run", "--bare"] => run(Options::bare()),
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

/// Builds the programs, or says what the tests will say when they are skipped.
fn build() -> anyhow::Result<ExitCode> {
    Helm::find()?;
    match Binaries::find(&Component::ALL) {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) if error.is::<Missing>() && !must_run() => {
            eprintln!("tests of the control plane will be skipped: {error:#}");
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error),
    }
}

fn run(options: Options) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start a runtime")?;
    let plane = runtime.block_on(ControlPlane::start(options))?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{}", plane.ready())
        .and_then(|()| stdout.flush())
        .context("cannot print the ready line")?;
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())
        .context("cannot wait for the end of input")?;
    Ok(ExitCode::SUCCESS)
}
