//! What every benchmark shares: repeated timing, rows of the table, the name of the machine.

use std::time::{Duration, Instant};

/// The machine, and what the columns of [`row`] are.
pub(crate) fn heading() {
    println!("machine: {}", machine());
    println!("{:<52} {:>12} {:>12} {:>12}", "", "median", "fastest", "slowest");
}

/// One line of the table; `times` ascending, as [`measure`] gives them.
pub(crate) fn row(what: &str, times: &[Duration]) {
    let at = |place: usize| {
        format!("{:.2} ms", times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3))
    };
    println!("{what:<52} {:>12} {:>12} {:>12}", at(times.len() / 2), at(0), at(times.len() - 1));
}

/// Runs something once to warm up and `runs` times more; the times, ascending.
pub(crate) fn measure(
    runs: usize,
    mut run: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Duration>> {
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

/// How many CPUs, and which.
pub(crate) fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown CPU");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} x {}", cpus, model.trim_start_matches([' ', '\t', ':']))
}
