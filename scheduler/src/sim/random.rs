//! A scenario drawn from a seed: a day or less in the life of a small cluster in which everything goes wrong now and then.

use std::fmt::Write;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// One scenario in so many is of days, the others are of hours.
const LONG_EVERY: u64 = 25;

/// The text of a scenario: the same seed, the same text.
pub(super) fn scenario(seed: u64) -> String {
    let mut random = Pcg64Mcg::seed_from_u64(seed.wrapping_mul(8).wrapping_add(5));
    let hours = if seed.is_multiple_of(LONG_EVERY) {
        random.random_range(24..=72)
    } else {
        random.random_range(3..=8)
    };
    let mut text = format!(
        "apiVersion: assay.dev/v1alpha1\nkind: Scenario\nmetadata: {{name: random-{seed}}}\nspec:\n  seed: {seed}\n  \
         duration: {hours}h\n  expect: {{pendingAtMost: 45m, nothingLeft: true}}\n"
    );
    if random.random_bool(0.3) {
        text.push_str("  restartRate: 0.003\n");
    }
    text.push_str("  resources:\n");
    pool(&mut text, &mut random, "general", "D", 10);
    if random.random_bool(0.5) {
        pool(&mut text, &mut random, "memory", "E", 1);
    }
    let workloads = workloads(&mut text, &mut random);
    steps(&mut text, &mut random, &workloads, hours * 60);
    cloud(&mut text, &mut random);
    text
}

fn one_of<'t>(random: &mut Pcg64Mcg, of: &[&'t str]) -> &'t str {
    of[random.random_range(0..of.len())]
}

fn pool(text: &mut String, random: &mut Pcg64Mcg, name: &str, family: &str, weight: u32) {
    let capacity = one_of(random, &["on-demand", "on-demand", "spot", "spot, on-demand"]);
    let cores = one_of(random, &["\"2\", \"4\", \"8\"", "\"4\", \"8\"", "\"4\", \"8\", \"16\""]);
    let payback = one_of(random, &["0s", "10m", "30m", "1h"]);
    let after = one_of(random, &["0s", "30s", "2m"]);
    let policy =
        one_of(random, &["WhenEmptyOrUnderutilized", "WhenEmptyOrUnderutilized", "Balanced", "WhenEmpty"]);
    let budget = one_of(
        random,
        &[
            "{nodes: 10%}",
            "{nodes: 50%}",
            "{nodes: \"2\"}",
            "{nodes: 100%}, {nodes: \"1\", reasons: [Underutilized]}",
            "{nodes: 100%}, {nodes: \"0\", reasons: [Underutilized, Drifted], schedule: \"0 * * * *\", duration: 20m}",
        ],
    );
    let expire = one_of(random, &["Never", "Never", "5h"]);
    let grace = one_of(random, &["", "", "          terminationGracePeriod: 10m\n"]);
    let limits = one_of(random, &["", "      limits: {cpu: \"800\", nodes: 120}\n"]);
    let _ = write!(
        text,
        "  - apiVersion: karpenter.sh/v1
    kind: NodePool
    metadata: {{name: {name}, annotations: {{assay.dev/payback-period: {payback}}}}}
    spec:
      weight: {weight}
{limits}      template:
        spec:
          expireAfter: {expire}
{grace}          requirements:
          - {{key: karpenter.sh/capacity-type, operator: In, values: [{capacity}]}}
          - {{key: karpenter.azure.com/sku-family, operator: In, values: [{family}]}}
          - {{key: karpenter.azure.com/sku-cpu, operator: In, values: [{cores}]}}
      disruption: {{consolidateAfter: {after}, consolidationPolicy: {policy}, budgets: [{budget}]}}
"
    );
}

/// Adds some; their names, and how many pods each may have.
fn workloads(text: &mut String, random: &mut Pcg64Mcg) -> Vec<(String, u32)> {
    text.push_str("  workloads:\n");
    let count = random.random_range(2..=4);
    let mut made = Vec::new();
    for number in 0..count {
        let name = format!("app-{number}");
        let most = random.random_range(4..=24_u32);
        let cpu = one_of(random, &["300m", "700m", "900m", "1500m", "2200m"]);
        let memory = one_of(random, &["500Mi", "1Gi", "3Gi", "6Gi"]);
        let grace = random.random_range(1..=30);
        let _ = writeln!(text, "  - name: {name}");
        if random.random_bool(0.4) {
            let _ = writeln!(text, "    minAvailable: {}", random.random_range(1..=most / 2));
        }
        if random.random_bool(0.2) {
            text.push_str("    volumes: 1\n");
        }
        if random.random_bool(0.2) {
            let protection = one_of(random, &["\"true\"", "30m"]);
            let _ = writeln!(text, "    annotations: {{karpenter.sh/do-not-disrupt: {protection}}}");
        }
        let _ = writeln!(
            text,
            "    spec: {{terminationGracePeriodSeconds: {grace}, containers: [{{name: app, resources: {{requests: {{cpu: {cpu}, memory: {memory}}}}}}}]}}"
        );
        made.push((name, most));
    }
    made
}

fn steps(text: &mut String, random: &mut Pcg64Mcg, workloads: &[(String, u32)], minutes: u64) {
    text.push_str("  steps:\n");
    let scale = |random: &mut Pcg64Mcg, all: bool| {
        let chosen = workloads.iter().filter(|_| all || random.random_bool(0.6)).collect::<Vec<_>>();
        let sizes = chosen.iter().map(|(name, most)| format!("{name}: {}", random.random_range(0..=*most)));
        sizes.collect::<Vec<_>>().join(", ")
    };
    let first = scale(random, true);
    let _ = writeln!(text, "  - {{at: 0s, scale: {{{first}}}}}");
    // Everything goes in the end, with an hour and a half to do so.
    let last = minutes.saturating_sub(90);
    let mut at = 0;
    loop {
        at += random.random_range(10..=if minutes > 24 * 60 { 180 } else { 45 });
        if at >= last {
            break;
        }
        let what = match random.random_range(0..12) {
            0 => format!("preempt: {}", random.random_range(1..=3)),
            1 => "deleteNodes: 1".to_owned(),
            2 => "deleteClaims: 1".to_owned(),
            3 => "restart: true".to_owned(),
            4 => format!("apiDown: {}s", random.random_range(5..=90)),
            5 => format!("loseAgents: {}", random.random_range(1..=3)),
            6 => format!("clockStep: {}", random.random_range(-90..=90_i64)),
            _ => format!("scale: {{{}}}", scale(random, false)),
        };
        let _ = writeln!(text, "  - {{at: {at}m, {what}}}");
    }
    let none = workloads.iter().map(|(name, _)| format!("{name}: 0")).collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "  - {{at: {last}m, scale: {{{none}}}}}");
}

fn cloud(text: &mut String, random: &mut Pcg64Mcg) {
    let boot = one_of(random, &["[30, 90]", "[30, 90]", "[60, 400]"]);
    let failures = one_of(random, &["0.0", "0.05", "0.2"]);
    let quota = one_of(random, &["", "", "    quota: {Dsv5: 16, Dasv5: 16}\n"]);
    let defects = one_of(random, &["{}", "{}", "{lessMemory: 0.05, networkingOff: 0.03}"]);
    let _ = write!(
        text,
        "  cloud:\n    bootSeconds: {boot}\n    failureRate: {failures}\n{quota}    defectRates: {defects}\n"
    );
}
