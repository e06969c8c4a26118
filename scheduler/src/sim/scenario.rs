//! Scenarios: what pods come and go, how the cloud behaves, what goes wrong. `docs/simulate.md` describes the file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use assay_core::model::PodSpec;
use assay_shared::report::document::API_VERSION;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::cluster::Workload;
use crate::manifest::{ManifestError, Manifests, Source, pod_spec_from_value, problem_of};

/// The longest simulation: a year of virtual time, at a few events a second, still ends.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// Pods of one workload; clusters end at 150,000.
const REPLICAS_MAX: u32 = 150_000;

/// A scenario, checked.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// Region of the built-in catalogue.
    pub region: String,
    /// Seed of everything random, unless the command line gives another.
    pub seed: u64,
    /// How long it runs.
    pub duration: Duration,
    /// Pools, classes, DaemonSets.
    pub manifests: Manifests,
    /// Workloads by name, without pods yet.
    pub workloads: BTreeMap<String, Workload>,
    /// What happens, in order of time.
    pub steps: Vec<Step>,
    /// How the cloud behaves.
    pub cloud: CloudOptions,
    /// Share of the scheduler's effects after which it dies, to come back some seconds later.
    pub restart_rate: f64,
    /// What must hold beside what always must.
    pub expect: Expectations,
}

/// What must hold in a scenario.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Expectations {
    /// How long a pod waits at most, where every pod can be placed.
    #[serde(deserialize_with = "some_duration")]
    pub pending_at_most: Option<Duration>,
    /// Whether no VM, claim or node is left at the end.
    pub nothing_left: bool,
}

/// Something that happens at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Step {
    /// When, from the start.
    #[serde(deserialize_with = "duration")]
    pub at: Duration,
    /// Pods that workloads are to have, by workload.
    #[serde(default)]
    pub scale: BTreeMap<String, u32>,
    /// Spot machines that the cloud takes back, with its usual notice.
    #[serde(default)]
    pub preempt: u32,
    /// Machines that lose a GPU while they run.
    #[serde(default)]
    pub lose_gpu: u32,
    /// Nodes that somebody deletes.
    #[serde(default)]
    pub delete_nodes: u32,
    /// NodeClaims that somebody deletes.
    #[serde(default)]
    pub delete_claims: u32,
    /// The scheduler dies, and comes back some seconds later.
    #[serde(default)]
    pub restart: bool,
    /// The API server takes no writes for so long; what is to be written waits.
    #[serde(default, deserialize_with = "duration")]
    pub api_down: Duration,
    /// Agents that go away, and come back after some minutes.
    #[serde(default)]
    pub lose_agents: u32,
    /// Seconds by which the scheduler's clock is put forward, or back.
    #[serde(default)]
    pub clock_step: i64,
}

/// How the cloud behaves.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct CloudOptions {
    /// Seconds from a VM's creation to its node, shortest and longest.
    pub boot_seconds: (u64, u64),
    /// Share of requests refused for lack of capacity.
    pub failure_rate: f64,
    /// vCPUs that may be used of a family, by its name in the catalogue, such as `Dsv5`.
    pub quota: BTreeMap<String, u32>,
    /// Machines that come with a defect for certain.
    pub defects: Vec<DefectRule>,
    /// Shares of machines that come with one by chance.
    pub defect_rates: BTreeMap<Defect, f64>,
}

impl Default for CloudOptions {
    fn default() -> Self {
        Self {
            boot_seconds: (30, 90),
            failure_rate: 0.0,
            quota: BTreeMap::new(),
            defects: Vec::new(),
            defect_rates: BTreeMap::new(),
        }
    }
}

/// One machine that comes with a defect.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DefectRule {
    /// Text in the names of the sizes it is about; empty is every size.
    #[serde(default)]
    pub size: String,
    /// Which machine of those sizes, from 1.
    pub machine: u32,
    /// What is wrong with it.
    pub defect: Defect,
}

/// What may be wrong with a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Defect {
    /// One GPU does not work.
    LostGpu,
    /// An eighth of the memory is missing.
    LessMemory,
    /// Accelerated networking is off.
    NetworkingOff,
}

/// A scenario that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file cannot be read.
    #[error("{file}: {error}")]
    File {
        /// Which.
        file: String,
        /// Why.
        error: std::io::Error,
    },
    /// It is no scenario.
    #[error("{file}: {field}{problem}")]
    Field {
        /// Which file.
        file: String,
        /// Path of the field and a colon, or nothing.
        field: String,
        /// What was expected and found.
        problem: String,
    },
    /// A manifest in it is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Spec {
    #[serde(default = "eastus")]
    region: String,
    #[serde(default)]
    seed: u64,
    #[serde(deserialize_with = "duration")]
    duration: Duration,
    #[serde(default)]
    resources: Vec<Value>,
    #[serde(default)]
    workloads: Vec<WorkloadDocument>,
    #[serde(default)]
    steps: Vec<Step>,
    #[serde(default)]
    cloud: CloudOptions,
    #[serde(default)]
    restart_rate: f64,
    #[serde(default)]
    expect: Expectations,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WorkloadDocument {
    name: String,
    #[serde(default = "default_namespace")]
    namespace: String,
    #[serde(default)]
    volumes: u32,
    min_available: Option<u32>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    spec: Value,
}

fn eastus() -> String {
    "eastus".to_owned()
}

fn default_namespace() -> String {
    "default".to_owned()
}

