//! DaemonSets: what one pod of each takes on every node it selects.

use std::sync::Arc;

use assay_core::model::DaemonSet;

use super::constraints::Subject;
use super::context::Context;
use super::document::Document;
use super::error::ManifestError;
use super::objects::{Meta, PodTemplate, Workload};
use super::pod;

/// A DaemonSet, and what is told of it.
pub(crate) fn read(
    document: &Document,
    meta: &Meta,
    context: &Context,
    warnings: &mut Vec<ManifestError>,
) -> Result<DaemonSet, ManifestError> {
    let template = document.typed::<Workload>()?.spec.template;
    let template: PodTemplate = document.typed_at("spec.template", &template)?;
    template.metadata.check(document, "spec.template.metadata")?;
    let namespace = meta.pod_id().namespace;
    let labels = &template.metadata.labels;
    let subject = Subject { document, context, namespace: &namespace, labels };
    let spec = pod::spec(subject, "spec.template.spec", &template.spec)?;
    // Room is kept all the same: the class is most likely there where the input comes from.
    let runtime = context.check_runtime(document, "spec.template.spec", &template.spec);
    warnings.extend(runtime.err());
    Ok(DaemonSet { id: meta.pod_id(), spec: Arc::new(spec) })
}
