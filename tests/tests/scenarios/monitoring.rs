//! What watches the operator: the alerts and the dashboard of the examples, on a real Prometheus.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use qm_tests::support::http::{self, Place};
use qm_tests::support::manifests::{put, sleeper, text, web};
use qm_tests::support::world::World;
use serde_json::{Value, json};

fn examples() -> PathBuf {
    PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is")).join("../examples/monitoring")
}

/// Runs promtool; it comes with Debian's package `prometheus`.
fn promtool(arguments: &[&str]) {
    let ran = Command::new("promtool").args(arguments).current_dir(examples()).output();
    let ran = ran.unwrap_or_else(|e| panic!("promtool cannot be run: {e}; install Debian's package `prometheus`"));
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}

/// A Prometheus of its own, ended with the test.
struct Prometheus {
    child: Child,
    address: SocketAddr,
    _home: tempfile::TempDir,
}

impl Prometheus {
    fn scraping(target: SocketAddr) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        drop(listener);
        let rules = examples().join("alerts.yaml").canonicalize().expect("the alerts are there");
        let config = json!({
            "global": { "scrape_interval": "500ms", "evaluation_interval": "500ms" },
            "rule_files": [rules],
            "scrape_configs": [{ "job_name": "quaymaster", "static_configs": [{ "targets": [target.to_string()] }] }],
        });
        put(&home.path().join("prometheus.yml"), &config.to_string());
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", home.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("prometheus cannot be run: {e}; install Debian's package `prometheus`"));
        Self { child, address, _home: home }
    }

    fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = http::call(&Place::Tcp(self.address), "GET", path, None).map_err(|e| e.to_string())?;
        if answer.is_ok() { Ok(answer.json()) } else { Err(answer.text()) }
    }

    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let answer = self.ask(&format!("/api/v1/query?query={}", qm_tests::support::docker::percent(expression)))?;
        Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_alerts_are_right_and_say_when() {
    promtool(&["check", "rules", "alerts.yaml"]);
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["test", "rules", "alerts.test.yaml"]);
}

/// The queries of the dashboard, with its variables filled in, each with the title of its panel.
fn queries() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(examples().join("grafana-dashboard.json")).expect("the dashboard is there");
    let dashboard: Value = serde_json::from_str(&text).expect("the dashboard is JSON");
    let filled = |expression: &str| expression.replace("$namespace", ".*").replace("$__rate_interval", "1m");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let of_panel = |panel: &Value| {
        let title = panel["title"].as_str().unwrap_or_default().to_owned();
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        targets.into_iter().map(move |target| (title.clone(), filled(target["expr"].as_str().expect("an expression"))))
    };
    panels.iter().flat_map(of_panel).collect()
}

#[test]
fn every_query_of_the_dashboard_finds_something_and_alerts_come() {
    let mut world = World::new();
    let parent = json!({
        "apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniContainer", "metadata": { "name": "all", "namespace": world.namespace },
        "spec": { "selector": { "matchLabels": { "none": "such" } }, "allowEmpty": true },
    });
    let services = [
        sleeper("db"),
        web("app").edge(json!({ "service": "db", "onUp": "Restart", "debounce": "100ms" })),
        sleeper("broken").image("busybox:nothere").set("pullPolicy", json!("Never")).spec("critical", true.into()),
        sleeper("init").set("command", json!(["true"])).job(json!({})),
    ];
    let documents: Vec<Value> = services.iter().map(|s| s.document(&world.namespace)).chain([parent]).collect();
    put(&world.file("all.yaml"), &text(&documents));
    world.operator.start();
    world.until_status("app", "well", |s| s["severity"] == 1);
    world.until_status("broken", "it has failed", |s| s["severity"] == 6);
    let prometheus = Prometheus::scraping(world.operator.metrics);
    world.operator.until("a first scrape", |_| match prometheus.query("up{job=\"quaymaster\"} == 1")?.len() {
        1 => Ok(()),
        n => Err(format!("{n} targets are up")),
    });
    // Something for the counters: a loss that ends.
    world.docker.must("POST", &format!("/containers/{}/kill", world.name("db")), None);
    world.until_event("app", "Started", "restart replica 1: ");
    let mut open: BTreeSet<(String, String)> = queries().into_iter().collect();
    assert!(open.len() > 20, "{open:#?}");
    world.operator.until("an answer to every query", |_| {
        let mut empty = BTreeSet::new();
        for (title, expression) in std::mem::take(&mut open) {
            let found = prometheus.query(&expression).map_err(|e| format!("{title}: {expression}: {e}"))?;
            if found.is_empty() {
                empty.insert((title, expression));
            }
        }
        open = empty;
        if open.is_empty() { Ok(()) } else { Err(format!("nothing is found for {open:#?}")) }
    });
    let namespace = world.namespace.clone();
    world.operator.until("the alert of what has failed", |_| {
        let alerts = prometheus.ask("/api/v1/alerts")?;
        let is_it = |alert: &Value| {
            let labels = &alert["labels"];
            alert["state"] == "firing"
                && labels["alertname"] == "SystemFailure"
                && labels["service"] == "broken"
                && labels["namespace"] == namespace
        };
        if alerts["data"]["alerts"].as_array().into_iter().flatten().any(is_it) { Ok(()) } else { Err(format!("{alerts:#}")) }
    });
}
