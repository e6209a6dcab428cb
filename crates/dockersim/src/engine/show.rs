//! Containers as they are shown: inspected, and as rows of the list.

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use super::container::{Container, MountPoint, Phase};
use super::filter::{Filters, name_fits};
use super::network::mac;
use super::reply::{Failure, Reply, Request};
use super::{Engine, text, time};
use crate::Now;

impl Engine {
    pub(super) fn inspect(&self, id: &str, now: Now) -> Value {
        let c = &self.containers[id];
        let up = c.phase.is_up();
        let dir = format!("/var/lib/docker/containers/{id}");
        let file = |name: &str| if c.starts > 0 { format!("{dir}/{name}") } else { String::new() };
        let mut state = json!({
            "Status": c.phase.word(), "Running": up || c.phase == Phase::Restarting, "Paused": c.phase == Phase::Paused,
            "Restarting": c.phase == Phase::Restarting, "OOMKilled": false, "Dead": false, "Pid": if up { 1_000 + c.order } else { 0 },
            "ExitCode": c.exit_code, "Error": c.error, "StartedAt": time::maybe(c.started_ns), "FinishedAt": time::maybe(c.finished_ns),
        });
        if let Some(health) = c.health.as_ref().filter(|_| c.starts > 0) {
            let log = if health.log.is_empty() { Value::Null } else { json!(health.log) };
            state["Health"] = json!({ "Status": health.status, "FailingStreak": health.failing, "Log": log });
        }
        let execs: Vec<&String> =
            self.execs.iter().filter(|(_, e)| *e.container == *id && e.is_running(now.mono_ms)).map(|(id, _)| id).collect();
        let overlay = format!("/var/lib/docker/overlay2/{id}");
        json!({
            "Id": id, "Created": time::nano(c.created_ns), "Path": c.command.first(), "Args": &c.command[1.min(c.command.len())..],
            "State": state, "Image": &*c.image_id, "ResolvConfPath": file("resolv.conf"), "HostnamePath": file("hostname"),
            "HostsPath": file("hosts"), "LogPath": file(&format!("{id}-json.log")), "Name": format!("/{}", c.name),
            "RestartCount": c.restart_count, "Driver": "overlay2", "Platform": "linux", "MountLabel": "", "ProcessLabel": "",
            "AppArmorProfile": "", "ExecIDs": if execs.is_empty() { Value::Null } else { json!(execs) },
            "HostConfig": host_config(c),
            "GraphDriver": { "Name": "overlay2", "Data": {
                "LowerDir": format!("{overlay}-init/diff"), "MergedDir": format!("{overlay}/merged"),
                "UpperDir": format!("{overlay}/diff"), "WorkDir": format!("{overlay}/work"),
            } },
            "Mounts": c.mounts.iter().filter(|m| m.kind != "tmpfs" || up).filter_map(mount).collect::<Vec<_>>(),
            "Config": c.config, "NetworkSettings": self.network_settings(c),
        })
    }

    fn network_settings(&self, c: &Container) -> Value {
        let networks: serde_json::Map<String, Value> =
            c.endpoints.iter().map(|(name, e)| (name.clone(), e.show(&c.id, name == "bridge"))).collect();
        let default = c.endpoints.get("bridge");
        let of_default = |f: &dyn Fn(&super::network::Endpoint) -> Value, none: Value| default.map_or(none, f);
        let sandbox = if c.starts > 0 { c.id.to_string() } else { String::new() };
        let key = if c.starts > 0 { format!("/var/run/docker/netns/{}", &c.id[..12]) } else { String::new() };
        json!({
            "Bridge": "", "SandboxID": sandbox, "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
            "Ports": ports(c), "SandboxKey": key, "SecondaryIPAddresses": null, "SecondaryIPv6Addresses": null,
            "EndpointID": of_default(&|e| json!(e.endpoint_id), json!("")), "Gateway": of_default(&|e| json!(e.gateway), json!("")),
            "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
            "IPAddress": of_default(&|e| json!(e.ip.map(|ip| ip.to_string()).unwrap_or_default()), json!("")),
            "IPPrefixLen": of_default(&|e| json!(e.prefix), json!(0)), "IPv6Gateway": "",
            "MacAddress": of_default(&|e| json!(e.ip.map(mac).unwrap_or_default()), json!("")), "Networks": networks,
        })
    }

