//! Creating containers, and what is refused.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Engine;
use super::container::{Container, MountKind, MountPoint, NetworkMode, Phase, Policy};
use super::event::Kind;
use super::filter::glob;
use super::image::Image;
use super::network::attachment;
use super::render;
use super::reply::{Failure, Reply, Request};
use super::volume::{string_map, valid_name};
use crate::Now;
use crate::behaviour::shell::Files;
use crate::behaviour::{Facts, Program};

/// The least memory that the daemon lets a container have.
const MIN_MEMORY: i64 = 6 * 1024 * 1024;

/// Below these, the simulated host has every path.
const HOST_DIRECTORIES: &[&str] = &[
    "", "bin", "boot", "dev", "etc", "home", "lib", "lib64", "media", "mnt", "opt", "proc", "root", "run", "sbin", "srv", "sys", "tmp",
    "usr", "var", "work", "data",
];

const CAPABILITIES: &[&str] = &[
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
];

fn bad(message: impl Into<String>) -> Failure {
    Failure::new(400, message)
}

pub(crate) fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Some(Value::String(one)) => vec![one.clone()],
        _ => Vec::new(),
    }
}

pub(crate) fn number(map: &Map<String, Value>, key: &str) -> i64 {
    map.get(key).and_then(Value::as_i64).unwrap_or(0)
}

pub(crate) fn text<'a>(map: &'a Map<String, Value>, key: &str) -> &'a str {
    map.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// The number of a signal, by name or number.
pub(crate) fn signal_number(word: &str) -> Option<i64> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
        "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    if let Ok(number) = word.parse::<i64>() {
        return (number != 0).then_some(number);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == name).map(|i| i as i64 + 1)
}

/// Reads and judges a restart policy.
pub(crate) fn policy(value: Option<&Value>) -> Result<Policy, Failure> {
    let empty = Map::new();
    let map = value.and_then(Value::as_object).unwrap_or(&empty);
    let (name, retries) = (text(map, "Name"), number(map, "MaximumRetryCount"));
    match name {
        "always" | "unless-stopped" | "no" if retries != 0 => {
            Err(bad(format!("maximum retry count cannot be used with restart policy '{name}'")))
        }
        "always" => Ok(Policy::Always),
        "unless-stopped" => Ok(Policy::UnlessStopped),
        "on-failure" if retries < 0 => Err(bad("maximum retry count cannot be negative")),
        "on-failure" => Ok(Policy::OnFailure(retries.unsigned_abs())),
        "" | "no" => Ok(Policy::No),
        _ => Err(bad(format!("invalid restart policy '{name}'"))),
    }
}

/// A map without what equals the default.
fn beyond_defaults(body: &Map<String, Value>, defaults: &Map<String, Value>) -> Map<String, Value> {
    defaults
        .iter()
        .filter_map(|(key, default)| {
            let value = body.get(key).or_else(|| body.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, v)| v))?;
            (value != default && !value.is_null()).then(|| (key.clone(), value.clone()))
        })
        .collect()
}

