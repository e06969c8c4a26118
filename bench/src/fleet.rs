//! The fleet link: what an agent costs the server in memory, how many reports a core handles, what the agent itself takes.
//!
//! ```text
//!   assay-bench --measure--> server process --spawns--> swarm process (agents on one socket)
//!                            (measures itself)      \-> agent process (`assay-agent run`)
//! ```
//!
//! The server has a process of its own, so that its memory and CPU time are its own; the agents another, which ends when
//! its standard input does.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use assay_agent::link::args::{self as agent, RunArgs};
use assay_agent::link::{Credentials, LinkConfig, LinkEndpoint, Reconnect, run_link};
use assay_agent::sources::{ImdsChoice, NvmlChoice, SourceArgs};
use assay_agent::tree::Machine;
use assay_scheduler::fleet::ca::{AGENT_VALIDITY, DevCa, SERVER_VALIDITY};
use assay_scheduler::fleet::{CertificateAuthenticator, FleetConfig, FleetHandle, FleetServer, NameIn, Rate};
use assay_shared::report::Hugepages;
use assay_shared::units::Bytes;
use assay_shared::{Fact, NodeName, azure};
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, watch};

/// Agents connected while memory is measured.
const AGENTS: usize = 2_000;
/// Agents connected before the first measurement, so that what is there once is not counted per agent.
const WARM_UP: usize = 50;
/// Agents that report as fast as they can while CPU time is measured, and how often each tries to.
const BUSY_AGENTS: usize = 200;
const BUSY_INTERVAL: Duration = Duration::from_millis(5);
/// How long CPU time is measured.
const BUSY: Duration = Duration::from_secs(5);
/// How long to wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(120);
/// The machine that every agent reports: its lists are of ordinary length.
const VM_SIZE: &str = "Standard_D16ds_v5";

const SERVER: &str = "fleet-server";
const SWARM: &str = "fleet-swarm";
const AGENT: &str = "fleet-agent";

/// Measures, and prints a line for each figure.
pub(crate) fn run() -> anyhow::Result<()> {
    let figures = measure()?;
    let (kib, mib) = (|bytes| bytes >> 10, |bytes| bytes >> 20);
    let agents = format!("{} agents connected and reported", figures.agents);
    println!("{agents:<52} {:>10.2} s", figures.connected_after.as_secs_f64());
    println!("{:<52} {:>8} KiB", "    server memory per agent", kib(figures.server_bytes_per_agent));
    println!("{:<52} {:>12.0}", "    reports per second and core", figures.reports_per_core_second);
    println!("{:<52} {:>8} MiB", "    memory of assay-agent run", mib(figures.agent_bytes));
    Ok(())
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FleetFigures {
    /// Agents connected while memory was measured.
    pub(crate) agents: usize,
    /// From the first datagram to the last acknowledged report, with agents and server on this machine.
    pub(crate) connected_after: Duration,
    /// Resident memory of the server per agent, its last report included.
    pub(crate) server_bytes_per_agent: u64,
    /// Reports handled per second of the server's CPU time.
    pub(crate) reports_per_core_second: f64,
    /// Resident memory of one `assay-agent run` that surveys this machine.
    pub(crate) agent_bytes: u64,
}

/// Measures, in processes of their own.
pub(crate) fn measure() -> anyhow::Result<FleetFigures> {
    let output = Command::new(env::current_exe()?).arg(SERVER).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{SERVER}: {}", output.status);
    let text = String::from_utf8(output.stdout)?;
    let figures: Vec<f64> =
        text.split_whitespace().map(str::parse).collect::<Result<_, _>>().context(text.clone())?;
    let [connected, per_agent, rate, agent] = figures[..] else { bail!("{SERVER} said {text:?}") };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // printed from whole, positive numbers
    let bytes = |figure: f64| figure as u64;
    Ok(FleetFigures {
        agents: AGENTS,
        connected_after: Duration::from_secs_f64(connected),
        server_bytes_per_agent: bytes(per_agent),
        reports_per_core_second: rate,
        agent_bytes: bytes(agent),
    })
}

/// Where this process is one of those that [`measure`] spawns: its work.
pub(crate) fn child() -> Option<anyhow::Result<()>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        [SERVER] => Some(runtime().map_err(Into::into).and_then(|runtime| runtime.block_on(server()))),
        [SWARM, address, directory, count, interval] => Some((|| {
            let swarm = swarm(address, Path::new(directory), count.parse()?, interval.parse()?);
            runtime()?.block_on(swarm)
        })()),
        [AGENT, address, directory] => Some(one_agent(address, Path::new(directory))),
        _ => None,
    }
}

