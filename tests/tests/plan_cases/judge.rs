//! Compares a plan with what is expected of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::expected::{Counts, Existing, ExpectedPlan, LeftOut, Spread};
use crate::outcome::{Outcome, list, text};

/// Everything that is not as expected, one line each.
pub(crate) fn differences(expected: &ExpectedPlan, outcome: &Outcome, said: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    machines(expected, outcome, &mut wrong);
    existing(expected, outcome, &mut wrong);
    left_out(expected, outcome, &mut wrong);
    places(expected, outcome, &mut wrong);
    for spread in &expected.spread {
        count(spread, outcome, &mut wrong);
    }
    if let (Some(expected), found) = (expected.price, &outcome.plan["totals"]["pricePerHour"])
        && !is_near(expected, found)
    {
        wrong.push(format!("costs {found} per hour, expected {expected}"));
    }
    let missing = expected.warnings.iter().filter(|text| !said.contains(*text));
    wrong.extend(missing.map(|text| format!("no warning says {text:?}, but: {said}")));
    if !wrong.is_empty() {
        shorten(&mut wrong, DIFFERENCES_SHOWN);
        wrong.push(summary(outcome));
    }
    wrong
}

/// Enough to see what is wrong with a case.
const DIFFERENCES_SHOWN: usize = 6;
/// Lines of a plan that are printed of a wrong case.
const PLAN_LINES_SHOWN: usize = 12;

fn shorten(lines: &mut Vec<String>, most: usize) {
    let more = lines.len().saturating_sub(most);
    lines.truncate(most);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
}

/// Whether the input was refused in one line with these texts.
pub(crate) fn refusal(texts: &[String], code: Option<i32>, said: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if code != Some(2) {
        wrong.push(format!("exit code {code:?}, expected 2"));
    }
    if said.trim_end().lines().count() != 1 {
        wrong.push("expected one line".to_owned());
    }
    wrong.extend(
        texts.iter().filter(|text| !said.contains(*text)).map(|text| format!("does not say {text:?}")),
    );
    if !wrong.is_empty() {
        wrong.push(format!("said: {said}"));
    }
    wrong
}

fn machines(expected: &ExpectedPlan, outcome: &Outcome, wrong: &mut Vec<String>) {
    let mut machines = list(&outcome.plan["nodeClaims"]).to_vec();
    if let Some(nodes) = &expected.nodes
        && !nodes.allows(machines.len())
    {
        wrong.push(format!("buys {} machines, expected {nodes:?}", machines.len()));
    }
    let Some(list) = &expected.machines else {
        if expected.nodes.is_none() && !machines.is_empty() {
            wrong.push(format!("buys {} machines, expected none", machines.len()));
        }
        return;
    };
    for expected in list {
        let misspelt = expected.keys().filter(|field| !FIELDS.contains(&field.as_str()));
        wrong.extend(misspelt.map(|field| format!("machines have no {field}")));
        let fits =
            |machine: &Value| expected.iter().all(|(field, value)| is_as(field, &machine[field], value));
        match machines.iter().position(fits) {
            Some(found) => drop(machines.remove(found)),
            None => wrong.push(format!("no machine is {}", Value::from(expected.clone()))),
        }
    }
    if !machines.is_empty() {
        let names: Vec<_> = machines.iter().map(|machine| text(&machine["name"])).collect();
        wrong.push(format!("nobody expects {}", names.join(", ")));
    }
}

/// Fields of `nodeClaims`: another one in a case is misspelt.
const FIELDS: [&str; 12] = [
    "name",
    "nodePool",
    "instanceType",
    "zone",
    "capacityType",
    "pricePerHour",
    "instanceTypeOptions",
    "requirements",
    "requests",
    "pods",
    "reservation",
    "minValuesRelaxed",
];

/// Whether a field of a machine is as expected.
fn is_as(field: &str, found: &Value, expected: &Value) -> bool {
    match (expected, found) {
        (Value::Array(names), _) if field == "pods" => {
            pod_names(found) == names.iter().map(|name| full(text(name))).collect()
        }
        (Value::Array(some), Value::Array(all)) if field == "requirements" => {
            some.iter().all(|requirement| all.iter().any(|one| is_same_requirement(one, requirement)))
        }
        (Value::Array(choice), Value::String(_)) => choice.contains(found),
        (Value::Number(number), _) => number.as_f64().is_some_and(|number| is_near(number, found)),
        _ => expected == found,
    }
}

