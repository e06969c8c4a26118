//! Benchmarks. `make bench` prints what is quick to measure as one table, with the machine it ran on; each subject can
//! also be measured on its own, and the long ones only so.

mod cost;
mod disrupt;
mod fleet;
mod growth;
mod karpenter;
mod kube;
mod observe;
mod process;
mod recipe;
mod report;
mod roadef;
mod solver;
mod survey;
mod warm;

use clap::{Parser, Subcommand};

/// Measures Assay on this machine.
#[derive(Debug, Parser)]
#[command(name = "assay-bench", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What is quick: survey, solver and fleet link. The default.
    All,
    /// The survey of this machine.
    Survey,
    /// Plans of mixed pods on the built-in catalogue.
    Solver,
    /// The fleet link: memory, reports per second.
    Fleet,
    /// Side by side with Karpenter's own scheduler; needs Go. Some minutes.
    Karpenter {
        /// Leave out inputs of the recipe with more pods.
        #[arg(long, default_value_t = 40_000, value_name = "PODS")]
        most: usize,
        /// Only inputs with this in their names; the page of results is left as it is.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Without Karpenter; the page of results is left as it is.
        #[arg(long)]
        alone: bool,
    },
    /// What plans cost, against proven bounds and other ways to pack. Some minutes.
    Cost {
        /// Only sets of pods with this in their names; the page of results is left as it is.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
        /// Steps of the optimiser, where not those of a plan.
        #[arg(long)]
        steps: Option<u64>,
    },
    /// Disruption plans: how long they take, what they save, and what so many moves buy. Some minutes.
    Disrupt {
        /// Only `speed`, `beside` (which needs Go), `day`, or sets of pods with this in their names; the page of results is left as it is.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// The machine reassignment challenge of 2012, beside the best that is known. Some minutes.
    Roadef {
        /// Only instances with this in their names; the page of results is left as it is.
        #[arg(long, value_name = "TEXT")]
        only: Option<String>,
    },
    /// How the time of a solve grows with pods, instance types and nodes.
    Growth,
    /// One pod arriving at 5,000 nodes and 100,000 pods.
    Warm,
    /// Knowing 5,000 nodes and 100,000 pods: memory and time.
    Observe,
    /// A real control plane: from pod to claim, API calls per node, many nodes out and in; needs Go. Some minutes.
    Kube {
        /// Nodes to scale out to; of another size, the page of results is left as it is.
        #[arg(long, default_value_t = kube::NODES)]
        nodes: usize,
        /// Pods on each of them.
        #[arg(long, default_value_t = kube::PODS_PER_NODE)]
        pods_per_node: usize,
    },
}

fn main() -> anyhow::Result<()> {
    if let Some(done) = fleet::child().or_else(observe::child) {
        return done;
    }
    match Arguments::parse().command.unwrap_or(Command::All) {
        Command::All => {
            report::heading();
            survey::run()?;
            solver::run()?;
            fleet::run()
        }
        Command::Survey => {
            report::heading();
            survey::run()
        }
        Command::Solver => {
            report::heading();
            solver::run()
        }
        Command::Fleet => fleet::run(),
        Command::Cost { only, steps } => cost::run(&report::machine(), only.as_deref(), steps),
        Command::Disrupt { only } => disrupt::run(only.as_deref()),
        Command::Roadef { only } => roadef::run(only.as_deref()),
        Command::Growth => growth::run(),
        Command::Warm => warm::run(),
        Command::Observe => observe::run(),
        Command::Kube { nodes, pods_per_node } => kube::run(nodes, pods_per_node),
        Command::Karpenter { most, only, alone } => karpenter::run(most, only.as_deref(), alone),
    }
}
