//! Owns what admission checks of the shared parts beyond their schema: containers, health checks, edges. Only what one object says by
//! itself; what needs the whole set is in [`crate::admit`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use super::container::{ConfigFile, Container, Mount, Port, Resources, Update, UpdateOrder};
use super::edge::{Edge, OnDown, Reload, Stage};
use super::health::{Health, HttpScheme};
use super::names;
use super::quantity::{Cpus, Duration, Scalar, Size, Tolerate};
use crate::codes::Code;
use crate::field::{FieldPath, Problem};
use crate::name::Name;

/// Docker refuses to give a container less memory.
const LEAST_MEMORY: Size = Size::from_bytes(6 << 20);

/// Collects problems in the order in which they are found.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    pub(crate) problems: Vec<Problem>,
}

impl Rules {
    pub(crate) fn error(&mut self, code: Code, at: &FieldPath, message: impl Into<String>, help: impl Into<String>) {
        self.problems.push(Problem::error(code, at.clone(), message).help(help));
    }

    pub(crate) fn not_in_effect(&mut self, at: &FieldPath, what: &str) {
        let message = format!("{what} is not in effect yet");
        self.problems.push(
            Problem::warning(Code::NotInEffect, at.clone(), message).help("it is kept, and this release acts as if it were not there"),
        );
    }

    pub(crate) fn not_supported(&mut self, at: &FieldPath, what: &str, help: &str) {
        self.error(Code::NotSupported, at, format!("{what} is not supported yet"), help);
    }