    pub(super) fn list_containers(&self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let filters = Filters::parse(request.get("filters"))?.only(&[
            "ancestor",
            "before",
            "exited",
            "expose",
            "health",
            "id",
            "isolation",
            "is-task",
            "label",
            "label!",
            "name",
            "network",
            "publish",
            "since",
            "status",
            "volume",
        ])?;
        const STATES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
        if let Some(odd) = filters.values("status").iter().find(|s| !STATES.contains(&s.as_str())) {
            return Err(Failure::new(400, format!("Invalid filter 'status={odd}'")));
        }
        if let Some(odd) = filters.values("health").iter().find(|s| !["none", "starting", "healthy", "unhealthy"].contains(&s.as_str())) {
            return Err(Failure::new(400, format!("Unrecognised filter value for health: {odd}")));
        }
        let number =
            |text: &str| text.parse::<i64>().map_err(|_| Failure::new(500, format!("strconv.Atoi: parsing \"{text}\": invalid syntax")));
        let limit = request.get("limit").filter(|l| !l.is_empty()).map(number).transpose()?.filter(|l| *l > 0);
        let exited = filters.values("exited").iter().map(|c| number(c)).collect::<Result<Vec<_>, _>>()?;
        let all = request.flag("all")
            || limit.is_some()
            || filters.has("status")
            || !exited.is_empty()
            || filters.has("since")
            || filters.has("before");
        let order_of = |key: &str| -> Result<Option<u64>, Failure> {
            let Some(reference) = filters.values(key).first() else { return Ok(None) };
            let id = self.find_container(reference)?;
            Ok(self.containers.get(&id).map(|c| c.order))
        };
        let (since, before) = (order_of("since")?, order_of("before")?);
        let images: Vec<Arc<str>> = filters.values("ancestor").iter().filter_map(|a| self.find_image(a)).map(|i| i.id.clone()).collect();
        let fits = |c: &&Container| {
            (all || c.phase.is_up() || c.phase == Phase::Restarting)
                && filters.any_of("status", |s| s == c.phase.word())
                && filters.labels(&c.labels)
                && filters.any_of("name", |p| name_fits(p, &c.name))
                && filters.any_of("id", |i| c.id.starts_with(i))
                && filters
                    .any_of("network", |n| c.endpoints.iter().any(|(name, e)| name == n || (!n.is_empty() && e.network_id.starts_with(n))))
                && filters.any_of("volume", |v| c.mounts.iter().any(|m| m.source == v || m.target == v))
                && filters.any_of("health", |h| h == c.health.as_ref().filter(|_| c.starts > 0).map_or("none", |x| x.status))
                && filters.any_of("is-task", |t| matches!(t, "false" | "0"))
                && (!filters.has("ancestor") || images.contains(&c.image_id))
                && (exited.is_empty() || (c.phase == Phase::Exited && exited.contains(&c.exit_code)))
                && since.is_none_or(|o| c.order > o)
                && before.is_none_or(|o| c.order < o)
                && filters.any_of("publish", |p| c.published.iter().any(|(_, _, host)| p.split('/').next() == Some(&host.to_string())))
                && filters.any_of("expose", |p| {
                    c.config["ExposedPorts"].as_object().is_some_and(|e| e.keys().any(|k| k.split('/').next() == p.split('/').next()))
                })
        };
        let mut list: Vec<&Container> = self.containers.values().filter(fits).collect();
        list.sort_by_key(|c| std::cmp::Reverse(c.order));
        list.truncate(limit.map_or(usize::MAX, |l| l as usize));
        let with_size = request.flag("size");
        Ok(Reply::ok(list.iter().map(|c| self.row(c, with_size, now)).collect()))
    }

