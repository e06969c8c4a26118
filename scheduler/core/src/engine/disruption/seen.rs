//! The cluster as the planner sees it: the picture that the solver follows, all claims, and what only `disrupt` asks about.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::{Engine, Machine};
use crate::model::{ClaimState, DisruptionFacts, NodeClaim, NodeFacts, Snapshot, Timestamp};

impl Engine {
    /// Everything that a disruption plan depends on, now. Pods that are expected somewhere are there already.
    pub(super) fn seen(&mut self, now: Timestamp) -> Snapshot {
        self.follow();
        self.follow_market(now);
        let mut snapshot = self.picture.snapshot(now);
        snapshot.node_claims = self.machines.values().map(claim_seen).collect();
        snapshot.disruption = DisruptionFacts {
            budgets: self.disruption_budgets.values().cloned().collect(),
            nodes: self.facts_of_nodes(),
            classes: self.disruption.classes.clone(),
            ..DisruptionFacts::default()
        };
        snapshot
    }

    fn facts_of_nodes(&self) -> BTreeMap<Arc<str>, NodeFacts> {
        let joined = self.machines.iter().filter_map(|(claim, machine)| {
            let node = machine.claim.node.as_ref()?;
            let (image, expire_after) = self.disruption.of_claims.get(claim).cloned().unwrap_or_default();
            let told = self.disruption.facts.get(node).cloned().unwrap_or_default();
            let missing = machine.mismatches.first().filter(|_| !machine.verified);
            let facts = NodeFacts {
                last_pod_event: Some(machine.quiet_since),
                mismatch: missing.map(|found| format!("bought {}, found {}", found.expected, found.found)),
                drift: machine.drift.clone(),
                image,
                expire_after,
                nominated: self.nominations.count_on(claim) > 0,
                ..told
            };
            Some((Arc::clone(node), facts))
        });
        joined.collect()
    }
}

fn claim_seen(machine: &Machine) -> NodeClaim {
    let claim = machine.claim.clone();
    if machine.is_leaving() { NodeClaim { state: ClaimState::Terminating, ..claim } } else { claim }
}
