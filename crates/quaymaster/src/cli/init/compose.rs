//! Manifests of a Compose file. Compose itself reads it: variables, `extends`, `env_file`, both syntaxes of everything come out as one form,
//! which is translated here.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use qm_api::spec::container::{Container, NetworkOptions};
use qm_api::spec::quantity::{Duration, Scalar, Size};
use serde_json::{Map, Value, json};

use super::manifest::{Draft, Network, Service, Written, namespace, object_name};
use crate::cli::CliError;

pub(super) fn from_compose(file: &Path, given: Option<&str>, compose: &str) -> Result<Written, CliError> {
    let model = read(file, compose)?;
    let project = model["name"].as_str().unwrap_or("default").to_owned();
    let namespace = namespace(given, &project)?;
    Ok(draft(&model, namespace).write())
}

/// The model as Compose understands it.
fn read(file: &Path, compose: &str) -> Result<Value, CliError> {
    let mut words = compose.split_whitespace();
    let program = words.next().unwrap_or("docker");
    let mut command = Command::new(program);
    command.args(words).arg("-f").arg(file).args(["config", "--format", "json"]);
    let done = command.output().map_err(|source| CliError::Unreachable {
        message: format!("cannot run `{compose}` to read {}: install Docker Compose, or name it with --compose", file.display()),
        source: source.into(),
    })?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        return Err(CliError::Usage(format!("`{compose}` cannot read {}: {}", file.display(), said.trim())));
    }
    serde_json::from_slice(&done.stdout).map_err(|error| CliError::because(format!("the answer of `{compose}` cannot be read"), error))
}

fn draft(model: &Value, namespace: String) -> Draft {
    let mut draft = Draft { namespace, ..Draft::default() };
    let entries = |value: &Value| -> BTreeMap<String, Value> { value.as_object().cloned().unwrap_or_default().into_iter().collect() };
    let mut external: Vec<String> = Vec::new();
    for (name, network) in entries(&model["networks"]) {
        if network["external"] == true {
            draft.listed.push(format!("the external network {name} has no counterpart yet"));
            external.push(name);
        } else {
            draft.networks.insert(object_name(&name), Network { spec: network_spec(&name, &network, &mut draft.listed), adopt: None });
        }
    }
    for (name, volume) in entries(&model["volumes"]) {
        for field in ["external", "driver", "driver_opts"] {
            let value = &volume[field];
            if !(value.is_null() || *value == false || *value == "local" || *value == json!({})) {
                draft.listed.push(format!("the volume {name}: no field yet for {field}: {value}"));
            }
        }
    }
    for (name, service) in entries(&model["services"]) {
        let mut translated = Translated::default();
        translated.service(service, &external);
        let Translated { service, hindrances, .. } = translated;
        if hindrances.is_empty() {
            draft.services.insert(object_name(&name), service);
        } else {
            draft.left_out.insert(name, hindrances);
        }
    }
    draft
}

fn network_spec(name: &str, network: &Value, listed: &mut Vec<String>) -> Map<String, Value> {
    let mut spec = Map::new();
    for (field, value) in network.as_object().into_iter().flatten() {
        match field.as_str() {
            "name" | "external" => {}
            "driver" if value == "bridge" => {}
            "driver" | "internal" | "attachable" | "labels" => {
                spec.insert(field.clone(), value.clone());
            }
            "driver_opts" => {
                spec.insert("driverOptions".to_owned(), value.clone());
            }
            "ipam" => {
                let config = &value["config"][0];
                for (theirs, ours) in [("subnet", "subnet"), ("gateway", "gateway")] {
                    if let Some(text) = config[theirs].as_str() {
                        spec.insert(ours.to_owned(), text.into());
                    }
                }
            }
            other => listed.push(format!("the network {name}: no field yet for {other}")),
        }
    }
    spec
}

/// One service on its way; every field of Compose is either taken or listed.
#[derive(Default)]
struct Translated {
    service: Service,
    hindrances: Vec<String>,
    /// The container, as the fields of a manifest.
    fields: Map<String, Value>,
}

