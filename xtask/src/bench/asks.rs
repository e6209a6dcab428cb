//! What apps ask for all day: may I use it, and locks; and the engine that knows the answer, by itself.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::operator::{Operator, Setup, service};
use super::report::{Report, Samples};
use super::scale::Simulator;
use crate::engine::terminate;
use crate::steps::{cargo, run as run_command, target_dir};

/// Connections at once.
const CLIENTS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// Builds what must be built as the product is.
fn parts() -> Result<PathBuf> {
    run_command(cargo().args(["build", "--locked", "--release", "--package", "xtask", "--features", "parts", "--bin", "parts"]))?;
    Ok(target_dir()?.join("release/parts"))
}

/// One node's change in graphs of ten thousand.
pub(crate) fn graph(nodes: usize, changes: usize, report: &mut Report) -> Result<()> {
    let ran = Command::new(parts()?).args(["graph", &nodes.to_string(), &changes.to_string()]).output()?;
    let shapes: BTreeMap<String, Value> = serde_json::from_slice(&ran.stdout).context("the graph bench printed no JSON")?;
    for (name, row) in shapes {
        let number = |field: &str| row[field].as_f64().unwrap_or(f64::NAN);
        let measured = format!(
            "p50 {:.3} ms, p99 {:.3} ms to the published snapshot, up to {:.0} affected",
            number("p50") / 1e3,
            number("p99") / 1e3,
            number("most")
        );
        let visited = format!("visited at most {:.2} of the affected and their edges", number("visitedOfAllowed"));
        let is_kept = number("p99") <= 5_000.0 && number("visitedOfAllowed") <= 1.0;
        report.row(
            &format!("one node changes, {name} of {nodes}"),
            measured,
            visited,
            "p99 <= 5 ms, visits <= affected + edges",
            Some(is_kept),
        );
    }
    Ok(())
}

/// A bare server to measure against.
struct Echo {
    child: Child,
    dir: tempfile::TempDir,
}

impl Echo {
    fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("qm-echo-").tempdir()?;
        let socket = dir.path().join("echo.sock");
        let child = Command::new(parts()?).arg("echo").arg(&socket).stdin(Stdio::null()).spawn()?;
        let echo = Self { child, dir };
        let began = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            if began.elapsed() > Duration::from_secs(10) {
                bail!("the bare server does not answer");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(echo)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("echo.sock")
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        terminate(&mut self.child, Duration::from_secs(5));
    }
}

/// A connection that is kept.
struct Line(BufReader<UnixStream>);

impl Line {
    fn open(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(stream)))
    }

    /// One request, its status and its body.
    fn ask(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.0.get_mut().write_all(request)?;
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                bail!("the connection ended");
            }
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.get(..3).unwrap_or_default().parse()?;
            } else if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse()?;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: local\r\n\r\n").into_bytes()
}

fn post(path: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!("POST {path} HTTP/1.1\r\nHost: local\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

/// Asks on several connections for a while: answers a second, how long each took in milliseconds, and what was said.
fn load(socket: &Path, request: &[u8], span: Duration, heard: &(impl Fn(&[u8]) + Sync)) -> Result<(f64, Vec<f64>)> {
    let one = || -> Result<Vec<f64>> {
        let mut line = Line::open(socket)?;
        let (began, mut took) = (Instant::now(), Vec::new());
        while began.elapsed() < span {
            let at = Instant::now();
            let (_, body) = line.ask(request)?;
            took.push(at.elapsed().as_secs_f64() * 1e3);
            heard(&body);
        }
        Ok(took)
    };
    let began = Instant::now();
    let all: Result<Vec<Vec<f64>>> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(one)).collect();
        clients.into_iter().map(|client| client.join().expect("a client ends")).collect()
    });
    let took: Vec<f64> = all?.concat();
    Ok((took.len() as f64 / began.elapsed().as_secs_f64(), took))
}

fn manifests() -> BTreeMap<String, String> {
    let container =
        json!({ "image": "busybox:local", "pullPolicy": "Never", "command": ["sleep", "1000000"], "init": true, "statusSocket": true });
    let parts = [
        service("asks", "app", &json!({ "container": container })),
        service("asks", "part", &json!({ "logical": { "reportedBy": "app", "heartbeat": "60s" } })),
        service("asks", "page", &json!({ "container": container, "dependsOn": [{ "service": "part", "start": "Skip" }] })),
    ];
    BTreeMap::from([("asks.yaml".to_owned(), parts.join("---\n"))])
}

