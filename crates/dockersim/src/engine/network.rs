//! Networks, their addresses, and who is in them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::ops::Bound::{Included, Unbounded};
use std::sync::Arc;

use serde_json::{Value, json};

use super::Engine;
use super::address::{Pool, Subnet};
use super::container::{Attachment, NetworkMode};
use super::event::Kind;
use super::filter::{Filters, name_fits};
use super::reply::{Failure, Reply, Request};
use super::volume::string_map;
use crate::Now;

/// A network.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) id: Arc<str>,
    pub(crate) serial: u64,
    pub(crate) name: Arc<str>,
    pub(crate) created_ns: i64,
    pub(crate) driver: String,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) ipv6: bool,
    pub(crate) options: Value,
    pub(crate) labels: Arc<BTreeMap<String, String>>,
    pub(crate) ipam_options: Value,
    pub(crate) ipam_config: Vec<Value>,
    pub(crate) pool: Option<Pool>,
    pub(crate) gateway: u32,
    pub(crate) subnet_by: SubnetBy,
    /// Containers that run in it, with their endpoints.
    pub(crate) endpoints: BTreeMap<Arc<str>, Arc<str>>,
}

/// Who chose the subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SubnetBy {
    /// Whoever created the network: fixed addresses are possible.
    User,
    /// The engine.
    Engine,
    /// The network is predefined.
    Predefined,
}

/// A container's end of a network while it runs.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    pub(crate) id: Arc<str>,
    /// 0 = the network has no addresses.
    pub(crate) ip: u32,
    pub(crate) prefix: u8,
    pub(crate) gateway: u32,
    pub(crate) mac: String,
}

impl Network {
    pub(crate) fn predefined(&self) -> bool {
        self.subnet_by == SubnetBy::Predefined
    }

    fn json(&self, containers: Value) -> Value {
        json!({
            "Name": &*self.name,
            "Id": &*self.id,
            "Created": super::time::nano(self.created_ns),
            "Scope": "local",
            "Driver": self.driver,
            "EnableIPv6": self.ipv6,
            "IPAM": { "Driver": "default", "Options": self.ipam_options, "Config": self.ipam_config },
            "Internal": self.internal,
            "Attachable": self.attachable,
            "Ingress": false,
            "ConfigFrom": { "Network": "" },
            "ConfigOnly": false,
            "Containers": containers,
            "Options": self.options,
            "Labels": &*self.labels,
        })
    }
}

fn address(ip: u32) -> String {
    if ip == 0 { String::new() } else { Ipv4Addr::from(ip).to_string() }
}

/// An endpoint as inspect shows it.
pub(crate) fn endpoint_json(attachment: &Attachment) -> Value {
    let end = attachment.endpoint.as_ref();
    json!({
        "IPAMConfig": attachment.ipam,
        "Links": attachment.links,
        "Aliases": if attachment.aliases.is_empty() { Value::Null } else { json!(attachment.aliases) },
        "NetworkID": &*attachment.network_id,
        "EndpointID": end.map_or("", |e| &e.id),
        "Gateway": end.map_or_else(String::new, |e| address(e.gateway)),
        "IPAddress": end.map_or_else(String::new, |e| address(e.ip)),
        "IPPrefixLen": end.map_or(0, |e| e.prefix),
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "MacAddress": end.map_or("", |e| e.mac.as_str()),
        "DriverOpts": attachment.driver_opts,
    })
}

/// An attachment from what the client sent.
pub(crate) fn attachment(body: Option<&Value>) -> Attachment {
    let body = body.unwrap_or(&Value::Null);
    let aliases = body.get("Aliases").and_then(Value::as_array).into_iter().flatten();
    let part = |key: &str| body.get(key).filter(|v| !v.is_null()).cloned();
    Attachment {
        ipam: part("IPAMConfig"),
        aliases: aliases.filter_map(Value::as_str).map(str::to_owned).collect(),
        links: part("Links"),
        driver_opts: part("DriverOpts"),
        mac: body.get("MacAddress").and_then(Value::as_str).filter(|m| !m.is_empty()).map(str::to_owned),
        ..Attachment::default()
    }
}

