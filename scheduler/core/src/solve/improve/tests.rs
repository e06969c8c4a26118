//! What holds for every problem: packings are valid, never dearer than the start, and never below the bound.

use assay_shared::units::UsdPerHour;
use fixedbitset::FixedBitSet;
use proptest::prelude::*;

use super::fill::Filler;
use super::generate::{Scope, axis_prices};
use super::model::Model;
use super::{BinKind, Improved, Item, Packed, Problem, improve, lower_bound};
use super::{balance, coarse, cover, offers};

const DOLLAR: u64 = 1_000_000_000;

fn anywhere(kinds: usize) -> FixedBitSet {
    let mut bins = FixedBitSet::with_capacity(kinds);
    bins.insert_range(..);
    bins
}

fn item(requests: &[u64], count: u64, kinds: usize) -> Item {
    Item { requests: requests.to_vec(), count, bins: anywhere(kinds), groups: Vec::new() }
}

fn kind(room: &[u64], dollars: u64) -> BinKind {
    BinKind { room: room.to_vec(), price: UsdPerHour(dollars * DOLLAR), most: None }
}

/// Each item in a bin of its own, the cheapest that holds it.
fn one_each(problem: &Problem) -> Vec<Packed> {
    let alone = |(index, item): (usize, &Item)| {
        let holds = |(_, kind): &(usize, &BinKind)| item.requests.iter().zip(&kind.room).all(|(n, r)| n <= r);
        let kinds =
            problem.bins.iter().enumerate().filter(holds).filter(|(kind, _)| item.bins.contains(*kind));
        let (kind, _) = kinds.min_by_key(|(_, kind)| kind.price).unwrap();
        Packed { kind, items: vec![(index, 1)], times: item.count }
    };
    problem.items.iter().enumerate().map(alone).collect()
}

/// The least cost, by trying everything: items one after another into an open bin or a new one.
fn optimum(problem: &Problem) -> UsdPerHour {
    fn place(
        problem: &Problem,
        units: &[usize],
        bins: &mut Vec<(usize, Vec<(usize, u64)>)>,
        cost: u64,
        best: &mut u64,
    ) {
        if cost >= *best {
            return;
        }
        let Some((unit, rest)) = units.split_first() else {
            *best = cost;
            return;
        };
        let fits = |kind: usize, items: &[(usize, u64)]| {
            let alone = Problem {
                items: problem.items.iter().map(|item| Item { count: 0, ..item.clone() }).collect(),
                ..problem.clone()
            };
            let packed = [Packed { kind, items: items.to_vec(), times: 1 }];
            matches!(alone.check(&packed), Ok(()) | Err(super::Wrong::Count(_)))
        };
        for at in 0..=bins.len() {
            if at == bins.len() {
                for kind in 0..problem.bins.len() {
                    let items = vec![(*unit, 1)];
                    let bought = bins.iter().filter(|(other, _)| *other == kind).count() as u64;
                    if problem.bins[kind].most.is_none_or(|most| bought < most) && fits(kind, &items) {
                        bins.push((kind, items));
                        place(problem, rest, bins, cost + problem.bins[kind].price.0, best);
                        bins.pop();
                    }
                }
                return;
            }
            let before = bins[at].1.clone();
            match bins[at].1.iter_mut().find(|(item, _)| item == unit) {
                Some((_, count)) => *count += 1,
                None => bins[at].1.push((*unit, 1)),
            }
            if fits(bins[at].0, &bins[at].1.clone()) {
                place(problem, rest, bins, cost, best);
            }
            bins[at].1 = before;
        }
    }
    let units: Vec<usize> =
        (0..problem.items.len()).flat_map(|item| (0..problem.items[item].count).map(move |_| item)).collect();
    let mut best = u64::MAX;
    place(problem, &units, &mut Vec::new(), 0, &mut best);
    UsdPerHour(best)
}

#[test]
fn pairs_that_fill_a_bin_find_each_other() {
    // Sizes 70 + 30, 60 + 40, 55 + 45: taken by size they would need more bins than pairs.
    let sizes = [[70], [60], [55], [45], [40], [30]];
    let items = sizes.iter().map(|size| item(size, 5, 1)).collect();
    let problem = Problem { items, bins: vec![kind(&[100], 1)], groups: Vec::new() };
    let Improved { packing, lower_bound, .. } = improve(&problem, &one_each(&problem), 10_000_000);
    assert_eq!(problem.check(&packing), Ok(()));
    assert_eq!((problem.cost(&packing), lower_bound), (UsdPerHour(15 * DOLLAR), UsdPerHour(15 * DOLLAR)));
}

