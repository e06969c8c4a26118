//! Puts the parts together: a first packing, bounds, the linear program, and what is left of the work for trying again.
//!
//! ```text
//!  greedy --> offers (worth of items, bound) --> mix (bins for the sum of items, then contents)
//!         --> linear program (patterns, bound) --> cover (bound of whole bins)
//!         --> dive to whole bins --> empty some bins and pack them again --> fewer bins for the same money
//! ```

mod bounds;
mod dear;
mod dive;
mod fewer;
mod neighbourhoods;
mod start;

use std::sync::Arc;

use assay_shared::units::UsdPerHour;
use rustc_hash::FxHashSet;

use self::start::Worth;
use super::coarse::Group;
use super::cover::Row;
use super::equal;
use super::fill::Filler;
use super::generate::{Program, Scope, hash};
use super::model::{Model, Pattern, real, small};

pub(super) type Packing = Vec<(Arc<Pattern>, u64)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Search<'m> {
    model: &'m Model,
    filler: Filler<'m>,
    /// Patterns worth remembering, oldest first.
    pool: Vec<Arc<Pattern>>,
    known: FxHashSet<u64>,
    random: Random,
    /// Items of about one size.
    groups: Vec<Group>,
    /// What items are worth, by item, as far as offers tell; empty before.
    worth: Vec<f64>,
    /// What every packing must cover, besides the sum of items.
    rows: Vec<Row>,
    /// Work left; below zero when used up.
    budget: i64,
    pub(super) best: Packing,
    pub(super) best_cost: u64,
    /// What the packing to start from costs: no other may cost more.
    ceiling: u64,
    /// No packing costs less.
    pub(super) lower_bound: UsdPerHour,
    pub(super) work: u64,
    /// The work when the best packing was last improved.
    improved_at: u64,
}

/// Small and fast, the same on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % (n.max(1) as u64)).unwrap_or(0)
    }

    /// In `[0, 1)`.
    fn unit(&mut self) -> f64 {
        real(self.next() >> 11) / real(1 << 53)
    }
}

const POOL_AT_MOST: usize = 20_000;
/// Rows of one linear program, at most.
const ROWS_AT_MOST: usize = 320;
/// A packing within one part in so many of the lower bound is not worth more work.
const CLOSE_ENOUGH: u64 = 2_000;
/// A packing within one part in so many is worth a quarter of the work, and so is a search that finds nothing.
const CLOSE: u64 = 200;
/// Dives that lead nowhere, after which others are tried.
const DIVES: usize = 2;

impl<'m> Search<'m> {
    pub(super) fn new(model: &'m Model, start: Packing, budget: u64) -> Self {
        let best_cost = if start.is_empty() { u64::MAX } else { model.cost(&start) };
        let mut search = Self {
            model,
            filler: Filler::new(model),
            pool: Vec::new(),
            known: FxHashSet::default(),
            random: Random(0),
            groups: Vec::new(),
            worth: Vec::new(),
            rows: Vec::new(),
            budget: i64::try_from(budget).unwrap_or(i64::MAX),
            best: start,
            best_cost,
            ceiling: best_cost,
            lower_bound: UsdPerHour::ZERO,
            work: 0,
            improved_at: 0,
        };
        let patterns = search.best.iter().map(|(pattern, _)| Arc::clone(pattern)).collect();
        search.remember(patterns);
        search
    }

    pub(super) fn run(&mut self) {
        let scope = self.everything();
        if scope.items.is_empty() {
            self.best.clear();
            return;
        }
        if let Some((packing, work)) = equal::packing(self.model) {
            self.pay(work);
            let cost = self.model.cost(&packing);
            if (cost, bins(&packing)) < (self.best_cost, bins(&self.best)) {
                self.best_cost = cost;
                self.best = packing;
                self.merge();
            }
            self.lower_bound = UsdPerHour(self.best_cost);
            return;
        }
        let bound = self.resource_bound(&scope);
        self.raise_bound(bound);
        if self.best.is_empty() {
            for by in [Worth::Resources, Worth::Demand] {
                let Some(packing) = self.greedy(&scope, by) else { break };
                self.remember(packing.iter().map(|(pattern, _)| Arc::clone(pattern)).collect());
                self.take(packing);
            }
        }
        self.offers(&scope);
        self.mix(&scope);
        let program = self.root(&scope);
        if let Some(program) = &program {
            self.whole_dear_bins(program, &scope);
        }
        self.cover(&scope, program.as_ref());
        if let Some(program) = &program {
            self.dives(program, &scope);
        }
        self.choose_again();
        self.pack_again();
        self.fewer();
    }

    fn dives(&mut self, program: &Program, scope: &Scope) {
        let mut failures = 0;
        let mut vary = false;
        while !self.done() && failures < DIVES {
            let cutoff = self.best_cost.saturating_sub(self.model.price_step);
            match self.dive(program.clone(), scope.clone(), cutoff, vary) {
                Some(packing) => self.take(packing),
                None => failures += 1,
            }
            vary = true;
        }
    }

    /// Only the lower bound.
    pub(super) fn bound(&mut self) {
        let scope = self.everything();
        if scope.items.is_empty() {
            return;
        }
        let bound = self.resource_bound(&scope);
        self.raise_bound(bound);
        self.offers(&scope);
        let program = self.root(&scope);
        self.cover(&scope, program.as_ref());
    }

