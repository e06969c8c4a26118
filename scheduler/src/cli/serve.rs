//! `assay serve`: the deployment.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use assay_core::catalog::Catalog;
use assay_core::engine::{Engine, ReportTimeoutPolicy, Settings};
use assay_core::model::NodeClass;
use assay_core::solve::{MinValues, Preferences, SolveOptions};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use super::Answer;
use super::catalog;
use crate::cloud::{Cloud, MeasuredCloud};
use crate::kube::client::{ApiCalls, ClientSettings, client, configuration};
use crate::kube::driver::{Driver, Parts};
use crate::kube::fleet::{ClusterFleet, FleetArgs};
use crate::kube::lease::{Campaign, Elector, Leadership, Timing, campaign};
use crate::kube::observe::{Observer, ObserverSettings};
use crate::kube::sim::{Host, SimulatedCloud, SimulationOptions, TokenLink};
use crate::kube::write::{Gate, Writer};
use crate::manifest::parse_duration;
use crate::sim::scenario::CloudOptions;
use crate::web::{Health, Metrics, WebConfig, WebServer};

/// Events of agents that wait for the loop; more slow their agents down.
const FLEET_WAITING: usize = 4_096;
/// Answers of the API server and the cloud that wait for the loop.
const ANSWERS_WAITING: usize = 4_096;

/// Run a cluster: watch it, buy and release machines for it, and take the reports of its agents.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  assay serve --cloud sim --fleet-cert tls.crt --fleet-key tls.key
      the cluster of your kubeconfig, with nodes that do not exist: for a trial on a test cluster
  In a cluster, install the chart in deploy/helm/assay: it sets all of this.")]
pub(super) struct Arguments {
    /// Where pods and nodes are: `kube`, a cluster's API server. The simulated cluster is `assay demo`.
    #[arg(long, value_name = "kube", default_value = "kube", value_parser = ["kube"])]
    cluster: String,
    /// Where machines are bought: `sim`, a cloud whose machines do not exist.
    #[arg(long, value_name = "sim", default_value = "sim", value_parser = ["sim"], env = "ASSAY_CLOUD")]
    cloud: String,
    /// Kubeconfig of the cluster; otherwise KUBECONFIG, ~/.kube/config, or the service account of the pod this is.
    #[arg(long, value_name = "FILE", env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig.
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// Namespace of the lease, and of what else is the scheduler's own.
    #[arg(long, value_name = "NAME", default_value = "assay-system", env = "POD_NAMESPACE")]
    namespace: String,
    /// Name of this scheduler among others.
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    identity: Option<String>,
    /// Name of the lease by which one of several schedulers leads.
    #[arg(long, value_name = "NAME", default_value = "assay-leader-election", env = "LEADER_ELECTION_NAME")]
    lease: String,
    /// Pods are collected until none came for this long …
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = duration, env = "BATCH_IDLE_DURATION")]
    batch_idle: Duration,
    /// … and never longer than this.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, env = "BATCH_MAX_DURATION")]
    batch_max: Duration,
    /// Whether preferred affinities and ScheduleAnyway spreads count.
    #[arg(long, value_name = "POLICY", default_value = "Respect", value_parser = ["Respect", "Ignore"], env = "PREFERENCE_POLICY")]
    preference_policy: String,
    /// What happens where minValues cannot be met.
    #[arg(long, value_name = "POLICY", default_value = "Strict", value_parser = ["Strict", "BestEffort"], env = "MIN_VALUES_POLICY")]
    min_values_policy: String,
    /// How long a node that joined may take to report its hardware.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration, env = "ASSAY_REPORT_TIMEOUT")]
    report_timeout: Duration,
    /// What happens to one that does not: it is used unmeasured, or replaced.
    #[arg(long, value_name = "POLICY", default_value = "Trust", value_parser = ["Trust", "Replace"], env = "ASSAY_REPORT_TIMEOUT_POLICY")]
    report_timeout_policy: String,
    /// Calls per second to the API server …
    #[arg(long, value_name = "N", default_value_t = 200, env = "KUBE_CLIENT_QPS")]
    kube_client_qps: u32,
    /// … and at once.
    #[arg(long, value_name = "N", default_value_t = 300, env = "KUBE_CLIENT_BURST")]
    kube_client_burst: u32,
    /// KubeSchedulerConfiguration with the default spread of the cluster's scheduler.
    #[arg(long, value_name = "FILE", env = "SCHEDULER_CONFIG")]
    scheduler_config: Option<PathBuf>,
    /// TCP port of metrics.
    #[arg(long, value_name = "PORT", default_value_t = 8080, env = "METRICS_PORT")]
    metrics_port: u16,
    /// TCP port of /healthz and /readyz.
    #[arg(long, value_name = "PORT", default_value_t = 8081, env = "HEALTH_PROBE_PORT")]
    health_port: u16,
    #[command(flatten)]
    catalog: catalog::Choice,
    #[command(flatten)]
    fleet: FleetArgs,
    #[command(flatten)]
    simulation: Simulation,
}

