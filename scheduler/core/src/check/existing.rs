//! Pods on nodes that exist, and on claims that are on their way.

use super::Violation;
use super::fits::{Misfit, labels_allow, lacking};
use super::ledger::Ledger;
use crate::model::{Plan, PodOwner, ResourceList, untolerated};

pub(super) fn check_existing(ledger: &Ledger, plan: &Plan, violations: &mut Vec<Violation>) {
    for assignment in &plan.existing {
        let name = &*assignment.name;
        let standing = ledger.fleet.standing(name, &ledger.market).filter(|standing| standing.is_open);
        let Some(standing) = standing else {
            violations.push(Violation::UnknownNode(name.to_owned()));
            continue;
        };
        let mut need = ResourceList::default();
        let mut daemons = ResourceList::default();
        for pod in ledger.on(name) {
            need += &pod.spec.requests;
            if pod.owner == PodOwner::DaemonSet {
                daemons += &pod.spec.requests;
            }
        }
        let sets = ledger.market.daemon_sets.iter().zip(&ledger.daemon_needs);
        let expected: ResourceList = sets
            .filter(|(set, _)| untolerated(&standing.taints, &set.spec.tolerations).is_none())
            .filter(|(_, needs)| {
                let allows =
                    |needs: &super::fits::Needs| needs.test(|terms| terms.check_labels(&standing.labels));
                needs.as_ref().is_some_and(|needs| allows(needs).is_ok())
            })
            .map(|(set, _)| &set.spec.requests)
            .sum();
        need += &(expected - &daemons);
        let mut added = ResourceList::default();
        for pod in assignment.pods.iter().filter_map(|id| ledger.waiting(id)) {
            added += &pod.spec.requests;
            let tainted = untolerated(&standing.taints, &pod.spec.tolerations);
            let misfit = match (pod.spec.rejections.first(), tainted) {
                (Some(rejection), _) => Err(Misfit::Rejected(rejection.detail.clone())),
                (_, Some(taint)) => Err(Misfit::Taint(taint.clone())),
                _ => labels_allow(&pod.spec, |needs| needs.check_labels(&standing.labels)),
            };
            if let Err(misfit) = misfit {
                violations.push(Violation::PodOnNode { node: name.to_owned(), pod: pod.id.clone(), misfit });
            }
        }
        // What is over-committed already is not the plan's doing, as long as it adds nothing to it.
        if let Some(resource) = lacking(&added, &(standing.allocatable.into_owned() - &need)) {
            violations.push(Violation::TooMuch {
                machine: name.to_owned(),
                instance_type: name.to_owned(),
                resource,
            });
        }
    }
}
