//! Owns the fuzz targets' build and runs. libFuzzer with coverage guidance, on stable Rust: the instrumentation pass of LLVM is reached
//! by stable flags, as `cargo fuzz --sanitizer none` does, so nothing needs a nightly compiler or cargo-fuzz.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::steps::{self, cargo, root, target_dir};

/// The targets in fuzz/.
const TARGETS: &[&str] = &["manifest", "api_request"];

/// What libFuzzer wants to know of a program, as `cargo fuzz` asks for it.
const INSTRUMENTATION: &[&str] = &[
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];

/// How to fuzz.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Only this target.
    pub(crate) target: Option<String>,
    /// How long each target runs.
    pub(crate) seconds: u32,
    /// What reached something new goes to fuzz/corpus.
    pub(crate) keep: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { target: None, seconds: 60, keep: false }
    }
}

impl Options {
    /// Reads the arguments of `cargo xtask fuzz`.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match *argument {
                "--seconds" => options.seconds = rest.next().and_then(|n| n.parse().ok()).context("--seconds wants a number")?,
                "--keep" => options.keep = true,
                name if TARGETS.contains(&name) => options.target = Some(name.to_owned()),
                other => bail!("`{other}` is neither an option nor a target; the targets are {}", TARGETS.join(", ")),
            }
        }
        Ok(options)
    }
}

/// Builds the targets; gives the folder that they are in.
pub(crate) fn build() -> Result<PathBuf> {
    let host = host_triple()?;
    let target_dir = target_dir()?.join("fuzz");
    // With an explicit target the flags stay away from build scripts and macros.
    steps::run(
        cargo()
            .args(["build", "--locked", "--release", "--manifest-path", "fuzz/Cargo.toml", "--target", &host, "--target-dir"])
            .arg(&target_dir)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env("RUSTFLAGS", INSTRUMENTATION.join(" ")),
    )
    .context("the fuzz targets cannot be built; the compiler says why above (libFuzzer itself is C++ and needs g++)")?;
    Ok(target_dir.join(&host).join("release"))
}

/// Builds and runs the targets; tells executions and coverage of each.
pub(crate) fn run(options: &Options) -> Result<()> {
    let built = build()?;
    let mut found = Vec::new();
    for name in TARGETS.iter().filter(|name| options.target.as_deref().is_none_or(|only| only == **name)) {
        let binary = built.join(name);
        match one(name, &binary, options) {
            Ok(line) => println!("    {line}"),
            Err(error) => found.push(format!("{name}: {error:#}")),
        }
    }
    if found.is_empty() { Ok(()) } else { bail!("{}", found.join("; ")) }
}

fn one(name: &str, binary: &Path, options: &Options) -> Result<String> {
    let corpus = root().join("fuzz/corpus").join(name);
    let artifacts = root().join("fuzz/artifacts").join(name);
    std::fs::create_dir_all(&artifacts)?;
    let work = tempfile::Builder::new().prefix("qm-fuzz-").tempdir()?;
    let output = Command::new(binary)
        .arg(work.path())
        .arg(&corpus)
        .arg(format!("-max_total_time={}", options.seconds))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048", "-max_len=16384", "-use_value_profile=1"])
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{} cannot be run", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let last: Vec<&str> = text.lines().rev().take(40).collect();
        bail!(
            "{}\nthe input is in fuzz/artifacts/{name}; fix it, then put it into fuzz/corpus/{name}",
            last.into_iter().rev().collect::<Vec<_>>().join("\n")
        );
    }
    let fresh = count(work.path())?;
    if options.keep {
        steps::run(Command::new(binary).arg("-merge=1").arg(&corpus).arg(work.path()).stderr(Stdio::null()))?;
    }
    let executions = number_after(&text, "stat::number_of_executed_units:");
    let coverage = text.lines().rev().find(|line| line.contains(" cov: ")).map_or(0, |line| number_after(line, " cov:"));
    let features = text.lines().rev().find(|line| line.contains(" ft: ")).map_or(0, |line| number_after(line, " ft:"));
    if executions == 0 || coverage == 0 {
        bail!("the run was not guided: {executions} executions, coverage {coverage}");
    }
    Ok(format!(
        "fuzz {name}: {executions} executions in {} s, coverage {coverage} edges, {features} features, {fresh} new inputs, 0 findings; corpus {}",
        options.seconds,
        count(&corpus)?
    ))
}

fn count(dir: &Path) -> Result<usize> {
    Ok(std::fs::read_dir(dir).with_context(|| format!("{} cannot be read", dir.display()))?.count())
}

fn number_after(text: &str, label: &str) -> u64 {
    let rest = text.split_once(label).map_or("", |(_, rest)| rest).trim_start();
    rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

fn host_triple() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    let output = Command::new(rustc).arg("-vV").output().context("rustc cannot be run")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned).context("rustc does not name its host")
}
