//! The profiles and the rules of what changes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use assay_shared::HardwareReport;
use assay_shared::labels::hardware;
use assay_shared::units::Bytes;
use serde::{Deserialize, Serialize};

use super::hardware_labels;
use super::health::Health;
use crate::catalog::{InstanceType, Lottery};
use crate::model::{Labels, Timestamp};
use crate::requirement::ValueSet;

/// Distinct VMs that must have reported before a profile speaks.
pub const QUORUM: usize = 3;
/// How far memory totals may lie apart and still agree, in thousandths. AWS saw none at MiB grain for one type and
/// image (karpenter-provider-aws#7004); kernels of one image differ by less than this.
pub const AGREEMENT_PER_MILLE: u64 = 5;
/// Samples kept per profile; the oldest VM is forgotten first.
pub const SAMPLES_KEPT: usize = 64;
/// Profiles kept; Azure has about 1,400 sizes, a cluster uses a few dozen on a few images.
pub const PROFILES_KEPT: usize = 4096;
/// An image that was not seen for this long while others were is not bought any more.
pub const CURRENT_IMAGE: Duration = Duration::from_secs(3600);
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub installed: Option<Bytes>,
    /// RAM the kernel has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Bytes>,
    /// The `hardware.assay.dev/*` labels it would get, memory apart.
    pub labels: Labels,
}

impl Sample {
    /// What `report` says about the things a profile keeps.
    #[must_use]
    pub fn from_report(vm: &str, seen: Timestamp, report: &HardwareReport) -> Self {
        let mut labels = hardware_labels(report);
        // Kept as numbers above: no two machines need to agree on them to the mebibyte.
        labels.remove(hardware::MEMORY_INSTALLED_MIB);
        labels.remove(hardware::MEMORY_TOTAL_MIB);
        let (installed, total) = (report.memory.installed_bytes.get(), report.memory.total_bytes.get());
        Self { vm: vm.to_owned(), seen, installed, total, labels }
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
    /// Memory that purchases count on, and since when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settled: Option<Settled>,
}

/// Memory that purchases count on, and since when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Settled {
    memory: Bytes,
    since: Timestamp,
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
        let now = sample.seen;
        self.samples.push(sample);
        let Some(agreed) = quorum_memory(self.samples.iter()) else { return };
        match self.settled {
            Some(Settled { memory, .. }) if agreed == memory => {}
            // Upwards only when a quorum that reported since says so: one VM that changes its mind raises nothing.
            Some(Settled { memory, since }) if agreed > memory => {
                let recent = quorum_memory(self.samples.iter().filter(|sample| sample.seen > since));
                if recent.is_some_and(|recent| recent > memory) {
                    self.settled = Some(Settled { memory: agreed, since: now });
                }
            }
            _ => self.settled = Some(Settled { memory: agreed, since: now }),
        }
    }

    /// Kernel memory to count on: the smallest total that [`QUORUM`] distinct VMs agree on, each within
    /// [`AGREEMENT_PER_MILLE`]. `None` before that.
    #[must_use]
    pub fn memory(&self) -> Option<Bytes> {
        self.settled.map(|settled| settled.memory)
    }

    /// When a VM was last seen.
    fn last_seen(&self) -> Option<Timestamp> {
        self.samples.last().map(|sample| sample.seen)
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
}

