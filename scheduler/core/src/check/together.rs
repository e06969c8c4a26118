//! Pods against each other: spread, affinity, anti-affinity, ports, volumes, gangs, and machines against reservations.
//!
//! Judged by the state after the whole plan, beside what runs. A planned claim stands for a node whose labels are decided by
//! its choice; where a constraint speaks of a label, the claim must not leave it open. Kubernetes looks at a spread constraint
//! when a pod is bound: pods that match its selector without having the constraint may come before it or after, so they count for
//! the emptiest domain and not for the fullest.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use assay_shared::labels::{azure, karpenter, kubernetes};

use super::Violation;
use super::claims::Pods;
use super::fits::Needs;
use crate::model::{
    GangScope, Labels, NodeInclusion, Plan, PlannedClaim, Pod, PodAffinityTerm, PodSelector, Snapshot,
    TopologySpread, WhenUnsatisfiable, untolerated,
};
use crate::requirement::{Requirements, ValueSet, normalize_key};

/// A node or a planned claim, with the pods that run there and those planned.
struct Machine<'s> {
    name: &'s str,
    of: Of<'s>,
    running: Vec<&'s Pod>,
    planned: Vec<&'s Pod>,
}

enum Of<'s> {
    /// A node, or a claim on its way, by its labels.
    Labels(&'s Labels),
    Claim(&'s PlannedClaim, Requirements),
}

impl Machine<'_> {
    /// The value of a label; `None` where it has none or leaves it open.
    fn domain(&self, key: &str) -> Option<String> {
        let key = normalize_key(key);
        match (&self.of, key) {
            (Of::Labels(_), kubernetes::HOSTNAME) => Some(self.name.to_owned()),
            (Of::Labels(labels), key) => {
                let labels = Requirements::from_labels(labels);
                labels.get(key).and_then(ValueSet::finite).and_then(|values| values.first().cloned())
            }
            (Of::Claim(..), kubernetes::HOSTNAME) => Some(self.name.to_owned()),
            (Of::Claim(claim, ..), kubernetes::INSTANCE_TYPE) => Some(claim.instance_type.to_string()),
            // Left open where it should not be, the choice alone decides nothing.
            (Of::Claim(.., stated), key) => {
                let decided = stated.get(key).filter(|set| set.is_decided()).and_then(ValueSet::finite);
                decided.and_then(|values| values.first().cloned())
            }
        }
    }

    /// Zone or capacity type that a claim asks for first.
    fn chosen(&self, key: &str) -> Option<String> {
        match (&self.of, normalize_key(key)) {
            (Of::Claim(claim, ..), kubernetes::ZONE) => Some(claim.zone.to_string()),
            (Of::Claim(claim, ..), karpenter::CAPACITY_TYPE) => Some(claim.capacity_type.as_str().to_owned()),
            _ => None,
        }
    }
}

fn machines<'s>(snapshot: &'s Snapshot, pods: &Pods<'s>, plan: &'s Plan) -> Vec<Machine<'s>> {
    let mut list: Vec<Machine<'s>> = Vec::new();
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    let nodes = snapshot.nodes.iter().map(|node| (&*node.name, &node.labels));
    let waiting = snapshot.node_claims.iter().filter(|claim| {
        claim.node.as_ref().is_none_or(|name| snapshot.nodes.iter().all(|node| node.name != *name))
    });
    for (name, labels) in nodes.chain(waiting.map(|claim| (&*claim.name, &claim.labels))) {
        by_name.insert(name, list.len());
        list.push(Machine { name, of: Of::Labels(labels), running: Vec::new(), planned: Vec::new() });
    }
    for pod in snapshot.pods.iter().filter(|pod| pod.uses_node()) {
        if let Some(index) = pod.node.as_deref().and_then(|node| by_name.get(node)) {
            list[*index].running.push(pod);
        }
    }
    for assignment in &plan.existing {
        if let Some(index) = by_name.get(&*assignment.name) {
            list[*index].planned.extend(assignment.pods.iter().filter_map(|id| pods.get(id).copied()));
        }
    }
    for claim in &plan.claims {
        let pool = snapshot.pools.iter().find(|pool| pool.name == claim.pool);
        let types = pool.map_or(&[][..], |pool| snapshot.instance_types_of(pool));
        let bought = types.iter().find(|one| one.name == claim.instance_type);
        let mut stated = claim.requirements.clone();
        if let Some(pool) = pool {
            stated = stated.intersect(&Requirements::from_labels(&pool.labels));
        }
        for (key, set) in bought.iter().flat_map(|one| one.requirements.iter()) {
            if ![kubernetes::ZONE, karpenter::CAPACITY_TYPE].contains(&key) {
                stated.constrain(key, set);
            }
        }
        let planned = claim.pods.iter().filter_map(|id| pods.get(id).copied()).collect();
        let of = Of::Claim(claim, stated);
        list.push(Machine { name: &claim.name, of, running: Vec::new(), planned });
    }
    list
}

