//! What it takes to run a large cluster: memory, and the time until everything is known. The program itself, `assay serve`, at an
//! API server that lists and watches generated objects, each as long as a real one's.
//!
//! ```text
//!   assay-bench observe --spawns--> assay serve: observer, engine, writer; its memory and CPU time are read from /proc
//!                       \--spawns-> observe-server: writes the objects that are asked for, takes what is written
//! ```

mod objects;
mod server;

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use assay_scheduler::fleet::ca::{DevCa, SERVER_VALIDITY};
use serde_json::json;

use crate::process::{Usage, sibling};
use crate::report::machine;

const SERVER: &str = "observe-server";
/// What the project promises at this size.
const RESIDENT_MAX_MIB: u64 = 600;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// A program that used less CPU time than this in [`QUIET`] has nothing to do.
const QUIET_CPU: Duration = Duration::from_millis(60);
const QUIET: Duration = Duration::from_secs(1);

/// Measures, prints and writes `bench/results/observe.md`.
pub(crate) fn run() -> anyhow::Result<()> {
    let page = measure()?;
    print!("{page}");
    fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("results/observe.md"), page)?;
    Ok(())
}

/// Where this process is the one that [`run`] spawns: its work.
pub(crate) fn child() -> Option<anyhow::Result<()>> {
    (env::args().nth(1)?.as_str() == SERVER).then(server::serve)
}

/// A process that ends when this is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The server of the objects.
struct Server {
    _process: Ended,
    address: String,
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        let process = Command::new(env::current_exe()?)
            .arg(SERVER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut process = Ended(process);
        let mut address = String::new();
        BufReader::new(process.0.stdout.take().context("its output")?).read_line(&mut address)?;
        Ok(Self { _process: process, address: address.trim().to_owned() })
    }

    /// Lets the watch of pods go on.
    fn go(&self) -> anyhow::Result<()> {
        get(&self.address, server::GO).map(drop)
    }

    /// NodeClaims that were made so far.
    fn bought(&self) -> anyhow::Result<u64> {
        Ok(get(&self.address, server::BOUGHT)?.trim().parse()?)
    }
}

/// The body of an answer.
fn get(address: &str, path: &str) -> anyhow::Result<String> {
    let mut connection = TcpStream::connect(address)?;
    write!(connection, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}

/// A scheduler of that server's cluster.
struct Scheduler {
    process: Ended,
    metrics: String,
    started: Instant,
    _directory: tempfile::TempDir,
}

impl Scheduler {
    fn start(server: &Server) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = |name: &str, text: &str| -> anyhow::Result<_> {
            let path = directory.path().join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{}", server.address)}}],
            "users": [{"name": "c", "user": {}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        let issued = DevCa::create()?.issue_server(&["localhost"], SERVER_VALIDITY)?;
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let (metrics, health) = (free()?.port(), free()?.port());
        let process = Command::new(sibling("assay")?)
            .args(["serve", "--cloud", "sim", "--fleet-listen", "127.0.0.1:0", "--kubeconfig"])
            .arg(file("kubeconfig", &kubeconfig.to_string())?)
            .arg("--fleet-cert")
            .arg(file("tls.crt", &issued.certificate_pem)?)
            .arg("--fleet-key")
            .arg(file("tls.key", &issued.key_pem)?)
            .args(["--metrics-port", &metrics.to_string(), "--health-port", &health.to_string()])
            .env("RUST_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("assay serve")?;
        Ok(Self {
            process: Ended(process),
            metrics: format!("127.0.0.1:{metrics}"),
            started: Instant::now(),
            _directory: directory,
        })
    }

    fn usage(&self) -> anyhow::Result<Usage> {
        Usage::of(self.process.0.id())
    }

    /// A metric without labels.
    fn metric(&self, name: &str) -> Option<f64> {
        let page = get(&self.metrics, "/metrics").ok()?;
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&Self) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let begin = Instant::now();
        while !holds(self)? {
            if let Some(status) = self.process.0.try_wait()? {
                bail!("assay serve ended with {status}");
            }
            ensure!(begin.elapsed() < PATIENCE, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until it has nothing to do; since when that was so.
    fn quiet(&self) -> anyhow::Result<Instant> {
        let begin = Instant::now();
        loop {
            let (since, before) = (Instant::now(), self.usage()?);
            std::thread::sleep(QUIET);
            if self.usage()?.cpu.saturating_sub(before.cpu) < QUIET_CPU {
                return Ok(since);
            }
            ensure!(begin.elapsed() < PATIENCE, "it does not come to rest");
        }
    }
}

fn measure() -> anyhow::Result<String> {
    let server = Server::start()?;
    let mut scheduler = Scheduler::start(&server)?;
    let mut page = format!(
        "# What it takes to run a large cluster\n\nMachine: {}, shared with the server of the objects. `make bench-observe` makes this page.\n\n\
         `assay serve --cluster kube` at {} nodes with their claims, {} pods (half of DaemonSets; {} bytes of JSON each), 5,000 volumes; lists and \
         watches over HTTP. Memory in MiB, of the whole process, its metrics read now and then. Agents that report come on top: see the fleet link in the README.\n\n\
         | until | seconds | CPU seconds | resident | peak so far |\n|---|---|---|---|---|\n",
        machine(),
        objects::NODES,
        objects::PODS,
        objects::pod(objects::PODS / 2, 1).len(),
    );
    let zero = Usage::default();
    let mut row = |what: &str, took: Duration, before: Usage, now: Usage| -> anyhow::Result<()> {
        let cpu = now.cpu.saturating_sub(before.cpu).as_secs_f64();
        let line = format!(
            "| {what} | {:.1} | {cpu:.1} | {} | {} |",
            took.as_secs_f64(),
            now.resident >> 20,
            now.peak >> 20
        );
        eprintln!("{line}");
        Ok(writeln!(page, "{line}")?)
    };

    scheduler.until("it leads", |scheduler| Ok(scheduler.metric("assay_leader") == Some(1.0)))?;
    row(
        "everything is listed and read, and an engine knows it",
        scheduler.started.elapsed(),
        zero,
        scheduler.usage()?,
    )?;
    let rest = scheduler.quiet()?;
    let known = scheduler.usage()?;
    row("the first decisions are made and written", rest - scheduler.started, zero, known)?;

    let bought = server.bought()?;
    let began = Instant::now();
    server.go()?;
    scheduler.until("the first machine for what is pending", |_| Ok(server.bought()? > bought))?;
    let what = format!(
        "{} changes of pods later, the first machine for {} pods that then came pending is bought",
        server::CHANGES,
        server::PENDING
    );
    row(&what, began.elapsed(), known, scheduler.usage()?)?;
    let rest = scheduler.quiet()?;
    // Prometheus comes by, too.
    for _ in 0..3 {
        scheduler.metric("assay_leader");
    }
    let settled = scheduler.usage()?;
    let what = format!("all {} machines for them are bought", server.bought()? - bought);
    row(&what, rest - began, known, settled)?;
    writeln!(page, "\nPromised: at most {RESIDENT_MAX_MIB} MiB.")?;
    ensure!(settled.peak >> 20 <= RESIDENT_MAX_MIB, "{page}\nmore than {RESIDENT_MAX_MIB} MiB");
    Ok(page)
}