    fn row(&self, c: &Container, with_size: bool, now: Now) -> Value {
        let networks: serde_json::Map<String, Value> = c
            .endpoints
            .iter()
            .map(|(name, e)| {
                let mut shown = e.show(&c.id, true);
                shown["Aliases"] = Value::Null;
                (name.clone(), shown)
            })
            .collect();
        let mode = text(&c.host["NetworkMode"]);
        let image = match self.find_image(&c.image) {
            Some(image) if image.id == c.image_id => c.image.clone(),
            _ if c.image.is_empty() => String::new(),
            _ => c.image_id.to_string(),
        };
        let mut row = json!({
            "Id": &*c.id, "Names": [format!("/{}", c.name)], "Image": image, "ImageID": &*c.image_id, "Command": command_line(&c.command),
            "Created": c.created_ns.div_euclid(1_000_000_000), "Ports": port_rows(c), "Labels": *c.labels, "State": c.phase.word(),
            "Status": status(c, now), "HostConfig": { "NetworkMode": if mode.is_empty() { "default" } else { mode } },
            "NetworkSettings": { "Networks": networks },
            "Mounts": c.mounts.iter().filter_map(mount).collect::<Vec<_>>(),
        });
        if with_size {
            row["SizeRootFs"] = json!(self.images.get(&c.image_id).map_or(0, |i| i.spec.size));
        }
        row
    }
}

fn mount(m: &MountPoint) -> Option<Value> {
    match m.kind {
        "volume" => Some(json!({
            "Type": "volume", "Name": m.source, "Source": format!("/var/lib/docker/volumes/{}/_data", m.source), "Destination": m.target,
            "Driver": "local", "Mode": m.mode, "RW": m.writable, "Propagation": "",
        })),
        "bind" => Some(json!({
            "Type": "bind", "Source": m.source, "Destination": m.target, "Mode": m.mode, "RW": m.writable, "Propagation": "rprivate",
        })),
        _ => Some(json!({ "Type": "tmpfs", "Source": "", "Destination": m.target, "Mode": "", "RW": true, "Propagation": "" })),
    }
}

fn ports(c: &Container) -> Value {
    if !c.phase.is_up() {
        return json!({});
    }
    let mut ports = serde_json::Map::new();
    for (port, _) in c.config["ExposedPorts"].as_object().into_iter().flatten() {
        ports.insert(port.clone(), Value::Null);
    }
    for (port, ip, host) in &c.published {
        let entry = ports.entry(port.clone()).or_insert(Value::Null);
        if entry.is_null() {
            *entry = json!([]);
        }
        let list = entry.as_array_mut().expect("it was just made one");
        list.push(json!({ "HostIp": ip, "HostPort": host.to_string() }));
        if ip == "0.0.0.0" {
            list.push(json!({ "HostIp": "::", "HostPort": host.to_string() }));
        }
    }
    Value::Object(ports)
}

fn port_rows(c: &Container) -> Value {
    let mut rows = Vec::new();
    if c.phase.is_up() {
        for (port, bindings) in ports(c).as_object().into_iter().flatten() {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            let private: u16 = number.parse().unwrap_or(0);
            match bindings.as_array() {
                None => rows.push(json!({ "PrivatePort": private, "Type": protocol })),
                Some(list) => rows.extend(list.iter().map(|b| {
                    json!({ "IP": b["HostIp"], "PrivatePort": private, "PublicPort": text(&b["HostPort"]).parse::<u16>().unwrap_or(0), "Type": protocol })
                })),
            }
        }
    }
    Value::Array(rows)
}

fn status(c: &Container, now: Now) -> String {
    let since = |ns: Option<i64>| time::human(now.wall_ns - ns.unwrap_or(now.wall_ns));
    let health = match c.health.as_ref().map(|h| h.status) {
        Some("starting") => " (health: starting)".to_owned(),
        Some(status) => format!(" ({status})"),
        None => String::new(),
    };
    match c.phase {
        Phase::Created => "Created".to_owned(),
        Phase::Running => format!("Up {}{health}", since(c.started_ns)),
        Phase::Paused => format!("Up {} (Paused)", since(c.started_ns)),
        Phase::Restarting => format!("Restarting ({}) {} ago", c.exit_code, since(c.finished_ns)),
        Phase::Exited => format!("Exited ({}) {} ago", c.exit_code, since(c.finished_ns)),
    }
}

