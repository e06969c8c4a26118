//! PodDisruptionBudgets (`policy/v1`), as their controller last counted them.

use assay_core::model::{DisruptionBudget, Namespaces, PodSelector};
use serde::Deserialize;

use super::constraints::LabelSelector;
use super::document::Document;
use super::error::ManifestError;
use super::objects::Meta;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    metadata: Generation,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Generation {
    generation: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    selector: Option<LabelSelector>,
    unhealthy_pod_eviction_policy: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    disruptions_allowed: u32,
    observed_generation: Option<i64>,
}

/// A budget.
pub(crate) fn read(document: &Document, meta: &Meta) -> Result<DisruptionBudget, ManifestError> {
    let Object { metadata, spec, status } = document.typed()?;
    let id = meta.pod_id();
    let labels =
        spec.selector.map(|selector| selector.requirements(document, "spec.selector")).transpose()?;
    // Like the Eviction API: what was counted before the budget changed does not count.
    let is_counted = status.observed_generation.is_none_or(|seen| seen >= metadata.generation);
    Ok(DisruptionBudget {
        selector: PodSelector { namespaces: Namespaces::only(&id.namespace), labels },
        allowed: if is_counted { status.disruptions_allowed } else { 0 },
        evicts_unhealthy: spec.unhealthy_pod_eviction_policy == "AlwaysAllow",
        id,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn budget(spec: Value, status: Value) -> DisruptionBudget {
        let metadata = json!({"name": "b", "namespace": "d", "generation": 2});
        let value =
            json!({"kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec, "status": status});
        let document = Document::of_object("PodDisruptionBudget", value);
        read(&document, &Meta::read(&document).unwrap()).unwrap()
    }

    #[test]
    fn a_budget_says_whom_it_is_about_and_how_many_may_go() {
        let selector = json!({"matchLabels": {"app": "web"}});
        let counted = json!({"disruptionsAllowed": 3, "observedGeneration": 2});
        let read =
            budget(json!({"selector": selector, "unhealthyPodEvictionPolicy": "AlwaysAllow"}), counted);
        assert_eq!((read.id.to_string().as_str(), read.allowed, read.evicts_unhealthy), ("d/b", 3, true));
        let web = [("app".to_owned(), "web".to_owned())].into();
        assert!(read.selector.matches("d", &web) && !read.selector.matches("e", &web));
        let stale =
            budget(json!({"selector": {}}), json!({"disruptionsAllowed": 3, "observedGeneration": 1}));
        assert_eq!(
            (stale.allowed, stale.selector.matches("d", &web)),
            (0, true),
            "counted for another selector"
        );
        assert!(!budget(json!({}), json!({})).selector.matches("d", &web), "no selector, no pods");
    }
}
