//! Gangs: pods of a `PodGroup` of scheduler-plugins, or of an indexed Job that asks for it.

use std::sync::Arc;

use assay_core::model::{Gang, GangScope, Labels};
use assay_shared::labels::kubernetes;
use serde::Deserialize;

use super::context::Context;
use super::document::Document;
use super::error::ManifestError;
use super::objects::Meta;

/// Labels that name the group of a pod, the present one first.
const GROUP_LABELS: [&str; 2] = ["scheduling.x-k8s.io/pod-group", "pod-group.scheduling.sigs.k8s.io"];

/// Annotation of an indexed Job whose pods are a gang.
pub(super) const GANG: &str = "assay.dev/gang";

/// Annotation of a pod or group that must stay in one domain of this node label; zones are understood.
const GANG_TOPOLOGY: &str = "assay.dev/gang-topology";

/// A `PodGroup`.
#[derive(Debug, Clone)]
pub(super) struct PodGroup {
    min_member: Option<u32>,
    scope: GangScope,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodGroupObject {
    spec: PodGroupSpec,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodGroupSpec {
    min_member: Option<i64>,
}

impl PodGroup {
    pub(super) fn read(document: &Document) -> Result<Self, ManifestError> {
        let PodGroupObject { spec } = document.typed()?;
        let min_member = match spec.min_member {
            None => None,
            Some(count) => Some(u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| {
                let problem = format!("expected a whole number of 1 or more, found {count}");
                document.error("spec.minMember", problem)
            })?),
        };
        let meta = Meta::read(document)?;
        Ok(Self { min_member, scope: scope(document, &meta.annotations)? })
    }
}

fn scope(document: &Document, annotations: &Labels) -> Result<GangScope, ManifestError> {
    match annotations.get(GANG_TOPOLOGY).map(String::as_str) {
        None => Ok(GangScope::Cluster),
        Some(kubernetes::ZONE) => Ok(GangScope::Zone),
        Some(other) => {
            let field = format!("metadata.annotations[{GANG_TOPOLOGY}]");
            Err(document.error(&field, format!("expected {}, found {other:?}", kubernetes::ZONE)))
        }
    }
}

/// The name of the group that labels say, with its namespace.
pub(super) fn group_of(namespace: &str, labels: &Labels) -> Option<String> {
    let name = GROUP_LABELS.iter().find_map(|key| labels.get(*key))?;
    (!name.is_empty()).then(|| format!("{namespace}/{name}"))
}

/// The gang of a pod with these labels and annotations.
pub(super) fn of_pod(
    document: &Document,
    context: &Context,
    namespace: &str,
    labels: &Labels,
    annotations: &Labels,
) -> Result<Option<Arc<Gang>>, ManifestError> {
    let Some(id) = group_of(namespace, labels) else { return Ok(None) };
    let group = context.pod_groups.get(&id);
    let stated = group.and_then(|group| group.min_member);
    let min_member = stated.unwrap_or_else(|| context.group_sizes.get(&id).copied().unwrap_or(1));
    let own = scope(document, annotations)?;
    let scope = if own == GangScope::Zone { own } else { group.map_or(own, |group| group.scope) };
    Ok(Some(Arc::new(Gang { id: id.into(), min_member, scope })))
}

/// The gang of a Job's pods, where it asks for one.
pub(super) fn of_job(
    document: &Document,
    meta: &Meta,
    indexed: bool,
    pods: u32,
) -> Result<Option<Arc<Gang>>, ManifestError> {
    let field = format!("metadata.annotations[{GANG}]");
    match meta.annotations.get(GANG).map(String::as_str) {
        None | Some("false") => Ok(None),
        Some("true") if indexed => Ok(Some(Arc::new(Gang {
            id: meta.pod_id().to_string().into(),
            min_member: pods,
            scope: scope(document, &meta.annotations)?,
        }))),
        Some("true") => Err(document.error(&field, "expected completionMode Indexed with it, found another")),
        Some(other) => {
            Err(document.error(&field, format!("expected \"true\" or \"false\", found {other:?}")))
        }
    }
}
