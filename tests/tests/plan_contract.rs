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

#[test]
fn bad_input_is_one_line_that_names_the_place_and_exit_2() {
    let pool = |spec: &str| {
        format!("apiVersion: karpenter.sh/v1\nkind: NodePool\nmetadata: {{name: p}}\nspec: {spec}\n")
    };
    let cases = [
        ("- just a list".to_owned(), "-: document 1: expected a Kubernetes object"),
        ("{a: [}".to_owned(), "-: document 1: not YAML"),
        ("metadata: {name: x}".to_owned(), "-: document 1: kind: expected the kind"),
        (pool("{}"), "-: document 1: NodePool p: spec: missing field `template`"),
        (
            pool("{template: {spec: {requirements: [{key: a, operator: Is, values: [b]}]}}}"),
            "NodePool p: spec.template.spec.requirements[0].operator: expected one of In, NotIn",
        ),
        (
            pool("{template: {spec: {expireAfter: soon}}}"),
            "NodePool p: spec.template.spec.expireAfter: expected a duration such as 30s, 5m, 1h30m, found \"soon\"",
        ),
        (
            pool("{weight: 500, template: {spec: {}}}"),
            "NodePool p: spec.weight: expected 1 to 100, found 500",
        ),
        (format!("{POD}---{POD}"), "-: document 2: Pod default/a: metadata.name: is given twice"),
    ];
    for (input, expected) in cases {
        let output = assay(&["plan", "-f", "-"], &input);
        let line = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{input}\n{line}");
        assert!(line.contains(expected), "{line}\ndoes not contain\n{expected}");
        assert_eq!(line.trim_end().lines().count(), 1, "{line}");
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
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
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
}
