//! Planned claims: whether every option of each, in every offering its words allow, holds its pods.
//!
//! A plan of thousands of claims with dozens of options each is checked before every purchase, so nothing is built per
//! option: a machine's labels are looked up as the intersection of what type, pool and claim say, one key at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use assay_shared::labels::{azure, karpenter, kubernetes};
use assay_shared::units::UsdPerHour;

use super::fits::{Needs, lacking};
use super::ledger::Ledger;
use super::{Misfit, Violation};
use crate::catalog::{InstanceType, Offering};
use crate::model::{
    DaemonSet, Market, NodePool, Plan, PlannedClaim, PodId, PodSpec, ResourceList, untolerated,
};
use crate::requirement::{Incompatible, Requirements, ValueSet};

/// Checks every claim of a plan.
pub(super) fn check_claims(ledger: &Ledger, plan: &Plan, violations: &mut Vec<Violation>) {
    for claim in &plan.claims {
        match ledger.pool(&claim.pool) {
            Some(pool) => check_claim(&pool, ledger, claim, violations),
            None => violations.push(wrong(claim, format!("no pool {}", claim.pool))),
        }
    }
}

fn wrong(claim: &PlannedClaim, detail: String) -> Violation {
    Violation::Claim { claim: claim.name.clone(), detail }
}

/// What is the same for all claims of a pool, found once.
#[derive(Debug)]
pub(super) struct PoolFacts {
    /// Positions of its types, by name.
    types: BTreeMap<Arc<str>, usize>,
    /// Positions of DaemonSets that tolerate its taints.
    daemon_sets: Vec<usize>,
}

impl PoolFacts {
    pub(super) fn of(market: &Market, pool: &NodePool) -> Self {
        let types = market.instance_types_of(pool).iter().enumerate();
        let daemon_sets = market.daemon_sets.iter().enumerate();
        let tolerating =
            daemon_sets.filter(|(_, set)| untolerated(&pool.taints, &set.spec.tolerations).is_none());
        Self {
            types: types.map(|(at, one)| (Arc::clone(&one.name), at)).collect(),
            daemon_sets: tolerating.map(|(at, _)| at).collect(),
        }
    }
}

/// A pool with what is known of it.
pub(super) struct Pool<'l> {
    pub(super) pool: &'l NodePool,
    types: &'l [InstanceType],
    facts: &'l PoolFacts,
    /// DaemonSets that tolerate its taints, and where they run.
    daemon_sets: Vec<(&'l DaemonSet, &'l Needs)>,
}

impl Ledger {
    /// A pool by name.
    pub(super) fn pool(&self, name: &str) -> Option<Pool<'_>> {
        let pool = self.market.pool(name)?;
        let facts = self.pools.get(name)?;
        let daemon_sets = facts.daemon_sets.iter();
        let daemon_sets = daemon_sets.filter_map(|at| {
            Some((self.market.daemon_sets.get(*at)?, self.daemon_needs.get(*at)?.as_ref()?))
        });
        Some(Pool {
            pool,
            types: self.market.instance_types_of(pool),
            facts,
            daemon_sets: daemon_sets.collect(),
        })
    }
}

impl<'l> Pool<'l> {
    /// A type that it can buy, by name.
    pub(super) fn instance_type(&self, name: &str) -> Option<&'l InstanceType> {
        self.types.get(*self.facts.types.get(name)?)
    }

    /// The types that a claim lists, each once.
    pub(super) fn listed(&self, claim: &PlannedClaim) -> Vec<&'l InstanceType> {
        let names: BTreeSet<&str> = claim.options.iter().map(|option| &*option.name).collect();
        names.into_iter().filter_map(|name| self.instance_type(name)).collect()
    }
}

/// What is the same for all options of a claim.
struct ClaimFacts<'c> {
    /// What pool and claim say of the machine, and what the pool alone says.
    stated: Requirements,
    by_pool: Requirements,
    /// One pod of each spec, and what it needs.
    specs: Vec<(&'c PodId, &'c Arc<PodSpec>, Result<Needs, Misfit>)>,
    /// What the pods take together.
    requests: ResourceList,
}

