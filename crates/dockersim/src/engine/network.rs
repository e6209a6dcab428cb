//! Networks and the addresses in them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use serde_json::{Value, json};

use super::event::{Event, Kind};
use super::filter::{Filters, name_fits};
use super::reply::{Failure, Reply, Request};
use super::{AddressPool, Engine, text, text_list, text_map, time};
use crate::Now;

/// A network.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) id: Arc<str>,
    pub(crate) name: String,
    pub(crate) created_ns: i64,
    pub(crate) order: u64,
    pub(crate) driver: String,
    internal: bool,
    attachable: bool,
    labels: Arc<BTreeMap<String, String>>,
    options: BTreeMap<String, String>,
    /// `IPAM.Config` as it is shown.
    ipam: Vec<Value>,
    ipam_options: Value,
    subnet: Option<Subnet>,
    /// The subnet was asked for.
    configured: bool,
    used: BTreeSet<u32>,
    /// Below this one all are taken.
    free_from: u32,
    /// Containers that run in it.
    members: BTreeSet<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subnet {
    base: u32,
    prefix: u8,
    gateway: u32,
}

impl Subnet {
    fn parse(text: &str) -> Option<(u32, u8)> {
        let (address, prefix) = text.split_once('/')?;
        let (address, prefix) = (u32::from(address.parse::<Ipv4Addr>().ok()?), prefix.parse::<u8>().ok()?);
        (prefix <= 32).then(|| (address & mask(prefix), prefix))
    }

    fn contains(&self, address: u32) -> bool {
        address & mask(self.prefix) == self.base
    }

    fn overlaps(&self, base: u32, prefix: u8) -> bool {
        let prefix = self.prefix.min(prefix);
        self.base & mask(prefix) == base & mask(prefix)
    }

    fn last(&self) -> u32 {
        self.base | !mask(self.prefix)
    }
}

fn mask(prefix: u8) -> u32 {
    if prefix == 0 { 0 } else { u32::MAX << (32 - prefix) }
}

/// A container's end of a network.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoint {
    pub(crate) network_id: String,
    pub(crate) endpoint_id: String,
    pub(crate) ip: Option<Ipv4Addr>,
    pub(crate) gateway: String,
    pub(crate) prefix: u8,
    pub(crate) aliases: Vec<String>,
    pub(crate) ipam: Value,
    pub(crate) links: Value,
    /// The container's short id is one of the aliases.
    pub(crate) has_short_id: bool,
}

impl Endpoint {
    pub(crate) fn from_given(given: &Value) -> Self {
        Self {
            aliases: text_list(&given["Aliases"]),
            ipam: given["IPAMConfig"].as_object().filter(|o| !o.is_empty()).map_or(Value::Null, |o| json!(o)),
            links: given["Links"].clone(),
            ..Self::default()
        }
    }

    pub(crate) fn show(&self, id: &str, on_default_bridge: bool) -> Value {
        let mut aliases = self.aliases.clone();
        if self.has_short_id && !on_default_bridge {
            aliases.push(id[..12.min(id.len())].to_owned());
        }
        json!({
            "IPAMConfig": self.ipam,
            "Links": self.links,
            "Aliases": if aliases.is_empty() { Value::Null } else { json!(aliases) },
            "NetworkID": self.network_id,
            "EndpointID": self.endpoint_id,
            "Gateway": self.gateway,
            "IPAddress": self.ip.map(|ip| ip.to_string()).unwrap_or_default(),
            "IPPrefixLen": self.prefix,
            "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0,
            "MacAddress": self.ip.map(mac).unwrap_or_default(),
            "DriverOpts": null,
        })
    }
}

pub(crate) fn mac(ip: Ipv4Addr) -> String {
    let o = ip.octets();
    format!("02:42:{:02x}:{:02x}:{:02x}:{:02x}", o[0], o[1], o[2], o[3])
}