fn is_same_requirement(one: &Value, other: &Value) -> bool {
    let values = |value: &Value| {
        list(&value["values"]).iter().map(|value| text(value).to_owned()).collect::<BTreeSet<_>>()
    };
    ["key", "operator", "minValues"].iter().all(|field| one[field] == other[field])
        && values(one) == values(other)
}

fn is_near(expected: f64, found: &Value) -> bool {
    found.as_f64().is_some_and(|found| (found - expected).abs() < 1e-6)
}

fn pod_names(list_of_pods: &Value) -> BTreeSet<String> {
    list(list_of_pods).iter().map(|pod| text(pod).to_owned()).collect()
}

fn existing(expected: &ExpectedPlan, outcome: &Outcome, wrong: &mut Vec<String>) {
    let nodes = list(&outcome.plan["existingNodes"]);
    let found: BTreeMap<&str, BTreeSet<String>> =
        nodes.iter().map(|node| (text(&node["name"]), pod_names(&node["pods"]))).collect();
    for (node, pods) in &expected.existing {
        let found = found.get(node.as_str()).cloned().unwrap_or_default();
        let right = match pods {
            Existing::Count(count) => found.len() == *count,
            Existing::Pods(pods) => found == pods.iter().map(|pod| full(pod)).collect(),
        };
        if !right {
            wrong.push(format!("{node} gets {found:?}, expected {pods:?}"));
        }
    }
    let unexpected = found.iter().filter(|(node, _)| !expected.existing.contains_key(**node));
    wrong.extend(unexpected.map(|(node, pods)| format!("nobody expects {pods:?} on {node}")));
}

fn left_out(expected: &ExpectedPlan, outcome: &Outcome, wrong: &mut Vec<String>) {
    let mut found: BTreeMap<&str, &[Value]> = list(&outcome.plan["unschedulable"])
        .iter()
        .map(|pod| (text(&pod["pod"]), list(&pod["reasons"])))
        .collect();
    for (pattern, expected) in &expected.left_out {
        let meant: Vec<&str> = found.keys().copied().filter(|pod| is_meant(pattern, pod)).collect();
        let right = match expected {
            LeftOut::Reasons(_) => !meant.is_empty(),
            LeftOut::Some { count, .. } => meant.len() == *count,
        };
        if !right {
            wrong.push(format!("{} pods {pattern} are left out, expected {expected:?}", meant.len()));
        }
        for pod in meant {
            let Some(found) = found.remove(pod) else { continue };
            let lines = expected.reasons();
            let agree = found.len() == lines.len()
                && lines.iter().zip(found).all(|(line, reason)| says(line, reason));
            if !agree {
                wrong.push(format!("{pod} is left out for {}, expected {lines:?}", Value::from(found)));
            }
        }
    }
    wrong.extend(found.iter().map(|(pod, reasons)| {
        format!("nobody expects {pod} to be left out: {}", Value::from(reasons.to_vec()))
    }));
}

/// Whether a reason is the one of a line, see [`LeftOut`].
fn says(line: &str, reason: &Value) -> bool {
    let (head, texts) = line.split_once(": ").unwrap_or((line, ""));
    let (pools, codes) = head.split_once(' ').unwrap_or(("*", head));
    let pool = reason["nodePool"].as_str().unwrap_or("-");
    let told = format!("{} {}", text(&reason["detail"]), text(&reason["fix"]));
    (pools == "*" || pools.split('|').any(|one| one == pool))
        && codes.split('|').any(|one| reason["reason"] == one)
        && texts.split(" & ").all(|one| told.contains(one))
}

