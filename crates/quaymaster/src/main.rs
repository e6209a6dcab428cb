//! The `quaymaster` program. Wiring only: the command line is in `cli`, the operator is put together in `wiring`.

mod cli;
mod client;
mod output;
mod report;
mod wiring;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
