//! The making of a container: everything that is refused at once, and what is settled for its life.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::container::{Container, Health, MountPoint, Phase, parse_signal};
use super::image::{merged_env, merged_set, normal};
use super::network::Endpoint;
use super::reply::{Failure, Reply, Request};
use super::volume::check_volume_name;
use super::{Engine, text, text_list, text_map};
use crate::Now;
use crate::behaviour::shell::Files;
use crate::behaviour::{Facts, HealthSpec, ImageSpec, Program};

const LEAST_MEMORY: i64 = 6 << 20;

impl Engine {
    pub(super) fn create_container(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let body = request.json()?;
        if body.as_object().is_none_or(serde_json::Map::is_empty) {
            return Err(Failure::new(400, "Config cannot be empty in order to create a container"));
        }
        let name = request.get("name").unwrap_or_default().trim_start_matches('/').to_owned();
        if !name.is_empty() {
            check_name(&name)?;
        }
        let host = body["HostConfig"].as_object().cloned().map_or_else(|| json!({}), Value::Object);
        self.check_config(&body)?;
        self.check_host(&host)?;
        let reference = text(&body["Image"]).to_owned();
        let is_upper = |r: &str| r.split(['/', ':']).next().is_some_and(|repo| repo.chars().any(|c| c.is_ascii_uppercase()));
        if is_upper(&reference) && !reference.contains('.') {
            return Err(Failure::new(400, "invalid reference format: repository name must be lowercase"));
        }
        let (image_id, spec): (Arc<str>, ImageSpec) = match reference.as_str() {
            "" => ("".into(), ImageSpec { program: Program::Busybox, ..ImageSpec::default() }),
            _ => {
                let image =
                    self.find_image(&reference).ok_or_else(|| Failure::new(404, format!("No such image: {}", normal(&reference))))?;
                (image.id.clone(), image.spec.clone())
            }
        };
        let (endpoints, mode) = self.endpoints(&body, &host)?;
        let id = self.fresh_id();
        let name = if name.is_empty() { self.invent_name() } else { name };
        if let Some(holder) = self.names.get(&name) {
            return Err(Failure::new(
                409,
                format!(
                    "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) that container to be able to reuse that name."
                ),
            ));
        }
        let mut labels = spec.labels.clone();
        labels.extend(text_map(&body["Labels"]));
        let given_entrypoint = &body["Entrypoint"];
        let entrypoint = if given_entrypoint.is_null() { spec.entrypoint.clone() } else { text_list(given_entrypoint) };
        let cmd = match &body["Cmd"] {
            Value::Null if given_entrypoint.is_null() => spec.cmd.clone(),
            given => text_list(given),
        };
        let command: Vec<String> = entrypoint.iter().filter(|w| !w.is_empty()).chain(&cmd).cloned().collect();
        if command.is_empty() {
            return Err(Failure::new(400, "No command specified"));
        }
        let env = merged_env(&spec.env, &text_list(&body["Env"]));
        let health_spec = health_spec(&body["Healthcheck"], &spec);
        let config = config(&body, &spec, &id, &env, &entrypoint, &cmd, &labels, &mode);
        let exposed: Vec<u16> = config["ExposedPorts"]
            .as_object()
            .into_iter()
            .flatten()
            .chain(host["PortBindings"].as_object().into_iter().flatten())
            .filter_map(|(port, _)| port.split('/').next()?.parse().ok())
            .collect();
        let init = host["Init"].as_bool().unwrap_or(false);
        let facts = Facts { name: &name, image: &reference, program: spec.program, labels: &labels, command: &command, env: &env, init };
        let mut script = self.world.script(&facts, &mut Files::new());
        if !script.ports_are_all {
            script.ports.extend(exposed);
        }
        self.changed();
        let mounts = self.mounts(&body, &host, &spec, now)?;
        for mount in mounts.iter().filter(|m| m.kind == "volume") {
            self.volume_used(&mount.source, &id);
        }
        let order = self.next_order();
        let container = Container {
            id: id.clone(),
            name: name.clone(),
            order,
            created_ns: now.wall_ns,
            image: reference,
            image_id,
            command,
            config,
            host,
            labels: Arc::new(labels),
            phase: Phase::Created,
            exit_code: 0,
            error: String::new(),
            started_ns: None,
            finished_ns: None,
            started_ms: 0,
            restart_count: 0,
            backoff: 0,
            stopped_by_hand: false,
            starts: 0,
            exits: 0,
            endpoints,
            published: Vec::new(),
            mounts,
            script,
            files: BTreeMap::new(),
            logs: Vec::new(),
            health: health_spec.map(|spec| Health { spec, status: "starting", failing: 0, log: Vec::new() }),
        };
        self.names.insert(name, id.clone());
        self.events.push(container.event("create", now, &[]));
        self.containers.insert(id.clone(), container);
        Ok(Reply::created(json!({ "Id": &*id, "Warnings": [] })))
    }

