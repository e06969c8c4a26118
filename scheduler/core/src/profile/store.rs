//! The profiles and the rules of what changes them.

use std::collections::BTreeMap;
use std::fmt;

use assay_shared::HardwareReport;
use assay_shared::report::{AcceleratedNetworking, InterfaceRole, IsaLevel};
use assay_shared::units::Bytes;
use serde::{Deserialize, Serialize};

use crate::catalog::InstanceType;
use crate::model::Timestamp;

/// Distinct VMs that must have reported before a profile speaks.
pub const QUORUM: usize = 3;
/// How far memory totals may lie apart and still agree, in thousandths. AWS saw none at MiB grain for one type and
/// image (karpenter-provider-aws#7004); kernels of one image differ by less than this.
pub const AGREEMENT_PER_MILLE: u64 = 5;
/// Samples kept per profile; the oldest VM is forgotten first.
pub const SAMPLES_KEPT: usize = 64;
/// Profiles kept; Azure has about 1,400 sizes, a cluster uses a few dozen on a few images.
pub const PROFILES_KEPT: usize = 4096;
/// How far a report may exceed what the size has before it is impossible, in thousandths. HB120rs_v3 really has 456 GiB where
/// the catalogue says 448 (1.8 %), ND96isr_MI300X_v5 1,900 for 1,850 (2.7 %).
const EXCESS_PER_MILLE: u64 = 50;

/// What a profile is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileKey {
    /// VM size.
    pub sku: String,
    /// Region.
    pub region: String,
    /// Operating system image and kernel, which decide what is left of the memory.
    pub image: String,
}

impl fmt::Display for ProfileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {} on {}", self.sku, self.region, self.image)
    }
}

/// What one VM showed; the last report of a VM replaces its earlier ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Azure's id of the VM, or its node's name where there is none.
    pub vm: String,
    /// When it was last seen.
    pub seen: Timestamp,
    /// RAM the hypervisor gave.
    pub installed: Option<Bytes>,
    /// RAM the kernel has.
    pub total: Option<Bytes>,
    /// CPU model.
    pub cpu_model: Option<String>,
    /// x86-64 level.
    pub isa_level: Option<IsaLevel>,
    /// GPUs that work.
    pub gpus_usable: Option<u32>,
    /// State of accelerated networking.
    pub accelerated_networking: Option<AcceleratedNetworking>,
    /// Driver of the fast path, or of the synthetic interface.
    pub network_driver: Option<String>,
}

impl Sample {
    /// What `report` says about the things a profile keeps.
    #[must_use]
    pub fn from_report(vm: &str, seen: Timestamp, report: &HardwareReport) -> Self {
        let interfaces = report.network.interfaces.measured();
        let driver_of = |role| {
            let interface = interfaces?.iter().find(|interface| interface.role == role)?;
            interface.driver.measured().cloned()
        };
        Self {
            vm: vm.to_owned(),
            seen,
            installed: report.memory.installed_bytes.get(),
            total: report.memory.total_bytes.get(),
            cpu_model: report.cpu.model.measured().cloned(),
            isa_level: report.cpu.isa_level.get(),
            gpus_usable: report.gpus.usable.get(),
            accelerated_networking: report.network.accelerated_networking.get(),
            network_driver: driver_of(InterfaceRole::Vf).or_else(|| driver_of(InterfaceRole::Synthetic)),
        }
    }
}

/// What is known of one size on one image in one region.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SkuProfile {
    /// Reports taken into account, repeated ones included.
    pub reports: u64,
    /// Reports refused as impossible.
    pub quarantined: u64,
    /// One sample per VM, oldest first, at most [`SAMPLES_KEPT`].
    samples: Vec<Sample>,
}

impl SkuProfile {
    /// One sample per VM.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// Distinct VMs seen.
    #[must_use]
    pub const fn vms(&self) -> usize {
        self.samples.len()
    }

    fn add(&mut self, sample: Sample) {
        self.reports = self.reports.saturating_add(1);
        self.samples.retain(|kept| kept.vm != sample.vm);
        if self.samples.len() == SAMPLES_KEPT {
            self.samples.remove(0);
        }
        self.samples.push(sample);
    }

    /// Kernel memory to count on: the smallest total that [`QUORUM`] distinct VMs agree on, each within
    /// [`AGREEMENT_PER_MILLE`]. `None` before that.
    ///
    /// Walking up from the smallest, a total that fewer than a quorum share is one machine's affair and is skipped.
    #[must_use]
    pub fn memory(&self) -> Option<Bytes> {
        let mut totals: Vec<u64> = self.samples.iter().filter_map(|sample| Some(sample.total?.0)).collect();
        totals.sort_unstable();
        totals.windows(QUORUM).find_map(|agreeing| {
            let (least, most) = (*agreeing.first()?, *agreeing.last()?);
            (most - least <= least / 1000 * AGREEMENT_PER_MILLE).then_some(Bytes(least))
        })
    }

