//! What holds for clusters of hundreds of pods with every kind of constraint between them.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::after::{after, could_be_in, summary};
use super::cluster::{clusters, options};
use crate::check::check;
use crate::model::{Pod, Snapshot};
use crate::solve::{MinValues, SolveOptions, solve};

/// The same cases every time, unless `PROPTEST_RNG_SEED` says otherwise; `PROPTEST_CASES` looks further.
pub(crate) fn config() -> ProptestConfig {
    let mut config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if matches!(config.rng_seed, RngSeed::Random) {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

/// Order of pods as a seed has it: every order is as good as any.
fn shuffled(pods: &mut [Pod], seed: u64) {
    let mut state = seed;
    for last in (1..pods.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        pods.swap(last, usize::try_from(state >> 33).unwrap() % (last + 1));
    }
}

/// Pods that wait for something to go: one of each kind, gangs as a whole.
fn waiting(after: &Snapshot) -> Vec<Vec<Pod>> {
    let mut found: Vec<Vec<Pod>> = Vec::new();
    for pod in after.pods.iter().filter(|pod| pod.is_pending()) {
        let runs = |gang: &str| {
            after
                .pods
                .iter()
                .any(|other| !other.is_pending() && other.gang.as_ref().is_some_and(|own| *own.id == *gang))
        };
        // Of a gang that runs, further pods come one by one.
        let gang = pod.gang.as_ref().filter(|gang| !runs(&gang.id));
        let same = found.iter_mut().find(|group| {
            let first = &group[0];
            match gang {
                Some(gang) => first.gang.as_ref().is_some_and(|other| other.id == gang.id),
                None => first.spec == pod.spec && first.labels == pod.labels && first.gang == pod.gang,
            }
        });
        match (same, gang) {
            (Some(group), Some(_)) => group.push(pod.clone()),
            (Some(_), None) => {}
            (None, _) => found.push(vec![pod.clone()]),
        }
    }
    found
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn every_plan_passes_the_check(input in clusters(), options in options()) {
        let plan = solve(&input, &options);
        if let Err(violations) = check(&input, &plan) {
            prop_assert!(false, "{}\n{}", violations[0], summary(&input, &plan));
        }
        prop_assert!(plan.totals.lower_bound <= plan.totals.price);
        let relaxed = plan.claims.iter().any(|claim| !claim.min_values_relaxed.is_empty());
        prop_assert!(!relaxed || options.min_values == MinValues::BestEffort, "{}", summary(&input, &plan));
    }

    #[test]
    fn the_order_of_the_input_does_not_show(input in clusters(), seed in any::<u64>()) {
        let options = SolveOptions { steps: 2_000_000, ..SolveOptions::default() };
        let plan = solve(&input, &options);
        let mut turned = input;
        shuffled(&mut turned.pods, seed);
        turned.pools.reverse();
        turned.nodes.reverse();
        turned.daemon_sets.reverse();
        prop_assert_eq!(solve(&turned, &options), plan);
    }

    /// What one more look at the cluster after the plan would place could not have been in the plan: it would break what pods of
    /// the plan ask for, or hang on a label that the plan leaves open.
    #[test]
    fn nobody_is_left_out_for_whom_there_is_room(input in clusters(), options in options()) {
        let plan = solve(&input, &options);
        for group in waiting(&after(&input, &plan, 0)) {
            let placed_with = |pick| {
                let mut after = after(&input, &plan, pick);
                after.pods.retain(|pod| !pod.is_pending());
                after.pods.extend(group.iter().cloned());
                let alone = solve(&after, &options);
                let placed = alone.totals.pods > 0 && could_be_in(&input, &plan, &alone, pick);
                placed.then(|| summary(&after, &alone))
            };
            let whatever: Option<Vec<String>> = (0..3).map(placed_with).collect();
            if let Some(alone) = whatever {
                let all = summary(&input, &plan);
                prop_assert!(false, "{} could be placed: {}\n{:?} {}", group[0].id, alone[0], options.min_values, all);
            }
        }
    }
}
