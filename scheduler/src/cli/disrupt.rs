//! `assay disrupt`: decides offline which nodes of a cluster can go.

mod document;
mod table;

use std::io::Write;
use std::time::Instant;

use anyhow::{Context, bail};
use assay_core::check::check_disruption;
use assay_core::disrupt::{DisruptOptions, PaybackDefaults, disrupt};
use assay_core::model::Timestamp;
use assay_core::solve::SolveOptions;
use assay_shared::units::Usd;

use super::Answer;
use super::input::Input;
use super::output::{self, Format};
use crate::manifest::parse_duration;

/// Arguments of `assay disrupt`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  kubectl get nodes,nodeclaims,nodepools,aksnodeclasses,pods,pdb,daemonsets -A -o yaml | assay disrupt -f -
  assay disrupt -f cluster.yaml --explain          why each node stays, and what it would take
  assay disrupt -f cluster.yaml --max-moves 50     the best that 50 evictions can do
  assay disrupt -f cluster.yaml --now 2026-01-31T03:00:00Z -o json

Nothing is done: the commands are printed in the order in which they would be carried out.")]
pub(super) struct Arguments {
    #[command(flatten)]
    input: Input,
    /// The moment to decide for, as RFC 3339; now where not given.
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
    /// Evict at most so many pods to save money.
    #[arg(long, value_name = "PODS")]
    max_moves: Option<usize>,
    /// How long a move may take to pay back what it disrupts, where a pool says nothing of its own; `0s` takes any saving.
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    payback_period: String,
    /// What evicting one ordinary pod costs, in US dollars, where a pool says nothing of its own.
    #[arg(long, value_name = "USD", default_value_t = 0.001)]
    eviction_cost: f64,
    /// Never replace a spot machine by a cheaper one.
    #[arg(long)]
    no_spot_to_spot: bool,
    /// Output form; a table on a terminal, else JSON.
    #[arg(short, long, value_enum, value_name = "FORM")]
    output: Option<Format>,
    /// Say of every node that stays why it does, and what it would take.
    #[arg(long)]
    explain: bool,
}

impl Arguments {
    fn now(&self) -> anyhow::Result<Timestamp> {
        let now = match &self.now {
            None => jiff::Timestamp::now(),
            Some(text) => text.parse().ok().with_context(|| {
                format!("--now: expected a time such as 2026-01-31T12:00:00Z, found {text:?}")
            })?,
        };
        Ok(Timestamp(u64::try_from(now.as_millisecond()).unwrap_or(0)))
    }

    fn options(&self) -> anyhow::Result<DisruptOptions> {
        let text = &self.payback_period;
        let period = parse_duration(text)
            .with_context(|| format!("--payback-period: expected a duration such as 30m, found {text:?}"))?;
        let cost = self.eviction_cost;
        let eviction = Usd::from_usd(cost)
            .with_context(|| format!("--eviction-cost: expected US dollars of zero or more, found {cost}"))?;
        Ok(DisruptOptions {
            solve: SolveOptions { explain: self.explain, ..SolveOptions::default() },
            max_moves: self.max_moves,
            spot_to_spot: !self.no_spot_to_spot,
            payback: PaybackDefaults { period, eviction, ..PaybackDefaults::default() },
            explain: self.explain,
            ..DisruptOptions::default()
        })
    }
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let (now, options) = (arguments.now()?, arguments.options()?);
    let (mut snapshot, invalid) = arguments.input.read()?;
    snapshot.now = now;
    for (pod, why) in invalid {
        eprintln!("assay: warning: pod {pod} is left out of account: {why}");
    }
    let started = Instant::now();
    let plan = disrupt(&snapshot, &options);
    let time = started.elapsed();
    if let Err(violations) = check_disruption(&snapshot, &plan) {
        let first = violations.first().map(ToString::to_string).unwrap_or_default();
        bail!("the plan breaks {} rules, which is a bug in assay; the first: {first}", violations.len());
    }
    let format = Format::or_default(arguments.output);
    if format == Format::Table {
        table::write(out, &plan)?;
    } else {
        output::document(out, format, &document::plan(&snapshot, &plan, arguments.explain, time))?;
    }
    Ok(Answer::Yes)
}
