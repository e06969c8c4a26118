//! `assay plan` as a program: its document, its error lines, its exit codes.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that panics says where")]

use std::process::Output;

use assay_tests::programs;
use serde_json::Value;

fn assay(arguments: &[&str], input: &str) -> Output {
    programs::assay(arguments, input).expect("assay runs")
}

fn plan(input: &str) -> Value {
    let output = assay(&["plan", "-f", "-", "-o", "json"], input);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  containers:
  - resources: {requests: {cpu: '1', memory: 1Gi}}
";

#[test]
fn a_plan_has_the_documented_form() {
    let plan = plan(POD);
    assert_eq!(plan["apiVersion"], "assay.dev/v1alpha1");
    let claim = &plan["nodeClaims"][0];
    for field in ["name", "nodePool", "instanceType", "zone", "capacityType", "requirements", "requests"] {
        assert!(!claim[field].is_null(), "{field}");
    }
    assert_eq!(claim["pods"], serde_json::json!(["default/a"]));
    assert_eq!(claim["instanceTypeOptions"][0], claim["instanceType"], "the choice is the cheapest option");
    let (price, bound) = (&plan["totals"]["pricePerHour"], &plan["totals"]["lowerBoundPricePerHour"]);
    assert!(bound.as_f64().unwrap() <= price.as_f64().unwrap());
    assert_eq!((&plan["totals"]["nodes"], &plan["totals"]["pods"]), (&1.into(), &1.into()));
}

#[test]
fn json_lists_and_controllers_are_read_like_documents() {
    let pod = serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "b"}, "spec": {}});
    let deployment = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 3, "template": {"spec": {"containers": [{"resources": {"requests": {"cpu": "1"}}}]}}},
    });
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [pod, deployment]});
    assert_eq!(plan(&list.to_string())["totals"]["pods"], 4);
}

#[test]
fn a_pod_that_cannot_be_read_or_placed_is_left_out_and_disturbs_nobody() {
    let bad = POD.replace("name: a", "name: bad").replace("'1'", "lots");
    let giant = POD.replace("name: a", "name: giant").replace("'1'", "'9000'");
    let plan = plan(&format!("{POD}---{bad}---{giant}"));
    assert_eq!(plan["totals"]["pods"], 1);
    let reason = |pod: &str| {
        let left_out = plan["unschedulable"].as_array().unwrap();
        left_out.iter().find(|entry| entry["pod"] == pod).unwrap()["reasons"][0].clone()
    };
    assert_eq!(reason("default/bad")["reason"], "InvalidPod");
    assert_eq!(reason("default/giant")["reason"], "InsufficientResources");
    let output = assay(&["plan", "-f", "-", "--strict", "-o", "json"], &bad);
    assert_eq!(output.status.code(), Some(1), "--strict answers no");
}

#[test]
fn the_same_input_gives_the_same_plan() {
    let many: Vec<_> = (0..40).map(|n| POD.replace("name: a", &format!("name: p{n}"))).collect();
    let run = || {
        let mut plan = plan(&many.join("---"));
        plan["stats"] = Value::Null;
        plan
    };
    assert_eq!(run(), run());
}

/// What follows the kind and name of an object in an error line, by what was written below `spec` of a NodePool.
const BAD_POOLS: &[(&str, &str)] = &[
    ("{}", "spec.template: expected a value, found none"),
    ("[]", "spec: expected an object, found a list"),
    (
        "{template: {spec: {requirements: {key: a}}}}",
        "spec.template.spec.requirements: expected a list, found an object",
    ),
    (
        "{template: {spec: {requirements: [{key: a, operator: Is, values: [b]}]}}}",
        "spec.template.spec.requirements[0].operator: expected one of In, NotIn",
    ),
    (
        "{template: {spec: {requirements: [{key: a, operator: In}]}}}",
        "spec.template.spec.requirements[0].values: a In: expected at least one value, found none",
    ),
    (
        "{template: {spec: {requirements: [{key: a, operator: Gt, values: [x]}]}}}",
        "spec.template.spec.requirements[0].values: a Gt: expected one integer, found [x]",
    ),
    (
        "{template: {spec: {requirements: [{key: a, operator: In, values: [4]}]}}}",
        "spec.template.spec.requirements[0].values[0]: expected a string, found integer `4`",
    ),
    (
        "{template: {spec: {requirements: [{key: a, operator: In, values: [x], minValues: 2}]}}}",
        "spec.template.spec.requirements[0].minValues: expected at most the number of values, 1, found 2",
    ),
    (
        "{template: {spec: {requirements: [{key: karpenter.sh/nodepool, operator: In, values: [a]}]}}}",
        "spec.template.spec.requirements[0].key: expected a label that pools may set",
    ),
    (
        "{template: {spec: {taints: [{key: a, effect: Never}]}}}",
        "spec.template.spec.taints[0].effect: expected NoSchedule, PreferNoSchedule or NoExecute, found \"Never\"",
    ),
    (
        "{template: {spec: {taints: [{effect: NoSchedule}]}}}",
        "spec.template.spec.taints[0].key: expected a value, found none",
    ),
    (
        "{template: {spec: {taints: [{key: a, effect: NoSchedule}], startupTaints: [{key: a, effect: NoSchedule}]}}}",
        "spec.template.spec.taints: expected each key and effect once, found a:NoSchedule again",
    ),
    (
        "{template: {spec: {expireAfter: soon}}}",
        "spec.template.spec.expireAfter: expected a duration such as 30s, 5m, 1h30m, found \"soon\"",
    ),
    (
        "{template: {metadata: {labels: {a: 'b c'}}, spec: {}}}",
        "spec.template.metadata.labels[a]: expected at most 63",
    ),
    ("{weight: 500, template: {spec: {}}}", "spec.weight: expected 1 to 100, found 500"),
    (
        "{weight: -1, template: {spec: {}}}",
        "spec.weight: expected a whole number of zero or more, found integer `-1`",
    ),
    (
        "{limits: {cpu: many}, template: {spec: {}}}",
        "spec.limits.cpu: expected a quantity such as 500m, 2 or 16Gi, found \"many\"",
    ),
    (
        "{limits: {cpu: -5}, template: {spec: {}}}",
        "spec.limits.cpu: expected a quantity of zero or more, found -5",
    ),
    (
        "{disruption: {budgets: [{nodes: '200%'}]}, template: {spec: {}}}",
        "spec.disruption.budgets[0].nodes: expected a number or a percentage up to 100%, found \"200%\"",
    ),
    (
        "{disruption: {budgets: [{nodes: '1', schedule: '@daily'}]}, template: {spec: {}}}",
        "spec.disruption.budgets[0]: expected schedule and duration together",
    ),
    (
        "{disruption: {consolidationPolicy: Sometimes}, template: {spec: {}}}",
        "spec.disruption.consolidationPolicy: expected WhenEmpty, WhenEmptyOrUnderutilized or Balanced",
    ),
];

