//! A container as the engine keeps it: what was asked for, what became of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::network::Endpoint;
use super::reply::{Channel, Ticket};
use crate::behaviour::Script;
use crate::behaviour::shell::Files;

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Never started.
    Created,
    /// The start is under way; to the outside it is still what it was.
    Starting,
    /// It runs.
    Running,
    /// Its processes are frozen.
    Paused,
    /// It ended and its restart policy waits.
    Restarting,
    /// It ended.
    Exited,
}

impl Phase {
    /// What the daemon calls "running": frozen and about to be restarted count.
    pub fn runs(self) -> bool {
        matches!(self, Self::Running | Self::Paused | Self::Restarting)
    }

    /// Whether there are processes.
    pub(crate) fn lives(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// When a container is started again by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Never.
    No,
    /// After every end.
    Always,
    /// After every end that nobody asked for.
    UnlessStopped,
    /// After a failure, this many times (0 = any).
    OnFailure(u64),
}

/// What happens once the container has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterExit {
    Killed(Ticket),
    Stopped(Ticket),
    Restart(Ticket),
    Remove(Ticket, Volumes),
}

/// Whether anonymous volumes go with their container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Volumes {
    Keep,
    Remove,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// `volume`, `bind` or `tmpfs`.
    pub kind: MountKind,
    /// The volume's name, or the path on the host.
    pub source: String,
    /// Where it is in the container.
    pub target: String,
    /// The mode as asked for (`z`, `ro`, ..).
    pub mode: String,
    /// Whether it may be written.
    pub writable: bool,
    /// Whether the volume had no name of its own and belongs to this container.
    pub anonymous: bool,
}

/// The kinds of mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountKind {
    /// A volume.
    Volume,
    /// A path of the host.
    Bind,
    /// Memory.
    Tmpfs,
}

/// The place of a container in a network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attachment {
    pub(crate) network_id: Arc<str>,
    pub(crate) ipam: Option<Value>,
    pub(crate) aliases: Vec<String>,
    pub(crate) links: Option<Value>,
    pub(crate) driver_opts: Option<Value>,
    pub(crate) mac: Option<String>,
    pub(crate) endpoint: Option<Endpoint>,
}

impl Attachment {
    pub(crate) fn fixed_ip(&self) -> Option<&str> {
        self.ipam.as_ref()?.get("IPv4Address")?.as_str().filter(|ip| !ip.is_empty())
    }
}

/// What the engine found out about a container's health.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub(crate) status: HealthStatus,
    pub(crate) streak: u64,
    pub(crate) log: VecDeque<Probe>,
    pub(crate) test: Vec<String>,
    pub(crate) interval_ms: u64,
    pub(crate) start_period_ms: u64,
    pub(crate) retries: u64,
}

/// The words of a health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStatus {
    /// Not known yet.
    Starting,
    /// The last probe succeeded.
    Healthy,
    /// Too many probes failed.
    Unhealthy,
}

impl HealthStatus {
    /// As the API says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// One run of a HEALTHCHECK.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) at_ns: i64,
    pub(crate) code: i64,
    pub(crate) output: String,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) target: String,
    pub(crate) host_ip: String,
    pub(crate) host_port: u16,
}

/// A line of a log.
#[derive(Clone, Debug)]
pub(crate) struct LogLine {
    pub(crate) at_ns: i64,
    pub(crate) channel: Channel,
    pub(crate) text: Arc<str>,
}