impl Engine {
    pub(crate) fn predefined_networks(&mut self, now: Now) {
        let subnet = self.options.pool.bridge();
        self.next_pool = 1;
        for (name, driver) in [("none", "null"), ("host", "host"), ("bridge", "bridge")] {
            let id = self.hex_id();
            let bridge = name == "bridge";
            let mut pool = bridge.then(|| Pool::new(subnet, None));
            let gateway = pool.as_mut().and_then(Pool::any).unwrap_or(0);
            let options = if bridge {
                json!({
                    "com.docker.network.bridge.default_bridge": "true",
                    "com.docker.network.bridge.enable_icc": "true",
                    "com.docker.network.bridge.enable_ip_masquerade": "true",
                    "com.docker.network.bridge.host_binding_ipv4": "0.0.0.0",
                    "com.docker.network.bridge.name": "docker0",
                    "com.docker.network.driver.mtu": "1500",
                })
            } else {
                json!({})
            };
            let network = Network {
                id,
                serial: 0,
                name: name.into(),
                created_ns: now.wall_ns,
                driver: driver.to_owned(),
                internal: false,
                attachable: false,
                ipv6: false,
                options,
                labels: Arc::default(),
                ipam_options: Value::Null,
                ipam_config: if bridge { vec![json!({ "Subnet": subnet.to_string() })] } else { Vec::new() },
                pool,
                gateway,
                subnet_by: SubnetBy::Predefined,
                endpoints: BTreeMap::new(),
            };
            self.keep_network(network);
        }
    }

    fn keep_network(&mut self, mut network: Network) {
        network.serial = self.count();
        self.network_names.entry(network.name.clone()).or_default().insert(network.id.clone());
        self.network_ages.insert(network.serial, network.id.clone());
        self.networks.insert(network.id.clone(), network);
    }

    /// A network by id, name or beginning of its id.
    pub(crate) fn find_network(&self, reference: &str) -> Result<Arc<str>, Failure> {
        if let Some((id, _)) = self.networks.get_key_value(reference) {
            return Ok(id.clone());
        }
        if let Some(ids) = self.network_names.get(reference) {
            let mut all = ids.iter();
            if let (Some(first), None) = (all.next(), all.next()) {
                return Ok(first.clone());
            }
            let message = format!("network {reference} is ambiguous ({} matches found based on name)", ids.len());
            return Err(Failure::new(400, message));
        }
        let missing = || Failure::new(404, format!("network {reference} not found"));
        if reference.is_empty() {
            return Err(missing());
        }
        let matches: Vec<&Arc<str>> = self
            .networks
            .range::<str, _>((Included(reference), Unbounded))
            .map(|(id, _)| id)
            .take_while(|id| id.starts_with(reference))
            .take(2)
            .collect();
        match matches.as_slice() {
            [] => Err(missing()),
            [one] => Ok((*one).clone()),
            _ => Err(Failure::new(400, format!("network {reference} is ambiguous (2 matches found based on ID prefix)"))),
        }
    }

    pub(crate) fn network_create(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let body = request.json()?;
        let text = |key: &str| body.get(key).and_then(Value::as_str).unwrap_or_default();
        let flag = |key: &str| body.get(key).and_then(Value::as_bool).unwrap_or(false);
        let name = text("Name");
        if matches!(name, "bridge" | "host" | "none") {
            return Err(Failure::new(403, format!("operation is not permitted on predefined {name} network ")));
        }
        if name.trim().is_empty() {
            return Err(Failure::new(500, format!("invalid name: {name}")));
        }
        let same = self.network_names.get(name).and_then(|ids| ids.first()).cloned();
        // From 1.44 on, names are unique in any case.
        if same.is_some() && (flag("CheckDuplicate") || request.api >= (1, 44)) {
            return Err(Failure::new(409, format!("network with name {name} already exists")));
        }
        let ipam = body.get("IPAM").cloned().unwrap_or(Value::Null);
        for driver in [text("Driver"), ipam.get("Driver").and_then(Value::as_str).unwrap_or_default()] {
            if !matches!(driver, "" | "bridge" | "default") && !matches!(driver, "macvlan" | "ipvlan") {
                return Err(match driver {
                    "overlay" => Failure::new(
                        503,
                        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
                         swarm and try again.",
                    ),
                    "host" | "null" => Failure::new(403, format!("only one instance of \"{driver}\" network is allowed")),
                    _ => Failure::new(404, format!("plugin \"{driver}\" not found")),
                });
            }
        }
        let (pool, gateway, subnet_by, config) = self.lay_out(&ipam)?;
        let network = Network {
            id: self.hex_id(),
            serial: 0,
            name: name.into(),
            created_ns: now.wall_ns,
            driver: if text("Driver").is_empty() { "bridge" } else { text("Driver") }.to_owned(),
            internal: flag("Internal"),
            attachable: flag("Attachable"),
            ipv6: flag("EnableIPv6"),
            options: body.get("Options").filter(|o| o.is_object()).cloned().unwrap_or_else(|| json!({})),
            labels: Arc::new(string_map(body.get("Labels"))),
            ipam_options: ipam.get("Options").cloned().unwrap_or(Value::Null),
            ipam_config: vec![config],
            pool: Some(pool),
            gateway,
            subnet_by,
            endpoints: BTreeMap::new(),
        };
        let id = network.id.clone();
        let attributes = vec![("name", network.name.clone()), ("type", network.driver.as_str().into())];
        self.keep_network(network);
        self.emit(now, Kind::Network, "create", &id, Arc::default(), attributes);
        let warning = same.map_or_else(String::new, |other| format!("Network with name {name} (id : {other}) already exists"));
        Ok(Reply::Json { status: 201, body: json!({ "Id": &*id, "Warning": warning }) })
    }

