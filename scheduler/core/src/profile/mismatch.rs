//! Is this machine what was bought? A report against a claim and its instance type.

use std::time::Duration;

use assay_shared::labels::{azure, hardware, kubernetes};
use assay_shared::report::DiskRole;
use assay_shared::units::Bytes;
use assay_shared::{Fact, HardwareReport};

use super::refine::hardware_labels;
use crate::catalog::InstanceType;
use crate::engine::{Condition, ConditionStatus};
use crate::model::ResourceList;
use crate::requirement::Requirements;

/// How far the kernel's memory may lie below what the purchase counted on before the machine is not what was bought: the model
/// is conservative by design, so anything below it by more than this is missing RAM, not kernel overhead.
const MEMORY_TOLERANCE_PER_MILLE: u64 = 10;
/// How long accelerated networking may be inactive: host servicing takes the virtual function away for up to minutes,
/// several times a year.
pub const NETWORK_GRACE: Duration = Duration::from_secs(10 * 60);

/// Something that was bought and is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What.
    pub kind: MismatchKind,
    /// What was bought.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// Kinds of mismatch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MismatchKind {
    /// Less memory than counted on.
    Memory,
    /// Fewer usable GPUs.
    Gpus,
    /// Fewer CPUs.
    Cpus,
    /// Another instruction set.
    Architecture,
    /// The fast path is off.
    AcceleratedNetworking,
    /// Local disks are missing.
    LocalStorage,
    /// A requirement on measured labels does not hold.
    Requirement,
}

impl MismatchKind {
    /// Whether it tells of broken hardware behind an offering. Memory is what the profile learns, a broken requirement was
    /// only a chance.
    #[must_use]
    pub const fn is_health(self) -> bool {
        matches!(self, Self::Gpus | Self::Cpus | Self::AcceleratedNetworking | Self::LocalStorage)
    }

    /// The value of the metric's `kind` label, and the reason of the condition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "MemoryMissing",
            Self::Gpus => "GPUsMissing",
            Self::Cpus => "CPUsMissing",
            Self::Architecture => "OtherArchitecture",
            Self::AcceleratedNetworking => "AcceleratedNetworkingInactive",
            Self::LocalStorage => "LocalStorageMissing",
            Self::Requirement => "RequirementBroken",
        }
    }
}

/// GPUs that a size promises, whoever makes them.
pub(super) fn promised_gpus(bought: &InstanceType) -> u64 {
    bought.capacity.extended("nvidia.com/gpu") + bought.capacity.extended("amd.com/gpu")
}

/// Everything in which a machine is less than what was bought. Only measured facts count: what could not be read is not
/// missing.
///
/// `counted_on` is the capacity the purchase was decided with, `network_inactive` how long the fast path has been off.
#[must_use]
pub fn compare(
    report: &HardwareReport,
    bought: &InstanceType,
    counted_on: &ResourceList,
    requirements: &Requirements,
    network_inactive: Duration,
) -> Vec<Mismatch> {
    let mut mismatches = Vec::new();
    let mut missing =
        |kind, expected: String, found: String| mismatches.push(Mismatch { kind, expected, found });

    let least = Bytes(counted_on.memory.0 - counted_on.memory.0 / 1000 * MEMORY_TOLERANCE_PER_MILLE);
    if let Some(total) = report.memory.total_bytes.get().filter(|total| *total < least) {
        missing(MismatchKind::Memory, counted_on.memory.to_string(), total.to_string());
    }
    let gpus = promised_gpus(bought);
    let usable = report.gpus.usable.get().map(u64::from);
    // Nothing on the bus is a finding too, even where no library could be asked.
    let usable = usable.or_else(|| report.gpus.pci.get().map(u64::from).filter(|pci| *pci < gpus));
    if let Some(usable) = usable.filter(|usable| *usable < gpus) {
        missing(MismatchKind::Gpus, format!("{gpus} GPUs"), format!("{usable} usable"));
    }
    let cpus = counted_on.cpu.0 / 1000;
    if let Some(found) = report.cpu.logical_cpus.get().map(u64::from).filter(|found| *found < cpus) {
        missing(MismatchKind::Cpus, format!("{cpus} CPUs"), format!("{found} online"));
    }
    let promised = |key: &str| bought.requirements.get(key);
    if let (Some(found), Some(expected)) = (report.cpu.architecture.get(), promised(kubernetes::ARCH))
        && !expected.allows(found.as_str())
    {
        let expected: Vec<_> = expected.finite().into_iter().flatten().cloned().collect();
        missing(MismatchKind::Architecture, expected.join(" or "), found.to_string());
    }
    let fast_path = promised(azure::SKU_NETWORKING_ACCELERATED).is_some_and(|set| set.allows("true"));
    if let Some(state) = report.network.accelerated_networking.get()
        && fast_path
        && !state.is_active()
        && network_inactive >= NETWORK_GRACE
    {
        missing(MismatchKind::AcceleratedNetworking, "vf_active".to_owned(), state.as_str().to_owned());
    }
    let disks =
        |role| report.disks.measured().map(|disks| disks.iter().filter(|disk| disk.role == role).count());
    let promised_count = |key| {
        let values = promised(key)?.finite()?;
        values.iter().filter_map(|value| value.parse::<usize>().ok()).min()
    };
    if let (Some(expected), Some(found)) =
        (promised_count(hardware::LOCAL_NVME_COUNT), disks(DiskRole::LocalNvme))
        && found < expected
    {
        missing(MismatchKind::LocalStorage, format!("{expected} NVMe disks"), format!("{found} NVMe disks"));
    }
    let measured = hardware_labels(report);
    for (key, set) in requirements.iter().filter(|(key, _)| key.starts_with(hardware::PREFIX)) {
        if let Some(value) = measured.get(key).filter(|value| !set.allows(value)) {
            let expected: Vec<_> = set.to_requirements(key).iter().map(ToString::to_string).collect();
            missing(MismatchKind::Requirement, expected.join(" and "), format!("{key}={value}"));
        }
    }
    mismatches
}

