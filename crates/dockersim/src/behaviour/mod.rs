//! What simulated containers and registries do: scripted by labels, by a [`World`], and read from the command line.

pub(crate) mod shell;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::engine::filter::glob;
use crate::engine::reply::Channel;
use shell::{Files, Shell};

/// Prefix of the labels that script a container.
pub const LABEL_PREFIX: &str = "dockersim.";

/// What the world outside the engine is like: images and how containers behave. Read from YAML or JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct World {
    /// Images by reference (`name:tag`).
    pub images: BTreeMap<String, ImageSpec>,
    /// How containers behave; of several rules that fit, the later ones win field by field.
    pub containers: Vec<Rule>,
    /// Paths of the host (patterns) that are there besides all below the usual directories.
    pub host_paths: Vec<String>,
    /// Memory of the machine in bytes.
    pub memory_bytes: u64,
    /// Its processors.
    pub cpus: u64,
    /// Rules that win over all others and over labels: of programs that meddle, not of files.
    #[serde(skip)]
    pub forced: Vec<Rule>,
}

impl Default for World {
    fn default() -> Self {
        let busybox = |size| ImageSpec { program: Program::Busybox, cmd: vec!["/bin/sh".to_owned()], size, ..ImageSpec::default() };
        Self {
            images: [("busybox:local", 1_984_223), ("busybox:two", 1_984_224), ("busybox:latest", 1_984_225)]
                .into_iter()
                .map(|(name, size)| (name.to_owned(), busybox(size)))
                .collect(),
            containers: Vec::new(),
            host_paths: Vec::new(),
            memory_bytes: 25_276_502_016,
            cpus: 2,
            forced: Vec::new(),
        }
    }
}

impl World {
    /// Reads a world from YAML or JSON.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_saphyr::from_str(text).map_err(|error| error.to_string())
    }
}

/// Where an image is at the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// In the engine.
    #[default]
    Local,
    /// In the registry: it can be pulled.
    Remote,
    /// Nowhere, said by name: `manifest unknown`.
    Missing,
    /// The registry does not answer.
    Unreachable,
}

/// What the programs of an image are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// A service that runs until it is told to end, which it does at once with exit code 0.
    #[default]
    Service,
    /// Busybox: its applets are known, and as process 1 they do not hear SIGTERM.
    Busybox,
}

/// An image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSpec {
    /// Where it is.
    pub presence: Presence,
    /// What is in it.
    pub program: Program,
    /// Its registry gives it to this `user:password` alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credentials: Option<String>,
    /// How long pulling it takes.
    pub pull_ms: u64,
    /// The sizes of its layers, as a pull shows them.
    pub layers: Vec<u64>,
    /// Its size.
    pub size: u64,
    /// Its command.
    pub cmd: Vec<String>,
    /// Its entrypoint.
    pub entrypoint: Vec<String>,
    /// Its environment.
    pub env: Vec<String>,
    /// Its exposed ports (`80/tcp`).
    pub exposed: Vec<String>,
    /// The paths it declares as volumes.
    pub volumes: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its user.
    pub user: String,
    /// Its working directory.
    pub working_dir: String,
    /// Its HEALTHCHECK.
    pub healthcheck: Option<HealthSpec>,
}

/// A HEALTHCHECK, in Docker's own units.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthSpec {
    /// `["CMD", ..]`, `["CMD-SHELL", ..]` or `["NONE"]`.
    pub test: Vec<String>,
    /// Milliseconds between two probes.
    pub interval_ms: u64,
    /// Milliseconds a probe may take.
    pub timeout_ms: u64,
    /// Milliseconds in which failures do not count.
    pub start_period_ms: u64,
    /// Failures in a row until it is unhealthy.
    pub retries: u64,
}

impl HealthSpec {
    /// As the engine's configuration has it.
    pub(crate) fn json(&self) -> Value {
        let mut out = json!({ "Test": self.test });
        for (key, ms) in [("Interval", self.interval_ms), ("Timeout", self.timeout_ms), ("StartPeriod", self.start_period_ms)] {
            if ms > 0 {
                out[key] = json!(ms * 1_000_000);
            }
        }
        if self.retries > 0 {
            out["Retries"] = json!(self.retries);
        }
        out
    }
}