/// `usable` over the unix socket beside a bare hyper server, while what it tells changes all the time.
pub(crate) fn usable(setup: &Setup, rounds: usize, report: &mut Report) -> Result<()> {
    let simulator = Simulator::start(setup)?;
    let operator = Operator::start(setup, &format!("unix://{}", simulator.socket().display()), &manifests())?;
    let echo = Echo::start()?;
    let span = Duration::from_millis(1_000);
    let say = |availability: &str| post("/heartbeat/asks/part", &json!({ "availability": availability }));
    let mut app = Line::open(&operator.socket())?;
    app.ask(&say("Available"))?;
    operator.until_usable(3, PATIENCE)?;
    // What was said under each version: two answers of one version that differ contradict it.
    let said: std::sync::Mutex<BTreeMap<String, String>> = std::sync::Mutex::default();
    let contradictions = std::sync::atomic::AtomicUsize::new(0);
    let heard = |body: &[u8]| {
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let version = answer["version"].as_str().unwrap_or("none").to_owned();
        let told = format!("{} {} {}", answer["usable"], answer["availability"], answer["reason"]);
        let mut said = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if said.get(&version).is_some_and(|earlier| *earlier != told) {
            contradictions.fetch_add(1, Ordering::Relaxed);
        }
        said.insert(version, told);
    };
    let (mut ours, mut bare, mut took) = (Samples::default(), Samples::default(), Samples::default());
    let request = get("/usable/asks/page");
    for _ in 0..rounds {
        let (rate, times) = load(&operator.socket(), &request, span, &|_| {})?;
        times.into_iter().for_each(|ms| took.push(ms));
        ours.push(rate);
        bare.push(load(&echo.socket(), &request, span, &|_| {})?.0);
    }
    let measured = format!("{:.0} a second, p99 {:.2} ms, {CLIENTS} connections", ours.median(), took.quantile(0.99));
    let ratio = ours.ratio(&bare);
    report.row(
        "usable over a unix socket",
        measured,
        format!("{ratio:.2} of a bare hyper ({:.0})", bare.median()),
        ">= 0.70",
        Some(ratio >= 0.7),
    );
    // The same while it changes all the time; checking costs the clients more than asking.
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| -> Result<()> {
        let flipper = scope.spawn(|| -> Result<()> {
            let mut is_up = false;
            while !is_over.load(Ordering::Relaxed) {
                app.ask(&say(if is_up { "Available" } else { "TemporarilyUnavailable" }))?;
                is_up = !is_up;
            }
            Ok(())
        });
        let loaded = load(&operator.socket(), &request, span * 3, &heard);
        is_over.store(true, Ordering::Relaxed);
        loaded?;
        flipper.join().expect("the app ends")
    })?;
    let versions = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner).len();
    let wrong = contradictions.load(Ordering::Relaxed);
    report.row(
        "answers that contradict their version",
        format!("{wrong}, over {versions} versions"),
        String::new(),
        "0",
        Some(wrong == 0 && versions > 100),
    );
    Ok(())
}

/// Locks taken and given back: `use`, which lives in memory, and `change`, which is durable twice.
pub(crate) fn locks(setup: &Setup, report: &mut Report) -> Result<()> {
    let simulator = Simulator::start(setup)?;
    let operator = Operator::start(setup, &format!("unix://{}", simulator.socket().display()), &manifests())?;
    let path = "/apis/quaymaster.dev/v1alpha1/namespaces/asks/miniservices/app/lock";
    for (mode, clients) in [("use", CLIENTS), ("change", 1)] {
        let span = Duration::from_secs(2);
        let one = |holder: usize| -> Result<usize> {
            let mut line = Line::open(&operator.socket())?;
            let take = post(path, &json!({ "mode": mode, "holder": format!("h{holder}"), "waitMs": 5_000 }));
            let (began, mut pairs) = (Instant::now(), 0);
            while began.elapsed() < span {
                let (status, body) = line.ask(&take)?;
                let answer: Value = serde_json::from_slice(&body)?;
                if status != 201 {
                    bail!("{mode} was refused: {answer}");
                }
                let back = post(&format!("{path}/release"), &json!({ "holder": format!("h{holder}"), "token": answer["token"] }));
                line.ask(&back)?;
                pairs += 1;
            }
            Ok(pairs)
        };
        let all: Result<Vec<usize>> = std::thread::scope(|scope| {
            let holders: Vec<_> = (0..clients).map(|n| scope.spawn(move || one(n))).collect();
            holders.into_iter().map(|holder| holder.join().expect("a holder ends")).collect()
        });
        let pairs = all?.iter().sum::<usize>() as f64 / span.as_secs_f64();
        report.row(&format!("`{mode}` taken and given back"), format!("{pairs:.0} a second, {clients} at once"), String::new(), "", None);
    }
    Ok(())
}