impl Engine {
    pub(crate) fn container_create(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let body = request.json()?;
        let Some(body) = body.as_object() else {
            return Err(Failure::new(500, "json: cannot unmarshal into Go value of type runconfig.ContainerConfigWrapper"));
        };
        if !body.keys().any(|k| !matches!(k.as_str(), "HostConfig" | "NetworkingConfig")) {
            return Err(bad("Config cannot be empty in order to create a container"));
        }
        let empty = Map::new();
        let host_body = body.get("HostConfig").and_then(Value::as_object).unwrap_or(&empty);
        let mut config = beyond_defaults(body, render::config_defaults());
        for key in render::CONFIG_OPTIONAL {
            if let Some(value) = body.get(*key).filter(|v| !v.is_null()) {
                config.insert((*key).to_owned(), value.clone());
            }
        }
        let mut host = beyond_defaults(host_body, render::host_defaults());
        for key in render::HOST_OPTIONAL {
            if let Some(value) = host_body
                .get(*key)
                .filter(|v| !v.is_null() && v.as_array().is_none_or(|a| !a.is_empty()) && v.as_object().is_none_or(|o| !o.is_empty()))
            {
                host.insert((*key).to_owned(), value.clone());
            }
        }
        let policy = self.judge(&config, &host)?;
        let mut ends =
            body.get("NetworkingConfig").and_then(|n| n.get("EndpointsConfig")).and_then(Value::as_object).cloned().unwrap_or_default();
        if ends.len() > 1 && request.api < (1, 44) {
            let names: Vec<&str> = ends.keys().rev().map(String::as_str).collect();
            return Err(bad(format!("Container cannot be connected to network endpoints: {}", names.join(", "))));
        }
        let image_name = text(&config, "Image").to_owned();
        let image = if image_name.is_empty() {
            None
        } else {
            let id = self.image_for_create(&image_name)?;
            self.images.get(&id).cloned()
        };
        let id = self.hex_id();
        let asked = request.get("name").unwrap_or_default();
        let name = self.reserve_name(asked, &id)?;
        let container = self.assemble(
            Parts { id: id.clone(), name: name.clone(), config, host, policy, image: image.as_ref(), image_name },
            &mut ends,
            now,
        );
        let container = match container {
            Ok(container) => container,
            Err(failure) => {
                self.names.remove(&name);
                return Err(failure);
            }
        };
        for mount in container.mounts.iter().filter(|m| m.kind == MountKind::Volume) {
            if let Some(volume) = self.volumes.get_mut(mount.source.as_str()) {
                volume.users.insert(id.clone());
            }
        }
        self.ages.insert(container.serial, id.clone());
        self.containers.insert(id.clone(), container);
        self.container_event(&id, "create", Vec::new(), now);
        Ok(Reply::Json { status: 201, body: json!({ "Id": &*id, "Warnings": [] }) })
    }

