//! Resources as vectors: one axis per resource that somebody asks for, so that fitting is a short loop over integers.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use crate::model::{AttachedVolume, ResourceList};

/// An amount per axis: millicores, bytes, pod slots or units.
pub(super) type Amounts = SmallVec<[u64; 8]>;

/// Volumes of one driver on a machine that sets no limit: more than pods could ask for.
const NO_LIMIT: u64 = 1 << 20;

/// Which resource each axis is: CPU, memory, ephemeral storage, pod slots, the extended ones by name, then the volumes of each
/// CSI driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Axes {
    extended: Vec<String>,
    drivers: Vec<String>,
}

impl Axes {
    const COMMON: usize = 4;

    /// Axes for these extended resources and these CSI drivers; what nobody asks for cannot run out.
    pub(super) fn new(extended: BTreeSet<&str>, drivers: BTreeSet<&str>) -> Self {
        let owned = |names: BTreeSet<&str>| names.into_iter().map(str::to_owned).collect();
        Self { extended: owned(extended), drivers: owned(drivers) }
    }

    /// Whether these are axes for exactly those.
    pub(super) fn are(&self, extended: &BTreeSet<&str>, drivers: &BTreeSet<&str>) -> bool {
        self.extended.iter().eq(extended) && self.drivers.iter().eq(drivers)
    }

    pub(super) fn len(&self) -> usize {
        Self::COMMON + self.extended.len() + self.drivers.len()
    }

    /// The resource of an axis; `None` where it counts volumes.
    pub(super) fn resource(&self, axis: usize) -> Option<&str> {
        ["cpu", "memory", "ephemeral-storage", "pods"]
            .into_iter()
            .chain(self.extended.iter().map(String::as_str))
            .nth(axis)
    }

    /// The driver of an axis that counts volumes.
    pub(super) fn driver(&self, axis: usize) -> Option<&str> {
        let position = axis.checked_sub(Self::COMMON + self.extended.len())?;
        self.drivers.get(position).map(String::as_str)
    }

    /// The axis that counts volumes of a driver.
    pub(super) fn of_driver(&self, driver: &str) -> Option<usize> {
        let position = self.drivers.binary_search_by(|one| one.as_str().cmp(driver)).ok()?;
        Some(Self::COMMON + self.extended.len() + position)
    }

    /// What is left of `allocatable` after `used`; `attached` counts the volumes of a driver that are attached already.
    pub(super) fn room(
        &self,
        allocatable: &ResourceList,
        used: &ResourceList,
        attached: impl Fn(&str) -> u64,
    ) -> Amounts {
        let mut room = self.amounts(&(allocatable.clone() - used));
        let volumes = room.iter_mut().skip(Self::COMMON + self.extended.len());
        for (room, driver) in volumes.zip(&self.drivers) {
            let limit = AttachedVolume::limit(driver, allocatable).unwrap_or(NO_LIMIT);
            *room = limit.saturating_sub(attached(driver));
        }
        room
    }

    /// `list` along these axes; volumes are no part of it.
    pub(super) fn amounts(&self, list: &ResourceList) -> Amounts {
        let mut amounts: Amounts =
            SmallVec::from_slice(&[list.cpu.0, list.memory.0, list.ephemeral_storage.0, list.pods]);
        amounts.extend(self.extended.iter().map(|name| list.extended(name)));
        amounts.resize(self.len(), 0);
        amounts
    }
}

/// Whether `need` can be taken out of `room`.
pub(super) fn fits(need: &[u64], room: &[u64]) -> bool {
    need.iter().zip(room).all(|(need, room)| need <= room)
}

/// How often `need` can be taken out of `room`.
pub(super) fn times(need: &[u64], room: &[u64]) -> u64 {
    need.iter().zip(room).filter_map(|(need, room)| room.checked_div(*need)).min().unwrap_or(u64::MAX)
}

/// Takes `count` times `need` out of `room`; what is not there stays at zero.
pub(super) fn take(room: &mut [u64], need: &[u64], count: u64) {
    for (room, need) in room.iter_mut().zip(need) {
        *room = room.saturating_sub(need.saturating_mul(count));
    }
}

/// Amounts as real numbers, for weighing only: no decision about fitting is made on them.
#[allow(clippy::cast_precision_loss)] // see above
pub(super) fn real(amount: u64) -> f64 {
    amount as f64
}
