//! Offerings that the cloud refused, and until when they are left alone.

use std::sync::Arc;
use std::time::Duration;

use assay_shared::labels::azure;
use assay_shared::units::MilliCpu;

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
    /// Zonal machines, or regional ones.
    zonal: Option<bool>,
    /// Sizes with at least so much CPU: a quota that refuses a small one refuses a larger one too.
    least_cpu: MilliCpu,
    capacity_type: Option<CapacityType>,
    until: Timestamp,
}

/// Offerings to leave alone.
#[derive(Debug, Default)]
pub(super) struct Unavailable {
    entries: Vec<Entry>,
}

impl Unavailable {
    /// Notes that `bought` was refused; scopes and durations are those of Karpenter's Azure provider.
    pub(super) fn note(&mut self, now: Timestamp, error: &LaunchError, bought: &InstanceType) {
        let family = family_of(bought);
        let nothing = Entry {
            instance_type: None,
            family: None,
            zone: None,
            zonal: None,
            least_cpu: MilliCpu::ZERO,
            capacity_type: None,
            until: now,
        };
        let size = Some(Arc::clone(&error.instance_type));
        let on_demand = error.capacity_type == CapacityType::OnDemand;
        let capacity_type = Some(error.capacity_type);
        let (entry, wait) = match error.failure {
            LaunchFailure::ZonalAllocationFailed => {
                (Entry { instance_type: size, zone: Some(Arc::clone(&error.zone)), ..nothing }, HOUR)
            }
            LaunchFailure::AllocationFailed => {
                let zonal = Some(&*error.zone != azure::REGIONAL_ZONE);
                (Entry { instance_type: size, zonal, ..nothing }, HOUR)
            }
            LaunchFailure::SkuFamilyQuotaExceeded if family.is_some() => {
                let least_cpu = bought.capacity.cpu;
                (Entry { family, least_cpu, capacity_type, ..nothing }, 10 * MINUTE)
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
                    && instance_type.capacity.cpu >= entry.least_cpu
                    && entry.zonal.is_none_or(|zonal| zonal == (&*offering.zone != azure::REGIONAL_ZONE))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requirement::ValueSet;
    use crate::solve::testing::instance_type;

    /// Offerings of a four-core size in two zones and regionally, and of a larger one of its series, that are left.
    fn left(failure: LaunchFailure, zone: &str, capacity_type: CapacityType) -> Vec<String> {
        let (spot, on_demand) = (CapacityType::Spot, CapacityType::OnDemand);
        let grid =
            [("r-1", on_demand, 1.0), ("r-2", on_demand, 1.0), ("0", on_demand, 1.0), ("r-1", spot, 0.5)];
        let of_series = |name, cores| {
            let mut size = instance_type(name, cores, 16, 30, &grid);
            size.requirements.constrain(azure::SKU_SERIES, &ValueSet::of(["Ds_v5"]));
            size
        };
        let mut types = [of_series("d2", 2), of_series("d4", 4), of_series("d8", 8)];
        let mut unavailable = Unavailable::default();
        let zone = zone.into();
        let error =
            LaunchError { failure, instance_type: "d4".into(), zone, capacity_type, message: String::new() };
        unavailable.note(Timestamp(0), &error, &types[1]);
        let mut left = Vec::new();
        for size in &mut types {
            unavailable.apply(size);
            for offering in size.offerings.iter().filter(|offering| offering.available) {
                left.push(format!("{} {} {}", size.name, offering.zone, offering.capacity_type));
            }
        }
        left
    }

    #[test]
    fn a_refusal_rules_out_what_it_speaks_of_and_nothing_else() {
        let (spot, on_demand) = (CapacityType::Spot, CapacityType::OnDemand);
        let gone = |failure, zone, capacity_type| {
            let left = left(failure, zone, capacity_type);
            let mut all = Vec::new();
            for size in ["d2", "d4", "d8"] {
                for offered in ["r-1 on-demand", "r-2 on-demand", "0 on-demand", "r-1 spot"] {
                    all.push(format!("{size} {offered}"));
                }
            }
            all.retain(|offering| !left.contains(offering));
            all
        };
        use LaunchFailure::{
            AllocationFailed, LowPriorityQuotaExceeded, Other, SkuFamilyQuotaExceeded, SkuNotAvailable,
            ZonalAllocationFailed,
        };
        assert_eq!(gone(ZonalAllocationFailed, "r-1", on_demand), ["d4 r-1 on-demand", "d4 r-1 spot"]);
        assert_eq!(
            gone(AllocationFailed, "r-1", on_demand),
            ["d4 r-1 on-demand", "d4 r-2 on-demand", "d4 r-1 spot"]
        );
        assert_eq!(gone(AllocationFailed, "0", on_demand), ["d4 0 on-demand"]);
        assert_eq!(gone(SkuFamilyQuotaExceeded, "r-1", on_demand).len(), 6, "d4 and d8, not d2");
        assert_eq!(
            gone(LowPriorityQuotaExceeded, "r-1", spot),
            ["d2 r-1 spot", "d4 r-1 spot", "d8 r-1 spot"]
        );
        assert_eq!(gone(SkuNotAvailable, "r-1", spot), ["d4 r-1 spot"]);
        assert_eq!(gone(Other, "r-2", on_demand), ["d4 r-2 on-demand"]);
    }
}
