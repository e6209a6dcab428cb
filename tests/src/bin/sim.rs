//! Runs seeds of the simulation: one process a seed, so that nothing of one run reaches another.
//!
//! `sim --seed N` plays one; `sim --seeds A..B` starts such a process for each, some at a time. `sim --points N` kills the operator at every
//! N-th write of each transition of the example platform, before and after it. `sim --histories A..B` checks histories of locks.

use std::cell::Cell;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use qm_api::mutant::{self, Mutant};
use qm_tests::linear;
use qm_tests::simulation::points::{Files, Point, transitions};
use qm_tests::simulation::{self, Script, Verdict};

const USAGE: &str = "usage: sim (--seed N | --seeds A..B | --twice A..B | --recorded DIR | --points STRIDE | --histories A..B) [--mutant NAME] [--log] [--shrink] [--jobs N] [--stop-at-first]";

thread_local! {
    static SEED: Cell<u64> = const { Cell::new(0) };
}

/// The seed of everything that asks the system for random bytes in this process; 0 = the system answers.
static ENTROPY: AtomicU64 = AtomicU64::new(0);

/// Answers for the system's random generator, so that hash maps of libraries are the same in every process.
///
/// # Safety
/// As for the function of the C library: `buffer` is valid for writes of `length` bytes.
#[expect(unsafe_code, reason = "the one way to give hash maps of libraries a seed on stable Rust")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, flags: u32) -> isize {
    if ENTROPY.load(Ordering::Relaxed) == 0 {
        // SAFETY: the caller's promise is the same for the system's call.
        let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
        let flags = rustix::rand::GetRandomFlags::from_bits_retain(flags);
        return rustix::rand::getrandom(bytes, flags).map_or(-1, |n| n as isize);
    }
    for at in 0..length {
        let number = SEED.with(|seed| {
            seed.set(seed.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
            let mut z = seed.get() ^ ENTROPY.load(Ordering::Relaxed);
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z ^ (z >> 27)
        });
        // SAFETY: `at` is below the length that the caller promised.
        unsafe { *buffer.add(at) = number as u8 };
    }
    length as isize
}

#[derive(Debug, Default)]
struct Options {
    seed: Option<u64>,
    seeds: Option<(u64, u64)>,
    twice: Option<(u64, u64)>,
    recorded: Option<PathBuf>,
    points: Option<u64>,
    histories: Option<(u64, u64)>,
    mutant: Option<String>,
    log: bool,
    shrink: bool,
    stop_at_first: bool,
    jobs: usize,
    keep: Option<Vec<usize>>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn parse() -> Result<Options> {
    let mut options = Options { jobs: 2, ..Options::default() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} wants a value"));
        match argument.as_str() {
            "--seed" => options.seed = Some(value()?.parse()?),
            "--seeds" => options.seeds = Some(range(&value()?)?),
            "--twice" => options.twice = Some(range(&value()?)?),
            "--recorded" => options.recorded = Some(value()?.into()),
            "--histories" => options.histories = Some(range(&value()?)?),
            "--points" => options.points = Some(value()?.parse()?),
            "--mutant" => options.mutant = Some(value()?),
            "--jobs" => options.jobs = value()?.parse()?,
            "--keep" => options.keep = Some(value()?.split(',').filter(|t| !t.is_empty()).map(str::parse).collect::<Result<_, _>>()?),
            "--log" => options.log = true,
            "--shrink" => options.shrink = true,
            "--stop-at-first" => options.stop_at_first = true,
            other => bail!("`{other}` is no option\n{USAGE}"),
        }
    }
    Ok(options)
}

fn range(text: &str) -> Result<(u64, u64)> {
    let (from, to) = text.split_once("..").context("seeds are given as A..B")?;
    Ok((from.parse()?, to.parse()?))
}

/// Whether all went well.
fn run() -> Result<bool> {
    let options = parse()?;
    if let Some((from, to)) = options.twice {
        return twice(from, to, &options);
    }
    if let Some(folder) = &options.recorded {
        return recorded(folder);
    }
    if let Some((from, to)) = options.histories {
        if let Some(name) = &options.mutant {
            mutant::pick(Mutant::named(name).with_context(|| format!("there is no mutant `{name}`"))?);
        }
        return Ok(histories(from, to));
    }
    if let Some(stride) = options.points {
        if let Some(name) = &options.mutant {
            mutant::pick(Mutant::named(name).with_context(|| format!("there is no mutant `{name}`"))?);
        }
        return points(stride.max(1), options.jobs);
    }
    match (options.seed, options.seeds) {
        (Some(seed), None) => one(seed, &options),
        (None, Some((from, to))) => many(from, to, &options),
        _ => bail!("{USAGE}"),
    }
}

fn script(seed: u64, keep: Option<&[usize]>) -> Script {
    let mut script = Script::draw(seed);
    if let Some(keep) = keep {
        let acts = std::mem::take(&mut script.acts);
        script.acts = acts.into_iter().enumerate().filter(|(index, _)| keep.contains(index)).map(|(_, act)| act).collect();
    }
    script
}

