//! Bins first, contents later: which bins together have just enough room, and how the items go into them.
//!
//! Where a bin holds many different items, patterns are too many to list, but nearly any choice of bins with a little room to
//! spare can be filled. So bins are chosen for the sum of all items, and the items put into them, largest first; where that
//! leaves some out, they are squeezed in. Room to spare is what it takes: more where something found no place, less where not.
//! Bins that could not hold the items even by the fraction teach what else must be covered.

use std::sync::Arc;

use super::balance::balance;
use super::choose::{chosen, kinds};
use super::coarse::Group;
use super::cover::{self, Row};
use super::fill::Filler;
use super::generate::{Scope, axis_prices, demand_by_axis};
use super::model::{Model, Pattern, real, small};
use super::squeeze::{self, Contents};

/// Room to spare, as a share of all items, and which is tried first.
const SPARE: [f64; 9] = [0.0003, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06, 0.1];
const FIRST_SPARE: usize = 3;

/// Rounds of learning what must be covered, for one room to spare; and what bins may lack by the fraction.
const LESSONS: usize = 6;
const LACKING: f64 = 1e-4;

/// Steps of putting items into bins, at most, for one choice; and of squeezing them in.
const STEPS_AT_MOST: u64 = 4_000_000;
const SQUEEZE_STEPS: u64 = 15_000_000;

/// Bins with contents, and what found no place, by item of the model.
#[derive(Debug)]
pub(super) struct Mixed {
    pub(super) packing: Vec<(Arc<Pattern>, u64)>,
    pub(super) left: Vec<u64>,
    /// What it all costs, more or less: bins, and what is left at the prices of resources.
    pub(super) estimate: f64,
}

/// See the module.
pub(super) struct Mixer<'a, 'm> {
    model: &'m Model,
    scope: &'a Scope,
    groups: &'a [Group],
    filler: &'a mut Filler<'m>,
    steps: u64,
    work: u64,
    /// Of axes, for one typical room's share.
    prices: Vec<f64>,
    /// Kinds that are chosen from.
    kinds: Vec<usize>,
    /// Items, largest first, and how many there are of all.
    order: Vec<u32>,
    units: u64,
    /// What must be covered: the sum of items, then what was learned.
    rows: Vec<Row>,
    /// How many of them are not learned.
    given: usize,
    squeezes: bool,
}

impl<'a, 'm> Mixer<'a, 'm> {
    /// `None` where there is no choice.
    pub(super) fn new(
        model: &'m Model,
        scope: &'a Scope,
        groups: &'a [Group],
        filler: &'a mut Filler<'m>,
        steps: u64,
    ) -> Option<Self> {
        let prices = axis_prices(model, &scope.items, &scope.left)?;
        let demand = demand_by_axis(model, &scope.items, &scope.left);
        let kinds = kinds(model, scope, &prices, &demand);
        let rows = cover::axes(model, scope, 0.0);
        let mixer = Self {
            model,
            scope,
            groups,
            filler,
            steps,
            work: 0,
            prices,
            kinds,
            order: largest_first(model, scope),
            units: scope.items.iter().map(|item| scope.left[*item as usize]).sum(),
            given: rows.len(),
            rows,
            squeezes: squeeze::applies(model) && !groups.is_empty(),
        };
        (!mixer.kinds.is_empty()).then_some(mixer)
    }

    /// Packings, which may leave something out; what every packing must cover, as learned; and the steps that it took.
    pub(super) fn packings(mut self) -> (Vec<Mixed>, Vec<Row>, u64) {
        let mut found = Vec::new();
        let mut next = FIRST_SPARE;
        let (mut failed, mut whole) = (None, SPARE.len());
        while next < whole && failed.is_none_or(|failed| failed < next) {
            let mut fits = false;
            for bins in self.choices(SPARE[next]) {
                let Some(mixed) = self.filled(&bins) else { break };
                fits = mixed.left.iter().all(|left| *left == 0);
                found.push(mixed);
                if fits {
                    break;
                }
            }
            if fits {
                whole = next;
                let Some(less) = next.checked_sub(1) else { break };
                next = less;
            } else {
                failed = Some(next);
                next += 1;
            }
        }
        let learned = self.rows.split_off(self.given);
        (found, learned, self.work)
    }

    /// The cheapest choices of bins with so much room to spare, as far as can be seen without filling them.
    fn choices(&mut self, spare: f64) -> Vec<Vec<usize>> {
        for _ in 0..LESSONS {
            let choices = chosen(self.model, &self.kinds, &self.rows, spare, &mut self.work);
            if !self.squeezes || self.work > self.steps {
                return choices;
            }
            let mut enough = Vec::new();
            let known = self.rows.len();
            for bins in choices {
                let mut counted: Vec<(usize, u64)> = Vec::new();
                for run in bins.chunk_by(|a, b| a == b) {
                    counted.push((run[0], run.len() as u64));
                }
                let balance =
                    balance(self.model, self.scope, self.groups, &counted, &self.prices, self.filler);
                let Some(balance) = balance else { continue };
                self.work += balance.work;
                if balance.taken * (1.0 + spare) > 1.0 + LACKING {
                    self.rows.push(balance.row);
                } else {
                    enough.push(bins);
                }
            }
            if !enough.is_empty() || self.rows.len() == known {
                return enough;
            }
        }
        Vec::new()
    }

