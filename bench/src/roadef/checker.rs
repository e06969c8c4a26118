//! Judges an assignment by the rules of the challenge, from the instance alone: nothing of the search is used.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::ensure;

use super::model::Instance;

/// What an assignment costs; an error names the rule that it breaks.
pub(super) fn cost(instance: &Instance, assignment: &[usize]) -> anyhow::Result<i64> {
    let Instance { machines, services, processes, start, .. } = instance;
    ensure!(assignment.len() == processes.len(), "{} of {} processes", assignment.len(), processes.len());
    let resources = instance.transient.len();
    let mut used = vec![vec![0_i64; resources]; machines.len()];
    let mut held = used.clone();
    for ((process, to), from) in processes.iter().zip(assignment).zip(start) {
        ensure!(*to < machines.len(), "there is no machine {to}");
        for (resource, request) in process.requests.iter().enumerate() {
            used[*to][resource] += request;
            if to != from && instance.transient[resource] {
                held[*from][resource] += request;
            }
        }
    }
    for (number, machine) in machines.iter().enumerate() {
        for (resource, capacity) in machine.capacity.iter().enumerate() {
            let sum = used[number][resource] + held[number][resource];
            ensure!(sum <= *capacity, "machine {number} resource {resource}: {sum} of {capacity}");
        }
    }
    let mut by_service: Vec<Vec<usize>> = vec![Vec::new(); services.len()];
    for (number, process) in processes.iter().enumerate() {
        by_service[process.service].push(number);
    }
    let neighbourhoods: Vec<BTreeSet<usize>> = by_service
        .iter()
        .map(|list| list.iter().map(|process| machines[assignment[*process]].neighbourhood).collect())
        .collect();
    for (number, service) in services.iter().enumerate() {
        let on: BTreeSet<usize> = by_service[number].iter().map(|process| assignment[*process]).collect();
        ensure!(on.len() == by_service[number].len(), "two processes of service {number} on one machine");
        let locations: BTreeSet<usize> = on.iter().map(|machine| machines[*machine].location).collect();
        ensure!(
            locations.len() >= service.spread,
            "service {number} at {} locations of {}",
            locations.len(),
            service.spread
        );
        for needed in &service.needs {
            let alone = neighbourhoods[number].difference(&neighbourhoods[*needed]).next();
            ensure!(alone.is_none(), "service {number} without service {needed} in neighbourhood {alone:?}");
        }
    }
    let mut cost = 0;
    for (number, machine) in machines.iter().enumerate() {
        for (resource, used) in used[number].iter().enumerate() {
            cost += instance.load_weight[resource] * (used - machine.safety[resource]).max(0);
        }
        for balance in &instance.balances {
            let free = |resource: usize| machine.capacity[resource] - used[number][resource];
            cost += balance.weight * (balance.target * free(balance.of) - free(balance.to)).max(0);
        }
    }
    let mut moved: BTreeMap<usize, i64> = BTreeMap::new();
    for ((process, to), from) in processes.iter().zip(assignment).zip(start) {
        if to != from {
            cost += instance.process_move_weight * process.move_cost;
            *moved.entry(process.service).or_default() += 1;
        }
        cost += instance.machine_move_weight * machines[*from].move_cost[*to];
    }
    Ok(cost + instance.service_move_weight * moved.into_values().max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two resources, the first transient; machines 0 and 1 at one place, 2 at another; service 1 needs service 0.
    const MODEL: &str = "2  1 10  0 100
        3
        0 0  10 10  6 8  0 1 4
        0 0  10 10  6 8  1 0 4
        1 1  10 10  6 8  4 4 0
        2
        2 0
        1 1 0
        3
        0  4 2  1000
        0  4 4  100
        1  2 6  10
        1  0 1 2
        10
        1 10 100";

    fn instance() -> Instance {
        Instance::parse(MODEL, "0 2 0").unwrap()
    }

    #[test]
    fn what_stays_costs_load_and_balance() {
        // Machine 0: 6 and 8 used, none above. Balances: 2 x free of 0 less free of 1, ten times:
        // machine 0: 2 x 4 - 2 = 6; machine 1: 20 - 10 = 10; machine 2: 12 - 6 = 6.
        assert_eq!(cost(&instance(), &[0, 2, 0]).unwrap(), 220);
    }

    #[test]
    fn what_moves_costs_thrice() {
        // Process 2 to machine 1: balances 2 x 6 - 8 = 4, 2 x 8 - 4 = 12, 6; it moves (10), one of its service (10), 100 x 1.
        assert_eq!(cost(&instance(), &[0, 2, 1]).unwrap(), 220 + 10 + 10 + 100);
    }

    #[test]
    fn what_is_above_safety_costs() {
        let mut instance = instance();
        instance.machines[0].safety = vec![5, 7];
        assert_eq!(cost(&instance, &[0, 2, 0]).unwrap(), 220 + 10 + 100);
    }

    #[test]
    fn broken_rules_are_named() {
        let mut tight = instance();
        tight.machines[0].capacity[0] = 5;
        // A process that moves holds what is transient where it was: to leave is no relief.
        let cases: [(&Instance, &[usize], &str); 6] = [
            (&instance(), &[0, 2], "2 of 3 processes"),
            (&instance(), &[0, 2, 9], "no machine 9"),
            (&tight, &[0, 2, 1], "machine 0 resource 0: 6 of 5"),
            (&instance(), &[0, 0, 2], "two processes of service 0"),
            (&instance(), &[0, 1, 0], "service 0 at 1 locations of 2"),
            (&instance(), &[2, 2, 2], "machine 2 resource"),
        ];
        for (instance, assignment, expected) in cases {
            let error = cost(instance, assignment).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let mut alone = instance();
        alone.services[0].spread = 1;
        let error = cost(&alone, &[0, 1, 2]).unwrap_err().to_string();
        assert!(error.contains("service 1 without service 0"), "{error}");
    }
}