/// Pods that a selector matches, remembered by namespace and labels.
#[derive(Default)]
struct Matches<'s> {
    known: HashMap<(&'s PodSelector, *const str, *const Labels), bool>,
}

impl<'s> Matches<'s> {
    fn matches(&mut self, selector: &'s PodSelector, pod: &Pod) -> bool {
        let key = (selector, Arc::as_ptr(&pod.id.namespace), Arc::as_ptr(&pod.labels));
        *self.known.entry(key).or_insert_with(|| selector.matches(&pod.id.namespace, &pod.labels))
    }
}

/// Checks everything that pods ask of each other.
pub(super) fn check(snapshot: &Snapshot, pods: &Pods<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    let machines = machines(snapshot, pods, plan);
    let mut matches = Matches::default();
    affinity(&machines, &mut matches, violations);
    spread(snapshot, &machines, &mut matches, violations);
    for machine in &machines {
        ports(machine, violations);
        volumes(machine, violations);
    }
    gangs(snapshot, &machines, violations);
    reservations(snapshot, plan, violations);
}

fn broken(machine: &Machine<'_>, pod: &Pod, rule: String) -> Violation {
    Violation::Together { machine: machine.name.to_owned(), pod: pod.id.clone(), rule }
}

/// For each term of affinity or anti-affinity, where its pods are.
type Counts<'s> = HashMap<&'s PodAffinityTerm, HashMap<String, u64>>;

fn affinity<'s>(machines: &[Machine<'s>], matches: &mut Matches<'s>, violations: &mut Vec<Violation>) {
    let mut terms: BTreeSet<&'s PodAffinityTerm> = BTreeSet::new();
    for machine in machines {
        for pod in &machine.planned {
            terms.extend(pod.spec.pod_affinity.iter().chain(&pod.spec.pod_anti_affinity));
        }
        for pod in &machine.running {
            terms.extend(&pod.spec.pod_anti_affinity);
        }
    }
    if terms.is_empty() {
        return;
    }
    let mut counts: Counts<'s> = HashMap::new();
    // Pods, by term, that keep those it selects away: by domain, how many.
    let mut averse: Counts<'s> = HashMap::new();
    let present = |pod: &&&Pod| pod.terminating.is_none();
    for machine in machines {
        for term in &terms {
            let all = machine.running.iter().filter(present).chain(&machine.planned);
            let count = all.filter(|pod| matches.matches(&term.selector, pod)).count() as u64;
            if let Some(domain) = machine.domain(&term.topology_key).filter(|_| count > 0) {
                *counts.entry(term).or_default().entry(domain).or_default() += count;
            }
        }
        for pod in machine.running.iter().filter(present).chain(&machine.planned) {
            for term in &pod.spec.pod_anti_affinity {
                if let Some(domain) = machine.domain(&term.topology_key) {
                    *averse.entry(term).or_default().entry(domain).or_default() += 1;
                }
            }
        }
    }
    let at = |counts: &Counts<'s>, term: &PodAffinityTerm, domain: &str| {
        counts.get(term).and_then(|domains| domains.get(domain)).copied().unwrap_or(0)
    };
    for machine in machines {
        for pod in &machine.planned {
            for term in &pod.spec.pod_affinity {
                let itself = u64::from(matches.matches(&term.selector, pod));
                let anywhere: u64 = counts.get(term).map_or(0, |domains| domains.values().sum());
                let met = machine.domain(&term.topology_key).is_some_and(|domain| {
                    let here = at(&counts, term, &domain);
                    here > itself || itself > 0 && here == anywhere
                });
                if !met {
                    violations.push(broken(machine, pod, format!("pod affinity over {}", term.topology_key)));
                }
            }
            for term in &pod.spec.pod_anti_affinity {
                let itself = u64::from(matches.matches(&term.selector, pod));
                let met = machine
                    .domain(&term.topology_key)
                    .is_none_or(|domain| at(&counts, term, &domain) <= itself);
                if !met {
                    let rule = format!("pod anti-affinity over {}", term.topology_key);
                    violations.push(broken(machine, pod, rule));
                }
            }
            for (term, domains) in &averse {
                if !matches.matches(&term.selector, pod) {
                    continue;
                }
                let own = u64::from(pod.spec.pod_anti_affinity.contains(term));
                let kept_away = machine
                    .domain(&term.topology_key)
                    .is_some_and(|domain| domains.get(&domain).copied().unwrap_or(0) > own);
                if kept_away {
                    let rule = format!("the anti-affinity of others over {}", term.topology_key);
                    violations.push(broken(machine, pod, rule));
                }
            }
        }
    }
}