    /// Exactly one of the named fields must be given.
    pub(crate) fn exactly_one(&mut self, at: &FieldPath, fields: &[(&str, bool)]) {
        let given: Vec<&str> = fields.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name).collect();
        if given.len() == 1 {
            return;
        }
        let all = crate::manifest::walk::list_words(fields.iter().map(|(name, _)| *name));
        let message = match given.len() {
            0 => format!("`{at}` has none of {all}"),
            _ => format!("`{at}` has {} at the same time", crate::manifest::walk::list_words(given.iter().copied())),
        };
        let path = given.get(1).map_or_else(|| at.clone(), |second| at.key(second));
        self.error(Code::OneOf, &path, message, format!("give exactly one of {all}"));
    }

    /// A text that a function finds fault with.
    pub(crate) fn form(&mut self, code: Code, at: &FieldPath, text: &str, problem: Option<&'static str>) {
        if let Some(problem) = problem {
            let text = crate::manifest::yaml::shorten(text);
            self.error(code, at, format!("`{at}` cannot be `{text}`"), problem);
        }
    }

    fn positive(&mut self, at: &FieldPath, duration: Option<Duration>) {
        if duration.is_some_and(|duration| duration.as_millis() == 0) {
            self.error(Code::OutOfRange, at, format!("`{at}` must be longer than 0s"), "");
        }
    }

    fn absolute(&mut self, at: &FieldPath, text: &str) -> Option<String> {
        let clean = names::clean_path(text);
        if clean.is_none() {
            self.error(Code::BadFormat, at, format!("`{at}` must be an absolute path"), "begin it with `/`, without `..`");
        }
        clean
    }

    fn mode(&mut self, at: &FieldPath, mode: Option<&String>) {
        if mode.is_some_and(|mode| !names::is_mode(mode)) {
            self.error(Code::BadFormat, at, format!("`{at}` is no file mode"), "write it in octal and in quotes, such as \"0444\"");
        }
    }

    fn signal(&mut self, at: &FieldPath, signal: Option<&String>) {
        if signal.is_some_and(|signal| !names::is_signal(signal)) {
            self.error(Code::BadFormat, at, format!("`{at}` names no signal"), "write it as SIGTERM, SIGHUP and the like");
        }
    }

    /// The labels of something on the engine.
    pub(crate) fn engine_labels(&mut self, at: &FieldPath, labels: &BTreeMap<String, Scalar>) {
        for key in labels.keys() {
            if key.is_empty() || key.chars().any(char::is_control) {
                self.error(Code::BadName, &at.key(key), "a label has no usable name", "give it a name");
            } else if names::is_reserved_label(key) {
                self.error(
                    Code::Reserved,
                    &at.key(key),
                    format!("the label `{key}` is reserved"),
                    "the operator sets it; choose another one",
                );
            }
        }
    }

    /// Everything about a container; `secrets` also says whether an edge may use `tolerate: Lease`.
    pub(crate) fn container(&mut self, at: &FieldPath, container: &Container) {
        self.form(Code::BadImage, &at.key("image"), &container.image, names::image_error(&container.image));
        for key in container.env.keys() {
            let path = at.key("env").key(key);
            self.form(Code::BadFormat, &path, key, names::env_name_error(key));
        }
        self.networks(at, container);
        self.ports(at, container);
        let mut targets = BTreeMap::new();
        for (i, mount) in container.volumes.iter().enumerate() {
            self.mount(&at.key("volumes").index(i), mount, &mut targets);
        }
        for (i, config) in container.configs.iter().enumerate() {
            self.config(&at.key("configs").index(i), config, &mut targets);
        }
        for (i, secret) in container.secrets.iter().enumerate() {
            let path = at.key("secrets").index(i);
            self.form(Code::BadName, &path.key("name"), &secret.name, names::label_error(&secret.name));
            if let Some(target) = &secret.target {
                self.target(&path.key("target"), target, &mut targets);
            }
        }
        if !container.secrets.is_empty() {
            self.not_in_effect(&at.key("secrets"), "the projection of secrets");
        }
        if let Some(health) = &container.health {
            self.health(&at.key("health"), health);
        }
        if let Some(resources) = &container.resources {
            self.resources(&at.key("resources"), resources);
        }
        self.process(at, container);
        self.host_settings(at, container);
        if let Some(update) = &container.update {
            self.update(&at.key("update"), update, container);
        }
        if let Some(budget) = &container.start_budget {
            self.positive(&at.key("startBudget").key("window"), budget.window);
        }
    }

    fn networks(&mut self, at: &FieldPath, container: &Container) {
        let mut seen = BTreeSet::new();
        for (i, network) in container.networks.iter().enumerate() {
            let path = at.key("networks").index(i);
            self.form(Code::BadName, &path, network, names::label_error(network));
            if !seen.insert(network) {
                self.error(Code::BadCombination, &path, format!("the network `{network}` is named twice"), "remove one of them");
            }
        }
        for (network, options) in &container.network_options {
            let path = at.key("networkOptions").key(network);
            let is_joined = seen.contains(network) || (container.networks.is_empty() && network == "default");
            if !is_joined {
                let message = format!("there are options for the network `{network}`, which the service does not join");
                self.error(Code::BadCombination, &path, message, "add it to `networks`, or remove the options");
            }
            for (i, alias) in options.aliases.iter().enumerate() {
                let is_name = !alias.is_empty() && alias.len() <= 253 && alias.split('.').all(word);
                if !is_name {
                    self.error(Code::BadName, &path.key("aliases").index(i), format!("`{alias}` is no host name"), "");
                }
            }
            let Some(ipv4) = &options.ipv4 else { continue };
            let path = path.key("ipv4");
            if ipv4.parse::<Ipv4Addr>().is_err() {
                self.error(Code::BadAddress, &path, format!("`{ipv4}` is no IPv4 address"), "write it as 172.30.0.10");
            }
            if container.replicas.unwrap_or(1) > 1 {
                self.error(
                    Code::BadAddress,
                    &path,
                    "a fixed address can be given to one replica only",
                    "remove `ipv4`, or set `replicas: 1`",
                );
            }
        }
    }

    fn ports(&mut self, at: &FieldPath, container: &Container) {
        for (i, Port { published, host, .. }) in container.ports.iter().enumerate() {
            let path = at.key("ports").index(i);
            if let Some(host) = host
                && host.parse::<IpAddr>().is_err()
            {
                self.error(
                    Code::BadAddress,
                    &path.key("host"),
                    format!("`{host}` is no address"),
                    "write an address of this host, such as 127.0.0.1",
                );
            }
            if let Some(port) = published
                && container.replicas.unwrap_or(1) > 1
            {
                let message = format!("{} replicas cannot all publish the host's port {port}", container.replicas.unwrap_or(1));
                self.error(Code::PortConflict, &path.key("published"), message, "leave `published` out, or set `replicas: 1`");
            }
        }
    }

    fn target(&mut self, at: &FieldPath, target: &str, targets: &mut BTreeMap<String, FieldPath>) {
        let Some(clean) = self.absolute(at, target) else { return };
        if clean == "/" {
            self.error(Code::MountConflict, at, "nothing can be mounted at the root of the file system", "");
        } else if let Some(other) = targets.get(&clean) {
            self.error(Code::MountConflict, at, format!("`{clean}` is the target of `{other}` too"), "choose another target");
        } else {
            targets.insert(clean, at.clone());
        }
    }

    fn mount(&mut self, at: &FieldPath, mount: &Mount, targets: &mut BTreeMap<String, FieldPath>) {
        self.exactly_one(at, &[("name", mount.name.is_some()), ("bind", mount.bind.is_some()), ("tmpfs", mount.tmpfs.is_some())]);
        if let Some(name) = &mount.name {
            self.form(Code::BadName, &at.key("name"), name, names::volume_name_error(name));
        }
        if let Some(bind) = &mount.bind {
            self.absolute(&at.key("bind"), bind);
        }
        if let Some(tmpfs) = &mount.tmpfs {
            self.mode(&at.key("tmpfs").key("mode"), tmpfs.mode.as_ref());
            if tmpfs.size.is_some_and(|size| size.as_bytes() == 0) {
                self.error(Code::OutOfRange, &at.key("tmpfs").key("size"), "the size must be larger than 0", "");
            }
        }
        self.target(&at.key("target"), &mount.target, targets);
    }

    fn config(&mut self, at: &FieldPath, config: &ConfigFile, targets: &mut BTreeMap<String, FieldPath>) {
        self.exactly_one(at, &[("content", config.content.is_some()), ("file", config.file.is_some())]);
        self.form(Code::BadName, &at.key("name"), &config.name, names::volume_name_error(&config.name));
        self.mode(&at.key("mode"), config.mode.as_ref());
        self.target(&at.key("target"), &config.target, targets);
    }

    fn health(&mut self, at: &FieldPath, health: &Health) {
        let given = [
            ("tcp", health.tcp.is_some()),
            ("http", health.http.is_some()),
            ("grpc", health.grpc.is_some()),
            ("command", !health.command.is_empty()),
            ("image", health.image.is_some()),
        ];
        self.exactly_one(at, &given);
        if health.grpc.is_some() {
            self.not_supported(&at.key("grpc"), "the gRPC health check", "use `tcp`, `http` or `command`");
        }
        if let Some(http) = &health.http {
            let at = at.key("http");
            if http.scheme == Some(HttpScheme::Https) {
                self.not_supported(&at.key("scheme"), "`scheme: https`", "use `scheme: http`, `tcp` or `command`");
            }
            if http.path.as_ref().is_some_and(|path| !path.starts_with('/') || path.chars().any(|c| c.is_control() || c == ' ')) {
                self.error(Code::BadFormat, &at.key("path"), "the path must begin with `/`", "write it as it stands in a URL");
            }
            for (name, value) in &http.headers {
                let is_token = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
                if !is_token || value.chars().any(char::is_control) {
                    self.error(Code::BadFormat, &at.key("headers").key(name), "that is no header field", "");
                }
            }
        }
        self.positive(&at.key("interval"), health.interval);
        self.positive(&at.key("timeout"), health.timeout);
    }

    fn resources(&mut self, at: &FieldPath, resources: &Resources) {
        let reserved = resources.reservations.clone().unwrap_or_default();
        let below = at.key("reservations");
        for (at, cpus) in [(at, resources.cpus), (&below, reserved.cpus)] {
            if cpus.is_some_and(|cpus| cpus <= Cpus::from_millis(0)) {
                self.error(Code::OutOfRange, &at.key("cpus"), "`cpus` must be more than 0", "leave it out for no limit");
            }
        }
        for (at, memory) in [(at, resources.memory), (&below, reserved.memory)] {
            if memory.is_some_and(|memory| memory < LEAST_MEMORY) {
                self.error(Code::OutOfRange, &at.key("memory"), "`memory` must be at least 6Mi", "sizes take a unit: 512Mi, 2Gi");
            }
        }
        if let (Some(limit), Some(reserved)) = (resources.memory, reserved.memory)
            && reserved > limit
        {
            self.error(Code::BadCombination, &below.key("memory"), "more memory is reserved than allowed", format!("at most {limit}"));
        }
        if let (Some(limit), Some(reserved)) = (resources.cpus, reserved.cpus)
            && reserved > limit
        {
            self.error(Code::BadCombination, &below.key("cpus"), "more processors are reserved than allowed", format!("at most {limit}"));
        }
    }

    fn process(&mut self, at: &FieldPath, container: &Container) {
        if let Some(directory) = &container.working_dir {
            self.absolute(&at.key("workingDir"), directory);
        }
        if container.user.as_ref().is_some_and(|user| user.as_str().is_empty() || user.as_str().chars().any(char::is_whitespace)) {
            self.error(Code::BadFormat, &at.key("user"), "that is no user", "write a name or number, or `user:group`");
        }
        for (field, list) in [("capAdd", &container.cap_add), ("capDrop", &container.cap_drop)] {
            for (i, capability) in list.iter().enumerate() {
                let path = at.key(field).index(i);
                if let Some(name) = capability.strip_prefix("CAP_") {
                    self.error(Code::BadFormat, &path, "capabilities are written without `CAP_`", format!("write {name}"));
                } else if capability.is_empty() || !capability.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_') {
                    self.error(Code::BadFormat, &path, format!("`{capability}` is no capability"), "write it as NET_ADMIN, or ALL");
                }
            }
        }
        self.signal(&at.key("stopSignal"), container.stop_signal.as_ref());
        self.signal(&at.key("reloadSignal"), container.reload_signal.as_ref());
        for (name, limit) in &container.ulimits {
            if limit.hard >= 0 && (limit.soft > limit.hard || limit.soft < 0) {
                self.error(Code::OutOfRange, &at.key("ulimits").key(name), "`soft` is above `hard`", "");
            }
        }
    }

    fn host_settings(&mut self, at: &FieldPath, container: &Container) {
        for (host, address) in &container.extra_hosts {
            let path = at.key("extraHosts").key(host);
            if host.is_empty() || !host.split('.').all(word) {
                self.error(Code::BadName, &path, format!("`{host}` is no host name"), "");
            }
            if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
                self.error(Code::BadAddress, &path, format!("`{address}` is no address"), "write an address, or host-gateway");
            }
        }
        for (i, server) in container.dns.iter().enumerate() {
            if server.parse::<IpAddr>().is_err() {
                self.error(
                    Code::BadAddress,
                    &at.key("dns").index(i),
                    format!("`{server}` is no address"),
                    "DNS servers are given by address",
                );
            }
        }
        self.engine_labels(&at.key("labels"), &container.labels);
        if container.logging.as_ref().is_some_and(|logging| logging.driver.is_empty()) {
            self.error(
                Code::BadFormat,
                &at.key("logging").key("driver"),
                "the driver has no name",
                "write json-file, local, journald or none",
            );
        }
    }

    fn update(&mut self, at: &FieldPath, update: &Update, container: &Container) {
        if update.order == Some(UpdateOrder::StartFirst) {
            let path = at.key("order");
            if let Some(port) = container.ports.iter().find_map(|port| port.published) {
                let message = format!("StartFirst needs the host's port {port} twice");
                self.error(Code::StartFirstConflict, &path, message, "use StopFirst, or leave `published` out");
            }
            let is_alone = |mount: &&Mount| mount.tmpfs.is_none() && mount.read_only != Some(true) && mount.shared != Some(true);
            if let Some(mount) = container.volumes.iter().find(is_alone) {
                let message = format!("with StartFirst two containers would write the volume at {}", mount.target);
                self.error(
                    Code::StartFirstConflict,
                    &path,
                    message,
                    "use StopFirst, or mark the volume `shared: true` or `readOnly: true`",
                );
            }
            if container.network_options.values().any(|options| options.ipv4.is_some()) {
                self.error(Code::StartFirstConflict, &path, "StartFirst needs the fixed address twice", "use StopFirst, or remove `ipv4`");
            }
        }
    }

    /// The edges of one service; `has_secrets` says whether it uses secrets that a lease could be of.
    pub(crate) fn edges(&mut self, at: &FieldPath, edges: &[Edge], has_secrets: bool) {
        let mut seen = BTreeSet::new();
        for (i, edge) in edges.iter().enumerate() {
            let at = at.index(i);
            self.edge(&at, edge, has_secrets);
            let name = edge.service.as_ref().or(edge.name.as_ref());
            if name.is_some() && !seen.insert((edge.kind.clone(), edge.namespace.clone(), name)) {
                let message = format!("the dependency `{}` is named twice", name.map_or("", String::as_str));
                self.error(Code::BadCombination, &at, message, "put both into one edge");
            }
        }
    }

    /// What only services in containers can do: everything else is neither stopped nor reloaded, and here is why. An app can be told to
    /// reload a part of it, and says when it has.
    pub(crate) fn edges_without_workload(&mut self, at: &FieldPath, edges: &[Edge], why: &str, can_be_told: bool) {
        for (i, edge) in edges.iter().enumerate() {
            let verbs = [("onUp", edge.on_up), ("onChange", edge.on_change)];
            let reloads =
                verbs.into_iter().filter(|(_, verb)| verb.is_some_and(|v| v != Reload::Ignore) && !can_be_told).map(|(field, _)| field);
            let stops = (edge.on_down == Some(OnDown::Stop)).then_some("onDown");
            for field in reloads.chain(stops) {
                self.error(Code::BadCombination, &at.index(i).key(field), why, "remove the field, or use Block for onDown");
            }
        }
    }

    fn edge(&mut self, at: &FieldPath, edge: &Edge, has_secrets: bool) {
        match (&edge.service, &edge.kind, &edge.name) {
            (Some(_), None, None) => {}
            (None, Some(kind), Some(_)) if kind == crate::kinds::mini_service::KIND => {}
            (None, Some(kind), Some(_)) if kind == crate::kinds::mini_container::KIND => {
                for (field, verb) in [("onUp", edge.on_up), ("onChange", edge.on_change)] {
                    if verb.is_some_and(|verb| verb != Reload::Ignore) {
                        let help = "name the mini services themselves, or remove the field";
                        self.not_supported(&at.key(field), "a reload for a MiniContainer", help);
                    }
                }
            }
            (None, Some(kind), Some(_)) => {
                self.not_supported(
                    &at.key("kind"),
                    &format!("a dependency on the kind `{kind}`"),
                    "depend on a mini service (`service: NAME`), or on a MiniContainer",
                );
            }
            (Some(_), _, _) => {
                let second = if edge.kind.is_some() { "kind" } else { "name" };
                let message = format!("the edge has `service` and `{second}` at the same time");
                self.error(Code::OneOf, &at.key(second), message, "give `service`, or `kind` with `name`");
            }
            _ => self.error(Code::OneOf, at, "the edge does not say on what it depends", "give `service`, or `kind` with `name`"),
        }
        for (field, text) in [("service", &edge.service), ("name", &edge.name), ("namespace", &edge.namespace)] {
            if let Some(text) = text {
                self.form(Code::BadName, &at.key(field), text, names::label_error(text));
            }
        }
        let is_rebuild = edge.on_up == Some(Reload::Rebuild) || edge.on_change == Some(Reload::Rebuild);
        if edge.stage.is_some() && !is_rebuild {
            self.error(
                Code::BadCombination,
                &at.key("stage"),
                "`stage` is for a Rebuild only",
                "set onUp or onChange to Rebuild, or remove `stage`",
            );
        }
        match edge.tolerate {
            Some(Tolerate::Lease) if !has_secrets => {
                let help = "give a duration, or the service a secret from a store";
                self.error(
                    Code::BadCombination,
                    &at.key("tolerate"),
                    "`tolerate: Lease` needs a leased secret, and the service uses none",
                    help,
                );
            }
            Some(Tolerate::Lease) => self.not_in_effect(&at.key("tolerate"), "`tolerate: Lease`"),
            Some(Tolerate::For(_)) | None => {}
        }
        if edge.stage == Some(Stage::Credentials) {
            self.not_in_effect(&at.key("stage"), "fetching secrets, of the stage `Credentials` all but the signal,");
        }
    }
}

fn word(text: &str) -> bool {
    !text.is_empty() && text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// The networks that a container joins: its `networks`, else the implicit one.
pub fn joined_networks(container: &Container) -> Vec<Name> {
    if container.networks.is_empty() { vec![IMPLICIT_NETWORK.into()] } else { container.networks.iter().map(Name::from).collect() }
}

/// The network of a namespace that needs no declaration.
pub const IMPLICIT_NETWORK: &str = "default";