impl Scenario {
    /// Reads a scenario file.
    ///
    /// # Errors
    /// Where it cannot be read or is wrong; the message names file and field.
    pub fn read(path: &Path) -> Result<Self, ScenarioError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ScenarioError::File { file: file.clone(), error })?;
        Self::parse(&file, &text)
    }

    /// One drawn from a seed.
    ///
    /// # Errors
    /// Never, but for a bug: its text is read as any scenario's.
    pub fn random(seed: u64) -> Result<Self, ScenarioError> {
        Self::parse("random", &super::random::scenario(seed))
    }

    /// Reads a scenario; `file` names it in errors.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn parse(file: &str, text: &str) -> Result<Self, ScenarioError> {
        let wrong = |field: &str, problem: String| ScenarioError::Field {
            file: file.to_owned(),
            field: if field.is_empty() { String::new() } else { format!("{field}: ") },
            problem,
        };
        let value: Value =
            serde_yaml_ng::from_str(text).map_err(|error| wrong("", format!("not YAML: {error}")))?;
        let document: Document = serde_path_to_error::deserialize(&value).map_err(|error| {
            let path = error.path().to_string();
            wrong(if path == "." { "" } else { &path }, problem_of(&error.inner().to_string()))
        })?;
        for (field, expected, found) in
            [("apiVersion", API_VERSION, &document.api_version), ("kind", "Scenario", &document.kind)]
        {
            if found != expected {
                return Err(wrong(field, format!("expected {expected}, found {found}")));
            }
        }
        let spec = document.spec;
        if spec.duration > DURATION_MAX {
            return Err(wrong("spec.duration", "expected at most a year".to_owned()));
        }
        let mut workloads = BTreeMap::new();
        for (index, workload) in spec.workloads.into_iter().enumerate() {
            let grace = workload.spec.get("terminationGracePeriodSeconds").and_then(Value::as_u64);
            let pods: PodSpec = pod_spec_from_value(file, &workload.name, workload.spec)?;
            let mut made = Workload::new(&workload.name, &workload.namespace, pods);
            made.grace = grace.map_or(made.grace, Duration::from_secs);
            made.volumes = workload.volumes;
            made.min_available = workload.min_available;
            made.annotations = std::sync::Arc::new(workload.annotations);
            if workloads.insert(workload.name.clone(), made).is_some() {
                let field = format!("spec.workloads[{index}].name");
                return Err(wrong(&field, format!("{} is given twice", workload.name)));
            }
        }
        check_steps(&spec.steps, &workloads, &wrong)?;
        check_cloud(&spec.cloud, &wrong)?;
        if !(0.0..=1.0).contains(&spec.restart_rate) {
            let problem = format!("expected a rate from 0 to 1, found {}", spec.restart_rate);
            return Err(wrong("spec.restartRate", problem));
        }
        let mut steps = spec.steps;
        steps.sort_by_key(|step| step.at);
        // Written out again so that they are read as any manifest is.
        let text = spec.resources.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n");
        let manifests = Manifests::parse(&[Source { name: file.to_owned(), text }])?;
        Ok(Self {
            name: document.metadata.name,
            region: spec.region,
            seed: spec.seed,
            duration: spec.duration,
            manifests,
            workloads,
            steps,
            cloud: spec.cloud,
            restart_rate: spec.restart_rate,
            expect: spec.expect,
        })
    }
}

fn check_steps(
    steps: &[Step],
    workloads: &BTreeMap<String, Workload>,
    wrong: &dyn Fn(&str, String) -> ScenarioError,
) -> Result<(), ScenarioError> {
    for (index, step) in steps.iter().enumerate() {
        for (name, replicas) in &step.scale {
            let field = format!("spec.steps[{index}].scale.{name}");
            if !workloads.contains_key(name) {
                let known = workloads.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(wrong(&field, format!("expected a workload of this scenario ({known})")));
            }
            if *replicas > REPLICAS_MAX {
                return Err(wrong(&field, format!("expected at most {REPLICAS_MAX}, found {replicas}")));
            }
        }
    }
    Ok(())
}

fn check_cloud(
    cloud: &CloudOptions,
    wrong: &dyn Fn(&str, String) -> ScenarioError,
) -> Result<(), ScenarioError> {
    let rates = cloud.defect_rates.values().chain([&cloud.failure_rate]);
    if let Some(rate) = rates.into_iter().find(|rate| !(0.0..=1.0).contains(*rate)) {
        return Err(wrong("spec.cloud", format!("expected rates from 0 to 1, found {rate}")));
    }
    let (least, most) = cloud.boot_seconds;
    if least > most {
        return Err(wrong(
            "spec.cloud.bootSeconds",
            format!("expected [least, most], found [{least}, {most}]"),
        ));
    }
    Ok(())
}

/// A duration such as `90s`, `20m`, `1h30m`.
fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    crate::manifest::parse_duration(&text).ok_or_else(|| {
        serde::de::Error::custom(format!("expected a duration such as 30s, 5m, 1h30m, found {text:?}"))
    })
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: assay.dev/v1alpha1\nkind: Scenario\nmetadata: {name: test}\n";

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("spec: {}", "s.yaml: spec: missing field `duration`"),
            ("spec: {duration: soon}", "s.yaml: spec.duration: expected a duration such as 30s"),
            ("spec: {duration: 1m, colour: red}", "s.yaml: spec.colour: unknown field `colour`"),
            (
                "spec: {duration: 1m, steps: [{at: 0s, scale: {web: 1}}]}",
                "s.yaml: spec.steps[0].scale.web: expected a workload of this scenario",
            ),
            (
                "spec: {duration: 1m, cloud: {failureRate: 2}}",
                "s.yaml: spec.cloud: expected rates from 0 to 1",
            ),
            (
                "spec: {duration: 1m, workloads: [{name: a, spec: {containers: 1}}]}",
                "s.yaml: Pod a: spec.containers: expected a list",
            ),
        ];
        for (spec, expected) in cases {
            let error = Scenario::parse("s.yaml", &format!("{HEAD}{spec}\n")).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}\ndoes not start with\n{expected}");
        }
    }
}
