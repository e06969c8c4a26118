//! The command line of `assay-agent`.
//!
//! Exit status: 0 when it did what was asked, 2 on bad usage or bad input, with one line on standard error.

mod survey;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use survey::SurveyArgs;

/// Surveys the hardware of one machine, and prints it or reports it to a scheduler.
#[derive(Debug, Parser)]
#[command(name = "assay-agent", version, propagate_version = true, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Survey(SurveyArgs),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Survey(args) => survey::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("assay-agent: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
