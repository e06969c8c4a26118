//! Makes a packing cheaper: items of several sizes into bins of several kinds, each with a price.
//!
//! The problem is stated without pods or machines ([`Problem`]), so that it can be tested and measured by itself: items with a size
//! along each axis and a count, kinds of bins with room and a price, which item may go into which kind, and groups of items of
//! which one bin may hold only so many.
//!
//! ```text
//!  problem, start --> model (flat arrays, kinds worth buying)
//!                       |
//!                       v
//!        offers: what each kind of bin pays for an item --> worth of items, lower bound
//!                       |
//!                       v
//!        mix: choose bins for the sum of items --> balance: could they hold them? --> put, squeeze
//!                       |
//!                       v
//!        generate: linear program over patterns <--> fill: the best filling of one bin at given worths
//!                       |
//!                       v
//!        cover: the cheapest whole bins for everything that must be covered --> lower bound
//!                       |
//!                       v
//!        search: dive to whole bins, then empty some bins and pack them again --> packing
//! ```
//!
//! A *pattern* is one way to fill one bin. The linear program says how often to use each pattern; its prices say what an item is
//! worth, and with these the next pattern is a knapsack. Whole numbers come from fixing patterns one after another and solving
//! again in between. What that leaves is improved by emptying some bins and solving for their content alone.
//!
//! Where a bin holds many different items, patterns are too many to list, and nearly any bins with a little room to spare can be
//! filled: then bins are chosen first and the items squeezed into them. Where a few bins are all it takes, whole ones cost far
//! more than fractions: then the bound counts whole bins.
//!
//! Work is counted in elementary steps, about one per nanosecond, never in time: the same input gives the same answer.

mod balance;
mod bound;
mod choose;
mod coarse;
mod cover;
mod equal;
mod fill;
mod generate;
mod master;
mod mix;
mod model;
mod offers;
mod problem;
mod search;
mod squeeze;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use assay_shared::units::UsdPerHour;

use self::model::{Model, Pattern, small};
pub use self::problem::{BinKind, Item, Packed, Problem, Wrong};
use self::search::Search;

/// A packing, and what is known about it.
#[derive(Debug, Clone)]
pub struct Improved {
    /// Packs every item; never dearer than the start. Empty where no packing was given or found.
    pub packing: Vec<Packed>,
    /// No packing of all items costs less.
    pub lower_bound: UsdPerHour,
    /// Elementary steps done.
    pub steps: u64,
}

/// A packing that costs no more than `start`, which must pack every item; an empty `start` asks for one from nothing.
///
/// `steps` bounds the work, about one per nanosecond: 10^9 is plenty for a few hundred kinds of items, 10^7 still helps. Bins of
/// limited kinds ([`BinKind::most`]) are never used more often than there are.
#[must_use]
pub fn improve(problem: &Problem, start: &[Packed], steps: u64) -> Improved {
    let unchanged = |steps| Improved { packing: start.to_vec(), lower_bound: UsdPerHour::ZERO, steps };
    let model = Model::new(problem);
    let mut packing = Vec::with_capacity(start.len());
    for bin in start {
        let mut items: Vec<(u32, u32)> = Vec::with_capacity(bin.items.len());
        for (item, count) in &bin.items {
            let Ok(count) = u32::try_from(*count) else { return unchanged(0) };
            items.push((small(*item), count));
        }
        // A kind that another one beats is not in the model.
        let same = model.kinds.iter().position(|kind| kind.original == bin.kind);
        let Some(kind) = same.or_else(|| model.cheapest(&items)) else { return unchanged(0) };
        packing.push((Arc::new(Pattern { kind: small(kind), items }), bin.times));
    }
    let mut search = Search::new(&model, packing, steps);
    search.run();
    let improved = model.packed(&search.best);
    if problem.check(&improved).is_err()
        || (!start.is_empty() && problem.cost(&improved) > problem.cost(start))
    {
        // Cannot happen where the start was valid.
        return Improved { lower_bound: search.lower_bound, ..unchanged(search.work) };
    }
    Improved { packing: improved, lower_bound: search.lower_bound, steps: search.work }
}

/// What any packing of all items costs at least, by the same linear program. `steps` as for [`improve`].
#[must_use]
pub fn lower_bound(problem: &Problem, steps: u64) -> UsdPerHour {
    let model = Model::new(problem);
    let mut search = Search::new(&model, Vec::new(), steps);
    search.bound();
    search.lower_bound
}
