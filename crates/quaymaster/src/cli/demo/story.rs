//! The four acts. Commands are the program's own, run in this thread; `docker` is the engine's API; waiting is for the operator's API.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Parser as _;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use qm_dockersim::Sim;
use serde_json::Value;
use tokio::time::Instant;

use super::files::Folder;
use super::terminal::{command, heading, shown, told};
use super::vault::Vault;
use crate::cli::target::BASE;
use crate::cli::{Cli, CliError, Done, End, dispatch};
use crate::client::{Client, ClientError};
use crate::output::{self, Tone, cell};

/// The manifests of the last act.
const VAULT: &str = include_str!("vault.yaml");
/// The operator's socket in the folder.
pub(super) const SOCKET: &str = "qm.sock";
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often is looked.
const GLANCE: Duration = Duration::from_millis(20);
/// How long a person gets to read one piece.
const READING: Duration = Duration::from_millis(450);

type Step = Result<(), CliError>;

/// The story and what it is played with. Told on a thread of its own, as the commands have event loops of theirs.
pub(super) struct Story {
    client: Client,
    socket: PathBuf,
    manifests: PathBuf,
    sim: Sim,
    vault: Vault,
    started: Instant,
    fast: bool,
    runtime: tokio::runtime::Handle,
}

impl Story {
    pub(super) fn new(folder: &Folder, sim: Sim, vault: Vault, started: Instant, fast: bool) -> Self {
        let socket = folder.path().join(SOCKET);
        let runtime = tokio::runtime::Handle::current();
        Self { client: Client::new(&socket), socket, manifests: folder.manifests(), sim, vault, started, fast, runtime }
    }

    pub(super) fn tell(&self) -> Done {
        self.deploy()?;
        self.drift()?;
        self.mistake()?;
        self.vault()?;
        self.farewell()?;
        Ok(End::Fine)
    }

    fn deploy(&self) -> Step {
        let mut usable = BTreeSet::new();
        let count = self.until("all services to be usable, level by level", || {
            let levels = levels(&self.get("/quaymaster/v1/graph")?);
            for (level, services) in &levels {
                if services.iter().all(|(_, is_usable)| *is_usable) && usable.insert(*level) {
                    let names: Vec<&str> = services.iter().map(|(name, _)| name.as_str()).collect();
                    told(Tone::Good, &format!("level {level}  {}  {}", seconds(self.started), list(&names)))?;
                }
            }
            let is_done = !levels.is_empty() && usable.len() == levels.len();
            Ok(is_done.then(|| levels.values().map(Vec::len).sum::<usize>()))
        })?;
        told(Tone::Strong, &format!("{count} services are usable after {}; nothing waited for a fixed time.", seconds(self.started)))?;
        self.pause(2)
    }

    fn drift(&self) -> Step {
        heading(2, "Drift: somebody removes a container behind the operator's back")?;
        command("docker rm -f notify-redis-1")?;
        let since = Instant::now();
        self.docker("DELETE", "/containers/notify-redis-1?force=1")?;
        shown("notify-redis-1")?;
        self.until("notify/redis to be repaired", || {
            let events = self.get("/api/v1/namespaces/notify/events")?;
            let mut events = events["items"].as_array().into_iter().flatten();
            let is_repaired = events.any(|event| {
                let is_start = event["message"].as_str().is_some_and(|message| message.starts_with("start "));
                event["reason"] == "Repaired" && event["involvedObject"]["name"] == "redis" && is_start
            });
            Ok((is_repaired && self.service("redis")?["status"]["usable"] == true).then_some(()))
        })?;
        let took = seconds(since);
        self.pause(1)?;
        self.run("quaymaster events -n notify | grep Repaired | tr -s ' '")?;
        told(Tone::Good, &format!("It was back, and usable, after {took}. The event says why it was made."))?;
        self.pause(2)
    }

    fn mistake(&self) -> Step {
        heading(3, "A mistake in a manifest: refused before anything happens")?;
        let file = self.manifests.join("apps/apps.yaml");
        command(&format!("sed -i 's/assets, onDown/assets, onDwn/' {}", file.display()))?;
        self.edit(&file, "assets, onDown", "assets, onDwn")?;
        self.pause(1)?;
        self.run_to(&format!("quaymaster validate {}", self.manifests.display()), End::Invalid)?;
        let counts = self.until("the operator to freeze the namespace", || {
            let overview = self.get("/quaymaster/v1/overview")?;
            let is_frozen = overview["frozen"].as_array().is_some_and(|frozen| frozen.iter().any(|entry| entry["namespace"] == "notify"));
            Ok(is_frozen.then(|| overview["counts"].clone()))
        })?;
        let (usable, all) = (cell(&counts["usable"]), cell(&counts["services"]));
        told(Tone::Good, &format!("The operator stays at the last good state of notify: {usable} of {all} usable."))?;
        self.pause(2)?;
        command(&format!("sed -i 's/onDwn/onDown/' {}", file.display()))?;
        self.edit(&file, "onDwn", "onDown")?;
        self.until("the namespace to thaw", || {
            Ok(self.get("/quaymaster/v1/overview")?["frozen"].as_array().is_some_and(Vec::is_empty).then_some(()))
        })?;
        told(Tone::Good, "Mended: notify follows its files again.")?;
        self.pause(1)
    }

