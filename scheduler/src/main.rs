//! `assay`: the scheduler's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    assay_scheduler::cli::main()
}
