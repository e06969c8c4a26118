//! Amounts of resources: what pods request, what machines have.

use std::collections::BTreeMap;
use std::ops::{Add, AddAssign, Sub};

use assay_shared::units::{Bytes, MilliCpu};
use serde::{Deserialize, Serialize};

/// An amount of each resource, in whole base units. Absent means none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ResourceList {
    /// CPU time.
    pub cpu: MilliCpu,
    /// Memory.
    pub memory: Bytes,
    /// Local scratch storage.
    pub ephemeral_storage: Bytes,
    /// Pod slots.
    pub pods: u64,
    /// Everything else by Kubernetes name (`nvidia.com/gpu`, `hugepages-2Mi`), in units or bytes. Never holds a zero.
    pub extended: BTreeMap<String, u64>,
}

impl ResourceList {
    /// One pod slot: the least that any pod takes.
    #[must_use]
    pub fn one_pod() -> Self {
        Self { pods: 1, ..Self::default() }
    }

    /// The amount of a resource outside the four common ones.
    #[must_use]
    pub fn extended(&self, name: &str) -> u64 {
        self.extended.get(name).copied().unwrap_or(0)
    }

    /// The amount of any resource by its Kubernetes name: millicores of `cpu`, otherwise bytes or units.
    #[must_use]
    pub fn amount(&self, name: &str) -> u64 {
        match name {
            "cpu" => self.cpu.0,
            "memory" => self.memory.0,
            "ephemeral-storage" => self.ephemeral_storage.0,
            "pods" => self.pods,
            other => self.extended(other),
        }
    }

    /// Memory that is kept as huge pages, of all sizes together.
    #[must_use]
    pub fn huge_pages(&self) -> Bytes {
        let pages = self.extended.iter().filter(|(name, _)| name.starts_with("hugepages-"));
        Bytes(pages.fold(0, |sum, (_, bytes)| sum.saturating_add(*bytes)))
    }

    /// Sets any resource by its Kubernetes name: millicores of `cpu`, otherwise bytes or units.
    pub fn set(&mut self, name: &str, amount: u64) {
        match name {
            "cpu" => self.cpu = MilliCpu(amount),
            "memory" => self.memory = Bytes(amount),
            "ephemeral-storage" => self.ephemeral_storage = Bytes(amount),
            "pods" => self.pods = amount,
            other => self.set_extended(other, amount),
        }
    }

    /// Sets a resource outside the four common ones.
    pub fn set_extended(&mut self, name: &str, amount: u64) {
        if amount == 0 {
            self.extended.remove(name);
        } else {
            self.extended.insert(name.to_owned(), amount);
        }
    }

    /// Whether `self` can be taken out of `available`, in every resource.
    #[must_use]
    pub fn fits(&self, available: &Self) -> bool {
        self.cpu <= available.cpu
            && self.memory <= available.memory
            && self.ephemeral_storage <= available.ephemeral_storage
            && self.pods <= available.pods
            && self.extended.iter().all(|(name, amount)| *amount <= available.extended(name))
    }

    /// The larger of both, resource by resource.
    #[must_use]
    pub fn max_of_each(&self, other: &Self) -> Self {
        let mut larger = Self {
            cpu: self.cpu.max(other.cpu),
            memory: self.memory.max(other.memory),
            ephemeral_storage: self.ephemeral_storage.max(other.ephemeral_storage),
            pods: self.pods.max(other.pods),
            extended: self.extended.clone(),
        };
        for (name, amount) in &other.extended {
            let kept = larger.extended.entry(name.clone()).or_default();
            *kept = (*kept).max(*amount);
        }
        larger
    }

    /// Whether there is nothing of anything.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

impl AddAssign<&ResourceList> for ResourceList {
    fn add_assign(&mut self, other: &Self) {
        self.cpu += other.cpu;
        self.memory += other.memory;
        self.ephemeral_storage += other.ephemeral_storage;
        self.pods = self.pods.saturating_add(other.pods);
        for (name, amount) in &other.extended {
            let kept = self.extended.entry(name.clone()).or_default();
            *kept = kept.saturating_add(*amount);
        }
    }
}

impl Add<&ResourceList> for ResourceList {
    type Output = Self;
    fn add(mut self, other: &Self) -> Self {
        self += other;
        self
    }
}

impl Sub<&ResourceList> for ResourceList {
    type Output = Self;
    /// What is left, never below zero.
    fn sub(mut self, other: &Self) -> Self {
        self.cpu -= other.cpu;
        self.memory -= other.memory;
        self.ephemeral_storage -= other.ephemeral_storage;
        self.pods = self.pods.saturating_sub(other.pods);
        self.extended = std::mem::take(&mut self.extended)
            .into_iter()
            .map(|(name, amount)| {
                let left = amount.saturating_sub(other.extended(&name));
                (name, left)
            })
            .filter(|(_, left)| *left > 0)
            .collect();
        self
    }
}

impl<'a> std::iter::Sum<&'a ResourceList> for ResourceList {
    fn sum<I: Iterator<Item = &'a ResourceList>>(items: I) -> Self {
        items.fold(Self::default(), |sum, item| sum + item)
    }
}