/// How the containers behave that it fits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// A pattern for the container's name (`*`, `?`).
    pub name: Option<String>,
    /// A pattern for the image it was created from.
    pub image: Option<String>,
    /// Labels that it has.
    pub labels: BTreeMap<String, String>,
    /// What they do.
    pub behaviour: Behaviour,
}

impl Rule {
    fn fits(&self, facts: &Facts<'_>) -> bool {
        self.name.as_ref().is_none_or(|p| glob(p, facts.name))
            && self.image.as_ref().is_none_or(|p| glob(p, facts.image))
            && self.labels.iter().all(|(key, value)| facts.labels.get(key) == Some(value))
    }
}

/// Scripted behaviour. What is not said is read from the command line.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Behaviour {
    /// How long the start takes.
    pub start_ms: Option<u64>,
    /// From when after the start it is healthy and accepts connections.
    pub healthy_after_ms: Option<u64>,
    /// It ends by itself after this time.
    pub exit_after_ms: Option<u64>,
    /// With this exit code.
    pub exit_code: Option<i64>,
    /// It ends every time, not only the first.
    pub crash_loop: Option<bool>,
    /// Its health changes with this period.
    pub flap_ms: Option<u64>,
    /// The ports it listens on.
    pub ports: Option<Vec<u16>>,
    /// What it answers to HTTP.
    pub http_status: Option<u16>,
    /// How long it goes on after SIGTERM.
    pub stop_ms: Option<u64>,
    /// A line that it logs at every start.
    pub log: Option<String>,
    /// Nobody looks into it: it runs whatever its command line says, listens wherever it is dialled, and what is run in it succeeds
    /// while it is healthy.
    pub opaque: Option<bool>,
    /// It cannot be started, and this is what the engine says.
    pub start_error: Option<String>,
}

impl Behaviour {
    fn over(self, base: Self) -> Self {
        Self {
            start_ms: self.start_ms.or(base.start_ms),
            healthy_after_ms: self.healthy_after_ms.or(base.healthy_after_ms),
            exit_after_ms: self.exit_after_ms.or(base.exit_after_ms),
            exit_code: self.exit_code.or(base.exit_code),
            crash_loop: self.crash_loop.or(base.crash_loop),
            flap_ms: self.flap_ms.or(base.flap_ms),
            ports: self.ports.or(base.ports),
            http_status: self.http_status.or(base.http_status),
            stop_ms: self.stop_ms.or(base.stop_ms),
            log: self.log.or(base.log),
            opaque: self.opaque.or(base.opaque),
            start_error: self.start_error.or(base.start_error),
        }
    }

    /// What the labels say; what cannot be read is not said.
    fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let text = |key: &str| labels.get(&format!("{LABEL_PREFIX}{key}")).map(String::as_str);
        let number = |key: &str| text(key).and_then(|t| t.trim().parse::<u64>().ok());
        let is_yes = |t: &str| !matches!(t, "false" | "0" | "no");
        Self {
            start_ms: number("start-ms"),
            healthy_after_ms: number("healthy-after-ms"),
            exit_after_ms: number("exit-after-ms"),
            exit_code: text("exit-code").and_then(|t| t.trim().parse().ok()),
            crash_loop: text("crash-loop").map(is_yes),
            flap_ms: number("flap-ms").filter(|ms| *ms > 0),
            ports: text("ports").map(|t| t.split([',', ' ']).filter_map(|p| p.trim().parse().ok()).collect()),
            http_status: text("http-status").and_then(|t| t.trim().parse().ok()).filter(|s| (100..1000).contains(s)),
            stop_ms: number("stop-ms"),
            log: text("log").map(str::to_owned),
            opaque: text("opaque").map(is_yes),
            start_error: text("start-error").map(str::to_owned),
        }
    }
}

/// When a container ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Not at all.
    Never,
    /// After its first start only.
    Once {
        /// After this time.
        after_ms: u64,
        /// With this code.
        code: i64,
    },
    /// After every start.
    Always {
        /// After this time.
        after_ms: u64,
        /// With this code.
        code: i64,
    },
}

