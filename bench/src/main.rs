//! Benchmarks: `make bench` prints them as one table, with the machine they ran on.

mod cost;
mod fleet;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use assay_agent::cpu::cpuid::Cpuid;
use assay_agent::gpu::{NvmlSource, library};
use assay_agent::host::RootDir;
use assay_agent::survey::{SurveyOptions, survey};
use assay_core::catalog::Catalog;
use assay_core::model::{Labels, NodeClass, NodePool, Pod, PodId, PodSpec, ResourceList, Snapshot};
use assay_core::solve::{SolveOptions, solve};
use assay_shared::units::{Bytes, MilliCpu};

fn main() -> anyhow::Result<()> {
    if let Some(done) = fleet::child() {
        return done;
    }
    if std::env::args().nth(1).as_deref() == Some("cost") {
        return cost::run(&machine());
    }
    println!("machine: {}", machine());
    println!("{:<52} {:>12} {:>12} {:>12}", "", "median", "fastest", "slowest");
    row("survey of this machine, without GPU", &measure(30, survey_once)?);
    for pods in [1_000, 10_000, 40_000] {
        let snapshot = mixed_pods(pods)?;
        let times = measure(5, || {
            let plan = solve(&snapshot, &SolveOptions::default());
            ensure!(plan.unschedulable.is_empty(), "{} pods left out", plan.unschedulable.len());
            Ok(())
        })?;
        row(&format!("plan of {pods} mixed pods, built-in catalogue"), &times);
        let plan = solve(&snapshot, &SolveOptions::default());
        let (price, bound) = (plan.totals.price.usd(), plan.totals.lower_bound.usd());
        println!("{:<52} {:>12.4}", "    cost / lower bound", price / bound);
    }
    fleet_rows()
}

fn fleet_rows() -> anyhow::Result<()> {
    let figures = fleet::measure()?;
    let (kib, mib) = (|bytes| bytes >> 10, |bytes| bytes >> 20);
    let agents = format!("{} agents connected and reported", figures.agents);
    println!("{agents:<52} {:>10.2} s", figures.connected_after.as_secs_f64());
    println!("{:<52} {:>8} KiB", "    server memory per agent", kib(figures.server_bytes_per_agent));
    println!("{:<52} {:>12.0}", "    reports per second and core", figures.reports_per_core_second);
    println!("{:<52} {:>8} MiB", "    memory of assay-agent run", mib(figures.agent_bytes));
    Ok(())
}

fn row(what: &str, times: &[Duration]) {
    let at = |place: usize| {
        format!("{:.2} ms", times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3))
    };
    println!("{what:<52} {:>12} {:>12} {:>12}", at(times.len() / 2), at(0), at(times.len() - 1));
}

/// Runs something once to warm up and `runs` times more; the times, ascending.
fn measure(runs: usize, mut run: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<Vec<Duration>> {
    run()?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let started = Instant::now();
        run()?;
        times.push(started.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn survey_once() -> anyhow::Result<()> {
    let fs = RootDir::open(Path::new("/")).context("/")?;
    let gpu_library = library(NvmlSource::Off);
    let cpuid = Cpuid::of_running_machine();
    let options = SurveyOptions { node_name: None, imds: None, cpuid, gpu_library: &*gpu_library };
    let report = survey(&fs, &options);
    ensure!(report.memory.total_bytes.is_measured(), "this machine cannot be surveyed");
    Ok(())
}

/// Pods of the sizes of Karpenter's scheduling benchmark, without its topology rules, on the built-in catalogue.
fn mixed_pods(count: usize) -> anyhow::Result<Snapshot> {
    const MILLI_CPU: [u64; 5] = [100, 250, 500, 1000, 1500];
    const MEMORY_MIB: [u64; 6] = [100, 256, 512, 1024, 2048, 4096];
    let specs: Vec<Arc<PodSpec>> = MILLI_CPU
        .iter()
        .flat_map(|cpu| MEMORY_MIB.iter().map(move |mib| (*cpu, *mib)))
        .map(|(cpu, mib)| {
            let requests =
                ResourceList { cpu: MilliCpu(cpu), memory: Bytes::mib(mib), ..ResourceList::one_pod() };
            Arc::new(PodSpec { requests, ..PodSpec::default() })
        })
        .collect();
    let labels = Arc::new(Labels::new());
    // A fixed stride visits the sizes evenly, in an order that no sort would give.
    let pods = (0..count).map(|n| Pod {
        labels: Arc::clone(&labels),
        ..Pod::new(PodId::new("bench", &format!("pod-{n}")), Arc::clone(&specs[n * 7919 % specs.len()]))
    });
    let class = NodeClass::with_defaults("default");
    let types = Catalog::builtin("eastus")?.instance_types(&class, |_| None);
    Ok(Snapshot {
        pods: pods.collect(),
        pools: vec![NodePool::with_defaults("default")],
        instance_types: BTreeMap::from([("default".to_owned(), Arc::new(types))]),
        classes: vec![class],
        ..Snapshot::default()
    })
}

fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} x {}", cpus, model.trim_start_matches([' ', '\t', ':']))
}
