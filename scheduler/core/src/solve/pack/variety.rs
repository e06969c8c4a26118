//! `minValues`: so many distinct values of a label must stay possible for a machine, so that the cloud has a choice.

use std::collections::BTreeSet;

use assay_shared::labels::{karpenter, kubernetes};

use super::fill::Filled;
use super::machine::Bin;
use super::{Candidate, MinValues, Packer};
use crate::model::NodePool;
use crate::solve::axes::{Amounts, fits};
use crate::solve::catalog::{Catalog, Shape};

/// Labels of a pool with the number of values that must stay possible.
pub(in crate::solve) fn wanted_variety(pool: &NodePool) -> Vec<(&str, usize)> {
    let wanted = pool.requirements.iter();
    wanted.filter_map(|one| Some((one.key.as_str(), one.min_values? as usize))).collect()
}

/// The first label of which `choices` (shape and offerings) have fewer values than wanted.
pub(in crate::solve) fn enough_variety<'k>(
    catalog: &Catalog,
    wanted: &[(&'k str, usize)],
    choices: impl Iterator<Item = (usize, u64)> + Clone,
) -> Result<(), &'k str> {
    for (key, least) in wanted {
        let mut values: BTreeSet<&str> = BTreeSet::new();
        for (shape, mask) in choices.clone() {
            add_values(&catalog.shapes[shape], mask, key, &mut values);
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
        let pieces = filled.counts.iter().map(|(demand, count)| (self.demands[*demand].piece, *count));
        self.varied(candidate.shape, candidate.reservation.is_some(), &pieces.collect::<Vec<_>>())
    }

    /// Whether enough values stay possible for a planned machine.
    pub(super) fn is_varied_bin(&self, bin: &Bin) -> bool {
        self.varied(bin.shape, bin.reservation.is_some(), &bin.pods)
    }

    fn varied(&self, shape: usize, reserved: bool, pods: &[(usize, u64)]) -> bool {
        let pool = self.catalog.shapes[shape].pool;
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
            let Some(one) = self.opened.pieces.get(piece) else { continue };
            for (need, one) in need.iter_mut().zip(&one.requests) {
                *need = need.saturating_add(one.saturating_mul(*count));
            }
        }
        let choices: Vec<(usize, u64)> = self
            .catalog
            .shapes
            .iter()
            .enumerate()
            .filter(|(_, shape)| shape.pool == pool && fits(&need, &shape.room))
            .map(|(index, shape)| {
                let masks = pods.iter().filter_map(|(piece, _)| self.opened.pieces.get(piece));
                (index, masks.fold(shape.available & shape.paid, |mask, one| mask & one.masks[index]))
            })
            .filter(|(_, mask)| *mask != 0)
            .collect();
        enough_variety(self.catalog, &wanted, choices.iter().copied()).is_ok()
    }
}
