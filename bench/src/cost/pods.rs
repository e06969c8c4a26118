//! Sets of pods to buy machines for: traces, and recipes that anyone can repeat.

use std::collections::BTreeMap;
use std::path::Path;

use super::data::Table;

/// What one pod asks for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Size {
    pub(crate) milli_cpu: u64,
    pub(crate) memory_mib: u64,
    pub(crate) gpus: u64,
}

impl Size {
    /// That of requests without GPUs.
    pub(crate) fn of(requests: &assay_core::model::ResourceList) -> Self {
        Self { milli_cpu: requests.cpu.0, memory_mib: requests.memory.as_mib(), gpus: 0 }
    }
}

/// Pods by size.
#[derive(Debug, Clone)]
pub(crate) struct PodSet {
    pub(crate) name: String,
    pub(crate) sizes: BTreeMap<Size, u64>,
}

impl PodSet {
    fn new(name: &str, sizes: impl IntoIterator<Item = (u64, u64, u64)>) -> Self {
        let mut set = Self { name: name.to_owned(), sizes: BTreeMap::new() };
        for (milli_cpu, memory_mib, gpus) in sizes {
            *set.sizes.entry(Size { milli_cpu, memory_mib, gpus }).or_default() += 1;
        }
        set
    }

    pub(super) fn pods(&self) -> u64 {
        self.sizes.values().sum()
    }
}

/// Numbers that look random and are the same everywhere (a 64-bit linear congruence).
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn one_of(&mut self, choices: &[u64]) -> u64 {
        choices[usize::try_from(self.below(choices.len() as u64)).unwrap_or(0)]
    }
}

/// Sizes of Karpenter's scheduling benchmark.
fn karpenter(count: u64) -> PodSet {
    let mut draw = Draw(count);
    let one = |_| {
        let cpu = draw.one_of(&[100, 250, 500, 1000, 1500]);
        (cpu, draw.one_of(&[100, 256, 512, 1024, 2048, 4096]), 0)
    };
    PodSet::new(&format!("Karpenter's benchmark sizes, {count}"), (0..count).map(one).collect::<Vec<_>>())
}

/// CPU-heavy, memory-heavy and large pods, mixed.
fn mixed() -> PodSet {
    let mut draw = Draw(930);
    let one = |n: u64| match n % 31 {
        0..=17 => (500 * (1 + draw.below(8)), 512 * (1 + draw.below(6)), 0),
        18..=28 => (250 * (1 + draw.below(6)), 4096 * (1 + draw.below(6)), 0),
        _ => (1000 * (26 + draw.below(15)), 1024 * (32 + draw.below(97)), 0),
    };
    PodSet::new("CPU-heavy, memory-heavy and 26 to 40 cores", (0..930).map(one).collect::<Vec<_>>())
}

/// Sizes that fill no machine evenly.
fn awkward() -> PodSet {
    let mut draw = Draw(400);
    let one = |_| {
        let cores = draw.one_of(&[7, 9, 11, 13, 17]);
        (1000 * cores, 1024 * cores * draw.one_of(&[2, 3, 5, 6]), 0)
    };
    PodSet::new("7, 9, 11, 13 and 17 cores", (0..400).map(one).collect::<Vec<_>>())
}

/// Hardly two of them alike.
fn distinct(count: u64) -> PodSet {
    let mut draw = Draw(7);
    let one = |_| {
        let digits = 4 + draw.below(10);
        let cpu = 100 + draw.below(1 << digits);
        (cpu, 128 + cpu * (50 + draw.below(750)) / 100, 0)
    };
    PodSet::new(&format!("all different, {count}"), (0..count).map(one).collect::<Vec<_>>())
}

fn number(cell: &str) -> f64 {
    cell.parse().unwrap_or(0.0)
}

/// A cell that holds a whole number, perhaps written with a fraction.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // traces hold small non-negative numbers
fn whole(cell: f64) -> u64 {
    cell.max(0.0).ceil() as u64
}

/// Pods of the 2023 trace: those that use no card, or whole cards.
fn openb(folder: &Path, variant: &str, cards: impl Fn(u64) -> bool, what: &str) -> anyhow::Result<PodSet> {
    let table = Table::gzip(&folder.join(format!("openb/openb_pod_list_{variant}.csv.gz")))?;
    let rows = table.rows().filter_map(|row| {
        let gpus = whole(number(row.cell("num_gpu")));
        let shared = gpus == 1 && number(row.cell("gpu_milli")) < 1000.0;
        let size = (whole(number(row.cell("cpu_milli"))), whole(number(row.cell("memory_mib"))), gpus);
        (!shared && cards(gpus)).then_some(size)
    });
    Ok(PodSet::new(&format!("openb {variant}, {what}"), rows))
}

/// Instances of the 2025 trace by role. Machines here have at most so many cores for pods.
fn dlrm(folder: &Path, role: &str, every: usize, what: &str) -> anyhow::Result<PodSet> {
    let table = Table::gzip(&folder.join("dlrm2025/disaggregated_DLRM_trace_even_apps.csv.gz"))?;
    let rows = table.rows().filter(|row| row.cell("role") == role).step_by(every).filter_map(|row| {
        let cpu = whole(number(row.cell("cpu_request")));
        let memory = whole(1024.0 * number(row.cell("memory_request")));
        (cpu <= 64).then_some((cpu * 1000, memory, whole(number(row.cell("gpu_request")))))
    });
    Ok(PodSet::new(&format!("DLRM {what}"), rows))
}

/// Those that consolidation is measured on.
pub(super) fn placement(folder: &Path) -> anyhow::Result<Vec<PodSet>> {
    let openb = openb(folder, "default", |cards| cards == 0, "CPU only")?;
    Ok(vec![karpenter(1000), karpenter(5000), openb, mixed(), awkward()])
}

/// All of them.
pub(super) fn sets(folder: &Path) -> anyhow::Result<Vec<PodSet>> {
    Ok(vec![
        karpenter(1000),
        karpenter(5000),
        openb(folder, "default", |cards| cards == 0, "CPU only")?,
        openb(folder, "cpu250", |cards| cards == 0, "CPU only")?,
        mixed(),
        awkward(),
        dlrm(folder, "CN", 3, "instances without GPU, up to 64 cores, every third")?,
        dlrm(folder, "HN", 1, "instances with a GPU")?,
        openb(folder, "multigpu50", |cards| cards > 0, "whole cards")?,
        openb(folder, "default", |_| true, "CPU only and whole cards")?,
        distinct(250),
        distinct(2000),
    ])
}
