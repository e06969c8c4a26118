//! The built programs and libraries, for tests to run.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};

/// Packages built by this test process already.
static BUILT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The program `name` of package `package`, built in the profile of the running test.
///
/// Cargo builds the programs of a test's own package only, so this asks it for the others; where nothing has changed
/// that takes a moment.
///
/// # Errors
/// It does not build.
pub fn program(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    Ok(build(package)?.join(name))
}

/// Runs `assay` with `input` on its standard input.
///
/// # Errors
/// It does not build or start.
pub fn assay(arguments: &[&str], input: &str) -> anyhow::Result<Output> {
    let mut child = Command::new(program("assay-scheduler", "assay")?)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start assay")?;
    let mut stdin = child.stdin.take().context("a pipe was asked for")?;
    let input = input.to_owned();
    // On a thread of its own: the program may print more than a pipe holds before it has read everything. One that refuses
    // its arguments is gone before it reads.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().context("assay does not end")?;
    drop(writer.join());
    Ok(output)
}

/// The fake NVIDIA library.
///
/// # Errors
/// It does not build.
pub fn fake_nvml() -> anyhow::Result<PathBuf> {
    Ok(build("assay-fake-nvml")?.join("libnvidia_ml_fake.so"))
}

/// Builds a package and gives the directory that the result is in.
fn build(package: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe().context("where does this test run?")?;
    // target/PROFILE/deps/test
    let directory = test.parent().context("a test lies in target/PROFILE/deps")?;
    let Some(output) = directory.parent().filter(|_| directory.ends_with("deps")).map(Path::to_owned) else {
        // A benchmark, which is built together with what it measures.
        return Ok(directory.to_owned());
    };
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if built.contains(package) {
        return Ok(output);
    }
    let profile = match output.file_name().and_then(|name| name.to_str()) {
        // Cargo's directory for the profile `dev` has another name.
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--locked", "--package", package, "--profile", profile])
        .arg("--target-dir")
        .arg(output.parent().context("a profile lies in the target directory")?)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "cargo build --package {package}: {status}");
    built.insert(package.to_owned());
    Ok(output)
}
