//! Machines and the pods on them: planned claims with all their options, and nodes and claims that exist.

use std::collections::BTreeMap;

use assay_shared::labels::{azure, karpenter, kubernetes};

use super::fits::{labels_allow, lacking};
use super::{Misfit, Violation};
use crate::catalog::{InstanceType, Offering};
use crate::model::{
    ClaimState, Labels, NodePool, Plan, PlannedClaim, Pod, PodId, PodOwner, PodSpec, ResourceList, Snapshot,
    untolerated,
};
use crate::requirement::{Incompatible, Requirements, ValueSet};

type Pods<'s> = BTreeMap<&'s PodId, &'s Pod>;

pub(super) fn check_claims(
    snapshot: &Snapshot,
    pods: &Pods<'_>,
    plan: &Plan,
    violations: &mut Vec<Violation>,
) {
    for claim in &plan.claims {
        let wrong = |detail: String| Violation::Claim { claim: claim.name.clone(), detail };
        let Some(pool) = snapshot.pools.iter().find(|pool| pool.name == claim.pool) else {
            violations.push(wrong(format!("no pool {}", claim.pool)));
            continue;
        };
        if claim.pods.is_empty() {
            violations.push(wrong("no pod needs it".to_owned()));
        }
        let Some(first) = claim.options.first() else {
            violations.push(wrong("no option".to_owned()));
            continue;
        };
        if first.price != claim.price || claim.options.iter().all(|option| option.name != claim.instance_type)
        {
            violations.push(wrong("the choice is not its cheapest option".to_owned()));
        }
        if !claim.options.is_sorted_by_key(|option| option.price) {
            violations.push(wrong("options are not sorted by price".to_owned()));
        }
        for option in &claim.options {
            let types = snapshot.instance_types_of(pool);
            match types.iter().find(|one| one.name == option.name) {
                Some(instance_type) => {
                    check_option(snapshot, pods, pool, claim, instance_type, option.price, violations);
                }
                None => violations.push(wrong(format!("no instance type {}", option.name))),
            }
        }
    }
}

/// Whether one option of a claim, in every offering the claim allows, holds the pods.
fn check_option(
    snapshot: &Snapshot,
    pods: &Pods<'_>,
    pool: &NodePool,
    claim: &PlannedClaim,
    instance_type: &InstanceType,
    price: assay_shared::units::UsdPerHour,
    violations: &mut Vec<Violation>,
) {
    let wrong = |detail: String| Violation::Claim { claim: claim.name.clone(), detail };
    let is_choice = |offering: &Offering| {
        instance_type.name == claim.instance_type
            && offering.zone == claim.zone
            && offering.capacity_type == claim.capacity_type
    };
    let mut cheapest = None;
    let mut choice = false;
    for offering in instance_type.offerings.iter().filter(|offering| offering.available) {
        let machine = match machine(pool, claim, instance_type, offering) {
            Ok(Some(machine)) => machine,
            Ok(None) => continue,
            Err(detail) => return violations.push(wrong(detail)),
        };
        // An offering that some pod's DaemonSets or labels exclude may not be launched either: the claim's words allow it.
        let (misfits, need) = load(snapshot, pods, pool, claim, &machine);
        if let Some((pod, misfit)) = misfits.into_iter().next() {
            violations.push(Violation::PodOnClaim {
                claim: claim.name.clone(),
                pod,
                instance_type: instance_type.name.to_string(),
                misfit,
            });
        }
        if let Some(resource) = lacking(&need, &instance_type.allocatable()) {
            violations.push(Violation::TooMuch {
                machine: claim.name.clone(),
                instance_type: instance_type.name.to_string(),
                resource,
            });
        }
        if is_choice(offering) {
            choice = true;
            if claim.requests != need {
                violations.push(wrong("requests are not the sum of its pods and DaemonSets".to_owned()));
            }
            if offering.price != claim.price {
                violations
                    .push(wrong(format!("price {} is not the offering's {}", claim.price, offering.price)));
            }
        }
        cheapest = cheapest.into_iter().chain([offering.price]).min();
    }
    if cheapest != Some(price) {
        violations.push(wrong(format!("{} does not cost {price}", instance_type.name)));
    }
    if instance_type.name == claim.instance_type && !choice {
        violations.push(wrong("its offering cannot be had".to_owned()));
    }
}

