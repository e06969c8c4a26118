//! `minValues`: so many distinct values of a label must stay possible for a machine, so that the cloud has a choice.

use std::collections::BTreeSet;

use assay_shared::labels::{karpenter, kubernetes};

use super::fill::Filled;
use super::machine::Bin;
use super::sure::sure;
use super::{Candidate, MinValues, Packer, Pieces};
use crate::model::NodePool;
use crate::requirement::Requirements;
use crate::solve::axes::{Amounts, fits};
use crate::solve::catalog::{Catalog, Shape};
use crate::solve::limits::Allowance;

/// Labels of a pool with the number of values that must stay possible.
pub(in crate::solve) fn wanted_variety(pool: &NodePool) -> Vec<(&str, usize)> {
    let wanted = pool.requirements.iter();
    wanted.filter_map(|one| Some((one.key.as_str(), one.min_values? as usize))).collect()
}

/// The first label of which `choices` (shape and offerings) have fewer values than wanted, of those that `asked` leaves.
pub(in crate::solve) fn enough_variety<'k>(
    catalog: &Catalog,
    asked: &Requirements,
    wanted: &[(&'k str, usize)],
    choices: impl Iterator<Item = (usize, u64)> + Clone,
) -> Result<(), &'k str> {
    for (key, least) in wanted {
        let mut values: BTreeSet<&str> = BTreeSet::new();
        for (shape, mask) in choices.clone() {
            add_values(&catalog.shapes[shape], mask, key, &mut values);
            // A type that leaves a label open offers what the pool allows, of which pods may want less.
            if let Some(asked) = asked.get(key) {
                values.retain(|value| asked.allows(value));
            }
            if values.len() >= *least {
                break;
            }
        }
        if values.len() < *least {
            return Err(key);
        }
    }
    Ok(())
}

/// Values of a label that machines of a shape could have.
pub(in crate::solve) fn add_values<'c>(
    shape: &'c Shape,
    mask: u64,
    key: &str,
    values: &mut BTreeSet<&'c str>,
) {
    let offerings = || {
        let bits = shape.offerings.iter().enumerate();
        bits.filter(move |(bit, _)| mask & (1 << bit) != 0).map(|(_, offering)| offering)
    };
    match key {
        _ if mask == 0 => {}
        kubernetes::INSTANCE_TYPE => {
            values.insert(&shape.instance_type.name);
        }
        kubernetes::ZONE => values.extend(offerings().map(|offering| &*offering.zone)),
        karpenter::CAPACITY_TYPE => {
            values.extend(offerings().map(|offering| offering.capacity_type.as_str()))
        }
        key => {
            let finite = shape.offered.get(key).and_then(|set| set.finite());
            values.extend(finite.into_iter().flatten().map(String::as_str));
        }
    }
}

impl Packer<'_> {
    /// Whether enough values stay possible for a filled machine.
    pub(super) fn is_varied(&self, candidate: &Candidate, filled: &Filled) -> bool {
        let pods = filled.counts.iter().map(|(demand, count)| (self.demands[*demand].piece, *count));
        self.variety().is_enough(candidate.shape, candidate.reservation.is_some(), &pods.collect::<Vec<_>>())
    }

    /// Whether enough values stay possible for a planned machine.
    pub(super) fn is_varied_bin(&self, bin: &Bin) -> bool {
        self.variety().is_enough(bin.shape, bin.reservation.is_some(), &bin.pods)
    }

    fn variety(&self) -> Variety<'_> {
        Variety {
            catalog: self.catalog,
            pieces: &self.opened.pieces,
            allowance: self.allowance,
            min_values: self.min_values,
        }
    }
}

/// What decides whether enough values stay possible.
pub(super) struct Variety<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) pieces: &'a Pieces,
    pub(super) allowance: &'a Allowance,
    pub(super) min_values: MinValues,
}

impl Variety<'_> {
    /// Whether a machine planned as this shape leaves enough choice for its pods.
    pub(super) fn is_enough(&self, shape: usize, reserved: bool, pods: &[(usize, u64)]) -> bool {
        let planned = &self.catalog.shapes[shape];
        let pool = planned.pool;
        let wanted = wanted_variety(&self.catalog.pools[pool].pool);
        if wanted.is_empty() || self.min_values == MinValues::BestEffort {
            return true;
        }
        if reserved {
            // One offering is all there is.
            return wanted.iter().all(|(_, least)| *least <= 1);
        }
        let mut need = Amounts::from_elem(0, self.catalog.axes.len());
        for (piece, count) in pods {
            let Some(one) = self.pieces.get(piece) else { continue };
            for (need, one) in need.iter_mut().zip(&one.requests) {
                *need = need.saturating_add(one.saturating_mul(*count));
            }
        }
        // A volume that several share is attached once.
        let sharing = pods.iter().filter_map(|(piece, _)| self.pieces.get(piece));
        let shared: BTreeSet<(u16, u32)> =
            sharing.flat_map(|one| one.host.shared_volumes.iter().copied()).collect();
        for (axis, _) in shared {
            need[usize::from(axis)] += 1;
        }
        let mut choices: Vec<(usize, u64)> = self
            .catalog
            .shapes
            .iter()
            .enumerate()
            .filter(|(_, shape)| shape.pool == pool && fits(&need, &shape.room))
            // An option takes no more of a limit than what was counted.
            .filter(|(_, shape)| {
                let (counted, own) = (&planned.instance_type.capacity, &shape.instance_type.capacity);
                self.allowance.may_replace(pool, counted, own)
            })
            .map(|(index, shape)| {
                let masks = pods.iter().filter_map(|(piece, _)| self.pieces.get(piece));
                (index, masks.fold(shape.available & shape.paid, |mask, one| mask & one.masks[index]))
            })
            .filter(|(_, mask)| *mask != 0)
            .collect();
        let asked = pods.iter().filter_map(|(piece, _)| self.pieces.get(piece));
        let asked = asked.fold(Requirements::new(), |all, one| all.intersect(&one.requirements));
        if self.catalog.siblings == 1 {
            return enough_variety(self.catalog, &asked, &wanted, choices.iter().copied()).is_ok();
        }
        let shapes = &self.catalog.shapes;
        choices.sort_by_key(|(shape, mask)| {
            (shapes[*shape].price(*mask), &shapes[*shape].instance_type.name, *shape)
        });
        let listed = sure(self.catalog, &asked, reserved, &wanted, &choices);
        enough_variety(self.catalog, &asked, &wanted, listed.into_iter()).is_ok()
    }
}