    /// How many VMs showed each value of something, by value.
    #[must_use]
    pub fn count_by<V: Ord>(&self, value: impl Fn(&Sample) -> Option<V>) -> BTreeMap<V, usize> {
        let mut counts = BTreeMap::new();
        for value in self.samples.iter().filter_map(value) {
            *counts.entry(value).or_default() += 1;
        }
        counts
    }

    /// The value that every VM showed, once a quorum has; `None` where they differ.
    #[must_use]
    pub fn unanimous<V: Ord>(&self, value: impl Fn(&Sample) -> Option<V>) -> Option<V> {
        let counts = self.count_by(value);
        let [(value, vms)] = counts.into_iter().collect::<Vec<_>>().try_into().ok()?;
        (vms >= QUORUM).then_some(value)
    }
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// It was taken into account.
    Accepted {
        /// Memory the profile now counts on, where that changed.
        memory_changed: Option<Bytes>,
    },
    /// It cannot be, and was put aside.
    Quarantined(Quarantine),
}

/// Why a report cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Quarantine {
    /// More memory than the size has.
    #[error("{found} of memory, the size has {promised}")]
    TooMuchMemory {
        /// What was reported.
        found: Bytes,
        /// What the catalogue promises.
        promised: Bytes,
    },
    /// More GPUs than the size has.
    #[error("{found} GPUs, the size has {promised}")]
    TooManyGpus {
        /// What was reported.
        found: u64,
        /// What the catalogue promises.
        promised: u64,
    },
    /// More CPUs than the size has.
    #[error("{found} CPUs, the size has {promised}")]
    TooManyCpus {
        /// What was reported.
        found: u64,
        /// What the catalogue promises.
        promised: u64,
    },
    /// The kernel has more memory than was installed.
    #[error("the kernel has {total}, only {installed} is installed")]
    MoreThanInstalled {
        /// What the kernel has.
        total: Bytes,
        /// What is installed.
        installed: Bytes,
    },
    /// The agent says that it runs on another size than the one that was bought.
    #[error("the machine says it is a {found}, bought was a {promised}")]
    OtherSize {
        /// What was reported.
        found: String,
        /// What was bought.
        promised: String,
    },
}

/// All profiles.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProfileStore {
    profiles: BTreeMap<ProfileKey, SkuProfile>,
    /// Counts changes, so that what was derived can be told from what is stale.
    revision: u64,
}

/// One profile with its key, as it is exported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Exported {
    #[serde(flatten)]
    key: ProfileKey,
    #[serde(flatten)]
    profile: SkuProfile,
}

/// The exported form: a versioned list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    api_version: String,
    kind: String,
    items: Vec<Exported>,
}

/// Kind of the exported document.
pub const KIND: &str = "SkuProfileList";

/// A document that is no list of profiles.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is not JSON, or not of this shape.
    #[error("not a {KIND}: {0}")]
    Shape(#[from] serde_json::Error),
    /// It is something else.
    #[error("{field}: expected {expected:?}, found {found:?}")]
    Wrong {
        /// Which field.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
        /// What was there.
        found: String,
    },
}

impl ProfileStore {
    /// Nothing learned yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Changes whenever something was learned.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Profiles by key.
    pub fn iter(&self) -> impl Iterator<Item = (&ProfileKey, &SkuProfile)> {
        self.profiles.iter()
    }

    /// One profile.
    #[must_use]
    pub fn get(&self, key: &ProfileKey) -> Option<&SkuProfile> {
        self.profiles.get(key)
    }

    /// Takes a report about a VM of size `bought` into account, or puts it aside.
    pub fn observe(
        &mut self,
        key: &ProfileKey,
        vm: &str,
        now: Timestamp,
        report: &HardwareReport,
        bought: &InstanceType,
        promised_memory: Bytes,
    ) -> Observation {
        let impossible = impossibility(report, bought, promised_memory);
        if !self.profiles.contains_key(key) && self.profiles.len() >= PROFILES_KEPT {
            // The profile that learned least makes room.
            let least =
                self.profiles.iter().min_by_key(|(_, profile)| profile.reports).map(|(key, _)| key.clone());
            least.map(|key| self.profiles.remove(&key));
        }
        let profile = self.profiles.entry(key.clone()).or_default();
        if let Some(quarantine) = impossible {
            profile.quarantined = profile.quarantined.saturating_add(1);
            return Observation::Quarantined(quarantine);
        }
        let before = profile.memory();
        profile.add(Sample::from_report(vm, now, report));
        let after = profile.memory();
        self.revision += 1;
        Observation::Accepted { memory_changed: after.filter(|_| after != before) }
    }