impl Network {
    pub(crate) fn is_predefined(&self) -> bool {
        matches!(self.name.as_str(), "bridge" | "host" | "none")
    }

    fn event(&self, action: &str, now: Now, container: Option<&str>) -> Event {
        let mut attributes: Vec<(&'static str, Arc<str>)> =
            vec![("name", self.name.as_str().into()), ("type", self.driver.as_str().into())];
        attributes.extend(container.map(|c| ("container", Arc::from(c))));
        Event {
            seq: 0,
            time_ns: now.wall_ns,
            kind: Kind::Network,
            action: action.into(),
            actor: self.id.clone(),
            labels: Arc::default(),
            attributes,
        }
    }

    fn show(&self, members: Value) -> Value {
        json!({
            "Name": self.name, "Id": &*self.id, "Created": time::nano(self.created_ns), "Scope": "local", "Driver": self.driver,
            "EnableIPv6": false,
            "IPAM": { "Driver": "default", "Options": self.ipam_options, "Config": self.ipam },
            "Internal": self.internal, "Attachable": self.attachable, "Ingress": false,
            "ConfigFrom": { "Network": "" }, "ConfigOnly": false,
            "Containers": members, "Options": self.options, "Labels": *self.labels,
        })
    }

    /// The lowest free address, or the asked one.
    fn allocate(&mut self, asked: Option<Ipv4Addr>) -> Result<Option<Ipv4Addr>, Failure> {
        let Some(subnet) = self.subnet else { return Ok(None) };
        if let Some(asked) = asked {
            let number = u32::from(asked);
            if !subnet.contains(number) {
                return Err(Failure::new(
                    400,
                    "Invalid address ".to_owned() + &asked.to_string() + ": It does not belong to any of this network's subnets",
                ));
            }
            if number == subnet.gateway || !self.used.insert(number) {
                return Err(Failure::new(403, "Address already in use"));
            }
            return Ok(Some(asked));
        }
        let mut candidate = self.free_from.max(subnet.base + 1);
        while candidate == subnet.gateway || self.used.contains(&candidate) {
            candidate += 1;
        }
        if candidate >= subnet.last() {
            return Err(Failure::new(
                500,
                "no available IPv4 addresses on this network's address pools: ".to_owned() + &self.name + " (" + &self.id + ")",
            ));
        }
        self.used.insert(candidate);
        self.free_from = candidate + 1;
        Ok(Some(candidate.into()))
    }

    fn release(&mut self, ip: Ipv4Addr) {
        let number = u32::from(ip);
        self.used.remove(&number);
        self.free_from = self.free_from.min(number);
    }
}

impl Engine {
    pub(super) fn provide_networks(&mut self, now: Now) {
        for (name, driver) in [("none", "null"), ("host", "host"), ("bridge", "bridge")] {
            let subnet = (name == "bridge").then(|| self.free_subnet());
            let options: BTreeMap<String, String> = match name {
                "bridge" => [
                    ("default_bridge", "true"),
                    ("enable_icc", "true"),
                    ("enable_ip_masquerade", "true"),
                    ("host_binding_ipv4", "0.0.0.0"),
                    ("name", "docker0"),
                ]
                .iter()
                .map(|(k, v)| (format!("com.docker.network.bridge.{k}"), (*v).to_owned()))
                .chain([("com.docker.network.driver.mtu".to_owned(), "1500".to_owned())])
                .collect(),
                _ => BTreeMap::new(),
            };
            let ipam = subnet.iter().map(|(base, prefix)| json!({ "Subnet": format!("{}/{prefix}", Ipv4Addr::from(*base)) })).collect();
            let network = Network {
                id: self.fresh_id(),
                name: name.to_owned(),
                created_ns: now.wall_ns,
                order: self.next_order(),
                driver: driver.to_owned(),
                internal: false,
                attachable: false,
                labels: Arc::default(),
                options,
                ipam,
                ipam_options: Value::Null,
                subnet: subnet.map(|(base, prefix)| Subnet { base, prefix, gateway: base + 1 }),
                configured: false,
                used: BTreeSet::new(),
                free_from: 0,
                members: BTreeSet::new(),
            };
            self.networks.insert(network.id.clone(), network);
        }
    }

