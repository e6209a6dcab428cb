//! What runs elsewhere and is only probed, as wanted.

use std::collections::BTreeMap;

use qm_api::kinds::mini_service::{ExternalServer, Probe};
use qm_api::name::Name;
use qm_api::spec::external::{Protocol, ServerUrl};

use super::{HealthCheck, HealthKind};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddress {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Who logs in for a probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// As whom.
    pub user: Option<String>,
    /// The name of the password's file.
    pub password: Option<Name>,
}

/// An external service as wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredExternal {
    /// How it is probed.
    pub check: HealthCheck,
}

/// How a probe is done; `None` for one that this release does not have.
pub(super) fn external_kind(probe: &Probe) -> Option<HealthKind> {
    if let Some(tcp) = &probe.tcp {
        return Some(HealthKind::Tcp { host: tcp.host.clone(), port: tcp.port });
    }
    let parse = |server: &ExternalServer, protocol| {
        let url = ServerUrl::parse(&server.url, protocol).ok()?;
        let login = Login { user: server.user.clone(), password: server.password.as_deref().map(Name::from) };
        Some((ServerAddress { host: url.host, port: url.port }, login, url.path))
    };
    if let Some(server) = &probe.redis {
        let (at, login, _) = parse(server, Protocol::Redis)?;
        return Some(HealthKind::Redis { at, login });
    }
    if let Some(server) = &probe.postgres {
        let (at, login, path) = parse(server, Protocol::Postgres)?;
        return Some(HealthKind::Postgres { at, login, database: Some(path).filter(|path| !path.is_empty()) });
    }
    if let Some(server) = &probe.vault {
        return parse(server, Protocol::Vault).map(|(at, ..)| HealthKind::Vault { at });
    }
    if let Some(run) = &probe.command {
        return Some(HealthKind::Run { image: run.image.clone(), command: run.command.clone() });
    }
    let http = probe.http.as_ref()?;
    let rest = http.url.strip_prefix("http://")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => (host, port.parse().ok()?),
        _ => (authority, 80),
    };
    Some(HealthKind::Http {
        host: host.trim_matches(['[', ']']).to_owned(),
        port,
        path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
        status: http.status,
        headers: BTreeMap::new(),
    })
}
