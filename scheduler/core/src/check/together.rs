//! Pods against each other: spread, affinity, anti-affinity, ports, volumes, gangs, and machines against reservations.
//!
//! Judged by the state after the whole plan, beside what runs. A planned claim stands for a node whose labels are decided by
//! its choice; where a constraint speaks of a label, the claim must not leave it open. Kubernetes looks at a spread constraint
//! when a pod is bound: pods that match its selector without having the constraint may come before it or after, so they count for
//! the emptiest domain and not for the fullest.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};

use super::Violation;
use super::domains::Counting;
use super::flocks::{ByDomain, Selected};
use super::ledger::{Ledger, is_host};
use crate::model::{
    GangScope, Labels, Plan, PlannedClaim, Pod, PodAffinityTerm, PodSelector, TopologySpread,
    WhenUnsatisfiable,
};
use crate::requirement::{Requirements, ValueSet, normalize_key};

/// A machine that gets pods: a planned claim, or one that is there with the pods that run on it.
struct Machine<'l> {
    name: &'l str,
    claim: Option<(&'l PlannedClaim, Requirements)>,
    running: &'l [Arc<Pod>],
    planned: Vec<&'l Pod>,
}

impl Machine<'_> {
    /// The value of a label; `None` where it has none or leaves it open.
    fn domain(&self, ledger: &Ledger, key: &str) -> Option<String> {
        let key = normalize_key(key);
        match &self.claim {
            None => ledger.fleet.domain(self.name, key),
            Some(_) if key == kubernetes::HOSTNAME => Some(self.name.to_owned()),
            Some((claim, _)) if key == kubernetes::INSTANCE_TYPE => Some(claim.instance_type.to_string()),
            // Left open where it should not be, the choice alone decides nothing.
            Some((_, stated)) => {
                let decided = stated.get(key).filter(|set| set.is_decided()).and_then(ValueSet::finite);
                decided.and_then(|values| values.first().cloned())
            }
        }
    }

    /// Zone or capacity type that a claim asks for first.
    fn chosen(&self, key: &str) -> Option<String> {
        let (claim, _) = self.claim.as_ref()?;
        match normalize_key(key) {
            kubernetes::ZONE => Some(claim.zone.to_string()),
            karpenter::CAPACITY_TYPE => Some(claim.capacity_type.as_str().to_owned()),
            _ => None,
        }
    }
}

/// The machines that a plan gives pods.
fn machines<'l>(ledger: &'l Ledger, plan: &'l Plan) -> Vec<Machine<'l>> {
    let there = plan.existing.iter().filter(|assignment| ledger.fleet.labels(&assignment.name).is_some());
    let there = there.map(|assignment| Machine {
        name: &assignment.name,
        claim: None,
        running: ledger.on(&assignment.name),
        planned: assignment.pods.iter().filter_map(|id| ledger.waiting(id)).collect(),
    });
    let bought = plan.claims.iter().map(|claim| {
        let pool = ledger.pool(&claim.pool);
        let mut stated = claim.requirements.clone();
        if let Some(pool) = &pool {
            stated = stated.intersect(&Requirements::from_labels(&pool.pool.labels));
        }
        let bought = pool.and_then(|pool| pool.instance_type(&claim.instance_type));
        for (key, set) in bought.iter().flat_map(|one| one.requirements.iter()) {
            if ![kubernetes::ZONE, karpenter::CAPACITY_TYPE].contains(&key) {
                stated.constrain(key, set);
            }
        }
        let planned = claim.pods.iter().filter_map(|id| ledger.waiting(id)).collect();
        Machine { name: &claim.name, claim: Some((claim, stated)), running: &[], planned }
    });
    there.chain(bought).collect()
}

/// Pods that a selector matches, remembered by namespace and labels.
#[derive(Default)]
struct Matches<'l> {
    known: HashMap<(&'l PodSelector, *const str, *const Labels), bool>,
}

impl<'l> Matches<'l> {
    fn matches(&mut self, selector: &'l PodSelector, pod: &Pod) -> bool {
        let key = (selector, Arc::as_ptr(&pod.id.namespace), Arc::as_ptr(&pod.labels));
        *self.known.entry(key).or_insert_with(|| selector.matches(&pod.id.namespace, &pod.labels))
    }
}