    fn raise_bound(&mut self, bound: u64) {
        self.lower_bound = self.lower_bound.max(UsdPerHour(bound.min(self.best_cost)));
    }

    fn remember(&mut self, patterns: Vec<Arc<Pattern>>) {
        for pattern in patterns {
            if self.pool.len() < POOL_AT_MOST && self.known.insert(hash(&pattern)) {
                self.pool.push(pattern);
            }
        }
    }

    fn pay(&mut self, work: u64) {
        self.work += work;
        self.budget -= i64::try_from(work).unwrap_or(i64::MAX);
    }

    fn pay_filler(&mut self) {
        let work = std::mem::take(&mut self.filler.work);
        self.pay(work);
    }

    fn pay_program(&mut self, program: &mut Program) {
        let work = std::mem::take(&mut program.master.work);
        self.pay(work);
        self.pay_filler();
    }

    /// A share of the work that is left.
    fn part(&self, of: u64) -> u64 {
        u64::try_from(self.budget).unwrap_or(0) / of
    }

    /// All work there ever was.
    fn whole_budget(&self) -> u64 {
        self.work + self.part(1)
    }

    /// Whether more work is not worth it.
    fn done(&self) -> bool {
        let within = |part: u64| self.best_cost - self.best_cost / part <= self.lower_bound.0;
        self.budget <= 0 || within(CLOSE_ENOUGH) || self.work > self.whole_budget() / 4 && within(CLOSE)
    }

    /// Whether what began at `start` (in work) has not helped for long.
    fn idle_since(&self, start: u64) -> bool {
        self.work.saturating_sub(self.improved_at.max(start)) > self.whole_budget() / 4
    }

    fn everything(&self) -> Scope {
        let most = self.model.kinds.iter().map(|kind| kind.most).collect();
        Scope::new(self.model.count.clone(), most)
    }

    fn take(&mut self, packing: Packing) {
        let cost = self.model.cost(&packing);
        if cost < self.best_cost {
            self.best_cost = cost;
            self.best = packing;
            self.improved_at = self.work;
        }
    }

    /// Some bins, one by one and each as often as it is there, as positions in the best packing: `size` of them, drawn evenly.
    /// `None` where there are too few to draw from.
    fn draw_bins(&mut self, size: usize) -> Option<Vec<usize>> {
        let times = |times: u64| usize::try_from(times).unwrap_or(0).min(64);
        let mut bins: Vec<usize> = Vec::new();
        for (index, (_, count)) in self.best.iter().enumerate() {
            bins.extend(std::iter::repeat_n(index, times(*count)));
        }
        if bins.len() < 2 {
            return None;
        }
        let size = size.min(bins.len());
        for taken in 0..size {
            let at = taken + self.random.below(bins.len() - taken);
            bins.swap(taken, at);
        }
        bins.truncate(size);
        Some(bins)
    }

    /// Puts other bins in the place of some (so many of each of the best packing).
    fn replace(&mut self, taken: &[u64], by: Packing) {
        for ((_, times), taken) in self.best.iter_mut().zip(taken) {
            *times -= taken;
        }
        self.best.retain(|(_, times)| *times > 0);
        self.best.extend(by);
        self.merge();
        let cost = self.model.cost(&self.best);
        if cost < self.best_cost {
            self.improved_at = self.work;
        }
        self.best_cost = cost;
    }

    /// Each bin as cheap as its content allows.
    fn trim(&self, mut packing: Packing) -> Packing {
        for (pattern, _) in &mut packing {
            let nano = self.model.kinds[pattern.kind as usize].nano;
            let cheapest = self.model.cheapest(&pattern.items);
            if let Some(kind) = cheapest.filter(|kind| self.model.kinds[*kind].nano < nano) {
                *pattern = Arc::new(Pattern { kind: small(kind), items: pattern.items.clone() });
            }
        }
        packing
    }

    fn merge(&mut self) {
        merge(&mut self.best);
    }
}

fn bins(packing: &Packing) -> u64 {
    packing.iter().map(|(_, times)| *times).sum()
}

/// Equal bins become one entry.
fn merge(packing: &mut Packing) {
    packing.sort_unstable_by(|a, b| (a.0.kind, &a.0.items).cmp(&(b.0.kind, &b.0.items)));
    packing.dedup_by(|later, first| {
        let same = later.0 == first.0;
        if same {
            first.1 += later.1;
        }
        same
    });
}

/// Whether everything in a pattern is still to be packed.
fn covers(scope: &Scope, pattern: &Pattern) -> bool {
    pattern.items.iter().all(|(item, count)| u64::from(*count) <= scope.left[*item as usize])
}

/// A pattern without what is no longer to be packed.
fn clipped(scope: &Scope, pattern: &Pattern) -> Vec<(u32, u32)> {
    let clip = |(item, count): &(u32, u32)| {
        let count = (*count).min(u32::try_from(scope.left[*item as usize]).unwrap_or(u32::MAX));
        (count > 0).then_some((*item, count))
    };
    pattern.items.iter().filter_map(clip).collect()
}

fn fix(scope: &mut Scope, pattern: &Pattern, times: u64) {
    for (item, count) in &pattern.items {
        let left = &mut scope.left[*item as usize];
        *left = left.saturating_sub(u64::from(*count) * times);
    }
    if let Some(most) = &mut scope.most[pattern.kind as usize] {
        *most = most.saturating_sub(times);
    }
}