/// The server process: prints its figures.
async fn server() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let ca = DevCa::create_in(directory.path())?;
    let server = start(&ca)?;

    let idle = Duration::from_secs(3600);
    let warm_up = spawn_swarm(&server, directory.path(), WARM_UP, idle)?;
    until("the warm-up", || server.counters().full_reports >= WARM_UP as u64).await?;
    stop(warm_up).await?;
    until("the warm-up to end", || server.counters().connected == 0).await?;
    let (before, reports) = (resident("self")?, server.counters().full_reports);

    let started = Instant::now();
    let agents = spawn_swarm(&server, directory.path(), AGENTS, idle)?;
    let all = || server.counters().full_reports >= reports + AGENTS as u64;
    until("all agents", || all() && server.counters().connected == AGENTS as u64).await?;
    let connected = started.elapsed();
    // Handshakes leave buffers behind until their last packets are acknowledged.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let per_agent = resident("self")?.saturating_sub(before) / AGENTS as u64;
    stop(agents).await?;

    let busy = spawn_swarm(&server, directory.path(), BUSY_AGENTS, BUSY_INTERVAL)?;
    until("busy agents", || server.counters().connected == BUSY_AGENTS as u64).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (reports, cpu) = (server.counters().reports(), cpu_time()?);
    tokio::time::sleep(BUSY).await;
    let (reports, cpu) = (server.counters().reports() - reports, cpu_time()?.saturating_sub(cpu));
    stop(busy).await?;
    #[allow(clippy::cast_precision_loss)] // far below 2^52
    let rate = reports as f64 / cpu.as_secs_f64();

    let reports = server.counters().full_reports;
    let agent = spawn(AGENT, &[&server.local_addr().to_string(), &path(directory.path())?])?;
    until("one agent", || server.counters().full_reports > reports).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let agent_bytes = resident(&agent.0.id().to_string())?;
    drop(agent);

    println!("{} {per_agent} {rate} {agent_bytes}", connected.as_secs_f64());
    Ok(())
}

fn start(ca: &DevCa) -> anyhow::Result<FleetHandle> {
    let unlimited = Rate { per_second: 1_000_000, burst: 1_000_000 };
    let config = FleetConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        // All agents come from one address, and the busy ones are far above what an agent may send.
        unproved_handshakes: unlimited,
        handshakes_per_address: unlimited,
        messages_per_agent: unlimited,
        handshakes: 2 * AGENTS,
        retry_above: 2 * AGENTS,
        ..FleetConfig::default()
    };
    let identity = ca.issue_server(&["127.0.0.1"], SERVER_VALIDITY)?.server_identity()?;
    let authenticator =
        CertificateAuthenticator::new([(vec![ca.certificate().clone()], NameIn::SubjectAltName)])?;
    let (events, mut taken) = mpsc::channel(1024);
    tokio::spawn(async move { while taken.recv().await.is_some() {} });
    Ok(FleetServer::start(config, identity, Arc::new(authenticator), events)?)
}

