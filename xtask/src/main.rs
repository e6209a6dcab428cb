//! Chores of the repository: `cargo xtask COMMAND`. Owns no rule of the product; start at [`main`] for the commands, at `ci` for what is
//! checked, at `bench` for what is measured.

mod bench;
mod chores;
mod docker;
mod engine;
mod fuzz;
mod sim;
mod steps;

use std::process::ExitCode;

use anyhow::{Result, bail};

const USAGE: &str = "usage: cargo xtask COMMAND

  test [ARGS]              build the binary, start Docker if none answers, run all tests; ARGS go to the runner
  ci                       fmt, clippy, build of the fuzz targets, generated files, test, simulation, fuzz 60 s a
                           target, check for aarch64
  codegen [--check]        write the generated files, or only say which are out of date
  tidy                     fmt and codegen
  fuzz [TARGET] [--seconds N] [--keep]
                           run the fuzz targets, guided by coverage; --keep adds what was found to fuzz/corpus
  sim --seed N [--log] [--shrink] [--mutant NAME] | --seeds A..B [--jobs N] [--stop-at-first] | --twice A..B | --recorded DIR
                           play the whole operator against a simulated engine in virtual time
  bench [--quick] [--only NAME] [--bin PATH]
                           measure against Compose v2 and bare API calls, on a real Docker, and at scale on a simulated one
";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["test", rest @ ..] => chores::test(rest),
        ["ci"] => chores::ci(),
        ["codegen"] => chores::codegen(),
        ["codegen", "--check"] => chores::check_generated(),
        ["tidy"] => chores::tidy(),
        ["fuzz", rest @ ..] => fuzz::run(&fuzz::Options::parse(rest)?),
        ["sim", rest @ ..] => sim::sim(rest),
        ["bench", rest @ ..] => bench::run(&bench::Options::parse(rest)?),
        _ => bail!("{USAGE}"),
    }
}
