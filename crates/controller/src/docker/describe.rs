//! What a container that somebody else made would be in a manifest: read back from the engine's inspection, with what the image says by
//! itself left out. Adoption holds it against the manifest, `init` writes it down.
//!
//! The two must agree, or a manifest written by `init` would plan something: that is why there is one function for both.

use std::collections::BTreeMap;

use bollard::models::{ContainerConfig, ContainerInspectResponse, HealthConfig, HostConfig, ImageConfig, RestartPolicyNameEnum};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use qm_api::name::Name;
use qm_api::spec::container::{Container, Logging, Mount, Port, Protocol, Reservations, Resources, Restart, Tmpfs, Ulimit};
use qm_api::spec::health::Health;
use qm_api::spec::names::is_reserved_label;
use qm_api::spec::quantity::{Cpus, Duration, Scalar, Size};
use qm_plan::observed;

use super::convert;
use super::read::found;
use super::{Docker, DockerError};

/// What the engine gives to a container that asks for no size of /dev/shm, in bytes.
const DEFAULT_SHM: i64 = 64 << 20;
/// What the engine does where a health check says nothing.
const DEFAULT_CHECK: std::time::Duration = std::time::Duration::from_secs(30);

/// A container in the words of a manifest.
#[derive(Clone, Debug, Default)]
pub struct Described {
    /// The form; its networks by their engine names.
    pub container: Container,
    /// All its labels.
    pub labels: BTreeMap<String, String>,
    /// Its networks: engine name, aliases and fixed address.
    pub networks: Vec<(Name, Vec<String>, Option<String>)>,
    /// What it has and no manifest can say yet: kept until the container is replaced.
    pub lost: Vec<String>,
    /// What stands against its adoption at all.
    pub hindrances: Vec<String>,
}

impl Docker {
    /// Describes one container for a namespace; `None` when it is gone.
    ///
    /// # Errors
    /// As for every call.
    pub async fn describe(&self, id: &str, namespace: &str) -> Result<Option<(observed::Container, Described)>, DockerError> {
        let Some(inspect) = found(self.call(self.client().inspect_container(id, None::<InspectContainerOptions>)).await)? else {
            return Ok(None);
        };
        let image = inspect.image.clone().unwrap_or_default();
        let image = found(self.call(self.client().inspect_image(&image)).await)?.and_then(|image| image.config).unwrap_or_default();
        let described = describe(&inspect, &image, namespace);
        Ok(convert::container(inspect).map(|container| (container, described)))
    }

    /// The ids of a Compose project's containers, running or not.
    ///
    /// # Errors
    /// As for every call.
    pub async fn project(&self, name: &str) -> Result<Vec<Name>, DockerError> {
        let filters = std::iter::once(("label".to_owned(), vec![format!("com.docker.compose.project={name}")])).collect();
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let list = self.call(self.client().list_containers(Some(options))).await?;
        let mut ids: Vec<Name> = list.into_iter().filter_map(|c| c.id).map(Name::from).collect();
        ids.sort();
        Ok(ids)
    }
}

fn describe(inspect: &ContainerInspectResponse, image: &ImageConfig, namespace: &str) -> Described {
    let config = inspect.config.clone().unwrap_or_default();
    let host = inspect.host_config.clone().unwrap_or_default();
    let mut described = Described { labels: sorted(config.labels.clone()), ..Described::default() };
    networks(inspect, &host, &mut described);
    ports(&host, &mut described);
    mounts(inspect, &host, namespace, &mut described);
    policy(&host, &mut described);
    resources(&host, &mut described);
    process(&config, image, &mut described);
    health(&config, image, &mut described);
    rest(&host, &mut described);
    lost(inspect, &config, &host, &mut described);
    described
}

fn sorted(map: Option<impl IntoIterator<Item = (String, String)>>) -> BTreeMap<String, String> {
    map.into_iter().flatten().collect()
}

