//! Output forms that commands share: JSON and YAML for programs, tables for people.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

/// Version of every document that the command line prints.
pub(super) const API_VERSION: &str = assay_shared::report::document::API_VERSION;

/// How output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
    /// For people.
    Table,
}

impl Format {
    /// What was asked for; else a table on a terminal and JSON in a pipe.
    pub(super) fn or_default(asked: Option<Self>) -> Self {
        asked.unwrap_or_else(|| if io::stdout().is_terminal() { Self::Table } else { Self::Json })
    }
}

/// Writes a document as JSON or YAML.
pub(super) fn document(out: &mut dyn Write, format: Format, value: &impl Serialize) -> anyhow::Result<()> {
    if format == Format::Yaml {
        out.write_all(serde_yaml_ng::to_string(value)?.as_bytes())?;
    } else {
        let text = serde_json::to_string_pretty(value)?;
        writeln!(out, "{text}")?;
    }
    Ok(())
}

/// Rows under headings, each column as wide as its widest cell.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub(super) fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|&heading| heading.to_owned()).collect()] }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Writes headings and rows.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![0; columns];
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for row in &self.rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}
