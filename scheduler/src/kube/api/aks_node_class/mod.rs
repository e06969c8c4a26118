//! `AKSNodeClass` (`karpenter.azure.com/v1beta1`, and the older `v1alpha2` of the same shape): the cloud's side of a pool.
//!
//! The scheduler reads of classes what changes the capacity of a machine through `crate::manifest`; what remains goes to the
//! cloud. It writes only their status and annotations.

mod kubelet;
mod linux_os;
mod local_dns;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use kubelet::{CpuManagerPolicy, KubeletConfiguration, TopologyManagerPolicy};
pub(super) use linux_os::Setting;
pub use linux_os::{LinuxOsConfiguration, Sysctls, TransparentHugePageDefrag, TransparentHugePageEnabled};
pub use local_dns::{
    ForwardDestination, ForwardPolicy, LocalDns, LocalDnsMode, LocalDnsZoneOverride, Protocol, QueryLogging,
    ServeStale,
};

use super::rule::Rule;
use super::schema;
use super::texts::texts;

/// The cloud's side of the nodes of pools that name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "karpenter.azure.com",
    version = "v1beta1",
    kind = "AKSNodeClass",
    plural = "aksnodeclasses",
    shortname = "aksnc",
    shortname = "aksncs",
    category = "karpenter",
    category = "nap",
    status = "AKSNodeClassStatus",
    derive = "PartialEq",
    doc = "An AKSNodeClass is the cloud's side of the nodes of pools that name it: image, disk, network, kubelet and operating system.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "ImageFamily", type_ = "string", json_path = ".spec.imageFamily", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct AKSNodeClassSpec {
    /// Subnet of its nodes' network interfaces, as an ARM resource id; the cluster's where there is none.
    #[serde(default, rename = "vnetSubnetID", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = VNET_SUBNET_ID))]
    pub vnet_subnet_id: Option<String>,
    /// Size of the OS disk in GB. It is on local storage of the machine where that is large enough.
    #[serde(default = "os_disk_size_gb", rename = "osDiskSizeGB", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 30, max = 2048))]
    pub os_disk_size_gb: Option<i32>,
    /// Operating system of the nodes. Ubuntu is the release that fits the version of Kubernetes.
    #[serde(default = "image_family", skip_serializing_if = "Option::is_none")]
    pub image_family: Option<ImageFamily>,
    /// Whether the image is one whose cryptography is validated by FIPS 140.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fips_mode: Option<FipsMode>,
    /// Tags of the Azure resources of its nodes. Changing them replaces no node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = tag_rules()))]
    pub tags: Option<BTreeMap<String, String>>,
    /// Settings of the kubelet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = kubelet::rules()))]
    pub kubelet: Option<KubeletConfiguration>,
    /// Pods per node. Without it, what the network decides: 250 with Azure CNI overlay or no plugin, 30 with Azure CNI on
    /// the nodes' subnet, else 110.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 250))]
    pub max_pods: Option<i32>,
    /// What protects the machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security: Option<Security>,
    /// A DNS cache on each node.
    #[serde(default, rename = "localDNS", skip_serializing_if = "Option::is_none")]
    pub local_dns: Option<LocalDns>,
    /// GPUs of the nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// Starting containers before their image is there as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_streaming: Option<ArtifactStreaming>,
    /// Settings of the operating system.
    #[serde(default, rename = "linuxOSConfig", skip_serializing_if = "Option::is_none")]
    pub linux_os_config: Option<LinuxOsConfiguration>,
}

/// A subnet's ARM resource id; ARM does not tell capitals from small letters.
const VNET_SUBNET_ID: &str = r"(?i)^/subscriptions/[^/]+/resourceGroups/[a-zA-Z0-9_\-().]{0,89}[a-zA-Z0-9_\-()]/providers/Microsoft\.Network/virtualNetworks/[^/]+/subnets/[^/]+$";

#[allow(clippy::unnecessary_wraps, reason = "the default of an optional field")]
const fn os_disk_size_gb() -> Option<i32> {
    Some(128)
}

#[allow(clippy::unnecessary_wraps, reason = "the default of an optional field")]
const fn image_family() -> Option<ImageFamily> {
    Some(ImageFamily::Ubuntu)
}

#[allow(clippy::unnecessary_wraps, reason = "the default of an optional field")]
const fn gpu_mode() -> Option<GpuMode> {
    Some(GpuMode::Driver)
}