    fn vault(&self) -> Step {
        heading(4, "Vault lost and found: each follows its edge, and heals by itself")?;
        let file = self.manifests.join("vault.yaml");
        command(&format!("cp vault.yaml {}", self.manifests.display()))?;
        std::fs::write(&file, VAULT).map_err(|error| CliError::because(format!("{} cannot be written", file.display()), error))?;
        self.until("the services of secure to be usable", || Ok(self.are_usable(4)?.then_some(())))?;
        let before = self.lives()?;
        self.run("quaymaster graph -n secure")?;
        self.pause(2)?;
        command("bao operator seal")?;
        shown("Success! Vault is sealed.")?;
        self.vault.seal(true);
        self.until("the loss of secure/vault to be seen", || Ok((self.secure("vault")?["status"]["usable"] == false).then_some(())))?;
        self.run("quaymaster get msvc -n secure")?;
        told(Tone::Good, "db-login tolerates the loss for two seconds; jwt has its keys and does not care.")?;
        self.until("secure/payments to be blocked", || Ok((self.secure("payments")?["status"]["usable"] == false).then_some(())))?;
        self.run("quaymaster explain msvc/payments -n secure")?;
        self.pause(3)?;
        let during = self.lives()?;
        if during != before {
            return Err(CliError::failed(format!("a container was stopped or restarted for it: {before:?} became {during:?}")));
        }
        told(Tone::Good, "No container was stopped or restarted.")?;
        self.pause(1)?;
        command("bao operator unseal")?;
        shown("Sealed  false")?;
        self.vault.seal(false);
        let since = Instant::now();
        self.until("everything in secure to be usable again", || {
            let after = self.lives()?;
            Ok((self.are_usable(4)? && after.get("db-login") != before.get("db-login")).then_some(()))
        })?;
        let took = seconds(since);
        self.run("quaymaster events -n secure | grep returned | tr -s ' '")?;
        let after = self.lives()?;
        let kept: Vec<&str> = before.iter().filter(|(name, life)| after.get(*name) == Some(life)).map(|(name, _)| name.as_str()).collect();
        let restarts = self.restarts("db-login")?;
        let is_same_container = after.get("db-login").map(|(id, _)| id) == before.get("db-login").map(|(id, _)| id);
        if restarts != 1 || !is_same_container || kept != ["jwt", "payments"] {
            return Err(CliError::failed(format!("db-login was restarted {restarts} times; {before:?} became {after:?}")));
        }
        told(
            Tone::Good,
            &format!("Usable again after {took}: db-login restarted once, as it asked for; {} run on as they were.", list(&kept)),
        )?;
        self.pause(1)
    }

    /// Whether so many services of the namespace `secure` are there, and all may be used.
    fn are_usable(&self, count: usize) -> Result<bool, ClientError> {
        let services = self.get(&format!("{BASE}/namespaces/secure/miniservices"))?;
        let items = services["items"].as_array().cloned().unwrap_or_default();
        Ok(items.len() == count && items.iter().all(|service| service["status"]["usable"] == true))
    }

    /// The containers of the namespace `secure` and when each was started.
    fn lives(&self) -> Result<BTreeMap<String, (String, String)>, ClientError> {
        let services = self.get(&format!("{BASE}/namespaces/secure/miniservices"))?;
        let life = |service: &Value| {
            let slot = &service["status"]["slots"][0];
            (cell(&service["metadata"]["name"]), (cell(&slot["containerId"]), cell(&slot["startedAt"])))
        };
        let all = services["items"].as_array().into_iter().flatten().map(life);
        Ok(all.filter(|(_, (id, _))| !id.is_empty()).collect())
    }

    /// How often the operator restarted the containers of a service of the namespace `secure`, as its events tell.
    fn restarts(&self, service: &str) -> Result<u64, ClientError> {
        let events = self.get("/api/v1/namespaces/secure/events")?;
        let is_restart = |event: &&Value| {
            event["involvedObject"]["name"] == service && event["message"].as_str().is_some_and(|message| message.starts_with("restart "))
        };
        let times = |event: &Value| event["count"].as_u64().unwrap_or(1);
        Ok(events["items"].as_array().into_iter().flatten().filter(is_restart).map(times).sum())
    }

