//! Amounts: what containers ask for, what a pod takes by that, what machines have.
//!
//! What a pod takes follows Kubernetes' resource helpers: the larger of its running containers together and its init
//! containers one by one, with restartable init containers (KEP-753) running on, plus overhead; a pod-level request (KEP-2837)
//! stands for the containers'; a limit stands for a missing request.

use assay_core::model::ResourceList;

use super::document::Document;
use super::error::ManifestError;
use super::objects::{self, PodObject, Quantities, Resources};

/// Amounts by resource name, in the core's units. `pods` is left to the caller.
pub(super) fn read(
    document: &Document,
    path: &str,
    list: &Quantities,
) -> Result<ResourceList, ManifestError> {
    let mut resources = ResourceList::default();
    for (name, quantity) in list {
        let wrong = |error: assay_shared::quantity::QuantityError| {
            document.error(&format!("{path}.{name}"), error.to_string())
        };
        match name.as_str() {
            "cpu" => resources.cpu = quantity.to_milli_cpu().map_err(wrong)?,
            "memory" => resources.memory = quantity.to_bytes().map_err(wrong)?,
            "ephemeral-storage" => resources.ephemeral_storage = quantity.to_bytes().map_err(wrong)?,
            "pods" => resources.pods = quantity.to_count().map_err(wrong)?,
            other => resources.set_extended(other, quantity.to_count().map_err(wrong)?),
        }
    }
    Ok(resources)
}

/// What one container, or a pod as a whole, asks for: its requests, and its limits where a request is missing.
fn asked(document: &Document, path: &str, resources: &Resources) -> Result<ResourceList, ManifestError> {
    let missing = resources.limits.iter().filter(|(name, _)| !resources.requests.contains_key(*name));
    let limits: Quantities = missing.map(|(name, quantity)| (name.clone(), *quantity)).collect();
    let mut sum = ResourceList::default();
    for (list, listed) in [("requests", &resources.requests), ("limits", &limits)] {
        let path = format!("{path}.resources.{list}");
        for (name, quantity) in listed {
            // As the API server: half a GPU cannot be given.
            if !is_divisible(name) && quantity.milli_value() % 1000 != 0 {
                let problem = format!("expected a whole number, found {quantity}");
                return Err(document.error(&format!("{path}.{name}"), problem));
            }
        }
        sum += &read(document, &path, listed)?;
    }
    Ok(sum)
}