fn command_line(command: &[String]) -> String {
    let quoted = |w: &String| if w.contains(' ') { format!("'{w}'") } else { w.clone() };
    command.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// The daemon's defaults of `HostConfig`, as it shows them.
static HOST_DEFAULTS: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(
        r#"{
        "Binds": null, "ContainerIDFile": "", "LogConfig": { "Type": "json-file", "Config": {} }, "NetworkMode": "default",
        "PortBindings": null, "RestartPolicy": { "Name": "", "MaximumRetryCount": 0 }, "AutoRemove": false, "VolumeDriver": "",
        "VolumesFrom": null, "CapAdd": null, "CapDrop": null, "CgroupnsMode": "host", "Dns": null, "DnsOptions": null, "DnsSearch": null,
        "ExtraHosts": null, "GroupAdd": null, "IpcMode": "private", "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "",
        "Privileged": false, "PublishAllPorts": false, "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
        "ShmSize": 67108864, "Runtime": "runc", "ConsoleSize": [0, 0], "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0,
        "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": null, "BlkioDeviceReadBps": null, "BlkioDeviceWriteBps": null,
        "BlkioDeviceReadIOps": null, "BlkioDeviceWriteIOps": null, "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": null, "DeviceCgroupRules": null, "DeviceRequests": null,
        "KernelMemory": 0, "KernelMemoryTCP": 0, "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": null,
        "OomKillDisable": false, "PidsLimit": null, "Ulimits": null, "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0
    }"#,
    )
    .expect("the defaults are JSON")
});

/// `HostConfig` with the daemon's defaults under what was given.
fn host_config(c: &Container) -> Value {
    let given = &c.host;
    let mut host = HOST_DEFAULTS.clone();
    for (key, value) in given.as_object().into_iter().flatten().filter(|(_, v)| !v.is_null() && **v != json!("")) {
        host[key] = value.clone();
    }
    if let Some(log) = given["LogConfig"].as_object() {
        let kind = log.get("Type").map(text).filter(|t| !t.is_empty()).unwrap_or("json-file").to_owned();
        host["LogConfig"] =
            json!({ "Type": kind, "Config": log.get("Config").filter(|c| !c.is_null()).cloned().unwrap_or_else(|| json!({})) });
    }
    let policy = &given["RestartPolicy"];
    host["RestartPolicy"] =
        json!({ "Name": text(&policy["Name"]), "MaximumRetryCount": policy["MaximumRetryCount"].as_i64().unwrap_or(0) });
    for bindings in host["PortBindings"].as_object_mut().into_iter().flatten().map(|(_, v)| v) {
        for binding in bindings.as_array_mut().into_iter().flatten() {
            *binding = json!({ "HostIp": text(&binding["HostIp"]), "HostPort": text(&binding["HostPort"]) });
        }
    }
    let memory = host["Memory"].as_i64().unwrap_or(0);
    if memory > 0 && host["MemorySwap"].as_i64().unwrap_or(0) == 0 {
        host["MemorySwap"] = json!(memory * 2);
    }
    if host["PidsLimit"].as_i64().is_some_and(|p| p <= 0) {
        host["PidsLimit"] = Value::Null;
    }
    if !matches!(given["Privileged"], Value::Bool(true)) {
        host["MaskedPaths"] = json!([
            "/proc/asound",
            "/proc/acpi",
            "/proc/kcore",
            "/proc/keys",
            "/proc/latency_stats",
            "/proc/timer_list",
            "/proc/timer_stats",
            "/proc/sched_debug",
            "/proc/scsi",
            "/sys/firmware",
        ]);
        host["ReadonlyPaths"] = json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    }
    host
}
