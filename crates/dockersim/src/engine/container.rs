//! One container: its state and its life. What a life leads to (events, timers, answers) goes through the engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::event::{Event, Kind};
use super::network::Endpoint;
use super::reply::{Channel, Failure, Reply};
use super::{Engine, Pending, Timer, text_list};
use crate::Now;
use crate::behaviour::shell::Files;
use crate::behaviour::{Ends, Facts, HealthSpec, OnTerm, Program, Script};

/// The first pause before the engine restarts a container, in milliseconds; it doubles each time.
const FIRST_BACKOFF_MS: u64 = 100;
/// The longest such pause.
const LAST_BACKOFF_MS: u64 = 60_000;
/// A container that ran this long begins with the first pause again.
const RAN_WELL_MS: u64 = 10_000;
/// Log entries kept of a health check.
const HEALTH_LOG: usize = 5;

/// What a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
}

impl Phase {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
        }
    }

    pub(crate) fn is_up(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}

/// What is mounted.
#[derive(Clone, Debug)]
pub(crate) struct MountPoint {
    pub(crate) kind: &'static str,
    /// The volume's name, or the host path.
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) mode: String,
    pub(crate) writable: bool,
    /// A volume whose name nobody chose.
    pub(crate) anonymous: bool,
}

/// A HEALTHCHECK at work.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    pub(crate) spec: HealthSpec,
    pub(crate) status: &'static str,
    pub(crate) failing: u64,
    pub(crate) log: Vec<Value>,
}

/// A container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: Arc<str>,
    pub(crate) name: String,
    pub(crate) order: u64,
    pub(crate) created_ns: i64,
    pub(crate) image: String,
    pub(crate) image_id: Arc<str>,
    pub(crate) command: Vec<String>,
    /// `Config` as it is shown.
    pub(crate) config: Value,
    /// `HostConfig` as it was given; defaults are added when it is shown.
    pub(crate) host: Value,
    pub(crate) labels: Arc<BTreeMap<String, String>>,
    pub(crate) phase: Phase,
    pub(crate) exit_code: i64,
    pub(crate) error: String,
    pub(crate) started_ns: Option<i64>,
    pub(crate) finished_ns: Option<i64>,
    pub(crate) started_ms: u64,
    pub(crate) restart_count: u64,
    pub(crate) backoff: u32,
    pub(crate) stopped_by_hand: bool,
    pub(crate) starts: u64,
    pub(crate) exits: u64,
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    pub(crate) published: Vec<(String, String, u16)>,
    pub(crate) mounts: Vec<MountPoint>,
    pub(crate) script: Script,
    pub(crate) files: Files,
    /// Time in Unix nanoseconds, monotonic milliseconds, channel, text.
    pub(crate) logs: Vec<(i64, u64, Channel, String)>,
    pub(crate) health: Option<Health>,
}

impl Container {
    pub(crate) fn policy(&self) -> (&str, u64) {
        let policy = &self.host["RestartPolicy"];
        (policy["Name"].as_str().unwrap_or_default(), policy["MaximumRetryCount"].as_u64().unwrap_or(0))
    }

    pub(crate) fn host_flag(&self, key: &str) -> bool {
        self.host[key].as_bool().unwrap_or(false)
    }

    /// Whether its program would say that it is well.
    pub(crate) fn is_well(&self, mono_ms: u64) -> bool {
        if self.phase != Phase::Running {
            return false;
        }
        let age = mono_ms.saturating_sub(self.started_ms);
        age >= self.script.healthy_after_ms && self.script.flap_ms.is_none_or(|ms| (age / ms).is_multiple_of(2))
    }

    fn attributes(&self) -> Vec<(&'static str, Arc<str>)> {
        vec![("image", self.image.as_str().into()), ("name", self.name.as_str().into())]
    }

