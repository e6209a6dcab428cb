//! The real operator as a process, and its API as tests see it.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::http::{self, Answer, Place};
use super::wait;

/// Names the binary under test.
pub const BINARY: &str = "QM_BIN";
const BASE: &str = "/apis/quaymaster.dev/v1alpha1";

/// How an operator is run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The engine's address.
    pub docker_host: String,
    /// Its instance.
    pub instance: String,
    /// Where its manifests are.
    pub manifests: PathBuf,
    /// Where it keeps its store.
    pub data_dir: PathBuf,
    /// Where it listens.
    pub socket: PathBuf,
    /// How long an absence must last.
    pub settle: String,
    /// It begins with everything suspended.
    pub observe: bool,
    /// More arguments.
    pub arguments: Vec<String>,
    /// How much it logs, where that is not the default.
    pub log: Option<String>,
}

/// An operator: its home, and its process while it runs.
#[derive(Debug)]
pub struct Operator {
    /// How it is run; changes count from the next start on.
    pub setup: Setup,
    home: TempDir,
    /// Where its metrics are.
    pub metrics: SocketAddr,
    process: Option<Child>,
}

/// Where the binary is that the tests are about.
pub fn binary() -> PathBuf {
    built("quaymaster", BINARY)
}

/// Where a binary of the workspace is: where the variable says, or beside this test.
pub fn built(package: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable) {
        return PathBuf::from(path);
    }
    let test = std::env::current_exe().expect("a process knows its file");
    let found = test.ancestors().skip(1).map(|dir| dir.join(package)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{package} is not built: run `cargo xtask test`, or `cargo build -p {package}`, or set {variable}"))
}

fn free_port() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    listener.local_addr().expect("a listener has an address")
}