fn spread<'s>(
    snapshot: &'s Snapshot,
    machines: &[Machine<'s>],
    matches: &mut Matches<'s>,
    violations: &mut Vec<Violation>,
) {
    // One pod of each constraint and node selection stands for all of them.
    let mut constraints: BTreeMap<(&'s TopologySpread, Selection<'s>), &'s Pod> = BTreeMap::new();
    for pod in machines.iter().flat_map(|machine| &machine.planned) {
        for constraint in &pod.spec.topology_spread {
            if constraint.when_unsatisfiable == WhenUnsatisfiable::DoNotSchedule {
                constraints.entry((constraint, selection(pod))).or_insert(pod);
            }
        }
    }
    let mut eligible: BTreeMap<(String, Selection<'s>, bool, bool), Option<BTreeSet<String>>> =
        BTreeMap::new();
    for ((constraint, selects), example) in constraints {
        let key = constraint.topology_key.as_str();
        let honours = (
            constraint.node_affinity_policy == NodeInclusion::Honor,
            constraint.node_taints_policy == NodeInclusion::Honor,
        );
        let domains = eligible
            .entry((key.to_owned(), selects, honours.0, honours.1))
            .or_insert_with(|| eligible_domains(snapshot, machines, key, example, honours));
        // Those with the constraint, and everybody whom it counts: when the last of the former was bound in the fullest domain, the
        // emptiest cannot have had more than everybody.
        let (mut counts, mut everybody): (BTreeMap<String, u64>, BTreeMap<String, u64>) = <_>::default();
        let mut mine: Vec<(&Machine<'s>, &Pod, String)> = Vec::new();
        for machine in machines {
            let Some(domain) = machine.domain(key) else {
                let open = machine
                    .planned
                    .iter()
                    .find(|pod| pod.spec.topology_spread.contains(constraint) && selection(pod) == selects);
                violations.extend(
                    open.map(|pod| broken(machine, pod, format!("no value of {key} to spread over"))),
                );
                continue;
            };
            let held = |pod: &Pod| pod.spec.topology_spread.contains(constraint);
            let counts_here =
                domains.as_ref().is_none_or(|_| counts_for(snapshot, machine, example, honours));
            let running = machine.running.iter().filter(|pod| counts_here && pod.terminating.is_none());
            let mut of = |pod: &&&Pod| matches.matches(&constraint.selector, pod);
            let running = running.filter(&mut of).count() as u64;
            let all = machine.planned.iter().filter(&mut of).count() as u64;
            let own = machine
                .planned
                .iter()
                .filter(|pod| held(pod) && selection(pod) == selects)
                .filter(&mut of)
                .count() as u64;
            *everybody.entry(domain.clone()).or_default() += running + all;
            *counts.entry(domain.clone()).or_default() += running + own;
            let planned = machine.planned.iter().find(|pod| held(pod) && selection(pod) == selects);
            mine.extend(planned.map(|pod| (machine, *pod, domain)));
        }
        let least = match domains {
            Some(domains) if domains.len() >= constraint.min_domains as usize => {
                domains.iter().map(|domain| everybody.get(domain).copied().unwrap_or(0)).min().unwrap_or(0)
            }
            _ => 0,
        };
        for (machine, pod, domain) in mine {
            let here = counts.get(&domain).copied().unwrap_or(0);
            if here > least + u64::from(constraint.max_skew) {
                let rule = format!(
                    "spread over {key}: {here} in {domain}, {least} in the emptiest, maxSkew {}",
                    constraint.max_skew
                );
                violations.push(broken(machine, pod, rule));
            }
        }
    }
}

/// What decides which nodes count for a pod's spread constraints.
type Selection<'s> = (
    &'s [crate::requirement::Requirement],
    &'s [Vec<crate::requirement::Requirement>],
    &'s [crate::model::Toleration],
);

fn selection(pod: &Pod) -> Selection<'_> {
    (&pod.spec.node_selector, &pod.spec.required_affinity, &pod.spec.tolerations)
}