    pub(crate) fn event(&self, action: &str, now: Now, more: &[(&'static str, String)]) -> Event {
        let mut attributes = self.attributes();
        attributes.extend(more.iter().map(|(k, v)| (*k, Arc::from(v.as_str()))));
        Event {
            seq: 0,
            time_ns: now.wall_ns,
            kind: Kind::Container,
            action: action.into(),
            actor: self.id.clone(),
            labels: self.labels.clone(),
            attributes,
        }
    }
}

impl Engine {
    pub(crate) fn tell(&mut self, id: &str, action: &str, now: Now, more: &[(&'static str, String)]) {
        if let Some(event) = self.containers.get(id).map(|c| c.event(action, now, more)) {
            self.events.push(event);
        }
    }

    /// Starts a container; `Later` where its start takes time.
    pub(crate) fn start(&mut self, id: &Arc<str>, now: Now) -> Result<Reply, Failure> {
        let container = self.at(id);
        match container.phase {
            Phase::Running | Phase::Restarting => return Ok(Reply::empty(304)),
            Phase::Paused => return Err(Failure::new(409, "cannot start a paused container, try unpause instead")),
            Phase::Created | Phase::Exited => {}
        }
        self.changed();
        let start_ms = self.at(id).script.start_ms;
        if start_ms > 0 {
            let ticket = self.promise(Pending::Started { id: id.clone() });
            self.timer(now.mono_ms + start_ms, id, Timer::Start);
            return Ok(Reply::Later(ticket));
        }
        self.at(id).restart_count = 0;
        self.do_start(id, now).map(|()| Reply::empty(204))
    }

    /// The start itself.
    pub(crate) fn do_start(&mut self, id: &Arc<str>, now: Now) -> Result<(), Failure> {
        let failed = |engine: &mut Self, code: i64, failure: Failure| {
            let container = engine.at(id);
            container.exit_code = code;
            container.error = failure.message.clone();
            if container.phase == Phase::Restarting {
                container.phase = Phase::Exited;
            }
            failure
        };
        if let Err(failure) = self.join_networks(id, now) {
            self.leave_networks(id, None);
            return Err(failed(self, 128, failure));
        }
        self.settle(id);
        if let Some(program) = self.at(id).script.missing.clone() {
            self.leave_networks(id, Some(now));
            let message = format!(
                "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: exec: \"{program}\": executable file not found in $PATH: unknown"
            );
            return Err(failed(self, 127, Failure::new(400, message)));
        }
        self.mount_events(id, "mount", now);
        let container = self.at(id);
        container.phase = Phase::Running;
        container.error.clear();
        container.exit_code = 0;
        container.started_ns = Some(now.wall_ns);
        container.started_ms = now.mono_ms;
        container.starts += 1;
        container.stopped_by_hand = false;
        let first = container.starts == 1;
        let lines = container.script.lines.clone();
        for (offset, channel, text) in &lines {
            let at_ns = now.wall_ns + *offset as i64 * 1_000_000;
            container.logs.push((at_ns, now.mono_ms + offset, *channel, text.clone()));
        }
        let ends = match container.script.ends {
            Ends::Always { after_ms, code } => Some((after_ms, code)),
            Ends::Once { after_ms, code } if first => Some((after_ms, code)),
            Ends::Once { .. } | Ends::Never => None,
        };
        let healthy_after_ms = container.script.healthy_after_ms;
        let probe_ms = container.health.as_mut().map(|health| {
            (health.status, health.failing) = ("starting", 0);
            health.log.clear();
            health.spec.interval_ms.max(1)
        });
        self.tell(id, "start", now, &[]);
        for (offset, _, _) in lines.iter().filter(|(offset, _, _)| *offset > 0) {
            self.timer(now.mono_ms + offset, id, Timer::Wake);
        }
        if healthy_after_ms > 0 {
            self.timer(now.mono_ms + healthy_after_ms, id, Timer::Wake);
        }
        if let Some(after) = probe_ms {
            self.timer(now.mono_ms + after, id, Timer::Probe);
        }
        if let Some((after_ms, code)) = ends {
            // Even what ends at once has run.
            self.timer(now.mono_ms + after_ms.max(1), id, Timer::Exit { code });
        }
        Ok(())
    }

    /// Reads the command line again, with the files that were put into the container since it was created.
    fn settle(&mut self, id: &Arc<str>) {
        let world = self.world.clone();
        let program = self.images.get(&self.containers[id].image_id).map_or(Program::Service, |image| image.spec.program);
        if program != Program::Busybox {
            return;
        }
        let container = self.at(id);
        let mut files = std::mem::take(&mut container.files);
        let env = text_list(&container.config["Env"]);
        let facts = Facts {
            name: &container.name,
            image: &container.image,
            program,
            labels: &container.labels,
            command: &container.command,
            env: &env,
            init: container.host_flag("Init"),
        };
        let mut script = world.script(&facts, &mut files);
        if !script.ports_are_all {
            // What is exposed was found out at its creation.
            script.ports.extend(container.script.ports.iter());
            script.ports.sort_unstable();
            script.ports.dedup();
        }
        container.files = files;
        container.script = script;
    }

    /// The process ended.
    pub(crate) fn exit(&mut self, id: &Arc<str>, code: i64, now: Now) {
        if !self.at(id).phase.is_up() {
            return;
        }
        let container = self.at(id);
        let ran_ms = now.mono_ms.saturating_sub(container.started_ms);
        container.exit_code = code;
        container.finished_ns = Some(now.wall_ns);
        container.exits += 1;
        let (policy, most) = container.policy();
        let again = !container.stopped_by_hand
            && match policy {
                "always" | "unless-stopped" => true,
                "on-failure" => code != 0 && (most == 0 || container.restart_count < most),
                _ => false,
            };
        container.backoff = if ran_ms >= RAN_WELL_MS { 0 } else { container.backoff };
        if again {
            let pause = (FIRST_BACKOFF_MS << container.backoff.min(10)).min(LAST_BACKOFF_MS);
            container.backoff += 1;
            container.restart_count += 1;
            container.phase = Phase::Restarting;
            self.timer(now.mono_ms + pause, id, Timer::Restart);
        } else {
            container.phase = Phase::Exited;
            container.backoff = 0;
        }
        self.tell(id, "die", now, &[("exitCode", code.to_string())]);
        self.leave_networks(id, Some(now));
        self.mount_events(id, "unmount", now);
        if !again && self.at(id).host_flag("AutoRemove") {
            self.remove(id, true, now);
        }
    }

    /// Sends a signal, as `docker kill` does.
    pub(crate) fn signal(&mut self, id: &Arc<str>, signal: i64, now: Now) {
        self.changed();
        self.tell(id, "kill", now, &[("signal", signal.to_string())]);
        let container = self.at(id);
        // Without a stop signal of its own, every signal sent by hand means that it is not to come back.
        let own_stop_signal = container.config["StopSignal"].as_str().filter(|s| !s.is_empty()).and_then(parse_signal);
        if signal == 9 || own_stop_signal.is_none_or(|s| s == signal) {
            container.stopped_by_hand = true;
        }
        if container.phase == Phase::Restarting {
            container.phase = Phase::Exited;
            return;
        }
        match signal {
            9 => self.exit(id, 137, now),
            15 => match container.script.on_term {
                OnTerm::Ignores => {}
                OnTerm::Ends { after_ms: 0, code } => self.exit(id, code.unwrap_or(143), now),
                OnTerm::Ends { after_ms, code } => self.timer(now.mono_ms + after_ms, id, Timer::Exit { code: code.unwrap_or(143) }),
            },
            1 | 2 | 3 if container.host_flag("Init") => self.exit(id, 128 + signal, now),
            _ => {}
        }
    }

    /// Stops a container: a signal, and after the grace another one that nobody survives.
    pub(crate) fn stop(&mut self, id: &Arc<str>, grace_s: Option<i64>, restart: bool, now: Now) -> Reply {
        self.changed();
        let container = self.at(id);
        if container.phase == Phase::Restarting {
            container.phase = Phase::Exited;
            container.stopped_by_hand = true;
            self.tell(id, "stop", now, &[]);
            return self.stopped(id, restart, now);
        }
        let was_paused = container.phase == Phase::Paused;
        let grace_s = grace_s.unwrap_or_else(|| container.config["StopTimeout"].as_i64().unwrap_or(10));
        let signal = container.config["StopSignal"].as_str().and_then(parse_signal).unwrap_or(15);
        container.phase = Phase::Running;
        container.stopped_by_hand = true;
        if was_paused {
            self.tell(id, "unpause", now, &[]);
        }
        self.signal(id, signal, now);
        self.at_if(id).map(|c| c.stopped_by_hand = true);
        if self.is_up(id) && grace_s == 0 {
            self.signal(id, 9, now);
        }
        if !self.is_up(id) {
            self.tell(id, "stop", now, &[]);
            return self.stopped(id, restart, now);
        }
        let ticket = self.promise(Pending::Stopped { id: id.clone(), restart });
        if grace_s > 0 {
            self.timer(now.mono_ms + grace_s as u64 * 1_000, id, Timer::Kill);
        }
        Reply::Later(ticket)
    }

    /// What follows when a container has stopped.
    pub(crate) fn stopped(&mut self, id: &Arc<str>, restart: bool, now: Now) -> Reply {
        if !restart {
            return Reply::empty(204);
        }
        if !self.containers.contains_key(id) {
            return Failure::new(404, format!("No such container: {id}")).into();
        }
        match self.do_start(id, now) {
            Ok(()) => {
                self.tell(id, "restart", now, &[]);
                Reply::empty(204)
            }
            Err(failure) => failure.into(),
        }
    }

    pub(crate) fn is_up(&self, id: &str) -> bool {
        self.containers.get(id).is_some_and(|c| c.phase.is_up())
    }

    /// Takes a container away, and its volumes without a name where that is asked for.
    pub(crate) fn remove(&mut self, id: &Arc<str>, with_volumes: bool, now: Now) {
        self.changed();
        self.leave_networks(id, None);
        let Some(container) = self.containers.remove(id) else { return };
        self.names.remove(&container.name);
        for mount in container.mounts.iter().filter(|m| m.kind == "volume") {
            self.volume_left(&mount.source, id);
            if with_volumes && mount.anonymous {
                self.drop_volume(&mount.source, now);
            }
        }
        self.execs.retain(|_, exec| exec.container != *id);
        self.events.push(container.event("destroy", now, &[]));
    }

    fn mount_events(&mut self, id: &Arc<str>, action: &str, now: Now) {
        let container = self.at(id);
        let mounts: Vec<MountPoint> = container.mounts.iter().filter(|m| m.kind == "volume").cloned().collect();
        for mount in mounts {
            let mut attributes: Vec<(&'static str, Arc<str>)> = vec![("container", id.clone()), ("driver", "local".into())];
            if action == "mount" {
                attributes.push(("destination", mount.target.as_str().into()));
                attributes.push(("propagation", "".into()));
                attributes.push(("read/write", if mount.writable { "true" } else { "false" }.into()));
            }
            self.events.push(Event {
                seq: 0,
                time_ns: now.wall_ns,
                kind: Kind::Volume,
                action: action.into(),
                actor: mount.source.as_str().into(),
                labels: Arc::default(),
                attributes,
            });
        }
    }

    /// One round of a HEALTHCHECK.
    pub(crate) fn probe(&mut self, id: &Arc<str>, now: Now) {
        let container = self.at(id);
        if container.phase != Phase::Running {
            return;
        }
        let Some(spec) = container.health.as_ref().map(|h| h.spec.clone()) else { return };
        let command: Vec<String> = match spec.test.first().map(String::as_str) {
            Some("CMD-SHELL") => ["/bin/sh", "-c"].iter().map(|s| (*s).to_owned()).chain(spec.test.get(1).cloned()).collect(),
            _ => spec.test.iter().skip(1).cloned().collect(),
        };
        let (code, output, _) = self.run_command(id, &command, now);
        let age_ms = now.mono_ms - self.at(id).started_ms;
        let container = self.at(id);
        let Some(health) = container.health.as_mut() else { return };
        health.log.push(json!({
            "Start": super::time::nano(now.wall_ns), "End": super::time::nano(now.wall_ns + 1), "ExitCode": code,
            "Output": String::from_utf8_lossy(&output),
        }));
        if health.log.len() > HEALTH_LOG {
            health.log.remove(0);
        }
        let before = health.status;
        if code == 0 {
            (health.status, health.failing) = ("healthy", 0);
        } else if !(before == "starting" && age_ms < health.spec.start_period_ms) {
            health.failing += 1;
            if health.failing >= health.spec.retries.max(if health.spec.retries == 0 { 3 } else { 1 }) {
                health.status = "unhealthy";
            }
        }
        let after = health.status;
        let interval = health.spec.interval_ms.max(1);
        if before != after {
            self.tell(id, &format!("health_status: {after}"), now, &[]);
        }
        self.timer(now.mono_ms + interval, id, Timer::Probe);
    }
}

/// A signal by name or number.
pub(crate) fn parse_signal(text: &str) -> Option<i64> {
    const NAMES: [(&str, i64); 15] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("KILL", 9),
        ("USR1", 10),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("CHLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("WINCH", 28),
        ("ABRT", 6),
    ];
    if let Ok(number) = text.parse::<i64>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.iter().find(|(n, _)| *n == name).map(|(_, number)| *number)
}
