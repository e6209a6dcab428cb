//! The life of a container: start, end, and what happens by itself in between.

use std::collections::VecDeque;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::container::{AfterExit, Attachment, HealthStatus, LogLine, MountKind, NetworkMode, Phase, Policy, Published, Volumes};
use super::create::{signal_number, strings, text};
use super::event::Kind;
use super::reply::{Failure, Reply, Request, Ticket};
use super::volume::valid_name;
use super::{Engine, Grave, Holder};
use crate::Now;
use crate::behaviour::shell::Files;
use crate::behaviour::{Ends, Facts, OnTerm, Program, Script, World};

/// The first pause before a restart, the longest, and the life that starts the pauses anew.
const BACKOFF: (u64, u64, u64) = (100, 60_000, 10_000);
/// Lines of a log that are kept.
const LOG_LINES: usize = 2_000;
/// The signal that nothing survives.
pub(crate) const KILL: i64 = 9;

/// Something that is due at a certain time.
#[derive(Clone, Debug)]
pub(crate) enum Timer {
    /// The start of a container is through.
    Launch { id: Arc<str>, goal: Goal },
    /// A container ends by itself.
    Exit { id: Arc<str>, epoch: u64, code: i64 },
    /// The grace of a stop is over.
    GraceEnds { id: Arc<str>, epoch: u64 },
    /// The restart policy starts it again.
    Relaunch { id: Arc<str>, epoch: u64 },
    /// The next run of the HEALTHCHECK.
    Probe { id: Arc<str>, epoch: u64 },
    /// A line of the log; the index into the script.
    Line { id: Arc<str>, epoch: u64, index: usize },
    /// It listens from now on, or does not any more.
    Listening { id: Arc<str>, epoch: u64 },
    /// A pull is through.
    Pulled { reference: String },
    /// Somebody waits for this time.
    Nudge,
}

/// What a start is for.
#[derive(Clone, Debug)]
pub(crate) enum Goal {
    /// Somebody asked.
    Asked(Ticket),
    /// It is the second half of a restart.
    Restart(Ticket),
    /// Its restart policy.
    Policy,
}

impl Engine {
    pub(crate) fn fire(&mut self, timer: Timer, now: Now) {
        let current = |engine: &Self, id: &Arc<str>, epoch: u64| engine.containers.get(id).is_some_and(|c| c.epoch == epoch);
        match timer {
            Timer::Launch { id, goal } => self.launched(&id, goal, now),
            Timer::Exit { id, epoch, code } if current(self, &id, epoch) => self.die(&id, code, now),
            Timer::GraceEnds { id, epoch } if current(self, &id, epoch) => {
                self.kill_event(&id, KILL, now);
                self.die(&id, 128 + KILL, now);
            }
            Timer::Relaunch { id, epoch } if current(self, &id, epoch) => self.launch(&id, Goal::Policy, now),
            Timer::Probe { id, epoch } if current(self, &id, epoch) => self.probe(&id, now),
            Timer::Line { id, epoch, index } if current(self, &id, epoch) => self.log_from(&id, index, now),
            Timer::Listening { id, epoch } if current(self, &id, epoch) => {
                self.version += 1;
                self.time_listening(&id, now);
            }
            Timer::Pulled { reference } => self.pulled(&reference, now),
            Timer::Nudge => self.version += 1,
            _ => {}
        }
    }

    pub(crate) fn container_start(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        // An empty object passes.
        if request.body.len() > 7 && request.api >= (1, 24) {
            let message = "starting container with non-empty request body was deprecated since API v1.22 and removed in v1.24";
            return Err(Failure::new(400, message));
        }
        let id = self.find(reference)?;
        match self.containers[&id].phase {
            Phase::Paused => Err(Failure::new(409, "cannot start a paused container, try unpause instead")),
            Phase::Running | Phase::Restarting | Phase::Starting => Ok(Reply::Empty { status: 304 }),
            Phase::Created | Phase::Exited => {
                if let Some(container) = self.containers.get_mut(&id) {
                    (container.restart_count, container.backoff_ms, container.told_to_end) = (0, 0, false);
                }
                let ticket = self.promise();
                self.launch(&id, Goal::Asked(ticket), now);
                Ok(self.take(ticket).unwrap_or(Reply::Later(ticket)))
            }
        }
    }