/// Domains of a label that count for a pod; `None` for hosts, of which there can always be another.
fn eligible_domains(
    snapshot: &Snapshot,
    machines: &[Machine<'_>],
    key: &str,
    pod: &Pod,
    (affinity, taints): (bool, bool),
) -> Option<BTreeSet<String>> {
    if normalize_key(key) == kubernetes::HOSTNAME {
        return None;
    }
    let needs = Needs::of(&pod.spec).ok()?;
    let tolerations = &pod.spec.tolerations;
    let mut domains = BTreeSet::new();
    for machine in machines.iter().filter(|machine| matches!(machine.of, Of::Labels(_))) {
        domains
            .extend(machine.domain(key).filter(|_| counts_for(snapshot, machine, pod, (affinity, taints))));
    }
    for pool in &snapshot.pools {
        if taints && untolerated(&pool.taints, tolerations).is_some() {
            continue;
        }
        let Ok(stated) = Requirements::from_list(&pool.requirements) else { continue };
        let mut stated = stated.intersect(&Requirements::from_labels(&pool.labels));
        stated.constrain(karpenter::NODEPOOL, &ValueSet::of([pool.name.as_str()]));
        for one in snapshot.instance_types_of(pool) {
            for offering in one.offerings.iter().filter(|offering| offering.available) {
                let mut machine = stated.intersect(&one.requirements);
                machine.constrain(kubernetes::INSTANCE_TYPE, &ValueSet::of([&*one.name]));
                machine.constrain(kubernetes::ZONE, &ValueSet::of([&*offering.zone]));
                machine.constrain(karpenter::CAPACITY_TYPE, &ValueSet::of([offering.capacity_type.as_str()]));
                let possible = machine.iter().all(|(_, set)| !set.is_empty())
                    && (!affinity || needs.test(|terms| terms.check_offered(&machine)).is_ok());
                if possible {
                    let values = machine.get(key).and_then(ValueSet::finite);
                    domains.extend(values.into_iter().flatten().cloned());
                }
            }
        }
    }
    // Regional machines are in a zone that nobody knows, which is no zone to spread to while no node is there.
    let is_there = |machine: &Machine<'_>| {
        matches!(machine.of, Of::Labels(_)) && machine.domain(key).as_deref() == Some(azure::REGIONAL_ZONE)
    };
    if normalize_key(key) == kubernetes::ZONE && domains.len() > 1 && !machines.iter().any(is_there) {
        domains.remove(azure::REGIONAL_ZONE);
    }
    Some(domains)
}

/// Whether a node counts for the spread constraints of a pod; machines to come count where the pod itself may be.
fn counts_for(
    snapshot: &Snapshot,
    machine: &Machine<'_>,
    pod: &Pod,
    (affinity, taints): (bool, bool),
) -> bool {
    let Of::Labels(labels) = &machine.of else { return true };
    let node = snapshot.nodes.iter().find(|node| &*node.name == machine.name);
    let selected = |needs: &Needs| needs.test(|terms| terms.check_labels(labels)).is_ok();
    (!affinity || Needs::of(&pod.spec).is_ok_and(|needs| selected(&needs)))
        && (!taints || node.is_none_or(|node| untolerated(&node.taints, &pod.spec.tolerations).is_none()))
}