fn scalars(map: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, Scalar> {
    map.into_iter().map(|(key, value)| (key, Scalar(value))).collect()
}

/// A list, where the image does not say the same.
fn own(list: Option<Vec<String>>, of_image: &Option<Vec<String>>) -> Option<Vec<String>> {
    let (list, of_image) = (list.unwrap_or_default(), of_image.as_deref().unwrap_or_default());
    (list != of_image).then_some(list)
}

fn own_text(text: Option<String>, of_image: &Option<String>) -> Option<String> {
    text.filter(|t| !t.is_empty() && Some(t) != of_image.as_ref())
}

fn process(config: &ContainerConfig, image: &ImageConfig, described: &mut Described) {
    let container = &mut described.container;
    container.image = config.image.clone().unwrap_or_default();
    container.entrypoint = own(config.entrypoint.clone(), &image.entrypoint);
    // With an ENTRYPOINT of its own a container has nothing of the image's CMD.
    let of_image = if container.entrypoint.is_some() { None } else { image.cmd.clone() };
    container.command = own(config.cmd.clone(), &of_image);
    let of_image = image.env.clone().unwrap_or_default();
    let env = config.env.clone().unwrap_or_default().into_iter().filter(|entry| !of_image.contains(entry));
    container.env = scalars(env.filter_map(|entry| entry.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))));
    container.user = own_text(config.user.clone(), &image.user).map(Scalar);
    container.working_dir = own_text(config.working_dir.clone(), &image.working_dir);
    container.stop_signal = own_text(config.stop_signal.clone(), &image.stop_signal);
    container.stop_grace_period = config.stop_timeout.and_then(|s| u64::try_from(s).ok()).filter(|s| *s != 10).map(Duration::from_secs);
    let of_image = sorted(image.labels.clone());
    let own = |(key, value): &(String, String)| !is_reserved_label(key) && of_image.get(key) != Some(value);
    container.labels = scalars(described.labels.clone().into_iter().filter(own));
}

fn networks(inspect: &ContainerInspectResponse, host: &HostConfig, described: &mut Described) {
    let mode = host.network_mode.clone().unwrap_or_default();
    if matches!(mode.as_str(), "host" | "none") || mode.starts_with("container:") {
        described.hindrances.push(format!("network_mode {}", mode.split(':').next().unwrap_or_default()));
        return;
    }
    let short_id: String = inspect.id.clone().unwrap_or_default().chars().take(12).collect();
    let own_name = inspect.name.clone().unwrap_or_default();
    let found = inspect.network_settings.clone().and_then(|n| n.networks).unwrap_or_default();
    for (name, endpoint) in found {
        let is_own = |alias: &String| *alias != short_id && *alias != own_name.trim_start_matches('/');
        let aliases = endpoint.aliases.unwrap_or_default().into_iter().filter(is_own).collect();
        let fixed = endpoint.ipam_config.and_then(|c| c.ipv4_address).filter(|a| !a.is_empty());
        described.networks.push((name.into(), aliases, fixed));
    }
    described.networks.sort();
}

