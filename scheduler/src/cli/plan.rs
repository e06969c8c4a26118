//! `assay plan`: decides offline what to buy for the pods in some manifests.

pub(super) mod document;
mod table;

use std::io::Write;
use std::time::Instant;

use anyhow::bail;
use assay_core::check::check;
use assay_core::solve::{MinValues, Preferences, SolveOptions, solve};

use super::Answer;
use super::input::Input;
use super::output::{self, Format};
use crate::manifest::Manifests;

/// Arguments of `assay plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  assay plan -f pods.yaml -f pools.yaml            what to buy, from the built-in catalogue
  kubectl get pods,nodes,nodepools -A -o yaml | assay plan -f -
  assay plan -f manifests/ --catalog azure:westeurope -o json
  assay plan -f pods.yaml --catalog skus.json --prices prices.csv --strict

The files hold ordinary Kubernetes YAML or JSON, lists included. Unbound pods are placed, and the
replicas of controllers given without pods. Without a NodePool, an implicit pool `default` buys
Linux amd64 machines of the families D, E and F, on demand.")]
pub(super) struct Arguments {
    #[command(flatten)]
    input: Input,
    /// Output form; a table on a terminal, else JSON.
    #[arg(short, long, value_enum, value_name = "FORM")]
    output: Option<Format>,
    /// Say for each machine why it was chosen: the next best types and their price.
    #[arg(long)]
    explain: bool,
    /// What preferences of pods are worth: kept as long as they can be, or ignored.
    #[arg(long, value_enum, default_value_t = PreferencePolicy::Respect, value_name = "POLICY", env = "PREFERENCE_POLICY", ignore_case = true)]
    preference_policy: PreferencePolicy,
    /// What happens where fewer instance types than a pool's minValues would do.
    #[arg(long, value_enum, default_value_t = MinValuesPolicy::Strict, value_name = "POLICY", env = "MIN_VALUES_POLICY", ignore_case = true)]
    min_values_policy: MinValuesPolicy,
    /// Exit 1 if a pod was left out.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum PreferencePolicy {
    Respect,
    Ignore,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum MinValuesPolicy {
    Strict,
    /// Take what there is, and say so.
    #[value(alias = "besteffort")]
    BestEffort,
}

impl Arguments {
    fn solve_options(&self) -> SolveOptions {
        SolveOptions {
            preferences: match self.preference_policy {
                PreferencePolicy::Respect => Preferences::Respect,
                PreferencePolicy::Ignore => Preferences::Ignore,
            },
            min_values: match self.min_values_policy {
                MinValuesPolicy::Strict => MinValues::Strict,
                MinValuesPolicy::BestEffort => MinValues::BestEffort,
            },
            explain: self.explain,
            ..SolveOptions::default()
        }
    }
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let (snapshot, invalid) = arguments.input.read()?;
    let started = Instant::now();
    let mut plan = solve(&snapshot, &arguments.solve_options());
    let solve_time = started.elapsed();
    if let Err(violations) = check(&snapshot, &plan) {
        let first = violations.first().map(ToString::to_string).unwrap_or_default();
        bail!("the plan breaks {} rules, which is a bug in assay; the first: {first}", violations.len());
    }
    Manifests::report_invalid(invalid, &mut plan);

    let format = Format::or_default(arguments.output);
    if format == Format::Table {
        table::write(out, &plan, arguments.explain)?;
    } else {
        output::document(out, format, &document::plan(&snapshot, &plan, arguments.explain, solve_time))?;
    }
    Ok(if arguments.strict && !plan.unschedulable.is_empty() { Answer::No } else { Answer::Yes })
}