    pub(super) fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// The next pool that overlaps with none.
    fn free_subnet(&self) -> (u32, u8) {
        let wide = |a: u8, b: u8| (u32::from(Ipv4Addr::new(a, b, 0, 0)), 16_u8);
        let pools: Vec<(u32, u8)> = match self.options.pool {
            AddressPool::Bridge => (17..32)
                .map(|b| wide(172, b))
                .chain((0..16).map(|c| (u32::from(Ipv4Addr::new(192, 168, c * 16, 0)), 20)))
                .chain((0..=255).map(|b| wide(10, b)))
                .collect(),
            AddressPool::Loopback => (16..=255).map(|b| wide(127, b)).collect(),
        };
        let is_free = |(base, prefix): &(u32, u8)| self.networks.values().filter_map(|n| n.subnet).all(|s| !s.overlaps(*base, *prefix));
        pools.into_iter().find(is_free).unwrap_or_else(|| wide(100, 64))
    }

    /// A network by id, name, or the beginning of its id.
    pub(super) fn find_network(&self, reference: &str) -> Result<Arc<str>, Failure> {
        if let Some((id, _)) = self.networks.get_key_value(reference) {
            return Ok(id.clone());
        }
        let named: Vec<&Network> = self.networks.values().filter(|n| n.name == reference).collect();
        match named.as_slice() {
            [one] => return Ok(one.id.clone()),
            [] => {}
            many => return Err(Failure::new(400, format!("{} matches found based on name: network {reference} is ambiguous", many.len()))),
        }
        let mut fits = self.networks.keys().filter(|id| !reference.is_empty() && id.starts_with(reference));
        match (fits.next(), fits.next()) {
            (Some(id), None) => Ok(id.clone()),
            (Some(_), Some(_)) => Err(Failure::new(400, format!("network {reference} is ambiguous"))),
            (None, _) => Err(Failure::new(404, format!("network {reference} not found"))),
        }
    }

    pub(super) fn networks_request(&mut self, request: &Request, parts: &[&str], now: Now) -> Result<Reply, Failure> {
        match (request.method.as_str(), parts) {
            ("GET", []) => self.list_networks(request),
            ("POST", ["create"]) => self.create_network(&request.json()?, now),
            ("POST", ["prune"]) => Ok(self.prune_networks(now)),
            ("GET", [reference]) => {
                if let Some(value) = request.get("verbose").filter(|v| !matches!(*v, "1" | "0" | "true" | "false")) {
                    return Err(Failure::new(
                        400,
                        format!("invalid value for verbose: {value}: strconv.ParseBool: parsing \"{value}\": invalid syntax"),
                    ));
                }
                let id = self.find_network(reference)?;
                Ok(Reply::ok(self.show_network(&id, true)))
            }
            ("DELETE", [reference]) => self.remove_network(reference, now),
            ("POST", [reference, "connect"]) => self.connect(reference, &request.json()?, now),
            ("POST", [reference, "disconnect"]) => self.disconnect(reference, &request.json()?, now),
            _ => Err(Failure::new(404, "page not found")),
        }
    }

    fn show_network(&self, id: &str, with_members: bool) -> Value {
        let network = &self.networks[id];
        let member = |id: &Arc<str>| {
            let container = self.containers.get(id)?;
            let endpoint = container.endpoints.values().find(|e| e.network_id == *network.id)?;
            let address = endpoint.ip.map(|ip| format!("{ip}/{}", endpoint.prefix)).unwrap_or_default();
            Some((
                id.to_string(),
                json!({
                    "Name": container.name, "EndpointID": endpoint.endpoint_id, "MacAddress": endpoint.ip.map(mac).unwrap_or_default(),
                    "IPv4Address": address, "IPv6Address": "",
                }),
            ))
        };
        let members: serde_json::Map<String, Value> =
            if with_members { network.members.iter().filter_map(member).collect() } else { serde_json::Map::new() };
        network.show(Value::Object(members))
    }