fn ports(host: &HostConfig, described: &mut Described) {
    let bindings: BTreeMap<_, _> = host.port_bindings.clone().unwrap_or_default().into_iter().collect();
    for (port, places) in bindings {
        let (number, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
        let protocol = match protocol {
            "tcp" => None,
            "udp" => Some(Protocol::Udp),
            other => {
                described.hindrances.push(format!("a published {other} port"));
                continue;
            }
        };
        let Ok(target) = number.parse() else { continue };
        for place in places.unwrap_or_default() {
            let published = place.host_port.and_then(|p| p.parse().ok()).filter(|p| *p != 0);
            described.container.ports.push(Port { target, published, host: place.host_ip.filter(|ip| !ip.is_empty()), protocol });
        }
    }
}

fn mounts(inspect: &ContainerInspectResponse, host: &HostConfig, namespace: &str, described: &mut Described) {
    let prefix = format!("{namespace}_");
    for mount in inspect.mounts.clone().unwrap_or_default() {
        let target = mount.destination.unwrap_or_default();
        let read_only = (mount.rw == Some(false)).then_some(true);
        match mount.typ.as_deref() {
            Some("volume") => {
                let name = mount.name.unwrap_or_default();
                match name.strip_prefix(&prefix) {
                    // Volumes without a name are carried along by every replacement.
                    _ if convert::is_generated(&name) => {}
                    Some(short) => {
                        described.container.volumes.push(Mount { name: Some(short.to_owned()), target, read_only, ..Mount::default() })
                    }
                    None => {
                        described.hindrances.push(format!("the volume {name}, which is not called {prefix}.. as those of a namespace are"))
                    }
                }
            }
            Some("bind") => described.container.volumes.push(Mount { bind: mount.source, target, read_only, ..Mount::default() }),
            // Their options are in the host's part.
            Some("tmpfs") => {}
            other => described.hindrances.push(format!("a mount of the kind {}", other.unwrap_or("?"))),
        }
    }
    for (target, options) in sorted(host.tmpfs.clone()) {
        let option = |name: &str| options.split(',').find_map(|o| o.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
        let tmpfs = Tmpfs { size: option("size").and_then(|s| size_of(&s)), mode: option("mode") };
        described.container.volumes.push(Mount { tmpfs: Some(tmpfs), target, ..Mount::default() });
    }
    for mount in host.mounts.clone().unwrap_or_default() {
        if mount.typ.map(|t| t.to_string()).as_deref() != Some("tmpfs") {
            continue;
        }
        let options = mount.tmpfs_options.unwrap_or_default();
        let tmpfs = Tmpfs {
            size: options.size_bytes.filter(|s| *s > 0).map(|s| Size::from_bytes(s.unsigned_abs())),
            mode: options.mode.filter(|m| *m > 0).map(|m| format!("{m:04o}")),
        };
        described.container.volumes.push(Mount { tmpfs: Some(tmpfs), target: mount.target.unwrap_or_default(), ..Mount::default() });
    }
    described.container.volumes.sort_by(|a, b| a.target.cmp(&b.target));
}

/// A size as mount options write it: `64m`, `65536k`, a bare number of bytes.
fn size_of(text: &str) -> Option<Size> {
    let (number, factor) = match text.to_ascii_lowercase().chars().last()? {
        'k' => (&text[..text.len() - 1], 1 << 10),
        'm' => (&text[..text.len() - 1], 1 << 20),
        'g' => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    Some(Size::from_bytes(number.parse::<u64>().ok()?.checked_mul(factor)?))
}

fn policy(host: &HostConfig, described: &mut Described) {
    let policy = host.restart_policy.clone().unwrap_or_default();
    described.container.restart = match policy.name {
        Some(RestartPolicyNameEnum::ALWAYS | RestartPolicyNameEnum::UNLESS_STOPPED) => None,
        Some(RestartPolicyNameEnum::ON_FAILURE) => Some(Restart::OnFailure),
        _ => Some(Restart::Never),
    };
    if let Some(most) = policy.maximum_retry_count.filter(|n| *n > 0) {
        described.lost.push(format!("no more than {most} restarts (see startBudget)"));
    }
}

fn resources(host: &HostConfig, described: &mut Described) {
    let positive = |value: Option<i64>| value.filter(|v| *v > 0).map(i64::unsigned_abs);
    let reservations = Reservations {
        // A processor is 1024 shares; rounded so that it comes out the same.
        cpus: positive(host.cpu_shares).filter(|s| *s != 1024).map(|shares| Cpus::from_millis((shares * 1_000).div_ceil(1_024))),
        memory: positive(host.memory_reservation).map(Size::from_bytes),
    };
    let resources = Resources {
        cpus: positive(host.nano_cpus).map(|nanos| Cpus::from_millis(nanos / 1_000_000)),
        memory: positive(host.memory).map(Size::from_bytes),
        pids: positive(host.pids_limit).and_then(|p| u32::try_from(p).ok()),
        reservations: (reservations != Reservations::default()).then_some(reservations),
    };
    described.container.resources = (resources != Resources::default()).then_some(resources);
}

fn health(config: &ContainerConfig, image: &ImageConfig, described: &mut Described) {
    let Some(check) = config.healthcheck.clone().filter(|check| image.healthcheck.as_ref() != Some(check)) else { return };
    let test = check.test.clone().unwrap_or_default();
    let command = match test.split_first() {
        Some((word, rest)) if word == "CMD" => rest.to_vec(),
        Some((word, rest)) if word == "CMD-SHELL" => {
            ["/bin/sh", "-c"].iter().map(|s| (*s).to_owned()).chain(rest.iter().cloned()).collect()
        }
        Some((word, _)) if word == "NONE" && image.healthcheck.is_some() => {
            described.lost.push("that the image's HEALTHCHECK is off".to_owned());
            return;
        }
        _ => return,
    };
    described.container.health = Some(Health { command, ..timing(&check) });
}

fn timing(check: &HealthConfig) -> Health {
    let span = |nanos: Option<i64>| nanos.filter(|n| *n > 0).map(|n| Duration::from_millis(n.unsigned_abs() / 1_000_000));
    let default = Duration::from_millis(DEFAULT_CHECK.as_millis() as u64);
    Health {
        interval: Some(span(check.interval).unwrap_or(default)),
        timeout: Some(span(check.timeout).unwrap_or(default)),
        retries: check.retries.filter(|n| *n > 0).and_then(|n| u32::try_from(n).ok()),
        start_period: span(check.start_period),
        ..Health::default()
    }
}

fn rest(host: &HostConfig, described: &mut Described) {
    let container = &mut described.container;
    let capabilities = |list: &Option<Vec<String>>| {
        let list = list.clone().unwrap_or_default();
        list.into_iter().map(|c| c.to_ascii_uppercase().trim_start_matches("CAP_").to_owned()).collect()
    };
    container.cap_add = capabilities(&host.cap_add);
    container.cap_drop = capabilities(&host.cap_drop);
    container.read_only = host.readonly_rootfs.filter(|on| *on);
    container.init = host.init.filter(|on| *on);
    container.dns = host.dns.clone().unwrap_or_default();
    container.sysctls = scalars(sorted(host.sysctls.clone()));
    let hosts = host.extra_hosts.clone().unwrap_or_default();
    container.extra_hosts = hosts.iter().filter_map(|h| h.split_once([':', '='])).map(|(h, ip)| (h.to_owned(), ip.to_owned())).collect();
    let ulimits = host.ulimits.clone().unwrap_or_default();
    container.ulimits =
        ulimits.into_iter().filter_map(|u| Some((u.name?, Ulimit { soft: u.soft.unwrap_or(0), hard: u.hard.unwrap_or(0) }))).collect();
    let log = host.log_config.clone().unwrap_or_default();
    let (driver, options) = (log.typ.unwrap_or_default(), sorted(log.config));
    if !(driver.is_empty() || driver == "json-file" && options.is_empty()) {
        container.logging = Some(Logging { driver, options: scalars(options) });
    }
}

/// Everything that is set and no field of a manifest can say.
fn lost(inspect: &ContainerInspectResponse, config: &ContainerConfig, host: &HostConfig, described: &mut Described) {
    let short_id: String = inspect.id.clone().unwrap_or_default().chars().take(12).collect();
    let text = |value: &Option<String>, but: &[&str]| value.clone().filter(|v| !v.is_empty() && !but.contains(&v.as_str()));
    let list = |value: &Option<Vec<String>>| value.clone().filter(|v| !v.is_empty()).map(|v| v.join(", "));
    let number = |value: Option<i64>, but: &[i64]| value.filter(|v| *v != 0 && !but.contains(v)).map(|v| v.to_string());
    let flag = |value: Option<bool>| value.filter(|on| *on).map(|_| "on".to_owned());
    let memory = host.memory.unwrap_or(0);
    let found = [
        ("hostname", text(&config.hostname, &[&short_id])),
        ("domainname", text(&config.domainname, &[])),
        ("tty", flag(config.tty)),
        ("stdin_open", flag(config.open_stdin)),
        ("privileged", flag(host.privileged)),
        ("devices", host.devices.as_ref().filter(|d| !d.is_empty()).map(|d| d.len().to_string())),
        ("device requests (gpus)", host.device_requests.as_ref().filter(|d| !d.is_empty()).map(|d| d.len().to_string())),
        ("device_cgroup_rules", list(&host.device_cgroup_rules)),
        ("pid", text(&host.pid_mode, &[])),
        ("ipc", text(&host.ipc_mode, &["private", "shareable"])),
        ("uts", text(&host.uts_mode, &[])),
        ("userns_mode", text(&host.userns_mode, &[])),
        ("shm_size", number(host.shm_size, &[DEFAULT_SHM])),
        ("security_opt", list(&host.security_opt)),
        ("group_add", list(&host.group_add)),
        ("links", list(&host.links)),
        ("volumes_from", list(&host.volumes_from)),
        ("runtime", text(&host.runtime, &["runc"])),
        ("cgroup_parent", text(&host.cgroup_parent, &[])),
        ("oom_score_adj", number(host.oom_score_adj, &[])),
        ("oom_kill_disable", flag(host.oom_kill_disable)),
        ("memswap_limit", number(host.memory_swap, &[-1, memory * 2])),
        ("cpuset", text(&host.cpuset_cpus, &[])),
        ("cpu_quota", number(host.cpu_quota, &[])),
        ("blkio weight", number(host.blkio_weight.map(i64::from), &[])),
        ("dns_search", list(&host.dns_search)),
        ("dns_opt", list(&host.dns_options)),
        ("storage_opt", host.storage_opt.as_ref().filter(|o| !o.is_empty()).map(|o| o.len().to_string())),
        ("publish all ports", flag(host.publish_all_ports)),
    ];
    described.lost.extend(found.into_iter().filter_map(|(name, value)| Some(format!("{name}: {}", value?))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(inspect: serde_json::Value, image: serde_json::Value) -> Described {
        let inspect = serde_json::from_value(inspect).expect("an inspection");
        describe(&inspect, &serde_json::from_value(image).expect("an image"), "shop")
    }

    #[test]
    fn what_the_image_says_is_left_out() {
        let image = serde_json::json!({
            "Env": ["PATH=/bin", "A=1"], "Cmd": ["serve"], "Entrypoint": ["/run"], "User": "app", "Labels": {"maker": "us"},
        });
        let same = from(
            serde_json::json!({"Config": {
            "Image": "x:1", "Env": ["PATH=/bin", "A=1"], "Cmd": ["serve"], "Entrypoint": ["/run"], "User": "app", "Labels": {"maker": "us"},
        }, "HostConfig": {"RestartPolicy": {"Name": "always"}}}),
            image.clone(),
        );
        assert_eq!(same.container, Container { image: "x:1".to_owned(), ..Container::default() });
        assert_eq!((same.lost, same.hindrances), (Vec::<String>::new(), Vec::<String>::new()));
        let other = from(
            serde_json::json!({"Config": {
            "Image": "x:1", "Env": ["PATH=/bin", "A=2"], "Cmd": ["serve", "-v"], "Entrypoint": ["/run"], "User": "root",
            "Labels": {"maker": "us", "tier": "web", "com.docker.compose.project": "shop"},
        }, "HostConfig": {}}),
            image,
        );
        let container = other.container;
        assert_eq!(container.env, BTreeMap::from([("A".to_owned(), Scalar("2".to_owned()))]));
        assert_eq!(container.command, Some(vec!["serve".to_owned(), "-v".to_owned()]));
        assert_eq!((container.entrypoint, container.restart), (None, Some(Restart::Never)));
        assert_eq!(container.labels, BTreeMap::from([("tier".to_owned(), Scalar("web".to_owned()))]));
    }

    #[test]
    fn what_no_manifest_says_is_listed() {
        let described = from(
            serde_json::json!({
                "Id": "0123456789abcdef", "Name": "/shop-db-1",
                "Config": {"Image": "x:1", "Hostname": "db", "Tty": true},
                "HostConfig": {"Privileged": true, "NetworkMode": "host", "ShmSize": 1_048_576, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}},
                "Mounts": [
                    {"Type": "volume", "Name": "shop_data", "Destination": "/data", "RW": true},
                    {"Type": "volume", "Name": "elsewhere", "Destination": "/other", "RW": true},
                    {"Type": "volume", "Name": "0".repeat(64), "Destination": "/anonymous", "RW": true},
                ],
            }),
            serde_json::json!({}),
        );
        assert_eq!(
            described.lost,
            ["no more than 3 restarts (see startBudget)", "hostname: db", "tty: on", "privileged: on", "shm_size: 1048576"]
        );
        assert_eq!(described.hindrances.len(), 2, "{:?}", described.hindrances);
        assert_eq!(described.container.volumes.len(), 1);
    }

    #[test]
    fn sizes_read_as_mount_options_write_them() {
        assert_eq!(size_of("64m"), Some(Size::from_bytes(64 << 20)));
        assert_eq!(size_of("1024"), Some(Size::from_bytes(1024)));
        assert_eq!(size_of("much"), None);
    }
}