impl<'c> ClaimFacts<'c> {
    fn of(pool: &NodePool, ledger: &'c Ledger, claim: &PlannedClaim) -> Result<Self, String> {
        let by_pool = Requirements::from_list(&pool.requirements).map_err(|error| error.to_string())?;
        let mut by_pool = by_pool.intersect(&Requirements::from_labels(&pool.labels));
        by_pool.constrain(karpenter::NODEPOOL, &ValueSet::of([pool.name.as_str()]));
        by_pool.constrain(azure::AKS_NODE_CLASS, &ValueSet::of([pool.node_class.as_str()]));
        let stated = by_pool.intersect(&claim.requirements);
        let mut specs: Vec<(&PodId, &Arc<PodSpec>, _)> = Vec::new();
        let mut requests = ResourceList::default();
        for pod in claim.pods.iter().filter_map(|id| ledger.waiting(id)) {
            requests += &pod.spec.requests;
            if !specs.iter().any(|(_, spec, _)| Arc::ptr_eq(spec, &pod.spec)) {
                specs.push((&pod.id, &pod.spec, Needs::of(&pod.spec)));
            }
        }
        Ok(Self { stated, by_pool, specs, requests })
    }
}

fn check_claim(pool: &Pool<'_>, ledger: &Ledger, claim: &PlannedClaim, violations: &mut Vec<Violation>) {
    if claim.pods.is_empty() {
        violations.push(wrong(claim, "no pod needs it".to_owned()));
    }
    let Some(first) = claim.options.first() else {
        violations.push(wrong(claim, "no option".to_owned()));
        return;
    };
    if first.price != claim.price || claim.options.iter().all(|option| option.name != claim.instance_type) {
        violations.push(wrong(claim, "the choice is not its cheapest option".to_owned()));
    }
    if !claim.options.is_sorted_by_key(|option| option.price) {
        violations.push(wrong(claim, "options are not sorted by price".to_owned()));
    }
    let facts = match ClaimFacts::of(pool.pool, ledger, claim) {
        Ok(facts) => facts,
        Err(detail) => return violations.push(wrong(claim, detail)),
    };
    for (pod, spec, needs) in &facts.specs {
        if let Some(misfit) = never_fits(pool.pool, spec, needs) {
            let instance_type = claim.instance_type.to_string();
            let (claim, pod) = (claim.name.clone(), (*pod).clone());
            violations.push(Violation::PodOnClaim { claim, pod, instance_type, misfit });
        }
    }
    for option in &claim.options {
        match pool.instance_type(&option.name) {
            Some(instance_type) => {
                check_option(pool, &facts, claim, instance_type, option.price, violations);
            }
            None => violations.push(wrong(claim, format!("no instance type {}", option.name))),
        }
    }
}

/// Why a pod fits no machine of the pool, whatever its labels.
fn never_fits(pool: &NodePool, spec: &PodSpec, needs: &Result<Needs, Misfit>) -> Option<Misfit> {
    if let Some(rejection) = spec.rejections.first() {
        return Some(Misfit::Rejected(rejection.detail.clone()));
    }
    if let Some(taint) = untolerated(&pool.taints, &spec.tolerations) {
        return Some(Misfit::Taint(taint.clone()));
    }
    needs.as_ref().err().cloned()
}

/// Whether one option of a claim, in every offering the claim allows, holds the pods.
fn check_option(
    pool: &Pool<'_>,
    facts: &ClaimFacts<'_>,
    claim: &PlannedClaim,
    instance_type: &InstanceType,
    price: UsdPerHour,
    violations: &mut Vec<Violation>,
) {
    let is_choice = |offering: &Offering| {
        instance_type.name == claim.instance_type
            && offering.zone == claim.zone
            && offering.capacity_type == claim.capacity_type
    };
    let mut cheapest = None;
    let mut choice = false;
    for offering in instance_type.offerings.iter().filter(|offering| offering.available) {
        let machine = Machine { instance_type, offering, stated: &facts.stated };
        if !machine.is_possible() {
            continue;
        }
        // An offering that some pod's DaemonSets or labels exclude may not be launched either: the claim's words allow it.
        let misfit = facts.specs.iter().find_map(|(pod, _, needs)| {
            let misfit = needs.as_ref().ok()?.test(|list| machine.guarantees(list)).err()?;
            Some((*pod, misfit))
        });
        if let Some((pod, misfit)) = misfit {
            violations.push(Violation::PodOnClaim {
                claim: claim.name.clone(),
                pod: pod.clone(),
                instance_type: instance_type.name.to_string(),
                misfit,
            });
        }
        let with_daemons = |machine: &Machine<'_>| {
            let mut need = facts.requests.clone();
            for (set, needs) in &pool.daemon_sets {
                if needs.test(|list| machine.could_have(list)).is_ok() {
                    need += &set.spec.requests;
                }
            }
            need
        };
        let need = with_daemons(&machine);
        let allocatable = instance_type.allocatable_with(offering.overrides.as_deref());
        if let Some(resource) = lacking(&need, &allocatable) {
            violations.push(Violation::TooMuch {
                machine: claim.name.clone(),
                instance_type: instance_type.name.to_string(),
                resource,
            });
        }
        if is_choice(offering) {
            choice = true;
            // DaemonSets are counted by what the pool lets them be, whatever label its pods chose besides.
            if claim.requests != with_daemons(&Machine { stated: &facts.by_pool, ..machine }) {
                violations
                    .push(wrong(claim, "requests are not the sum of its pods and DaemonSets".to_owned()));
            }
            if offering.price != claim.price {
                let detail = format!("price {} is not the offering's {}", claim.price, offering.price);
                violations.push(wrong(claim, detail));
            }
        }
        cheapest = cheapest.into_iter().chain([offering.price]).min();
    }
    if cheapest != Some(price) {
        violations.push(wrong(claim, format!("{} does not cost {price}", instance_type.name)));
    }
    if instance_type.name == claim.instance_type && !choice {
        violations.push(wrong(claim, "its offering cannot be had".to_owned()));
    }
}