fn rules() -> Vec<Rule> {
    let fips = "(has(self.fipsMode) && self.fipsMode == 'FIPS')";
    let trusted = "(has(self.security) && has(self.security.trustedLaunch) && \
                   ((has(self.security.trustedLaunch.vtpm) && self.security.trustedLaunch.vtpm) || \
                   (has(self.security.trustedLaunch.secureBoot) && self.security.trustedLaunch.secureBoot)))";
    let family = |list: &str| format!("(!has(self.imageFamily) || self.imageFamily in [{list}])");
    vec![
        Rule::new(
            format!("!{fips} || {}", family("'Ubuntu', 'Ubuntu2204', 'AzureLinux'")),
            "there is no FIPS image of Ubuntu2404; use Ubuntu, Ubuntu2204 or AzureLinux",
        ),
        Rule::new(
            format!("!{fips} || {trusted} || {}", family("'Ubuntu', 'Ubuntu2404', 'AzureLinux'")),
            "the FIPS image of Ubuntu2204 needs security.trustedLaunch",
        ),
        Rule::new(
            format!("!{fips} || !{trusted} || {}", family("'Ubuntu', 'Ubuntu2204', 'Ubuntu2404'")),
            "with security.trustedLaunch there are FIPS images of Ubuntu and Ubuntu2204 only",
        ),
        Rule::new(
            "!has(self.linuxOSConfig) || !has(self.linuxOSConfig.swapFileSize) || \
             (has(self.kubelet) && has(self.kubelet.failSwapOn) && !self.kubelet.failSwapOn)",
            "linuxOSConfig.swapFileSize needs kubelet.failSwapOn: false, or the kubelet does not start",
        ),
    ]
}

fn tag_rules() -> Vec<Rule> {
    vec![
        Rule::new("self.all(k, k.size() <= 512)", "keys of tags must have at most 512 characters"),
        Rule::new(
            r"self.all(k, !k.matches('[<>%&?\\\\]'))",
            r"keys of tags must not contain <, >, %, &, ? or \",
        ),
        Rule::new("self.all(k, self[k].size() <= 256)", "values of tags must have at most 256 characters"),
    ]
}

texts! {
    /// Operating system of a node.
    ImageFamily {
        Ubuntu = "Ubuntu",
        Ubuntu2204 = "Ubuntu2204",
        Ubuntu2404 = "Ubuntu2404",
        AzureLinux = "AzureLinux",
    }
    /// Whether cryptography is validated.
    FipsMode { Fips = "FIPS", Disabled = "Disabled" }
    /// Who installs GPU drivers.
    GpuMode { Driver = "Driver", None = "None" }
    /// Whether nodes have a DNS cache.
    LocalDnsState { Enabled = "Enabled", Disabled = "Disabled" }
}

/// What protects the machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Security {
    /// Whether the host encrypts disks and caches. Only sizes that can do it are bought.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption_at_host: Option<bool>,
    /// What protects the way a machine starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trusted_launch: Option<TrustedLaunch>,
}

/// What protects the way a machine starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TrustedLaunch {
    /// Whether it has a virtual TPM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vtpm: Option<bool>,
    /// Whether it starts only what is signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<bool>,
}

/// GPUs of the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Gpu {
    /// Who installs the driver: AKS, for the sizes that it has one for (Driver), or you (None), for any size with GPUs.
    #[serde(default = "gpu_mode", skip_serializing_if = "Option::is_none")]
    pub mode: Option<GpuMode>,
}

/// Starting containers before their image is there as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArtifactStreaming {
    /// Whether it is done. The registry must have the image in that form; arm64 sizes are not bought then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
}

/// What became of a class.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AKSNodeClassStatus {
    /// The images that its nodes are made from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<NodeImage>,
    /// Version of Kubernetes on its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes_version: Option<String>,
    /// Whether its nodes have a DNS cache, as decided from spec.localDNS.
    #[serde(default, rename = "localDNSState", skip_serializing_if = "Option::is_none")]
    pub local_dns_state: Option<LocalDnsState>,
    /// What is true of it: ImagesReady, KubernetesVersionReady, SubnetsReady, ValidationSucceeded and LocalDNSReady, which
    /// together make Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::class_conditions")]
    pub conditions: Vec<Condition>,
}

/// An image, and the machines it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NodeImage {
    /// Its ARM resource id.
    pub id: String,
    /// Which machines it is for, by the labels of their size.
    pub requirements: Vec<ImageRequirement>,
}

/// One demand on the labels of a size.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageRequirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: String,
    /// With what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub values: Vec<String>,
}

impl AKSNodeClassSpec {
    /// The spec of a class object, which may have none.
    pub fn of(object: &Value) -> Result<Self, serde_json::Error> {
        object.get("spec").map_or_else(|| Ok(Self::default()), Self::deserialize)
    }
}
