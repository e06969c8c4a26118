//! How many nodes of a pool may be disrupted now.

use crate::model::{Budget, BudgetNodes};

/// How many more nodes may go for `reason`, with `total` initialised nodes in the pool of which `going` are already on their
/// way. The tightest budget that speaks of the reason counts; percentages round up, as Karpenter's do.
#[must_use]
pub fn allowed_disruptions(budgets: &[Budget], reason: &str, total: u64, going: u64) -> u64 {
    let speaking = budgets
        .iter()
        .filter(|budget| budget.reasons.is_empty() || budget.reasons.iter().any(|listed| listed == reason));
    let tightest = speaking.map(|budget| match budget.nodes {
        BudgetNodes::Count(count) => count,
        BudgetNodes::Percent(percent) => (total * u64::from(percent)).div_ceil(100),
    });
    tightest.min().unwrap_or(total).saturating_sub(going)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_budget_that_speaks_of_the_reason_counts() {
        let budget = |nodes, reasons: &[&str]| Budget {
            nodes,
            reasons: reasons.iter().map(|&reason| reason.to_owned()).collect(),
        };
        let cases = [
            (vec![budget(BudgetNodes::Percent(30), &[])], 10, 0, 3),
            (vec![budget(BudgetNodes::Percent(10), &[])], 1, 0, 1),
            (vec![budget(BudgetNodes::Percent(10), &[])], 11, 1, 1),
            (vec![budget(BudgetNodes::Count(0), &["Empty"])], 10, 0, 0),
            (vec![budget(BudgetNodes::Count(0), &["Drifted"]), budget(BudgetNodes::Count(4), &[])], 10, 5, 0),
            (vec![], 7, 2, 5),
        ];
        for (budgets, total, going, allowed) in cases {
            assert_eq!(
                allowed_disruptions(&budgets, "Empty", total, going),
                allowed,
                "{budgets:?} {total} {going}"
            );
        }
    }
}
