//! Resources as vectors: one axis per resource that somebody asks for, so that fitting is a short loop over integers.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use crate::model::{ResourceList, Snapshot};

/// An amount per axis: millicores, bytes, pod slots or units.
pub(super) type Amounts = SmallVec<[u64; 8]>;

/// Which resource each axis is: CPU, memory, ephemeral storage, pod slots, then the extended ones by name.
#[derive(Debug)]
pub(super) struct Axes {
    extended: Vec<String>,
}

impl Axes {
    const COMMON: usize = 4;

    /// The axes that pods and DaemonSets of a snapshot ask for; what nobody asks for cannot run out.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let pods = snapshot.pods.iter().filter(|pod| pod.is_pending()).map(|pod| &pod.spec);
        let specs = pods.chain(snapshot.daemon_sets.iter().map(|set| &set.spec));
        let names: BTreeSet<&String> = specs
            .filter(|spec| !spec.requests.extended.is_empty())
            .flat_map(|spec| spec.requests.extended.keys())
            .collect();
        Self { extended: names.into_iter().cloned().collect() }
    }

    pub(super) fn len(&self) -> usize {
        Self::COMMON + self.extended.len()
    }

    /// `list` along these axes.
    pub(super) fn amounts(&self, list: &ResourceList) -> Amounts {
        let mut amounts: Amounts =
            SmallVec::from_slice(&[list.cpu.0, list.memory.0, list.ephemeral_storage.0, list.pods]);
        amounts.extend(self.extended.iter().map(|name| list.extended(name)));
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