fn ports(machine: &Machine<'_>, violations: &mut Vec<Violation>) {
    let with_ports = |pods: &[&'_ Pod]| pods.iter().any(|pod| !pod.spec.host_ports.is_empty());
    if !with_ports(&machine.planned) {
        return;
    }
    for (index, pod) in machine.planned.iter().enumerate() {
        let others = machine.running.iter().chain(&machine.planned[..index]);
        let conflict = others
            .flat_map(|other| &other.spec.host_ports)
            .find(|other| pod.spec.host_ports.iter().any(|port| port.conflicts(other)));
        if let Some(port) = conflict {
            violations.push(broken(machine, pod, format!("host port {} is taken", port.port)));
        }
    }
}

fn volumes(machine: &Machine<'_>, violations: &mut Vec<Violation>) {
    for pod in &machine.planned {
        for alternatives in &pod.spec.volume_topology {
            let reached = alternatives.iter().any(|term| {
                Requirements::from_list(term).is_ok_and(|term| {
                    term.iter().all(|(key, set)| {
                        let value = machine.chosen(key).or_else(|| machine.domain(key));
                        value.map_or_else(|| set.allows_absence(), |value| set.allows(&value))
                    })
                })
            });
            if !reached {
                violations.push(broken(machine, pod, "a volume cannot be reached from there".to_owned()));
            }
        }
    }
}

fn gangs(snapshot: &Snapshot, machines: &[Machine<'_>], violations: &mut Vec<Violation>) {
    // Those that run count wherever that is.
    let mut running: BTreeMap<&str, u64> = BTreeMap::new();
    for pod in snapshot.pods.iter().filter(|pod| pod.uses_node()) {
        if let Some(gang) = &pod.gang {
            *running.entry(&gang.id).or_default() += 1;
        }
    }
    // Pods planned and in all, zones, and one pod of the gang with its machine.
    type Seen<'m> = (u64, u64, BTreeSet<Option<String>>, &'m Machine<'m>, &'m Pod);
    let mut gangs: BTreeMap<&str, Seen<'_>> = BTreeMap::new();
    for machine in machines {
        let pods =
            machine.running.iter().map(|pod| (pod, 0)).chain(machine.planned.iter().map(|pod| (pod, 1)));
        for (pod, planned) in pods {
            let Some(gang) = &pod.gang else { continue };
            let seen = gangs.entry(&gang.id).or_insert_with(|| (0, 0, BTreeSet::new(), machine, pod));
            seen.0 += planned;
            seen.1 += planned;
            if gang.scope == GangScope::Zone {
                seen.2.insert(machine.domain(kubernetes::ZONE));
            }
        }
    }
    for (id, (planned, all, zones, machine, pod)) in gangs {
        let all = all + running.get(id).copied().unwrap_or(0);
        let least = pod.gang.as_ref().map_or(0, |gang| u64::from(gang.min_member));
        if planned > 0 && all < least {
            violations.push(broken(machine, pod, format!("gang {id}: {all} of at least {least} pods")));
        }
        if planned > 0 && zones.len() > 1 {
            violations.push(broken(machine, pod, format!("gang {id}: in {} zones", zones.len())));
        }
    }
}

fn reservations(snapshot: &Snapshot, plan: &Plan, violations: &mut Vec<Violation>) {
    let mut drawn: BTreeMap<&str, u64> = BTreeMap::new();
    for id in plan.claims.iter().filter_map(|claim| claim.reservation.as_deref()) {
        *drawn.entry(id).or_default() += 1;
    }
    let offerings =
        || snapshot.instance_types.values().flat_map(|types| types.iter()).flat_map(|one| &one.offerings);
    for (id, count) in drawn {
        let known =
            offerings().filter_map(|offering| offering.reservation.as_ref()).filter(|one| &*one.id == id);
        let remaining = known.map(|reservation| reservation.remaining).min().unwrap_or(0);
        if count > remaining {
            violations.push(Violation::Reservation { id: id.to_owned(), drawn: count, remaining });
        }
    }
}
