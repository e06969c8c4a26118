//! Decides what to buy for the pods that wait, and says why the rest was left out.
//!
//! ```text
//! snapshot -> catalog (shapes, offerings as bits) -> classes (equal pods, lanes) -> existing -> pack -> finish -> plan
//!                                                                                     bound (dual prices, lower bound)
//!                                                                                     reasons (for what is left)
//! ```
//!
//! Semantics are Karpenter's: strict pool weights, OR terms in order, soft taints last, limits counted with whole machines.
//! The packing is not: machines are chosen by dual prices and filled whole, instead of pods being placed one at a time.
//! Single-threaded and deterministic: no decision depends on a hash, the clock, or the order of equal pods.

mod axes;
mod bound;
mod catalog;
mod classes;
mod existing;
mod finish;
mod host;
mod limits;
mod options;
mod pack;
#[cfg(test)]
mod properties;
mod reasons;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::UsdPerHour;

use self::catalog::Catalog;
use self::classes::{Class, Lane};
use self::limits::Allowance;
pub use self::options::{MinValues, Preferences, SolveOptions};
use self::pack::{Bin, Filling};
use crate::model::{Plan, PodId, Snapshot, Totals, Unschedulable};

/// The plan for the pending pods of a snapshot. It passes [`check`](crate::check::check).
pub fn solve(snapshot: &Snapshot, options: &SolveOptions) -> Plan {
    let catalog = Catalog::compile(snapshot);
    let classes = classes::classes(snapshot, &catalog, options.preferences);
    let mut waiting: Vec<usize> = classes.iter().map(|class| class.pods.len()).collect();
    let existing = existing::assign(snapshot, &catalog, &classes, &mut waiting);
    let allowance = Allowance::of(snapshot, &catalog);

    let mut best: Option<Packing> = None;
    for filling in Filling::ALL.into_iter().take(options.attempts.max(1)) {
        let packing = Packing::new(&catalog, &classes, &waiting, allowance.clone(), filling);
        if best.as_ref().is_none_or(|best| packing.rank() < best.rank()) {
            best = Some(packing);
        }
    }
    let Some(packing) = best else { return Plan::default() };

    let mut next: Vec<usize> =
        classes.iter().zip(&waiting).map(|(class, left)| class.pods.len() - left).collect();
    let take = |class: usize, count: u64| -> Vec<PodId> {
        let first = next[class];
        next[class] += usize::try_from(count).unwrap_or(usize::MAX);
        classes[class].pods[first..next[class]].iter().map(|pod| pod.id.clone()).collect()
    };
    let claims = finish::claims(
        &catalog,
        &classes,
        &allowance,
        &packing.bins,
        options.first_claim,
        options.instance_type_options,
        take,
    );
    let mut unschedulable = Vec::new();
    for (class, left) in classes.iter().zip(&packing.left).filter(|(_, left)| **left > 0) {
        let reasons = reasons::reasons(&catalog, class, &packing.allowance);
        let pods = &class.pods[class.pods.len() - left..];
        unschedulable
            .extend(pods.iter().map(|pod| Unschedulable { pod: pod.id.clone(), reasons: reasons.clone() }));
    }
    let on_claims: usize = claims.iter().map(|claim| claim.pods.len()).sum();
    let on_existing: usize = existing.iter().map(|assignment| assignment.pods.len()).sum();
    let totals = Totals {
        price: claims.iter().map(|claim| claim.price).sum(),
        nodes: claims.len(),
        pods: on_claims + on_existing,
        lower_bound: lower_bound(&catalog, &classes, &waiting, &packing),
    };
    Plan { claims, existing, unschedulable, totals }
}

/// One way to place everything on new machines.
struct Packing {
    bins: Vec<Bin>,
    /// Pods left out, by class.
    left: Vec<usize>,
    /// Whether a limit kept some pods off their first lane.
    limited: bool,
    allowance: Allowance,
    price: UsdPerHour,
}