    /// Kernel memory to count on for the next purchase of `sku` in `region`: what the most recently seen image showed.
    #[must_use]
    pub fn memory_for(&self, sku: &str, region: &str) -> Option<Bytes> {
        let of_sku = self.profiles.iter().filter(|(key, _)| key.sku == sku && key.region == region);
        let known = of_sku.filter_map(|(_, profile)| Some((profile.samples.last()?.seen, profile.memory()?)));
        known.max().map(|(_, memory)| memory)
    }

    /// How likely a machine of `sku` in `region` shows what `holds` asks for: VMs that did over VMs that told, once a
    /// quorum has told.
    #[must_use]
    pub fn chance(&self, sku: &str, region: &str, holds: impl Fn(&Sample) -> Option<bool>) -> Option<f64> {
        let of_sku = self.profiles.iter().filter(|(key, _)| key.sku == sku && key.region == region);
        let told: Vec<bool> =
            of_sku.flat_map(|(_, profile)| profile.samples.iter().filter_map(&holds)).collect();
        if told.len() < QUORUM {
            return None;
        }
        #[allow(clippy::cast_precision_loss)] // a few thousand samples at most
        Some(told.iter().filter(|held| **held).count() as f64 / told.len() as f64)
    }

    /// All profiles as a JSON document.
    pub fn export(&self) -> Result<String, serde_json::Error> {
        let items = self.profiles.iter();
        let items =
            items.map(|(key, profile)| Exported { key: key.clone(), profile: profile.clone() }).collect();
        let api_version = assay_shared::report::document::API_VERSION.to_owned();
        serde_json::to_string_pretty(&Document { api_version, kind: KIND.to_owned(), items })
    }

    /// The profiles of a document that [`Self::export`] wrote. Lists that are too long are cut to the limits.
    pub fn import(text: &str) -> Result<Self, ImportError> {
        use assay_shared::report::document::API_VERSION;
        let document: Document = serde_json::from_str(text)?;
        for (field, expected, found) in
            [("apiVersion", API_VERSION, &document.api_version), ("kind", KIND, &document.kind)]
        {
            if found != expected {
                return Err(ImportError::Wrong { field, expected, found: found.clone() });
            }
        }
        let mut profiles = BTreeMap::new();
        for Exported { key, mut profile } in document.items.into_iter().take(PROFILES_KEPT) {
            let surplus = profile.samples.len().saturating_sub(SAMPLES_KEPT);
            profile.samples.drain(..surplus);
            profiles.insert(key, profile);
        }
        Ok(Self { profiles, revision: 1 })
    }
}

/// Why `report` cannot be of a machine of size `bought`, if it cannot.
fn impossibility(
    report: &HardwareReport,
    bought: &InstanceType,
    promised_memory: Bytes,
) -> Option<Quarantine> {
    let (total, installed) = (report.memory.total_bytes.get(), report.memory.installed_bytes.get());
    let most = Bytes(promised_memory.0.saturating_add(promised_memory.0 / 1000 * EXCESS_PER_MILLE));
    if let Some(found) = total.max(installed).filter(|found| *found > most) {
        return Some(Quarantine::TooMuchMemory { found, promised: promised_memory });
    }
    if let (Some(total), Some(installed)) = (total, installed)
        && total > installed
    {
        return Some(Quarantine::MoreThanInstalled { total, installed });
    }
    if let Some(found) = report.platform.vm_size.measured()
        && !found.eq_ignore_ascii_case(&bought.name)
    {
        return Some(Quarantine::OtherSize { found: found.clone(), promised: bought.name.to_string() });
    }
    let promised = super::mismatch::promised_gpus(bought);
    if let Some(found) = report.gpus.usable.get().map(u64::from).filter(|found| *found > promised) {
        return Some(Quarantine::TooManyGpus { found, promised });
    }
    let promised = bought.capacity.cpu.0 / 1000;
    let cpus = report.cpu.logical_cpus.get().map(u64::from);
    cpus.filter(|found| *found > promised).map(|found| Quarantine::TooManyCpus { found, promised })
}

