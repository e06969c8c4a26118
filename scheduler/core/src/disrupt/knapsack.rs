//! The most valuable choice of commands within so many moves.

use std::collections::BTreeSet;

/// Cells of the exact table, at most: beyond, the best value per move comes first.
const CELLS_AT_MOST: usize = 4_000_000;

/// Which of `(moves, value)` to keep within `most` moves. Values are whole numbers; what is worth nothing is left out.
pub(super) fn best_within(values: &[(usize, i128)], most: usize) -> BTreeSet<usize> {
    let cells = values.len().saturating_mul(most.saturating_add(1));
    if cells > CELLS_AT_MOST { by_ratio(values, most) } else { exact(values, most) }
}

fn exact(values: &[(usize, i128)], most: usize) -> BTreeSet<usize> {
    // best[w]: the most that w moves can be worth; kept[i][w]: whether the i-th is part of it.
    let mut best = vec![0_i128; most + 1];
    let mut kept = vec![vec![false; most + 1]; values.len()];
    for (index, (moves, value)) in values.iter().enumerate() {
        for room in (*moves..=most).rev() {
            let with = best[room - moves] + value;
            if with > best[room] {
                best[room] = with;
                kept[index][room] = true;
            }
        }
    }
    let mut room = most;
    let mut chosen = BTreeSet::new();
    for index in (0..values.len()).rev() {
        if kept[index][room] {
            chosen.insert(index);
            room -= values[index].0;
        }
    }
    chosen
}

fn by_ratio(values: &[(usize, i128)], most: usize) -> BTreeSet<usize> {
    let mut order: Vec<usize> = (0..values.len()).filter(|index| values[*index].1 > 0).collect();
    let per_move = |index: usize, other: usize| {
        let moves = |index: usize| i128::try_from(values[index].0.max(1)).unwrap_or(i128::MAX);
        values[index].1.saturating_mul(moves(other))
    };
    order.sort_by(|one, two| per_move(*two, *one).cmp(&per_move(*one, *two)).then(one.cmp(two)));
    let mut room = most;
    let mut chosen = BTreeSet::new();
    for index in order {
        if values[index].0 <= room {
            room -= values[index].0;
            chosen.insert(index);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_choice_is_not_the_best_ratio_first() {
        let values = [(6, 60), (5, 45), (5, 44), (1, -3), (0, 1)];
        assert_eq!(best_within(&values, 10), [1, 2, 4].into());
        assert_eq!(best_within(&values, 6), [0, 4].into());
        assert_eq!(best_within(&values, 0), [4].into());
        assert_eq!(by_ratio(&values, 10), [0, 4].into());
        assert_eq!(
            best_within(&values, usize::MAX),
            [0, 1, 2, 4].into(),
            "by ratio, as the table would be huge"
        );
    }
}
