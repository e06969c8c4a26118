//! Where the programs of the control plane come from: `KUBEBUILDER_ASSETS`, or built from `tests/control-plane`.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::go::{self, Go, Module, Source};

/// The program of all components.
const MODULE: Module =
    Module { directory: "control-plane", package: ".", program: "control-plane", what: "the control plane" };

/// Names a directory with `etcd` and `kube-apiserver`, as controller-runtime's `setup-envtest` makes it.
pub const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// A program of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// etcd.
    Etcd,
    /// kube-apiserver.
    Apiserver,
    /// kube-controller-manager.
    ControllerManager,
    /// kube-scheduler.
    Scheduler,
}

impl Component {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Etcd, Self::Apiserver, Self::ControllerManager, Self::Scheduler];

    /// The name of its program.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Apiserver => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }
}

impl fmt::Display for Component {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// The programs found.
#[derive(Debug, Clone)]
pub enum Binaries {
    /// A program for each component, in this directory.
    Assets(PathBuf),
    /// This one program, which takes the component as its first argument.
    Program(PathBuf),
}

/// Why there are no programs, and what to do about it.
#[derive(Debug, thiserror::Error)]
#[error(
    "no control plane to test against: {reason}. Install {} (https://go.dev/dl) and run `make control-plane`, or set {ASSETS} \
     to a directory with the programs of Kubernetes",
    go::WANTED
)]
pub struct Missing {
    reason: String,
}

impl Binaries {
    /// Finds the programs; builds them where they are not built yet, which takes minutes.
    ///
    /// # Errors
    /// [`Missing`] where one of `components`, and Go too, is not there. Any other error is about programs that should work.
    pub fn find(components: &[Component]) -> anyhow::Result<Self> {
        if let Some(assets) = std::env::var_os(ASSETS).filter(|assets| !assets.is_empty()) {
            let assets = PathBuf::from(assets);
            for component in components {
                let program = assets.join(component.name());
                if !program.is_file() {
                    return Err(Missing {
                        reason: format!("{ASSETS} is set, and {} is not there", program.display()),
                    }
                    .into());
                }
            }
            return Ok(Self::Assets(assets));
        }
        let source = Source::read(MODULE, |requirements| {
            let version =
                kubernetes_version(requirements).context("go.mod does not require k8s.io/kubernetes")?;
            linker_flags(version)
        })?;
        match Go::find() {
            Ok(go) => Ok(Self::Program(source.build(&go)?)),
            // Without Go, what was built from the same source with any version of it serves as well.
            Err(reason) => source.built().map(Self::Program).ok_or_else(|| Missing { reason }.into()),
        }
    }

    /// Runs a component.
    pub(super) fn command(&self, component: Component) -> Command {
        match self {
            Self::Assets(directory) => Command::new(directory.join(component.name())),
            Self::Program(program) => {
                let mut command = Command::new(program);
                command.arg(component.name());
                command
            }
        }
    }
}

/// The version that a `go.mod` requires of Kubernetes.
fn kubernetes_version(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"))
}

/// Kubernetes takes its version from the linker; without it the API server and its clients would call themselves v0.0.0.
fn linker_flags(version: &str) -> anyhow::Result<String> {
    let mut numbers = version.split('.');
    let major = numbers.next().context("a version has a major number")?;
    let minor = numbers.next().context("a version has a minor number")?;
    // Without tables of symbols and for debuggers: half the size.
    let mut flags = "-s -w".to_owned();
    for package in ["component-base", "client-go/pkg"] {
        for (name, value) in [
            ("Version", format!("v{version}").as_str()),
            ("Major", major),
            ("Minor", minor),
            ("TreeState", "clean"),
        ] {
            flags.push_str(&format!(" -X k8s.io/{package}/version.git{name}={value}"));
        }
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::{kubernetes_version, linker_flags};

    #[test]
    fn the_program_tells_the_version_that_is_required() {
        let required = kubernetes_version("module x\n\nrequire (\n\tk8s.io/kubernetes v1.36.3\n)\n");
        assert_eq!(required, Some("1.36.3"));
        assert!(linker_flags("1.36.3").is_ok_and(|flags| flags.contains("gitMinor=36")));
        assert_eq!(kubernetes_version("k8s.io/api => k8s.io/api v0.36.3"), None);
    }
}