/// How the simulated cloud behaves.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Simulated cloud")]
struct Simulation {
    /// Seconds from a VM's creation to its node, shortest and longest.
    #[arg(long, value_name = "LEAST,MOST", default_value = "5,15", value_parser = boot_seconds, env = "ASSAY_SIMULATED_BOOT")]
    simulated_boot: (u64, u64),
    /// Behaviour of the cloud as the `cloud` of a scenario file has it (docs/simulate.md).
    #[arg(long, value_name = "FILE", env = "ASSAY_SIMULATED_CLOUD")]
    simulated_cloud: Option<PathBuf>,
    /// Certificate authority of the fleet server, for the simulated agents; otherwise the server's own certificate.
    #[arg(long, value_name = "FILE", env = "ASSAY_SIMULATED_AGENTS_CA")]
    simulated_agents_ca: Option<PathBuf>,
    /// Address and port at which the simulated agents reach the fleet server.
    #[arg(long, value_name = "HOST:PORT", env = "ASSAY_SIMULATED_AGENTS_SERVER")]
    simulated_agents_server: Option<String>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let milliseconds = text.strip_suffix("ms").and_then(|number| number.parse().ok());
    milliseconds
        .map(Duration::from_millis)
        .or_else(|| parse_duration(text))
        .ok_or_else(|| "expected a duration such as 500ms, 1s or 5m".to_owned())
}

fn boot_seconds(text: &str) -> Result<(u64, u64), String> {
    let wrong = || "expected two numbers of seconds such as 5,15, the smaller one first".to_owned();
    let (least, most) = text.split_once(',').ok_or_else(wrong)?;
    let (least, most) =
        (least.trim().parse().map_err(|_| wrong())?, most.trim().parse().map_err(|_| wrong())?);
    if least <= most { Ok((least, most)) } else { Err(wrong()) }
}

pub(super) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    log_to_stderr();
    let catalog = arguments.catalog.load().context("catalogue")?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start the runtime")?;
    let served = runtime.block_on(serve(arguments, catalog));
    // What is still under way has had its time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    served.map(|()| Answer::Yes)
}

async fn serve(arguments: &Arguments, catalog: Catalog) -> anyhow::Result<()> {
    let (metrics, health) = (Arc::new(Metrics::new()), Health::default());
    let config = configuration(arguments.kubeconfig.as_deref(), arguments.context.as_deref()).await?;
    let settings = ClientSettings {
        qps: arguments.kube_client_qps,
        burst: arguments.kube_client_burst,
        ..ClientSettings::default()
    };
    let calls = ApiCalls::default();
    metrics.watch_api_calls(calls.clone());
    // Agents do not wait behind the writes of the scheduler, nor those behind a fleet that comes back.
    let reviews = client(config.clone(), settings, calls.clone())?;
    let machines = client(config.clone(), simulated_machines(), ApiCalls::default())?;
    let client = client(config, settings, calls)?;
    let port = |port| WebConfig { listen: (Ipv6Addr::UNSPECIFIED, port).into(), ..WebConfig::default() };
    let mut web = Vec::new();
    for number in [arguments.metrics_port, arguments.health_port] {
        let server = WebServer::start(port(number), Arc::clone(&metrics), health.clone()).await;
        web.push(server.with_context(|| format!("listen on port {number}"))?);
    }

    let (reports, fleet) = mpsc::channel(FLEET_WAITING);
    let fleet_server = arguments.fleet.start(reviews, &metrics, &health, reports).context("fleet server")?;
    let scheduler_configuration = arguments
        .scheduler_config
        .as_ref()
        .map(|path| std::fs::read_to_string(path).with_context(|| path.display().to_string()))
        .transpose()?;
    let catalog = Arc::new(catalog);
    let observed =
        ObserverSettings { scheduler_configuration, seed: rand::random(), ..ObserverSettings::default() };
    let types = Arc::clone(&catalog);
    let types = Box::new(move |class: &NodeClass| types.instance_types(class, |_: &str| None));
    let observer = Observer::start(&client, observed, types)?;

    let cloud: Arc<dyn Cloud> =
        Arc::new(MeasuredCloud::new(arguments.simulated_cloud(machines.clone())?, Arc::clone(&metrics)));
    let (stop, stopped) = watch::channel(false);
    let (leadership, leads) = watch::channel(Leadership::Follower { leader: None });
    let identity =
        format!("{}_{:08x}", arguments.identity.as_deref().unwrap_or("assay"), rand::random::<u32>());
    let election = Campaign { namespace: arguments.namespace.clone(), lease: arguments.lease.clone() };
    let elector = Elector::new(identity, Timing::default());
    let election = tokio::spawn(campaign(client.clone(), election, elector, leadership, stopped.clone()));

    let (answer, answers) = mpsc::channel(ANSWERS_WAITING);
    let writer = Writer::start(
        client.clone(),
        Arc::clone(&cloud),
        Gate::new(leads.clone()),
        answer.clone(),
        Arc::clone(&metrics),
    );
    let engine_settings = arguments.settings();
    let make = move |profiles| {
        let settings = Settings { seed: rand::random(), ..engine_settings.clone() };
        Engine::new(settings, Box::new(Arc::clone(&catalog)), profiles)
    };
    let hosting = tokio::spawn(host(arguments.host(machines, &fleet_server)?, leads.clone()));
    let parts = Parts {
        client,
        observer,
        fleet,
        answers,
        answer,
        leadership: leads,
        writer,
        cloud,
        make: Box::new(make),
        health,
        metrics,
    };
    let driver = Driver::new(parts).await;
    let handle = tokio::runtime::Handle::current();
    let looping = std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || handle.block_on(driver.run(stopped)))
        .context("start the loop")?;

    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    stop.send_replace(true);
    hosting.abort();
    // The lease is given up before the process goes: another one need not wait for it.
    let _ = election.await;
    fleet_server.stop().await;
    if tokio::task::spawn_blocking(move || looping.join()).await?.is_err() {
        bail!("the loop ended by a bug");
    }
    Ok(())
}

