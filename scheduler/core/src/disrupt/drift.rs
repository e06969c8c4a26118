//! Whether a node is still what its pool would make now. Karpenter's reasons in Karpenter's order, then the Azure provider's.

use std::time::Duration;

use super::candidate::Candidate;
use crate::model::{Drift, Labels, Snapshot};
use crate::requirement::Requirements;

/// A type may be missing from the catalogue for so long after a launch, as in Karpenter.
const TYPE_MAY_BE_MISSING: Duration = Duration::from_secs(3600);

/// Why a node has drifted; `None` where it has not. What was found before keeps its time.
pub(super) fn drift(snapshot: &Snapshot, candidate: &Candidate<'_>) -> Option<Drift> {
    let found = reason(snapshot, candidate);
    match (&candidate.facts.drift, found) {
        (Some(known), Some(found)) => Some(Drift { reason: found.to_owned(), since: known.since }),
        (None, Some(found)) => Some(Drift { reason: found.to_owned(), since: snapshot.now }),
        // Found by somebody who knows more.
        (Some(known), None) => Some(known.clone()),
        (None, None) => None,
    }
}

fn reason(snapshot: &Snapshot, candidate: &Candidate<'_>) -> Option<&'static str> {
    let Candidate { node, claim, pool, facts, .. } = candidate;
    let differ =
        |now: Option<&String>, then: Option<&String>| now.zip(then).is_some_and(|(now, then)| now != then);
    if differ(pool.template_hash.as_ref(), claim.template_hash.as_ref()) {
        return Some("NodePoolDrifted");
    }
    let mut labels: Labels = claim.labels.clone();
    for (key, value) in &node.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let wanted = Requirements::from_list(&pool.requirements);
    if wanted.is_ok_and(|wanted| wanted.check_labels(&labels).is_err()) {
        return Some("RequirementsDrifted");
    }
    let known = snapshot.instance_types_of(pool);
    let sold = candidate.price.is_some();
    if !known.is_empty() && !sold && snapshot.now.since(claim.created) >= TYPE_MAY_BE_MISSING {
        return Some("InstanceTypeNotFound");
    }
    let class = snapshot.classes.iter().find(|class| class.name == pool.node_class);
    if differ(class.and_then(|class| class.hash.as_ref()), claim.class_hash.as_ref()) {
        return Some("NodeClassDrift");
    }
    let class = snapshot.disruption.classes.get(&pool.node_class)?;
    if let (Some(now), Some(then)) = (&class.kubernetes_version, &facts.kubernetes_version)
        && now != then
    {
        return Some("K8sVersionDrift");
    }
    let image = facts.image.as_ref()?;
    let known = class.images.iter().any(|one| one.eq_ignore_ascii_case(image));
    (!class.images.is_empty() && !known).then_some("ImageDrift")
}