/// Has the ledger keep what the constraints of planned pods will ask for.
pub(super) fn prepare(ledger: &mut Ledger, plan: &Plan) {
    let on_existing = plan.existing.iter().flat_map(|assignment| &assignment.pods);
    let planned = plan.claims.iter().flat_map(|claim| &claim.pods).chain(on_existing);
    let mut seen = HashSet::new();
    let specs = planned.filter_map(|id| ledger.waiting(id)).map(|pod| &pod.spec);
    let specs: Vec<_> = specs.filter(|spec| seen.insert(Arc::as_ptr(spec))).cloned().collect();
    for spec in specs {
        for term in spec.pod_affinity.iter().chain(&spec.pod_anti_affinity) {
            ledger.learn(&term.topology_key);
        }
        for constraint in spec.topology_spread.iter().filter(|one| binds(one)) {
            ledger.learn(&constraint.topology_key);
            if !is_host(&constraint.topology_key) {
                let key = normalize_key(&constraint.topology_key);
                ledger.offered.learn(&ledger.market, key, &Counting::of(constraint, &spec));
            }
        }
    }
}

/// Checks everything that pods ask of each other.
pub(super) fn check(ledger: &Ledger, plan: &Plan, violations: &mut Vec<Violation>) {
    let machines = machines(ledger, plan);
    let mut matches = Matches::default();
    affinity(ledger, &machines, &mut matches, violations);
    averse(ledger, &machines, &mut matches, violations);
    spread(ledger, &machines, &mut matches, violations);
    for machine in &machines {
        ports(machine, violations);
        volumes(ledger, machine, violations);
    }
    gangs(ledger, &machines, violations);
    reservations(ledger, plan, violations);
}

fn broken(machine: &Machine<'_>, pod: &Pod, rule: String) -> Violation {
    Violation::Together { machine: machine.name.to_owned(), pod: pod.id.clone(), rule }
}

/// Pods that a term selects: those that run, and those of the plan.
struct Company<'l> {
    running: Selected<'l>,
    planned: ByDomain,
}

impl Company<'_> {
    fn at(&self, domain: &str) -> u64 {
        self.running.at(domain) + self.planned.get(domain).copied().unwrap_or(0)
    }

    fn anywhere(&self) -> u64 {
        self.running.anywhere() + self.planned.values().sum::<u64>()
    }
}

/// What planned pods ask of others.
fn affinity<'l>(
    ledger: &'l Ledger,
    machines: &[Machine<'l>],
    matches: &mut Matches<'l>,
    violations: &mut Vec<Violation>,
) {
    let mut terms: HashMap<&'l PodAffinityTerm, Company<'l>> = HashMap::new();
    for pod in machines.iter().flat_map(|machine| &machine.planned) {
        for term in pod.spec.pod_affinity.iter().chain(&pod.spec.pod_anti_affinity) {
            terms.entry(term).or_insert_with(|| Company {
                running: ledger.flocks.select(&term.selector, normalize_key(&term.topology_key)),
                planned: ByDomain::new(),
            });
        }
    }
    if terms.is_empty() {
        return;
    }
    for machine in machines {
        for (term, company) in &mut terms {
            let selected = machine.planned.iter().filter(|pod| matches.matches(&term.selector, pod));
            let count = selected.count() as u64;
            if let Some(domain) = machine.domain(ledger, &term.topology_key).filter(|_| count > 0) {
                *company.planned.entry(domain).or_default() += count;
            }
        }
    }
    for machine in machines {
        for pod in &machine.planned {
            for term in &pod.spec.pod_affinity {
                let Some(company) = terms.get(term) else { continue };
                let itself = u64::from(matches.matches(&term.selector, pod));
                let met = machine.domain(ledger, &term.topology_key).is_some_and(|domain| {
                    let here = company.at(&domain);
                    here > itself || itself > 0 && here == company.anywhere()
                });
                if !met {
                    violations.push(broken(machine, pod, format!("pod affinity over {}", term.topology_key)));
                }
            }
            for term in &pod.spec.pod_anti_affinity {
                let Some(company) = terms.get(term) else { continue };
                let itself = u64::from(matches.matches(&term.selector, pod));
                let met = machine
                    .domain(ledger, &term.topology_key)
                    .is_none_or(|domain| company.at(&domain) <= itself);
                if !met {
                    let rule = format!("pod anti-affinity over {}", term.topology_key);
                    violations.push(broken(machine, pod, rule));
                }
            }
        }
    }
}

