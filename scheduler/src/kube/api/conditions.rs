//! Conditions in the status of objects: set so that `lastTransitionTime` is when the status last changed.

use assay_core::engine::ConditionStatus;
use assay_core::model::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff;

use super::texts::texts;

texts! {
    /// Whether something is so.
    Status { True = "True", False = "False", Unknown = "Unknown" }
    /// What is true of a claim. The first three together make Ready.
    ClaimCondition {
        Launched = "Launched",
        Registered = "Registered",
        Initialized = "Initialized",
        Consolidatable = "Consolidatable",
        Drifted = "Drifted",
        DisruptionReason = "DisruptionReason",
        Drained = "Drained",
        VolumesDetached = "VolumesDetached",
        InstanceTerminating = "InstanceTerminating",
        ConsistentStateFound = "ConsistentStateFound",
    }
    /// What is true of a pool. The first two together make Ready.
    PoolCondition {
        ValidationSucceeded = "ValidationSucceeded",
        NodeClassReady = "NodeClassReady",
        NodeRegistrationHealthy = "NodeRegistrationHealthy",
    }
    /// What is true of a class. All together make Ready.
    ClassCondition {
        ImagesReady = "ImagesReady",
        KubernetesVersionReady = "KubernetesVersionReady",
        SubnetsReady = "SubnetsReady",
        ValidationSucceeded = "ValidationSucceeded",
        LocalDnsReady = "LocalDNSReady",
    }
}

impl From<ConditionStatus> for Status {
    fn from(status: ConditionStatus) -> Self {
        match status {
            ConditionStatus::True => Self::True,
            ConditionStatus::False => Self::False,
            ConditionStatus::Unknown => Self::Unknown,
        }
    }
}

/// The condition that sums the others up.
pub const READY: &str = "Ready";

/// Conditions of a claim that make it ready.
pub const CLAIM_READY: [&str; 3] = [
    ClaimCondition::Launched.as_str(),
    ClaimCondition::Registered.as_str(),
    ClaimCondition::Initialized.as_str(),
];
/// Conditions of a pool that make it ready.
pub const POOL_READY: [&str; 2] =
    [PoolCondition::ValidationSucceeded.as_str(), PoolCondition::NodeClassReady.as_str()];
/// Conditions of a class that make it ready.
pub const CLASS_READY: [&str; 5] = [
    ClassCondition::ImagesReady.as_str(),
    ClassCondition::KubernetesVersionReady.as_str(),
    ClassCondition::SubnetsReady.as_str(),
    ClassCondition::ValidationSucceeded.as_str(),
    ClassCondition::LocalDnsReady.as_str(),
];

/// Longest message of a condition that the API server takes, in characters.
const MESSAGE_MAX: usize = 32_768;

/// A moment of the core as Kubernetes writes it.
#[must_use]
pub fn time(moment: Timestamp) -> Time {
    let milliseconds = i64::try_from(moment.0).unwrap_or(i64::MAX);
    Time(jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::MAX))
}

/// Sets one condition. Says whether that changed anything that should be written: one that is only observed again of the same
/// generation did not.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    (status, reason, message): (Status, &str, &str),
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let message: String = message.chars().take(MESSAGE_MAX).collect();
    // A reason that says nothing is the kind itself: the API server wants one.
    let reason = if reason.is_empty() { kind } else { reason };
    let fresh = Condition {
        type_: kind.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: time(now),
    };
    let Some(known) = conditions.iter_mut().find(|known| known.type_ == kind) else {
        conditions.push(fresh);
        return true;
    };
    let since = if known.status == fresh.status { known.last_transition_time.clone() } else { time(now) };
    let fresh = Condition { last_transition_time: since, ..fresh };
    let changed = *known != fresh;
    *known = fresh;
    changed
}

/// Sets Ready by the conditions that make it: false where one of them is, unknown where one is not known, with its reason and
/// message.
pub fn set_ready(
    conditions: &mut Vec<Condition>,
    of: &[&str],
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let found = |kind: &&str| conditions.iter().find(|condition| condition.type_ == *kind);
    let holds = |status: Status| {
        of.iter().find(|kind| {
            found(kind).map_or(Status::Unknown.as_str(), |known| &known.status) == status.as_str()
        })
    };
    let blocking = holds(Status::False)
        .map(|kind| (Status::False, kind))
        .or_else(|| holds(Status::Unknown).map(|kind| (Status::Unknown, kind)));
    let (status, reason, message) = match blocking {
        None => (Status::True, READY.to_owned(), String::new()),
        Some((status, kind)) => {
            let detail = found(kind).map(|known| known.message.clone()).filter(|message| !message.is_empty());
            let message = detail.map_or_else(
                || format!("{kind} is {}", status.as_str()),
                |detail| format!("{kind} is {}: {detail}", status.as_str()),
            );
            (status, (*kind).to_owned(), message)
        }
    };
    set(conditions, READY, (status, &reason, &message), generation, now)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(conditions: &[Condition], kind: &str) -> (String, String, String) {
        let found = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (found.status.clone(), found.reason.clone(), found.last_transition_time.0.to_string())
    }

    #[test]
    fn the_time_of_a_condition_is_when_its_status_changed() {
        let mut conditions = Vec::new();
        let at = |seconds: u64| Timestamp(seconds * 1000);
        assert!(set(&mut conditions, "Launched", (Status::Unknown, "", ""), Some(1), at(0)));
        assert!(!set(&mut conditions, "Launched", (Status::Unknown, "", ""), Some(1), at(1)), "said before");
        assert!(set(
            &mut conditions,
            "Launched",
            (Status::Unknown, "AwaitingCloud", "asked"),
            Some(1),
            at(2)
        ));
        let (_, reason, since) = told(&conditions, "Launched");
        assert_eq!(
            (reason.as_str(), since.as_str()),
            ("AwaitingCloud", "1970-01-01T00:00:00Z"),
            "still unknown"
        );
        assert!(set(&mut conditions, "Launched", (Status::True, "", ""), Some(1), at(3)));
        assert_eq!(told(&conditions, "Launched").2, "1970-01-01T00:00:03Z");
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn ready_is_the_worst_of_what_makes_it() {
        let cases = [
            (&[][..], "Unknown", "ValidationSucceeded"),
            (&[("ValidationSucceeded", Status::True)][..], "Unknown", "NodeClassReady"),
            (&[("NodeClassReady", Status::False)][..], "False", "NodeClassReady"),
            (&[("ValidationSucceeded", Status::True), ("NodeClassReady", Status::True)][..], "True", "Ready"),
            (
                &[
                    ("ValidationSucceeded", Status::True),
                    ("NodeClassReady", Status::True),
                    ("NodeRegistrationHealthy", Status::False),
                ][..],
                "True",
                "Ready",
            ),
        ];
        for (given, status, reason) in cases {
            let mut conditions = Vec::new();
            for (kind, status) in given {
                set(&mut conditions, kind, (*status, "", ""), None, Timestamp(0));
            }
            set_ready(&mut conditions, &POOL_READY, None, Timestamp(0));
            let (found, why, _) = told(&conditions, READY);
            assert_eq!((found.as_str(), why.as_str()), (status, reason), "{given:?}");
        }
    }
}
