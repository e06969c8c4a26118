//! A simulated VM as it is kept: a ConfigMap, so that it outlives whoever made it, as a VM of a real cloud does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use assay_core::catalog::CapacityType;
use assay_core::model::{NodeClaim, ResourceList, Taint, Timestamp};
use assay_shared::units::UsdPerHour;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};

use crate::cloud::Instance;
use crate::quantities::quantities;
use crate::sim::cloud::Draw;

/// Label of the ConfigMaps that are VMs.
pub(super) const LABEL: &str = "assay.dev/simulated-vm";
/// Annotation on such a ConfigMap that breaks the machine: `lostGpu`, `lessMemory`, `networkingOff`, `preempt`, `vanish`.
pub(super) const FAULT: &str = "assay.dev/fault";
/// The one key of such a ConfigMap.
const KEY: &str = "vm";
/// Prefix of the cloud's ids.
const PROVIDER: &str = "assay-sim:///virtualMachines/";

/// A VM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VmRecord {
    pub instance_type: Arc<str>,
    pub zone: Arc<str>,
    pub capacity_type: CapacityType,
    pub price_per_hour: UsdPerHour,
    /// Milliseconds since 1970.
    pub created: u64,
    pub boot_milliseconds: u64,
    pub draw: Draw,
    /// What its kubelet will say of itself.
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub capacity: BTreeMap<String, String>,
    pub allocatable: BTreeMap<String, String>,
}

impl VmRecord {
    pub(super) fn new(
        claim: &NodeClaim,
        created: Timestamp,
        boot: Duration,
        draw: Draw,
        (capacity, allocatable): &(ResourceList, ResourceList),
    ) -> Self {
        Self {
            instance_type: Arc::clone(&claim.instance_type),
            zone: Arc::clone(&claim.zone),
            capacity_type: claim.capacity_type,
            price_per_hour: claim.price,
            created: created.0,
            boot_milliseconds: u64::try_from(boot.as_millis()).unwrap_or(u64::MAX),
            draw,
            labels: claim.labels.clone(),
            taints: claim.taints.clone(),
            capacity: quantities(capacity),
            allocatable: quantities(allocatable),
        }
    }

    pub(super) fn instance(&self, name: &str) -> Instance {
        Instance {
            claim: name.into(),
            provider_id: provider_id(name),
            instance_type: Arc::clone(&self.instance_type),
            zone: Arc::clone(&self.zone),
            capacity_type: self.capacity_type,
            price: self.price_per_hour,
            created: Timestamp(self.created),
        }
    }

    pub(super) fn boots_at(&self) -> Timestamp {
        Timestamp(self.created.saturating_add(self.boot_milliseconds))
    }

    pub(super) fn config_map(&self, name: &str) -> Result<ConfigMap, serde_json::Error> {
        Ok(ConfigMap {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                labels: Some(BTreeMap::from([(LABEL.to_owned(), "true".to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), serde_json::to_string(self)?)])),
            ..ConfigMap::default()
        })
    }

    /// `None` where the ConfigMap holds no VM that can be read.
    pub(super) fn read(object: &ConfigMap) -> Option<Self> {
        serde_json::from_str(object.data.as_ref()?.get(KEY)?).ok()
    }
}

pub(super) fn provider_id(name: &str) -> String {
    format!("{PROVIDER}{name}")
}