/// What others, running and planned, ask of planned pods: to stay out of their domains.
fn averse<'l>(
    ledger: &'l Ledger,
    machines: &[Machine<'l>],
    matches: &mut Matches<'l>,
    violations: &mut Vec<Violation>,
) {
    // Terms of planned pods, and how many hold each in each domain.
    let mut planned: HashMap<&'l PodAffinityTerm, ByDomain> = HashMap::new();
    for machine in machines {
        for term in machine.planned.iter().flat_map(|pod| &pod.spec.pod_anti_affinity) {
            if let Some(domain) = machine.domain(ledger, &term.topology_key) {
                *planned.entry(term).or_default().entry(domain).or_default() += 1;
            }
        }
    }
    for machine in machines {
        let mut here: HashMap<&'l PodAffinityTerm, u64> = HashMap::new();
        for (term, domains) in &planned {
            let domain = machine.domain(ledger, &term.topology_key);
            if let Some(count) = domain.and_then(|domain| domains.get(&domain)) {
                *here.entry(term).or_default() += count;
            }
        }
        for (term, count) in ledger.averse_to(|key| machine.domain(ledger, key)) {
            *here.entry(term).or_default() += count;
        }
        let running: &'l [Arc<Pod>] = machine.running;
        for pod in running.iter().filter(|pod| pod.terminating.is_none()) {
            for term in pod.spec.pod_anti_affinity.iter().filter(|term| is_host(&term.topology_key)) {
                *here.entry(term).or_default() += 1;
            }
        }
        for pod in &machine.planned {
            for (term, count) in &here {
                let own = u64::from(pod.spec.pod_anti_affinity.contains(term));
                if *count > own && matches.matches(&term.selector, pod) {
                    let rule = format!("the anti-affinity of others over {}", term.topology_key);
                    violations.push(broken(machine, pod, rule));
                }
            }
        }
    }
}

/// Whether a spread constraint is more than a wish.
fn binds(constraint: &TopologySpread) -> bool {
    constraint.when_unsatisfiable == WhenUnsatisfiable::DoNotSchedule
}

