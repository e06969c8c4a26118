//! The command line: one file per command, arguments beside what they do.
//!
//! Exit codes: 0 on success, 1 where the answer is no, 2 on bad usage or bad input, with one line on standard error.

mod catalog;
mod crds;
mod demo;
mod disrupt;
mod input;
pub(crate) mod narration;
mod output;
mod plan;
mod profiles;
mod serve;
mod simulate;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

/// A node autoprovisioner for Kubernetes on Azure that measures the hardware it buys.
#[derive(Debug, Parser)]
#[command(
    name = "assay",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "`assay plan -f pods.yaml` needs no cluster and no account. `assay help <COMMAND>` has examples."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decide offline what to buy for the pods in some manifests.
    Plan(plan::Arguments),
    /// Decide offline which nodes of a cluster can go, and what takes their place.
    Disrupt(disrupt::Arguments),
    /// Show the whole loop on this machine: buy, measure, relabel, replace, give back. No cluster, no cloud account.
    Demo(demo::Arguments),
    /// Play a scenario in virtual time: pods, a cloud with its faults, machines that differ from the catalogue.
    Simulate(simulate::Arguments),
    /// Show what could be bought, and how much of it pods would get.
    Catalog(catalog::Arguments),
    /// Run a cluster: watch it, buy and release machines for it, and take the reports of its agents.
    Serve(Box<serve::Arguments>),
    /// Print the CustomResourceDefinitions of Assay's kinds.
    #[command(hide = true)]
    Crds(crds::Arguments),
}

/// What a command has to say when it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Exit 0.
    Yes,
    /// Exit 1.
    No,
}

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = match arguments.command {
        Command::Demo(arguments) => demo::run(&arguments, &mut out),
        Command::Simulate(arguments) => simulate::run(&arguments, &mut out),
        Command::Plan(arguments) => plan::run(&arguments, &mut out),
        Command::Disrupt(arguments) => disrupt::run(&arguments, &mut out),
        Command::Catalog(arguments) => catalog::run(&arguments, &mut out),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Crds(arguments) => crds::run(&arguments, &mut out),
    };
    let result = result.and_then(|answer| {
        out.flush()?;
        Ok(answer)
    });
    match result {
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(1),
        // Whoever read the output has seen enough.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("assay: {}", told(&error));
            ExitCode::from(2)
        }
    }
}

/// Help and version go out as they are, a mistake as one line.
fn usage(error: &clap::Error) -> ExitCode {
    let asked_for_help = !error.use_stderr();
    if asked_for_help || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Whoever reads may have gone.
        let _ = error.print();
    } else {
        eprintln!("assay: {}; see --help", one_line(&error.to_string()));
    }
    if asked_for_help { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// The first paragraph of clap's message, which says what is wrong; tips and usage follow it.
fn one_line(message: &str) -> String {
    let paragraph = message.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().skip_while(|word| *word == "error:").collect();
    words.join(" ")
}

/// An error with its causes in one line. Some errors tell their cause themselves; it is not said again.
fn told(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if !line.contains(&cause) {
            line = if line.is_empty() { cause } else { format!("{line}: {cause}") };
        }
    }
    line.replace('\n', " ")
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