    pub(crate) fn launch(&mut self, id: &Arc<str>, goal: Goal, now: Now) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let takes = container.script.start_ms;
        container.before = container.phase;
        if takes == 0 {
            return self.launched(id, goal, now);
        }
        if container.phase != Phase::Restarting {
            container.phase = Phase::Starting;
        }
        let id = id.clone();
        self.time(now.mono_ms.saturating_add(takes), Timer::Launch { id, goal });
    }

    fn launched(&mut self, id: &Arc<str>, goal: Goal, now: Now) {
        if !self.containers.contains_key(id) {
            if let Goal::Asked(ticket) | Goal::Restart(ticket) = goal {
                self.fulfil(ticket, Failure::new(404, format!("No such container: {id}")).into());
            }
            return;
        }
        // A stop while the policy waited.
        if matches!(goal, Goal::Policy) && self.containers[id].told_to_end {
            return;
        }
        let result = self.try_launch(id, now);
        match (goal, result) {
            (Goal::Asked(ticket), Ok(())) => self.fulfil(ticket, Reply::Empty { status: 204 }),
            (Goal::Restart(ticket), Ok(())) => {
                self.container_event(id, "restart", Vec::new(), now);
                self.fulfil(ticket, Reply::Empty { status: 204 });
            }
            (Goal::Policy, Ok(())) => {}
            (goal, Err((failure, code))) => self.not_launched(id, &goal, failure, code, now),
        }
    }

    fn not_launched(&mut self, id: &Arc<str>, goal: &Goal, failure: Failure, code: i64, now: Now) {
        if let Some(container) = self.containers.get_mut(id) {
            container.phase = if container.starts == 0 { Phase::Created } else { Phase::Exited };
            container.exit_code = code;
            container.error.clone_from(&failure.message);
        }
        self.changed();
        match goal {
            Goal::Asked(ticket) => self.fulfil(*ticket, failure.into()),
            Goal::Restart(ticket) => {
                let called = self.containers.get(id).map_or("", |c| c.restarted_as.as_str());
                let message = format!("Cannot restart container {called}: {}", failure.message);
                self.fulfil(*ticket, Failure::new(500, message).into());
            }
            Goal::Policy => {}
        }
        if self.containers.get(id).is_some_and(|c| c.auto_remove) {
            self.bury(id, Volumes::Remove, now);
        }
    }

    /// The start itself: networks, ports, the process. On failure all of it is given back; the failure comes with the exit code.
    fn try_launch(&mut self, id: &Arc<str>, now: Now) -> Result<(), (Failure, i64)> {
        self.script_anew(id);
        let with = |code| move |failure| (failure, code);
        if let NetworkMode::Container(other) = &self.containers[id].mode {
            let other = self.find(other).map_err(with(128))?;
            if !self.containers[&other].phase.lives() {
                return Err((Failure::new(409, format!("cannot join network of a non running container: {other}")), 128));
            }
        }
        let joined = self.join_networks(id, now);
        if joined.is_ok() {
            let sandbox = self.hex_id();
            if let Some(container) = self.containers.get_mut(id).filter(|c| !matches!(c.mode, NetworkMode::Container(_))) {
                container.sandbox = sandbox;
            }
        }
        let result = joined.map_err(with(128)).and_then(|()| self.publish(id).map_err(with(128))).and_then(|()| {
            self.mount_events(id, now);
            let script = &self.containers[id].script;
            match (&script.start_error, &script.missing) {
                (None, None) => Ok(()),
                (Some(message), _) => Err((Failure::new(500, message.clone()), 128)),
                (None, Some(program)) => {
                    let why = if program.contains('/') {
                        format!("stat {program}: no such file or directory")
                    } else {
                        "executable file not found in $PATH".to_owned()
                    };
                    let message = format!(
                        "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: \
                         exec: \"{program}\": {why}: unknown"
                    );
                    Err((Failure::new(400, message), 127))
                }
            }
        });
        if let Err(failure) = result {
            self.leave_networks(id, now);
            self.unpublish(id);
            // Said even of volumes that were not mounted yet.
            self.unmount_events(id, now);
            return Err(failure);
        }
        let pid = self.count() + 1000;
        let Some(container) = self.containers.get_mut(id) else { return Ok(()) };
        container.phase = Phase::Running;
        container.epoch += 1;
        container.starts += 1;
        container.pid = pid;
        (container.exit_code, container.error) = (0, String::new());
        (container.started_ns, container.started_ms) = (Some(now.wall_ns), now.mono_ms);
        container.after_exit.clear();
        let (epoch, script, first) = (container.epoch, container.script.clone(), container.starts == 1);
        self.container_event(id, "start", Vec::new(), now);
        self.begin_health(id, now);
        self.log_from(id, 0, now);
        self.time_listening(id, now);
        let ends = match script.ends {
            Ends::Always { after_ms, code } => Some((after_ms, code)),
            Ends::Once { after_ms, code } if first => Some((after_ms, code)),
            Ends::Once { .. } | Ends::Never => None,
        };
        if let Some((after_ms, code)) = ends {
            // Even the shortest process is seen running.
            let due = now.mono_ms.saturating_add(after_ms.max(1));
            self.time(due, Timer::Exit { id: id.clone(), epoch, code });
        }
        Ok(())
    }

    /// What the command line of a busybox does may depend on files, which are known only now; what it writes is in them afterwards.
    fn script_anew(&mut self, id: &Arc<str>) {
        if self.program_of(id) != Program::Busybox {
            return;
        }
        let mut files = self.gather(id);
        let Some(script) = self.script_of(id, &mut files) else { return };
        self.scatter(id, files);
        if let Some(container) = self.containers.get_mut(id) {
            container.script = Arc::new(script);
        }
    }

    fn program_of(&self, id: &str) -> Program {
        let image = self.containers.get(id).and_then(|container| self.images.get(&container.image_id));
        image.map_or(Program::Service, |image| image.spec.program)
    }

    fn script_of(&self, id: &str, files: &mut Files) -> Option<Script> {
        let container = self.containers.get(id)?;
        let facts = Facts {
            name: &container.name,
            image: &container.image,
            program: self.program_of(id),
            labels: &container.labels,
            command: &container.command,
            env: &strings(container.config.get("Env")),
            init: container.host.get("Init").and_then(Value::as_bool).unwrap_or(false),
        };
        Some(self.options.world.script(&facts, files))
    }

    /// Changes the world around the engine. Containers that are there behave accordingly at once; when a running one ends by itself was
    /// settled at its start.
    pub fn change_world(&mut self, change: impl FnOnce(&mut World), now: Now) {
        self.advance(now);
        change(&mut self.options.world);
        let ids: Vec<Arc<str>> = self.containers.keys().cloned().collect();
        for id in ids {
            let mut files = self.gather(&id);
            let Some(script) = self.script_of(&id, &mut files) else { continue };
            if let Some(container) = self.containers.get_mut(&id) {
                container.script = Arc::new(script);
            }
            self.time_listening(&id, now);
        }
        self.version += 1;
    }

    /// The process of a container ends by itself; `false` = it has none.
    pub fn crash(&mut self, reference: &str, code: i64, now: Now) -> bool {
        self.advance(now);
        let Ok(id) = self.find(reference) else { return false };
        let lives = self.containers[&id].phase.lives();
        self.die(&id, code, now);
        lives
    }

    fn join_networks(&mut self, id: &Arc<str>, now: Now) -> Result<(), Failure> {
        let container = &self.containers[id];
        let main = match &container.mode {
            NetworkMode::Named(name) => Some(name.clone()),
            _ => None,
        };
        let mut order: Vec<Arc<str>> = container.networks.keys().cloned().collect();
        order.sort_by_key(|name| Some(name) != main.as_ref());
        let short = container.short_id().to_owned();
        for name in order {
            let Some(mut attachment) = self.containers.get(id).and_then(|c| c.networks.get(&name)).cloned() else { continue };
            let result = self.join_one(id, &name, &short, &mut attachment, now);
            if let Some(container) = self.containers.get_mut(id) {
                container.networks.insert(name, attachment);
            }
            result?;
        }
        Ok(())
    }

    fn join_one(&mut self, id: &Arc<str>, name: &Arc<str>, short: &str, attachment: &mut Attachment, now: Now) -> Result<(), Failure> {
        // Once it was in a network, it is that network that it wants, and not another one of the same name.
        let wanted = if attachment.network_id.is_empty() { name.clone() } else { attachment.network_id.clone() };
        let network = self.find_network(&wanted)?;
        if !self.networks[&network].predefined() && !attachment.aliases.iter().any(|a| a == short) {
            attachment.aliases.push(short.to_owned());
        }
        // Aliases are judged when they are asked for.
        self.check_address(&network, &Attachment { aliases: Vec::new(), ..attachment.clone() })?;
        self.join(id, name, &network, attachment, now)
    }

    fn leave_networks(&mut self, id: &Arc<str>, now: Now) {
        let Some(mut networks) = self.containers.get_mut(id).map(|c| std::mem::take(&mut c.networks)) else { return };
        for attachment in networks.values_mut() {
            self.leave(id, attachment, now);
        }
        if let Some(container) = self.containers.get_mut(id) {
            container.networks = networks;
        }
    }

    /// Takes the ports of the host.
    fn publish(&mut self, id: &Arc<str>) -> Result<(), Failure> {
        let container = &self.containers[id];
        if matches!(container.mode, NetworkMode::Host | NetworkMode::None | NetworkMode::Container(_)) {
            return Ok(());
        }
        let exposed: Vec<String> =
            container.config.get("ExposedPorts").and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k.clone()).collect();
        let all = container.host.get("PublishAllPorts").and_then(Value::as_bool).unwrap_or(false);
        let bindings = container.host.get("PortBindings").and_then(Value::as_object).cloned().unwrap_or_default();
        let name = container.name.clone();
        let mut published = Vec::new();
        for target in exposed {
            let wanted: Vec<(String, String)> = match bindings.get(&target).and_then(Value::as_array) {
                Some(list) => list
                    .iter()
                    .filter_map(Value::as_object)
                    .map(|b| (text(b, "HostIp").to_owned(), text(b, "HostPort").to_owned()))
                    .collect(),
                None if all => vec![(String::new(), String::new())],
                None => Vec::new(),
            };
            for (ip, port) in wanted {
                self.publish_one(id, &name, &target, &ip, &port, &mut published)?;
            }
        }
        if let Some(container) = self.containers.get_mut(id) {
            container.published = published;
        }
        Ok(())
    }

    fn publish_one(
        &mut self,
        id: &Arc<str>,
        name: &str,
        target: &str,
        ip: &str,
        port: &str,
        published: &mut Vec<Published>,
    ) -> Result<(), Failure> {
        let (inner, kind) = target.split_once('/').unwrap_or((target, "tcp"));
        let inner = inner.parse::<u16>().unwrap_or(0);
        let wanted = port.split('-').next().and_then(|p| p.parse::<u16>().ok()).filter(|p| *p != 0);
        let shown = if ip.is_empty() { "0.0.0.0" } else { ip };
        let host_port = match wanted {
            Some(port) => port,
            None => self.free_port(kind),
        };
        let clash = |other: &str| other == shown || other == "0.0.0.0" || shown == "0.0.0.0";
        let key = (kind.to_owned(), host_port);
        if self.ports.get(&key).is_some_and(|holders| holders.iter().any(|h| clash(&h.address))) {
            // What this container took so far goes back with the rest.
            if let Some(container) = self.containers.get_mut(id) {
                container.published = std::mem::take(published);
            }
            let endpoint = self.hex_id();
            let message = format!(
                "driver failed programming external connectivity on endpoint {name} ({endpoint}): Bind for {shown}:{host_port} failed: \
                 port is already allocated"
            );
            return Err(Failure::new(500, message));
        }
        self.ports.entry(key).or_default().push(Holder { address: shown.to_owned(), container: id.clone(), port: inner });
        let mut add = |host_ip: &str| published.push(Published { target: target.to_owned(), host_ip: host_ip.to_owned(), host_port });
        add(shown);
        if ip.is_empty() {
            add("::");
        }
        Ok(())
    }

    fn free_port(&mut self, kind: &str) -> u16 {
        for _ in 0..28_232 {
            let port = self.next_port;
            self.next_port = if port >= 60_999 { 32_768 } else { port + 1 };
            if !self.ports.contains_key(&(kind.to_owned(), port)) {
                return port;
            }
        }
        self.next_port
    }

    fn unpublish(&mut self, id: &Arc<str>) {
        let Some(published) = self.containers.get_mut(id).map(|c| std::mem::take(&mut c.published)) else { return };
        for port in published {
            let kind = port.target.split_once('/').map_or("tcp", |(_, kind)| kind).to_owned();
            let key = (kind, port.host_port);
            if let Some(holders) = self.ports.get_mut(&key) {
                holders.retain(|h| h.container != *id);
                if holders.is_empty() {
                    self.ports.remove(&key);
                }
            }
        }
    }

    pub(crate) fn mount_events(&mut self, id: &Arc<str>, now: Now) {
        for mount in self.containers[id].mounts.clone().into_iter().filter(|m| m.kind == MountKind::Volume) {
            let attributes = vec![
                ("container", id.clone()),
                ("destination", mount.target.as_str().into()),
                ("driver", "local".into()),
                ("propagation", "".into()),
                ("read/write", if mount.writable { "true" } else { "false" }.into()),
            ];
            self.emit(now, Kind::Volume, "mount", &mount.source.as_str().into(), Arc::default(), attributes);
        }
    }

    pub(crate) fn unmount_events(&mut self, id: &Arc<str>, now: Now) {
        let mounts: Vec<String> =
            self.containers[id].mounts.iter().filter(|m| m.kind == MountKind::Volume).map(|m| m.source.clone()).collect();
        for name in mounts {
            let attributes = vec![("container", id.clone()), ("driver", "local".into())];
            self.emit(now, Kind::Volume, "unmount", &name.into(), Arc::default(), attributes);
        }
    }

    /// The container's process is gone.
    pub(crate) fn die(&mut self, id: &Arc<str>, code: i64, now: Now) {
        let Some(container) = self.containers.get_mut(id) else { return };
        if !container.phase.lives() {
            return;
        }
        container.phase = Phase::Exited;
        container.epoch += 1;
        container.exits += 1;
        container.exit_code = code;
        container.finished_ns = Some(now.wall_ns);
        container.pid = 0;
        container.execs.clear();
        let lived = now.mono_ms.saturating_sub(container.started_ms);
        if let Some(health) = container.health.as_mut() {
            health.status = HealthStatus::Unhealthy;
        }
        self.container_event(id, "die", vec![("exitCode", code.to_string().into())], now);
        self.leave_networks(id, now);
        self.unpublish(id);
        self.unmount_events(id, now);
        let Some(container) = self.containers.get_mut(id) else { return };
        let after = std::mem::take(&mut container.after_exit);
        if after.is_empty() && self.will_restart(id) {
            self.wait_for_restart(id, lived, now);
        } else {
            self.ended(id, after, now);
        }
    }

    fn will_restart(&self, id: &Arc<str>) -> bool {
        let Some(container) = self.containers.get(id) else { return false };
        !container.told_to_end
            && match container.policy {
                Policy::No => false,
                Policy::Always | Policy::UnlessStopped => true,
                Policy::OnFailure(max) => container.exit_code != 0 && (max == 0 || container.restart_count < max),
            }
    }

    fn wait_for_restart(&mut self, id: &Arc<str>, lived: u64, now: Now) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.backoff_ms = match container.backoff_ms {
            _ if lived >= BACKOFF.2 => BACKOFF.0,
            0 => BACKOFF.0,
            before => (before * 2).min(BACKOFF.1),
        };
        container.restart_count += 1;
        container.phase = Phase::Restarting;
        let (epoch, due) = (container.epoch, now.mono_ms.saturating_add(container.backoff_ms));
        self.time(due, Timer::Relaunch { id: id.clone(), epoch });
    }

    fn ended(&mut self, id: &Arc<str>, after: Vec<AfterExit>, now: Now) {
        let auto_remove = self.containers.get(id).is_some_and(|c| c.auto_remove);
        let mut restart = None;
        let mut remove = Vec::new();
        for next in after {
            match next {
                AfterExit::Killed(ticket) => self.fulfil(ticket, Reply::Empty { status: 204 }),
                AfterExit::Stopped(ticket) => {
                    self.container_event(id, "stop", Vec::new(), now);
                    self.fulfil(ticket, Reply::Empty { status: 204 });
                }
                AfterExit::Restart(ticket) => {
                    self.container_event(id, "stop", Vec::new(), now);
                    restart = Some(ticket);
                }
                AfterExit::Remove(ticket, volumes) => remove.push((ticket, volumes)),
            }
        }
        for (ticket, volumes) in &remove {
            self.bury(id, *volumes, now);
            self.fulfil(*ticket, Reply::Empty { status: 204 });
        }
        match restart {
            Some(ticket) => {
                if let Some(container) = self.containers.get_mut(id) {
                    container.told_to_end = false;
                }
                self.launch(id, Goal::Restart(ticket), now);
            }
            None if auto_remove && remove.is_empty() => self.bury(id, Volumes::Remove, now),
            None => {}
        }
    }

    fn kill_event(&mut self, id: &Arc<str>, signal: i64, now: Now) {
        self.container_event(id, "kill", vec![("signal", signal.to_string().into())], now);
    }

    /// Delivers a signal; the end, if it means one, comes by a timer or at once.
    fn signal(&mut self, id: &Arc<str>, signal: i64, now: Now) {
        self.kill_event(id, signal, now);
        let Some(container) = self.containers.get_mut(id) else { return };
        let ends = signal == KILL || matches!(signal, 1 | 2 | 3 | 15) || signal == stop_signal(&container.config);
        if !ends {
            return;
        }
        if container.phase == Phase::Paused {
            container.phase = Phase::Running;
        }
        if signal == KILL {
            return self.die(id, 128 + KILL, now);
        }
        let epoch = container.epoch;
        match container.script.on_term {
            OnTerm::Ignores => {}
            // A service reads its configuration again.
            OnTerm::Ends { code: Some(_), .. } if signal == 1 => {}
            OnTerm::Ends { after_ms, code } => {
                let code = code.unwrap_or(128 + signal);
                self.time(now.mono_ms.saturating_add(after_ms.max(1)), Timer::Exit { id: id.clone(), epoch, code });
            }
        }
    }

    /// Asks a running container to end, and says what comes afterwards.
    fn ask_to_end(&mut self, id: &Arc<str>, grace: i64, after: AfterExit, now: Now) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.told_to_end = true;
        if container.phase == Phase::Restarting {
            // There is no process; the policy's timer is void by the new epoch.
            container.phase = Phase::Exited;
            container.epoch += 1;
            return self.ended(id, vec![after], now);
        }
        container.after_exit.push(after);
        let epoch = container.epoch;
        let signal = stop_signal(&container.config);
        self.signal(id, signal, now);
        if !self.containers.get(id).is_some_and(|c| c.epoch == epoch && c.phase.lives()) {
            return;
        }
        match u64::try_from(grace) {
            // Not for ever: until the process ends by itself.
            Err(_) => {}
            Ok(0) => {
                self.kill_event(id, KILL, now);
                self.die(id, 128 + KILL, now);
            }
            Ok(seconds) => {
                let due = now.mono_ms.saturating_add(seconds.saturating_mul(1000));
                self.time(due, Timer::GraceEnds { id: id.clone(), epoch });
            }
        }
    }

    fn grace(&self, id: &Arc<str>, request: &Request) -> Result<i64, Failure> {
        match request.get("t").filter(|t| !t.is_empty()) {
            Some(t) => t.parse().map_err(|_| Failure::new(500, format!("strconv.Atoi: parsing \"{t}\": invalid syntax"))),
            None => Ok(self.containers[id].config.get("StopTimeout").and_then(Value::as_i64).unwrap_or(10)),
        }
    }

    pub(crate) fn container_stop(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let grace = self.grace(&id, request)?;
        if !self.containers[&id].phase.runs() {
            return Ok(Reply::Empty { status: 304 });
        }
        let ticket = self.promise();
        self.ask_to_end(&id, grace, AfterExit::Stopped(ticket), now);
        Ok(self.take(ticket).unwrap_or(Reply::Later(ticket)))
    }

    pub(crate) fn container_restart(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let grace = self.grace(&id, request)?;
        let ticket = self.promise();
        if let Some(container) = self.containers.get_mut(&id) {
            (container.restart_count, container.backoff_ms) = (0, 0);
            container.restarted_as = reference.to_owned();
        }
        match self.containers[&id].phase {
            Phase::Starting => return Ok(Reply::Empty { status: 204 }),
            Phase::Created | Phase::Exited => self.launch(&id, Goal::Restart(ticket), now),
            Phase::Running | Phase::Paused | Phase::Restarting => self.ask_to_end(&id, grace, AfterExit::Restart(ticket), now),
        }
        Ok(self.take(ticket).unwrap_or(Reply::Later(ticket)))
    }

    pub(crate) fn container_kill(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let word = request.get("signal").filter(|s| !s.is_empty()).unwrap_or("KILL");
        let signal = signal_number(word).ok_or_else(|| Failure::new(400, format!("Invalid signal: {word}")))?;
        let wrap = |f: Failure| Failure::new(f.status, format!("Cannot kill container: {reference}: {}", f.message));
        let id = self.find(reference).map_err(wrap)?;
        if !(1..=31).contains(&signal) && !(34..=64).contains(&signal) {
            return Err(wrap(Failure::new(500, format!("The linux daemon does not support signal {signal}"))));
        }
        let container = self.containers.get_mut(&id).ok_or_else(|| Failure::new(404, "gone"))?;
        if !container.phase.lives() {
            return Err(wrap(Failure::new(409, format!("Container {id} is not running"))));
        }
        container.told_to_end = true;
        if signal != KILL {
            self.signal(&id, signal, now);
            return Ok(Reply::Empty { status: 204 });
        }
        let ticket = self.promise();
        if let Some(container) = self.containers.get_mut(&id) {
            container.after_exit.push(AfterExit::Killed(ticket));
        }
        self.signal(&id, KILL, now);
        Ok(self.take(ticket).unwrap_or(Reply::Later(ticket)))
    }

    pub(crate) fn container_pause(&mut self, reference: &str, now: Now) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let container = self.containers.get_mut(&id).ok_or_else(|| Failure::new(404, "gone"))?;
        match container.phase {
            Phase::Paused => return Err(Failure::new(409, format!("Container {id} is already paused"))),
            Phase::Restarting => {
                return Err(Failure::new(409, format!("Container {id} is restarting, wait until the container is running")));
            }
            Phase::Running => {}
            Phase::Created | Phase::Exited | Phase::Starting => {
                return Err(Failure::new(409, format!("Container {id} is not running")));
            }
        }
        container.phase = Phase::Paused;
        if let Some(health) = container.health.as_mut() {
            health.status = HealthStatus::Unhealthy;
        }
        self.container_event(&id, "pause", Vec::new(), now);
        Ok(Reply::Empty { status: 204 })
    }

    pub(crate) fn container_unpause(&mut self, reference: &str, now: Now) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let container = self.containers.get_mut(&id).ok_or_else(|| Failure::new(404, "gone"))?;
        if container.phase != Phase::Paused {
            return Err(Failure::new(500, format!("Container {id} is not paused")));
        }
        container.phase = Phase::Running;
        self.container_event(&id, "unpause", Vec::new(), now);
        Ok(Reply::Empty { status: 204 })
    }

    pub(crate) fn container_rename(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let old = self.containers[&id].name.clone();
        let asked = request.get("name").unwrap_or_default();
        if asked.is_empty() {
            return Err(Failure::new(400, "Neither old nor new names may be empty"));
        }
        let new = asked.trim_start_matches('/');
        if new == &*old {
            return Err(Failure::new(400, "Renaming a container with the same name as its current name"));
        }
        let allocating = |f: Failure| Failure::new(f.status, format!("Error when allocating new name: {}", f.message));
        if new.len() < 2 || !valid_name(new) {
            let message = format!("Invalid container name (/{new}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
            return Err(allocating(Failure::new(400, message)));
        }
        let new = self.claim(new, &id).map_err(allocating)?;
        self.names.remove(&old);
        if let Some(container) = self.containers.get_mut(&id) {
            container.name = new;
        }
        self.container_event(&id, "rename", vec![("oldName", format!("/{old}").into())], now);
        Ok(Reply::Empty { status: 204 })
    }

    pub(crate) fn container_remove(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        if request.flag("link") {
            return Err(Failure::new(500, "Conflict, cannot remove the default link name of the container"));
        }
        let volumes = if request.flag("v") { Volumes::Remove } else { Volumes::Keep };
        let container = &self.containers[&id];
        if !container.phase.runs() {
            self.bury(&id, volumes, now);
            return Ok(Reply::Empty { status: 204 });
        }
        if !request.flag("force") {
            let procedure = if container.phase == Phase::Paused {
                "Unpause and then stop the container before attempting removal or force remove"
            } else {
                "Stop the container before attempting removal or force remove"
            };
            return Err(Failure::new(409, format!("You cannot remove a {} container {id}. {procedure}", container.word())));
        }
        let ticket = self.promise();
        if let Some(container) = self.containers.get_mut(&id) {
            container.told_to_end = true;
            if container.phase == Phase::Restarting {
                container.phase = Phase::Exited;
                container.epoch += 1;
                self.bury(&id, volumes, now);
                return Ok(Reply::Empty { status: 204 });
            }
            container.after_exit.push(AfterExit::Remove(ticket, volumes));
        }
        self.signal(&id, KILL, now);
        Ok(self.take(ticket).unwrap_or(Reply::Later(ticket)))
    }

    /// Takes a container that does not run out of the world.
    pub(crate) fn bury(&mut self, id: &Arc<str>, volumes: Volumes, now: Now) {
        self.leave_networks(id, now);
        self.unpublish(id);
        if let Some(container) = self.containers.get(id) {
            let mine: Vec<(String, bool)> =
                container.mounts.iter().filter(|m| m.kind == MountKind::Volume).map(|m| (m.source.clone(), m.anonymous)).collect();
            for (name, anonymous) in mine {
                let unused = self.volumes.get_mut(name.as_str()).is_some_and(|v| {
                    v.users.remove(id);
                    v.users.is_empty()
                });
                if unused && anonymous && volumes == Volumes::Remove {
                    self.drop_volume(&name, now);
                }
            }
        }
        self.container_event(id, "destroy", Vec::new(), now);
        let Some(container) = self.containers.remove(id) else { return };
        self.names.remove(&container.name);
        self.ages.remove(&container.serial);
        self.execs.retain(|_, e| e.container != *id);
        let logs = if container.auto_remove { container.logs } else { VecDeque::new() };
        self.graves.insert(id.clone(), Grave { code: container.exit_code, logs, log_base: container.log_base });
        while self.graves.len() > 1024 {
            self.graves.pop_first();
        }
        for next in container.after_exit {
            let (AfterExit::Killed(ticket) | AfterExit::Stopped(ticket) | AfterExit::Restart(ticket) | AfterExit::Remove(ticket, _)) = next;
            self.fulfil(ticket, Reply::Empty { status: 204 });
        }
    }

    /// Writes the lines of the script that are due, and times the next one.
    fn log_from(&mut self, id: &Arc<str>, index: usize, now: Now) {
        let Some(container) = self.containers.get_mut(id) else { return };
        let (script, epoch, started) = (container.script.clone(), container.epoch, container.started_ms);
        for (index, (at, channel, line)) in script.lines.iter().enumerate().skip(index) {
            let due = started.saturating_add(*at);
            if due > now.mono_ms {
                self.time(due, Timer::Line { id: id.clone(), epoch, index });
                return;
            }
            // No two lines are written at one instant.
            let at_ns = container.logs.back().map_or(now.wall_ns, |last| now.wall_ns.max(last.at_ns + 1));
            container.logs.push_back(LogLine { at_ns, channel: *channel, text: line.as_str().into() });
            if container.logs.len() > LOG_LINES {
                container.logs.pop_front();
                container.log_base += 1;
            }
            self.version += 1;
        }
    }

    fn time_listening(&mut self, id: &Arc<str>, now: Now) {
        let Some(container) = self.containers.get(id) else { return };
        let ready = container.started_ms.saturating_add(container.script.healthy_after_ms);
        let due = match container.script.flap_ms {
            _ if now.mono_ms < ready => ready,
            Some(flap) => ready + ((now.mono_ms - ready) / flap.max(1) + 1) * flap.max(1),
            None => return,
        };
        let epoch = container.epoch;
        self.time(due, Timer::Listening { id: id.clone(), epoch });
    }
}

pub(crate) fn stop_signal(config: &Map<String, Value>) -> i64 {
    signal_number(text(config, "StopSignal")).unwrap_or(15)
}