    /// What the daemon refuses before it looks at images and names.
    fn judge(&self, config: &Map<String, Value>, host: &Map<String, Value>) -> Result<Policy, Failure> {
        let directory = text(config, "WorkingDir");
        if !directory.is_empty() && !directory.starts_with('/') {
            return Err(bad(format!("the working directory '{directory}' is invalid, it needs to be an absolute path")));
        }
        let signal = text(config, "StopSignal");
        if !signal.is_empty() && signal_number(signal).is_none() {
            return Err(bad(format!("Invalid signal: {signal}")));
        }
        for variable in strings(config.get("Env")) {
            if variable.is_empty() || variable.starts_with('=') {
                return Err(bad(format!("invalid environment variable: {variable}")));
            }
        }
        if let Some(check) = config.get("Healthcheck").and_then(Value::as_object) {
            for key in ["Interval", "Timeout", "StartPeriod"] {
                let ns = number(check, key);
                if ns != 0 && ns < 1_000_000 {
                    return Err(bad(format!("{key} in Healthcheck cannot be less than 1ms")));
                }
            }
            if number(check, "Retries") < 0 {
                return Err(bad("Retries in Healthcheck cannot be negative"));
            }
        }
        let policy = policy(host.get("RestartPolicy"))?;
        if policy != Policy::No && host.get("AutoRemove").and_then(Value::as_bool) == Some(true) {
            return Err(bad("can't create 'AutoRemove' container with restart policy"));
        }
        self.judge_resources(host)?;
        for key in host.get("PortBindings").and_then(Value::as_object).into_iter().flatten() {
            let (target, bindings) = key;
            let port = target.split('/').next().unwrap_or_default();
            if port.parse::<u16>().is_err() {
                return Err(bad(format!("invalid port specification: \"{port}\"")));
            }
            for binding in bindings.as_array().into_iter().flatten() {
                let port = binding.get("HostPort").and_then(Value::as_str).unwrap_or_default();
                if !port.is_empty() && port.split('-').any(|p| p.parse::<u16>().is_err()) {
                    return Err(bad(format!("invalid port specification: \"{port}\"")));
                }
            }
        }
        for mount in host.get("Mounts").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object) {
            self.judge_mount(mount)?;
        }
        for key in ["CapAdd", "CapDrop"] {
            for word in strings(host.get(key)) {
                let upper = word.to_ascii_uppercase();
                let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
                if !CAPABILITIES.contains(&name) {
                    return Err(bad(format!("invalid {key}: unknown capability: \"CAP_{name}\"")));
                }
            }
        }
        for entry in strings(host.get("ExtraHosts")) {
            if entry.split_once(':').is_none_or(|(name, _)| name.is_empty()) {
                return Err(bad(format!("bad format for add-host: \"{entry}\"")));
            }
        }
        if let Some(kind) = host.get("LogConfig").and_then(|l| l.get("Type")).and_then(Value::as_str) {
            let known = ["", "none", "json-file", "local", "journald", "syslog", "fluentd", "gelf", "awslogs", "splunk", "logentries"];
            if !known.contains(&kind) {
                return Err(bad(format!("error looking up logging plugin {kind}: plugin \"{kind}\" not found")));
            }
        }
        Ok(policy)
    }

    pub(crate) fn judge_resources(&self, host: &Map<String, Value>) -> Result<(), Failure> {
        let memory = number(host, "Memory");
        if memory != 0 && memory < MIN_MEMORY {
            return Err(bad("Minimum memory limit allowed is 6MB"));
        }
        let swap = number(host, "MemorySwap");
        if memory > 0 && swap > 0 && swap < memory {
            return Err(bad("Minimum memoryswap limit should be larger than memory limit, see usage"));
        }
        if memory == 0 && swap > 0 {
            return Err(bad("You should always set the Memory limit when using Memoryswap limit, see usage"));
        }
        let reservation = number(host, "MemoryReservation");
        if reservation > 0 && reservation < MIN_MEMORY {
            return Err(bad("Minimum memory reservation allowed is 6MB"));
        }
        if memory > 0 && reservation > memory {
            return Err(bad("Minimum memory limit can not be less than memory reservation limit, see usage"));
        }
        let (nano, cpus) = (number(host, "NanoCpus"), self.options.world.cpus);
        if nano > 0 && (number(host, "CpuPeriod") > 0 || number(host, "CpuQuota") > 0) {
            let other = if number(host, "CpuPeriod") > 0 { "CPU Period" } else { "CPU Quota" };
            return Err(bad(format!("Conflicting options: Nano CPUs and {other} cannot both be set")));
        }
        if nano < 0 || nano > i64::try_from(cpus.saturating_mul(1_000_000_000)).unwrap_or(i64::MAX) {
            return Err(bad(format!("Range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")));
        }
        Ok(())
    }

    fn judge_mount(&self, mount: &Map<String, Value>) -> Result<(), Failure> {
        let (kind, source, target) = (text(mount, "Type"), text(mount, "Source"), text(mount, "Target"));
        let refuse = |why: String| Err(bad(format!("invalid mount config for type \"{kind}\": {why}")));
        if !matches!(kind, "bind" | "volume" | "tmpfs" | "npipe") {
            return refuse("mount type unknown".to_owned());
        }
        if target.is_empty() {
            return refuse("field Target must not be empty".to_owned());
        }
        if !target.starts_with('/') {
            return refuse(format!("invalid mount path: '{target}' mount path must be absolute"));
        }
        match kind {
            "bind" if source.is_empty() => refuse("field Source must not be empty".to_owned()),
            "bind" if !source.starts_with('/') => refuse(format!("invalid mount path: '{source}' mount path must be absolute")),
            "bind" if !self.host_has(source) => refuse(format!("bind source path does not exist: {source}")),
            "tmpfs" if !source.is_empty() => refuse("field Source must not be specified".to_owned()),
            _ => Ok(()),
        }
    }

    /// The simulated host has everything below the usual directories, and what the world says.
    fn host_has(&self, path: &str) -> bool {
        let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
        HOST_DIRECTORIES.contains(&first) || self.options.world.host_paths.iter().any(|pattern| glob(pattern, path))
    }

    /// Takes a name for a container.
    fn reserve_name(&mut self, asked: &str, id: &Arc<str>) -> Result<Arc<str>, Failure> {
        if asked.is_empty() {
            loop {
                let name = self.made_up_name();
                if !self.names.contains_key(name.as_str()) {
                    let name: Arc<str> = name.into();
                    self.names.insert(name.clone(), id.clone());
                    return Ok(name);
                }
            }
        }
        let name = asked.strip_prefix('/').unwrap_or(asked);
        if name.len() < 2 || !valid_name(name) {
            return Err(bad(format!("Invalid container name ({asked}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")));
        }
        self.claim(name, id)
    }

    /// Takes a name that is valid.
    pub(crate) fn claim(&mut self, name: &str, id: &Arc<str>) -> Result<Arc<str>, Failure> {
        if let Some(holder) = self.names.get(name) {
            let message = format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or rename) \
                 that container to be able to reuse that name."
            );
            return Err(Failure::new(409, message));
        }
        let name: Arc<str> = name.into();
        self.names.insert(name.clone(), id.clone());
        Ok(name)
    }

    fn made_up_name(&mut self) -> String {
        const LEFT: [&str; 16] = [
            "amber", "brave", "calm", "deft", "eager", "fond", "glad", "happy", "keen", "lucid", "merry", "nifty", "proud", "quiet",
            "swift", "wise",
        ];
        const RIGHT: [&str; 16] = [
            "ada", "babbage", "curie", "darwin", "euler", "fermi", "gauss", "hopper", "kepler", "lovelace", "maxwell", "noether", "pascal",
            "ritchie", "turing", "wu",
        ];
        let bits = self.random();
        format!("{}_{}{}", LEFT[bits as usize % 16], RIGHT[(bits >> 8) as usize % 16], (bits >> 16) % 10_000)
    }

    fn assemble(&mut self, parts: Parts<'_>, ends: &mut Map<String, Value>, now: Now) -> Result<Container, Failure> {
        let Parts { id, name, mut config, mut host, policy, image, image_name } = parts;
        let spec = image.map(|i| i.spec.clone());
        let labels = merge_image(&mut config, spec.as_deref());
        let entrypoint = strings(config.get("Entrypoint"));
        let mut command = entrypoint.clone();
        command.extend(strings(config.get("Cmd")));
        if command.is_empty() && !image_name.is_empty() {
            return Err(bad("No command specified"));
        }
        let (mode, mode_word) = self.network_mode(&host);
        if let Some(word) = mode_word {
            host.insert("NetworkMode".to_owned(), json!(word));
        }
        if let NetworkMode::Container(_) = mode
            && config.contains_key("Hostname")
        {
            return Err(bad("conflicting options: hostname and the network mode"));
        }
        let hostname = match &mode {
            NetworkMode::Host => Some("vm".to_owned()),
            NetworkMode::Container(other) => self.find(other).ok().and_then(|o| self.containers.get(&o)).map(|o| o.short_id().to_owned()),
            _ => None,
        };
        config.entry("Hostname").or_insert_with(|| json!(hostname.unwrap_or_else(|| id[..12].to_owned())));
        let memory = number(&host, "Memory");
        if memory > 0 && number(&host, "MemorySwap") == 0 {
            host.insert("MemorySwap".to_owned(), json!(memory.saturating_mul(2)));
        }
        if number(&host, "ShmSize") == 0 {
            host.remove("ShmSize");
        }
        if number(&host, "PidsLimit") <= 0 {
            host.remove("PidsLimit");
        }
        // Expose what is published only where the client said so: the daemon publishes exposed ports alone.
        let mounts = self.mounts(&config, &host, spec.as_deref().map_or(&[], |s| s.volumes.as_slice()), now)?;
        let mut networks = BTreeMap::new();
        if let NetworkMode::Named(name) = &mode {
            let own = ends.remove(&**name).or_else(|| ends.remove("default").filter(|_| &**name == "bridge"));
            networks.insert(name.clone(), Box::new(attachment(own.as_ref())));
            for (other, end) in std::mem::take(ends) {
                networks.insert(Arc::from(other), Box::new(attachment(Some(&end))));
            }
        } else if let Some(word) = match mode {
            NetworkMode::Host => Some("host"),
            NetworkMode::None => Some("none"),
            _ => None,
        } {
            networks.insert(word.into(), Box::new(attachment(None)));
        }
        let script = self.options.world.script(
            &Facts {
                name: &name,
                image: &image_name,
                program: spec.as_deref().map_or(Program::Service, |s| s.program),
                labels: &labels,
                command: &command,
                env: &strings(config.get("Env")),
                init: host.get("Init").and_then(Value::as_bool).unwrap_or(false),
            },
            &mut Files::new(),
        );
        Ok(Container {
            id,
            serial: self.count(),
            name,
            created_ns: now.wall_ns,
            image_id: image.map_or_else(Arc::default, |i| i.id.clone()),
            image: image_name.into(),
            auto_remove: host.get("AutoRemove").and_then(Value::as_bool).unwrap_or(false),
            config,
            host,
            labels: Arc::new(labels),
            command,
            mounts,
            networks,
            mode,
            policy,
            script: Arc::new(script),
            phase: Phase::Created,
            before: Phase::Created,
            exit_code: 0,
            error: String::new(),
            started_ns: None,
            started_ms: 0,
            finished_ns: None,
            pid: 0,
            restart_count: 0,
            restarted_as: String::new(),
            sandbox: Arc::default(),
            published: Vec::new(),
            health: None,
            logs: VecDeque::new(),
            log_base: 0,
            files: BTreeMap::new(),
            told_to_end: false,
            after_exit: Vec::new(),
            epoch: 0,
            exits: 0,
            starts: 0,
            backoff_ms: 0,
            execs: Vec::new(),
        })
    }

    fn network_mode(&self, host: &Map<String, Value>) -> (NetworkMode, Option<String>) {
        match text(host, "NetworkMode") {
            "" | "default" | "bridge" => (NetworkMode::Named("bridge".into()), None),
            "host" => (NetworkMode::Host, None),
            "none" => (NetworkMode::None, None),
            mode => match mode.strip_prefix("container:") {
                Some(other) => {
                    let id = self.find(other).unwrap_or_else(|_| Arc::from(other));
                    (NetworkMode::Container(id.clone()), Some(format!("container:{id}")))
                }
                None => (NetworkMode::Named(mode.into()), None),
            },
        }
    }

    /// The mounts of a container; volumes are made on the way.
    fn mounts(
        &mut self,
        config: &Map<String, Value>,
        host: &Map<String, Value>,
        of_image: &[String],
        now: Now,
    ) -> Result<Vec<MountPoint>, Failure> {
        let mut mounts: Vec<MountPoint> = Vec::new();
        for from in strings(host.get("VolumesFrom")) {
            let other = self.find(from.split(':').next().unwrap_or_default())?;
            let shared: Vec<MountPoint> =
                self.containers[&other].mounts.iter().cloned().map(|m| MountPoint { anonymous: false, ..m }).collect();
            mounts.extend(shared);
        }
        for bind in strings(host.get("Binds")) {
            let mount = self.bind(&bind, now)?;
            if mounts.iter().any(|m| m.target == mount.target) {
                return Err(bad(format!("Duplicate mount point: {}", mount.target)));
            }
            mounts.push(mount);
        }
        for mount in host.get("Mounts").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object) {
            let target = text(mount, "Target").to_owned();
            if mounts.iter().any(|m| m.target == target) {
                return Err(bad(format!("Duplicate mount point: {target}")));
            }
            let writable = !mount.get("ReadOnly").and_then(Value::as_bool).unwrap_or(false);
            let source = text(mount, "Source");
            let mounted = match text(mount, "Type") {
                "volume" => {
                    let anonymous = source.is_empty();
                    let name = if anonymous { self.hex_id().to_string() } else { source.to_owned() };
                    let labels = mount
                        .get("VolumeOptions")
                        .and_then(|v| v.get("Labels"))
                        .filter(|l| l.is_object())
                        .map(|l| Arc::new(string_map(Some(l))));
                    let name = self.need_volume(&name, labels, None, anonymous, now)?;
                    MountPoint { kind: MountKind::Volume, source: name.to_string(), target, mode: "z".to_owned(), writable, anonymous }
                }
                "tmpfs" => {
                    MountPoint { kind: MountKind::Tmpfs, source: String::new(), target, mode: String::new(), writable, anonymous: false }
                }
                _ => {
                    MountPoint { kind: MountKind::Bind, source: source.to_owned(), target, mode: String::new(), writable, anonymous: false }
                }
            };
            mounts.push(mounted);
        }
        let tmpfs = host.get("Tmpfs").and_then(Value::as_object).into_iter().flatten().map(|(target, _)| target.clone());
        let hidden: Vec<String> = tmpfs.collect();
        let declared = config.get("Volumes").and_then(Value::as_object).into_iter().flatten().map(|(target, _)| target.clone());
        let mut declared: Vec<String> = declared.chain(of_image.iter().cloned()).collect();
        declared.sort();
        declared.dedup();
        for target in declared {
            if !mounts.iter().any(|m| m.target == target) && !hidden.contains(&target) {
                let name = self.hex_id();
                let name = self.need_volume(&name, None, None, true, now)?;
                mounts.push(MountPoint {
                    kind: MountKind::Volume,
                    source: name.to_string(),
                    target,
                    mode: String::new(),
                    writable: true,
                    anonymous: true,
                });
            }
        }
        Ok(mounts)
    }

    /// One entry of `Binds`.
    fn bind(&mut self, spec: &str, now: Now) -> Result<MountPoint, Failure> {
        let parts: Vec<&str> = spec.split(':').collect();
        let invalid = || bad(format!("invalid volume specification: '{spec}'"));
        let (source, target, mode) = match parts.as_slice() {
            [target] => ("", *target, ""),
            [source, target] if target.starts_with('/') => (*source, *target, ""),
            [source, target, mode] if !mode.contains('/') => (*source, *target, *mode),
            _ => return Err(invalid()),
        };
        if !target.starts_with('/') {
            return Err(bad(format!(
                "invalid volume specification: '{spec}': invalid mount config for type \"{}\": invalid mount path: '{target}' mount path must be absolute",
                if source.starts_with('/') { "bind" } else { "volume" }
            )));
        }
        if target == "/" {
            return Err(bad(format!(
                "invalid volume specification: '{spec}': invalid mount config for type \"bind\": invalid specification: destination can't be '/'"
            )));
        }
        let writable = !mode.split(',').any(|m| m == "ro");
        if source.starts_with('/') {
            return Ok(MountPoint {
                kind: MountKind::Bind,
                source: source.trim_end_matches('/').to_owned(),
                target: target.to_owned(),
                mode: mode.to_owned(),
                writable,
                anonymous: false,
            });
        }
        let anonymous = source.is_empty();
        let name = if anonymous { self.hex_id().to_string() } else { source.to_owned() };
        let name = self.need_volume(&name, None, None, anonymous, now)?;
        let mode = if mode.is_empty() { "z" } else { mode };
        Ok(MountPoint {
            kind: MountKind::Volume,
            source: name.to_string(),
            target: target.to_owned(),
            mode: mode.to_owned(),
            writable,
            anonymous,
        })
    }

    /// An event of a container, with its labels, name and image.
    pub(crate) fn container_event(&mut self, id: &str, action: &str, mut more: Vec<(&'static str, Arc<str>)>, now: Now) {
        let Some(container) = self.containers.get(id) else { return };
        let (actor, labels) = (container.id.clone(), container.labels.clone());
        if !container.image.is_empty() {
            more.push(("image", container.image.clone()));
        }
        more.push(("name", container.name.clone()));
        self.emit(now, Kind::Container, action, &actor, labels, more);
    }
}

