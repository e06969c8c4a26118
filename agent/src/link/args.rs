//! `assay-agent run`: the link as a program.
//!
//! Surveys this machine (or the one below `--root`), reports it to the scheduler and stays, on one thread. Ends on SIGTERM
//! and SIGINT with a word to the scheduler.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use assay_shared::report::ScheduledEvent;
use assay_shared::{Fact, HardwareReport, NodeName};
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

use super::{
    Credentials, LinkConfig, LinkEndpoint, Reconnect, ReportSource, SchedulerAddress, report_once, run_link,
    run_replicas,
};
use crate::imds::{Answer, client};
use crate::sources::{SourceArgs, Sources};

/// Report this machine to a scheduler, and stay connected.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Examples:
  assay-agent run --scheduler assay.example.com:7443 --node-name $(hostname) \\
      --ca ca.crt --cert node.crt --key node.key
  assay-agent run --scheduler assay.assay-system.svc --node-name $NODE_NAME \\
      --ca ca.crt --token-file /var/run/secrets/assay/token
  assay-agent run … --once      one report, acknowledged; for checking a set-up")]
pub struct RunArgs {
    /// Scheduler to report to; port 7443 unless given.
    #[arg(long, value_name = "HOST[:PORT]", env = "ASSAY_SCHEDULER")]
    pub scheduler: SchedulerAddress,
    /// Kubernetes name of the node this machine is.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: NodeName,
    /// PEM file with the authority of the scheduler's certificate; read again for each connection.
    #[arg(long, value_name = "FILE", env = "ASSAY_CA")]
    pub ca: PathBuf,
    /// File with a service-account token of this pod, in place of a certificate; read again for each connection.
    #[arg(
        long,
        value_name = "FILE",
        env = "ASSAY_TOKEN_FILE",
        required_unless_present = "cert",
        conflicts_with_all = ["cert", "key"]
    )]
    pub token_file: Option<PathBuf>,
    /// PEM file with the certificate of this node; read again for each connection.
    #[arg(long, value_name = "FILE", env = "ASSAY_CERT", requires = "key")]
    pub cert: Option<PathBuf>,
    /// PEM file with its private key; may be the same. Read again for each connection.
    #[arg(long, value_name = "FILE", env = "ASSAY_KEY", requires = "cert")]
    pub key: Option<PathBuf>,
    /// Name in the scheduler's certificate, where it is not the host it is reached at.
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// Report to every address of the scheduler's name, since each is a replica that may have to take over.
    #[arg(long, env = "ASSAY_ALL_REPLICAS")]
    pub all_replicas: bool,
    /// Report once, and exit 0 when the scheduler has acknowledged it, or 1.
    #[arg(long, conflicts_with = "all_replicas")]
    pub once: bool,
    /// Survey this often; otherwise as often as the scheduler says.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub interval: Option<u32>,
    /// What to survey.
    #[command(flatten)]
    pub sources: SourceArgs,
}

impl RunArgs {
    fn credentials(&self) -> anyhow::Result<Credentials> {
        let ca = self.ca.clone();
        match (&self.token_file, &self.cert, &self.key) {
            (Some(token), None, None) => Ok(Credentials::TokenFile { ca, token: token.clone() }),
            (None, Some(certificate), Some(key)) => {
                Ok(Credentials::Files { ca, certificate: certificate.clone(), key: key.clone() })
            }
            // Only for a caller that is not the command line, which has its own words for it.
            _ => anyhow::bail!("expected --token-file, or --cert and --key"),
        }
    }
}

/// Surveys with IMDS's answer. Lives on the threads that may block.
struct Machine {
    sources: Sources,
    node: NodeName,
    runtime: Handle,
    /// Name of the VM, as its scheduled events call it.
    vm_name: Fact<String>,
}

impl Machine {
    fn ask_imds(&mut self) -> Option<Answer> {
        let answer = self.runtime.block_on(self.sources.ask_imds());
        if let Some(instance) = answer.as_ref().and_then(|answer| answer.instance.measured()) {
            self.vm_name = instance.name.clone();
        }
        answer
    }
}

impl ReportSource for Machine {
    fn survey(&mut self) -> HardwareReport {
        let answer = self.ask_imds();
        self.sources.survey(Some(self.node.as_str()), answer)
    }

    /// On a machine with GPUs, everything that does not depend on their driver.
    fn ahead(&mut self) -> Option<HardwareReport> {
        let answer = self.ask_imds();
        let report = self.sources.survey_without_gpu_library(Some(self.node.as_str()), answer);
        report.gpus.pci.get().is_some_and(|count| count > 0).then_some(report)
    }

    fn urgent(&mut self) -> Option<Fact<Vec<ScheduledEvent>>> {
        let endpoint = self.sources.imds_endpoint()?;
        Some(self.runtime.block_on(client::scheduled_events(&endpoint, &self.vm_name)))
    }
}

/// Runs the command. Without `--once` it returns when it is told to stop.
///
/// # Errors
/// Where what it was given cannot be used: a file, a root, a socket.
pub fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    log_to_stderr();
    // For whoever asks for the process's default; the link itself brings its own.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        anyhow::bail!("another crypto provider is installed in this process");
    }
    let sources = args.sources.open()?;
    let credentials = args.credentials()?;
    // What is wrong from the start is said at once; what goes wrong later is tried again.
    credentials.check().context("credentials")?;
    let config = LinkConfig {
        scheduler: args.scheduler.clone(),
        server_name: args.server_name.clone(),
        node: args.node_name.clone(),
        credentials,
        interval: args.interval.map(|seconds| Duration::from_secs(seconds.into())),
        reconnect: Reconnect::default(),
    };
    let runtime = Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    let source = Machine {
        sources,
        node: args.node_name.clone(),
        runtime: runtime.handle().clone(),
        vm_name: Fact::default(),
    };
    let code = runtime.block_on(report(args, config, source))?;
    // A probe that hangs in a driver must not hold up the end.
    runtime.shutdown_background();
    Ok(code)
}

async fn report(args: &RunArgs, config: LinkConfig, source: Machine) -> anyhow::Result<ExitCode> {
    let endpoint = LinkEndpoint::bind().context("open a UDP socket")?;
    let ended = if args.once {
        report_once(config, endpoint.clone(), source).await
    } else {
        let (stop, stopped) = watch::channel(false);
        let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stop.send_replace(true);
        });
        if args.all_replicas {
            run_replicas(config, endpoint.clone(), source, stopped).await
        } else {
            run_link(config, endpoint.clone(), source, stopped).await
        }
    };
    endpoint.wait_idle().await;
    match ended {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("assay-agent: {error}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// `RUST_LOG` chooses what is logged; otherwise what an operator needs.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let logging =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // Fails only where logging is set up already.
    let _ = logging.try_init();
}