/// A container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: Arc<str>,
    pub(crate) serial: u64,
    pub(crate) name: Arc<str>,
    pub(crate) created_ns: i64,
    pub(crate) image_id: Arc<str>,
    pub(crate) image: Arc<str>,
    /// What was asked for and differs from the defaults.
    pub(crate) config: Map<String, Value>,
    pub(crate) host: Map<String, Value>,
    pub(crate) labels: Arc<BTreeMap<String, String>>,
    pub(crate) command: Vec<String>,
    pub(crate) mounts: Vec<MountPoint>,
    /// Boxed: a map has room for eleven of them from the first on.
    pub(crate) networks: BTreeMap<Arc<str>, Box<Attachment>>,
    pub(crate) mode: NetworkMode,
    pub(crate) policy: Policy,
    pub(crate) auto_remove: bool,
    pub(crate) script: Arc<Script>,
    pub(crate) phase: Phase,
    /// What `Starting` came from.
    pub(crate) before: Phase,
    pub(crate) exit_code: i64,
    pub(crate) error: String,
    pub(crate) started_ns: Option<i64>,
    pub(crate) started_ms: u64,
    pub(crate) finished_ns: Option<i64>,
    pub(crate) pid: u64,
    pub(crate) restart_count: u64,
    /// What the last request for a restart called it.
    pub(crate) restarted_as: String,
    pub(crate) sandbox: Arc<str>,
    pub(crate) published: Vec<Published>,
    pub(crate) health: Option<Box<Health>>,
    pub(crate) logs: VecDeque<LogLine>,
    /// Lines that were dropped from the front of `logs`.
    pub(crate) log_base: u64,
    pub(crate) files: Files,
    /// Somebody asked for its end: the restart policy is off.
    pub(crate) told_to_end: bool,
    pub(crate) after_exit: Vec<AfterExit>,
    /// Rises with every start and every end: what was timed for before is void.
    pub(crate) epoch: u64,
    pub(crate) exits: u64,
    pub(crate) starts: u64,
    pub(crate) backoff_ms: u64,
    pub(crate) execs: Vec<Arc<str>>,
}

/// The network mode, as far as the engine treats modes differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetworkMode {
    /// A network by name or id; `default` is `bridge`.
    Named(Arc<str>),
    /// The host's own.
    Host,
    /// None.
    None,
    /// Another container's.
    Container(Arc<str>),
}

impl Container {
    pub(crate) fn short_id(&self) -> &str {
        &self.id[..12]
    }

    pub(crate) fn tty(&self) -> bool {
        self.config.get("Tty").and_then(Value::as_bool).unwrap_or(false)
    }

    /// The word for its state.
    pub(crate) fn word(&self) -> &'static str {
        match if self.phase == Phase::Starting { self.before } else { self.phase } {
            Phase::Created | Phase::Starting => "created",
            Phase::Running => "running",
            Phase::Paused => "paused",
            Phase::Restarting => "restarting",
            Phase::Exited => "exited",
        }
    }

    /// Whether its script calls it healthy at this instant.
    pub(crate) fn well(&self, mono_ms: u64) -> bool {
        let Some(since) = mono_ms.saturating_sub(self.started_ms).checked_sub(self.script.healthy_after_ms) else { return false };
        self.phase == Phase::Running && self.script.flap_ms.is_none_or(|flap| (since / flap.max(1)).is_multiple_of(2))
    }

    /// Whether it would listen on a TCP port.
    pub(crate) fn listens_on(&self, port: u16) -> bool {
        (self.script.opaque && !self.script.ports_are_all) || self.tcp_ports().contains(&port)
    }

    /// The TCP ports it would listen on.
    pub(crate) fn tcp_ports(&self) -> Vec<u16> {
        let mut ports = self.script.ports.clone();
        if !self.script.ports_are_all {
            let exposed = self.config.get("ExposedPorts").and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k.as_str());
            ports.extend(exposed.filter_map(|p| p.strip_suffix("/tcp").and_then(|p| p.parse::<u16>().ok())));
            ports.sort_unstable();
            ports.dedup();
        }
        ports
    }
}

/// A command run in a container.
#[derive(Clone, Debug)]
pub(crate) struct Exec {
    pub(crate) id: Arc<str>,
    pub(crate) container: Arc<str>,
    pub(crate) command: Vec<String>,
    pub(crate) body: Value,
    pub(crate) state: ExecState,
    pub(crate) pid: u64,
}

/// Where a command run in a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExecState {
    Created,
    Done(i64),
    /// It runs until the container ends.
    Running,
}
