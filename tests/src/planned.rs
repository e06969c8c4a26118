//! Text to a checked plan, within this process: what tests and the fuzz target feed.

use std::path::Path;

pub use assay_core::catalog::Catalog;
use assay_core::catalog::PriceList;
use assay_core::check::check;
use assay_core::solve::{SolveOptions, solve};
use assay_scheduler::manifest::{Manifests, Source};

/// The catalogue that most of `tests/plans` buy from.
///
/// # Panics
/// Where the file of this repository is damaged.
#[must_use]
#[allow(clippy::expect_used, reason = "without it there is nothing to test")]
pub fn general_catalog() -> Catalog {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/catalogs/general.json");
    let text = std::fs::read_to_string(path).expect("the catalogue is there");
    Catalog::parse(&text, "", PriceList::default()).expect("the catalogue is right").0
}

/// Reads, solves and checks: how many pods were left out, `None` where the input is refused.
///
/// # Panics
/// Where input is refused without a word, and where the plan breaks a rule.
#[must_use]
#[allow(clippy::panic, reason = "that is the finding")]
pub fn plan(text: String, catalog: &Catalog) -> Option<usize> {
    let mut manifests = match Manifests::parse(&[Source { name: "-".to_owned(), text }]) {
        Ok(manifests) => manifests,
        Err(error) => {
            assert!(!error.problem.is_empty(), "{error:?}");
            return None;
        }
    };
    let invalid = std::mem::take(&mut manifests.invalid_pods);
    let snapshot = manifests.into_snapshot(|class| catalog.instance_types(class, |_| None));
    let mut plan = solve(&snapshot, &SolveOptions::default());
    if let Err(violations) = check(&snapshot, &plan) {
        panic!("the plan breaks a rule: {}", violations[0]);
    }
    Manifests::report_invalid(invalid, &mut plan);
    Some(plan.unschedulable.len())
}