    fn invent_name(&mut self) -> String {
        const FIRST: [&str; 8] = ["calm", "brave", "eager", "quiet", "sharp", "vivid", "witty", "noble"];
        const SECOND: [&str; 8] = ["curie", "hopper", "lamport", "turing", "noether", "euler", "lovelace", "kepler"];
        loop {
            let number = self.next_random();
            let name = format!("{}_{}{}", FIRST[number as usize & 7], SECOND[(number >> 3) as usize & 7], (number >> 6) % 1_000);
            if !self.names.contains_key(&name) {
                return name;
            }
        }
    }

    fn check_config(&self, body: &Value) -> Result<(), Failure> {
        if let Some(odd) = text_list(&body["Env"]).iter().find(|e| e.starts_with('=') || e.is_empty()) {
            return Err(Failure::new(400, format!("invalid environment variable: {odd}")));
        }
        let dir = text(&body["WorkingDir"]);
        if !dir.is_empty() && !dir.starts_with('/') {
            return Err(Failure::new(400, format!("the working directory '{dir}' is invalid, it needs to be an absolute path")));
        }
        let signal = text(&body["StopSignal"]);
        if !signal.is_empty() && parse_signal(signal).is_none() {
            return Err(Failure::new(400, format!("Invalid signal: {signal}")));
        }
        for field in ["Interval", "Timeout", "StartPeriod"] {
            if body["Healthcheck"][field].as_i64().is_some_and(|ns| ns != 0 && ns < 1_000_000) {
                return Err(Failure::new(400, format!("{field} in Healthcheck cannot be less than 1ms")));
            }
        }
        Ok(())
    }

    /// What is refused of a `HostConfig`, at creation and at an update.
    pub(super) fn check_host(&self, host: &Value) -> Result<(), Failure> {
        check_policy(&host["RestartPolicy"])?;
        if host["AutoRemove"] == true && !matches!(text(&host["RestartPolicy"]["Name"]), "" | "no") {
            return Err(Failure::new(400, "can't create 'AutoRemove' container with restart policy"));
        }
        self.check_resources(host)?;
        let driver = text(&host["LogConfig"]["Type"]);
        if !matches!(driver, "" | "json-file" | "none" | "local" | "journald" | "syslog" | "fluentd" | "gelf") {
            return Err(Failure::new(400, format!("error looking up logging plugin {driver}: plugin \"{driver}\" not found")));
        }
        for (port, bindings) in host["PortBindings"].as_object().into_iter().flatten() {
            let number = port.split('/').next().unwrap_or_default();
            if number.parse::<u16>().is_err() {
                return Err(Failure::new(400, format!("invalid port specification: \"{number}\"")));
            }
            for binding in bindings.as_array().into_iter().flatten() {
                let wanted = text(&binding["HostPort"]);
                if !wanted.is_empty() && wanted.split('-').any(|p| p.parse::<u16>().is_err()) {
                    return Err(Failure::new(400, format!("invalid port specification: \"{wanted}\"")));
                }
            }
        }
        for mount in host["Mounts"].as_array().into_iter().flatten() {
            let (kind, target) = (text(&mount["Type"]), text(&mount["Target"]));
            if !matches!(kind, "bind" | "volume" | "tmpfs" | "npipe") {
                return Err(Failure::new(400, format!("invalid mount config for type \"{kind}\": mount type unknown")));
            }
            if !target.starts_with('/') {
                return Err(Failure::new(
                    400,
                    format!("invalid mount config for type \"{kind}\": invalid mount path: '{target}' mount path must be absolute"),
                ));
            }
        }
        Ok(())
    }

