//! What forbids disrupting a node: `karpenter.sh/do-not-disrupt` on it or on a pod of it.

use std::time::Duration;

use assay_shared::labels::karpenter;

use crate::model::{Node, Pod, Timestamp};

/// Why a node with these pods may not be disrupted now, for people; `None` where it may.
#[must_use]
pub fn blocker<'p>(node: &Node, pods: impl IntoIterator<Item = &'p Pod>, now: Timestamp) -> Option<String> {
    let on_node = node.annotations.get(karpenter::DO_NOT_DISRUPT).is_some_and(|value| value == "true");
    if on_node {
        return Some(format!("the node is annotated {}", karpenter::DO_NOT_DISRUPT));
    }
    let pod = pods.into_iter().find(|pod| Protection::of(pod, now).is_some())?;
    Some(format!("pod {} is annotated {}", pod.id, karpenter::DO_NOT_DISRUPT))
}

/// How `karpenter.sh/do-not-disrupt` protects a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// For as long as it is there.
    Always,
    /// Until this moment.
    Until(Timestamp),
}

impl Protection {
    /// Karpenter's rule: `true`, or a Go duration counted from the pod's start. Any other value is no protection.
    #[must_use]
    pub fn of(pod: &Pod, now: Timestamp) -> Option<Self> {
        match pod.annotations.get(karpenter::DO_NOT_DISRUPT)?.as_str() {
            "true" => Some(Self::Always),
            text => {
                let over = pod.created + go_duration(text)?;
                (now < over).then_some(Self::Until(over))
            }
        }
    }

    /// The value of a pod's annotation that is neither of both, and so means nothing.
    #[must_use]
    pub fn unreadable(pod: &Pod) -> Option<&str> {
        let value = pod.annotations.get(karpenter::DO_NOT_DISRUPT)?.as_str();
        (value != "true" && go_duration(value).is_none()).then_some(value)
    }
}

/// A Go duration of whole or decimal hours, minutes, seconds and milliseconds, such as `1h30m`.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let (unit, seconds) = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))?;
        rest = rest.get(unit.len()..)?;
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations_are_read_and_anything_else_is_not() {
        let cases = [
            ("90s", Some(90)),
            ("1h30m", Some(5400)),
            ("1.5m", Some(90)),
            ("", None),
            ("5", None),
            ("x", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(go_duration(text), seconds.map(Duration::from_secs), "{text}");
        }
    }
}