    fn list_networks(&self, request: &Request) -> Result<Reply, Failure> {
        let filters = Filters::parse(request.get("filters"))?.only(&["dangling", "driver", "id", "label", "name", "scope", "type"])?;
        if let Some(odd) = filters.values("type").iter().find(|t| !matches!(t.as_str(), "custom" | "builtin")) {
            return Err(Failure::new(500, format!("invalid filter: 'type'='{odd}'")));
        }
        let dangling = filters.boolean("dangling")?;
        let mut list: Vec<&Network> = self
            .networks
            .values()
            .filter(|n| {
                filters.any_of("driver", |d| d == n.driver)
                    && filters.any_of("id", |i| n.id.starts_with(i))
                    && filters.any_of("name", |p| name_fits(p, &n.name))
                    && filters.any_of("scope", |s| s == "local")
                    && filters.any_of("type", |t| (t == "builtin") == n.is_predefined())
                    && filters.labels(&n.labels)
                    && dangling.is_none_or(|wanted| wanted == (n.members.is_empty() && !n.is_predefined()))
            })
            .collect();
        list.sort_by_key(|n| n.order);
        Ok(Reply::ok(list.iter().map(|n| self.show_network(&n.id, false)).collect()))
    }

    fn create_network(&mut self, body: &Value, now: Now) -> Result<Reply, Failure> {
        let name = text(&body["Name"]).to_owned();
        let twins: Vec<Arc<str>> = self.networks.values().filter(|n| n.name == name).map(|n| n.id.clone()).collect();
        if matches!(name.as_str(), "bridge" | "host" | "none") {
            return Err(Failure::new(403, format!("operation is not permitted on predefined {name} network ")));
        }
        if !twins.is_empty() && body["CheckDuplicate"].as_bool() == Some(true) {
            return Err(Failure::new(409, format!("network with name {name} already exists")));
        }
        let driver = match text(&body["Driver"]) {
            "" => "bridge",
            driver => driver,
        };
        if !matches!(driver, "bridge" | "macvlan" | "ipvlan") {
            return Err(match driver {
                "overlay" => super::system::no_swarm(&["networks"]),
                "host" | "null" => Failure::new(403, format!("only one instance of \"{driver}\" network is allowed")),
                _ => Failure::new(404, format!("plugin \"{driver}\" not found")),
            });
        }
        let ipam_driver = text(&body["IPAM"]["Driver"]);
        if !matches!(ipam_driver, "" | "default") {
            return Err(Failure::new(404, format!("plugin \"{ipam_driver}\" not found")));
        }
        if name.trim().is_empty() {
            return Err(Failure::new(500, format!("invalid name: {name}")));
        }
        let asked = &body["IPAM"]["Config"][0];
        let configured = asked["Subnet"].is_string();
        let (base, prefix) = match text(&asked["Subnet"]) {
            "" => self.free_subnet(),
            subnet => Subnet::parse(subnet)
                .ok_or_else(|| Failure::new(500, format!("Invalid subnet {subnet} : invalid CIDR address: {subnet}")))?,
        };
        if self.networks.values().filter_map(|n| n.subnet).any(|s| s.overlaps(base, prefix)) {
            return Err(Failure::new(403, "Pool overlaps with other one on this address space"));
        }
        let gateway = match text(&asked["Gateway"]) {
            "" => base + 1,
            gateway => gateway.parse::<Ipv4Addr>().map(u32::from).map_err(|_| Failure::new(400, format!("invalid gateway: {gateway}")))?,
        };
        let subnet = Subnet { base, prefix, gateway };
        if !subnet.contains(gateway) {
            let gateway = Ipv4Addr::from(gateway);
            return Err(Failure::new(500, format!("failed to allocate gateway ({gateway}): Requested address is out of range")));
        }
        let mut shown = json!({ "Subnet": format!("{}/{prefix}", Ipv4Addr::from(base)) });
        if let Some(range) = asked["IPRange"].as_str().filter(|r| !r.is_empty()) {
            shown["IPRange"] = range.into();
        }
        if !configured || asked["Gateway"].is_string() {
            shown["Gateway"] = Ipv4Addr::from(gateway).to_string().into();
        }
        let range = asked["IPRange"].as_str().and_then(Subnet::parse).map_or(0, |(first, _)| first);
        self.changed();
        let network = Network {
            id: self.fresh_id(),
            name: name.clone(),
            created_ns: now.wall_ns,
            order: self.next_order(),
            driver: driver.to_owned(),
            internal: body["Internal"].as_bool().unwrap_or(false),
            attachable: body["Attachable"].as_bool().unwrap_or(false),
            labels: Arc::new(text_map(&body["Labels"])),
            options: text_map(&body["Options"]),
            ipam: vec![shown],
            ipam_options: body["IPAM"]["Options"].clone(),
            subnet: Some(subnet),
            configured,
            used: BTreeSet::new(),
            free_from: range,
            members: BTreeSet::new(),
        };
        let id = network.id.clone();
        self.events.push(network.event("create", now, None));
        self.networks.insert(id.clone(), network);
        let warning = twins.first().map(|twin| format!("Network with name {name} (id : {twin}) already exists")).unwrap_or_default();
        Ok(Reply::created(json!({ "Id": &*id, "Warning": warning })))
    }

