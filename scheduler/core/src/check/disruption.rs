//! Whether a disruption plan keeps its promises: budgets, PodDisruptionBudgets, do-not-disrupt, a place for every pod, and less
//! cost. The rules once more, told apart from how `disrupt` finds its plans.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use assay_shared::labels::{karpenter, kubernetes};
use assay_shared::units::UsdPerHour;

use super::{Ledger, Violation};
use crate::catalog::CapacityType;
use crate::disrupt::{Command, DisruptionPlan, DisruptionReason, claim_made};
use crate::model::{
    BudgetNodes, BudgetWindow, Change, ClaimState, ConsolidationPolicy, ExistingAssignment, Node, NodeClaim,
    NodePool, Plan, PlannedClaim, Pod, PodId, PodOwner, PodPhase, Snapshot, TaintEffect, Timestamp, Totals,
    Wait,
};

/// Whether a disruption plan is a valid answer to a snapshot with all its claims, at each of its steps.
///
/// # Errors
/// Every rule that is broken.
pub fn check_disruption(snapshot: &Snapshot, plan: &DisruptionPlan) -> Result<(), Vec<Violation>> {
    let mut violations = Vec::new();
    let cluster = Cluster::of(snapshot, plan);
    cluster.who_goes(&mut violations);
    cluster.budgets(&mut violations);
    cluster.budgets_of_pods(&mut violations);
    for command in &plan.commands {
        cluster.every_pod_of(command, &mut violations);
        cluster.promises(command, &mut violations);
        cluster.targets(command, &mut violations);
        if command.reason == DisruptionReason::Underutilized {
            cluster.saves(command, &mut violations);
        }
    }
    places(snapshot, plan, &mut violations);
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}

/// What is asked about again and again.
struct Cluster<'s> {
    snapshot: &'s Snapshot,
    plan: &'s DisruptionPlan,
    nodes: HashMap<&'s str, &'s Node>,
    claims: HashMap<&'s str, &'s NodeClaim>,
    pods: HashMap<&'s str, Vec<&'s Pod>>,
    gone: BTreeSet<&'s str>,
}

fn wrong(what: &str, detail: impl Into<String>) -> Violation {
    Violation::Disruption { node: what.to_owned(), detail: detail.into() }
}

impl<'s> Cluster<'s> {
    fn of(snapshot: &'s Snapshot, plan: &'s DisruptionPlan) -> Self {
        let mut pods: HashMap<&str, Vec<&Pod>> = HashMap::new();
        for pod in &snapshot.pods {
            if let Some(node) = pod.node.as_deref() {
                pods.entry(node).or_default().push(pod);
            }
        }
        let claims = snapshot.node_claims.iter();
        Self {
            snapshot,
            plan,
            nodes: snapshot.nodes.iter().map(|node| (&*node.name, node)).collect(),
            claims: claims.map(|claim| (claim.node.as_deref().unwrap_or(&claim.name), claim)).collect(),
            pods,
            gone: plan.commands.iter().flat_map(|command| &command.nodes).map(|node| &**node).collect(),
        }
    }