/// Whether `report` says enough for a verdict: GPUs that were promised have been counted. A machine whose driver has not
/// answered yet is neither what was bought nor less.
#[must_use]
pub fn tells_enough(report: &HardwareReport, bought: &InstanceType) -> bool {
    promised_gpus(bought) == 0 || report.gpus.usable.is_measured() || report.gpus.pci == Fact::Measured(0)
}

/// The node conditions that follow from a report and its mismatches.
#[must_use]
pub fn conditions(report: &HardwareReport, bought: &InstanceType, mismatches: &[Mismatch]) -> Vec<Condition> {
    let verdict = |condition_type, kinds: &[MismatchKind], known: bool, holds: &'static str| {
        let broken: Vec<_> =
            mismatches.iter().filter(|mismatch| kinds.is_empty() || kinds.contains(&mismatch.kind)).collect();
        let Some(first) = broken.first() else {
            let (status, reason) = if known {
                (ConditionStatus::True, holds)
            } else {
                (ConditionStatus::Unknown, "NotMeasured")
            };
            return Condition { condition_type, status, reason, message: String::new() };
        };
        let told =
            broken.iter().map(|mismatch| format!("bought {}, found {}", mismatch.expected, mismatch.found));
        let message = told.collect::<Vec<_>>().join("; ");
        Condition { condition_type, status: ConditionStatus::False, reason: first.kind.as_str(), message }
    };
    let mut list =
        vec![verdict("HardwareMatchesClaim", &[], report.memory.total_bytes.is_measured(), "AsBought")];
    if promised_gpus(bought) > 0 {
        list.push(verdict(
            "GPUsPresent",
            &[MismatchKind::Gpus],
            report.gpus.usable.is_measured(),
            "AllUsable",
        ));
    }
    let fast_path =
        bought.requirements.get(azure::SKU_NETWORKING_ACCELERATED).is_some_and(|set| set.allows("true"));
    if fast_path {
        let active = report.network.accelerated_networking.get().is_some_and(|state| state.is_active());
        let kinds = [MismatchKind::AcceleratedNetworking];
        list.push(verdict("AcceleratedNetworkingActive", &kinds, active, "Active"));
    }
    if bought.requirements.get(hardware::LOCAL_NVME_COUNT).is_some() {
        let known = report.disks.is_measured();
        list.push(verdict("LocalStorageAsExpected", &[MismatchKind::LocalStorage], known, "AllPresent"));
    }
    list
}

#[cfg(test)]
mod tests {
    use assay_shared::report::{AcceleratedNetworking, Architecture, IsaLevel};
    use assay_shared::units::MilliCpu;

    use super::*;
    use crate::requirement::{Requirement, ValueSet};