    fn remove_network(&mut self, reference: &str, now: Now) -> Result<Reply, Failure> {
        let id = self.find_network(reference).map_err(|f| match f.message.strip_suffix("is ambiguous") {
            Some(_) if f.status == 400 => {
                let count = self.networks.values().filter(|n| n.name == reference).count();
                Failure::new(400, format!("network {reference} is ambiguous ({count} matches found based on name)"))
            }
            _ => f,
        })?;
        let network = &self.networks[&id];
        if network.is_predefined() {
            return Err(Failure::new(403, format!("{} is a pre-defined network and cannot be removed", network.name)));
        }
        if !network.members.is_empty() {
            let message = format!("error while removing network: network {} id {id} has active endpoints", network.name);
            return Err(Failure::new(403, message));
        }
        let event = network.event("destroy", now, None);
        self.changed();
        self.events.push(event);
        self.networks.remove(&id);
        Ok(Reply::empty(204))
    }

    fn prune_networks(&mut self, now: Now) -> Reply {
        let idle = |n: &&Network| {
            !n.is_predefined() && n.members.is_empty() && !self.containers.values().any(|c| c.endpoints.contains_key(&n.name))
        };
        let unused: Vec<(Arc<str>, String)> = self.networks.values().filter(idle).map(|n| (n.id.clone(), n.name.clone())).collect();
        for (id, _) in &unused {
            if let Some(network) = self.networks.remove(id) {
                self.events.push(network.event("destroy", now, None));
                self.changed();
            }
        }
        let names: Vec<&String> = unused.iter().map(|(_, name)| name).collect();
        Reply::ok(json!({ "NetworksDeleted": if names.is_empty() { Value::Null } else { json!(names) } }))
    }

