//! The JSON (and YAML) form of a hardware report, versioned: `assay-agent survey -o json`, `NodeHardware` objects, files.
//!
//! A measured fact is its plain value, an absent one `null`, and an unavailable one `null` and listed with its reason.

use serde::{Deserialize, Serialize};

use super::{
    Cpu, Disagreement, Disk, Facts, Gpus, HardwareReport, Identity, Memory, Network, NumaNode, Platform,
    ScheduledEvent,
};
use crate::fact::{Fact, Reason};

/// Version of every document that Assay writes.
pub const API_VERSION: &str = "assay.dev/v1alpha1";
/// Kind of this one.
pub const KIND: &str = "HardwareReport";

/// A hardware report as a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportDocument {
    api_version: String,
    kind: String,
    identity: Identity,
    platform: Platform,
    cpu: Cpu,
    memory: Memory,
    numa: Fact<Vec<NumaNode>>,
    gpus: Gpus,
    network: Network,
    disks: Fact<Vec<Disk>>,
    events: Fact<Vec<ScheduledEvent>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    disagreements: Vec<Disagreement>,
    unavailable: Vec<UnavailableFact>,
}

/// A fact that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnavailableFact {
    /// Its path in the document, such as `memory.installedBytes` or `gpus.devices[3].uuid`.
    pub fact: String,
    /// Why.
    pub reason: Reason,
}

/// A document that is not a hardware report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// It is of another kind or version.
    #[error("{field}: expected {expected:?}, found {found:?}")]
    Wrong {
        /// Which field.
        field: &'static str,
        /// What a report has there.
        expected: &'static str,
        /// What was there.
        found: String,
    },
    /// It lists a fact that a report does not have.
    #[error("unavailable[{index}].fact: no such fact: {path:?}")]
    UnknownFact {
        /// Place in the list.
        index: usize,
        /// The path that leads nowhere.
        path: String,
    },
}

impl From<HardwareReport> for ReportDocument {
    fn from(report: HardwareReport) -> Self {
        let mut unavailable = Vec::new();
        report.each_unavailable("", &mut |path, reason| {
            unavailable.push(UnavailableFact { fact: path.to_owned(), reason: reason.clone() });
        });
        let HardwareReport {
            identity,
            platform,
            cpu,
            memory,
            numa,
            gpus,
            network,
            disks,
            events,
            disagreements,
        } = report;
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            identity,
            platform,
            cpu,
            memory,
            numa,
            gpus,
            network,
            disks,
            events,
            disagreements,
            unavailable,
        }
    }
}

impl TryFrom<ReportDocument> for HardwareReport {
    type Error = DocumentError;

    fn try_from(document: ReportDocument) -> Result<Self, Self::Error> {
        for (field, expected, found) in
            [("apiVersion", API_VERSION, &document.api_version), ("kind", KIND, &document.kind)]
        {
            if found != expected {
                return Err(DocumentError::Wrong { field, expected, found: found.clone() });
            }
        }
        let ReportDocument { identity, platform, cpu, memory, numa, gpus, network, disks, events, .. } =
            document;
        let disagreements = document.disagreements;
        let mut report =
            Self { identity, platform, cpu, memory, numa, gpus, network, disks, events, disagreements };
        for (index, UnavailableFact { fact, reason }) in document.unavailable.into_iter().enumerate() {
            if !report.mark_unavailable(&fact, &reason) {
                return Err(DocumentError::UnknownFact { index, path: fact });
            }
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{GpuDevice, IsaLevel};
    use crate::units::Bytes;

    fn report() -> HardwareReport {
        let mut report = HardwareReport::default();
        report.cpu.isa_level = Fact::Measured(IsaLevel::V4);
        report.cpu.family = Fact::Absent;
        report.memory.total_bytes = Fact::Measured(Bytes::gib(16));
        report.memory.installed_bytes = Fact::unavailable("permission denied: block_size_bytes");
        report.gpus.devices = Fact::Measured(vec![GpuDevice {
            uuid: Fact::unavailable("GPU is lost"),
            model: Fact::Absent,
            ..GpuDevice::default()
        }]);
        report
    }

    #[test]
    fn measured_is_plain_absent_is_null_and_unavailable_is_null_with_its_reason() {
        let json = serde_json::to_value(ReportDocument::from(report())).unwrap();
        assert_eq!(json["apiVersion"], "assay.dev/v1alpha1");
        assert_eq!(json["cpu"]["isaLevel"], "v4");
        assert_eq!(json["memory"]["totalBytes"], 17_179_869_184_u64);
        assert!(json["cpu"]["family"].is_null() && json["memory"]["installedBytes"].is_null());
        let listed = json["unavailable"].as_array().unwrap();
        let of = |path: &str| {
            listed.iter().find(|entry| entry["fact"] == path).map(|entry| entry["reason"].clone())
        };
        assert_eq!(of("memory.installedBytes").unwrap(), "permission denied: block_size_bytes");
        assert_eq!(of("gpus.devices[0].uuid").unwrap(), "GPU is lost");
        assert_eq!(of("cpu.family"), None, "absent is not unavailable");
    }

    #[test]
    fn the_document_restores_the_report() {
        let text = serde_json::to_string(&ReportDocument::from(report())).unwrap();
        let document: ReportDocument = serde_json::from_str(&text).unwrap();
        assert_eq!(HardwareReport::try_from(document).unwrap(), report());
    }

    #[test]
    fn a_document_of_another_kind_or_with_an_unknown_fact_is_refused() {
        let mut json = serde_json::to_value(ReportDocument::from(report())).unwrap();
        json["unavailable"][0]["fact"] = "cpu.colour".into();
        let document: ReportDocument = serde_json::from_value(json.clone()).unwrap();
        let error = HardwareReport::try_from(document).unwrap_err().to_string();
        assert_eq!(error, "unavailable[0].fact: no such fact: \"cpu.colour\"");
        json["kind"] = "Node".into();
        let document: ReportDocument = serde_json::from_value(json).unwrap();
        let error = HardwareReport::try_from(document).unwrap_err().to_string();
        assert_eq!(error, "kind: expected \"HardwareReport\", found \"Node\"");
    }
}