    /// Limits that no container may have.
    pub(super) fn check_resources(&self, host: &Value) -> Result<(), Failure> {
        let memory = host["Memory"].as_i64().unwrap_or(0);
        if memory != 0 && memory < LEAST_MEMORY {
            return Err(Failure::new(400, "Minimum memory limit allowed is 6MB"));
        }
        let cpus = host["NanoCpus"].as_i64().unwrap_or(0);
        let most = self.world.cpus as i64 * 1_000_000_000;
        if cpus < 0 || cpus > most {
            let cpus = self.world.cpus;
            return Err(Failure::new(400, format!("Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")));
        }
        Ok(())
    }

    fn endpoints(&self, body: &Value, host: &Value) -> Result<(BTreeMap<String, Endpoint>, String), Failure> {
        let given = &body["NetworkingConfig"]["EndpointsConfig"];
        if given.as_object().is_some_and(|g| g.len() > 1) {
            let names: Vec<&String> = given.as_object().into_iter().flatten().map(|(n, _)| n).collect();
            let names: Vec<&str> = names.iter().rev().map(|n| n.as_str()).collect();
            return Err(Failure::new(400, format!("Container cannot be connected to network endpoints: {}", names.join(", "))));
        }
        let mode = match text(&host["NetworkMode"]) {
            "" => "default".to_owned(),
            mode => mode.to_owned(),
        };
        let mut endpoints = BTreeMap::new();
        if !mode.starts_with("container:") {
            let name = if mode == "default" { "bridge" } else { mode.as_str() };
            // A network that is meant by its id is known by its name.
            let name = self.find_network(name).map_or_else(|_| name.to_owned(), |id| self.networks[&id].name.clone());
            let own = given.as_object().and_then(|g| g.iter().next()).map(|(_, v)| v.clone()).unwrap_or_default();
            endpoints.insert(name, Endpoint::from_given(&own));
        }
        Ok((endpoints, mode))
    }

    fn mounts(&mut self, body: &Value, host: &Value, spec: &ImageSpec, now: Now) -> Result<Vec<MountPoint>, Failure> {
        let mut mounts: Vec<MountPoint> = Vec::new();
        for bind in text_list(&host["Binds"]) {
            let parts: Vec<&str> = bind.split(':').collect();
            let (source, target, mode) = match parts.as_slice() {
                [target] => ("", *target, ""),
                [source, target] => (*source, *target, ""),
                [source, target, mode, ..] => (*source, *target, *mode),
                [] => continue,
            };
            if !target.starts_with('/') {
                return Err(Failure::new(
                    400,
                    format!(
                        "invalid volume specification: '{bind}': invalid mount config for type \"volume\": invalid mount path: '{target}' mount path must be absolute"
                    ),
                ));
            }
            let writable = !mode.split(',').any(|m| m == "ro");
            if source.starts_with('/') {
                mounts.push(MountPoint {
                    kind: "bind",
                    source: source.to_owned(),
                    target: target.to_owned(),
                    mode: mode.to_owned(),
                    writable,
                    anonymous: false,
                });
            } else {
                mounts.push(self.volume_mount(source, target, if mode.is_empty() { "z" } else { mode }, writable, now)?);
            }
        }
        for mount in host["Mounts"].as_array().cloned().into_iter().flatten() {
            let (source, target) = (text(&mount["Source"]), text(&mount["Target"]));
            let writable = !mount["ReadOnly"].as_bool().unwrap_or(false);
            match text(&mount["Type"]) {
                "volume" => mounts.push(self.volume_mount(source, target, "z", writable, now)?),
                kind => mounts.push(MountPoint {
                    kind: if kind == "tmpfs" { "tmpfs" } else { "bind" },
                    source: source.to_owned(),
                    target: target.to_owned(),
                    mode: String::new(),
                    writable,
                    anonymous: false,
                }),
            }
        }
        let declared = merged_set(&spec.volumes, &body["Volumes"]);
        for (target, _) in declared.as_object().into_iter().flatten() {
            if !mounts.iter().any(|m| m.target.trim_end_matches('/') == target.trim_end_matches('/')) {
                mounts.push(self.volume_mount("", target, "", true, now)?);
            }
        }
        Ok(mounts)
    }

    fn volume_mount(&mut self, source: &str, target: &str, mode: &str, writable: bool, now: Now) -> Result<MountPoint, Failure> {
        let anonymous = source.is_empty();
        let name = if anonymous { self.fresh_id().to_string() } else { source.to_owned() };
        check_volume_name(&name)?;
        self.provide_volume(&name, None, &Value::Null, now);
        let mode = if anonymous { "" } else { mode };
        Ok(MountPoint { kind: "volume", source: name, target: target.to_owned(), mode: mode.to_owned(), writable, anonymous })
    }
}