#[test]
fn the_mix_of_kinds_is_chosen_by_price() {
    // Eleven on two axes: a large bin takes eight for seven dollars, a small one one for a dollar.
    let bins = vec![kind(&[8, 8], 7), kind(&[1, 1], 1)];
    let problem = Problem { items: vec![item(&[1, 1], 11, 2)], bins, groups: Vec::new() };
    let improved = improve(&problem, &[], 10_000_000);
    assert_eq!(problem.check(&improved.packing), Ok(()));
    assert_eq!(problem.cost(&improved.packing), UsdPerHour(10 * DOLLAR));
}

#[test]
fn groups_and_limited_kinds_are_kept_to() {
    let mut first = item(&[1], 4, 2);
    let mut second = item(&[1], 2, 2);
    first.groups = vec![0];
    second.groups = vec![0];
    let bins = vec![BinKind { most: Some(1), ..kind(&[10], 1) }, kind(&[10], 3)];
    let problem = Problem { items: vec![first, second], bins, groups: vec![2] };
    let improved = improve(&problem, &[], 10_000_000);
    assert_eq!(problem.check(&improved.packing), Ok(()));
    // Two in a bin: one cheap bin, two dear ones.
    assert_eq!(problem.cost(&improved.packing), UsdPerHour(7 * DOLLAR));
}

#[test]
fn the_budget_is_kept_and_the_answer_repeats() {
    let sizes = (0..60u64).map(|n| [11 + n * 37 % 61, 7 + n * 23 % 53]);
    let items = sizes.map(|size| item(&size, 1, 1)).collect();
    let problem = Problem { items, bins: vec![kind(&[100, 100], 1)], groups: Vec::new() };
    let start = one_each(&problem);
    for steps in [0, 100_000, 1_000_000, 30_000_000] {
        let [once, again] = [(); 2].map(|()| improve(&problem, &start, steps));
        assert_eq!(once.packing, again.packing);
        assert_eq!(problem.check(&once.packing), Ok(()));
        assert!(once.steps <= steps + 3_000_000, "{} steps of {steps}", once.steps);
        assert!(problem.cost(&once.packing) <= problem.cost(&start));
    }
}

