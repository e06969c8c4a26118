//! Helm, for tests of the chart in `deploy/helm`: the `helm` in PATH, or built from the Go module in `tests/helm`.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use serde::Deserialize as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::control_plane::shared::must_run;
use crate::go::{Go, Module, Source, announce};

/// The release that tests install.
pub const RELEASE: &str = "assay";
/// The version of Kubernetes that manifests are rendered for without a cluster.
const KUBERNETES: &str = "1.36.0";

const MODULE: Module =
    Module { directory: "helm", package: "helm.sh/helm/v3/cmd/helm", program: "helm", what: "Helm" };

/// Helm with directories of its own.
#[derive(Debug)]
pub struct Helm {
    program: PathBuf,
    home: TempDir,
}

impl Helm {
    /// Finds Helm; builds it where it is not built yet, which takes minutes. None, and a word on standard error, where there is
    /// neither a `helm` nor Go.
    ///
    /// # Errors
    /// It does not build, or it is not there and nothing may be left out (`CI=true`).
    pub fn find() -> anyhow::Result<Option<Self>> {
        let home = tempfile::Builder::new().prefix("assay-helm-").tempdir()?;
        let installed = Command::new("helm").args(["version", "--short"]).output();
        if installed.is_ok_and(|output| output.stdout.starts_with(b"v3.")) {
            return Ok(Some(Self { program: "helm".into(), home }));
        }
        let source = Source::read(MODULE, linker_flags)?;
        let found = match Go::find() {
            Ok(go) => Ok(source.build(&go)?),
            Err(reason) => source.built().ok_or(reason),
        };
        match found {
            Ok(program) => Ok(Some(Self { program, home })),
            Err(reason) => {
                let missing = format!("no Helm to render the chart with: {reason}. Install Helm 3 or Go");
                ensure!(!must_run(), missing);
                announce(&format!("skipped: {missing}"));
                Ok(None)
            }
        }
    }

    /// What `helm template` makes of the chart, its definitions included.
    ///
    /// # Errors
    /// The chart cannot be rendered with these values.
    pub fn template(&self, namespace: &str, values: &Value) -> anyhow::Result<Vec<Value>> {
        let output = self.run(
            &["template", RELEASE, CHART, "--include-crds", "--kube-version", KUBERNETES],
            namespace,
            values,
        )?;
        let text = String::from_utf8(output.stdout).context("manifests are text")?;
        let documents = serde_yaml_ng::Deserializer::from_str(&text).map(Value::deserialize);
        let mut manifests = Vec::new();
        for document in documents {
            let document = document.context("manifests are YAML")?;
            if !document.is_null() {
                manifests.push(document);
            }
        }
        Ok(manifests)
    }

    /// Checks the chart.
    ///
    /// # Errors
    /// Helm finds something wrong with it.
    pub fn lint(&self, values: &Value) -> anyhow::Result<()> {
        self.run(&["lint", CHART, "--strict", "--kube-version", KUBERNETES], "default", values).map(drop)
    }

    /// Installs the chart into the cluster of a kubeconfig, or upgrades it there.
    ///
    /// # Errors
    /// The API server refuses something of it.
    pub fn install(&self, kubeconfig: &Path, namespace: &str, values: &Value) -> anyhow::Result<()> {
        let kubeconfig = kubeconfig.to_str().context("a path in UTF-8")?;
        let arguments =
            ["upgrade", "--install", RELEASE, CHART, "--create-namespace", "--kubeconfig", kubeconfig];
        self.run(&arguments, namespace, values).map(drop)
    }

    fn run(&self, arguments: &[&str], namespace: &str, values: &Value) -> anyhow::Result<Output> {
        let file = self.home.path().join("values.json");
        std::fs::write(&file, values.to_string()).context("cannot write values")?;
        let mut command = Command::new(&self.program);
        command.args(arguments).args(["--namespace", namespace, "--values"]).arg(&file);
        for place in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(place, self.home.path());
        }
        let output = command.output().context("cannot run helm")?;
        ensure!(
            output.status.success(),
            "helm {} with {values}: {}",
            arguments[0],
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }
}

/// The chart.
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/helm/assay");

/// Helm takes its version from the linker.
fn linker_flags(requirements: &str) -> anyhow::Result<String> {
    let required = requirements.lines().find_map(|line| line.trim().strip_prefix("helm.sh/helm/v3 "));
    let version = required.and_then(|rest| rest.split_whitespace().next());
    let version = version.context("go.mod does not require helm.sh/helm/v3")?;
    Ok(format!("-s -w -X helm.sh/helm/v3/internal/version.version={version}"))
}
