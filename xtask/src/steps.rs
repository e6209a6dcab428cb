//! Owns how chores are run and told: what runs, how long it took, what failed.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    // As cargo says now, not as it was when this was built: two checkouts may share what is built.
    let own = std::env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    own.parent().map(PathBuf::from).unwrap_or(own)
}

/// The cargo that runs us.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What cargo says to the program it runs is not meant for the cargo that this program runs.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "CARGO_PKG_NAME", "CARGO_PKG_VERSION", "RUSTUP_TOOLCHAIN_SOURCE"] {
        command.env_remove(name);
    }
    command
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let output = cargo().args(["metadata", "--no-deps", "--format-version", "1", "--offline"]).stderr(Stdio::inherit()).output()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).context("cargo metadata gave no JSON")?;
    let dir = metadata["target_directory"].as_str().context("cargo metadata names no target directory")?;
    Ok(PathBuf::from(dir))
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    println!("    $ {shown}");
    let status = command.status().with_context(|| format!("`{shown}` cannot be started"))?;
    if !status.success() {
        bail!("`{shown}` failed: {status}");
    }
    Ok(())
}

/// Whether a command can be run and succeeds; its output is dropped.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn show(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let program = program.rsplit('/').next().unwrap_or(&program).to_owned();
    std::iter::once(program).chain(command.get_args().map(|a| a.to_string_lossy().into_owned())).collect::<Vec<_>>().join(" ")
}

/// How a step ended.
#[derive(Debug)]
enum End {
    Fine,
    NotRun(String),
    Failed(anyhow::Error),
}

/// What a step gives back: that it was done, or why it could not be done here without that being a failure.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It was done.
    Done,
    /// It does not apply on this machine.
    NotHere(String),
}

/// Steps with their ends and times; all are run, whatever fails.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    ended: Vec<(String, Duration, End)>,
}

impl Steps {
    /// Runs one step and tells how it went.
    pub(crate) fn step(&mut self, name: &str, body: impl FnOnce() -> Result<Outcome>) {
        println!("==> {name}");
        let began = Instant::now();
        let end = match body() {
            Ok(Outcome::Done) => End::Fine,
            Ok(Outcome::NotHere(why)) => End::NotRun(why),
            Err(error) => End::Failed(error),
        };
        let took = began.elapsed();
        match &end {
            End::Fine => println!("<== {name}: ok in {:.1} s\n", took.as_secs_f64()),
            End::NotRun(why) => println!("<== {name}: not run here: {why}\n"),
            End::Failed(error) => println!("<== {name}: FAILED after {:.1} s: {error:#}\n", took.as_secs_f64()),
        }
        self.ended.push((name.to_owned(), took, end));
    }

    /// Tells how all went.
    ///
    /// # Errors
    /// When a step failed.
    pub(crate) fn finish(self) -> Result<()> {
        println!("step                     time     result");
        for (name, took, end) in &self.ended {
            let text = match end {
                End::Fine => "ok".to_owned(),
                End::NotRun(why) => format!("not run here: {why}"),
                End::Failed(error) => format!("FAILED: {error:#}"),
            };
            println!("{name:<22} {:>7.1} s   {text}", took.as_secs_f64());
        }
        let failed: Vec<&str> =
            self.ended.iter().filter(|(_, _, end)| matches!(end, End::Failed(_))).map(|(name, _, _)| name.as_str()).collect();
        if failed.is_empty() { Ok(()) } else { bail!("failed: {}", failed.join(", ")) }
    }
}
