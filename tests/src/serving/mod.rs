//! `assay serve` against a real control plane: the program itself, with the simulated cloud, real agents' links on loopback, and
//! what a test asks of the cluster.

mod cluster;
mod faulty_api;
mod objects;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use assay_scheduler::fleet::ca::{DevCa, SERVER_VALIDITY};
use tempfile::TempDir;

pub use cluster::{Cluster, api_of, apply, condition, names};
pub use faulty_api::{Call, Fault, FaultyApi};
pub use objects::{apart, deployment, install_crds, namespace_objects, node_class, node_pool};

use crate::control_plane::ControlPlane;
use crate::control_plane::ports;
use crate::programs::program;

/// Namespace that the scheduler calls its own.
pub const NAMESPACE: &str = "assay-system";
/// Service account of agents there.
pub const AGENT_ACCOUNT: &str = "assay-agent";

/// How a scheduler is started.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Kubeconfig to use instead of the administrator's.
    pub kubeconfig: Option<PathBuf>,
    /// Further environment variables.
    pub environment: Vec<(String, String)>,
    /// How long pods are collected, where not 100 ms.
    pub batch_idle: Option<Duration>,
    /// Seconds until a VM has booted, shortest and longest, where not 1 and 2.
    pub boot: Option<(u32, u32)>,
}

impl ServeOptions {
    /// By way of a proxy.
    #[must_use]
    pub fn through(proxy: &FaultyApi) -> Self {
        Self { kubeconfig: Some(proxy.kubeconfig()), ..Self::default() }
    }

    /// With the batches of a scheduler that nobody told anything.
    #[must_use]
    pub fn with_default_batch(self) -> Self {
        Self { batch_idle: Some(Duration::from_secs(1)), ..self }
    }
}

/// A running `assay serve`. Dropping it kills it, as a crash would.
#[derive(Debug)]
pub struct Serving {
    child: Child,
    directory: TempDir,
    /// TCP port of /metrics.
    pub metrics_port: u16,
    /// UDP port that agents connect to.
    pub fleet_port: u16,
}

impl Serving {
    /// Starts a scheduler of the cluster of `plane`.
    ///
    /// # Errors
    /// It does not build or start.
    pub fn start(plane: &ControlPlane, options: &ServeOptions) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("assay-serving-").tempdir()?;
        let ca = DevCa::create()?;
        let issued = ca.issue_server(&["127.0.0.1", "localhost"], SERVER_VALIDITY)?;
        let write = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
            let path = directory.path().join(name);
            std::fs::write(&path, text).with_context(|| path.display().to_string())?;
            Ok(path)
        };
        let authority = write("ca.crt", ca.certificate_pem())?;
        let certificate = write("tls.crt", &issued.certificate_pem)?;
        let key = write("tls.key", &issued.key_pem)?;
        let (metrics_port, health_port, fleet_port) = (ports::free()?, ports::free()?, ports::free()?);
        let kubeconfig = options.kubeconfig.clone().unwrap_or_else(|| plane.admin_kubeconfig());
        let (least, most) = options.boot.unwrap_or((1, 2));
        let log = File::create(directory.path().join("assay.log"))?;
        let child = Command::new(program("assay-scheduler", "assay")?)
            .arg("serve")
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args([
                "--namespace",
                NAMESPACE,
                "--cloud",
                "sim",
                "--batch-idle",
                &format!("{}ms", options.batch_idle.unwrap_or(Duration::from_millis(100)).as_millis()),
                "--simulated-boot",
                &format!("{least},{most}"),
            ])
            .arg("--fleet-listen")
            .arg(format!("127.0.0.1:{fleet_port}"))
            .arg("--fleet-cert")
            .arg(certificate)
            .arg("--fleet-key")
            .arg(key)
            .arg("--simulated-agents-ca")
            .arg(authority)
            .arg("--metrics-port")
            .arg(metrics_port.to_string())
            .arg("--health-port")
            .arg(health_port.to_string())
            .args(&options.arguments)
            .env("RUST_LOG", "info,assay_scheduler=debug")
            .envs(options.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start assay serve")?;
        Ok(Self { child, directory, metrics_port, fleet_port })
    }

    /// Number of its process.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Authority of the certificate that agents are shown.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    /// The log so far.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.directory.path().join("assay.log")
    }

    /// The last lines of the log, for whoever looks at a failure.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().rev().take(60).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Kills it with SIGKILL.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().context("cannot kill assay serve")?;
        self.child.wait().context("cannot wait for assay serve")?;
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// It does not end within half a minute, or not well.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().context("cannot signal assay serve")?;
        for _ in 0..300 {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("assay serve ended with {status}\n{}", self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("assay serve does not end\n{}", self.last_words())
    }

    /// An error where it has ended by itself.
    ///
    /// # Errors
    /// It has.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            Some(status) => bail!("assay serve ended with {status}\n{}", self.last_words()),
            None => Ok(()),
        }
    }

    /// The value of a metric with these labels, summed over series.
    ///
    /// # Errors
    /// The page cannot be read.
    pub async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> anyhow::Result<f64> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", self.metrics_port)).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut page = String::new();
        stream.read_to_string(&mut page).await?;
        let mut sum = 0.0;
        for line in page.lines() {
            let Some(rest) = line.strip_prefix(name) else { continue };
            let (series, value) = rest.rsplit_once(' ').unwrap_or(("", rest));
            let is_it = series.is_empty() || series.starts_with('{');
            if is_it && labels.iter().all(|(key, value)| series.contains(&format!("{key}=\"{value}\""))) {
                sum += value.trim().parse::<f64>().unwrap_or(0.0);
            }
        }
        Ok(sum)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the last words of assay serve:\n{}", self.last_words());
        }
    }
}

/// Where the chart and the definitions of kinds are.
#[must_use]
pub fn deploy_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}