prop_compose! {
    fn problems()(axes in 1usize..4, kinds in 1usize..4)(
        axes in Just(axes),
        room in prop::collection::vec(prop::collection::vec(4u64..12, axes), kinds),
        price in prop::collection::vec(1u64..9, kinds),
        items in prop::collection::vec((prop::collection::vec(0u64..5, axes), 1u64..3, any::<bool>()), 1..5),
        most in 1u64..3,
    ) -> Problem {
        let kinds = room.len();
        let bins = room.iter().zip(&price).map(|(room, price)| kind(room, *price)).collect();
        let grouped = |(requests, count, grouped): &(Vec<u64>, u64, bool)| Item {
            groups: if *grouped { vec![0] } else { Vec::new() },
            ..item(&requests[..axes], *count, kinds)
        };
        Problem { items: items.iter().map(grouped).collect(), bins, groups: vec![most] }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn small_problems_are_solved_and_never_below_the_bound(problem in problems()) {
        let best = optimum(&problem);
        let improved = improve(&problem, &one_each(&problem), 5_000_000);
        prop_assert_eq!(problem.check(&improved.packing), Ok(()));
        prop_assert!(improved.lower_bound <= best, "bound {} above {}", improved.lower_bound, best);
        prop_assert!(lower_bound(&problem, 1_000_000) <= best);
        prop_assert!(problem.cost(&improved.packing) >= best);
        prop_assert!(problem.cost(&improved.packing) <= problem.cost(&one_each(&problem)));
        if improved.lower_bound == problem.cost(&improved.packing) {
            prop_assert_eq!(improved.lower_bound, best);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_packings_must_cover_is_covered_by_every_packing(
        problem in problems(),
        chosen in prop::collection::vec((0usize..3, 1u64..3), 1..4),
    ) {
        let problem = Problem { groups: vec![9], ..problem };
        let model = Model::new(&problem);
        let scope = Scope::new(model.count.clone(), vec![None; model.kinds.len()]);
        let Some(prices) = axis_prices(&model, &scope.items, &scope.left) else { return Ok(()) };
        let groups = coarse::groups(&model, &scope, &prices, 3);
        let mut bins: Vec<(usize, u64)> = Vec::new();
        for (kind, count) in chosen {
            if kind < model.kinds.len() && bins.iter().all(|(other, _)| *other != kind) {
                bins.push((kind, count));
            }
        }
        let best = optimum(&problem);
        let offers = offers::offers(&model, &scope, &groups, &prices, 1_000_000);
        prop_assert!(offers.bound <= best.usd() + 1e-9, "offers {} above {best}", offers.bound);
        let mut filler = Filler::new(&model);
        let balance = balance::balance(&model, &scope, &groups, &bins, &prices, &mut filler);
        let mut rows = cover::axes(&model, &scope, 0.0);
        rows.extend(balance.map(|balance| balance.row));
        let (bound, _) = cover::bound(&model, &rows, &scope.most, u64::MAX, 10_000_000);
        prop_assert!(UsdPerHour(bound) <= best, "whole bins {} above {best}", UsdPerHour(bound));
    }

    #[test]
    fn bounds_hold_where_a_few_dear_bins_stand_beside_many_cheap_ones(
        sizes in prop::collection::vec((1u64..6, 1u64..6), 2..6),
        dear in 11u64..30,
    ) {
        let items = sizes.iter().map(|(one, other)| item(&[*one, *other], 1, 3)).collect();
        let bins = vec![kind(&[14, 12], dear), kind(&[6, 5], 6), kind(&[5, 8], 7)];
        let problem = Problem { items, bins, groups: Vec::new() };
        let best = optimum(&problem);
        prop_assert!(lower_bound(&problem, 3_000_000) <= best);
        let improved = improve(&problem, &[], 3_000_000);
        prop_assert!(improved.lower_bound <= best && problem.cost(&improved.packing) >= best);
    }
}

#[test]
fn whole_bins_cost_more_than_parts_of_them() {
    // One and a half of the large bin would do, and no small one is cheap enough for the rest: two must be bought.
    let items = (0..30u64).map(|n| item(&[10 + n % 7, 10 + n % 5], 1, 2)).collect();
    let bins = vec![kind(&[250, 250], 100), kind(&[30, 30], 40)];
    let problem = Problem { items, bins, groups: Vec::new() };
    let improved = improve(&problem, &[], 50_000_000);
    assert_eq!(problem.check(&improved.packing), Ok(()));
    assert_eq!((problem.cost(&improved.packing), improved.lower_bound), (dollars(200), dollars(200)));
}

#[test]
fn items_are_squeezed_into_bins_with_hardly_any_room_to_spare() {
    let sizes: Vec<[u64; 2]> = (0..240u64).map(|n| [100 + n * n % 1733, 90 + n * 37 % 1511]).collect();
    let sum = |axis: usize| sizes.iter().map(|size| size[axis]).sum::<u64>();
    // Six bins that together have three parts in a thousand more than it takes.
    let room = [sum(0) * 1003 / 6000, sum(1) * 1003 / 6000];
    let items = sizes.iter().map(|size| item(size, 1, 1)).collect();
    let problem = Problem { items, bins: vec![kind(&room, 1)], groups: Vec::new() };
    let improved = improve(&problem, &[], 200_000_000);
    assert_eq!(problem.check(&improved.packing), Ok(()));
    assert_eq!(problem.cost(&improved.packing), dollars(6));
}

#[test]
fn of_packings_at_one_price_the_one_with_fewer_bins_is_taken() {
    // Price in proportion to size, as in a family of machines.
    let bins = [2, 4, 8, 16].map(|size| kind(&[size, 4 * size], size)).to_vec();
    let items = vec![item(&[1, 4], 7, 4), item(&[2, 8], 3, 4), item(&[1, 3], 2, 4)];
    let problem = Problem { items, bins, groups: Vec::new() };
    let improved = improve(&problem, &[], 50_000_000);
    assert_eq!(problem.check(&improved.packing), Ok(()));
    assert_eq!(problem.cost(&improved.packing), dollars(16));
    assert_eq!(improved.packing.iter().map(|bin| bin.times).sum::<u64>(), 1);
}

fn dollars(dollars: u64) -> UsdPerHour {
    UsdPerHour(dollars * DOLLAR)
}