    fn pool_named(&self, name: &str) -> Option<&'s NodePool> {
        let of_static = self.snapshot.disruption.static_pools.iter().map(|one| &one.pool);
        self.snapshot.pools.iter().chain(of_static).find(|pool| pool.name == name)
    }

    fn pool_of(&self, node: &str) -> Option<&'s NodePool> {
        self.pool_named(self.nodes.get(node)?.label(karpenter::NODEPOOL)?)
    }

    fn pods_on(&self, node: &str) -> &[&'s Pod] {
        self.pods.get(node).map_or(&[], Vec::as_slice)
    }

    fn is_going(&self, node: &Node) -> bool {
        let claim = self.claims.get(&*node.name);
        node.deleting
            || claim.is_some_and(|claim| claim.state == ClaimState::Terminating || claim.deleting.is_some())
    }

    fn is_initialized(&self, node: &Node) -> bool {
        node.label(karpenter::INITIALIZED) == Some("true")
            || self.claims.get(&*node.name).is_some_and(|claim| claim.state == ClaimState::Initialized)
    }

    /// Nodes go once, are there, and are ours to take.
    fn who_goes(&self, violations: &mut Vec<Violation>) {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for node in self.plan.commands.iter().flat_map(|command| &command.nodes) {
            if !seen.insert(node) {
                violations.push(wrong(node, "goes twice"));
            }
            match self.nodes.get(&**node) {
                Some(known) if self.is_going(known) => {
                    violations.push(wrong(node, "is on its way out already"))
                }
                Some(_) if !self.claims.contains_key(&**node) => {
                    violations.push(wrong(node, "has no NodeClaim"))
                }
                Some(_) => {}
                None => violations.push(wrong(node, "is no node")),
            }
        }
    }

    /// No pool loses more nodes than its budgets allow; those that go by force count, and are not asked.
    fn budgets(&self, violations: &mut Vec<Violation>) {
        let mut going: BTreeMap<&str, u64> = BTreeMap::new();
        let mut total: BTreeMap<&str, u64> = BTreeMap::new();
        for node in self.snapshot.nodes.iter().filter(|node| self.is_initialized(node)) {
            let Some(pool) = node.label(karpenter::NODEPOOL) else { continue };
            *total.entry(pool).or_default() += 1;
            *going.entry(pool).or_default() += u64::from(!node.ready || self.is_going(node));
        }
        for command in &self.plan.commands {
            for node in &command.nodes {
                let Some(pool) = self.pool_of(node) else { continue };
                let going = going.entry(&pool.name).or_default();
                *going += u64::from(self.nodes.get(&**node).is_some_and(|node| node.ready));
                let all = total.get(pool.name.as_str()).copied().unwrap_or(0);
                let asks = !command.reason.is_forced() && command.reason != DisruptionReason::ScaledDown;
                let most = allowed(pool, command.reason, self.snapshot.now, all);
                if asks && *going > most {
                    let what = format!(
                        "NodePool {}: {going} nodes go, {most} may for {}",
                        pool.name,
                        command.reason.as_str()
                    );
                    violations.push(wrong(node, what));
                }
            }
        }
    }

    /// No disruption budget is asked for more evictions than it allows, but by the pods of one node, which take turns.
    fn budgets_of_pods(&self, violations: &mut Vec<Violation>) {
        for budget in &self.snapshot.disruption.budgets {
            let mut by_node: BTreeMap<&str, u64> = BTreeMap::new();
            for command in
                self.plan.commands.iter().filter(|one| one.reason == DisruptionReason::Underutilized)
            {
                for node in &command.nodes {
                    let own = self.pods_on(node).iter().filter(|pod| {
                        pod.is_reschedulable()
                            && budget.selector.matches(&pod.id.namespace, &pod.labels)
                            && !tolerates_disruption(pod)
                            && !(budget.evicts_unhealthy
                                && self.snapshot.disruption.unready.contains(&pod.id))
                    });
                    let count = own.count() as u64;
                    if count > 0 {
                        by_node.insert(node, count);
                    }
                }
            }
            let sum: u64 = by_node.values().sum();
            if by_node.len() > 1 && sum > u64::from(budget.allowed) {
                let what = format!("{sum} evictions asked for, {} allowed", budget.allowed);
                violations.push(wrong(&budget.id.to_string(), what));
            }
        }
    }

    /// Exactly the pods that must run elsewhere are moved, each from where it is.
    fn every_pod_of(&self, command: &Command, violations: &mut Vec<Violation>) {
        let mut expected: BTreeMap<&PodId, &str> = BTreeMap::new();
        for node in &command.nodes {
            let here = self.pods_on(node).iter().filter(|pod| pod.is_reschedulable());
            expected.extend(here.map(|pod| (&pod.id, &**node)));
        }
        for one in &command.moves {
            match expected.remove(&one.pod) {
                Some(from) if from == &*one.from => {}
                _ => violations.push(wrong(&one.from, format!("{} is not a pod of it that moves", one.pod))),
            }
        }
        for pod in &command.stranded {
            if expected.remove(pod).is_none() || !command.reason.is_forced() {
                violations.push(wrong(&pod.to_string(), "is left without a place"));
            }
        }
        violations.extend(expected.into_iter().map(|(pod, node)| wrong(node, format!("forgets {pod}"))));
    }

    /// Annotations and disruption budgets hold, but against force; a limit on draining overrules what pods say against a node's
    /// going for its own sake.
    fn promises(&self, command: &Command, violations: &mut Vec<Violation>) {
        if command.reason.is_forced() || command.reason == DisruptionReason::ScaledDown {
            return;
        }
        let for_its_sake =
            matches!(command.reason, DisruptionReason::Drifted | DisruptionReason::WrongHardware);
        for name in &command.nodes {
            let (Some(node), Some(claim)) = (self.nodes.get(&**name), self.claims.get(&**name)) else {
                continue;
            };
            let marked = [&node.annotations, &claim.annotations];
            if marked
                .iter()
                .any(|list| list.get(karpenter::DO_NOT_DISRUPT).is_some_and(|text| text == "true"))
            {
                violations.push(wrong(name, "is annotated do-not-disrupt"));
            }
            if for_its_sake && claim.termination_grace_period.is_some() {
                continue;
            }
            for pod in self.pods_on(name) {
                if let Some(why) = self.holds(pod) {
                    violations.push(wrong(name, format!("{}: {why}", pod.id)));
                }
            }
        }
    }

    /// What keeps a pod from being evicted.
    fn holds(&self, pod: &Pod) -> Option<String> {
        if pod.phase == PodPhase::Finished || pod.terminating.is_some() {
            return None;
        }
        let protected = pod.annotations.get(karpenter::DO_NOT_DISRUPT).is_some_and(|text| {
            text == "true" || whole_duration(text).is_some_and(|wait| self.snapshot.now < pod.created + wait)
        });
        if protected {
            return Some("is annotated do-not-disrupt".to_owned());
        }
        if pod.owner == PodOwner::Node || tolerates_disruption(pod) {
            return None;
        }
        let budgets = self.snapshot.disruption.budgets.iter();
        let own: Vec<_> =
            budgets.filter(|budget| budget.selector.matches(&pod.id.namespace, &pod.labels)).collect();
        match own.as_slice() {
            [] => None,
            [one] => {
                let broken = one.evicts_unhealthy && self.snapshot.disruption.unready.contains(&pod.id);
                (one.allowed == 0 && !broken).then(|| format!("{} lets none go", one.id))
            }
            _ => Some("is under several PodDisruptionBudgets".to_owned()),
        }
    }

    /// Pods go where they can: not to a node that goes, and not to one that is not ready, unless it is bought for them.
    fn targets(&self, command: &Command, violations: &mut Vec<Violation>) {
        let own: BTreeSet<&str> = command.replacements.iter().map(|claim| claim.name.as_str()).collect();
        for one in &command.moves {
            let to = &*one.to;
            if self.gone.contains(to) {
                violations.push(wrong(to, format!("takes {} and goes", one.pod)));
            } else if !own.contains(to) && !command.reason.is_forced() {
                let node = self.nodes.get(to);
                let managed = node.is_some_and(|node| node.label(karpenter::NODEPOOL).is_some());
                if !node.is_some_and(|node| node.ready && (!managed || self.is_initialized(node))) {
                    violations.push(wrong(to, format!("takes {} and is not ready", one.pod)));
                }
                if command.reason == DisruptionReason::Underutilized && managed && self.is_restless(to) {
                    violations.push(wrong(to, format!("takes {} in its own wait for quiet", one.pod)));
                }
            }
        }
    }

    fn is_restless(&self, node: &str) -> bool {
        let wait = self.pool_of(node).map(|pool| pool.disruption.consolidate_after);
        let (Some(Wait::After(wait)), Some(claim)) = (wait, self.claims.get(node)) else { return false };
        let event = self.snapshot.disruption.nodes.get(node).and_then(|facts| facts.last_pod_event);
        event.map_or(claim.since, |event| event.max(claim.since)) + wait > self.snapshot.now
    }

    /// What saves money is quiet, of a pool that lets it, and costs less however the launch ends.
    fn saves(&self, command: &Command, violations: &mut Vec<Violation>) {
        let mut price = UsdPerHour::ZERO;
        for name in &command.nodes {
            let pool = self.pool_of(name);
            let policy = pool.map(|pool| pool.disruption.consolidation_policy);
            let never = pool.is_some_and(|pool| pool.disruption.consolidate_after == Wait::Never);
            if policy.is_none_or(|policy| policy == ConsolidationPolicy::WhenEmpty)
                || never
                || self.is_restless(name)
            {
                violations.push(wrong(name, "may not be consolidated"));
            }
            price += self
                .nodes
                .get(&**name)
                .zip(pool)
                .map_or(UsdPerHour::ZERO, |(node, pool)| self.price(node, pool));
        }
        let worst: UsdPerHour = command.replacements.iter().map(|claim| self.at_worst(claim)).sum();
        let first = command.nodes.first().map_or("", |node| &**node);
        if price != command.price || worst >= price {
            violations.push(wrong(
                first,
                format!("nodes cost {price}, said {}; replacements {worst} at worst", command.price),
            ));
        }
        if command.payback.is_some_and(|paid| paid.period_seconds > 0 && paid.worth <= paid.cost()) {
            violations.push(wrong(first, "costs more than it is worth"));
        }
    }

    fn price(&self, node: &Node, pool: &NodePool) -> UsdPerHour {
        let label = |key: &str| node.label(key).unwrap_or_default();
        let types = self.snapshot.instance_types_of(pool).iter();
        let own = types.filter(|one| *one.name == *label(kubernetes::INSTANCE_TYPE));
        let offerings = own.flat_map(|one| &one.offerings).filter(|offering| {
            *offering.zone == *label(kubernetes::ZONE)
                && offering.capacity_type.as_str() == label(karpenter::CAPACITY_TYPE)
        });
        offerings.map(|offering| offering.price).min().unwrap_or_default()
    }

    /// The most that a claim may cost: its dearest type, launched by the dearest offering of the kind that is tried first.
    fn at_worst(&self, claim: &PlannedClaim) -> UsdPerHour {
        let Some(pool) = self.pool_named(&claim.pool) else { return UsdPerHour(u64::MAX) };
        let types = self.snapshot.instance_types_of(pool);
        let allows = |key: &str, value: &str| claim.requirements.get(key).is_none_or(|set| set.allows(value));
        let of_type = |name: &str| {
            let one = types.iter().find(|one| *one.name == *name)?;
            let may = |kind: CapacityType| {
                let offered = one.offerings.iter().filter(move |offering| offering.capacity_type == kind);
                let allowed = offered.filter(|offering| {
                    offering.available
                        && allows(kubernetes::ZONE, &offering.zone)
                        && allows(karpenter::CAPACITY_TYPE, kind.as_str())
                });
                allowed.map(|offering| offering.price).max()
            };
            may(CapacityType::Reserved)
                .or_else(|| may(CapacityType::Spot))
                .or_else(|| may(CapacityType::OnDemand))
        };
        let options =
            claim.options.iter().map(|option| of_type(&option.name).unwrap_or(UsdPerHour(u64::MAX)));
        options.max().unwrap_or(UsdPerHour(u64::MAX))
    }
}