#[test]
fn bad_input_is_one_line_that_names_the_place_and_exit_2() {
    let object = |kind: &str, spec: &str| format!("kind: {kind}\nmetadata: {{name: p}}\nspec: {spec}\n");
    let mut cases: Vec<(String, String)> = BAD_POOLS
        .iter()
        .map(|(spec, line)| (object("NodePool", spec), format!("assay: -: document 1: NodePool p: {line}")))
        .collect();
    let others = [
        ("- just a list".to_owned(), "-: document 1: expected a Kubernetes object, found a list"),
        ("hello".to_owned(), "-: document 1: expected a Kubernetes object, found a plain value"),
        ("{a: [}".to_owned(), "-: document 1: not YAML: "),
        ("{\"a\": [}".to_owned(), "-: document 1: not JSON: "),
        ("a: 1\na: 2".to_owned(), "-: document 1: not YAML: duplicate entry"),
        ("a: [".to_owned() + &"[".repeat(10_000), "-: document 1: not YAML: recursion limit exceeded"),
        ("metadata: {name: x}".to_owned(), "-: document 1: kind: expected the kind of a Kubernetes object"),
        ("kind: Pod".to_owned(), "-: document 1: Pod: metadata.name: expected a name, found none"),
        ("kind: PodList\nitems: {}".to_owned(), "-: document 1: items: expected a list of objects"),
        (format!("{POD}---{POD}"), "-: document 2: Pod default/a: metadata.name: is given twice"),
        (
            "apiVersion: v1\nkind: Deployment\nmetadata: {name: x}".to_owned(),
            "-: document 1: apiVersion: expected apps/ and a version for a Deployment, found \"v1\"",
        ),
        (
            object("Deployment", "{replicas: three}"),
            "-: document 1: Deployment default/p: spec.replicas: expected a whole number",
        ),
        (
            object("Deployment", "{replicas: 4000000000, template: {}}"),
            "-: document 1: Deployment default/p: spec.replicas: expected at most 1000000 pods",
        ),
        (
            object("DaemonSet", "{template: {spec: {containers: [{resources: {requests: {cpu: lots}}}]}}}"),
            "DaemonSet default/p: spec.template.spec.containers[0].resources.requests.cpu: expected a quantity",
        ),
        (
            object("Node", "{taints: [{key: a, effect: 7}]}"),
            "Node p: spec.taints[0].effect: expected a string, found integer `7`",
        ),
        (
            object("NodeClaim", "{requirements: [{key: a}]}"),
            "NodeClaim p: spec.requirements[0].operator: expected a value",
        ),
        (object("AKSNodeClass", "{maxPods: 9}"), "AKSNodeClass p: spec.maxPods: expected 10 to 250, found 9"),
        (
            object("AKSNodeClass", "{imageFamily: Windows}"),
            "AKSNodeClass p: spec.imageFamily: expected one of Ubuntu",
        ),
    ];
    cases.extend(others.map(|(input, line)| (input, line.to_owned())));
    for (input, expected) in cases {
        let output = assay(&["plan", "-f", "-"], &input);
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{input}\n{line}");
        assert!(line.contains(&expected), "{line}\ndoes not contain\n{expected}");
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
        assert!(output.stdout.is_empty(), "an error comes alone");
    }
}

