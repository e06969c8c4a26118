//! Machines that are planned, and what they still have room for.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::join::put;
use super::{Demand, Pieces};
use crate::requirement::Requirements;
use crate::solve::axes::Amounts;
use crate::solve::catalog::Catalog;
use crate::solve::host::Occupancy;

/// A machine to buy.
#[derive(Debug, Clone)]
pub(in crate::solve) struct Bin {
    pub(in crate::solve) shape: usize,
    /// Offerings that every pod allows.
    pub(in crate::solve) mask: u64,
    /// Pods by piece.
    pub(in crate::solve) pods: Vec<(usize, u64)>,
    /// What all of its pods need of the machine.
    pub(in crate::solve) requirements: Requirements,
    /// The reservation it draws on.
    pub(in crate::solve) reservation: Option<Arc<str>>,
    /// Whether its pods had to agree on a label.
    pub(super) loose: bool,
    /// What is left of the shape.
    pub(super) room: Amounts,
    pub(super) occupancy: Occupancy,
}

impl Bin {
    /// A machine that is planned and will not be added to.
    pub(in crate::solve) fn planned(
        shape: usize,
        mask: u64,
        pods: Vec<(usize, u64)>,
        requirements: Requirements,
    ) -> Self {
        Self {
            shape,
            mask,
            pods,
            requirements,
            reservation: None,
            loose: false,
            room: Amounts::new(),
            occupancy: Occupancy::default(),
        }
    }

    /// Makes it a machine of a shape as it comes; its pods are the caller's to put back.
    pub(super) fn empty_into(&mut self, catalog: &Catalog, shape: usize, mask: u64) {
        let one = &catalog.shapes[shape];
        self.shape = shape;
        self.mask = mask;
        self.room.clone_from(&one.room);
        self.occupancy.clone_from(&one.occupancy);
        self.requirements = Requirements::new();
        self.loose = false;
    }

    /// Whether its pods agree on no label and it draws on no reservation.
    pub(in crate::solve) fn is_plain(&self) -> bool {
        !self.loose && self.reservation.is_none()
    }
}

/// Planned machines of all calls so far, with their state.
#[derive(Debug, Clone, Default)]
pub(in crate::solve) struct Opened {
    pub(super) bins: Vec<Bin>,
    /// Every piece that was ever asked for.
    pub(super) pieces: Pieces,
    /// Groups that a machine was started for.
    pub(super) started: Arc<FxHashSet<u32>>,
    /// Where each group stands among all, by number.
    pub(super) ranks: Arc<Vec<u32>>,
}

impl Opened {
    /// No machine yet; `ranks` is where each group stands among all, by number.
    pub(in crate::solve) fn new(ranks: &Arc<Vec<u32>>) -> Self {
        Self { ranks: Arc::clone(ranks), ..Self::default() }
    }

    /// Machines that are planned already, with what their pods leave of them; `demands` are those of their pieces.
    pub(in crate::solve) fn again(
        catalog: &Catalog,
        ranks: &Arc<Vec<u32>>,
        bins: Vec<Bin>,
        demands: impl Iterator<Item = Demand>,
    ) -> Self {
        let pieces: Pieces = demands.map(|demand| (demand.piece, demand)).collect();
        let mut opened = Self { bins, pieces, ..Self::new(ranks) };
        for bin in &mut opened.bins {
            bin.empty_into(catalog, bin.shape, bin.mask);
            for (piece, count) in std::mem::take(&mut bin.pods) {
                if let Some(one) = opened.pieces.get(&piece) {
                    put(one, bin, count);
                }
            }
        }
        opened
    }

    /// Holds pods to come no more to the topology spread of those that are there.
    pub(in crate::solve) fn forget_balance(&mut self) {
        self.bins.iter_mut().for_each(|bin| bin.occupancy.forget_balance());
    }

    pub(in crate::solve) fn bins(&self) -> &[Bin] {
        &self.bins
    }

    pub(in crate::solve) fn into_bins(self) -> Vec<Bin> {
        self.bins
    }
}