/// How kubelets and agents that do not exist use the API server: they are many, and none of them is the scheduler.
fn simulated_machines() -> ClientSettings {
    ClientSettings {
        qps: 2_000,
        burst: 2_000,
        user_agent: concat!("assay-simulated-machines/", env!("CARGO_PKG_VERSION")),
        ..ClientSettings::default()
    }
}

/// Runs the simulated VMs while this scheduler leads: one of several does.
async fn host(host: Host, mut leadership: watch::Receiver<Leadership>) {
    loop {
        let leads = leadership.borrow_and_update().term(tokio::time::Instant::now()).is_some();
        if leads {
            tokio::select! {
                () = host.run() => {}
                () = until_follower(&mut leadership) => {}
            }
            host.stand_still();
        } else if leadership.changed().await.is_err() {
            return;
        }
    }
}

async fn until_follower(leadership: &mut watch::Receiver<Leadership>) {
    while leadership.borrow_and_update().term(tokio::time::Instant::now()).is_some() {
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

impl Arguments {
    fn settings(&self) -> Settings {
        let preferences =
            if self.preference_policy == "Ignore" { Preferences::Ignore } else { Preferences::Respect };
        let min_values =
            if self.min_values_policy == "BestEffort" { MinValues::BestEffort } else { MinValues::Strict };
        Settings {
            batch_idle: self.batch_idle,
            batch_max: self.batch_max,
            report_timeout: self.report_timeout,
            report_timeout_policy: match self.report_timeout_policy.as_str() {
                "Replace" => ReportTimeoutPolicy::Replace,
                _ => ReportTimeoutPolicy::Trust,
            },
            solve: SolveOptions { preferences, min_values, ..SolveOptions::default() },
            ..Settings::default()
        }
    }

    fn simulated_cloud(&self, client: kube::Client) -> anyhow::Result<Arc<SimulatedCloud>> {
        let mut cloud = match &self.simulation.simulated_cloud {
            None => CloudOptions::default(),
            Some(path) => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).with_context(|| name.clone())?;
                serde_yaml_ng::from_str(&text).context(name)?
            }
        };
        if self.simulation.simulated_cloud.is_none() {
            cloud.boot_seconds = self.simulation.simulated_boot;
        }
        let options = SimulationOptions {
            namespace: self.namespace.clone(),
            cloud,
            seed: rand::random(),
            answer: Duration::from_millis(500),
            deletion: Duration::from_secs(2),
        };
        Ok(Arc::new(SimulatedCloud::new(client, options)))
    }

    /// What runs the simulated VMs.
    fn host(&self, client: kube::Client, fleet: &ClusterFleet) -> anyhow::Result<Host> {
        let local = fleet.server().local_addr();
        let local = SocketAddr::new(
            if local.is_ipv6() { Ipv6Addr::LOCALHOST.into() } else { local.ip() },
            local.port(),
        );
        let server = self.simulation.simulated_agents_server.clone().unwrap_or_else(|| local.to_string());
        let link = TokenLink::new(
            client.clone(),
            self.fleet.agent_service_account.clone(),
            self.fleet.agent_audience.clone(),
            server.parse().with_context(|| format!("--simulated-agents-server {server}"))?,
            self.simulation.simulated_agents_ca.clone().unwrap_or_else(|| self.fleet.fleet_cert.clone()),
        )?;
        Ok(Host::new(client, &self.namespace, Arc::new(link)))
    }
}

/// `RUST_LOG` chooses what is logged; otherwise what an operator needs. JSON where nobody reads along.
fn log_to_stderr() {
    use std::io::IsTerminal as _;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let logging = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Fails only where logging is set up already.
    let _ = if std::io::stderr().is_terminal() {
        logging.with_target(false).try_init()
    } else {
        logging.json().flatten_event(true).try_init()
    };
}
