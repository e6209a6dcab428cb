//! The engine's answers as plain observed data; the daemon's ways of saying "default" are made one.

use std::collections::BTreeMap;

use bollard::models::{ContainerInspectResponse, ContainerSummary, EndpointSettings, HealthStatusEnum};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::desired::{EngineResources, normal_shares};
use qm_plan::observed::{Attachment, Container, EngineHealth, Network, RunState, Volume};
use qm_plan::stamp::{COMPOSE_PROJECT, Stamp};

/// A container that was inspected.
pub fn container(inspect: ContainerInspectResponse) -> Option<Container> {
    let config = inspect.config.unwrap_or_default();
    let host = inspect.host_config.unwrap_or_default();
    let state = inspect.state.unwrap_or_default();
    let labels: BTreeMap<String, String> = config.labels.unwrap_or_default().into_iter().collect();
    let word = state.status.map(|s| s.to_string()).unwrap_or_default();
    let networks = inspect.network_settings.and_then(|n| n.networks).unwrap_or_default();
    Some(Container {
        id: inspect.id?.into(),
        name: inspect.name.unwrap_or_default().trim_start_matches('/').into(),
        stamp: Stamp::read(&labels),
        project: labels.get(COMPOSE_PROJECT).map(Name::from),
        image_id: inspect.image.unwrap_or_default().into(),
        state: RunState::parse(&word).unwrap_or(RunState::Created),
        exit_code: state.exit_code.unwrap_or(0),
        error: state.error.unwrap_or_default(),
        created_at: inspect.created.as_ref().and_then(|d| Timestamp::parse(&date_text(d)).ok()).unwrap_or_default(),
        started_at: instant(state.started_at),
        finished_at: instant(state.finished_at),
        restart_count: inspect.restart_count.unwrap_or(0).max(0) as u64,
        engine_health: match state.health.and_then(|h| h.status) {
            None | Some(HealthStatusEnum::NONE | HealthStatusEnum::EMPTY) => EngineHealth::None,
            Some(HealthStatusEnum::STARTING) => EngineHealth::Starting,
            Some(HealthStatusEnum::HEALTHY) => EngineHealth::Healthy,
            Some(HealthStatusEnum::UNHEALTHY) => EngineHealth::Unhealthy,
        },
        networks: networks.into_iter().map(|(name, e)| (name.into(), attachment(e))).collect(),
        resources: EngineResources {
            nano_cpus: host.nano_cpus.unwrap_or(0).max(0),
            memory_bytes: host.memory.unwrap_or(0).max(0),
            memory_reservation_bytes: host.memory_reservation.unwrap_or(0).max(0),
            pids: host.pids_limit.unwrap_or(0).max(0),
            cpu_shares: normal_shares(host.cpu_shares.unwrap_or(0).max(0)),
        },
        restart_policy: host
            .restart_policy
            .and_then(|p| p.name)
            .map(|n| n.to_string())
            .filter(|n| !n.is_empty())
            .unwrap_or_else(|| "no".to_owned())
            .into(),
        anonymous_volumes: inspect
            .mounts
            .unwrap_or_default()
            .into_iter()
            .filter(|m| m.typ.as_deref() == Some("volume"))
            .filter_map(|m| Some((m.destination?, m.name.filter(|n| is_generated(n))?)))
            .collect(),
        adopted: false,
        inspected: true,
    })
}

fn date_text(date: &bollard::models::BollardDate) -> String {
    date.to_string()
}

/// The engine names a volume without a name by 64 hexadecimal digits.
pub(crate) fn is_generated(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The engine says "never" as the first instant of the year 1.
fn instant(text: Option<String>) -> Option<Timestamp> {
    let text = text.filter(|t| !t.is_empty() && !t.starts_with("0001-"))?;
    Timestamp::parse(&text).ok()
}

fn attachment(endpoint: EndpointSettings) -> Attachment {
    Attachment {
        network_id: endpoint.network_id.unwrap_or_default().into(),
        aliases: endpoint.aliases.unwrap_or_default(),
        fixed_ipv4: endpoint.ipam_config.and_then(|c| c.ipv4_address).filter(|a| !a.is_empty()),
        ipv4: endpoint.ip_address.filter(|a| !a.is_empty()),
    }
}

/// A container as the list shows it: enough to know whose it is and what name it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The id.
    pub id: Name,
    /// The name, without the slash.
    pub name: Name,
    /// The stamp, if it has one.
    pub stamp: Option<Stamp>,
    /// Compose's project label, if it has one.
    pub project: Option<Name>,
    /// The networks it is attached to, by id.
    pub network_ids: Vec<Name>,
}

/// One row of the list of containers.
pub fn listed(summary: ContainerSummary) -> Option<Listed> {
    let labels: BTreeMap<String, String> = summary.labels.unwrap_or_default().into_iter().collect();
    let networks = summary.network_settings.and_then(|n| n.networks).unwrap_or_default();
    // Legacy links put more names with a second slash on a container.
    let name = summary.names.unwrap_or_default().into_iter().find(|n| !n[1.min(n.len())..].contains('/')).unwrap_or_default();
    Some(Listed {
        id: summary.id?.into(),
        name: name.trim_start_matches('/').into(),
        stamp: Stamp::read(&labels),
        project: labels.get(COMPOSE_PROJECT).map(Name::from),
        network_ids: networks.into_values().filter_map(|e| e.network_id).map(Name::from).collect(),
    })
}

/// One network of the list.
pub fn network(network: bollard::models::Network) -> Option<Network> {
    let labels: BTreeMap<String, String> = network.labels.unwrap_or_default().into_iter().collect();
    let ranges = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
    Some(Network {
        id: network.id?.into(),
        name: network.name?.into(),
        stamp: Stamp::read(&labels),
        project: labels.get(COMPOSE_PROJECT).map(Name::from),
        driver: network.driver.unwrap_or_default(),
        options: network.options.unwrap_or_default().into_iter().collect(),
        gateway: ranges.first().and_then(|range| range.gateway.clone()),
        subnets: ranges.into_iter().filter_map(|range| range.subnet).collect(),
        internal: network.internal.unwrap_or(false),
        attachable: network.attachable.unwrap_or(false),
        created_at: network.created.as_ref().and_then(|d| Timestamp::parse(&date_text(d)).ok()).unwrap_or_default(),
    })
}

/// One volume of the list.
pub fn volume(volume: bollard::models::Volume) -> Volume {
    let labels: BTreeMap<String, String> = volume.labels.into_iter().collect();
    Volume { name: volume.name.into(), stamp: Stamp::read(&labels) }
}

/// One inspected network.
pub fn inspected_network(inspect: bollard::models::NetworkInspect) -> Option<Network> {
    network(bollard::models::Network {
        id: inspect.id,
        name: inspect.name,
        labels: inspect.labels,
        driver: inspect.driver,
        created: inspect.created,
        options: inspect.options,
        ipam: inspect.ipam,
        internal: inspect.internal,
        attachable: inspect.attachable,
        ..bollard::models::Network::default()
    })
}

/// What the list would show of an inspected container.
pub fn as_listed(container: &Container, labels_project: Option<Name>) -> Listed {
    Listed {
        id: container.id.clone(),
        name: container.name.clone(),
        stamp: container.stamp.clone(),
        project: labels_project,
        network_ids: container.networks.values().map(|a| a.network_id.clone()).collect(),
    }
}