/// Whether a container may ask for a fraction of it.
fn is_divisible(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

/// Whether a pod may ask for it as a whole (KEP-2837).
fn is_of_pods(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

/// What a pod takes, its slot included.
pub(super) fn of_pod(
    document: &Document,
    path: &str,
    spec: &objects::PodSpec,
) -> Result<ResourceList, ManifestError> {
    let mut running = ResourceList::default();
    for (index, object) in spec.containers.iter().enumerate() {
        running += &asked(document, &format!("{path}.containers[{index}]"), &object.resources)?;
    }
    // Init containers run one after the other, beside the restartable ones that were started before them.
    let mut sidecars = ResourceList::default();
    let mut starting = ResourceList::default();
    for (index, object) in spec.init_containers.iter().enumerate() {
        let own = asked(document, &format!("{path}.initContainers[{index}]"), &object.resources)?;
        if object.restart_policy == "Always" {
            sidecars += &own;
            starting = starting.max_of_each(&sidecars);
        } else {
            starting = starting.max_of_each(&(own + &sidecars));
        }
    }
    let mut total = (running + &sidecars).max_of_each(&starting);
    let whole_pod = asked(document, path, &spec.resources)?;
    let containers = || spec.containers.iter().chain(&spec.init_containers);
    // The API server fills in a pod-level request from the containers', and from the pod-level limit only where none asks.
    let decides = |name: &str| {
        let of_container = |one: &objects::Container| {
            one.resources.requests.contains_key(name) || one.resources.limits.contains_key(name)
        };
        spec.resources.requests.contains_key(name)
            || spec.resources.limits.contains_key(name) && !containers().any(of_container)
    };
    for name in spec.resources.requests.keys().chain(spec.resources.limits.keys()) {
        if !is_of_pods(name) {
            let field = format!("{path}.resources.requests.{name}");
            return Err(document.error(&field, "expected cpu, memory or hugepages of a pod as a whole"));
        }
        match name.as_str() {
            _ if !decides(name) => {}
            "cpu" => total.cpu = whole_pod.cpu,
            "memory" => total.memory = whole_pod.memory,
            other => total.set_extended(other, whole_pod.extended(other)),
        }
    }
    total += &read(document, &format!("{path}.overhead"), &spec.overhead)?;
    total.pods = 1;
    Ok(total)
}

/// Raises requests to what the kubelet has set aside: while a pod is resized in place, the larger counts.
pub(super) fn set_aside(object: &mut PodObject) {
    let status = &object.status;
    for (containers, statuses) in [
        (&mut object.spec.containers, &status.container_statuses),
        (&mut object.spec.init_containers, &status.init_container_statuses),
    ] {
        for container in containers {
            let Some(status) = statuses.iter().find(|status| status.name == container.name) else { continue };
            for list in [&status.allocated_resources, &status.resources.requests] {
                for (name, amount) in list {
                    // A limit stands for a missing request here too.
                    let Resources { requests, limits } = &mut container.resources;
                    let limit = limits.get(name).copied().unwrap_or(*amount);
                    let asked = requests.entry(name.clone()).or_insert(limit);
                    if asked.milli_value() < amount.milli_value() {
                        *asked = *amount;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use assay_shared::units::{Bytes, MilliCpu};
    use serde_json::{Value, json};

    use super::super::pod::pod_spec_from_value;
    use super::*;

    fn taken(spec: Value) -> Result<ResourceList, String> {
        pod_spec_from_value("pods.yaml", "p", spec)
            .map(|spec| spec.requests)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_pod_takes_what_kubernetes_says_it_takes() {
        let c = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}}});
        let sidecar = |cpu: &str| json!({"restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let cases = [
            (json!({"containers": [c("1"), c("500m")]}), 1500, "containers add up"),
            (
                json!({"containers": [c("1")], "initContainers": [c("2")]}),
                2000,
                "the larger of init and main",
            ),
            (json!({"containers": [c("1")], "initContainers": [sidecar("1")]}), 2000, "a sidecar runs on"),
            (
                json!({"containers": [c("1")], "initContainers": [sidecar("1"), c("3"), sidecar("2")]}),
                4000,
                "an init container runs beside the sidecars before it",
            ),
            (json!({"containers": [c("1")], "overhead": {"cpu": "250m"}}), 1250, "overhead is added"),
            (
                json!({"containers": [{"resources": {"limits": {"cpu": "2"}}}]}),
                2000,
                "a limit stands for a request",
            ),
            (
                json!({"containers": [c("1"), c("1")], "resources": {"requests": {"cpu": "3"}}}),
                3000,
                "a pod-level request stands for the containers'",
            ),
            (
                json!({"containers": [c("1"), c("1")], "resources": {"limits": {"cpu": "8"}}}),
                2000,
                "a pod-level limit stands for a request only where no container asks",
            ),
            (
                json!({"containers": [{}], "resources": {"limits": {"cpu": "8"}}}),
                8000,
                "a pod-level limit stands for a request where no container asks",
            ),
            (
                json!({"containers": [c("4")], "resources": {"requests": {"cpu": "3"}}}),
                3000,
                "a pod-level request counts even where it is smaller",
            ),
            (json!({}), 0, "nothing asked, nothing taken"),
        ];
        for (spec, milli, what) in cases {
            let taken = taken(spec).unwrap();
            assert_eq!((taken.cpu, taken.pods), (MilliCpu(milli), 1), "{what}");
        }
    }

    #[test]
    fn other_resources_are_kept_and_zeros_dropped() {
        let requests = json!({"nvidia.com/gpu": 2, "memory": "1Gi", "example.com/thing": "0"});
        let taken = taken(json!({"containers": [{"resources": {"requests": requests}}]})).unwrap();
        assert_eq!(taken.memory, Bytes::gib(1));
        assert_eq!(taken.extended.into_iter().collect::<Vec<_>>(), [("nvidia.com/gpu".to_owned(), 2)]);
    }
}
