//! Input that is too long to write down: made here, and held to the same rules.

use std::fmt::Write;
use std::time::{Duration, Instant};

use assay_tests::programs;
use serde_json::{Value, json};

/// The plan for some objects, and how long it took, the start of the program included.
fn plan(objects: &[Value]) -> (Value, Duration) {
    let catalog = concat!(env!("CARGO_MANIFEST_DIR"), "/plans/catalogs/zones.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    programs::assay(&["--version"], "").unwrap();
    let started = Instant::now();
    let output = programs::assay(&["plan", "-f", "-", "-o", "json", "--catalog", catalog], &list).unwrap();
    let took = started.elapsed();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (serde_json::from_slice(&output.stdout).unwrap(), took)
}

fn pool() -> Value {
    json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": "general"},
           "spec": {"template": {"spec": {"requirements": []}}}})
}

fn pod(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec})
}

fn term(zone: &str) -> Value {
    json!({"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]})
}

#[test]
fn a_thousand_terms_are_tried_to_the_last() {
    let mut terms: Vec<Value> = (0..999).map(|number| term(&format!("nowhere-{number}"))).collect();
    terms.push(term("z-3"));
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let (plan, _) = plan(&[pool(), pod("a", json!({"containers": [{}], "affinity": affinity}))]);
    assert_eq!((&plan["nodeClaims"][0]["zone"], &plan["totals"]["pods"]), (&"z-3".into(), &1.into()));
}

#[test]
fn a_thousand_preferences_and_constraints_leave_a_pod_placed() {
    let preferred: Vec<Value> = (0..1000)
        .map(|number| json!({"weight": number % 100 + 1, "preference": term(&format!("nowhere-{number}"))}))
        .collect();
    let selector = |number: usize| json!({"matchLabels": {"app": format!("none-{number}")}});
    let apart: Vec<Value> = (0..1000)
        .map(|number| json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": selector(number)}))
        .collect();
    let affinity = json!({
        "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred},
        "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart},
    });
    let (plan, _) = plan(&[pool(), pod("a", json!({"containers": [{}], "affinity": affinity}))]);
    assert_eq!(plan["totals"]["pods"], 1);
}

#[test]
fn ten_megabytes_of_one_object_are_read() {
    let mut long = pod("a", json!({"containers": [{}]}));
    long["metadata"]["annotations"] = json!({"example.com/note": "x".repeat(10 << 20)});
    assert_eq!(plan(&[pool(), long]).0["totals"]["pods"], 1);
}

/// Objects that are wrong, each in its way, beside one that is right.
fn with_bad_pods(count: usize) -> Vec<Value> {
    let mut objects = vec![pool(), pod("right", json!({"containers": [{}]}))];
    for number in 0..count {
        let spec = match number % 4 {
            0 => json!({"containers": [{"resources": {"requests": {"cpu": "-1"}}}]}),
            1 => {
                json!({"containers": [{}], "nodeSelector": {"topology.kubernetes.io/zone": format!("nowhere-{number}")}})
            }
            2 => {
                json!({"containers": [{}], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": format!("none-{number}")}}]})
            }
            _ => json!({"containers": [{"resources": {"requests": {"cpu": "9000"}}}]}),
        };
        objects.push(pod(&format!("bad-{number}"), spec));
    }
    objects
}

#[test]
fn many_bad_pods_each_have_their_reason_and_cost_no_more_than_their_number() {
    let (few, many) = (1000, 8000);
    let (_, quick) = plan(&with_bad_pods(few));
    let (plan, slow) = plan(&with_bad_pods(many));
    assert_eq!(plan["totals"]["pods"], 1, "the right one is placed");
    let left_out = plan["unschedulable"].as_array().unwrap();
    assert_eq!(left_out.len(), many);
    let mut silent = String::new();
    for pod in left_out {
        let told = &pod["reasons"][0]["detail"];
        if told.as_str().is_none_or(str::is_empty) {
            writeln!(silent, "{}", pod["pod"]).unwrap();
        }
    }
    assert!(silent.is_empty(), "left out without a word: {silent}");
    // Eight times as many; where time grew with the square it would be 64 times as long.
    let most = quick.max(Duration::from_millis(50)) * 32;
    assert!(slow < most, "{few} took {quick:?}, {many} took {slow:?}");
}

/// YAML documents of bad pods with a note each, half a kilobyte apiece.
fn bad_documents(count: usize) -> String {
    let mut text = pool().to_string();
    let note = "x".repeat(400);
    for number in 0..count {
        let (labels, spec) = match number % 4 {
            0 => ("{app: -b-}", "{containers: [{name: c}]}"),
            1 => ("{}", "{containers: [{name: c}], nodeSelector: {a/b/c: d}}"),
            2 => ("{}", "{containers: [{name: c}], runtimeClassName: none}"),
            _ => ("{}", "{containers: 7}"),
        };
        write!(
            text,
            "\n---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: bad-{number}\n  labels: {labels}\n  annotations:\n    note: {note}\nspec: {spec}\n"
        )
        .unwrap();
    }
    text
}

#[test]
fn ten_megabytes_of_bad_documents_take_no_more_than_their_number() {
    let catalog = concat!(env!("CARGO_MANIFEST_DIR"), "/plans/catalogs/zones.json");
    let run = |count: usize| {
        let text = bad_documents(count);
        let started = Instant::now();
        let output =
            programs::assay(&["plan", "-f", "-", "-o", "json", "--catalog", catalog], &text).unwrap();
        let took = started.elapsed();
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(plan["unschedulable"].as_array().unwrap().len(), count);
        (text.len(), took)
    };
    let ((_, quick), (bytes, slow)) = (run(2_500), run(20_000));
    assert!(bytes > 10 << 20, "{bytes}");
    // Eight times as many; where time grew with the square it would be 64 times as long.
    let most = quick.max(Duration::from_millis(50)) * 32;
    assert!(slow < most, "2,500 took {quick:?}, 20,000 took {slow:?}");
}