    /// Puts the items into these bins; `None` where that is too much work.
    fn filled(&mut self, bins: &[usize]) -> Option<Mixed> {
        let steps = self.units * (bins.len() * self.model.axes) as u64;
        if steps > STEPS_AT_MOST {
            return None;
        }
        self.work += 2 * steps;
        let Put { mut contents, mut left } = put(self.model, self.scope, &self.order, bins, &self.prices);
        let few = self.units < squeeze::ITEMS_PER_BIN * bins.len() as u64;
        if self.squeezes && !few && self.work < self.steps && left.iter().any(|left| *left > 0) {
            let steps = (self.steps / 4).min(SQUEEZE_STEPS);
            let (squeezed, work) = squeeze::squeeze(self.model, &self.scope.left, &self.order, bins, steps);
            self.work += work;
            if let Some(squeezed) = squeezed {
                contents = squeezed;
                left.fill(0);
            }
        }
        let worth = |item: usize| -> f64 {
            let shares = self.model.share(item).iter().zip(&self.prices);
            shares.map(|(share, price)| share * price).sum()
        };
        let rest: f64 = left.iter().enumerate().map(|(item, left)| real(*left) * worth(item)).sum();
        let estimate = rest + bins.iter().map(|kind| self.model.kinds[*kind].price).sum::<f64>();
        let packing = bins.iter().zip(contents).filter(|(_, items)| !items.is_empty());
        let packing = packing.map(|(kind, mut items)| {
            items.sort_unstable();
            (Arc::new(Pattern { kind: small(*kind), items }), 1)
        });
        Some(Mixed { packing: packing.collect(), left, estimate })
    }
}

/// Items by the largest share of all that one of them takes, largest first.
pub(super) fn largest_first(model: &Model, scope: &Scope) -> Vec<u32> {
    let demand = demand_by_axis(model, &scope.items, &scope.left);
    let size = |item: u32| {
        let shares = model.share(item as usize).iter().zip(&demand);
        shares.map(|(share, all)| share / all.max(1e-12)).fold(0.0, f64::max)
    };
    let mut order: Vec<(f64, u32)> = scope.items.iter().map(|item| (size(*item), *item)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    order.into_iter().map(|(_, item)| item).collect()
}

/// What is in bins, and what found no place.
struct Put {
    contents: Contents,
    left: Vec<u64>,
}

/// Puts items into bins, one after another: each where what is free looks most like it (the largest dot product with what is
/// free, for its length).
fn put(model: &Model, scope: &Scope, order: &[u32], bins: &[usize], prices: &[f64]) -> Put {
    let mut rooms: Vec<Vec<u64>> = bins.iter().map(|kind| model.kinds[*kind].room.clone()).collect();
    let mut groups: Vec<Vec<u64>> = bins.iter().map(|_| model.group_most.clone()).collect();
    let mut contents: Vec<Vec<(u32, u32)>> = vec![Vec::new(); bins.len()];
    let mut left = vec![0; model.items];
    let weigh: Vec<f64> = prices.iter().map(|price| price + 1e-9).collect();
    for item in order {
        let index = *item as usize;
        let request = model.request(index);
        for nth in 0..scope.left[index] {
            let mut best: Option<(f64, usize)> = None;
            for (bin, room) in rooms.iter().enumerate() {
                if request.iter().zip(room).any(|(need, room)| need > room) {
                    continue;
                }
                let kind = &model.kinds[bins[bin]];
                let held =
                    || contents[bin].last().filter(|(one, _)| one == item).map_or(0, |(_, count)| *count);
                if !kind.allowed.contains(index)
                    || u64::from(held()) >= model.cap[index]
                    || model.groups_of[index].iter().any(|group| groups[bin][*group] == 0)
                {
                    continue;
                }
                let free = || {
                    let shares = room.iter().zip(&kind.room).zip(&kind.share);
                    shares.map(
                        |((room, whole), share)| {
                            if *whole == 0 { 0.0 } else { real(*room) / real(*whole) * share }
                        },
                    )
                };
                let needs = model.share(index);
                let dot: f64 =
                    free().zip(needs).zip(&weigh).map(|((a, b), weigh)| a * b * weigh * weigh).sum();
                let long: f64 = free().zip(&weigh).map(|(free, weigh)| (free * weigh) * (free * weigh)).sum();
                let score = dot / long.sqrt().max(1e-12);
                if best.is_none_or(|(most, _)| score > most) {
                    best = Some((score, bin));
                }
            }
            let Some((_, bin)) = best else {
                // Where one does not fit, no more of them do.
                left[index] = scope.left[index] - nth;
                break;
            };
            super::fill::use_up(model, index, 1, &mut rooms[bin], &mut groups[bin]);
            match contents[bin].last_mut().filter(|(one, _)| one == item) {
                Some((_, count)) => *count += 1,
                None => contents[bin].push((*item, 1)),
            }
        }
    }
    Put { contents, left }
}