    fn bought() -> InstanceType {
        let mut capacity =
            ResourceList { cpu: MilliCpu(24_000), memory: Bytes::gib(216), ..ResourceList::default() };
        capacity.set_extended("nvidia.com/gpu", 1);
        let mut requirements = Requirements::new();
        requirements.constrain(kubernetes::ARCH, &ValueSet::of(["amd64"]));
        requirements.constrain(azure::SKU_NETWORKING_ACCELERATED, &ValueSet::of(["true"]));
        InstanceType {
            name: "Standard_NC24ads_A100_v4".into(),
            requirements,
            offerings: Vec::new(),
            capacity,
            overhead: ResourceList::default(),
            numa: None,
            lotteries: Vec::new(),
        }
    }

    fn as_bought() -> HardwareReport {
        let mut report = HardwareReport::default();
        report.memory.total_bytes = Fact::Measured(Bytes::gib(216));
        report.gpus.usable = Fact::Measured(1);
        report.cpu.logical_cpus = Fact::Measured(24);
        report.cpu.architecture = Fact::Measured(Architecture::Amd64);
        report.cpu.isa_level = Fact::Measured(IsaLevel::V3);
        report.network.accelerated_networking = Fact::Measured(AcceleratedNetworking::VfActive);
        report
    }

    fn kinds(
        change: impl Fn(&mut HardwareReport),
        requirements: &Requirements,
        off: Duration,
    ) -> Vec<MismatchKind> {
        let mut report = as_bought();
        change(&mut report);
        let found = compare(&report, &bought(), &bought().capacity, requirements, off);
        found.into_iter().map(|mismatch| mismatch.kind).collect()
    }

    #[test]
    fn each_missing_thing_is_found_and_nothing_else() {
        type Change = fn(&mut HardwareReport);
        let synthetic = |report: &mut HardwareReport| {
            report.network.accelerated_networking = Fact::Measured(AcceleratedNetworking::SyntheticOnly);
        };
        let cases: [(&str, Change, Duration, &[MismatchKind]); 8] = [
            ("as bought", |_| {}, Duration::ZERO, &[]),
            (
                "half the memory",
                |report| report.memory.total_bytes = Fact::Measured(Bytes::gib(108)),
                Duration::ZERO,
                &[MismatchKind::Memory],
            ),
            (
                "a lost GPU",
                |report| report.gpus.usable = Fact::Measured(0),
                Duration::ZERO,
                &[MismatchKind::Gpus],
            ),
            (
                "no GPU on the bus, no library",
                |report| {
                    report.gpus.usable = Fact::unavailable("no library");
                    report.gpus.pci = Fact::Measured(0);
                },
                Duration::ZERO,
                &[MismatchKind::Gpus],
            ),
            (
                "GPUs that nobody could count",
                |report| report.gpus.usable = Fact::unavailable("no library"),
                Duration::ZERO,
                &[],
            ),
            ("the fast path just went", synthetic, Duration::from_secs(60), &[]),
            ("the fast path is gone", synthetic, NETWORK_GRACE, &[MismatchKind::AcceleratedNetworking]),
            (
                "another architecture",
                |report| report.cpu.architecture = Fact::Measured(Architecture::Arm64),
                Duration::ZERO,
                &[MismatchKind::Architecture],
            ),
        ];
        for (what, change, off, expected) in cases {
            assert_eq!(kinds(change, &Requirements::new(), off), expected, "{what}");
        }
    }

    #[test]
    fn a_requirement_on_measured_labels_is_checked_on_arrival() {
        let needs = Requirements::from_list(&[Requirement::is_in(hardware::CPU_ISA, ["v4"])]).unwrap();
        assert_eq!(kinds(|_| {}, &needs, Duration::ZERO), [MismatchKind::Requirement]);
        let met = |report: &mut HardwareReport| report.cpu.isa_level = Fact::Measured(IsaLevel::V4);
        assert_eq!(kinds(met, &needs, Duration::ZERO), []);
    }

    #[test]
    fn conditions_tell_what_is_missing() {
        let mut report = as_bought();
        report.gpus.usable = Fact::Measured(0);
        let mismatches =
            compare(&report, &bought(), &bought().capacity, &Requirements::new(), Duration::ZERO);
        let list = conditions(&report, &bought(), &mismatches);
        let status = |name| list.iter().find(|condition| condition.condition_type == name).map(|c| c.status);
        assert_eq!(status("HardwareMatchesClaim"), Some(ConditionStatus::False));
        assert_eq!(status("GPUsPresent"), Some(ConditionStatus::False));
        assert_eq!(status("AcceleratedNetworkingActive"), Some(ConditionStatus::True));
        assert_eq!(list[0].message, "bought 1 GPUs, found 0 usable");
    }
}
