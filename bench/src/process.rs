//! Programs that are measured: where they are, and what they take.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};

/// Memory in bytes, and CPU time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Resident now.
    pub(crate) resident: u64,
    /// Resident at most so far.
    pub(crate) peak: u64,
    /// User and system time.
    pub(crate) cpu: Duration,
}

impl Usage {
    /// Of a process.
    pub(crate) fn of(process: u32) -> anyhow::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{process}/status"))?;
        let bytes = |name: &str| -> anyhow::Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).context(name.to_owned())?;
            let kib: u64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
            Ok(kib << 10)
        };
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // Behind the name, which may hold anything; in hundredths of a second on every Linux.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks =
            |place: usize| fields.get(place).and_then(|text| text.parse::<u64>().ok()).context("times");
        let cpu = Duration::from_millis((ticks(11)? + ticks(12)?) * 10);
        Ok(Self { resident: bytes("VmRSS")?, peak: bytes("VmHWM")?, cpu })
    }
}

/// A program that `make bench-build` puts beside this one.
pub(crate) fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "{} is not there: run make bench-build first", path.display());
    Ok(path)
}
