//! `assay plan`: decides offline what to buy for the pods in some manifests.

mod document;
mod table;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::bail;
use assay_core::catalog::Catalog;
use assay_core::check::check;
use assay_core::model::NodePool;
use assay_core::requirement::Requirement;
use assay_core::solve::{MinValues, Preferences, SolveOptions, solve};
use assay_shared::labels::{azure, karpenter, kubernetes};

use super::Answer;
use super::catalog::Choice;
use super::output::{self, Format};
use super::profiles;
use crate::manifest::{Manifests, read_sources};

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
    /// Manifests: a file, a directory, or `-` for standard input; may be given several times.
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<String>,
    #[command(flatten)]
    catalog: Choice,
    /// What was learned about VM sizes: a file that a scheduler exported.
    #[arg(long, value_name = "FILE")]
    profiles: Option<PathBuf>,
    /// Output form; a table on a terminal, else JSON.
    #[arg(short, long, value_enum, value_name = "FORM")]
    output: Option<Format>,
    /// Say for each machine why it was chosen: the next best types and their price.
    #[arg(long)]
    explain: bool,
    /// Configuration of kube-scheduler: its default spread constraints count for pods that have none.
    #[arg(long, value_name = "FILE")]
    scheduler_config: Option<String>,
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
    let files: Vec<String> = arguments.filename.iter().chain(&arguments.scheduler_config).cloned().collect();
    let mut manifests = Manifests::parse(&read_sources(&files)?)?;
    let profiles = profiles::read(arguments.profiles.as_deref())?;
    let catalog = arguments.catalog.load()?;
    // All input is read: an error would have been the only line.
    for warning in &manifests.warnings {
        eprintln!("assay: warning: {warning}");
    }
    if manifests.pools.is_empty() && manifests.static_pools.is_empty() {
        eprintln!(
            "assay: warning: no NodePool given: using an implicit one (linux, amd64, families D, E, F, on-demand)"
        );
        manifests.pools.push(implicit_pool(&catalog));
    }
    let region = catalog.region().unwrap_or_default();
    let measured = |sku: &str| profiles.memory_for(sku, region);
    let invalid = std::mem::take(&mut manifests.invalid_pods);
    let snapshot = manifests.into_snapshot(|class| {
        let mut types = catalog.instance_types(class, measured);
        types.iter_mut().for_each(|one| profiles.refine(one, region));
        types
    });

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

/// Much as AKS node autoprovisioning starts: Linux on amd64, on demand, without the families that cost most. A catalogue of
/// another cloud knows no Azure families.
fn implicit_pool(catalog: &Catalog) -> NodePool {
    let mut pool = NodePool::with_defaults("default");
    if catalog.region().is_some() {
        pool.requirements = vec![
            Requirement::is_in(kubernetes::OS, ["linux"]),
            Requirement::is_in(kubernetes::ARCH, ["amd64"]),
            Requirement::is_in(karpenter::CAPACITY_TYPE, ["on-demand"]),
            Requirement::is_in(azure::SKU_FAMILY, ["D", "E", "F"]),
        ];
    }
    pool
}