/// Labels of the machine that launching one offering for a claim gives; `None` where the claim does not allow it.
fn machine(
    pool: &NodePool,
    claim: &PlannedClaim,
    instance_type: &InstanceType,
    offering: &Offering,
) -> Result<Option<Requirements>, String> {
    let mut machine = instance_type.requirements.clone();
    machine.constrain(kubernetes::INSTANCE_TYPE, &ValueSet::of([&*instance_type.name]));
    machine.constrain(kubernetes::ZONE, &ValueSet::of([&*offering.zone]));
    machine.constrain(karpenter::CAPACITY_TYPE, &ValueSet::of([offering.capacity_type.as_str()]));
    let mut stated = Requirements::from_list(&pool.requirements).map_err(|error| error.to_string())?;
    stated = stated.intersect(&Requirements::from_labels(&pool.labels)).intersect(&claim.requirements);
    stated.constrain(karpenter::NODEPOOL, &ValueSet::of([pool.name.as_str()]));
    stated.constrain(azure::AKS_NODE_CLASS, &ValueSet::of([pool.node_class.as_str()]));
    let machine = machine.intersect(&stated);
    let possible = machine.iter().all(|(_, set)| !set.is_empty());
    Ok(possible.then(|| {
        let mut machine = machine;
        machine.constrain(karpenter::REGISTERED, &ValueSet::of(["true"]));
        machine.constrain(karpenter::INITIALIZED, &ValueSet::of(["true"]));
        machine
    }))
}

/// Pods of a claim that may not run on a machine, and what those that do take with the DaemonSets there.
fn load(
    snapshot: &Snapshot,
    pods: &Pods<'_>,
    pool: &NodePool,
    claim: &PlannedClaim,
    machine: &Requirements,
) -> (Vec<(PodId, Misfit)>, ResourceList) {
    let mut misfits = Vec::new();
    let mut need: ResourceList = snapshot
        .daemon_sets
        .iter()
        .filter(|set| untolerated(&pool.taints, &set.spec.tolerations).is_none())
        .filter(|set| labels_allow(&set.spec, |needs| needs.check_offered(machine)).is_ok())
        .map(|set| &set.spec.requests)
        .sum();
    for pod in claim.pods.iter().filter_map(|id| pods.get(id)) {
        need += &pod.spec.requests;
        if let Err(misfit) = may_run(&pod.spec, pool, machine) {
            misfits.push((pod.id.clone(), misfit));
        }
    }
    (misfits, need)
}

fn may_run(spec: &PodSpec, pool: &NodePool, machine: &Requirements) -> Result<(), Misfit> {
    if let Some(field) = spec.unsupported.first() {
        return Err(Misfit::Unsupported(field.field.clone()));
    }
    if let Some(taint) = untolerated(&pool.taints, &spec.tolerations) {
        return Err(Misfit::Taint(taint.clone()));
    }
    labels_allow(spec, |needs| guaranteed(needs, machine))
}

/// Whether every machine allowed by `machine` satisfies `needs`: nothing is left to luck.
fn guaranteed(needs: &Requirements, machine: &Requirements) -> Result<(), Box<Incompatible>> {
    for (key, set) in needs.iter() {
        let held = match machine.get(key) {
            Some(offered) => !offered.is_empty() && offered.intersect(set) == *offered,
            None => set.allows_absence(),
        };
        if !held {
            let found = machine.get(key).cloned();
            return Err(Box::new(Incompatible { key: key.to_owned(), needed: set.clone(), found }));
        }
    }
    Ok(())
}