pub(super) fn check_name(name: &str) -> Result<(), Failure> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if name.len() < 2 || !name.chars().all(fits) || !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(Failure::new(400, format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")));
    }
    Ok(())
}

/// What is refused of a restart policy.
pub(super) fn check_policy(policy: &Value) -> Result<(), Failure> {
    let (name, count) = (text(&policy["Name"]), policy["MaximumRetryCount"].as_i64().unwrap_or(0));
    match name {
        "always" | "unless-stopped" | "no" if count != 0 => {
            Err(Failure::new(400, format!("maximum retry count cannot be used with restart policy '{name}'")))
        }
        "on-failure" if count < 0 => Err(Failure::new(400, "maximum retry count cannot be negative")),
        "" | "always" | "unless-stopped" | "no" | "on-failure" => Ok(()),
        other => Err(Failure::new(400, format!("invalid restart policy '{other}'"))),
    }
}

fn health_spec(given: &Value, image: &ImageSpec) -> Option<HealthSpec> {
    let base = image.healthcheck.clone();
    let test = text_list(&given["Test"]);
    let ms = |field: &str| given[field].as_u64().map(|ns| ns / 1_000_000).filter(|ms| *ms > 0);
    let spec = match (test.is_empty(), base) {
        (true, None) => return None,
        (true, Some(base)) => base,
        (false, base) => HealthSpec { test, ..base.unwrap_or_default() },
    };
    let spec = HealthSpec {
        interval_ms: ms("Interval").unwrap_or(if spec.interval_ms == 0 { 30_000 } else { spec.interval_ms }),
        timeout_ms: ms("Timeout").unwrap_or(spec.timeout_ms),
        start_period_ms: ms("StartPeriod").unwrap_or(spec.start_period_ms),
        retries: given["Retries"].as_u64().filter(|r| *r > 0).unwrap_or(spec.retries),
        ..spec
    };
    (spec.test.first().map(String::as_str) != Some("NONE")).then_some(spec)
}

#[expect(clippy::too_many_arguments, reason = "each is one part of what is shown, settled just before")]
fn config(
    body: &Value,
    spec: &ImageSpec,
    id: &str,
    env: &[String],
    entrypoint: &[String],
    cmd: &[String],
    labels: &BTreeMap<String, String>,
    mode: &str,
) -> Value {
    let list = |l: &[String]| if l.is_empty() { Value::Null } else { json!(l) };
    let or = |given: &Value, other: &str| match text(given) {
        "" => json!(other),
        given => json!(given),
    };
    let hostname = if mode == "host" { "vm".to_owned() } else { id[..12].to_owned() };
    let mut config = json!({
        "Hostname": or(&body["Hostname"], &hostname), "Domainname": text(&body["Domainname"]), "User": or(&body["User"], &spec.user),
        "AttachStdin": body["AttachStdin"] == true, "AttachStdout": body["AttachStdout"] == true,
        "AttachStderr": body["AttachStderr"] == true, "Tty": body["Tty"] == true, "OpenStdin": body["OpenStdin"] == true,
        "StdinOnce": body["StdinOnce"] == true, "Env": list(env), "Cmd": list(cmd), "Image": text(&body["Image"]),
        "Volumes": merged_set(&spec.volumes, &body["Volumes"]), "WorkingDir": or(&body["WorkingDir"], &spec.working_dir),
        "Entrypoint": list(entrypoint), "OnBuild": null, "Labels": labels,
    });
    let exposed = match merged_set(&spec.exposed, &body["ExposedPorts"]) {
        Value::Null => merged_set(&[], &Value::Null),
        set => set,
    };
    if !exposed.is_null() {
        config["ExposedPorts"] = exposed;
    }
    if body["Healthcheck"].as_object().is_some_and(|h| !h.is_empty()) {
        config["Healthcheck"] = body["Healthcheck"].clone();
    } else if let Some(health) = &spec.healthcheck {
        config["Healthcheck"] = health.json();
    }
    for field in ["StopSignal", "StopTimeout", "Shell", "MacAddress"] {
        if !body[field].is_null() && body[field] != "" {
            config[field] = body[field].clone();
        }
    }
    config
}
