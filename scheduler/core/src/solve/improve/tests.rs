//! What holds for every problem: packings are valid, never dearer than the start, and never below the bound.

use assay_shared::units::UsdPerHour;
use fixedbitset::FixedBitSet;
use proptest::prelude::*;

use super::{BinKind, Improved, Item, Packed, Problem, improve, lower_bound};

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
