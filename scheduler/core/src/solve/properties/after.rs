//! Plans carried out, and plans with more in them.

use std::sync::Arc;

use assay_shared::labels::{karpenter, kubernetes};

use crate::catalog::InstanceType;
use crate::check::check;
use crate::lifecycle::{claim_of, labels_of};
use crate::model::{
    ClaimState, ExistingAssignment, InstanceTypeOption, Labels, NodeClaim, Plan, PlannedClaim, PodId,
    PodPhase, PodSpec, ResourceList, Snapshot, Timestamp,
};
use crate::requirement::ValueSet;

/// The cluster once a plan is carried out: machines on their way, pods bound to them.
///
/// A label that a claim leaves open gets one of its values, number `pick`.
pub(super) fn after(input: &Snapshot, plan: &Plan, pick: usize) -> Snapshot {
    let mut after = input.clone();
    let mut bind = |pod: &PodId, to: &str| {
        let pod = after.pods.iter_mut().find(|one| one.id == *pod).unwrap();
        pod.node = Some(to.into());
        pod.phase = PodPhase::Running;
    };
    for assignment in &plan.existing {
        assignment.pods.iter().for_each(|pod| bind(pod, &assignment.name));
    }
    for planned in &plan.claims {
        planned.pods.iter().for_each(|pod| bind(pod, &planned.name));
    }
    for id in plan.claims.iter().filter_map(|claim| claim.reservation.as_ref()) {
        for types in after.instance_types.values_mut() {
            let offerings = Arc::make_mut(types).iter_mut().flat_map(|one| &mut one.offerings);
            for reservation in
                offerings.filter_map(|one| one.reservation.as_mut()).filter(|one| one.id == *id)
            {
                reservation.remaining -= 1;
            }
        }
    }
    for planned in &plan.claims {
        let pool = input.pools.iter().find(|pool| pool.name == planned.pool).unwrap();
        let types = input.instance_types_of(pool);
        let bought = types.iter().find(|one| one.name == planned.instance_type).unwrap();
        let mut labels = labels_of(pool, bought, &planned.zone, planned.capacity_type);
        labels.insert(kubernetes::HOSTNAME.to_owned(), planned.name.clone());
        for (key, set) in planned.requirements.iter() {
            if let Some(value) = picked(set, pick) {
                labels.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        let claim = claim_of(planned, pool, None, bought, Timestamp(0));
        let (annotations, startup_taints) = (Labels::new(), Vec::new());
        let state = ClaimState::Launched;
        after.node_claims.push(NodeClaim { labels, annotations, startup_taints, state, ..claim });
    }
    after
}

/// How far the words of a claim are narrowed to the machine that was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Narrowed {
    Nothing,
    Offering,
    Type,
}

fn picked(set: &ValueSet, pick: usize) -> Option<&str> {
    let values = set.finite()?;
    values.iter().nth(pick % values.len().max(1)).map(String::as_str)
}

/// Whether what was decided on the cluster [`after`] a plan could have been part of that plan.
pub(super) fn could_be_in(input: &Snapshot, plan: &Plan, more: &Plan, pick: usize) -> bool {
    [Narrowed::Nothing, Narrowed::Offering, Narrowed::Type]
        .into_iter()
        .filter_map(|narrowed| with(input, plan, more, narrowed, pick))
        .any(|both| check(input, &both).is_ok())
}

/// Both plans as one; `None` where no option of a claim holds what is added to it.
fn with(input: &Snapshot, plan: &Plan, more: &Plan, narrowed: Narrowed, pick: usize) -> Option<Plan> {
    let mut both = plan.clone();
    let placed = more.claims.iter().flat_map(|claim| &claim.pods);
    let placed = placed.chain(more.existing.iter().flat_map(|one| &one.pods));
    let placed: Vec<&PodId> = placed.collect();
    both.unschedulable.retain(|left| !placed.contains(&&left.pod));
    for added in &more.existing {
        if let Some(claim) = both.claims.iter_mut().find(|claim| *claim.name == *added.name) {
            add_to(input, claim, &added.pods, narrowed, pick)?;
        } else if let Some(one) = both.existing.iter_mut().find(|one| one.name == added.name) {
            one.pods.extend(added.pods.iter().cloned());
        } else {
            both.existing
                .push(ExistingAssignment { name: Arc::clone(&added.name), pods: added.pods.clone() });
        }
    }
    for (number, claim) in more.claims.iter().enumerate() {
        both.claims.push(PlannedClaim { name: format!("more-{number}"), ..claim.clone() });
    }
    both.totals.pods += placed.len();
    both.totals.nodes = both.claims.len();
    both.totals.price = both.claims.iter().map(|claim| claim.price).sum();
    Some(both)
}

fn add_to(
    input: &Snapshot,
    claim: &mut PlannedClaim,
    pods: &[PodId],
    narrowed: Narrowed,
    pick: usize,
) -> Option<()> {
    let added = input.pods.iter().filter(|pod| pods.contains(&pod.id)).map(|pod| &pod.spec.requests);
    claim.requests += &added.sum::<ResourceList>();
    claim.pods.extend(pods.iter().cloned());
    let pool = input.pools.iter().find(|pool| pool.name == claim.pool).unwrap();
    let types = input.instance_types_of(pool);
    if narrowed != Narrowed::Nothing {
        for (key, set) in claim.requirements.clone().iter() {
            if let Some(value) = picked(set, pick) {
                claim.requirements.constrain(key, &ValueSet::of([value]));
            }
        }
        claim.requirements.remove(kubernetes::ZONE);
        claim.requirements.remove(karpenter::CAPACITY_TYPE);
        claim.requirements.constrain(kubernetes::ZONE, &ValueSet::of([&*claim.zone]));
        claim.requirements.constrain(karpenter::CAPACITY_TYPE, &ValueSet::of([claim.capacity_type.as_str()]));
    }
    let allowed = |key: &str, value: &str| claim.requirements.get(key).is_none_or(|set| set.allows(value));
    let price = |one: &InstanceType| {
        let offered = one.offerings.iter().filter(|offering| {
            offering.available
                && offering.reservation.as_ref().map(|one| &one.id) == claim.reservation.as_ref()
                && allowed(kubernetes::ZONE, &offering.zone)
                && allowed(karpenter::CAPACITY_TYPE, offering.capacity_type.as_str())
        });
        offered.map(|offering| offering.price).min()
    };
    let holds = |option: &InstanceTypeOption| {
        let chosen = option.name == claim.instance_type;
        let one = types.iter().find(|one| one.name == option.name)?;
        let wanted =
            if narrowed == Narrowed::Type { chosen } else { claim.requests.fits(&one.allocatable()) };
        let price = price(one).filter(|_| wanted)?;
        Some(InstanceTypeOption { name: Arc::clone(&option.name), price })
    };
    let mut options: Vec<InstanceTypeOption> = claim.options.iter().filter_map(holds).collect();
    options.sort_by_key(|option| option.price);
    claim.requirements.remove(kubernetes::INSTANCE_TYPE);
    claim
        .requirements
        .constrain(kubernetes::INSTANCE_TYPE, &ValueSet::of(options.iter().map(|option| &*option.name)));
    claim.options = options;
    (!claim.options.is_empty()).then_some(())
}

/// A cluster and its plan in few lines, for who has to find out what went wrong.
pub(super) fn summary(input: &Snapshot, plan: &Plan) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for pool in &input.pools {
        let asks = pool.requirements.iter().map(|one| match one.min_values {
            Some(least) => format!("{one}, at least {least}"),
            None => one.to_string(),
        });
        let asks: Vec<String> = asks.collect();
        let (name, limit) = (&pool.name, &pool.limits);
        let _ = writeln!(text, "{name} weight {} {limit:?} {asks:?} {:?}", pool.weight, pool.taints);
    }
    for one in input.instance_types.values().flat_map(|types| types.iter()) {
        let offered = one.offerings.iter().map(|o| format!("{} {} {}", o.zone, o.capacity_type, o.price));
        let offered: Vec<String> = offered.collect();
        let _ = writeln!(text, "{} {:?} {offered:?}", one.name, one.capacity);
    }
    for node in &input.nodes {
        let _ = writeln!(text, "{} {:?} {:?}", node.name, node.allocatable, node.labels);
    }
    for set in &input.daemon_sets {
        let _ = writeln!(text, "{} {:?}", set.id, set.spec);
    }
    let mut seen: Vec<&PodSpec> = Vec::new();
    for pod in &input.pods {
        if !seen.contains(&&*pod.spec) {
            seen.push(&pod.spec);
            let count = input.pods.iter().filter(|other| other.spec == pod.spec).count();
            let (id, app, at, volumes) = (&pod.id, &pod.labels, &pod.node, pod.volumes.len());
            let _ = writeln!(
                text,
                "{count} x {id} {app:?} priority {} on {at:?} with {volumes} volumes {:?}",
                pod.priority, pod.spec
            );
        }
    }
    let names = |pods: &[PodId]| pods.iter().map(|id| id.name.to_string()).collect::<Vec<_>>();
    for claim in &plan.claims {
        let (name, size, zone) = (&claim.name, &claim.instance_type, &claim.zone);
        let options: Vec<&str> = claim.options.iter().map(|option| &*option.name).collect();
        let (sold, pods) = (claim.capacity_type, names(&claim.pods));
        let _ = writeln!(
            text,
            "-> {name} {size} {zone} {sold} {pods:?} of {options:?} {:?}",
            claim.min_values_relaxed
        );
    }
    for one in &plan.existing {
        let _ = writeln!(text, "-> {} {:?}", one.name, names(&one.pods));
    }
    for left in &plan.unschedulable {
        let why: Vec<&str> = left.reasons.iter().map(|reason| reason.detail.as_str()).collect();
        let _ = writeln!(text, "left out {} {why:?}", left.pod.name);
    }
    text
}
