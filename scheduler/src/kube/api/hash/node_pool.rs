//! Hash of a pool: of its template, but for the requirements, which are compared with each node's labels.

use std::time::Duration;

use assay_core::model::Wait;

use super::{Struct, int64, map, set, unless_empty};
use crate::kube::api::node_pool::{NodeClaimTemplate, NodeClaimTemplateSpec, TemplateMeta};
use crate::kube::api::period::{NillablePeriod, Period};
use crate::kube::api::template::{NodeClassReference, Taint};

/// Hash of a pool whose template this is, for the annotation `karpenter.sh/nodepool-hash`.
#[must_use]
pub fn node_pool(template: &NodeClaimTemplate) -> String {
    let metadata = template.metadata.as_ref().filter(|metadata| **metadata != TemplateMeta::default());
    let hash = Struct::new("NodeClaimTemplate")
        .field("ObjectMeta", metadata.map(meta))
        .field("Spec", Some(spec(&template.spec)));
    hash.0.to_string()
}

fn meta(metadata: &TemplateMeta) -> u64 {
    Struct::new("ObjectMeta")
        .field("Labels", metadata.labels.as_ref().map(map))
        .field("Annotations", metadata.annotations.as_ref().map(map))
        .0
}

fn spec(spec: &NodeClaimTemplateSpec) -> u64 {
    let taints = |list: &Option<Vec<Taint>>| list.as_ref().map(|list| set(list.iter().map(taint)));
    Struct::new("NodeClaimTemplateSpec")
        .field("Taints", taints(&spec.taints))
        .field("StartupTaints", taints(&spec.startup_taints))
        .field("NodeClassRef", Some(class_reference(&spec.node_class_ref)))
        .field("TerminationGracePeriod", spec.termination_grace_period.map(period))
        .field("ExpireAfter", nillable(spec.expire_after))
        .0
}

/// A taint, but for when it was added, which a template has no use for.
fn taint(taint: &Taint) -> u64 {
    Struct::new("Taint")
        .field("Key", unless_empty(&taint.key))
        .field("Value", unless_empty(&taint.value))
        .field("Effect", unless_empty(taint.effect.as_str()))
        .0
}

fn class_reference(class: &NodeClassReference) -> u64 {
    Struct::new("NodeClassReference")
        .field("Kind", unless_empty(&class.kind))
        .field("Name", unless_empty(&class.name))
        .field("Group", unless_empty(&class.group))
        .0
}

fn nanoseconds(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

/// A length of time: a struct around a number that is left out where it is zero.
pub(super) fn period(period: Period) -> u64 {
    let time = nanoseconds(period.0);
    Struct::new("Duration").field("Duration", (time != 0).then(|| int64(time))).0
}

/// A length of time that may be for ever, which is left out. Zero is not: the number is behind a pointer there.
pub(super) fn nillable(period: NillablePeriod) -> Option<u64> {
    match period.0 {
        Wait::After(time) => {
            Some(Struct::new("NillableDuration").field("Duration", Some(int64(nanoseconds(time)))).0)
        }
        Wait::Never => None,
    }
}