    fn connect(&mut self, reference: &str, body: &Value, now: Now) -> Result<Reply, Failure> {
        let network_id = self.find_network(reference)?;
        let id = self.find_container(text(&body["Container"]))?;
        let network = &self.networks[&network_id];
        let (name, driver) = (network.name.clone(), network.driver.clone());
        let is_alone = |mode: &str| mode == "none" || mode == "host";
        let modes: Vec<String> = self.at(&id).endpoints.keys().cloned().collect();
        if is_alone(&name) || modes.iter().any(|m| is_alone(m)) {
            let kind = if name == "host" || modes.iter().any(|m| m == "host") { "host" } else { "private (none)" };
            let message = match kind {
                "host" => "container cannot be disconnected from host network or connected to host network".to_owned(),
                kind => format!("container cannot be connected to multiple networks with one of the networks in {kind} mode"),
            };
            return Err(Failure::new(if kind == "host" { 403 } else { 400 }, message));
        }
        let mut endpoint = Endpoint::from_given(&body["EndpointConfig"]);
        endpoint.has_short_id = true;
        let fixed = text(&endpoint.ipam["IPv4Address"]).to_owned();
        let up = self.is_up(&id);
        if up && self.at(&id).endpoints.get(&name).is_some_and(|e| e.network_id == *network_id) {
            let container = self.at(&id).name.clone();
            return Err(Failure::new(403, format!("endpoint with name {container} already exists in network {name}")));
        }
        if !fixed.is_empty() && !self.networks[&network_id].configured {
            return Err(Failure::new(
                400,
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            ));
        }
        self.changed();
        self.at(&id).endpoints.insert(name.clone(), endpoint);
        if up {
            if let Err(failure) = self.join(&id, &name, now) {
                self.at(&id).endpoints.remove(&name);
                return Err(failure);
            }
        } else {
            let _ = driver;
        }
        Ok(Reply::empty(200))
    }

    fn disconnect(&mut self, reference: &str, body: &Value, now: Now) -> Result<Reply, Failure> {
        let who = text(&body["Container"]);
        let force = body["Force"].as_bool().unwrap_or(false);
        let network_id = match self.find_network(reference) {
            Ok(id) => Some(id),
            // A network that is gone can still be taken off a container, by the name that the container knows.
            Err(failure) => {
                let id = self.find_container(who).map_err(|_| failure.clone())?;
                if force && self.at(&id).endpoints.contains_key(reference) { None } else { return Err(failure) }
            }
        };
        let id = match self.find_container(who) {
            Ok(id) => id,
            Err(_) if force => return Err(Failure::new(404, format!("endpoint {who} not found"))),
            Err(failure) => return Err(failure),
        };
        let name = network_id.as_ref().map_or_else(|| reference.to_owned(), |n| self.networks[n].name.clone());
        if name == "host" {
            return Err(Failure::new(403, "container cannot be disconnected from host network or connected to host network"));
        }
        if !self.at(&id).endpoints.contains_key(&name) {
            return Err(Failure::new(500, format!("container {id} is not connected to network {name}")));
        }
        self.changed();
        if self.is_up(&id) {
            self.leave(&id, &name, Some(now));
        }
        self.at(&id).endpoints.remove(&name);
        Ok(Reply::empty(200))
    }

    /// A starting container joins its networks.
    pub(super) fn join_networks(&mut self, id: &Arc<str>, now: Now) -> Result<(), Failure> {
        let names: Vec<String> = self.at(id).endpoints.keys().cloned().collect();
        for name in &names {
            self.join(id, name, now)?;
        }
        self.publish(id)
    }

    fn join(&mut self, id: &Arc<str>, name: &str, now: Now) -> Result<(), Failure> {
        let network_id = self.find_network(name)?;
        let endpoint_id = self.fresh_id().to_string();
        let asked = text(&self.at(id).endpoints[name].ipam["IPv4Address"]).to_owned();
        let network = self.networks.get_mut(&network_id).expect("it was just found");
        if !asked.is_empty() && !network.configured {
            return Err(Failure::new(
                400,
                "user specified IP address is supported only when connecting to networks with user configured subnets",
            ));
        }
        let ip = network.allocate(asked.parse().ok())?;
        network.members.insert(id.clone());
        let (gateway, prefix) = network.subnet.map_or((String::new(), 0), |s| (Ipv4Addr::from(s.gateway).to_string(), s.prefix));
        let gateway = if network.internal { String::new() } else { gateway };
        let event = network.event("connect", now, Some(id));
        if let Some(ip) = ip {
            self.addresses.insert(ip, id.clone());
        }
        let endpoint = self.at(id).endpoints.get_mut(name).expect("its name was just listed");
        endpoint.network_id = network_id.to_string();
        endpoint.endpoint_id = endpoint_id;
        (endpoint.ip, endpoint.gateway, endpoint.prefix) = (ip, gateway, prefix);
        endpoint.has_short_id = true;
        self.events.push(event);
        Ok(())
    }

