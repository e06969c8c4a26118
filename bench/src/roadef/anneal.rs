//! Simulated annealing over shifts, swaps, and processes that move with all that they need and that need them: worse states are
//! taken the more rarely the colder it is.
//!
//! Unmet needs of services are passed through at a price. What is transient has a price too, the lower the colder: a process that
//! moves holds it at home, and room that is filled early with what gains little is missing later. All scales come from what random
//! moves of the instance change. Work is counted in proposals, so the same seed gives the same answer on every machine.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::state::{Delta, Move, State};

/// The first temperature, by what a random move changes.
const WARM: f64 = 15.0;
/// How far it falls in a round.
const FALLS: f64 = 1e-4;
/// Rounds; each starts from the best so far, so much cooler than the one before.
const ROUNDS: u32 = 5;
const COOLER: u32 = 4;
/// What an unmet need costs, by what a random move changes.
const UNMET: f64 = 3.0;
/// What is held at home costs at first, by what its load would.
const HELD: f64 = 0.3;
/// Proposals at one temperature.
const BATCH: u64 = 1_000;
/// One of so many proposals moves a process with all that must go along, of so many at most.
const ALONG: u32 = 8;
const ALONG_AT_MOST: usize = 8;

/// Moves that are made: process, from where, and what that changed.
type Made = Vec<(usize, usize, Delta)>;

/// The best assignment found with so many proposals.
#[allow(clippy::cast_precision_loss)] // chances and scales
pub(super) fn anneal(start: &State<'_>, machines: usize, proposals: u64, seed: u64) -> Vec<usize> {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut state = start.clone();
    let mut best = (state.cost, state.at.clone());
    let scale = typical(&state, machines, &mut random);
    let batches = (proposals / u64::from(ROUNDS) / BATCH).max(1);
    let mut made = Made::new();
    for round in 0..ROUNDS {
        let cooler = f64::from(COOLER.pow(round));
        for batch in 0..batches {
            let part = batch as f64 / batches as f64;
            let temperature = scale * WARM / cooler * FALLS.powf(part);
            let held = HELD / cooler * (1.0 - part);
            let takes = |delta: Delta, random: &mut Pcg64Mcg| {
                let worse = delta.cost as f64 + scale * UNMET * delta.unmet as f64 + held * delta.held as f64;
                worse <= 0.0 || random.random::<f64>() < (-worse / temperature).exp()
            };
            for _ in 0..BATCH {
                if random.random_range(0..ALONG) == 0 {
                    let Some(delta) = along(&mut state, machines, &mut random, &mut made) else {
                        continue;
                    };
                    if !takes(delta, &mut random) {
                        take_back(&mut state, &made);
                        continue;
                    }
                } else {
                    let one = propose(&state, machines, &mut random);
                    let Some(delta) = state.delta(one) else { continue };
                    if !takes(delta, &mut random) {
                        continue;
                    }
                    state.make(one, delta);
                }
                if state.unmet == 0 && state.cost < best.0 {
                    best.0 = state.cost;
                    best.1.clone_from(&state.at);
                }
            }
        }
        state = start.clone().with(&best.1);
    }
    best.1
}

/// Moves a process to a machine with all that must go along with it; `None`, and nothing moved, where that is too much.
fn along(state: &mut State<'_>, machines: usize, random: &mut Pcg64Mcg, made: &mut Made) -> Option<Delta> {
    made.clear();
    let (process, to) = (random.random_range(0..state.at.len()), random.random_range(0..machines));
    let mut queue = vec![process];
    let mut sum = Delta::default();
    while let Some(next) = queue.pop() {
        let from = state.at[next];
        if from == to {
            continue;
        }
        let delta = if made.len() < ALONG_AT_MOST { state.delta(Move::Shift(next, to)) } else { None };
        let Some(delta) = delta else {
            take_back(state, made);
            return None;
        };
        state.make(Move::Shift(next, to), delta);
        made.push((next, from, delta));
        sum += delta;
        state.companions(next, from, &mut |count| random.random_range(0..count), &mut queue);
    }
    Some(sum)
}

fn take_back(state: &mut State<'_>, made: &[(usize, usize, Delta)]) {
    for (process, from, delta) in made.iter().rev() {
        state.make(Move::Shift(*process, *from), -*delta);
    }
}

fn propose(state: &State<'_>, machines: usize, random: &mut Pcg64Mcg) -> Move {
    let process = random.random_range(0..state.at.len());
    match random.random_range(0..8_u8) {
        0..4 => Move::Shift(process, random.random_range(0..machines)),
        4..6 => Move::Swap(process, random.random_range(0..state.at.len())),
        _ => {
            let own = state.of_its_service(process);
            Move::Swap(process, own[random.random_range(0..own.len())])
        }
    }
}

/// What a random move changes, in the middle.
fn typical(state: &State<'_>, machines: usize, random: &mut Pcg64Mcg) -> f64 {
    let proposals = (0..10_000).filter_map(|_| Some(state.delta(propose(state, machines, random))?.cost));
    let mut changes: Vec<i64> = proposals.map(i64::abs).filter(|change| *change > 0).collect();
    changes.sort_unstable();
    #[allow(clippy::cast_precision_loss)] // a scale
    let middle = changes.get(changes.len() / 2).map_or(1.0, |change| *change as f64);
    middle
}
