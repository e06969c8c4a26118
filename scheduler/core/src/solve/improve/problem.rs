//! The abstract problem: items with counts, kinds of bins with prices, and who may go where.

use assay_shared::units::UsdPerHour;
use fixedbitset::FixedBitSet;

/// What is to be packed, and into what.
#[derive(Debug, Clone, Default)]
pub struct Problem {
    /// Kinds of items; equal items are one kind with a count.
    pub items: Vec<Item>,
    /// Kinds of bins.
    pub bins: Vec<BinKind>,
    /// Groups of items, each with how many of them one bin may hold at most.
    pub groups: Vec<u64>,
}

/// Equal items.
#[derive(Debug, Clone)]
pub struct Item {
    /// What one of them takes, by axis; as long as [`BinKind::room`].
    pub requests: Vec<u64>,
    /// How many there are.
    pub count: u64,
    /// Kinds of bins that may hold it: bits are positions in [`Problem::bins`].
    pub bins: FixedBitSet,
    /// Groups it belongs to: positions in [`Problem::groups`].
    pub groups: Vec<usize>,
}

/// Something to buy.
#[derive(Debug, Clone)]
pub struct BinKind {
    /// What it holds, by axis.
    pub room: Vec<u64>,
    /// What one costs.
    pub price: UsdPerHour,
    /// How many can be had, where that is limited.
    pub most: Option<u64>,
}

/// A bin and what is in it, bought one or more times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Position in [`Problem::bins`].
    pub kind: usize,
    /// Items in one of them: position in [`Problem::items`], and how many (at least one). Ascending, each item once.
    pub items: Vec<(usize, u64)>,
    /// How many bins are filled like this.
    pub times: u64,
}

/// Why a packing does not solve a problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// A position that does not exist.
    #[error("bin {0}: names something that is not there")]
    Unknown(usize),
    /// More than its room, on some axis.
    #[error("bin {0}: holds more than it has room for")]
    Overfull(usize),
    /// An item in a bin that must not hold it.
    #[error("bin {0}: holds an item that may not be there")]
    Forbidden(usize),
    /// More items of a group than one bin may hold.
    #[error("bin {0}: holds too many of a group")]
    Crowded(usize),
    /// More bins of a kind than can be had.
    #[error("bin kind {0}: more than can be had")]
    TooMany(usize),
    /// An item left out, or packed more often than it is there.
    #[error("item {0}: not packed as often as it is there")]
    Count(usize),
}

impl Problem {
    /// What a packing costs.
    #[must_use]
    pub fn cost(&self, packing: &[Packed]) -> UsdPerHour {
        packing.iter().filter_map(|bin| Some(self.bins.get(bin.kind)?.price * bin.times)).sum()
    }

    /// Whether every item is packed, and every bin allowed.
    ///
    /// # Errors
    /// The first fault found.
    pub fn check(&self, packing: &[Packed]) -> Result<(), Wrong> {
        let mut bought = vec![0u64; self.bins.len()];
        let mut packed = vec![0u64; self.items.len()];
        for (at, bin) in packing.iter().enumerate() {
            let kind = self.bins.get(bin.kind).ok_or(Wrong::Unknown(at))?;
            bought[bin.kind] = bought[bin.kind].saturating_add(bin.times);
            let mut room = kind.room.clone();
            let mut groups = self.groups.clone();
            for (index, count) in &bin.items {
                let item = self.items.get(*index).ok_or(Wrong::Unknown(at))?;
                packed[*index] = packed[*index].saturating_add(count.saturating_mul(bin.times));
                if !item.bins.contains(bin.kind) {
                    return Err(Wrong::Forbidden(at));
                }
                for (room, need) in room.iter_mut().zip(&item.requests) {
                    let need = need.checked_mul(*count).ok_or(Wrong::Overfull(at))?;
                    *room = room.checked_sub(need).ok_or(Wrong::Overfull(at))?;
                }
                for group in &item.groups {
                    let left = groups.get_mut(*group).ok_or(Wrong::Unknown(at))?;
                    *left = left.checked_sub(*count).ok_or(Wrong::Crowded(at))?;
                }
            }
        }
        let over = |(kind, bought): (&BinKind, &u64)| kind.most.is_some_and(|most| *bought > most);
        if let Some(kind) = self.bins.iter().zip(&bought).position(over) {
            return Err(Wrong::TooMany(kind));
        }
        match self.items.iter().zip(&packed).position(|(item, packed)| item.count != *packed) {
            Some(item) => Err(Wrong::Count(item)),
            None => Ok(()),
        }
    }
}