    fn publish(&mut self, id: &Arc<str>) -> Result<(), Failure> {
        let container = self.at(id);
        let bindings: Vec<(String, String, String)> = container.host["PortBindings"]
            .as_object()
            .into_iter()
            .flatten()
            .flat_map(|(port, list)| {
                list.as_array()
                    .into_iter()
                    .flatten()
                    .map(|b| (port.clone(), text(&b["HostIp"]).to_owned(), text(&b["HostPort"]).to_owned()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let name = container.name.clone();
        let endpoint_id = container.endpoints.values().next().map(|e| e.endpoint_id.clone()).unwrap_or_default();
        let mut published = Vec::new();
        for (port, ip, wanted) in bindings {
            let ip = if ip.is_empty() { "0.0.0.0".to_owned() } else { ip };
            let host_port = match wanted.split('-').next().unwrap_or_default().parse::<u16>() {
                Ok(0) | Err(_) => self.ephemeral_port(),
                Ok(port) => port,
            };
            // Another protocol is another port.
            let key_ip = if port.ends_with("/udp") { format!("udp:{ip}") } else { ip.clone() };
            let any = if port.ends_with("/udp") { "udp:0.0.0.0" } else { "0.0.0.0" };
            let is_taken = self.ports.keys().any(|(p, i)| {
                *p == host_port && (*i == key_ip || i == any || (key_ip == any && i.starts_with("udp:") == any.starts_with("udp:")))
            });
            if is_taken {
                self.at(id).published = published;
                return Err(Failure::new(
                    500,
                    format!(
                        "driver failed programming external connectivity on endpoint {name} ({endpoint_id}): Bind for {ip}:{host_port} failed: port is already allocated"
                    ),
                ));
            }
            self.ports.insert((host_port, key_ip), id.clone());
            published.push((port, ip, host_port));
        }
        self.at(id).published = published;
        Ok(())
    }

    fn ephemeral_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = if port >= 60_999 { 32_768 } else { port + 1 };
        port
    }

    /// A container that ended leaves its networks; with a time, that is told.
    pub(super) fn leave_networks(&mut self, id: &Arc<str>, told: Option<Now>) {
        let names: Vec<String> = self.at(id).endpoints.iter().filter(|(_, e)| !e.endpoint_id.is_empty()).map(|(n, _)| n.clone()).collect();
        for name in &names {
            self.leave(id, name, told);
        }
        self.ports.retain(|_, owner| owner != id);
        self.at(id).published.clear();
    }

    fn leave(&mut self, id: &Arc<str>, name: &str, told: Option<Now>) {
        let Some(endpoint) = self.at(id).endpoints.get_mut(name) else { return };
        let (ip, network_id) = (endpoint.ip.take(), endpoint.network_id.clone());
        if std::mem::take(&mut endpoint.endpoint_id).is_empty() {
            return;
        }
        endpoint.gateway.clear();
        endpoint.prefix = 0;
        if let Some(ip) = ip {
            self.addresses.remove(&ip);
        }
        if let Some(network) = self.networks.get_mut(network_id.as_str()) {
            network.members.remove(id);
            if let Some(ip) = ip {
                network.release(ip);
            }
            if let Some(now) = told {
                let event = network.event("disconnect", now, Some(id));
                self.events.push(event);
            }
        }
    }
}