fn one(seed: u64, options: &Options) -> Result<bool> {
    if let Some(name) = &options.mutant {
        mutant::pick(Mutant::named(name).with_context(|| format!("there is no mutant `{name}`"))?);
    }
    if options.shrink {
        return shrink(seed, options);
    }
    ENTROPY.store(seed.wrapping_mul(2).wrapping_add(1), Ordering::Relaxed);
    let verdict = simulation::run(&script(seed, options.keep.as_deref()), options.log);
    print(seed, &verdict, options.log)?;
    Ok(verdict.violations.is_empty())
}

fn print(seed: u64, verdict: &Verdict, log: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if log {
        for line in &verdict.log {
            writeln!(out, "{line}")?;
        }
    }
    for violation in &verdict.violations {
        writeln!(out, "seed {seed}: {violation}")?;
    }
    let word = if verdict.violations.is_empty() { "ok" } else { "FAILED" };
    let digest = &verdict.digest[..16.min(verdict.digest.len())];
    writeln!(out, "seed {seed} {word} {digest} {} lines {} calls {} s virtual", verdict.lines, verdict.calls, verdict.virtual_ms / 1_000)?;
    Ok(())
}

/// Another process for one run, with some acts only.
fn child(seed: u64, options: &Options, keep: Option<&[usize]>) -> Result<(bool, String)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--seed", &seed.to_string()]);
    if let Some(mutant) = &options.mutant {
        command.args(["--mutant", mutant]);
    }
    if let Some(keep) = keep {
        command.args(["--keep", &keep.iter().map(usize::to_string).collect::<Vec<_>>().join(",")]);
    }
    let output = command.stdin(Stdio::null()).output()?;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)))
}

fn shrink(seed: u64, options: &Options) -> Result<bool> {
    let mut keep: Vec<usize> = (0..Script::draw(seed).acts.len()).collect();
    if child(seed, options, Some(&keep))?.0 {
        println!("seed {seed} does not fail");
        return Ok(true);
    }
    let mut size = keep.len().div_ceil(2);
    while size >= 1 {
        let mut at = 0;
        while at < keep.len() {
            let mut fewer = keep.clone();
            fewer.drain(at..(at + size).min(fewer.len()));
            if child(seed, options, Some(&fewer))?.0 { at += size } else { keep = fewer }
        }
        size /= 2;
    }
    println!("seed {seed} fails with {} acts: --keep {}", keep.len(), keep.iter().map(usize::to_string).collect::<Vec<_>>().join(","));
    for timed in script(seed, Some(&keep)).acts {
        println!("  {:>9.3} {:?}", timed.at_ms as f64 / 1_000.0, timed.act);
    }
    print!("{}", child(seed, options, Some(&keep))?.1);
    Ok(false)
}

/// Plays seeds forwards and, in other processes, backwards: the same seed must leave the same log, byte for byte.
fn twice(from: u64, to: u64, options: &Options) -> Result<bool> {
    let digest = |seed: u64| -> Result<String> {
        let (_, output) = child(seed, options, None)?;
        let last = output.lines().rev().find(|l| l.starts_with("seed ")).unwrap_or_default();
        Ok(last.split(' ').nth(3).unwrap_or_default().to_owned())
    };
    let forwards = (from..to).map(&digest).collect::<Result<Vec<_>>>()?;
    let mut backwards = (from..to).rev().map(&digest).collect::<Result<Vec<_>>>()?;
    backwards.reverse();
    let differ: Vec<u64> = (from..to).zip(forwards.iter().zip(&backwards)).filter(|(_, (a, b))| a != b).map(|(seed, _)| seed).collect();
    println!("seeds {from}..{to} twice: {} differ {differ:?}", differ.len());
    Ok(differ.is_empty())
}

/// Plays what is recorded: seeds that failed once and must pass, and for each mutant a seed that must catch it.
fn recorded(folder: &Path) -> Result<bool> {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).with_context(|| format!("{name} cannot be read"));
    let lines = |text: String| -> Vec<String> {
        text.lines().map(|l| l.split('#').next().unwrap_or_default().trim().to_owned()).filter(|l| !l.is_empty()).collect()
    };
    let mut fine = true;
    let failed_once = lines(read("failed-once.txt")?);
    for line in &failed_once {
        let (passes, output) = child(line.parse().with_context(|| format!("`{line}` is no seed"))?, &Options::default(), None)?;
        if !passes {
            print!("{output}");
            fine = false;
        }
    }
    let killers = lines(read("killers.txt")?);
    let (mut survivors, mut unrecorded) = (Vec::new(), Vec::new());
    for mutant in Mutant::ALL {
        let name = mutant.name();
        let seed = killers.iter().find_map(|l| l.strip_prefix(&name)?.trim().parse::<u64>().ok());
        let Some(seed) = seed else {
            unrecorded.push(name);
            continue;
        };
        let (passes, _) = child(seed, &Options { mutant: Some(name.clone()), ..Options::default() }, None)?;
        // A seed that fails without the mutant says nothing about it.
        let (is_honest, _) = child(seed, &Options::default(), None)?;
        if passes || !is_honest {
            survivors.push(format!("{name} with seed {seed}"));
        }
    }
    for mutant in [Mutant::LostFence, Mutant::FenceGoesBack] {
        if !is_caught_by_histories(mutant)? {
            survivors.push(format!("{} with histories of locks", mutant.name()));
        }
    }
    println!("{} seeds that failed once; {} mutants, not caught: {survivors:?}", failed_once.len(), Mutant::ALL.len());
    println!("mutants for which no seed was found yet: {unrecorded:?}");
    Ok(fine && survivors.is_empty())
}

