//! The command line of `assay-agent`.
//!
//! Exit status: 0 when it did what was asked, 1 when a report did not get through, 2 on bad usage or bad input, with one
//! line on standard error.

mod survey;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use crate::link::args::{self as run, RunArgs};
use survey::SurveyArgs;

/// Surveys the hardware of one machine, and prints it or reports it to a scheduler.
#[derive(Debug, Parser)]
#[command(
    name = "assay-agent",
    version,
    propagate_version = true,
    max_term_width = 100,
    after_help = "`assay-agent survey` shows this machine now. `assay-agent help <COMMAND>` has examples."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Survey(SurveyArgs),
    Run(RunArgs),
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match cli.command {
        Command::Survey(args) => survey::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Run(args) => run::run(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("assay-agent: {error:#}");
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
        eprintln!("assay-agent: {}; see --help", one_line(&error.to_string()));
    }
    if asked_for_help { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// The first paragraph of clap's message, which says what is wrong; tips and usage follow it.
fn one_line(message: &str) -> String {
    let paragraph = message.split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().skip_while(|word| *word == "error:").collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mistake_is_told_in_one_line() {
        let said = |arguments: &[&str]| one_line(&Cli::try_parse_from(arguments).unwrap_err().to_string());
        assert_eq!(said(&["assay-agent", "survey", "--colour"]), "unexpected argument '--colour' found");
        assert_eq!(
            said(&["assay-agent", "survey", "-o", "xml"]),
            "invalid value 'xml' for '--output <FORMAT>' [possible values: table, json, yaml]"
        );
    }
}
