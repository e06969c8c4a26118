//! Node labels that groups are about, and their values: those that places have, and those that could be bought.

use std::sync::Arc;

use assay_shared::labels::{azure, karpenter, kubernetes};
use rustc_hash::FxHashMap;

use crate::solve::catalog::{Catalog, Shape};

/// Values of one node label.
#[derive(Debug)]
pub(super) struct KeyValues {
    pub(super) key: String,
    pub(super) values: Vec<Arc<str>>,
    pub(super) numbers: FxHashMap<Arc<str>, usize>,
    /// Numbers of the values in the order of these.
    pub(super) sorted: Vec<usize>,
    /// Whether an offering that can be had now would have it, by number of the value.
    pub(super) offered: Vec<bool>,
    /// Places that have it, by number of the value.
    pub(super) placed: Vec<u32>,
    /// The value of each place, by slot.
    pub(super) of_place: Vec<Option<usize>>,
}

impl KeyValues {
    pub(super) fn new(key: &str) -> Self {
        Self {
            key: key.to_owned(),
            values: Vec::new(),
            numbers: FxHashMap::default(),
            sorted: Vec::new(),
            offered: Vec::new(),
            placed: Vec::new(),
            of_place: Vec::new(),
        }
    }

    /// The number of a value, given to it where it is new.
    pub(super) fn number(&mut self, value: &str) -> usize {
        if let Some(number) = self.numbers.get(value) {
            return *number;
        }
        let (number, value): (usize, Arc<str>) = (self.values.len(), value.into());
        let at = self.sorted.partition_point(|other| self.values[*other] < value);
        self.sorted.insert(at, number);
        self.numbers.insert(Arc::clone(&value), number);
        self.values.push(value);
        self.offered.push(false);
        self.placed.push(0);
        number
    }

    /// Takes note of the values that offerings have.
    pub(super) fn offer(&mut self, catalog: &Catalog) {
        let key = self.key.clone();
        self.offered.fill(false);
        for shape in catalog.shapes.iter().filter(|shape| shape.available != 0) {
            for value in shape_values(shape, &key, shape.available) {
                let number = self.number(&value);
                self.offered[number] = true;
            }
        }
    }

    /// The value that stands for no zone, where no node has it: it is no domain while there are zones to be had.
    pub(super) fn zoneless(&self) -> Option<usize> {
        let number = self.numbers.get(azure::REGIONAL_ZONE).filter(|_| self.key == kubernetes::ZONE)?;
        (self.placed[*number] == 0).then_some(*number)
    }

    /// Of offered values, those that are domains.
    pub(super) fn domains(&self, mut offered: Vec<usize>) -> Vec<usize> {
        if let Some(zoneless) = self.zoneless().filter(|_| offered.len() > 1) {
            offered.retain(|value| *value != zoneless);
        }
        offered
    }
}

/// The entry of this number, with entries before it where they are missing.
pub(super) fn slot_of<T: Clone + Default>(list: &mut Vec<T>, index: usize) -> &mut T {
    if list.len() <= index {
        list.resize(index + 1, T::default());
    }
    &mut list[index]
}

/// Values of a label that machines of a shape can get with the offerings of `mask`.
pub(super) fn shape_values(shape: &Shape, key: &str, mask: u64) -> Vec<Arc<str>> {
    let offered =
        || shape.offerings.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, o)| o);
    match key {
        _ if mask == 0 => Vec::new(),
        kubernetes::ZONE => offered().map(|offering| Arc::clone(&offering.zone)).collect(),
        karpenter::CAPACITY_TYPE => {
            offered().map(|offering| Arc::from(offering.capacity_type.as_str())).collect()
        }
        _ => {
            let finite = shape.offered.get(key).and_then(|set| set.finite());
            finite.into_iter().flatten().map(|value| Arc::from(value.as_str())).collect()
        }
    }
}
