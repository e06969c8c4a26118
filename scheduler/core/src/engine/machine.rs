//! A claim with all that is known of its machine.

use std::collections::BTreeMap;
use std::sync::Arc;

use assay_shared::HardwareReport;
use assay_shared::units::UsdPerHour;

use super::{Condition, LeaveReason};
use crate::catalog::InstanceType;
use crate::model::{ClaimState, Drift, NodeClaim, Timestamp};
use crate::profile::Mismatch;

/// A claim and what is known beyond it.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The claim.
    pub claim: NodeClaim,
    /// What was bought, as the catalogue had it then.
    pub bought: Arc<InstanceType>,
    /// What the cheapest cost that would have done, as it was bought; unknown for one that an earlier run bought.
    pub cheapest: Option<UsdPerHour>,
    /// When the cloud accepted it: it costs money from then on.
    pub launched: Option<Timestamp>,
    /// Its last report.
    pub report: Option<Arc<HardwareReport>>,
    /// Whether a report was held against the claim and fits.
    pub verified: bool,
    /// In what it is less than what was bought.
    pub mismatches: Vec<Mismatch>,
    /// Conditions of its node as they were last set.
    pub conditions: BTreeMap<&'static str, Condition>,
    /// Conditions of its claim as they were last set.
    pub claim_conditions: BTreeMap<&'static str, Condition>,
    /// Since when the fast path of its network is off.
    pub network_inactive_since: Option<Timestamp>,
    /// Since when no pod came or went.
    pub quiet_since: Timestamp,
    /// Why it is not what its pool would make now, and since when.
    pub drift: Option<Drift>,
    /// Since when the node it had is not to be found.
    pub missing_since: Option<Timestamp>,
    /// Why it is to go, once that is decided.
    pub leaving: Option<LeaveReason>,
    /// When it is gone whatever we do: the cloud takes it back, or it is broken.
    pub taken_at: Option<Timestamp>,
    /// How far its end got, once its claim is to be deleted.
    pub ending: Option<Ending>,
}

/// How far the end of a machine got. Each time stamp is when something was last asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ending {
    /// `DeleteClaim` was said.
    pub claim_asked: Option<Timestamp>,
    /// The decision is on record: the claim's object is being deleted. Nothing is done to pods before.
    pub on_record: bool,
    /// The claim's object is gone although we held it.
    pub object_gone: bool,
    /// Its node was closed: load balancers get some seconds from then on.
    pub closed: Option<Timestamp>,
    /// People were told what holds the draining up.
    pub refusal_told: bool,
    /// People were told which volumes are waited for.
    pub volumes_told: bool,
    /// `DeleteInstance` was said.
    pub instance_asked: Option<Timestamp>,
}

impl Machine {
    pub(super) fn new(claim: NodeClaim, bought: Arc<InstanceType>, now: Timestamp) -> Self {
        Self {
            claim,
            bought,
            cheapest: None,
            launched: None,
            report: None,
            verified: false,
            mismatches: Vec::new(),
            conditions: BTreeMap::new(),
            claim_conditions: BTreeMap::new(),
            network_inactive_since: None,
            quiet_since: now,
            drift: None,
            missing_since: None,
            leaving: None,
            taken_at: None,
            ending: None,
        }
    }

    /// Billionths of a dollar per hour times milliseconds since launch.
    pub(super) fn spent(&self, now: Timestamp) -> u128 {
        self.launched.map_or(0, |launched| now.since(launched).as_millis() * u128::from(self.claim.price.0))
    }

    /// Whether it is on its way out, or will be.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_some() || self.claim.state == ClaimState::Terminating
    }

    /// Whether its claim is being deleted.
    pub(super) fn is_ending(&self) -> bool {
        self.claim.state == ClaimState::Terminating
    }

    /// By when its pods are gone whatever holds them: its own limit on draining, or the cloud's notice.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        [self.claim.terminate_by, self.taken_at].into_iter().flatten().min()
    }
}