/// The machine that launching one offering for a claim gives.
struct Machine<'m> {
    instance_type: &'m InstanceType,
    offering: &'m Offering,
    stated: &'m Requirements,
}

/// What a machine may have as the value of one label.
enum Label<'m> {
    /// Nobody says.
    Unsaid,
    /// This value.
    Is(&'m str),
    /// One of these, as one side says it.
    OneOf(&'m ValueSet),
    /// What both sides allow.
    Both(ValueSet),
}

impl<'m> Machine<'m> {
    /// The one value that the offering, or the life of a node, settles.
    fn settled(&self, key: &str) -> Option<&'m str> {
        match key {
            kubernetes::INSTANCE_TYPE => Some(&*self.instance_type.name),
            kubernetes::ZONE => Some(&*self.offering.zone),
            karpenter::CAPACITY_TYPE => Some(self.offering.capacity_type.as_str()),
            // A running node has them, whatever its claim said.
            karpenter::REGISTERED | karpenter::INITIALIZED => Some("true"),
            _ => None,
        }
    }

    fn label(&self, key: &str) -> Label<'m> {
        if let Some(value) = self.settled(key) {
            return Label::Is(value);
        }
        match (self.instance_type.requirements.get(key), self.stated.get(key)) {
            (None, None) => Label::Unsaid,
            (Some(set), None) | (None, Some(set)) => Label::OneOf(set),
            (Some(one), Some(other)) => Label::Both(one.intersect(other)),
        }
    }

    /// Whether type, pool and claim agree on it.
    fn is_possible(&self) -> bool {
        let own = &self.instance_type.requirements;
        self.stated.iter().all(|(key, stated)| match self.settled(key) {
            Some(value) => stated.allows(value) && own.get(key).is_none_or(|set| set.allows(value)),
            None => own.get(key).map_or_else(|| !stated.is_empty(), |set| set.intersects(stated)),
        })
    }

    /// Whether every machine that may come satisfies `needs`: nothing is left to luck.
    fn guarantees(&self, needs: &Requirements) -> Result<(), Box<Incompatible>> {
        let certain =
            |set: &ValueSet, offered: &ValueSet| !offered.is_empty() && offered.intersect(set) == *offered;
        self.hold(needs, |_, set, label| match label {
            Label::Unsaid => set.allows_absence(),
            Label::Is(value) => set.allows(value),
            Label::OneOf(offered) => certain(set, offered),
            Label::Both(offered) => certain(set, offered),
        })
    }

    /// Whether some machine that may come satisfies `needs`.
    fn could_have(&self, needs: &Requirements) -> Result<(), Box<Incompatible>> {
        self.hold(needs, |key, set, label| match label {
            Label::Unsaid => {
                set.allows_absence() || crate::requirement::is_well_known(key) && !set.is_empty()
            }
            Label::Is(value) => set.allows(value),
            Label::OneOf(offered) => set.intersects(offered),
            Label::Both(offered) => set.intersects(offered),
        })
    }

    fn hold(
        &self,
        needs: &Requirements,
        holds: impl Fn(&str, &ValueSet, &Label<'_>) -> bool,
    ) -> Result<(), Box<Incompatible>> {
        for (key, set) in needs.iter() {
            let label = self.label(key);
            if !holds(key, set, &label) {
                let found = match label {
                    Label::Unsaid => None,
                    Label::Is(value) => Some(ValueSet::of([value])),
                    Label::OneOf(set) => Some(set.clone()),
                    Label::Both(set) => Some(set),
                };
                return Err(Box::new(Incompatible { key: key.to_owned(), needed: set.clone(), found }));
            }
        }
        Ok(())
    }
}
