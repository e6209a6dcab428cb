//! Owns the measurements: Quaymaster beside Compose v2 and bare API calls, in one run on one machine, interleaved, medians and ratios.
//!
//! Wall-clock figures belong here and never in an assertion. Everything that is started is ended, everything that is made is removed. Start
//! at [`run`]; each measurement is a function of `cold`, `steady` or `footprint`.

mod asks;
mod cold;
mod compose;
mod footprint;
mod operator;
mod proxy;
mod report;
mod scale;
mod steady;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::engine::Engine;
use crate::steps::{cargo, run as run_command, target_dir};
use operator::Setup;
use report::Report;

/// What is measured, and how often.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// Few rounds and small sets: whether the bench works, not what it says.
    pub(crate) quick: bool,
    /// Only the measurements whose name has this in it.
    pub(crate) only: Option<String>,
    /// The binary to measure; built when not given.
    pub(crate) binary: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments of `cargo xtask bench`.
    pub(crate) fn parse(arguments: &[&str]) -> Result<Self> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            match *argument {
                "--quick" => options.quick = true,
                "--only" => options.only = Some((*rest.next().context("--only wants a part of a name")?).to_owned()),
                "--bin" => options.binary = Some(PathBuf::from(rest.next().context("--bin wants a path")?)),
                other => bail!("`{other}` is no option of bench: --quick, --only NAME, --bin PATH"),
            }
        }
        Ok(options)
    }
}

/// One measurement, which adds its rows to the table.
type Measurement<'a> = dyn Fn(&mut Report) -> Result<()> + 'a;

/// Measures everything and prints one table.
pub(crate) fn run(options: &Options) -> Result<()> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => {
            run_command(cargo().args(["build", "--locked", "--release", "--package", "quaymaster"]))?;
            target_dir()?.join("release/quaymaster")
        }
    };
    let engine = Engine::find_or_start()?;
    engine.import_busybox()?;
    let compose = compose::find();
    let setup = Setup { binary, engine_socket: engine.socket.clone(), docker_host: engine.host() };
    let mut report = Report::default();
    let rounds = if options.quick { 2 } else { 7 };
    let counts: &[usize] = if options.quick { &[200] } else { &[1_000, 10_000] };
    let measurements: [(&str, &Measurement<'_>); 11] = [
        ("20 containers cold", &|r| cold::twenty(&setup, compose.as_deref(), rounds, r)),
        ("12 gated services", &|r| cold::gated(&setup, compose.as_deref(), rounds, r)),
        ("no-op pass", &|r| steady::no_op(&setup, compose.as_deref(), rounds, r)),
        ("file drop to first write", &|r| steady::file_drop(&setup, if options.quick { 7 } else { 100 }, r)),
        ("event to repair", &|r| steady::repair(&setup, if options.quick { 7 } else { 100 }, r)),
        ("idle", &|r| footprint::idle(&setup, if options.quick { 10 } else { 100 }, r)),
        ("scale", &|r| scale::scale(&setup, counts, r)),
        ("one node changes", &|r| asks::graph(10_000, if options.quick { 20 } else { 500 }, r)),
        ("usable", &|r| asks::usable(&setup, rounds, r)),
        ("locks", &|r| asks::locks(&setup, r)),
        ("start and size", &|r| footprint::start_and_size(&setup, rounds, r)),
    ];
    for (name, measure) in measurements.into_iter().filter(|(name, _)| options.only.as_ref().is_none_or(|only| name.contains(only))) {
        println!("==> {name}");
        if let Err(error) = measure(&mut report) {
            println!("    FAILED: {error:#}");
            report.failed(name, &format!("{error:#}"));
        }
    }
    report.print(compose.is_some(), options.quick)
}