impl Translated {
    fn service(&mut self, compose: Value, external: &[String]) {
        let Value::Object(fields) = compose else { return };
        for (field, value) in fields.into_iter().filter(|(_, value)| !is_nothing(value)) {
            self.field(&field, &value, external);
        }
        if !self.fields.contains_key("image") {
            self.hindrances.push("no image (builds are not done here)".to_owned());
            return;
        }
        if !self.fields.contains_key("restart") {
            self.put("restart", json!("Never"));
        }
        match serde_json::from_value::<Container>(Value::Object(self.fields.clone())) {
            Ok(container) => {
                let networks = std::mem::take(&mut self.service.container.networks);
                let options = std::mem::take(&mut self.service.container.network_options);
                self.service.container = Container { networks, network_options: options, ..container };
            }
            Err(error) => self.hindrances.push(format!("something that does not fit: {error}")),
        }
    }

    fn put(&mut self, field: &str, value: Value) {
        self.fields.insert(field.to_owned(), value);
    }

    fn lose(&mut self, what: impl Into<String>) {
        self.service.lost.push(what.into());
    }

    fn field(&mut self, field: &str, value: &Value, external: &[String]) {
        match field {
            "image" | "command" | "entrypoint" | "user" | "init" | "dns" => self.put(field, value.clone()),
            "environment" => {
                let set = value.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null());
                let env: Map<String, Value> = set.map(|(k, v)| (k.clone(), v.clone())).collect();
                self.put("env", Value::Object(env));
            }
            "labels" | "sysctls" => self.put(field, value.clone()),
            "working_dir" => self.put("workingDir", value.clone()),
            "cap_add" => self.put("capAdd", value.clone()),
            "cap_drop" => self.put("capDrop", value.clone()),
            "read_only" => self.put("readOnly", value.clone()),
            "stop_signal" => self.put("stopSignal", value.clone()),
            "stop_grace_period" => match duration(value) {
                Some(span) => self.put("stopGracePeriod", json!(span)),
                None => self.lose(format!("stop_grace_period: {value}")),
            },
            "scale" => self.put("replicas", value.clone()),
            "restart" => self.restart(value.as_str().unwrap_or_default()),
            "extra_hosts" => self.extra_hosts(value),
            "ulimits" => self.ulimits(value),
            "logging" => self
                .put("logging", json!({ "driver": value["driver"], "options": value["options"].as_object().cloned().unwrap_or_default() })),
            "tmpfs" => self.tmpfs(value),
            "ports" => self.ports(value),
            "volumes" => self.volumes(value),
            "networks" => self.networks(value, external),
            "network_mode" => self.hindrances.push(format!("network_mode {value}")),
            "healthcheck" => self.health(value),
            "depends_on" => self.depends_on(value),
            "mem_limit" | "cpus" | "pids_limit" | "mem_reservation" => self.limit(field, value),
            "deploy" => self.deploy(value),
            // Names are given here.
            "container_name" => self.lose(format!("container_name: {value}")),
            // Said by the engine, or already taken apart by Compose.
            "expose" | "profiles" | "env_file" => {}
            other => self.lose(format!("{other}: {value}")),
        }
    }

    fn restart(&mut self, policy: &str) {
        let (word, most) = policy.split_once(':').unwrap_or((policy, ""));
        match word {
            "always" | "unless-stopped" => self.put("restart", json!("Always")),
            "on-failure" => self.put("restart", json!("OnFailure")),
            _ => self.put("restart", json!("Never")),
        }
        if !most.is_empty() {
            self.lose(format!("no more than {most} restarts (see startBudget)"));
        }
    }

    fn extra_hosts(&mut self, value: &Value) {
        let entries = value.as_array().into_iter().flatten().filter_map(Value::as_str);
        let map: BTreeMap<&str, &str> = entries.filter_map(|e| e.split_once(['=', ':'])).collect();
        self.put("extraHosts", json!(map));
    }

    fn ulimits(&mut self, value: &Value) {
        let limit =
            |v: &Value| if v.is_object() { json!({ "soft": v["soft"], "hard": v["hard"] }) } else { json!({ "soft": v, "hard": v }) };
        let map: BTreeMap<&String, Value> = value.as_object().into_iter().flatten().map(|(name, v)| (name, limit(v))).collect();
        self.put("ulimits", json!(map));
    }

    fn mount(&mut self, mount: Value) {
        if let Some(list) = self.fields.entry("volumes").or_insert_with(|| json!([])).as_array_mut() {
            list.push(mount);
        }
    }

    fn tmpfs(&mut self, value: &Value) {
        let one = [value.clone()];
        for entry in value.as_array().map_or(one.as_slice(), Vec::as_slice).iter().filter_map(Value::as_str) {
            let target = entry.split(':').next().unwrap_or_default();
            self.mount(json!({ "target": target, "tmpfs": {} }));
            if entry.contains(':') {
                self.lose(format!("the options of tmpfs {entry}"));
            }
        }
    }

    fn ports(&mut self, value: &Value) {
        let mut ports = Vec::new();
        for port in value.as_array().into_iter().flatten() {
            let mut made = json!({ "target": port["target"] });
            match port["published"].as_str().map(str::parse::<u16>) {
                Some(Ok(published)) => made["published"] = published.into(),
                Some(Err(_)) => self.lose(format!("the published range {}", port["published"])),
                None => {}
            }
            if let Some(host) = port["host_ip"].as_str() {
                made["host"] = host.into();
            }
            match port["protocol"].as_str() {
                Some("udp") => made["protocol"] = "udp".into(),
                Some("tcp") | None => {}
                Some(other) => self.hindrances.push(format!("a published {other} port")),
            }
            ports.push(made);
        }
        self.put("ports", Value::Array(ports));
    }

    fn volumes(&mut self, value: &Value) {
        for volume in value.as_array().into_iter().flatten() {
            let mut mount = json!({ "target": volume["target"] });
            match (volume["type"].as_str(), volume["source"].as_str()) {
                (Some("volume"), Some(name)) => mount["name"] = object_name(name).into(),
                // The image's declaration is what makes one without a name; replacements carry it along.
                (Some("volume"), None) => {
                    self.lose(format!("the volume without a name at {}: give it one", volume["target"]));
                    continue;
                }
                (Some("bind"), Some(path)) => mount["bind"] = path.into(),
                (Some("tmpfs"), _) => mount["tmpfs"] = tmpfs_options(&volume["tmpfs"]),
                (other, _) => {
                    self.hindrances.push(format!("a mount of the kind {}", other.unwrap_or("?")));
                    continue;
                }
            }
            if volume["read_only"] == true {
                mount["readOnly"] = true.into();
            }
            self.mount(mount);
        }
    }

    fn networks(&mut self, value: &Value, external: &[String]) {
        for (name, options) in value.as_object().into_iter().flatten() {
            if external.contains(name) {
                self.lose(format!("the external network {name}"));
                continue;
            }
            let network = object_name(name);
            let list = options["aliases"].as_array().into_iter().flatten();
            let aliases: Vec<String> = list.filter_map(Value::as_str).map(str::to_owned).collect();
            let ipv4 = options["ipv4_address"].as_str().map(str::to_owned);
            if !aliases.is_empty() || ipv4.is_some() {
                self.service.container.network_options.insert(network.clone(), NetworkOptions { aliases, ipv4 });
            }
            self.service.container.networks.push(network);
        }
    }

    fn health(&mut self, value: &Value) {
        let test = value["test"].as_array().cloned().unwrap_or_default();
        let words: Vec<String> = test.iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let command = match words.split_first() {
            Some((word, rest)) if word == "CMD" => rest.to_vec(),
            Some((word, rest)) if word == "CMD-SHELL" => ["/bin/sh".to_owned(), "-c".to_owned()].into_iter().chain(rest.to_vec()).collect(),
            _ => {
                self.lose(format!("healthcheck: {value}"));
                return;
            }
        };
        let mut health = json!({ "command": command });
        for (theirs, ours) in [("interval", "interval"), ("timeout", "timeout"), ("start_period", "startPeriod")] {
            let default = if theirs == "start_period" { None } else { Some(Duration::from_secs(30)) };
            if let Some(span) = duration(&value[theirs]).or(default) {
                health[ours] = json!(span);
            }
        }
        if value["retries"].is_number() {
            health["retries"] = value["retries"].clone();
        }
        self.put("health", health);
    }

    fn depends_on(&mut self, value: &Value) {
        for (on, how) in value.as_object().into_iter().flatten() {
            match how["condition"].as_str() {
                Some("service_completed_successfully") => self.lose(format!("that its start waits for {on} to end well (jobs)")),
                _ => self.service.waits_for.push(object_name(on)),
            }
            if how["restart"] == true {
                self.lose(format!("its restart with {on}"));
            }
        }
    }

    fn limit(&mut self, field: &str, value: &Value) {
        let resources = self.fields.entry("resources").or_insert_with(|| json!({}));
        match field {
            "mem_limit" => resources["memory"] = json!(bytes(value)),
            "mem_reservation" => resources["reservations"]["memory"] = json!(bytes(value)),
            "cpus" => resources["cpus"] = json!(Scalar(plain(value))),
            _ => resources["pids"] = value.clone(),
        }
    }

    fn deploy(&mut self, value: &Value) {
        for (field, value) in value.as_object().into_iter().flatten().filter(|(_, value)| !is_nothing(value)) {
            match field.as_str() {
                "replicas" => self.put("replicas", value.clone()),
                "resources" => {
                    let (limits, reservations) = (&value["limits"], &value["reservations"]);
                    for (field, value) in [("mem_limit", &limits["memory"]), ("cpus", &limits["cpus"]), ("pids_limit", &limits["pids"])] {
                        if !value.is_null() {
                            self.limit(field, value);
                        }
                    }
                    if !reservations["memory"].is_null() {
                        self.limit("mem_reservation", &reservations["memory"]);
                    }
                    if !reservations["devices"].is_null() || !reservations["cpus"].is_null() {
                        self.lose(format!("deploy.resources.reservations: {reservations}"));
                    }
                }
                "placement" if is_nothing(value) => {}
                other => self.lose(format!("deploy.{other}: {value}")),
            }
        }
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Compose writes sizes in bytes, as text or number.
fn bytes(value: &Value) -> Option<Size> {
    plain(value).parse().ok().map(Size::from_bytes)
}

/// Compose writes spans as Go does: `1m30s`, `500ms`.
fn duration(value: &Value) -> Option<Duration> {
    let text = value.as_str()?;
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Some(Duration::from_millis(total))
}

fn tmpfs_options(value: &Value) -> Value {
    let mut options = json!({});
    if let Some(size) = bytes(&value["size"]) {
        options["size"] = json!(size);
    }
    if let Some(mode) = value["mode"].as_u64() {
        options["mode"] = format!("{mode:04o}").into();
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_as_compose_writes_them() {
        for (text, millis) in [("1m30s", Some(90_000)), ("500ms", Some(500)), ("10s", Some(10_000)), ("soon", None)] {
            assert_eq!(duration(&json!(text)).map(Duration::as_millis), millis, "{text}");
        }
    }

    #[test]
    fn every_field_is_taken_or_listed() {
        let model = json!({
            "name": "shop",
            "networks": { "default": { "name": "shop_default", "ipam": {} }, "front": { "external": true, "name": "proxy" } },
            "volumes": { "data": { "name": "shop_data" }, "old": { "external": true, "name": "old" } },
            "services": {
                "db": {
                    "image": "busybox:local", "command": ["sleep", "1"], "environment": { "A": "1", "B": null }, "hostname": "db",
                    "volumes": [{ "type": "volume", "source": "data", "target": "/data", "volume": {} }],
                    "networks": { "default": null, "front": { "aliases": ["x"] } },
                    "healthcheck": { "test": ["CMD-SHELL", "true"], "interval": "5s" },
                    "deploy": { "replicas": 2, "resources": { "limits": { "cpus": 0.5, "memory": "67108864" } }, "placement": {} },
                },
                "web": { "image": "busybox:local", "build": { "context": "." }, "restart": "always", "depends_on": { "db": { "condition": "service_healthy" } } },
                "own": { "build": { "context": "." } },
            },
        });
        let written = draft(&model, "shop".to_owned()).write();
        insta::assert_snapshot!(written.text);
        assert_eq!(written.objects, 3);
    }
}
