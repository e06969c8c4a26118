//! The forms of a report: JSON and YAML for programs, a table for people.

mod catalog;
mod grid;
mod table;

use assay_shared::report::{HardwareReport, ReportDocument};

pub use table::table;

/// The report as indented JSON, ended by a newline.
///
/// # Errors
/// None that a report can cause: every map in it has text for keys.
pub fn json(report: HardwareReport) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&ReportDocument::from(report)).map(|text| text + "\n")
}

/// The report as YAML.
///
/// # Errors
/// None that a report can cause.
pub fn yaml(report: HardwareReport) -> Result<String, serde_yaml_ng::Error> {
    serde_yaml_ng::to_string(&ReportDocument::from(report))
}
