//! Inputs for the comparison with Karpenter, as Kubernetes objects that both sides read.
//!
//! The recipe is that of Karpenter's scheduling benchmark (`scheduling_benchmark_test.go`): 400 types of which type i has i + 1
//! CPUs and twice as many GiB, at a price in proportion; a fifth each of plain pods, zone spread, host spread, zone affinity and
//! host anti-affinity; sizes drawn evenly. The numbers are drawn here, from a seed, so that both sides get the same pods.

use std::io::Write;
use std::path::Path;

use anyhow::Context;
use assay_core::catalog::Catalog;
use assay_core::model::NodeClass;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// What one run is about.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) name: String,
    pub(crate) types: Value,
    pub(crate) pods: Vec<Value>,
}

impl Input {
    /// The file that both sides read: the types on the first line, then a pod on each.
    pub(crate) fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut file = std::io::BufWriter::new(std::fs::File::create(path)?);
        writeln!(file, "{}", json!({"instanceTypes": self.types}))?;
        for pod in &self.pods {
            writeln!(file, "{pod}")?;
        }
        Ok(file.flush()?)
    }
}

const LETTERS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];
const MILLI_CPU: [u32; 5] = [100, 250, 500, 1000, 1500];
const MEBI: [u32; 6] = [100, 256, 512, 1024, 2048, 4096];

struct Draw(rand_pcg::Pcg64);

impl Draw {
    fn one<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.0.random_range(0..list.len())]
    }

    fn requests(&mut self) -> Value {
        json!({"cpu": format!("{}m", self.one(&MILLI_CPU)), "memory": format!("{}Mi", self.one(&MEBI))})
    }
}

fn pod(name: &str, labels: Value, mut spec: Value, requests: Value) -> Value {
    spec["containers"] = json!([{"name": "c", "image": "c", "resources": {"requests": requests}}]);
    json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": name, "namespace": "default", "labels": labels, "ownerReferences":
            [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "bench", "uid": "1"}]}})
}

/// `count` pods of five kinds on 400 types.
pub(crate) fn diverse(count: usize) -> Input {
    const ZONE: &str = "topology.kubernetes.io/zone";
    const HOST: &str = "kubernetes.io/hostname";
    let mut draw = Draw(rand_pcg::Pcg64::seed_from_u64(42));
    let mut pods = Vec::with_capacity(count);
    let selector = |key: &str, value: &str| json!({"matchLabels": {key: value}});
    for number in 0..count {
        // Kinds come one after the other; what is left over is plain.
        let kind = number.checked_div(count / 5).unwrap_or(5);
        let requests = draw.requests();
        let (labels, spec) = match kind {
            1 | 2 => {
                let key = if kind == 1 { ZONE } else { HOST };
                let labels = json!({"my-label": draw.one(&LETTERS)});
                let constraint = json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": selector("my-label", draw.one(&LETTERS))});
                (labels, json!({"topologySpreadConstraints": [constraint]}))
            }
            3 => {
                let letter = draw.one(&LETTERS);
                let term = json!({"topologyKey": ZONE, "labelSelector": selector("my-affinity", letter)});
                let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
                (json!({"my-affinity": letter}), json!({"affinity": {"podAffinity": affinity}}))
            }
            4 => {
                let term = json!({"topologyKey": HOST, "labelSelector": selector("app", "nginx")});
                let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
                (json!({"app": "nginx"}), json!({"affinity": {"podAntiAffinity": affinity}}))
            }
            _ => (json!({"my-label": draw.one(&LETTERS)}), json!({})),
        };
        pods.push(pod(&format!("pod-{number}"), labels, spec, requests));
    }
    Input { name: format!("{count} pods of the recipe"), types: fake_types(400), pods }
}

/// 4,000 equal pods that would like to be in one zone and apart.
pub(crate) fn preferring() -> Input {
    let mut draw = Draw(rand_pcg::Pcg64::seed_from_u64(42));
    let requests = draw.requests();
    let term = |key: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": "nginx"}}});
    let apart = json!([
        {"weight": 10, "podAffinityTerm": term("topology.kubernetes.io/zone")},
        {"weight": 1, "podAffinityTerm": term("kubernetes.io/hostname")}]);
    let zone = json!({"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["test-zone-1"]});
    let spec = json!({"affinity": {
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
            [{"weight": 1, "preference": {"matchExpressions": [zone]}}]},
        "podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": apart}}});
    let one = |number| pod(&format!("pod-{number}"), json!({"app": "nginx"}), spec.clone(), requests.clone());
    Input {
        name: "4000 pods with preferences".to_owned(),
        types: fake_types(400),
        pods: (0..4000).map(one).collect(),
    }
}

