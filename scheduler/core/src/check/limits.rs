//! Pool limits: nodes and claims that exist plus the plan, each claim with the largest of its options.

use std::collections::BTreeMap;

use super::Violation;
use super::ledger::Ledger;
use crate::model::{Plan, PlannedClaim, ResourceList};

pub(super) fn check(ledger: &Ledger, plan: &Plan, violations: &mut Vec<Violation>) {
    let mut planned: BTreeMap<&str, Vec<&PlannedClaim>> = BTreeMap::new();
    for claim in &plan.claims {
        planned.entry(&claim.pool).or_default().push(claim);
    }
    for (name, claims) in planned {
        let Some(pool) = ledger.pool(name) else { continue };
        let (mut machines, mut total) = ledger.fleet.held(name);
        for claim in claims {
            let names = claim.options.iter().map(|option| &*option.name).chain([&*claim.instance_type]);
            let options = names.filter_map(|name| pool.instance_type(name)).map(|one| &one.capacity);
            total += &options.fold(ResourceList::default(), |most, one| most.max_of_each(one));
            machines += 1;
        }
        let over =
            |resource: &str| Violation::OverLimit { pool: name.to_owned(), resource: resource.to_owned() };
        let limits = &pool.pool.limits;
        if limits.nodes.is_some_and(|most| machines > most) {
            violations.push(over("nodes"));
        }
        for name in &limits.limited {
            if total.amount(name) > limits.resources.amount(name) {
                violations.push(over(name));
            }
        }
    }
}