impl Packing {
    fn new(
        catalog: &Catalog<'_>,
        classes: &[Class<'_>],
        waiting: &[usize],
        mut allowance: Allowance,
        filling: Filling,
    ) -> Self {
        let before = allowance.clone();
        let mut left = waiting.to_vec();
        let mut bins = Vec::new();
        let deepest = classes.iter().map(|class| class.lanes.len()).max().unwrap_or(0);
        let tiers = catalog.pools.last().map_or(0, |pool| pool.tier + 1);
        let mut limited = false;
        for depth in 0..deepest {
            for tier in 0..tiers {
                let on_lane = classes.iter().zip(&left).enumerate().filter_map(|(index, (class, left))| {
                    let lane = class.lanes.get(depth).filter(|lane| lane.tier == tier && *left > 0)?;
                    Some(demand(catalog, index, class, lane, *left))
                });
                let demands: Vec<pack::Demand> = on_lane.collect();
                if demands.is_empty() {
                    continue;
                }
                let (more, rest) = pack::pack(catalog, &demands, &mut allowance, filling);
                bins.extend(more);
                for (demand, rest) in demands.iter().zip(rest) {
                    left[demand.class] = usize::try_from(rest).unwrap_or(usize::MAX);
                    limited |= rest > 0;
                }
            }
        }
        let mut price = UsdPerHour::ZERO;
        let mut previous: Option<(&Bin, UsdPerHour)> = None;
        for bin in &bins {
            let one = match previous {
                Some((last, price))
                    if last.shape == bin.shape && last.pods == bin.pods && last.mask == bin.mask =>
                {
                    price
                }
                _ => finish::collapsed_price(catalog, classes, &before, bin),
            };
            previous = Some((bin, one));
            price += one;
        }
        Self { bins, left, limited, allowance, price }
    }

    /// Fewer pods left out first, then cheaper, then fewer machines.
    fn rank(&self) -> (usize, UsdPerHour, usize) {
        (self.left.iter().sum(), self.price, self.bins.len())
    }
}

fn demand(catalog: &Catalog<'_>, index: usize, class: &Class<'_>, lane: &Lane, left: usize) -> pack::Demand {
    let by_offering = [kubernetes::ZONE, karpenter::CAPACITY_TYPE];
    let loose = lane.requirements.iter().filter(|(key, _)| !by_offering.contains(key)).any(|(key, _)| {
        let usable = catalog.shapes.iter().zip(lane.masks.iter()).filter(|(_, mask)| **mask != 0);
        // A label nobody defines is either absent for certain, or well known and anything.
        usable.into_iter().any(|(shape, _)| {
            shape
                .offered
                .get(key)
                .map_or_else(|| crate::requirement::is_well_known(key), |set| !set.is_decided())
        })
    });
    pack::Demand {
        class: index,
        tier: lane.tier,
        requests: class.requests.clone(),
        masks: std::rc::Rc::clone(&lane.masks),
        requirements: std::rc::Rc::clone(&lane.requirements),
        loose,
        host: std::rc::Rc::default(),
        count: left as u64,
    }
}

/// The bound for the pods that machines are bought for. Where a limit pushed pods to a later lane, any of their lanes counts.
fn lower_bound(
    catalog: &Catalog<'_>,
    classes: &[Class<'_>],
    waiting: &[usize],
    packing: &Packing,
) -> UsdPerHour {
    let placed = classes.iter().zip(waiting.iter().zip(&packing.left));
    let demands: Vec<bound::Demand> = placed
        .filter(|(class, (waiting, left))| waiting > left && !class.lanes.is_empty())
        .map(|(class, (waiting, left))| {
            let lanes = if packing.limited { class.lanes.len() } else { 1 };
            let mut masks = vec![0; catalog.shapes.len()];
            for lane in &class.lanes[..lanes] {
                let shapes = catalog.shapes.iter().zip(lane.masks.iter());
                for (mask, (shape, lane_mask)) in masks.iter_mut().zip(shapes) {
                    *mask |= if shape.tier == lane.tier { *lane_mask } else { 0 };
                }
            }
            bound::Demand { requests: class.requests.clone(), count: (waiting - left) as u64, masks }
        })
        .collect();
    bound::lower_bound(catalog, &demands)
}
