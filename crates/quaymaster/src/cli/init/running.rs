//! Manifests of a Compose project that runs.

use std::collections::BTreeMap;
use std::sync::Arc;

use qm_api::spec::container::NetworkOptions;
use qm_controller::dial::{self, Address};
use qm_controller::docker::describe::Described;
use qm_controller::docker::{Docker, DockerError};
use qm_plan::observed;
use serde_json::{Map, Value, json};

use super::manifest::{Draft, Network, Service, Written, namespace, object_name};
use crate::cli::CliError;

/// Compose's labels.
const SERVICE: &str = "com.docker.compose.service";
const NUMBER: &str = "com.docker.compose.container-number";
const ONE_OFF: &str = "com.docker.compose.oneoff";
const DEPENDS_ON: &str = "com.docker.compose.depends_on";
const NETWORK: &str = "com.docker.compose.network";

type Found = (observed::Container, Described);

pub(super) async fn from_running(project: &str, given: Option<&str>, docker_host: &str) -> Result<Written, CliError> {
    let namespace = namespace(given, project)?;
    let unreachable =
        |source: DockerError| CliError::Unreachable { message: format!("cannot read the engine at {docker_host}"), source: source.into() };
    let address = Address::parse(docker_host).map_err(CliError::Usage)?;
    let docker = Docker::new(address, dial::system(), Arc::new(|_, _, _| {})).map_err(unreachable)?;
    docker.connect().await.map_err(unreachable)?;
    let mut found: Vec<Found> = Vec::new();
    for id in docker.project(project).await.map_err(unreachable)? {
        found.extend(docker.describe(&id, &namespace).await.map_err(unreachable)?);
    }
    if found.is_empty() {
        return Err(CliError::failed(format!(
            "the engine has no container of a Compose project {project}: `docker compose ls` names those it has"
        )));
    }
    let networks = docker.networks_with_labels().await.map_err(unreachable)?;
    if found.iter().all(|(container, _)| container.stamp.is_some()) {
        return Err(CliError::failed(format!("every container of {project} is Quaymaster's already: there is nothing to adopt")));
    }
    Ok(draft(project, namespace, found, &networks).write())
}

fn draft(project: &str, namespace: String, found: Vec<Found>, networks: &[(observed::Network, BTreeMap<String, String>)]) -> Draft {
    let mut draft = Draft { namespace, ..Draft::default() };
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    for (network, labels) in networks.iter().filter(|(n, _)| n.stamp.is_none() && n.project.as_deref() == Some(project)) {
        let Some(short) = labels.get(NETWORK) else { continue };
        let name = object_name(short);
        names.insert(network.name.to_string(), name.clone());
        draft.networks.insert(name, Network { spec: network_spec(network, labels), adopt: Some(network.name.to_string()) });
    }
    let mut services: BTreeMap<String, Vec<Found>> = BTreeMap::new();
    for (container, described) in found {
        let label = |name: &str| described.labels.get(name).map(String::as_str).unwrap_or_default();
        if container.stamp.is_some() {
            draft.listed.push(format!("the container {} is Quaymaster's already", container.name));
        } else if label(ONE_OFF).eq_ignore_ascii_case("true") {
            draft.listed.push(format!("the container {} is a single run of {} and stays as it is", container.name, label(SERVICE)));
        } else {
            services.entry(label(SERVICE).to_owned()).or_default().push((container, described));
        }
    }
    let ranges: BTreeMap<String, Option<String>> =
        networks.iter().filter_map(|(n, _)| Some((names.get(n.name.as_str())?.clone(), n.subnets.first().cloned()))).collect();
    for (name, mut replicas) in services {
        replicas.sort_by_key(|(c, d)| (d.labels.get(NUMBER).and_then(|n| n.parse::<u32>().ok()).unwrap_or(0), c.name.clone()));
        take(&mut draft, &name, replicas, &names);
    }
    // A fixed address needs a range that is fixed, too.
    let fixed = draft.services.values().flat_map(|s| &s.container.network_options).filter(|(_, o)| o.ipv4.is_some());
    let fixed: Vec<String> = fixed.map(|(name, _)| name.clone()).collect();
    for name in fixed {
        if let (Some(network), Some(Some(range))) = (draft.networks.get_mut(&name), ranges.get(&name)) {
            network.spec.insert("subnet".to_owned(), json!(range));
        }
    }
    draft
}

