//! Metrics that Karpenter has, under its names: dashboards and alerts written for it go on working.

use prometheus_client::registry::Registry;

use super::family::{Counters, Gauges, Histograms};

#[derive(Debug)]
pub(super) struct Karpenter {
    pub(super) claims_created: Counters<3>,
    pub(super) claims_terminated: Counters<3>,
    pub(super) claims_disrupted: Counters<5>,
    pub(super) unhealthy_disrupted: Counters<3>,
    pub(super) vm_create_starts: Counters<4>,
    pub(super) vm_create_failures: Counters<6>,
    pub(super) claim_termination: Histograms<1>,
    pub(super) instance_termination: Histograms<1>,
    pub(super) nodes_created: Counters<1>,
    pub(super) nodes_terminated: Counters<1>,
    pub(super) nodes_drained: Counters<1>,
    pub(super) node_termination: Histograms<1>,
    pub(super) node_lifetime: Histograms<1>,
    pub(super) pods_drained: Counters<1>,
    pub(super) pods_disruption_initiated: Counters<1>,
    pub(super) evictions: Counters<1>,
    pub(super) pods_startup: Histograms<0>,
    pub(super) pods_bound: Histograms<0>,
    pub(super) pods_provisioning_startup: Histograms<0>,
    pub(super) pods_provisioning_bound: Histograms<0>,
    pub(super) pods_decision: Histograms<0>,
    pub(super) scheduling: Histograms<1>,
    pub(super) queue_depth: Gauges<1>,
    pub(super) unschedulable: Gauges<1>,
    pub(super) ignored: Gauges<0>,
    pub(super) decisions: Counters<3>,
    pub(super) eligible: Gauges<1>,
    pub(super) failed_validations: Counters<1>,
    pub(super) queue_failures: Counters<1>,
    pub(super) consolidation_timeouts: Counters<1>,
    pub(super) cloud: Histograms<3>,
    pub(super) cloud_errors: Counters<4>,
    pub(super) synced: Gauges<0>,
}