/// The swarm process: agents until standard input ends.
async fn swarm(address: &str, directory: &Path, count: usize, interval_ms: u64) -> anyhow::Result<()> {
    let ca = DevCa::load(directory)?;
    let endpoint = LinkEndpoint::bind()?;
    let report = Machine::azure(azure::size(VM_SIZE).context("a known size")?).report(None);
    let (stop, stopped) = watch::channel(false);
    let mut agents = tokio::task::JoinSet::new();
    for number in 0..count {
        let node: NodeName = format!("node-{number}").parse()?;
        let issued = ca.issue_agent(&node, AGENT_VALIDITY)?;
        let mut report = report.clone();
        report.identity.node_name = Fact::Measured(node.to_string());
        let config = LinkConfig {
            scheduler: address.parse()?,
            server_name: None,
            node,
            credentials: Credentials::Pem {
                ca: ca.certificate_pem().to_owned(),
                certificate: issued.certificate_pem,
                key: issued.key_pem,
            },
            interval: Some(Duration::from_millis(interval_ms)),
            reconnect: Reconnect { first: Duration::from_millis(100), longest: Duration::from_secs(1) },
        };
        let mut surveys = 0;
        // Every survey differs from the one before.
        let source = move || {
            surveys += 1;
            let pages = Hugepages { size_bytes: Bytes::mib(2), total: 0, free: surveys };
            report.memory.hugepages = Fact::Measured(vec![pages]);
            report.clone()
        };
        agents.spawn(run_link(config, endpoint.clone(), source, stopped.clone()));
    }
    tokio::io::stdin().read_to_end(&mut Vec::new()).await?;
    stop.send_replace(true);
    while let Some(ended) = agents.join_next().await {
        ended??;
    }
    endpoint.wait_idle().await;
    Ok(())
}

/// The agent process: `assay-agent run` on this machine.
fn one_agent(address: &str, directory: &Path) -> anyhow::Result<()> {
    let node: NodeName = "agent".parse()?;
    let (cert, key) =
        DevCa::load(directory)?.issue_agent(&node, AGENT_VALIDITY)?.write(directory, "agent")?;
    let sources = SourceArgs { root: PathBuf::from("/"), nvml: NvmlChoice::Off, imds: ImdsChoice::Off };
    let args = RunArgs {
        scheduler: address.parse()?,
        node_name: node,
        ca: directory.join("ca.crt"),
        cert: Some(cert),
        key: Some(key),
        token_file: None,
        server_name: None,
        all_replicas: false,
        once: false,
        interval: None,
        sources,
    };
    agent::run(&args).map(drop)
}

fn spawn_swarm(
    server: &FleetHandle,
    directory: &Path,
    count: usize,
    interval: Duration,
) -> anyhow::Result<Process> {
    let (address, interval) = (server.local_addr().to_string(), interval.as_millis().to_string());
    spawn(SWARM, &[&address, &path(directory)?, &count.to_string(), &interval])
}

/// A process that does not outlive this one's interest in it.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(what: &str, args: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new(env::current_exe()?);
    // The agent logs that it is connected; the table shall stay one.
    command.arg(what).args(args).env("RUST_LOG", "error").stdin(Stdio::piped()).stdout(Stdio::null());
    command.spawn().context(what.to_owned()).map(Process)
}

/// Ends a swarm by closing its standard input.
async fn stop(mut swarm: Process) -> anyhow::Result<()> {
    drop(swarm.0.stdin.take());
    let ended = tokio::task::spawn_blocking(move || swarm.0.wait()).await??;
    ensure!(ended.success(), "{SWARM}: {ended}");
    Ok(())
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.with_context(|| format!("waited for {what}"))
}

fn path(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().context("a path in UTF-8")?.to_owned())
}

/// Resident memory of a process, bytes.
fn resident(process: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    let kib: u64 = line.split_whitespace().next().context("a number")?.parse()?;
    Ok(kib << 10)
}

/// CPU time of this process, all threads.
fn cpu_time() -> anyhow::Result<Duration> {
    /// Linux counts here in hundredths of a second, whatever its own tick is.
    const TICK: Duration = Duration::from_millis(10);
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The name in parentheses may contain anything; utime and stime are fields 14 and 15, counted from 1.
    let (_, fields) = stat.rsplit_once(')').context("/proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    Ok(TICK * ticks.sum::<Result<u32, _>>()?)
}
