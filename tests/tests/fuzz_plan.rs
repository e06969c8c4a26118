//! Manifests that nobody would write: none makes reading, solving or checking panic, and no plan for them breaks a rule.
//!
//! The objects of `tests/plans` are mixed and damaged, by a seed. `ASSAY_FUZZ_ITERATIONS` runs longer, `ASSAY_FUZZ_SEED` runs
//! one that failed again.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::path::Path;
use std::time::{Duration, Instant};

use assay_tests::planned::{Catalog, general_catalog, plan};
use serde::Deserialize;
use serde_json::{Value, json};

/// Iterations of an ordinary test run: a few seconds without optimisation.
const ITERATIONS: u64 = 2_000;

/// SplitMix64: the same numbers from a seed everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// All objects of the plan cases, what is expected of them left out.
fn corpus(directory: &Path, objects: &mut Vec<Value>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            corpus(&path, objects);
        } else if path.extension().is_some_and(|extension| extension == "yaml") {
            let text = std::fs::read_to_string(&path).unwrap();
            for document in serde_yaml_ng::Deserializer::from_str(&text) {
                let Ok(value) = Value::deserialize(document) else { break };
                if value.get("kind").is_some_and(|kind| kind != "ExpectedPlan") {
                    objects.push(value);
                }
            }
        }
    }
}

/// Something that may stand anywhere.
fn junk(random: &mut Random) -> Value {
    let long = "x".repeat(300);
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(u32::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("0"),
        json!("-1"),
        json!("1e99"),
        json!("9223372036854775807Ti"),
        json!("100m"),
        json!("In"),
        json!("Gt"),
        json!("NotIn"),
        json!("é\u{0}"),
        json!("a-0"),
        json!(long),
        json!([]),
        json!({}),
        json!([{}]),
        json!({"": ""}),
        json!([[[[]]]]),
        json!("topology.kubernetes.io/zone"),
        json!("kubernetes.io/hostname"),
    ];
    random.pick(&values).clone()
}

/// A place in the object, deeper ones being likelier.
fn place<'a>(value: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let inside = match &*value {
        Value::Object(fields) => fields.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    };
    if inside == 0 || random.below(8) == 0 {
        return value;
    }
    let index = random.below(inside);
    let next = match value {
        Value::Object(fields) => fields.values_mut().nth(index),
        Value::Array(items) => items.get_mut(index),
        _ => None,
    };
    place(next.expect("the index is below the length"), random)
}

fn damage(value: &mut Value, others: &[Value], random: &mut Random) {
    let mut donor = random.pick(others).clone();
    let place = place(value, random);
    match (random.below(6), place) {
        (0, place) => *place = self::place(&mut donor, random).clone(),
        (1, Value::Object(fields)) if !fields.is_empty() => {
            let key = fields.keys().nth(random.below(fields.len())).unwrap().clone();
            fields.remove(&key);
        }
        (2, Value::Array(items)) if !items.is_empty() => {
            let again = random.pick(items).clone();
            items.push(again);
        }
        (3, Value::String(text)) => text.push('x'),
        (_, place) => *place = junk(random),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a whole number"))
}

/// Names the seed that was running when a test fails.
struct Running(u64, String);

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("ASSAY_FUZZ_SEED={} for\n{}", self.0, self.1);
        }
    }
}

#[test]
fn damaged_manifests_are_refused_or_planned_by_the_rules() {
    let mut objects = Vec::new();
    corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("plans"), &mut objects);
    let pools: Vec<Value> = objects.iter().filter(|one| one["kind"] == "NodePool").cloned().collect();
    let catalog = general_catalog();
    let one = number("ASSAY_FUZZ_SEED");
    let seeds = match one {
        Some(seed) => seed..seed + 1,
        None => 0..number("ASSAY_FUZZ_ITERATIONS").unwrap_or(ITERATIONS),
    };
    let (count, mut planned) = (seeds.end - seeds.start, 0);
    for seed in seeds {
        let mut random = Random(seed);
        let mut items = vec![random.pick(&pools).clone()];
        for _ in 0..=random.below(7) {
            let start = random.below(objects.len());
            // Neighbours are often of one case, and refer to each other.
            let end = (start + 1 + random.below(3)).min(objects.len());
            items.extend(objects[start..end].iter().cloned());
        }
        for _ in 0..random.below(4) {
            let index = random.below(items.len());
            damage(&mut items[index], &objects, &mut random);
        }
        // A name twice refuses the whole input: told apart, most of it is read.
        for (index, item) in items.iter_mut().enumerate() {
            if let Some(Value::String(name)) = item.pointer_mut("/metadata/name")
                && random.below(3) > 0
            {
                name.push_str(&index.to_string());
            }
        }
        let text = json!({"kind": "List", "items": items}).to_string();
        let running = Running(seed, text.clone());
        planned += u64::from(plan(text, &catalog).is_some());
        drop(running);
    }
    assert!(one.is_some() || planned * 10 > count, "only {planned} of {count} inputs were read at all");
}

/// The quickest of three runs.
fn quickest(text: &str, catalog: &Catalog, left_out: usize) -> Duration {
    let run = |_| {
        let started = Instant::now();
        assert_eq!(plan(text.to_owned(), catalog), Some(left_out));
        started.elapsed()
    };
    (0..3).map(run).min().unwrap()
}

#[test]
fn ten_times_the_bad_objects_take_about_ten_times_as_long() {
    let catalog = general_catalog();
    let pool = json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "p"},
        "spec": {"template": {"spec": {"requirements": []}}}});
    let pod = |index: usize, spec: Value| json!({"kind": "Pod", "metadata": {"name": format!("p-{index}")}, "spec": spec});
    let negative = |index| pod(index, json!({"containers": [{"resources": {"requests": {"cpu": "-1"}}}]}));
    let no_claim = |index: usize| {
        pod(
            index,
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": format!("c-{index}")}}]}),
        )
    };
    let over_length = |index| {
        let mut pod = pod(index, json!({"containers": [{}]}));
        pod["metadata"]["labels"] = json!({"app": "x".repeat(64)});
        pod
    };
    let contradiction = |index: usize| {
        let spec = json!({"containers": [{}], "nodeSelector": {"topology.kubernetes.io/zone": format!("a-{index}")},
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["b"]}]}]}}}});
        pod(index, spec)
    };
    // Each owns the one before it, and the first one the second: a circle with a long tail.
    let circle = |index: usize| {
        let owner = format!("r-{}", if index == 0 { 1 } else { index - 1 });
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": format!("r-{index}"), "ownerReferences": [{"kind": "ReplicaSet", "name": owner}]},
            "spec": {"template": {"spec": {"containers": [{}]}}}})
    };
    // What is made, how, and whether each of it is left out.
    type Kind<'a> = (&'a str, &'a dyn Fn(usize) -> Value, bool);
    let kinds: [Kind<'_>; 5] = [
        ("negative quantities", &negative, true),
        ("claims that are not there", &no_claim, true),
        ("labels over length", &over_length, true),
        ("contradictory requirements", &contradiction, true),
        ("owners in a circle", &circle, false),
    ];
    for (what, make, left_out) in kinds {
        let list = |count: usize| {
            let items: Vec<Value> = (0..count).map(make).chain([pool.clone()]).collect();
            json!({"kind": "List", "items": items}).to_string()
        };
        let run = |count: usize| quickest(&list(count), &catalog, if left_out { count } else { 0 });
        let (few, many) = (run(1_000), run(10_000));
        // Quadratic would be a hundred times.
        assert!(many < few * 40, "{what}: 1,000 took {few:?}, 10,000 took {many:?}");
    }
}
