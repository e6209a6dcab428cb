//! Owns the checks: what CI runs, and its parts by themselves.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::engine::{Engine, SHARED};
use crate::fuzz;
use crate::sim;
use crate::steps::{Outcome, Steps, cargo, root, run, succeeds, target_dir};

/// How long each fuzz target runs in CI.
const FUZZ_SECONDS: u32 = 60;
/// The other architecture that must build.
const OTHER_TARGET: &str = "aarch64-unknown-linux-gnu";

/// Everything that a change must pass.
pub(crate) fn ci() -> Result<()> {
    let mut steps = Steps::default();
    steps.step("fmt", || {
        run(cargo().args(["fmt", "--all", "--", "--check"]))?;
        run(cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml", "--", "--check"]))?;
        Ok(Outcome::Done)
    });
    steps.step("clippy", || {
        run(cargo().args(["clippy", "--locked", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
        Ok(Outcome::Done)
    });
    // A workspace of its own, so nothing above compiles it; better told now than after the tests.
    steps.step("fuzz targets build", || fuzz::build().map(|_| Outcome::Done));
    steps.step("generated files", || check_generated().map(|()| Outcome::Done));
    steps.step("test", || test(&[]).map(|()| Outcome::Done));
    steps.step("simulation", || sim::ci().map(|()| Outcome::Done));
    steps.step("fuzz", || fuzz::run(&fuzz::Options { seconds: FUZZ_SECONDS, ..fuzz::Options::default() }).map(|()| Outcome::Done));
    steps.step("check for aarch64", check_other_target);
    steps.finish()
}

/// All tests, with the binary built and a Docker that answers.
pub(crate) fn test(arguments: &[&str]) -> Result<()> {
    run(cargo().args(["build", "--locked", "--package", "quaymaster", "--package", "qm-example-axum"]))?;
    let binary = target_dir()?.join("debug/quaymaster");
    let example = target_dir()?.join("debug/qm-example-axum");
    for built in [&binary, &example] {
        if !built.is_file() {
            bail!("{} was not built", built.display());
        }
    }
    let engine = Engine::find_or_start()?;
    engine.import_busybox()?;
    let mut runner = cargo();
    if succeeds(cargo().args(["nextest", "--version"])) {
        runner.args(["nextest", "run", "--locked", "--workspace"]);
        if std::env::var_os("CI").is_some() {
            runner.args(["--profile", "ci"]);
        }
    } else {
        println!("    cargo-nextest is not installed: using cargo test");
        runner.args(["test", "--locked", "--workspace", "--no-fail-fast"]);
    }
    runner.args(arguments).env(SHARED, &engine.socket).env("QM_BIN", binary).env("QM_EXAMPLE_AXUM", example);
    let result = run(&mut runner);
    if engine.is_own() {
        println!("    the tests are done");
    }
    result
}

/// Writes the schemas, the CRDs and the index of error codes; leaves files alone that are up to date.
pub(crate) fn codegen() -> Result<()> {
    for (path, text) in out_of_date() {
        let file = root().join(&path);
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create the folder of {path}"))?;
        }
        std::fs::write(&file, text).with_context(|| format!("cannot write {path}"))?;
        println!("wrote {path}");
    }
    Ok(())
}

/// Says which generated files are out of date.
///
/// # Errors
/// When any is.
pub(crate) fn check_generated() -> Result<()> {
    let stale: Vec<String> = out_of_date().into_iter().map(|(path, _)| path).collect();
    if stale.is_empty() { Ok(()) } else { bail!("out of date, run `{}`: {}", qm_api::schema::RENEW, stale.join(", ")) }
}

fn out_of_date() -> Vec<(String, String)> {
    let is_stale = |(path, text): &(String, String)| std::fs::read_to_string(root().join(path)).map_or(true, |found| found != *text);
    qm_api::schema::generated().into_iter().filter(is_stale).collect()
}

/// Brings everything into shape that a tool can.
pub(crate) fn tidy() -> Result<()> {
    run(cargo().args(["fmt", "--all"]))?;
    run(cargo().args(["fmt", "--manifest-path", "fuzz/Cargo.toml"]))?;
    codegen()
}

fn check_other_target() -> Result<Outcome> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", OTHER_TARGET]).output()?;
    let libraries = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if !output.status.success() || !std::path::Path::new(&libraries).is_dir() {
        return Ok(Outcome::NotHere(format!("no std for it: rustup target add {OTHER_TARGET}")));
    }
    run(cargo().args(["check", "--locked", "--package", "quaymaster", "--target", OTHER_TARGET]))?;
    Ok(Outcome::Done)
}
