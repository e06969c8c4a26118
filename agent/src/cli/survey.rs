//! `assay-agent survey`: reads the machine once and prints what is there.

use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use clap::{Args, ValueEnum};

use crate::output;
use crate::sources::SourceArgs;

/// Read the hardware of a machine once and print it.
///
/// Needs no network, no scheduler and no privilege. What cannot be read is named with the reason.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  assay-agent survey                              this machine, as a table
  assay-agent survey -o json | jq .gpus           for programs
  assay-agent survey --root /host                 the node, from a container that mounts it there
  assay-agent survey --root ./tree --imds off     a captured machine, from its files alone
  assay-agent survey --nvml /opt/libnvidia-ml.so.1

Exit status: 0 when the machine was surveyed, whatever was found; 2 on bad usage.")]
pub(super) struct SurveyArgs {
    #[command(flatten)]
    sources: SourceArgs,

    /// Kubernetes name of the node, to be put into the report.
    #[arg(long, value_name = "NAME", env = "NODE_NAME", hide_env_values = true)]
    node_name: Option<String>,

    /// Form of the report: "table" for people, "json" and "yaml" for programs.
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t = Format::Table)]
    output: Format,
}

/// A form of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Json,
    Yaml,
}

pub(super) fn run(args: &SurveyArgs) -> anyhow::Result<()> {
    let sources = args.sources.open()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let imds = runtime.block_on(sources.ask_imds());
    let report = sources.survey(args.node_name.as_deref(), imds);
    let text = match args.output {
        Format::Table => output::table(&report, wants_colour()),
        Format::Json => output::json(report)?,
        Format::Yaml => output::yaml(report)?,
    };
    let written = io::stdout().lock().write_all(text.as_bytes());
    // Whoever reads may stop early, as `head` does.
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write the report"),
    }
}

/// Colour is for terminals, and not where <https://no-color.org> says that it is unwanted.
fn wants_colour() -> bool {
    io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
