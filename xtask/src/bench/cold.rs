//! From nothing: many at once, and many in an order.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::{Value, json};

use super::compose;
use super::operator::{Operator, Setup, service, sleeper};
use super::report::{Report, Samples};
use crate::docker::{Docker, in_parallel};

const PATIENCE: Duration = Duration::from_secs(120);

fn seconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}

/// 20 containers from nothing: the operator, bare calls at several widths, Compose.
pub(crate) fn twenty(setup: &Setup, compose: Option<&Path>, rounds: usize, report: &mut Report) -> Result<()> {
    let docker = setup.docker();
    let names: Vec<String> = (1..=20).map(|n| format!("s{n:02}")).collect();
    let manifests = names.iter().map(|name| service("qmbench", name, &json!({ "container": sleeper() }))).collect::<Vec<_>>().join("---\n");
    let compose_file =
        json!({ "services": names.iter().map(|name| (name.clone(), compose_sleeper())).collect::<BTreeMap<_, _>>() }).to_string();
    let (mut ours, mut bare, mut peer) = (Samples::default(), Samples::default(), Samples::default());
    let mut calls = Samples::default();
    for _ in 0..rounds {
        docker.remove_project("qmbench")?;
        let operator = Operator::start(setup, &setup.docker_host, &BTreeMap::new())?;
        let before = operator.docker_calls()?;
        let began = operator.drop_in("all.yaml", &manifests)?;
        operator.until_usable(20, PATIENCE)?;
        ours.push(seconds(began));
        calls.push(operator.docker_calls()? - before);
        drop(operator);
        docker.remove_project("qmbench")?;

        let began = Instant::now();
        bare_calls(&docker, "qmbench", &names, 8)?;
        bare.push(seconds(began));
        docker.remove_project("qmbench")?;

        if let Some(program) = compose {
            let began = Instant::now();
            compose::up(program, setup, "qmbench", &compose_file)?;
            peer.push(seconds(began));
            docker.remove_project("qmbench")?;
        }
    }
    let ratio = ours.ratio(&bare);
    report.row(
        "20 containers cold",
        format!("{:.2} s ({:.0} calls)", ours.median(), calls.median()),
        format!("bare calls, 8 at a time: {:.2} s, ratio {ratio:.2}", bare.median()),
        "ratio <= 1.05",
        Some(ratio <= 1.05),
    );
    if peer.len() > 0 {
        let ratio = ours.ratio(&peer);
        report.row(
            "20 containers cold",
            format!("{:.2} s", ours.median()),
            format!("Compose v2: {:.2} s, ratio {ratio:.2}", peer.median()),
            "ratio < 1",
            Some(ratio < 1.0),
        );
    }
    Ok(())
}

fn compose_sleeper() -> Value {
    json!({ "image": "busybox:local", "pull_policy": "never", "init": true, "command": ["sleep", "1000000"], "restart": "unless-stopped" })
}

/// The same containers by nothing but the calls that they need: one network, create, start.
fn bare_calls(docker: &Docker, project: &str, names: &[String], width: usize) -> Result<()> {
    let labels = json!({ "com.docker.compose.project": project });
    let network = format!("{project}_default");
    docker.json("POST", "/networks/create", Some(&json!({ "Name": network, "Labels": labels })))?;
    in_parallel(width, names, |name| {
        let body = json!({
            "Image": "busybox:local", "Cmd": ["sleep", "1000000"], "Labels": labels,
            "HostConfig": { "Init": true, "NetworkMode": network, "RestartPolicy": { "Name": "unless-stopped" } },
            "NetworkingConfig": { "EndpointsConfig": { (&network): { "Aliases": [name] } } },
        });
        let made = docker.json("POST", &format!("/containers/create?name={project}-{name}-1"), Some(&body))?;
        docker.json("POST", &format!("/containers/{}/start", made["Id"].as_str().unwrap_or_default()), None)?;
        Ok(())
    })
}

/// How long a gated service needs until it is healthy, by itself.
const OWN_START_SECONDS: f64 = 1.4;
/// Levels of the gated set: so many services in each.
const LEVELS: [usize; 5] = [3, 3, 2, 2, 2];