/// Whether a pod stays to the end, whoever else is evicted.
fn tolerates_disruption(pod: &Pod) -> bool {
    pod.spec.tolerations.iter().any(|toleration| {
        toleration.key.as_deref().is_none_or(|key| key == karpenter::DISRUPTED_TAINT)
            && toleration.effect.is_none_or(|effect| effect == TaintEffect::NoSchedule)
    })
}

/// How many nodes of a pool may be on their way out.
fn allowed(pool: &NodePool, reason: DisruptionReason, now: Timestamp, total: u64) -> u64 {
    let mut most = total;
    for budget in &pool.disruption.budgets {
        let is_about = budget.reasons.is_empty() || budget.reasons.iter().any(|one| one == reason.as_str());
        let nodes = match (&budget.window, budget.nodes) {
            (BudgetWindow::Malformed(_), _) => 0,
            (_, BudgetNodes::Count(count)) => count,
            (_, BudgetNodes::Percent(percent)) => (total * u64::from(percent)).div_ceil(100),
        };
        if is_about && budget.window.is_open(now) {
            most = most.min(nodes);
        }
    }
    most
}

/// A Go duration in whole hours, minutes and seconds.
fn whole_duration(text: &str) -> Option<Duration> {
    let mut seconds = 0_u64;
    let mut digits = String::new();
    for letter in text.chars() {
        let unit = match letter {
            '0'..='9' => {
                digits.push(letter);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(digits.parse::<u64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    (digits.is_empty() && !text.is_empty()).then(|| Duration::from_secs(seconds))
}

/// Whether all pods fit where they are sent: each command in the state that those before it leave behind. Kubernetes looks at
/// what pods ask of each other when one is bound, and so does this.
fn places(snapshot: &Snapshot, plan: &DisruptionPlan, violations: &mut Vec<Violation>) {
    let mut ledger = Ledger::of(snapshot);
    let mut state = State { snapshot, ledger: &mut ledger, on: HashMap::new(), violations };
    for pod in &snapshot.pods {
        if let Some(node) = pod.node.as_deref() {
            state.on.entry(node).or_default().push(pod);
        }
    }
    for node in &plan.leaving {
        state.leaves(node, &BTreeSet::new());
    }
    state.judge(&plan.assumed);
    for command in &plan.commands {
        let stranded: BTreeSet<&PodId> = command.stranded.iter().collect();
        for node in &command.nodes {
            state.leaves(node, &stranded);
        }
        state.judge(&as_plan(command));
    }
}

/// The cluster on its way through a plan.
struct State<'s, 'l> {
    snapshot: &'s Snapshot,
    ledger: &'l mut Ledger,
    on: HashMap<&'s str, Vec<&'s Pod>>,
    violations: &'l mut Vec<Violation>,
}

impl State<'_, '_> {
    /// A node goes and its pods wait. What is bought is there before: until then it counts against limits.
    fn leaves(&mut self, node: &Arc<str>, stranded: &BTreeSet<&PodId>) {
        let own = |claim: &&NodeClaim| claim.node.as_ref() == Some(node) || claim.name == *node;
        for claim in self.snapshot.node_claims.iter().filter(own) {
            let claim = NodeClaim { state: ClaimState::Terminating, ..claim.clone() };
            self.ledger.apply(&Change::Claim(Arc::new(claim)));
        }
        self.ledger.apply(&Change::NodeGone(Arc::clone(node)));
        for pod in self.on.get(&**node).into_iter().flatten() {
            let moves = pod.is_reschedulable() && !stranded.contains(&pod.id);
            self.ledger.apply(&if moves {
                Change::Pod(Arc::new(Pod { node: None, phase: PodPhase::Pending, ..(*pod).clone() }))
            } else {
                Change::PodGone(pod.id.clone())
            });
        }
    }

    /// Judges a plan for all that wait, and carries it out.
    fn judge(&mut self, plan: &Plan) {
        if let Err(broken) = self.ledger.check(plan) {
            self.violations.extend(broken);
        }
        let mut bound: Vec<(PodId, Arc<str>)> = Vec::new();
        for claim in &plan.claims {
            if let Some(made) = claim_made(self.snapshot, claim) {
                bound.extend(claim.pods.iter().map(|pod| (pod.clone(), Arc::clone(&made.name))));
                self.ledger.apply(&Change::Claim(Arc::new(made)));
            }
        }
        for assignment in &plan.existing {
            bound.extend(assignment.pods.iter().map(|pod| (pod.clone(), Arc::clone(&assignment.name))));
        }
        for (id, node) in bound {
            if let Some(pod) = self.ledger.waiting(&id).cloned() {
                let running = Pod { node: Some(node), phase: PodPhase::Running, ..pod };
                self.ledger.apply(&Change::Pod(Arc::new(running)));
            }
        }
        for left in &plan.unschedulable {
            self.ledger.apply(&Change::PodGone(left.pod.clone()));
        }
    }
}

/// A command as a plan for the pods of its nodes.
fn as_plan(command: &Command) -> Plan {
    let claims = command.replacements.clone();
    let bought: BTreeSet<&str> = claims.iter().map(|claim| claim.name.as_str()).collect();
    let mut there: BTreeMap<Arc<str>, Vec<PodId>> = BTreeMap::new();
    for one in command.moves.iter().filter(|one| !bought.contains(&*one.to)) {
        there.entry(Arc::clone(&one.to)).or_default().push(one.pod.clone());
    }
    let on_claims: usize = claims.iter().map(|claim| claim.pods.len()).sum();
    let totals = Totals {
        price: claims.iter().map(|claim| claim.price).sum(),
        nodes: claims.len(),
        pods: on_claims + there.values().map(Vec::len).sum::<usize>(),
        lower_bound: UsdPerHour::ZERO,
    };
    let existing = there.into_iter().map(|(name, pods)| ExistingAssignment { name, pods }).collect();
    Plan { claims, existing, unschedulable: Vec::new(), totals }
}