    /// The addresses of a new network.
    fn lay_out(&mut self, ipam: &Value) -> Result<(Pool, u32, SubnetBy, Value), Failure> {
        let config = ipam.get("Config").and_then(Value::as_array).and_then(|c| c.first()).cloned().unwrap_or(Value::Null);
        let text = |key: &str| config.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
        let Some(asked) = text("Subnet") else {
            let subnet = self.free_subnet()?;
            let mut pool = Pool::new(subnet, None);
            let gateway = pool.any().unwrap_or(0);
            let config = json!({ "Subnet": subnet.to_string(), "Gateway": address(gateway) });
            return Ok((pool, gateway, SubnetBy::Engine, config));
        };
        let bad = || Failure::new(500, format!("Invalid subnet {asked} : invalid CIDR address: {asked}"));
        let subnet = Subnet::parse(asked).ok_or_else(bad)?;
        if self.networks.values().filter_map(|n| n.pool.as_ref()).any(|p| p.subnet.overlaps(subnet)) {
            return Err(Failure::new(403, "Pool overlaps with other one on this address space"));
        }
        let range =
            text("IPRange").map(|r| Subnet::parse(r).ok_or_else(|| Failure::new(500, format!("invalid CIDR address: {r}")))).transpose()?;
        let mut pool = Pool::new(subnet, range);
        let gateway = match text("Gateway") {
            None => pool.any().unwrap_or(0),
            Some(gateway) => {
                let ip = gateway.parse::<Ipv4Addr>().ok().map(u32::from).filter(|ip| subnet.has(*ip));
                let out = || Failure::new(500, format!("failed to allocate gateway ({gateway}): Requested address is out of range"));
                let ip = ip.ok_or_else(out)?;
                pool.take(ip);
                ip
            }
        };
        let mut shown = json!({ "Subnet": asked });
        for key in ["IPRange", "Gateway"] {
            if let Some(value) = text(key) {
                shown[key] = json!(value);
            }
        }
        if let Some(aux) = config.get("AuxiliaryAddresses").filter(|a| a.is_object()) {
            shown["AuxiliaryAddresses"] = aux.clone();
            for ip in string_map(Some(aux)).values().filter_map(|a| a.parse::<Ipv4Addr>().ok()) {
                pool.take(u32::from(ip));
            }
        }
        Ok((pool, gateway, SubnetBy::User, shown))
    }

    /// The next subnet that overlaps with none; the daemon goes on from the last one it gave.
    fn free_subnet(&mut self) -> Result<Subnet, Failure> {
        let all = self.options.pool.len();
        for step in 0..all {
            let index = (self.next_pool + step) % all;
            let subnet = self.options.pool.at(index);
            if !self.networks.values().filter_map(|n| n.pool.as_ref()).any(|p| p.subnet.overlaps(subnet)) {
                self.next_pool = (index + 1) % all;
                return Ok(subnet);
            }
        }
        Err(Failure::new(404, "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"))
    }

