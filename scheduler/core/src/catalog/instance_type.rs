//! Instance types and offerings: what every catalogue, Azure's or another, is turned into.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use assay_shared::units::UsdPerHour;
use serde::{Deserialize, Serialize};

use crate::model::ResourceList;
use crate::requirement::Requirements;

/// A size of machine that can be bought for one node class.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceType {
    /// Its name, such as `Standard_D4s_v5`.
    pub name: Arc<str>,
    /// Labels its nodes have, as sets of possible values.
    pub requirements: Requirements,
    /// Where and how it is sold.
    pub offerings: Vec<Offering>,
    /// What the kubelet will report as capacity.
    pub capacity: ResourceList,
    /// What kubelet, system and eviction threshold keep of that.
    pub overhead: ResourceList,
    /// NUMA nodes of the machine, where known.
    pub numa: Option<NumaLayout>,
    /// Chances of labels that differ from one machine of the size to the next.
    pub lotteries: Vec<Lottery>,
}

impl InstanceType {
    /// What pods get.
    #[must_use]
    pub fn allocatable(&self) -> ResourceList {
        self.allocatable_with(None)
    }

    /// What pods get of a machine bought by an offering that has something otherwise.
    #[must_use]
    pub fn allocatable_with(&self, overrides: Option<&OfferingOverrides>) -> ResourceList {
        let (mut capacity, mut overhead) = (self.capacity.clone(), self.overhead.clone());
        if let Some(own) = overrides {
            for (list, changes) in [(&mut capacity, &own.capacity), (&mut overhead, &own.overhead)] {
                for (name, amount) in changes {
                    list.set(name, *amount);
                }
            }
        }
        // Memory kept as huge pages is no memory to ordinary requests: the kubelet takes it out as well.
        overhead.memory += capacity.huge_pages();
        capacity - &overhead
    }
}

/// One way to buy an instance type.
#[derive(Debug, Clone, PartialEq)]
pub struct Offering {
    /// Value of the zone label.
    pub zone: Arc<str>,
    /// How it is paid for.
    pub capacity_type: CapacityType,
    /// What it costs.
    pub price: UsdPerHour,
    /// Where the price comes from.
    pub price_source: PriceSource,
    /// Whether it can be had now.
    pub available: bool,
    /// The reservation it draws on, for reserved capacity.
    pub reservation: Option<Reservation>,
    /// What machines of this offering have and keep where that differs from the type: named resources replace the type's.
    pub overrides: Option<Box<OfferingOverrides>>,
}

/// Machines that are paid for already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reservation {
    /// Its name; offerings of the same name share it.
    pub id: Arc<str>,
    /// Machines left of it.
    pub remaining: u64,
}

/// What one offering of a type has otherwise than the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfferingOverrides {
    /// Capacity by resource name, in base units.
    pub capacity: BTreeMap<String, u64>,
    /// Overhead by resource name, in base units.
    pub overhead: BTreeMap<String, u64>,
}

/// NUMA nodes of a machine, all alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumaLayout {
    /// How many; at least 1.
    pub nodes: u32,
    /// Logical CPUs of one.
    pub cpus: u64,
    /// Devices of one by resource name.
    pub devices: BTreeMap<String, u64>,
}

/// A label of which machines of one size have different values, and how often each was seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Lottery {
    /// Label key, such as `hardware.assay.dev/cpu-isa`.
    pub key: String,
    /// Values with their chances, which add up to one or less.
    pub chances: Vec<(String, f64)>,
}

impl Lottery {
    /// The chance that a machine's value is one that `allowed` accepts.
    #[must_use]
    pub fn chance(&self, allowed: impl Fn(&str) -> bool) -> f64 {
        self.chances.iter().filter(|(value, _)| allowed(value)).map(|(_, chance)| chance).sum()
    }
}

/// How a machine is paid for, by the values of `karpenter.sh/capacity-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CapacityType {
    /// From a reservation that is paid for anyway.
    Reserved,
    /// Cheaper, and may be taken back.
    Spot,
    /// At the list price, kept until deleted.
    OnDemand,
}

impl CapacityType {
    /// The label value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Spot => "spot",
            Self::OnDemand => "on-demand",
        }
    }
}

impl fmt::Display for CapacityType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CapacityType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "reserved" => Ok(Self::Reserved),
            "spot" => Ok(Self::Spot),
            "on-demand" => Ok(Self::OnDemand),
            other => Err(format!("expected reserved, spot or on-demand, found {other:?}")),
        }
    }
}

/// Where a price comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PriceSource {
    /// A published price list.
    Listed,
    /// Worked out from a listed price: from the family's rate, or for spot by a usual discount.
    Estimated,
    /// Nobody knows: a price so high that the offering is bought last.
    Unknown,
}