/// Takes one service into the draft, or lists why it cannot be taken.
fn take(draft: &mut Draft, compose_name: &str, replicas: Vec<Found>, networks: &BTreeMap<String, String>) {
    let name = object_name(compose_name);
    let adopt: Vec<String> = replicas.iter().map(|(c, _)| c.name.to_string()).collect();
    let Some((_, first)) = replicas.first() else { return };
    let mut hindrances = first.hindrances.clone();
    let is_other = |d: &Described| d.container.image != first.container.image || d.container.env != first.container.env;
    if replicas.iter().any(|(_, d)| is_other(d)) {
        hindrances.push("replicas that differ from each other".to_owned());
    }
    if !first.networks.iter().any(|(network, ..)| networks.contains_key(network.as_str())) && hindrances.is_empty() {
        hindrances.push("no network of the project".to_owned());
    }
    if !hindrances.is_empty() {
        draft.left_out.insert(compose_name.to_owned(), hindrances);
        return;
    }
    let mut service = Service { container: first.container.clone(), adopt, lost: first.lost.clone(), ..Service::default() };
    service.container.replicas = (replicas.len() > 1).then_some(replicas.len() as u32);
    for (engine_name, aliases, ipv4) in &first.networks {
        let Some(network) = networks.get(engine_name.as_str()) else {
            service.lost.push(format!("the network {engine_name} of somebody else"));
            continue;
        };
        service.container.networks.push(network.clone());
        let mut aliases: Vec<String> = aliases.iter().filter(|alias| **alias != name).cloned().collect();
        aliases.sort();
        aliases.dedup();
        let ipv4 = ipv4.clone().filter(|_| replicas.len() == 1);
        if !aliases.is_empty() || ipv4.is_some() {
            service.container.network_options.insert(network.clone(), NetworkOptions { aliases, ipv4 });
        }
    }
    dependencies(first, &mut service);
    draft.services.insert(name, service);
}

/// Compose's own dependencies gate starts and nothing else: `service:condition:restart,..`.
fn dependencies(described: &Described, service: &mut Service) {
    let list = described.labels.get(DEPENDS_ON).map(String::as_str).unwrap_or_default();
    for entry in list.split(',').filter(|entry| !entry.is_empty()) {
        let mut parts = entry.split(':');
        let (on, condition) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if condition == "service_completed_successfully" {
            service.lost.push(format!("that its start waits for {on} to end well (jobs)"));
        } else {
            service.waits_for.push(object_name(on));
        }
        if parts.next() == Some("true") {
            service.lost.push(format!("its restart with {on}"));
        }
    }
    service.waits_for.sort();
}

/// The spec of a network that is there. A range that the engine picked is not told apart from one that was asked for: it is left to the
/// engine, unless somebody has a fixed address in it.
fn network_spec(network: &observed::Network, labels: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut spec = Map::new();
    if network.driver != "bridge" {
        spec.insert("driver".to_owned(), json!(network.driver));
    }
    if !network.options.is_empty() {
        spec.insert("driverOptions".to_owned(), json!(network.options));
    }
    if network.internal {
        spec.insert("internal".to_owned(), json!(true));
    }
    if network.attachable {
        spec.insert("attachable".to_owned(), json!(true));
    }
    let own: BTreeMap<&String, &String> = labels.iter().filter(|(key, _)| !qm_api::spec::names::is_reserved_label(key)).collect();
    if !own.is_empty() {
        spec.insert("labels".to_owned(), json!(own));
    }
    spec
}
