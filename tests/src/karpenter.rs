//! Karpenter's own definitions of its kinds, from the Go module that `tests/api/hashes` requires.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::control_plane::shared::must_run;
use crate::go::{Go, announce};
use crate::objects;

/// The module that has them, as they are shipped for Azure.
const MODULE: &str = "github.com/Azure/karpenter-provider-azure";

/// Where in the module each lies.
const FILES: [&str; 3] = [
    "pkg/apis/crds/karpenter.sh_nodepools.yaml",
    "pkg/apis/crds/karpenter.sh_nodeclaims.yaml",
    "pkg/apis/crds/karpenter.azure.com_aksnodeclasses.yaml",
];

/// The definitions; none, and a word on standard error, where Go is missing or the module cannot be fetched.
///
/// # Errors
/// The module is there and a file is not, or nothing may be left out (`CI=true`).
pub fn definitions() -> anyhow::Result<Option<Vec<Value>>> {
    let directory = match fetch().with_context(|| format!("cannot fetch the Go module {MODULE}")) {
        Ok(directory) => directory,
        Err(error) if must_run() => return Err(error),
        Err(error) => {
            announce(&format!("skipped: {error:#}"));
            return Ok(None);
        }
    };
    let read = |file| {
        let path = directory.join(file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_yaml_ng::from_str(&text).with_context(|| path.display().to_string())
    };
    FILES.into_iter().map(read).collect::<anyhow::Result<_>>().map(Some)
}

/// Fetches the module the first time; where Go keeps it.
fn fetch() -> anyhow::Result<PathBuf> {
    let go = Go::find().map_err(anyhow::Error::msg)?;
    let output = Command::new(go.program())
        .args(["mod", "download", "-json", MODULE])
        .current_dir(objects::directory().join("hashes"))
        .env("GOTOOLCHAIN", "local")
        .output()
        .context("cannot run go")?;
    let told: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    ensure!(output.status.success(), "{}", told["Error"]);
    Ok(Path::new(told["Dir"].as_str().context("go tells no directory")?).to_owned())
}