/// What a new container is put together from.
struct Parts<'a> {
    id: Arc<str>,
    name: Arc<str>,
    config: Map<String, Value>,
    host: Map<String, Value>,
    policy: Policy,
    image: Option<&'a Image>,
    image_name: String,
}

/// What the image says where the container says nothing; gives the labels.
fn merge_image(config: &mut Map<String, Value>, spec: Option<&crate::behaviour::ImageSpec>) -> BTreeMap<String, String> {
    // Kept once, beside the configuration.
    let mut labels = string_map(config.remove("Labels").as_ref());
    let Some(spec) = spec else { return labels };
    for (key, value) in &spec.labels {
        labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    if strings(config.get("Entrypoint")).is_empty() {
        if strings(config.get("Cmd")).is_empty() && !spec.cmd.is_empty() {
            config.insert("Cmd".to_owned(), json!(spec.cmd));
        }
        if !config.contains_key("Entrypoint") && !spec.entrypoint.is_empty() {
            config.insert("Entrypoint".to_owned(), json!(spec.entrypoint));
        }
    }
    let mut env = strings(config.get("Env"));
    let names: Vec<String> = env.iter().filter_map(|e| e.split('=').next()).map(str::to_owned).collect();
    env.extend(spec.env.iter().filter(|e| !names.iter().any(|n| e.split('=').next() == Some(n))).cloned());
    if !env.is_empty() {
        config.insert("Env".to_owned(), json!(env));
    }
    for (key, value) in [("User", &spec.user), ("WorkingDir", &spec.working_dir)] {
        if !value.is_empty() && !config.contains_key(key) {
            config.insert(key.to_owned(), json!(value));
        }
    }
    for (key, values) in [("ExposedPorts", &spec.exposed), ("Volumes", &spec.volumes)] {
        if !values.is_empty() {
            let map = config.entry(key).or_insert_with(|| json!({}));
            if let Some(map) = map.as_object_mut() {
                for value in values {
                    map.entry(value.clone()).or_insert_with(|| json!({}));
                }
            }
        }
    }
    if let Some(check) = &spec.healthcheck
        && !config.contains_key("Healthcheck")
    {
        config.insert("Healthcheck".to_owned(), check.json());
    }
    labels
}