impl Karpenter {
    pub(super) fn register(r: &mut Registry) -> Self {
        let build = Gauges::register(
            r,
            "karpenter_build_info",
            "What runs: always 1, labelled by version, commit and architecture",
            ["version", "commit", "goarch"],
        );
        build.set(
            [env!("CARGO_PKG_VERSION"), option_env!("ASSAY_COMMIT").unwrap_or("unknown"), architecture()],
            1.0,
        );
        Self {
            claims_created: Counters::register(
                r,
                "karpenter_nodeclaims_created",
                "NodeClaims created",
                ["reason", "nodepool", "min_values_relaxed"],
            ),
            claims_terminated: Counters::register(
                r,
                "karpenter_nodeclaims_terminated",
                "NodeClaims that are gone",
                ["nodepool", "capacity_type", "zone"],
            ),
            claims_disrupted: Counters::register(
                r,
                "karpenter_nodeclaims_disrupted",
                "NodeClaims that were given up, by the reason for it",
                ["reason", "nodepool", "capacity_type", "consolidation_policy", "termination_mode"],
            ),
            unhealthy_disrupted: Counters::register(
                r,
                "karpenter_nodeclaims_unhealthy_disrupted",
                "NodeClaims that were given up for a condition of their node",
                ["condition", "nodepool", "capacity_type"],
            ),
            vm_create_starts: Counters::register(
                r,
                "karpenter_instance_vm_create_start",
                "VMs asked for",
                ["size", "zone", "capacity_type", "nodepool"],
            ),
            vm_create_failures: Counters::register(
                r,
                "karpenter_instance_vm_create_failure",
                "VMs that the cloud refused",
                ["size", "zone", "capacity_type", "nodepool", "phase", "error_code"],
            ),
            claim_termination: Histograms::durations(
                r,
                "karpenter_nodeclaims_termination_duration_seconds",
                "From the deletion of a NodeClaim until it is gone",
                ["nodepool"],
            ),
            instance_termination: Histograms::durations(
                r,
                "karpenter_nodeclaims_instance_termination_duration_seconds",
                "From asking for the deletion of a VM until it is gone",
                ["nodepool"],
            ),
            nodes_created: Counters::register(
                r,
                "karpenter_nodes_created",
                "Nodes that joined",
                ["nodepool"],
            ),
            nodes_terminated: Counters::register(
                r,
                "karpenter_nodes_terminated",
                "Nodes that are gone",
                ["nodepool"],
            ),
            nodes_drained: Counters::register(
                r,
                "karpenter_nodes_drained",
                "Nodes drained to the end",
                ["nodepool"],
            ),
            node_termination: Histograms::durations(
                r,
                "karpenter_nodes_termination_duration_seconds",
                "From the deletion of a node until it is gone",
                ["nodepool"],
            ),
            node_lifetime: Histograms::lives(
                r,
                "karpenter_nodes_lifetime_duration_seconds",
                "Age of nodes when they went",
                ["nodepool"],
            ),
            pods_drained: Counters::register(
                r,
                "karpenter_pods_drained",
                "Pods that left a node that was drained, by why it was",
                ["reason"],
            ),
            pods_disruption_initiated: Counters::register(
                r,
                "karpenter_pods_disruption_initiated",
                "Pods that were asked to leave a node that goes, by why it does",
                ["reason"],
            ),
            evictions: Counters::register(
                r,
                "karpenter_pods_eviction_requests",
                "Evictions asked for, by the status code of the answer",
                ["code"],
            ),
            pods_startup: Histograms::durations(
                r,
                "karpenter_pods_startup_duration_seconds",
                "From the creation of a pod until it is ready",
                [],
            ),
            pods_bound: Histograms::durations(
                r,
                "karpenter_pods_bound_duration_seconds",
                "From the creation of a pod until it is bound",
                [],
            ),
            pods_provisioning_startup: Histograms::durations(
                r,
                "karpenter_pods_provisioning_startup_duration_seconds",
                "From deciding where a pod goes until it is ready",
                [],
            ),
            pods_provisioning_bound: Histograms::durations(
                r,
                "karpenter_pods_provisioning_bound_duration_seconds",
                "From deciding where a pod goes until it is bound",
                [],
            ),
            pods_decision: Histograms::durations(
                r,
                "karpenter_pods_scheduling_decision_duration_seconds",
                "From seeing a pod until it is decided where it goes",
                [],
            ),
            scheduling: Histograms::durations(
                r,
                "karpenter_scheduler_scheduling_duration_seconds",
                "Duration of one solve",
                ["controller"],
            ),
            queue_depth: Gauges::register(
                r,
                "karpenter_scheduler_queue_depth",
                "Pods that wait to be solved",
                ["controller"],
            ),
            unschedulable: Gauges::register(
                r,
                "karpenter_scheduler_unschedulable_pods_count",
                "Pods for which nothing can be bought",
                ["controller"],
            ),
            ignored: Gauges::register(
                r,
                "karpenter_scheduler_ignored_pods_count",
                "Pods left out since they cannot be understood",
                [],
            ),
            decisions: Counters::register(
                r,
                "karpenter_voluntary_disruption_decisions",
                "Decisions to give up nodes",
                ["decision", "reason", "consolidation_type"],
            ),
            eligible: Gauges::register(
                r,
                "karpenter_voluntary_disruption_eligible_nodes",
                "Nodes that the last plan would give up",
                ["reason"],
            ),
            failed_validations: Counters::register(
                r,
                "karpenter_voluntary_disruption_failed_validations",
                "Commands that held no more when they were looked at again",
                ["reason"],
            ),
            queue_failures: Counters::register(
                r,
                "karpenter_voluntary_disruption_queue_failures",
                "Commands that were undone, since a replacement failed or took too long",
                ["reason"],
            ),
            consolidation_timeouts: Counters::register(
                r,
                "karpenter_voluntary_disruption_consolidation_timeouts",
                "Plans that ran out of work before every node was looked at",
                ["consolidation_type"],
            ),
            cloud: Histograms::durations(
                r,
                "karpenter_cloudprovider_duration_seconds",
                "Duration of calls to the cloud",
                ["controller", "method", "provider"],
            ),
            cloud_errors: Counters::register(
                r,
                "karpenter_cloudprovider_errors",
                "Calls to the cloud that failed",
                ["controller", "method", "provider", "error"],
            ),
            synced: Gauges::register(
                r,
                "karpenter_cluster_state_synced",
                "Whether everything that the API server has is known: 1 or 0",
                [],
            ),
        }
    }
}

/// As Go calls it, since Karpenter does.
const fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        std::env::consts::ARCH
    }
}
