//! The `quaymaster` program as a library, so that simulations put the same parts together. The command line is in `cli`, the operator is
//! put together in `wiring`; both decide nothing.

mod cli;
mod client;
mod drill;
mod faces;
pub mod intake;
mod output;
pub mod ports;
mod report;
mod sandbox;
mod wiring;

/// Runs the program with the arguments of the process and gives its exit code.
pub fn main() -> std::process::ExitCode {
    cli::main()
}
