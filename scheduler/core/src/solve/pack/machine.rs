//! Machines that are planned, and what they still have room for.

use std::sync::Arc;

use rustc_hash::FxHashSet;

use super::Pieces;
use crate::requirement::Requirements;
use crate::solve::axes::Amounts;
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

    pub(in crate::solve) fn bins(&self) -> &[Bin] {
        &self.bins
    }

    pub(in crate::solve) fn into_bins(self) -> Vec<Bin> {
        self.bins
    }
}
