//! `assay demo`: the whole loop on one machine.

use std::io::Write;
use std::path::PathBuf;

use super::Answer;
use crate::demo;

/// Arguments of `assay demo`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  assay demo                 half a minute: machines are bought, measured, relabelled, replaced, given back
  assay demo --keep          stay until Ctrl-C, and say how another agent joins
  assay demo | cat           plain lines

Needs no cluster and no cloud account. Everything listens on loopback only.")]
pub(super) struct Arguments {
    /// Seconds of the simulated world in one second.
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=600))]
    speed: u32,
    /// Seed of everything random.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Stay until interrupted instead of ending with the scenario.
    #[arg(long)]
    keep: bool,
    /// The agent's program, which surveys this machine; otherwise the assay-agent beside this program.
    #[arg(long, value_name = "FILE")]
    agent: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments, out: &mut dyn Write) -> anyhow::Result<Answer> {
    let beside = || {
        let program = std::env::current_exe().ok()?.with_file_name("assay-agent");
        program.is_file().then_some(program)
    };
    let options = demo::Options {
        speed: arguments.speed,
        seed: arguments.seed,
        keep: arguments.keep,
        agent: arguments.agent.clone().or_else(beside),
    };
    demo::run(&options, out)?;
    Ok(Answer::Yes)
}
