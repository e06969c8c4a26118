//! What the kubelet's topology manager aligns: exclusive CPUs of guaranteed containers, and devices.

use std::collections::BTreeMap;

use assay_core::model::AlignedRequest;

use super::objects::{Container, PodSpec};

/// What each container of a pod must get from one NUMA node under `single-numa-node`.
pub(super) fn aligned(spec: &PodSpec) -> Vec<AlignedRequest> {
    let guaranteed = spec.containers.iter().chain(&spec.init_containers).all(is_guaranteed);
    // Ordinary init containers are gone, and their CPUs free again, when the others start.
    let sidecars = spec.init_containers.iter().filter(|one| one.restart_policy == "Always");
    let containers = spec.containers.iter().chain(sidecars);
    let requests = containers.map(|one| {
        let milli = if guaranteed { amount(one, "cpu").unwrap_or(0) } else { 0 };
        let cpus = if milli % 1000 == 0 { milli / 1000 } else { 0 };
        let names = one.resources.requests.keys().chain(one.resources.limits.keys());
        let devices: BTreeMap<String, u64> = names
            .filter(|name| is_device(name))
            .filter_map(|name| Some((name.clone(), amount(one, name)? / 1000)))
            .filter(|(_, count)| *count > 0)
            .collect();
        AlignedRequest { cpus, devices }
    });
    requests.filter(|request| *request != AlignedRequest::default()).collect()
}

/// Whether limits equal requests, for CPU and memory.
fn is_guaranteed(container: &Container) -> bool {
    ["cpu", "memory"].iter().all(|name| {
        let limit = container.resources.limits.get(*name).map(|quantity| quantity.milli_value());
        let request = container.resources.requests.get(*name).map(|quantity| quantity.milli_value());
        limit.is_some() && request.is_none_or(|request| Some(request) == limit)
    })
}

/// A container's amount of a resource in thousandths, a limit standing for a request.
fn amount(container: &Container, name: &str) -> Option<u64> {
    let resources = &container.resources;
    let quantity = resources.requests.get(name).or_else(|| resources.limits.get(name))?;
    u64::try_from(quantity.milli_value()).ok()
}

/// Whether a device plugin gives it out: its name has a domain, and not Kubernetes' own.
fn is_device(name: &str) -> bool {
    name.split_once('/').is_some_and(|(domain, _)| !domain.ends_with("kubernetes.io"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// CPUs and devices of each container that gets some from one NUMA node.
    fn asked(spec: Value) -> Vec<(u64, Vec<(String, u64)>)> {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        aligned(&spec).into_iter().map(|one| (one.cpus, one.devices.into_iter().collect())).collect()
    }

    #[test]
    fn whole_cpus_of_guaranteed_pods_and_devices_of_all_come_from_one_node() {
        let of =
            |requests: Value, limits: Value| json!({"resources": {"requests": requests, "limits": limits}});
        let exclusive = of(json!({}), json!({"cpu": "4", "memory": "1Gi"}));
        let shared = of(json!({}), json!({"cpu": "1500m", "memory": "1Gi"}));
        let burstable = of(json!({"cpu": "2"}), json!({"cpu": "4", "memory": "1Gi"}));
        let gpu = of(
            json!({}),
            json!({"nvidia.com/gpu": 2, "hugepages-2Mi": "1Gi", "requests.kubernetes.io/thing": 1}),
        );
        let gpus = vec![("nvidia.com/gpu".to_owned(), 2)];
        let cases = [
            (json!({"containers": [exclusive]}), vec![(4, vec![])], "whole CPUs"),
            (json!({"containers": [shared]}), vec![], "a part of a CPU is shared"),
            (
                json!({"containers": [exclusive, burstable]}),
                vec![],
                "one that is not guaranteed makes the pod so",
            ),
            (
                json!({"containers": [gpu, burstable]}),
                vec![(0, gpus)],
                "devices of any pod, and only devices",
            ),
            (
                json!({"containers": [exclusive], "initContainers": [exclusive]}),
                vec![(4, vec![])],
                "an init container is gone when the others start",
            ),
            (
                json!({"containers": [exclusive], "initContainers": [{"restartPolicy": "Always", "resources": exclusive["resources"]}]}),
                vec![(4, vec![]), (4, vec![])],
                "a sidecar stays",
            ),
        ];
        for (spec, expected, what) in cases {
            assert_eq!(asked(spec), expected, "{what}");
        }
    }
}
