//! What it costs to have it: memory, processor time, start, size.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::operator::{Operator, Setup, service};
use super::report::{Report, Samples};

const PATIENCE: Duration = Duration::from_secs(300);
/// Over how long the idle processor time is measured.
const IDLE: Duration = Duration::from_secs(30);
/// Clock ticks a second in /proc, on every Linux that we know.
const TICKS: f64 = 100.0;

fn manifests(namespace: &str, count: usize) -> BTreeMap<String, String> {
    let spec = json!({ "container": {
        "image": "busybox:local", "pullPolicy": "Never", "init": true, "command": ["httpd", "-f", "-p", "80", "-h", "/bin"],
        "health": { "http": { "port": 80, "path": "/busybox" }, "interval": "30s" },
    } });
    (0..count).map(|n| (format!("i{n:03}.yaml"), service(namespace, &format!("i{n:03}"), &spec))).collect()
}

/// Resident memory of a process.
pub(super) fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").trim().parse()?;
    Ok(kib / 1024.0)
}

fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let rest = stat.rsplit_once(") ").context("no stat")?.1;
    let fields: Vec<&str> = rest.split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    Ok((ticks(11) + ticks(12)) / TICKS)
}

/// Memory and processor time with everything healthy and probes every 30 s.
pub(crate) fn idle(setup: &Setup, count: usize, report: &mut Report) -> Result<()> {
    let docker = setup.docker();
    docker.remove_project("qmidle")?;
    let operator = Operator::start(setup, &setup.docker_host, &manifests("qmidle", count))?;
    operator.until_usable(count as u64, PATIENCE)?;
    std::thread::sleep(Duration::from_secs(5));
    let before = cpu_seconds(operator.pid())?;
    std::thread::sleep(IDLE);
    let share = (cpu_seconds(operator.pid())? - before) / IDLE.as_secs_f64() * 100.0;
    let resident = resident_mib(operator.pid())?;
    // The same containers, a new process: what start to first reconcile means where there is something to observe.
    drop(operator);
    docker.remove_project("qmidle")?;
    report.row(
        &format!("idle, {count} services, 30 s probes"),
        format!("{resident:.1} MiB resident, {share:.2} % of a core"),
        String::new(),
        "<= 25 MiB, <= 0.1 %",
        Some(resident <= 25.0 && share <= 0.1),
    );
    Ok(())
}

/// From the start of the process to its first pass; the size of the binary.
pub(crate) fn start_and_size(setup: &Setup, rounds: usize, report: &mut Report) -> Result<()> {
    let docker = setup.docker();
    docker.remove_project("qmstart")?;
    let mut samples = Samples::default();
    for _ in 0..rounds.max(7) {
        let began = Instant::now();
        let operator = Operator::spawn(setup, &setup.docker_host, &manifests("qmstart", 10))?;
        operator.until("reconciled", PATIENCE, |o| Ok(o.metric("controller_runtime_reconcile_total", &[])? > 0.0))?;
        samples.push(began.elapsed().as_secs_f64() * 1_000.0);
        drop(operator);
    }
    docker.remove_project("qmstart")?;
    let start = samples.median();
    report.row("start to first reconcile", format!("{start:.0} ms (asked every 5 ms)"), String::new(), "<= 100 ms", Some(start <= 100.0));
    let size = std::fs::metadata(&setup.binary)?.len() as f64 / f64::from(1 << 20);
    report.row("size of the binary", format!("{size:.1} MiB"), String::new(), "<= 30 MiB", Some(size <= 30.0));
    Ok(())
}