/// What a container does when it is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnTerm {
    /// Nothing: it is killed after the grace.
    Ignores,
    /// Ends after a while; `None` = by the signal itself (128 + its number).
    Ends {
        /// After this time.
        after_ms: u64,
        /// With this code.
        code: Option<i64>,
    },
}

/// All that a container will do, settled when it is created.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) start_ms: u64,
    pub(crate) healthy_after_ms: u64,
    pub(crate) flap_ms: Option<u64>,
    pub(crate) ends: Ends,
    pub(crate) on_term: OnTerm,
    pub(crate) ports: Vec<u16>,
    /// Whether nothing but `ports` is listened on.
    pub(crate) ports_are_all: bool,
    pub(crate) http_status: u16,
    pub(crate) lines: Vec<(u64, Channel, String)>,
    /// The program that the image does not have.
    pub(crate) missing: Option<String>,
    /// Nobody looks into it: [`Behaviour::opaque`].
    pub(crate) opaque: bool,
    /// Why it cannot be started.
    pub(crate) start_error: Option<String>,
}

/// What is known of a container when its script is settled.
pub(crate) struct Facts<'a> {
    pub(crate) name: &'a str,
    pub(crate) image: &'a str,
    pub(crate) program: Program,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) command: &'a [String],
    pub(crate) env: &'a [String],
    /// Whether an init process passes signals on.
    pub(crate) init: bool,
}

impl World {
    pub(crate) fn script(&self, facts: &Facts<'_>, files: &mut Files) -> Script {
        let mut said = Behaviour::default();
        for rule in self.forced.iter().rev().filter(|rule| rule.fits(facts)) {
            said = said.over(rule.behaviour.clone());
        }
        said = said.over(Behaviour::from_labels(facts.labels));
        for rule in self.containers.iter().rev().filter(|rule| rule.fits(facts)) {
            said = said.over(rule.behaviour.clone());
        }
        let opaque = said.opaque == Some(true);
        let mut shell = Shell::new(files, facts.env, facts.program == Program::Busybox && !opaque);
        let outcome = if opaque { None } else { shell.top(facts.command) };
        let mut lines = std::mem::take(&mut shell.lines);
        let (ports, trap, missing, ms) = (std::mem::take(&mut shell.ports), shell.trap, shell.missing.take(), shell.ms);
        let ends = match (said.exit_after_ms, outcome) {
            (Some(after_ms), _) if said.crash_loop == Some(true) => Ends::Always { after_ms, code: said.exit_code.unwrap_or(1) },
            (Some(after_ms), _) => Ends::Once { after_ms, code: said.exit_code.unwrap_or(0) },
            (None, _) if said.crash_loop == Some(true) => Ends::Always { after_ms: 0, code: said.exit_code.unwrap_or(1) },
            (None, Some(code)) => Ends::Always { after_ms: ms, code },
            (None, None) => Ends::Never,
        };
        let on_term = match (said.stop_ms, trap) {
            (Some(after_ms), _) => OnTerm::Ends { after_ms, code: None },
            (None, Some(code)) => OnTerm::Ends { after_ms: 0, code: Some(code) },
            (None, None) if opaque => OnTerm::Ends { after_ms: 0, code: Some(0) },
            (None, None) if facts.init => OnTerm::Ends { after_ms: 0, code: None },
            (None, None) if facts.program == Program::Service => OnTerm::Ends { after_ms: 0, code: Some(0) },
            (None, None) => OnTerm::Ignores,
        };
        if let Some(line) = said.log {
            lines.insert(0, (0, Channel::Out, line));
        }
        Script {
            start_ms: said.start_ms.unwrap_or(0),
            healthy_after_ms: said.healthy_after_ms.unwrap_or(0),
            flap_ms: said.flap_ms,
            ends,
            on_term,
            ports_are_all: said.ports.is_some() || (said.ports.is_none() && facts.program == Program::Busybox && !ports.is_empty()),
            ports: said.ports.unwrap_or(ports),
            http_status: said.http_status.unwrap_or(200),
            lines,
            missing: missing.filter(|_| facts.program == Program::Busybox),
            opaque,
            start_error: said.start_error,
        }
    }
}
