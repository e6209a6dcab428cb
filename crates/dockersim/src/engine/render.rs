//! What inspect shows of a container.

use std::sync::{Arc, OnceLock};

use serde_json::{Map, Value, json};

use super::Engine;
use super::container::{Container, ExecState, Health, MountKind, MountPoint, Policy};
use super::network::endpoint_json;
use super::reply::{Failure, Reply, Request};
use super::time;
use super::volume::mountpoint;

/// Keys of the configuration that are shown only where they are set.
pub(crate) const CONFIG_OPTIONAL: &[&str] =
    &["Healthcheck", "StopSignal", "StopTimeout", "ExposedPorts", "MacAddress", "NetworkDisabled", "Shell", "ArgsEscaped"];
/// The same of the host's.
pub(crate) const HOST_OPTIONAL: &[&str] = &["Init", "Mounts", "Sysctls", "Tmpfs", "StorageOpt", "Annotations"];

pub(crate) fn config_defaults() -> &'static Map<String, Value> {
    static DEFAULTS: OnceLock<Map<String, Value>> = OnceLock::new();
    DEFAULTS.get_or_init(|| {
        object(json!({
            "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
            "Tty": false, "OpenStdin": false, "StdinOnce": false, "Env": null, "Cmd": null, "Image": "", "Volumes": null,
            "WorkingDir": "", "Entrypoint": null, "OnBuild": null, "Labels": {},
        }))
    })
}