/// The smallest total that [`QUORUM`] VMs agree on. Walking up from the smallest, a total that fewer share is one machine's
/// affair and is skipped.
fn quorum_memory<'s>(samples: impl Iterator<Item = &'s Sample>) -> Option<Bytes> {
    let mut totals: Vec<u64> = samples.filter_map(|sample| Some(sample.total?.0)).collect();
    totals.sort_unstable();
    totals.windows(QUORUM).find_map(|agreeing| {
        let (least, most) = (*agreeing.first()?, *agreeing.last()?);
        (most - least <= least / 1000 * AGREEMENT_PER_MILLE).then_some(Bytes(least))
    })
}

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// It was taken into account.
    Accepted {
        /// Memory the profile now counts on, where that changed.
        memory_changed: Option<Bytes>,
        /// Whether anything that purchases count on changed: memory, or labels that all machines of the size share.
        changed: bool,
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
    /// Bad arrivals by size and zone. Not exported: it is forgotten within hours anyway.
    health: BTreeMap<(Arc<str>, Arc<str>), Health>,
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

    /// What was learned before. Lists that are too long are cut to the limits.
    #[must_use]
    pub fn of(profiles: impl IntoIterator<Item = (ProfileKey, SkuProfile)>) -> Self {
        let cut = |(key, mut profile): (ProfileKey, SkuProfile)| {
            let surplus = profile.samples.len().saturating_sub(SAMPLES_KEPT);
            profile.samples.drain(..surplus);
            (key, profile)
        };
        let profiles = profiles.into_iter().take(PROFILES_KEPT).map(cut).collect();
        Self { profiles, health: BTreeMap::new(), revision: 1 }
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
        self.revision += 1;
        let profile = self.profiles.entry(key.clone()).or_default();
        if let Some(quarantine) = impossible {
            profile.quarantined = profile.quarantined.saturating_add(1);
            return Observation::Quarantined(quarantine);
        }
        let before = profile.memory();
        let labels_before = self.shared_labels(&key.sku, &key.region);
        if let Some(profile) = self.profiles.get_mut(key) {
            profile.add(Sample::from_report(vm, now, report));
        }
        let after = self.profiles.get(key).and_then(SkuProfile::memory);
        let memory_changed = after.filter(|_| after != before);
        let changed = memory_changed.is_some() || labels_before != self.shared_labels(&key.sku, &key.region);
        Observation::Accepted { memory_changed, changed }
    }

    fn of_sku(&self, sku: &str, region: &str) -> impl Iterator<Item = &SkuProfile> {
        let same = move |key: &ProfileKey| key.sku == sku && key.region == region;
        self.profiles.iter().filter(move |(key, _)| same(key)).map(|(_, profile)| profile)
    }

    /// Labels on which every machine of `sku` in `region` agrees, once a quorum has told.
    #[must_use]
    pub fn shared_labels(&self, sku: &str, region: &str) -> Labels {
        let samples: Vec<&Sample> = self.of_sku(sku, region).flat_map(|profile| &profile.samples).collect();
        let mut shared = Labels::new();
        let keys: BTreeSet<&String> = samples.iter().flat_map(|sample| sample.labels.keys()).collect();
        for key in keys {
            let mut told = samples.iter().filter_map(|sample| sample.labels.get(key));
            let Some(first) = told.next() else { continue };
            let others: Vec<&String> = told.collect();
            if others.len() + 1 >= QUORUM && others.iter().all(|other| *other == first) {
                shared.insert(key.clone(), first.clone());
            }
        }
        shared
    }

    /// Gives an instance type the labels that all machines of its size share, so that pods which ask for them can have one
    /// bought. Where machines differ the label is left to chance: see [`Self::lotteries`].
    pub fn refine(&self, size: &mut InstanceType, region: &str) {
        for (key, value) in self.shared_labels(&size.name, region) {
            size.requirements.remove(&key);
            size.requirements.constrain(&key, &ValueSet::of([value]));
        }
        for lottery in self.lotteries(&size.name, region) {
            size.requirements.remove(&lottery.key);
            size.lotteries.retain(|known| known.key != lottery.key);
            size.lotteries.push(lottery);
        }
    }

    /// Labels of which machines of `sku` in `region` have different values, with how often each was seen, once a quorum has told.
    #[must_use]
    pub fn lotteries(&self, sku: &str, region: &str) -> Vec<Lottery> {
        let samples: Vec<&Sample> = self.of_sku(sku, region).flat_map(|profile| &profile.samples).collect();
        let mut seen: BTreeMap<&String, BTreeMap<&String, u32>> = BTreeMap::new();
        for (key, value) in samples.iter().flat_map(|sample| &sample.labels) {
            *seen.entry(key).or_default().entry(value).or_default() += 1;
        }
        let lotteries = seen.into_iter().filter_map(|(key, values)| {
            let told: u32 = values.values().sum();
            let differs = values.len() > 1 && told as usize >= QUORUM;
            let chance = |count: u32| f64::from(count) / f64::from(told);
            differs.then(|| Lottery {
                key: key.clone(),
                chances: values.into_iter().map(|(value, count)| (value.clone(), chance(count))).collect(),
            })
        });
        lotteries.collect()
    }

    /// Whether a profile is forgotten for the next one.
    pub(crate) fn is_full(&self) -> bool {
        self.profiles.len() >= PROFILES_KEPT
    }

    /// All that is told of purchases of `sku` in `region`: what makes them another offer once it changes.
    pub(crate) fn tells(&self, sku: &str, region: &str) -> (Option<Bytes>, Labels, Vec<Lottery>) {
        (self.memory_for(sku, region), self.shared_labels(sku, region), self.lotteries(sku, region))
    }

    /// Counts a machine that came without something it was bought with.
    pub fn arrived_unhealthy(&mut self, sku: &str, zone: &str, now: Timestamp) {
        self.health.entry((sku.into(), zone.into())).or_default().arrived_bad(now);
    }

    /// Until when `sku` is better not bought in `zone`; `None` where it may be.
    #[must_use]
    pub fn avoided_until(&self, sku: &str, zone: &str, now: Timestamp) -> Option<Timestamp> {
        let health = self.health.get(&(Arc::from(sku), Arc::from(zone)))?;
        Some(health.avoided_until()).filter(|until| *until > now)
    }

    /// When the next offering may be bought again whose machines kept coming broken.
    pub(crate) fn next_recovery(&self, now: Timestamp) -> Option<Timestamp> {
        self.health.values().map(Health::avoided_until).filter(|until| *until > now).min()
    }

    /// Marks offerings as not to be had whose machines keep coming broken.
    pub fn avoid_unhealthy(&self, types: &mut [InstanceType], now: Timestamp) {
        if self.health.is_empty() {
            return;
        }
        for size in types {
            for offering in &mut size.offerings {
                offering.available &= self.avoided_until(&size.name, &offering.zone, now).is_none();
            }
        }
    }

    /// Kernel memory to count on for the next purchase of `sku` in `region`: the least that any image showed which was seen
    /// within [`CURRENT_IMAGE`] of the newest report, so that it does not flap while images are rolled out.
    #[must_use]
    pub fn memory_for(&self, sku: &str, region: &str) -> Option<Bytes> {
        let newest = self.of_sku(sku, region).filter_map(SkuProfile::last_seen).max()?;
        let current = |profile: &&SkuProfile| {
            profile.last_seen().is_some_and(|seen| newest.since(seen) <= CURRENT_IMAGE)
        };
        self.of_sku(sku, region).filter(current).filter_map(SkuProfile::memory).min()
    }

    /// How likely a machine of `sku` in `region` comes with this label value: VMs that had it over VMs that told, once a
    /// quorum has told.
    #[must_use]
    pub fn chance(&self, sku: &str, region: &str, key: &str, value: &str) -> Option<f64> {
        let samples = self.of_sku(sku, region).flat_map(|profile| &profile.samples);
        let told: Vec<&String> = samples.filter_map(|sample| sample.labels.get(key)).collect();
        if told.len() < QUORUM {
            return None;
        }
        #[allow(clippy::cast_precision_loss)] // a few thousand samples at most
        Some(told.iter().filter(|found| **found == value).count() as f64 / told.len() as f64)
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
        Ok(Self::of(document.items.into_iter().map(|Exported { key, profile }| (key, profile))))
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
mod tests;
