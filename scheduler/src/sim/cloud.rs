//! The simulated cloud: it may refuse a VM, takes time to boot one, and gives machines that differ from the catalogue.
//!
//! The processor is one of those a size is known to come with, the kernel keeps a little more or less, sizes whose page is
//! wrong have what machines of them were seen to have, and a machine may come with a defect.

use std::collections::BTreeMap;
use std::time::Duration;

use assay_agent::tree::{Machine, kernel_total, processors};
use assay_core::catalog::CapacityType;
use assay_core::engine::LaunchFailure;
use assay_core::model::NodeClaim;
use assay_shared::azure::{self, VmSize};
use assay_shared::report::{AcceleratedNetworking, GpuState, Priority};
use assay_shared::units::Bytes;
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use super::scenario::{CloudOptions, Defect};

/// From a request to the cloud's answer.
pub const ANSWER: Duration = Duration::from_secs(2);
/// From the wish to delete a VM to its end.
pub const DELETION: Duration = Duration::from_secs(5);
/// Notice of a spot machine that is taken back (Azure promises 30 s).
pub const PREEMPTION_NOTICE: Duration = Duration::from_secs(30);
/// Sizes that have other memory than their page says, by what public `MemTotal` figures of such machines imply, GiB.
const TRUE_MEMORY_GIB: [(&str, u64); 2] = [("Standard_HX176rs", 1400), ("Standard_ND96isr_MI300X_v5", 1900)];
/// How far kernels of one image differ in what they keep, MiB.
const KERNEL_JITTER_MIB: u64 = 4;

/// What becomes of a request.
#[derive(Debug)]
pub enum Answer {
    /// The VM exists, and its node will join after `boot`.
    Accepted {
        /// From the answer to a node that is ready.
        boot: Duration,
        /// The machine behind it.
        machine: Box<Machine>,
        /// What chance gave it, to make the same machine again.
        draw: Draw,
    },
    /// There is none.
    Refused {
        /// Why.
        failure: LaunchFailure,
        /// In the cloud's words.
        message: String,
    },
}

/// The cloud.
#[derive(Debug)]
pub struct Cloud {
    options: CloudOptions,
    /// vCPUs in use, by family.
    vcpus: BTreeMap<String, u32>,
    /// How many machines each defect rule has seen of its sizes.
    seen: Vec<u32>,
    /// One stream per purpose, so that a change of one does not reshuffle the others.
    refusals: Pcg64Mcg,
    boots: Pcg64Mcg,
    hosts: Pcg64Mcg,
}

impl Cloud {
    /// A cloud with these habits.
    #[must_use]
    pub fn new(options: CloudOptions, seed: u64) -> Self {
        let stream = |purpose: u64| Pcg64Mcg::seed_from_u64(seed.wrapping_mul(8).wrapping_add(purpose));
        let seen = vec![0; options.defects.len()];
        let (refusals, boots, hosts) = (stream(1), stream(2), stream(3));
        Self { options, vcpus: BTreeMap::new(), seen, refusals, boots, hosts }
    }

    /// Asks for the VM of a claim.
    pub fn create(&mut self, claim: &NodeClaim) -> Answer {
        let Some(size) = azure::size(&claim.instance_type) else {
            let message = format!("{} is not a size of this cloud", claim.instance_type);
            return Answer::Refused { failure: LaunchFailure::SkuNotAvailable, message };
        };
        let used = self.vcpus.entry(size.family.to_string()).or_default();
        if let Some(quota) = self.options.quota.get(&*size.family)
            && *used + size.vcpus > *quota
        {
            let message = format!("{used} of {quota} vCPUs of {} are in use", size.family);
            return Answer::Refused { failure: LaunchFailure::SkuFamilyQuotaExceeded, message };
        }
        if self.refusals.random_bool(self.options.failure_rate) {
            let message = format!("no capacity for {} in {}", size.name, claim.zone);
            return Answer::Refused { failure: LaunchFailure::ZonalAllocationFailed, message };
        }
        *used += size.vcpus;
        let (least, most) = self.options.boot_seconds;
        let boot = Duration::from_secs(self.boots.random_range(least..=most));
        let draw = Draw { seed: self.hosts.random(), defects: self.defects(size) };
        Answer::Accepted {
            boot,
            machine: Box::new(machine(size, &claim.zone, claim.capacity_type, &draw)),
            draw,
        }
    }

    /// A VM is gone, and its quota free again.
    pub fn deleted(&mut self, instance_type: &str) {
        if let Some(size) = azure::size(instance_type)
            && let Some(used) = self.vcpus.get_mut(&*size.family)
        {
            *used = used.saturating_sub(size.vcpus);
        }
    }

    /// One of `from`, drawn; for a cloud that chooses whom to take back.
    pub fn draw<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        if from.is_empty() {
            return None;
        }
        Some(from.swap_remove(self.hosts.random_range(0..from.len())))
    }

    /// What is wrong with the next machine of a size.
    fn defects(&mut self, size: &VmSize) -> Vec<Defect> {
        let mut defects = Vec::new();
        for (rule, seen) in self.options.defects.iter().zip(&mut self.seen) {
            if size.name.contains(&rule.size) {
                *seen += 1;
                if *seen == rule.machine {
                    defects.push(rule.defect);
                }
            }
        }
        for (defect, rate) in &self.options.defect_rates {
            if self.hosts.random_bool(*rate) {
                defects.push(*defect);
            }
        }
        defects
    }
}

/// What chance gave a machine. The same draw makes the same machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draw {
    /// Seed of its processor, its identity and what its kernel keeps.
    pub seed: u64,
    /// What is wrong with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub defects: Vec<Defect>,
}

/// The machine behind a VM.
#[must_use]
pub fn machine(size: &VmSize, zone: &str, capacity_type: CapacityType, draw: &Draw) -> Machine {
    let mut host = Pcg64Mcg::seed_from_u64(draw.seed);
    let (region, zone) = zone.rsplit_once('-').unwrap_or((zone, ""));
    let spot = capacity_type == CapacityType::Spot;
    let priority = if spot { Priority::Spot } else { Priority::Regular };
    let mut machine = Machine::azure(size).with_identity(host.random());
    machine = machine.with_placement(region, zone, priority);
    if let Some((_, gib)) = TRUE_MEMORY_GIB.iter().find(|(name, _)| *name == &*size.name) {
        machine = machine.with_installed_memory(Bytes::gib(*gib));
    }
    let lottery = processors(size);
    if let Some(processor) = lottery.get(host.random_range(0..lottery.len().max(1))) {
        machine = machine.with_processor(*processor);
    }
    for defect in &draw.defects {
        machine = with_defect(machine, size, *defect);
    }
    let jitter = Bytes::mib(host.random_range(0..=KERNEL_JITTER_MIB));
    machine.memory.total = Some(kernel_total(machine.memory.installed) - jitter);
    machine
}

/// A machine of which something is wrong.
pub(crate) fn with_defect(machine: Machine, size: &VmSize, defect: Defect) -> Machine {
    match defect {
        Defect::LostGpu => machine.with_gpu(0, GpuState::Lost),
        Defect::LessMemory => {
            let blocks = size.memory.0 / Bytes::mib(128).0 * 7 / 8;
            machine.with_installed_memory(Bytes::mib(128) * blocks)
        }
        Defect::NetworkingOff => machine.with_accelerated_networking(AcceleratedNetworking::SyntheticOnly),
    }
}