pub(crate) fn host_defaults() -> &'static Map<String, Value> {
    static DEFAULTS: OnceLock<Map<String, Value>> = OnceLock::new();
    DEFAULTS.get_or_init(|| {
        let mut all = object(json!({
            "Binds": null, "ContainerIDFile": "", "LogConfig": { "Type": "json-file", "Config": {} }, "NetworkMode": "default",
            "PortBindings": null, "RestartPolicy": { "Name": "", "MaximumRetryCount": 0 }, "AutoRemove": false, "VolumeDriver": "",
            "VolumesFrom": null, "CapAdd": null, "CapDrop": null, "CgroupnsMode": "host", "Dns": null, "DnsOptions": null,
            "DnsSearch": null, "ExtraHosts": null, "GroupAdd": null, "IpcMode": "private", "Cgroup": "", "Links": null,
        }));
        let more = object(json!({
        "OomScoreAdj": 0, "PidMode": "", "Privileged": false, "PublishAllPorts": false, "ReadonlyRootfs": false,
        "SecurityOpt": null, "UTSMode": "", "UsernsMode": "", "ShmSize": 67_108_864, "Runtime": "runc", "ConsoleSize": [0, 0],
        }));
        let rest = object(json!({
            "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0,
            "BlkioWeightDevice": null, "BlkioDeviceReadBps": null, "BlkioDeviceWriteBps": null, "BlkioDeviceReadIOps": null,
            "BlkioDeviceWriteIOps": null, "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0,
            "CpusetCpus": "", "CpusetMems": "", "Devices": null, "DeviceCgroupRules": null, "DeviceRequests": null, "KernelMemory": 0,
            "KernelMemoryTCP": 0, "MemoryReservation": 0, "MemorySwap": 0, "MemorySwappiness": null, "OomKillDisable": false,
            "PidsLimit": null, "Ulimits": null, "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0,
            "MaskedPaths": [
                "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
            ],
            "ReadonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        }));
        all.extend(more);
        all.extend(rest);
        all
    })
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn filled(defaults: &Map<String, Value>, own: &Map<String, Value>) -> Value {
    let mut all = defaults.clone();
    for (key, value) in own {
        let partial = matches!(key.as_str(), "LogConfig" | "RestartPolicy");
        match (all.get_mut(key).and_then(Value::as_object_mut), value.as_object()) {
            (Some(default), Some(own)) if partial => {
                for (k, v) in own.iter().filter(|(_, v)| !v.is_null() && **v != json!("")) {
                    default.insert(k.clone(), v.clone());
                }
            }
            _ => {
                all.insert(key.clone(), value.clone());
            }
        }
    }
    all.into()
}

fn host_json(container: &Container) -> Value {
    let mut host = filled(host_defaults(), &container.host);
    let (name, retries) = match container.policy {
        Policy::No if host["RestartPolicy"]["Name"] == json!("") => ("", 0),
        Policy::No => ("no", 0),
        Policy::Always => ("always", 0),
        Policy::UnlessStopped => ("unless-stopped", 0),
        Policy::OnFailure(retries) => ("on-failure", retries),
    };
    host["RestartPolicy"] = json!({ "Name": name, "MaximumRetryCount": retries });
    // Every binding has both of its fields.
    for bindings in host["PortBindings"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        for binding in bindings.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            binding.entry("HostIp").or_insert_with(|| json!(""));
            binding.entry("HostPort").or_insert_with(|| json!(""));
        }
    }
    host
}

fn config_json(container: &Container) -> Value {
    let mut config = filled(config_defaults(), &container.config);
    config["Labels"] = json!(&*container.labels);
    config
}

pub(crate) fn mount_json(mount: &MountPoint) -> Value {
    match mount.kind {
        MountKind::Volume => json!({
            "Type": "volume", "Name": mount.source, "Source": mountpoint(&mount.source), "Destination": mount.target, "Driver": "local",
            "Mode": mount.mode, "RW": mount.writable, "Propagation": "",
        }),
        MountKind::Bind => json!({
            "Type": "bind", "Source": mount.source, "Destination": mount.target, "Mode": mount.mode, "RW": mount.writable,
            "Propagation": "rprivate",
        }),
        MountKind::Tmpfs => json!({
            "Type": "tmpfs", "Source": "", "Destination": mount.target, "Mode": "", "RW": mount.writable, "Propagation": "",
        }),
    }
}

fn health_json(health: &Health) -> Value {
    let log: Vec<Value> = health
        .log
        .iter()
        .map(|p| json!({ "Start": time::nano(p.at_ns), "End": time::nano(p.at_ns), "ExitCode": p.code, "Output": p.output }))
        .collect();
    json!({ "Status": health.status.word(), "FailingStreak": health.streak, "Log": log })
}

fn state_json(container: &Container) -> Value {
    let word = container.word();
    let mut state = json!({
        "Status": word,
        "Running": matches!(word, "running" | "paused" | "restarting"),
        "Paused": word == "paused",
        "Restarting": word == "restarting",
        "OOMKilled": false,
        "Dead": false,
        "Pid": container.pid,
        "ExitCode": container.exit_code,
        "Error": container.error,
        "StartedAt": time::maybe(container.started_ns),
        "FinishedAt": time::maybe(container.finished_ns),
    });
    if let Some(health) = &container.health {
        state["Health"] = health_json(health);
    }
    state
}

/// The ports as inspect shows them.
fn ports_json(container: &Container) -> Value {
    let mut ports = Map::new();
    if container.pid == 0 {
        return ports.into();
    }
    for target in container.config.get("ExposedPorts").and_then(Value::as_object).into_iter().flatten().map(|(k, _)| k) {
        let bound = container.published.iter().filter(|p| p.target == *target);
        let bound: Vec<Value> = bound.map(|p| json!({ "HostIp": p.host_ip, "HostPort": p.host_port.to_string() })).collect();
        ports.insert(target.clone(), if bound.is_empty() { Value::Null } else { bound.into() });
    }
    ports.into()
}

fn network_settings(container: &Container) -> Value {
    let networks: Map<String, Value> = container.networks.iter().map(|(name, a)| (name.to_string(), endpoint_json(a))).collect();
    let sandbox = &*container.sandbox;
    let key = match (&container.mode, sandbox) {
        (_, "") => String::new(),
        (super::container::NetworkMode::Host, _) => "/var/run/docker/netns/default".to_owned(),
        _ => format!("/var/run/docker/netns/{}", &sandbox[..12]),
    };
    // The old fields speak of the default bridge alone.
    let bridge = networks.get("bridge").cloned().unwrap_or(Value::Null);
    let old = |key: &str, default: Value| bridge.get(key).cloned().unwrap_or(default);
    json!({
        "Bridge": "", "SandboxID": sandbox, "HairpinMode": false, "LinkLocalIPv6Address": "", "LinkLocalIPv6PrefixLen": 0,
        "Ports": ports_json(container), "SandboxKey": key, "SecondaryIPAddresses": null, "SecondaryIPv6Addresses": null,
        "EndpointID": old("EndpointID", json!("")), "Gateway": old("Gateway", json!("")), "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0, "IPAddress": old("IPAddress", json!("")), "IPPrefixLen": old("IPPrefixLen", json!(0)),
        "IPv6Gateway": "", "MacAddress": old("MacAddress", json!("")), "Networks": networks,
    })
}

impl Engine {
    /// Commands that have not ended.
    fn live_execs(&self, container: &Container) -> Value {
        let live = |id: &&Arc<str>| self.execs.get(*id).is_some_and(|e| !matches!(e.state, ExecState::Done(_)));
        let ids: Vec<&str> = container.execs.iter().filter(live).map(|id| &**id).collect();
        if ids.is_empty() { Value::Null } else { json!(ids) }
    }

    pub(crate) fn container_inspect(&self, reference: &str, request: &Request) -> Result<Reply, Failure> {
        let id = self.find(reference)?;
        let container = self.container(&id)?;
        let own = |file: &str| if container.starts == 0 { String::new() } else { format!("/var/lib/docker/containers/{id}/{file}") };
        let layer = |part: &str| format!("/var/lib/docker/overlay2/{id}{part}");
        let mut body = json!({
            "Id": &*id,
            "Created": time::nano(container.created_ns),
            "Path": container.command.first().map_or("", String::as_str),
            "Args": container.command.get(1..).unwrap_or(&[]),
            "State": state_json(container),
            "Image": &*container.image_id,
            "ResolvConfPath": own("resolv.conf"),
            "HostnamePath": own("hostname"),
            "HostsPath": own("hosts"),
            "LogPath": own(&format!("{id}-json.log")),
            "Name": format!("/{}", container.name),
            "RestartCount": container.restart_count,
            "Driver": "overlay2",
            "Platform": "linux",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "ExecIDs": self.live_execs(container),
            "HostConfig": host_json(container),
            "GraphDriver": {
                "Data": {
                    "LowerDir": layer("-init/diff"), "MergedDir": layer("/merged"), "UpperDir": layer("/diff"), "WorkDir": layer("/work"),
                },
                "Name": "overlay2",
            },
            "Mounts": container.mounts.iter().map(mount_json).collect::<Vec<_>>(),
            "Config": config_json(container),
            "NetworkSettings": network_settings(container),
        });
        if request.flag("size") {
            body["SizeRw"] = json!(0);
            body["SizeRootFs"] = json!(self.images.get(&container.image_id).map_or(0, |i| i.spec.size));
        }
        Ok(Reply::ok(body))
    }
}
