//! Owns the way to the simulation: builds its binary, plays seeds, and in CI the fixed ones, twice, and the recorded killers of mutants.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::steps::{cargo, root, run, target_dir};

/// Seeds that CI plays besides the recorded ones.
const CI_SEEDS: &str = "1..301";
/// Seeds that CI plays a second time, backwards, to compare digests.
const CI_TWICE: &str = "1..41";
/// At every so many writes of a transition of the example platform the operator is killed in CI; `cargo xtask sim --points 1` does it
/// at every one.
const CI_POINTS: &str = "23";

/// Histories of locks that CI checks besides those of the tests.
const CI_HISTORIES: &str = "1001..1101";

/// `cargo xtask sim ARGS`: builds the binary for speed and hands the arguments on.
pub(crate) fn sim(arguments: &[&str]) -> Result<()> {
    let binary = build("sim")?;
    run(std::process::Command::new(binary).args(arguments).current_dir(root()))
}

/// What CI plays. It uses the profile of tests, whose dependencies are built already.
pub(crate) fn ci() -> Result<()> {
    let binary = build("dev")?;
    let play = |arguments: &[&str]| run(std::process::Command::new(&binary).args(arguments).current_dir(root()));
    play(&["--seeds", CI_SEEDS])?;
    play(&["--twice", CI_TWICE])?;
    play(&["--points", CI_POINTS])?;
    play(&["--histories", CI_HISTORIES])?;
    play(&["--recorded", "tests/simulation"])
}

fn build(profile: &str) -> Result<PathBuf> {
    run(cargo().args(["build", "--locked", "--profile", profile, "--package", "qm-tests", "--features", "mutants", "--bin", "sim"]))?;
    let folder = if profile == "dev" { "debug" } else { profile };
    let binary = target_dir()?.join(folder).join("sim");
    if !binary.is_file() {
        bail!("{} was not built", binary.display());
    }
    binary.canonicalize().with_context(|| format!("{} cannot be found", binary.display()))
}
