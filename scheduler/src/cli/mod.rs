//! The command line: one file per command, arguments beside what they do.
//!
//! Exit codes: 0 on success, 1 where the answer is no, 2 on bad usage or bad input, with one line on standard error.

mod catalog;
mod output;
mod plan;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A node autoprovisioner for Kubernetes on Azure that measures the hardware it buys.
#[derive(Debug, Parser)]
#[command(name = "assay", version, about, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Decide offline what to buy for the pods in some manifests.
    Plan(plan::Arguments),
    /// Show what could be bought, and how much of it pods would get.
    Catalog(catalog::Arguments),
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
    // clap prints its own message and exits 2 on bad usage.
    let arguments = Arguments::parse();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let result = match arguments.command {
        Command::Plan(arguments) => plan::run(&arguments, &mut out),
        Command::Catalog(arguments) => catalog::run(&arguments, &mut out),
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
            eprintln!("assay: {}", format!("{error:#}").replace('\n', " "));
            ExitCode::from(2)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
