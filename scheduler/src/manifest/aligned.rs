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
