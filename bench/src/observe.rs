//! What it takes to know a large cluster: memory, and the time until everything is known. Real lists and watches over HTTP, of
//! objects as long as an API server's.
//!
//! ```text
//!   assay-bench observe --spawns--> observe-scheduler: Observer, Engine; measures itself
//!                       \--spawns-> observe-server: writes the objects that are asked for
//! ```

mod objects;
mod server;

use std::env;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use assay_core::catalog::Catalog;
use assay_core::engine::{Engine, Event, Settings};
use assay_core::model::Timestamp;
use assay_core::profile::ProfileStore;
use assay_scheduler::kube::client::{ApiCalls, ClientSettings, client};
use assay_scheduler::kube::observe::{Kind, Observer, ObserverSettings};

use crate::report::machine;

const SERVER: &str = "observe-server";
const SCHEDULER: &str = "observe-scheduler";
/// What the project promises at this size.
const RESIDENT_MAX_MIB: u64 = 600;

/// Measures, prints and writes `bench/results/observe.md`.
pub(crate) fn run() -> anyhow::Result<()> {
    let output = Command::new(env::current_exe()?).arg(SCHEDULER).stderr(Stdio::inherit()).output()?;
    ensure!(output.status.success(), "{SCHEDULER}: {}", output.status);
    let page = String::from_utf8(output.stdout)?;
    print!("{page}");
    std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("results/observe.md"), page)?;
    Ok(())
}

/// Where this process is one of those that [`run`] spawns: its work.
pub(crate) fn child() -> Option<anyhow::Result<()>> {
    match env::args().nth(1)?.as_str() {
        SERVER => Some(server::serve()),
        SCHEDULER => {
            Some(
                (|| tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(scheduler()))(
                ),
            )
        }
        _ => None,
    }
}

/// The server, ended when this is dropped.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start() -> anyhow::Result<Self> {
        let mut process = Command::new(env::current_exe()?)
            .arg(SERVER)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut address = String::new();
        BufReader::new(process.stdout.take().context("its output")?).read_line(&mut address)?;
        Ok(Self { process, address: address.trim().to_owned() })
    }

    /// Lets the watch of pods go on.
    fn go(&self) -> anyhow::Result<()> {
        let mut connection = TcpStream::connect(&self.address)?;
        write!(connection, "GET {} HTTP/1.1\r\n\r\n", server::GO)?;
        connection.read_exact(&mut [0; 12])?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its standard input ends with us in any case.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Memory and CPU time of this process.
#[derive(Clone, Copy)]
struct Usage {
    resident: u64,
    peak: u64,
    cpu: Duration,
}

impl Usage {
    fn now() -> anyhow::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let mib = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name.to_owned())?;
            let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
            Ok(kib >> 10)
        };
        let stat = std::fs::read_to_string("/proc/self/stat")?;
        // Behind the name, which may hold anything; user and system time, in hundredths of a second on every Linux.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks =
            |place: usize| fields.get(place).and_then(|text| text.parse::<u64>().ok()).context("times");
        let cpu = Duration::from_millis((ticks(11)? + ticks(12)?) * 10);
        Ok(Self { resident: mib("VmRSS")?, peak: mib("VmHWM")?, cpu })
    }
}

/// A line of the table.
fn row(page: &mut String, what: &str, took: Duration, before: Usage, now: Usage) -> anyhow::Result<()> {
    let cpu = now.cpu.saturating_sub(before.cpu).as_secs_f64();
    let (took, resident, peak) = (took.as_secs_f64(), now.resident, now.peak);
    let line = format!("| {what} | {took:.2} | {cpu:.2} | {resident} | {peak} |");
    eprintln!("{line}");
    writeln!(page, "{line}")?;
    Ok(())
}

async fn scheduler() -> anyhow::Result<()> {
    let server = Server::start()?;
    let config = kube::Config::new(format!("http://{}", server.address).parse()?);
    let calls = ApiCalls::default();
    let client = client(config, ClientSettings::default(), calls.clone())?;
    let catalog = Catalog::builtin("eastus")?;
    let types = catalog.clone();
    let types = Box::new(move |class: &_| types.instance_types(class, |_| None));
    let start = Usage::now()?;
    let mut page = format!(
        "# What it takes to know a cluster\n\nMachine: {}, shared with the server of the objects. `make bench-observe` makes this page.\n\n\
         {} nodes with their claims, {} pods (half of DaemonSets; {} bytes of JSON each), 5,000 volumes; lists and watches over HTTP. \
         Memory in MiB, the runtime and the catalogue included.\n\n\
         | step | seconds | CPU seconds | resident | peak so far |\n|---|---|---|---|---|\n",
        machine(),
        objects::NODES,
        objects::PODS,
        objects::pod(objects::PODS / 2, 1).len(),
    );
    row(&mut page, "started", Duration::ZERO, start, start)?;

    let started = Instant::now();
    let mut observer = Observer::start(&client, ObserverSettings::default(), types)?;
    let mut events = 0;
    observer.changed().await;
    observer.tell(&mut |_| events += 1);
    ensure!(observer.store().is_synced() && observer.store().problems().next().is_none());
    ensure!(events > objects::PODS + 2 * objects::NODES, "only {events} events");
    row(&mut page, "everything listed, read and told", started.elapsed(), start, Usage::now()?)?;
    let listed = calls.total();

    let (started, before) = (Instant::now(), Usage::now()?);
    let mut engine = Engine::new(Settings::default(), Box::new(catalog), ProfileStore::default());
    let mut now = Timestamp(1_790_000_000_000);
    observer.replay(&mut drop);
    row(&mut page, "all read and told again", started.elapsed(), before, Usage::now()?)?;
    let (started, before) = (Instant::now(), Usage::now()?);
    observer.replay(&mut |event| engine.handle(now, event));
    row(&mut page, "the same to an engine, as for a new leader", started.elapsed(), before, Usage::now()?)?;

    let (started, before) = (Instant::now(), Usage::now()?);
    let effects = engine.advance(now).len();
    row(
        &mut page,
        &format!("first decisions ({effects} effects)"),
        started.elapsed(),
        before,
        Usage::now()?,
    )?;

    let (started, before) = (Instant::now(), Usage::now()?);
    server.go()?;
    let (mut told, mut pending) = (0, 0);
    while pending < server::PENDING {
        observer.changed().await;
        observer.tell(&mut |event| {
            told += 1;
            pending += usize::from(matches!(&event, Event::PodApplied(pod) if pod.is_pending()));
            engine.handle(now, event);
        });
    }
    let what = format!("{} changes of pods, {told} told", server::CHANGES + server::PENDING);
    row(&mut page, &what, started.elapsed(), before, Usage::now()?)?;

    let (started, before) = (Instant::now(), Usage::now()?);
    now = now + Duration::from_secs(30);
    let effects = engine.advance(now).len();
    let what = format!("{} pending pods decided ({effects} effects)", server::PENDING);
    row(&mut page, &what, started.elapsed(), before, Usage::now()?)?;

    tokio::time::sleep(Duration::from_secs(5)).await;
    let settled = Usage::now()?;
    row(&mut page, "settled", Duration::ZERO, settled, settled)?;
    let health = observer.health();
    ensure!(health[&Kind::Pod].lists == 1, "{health:?}");
    writeln!(
        page,
        "\n{listed} API calls until everything was known. Promised: at most {RESIDENT_MAX_MIB} MiB."
    )?;
    ensure!(settled.peak <= RESIDENT_MAX_MIB, "{page}\nmore than {RESIDENT_MAX_MIB} MiB");
    print!("{page}");
    Ok(())
}
