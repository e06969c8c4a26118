//! Nodes that are broken, and nodes that the cloud takes back.
//!
//! A broken node goes after a while, unless too many are: then something else is the matter. A preempted one goes by a deadline
//! that nobody can move.

use std::time::Duration;

use crate::model::{Node, NodeFacts, Timestamp};

/// A condition that says a node is broken, and how long it may hold: the Azure provider's.
struct Policy {
    condition: &'static str,
    status: &'static str,
    tolerated: Duration,
}

const POLICIES: [Policy; 3] = [
    Policy { condition: "Ready", status: "False", tolerated: Duration::from_secs(600) },
    Policy { condition: "Ready", status: "Unknown", tolerated: Duration::from_secs(600) },
    Policy { condition: "kubernetes.azure.com/NodeHealthy", status: "False", tolerated: Duration::ZERO },
];

/// Conditions that the node problem detector sets when the cloud announces that it takes a spot machine back.
const PREEMPTIONS: [&str; 2] = ["PreemptScheduled", "PreemptionScheduled"];
/// The least notice Azure gives.
const NOTICE: Duration = Duration::from_secs(30);

/// What is wrong with a node, and from when on it is to be replaced.
pub(super) fn broken(facts: &NodeFacts) -> Option<(String, Timestamp)> {
    // A condition without a time says nothing of how long it held.
    let told = facts.conditions.iter().filter(|condition| condition.since > Timestamp(0));
    let holding = told.filter_map(|condition| {
        let policy = POLICIES
            .iter()
            .find(|policy| policy.condition == condition.name && policy.status == condition.status)?;
        let what = format!("{}={}", condition.name, condition.status);
        Some((what, condition.since + policy.tolerated))
    });
    holding.min_by_key(|(_, due)| *due)
}

/// When a node that is broken now is to be replaced.
pub(crate) fn repair_due(facts: &NodeFacts) -> Option<Timestamp> {
    broken(facts).map(|(_, due)| due)
}

/// By when the cloud takes a node back.
pub(crate) fn preempted(facts: &NodeFacts) -> Option<Timestamp> {
    let announced = facts
        .conditions
        .iter()
        .find(|condition| PREEMPTIONS.contains(&condition.name.as_str()) && condition.status == "True")?;
    Some(date_in(&announced.message).unwrap_or(announced.since + NOTICE))
}

/// The first date in a text, as Azure's Scheduled Events write it.
fn date_in(text: &str) -> Option<Timestamp> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(6).find_map(|words| {
        let last = words[5].trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        Timestamp::from_http_date(&[&words[..5], &[last]].concat().join(" "))
    })
}

/// Whether so many broken nodes of a pool are too many to replace them: more than a fifth, rounded up.
pub(super) fn too_many_broken(broken: usize, total: usize) -> bool {
    broken > total.div_ceil(5)
}

/// How many of these nodes are broken, whatever is tolerated.
pub(super) fn count_broken<'n>(
    nodes: impl Iterator<Item = &'n Node>,
    facts: impl Fn(&Node) -> Option<&'n NodeFacts>,
) -> usize {
    nodes.filter(|node| facts(node).is_some_and(|facts| broken(facts).is_some())).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::NodeCondition;

    fn facts(name: &str, status: &str, message: &str) -> NodeFacts {
        let condition = NodeCondition {
            name: name.to_owned(),
            status: status.to_owned(),
            since: Timestamp(1_000),
            message: message.to_owned(),
        };
        NodeFacts { conditions: vec![condition], ..NodeFacts::default() }
    }

    #[test]
    fn each_condition_is_tolerated_for_its_time() {
        let cases = [
            ("Ready", "False", Some(601_000)),
            ("Ready", "Unknown", Some(601_000)),
            ("Ready", "True", None),
            ("kubernetes.azure.com/NodeHealthy", "False", Some(1_000)),
            ("PreemptScheduled", "True", None),
            ("DiskPressure", "True", None),
        ];
        for (name, status, due) in cases {
            let found = broken(&facts(name, status, "")).map(|(_, due)| due.0);
            assert_eq!(found, due, "{name} {status}");
        }
    }

    #[test]
    fn the_deadline_of_a_preemption_is_that_of_its_message() {
        let cases = [
            (
                "PreemptScheduled",
                "True",
                "not before Mon, 19 Sep 2016 18:29:47 GMT.",
                Some(1_474_309_787_000),
            ),
            ("PreemptionScheduled", "True", "soon", Some(31_000)),
            ("PreemptScheduled", "False", "", None),
        ];
        for (name, status, message, deadline) in cases {
            let found = preempted(&facts(name, status, message)).map(|time| time.0);
            assert_eq!(found, deadline, "{name} {status}");
        }
    }

    #[test]
    fn a_fifth_rounded_up_may_be_broken() {
        let cases =
            [(1, 3, false), (2, 3, true), (2, 10, false), (3, 10, true), (3, 11, false), (0, 0, false)];
        for (broken, total, stops) in cases {
            assert_eq!(too_many_broken(broken, total), stops, "{broken} of {total}");
        }
    }
}
