//! Owns a running operator: its folder, its socket, its metrics, its end.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::docker::Docker;
use crate::engine::terminate;

/// What every measurement needs.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The binary.
    pub(crate) binary: PathBuf,
    /// The engine's socket.
    pub(crate) engine_socket: PathBuf,
    /// The engine's address.
    pub(crate) docker_host: String,
}

impl Setup {
    /// The engine.
    pub(crate) fn docker(&self) -> Docker {
        Docker::at(&self.engine_socket)
    }
}

/// A running operator in a folder of its own.
#[derive(Debug)]
pub(crate) struct Operator {
    child: Child,
    dir: tempfile::TempDir,
    metrics: SocketAddr,
}

impl Operator {
    /// Starts one with these manifests (file name -> text) and waits until it has looked at everything.
    pub(crate) fn start(setup: &Setup, docker_host: &str, manifests: &BTreeMap<String, String>) -> Result<Self> {
        let operator = Self::spawn(setup, docker_host, manifests)?;
        operator.until("ready", Duration::from_secs(60), |o| Ok(o.api().call("GET", "/readyz", None).is_ok_and(|r| r.status == 200)))?;
        Ok(operator)
    }

    /// Starts one and does not wait.
    pub(crate) fn spawn(setup: &Setup, docker_host: &str, manifests: &BTreeMap<String, String>) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("qm-bench-").tempdir()?;
        std::fs::create_dir(dir.path().join("manifests"))?;
        for (name, text) in manifests {
            std::fs::write(dir.path().join("manifests").join(name), text)?;
        }
        // The port is free a moment later too; nobody else is measuring here.
        let metrics = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = std::fs::File::create(dir.path().join("log"))?;
        let child = Command::new(&setup.binary)
            .arg("run")
            .arg("--manifests")
            .arg(dir.path().join("manifests"))
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .arg("--socket")
            .arg(dir.path().join("qm.sock"))
            .args(["--instance", "bench", "--metrics", &metrics.to_string(), "--docker-host", docker_host])
            .env("QUAYMASTER_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} cannot be started", setup.binary.display()))?;
        Ok(Self { child, dir, metrics })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its API.
    pub(crate) fn api(&self) -> Docker {
        Docker::at(&self.dir.path().join("qm.sock"))
    }

    /// Its socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("qm.sock")
    }

    /// Its folder of manifests.
    pub(crate) fn manifests(&self) -> PathBuf {
        self.dir.path().join("manifests")
    }

    /// Puts a manifest into its folder at once, as an editor or a checkout does.
    pub(crate) fn drop_in(&self, name: &str, text: &str) -> Result<Instant> {
        let draft = self.dir.path().join("draft");
        std::fs::write(&draft, text)?;
        std::fs::rename(&draft, self.manifests().join(name))?;
        Ok(Instant::now())
    }

    /// How many services may be used now.
    pub(crate) fn usable(&self) -> Result<u64> {
        let overview = self.api().json("GET", "/quaymaster/v1/overview", None)?;
        Ok(overview["counts"]["usable"].as_u64().unwrap_or(0))
    }

    /// Waits until so many services may be used.
    pub(crate) fn until_usable(&self, wanted: u64, patience: Duration) -> Result<()> {
        self.until(&format!("{wanted} usable services"), patience, |o| Ok(o.usable()? >= wanted))
    }

    /// Asks until it is so.
    pub(crate) fn until(&self, what: &str, patience: Duration, is_so: impl Fn(&Self) -> Result<bool>) -> Result<()> {
        let began = Instant::now();
        loop {
            if is_so(self).unwrap_or(false) {
                return Ok(());
            }
            if began.elapsed() > patience {
                bail!("not {what} after {patience:?}; the log says:\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log(&self) -> String {
        let text = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let last: Vec<&str> = text.lines().rev().take(20).collect();
        last.into_iter().rev().map(|line| format!("  {line}\n")).collect()
    }

    /// The sum of a metric over those label sets that contain all of these texts.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let mut stream = TcpStream::connect(self.metrics)?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: local\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
        let lines = text.lines().filter(of_name).filter(|line| labels.iter().all(|label| line.contains(label)));
        Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// All calls to the engine so far.
    pub(crate) fn docker_calls(&self) -> Result<f64> {
        self.metric("quaymaster_docker_calls_total", &[])
    }

    /// Wants a pass of everything.
    pub(crate) fn reconcile_all(&self) -> Result<()> {
        let body = json!({ "actor": "bench", "scope": {} });
        self.api().json("POST", "/apis/quaymaster.dev/v1alpha1/actions/reconcile", Some(&body)).map(drop)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        terminate(&mut self.child, Duration::from_secs(10));
    }
}

/// One MiniService of the bench as a YAML document.
pub(crate) fn service(namespace: &str, name: &str, spec: &Value) -> String {
    let metadata = json!({ "name": name, "namespace": namespace });
    format!("apiVersion: quaymaster.dev/v1alpha1\nkind: MiniService\nmetadata: {metadata}\nspec: {spec}\n")
}

/// A container that sleeps.
pub(crate) fn sleeper() -> Value {
    json!({ "image": "busybox:local", "pullPolicy": "Never", "init": true, "command": ["sleep", "1000000"] })
}

/// Whether a path exists and is a file that can be run.
pub(crate) fn is_program(path: &Path) -> bool {
    path.is_file()
}