    pub(crate) fn network_inspect(&self, reference: &str, request: &Request) -> Result<Reply, Failure> {
        if let Some(verbose) = request.get("verbose")
            && !matches!(verbose, "" | "1" | "t" | "T" | "true" | "TRUE" | "True" | "0" | "f" | "F" | "false" | "FALSE" | "False")
        {
            let message = format!("invalid value for verbose: {verbose}: strconv.ParseBool: parsing \"{verbose}\": invalid syntax");
            return Err(Failure::new(400, message));
        }
        if let Some(count) = self.network_names.get(reference).map(|ids| ids.len()).filter(|n| *n > 1) {
            return Err(Failure::new(400, format!("{count} matches found based on name: network {reference} is ambiguous")));
        }
        let network = &self.networks[&self.find_network(reference)?];
        let row = |(id, endpoint): (&Arc<str>, &Arc<str>)| {
            let container = self.containers.get(id)?;
            let end = container.networks.values().filter_map(|a| a.endpoint.as_ref()).find(|e| e.id == *endpoint)?;
            let ip = if end.ip == 0 { String::new() } else { format!("{}/{}", address(end.ip), end.prefix) };
            let row = json!({
                "Name": &*container.name, "EndpointID": &*end.id, "MacAddress": end.mac, "IPv4Address": ip, "IPv6Address": "",
            });
            Some((id.to_string(), row))
        };
        let containers: serde_json::Map<String, Value> = network.endpoints.iter().filter_map(row).collect();
        Ok(Reply::ok(network.json(containers.into())))
    }

    pub(crate) fn network_list(&self, request: &Request) -> Result<Reply, Failure> {
        let known = ["driver", "type", "name", "id", "label", "scope", "dangling"];
        let filters = Filters::parse(request.get("filters"))?.only(&known)?;
        if let Some(bad) = filters.values("type").iter().find(|t| !matches!(t.as_str(), "builtin" | "custom")) {
            return Err(Failure::new(500, format!("invalid filter: 'type'='{bad}'")));
        }
        let dangling = filters.boolean("dangling")?;
        let wanted = |n: &&Network| {
            filters.any_of("name", |v| n.name.contains(v) || name_fits(v, &n.name))
                && filters.any_of("id", |v| n.id.starts_with(v))
                && filters.any_of("driver", |v| n.driver == v)
                && filters.any_of("scope", |v| v == "local")
                && filters.any_of("type", |v| (v == "builtin") == n.predefined())
                && filters.labels(&n.labels)
                && // The daemon looks at containers later: all that could be unused counts as unused.
                dangling.is_none_or(|d| d != n.predefined())
        };
        let rows = self.network_ages.values().filter_map(|id| self.networks.get(id)).filter(wanted).map(|n| n.json(json!({})));
        Ok(Reply::ok(rows.collect::<Vec<_>>().into()))
    }

    pub(crate) fn network_remove(&mut self, reference: &str, now: Now) -> Result<Reply, Failure> {
        let id = self.find_network(reference)?;
        let network = &self.networks[&id];
        if network.predefined() {
            return Err(Failure::new(403, format!("{} is a pre-defined network and cannot be removed", network.name)));
        }
        if !network.endpoints.is_empty() {
            let message = format!("error while removing network: network {} id {id} has active endpoints", network.name);
            return Err(Failure::new(403, message));
        }
        self.drop_network(&id, now);
        Ok(Reply::Empty { status: 204 })
    }

    fn drop_network(&mut self, id: &Arc<str>, now: Now) {
        let Some(network) = self.networks.remove(id) else { return };
        self.network_ages.remove(&network.serial);
        if let Some(ids) = self.network_names.get_mut(&network.name) {
            ids.remove(id);
            if ids.is_empty() {
                self.network_names.remove(&network.name);
            }
        }
        let attributes = vec![("name", network.name), ("type", network.driver.as_str().into())];
        self.emit(now, Kind::Network, "destroy", id, Arc::default(), attributes);
    }

    pub(crate) fn network_prune(&mut self, request: &Request, now: Now) -> Result<Reply, Failure> {
        let filters = Filters::parse(request.get("filters"))?.only(&["label", "label!", "until"])?;
        let unused = |n: &&Network| !n.predefined() && n.endpoints.is_empty() && filters.labels(&n.labels);
        let gone: Vec<(Arc<str>, Arc<str>)> = self.networks.values().filter(unused).map(|n| (n.id.clone(), n.name.clone())).collect();
        for (id, _) in &gone {
            self.drop_network(id, now);
        }
        let names: Vec<&str> = gone.iter().map(|(_, name)| &**name).collect();
        Ok(Reply::ok(json!({ "NetworksDeleted": if names.is_empty() { Value::Null } else { json!(names) } })))
    }