impl Operator {
    /// Prepares an operator for an engine; it is not started yet.
    pub fn prepare(docker: &Path, instance: &str) -> Self {
        let home = TempDir::with_prefix("qm-home-").expect("the temporary folder can be written");
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at("manifests")).expect("a folder can be made");
        let setup = Setup {
            docker_host: format!("unix://{}", docker.display()),
            instance: instance.to_owned(),
            manifests: at("manifests"),
            data_dir: at("data"),
            socket: at("q.sock"),
            settle: "500ms".to_owned(),
            observe: false,
            arguments: Vec::new(),
            log: None,
        };
        Self { setup, home, metrics: free_port(), process: None }
    }

    /// The command that starts it.
    pub fn command(&self) -> Command {
        let setup = &self.setup;
        // It ends with the test that started it, also when that is killed.
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL"])
            .arg(binary())
            .arg("run")
            .arg("--manifests")
            .arg(&setup.manifests)
            .arg("--data-dir")
            .arg(&setup.data_dir);
        command.arg("--socket").arg(&setup.socket).args(["--metrics", &self.metrics.to_string()]);
        command.args(["--docker-host", &setup.docker_host, "--instance", &setup.instance, "--settle", &setup.settle]);
        if setup.observe {
            command.arg("--observe");
        }
        command.args(&setup.arguments);
        if let Some(log) = &setup.log {
            command.env("QUAYMASTER_LOG", log);
        }
        command
            .env_remove("DOCKER_HOST")
            .env_remove("QUAYMASTER_REGISTRY_CREDENTIALS")
            .env_remove("QUAYMASTER_SOCKET")
            .stdin(Stdio::null());
        command
    }

    /// Starts it, and waits until it answers.
    pub fn start(&mut self) {
        self.spawn();
        self.until("the operator answers", |o| {
            if let Some(ended) = o.ended() {
                return Err(format!("it ended by itself: {ended}"));
            }
            match o.get("/healthz") {
                Ok(answer) if answer.is_ok() => Ok(()),
                Ok(answer) => Err(answer.text()),
                Err(why) => Err(why),
            }
        });
    }

    /// Starts it, and waits for nothing.
    pub fn spawn(&mut self) {
        assert!(self.process.is_none(), "the operator runs already");
        let log = File::options().create(true).append(true).open(self.log_file()).expect("a log can be written");
        let process = self.command().stdout(Stdio::null()).stderr(log).spawn();
        self.process = Some(process.unwrap_or_else(|e| panic!("{} cannot be started: {e}", binary().display())));
    }

    /// Starts it, and waits until it ends by itself; gives its status and its log.
    pub fn run_to_end(&mut self) -> (ExitStatus, String) {
        self.spawn();
        let ended = wait::until(Duration::from_secs(20), || self.ended().ok_or_else(|| "it goes on running".to_owned()));
        let status = ended.unwrap_or_else(|why| panic!("the operator should end by itself: {why}\n{}", self.log()));
        self.process = None;
        (status, self.log())
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(|p| p.try_wait().expect("a child can be waited for"))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the operator runs").id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // One that has ended already cannot be killed, and need not be.
            drop(process.kill());
            process.wait().expect("a child can be waited for");
        }
    }

    /// SIGTERM, and waits for its end.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let pid = Pid::from_child(&process);
        kill_process(pid, Signal::TERM).expect("a child can be told to end");
        let ended = wait::until(Duration::from_secs(20), || process.try_wait().ok().flatten().ok_or_else(String::new));
        match ended {
            Ok(status) => assert!(status.success(), "the operator ended with {status}\n{}", self.log()),
            Err(_) => {
                drop(process.kill());
                panic!("the operator does not end on SIGTERM\n{}", self.log());
            }
        }
    }

    fn log_file(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// Where tests may put things of their own.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// All of its log.
    pub fn whole_log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = self.whole_log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }

    /// GET over its socket.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn get(&self, path: &str) -> Result<Answer, String> {
        http::call(&Place::Unix(self.setup.socket.clone()), "GET", path, None).map_err(|e| e.to_string())
    }

    /// POST over its socket; must succeed.
    pub fn post(&self, path: &str, body: &Value) -> Value {
        let bytes = body.to_string().into_bytes();
        let place = Place::Unix(self.setup.socket.clone());
        let answer = http::call(&place, "POST", path, Some(("application/json", &bytes)));
        let answer = answer.unwrap_or_else(|e| panic!("POST {path}: {e}\n{}", self.log()));
        assert!(answer.is_ok(), "POST {path} answered {}: {}", answer.code, answer.text());
        answer.json()
    }

    /// The objects of a kind; none when nobody answers.
    pub fn list(&self, plural: &str, namespace: &str) -> Vec<Value> {
        let answer = self.get(&format!("{BASE}/namespaces/{namespace}/{plural}"));
        answer.map(|a| a.json()["items"].as_array().cloned().unwrap_or_default()).unwrap_or_default()
    }

    /// One mini service; null when it is not there.
    pub fn service(&self, namespace: &str, name: &str) -> Value {
        match self.get(&format!("{BASE}/namespaces/{namespace}/miniservices/{name}")) {
            Ok(answer) if answer.is_ok() => answer.json(),
            _ => Value::Null,
        }
    }

    /// The overview.
    pub fn overview(&self) -> Value {
        self.get("/quaymaster/v1/overview").map(|a| a.json()).unwrap_or_default()
    }

    /// Events of a namespace as `NAME REASON MESSAGE`.
    pub fn events(&self, namespace: &str) -> Vec<String> {
        let items = self.get(&format!("/api/v1/namespaces/{namespace}/events")).map(|a| a.json()).unwrap_or_default();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let line = |e: &Value| format!("{} {} {}", text(&e["involvedObject"]["name"]), text(&e["reason"]), text(&e["message"]));
        items["items"].as_array().into_iter().flatten().map(line).collect()
    }

    /// All metrics, as they are served.
    pub fn metrics(&self) -> String {
        let answer = http::call(&Place::Tcp(self.metrics), "GET", "/metrics", None);
        answer.unwrap_or_else(|e| panic!("the metrics do not answer: {e}\n{}", self.log())).text()
    }

    /// The sum of a metric's samples whose labels contain all of `labels`.
    pub fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics();
        let samples = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let is_it = series == name || series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
            (is_it && labels.iter().all(|l| series.contains(l))).then(|| value.parse::<f64>().ok())?
        });
        samples.sum()
    }

    /// Runs a client command against it.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.args(arguments).env("QUAYMASTER_SOCKET", &self.setup.socket).env_remove("DOCKER_HOST").env("NO_COLOR", "1");
        command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{} cannot be started: {e}", binary().display()))
    }

    /// Waits for something about it; panics with its log when it does not come.
    pub fn until<T>(&mut self, what: &str, ask: impl FnMut(&mut Self) -> Result<T, String>) -> T {
        self.until_within(Duration::from_secs(60), what, ask)
    }

    /// Like [`Operator::until`], with a limit of its own.
    pub fn until_within<T>(&mut self, limit: Duration, what: &str, mut ask: impl FnMut(&mut Self) -> Result<T, String>) -> T {
        let answer = wait::until(limit, || ask(self));
        answer.unwrap_or_else(|why| panic!("waited {limit:?} for: {what}\nbut: {why}\nlog of the operator:\n{}", self.log()))
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.kill();
        let locks = fs::read_dir("/run/quaymaster").into_iter().flatten().flatten();
        let ending = format!(".{}.lock", self.setup.instance);
        for lock in locks.filter(|f| f.file_name().to_string_lossy().ends_with(&ending)) {
            // The lock of an instance that only this test had.
            drop(fs::remove_file(lock.path()));
        }
    }
}
