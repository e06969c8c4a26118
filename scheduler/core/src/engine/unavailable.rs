//! Offerings that the cloud refused, and until when they are left alone.

use std::sync::Arc;
use std::time::Duration;

use assay_shared::labels::azure;

use super::{LaunchError, LaunchFailure};
use crate::catalog::{CapacityType, InstanceType};
use crate::model::Timestamp;

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// What is left alone: every part that is given must match.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    instance_type: Option<Arc<str>>,
    family: Option<String>,
    zone: Option<Arc<str>>,
    capacity_type: Option<CapacityType>,
    until: Timestamp,
}

/// Offerings to leave alone.
#[derive(Debug, Default)]
pub(super) struct Unavailable {
    entries: Vec<Entry>,
}

impl Unavailable {
    /// Notes a refusal; durations are those of Karpenter's Azure provider.
    pub(super) fn note(&mut self, now: Timestamp, error: &LaunchError, family: Option<String>) {
        let nothing =
            Entry { instance_type: None, family: None, zone: None, capacity_type: None, until: Timestamp(0) };
        let size = Some(Arc::clone(&error.instance_type));
        let on_demand = error.capacity_type == CapacityType::OnDemand;
        let capacity_type = Some(error.capacity_type);
        let (entry, wait) = match error.failure {
            LaunchFailure::ZonalAllocationFailed => {
                (Entry { instance_type: size, zone: Some(Arc::clone(&error.zone)), ..nothing }, HOUR)
            }
            LaunchFailure::AllocationFailed => (Entry { instance_type: size, ..nothing }, HOUR),
            LaunchFailure::SkuFamilyQuotaExceeded if family.is_some() => {
                (Entry { family, capacity_type, ..nothing }, 10 * MINUTE)
            }
            LaunchFailure::LowPriorityQuotaExceeded => {
                (Entry { capacity_type: Some(CapacityType::Spot), ..nothing }, HOUR)
            }
            LaunchFailure::SkuNotAvailable => {
                let wait = if on_demand { 23 * HOUR } else { HOUR };
                (Entry { instance_type: size, capacity_type, ..nothing }, wait)
            }
            LaunchFailure::SkuFamilyQuotaExceeded | LaunchFailure::Other => {
                let zone = Some(Arc::clone(&error.zone));
                (Entry { instance_type: size, zone, capacity_type, ..nothing }, 3 * MINUTE)
            }
        };
        self.entries.push(Entry { until: now + wait, ..entry });
    }

    /// Forgets what is over; says whether anything was.
    pub(super) fn expire(&mut self, now: Timestamp) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.until > now);
        self.entries.len() < before
    }

    /// When the next one is over.
    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.entries.iter().map(|entry| entry.until).min()
    }

    /// Marks the offerings of `instance_type` that are left alone.
    pub(super) fn apply(&self, instance_type: &mut InstanceType) {
        let family = family_of(instance_type);
        for offering in &mut instance_type.offerings {
            let refused = self.entries.iter().any(|entry| {
                entry.instance_type.as_ref().is_none_or(|name| *name == instance_type.name)
                    && entry.family.as_ref().is_none_or(|name| Some(name) == family.as_ref())
                    && entry.zone.as_ref().is_none_or(|zone| *zone == offering.zone)
                    && entry.capacity_type.is_none_or(|kind| kind == offering.capacity_type)
            });
            offering.available &= !refused;
        }
    }
}

/// The quota family of a type: Azure counts vCPUs per series.
pub(super) fn family_of(instance_type: &InstanceType) -> Option<String> {
    instance_type.requirements.get(azure::SKU_SERIES)?.finite()?.first().cloned()
}