#[cfg(test)]
mod tests {
    use assay_shared::Fact;
    use assay_shared::units::MilliCpu;

    use super::*;
    use crate::model::ResourceList;
    use crate::requirement::Requirements;

    fn bought() -> InstanceType {
        let capacity =
            ResourceList { cpu: MilliCpu(4000), memory: Bytes::gib(15), ..ResourceList::default() };
        InstanceType {
            name: "Standard_D4s_v5".into(),
            requirements: Requirements::new(),
            offerings: Vec::new(),
            capacity,
            overhead: ResourceList::default(),
        }
    }

    fn key() -> ProfileKey {
        ProfileKey { sku: "Standard_D4s_v5".into(), region: "eastus".into(), image: "Ubuntu".into() }
    }

    fn report(total: Bytes) -> HardwareReport {
        let mut report = HardwareReport::default();
        report.memory.total_bytes = Fact::Measured(total);
        report
    }

    fn observe(store: &mut ProfileStore, vm: &str, total: Bytes) -> Observation {
        store.observe(&key(), vm, Timestamp(1), &report(total), &bought(), Bytes::gib(16))
    }

    #[test]
    fn three_distinct_vms_make_a_profile_speak_and_the_smallest_counts() {
        let mut store = ProfileStore::new();
        for _ in 0..100 {
            observe(&mut store, "vm-1", Bytes::mib(16_018));
        }
        assert_eq!(
            store.memory_for("Standard_D4s_v5", "eastus"),
            None,
            "a hundred reports of one VM are one"
        );
        observe(&mut store, "vm-2", Bytes::mib(16_016));
        let third = observe(&mut store, "vm-3", Bytes::mib(16_019));
        assert_eq!(third, Observation::Accepted { memory_changed: Some(Bytes::mib(16_016)) });
        assert_eq!(
            store.memory_for("Standard_D4s_v5", "westeurope"),
            None,
            "another region learns for itself"
        );
    }

    #[test]
    fn one_vm_that_reports_little_or_much_changes_nobody_elses_purchase() {
        let mut store = ProfileStore::new();
        for vm in ["vm-1", "vm-2", "vm-3"] {
            observe(&mut store, vm, Bytes::mib(16_018));
        }
        observe(&mut store, "tiny", Bytes::mib(64));
        assert_eq!(store.memory_for("Standard_D4s_v5", "eastus"), Some(Bytes::mib(16_018)));
        let huge = observe(&mut store, "huge", Bytes::gib(1024));
        assert!(matches!(huge, Observation::Quarantined(Quarantine::TooMuchMemory { .. })));
        assert_eq!(store.get(&key()).unwrap().quarantined, 1);
        assert_eq!(store.get(&key()).unwrap().vms(), 4, "a quarantined report leaves no sample");
    }

    #[test]
    fn samples_are_bounded() {
        let mut store = ProfileStore::new();
        for vm in 0..1000 {
            observe(&mut store, &format!("vm-{vm}"), Bytes::mib(16_000));
        }
        assert_eq!(store.get(&key()).unwrap().vms(), SAMPLES_KEPT);
    }

    #[test]
    fn impossible_combinations_are_put_aside() {
        let mut other_size = report(Bytes::gib(15));
        other_size.platform.vm_size = Fact::Measured("Standard_D8s_v5".into());
        let mut gpus = report(Bytes::gib(15));
        gpus.gpus.usable = Fact::Measured(1);
        let mut cpus = report(Bytes::gib(15));
        cpus.cpu.logical_cpus = Fact::Measured(5);
        let mut installed = report(Bytes::gib(15));
        installed.memory.installed_bytes = Fact::Measured(Bytes::gib(14));
        for report in [other_size, gpus, cpus, installed] {
            let observation =
                ProfileStore::new().observe(&key(), "vm", Timestamp(1), &report, &bought(), Bytes::gib(16));
            assert!(matches!(observation, Observation::Quarantined(_)), "{observation:?}");
        }
    }

    #[test]
    fn profiles_survive_export_and_import() {
        let mut store = ProfileStore::new();
        for vm in ["vm-1", "vm-2", "vm-3"] {
            observe(&mut store, vm, Bytes::mib(16_018));
        }
        let restored = ProfileStore::import(&store.export().unwrap()).unwrap();
        assert_eq!(restored.get(&key()), store.get(&key()));
        let wrong = ProfileStore::import(r#"{"apiVersion":"v1","kind":"List","items":[]}"#).unwrap_err();
        assert_eq!(wrong.to_string(), "apiVersion: expected \"assay.dev/v1alpha1\", found \"v1\"");
    }
}