/// The first `count` types of the recipe.
pub(crate) fn fake_types(count: u32) -> Value {
    let one = |number: u32| {
        let cpus = number + 1;
        let gigabytes = f64::from(2 * cpus) * 1.073_741_824;
        let price = 0.1 * f64::from(cpus) + 0.1 * gigabytes;
        let offering = |(capacity_type, zone): (&str, u32)| json!({"zone": format!("test-zone-{zone}"), "capacityType": capacity_type, "price": price, "available": true});
        let offered = [("spot", 1), ("spot", 2), ("on-demand", 1), ("on-demand", 2), ("on-demand", 3)];
        json!({"name": format!("fake-it-{number}"),
            "capacity": {"cpu": cpus.to_string(), "memory": format!("{}Gi", 2 * cpus), "pods": (10 * cpus).to_string()},
            "overhead": {"cpu": "100m", "memory": "10Mi"},
            "requirements": [
                {"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]},
                {"key": "kubernetes.io/os", "operator": "In", "values": ["linux", "windows", "darwin"]}],
            "offerings": offered.map(offering)})
    };
    (0..count).map(one).collect()
}

/// Pods of a trace, plain, on the built-in Azure catalogue on demand in three zones.
fn of_trace(name: &str, pods: impl Iterator<Item = (u64, u64)>) -> anyhow::Result<Input> {
    let class = NodeClass::with_defaults("default");
    let types = Catalog::builtin("eastus")?.instance_types(&class, |_| None);
    let types: Vec<Value> = types
        .iter()
        .filter(|one| one.capacity.extended.keys().all(|name| name.starts_with("attachable-volumes")))
        .map(|one| {
            let amounts = |list: &assay_core::model::ResourceList| {
                json!({"cpu": format!("{}m", list.cpu.0), "memory": list.memory.0.to_string(), "pods": list.pods.to_string(),
                    "ephemeral-storage": list.ephemeral_storage.0.to_string()})
            };
            let offerings = one.offerings.iter().filter(|offering| offering.capacity_type.as_str() == "on-demand");
            let offerings: Vec<Value> = offerings
                .map(|offering| {
                    json!({"zone": &*offering.zone, "capacityType": "on-demand", "price": offering.price.usd(),
                        "available": true})
                })
                .collect();
            json!({"name": &*one.name, "capacity": amounts(&one.capacity), "overhead": amounts(&one.overhead),
                "requirements": one.requirements.to_list().into_iter().filter(|one| one.key == "kubernetes.io/arch")
                    .collect::<Vec<_>>(), "offerings": offerings})
        })
        .collect();
    let pods = pods.enumerate().map(|(number, (milli, mebi))| {
        let requests = json!({"cpu": format!("{milli}m"), "memory": format!("{mebi}Mi")});
        let selector = json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}});
        pod(&format!("pod-{number}"), json!({}), selector, requests)
    });
    Ok(Input { name: name.to_owned(), types: Value::Array(types), pods: pods.collect() })
}

/// The CPU-only pods of openb's default list.
pub(crate) fn openb(data: &Path) -> anyhow::Result<Input> {
    let rows = rows(&data.join("openb/openb_pod_list_default.csv.gz"))?;
    let cpu_only = rows.iter().filter(|row| row.get(3).is_some_and(|gpus| gpus == "0"));
    let pods = cpu_only.filter_map(|row| Some((row.get(1)?.parse().ok()?, row.get(2)?.parse().ok()?)));
    of_trace("openb pods without GPU", pods)
}

/// DLRM instances without GPU that fit a machine of 64 cores.
pub(crate) fn dlrm(data: &Path) -> anyhow::Result<Input> {
    let rows = rows(&data.join("dlrm2025/disaggregated_DLRM_trace_even_apps.csv.gz"))?;
    let cpu_nodes = rows.iter().filter(|row| row.get(1).is_some_and(|role| role == "CN"));
    let pods = cpu_nodes.filter_map(|row| {
        let (cpus, gib): (u64, f64) = (row.get(3)?.parse().ok()?, row.get(9)?.parse().ok()?);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // GiB of a trace, not negative
        let mebi = (gib * 1024.0) as u64;
        (cpus <= 64).then_some((cpus * 1000, mebi))
    });
    of_trace("DLRM instances without GPU", pods)
}

fn rows(path: &Path) -> anyhow::Result<Vec<Vec<String>>> {
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    let text = std::io::read_to_string(flate2::read::GzDecoder::new(file))?;
    Ok(text.lines().skip(1).map(|line| line.split(',').map(str::to_owned).collect()).collect())
}
