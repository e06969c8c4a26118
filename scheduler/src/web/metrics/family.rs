//! Metrics of one name, told apart by labels whose names are written once, where the metric is registered.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Names and values of labels.
type Labels<const N: usize> = [(&'static str, String); N];

fn labels<const N: usize>(names: &[&'static str; N], values: [&str; N]) -> Labels<N> {
    std::array::from_fn(|at| (names[at], values[at].to_owned()))
}

/// Counters with `N` labels.
#[derive(Debug, Clone)]
pub(super) struct Counters<const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, Counter>,
}

impl<const N: usize> Counters<N> {
    /// The name goes without `_total`, which the text has.
    pub(super) fn register(
        registry: &mut Registry,
        name: &str,
        help: &str,
        names: [&'static str; N],
    ) -> Self {
        let family = Family::default();
        registry.register(name, help, family.clone());
        Self { names, family }
    }

    pub(super) fn add(&self, values: [&str; N]) {
        self.family.get_or_create(&labels(&self.names, values)).inc();
    }
}

/// Gauges with `N` labels.
#[derive(Debug, Clone)]
pub(super) struct Gauges<const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, Gauge<f64, AtomicU64>>,
}

impl<const N: usize> Gauges<N> {
    pub(super) fn register(
        registry: &mut Registry,
        name: &str,
        help: &str,
        names: [&'static str; N],
    ) -> Self {
        let family = Family::default();
        registry.register(name, help, family.clone());
        Self { names, family }
    }

    pub(super) fn set(&self, values: [&str; N], to: f64) {
        self.family.get_or_create(&labels(&self.names, values)).set(to);
    }
}

/// Histograms with `N` labels.
#[derive(Debug, Clone)]
pub(super) struct Histograms<const N: usize> {
    names: [&'static str; N],
    family: Family<Labels<N>, Histogram, fn() -> Histogram>,
}

/// Bounds of durations in seconds: Karpenter's, so that its dashboards show the same resolution.
const DURATIONS: [f64; 45] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.25,
    1.5, 1.75, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0,
    50.0, 60.0, 120.0, 150.0, 300.0, 450.0, 600.0,
];
/// Bounds of durations that are of minutes to weeks, in seconds.
const LIVES: [f64; 12] = [
    60.0,
    300.0,
    900.0,
    3_600.0,
    14_400.0,
    43_200.0,
    86_400.0,
    172_800.0,
    604_800.0,
    1_209_600.0,
    2_592_000.0,
    7_776_000.0,
];
/// Bounds of a price over the cheapest.
const RATIOS: [f64; 10] = [1.0, 1.01, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0];

impl<const N: usize> Histograms<N> {
    /// Of durations up to minutes.
    pub(super) fn durations(
        registry: &mut Registry,
        name: &str,
        help: &str,
        names: [&'static str; N],
    ) -> Self {
        Self::register(registry, name, help, names, || Histogram::new(DURATIONS))
    }

    /// Of durations up to months.
    pub(super) fn lives(registry: &mut Registry, name: &str, help: &str, names: [&'static str; N]) -> Self {
        Self::register(registry, name, help, names, || Histogram::new(LIVES))
    }

    /// Of prices over the cheapest.
    pub(super) fn ratios(registry: &mut Registry, name: &str, help: &str, names: [&'static str; N]) -> Self {
        Self::register(registry, name, help, names, || Histogram::new(RATIOS))
    }

    fn register(
        registry: &mut Registry,
        name: &str,
        help: &str,
        names: [&'static str; N],
        new: fn() -> Histogram,
    ) -> Self {
        let family = Family::new_with_constructor(new);
        registry.register(name, help, family.clone());
        Self { names, family }
    }

    pub(super) fn took(&self, values: [&str; N], time: Duration) {
        self.observe(values, time.as_secs_f64());
    }

    pub(super) fn observe(&self, values: [&str; N], value: f64) {
        self.family.get_or_create(&labels(&self.names, values)).observe(value);
    }
}