fn spread<'l>(
    ledger: &'l Ledger,
    machines: &[Machine<'l>],
    matches: &mut Matches<'l>,
    violations: &mut Vec<Violation>,
) {
    // Constraints of planned pods, by the nodes that their pods select.
    let mut constraints: BTreeMap<(&'l TopologySpread, Selection<'l>), &'l Pod> = BTreeMap::new();
    for pod in machines.iter().flat_map(|machine| &machine.planned) {
        for constraint in pod.spec.topology_spread.iter().filter(|one| binds(one)) {
            constraints.entry((constraint, selection(pod))).or_insert(pod);
        }
    }
    for ((constraint, selects), example) in constraints {
        let key = normalize_key(&constraint.topology_key);
        let counting = Counting::of(constraint, &example.spec);
        let domains = ledger.eligible(key, &counting);
        let selected = ledger.flocks.select(&constraint.selector, key);
        // Where nodes are the domains, only those that get pods are looked at.
        let running = match &domains {
            None => machines
                .iter()
                .filter_map(|machine| Some((machine.domain(ledger, key)?, selected.at(machine.name))))
                .collect(),
            Some(_) if counting.is_all() => selected.in_domains(),
            Some(_) => selected.in_domains_of(ledger.domains_that_count(key, &counting)),
        };
        // Those with the constraint, and everybody whom it counts: when the last of the former was bound in the fullest domain, the
        // emptiest cannot have had more than everybody.
        let (mut counts, mut everybody): (ByDomain, ByDomain) = (running.clone(), running);
        let mut mine: Vec<(&Machine<'_>, &Pod, String)> = Vec::new();
        for machine in machines {
            let held = |pod: &Pod| pod.spec.topology_spread.contains(constraint) && selection(pod) == selects;
            let Some(domain) = machine.domain(ledger, key) else {
                let open = machine.planned.iter().find(|pod| held(pod));
                violations.extend(
                    open.map(|pod| broken(machine, pod, format!("no value of {key} to spread over"))),
                );
                continue;
            };
            let mut of = |pod: &&&Pod| matches.matches(&constraint.selector, pod);
            let all = machine.planned.iter().filter(&mut of).count() as u64;
            let own = machine.planned.iter().filter(|pod| held(pod)).filter(&mut of).count() as u64;
            *everybody.entry(domain.clone()).or_default() += all;
            *counts.entry(domain.clone()).or_default() += own;
            let planned = machine.planned.iter().find(|pod| held(pod));
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

fn ports(machine: &Machine<'_>, violations: &mut Vec<Violation>) {
    if machine.planned.iter().all(|pod| pod.spec.host_ports.is_empty()) {
        return;
    }
    for (index, pod) in machine.planned.iter().enumerate() {
        let running = machine.running.iter().map(|pod| &**pod);
        let others = running.chain(machine.planned[..index].iter().copied());
        let conflict = others
            .flat_map(|other| &other.spec.host_ports)
            .find(|other| pod.spec.host_ports.iter().any(|port| port.conflicts(other)));
        if let Some(port) = conflict {
            violations.push(broken(machine, pod, format!("host port {} is taken", port.port)));
        }
    }
}

fn volumes(ledger: &Ledger, machine: &Machine<'_>, violations: &mut Vec<Violation>) {
    for pod in &machine.planned {
        for alternatives in &pod.spec.volume_topology {
            let reached = alternatives.iter().any(|term| {
                Requirements::from_list(term).is_ok_and(|term| {
                    term.iter().all(|(key, set)| {
                        let value = machine.chosen(key).or_else(|| machine.domain(ledger, key));
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

fn gangs(ledger: &Ledger, machines: &[Machine<'_>], violations: &mut Vec<Violation>) {
    // Pods planned, the zones of their machines, and one pod of the gang with its machine.
    type Seen<'m> = (u64, BTreeSet<Option<String>>, &'m Machine<'m>, &'m Pod);
    let mut gangs: BTreeMap<&str, Seen<'_>> = BTreeMap::new();
    for machine in machines {
        for pod in &machine.planned {
            let Some(gang) = &pod.gang else { continue };
            let seen = gangs.entry(&gang.id).or_insert_with(|| (0, BTreeSet::new(), machine, pod));
            seen.0 += 1;
            seen.1.insert(machine.domain(ledger, kubernetes::ZONE));
        }
    }
    for (id, (planned, mut zones, machine, pod)) in gangs {
        let Some(gang) = &pod.gang else { continue };
        // Those that run count wherever that is.
        let (running, zones_of_running) = ledger.gang(id);
        let (all, least) = (planned + running, u64::from(gang.min_member));
        if all < least {
            violations.push(broken(machine, pod, format!("gang {id}: {all} of at least {least} pods")));
        }
        if gang.scope != GangScope::Zone {
            continue;
        }
        // Those that run may have come to be in several zones: the others follow to one of these.
        let follows = zones_of_running.is_empty() || zones.is_subset(&zones_of_running);
        if zones.len() > 1 || !follows {
            zones.extend(zones_of_running);
            violations.push(broken(machine, pod, format!("gang {id}: in {} zones", zones.len())));
        }
    }
}

fn reservations(ledger: &Ledger, plan: &Plan, violations: &mut Vec<Violation>) {
    let mut drawn: BTreeMap<&str, u64> = BTreeMap::new();
    for id in plan.claims.iter().filter_map(|claim| claim.reservation.as_deref()) {
        *drawn.entry(id).or_default() += 1;
    }
    let types = || ledger.market.instance_types.values().flat_map(|types| types.iter());
    let offerings = || types().flat_map(|one| &one.offerings);
    for (id, count) in drawn {
        let known =
            offerings().filter_map(|offering| offering.reservation.as_ref()).filter(|one| &*one.id == id);
        let remaining = known.map(|reservation| reservation.remaining).min().unwrap_or(0);
        if count > remaining {
            violations.push(Violation::Reservation { id: id.to_owned(), drawn: count, remaining });
        }
    }
}