    fn farewell(&self) -> Step {
        output::print(&format!("\nThat took {}. Where to go next:\n", seconds(self.started)))?;
        shown(
            "your own manifests, on the simulated engine:\n\
             \x20 quaymaster run --engine sim --manifests DIR --data-dir D --socket S\n\
             three services on a real Docker:\n\
             \x20 see \"Two commands\" in README.md, and examples/quickstart\n\
             how to write manifests:\n\
             \x20 docs/guide/README.md, and quaymaster explain QM0007 for what you just saw",
        )
    }

    /// Prints a command line of this program, runs it, and shows what it prints. Behind it stand `grep WORD` and `tr -s ' '`, if anything.
    fn run(&self, line: &str) -> Step {
        self.run_to(line, End::Fine)
    }

    /// The same, where the command is to end otherwise.
    fn run_to(&self, line: &str, wanted: End) -> Step {
        command(line)?;
        let mut parts = line.split(" | ");
        let mut words: Vec<&str> = parts.next().unwrap_or_default().split_whitespace().collect();
        let socket = self.socket.display().to_string();
        if words.get(1) != Some(&"validate") {
            words.extend(["--socket", &socket]);
        }
        let parsed = Cli::try_parse_from(words).map_err(|error| CliError::because("the story has a command that does not exist", error))?;
        let (end, mut text) = output::caught(|| dispatch(parsed.command));
        for filter in parts {
            text = text.lines().filter_map(|line| filtered(filter, line)).collect::<Vec<_>>().join("\n");
        }
        shown(&text)?;
        match end? {
            end if end == wanted => Ok(()),
            end => Err(CliError::failed(format!("`{line}` ended with {}, and should with {}", end.code(), wanted.code()))),
        }
    }

    fn edit(&self, file: &std::path::Path, from: &str, to: &str) -> Step {
        let told = |error| CliError::because(format!("{} cannot be changed", file.display()), error);
        let text = std::fs::read_to_string(file).map_err(told)?;
        std::fs::write(file, text.replace(from, to)).map_err(told)
    }

    fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.runtime.block_on(self.client.get(path))
    }

    fn secure(&self, name: &str) -> Result<Value, ClientError> {
        self.get(&format!("{BASE}/namespaces/secure/miniservices/{name}"))
    }

    fn service(&self, name: &str) -> Result<Value, ClientError> {
        self.get(&format!("{BASE}/namespaces/notify/miniservices/{name}"))
    }

    /// Asks the engine as `docker` does.
    fn docker(&self, method: &str, path: &str) -> Step {
        let asked = self.runtime.block_on(ask(&self.sim, method, path));
        asked.map_err(|error| CliError::because(format!("the simulated engine refused {method} {path}"), error))
    }

    /// Looks until there is something; gives up after [`PATIENCE`].
    fn until<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>, CliError>) -> Result<T, CliError> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(CliError::failed(format!("waited {} s in vain for {what}", PATIENCE.as_secs())));
            }
            self.runtime.block_on(tokio::time::sleep(GLANCE));
        }
    }

    fn pause(&self, times: u32) -> Step {
        if !self.fast {
            self.runtime.block_on(tokio::time::sleep(READING * times));
        }
        Ok(())
    }
}

/// The services by level, each with whether it is usable.
fn levels(graph: &Value) -> BTreeMap<u64, Vec<(String, bool)>> {
    let mut levels: BTreeMap<u64, Vec<(String, bool)>> = BTreeMap::new();
    for node in graph["nodes"].as_array().into_iter().flatten() {
        if let (Some(level), "MiniService") = (node["level"].as_u64(), cell(&node["kind"]).as_str()) {
            levels.entry(level).or_default().push((cell(&node["name"]), node["usable"] == true));
        }
    }
    levels
}

/// As many names as stand on a line.
fn list(names: &[&str]) -> String {
    let mut text = String::new();
    for (at, name) in names.iter().enumerate() {
        if text.len() + name.len() > 44 {
            return format!("{text} and {} more", names.len() - at);
        }
        text.push_str(if at > 0 { ", " } else { "" });
        text.push_str(name);
    }
    text
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}

/// A line behind `grep WORD` or `tr -s ' '`.
fn filtered(filter: &str, line: &str) -> Option<String> {
    match filter.strip_prefix("grep ") {
        Some(word) => line.contains(word).then(|| line.to_owned()),
        None => Some(line.split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}

async fn ask(sim: &Sim, method: &str, path: &str) -> anyhow::Result<()> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(sim.connect()?)).await?;
    // The connection lives as long as the answer is read; its errors show there.
    tokio::spawn(connection);
    let request = http::Request::builder().method(method).uri(path).header(http::header::HOST, "docker").body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let body = answer.into_body().collect().await?.to_bytes();
    anyhow::ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body).trim());
    Ok(())
}
