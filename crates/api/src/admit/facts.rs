//! Owns what the cross checks must know of one object, kept small: admission looks at these for the whole set at every change.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use crate::field::FieldPath;
use crate::graph::Dependency;
use crate::kinds::mini_container::Selector;
use crate::manifest::tree::Span;
use crate::name::Name;
use crate::registry::AnySpec;
use crate::spec::container::{Container, Mount, Protocol};
use crate::spec::names::{Cidr, clean_path};
use crate::spec::rules::joined_networks;

/// Something at a place.
#[derive(Clone, Debug, PartialEq)]
pub struct At<T> {
    /// What.
    pub what: T,
    /// Its index in its list.
    pub index: usize,
    /// Where.
    pub span: Span,
}

/// A port of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct HostPort {
    /// The address to listen on; `None` for all.
    pub host: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A named volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Its name within the namespace.
    pub name: Name,
    /// It is writable and not marked as shared.
    pub is_exclusive: bool,
}

/// A file that a manifest refers to.
#[derive(Clone, Debug, PartialEq)]
pub struct FileUse {
    /// Which field.
    pub path: FieldPath,
    /// As it is written.
    pub written: String,
    /// The path within the source; `None` when it leaves the source's root.
    pub file: Option<Name>,
    /// It is an env file.
    pub is_env: bool,
    /// Where.
    pub span: Span,
}

/// What the cross checks know of one object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// Its edges.
    pub edges: Vec<At<Dependency>>,
    /// Whom it owns by their labels, for a mini container.
    pub selector: Option<Box<At<Selector>>>,
    /// Its labels, for an object that is there already.
    pub labels: BTreeMap<Name, Name>,
    /// The service that reports for it.
    pub reporter: Option<At<Name>>,
    /// Where its container stands, for one that has one.
    pub container: FieldPath,
    /// The networks that it names.
    pub networks: Vec<At<Name>>,
    /// Its fixed addresses: network and address.
    pub addresses: Vec<At<(Name, Ipv4Addr)>>,
    /// The host's ports that it takes.
    pub ports: Vec<At<HostPort>>,
    /// Its named volumes.
    pub volumes: Vec<At<Volume>>,
    /// The files that it refers to.
    pub files: Vec<FileUse>,
    /// The range that it takes, for a network.
    pub subnet: Option<At<Cidr>>,
    /// How many containers it has.
    pub replicas: u32,
}

/// What is to be known of a spec. `manifest` is the path that files are relative to.
pub fn of(spec: &AnySpec, namespace: &Name, manifest: Option<&Name>, locate: &dyn Fn(&FieldPath) -> Span) -> Facts {
    let root = FieldPath::root().key("spec");
    let mut facts = Facts::default();
    match spec {
        AnySpec::Network(network) => {
            let subnet = network.subnet.as_deref().and_then(|text| Cidr::parse(text).ok());
            facts.subnet = subnet.map(|what| At { what, index: 0, span: locate(&root.key("subnet")) });
        }
        AnySpec::MiniContainer(parent) => {
            let at = |what| Box::new(At { what, index: 0, span: locate(&root.key("selector")) });
            facts.selector = parent.selector.clone().map(at);
        }
        AnySpec::MiniService(service) => {
            let at = root.key("dependsOn");
            let edges = service.depends_on.iter().enumerate().filter_map(|(index, edge)| {
                Some(At {
                    what: Dependency::resolve(namespace, edge)?,
                    index,
                    span: locate(&edge_name(&at.index(index), edge.service.is_some())),
                })
            });
            facts.edges = edges.collect();
            if let Some(logical) = &service.logical {
                let span = locate(&root.key("logical").key("reportedBy"));
                facts.reporter = Some(At { what: logical.reported_by.as_str().into(), index: 0, span });
            }
            if let Some(container) = &service.container {
                let is_enabled = service.enabled != Some(false);
                facts.replicas = if is_enabled { container.replicas.unwrap_or(1) } else { 0 };
                add_container(&mut facts, container, &root.key("container"), manifest, locate);
            }
            if let Some(job) = &service.job {
                facts.replicas = u32::from(service.enabled != Some(false));
                add_container(&mut facts, &job.container, &root.key("job").key("container"), manifest, locate);
            }
        }
    }
    facts
}

fn edge_name(at: &FieldPath, is_service: bool) -> FieldPath {
    at.key(if is_service { "service" } else { "name" })
}

fn add_container(facts: &mut Facts, container: &Container, at: &FieldPath, manifest: Option<&Name>, locate: &dyn Fn(&FieldPath) -> Span) {
    facts.container = at.clone();
    let path = at.key("networks");
    facts.networks = joined_networks(container)
        .into_iter()
        .enumerate()
        .map(|(index, what)| At { what, index, span: locate(&path.index(index)) })
        .collect();
    for (network, options) in &container.network_options {
        if let Some(address) = options.ipv4.as_ref().and_then(|text| text.parse().ok()) {
            let span = locate(&at.key("networkOptions").key(network).key("ipv4"));
            facts.addresses.push(At { what: (network.into(), address), index: 0, span });
        }
    }
    // What does not run takes no port.
    if facts.replicas > 0 {
        for (index, port) in container.ports.iter().enumerate() {
            let Some(published) = port.published else { continue };
            let host = port.host.as_ref().and_then(|text| text.parse::<IpAddr>().ok()).filter(|host| !host.is_unspecified());
            let what = HostPort { host, port: published, protocol: port.protocol.unwrap_or_default() };
            facts.ports.push(At { what, index, span: locate(&at.key("ports").index(index).key("published")) });
        }
    }
    let path = at.key("volumes");
    for (index, mount) in container.volumes.iter().enumerate() {
        let Some(name) = &mount.name else { continue };
        let what = Volume { name: name.into(), is_exclusive: is_exclusive(mount) };
        facts.volumes.push(At { what, index, span: locate(&path.index(index).key("name")) });
    }
    let mut add_file = |path: FieldPath, written: &String, is_env| {
        let file = manifest.and_then(|manifest| crate::manifest::resolve(manifest, written));
        let span = locate(&path);
        facts.files.push(FileUse { path, written: written.clone(), file, is_env, span });
    };
    for (index, file) in container.env_file.iter().enumerate() {
        add_file(at.key("envFile").index(index), file, true);
    }
    for (index, config) in container.configs.iter().enumerate() {
        if let Some(file) = &config.file {
            add_file(at.key("configs").index(index).key("file"), file, false);
        }
    }
}

fn is_exclusive(mount: &Mount) -> bool {
    mount.read_only != Some(true) && mount.shared != Some(true) && clean_path(&mount.target).is_some()
}
