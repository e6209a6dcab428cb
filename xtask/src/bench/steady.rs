//! Once everything runs: passes that find nothing, a dropped file, a killed container.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use super::compose;
use super::operator::{Operator, Setup, service, sleeper};
use super::proxy::{Proxy, Seen};
use super::report::{Report, Samples};

const PATIENCE: Duration = Duration::from_secs(120);
const MANY: usize = 1_000;

fn millis(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1_000.0
}

/// `count` manifests in files of their own that want no container: they cost what manifests cost, not what containers cost.
fn idle_manifests(namespace: &str, count: usize) -> BTreeMap<String, String> {
    let spec = json!({ "container": { "image": "busybox:local", "pullPolicy": "Never", "replicas": 0, "command": ["sleep", "1"] } });
    (0..count).map(|n| (format!("m{n:04}.yaml"), service(namespace, &format!("m{n:04}"), &spec))).collect()
}

/// Everything reconciled with nothing to do: 20 running services and 980 that are scaled to zero.
pub(crate) fn no_op(setup: &Setup, compose: Option<&Path>, rounds: usize, report: &mut Report) -> Result<()> {
    let docker = setup.docker();
    docker.remove_project("qmnoop")?;
    let mut manifests = idle_manifests("qmnoop", MANY - 20);
    for n in 0..20 {
        manifests.insert(format!("run{n}.yaml"), service("qmnoop", &format!("run{n}"), &json!({ "container": sleeper() })));
    }
    let operator = Operator::start(setup, &setup.docker_host, &manifests)?;
    operator.until_usable(20, PATIENCE)?;
    let passes = |o: &Operator| o.metric("controller_runtime_reconcile_total", &[]);
    let busy = |o: &Operator| o.metric("controller_runtime_reconcile_time_seconds_sum", &[]);
    // What the last container left behind is looked at before the clock starts.
    std::thread::sleep(Duration::from_secs(2));
    let (mut wall, mut work, mut calls, mut peer) = (Samples::default(), Samples::default(), Samples::default(), Samples::default());
    let running: BTreeMap<String, _> = (0..20)
        .map(|n| (format!("run{n}"), json!({ "image": "busybox:local", "pull_policy": "never", "command": ["sleep", "1000000"] })))
        .collect();
    let compose_file = json!({ "services": running }).to_string();
    if let Some(program) = compose {
        docker.remove_project("qmnoopc")?;
        compose::up(program, setup, "qmnoopc", &compose_file)?;
    }
    for _ in 0..rounds.max(7) {
        let (passes_before, busy_before, calls_before) = (passes(&operator)?, busy(&operator)?, operator.docker_calls()?);
        let began = Instant::now();
        operator.reconcile_all()?;
        operator.until("reconciled", PATIENCE, |o| Ok(passes(o)? >= passes_before + MANY as f64))?;
        wall.push(millis(began, Instant::now()));
        work.push((busy(&operator)? - busy_before) * 1_000.0);
        calls.push(operator.docker_calls()? - calls_before);
        if let Some(program) = compose {
            let began = Instant::now();
            compose::up(program, setup, "qmnoopc", &compose_file)?;
            peer.push(millis(began, Instant::now()));
        }
    }
    drop(operator);
    docker.remove_project("qmnoop")?;
    docker.remove_project("qmnoopc")?;
    let against = if peer.len() > 0 { format!("Compose v2, its 20 services: {:.0} ms", peer.median()) } else { String::new() };
    let kept = wall.median() <= 20.0 && calls.median() == 0.0;
    let measured = format!(
        "{:.1} ms until seen done, {:.1} ms in passes, {:.0} calls (at most {:.0}, events of others included)",
        wall.median(),
        work.median(),
        calls.median(),
        calls.quantile(1.0)
    );
    report.row("no-op pass, 1,000 services (20 run)", measured, against, "<= 20 ms, 0 calls", Some(kept));
    Ok(())
}

/// A file appears among 1,000 manifests: the time to the first call that changes something.
pub(crate) fn file_drop(setup: &Setup, rounds: usize, report: &mut Report) -> Result<()> {
    let docker = setup.docker();
    docker.remove_project("qmdrop")?;
    let proxy = Proxy::start(&setup.engine_socket)?;
    let mut manifests = idle_manifests("qmdrop", MANY);
    // The network of the namespace is there already, so that the first write is the container's.
    manifests.insert("first.yaml".to_owned(), service("qmdrop", "first", &json!({ "container": sleeper() })));
    let operator = Operator::start(setup, &proxy.host(), &manifests)?;
    operator.until_usable(1, PATIENCE)?;
    let mut samples = Samples::default();
    for n in 0..rounds {
        std::thread::sleep(Duration::from_millis(300));
        proxy.clear();
        let name = format!("d{n:04}");
        let dropped = operator.drop_in(&format!("{name}.yaml"), &service("qmdrop", &name, &json!({ "container": sleeper() })))?;
        let wrote = proxy.first(PATIENCE, |seen| matches!(seen, Seen::Write(line) if line.contains("/containers/create")))?;
        samples.push(millis(dropped, wrote));
        operator.until_usable(n as u64 + 2, PATIENCE)?;
    }
    drop(operator);
    docker.remove_project("qmdrop")?;
    let (p50, p99) = (samples.quantile(0.5), samples.quantile(0.99));
    let measured = format!("p50 {p50:.1} ms, p99 {p99:.1} ms (n = {})", samples.len());
    report.row(
        "file drop to first write, 1,000 manifests",
        measured,
        "25 ms of it are the quiet time".to_owned(),
        "p99 <= 50 ms",
        Some(p99 <= 50.0),
    );
    Ok(())
}

/// A container is killed: the time from the engine's event, as it passes by, to the call that starts it again.
pub(crate) fn repair(setup: &Setup, rounds: usize, report: &mut Report) -> Result<()> {
    let docker = setup.docker();
    docker.remove_project("qmrepair")?;
    let proxy = Proxy::start(&setup.engine_socket)?;
    // The budget of starts must not be what is measured.
    let mut container = sleeper();
    container["startBudget"] = json!({ "tries": 1000, "window": "1s" });
    let manifests = BTreeMap::from([("a.yaml".to_owned(), service("qmrepair", "a", &json!({ "container": container })))]);
    let operator = Operator::start(setup, &proxy.host(), &manifests)?;
    operator.until_usable(1, PATIENCE)?;
    let mut samples = Samples::default();
    for _ in 0..rounds {
        std::thread::sleep(Duration::from_millis(200));
        let ids = docker.labelled("com.docker.compose.project=qmrepair")?;
        let id = ids.first().context("the container is gone")?;
        proxy.clear();
        docker.json("POST", &format!("/containers/{id}/kill"), None)?;
        let heard = proxy.first(PATIENCE, |seen| *seen == Seen::Died)?;
        let wrote =
            proxy.first(PATIENCE, |seen| matches!(seen, Seen::Write(line) if line.contains("/start") || line.contains("/create")))?;
        samples.push(millis(heard, wrote));
        operator.until_usable(1, PATIENCE)?;
    }
    drop(operator);
    docker.remove_project("qmrepair")?;
    let (p50, p99) = (samples.quantile(0.5), samples.quantile(0.99));
    let measured = format!("p50 {p50:.1} ms, p99 {p99:.1} ms (n = {})", samples.len());
    report.row("event to repairing call", measured, String::new(), "p99 <= 20 ms", Some(p99 <= 20.0));
    Ok(())
}