#[test]
fn a_pod_that_is_wrong_anywhere_is_left_out_with_the_place() {
    let cases = [
        ("metadata: {name: p, labels: [a]}\nspec: {}", "metadata.labels: expected an object, found a list"),
        (
            "metadata: {name: p, creationTimestamp: soon}\nspec: {}",
            "metadata.creationTimestamp: expected a time such as",
        ),
        ("metadata: {name: p}", "spec: expected a value, found none"),
        (
            "metadata: {name: p}\nspec: {containers: [7]}",
            "spec.containers[0]: expected an object, found integer `7`",
        ),
        (
            "metadata: {name: p}\nspec: {containers: [{resources: {requests: {memory: -1Gi}}}]}",
            "spec.containers[0].resources.requests.memory: expected a quantity of zero or more, found -1Gi",
        ),
        (
            "metadata: {name: p}\nspec: {containers: [{resources: {limits: {nvidia.com/gpu: 500m}}}]}",
            "spec.containers[0].resources.limits.nvidia.com/gpu: expected a whole number, found 500m",
        ),
        (
            "metadata: {name: p}\nspec: {tolerations: [{operator: Equal, value: x}]}",
            "spec.tolerations[0].key: expected a key, or operator Exists, found neither",
        ),
    ];
    for (pod, expected) in cases {
        let plan = plan(&format!("kind: Pod\n{pod}\n---{POD}"));
        assert_eq!(plan["totals"]["pods"], 1, "the other pod is placed beside {pod}");
        let reason = &plan["unschedulable"][0]["reasons"][0];
        assert_eq!(
            (&plan["unschedulable"][0]["pod"], &reason["reason"]),
            (&"default/p".into(), &"InvalidPod".into())
        );
        let expected = format!("-: document 1: Pod default/p: {expected}");
        assert!(reason["detail"].as_str().unwrap().starts_with(&expected), "{reason}\nis not\n{expected}");
    }
}

#[test]
fn every_form_of_the_same_pods_gives_the_same_plan() {
    let pod = |name: &str| {
        serde_json::json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "creationTimestamp": null},
                           "spec": {"containers": [{"resources": {"requests": {"cpu": 1}, "limits": null}}], "affinity": null}})
    };
    let (one, two) = (pod("one"), pod("two"));
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": [one, two]});
    let typed_list = serde_json::json!({"kind": "PodList", "items": [{"metadata": one["metadata"], "spec": one["spec"]}, two]});
    let yaml = "
kind: Pod
metadata: {name: one}
spec: &spec {containers: [{resources: &resources {requests: {cpu: 1000m}}}]}
---
# nothing
---
kind: Pod
metadata: {name: two}
spec: {containers: [{resources: {<<: {requests: {cpu: '1'}}}}]}
";
    let forms = [
        format!("{one}\n{two}"),
        list.to_string(),
        serde_json::json!({"kind": "List", "items": [list]}).to_string(),
        typed_list.to_string(),
        serde_yaml_ng::to_string(&list).unwrap(),
        yaml.to_owned(),
    ];
    let without_stats = |input: &str| {
        let mut plan = plan(input);
        plan["stats"] = Value::Null;
        plan
    };
    let expected = without_stats(&forms[0]);
    assert_eq!(expected["totals"]["pods"], 2);
    for form in &forms[1..] {
        assert_eq!(without_stats(form), expected, "{form}");
    }
}

#[test]
fn bad_usage_is_exit_2() {
    for arguments in [
        &["plan"][..],
        &["plan", "-f", "/does/not/exist"],
        &["plan", "-f", "-", "--catalog", "azure:atlantis"],
        &["plan", "-f", "-", "--catalog", "/does/not/exist"],
        &["plan", "-f", "-", "-o", "sausage"],
        &["catalog", "Standard_Nothing"],
        &["nothing"],
    ] {
        let output = assay(arguments, POD);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let line = String::from_utf8_lossy(&output.stderr);
        assert!(line.starts_with("assay: ") && line.lines().count() == 1, "{arguments:?}: {line}");
    }
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let program = programs::program("assay-scheduler", "assay").unwrap();
    let mut child = std::process::Command::new(program)
        .args(["catalog", "-o", "json"])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn the_examples_of_the_documentation_work() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/examples");
    let output = assay(&["plan", "-f", examples, "--explain", "-o", "json"], "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["totals"]["pods"], 130);
    assert_eq!(plan["unschedulable"].as_array().unwrap().len(), 1, "the giant");
    let gpu = plan["nodeClaims"].as_array().unwrap().iter().find(|claim| claim["nodePool"] == "gpu").unwrap();
    assert!(gpu["instanceType"].as_str().unwrap().contains("A100"));
    let table = assay(&["plan", "-f", examples, "-o", "table"], "").stdout;
    let page = std::fs::read_to_string(format!("{examples}/../plan.md")).unwrap();
    let table = String::from_utf8(table).unwrap();
    assert!(page.contains(table.trim_end()), "docs/plan.md shows another table than\n{table}");
}
