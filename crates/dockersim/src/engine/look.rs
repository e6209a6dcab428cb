//! Looking in from outside, for tests and for those who dial containers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::Engine;
use super::container::{Container, HealthStatus, MountPoint, NetworkMode, Phase};
use super::create::number;
use crate::Now;

/// What dialling an address leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// Nobody has the address.
    Unreachable,
    /// Nobody listens on the port.
    Refused,
    /// Somebody accepts.
    Accepts {
        /// What is answered to HTTP.
        http_status: u16,
        /// Whether anything is answered at all.
        answers: Answers,
    },
}

/// Whether a listener answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Yes.
    Yes,
    /// No: the container is paused.
    Frozen,
}

/// A container, seen from outside.
#[derive(Clone, Debug)]
pub struct ContainerView<'a>(pub(crate) &'a Container);

impl<'a> ContainerView<'a> {
    /// The id.
    pub fn id(&self) -> &'a str {
        &self.0.id
    }
    /// The name, without the slash.
    pub fn name(&self) -> &'a str {
        &self.0.name
    }
    /// The id of its image.
    pub fn image_id(&self) -> &'a str {
        &self.0.image_id
    }
    /// The reference it was created from.
    pub fn image(&self) -> &'a str {
        &self.0.image
    }
    /// Its labels.
    pub fn labels(&self) -> &'a BTreeMap<String, String> {
        &self.0.labels
    }
    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.0.phase
    }
    /// What its HEALTHCHECK says.
    pub fn health(&self) -> Option<HealthStatus> {
        self.0.health.as_ref().map(|h| h.status)
    }
    /// The code of its last end.
    pub fn exit_code(&self) -> i64 {
        self.0.exit_code
    }
    /// When it was created, in Unix nanoseconds.
    pub fn created_ns(&self) -> i64 {
        self.0.created_ns
    }
    /// When it last started.
    pub fn started_ns(&self) -> Option<i64> {
        self.0.started_ns
    }
    /// When it last ended.
    pub fn finished_ns(&self) -> Option<i64> {
        self.0.finished_ns
    }
    /// How often it was started.
    pub fn starts(&self) -> u64 {
        self.0.starts
    }
    /// Its mounts.
    pub fn mounts(&self) -> &'a [MountPoint] {
        &self.0.mounts
    }
    /// Its networks by name, with its address where it has one.
    pub fn networks(&self) -> impl Iterator<Item = (&'a str, Option<Ipv4Addr>)> + use<'a> {
        let ip = |ip: u32| (ip != 0).then(|| Ipv4Addr::from(ip));
        self.0.networks.iter().map(move |(name, a)| (&**name, a.endpoint.as_ref().and_then(|e| ip(e.ip))))
    }
    /// A resource limit by its name in the API (`Memory`, `NanoCpus`, ..).
    pub fn resource(&self, key: &str) -> i64 {
        number(&self.0.host, key)
    }
    /// The command line.
    pub fn command(&self) -> &'a [String] {
        &self.0.command
    }
    /// The paths of the files that were put into it.
    pub fn files(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.0.files.iter().map(|(path, entry)| (path.as_str(), &*entry.content))
    }
}

/// A network, seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkView<'a> {
    /// The id.
    pub id: &'a str,
    /// The name.
    pub name: &'a str,
    /// The labels.
    pub labels: &'a BTreeMap<String, String>,
    /// How many running containers are in it.
    pub endpoints: usize,
}

