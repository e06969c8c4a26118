//! `NodeHardware` (`assay.dev/v1alpha1`): what a node's machine really is, by its last report. Its name is the node's.
//!
//! The engine's driver writes one per node, owned by the node, so that it goes with it. Nothing is decided from these
//! objects: they are for people and their tools.

use assay_core::model::Timestamp;
use assay_shared::Fact;
use assay_shared::report::{HardwareReport, ReportDocument};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, Resource as _, ResourceExt as _};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::conditions::time;
use super::texts::texts;

/// What a node's machine really is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, CustomResource, JsonSchema)]
#[kube(
    group = "assay.dev",
    version = "v1alpha1",
    kind = "NodeHardware",
    root = "NodeHardware",
    singular = "nodehardware",
    plural = "nodehardware",
    shortname = "nhw",
    category = "assay",
    no_spec,
    derive = "PartialEq",
    doc = "NodeHardware is what the machine of the node of this name really is, as its agent last reported it.",
    printcolumn(name = "Size", type_ = "string", json_path = ".summary.vmSize"),
    printcolumn(name = "CPU", type_ = "string", json_path = ".summary.cpuModel"),
    printcolumn(name = "Memory", type_ = "string", json_path = ".summary.memory"),
    printcolumn(
        name = "GPUs",
        type_ = "string",
        description = "usable / on the bus",
        json_path = ".summary.gpus"
    ),
    printcolumn(name = "Network", type_ = "string", json_path = ".summary.network"),
    printcolumn(name = "Verified", type_ = "string", json_path = ".verified"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reported", type_ = "date", json_path = ".reported", priority = 1)
)]
#[serde(rename_all = "camelCase")]
pub struct NodeHardwareFields {
    /// The little of the report that fits a line.
    pub summary: HardwareSummary,
    /// Whether the report was checked against what was bought: true if it is that, false if it is not, stale if its agent
    /// has not been heard of for a while.
    pub verified: Verified,
    /// When the report came.
    pub reported: Time,
    /// The report as a whole, of kind HardwareReport: docs/hardware-report.md says what is in it.
    #[schemars(schema_with = "report")]
    pub report: ReportDocument,
}

/// Its own kind says what is in it, and newer agents may say more.
fn report(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-map-type": "atomic",
    })
}

texts! {
    /// Whether a report was checked against what was bought.
    Verified { True = "true", False = "false", Stale = "stale" }
}

/// The little of a report that fits a line. What was not measured is not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HardwareSummary {
    /// Size of the machine, as it says itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm_size: Option<String>,
    /// Its processor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_model: Option<String>,
    /// Memory of its kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// GPUs that can be used, and GPUs on its bus: 7/8. A machine without any has 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<String>,
    /// State of accelerated networking, as in the label hardware.assay.dev/network-accelerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
}

impl HardwareSummary {
    /// The little of `report` that fits a line.
    #[must_use]
    pub fn of(report: &HardwareReport) -> Self {
        let gpus = &report.gpus;
        let gpus = match (gpus.usable.get(), &gpus.pci) {
            (_, Fact::Absent | Fact::Measured(0)) => Some("0".to_owned()),
            (Some(usable), Fact::Measured(pci)) => Some(format!("{usable}/{pci}")),
            (None, Fact::Measured(pci)) => Some(format!("?/{pci}")),
            (Some(usable), Fact::Unavailable(_)) => Some(format!("{usable}/?")),
            (None, Fact::Unavailable(_)) => None,
        };
        let memory = report.memory.total_bytes.get();
        Self {
            vm_size: report.platform.vm_size.measured().cloned(),
            cpu_model: report.cpu.model.measured().cloned(),
            // Whole mebibytes: a line has no room for bytes.
            memory: memory.map(|bytes| format!("{}Mi", bytes.as_mib())),
            gpus,
            network: report.network.accelerated_networking.get().map(|state| state.as_str().to_owned()),
        }
    }
}

impl NodeHardware {
    /// What is known of the machine of a node named `name`; `node` makes the object go when the node does.
    #[must_use]
    pub fn of(
        name: &str,
        node: Option<&Node>,
        report: HardwareReport,
        verified: Verified,
        reported: Timestamp,
    ) -> Self {
        let summary = HardwareSummary::of(&report);
        let fields =
            NodeHardwareFields { summary, verified, reported: time(reported), report: report.into() };
        let mut object = Self::new(name, fields);
        // An object that is not stored yet has no uid, and cannot own.
        object.metadata.owner_references = node
            .filter(|node| node.uid().is_some())
            .and_then(|node| node.owner_ref(&()))
            .map(|owner| vec![owner]);
        object
    }
}

#[cfg(test)]
mod tests {
    use assay_shared::report::AcceleratedNetworking;
    use assay_shared::units::Bytes;

    use super::*;

    #[test]
    fn the_summary_says_what_was_measured_and_nothing_else() {
        let mut report = HardwareReport::default();
        report.platform.vm_size = Fact::Measured("Standard_ND96isr_H100_v5".into());
        report.memory.total_bytes = Fact::Measured(Bytes::mib(1_900_000));
        report.network.accelerated_networking = Fact::Measured(AcceleratedNetworking::VfActive);
        let summary = |report: &HardwareReport| serde_json::to_value(HardwareSummary::of(report)).unwrap();
        assert_eq!(
            summary(&report),
            serde_json::json!({"vmSize": "Standard_ND96isr_H100_v5", "memory": "1900000Mi", "network": "vf_active"})
        );
        let unknown = || Fact::unavailable("no driver");
        let cases = [
            (Fact::Measured(7), Fact::Measured(8), Some("7/8")),
            (unknown(), Fact::Measured(8), Some("?/8")),
            (Fact::Measured(7), unknown(), Some("7/?")),
            (Fact::Absent, Fact::Measured(0), Some("0")),
            (Fact::Absent, Fact::Absent, Some("0")),
            (unknown(), unknown(), None),
        ];
        for (usable, pci, expected) in cases {
            (report.gpus.usable, report.gpus.pci) = (usable, pci);
            assert_eq!(HardwareSummary::of(&report).gpus.as_deref(), expected);
        }
    }

    #[test]
    fn the_report_comes_back_as_it_went() {
        let mut report = HardwareReport::default();
        report.memory.total_bytes = Fact::Measured(Bytes::gib(16));
        report.memory.installed_bytes = Fact::unavailable("permission denied");
        let node =
            serde_json::json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "uid": "u"}});
        let node: Node = serde_json::from_value(node).unwrap();
        let object = NodeHardware::of("n", Some(&node), report.clone(), Verified::True, Timestamp(1_000));
        let text = serde_json::to_string(&object).unwrap();
        let restored: NodeHardware = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&restored).unwrap(), text);
        assert_eq!(HardwareReport::try_from(restored.spec.report).unwrap(), report);
        assert_eq!(restored.spec.reported.0.to_string(), "1970-01-01T00:00:01Z");
        let owner = &object.metadata.owner_references.unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Node", "u"));
    }
}