/// Checks histories of locks for linearizability.
fn histories(from: u64, to: u64) -> bool {
    match linear::play::check(from..to, linear::play::Place::Memory) {
        Ok(played) => {
            let (done, fenced) = played.writes;
            println!("histories {from}..{to}: {} calls, {done} writes, {fenced} fenced off, all explained", played.calls.len());
            true
        }
        Err(why) => {
            println!("histories {from}..{to}: {why}");
            false
        }
    }
}

/// Histories in which this defect is planted must be inexplicable.
fn is_caught_by_histories(mutant: Mutant) -> Result<bool> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--histories", "1..4", "--mutant", &mutant.name()]);
    Ok(!command.stdin(Stdio::null()).stdout(Stdio::null()).status()?.success())
}

/// The example platform, its files by their path.
fn platform() -> Result<Files> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/platform");
    let mut files = Files::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
                files.insert(path.strip_prefix(&root)?.to_string_lossy().into_owned(), text);
            }
        }
    }
    Ok(files)
}

/// Kills the operator before and after every `stride`-th write of each transition, and judges the end.
fn points(stride: u64, jobs: usize) -> Result<bool> {
    let mut fine = true;
    for transition in transitions(&platform()?) {
        let writes = match simulation::run_point(&transition, None) {
            Ok(writes) => writes,
            Err(wrong) => {
                println!("{}: {wrong}", transition.name);
                fine = false;
                continue;
            }
        };
        let all: Vec<Point> =
            (1..=writes).step_by(stride as usize).flat_map(|write| [false, true].map(|after| Point { write, after })).collect();
        let next = AtomicU64::new(0);
        let failed: Mutex<Vec<String>> = Mutex::default();
        std::thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| {
                    while let Some(point) = all.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        if let Err(wrong) = simulation::run_point(&transition, Some(*point))
                            && let Ok(mut failed) = failed.lock()
                        {
                            failed.push(format!("{point:?}: {wrong}"));
                        }
                    }
                });
            }
        });
        let failed = failed.into_inner().unwrap_or_default();
        failed.iter().for_each(|line| println!("{}: {line}", transition.name));
        println!("{}: {writes} writes, killed at {} points, {} failed", transition.name, all.len(), failed.len());
        // A transition without writes shows nothing.
        fine &= failed.is_empty() && writes > 10;
    }
    Ok(fine)
}

fn many(from: u64, to: u64, options: &Options) -> Result<bool> {
    let next = AtomicU64::new(from);
    let failed: Mutex<Vec<u64>> = Mutex::default();
    let digests: Mutex<Vec<(u64, String)>> = Mutex::default();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..options.jobs.max(1))
            .map(|_| {
                scope.spawn(|| -> Result<()> {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        let is_over = options.stop_at_first && !failed.lock().is_ok_and(|f| f.is_empty());
                        if seed >= to || is_over {
                            return Ok(());
                        }
                        let (fine, output) = child(seed, options, options.keep.as_deref())?;
                        let last = output.lines().rev().find(|l| l.starts_with("seed ")).unwrap_or_default().to_owned();
                        if let Ok(mut digests) = digests.lock() {
                            digests.push((seed, last.split(' ').nth(3).unwrap_or_default().to_owned()));
                        }
                        if !fine {
                            print!("{output}");
                            if let Ok(mut failed) = failed.lock() {
                                failed.push(seed);
                            }
                        } else if seed.is_multiple_of(500) {
                            println!("{last}");
                        }
                    }
                })
            })
            .collect();
        workers.into_iter().try_for_each(|w| w.join().unwrap_or_else(|_| bail!("a worker panicked")))
    })?;
    let mut failed = failed.into_inner().unwrap_or_default();
    failed.sort_unstable();
    let mut digests = digests.into_inner().unwrap_or_default();
    digests.sort();
    let all: String = digests.iter().map(|(seed, digest)| format!("{seed}:{digest};")).collect();
    let together = simulation::rng::hash(&[all.as_bytes()]);
    println!("seeds {from}..{to}: {} played, {} failed {failed:?}, digest {together:016x}", digests.len(), failed.len());
    Ok(failed.is_empty())
}