    pub(crate) fn network_connect(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let body = request.json()?;
        let id = self.find(body.get("Container").and_then(Value::as_str).unwrap_or_default())?;
        let network_id = match self.find_network(reference) {
            Ok(network) => network,
            // It is written down and looked for when the container starts.
            Err(_) if !self.containers[&id].phase.lives() => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.networks.insert(reference.into(), Box::new(attachment(body.get("EndpointConfig"))));
                }
                self.changed();
                return Ok(Reply::Empty { status: 200 });
            }
            Err(missing) => return Err(missing),
        };
        let network = &self.networks[&network_id];
        let container = &self.containers[&id];
        let name = network.name.clone();
        let wanted = attachment(body.get("EndpointConfig"));
        let alone = |driver: &str| matches!(driver, "host" | "null");
        match &container.mode {
            NetworkMode::Container(_) => {
                return Err(Failure::new(
                    400,
                    "container sharing network namespace with another container or host cannot be connected to any other network",
                ));
            }
            NetworkMode::None => return Err(Failure::new(400, private_mode())),
            NetworkMode::Host => {
                return Err(Failure::new(
                    400,
                    "container sharing network namespace with another container or host cannot be connected to any other network",
                ));
            }
            NetworkMode::Named(_) if network.driver == "null" && !container.networks.is_empty() => {
                return Err(Failure::new(400, private_mode()));
            }
            NetworkMode::Named(_) if alone(&network.driver) => {
                return Err(Failure::new(400, "container cannot be disconnected from host network or connected to host network"));
            }
            NetworkMode::Named(_) => {}
        }
        self.check_address(&network_id, &wanted)?;
        let container = &self.containers[&id];
        if container.phase.lives() && container.networks.get(&name).is_some_and(|a| a.endpoint.is_some()) {
            let message = format!("endpoint with name {} already exists in network {name}", container.name);
            return Err(Failure::new(403, message));
        }
        let mut wanted = wanted;
        // Nothing said about the endpoint: what was said before stays.
        if body.get("EndpointConfig").is_none_or(Value::is_null)
            && let Some(before) = container.networks.get(&name)
        {
            wanted = (**before).clone();
        }
        if !network.predefined() {
            let short = container.short_id().to_owned();
            if !wanted.aliases.contains(&short) {
                wanted.aliases.push(short);
            }
        }
        let joined = if container.phase.lives() { self.join(&id, &name, &network_id, &mut wanted, now) } else { Ok(()) };
        // Even where the network refused, the daemon remembers what was asked for.
        if let Some(container) = self.containers.get_mut(&id) {
            container.networks.insert(name, Box::new(wanted));
        }
        self.changed();
        joined?;
        Ok(Reply::Empty { status: 200 })
    }

    /// Whether a wished address can be had at all in that network.
    pub(crate) fn check_address(&self, network: &str, wanted: &Attachment) -> Result<(), Failure> {
        let Some(network) = self.networks.get(network) else { return Ok(()) };
        match wanted.fixed_ip() {
            Some(_) if network.subnet_by != SubnetBy::User => Err(Failure::new(
                400,
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            )),
            Some(ip) if ip.parse::<Ipv4Addr>().is_err() => Err(Failure::new(400, format!("invalid IPv4 address: {ip}"))),
            _ if network.predefined() && !wanted.aliases.is_empty() => {
                Err(Failure::new(400, "network-scoped alias is supported only for containers in user defined networks"))
            }
            _ => Ok(()),
        }
    }

    /// Gives a container an endpoint in a network, and says so.
    pub(crate) fn join(
        &mut self,
        id: &Arc<str>,
        name: &Arc<str>,
        network_id: &Arc<str>,
        attachment: &mut Attachment,
        now: Now,
    ) -> Result<(), Failure> {
        let endpoint_id = self.hex_id();
        let Some(network) = self.networks.get_mut(network_id) else {
            return Err(Failure::new(404, format!("network {name} not found")));
        };
        let (mut ip, mut prefix) = (0, 0);
        if let Some(pool) = network.pool.as_mut() {
            ip = match attachment.fixed_ip().and_then(|ip| ip.parse::<Ipv4Addr>().ok()).map(u32::from) {
                Some(ip) if !pool.subnet.has(ip) => {
                    return Err(Failure::new(
                        500,
                        format!("Invalid address {}: It does not belong to any of this network's subnets", address(ip)),
                    ));
                }
                Some(ip) if !pool.take(ip) => return Err(Failure::new(403, "Address already in use")),
                Some(ip) => ip,
                None => {
                    let message = format!("no available IPv4 addresses on this network's address pools: {} ({network_id})", network.name);
                    pool.any().ok_or_else(|| Failure::new(500, message))?
                }
            };
            prefix = pool.subnet.prefix;
        }
        let gateway = if ip == 0 || network.internal && network.gateway == 0 { 0 } else { network.gateway };
        let [a, b, c, d] = ip.to_be_bytes();
        let mac = match &attachment.mac {
            Some(mac) => mac.clone(),
            None if ip == 0 => String::new(),
            None => format!("02:42:{a:02x}:{b:02x}:{c:02x}:{d:02x}"),
        };
        network.endpoints.insert(id.clone(), endpoint_id.clone());
        let attributes = vec![("container", id.clone()), ("name", network.name.clone()), ("type", network.driver.as_str().into())];
        attachment.network_id = network_id.clone();
        attachment.endpoint = Some(Endpoint { id: endpoint_id, ip, prefix, gateway, mac });
        if ip != 0 {
            self.addresses.insert(ip, id.clone());
        }
        self.emit(now, Kind::Network, "connect", network_id, Arc::default(), attributes);
        Ok(())
    }

    /// Takes the endpoint back.
    pub(crate) fn leave(&mut self, id: &Arc<str>, attachment: &mut Attachment, now: Now) {
        let Some(endpoint) = attachment.endpoint.take() else { return };
        self.addresses.remove(&endpoint.ip);
        let Some(network) = self.networks.get_mut(&attachment.network_id) else { return };
        network.endpoints.remove(id);
        if let Some(pool) = network.pool.as_mut() {
            pool.free(endpoint.ip);
        }
        let attributes = vec![("container", id.clone()), ("name", network.name.clone()), ("type", network.driver.as_str().into())];
        let network_id = network.id.clone();
        self.emit(now, Kind::Network, "disconnect", &network_id, Arc::default(), attributes);
    }

    pub(crate) fn network_disconnect(&mut self, reference: &str, request: &Request, now: Now) -> Result<Reply, Failure> {
        let body = request.json()?;
        let asked = body.get("Container").and_then(Value::as_str).unwrap_or_default();
        let force = body.get("Force").and_then(Value::as_bool).unwrap_or(false);
        let found = self.find_network(reference);
        let id = match self.find(asked) {
            Ok(id) => id,
            Err(_) if force => return Err(found.err().unwrap_or_else(|| Failure::new(404, format!("endpoint {asked} not found")))),
            Err(missing) => return Err(missing),
        };
        let container = &self.containers[&id];
        let remembered = !container.phase.lives() || (force && found.is_err());
        if remembered {
            let name: Arc<str> = found.as_ref().map_or_else(|_| reference.into(), |n| self.networks[n].name.clone());
            let taken = self.containers.get_mut(&id).and_then(|c| c.networks.remove(&name));
            let not_in = || Failure::new(500, format!("container {id} is not connected to the network {name}"));
            let mut attachment = taken.ok_or_else(not_in)?;
            self.leave(&id, &mut attachment, now);
        } else {
            let network = found.clone()?;
            let name = self.networks[&network].name.clone();
            if container.mode == NetworkMode::Host && &*name == "host" {
                return Err(Failure::new(400, "container cannot be disconnected from host network or connected to host network"));
            }
            let not_in = || Failure::new(500, format!("container {id} is not connected to network {name}"));
            // Attached by name or by id.
            let key = [&name, &network].into_iter().find(|k| container.networks.contains_key(*k)).cloned().ok_or_else(not_in)?;
            let taken = self.containers.get_mut(&id).and_then(|c| c.networks.remove(&key));
            self.leave(&id, &mut *taken.ok_or_else(not_in)?, now);
        }
        // Said once more: the daemon has two places that say it.
        if let Ok(network) = found {
            self.network_event(&network, "disconnect", Some(&id), now);
        }
        self.changed();
        Ok(Reply::Empty { status: 200 })
    }

    fn network_event(&mut self, id: &Arc<str>, action: &str, container: Option<&Arc<str>>, now: Now) {
        let Some(network) = self.networks.get(id) else { return };
        let mut attributes: Vec<(&'static str, Arc<str>)> = container.map(|c| ("container", c.clone())).into_iter().collect();
        attributes.extend([("name", network.name.clone()), ("type", network.driver.as_str().into())]);
        self.emit(now, Kind::Network, action, id, Arc::default(), attributes);
    }
}

fn private_mode() -> &'static str {
    "container cannot be connected to multiple networks with one of the networks in private (none) mode"
}
