//! The states of a NodeClaim, from wanted to gone: which may follow which, and how long each may last.

mod planned;

use std::time::Duration;

pub(crate) use self::planned::settled_labels;
pub use self::planned::{claim_of, labels_of};
use crate::model::ClaimState;

/// How long the cloud may take to accept a VM (Karpenter's launch time-out).
pub const LAUNCH_TIMEOUT: Duration = Duration::from_secs(5 * 60);
/// How long a VM may take until its node joins (Karpenter's registration time-out).
pub const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// How long a node may take to be ready and measured. Karpenter has no such limit, so a node that comes up without its
/// GPU blocks its pods for ever there.
pub const INITIALIZATION_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Something that moves a claim on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The driver was told to make the VM.
    AskedFor,
    /// The cloud accepted.
    Accepted,
    /// The node joined.
    Joined,
    /// The node is ready, and its hardware is what was bought.
    Verified,
    /// It was decided that it goes.
    Released,
}

/// The state after `step`. A step that was already taken, or that comes late, changes nothing: events may be repeated and
/// overtake each other.
#[must_use]
pub fn next(state: ClaimState, step: Step) -> ClaimState {
    let reached = match step {
        Step::AskedFor => ClaimState::Launching,
        Step::Accepted => ClaimState::Launched,
        Step::Joined => ClaimState::Registered,
        Step::Verified if state == ClaimState::Registered => ClaimState::Initialized,
        Step::Verified => state,
        Step::Released => ClaimState::Terminating,
    };
    state.max(reached)
}

/// How far a claim got by what its object records: `told` says whether the condition of a state is true.
#[must_use]
pub fn recorded(told: impl Fn(ClaimState) -> bool, deleting: bool) -> ClaimState {
    if deleting {
        return ClaimState::Terminating;
    }
    let states = [ClaimState::Initialized, ClaimState::Registered, ClaimState::Launched];
    states.into_iter().find(|state| told(*state)).unwrap_or(ClaimState::Pending)
}

/// How long a claim may stay in `state`; `None` where it may for ever.
#[must_use]
pub const fn deadline(state: ClaimState) -> Option<Duration> {
    match state {
        ClaimState::Pending | ClaimState::Launching => Some(LAUNCH_TIMEOUT),
        ClaimState::Launched => Some(REGISTRATION_TIMEOUT),
        ClaimState::Registered => Some(INITIALIZATION_TIMEOUT),
        ClaimState::Initialized | ClaimState::Terminating => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_got_as_far_as_its_conditions_say() {
        use ClaimState::{Initialized, Launched, Pending, Registered, Terminating};
        let cases: [(&[ClaimState], bool, ClaimState); 5] = [
            (&[], false, Pending),
            (&[Launched], false, Launched),
            (&[Launched, Registered], false, Registered),
            (&[Launched, Registered, Initialized], false, Initialized),
            (&[Launched], true, Terminating),
        ];
        for (told, deleting, state) in cases {
            assert_eq!(recorded(|one| told.contains(&one), deleting), state, "{told:?}");
        }
    }

    #[test]
    fn a_claim_goes_forward_only() {
        use ClaimState::{Initialized, Launched, Launching, Pending, Registered, Terminating};
        use Step::{Accepted, AskedFor, Joined, Released, Verified};
        let cases = [
            (Pending, AskedFor, Launching),
            (Launching, Accepted, Launched),
            (Launched, Joined, Registered),
            (Registered, Verified, Initialized),
            (Initialized, Released, Terminating),
            // Repeated, late and early steps.
            (Initialized, Accepted, Initialized),
            (Launching, Joined, Registered),
            (Launched, Verified, Launched),
            (Terminating, Joined, Terminating),
            (Pending, Released, Terminating),
        ];
        for (state, step, reached) in cases {
            assert_eq!(next(state, step), reached, "{state:?} {step:?}");
        }
    }
}
