//! How many nodes of a pool may be disrupted now.

use crate::model::{Budget, BudgetNodes, BudgetWindow, Timestamp};

/// How many more nodes may go for `reason` now, with `total` initialised nodes in the pool of which `going` are already on their
/// way. The tightest budget that speaks of the reason and whose time it is counts; percentages round up, as Karpenter's do.
/// Where one of them is malformed nothing goes.
#[must_use]
pub fn allowed_disruptions(budgets: &[Budget], reason: &str, now: Timestamp, total: u64, going: u64) -> u64 {
    let speaking = budgets
        .iter()
        .filter(|budget| budget.reasons.is_empty() || budget.reasons.iter().any(|listed| listed == reason))
        .filter(|budget| budget.window.is_open(now));
    let tightest = speaking.map(|budget| match (&budget.window, budget.nodes) {
        (BudgetWindow::Malformed(_), _) => 0,
        (_, BudgetNodes::Count(count)) => count,
        (_, BudgetNodes::Percent(percent)) => total.saturating_mul(u64::from(percent)).div_ceil(100),
    });
    tightest.min().unwrap_or(total).saturating_sub(going)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::Schedule;

    fn budget(nodes: BudgetNodes, reasons: &[&str]) -> Budget {
        let reasons = reasons.iter().map(|&reason| reason.to_owned()).collect();
        Budget { reasons, ..Budget::always(nodes) }
    }

    #[test]
    fn the_tightest_budget_that_speaks_of_the_reason_counts() {
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
                allowed_disruptions(&budgets, "Empty", Timestamp(0), total, going),
                allowed,
                "{budgets:?} {total} {going}"
            );
        }
    }

    #[test]
    fn a_budget_counts_from_each_beginning_for_its_duration() {
        // Thursday, 1 January 1970: nothing goes from nine to five on working days, two nodes otherwise.
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let window = |text: &str, hours_long| {
            BudgetWindow::From(Box::new(Schedule::parse(text).unwrap()), hours(hours_long))
        };
        let at_work =
            Budget { window: window("0 9 * * mon-fri", 8), ..Budget::always(BudgetNodes::Count(0)) };
        let budgets = [at_work, Budget::always(BudgetNodes::Count(2))];
        let cases = [
            (0, 2),
            (9 * 60 - 1, 2),
            (9 * 60, 0),
            (12 * 60, 0),
            // The hour at which it ends is its own no more: the beginning is no later than that before.
            (17 * 60 - 1, 0),
            (17 * 60, 2),
            (48 * 60 + 12 * 60, 2),
        ];
        for (minute, allowed) in cases {
            let now = Timestamp(minute * 60_000);
            assert_eq!(allowed_disruptions(&budgets, "Empty", now, 9, 0), allowed, "minute {minute}");
        }
    }

    #[test]
    fn a_malformed_budget_lets_nothing_go_and_one_that_never_begins_always_counts() {
        let malformed = Budget {
            window: BudgetWindow::Malformed("x".to_owned()),
            ..Budget::always(BudgetNodes::Count(5))
        };
        let never = Schedule::parse("0 0 30 2 *").unwrap();
        let never = Budget {
            window: BudgetWindow::From(Box::new(never), Duration::from_secs(60)),
            ..Budget::always(BudgetNodes::Count(1))
        };
        let of_others = Budget { reasons: vec!["Drifted".to_owned()], ..malformed.clone() };
        let cases = [(malformed, 0), (never, 1), (of_others, 9)];
        for (budget, allowed) in cases {
            let budgets = std::slice::from_ref(&budget);
            assert_eq!(allowed_disruptions(budgets, "Empty", Timestamp(0), 9, 0), allowed, "{budget:?}");
        }
    }
}
