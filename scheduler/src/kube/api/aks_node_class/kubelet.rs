//! Settings of the kubelet of a class's nodes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::rule::Rule;
use super::super::texts::texts;

/// Settings of the kubelet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KubeletConfiguration {
    /// Whether containers of guaranteed pods that ask for whole CPUs get their own (static).
    #[serde(default = "cpu_manager_policy", skip_serializing_if = "Option::is_none")]
    pub cpu_manager_policy: Option<CpuManagerPolicy>,
    /// Whether CPU limits are enforced.
    #[serde(default = "cpu_cfs_quota", rename = "cpuCFSQuota", skip_serializing_if = "Option::is_none")]
    pub cpu_cfs_quota: Option<bool>,
    /// Over which time CPU limits are counted, from 1ms to 1s.
    #[serde(
        default = "cpu_cfs_quota_period",
        rename = "cpuCFSQuotaPeriod",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(regex(pattern = GO_DURATION))]
    pub cpu_cfs_quota_period: Option<String>,
    /// Percentage of the disk from which images are removed.
    #[serde(default, rename = "imageGCHighThresholdPercent", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub image_gc_high_threshold_percent: Option<i32>,
    /// Percentage of the disk down to which images are removed.
    #[serde(default, rename = "imageGCLowThresholdPercent", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub image_gc_low_threshold_percent: Option<i32>,
    /// What happens to a pod whose CPUs and devices cannot come from as few NUMA nodes as possible: nothing is aligned
    /// (none), it runs all the same (best-effort), it is turned away (restricted), or it is turned away unless one node has
    /// it all (single-numa-node). Nodes are bought so that pods are not turned away.
    #[serde(default = "topology_manager_policy", skip_serializing_if = "Option::is_none")]
    pub topology_manager_policy: Option<TopologyManagerPolicy>,
    /// Unsafe sysctls that pods may set: names, or their beginning and a `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_unsafe_sysctls: Option<Vec<String>>,
    /// Size at which a container's log is rotated.
    #[serde(default = "container_log_max_size", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = SIZE))]
    pub container_log_max_size: Option<String>,
    /// Log files kept per container.
    #[serde(default = "container_log_max_files", skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2))]
    pub container_log_max_files: Option<i32>,
    /// Processes per pod; -1 is no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_pids_limit: Option<i64>,
    /// Whether the kubelet refuses to start on a machine with swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_swap_on: Option<bool>,
}

/// A length of time with Go's units.
const GO_DURATION: &str = r"^([0-9]+(\.[0-9]*)?(ns|us|µs|μs|ms|s|m|h))+$";
/// A size with a unit.
pub(super) const SIZE: &str = r"^\d+(E|P|T|G|M|K|Ei|Pi|Ti|Gi|Mi|Ki)$";

#[allow(clippy::unnecessary_wraps, reason = "the default of an optional field")]
const fn cpu_manager_policy() -> Option<CpuManagerPolicy> {
    Some(CpuManagerPolicy::None)
}

#[allow(clippy::unnecessary_wraps, reason = "the default of an optional field")]
const fn topology_manager_policy() -> Option<TopologyManagerPolicy> {
    Some(TopologyManagerPolicy::None)
}

#[allow(clippy::unnecessary_wraps, reason = "the default of an optional field")]
const fn cpu_cfs_quota() -> Option<bool> {
    Some(true)
}

#[allow(clippy::unnecessary_wraps, reason = "the default of an optional field")]
fn cpu_cfs_quota_period() -> Option<String> {
    Some("100ms".to_owned())
}

#[allow(clippy::unnecessary_wraps, reason = "the default of an optional field")]
fn container_log_max_size() -> Option<String> {
    Some("50Mi".to_owned())
}

#[allow(clippy::unnecessary_wraps, reason = "the default of an optional field")]
const fn container_log_max_files() -> Option<i32> {
    Some(5)
}

pub(super) fn rules() -> Vec<Rule> {
    vec![Rule::new(
        "!has(self.imageGCHighThresholdPercent) || !has(self.imageGCLowThresholdPercent) || \
         self.imageGCHighThresholdPercent > self.imageGCLowThresholdPercent",
        "imageGCHighThresholdPercent must be above imageGCLowThresholdPercent",
    )]
}

texts! {
    /// Whether containers get CPUs of their own.
    CpuManagerPolicy { None = "none", Static = "static" }
    /// How CPUs and devices are aligned to NUMA nodes.
    TopologyManagerPolicy {
        None = "none",
        BestEffort = "best-effort",
        Restricted = "restricted",
        SingleNumaNode = "single-numa-node",
    }
}