fn places(expected: &ExpectedPlan, outcome: &Outcome, wrong: &mut Vec<String>) {
    for (pattern, facts) in &expected.pods {
        for (pod, place) in placed(outcome, pattern, wrong) {
            for (name, value) in facts {
                let found = place.fact(name);
                let right = match value {
                    Value::Array(choice) => choice.iter().any(|one| Some(text(one)) == found),
                    one => Some(text(one)) == found,
                };
                if !right {
                    wrong.push(format!("{pod} is on {} with {name} {found:?}, expected {value}", place.node));
                }
            }
        }
    }
    for group in &expected.together {
        let nodes: BTreeSet<_> = nodes_of(outcome, group, wrong).into_iter().collect();
        if nodes.len() > 1 {
            wrong.push(format!("{group:?} are on {nodes:?}, expected to be together"));
        }
    }
    for group in &expected.apart {
        let nodes = nodes_of(outcome, group, wrong);
        if nodes.iter().collect::<BTreeSet<_>>().len() < nodes.len() {
            wrong.push(format!("{group:?} are on {nodes:?}, expected to be apart"));
        }
    }
}

fn nodes_of(outcome: &Outcome, group: &[String], wrong: &mut Vec<String>) -> Vec<String> {
    let places = group.iter().flat_map(|pattern| placed(outcome, pattern, wrong));
    places.map(|(_, place)| place.node.clone()).collect()
}

/// The placed pods that are meant; there must be some.
fn placed<'o>(
    outcome: &'o Outcome,
    pattern: &str,
    wrong: &mut Vec<String>,
) -> Vec<(&'o str, &'o crate::outcome::Place)> {
    let found: Vec<_> = outcome
        .pods
        .iter()
        .filter(|(pod, _)| is_meant(pattern, pod))
        .map(|(pod, place)| (pod.as_str(), place))
        .collect();
    if found.is_empty() {
        wrong.push(format!("{pattern} is not placed"));
    }
    found
}

fn count(spread: &Spread, outcome: &Outcome, wrong: &mut Vec<String>) {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for (_, place) in placed(outcome, &spread.pods, wrong) {
        *counts.entry(place.fact(&spread.by).unwrap_or("nothing").to_owned()).or_default() += 1;
    }
    let right = match &spread.counts {
        Counts::Of(expected) => {
            let expected = expected.iter().filter(|(_, count)| **count > 0);
            counts.iter().eq(expected)
        }
        Counts::InSomeOrder(expected) => {
            let sorted = |mut list: Vec<usize>| {
                list.sort_unstable();
                list
            };
            sorted(counts.values().copied().collect()) == sorted(expected.clone())
        }
    };
    if !right {
        wrong.push(format!("{} by {} are {counts:?}, expected {:?}", spread.pods, spread.by, spread.counts));
    }
}

/// Whether a pattern of a case means this pod: `name`, `namespace/name`, or the beginning of one before `*`.
fn is_meant(pattern: &str, pod: &str) -> bool {
    let pattern = full(pattern);
    pattern.strip_suffix('*').map_or(pattern == pod, |start| pod.starts_with(start))
}

fn full(pod: &str) -> String {
    if pod.contains('/') { pod.to_owned() } else { format!("default/{pod}") }
}

/// The plan in a few lines.
fn summary(outcome: &Outcome) -> String {
    let line = |machine: &Value| {
        let fields = ["name", "instanceType", "zone", "capacityType"];
        let facts: Vec<&str> = fields.iter().filter_map(|field| machine[field].as_str()).collect();
        format!(
            "{}: {}",
            facts.join(" "),
            pod_names(&machine["pods"]).into_iter().collect::<Vec<_>>().join(", ")
        )
    };
    let machines = ["nodeClaims", "existingNodes"].into_iter().flat_map(|field| list(&outcome.plan[field]));
    let mut lines: Vec<String> = machines.map(line).collect();
    lines.extend(list(&outcome.plan["unschedulable"]).iter().map(|pod| {
        let reasons = list(&pod["reasons"]).iter().map(|reason| {
            let of = |field: &str| reason[field].as_str().unwrap_or("-").to_owned();
            format!("{} {} ({})", of("nodePool"), of("reason"), of("detail"))
        });
        format!("left out {}: {}", text(&pod["pod"]), reasons.collect::<Vec<_>>().join("; "))
    }));
    shorten(&mut lines, PLAN_LINES_SHOWN);
    format!("the plan:\n    {}", lines.join("\n    "))
}