impl Engine {
    /// All containers, oldest first.
    pub fn containers(&self) -> impl Iterator<Item = ContainerView<'_>> {
        self.ages.values().filter_map(|id| self.containers.get(id)).map(ContainerView)
    }

    /// A container by id, name or beginning of the id.
    pub fn container_view(&self, reference: &str) -> Option<ContainerView<'_>> {
        self.find(reference).ok().and_then(|id| self.containers.get(&id)).map(ContainerView)
    }

    /// All networks, oldest first.
    pub fn networks(&self) -> impl Iterator<Item = NetworkView<'_>> {
        let view = |n: &'_ Arc<str>| self.networks.get(n);
        self.network_ages.values().filter_map(view).map(|n| NetworkView {
            id: &n.id,
            name: &n.name,
            labels: &n.labels,
            endpoints: n.endpoints.len(),
        })
    }

    /// All volumes, by name, with whether the engine made them up.
    pub fn volumes(&self) -> impl Iterator<Item = (&str, bool)> {
        self.volumes.values().map(|v| (&*v.name, v.anonymous))
    }

    /// What dialling a host and port leads to: a container's address, or a published port of the host.
    pub fn listens(&self, host: &str, port: u16, now: Now) -> Listening {
        let ip = match host {
            "localhost" => Ipv4Addr::LOCALHOST,
            _ => match host.parse::<IpAddr>() {
                Ok(IpAddr::V4(ip)) => ip,
                Ok(IpAddr::V6(ip)) if ip.is_loopback() || ip.is_unspecified() => Ipv4Addr::LOCALHOST,
                _ => return Listening::Unreachable,
            },
        };
        if let Some(container) = self.addresses.get(&u32::from(ip)).and_then(|id| self.containers.get(id)) {
            return self.port_of(container, port, now);
        }
        let gateway = self.networks.values().any(|n| n.gateway == u32::from(ip));
        if !(ip.is_loopback() || ip.is_unspecified() || gateway) {
            return Listening::Unreachable;
        }
        let bound = |address: &str| address == "0.0.0.0" || address == "::" || address.parse() == Ok(ip) || ip.is_unspecified();
        if let Some(holders) = self.ports.get(&("tcp".to_owned(), port)) {
            let found = holders.iter().find(|h| bound(&h.address)).and_then(|h| Some((self.containers.get(&h.container)?, h.port)));
            if let Some((container, inner)) = found {
                return self.port_of(container, inner, now);
            }
        }
        // Containers in the host's own network; few, if any.
        let hosts = self.networks.values().filter(|n| n.driver == "host").flat_map(|n| n.endpoints.keys());
        let on_host = hosts.filter_map(|id| self.containers.get(id)).filter(|c| c.mode == NetworkMode::Host);
        on_host.map(|c| self.port_of(c, port, now)).find(|l| *l != Listening::Refused).unwrap_or(Listening::Refused)
    }

    fn port_of(&self, container: &Container, port: u16, now: Now) -> Listening {
        let accepts = |answers| Listening::Accepts { http_status: container.script.http_status, answers };
        match container.phase {
            _ if !container.listens_on(port) => Listening::Refused,
            Phase::Paused => accepts(Answers::Frozen),
            Phase::Running if container.well(now.mono_ms) => accepts(Answers::Yes),
            _ => Listening::Refused,
        }
    }

    /// Every socket that real listeners would have to be opened on at this instant: containers' own addresses where they are loopback
    /// addresses, and published ports.
    pub fn listeners(&self, now: Now) -> BTreeMap<SocketAddr, u16> {
        let mut out = BTreeMap::new();
        for (ip, id) in &self.addresses {
            let ip = Ipv4Addr::from(*ip);
            let Some(container) = self.containers.get(id).filter(|c| ip.is_loopback() && c.well(now.mono_ms)) else { continue };
            for port in container.tcp_ports() {
                out.insert(SocketAddr::new(ip.into(), port), container.script.http_status);
            }
        }
        for ((kind, port), holders) in &self.ports {
            for holder in holders.iter().filter(|_| kind == "tcp") {
                let Some(container) = self.containers.get(&holder.container).filter(|c| c.well(now.mono_ms)) else { continue };
                // A container that serves nothing there refuses.
                if container.tcp_ports().contains(&holder.port)
                    && let Ok(address) = holder.address.parse::<IpAddr>()
                {
                    out.insert(SocketAddr::new(address, *port), container.script.http_status);
                }
            }
        }
        out
    }
}