pub(super) fn check_existing(
    snapshot: &Snapshot,
    pods: &Pods<'_>,
    plan: &Plan,
    violations: &mut Vec<Violation>,
) {
    for assignment in &plan.existing {
        let name = &*assignment.name;
        let Some((labels, taints, allocatable)) = target(snapshot, name) else {
            violations.push(Violation::UnknownNode(name.to_owned()));
            continue;
        };
        let mut need = ResourceList::default();
        let mut daemons = ResourceList::default();
        for pod in snapshot.pods.iter().filter(|pod| pod.uses_node() && pod.node.as_deref() == Some(name)) {
            need += &pod.spec.requests;
            if pod.owner == PodOwner::DaemonSet {
                daemons += &pod.spec.requests;
            }
        }
        let expected: ResourceList = snapshot
            .daemon_sets
            .iter()
            .filter(|set| untolerated(&taints, &set.spec.tolerations).is_none())
            .filter(|set| labels_allow(&set.spec, |needs| needs.check_labels(&labels)).is_ok())
            .map(|set| &set.spec.requests)
            .sum();
        need += &(expected - &daemons);
        let mut added = ResourceList::default();
        for pod in assignment.pods.iter().filter_map(|id| pods.get(id)) {
            added += &pod.spec.requests;
            let misfit = match (pod.spec.unsupported.first(), untolerated(&taints, &pod.spec.tolerations)) {
                (Some(field), _) => Err(Misfit::Unsupported(field.field.clone())),
                (_, Some(taint)) => Err(Misfit::Taint(taint.clone())),
                _ => labels_allow(&pod.spec, |needs| needs.check_labels(&labels)),
            };
            if let Err(misfit) = misfit {
                violations.push(Violation::PodOnNode { node: name.to_owned(), pod: pod.id.clone(), misfit });
            }
        }
        // What is over-committed already is not the plan's doing, as long as it adds nothing to it.
        if let Some(resource) = lacking(&added, &(allocatable - &need)) {
            violations.push(Violation::TooMuch {
                machine: name.to_owned(),
                instance_type: name.to_owned(),
                resource,
            });
        }
    }
}

/// Labels, lasting taints and room of a node or claim that takes pods.
fn target(snapshot: &Snapshot, name: &str) -> Option<(Labels, Vec<crate::model::Taint>, ResourceList)> {
    let started = |labels: &Labels| {
        let mut labels = labels.clone();
        labels.insert(karpenter::REGISTERED.to_owned(), "true".to_owned());
        labels.insert(karpenter::INITIALIZED.to_owned(), "true".to_owned());
        labels
    };
    if let Some(node) = snapshot.nodes.iter().find(|node| &*node.name == name) {
        if !node.accepts_pods() {
            return None;
        }
        let pool = node.label(karpenter::NODEPOOL);
        if pool.is_none() || node.label(karpenter::INITIALIZED) == Some("true") {
            return node.ready.then(|| (node.labels.clone(), node.taints.clone(), node.allocatable.clone()));
        }
        // A node that is starting keeps the taints of its pool; the others go, and late resources come.
        let pool = snapshot.pools.iter().find(|one| Some(one.name.as_str()) == pool);
        let lasting = |taint: &&crate::model::Taint| pool.is_some_and(|pool| pool.taints.contains(taint));
        let taints = node.taints.iter().filter(lasting).cloned().collect();
        let claim = snapshot.node_claims.iter().find(|claim| claim.node.as_ref() == Some(&node.name));
        let promised = claim.map_or_else(ResourceList::default, |claim| claim.allocatable.clone());
        let mut allocatable = node.allocatable.clone();
        for (name, amount) in &promised.extended {
            if allocatable.extended(name) == 0 {
                allocatable.set_extended(name, *amount);
            }
        }
        return Some((started(&node.labels), taints, allocatable));
    }
    let claim = snapshot.node_claims.iter().find(|claim| &*claim.name == name)?;
    let open = claim.state != ClaimState::Terminating;
    open.then(|| (started(&claim.labels), claim.taints.clone(), claim.allocatable.clone()))
}