/// 12 services in five levels, each gated by the health of two of the level below: the time above the critical path.
pub(crate) fn gated(setup: &Setup, compose: Option<&Path>, rounds: usize, report: &mut Report) -> Result<()> {
    let docker = setup.docker();
    let script = format!("sleep {OWN_START_SECONDS}; exec httpd -f -p 80 -h /bin");
    let mut manifests = Vec::new();
    let mut services: BTreeMap<String, Value> = BTreeMap::new();
    for (level, count) in LEVELS.iter().enumerate() {
        for index in 0..*count {
            let name = format!("l{level}s{index}");
            let below: Vec<String> = match level.checked_sub(1) {
                Some(below) => (0..2).map(|i| format!("l{below}s{}", (index + i) % LEVELS[below])).collect(),
                None => Vec::new(),
            };
            let spec = json!({
                "container": {
                    "image": "busybox:local", "pullPolicy": "Never", "init": true, "command": ["sh", "-c", script],
                    "health": { "http": { "port": 80, "path": "/busybox" }, "interval": "1s" },
                },
                "dependsOn": below.iter().map(|b| json!({ "service": b })).collect::<Vec<_>>(),
            });
            manifests.push(service("qmgated", &name, &spec));
            let depends: BTreeMap<&String, Value> = below.iter().map(|b| (b, json!({ "condition": "service_healthy" }))).collect();
            services.insert(
                name,
                json!({
                    "image": "busybox:local", "pull_policy": "never", "init": true, "command": ["sh", "-c", script],
                    "healthcheck": { "test": ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/busybox"], "interval": "1s" },
                    "depends_on": depends,
                }),
            );
        }
    }
    // Compose is done when the last have started; a service that waits for those makes it wait until they are healthy, as we do.
    let compose_file = json!({ "services": services }).to_string();
    let path = OWN_START_SECONDS * LEVELS.len() as f64;
    let (mut ours, mut peer, mut bare) = (Samples::default(), Samples::default(), Samples::default());
    for _ in 0..rounds {
        docker.remove_project("qmgated")?;
        let began = Instant::now();
        bare_gated(&docker, "qmgated", &script)?;
        bare.push(seconds(began) - path);
        docker.remove_project("qmgated")?;
        let operator = Operator::start(setup, &setup.docker_host, &BTreeMap::new())?;
        let began = operator.drop_in("all.yaml", &manifests.join("---\n"))?;
        operator.until_usable(LEVELS.iter().sum::<usize>() as u64, PATIENCE)?;
        ours.push(seconds(began) - path);
        drop(operator);
        docker.remove_project("qmgated")?;
        if let Some(program) = compose {
            let began = Instant::now();
            compose::up(program, setup, "qmgated", &compose_file)?;
            // `up` ends when the last level has started; its own start time is part of the path.
            peer.push(seconds(began) - path + OWN_START_SECONDS);
            docker.remove_project("qmgated")?;
        }
    }
    let against = match peer.len() {
        0 => String::new(),
        _ => format!("Compose v2, service_healthy, interval 1s: {:.2} s above it", peer.median()),
    };
    // What the engine itself needs for five starts in a row is part of no operator's time.
    let above = ours.median() - bare.median().max(0.0);
    let measured = format!("{:.2} s above the path of {path:.1} s, {above:.2} s above bare calls", ours.median());
    let floor = format!("bare calls, level by level: {:.2} s above it", bare.median());
    report.row("12 gated services, 5 levels", measured.clone(), floor, "<= 1.0 s above bare calls", Some(above <= 1.0));
    report.row(
        "12 gated services, 5 levels",
        measured,
        against,
        "less than Compose",
        Some(peer.len() == 0 || ours.median() < peer.median()),
    );
    Ok(())
}

/// The gated set by nothing but the calls that it needs: everything is created first, then each level is started when the one below it
/// answers, asked every 10 ms.
fn bare_gated(docker: &Docker, project: &str, script: &str) -> Result<()> {
    let labels = json!({ "com.docker.compose.project": project });
    let network = format!("{project}_default");
    docker.json("POST", "/networks/create", Some(&json!({ "Name": network, "Labels": labels })))?;
    let names: Vec<String> =
        LEVELS.iter().enumerate().flat_map(|(l, count)| (0..*count).map(move |i| format!("{project}-l{l}s{i}-1"))).collect();
    in_parallel(8, &names, |name| {
        let body = json!({
            "Image": "busybox:local", "Cmd": ["sh", "-c", script], "Labels": labels,
            "HostConfig": { "Init": true, "NetworkMode": network, "RestartPolicy": { "Name": "unless-stopped" } },
        });
        docker.json("POST", &format!("/containers/create?name={name}"), Some(&body)).map(drop)
    })?;
    for level in 0..LEVELS.len() {
        let of_level: Vec<&String> = names.iter().filter(|name| name.contains(&format!("-l{level}s"))).collect();
        in_parallel(of_level.len(), &of_level, |name| {
            docker.json("POST", &format!("/containers/{name}/start"), None)?;
            let inspect = docker.json("GET", &format!("/containers/{name}/json"), None)?;
            let address = inspect["NetworkSettings"]["Networks"][&network]["IPAddress"].as_str().unwrap_or_default().to_owned();
            let began = Instant::now();
            while !answers(&address) {
                anyhow::ensure!(began.elapsed() < PATIENCE, "{name} does not answer");
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Whether port 80 there accepts.
fn answers(address: &str) -> bool {
    let place = format!("{address}:80").parse();
    place.is_ok_and(|place| std::net::TcpStream::connect_timeout(&place, Duration::from_secs(1)).is_ok())
}
