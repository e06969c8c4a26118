//! What a kubelet does, as far as the control plane can tell: it registers a Node and keeps it alive, starts pods that are
//! bound to it, and ends those that are deleted.

use std::collections::BTreeMap;

use assay_shared::labels::{karpenter, kubernetes};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Error};
use serde_json::{Value, json};

use super::record::{VmRecord, provider_id};

/// Where kubelets renew their leases.
const LEASES: &str = "kube-node-lease";
/// How long a lease of theirs lasts, s.
const LEASE_SECONDS: i32 = 40;
/// Field manager of what a kubelet sets.
const MANAGER: &str = "kubelet";

/// The Node of a VM as its kubelet registers it.
fn node(name: &str, vm: &VmRecord) -> Result<Node, serde_json::Error> {
    let mut labels: BTreeMap<&str, &str> =
        vm.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    labels.insert(kubernetes::HOSTNAME, name);
    labels.entry(kubernetes::OS).or_insert("linux");
    labels.entry(kubernetes::ARCH).or_insert("amd64");
    // The driver says these two.
    labels.remove(karpenter::REGISTERED);
    labels.remove(karpenter::INITIALIZED);
    let now = Timestamp::now().to_string();
    let condition = |name: &str, status: &str, reason: &str| {
        json!({"type": name, "status": status, "reason": reason, "message": "simulated",
               "lastHeartbeatTime": now, "lastTransitionTime": now})
    };
    let mut taints = json!(vm.taints);
    if let Some(taints) = taints.as_array_mut() {
        taints.retain(|taint| taint["key"] != karpenter::UNREGISTERED_TAINT);
        taints.push(json!({"key": karpenter::UNREGISTERED_TAINT, "effect": "NoExecute"}));
        for taint in taints {
            if taint["value"] == ""
                && let Some(taint) = taint.as_object_mut()
            {
                taint.remove("value");
            }
        }
    }
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": labels},
        "spec": {"providerID": provider_id(name), "taints": taints},
        "status": {
            "capacity": vm.capacity,
            "allocatable": vm.allocatable,
            "conditions": [
                condition("Ready", "True", "KubeletReady"),
                condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            ],
            "addresses": [{"type": "Hostname", "address": name}],
        },
    }))
}

/// Registers the node of a VM; one that is there already stays as it is.
pub(super) async fn register(client: &Client, name: &str, vm: &VmRecord) -> Result<(), Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    let params = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
    let object = node(name, vm).map_err(Error::SerdeError)?;
    match nodes.create(&params, &object).await {
        Err(Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        done => done.map(|_| ()),
    }
}

/// Renews the lease of a node.
pub(super) async fn renew(client: &Client, name: &str) -> Result<(), Error> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let lease = Lease {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.to_owned()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        }),
    };
    match leases.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&apply(&lease)?)).await {
        // Before the namespace was made, nobody looks at leases.
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        done => done.map(|_| ()),
    }
}

/// An object with its type, as server-side apply wants it.
fn apply(lease: &Lease) -> Result<Value, Error> {
    serde_json::to_value(lease).map_err(Error::SerdeError)
}

/// Starts a pod that is bound.
pub(super) async fn start(client: &Client, pod: &ObjectMeta) -> Result<(), Error> {
    let (Some(name), Some(namespace)) = (&pod.name, &pod.namespace) else { return Ok(()) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let now = Timestamp::now().to_string();
    let condition = |name: &str| json!({"type": name, "status": "True", "lastTransitionTime": now});
    let status = json!({"status": {
        "phase": "Running",
        "startTime": now,
        "conditions": [condition("Initialized"), condition("PodReadyToStartContainers"), condition("ContainersReady"),
                       condition("Ready")],
    }});
    match pods.patch_status(name, &PatchParams::default(), &Patch::Strategic(&status)).await {
        Err(Error::Api(refused)) if refused.code == 404 => Ok(()),
        done => done.map(|_| ()),
    }
}

/// Ends a pod whose deletion has begun.
pub(super) async fn end(client: &Client, pod: &ObjectMeta) -> Result<(), Error> {
    let (Some(name), Some(namespace)) = (&pod.name, &pod.namespace) else { return Ok(()) };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let same = kube::api::Preconditions { uid: pod.uid.clone(), ..kube::api::Preconditions::default() };
    let at_once =
        DeleteParams { grace_period_seconds: Some(0), preconditions: Some(same), ..DeleteParams::default() };
    match pods.delete(name, &at_once).await {
        Err(Error::Api(refused)) if refused.code == 404 => Ok(()),
        Err(Error::Api(refused)) if refused.code == 409 => {
            // Another pod of that name, or a passing conflict over this one.
            let there = pods.get_metadata_opt(name).await?;
            let is_it = there.is_some_and(|there| there.metadata.uid == pod.uid);
            if is_it { Err(Error::Api(refused)) } else { Ok(()) }
        }
        done => done.map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use assay_core::catalog::CapacityType;
    use assay_core::model::{Taint, TaintEffect};
    use assay_shared::units::UsdPerHour;

    use super::*;
    use crate::sim::cloud::Draw;

    #[test]
    fn a_node_registers_as_a_kubelet_would_and_does_not_call_itself_registered() {
        let taint = Taint { key: "a".to_owned(), value: String::new(), effect: TaintEffect::NoSchedule };
        let vm = VmRecord {
            instance_type: "Standard_D2s_v5".into(),
            zone: "eastus-1".into(),
            capacity_type: CapacityType::OnDemand,
            price_per_hour: UsdPerHour::ZERO,
            created: 0,
            boot_milliseconds: u64::try_from(Duration::from_secs(1).as_millis()).unwrap(),
            draw: Draw { seed: 1, defects: Vec::new() },
            labels: BTreeMap::from([(karpenter::REGISTERED.to_owned(), "true".to_owned())]),
            taints: vec![taint],
            capacity: BTreeMap::from([("cpu".to_owned(), "2".to_owned())]),
            allocatable: BTreeMap::new(),
        };
        let node = node("n", &vm).unwrap();
        let labels = node.metadata.labels.unwrap();
        assert!(!labels.contains_key(karpenter::REGISTERED));
        assert_eq!(labels[kubernetes::HOSTNAME], "n");
        let taints = node.spec.unwrap().taints.unwrap();
        let taints: Vec<_> = taints.iter().map(|one| (one.key.as_str(), one.effect.as_str())).collect();
        assert_eq!(taints, [("a", "NoSchedule"), (karpenter::UNREGISTERED_TAINT, "NoExecute")]);
    }
}
