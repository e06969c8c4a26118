//! `assay crds`: the definitions of the kinds that the cluster driver needs. For the build; people get them with the chart.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use super::Answer;
use crate::kube::api::crd;

/// Arguments of `assay crds`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  assay crds | kubectl apply --server-side -f -
  assay crds --output-dir deploy/crds")]
pub(super) struct Arguments {
    /// Write one file per kind into this directory instead of printing them all.
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> anyhow::Result<Answer> {
    for definition in crd::definitions()? {
        let yaml = definition.yaml()?;
        match &arguments.output_dir {
            Some(directory) => {
                let path = directory.join(&definition.file);
                std::fs::write(&path, yaml).with_context(|| path.display().to_string())?;
            }
            None => write!(out, "---\n{yaml}")?,
        }
    }
    Ok(Answer::Yes)
}
