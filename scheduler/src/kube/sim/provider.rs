//! The cloud port of the simulated cloud.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use assay_core::engine::LaunchError;
use assay_core::model::{NodeClaim, Timestamp};
use assay_shared::labels::kubernetes;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, Client, Error};

use super::record::{LABEL, VmRecord};
use crate::cloud::{ClassFacts, Cloud, CloudError, CloudFuture, CreateError, Instance};
use crate::kube::api::AKSNodeClassSpec;
use crate::kube::api::aks_node_class::{ImageFamily, ImageRequirement, NodeImage};
use crate::sim::cloud::{Answer, Cloud as Chances};
use crate::sim::real_resources;
use crate::sim::scenario::CloudOptions;

/// How the simulated cloud behaves.
#[derive(Debug, Clone)]
pub struct SimulationOptions {
    /// Namespace of the ConfigMaps.
    pub namespace: String,
    /// Boots, refusals, quota, defects.
    pub cloud: CloudOptions,
    /// Seed of all chance.
    pub seed: u64,
    /// From a request to the cloud's answer.
    pub answer: Duration,
    /// From the wish to delete a VM to its end.
    pub deletion: Duration,
}

/// `kube::Client` has no `Debug`.
struct ClientOf(Client);

impl std::fmt::Debug for ClientOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

/// The simulated cloud.
#[derive(Debug)]
pub struct SimulatedCloud {
    client: ClientOf,
    vms: Api<ConfigMap>,
    options: SimulationOptions,
    chances: Mutex<Chances>,
}

impl SimulatedCloud {
    /// The cloud whose VMs are in a namespace.
    #[must_use]
    pub fn new(client: Client, options: SimulationOptions) -> Self {
        let chances = Mutex::new(Chances::new(options.cloud.clone(), options.seed));
        let vms = Api::namespaced(client.clone(), &options.namespace);
        Self { client: ClientOf(client), vms, options, chances }
    }

    async fn make(&self, claim: &NodeClaim) -> Result<Instance, CreateError> {
        if let Some(there) = self.vms.get_opt(&claim.name).await.map_err(unanswered)? {
            return read(&there).map(|vm| vm.instance(&claim.name)).map_err(CreateError::Cloud);
        }
        tokio::time::sleep(self.options.answer).await;
        let answer = self.chances.lock().unwrap_or_else(PoisonError::into_inner).create(claim);
        let (boot, machine, draw) = match answer {
            Answer::Accepted { boot, machine, draw } => (boot, machine, draw),
            Answer::Refused { failure, message } => {
                return Err(CreateError::Refused(LaunchError {
                    failure,
                    instance_type: claim.instance_type.clone(),
                    zone: claim.zone.clone(),
                    capacity_type: claim.capacity_type,
                    message,
                }));
            }
        };
        let vm = VmRecord::new(claim, now(), boot, draw, &real_resources(claim, &machine));
        let object = vm.config_map(&claim.name).map_err(|error| CloudError(error.to_string()))?;
        match self.vms.create(&PostParams::default(), &object).await {
            Ok(_) => Ok(vm.instance(&claim.name)),
            // Asked for twice at once: one of both made it.
            Err(Error::Api(status)) if status.code == 409 => {
                let there = self.vms.get(&claim.name).await.map_err(unanswered)?;
                read(&there).map(|vm| vm.instance(&claim.name)).map_err(CreateError::Cloud)
            }
            Err(error) => Err(unanswered(error).into()),
        }
    }

    async fn end(&self, claim: &str) -> Result<(), CloudError> {
        let Some(object) = self.vms.get_opt(claim).await.map_err(unanswered)? else { return Ok(()) };
        tokio::time::sleep(self.options.deletion).await;
        match self.vms.delete(claim, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(unanswered(error)),
        }
        if let Ok(vm) = read(&object) {
            self.chances.lock().unwrap_or_else(PoisonError::into_inner).deleted(&vm.instance_type);
        }
        Ok(())
    }

    /// It has an image of every family for both architectures, and nodes are of the version of the API server.
    async fn facts(&self, spec: &AKSNodeClassSpec) -> Result<ClassFacts, CloudError> {
        let version = self.client.0.apiserver_version().await.map_err(unanswered)?;
        let family = spec.image_family.unwrap_or(ImageFamily::Ubuntu);
        let image = |arch: &str| NodeImage {
            id: format!("/simulated/images/{}/{arch}", family.as_str()),
            requirements: vec![ImageRequirement {
                key: kubernetes::ARCH.to_owned(),
                operator: "In".to_owned(),
                values: vec![arch.to_owned()],
            }],
        };
        Ok(ClassFacts {
            images: Ok(vec![image("amd64"), image("arm64")]),
            kubernetes_version: Ok(version.git_version.trim_start_matches('v').to_owned()),
            subnet: Ok(()),
        })
    }

    async fn all(&self) -> Result<Vec<Instance>, CloudError> {
        let objects = self.vms.list(&ListParams::default().labels(LABEL)).await.map_err(unanswered)?;
        let instances = objects.iter().filter_map(|object| {
            let name = object.metadata.name.as_deref()?;
            Some(VmRecord::read(object)?.instance(name))
        });
        // By name, as the API server lists them, or not.
        let instances: BTreeMap<_, _> = instances.map(|vm| (vm.claim.clone(), vm)).collect();
        Ok(instances.into_values().collect())
    }
}

impl Cloud for SimulatedCloud {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn create<'a>(&'a self, claim: &'a NodeClaim) -> CloudFuture<'a, Result<Instance, CreateError>> {
        Box::pin(self.make(claim))
    }

    fn delete<'a>(&'a self, claim: &'a str) -> CloudFuture<'a, Result<(), CloudError>> {
        Box::pin(self.end(claim))
    }

    fn class<'a>(&'a self, spec: &'a AKSNodeClassSpec) -> CloudFuture<'a, Result<ClassFacts, CloudError>> {
        Box::pin(self.facts(spec))
    }

    fn list(&self) -> CloudFuture<'_, Result<Vec<Instance>, CloudError>> {
        Box::pin(self.all())
    }
}

fn read(object: &ConfigMap) -> Result<VmRecord, CloudError> {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    VmRecord::read(object).ok_or_else(|| CloudError(format!("ConfigMap {name} is no simulated VM")))
}

fn unanswered(error: Error) -> CloudError {
    CloudError(error.to_string())
}

/// Now, on the wall clock: VMs outlive processes.
pub(super) fn now() -> Timestamp {
    Timestamp(u64::try_from(k8s_openapi::jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}
