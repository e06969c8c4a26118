//! `assay-agent`: surveys the hardware of this machine, prints it or reports it to a scheduler.

use std::process::ExitCode;

fn main() -> ExitCode {
    assay_agent::cli::main()
}
