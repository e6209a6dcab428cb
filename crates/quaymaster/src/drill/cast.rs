//! Owns who plays what on the stage: which form each service has, what the engine's world must have for it, where externals are dialled,
//! and what the drill did to whom. Pure; the stage carries it out.

use std::collections::{BTreeMap, BTreeSet};

use qm_api::admit::Candidate;
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_dockersim::World;
use qm_dockersim::behaviour::{Behaviour, ImageSpec, Rule};
use qm_plan::desired::{DesiredService, Files, Form, HealthKind};
use qm_plan::stamp;
use serde_json::Value;

use super::format::Given;

/// Longer than any drill, in milliseconds.
const NEVER_MS: u64 = 1 << 40;
/// How long a job's container runs, in milliseconds.
const JOB_MS: u64 = 1_000;
/// How long a probe by a command takes, in milliseconds.
const PROBE_MS: u64 = 50;
/// What the engine says of a container that the drill keeps down.
const KEPT_DOWN: &str = "the drill keeps it down";

/// An external service as it is probed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct External {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) speaks: Speaks,
    /// The password that the probe shows it, by its name.
    pub(crate) password: Option<Name>,
}

/// How an external service answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// HTTP, always with this status; and whoever only connects is content as well.
    Http(u16),
    Redis,
    Postgres,
}

/// A part of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) reported_by: ObjectKey,
    pub(crate) heartbeat_ms: u64,
}

/// What the drill does to a service now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ill {
    pub(crate) down: bool,
    pub(crate) slow_ms: Option<u64>,
}

/// What containers of a service are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// They serve, and somebody looks whether they do.
    Checked,
    /// They serve, and running is healthy.
    Unchecked,
    /// Each is one probe of something outside.
    Probe,
}

/// Everybody on the stage.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cast {
    /// Services that run containers, and what those are for.
    pub(crate) containers: BTreeMap<ObjectKey, Role>,
    pub(crate) externals: BTreeMap<ObjectKey, External>,
    pub(crate) parts: BTreeMap<ObjectKey, Part>,
    /// The world of the engine before anything is done to it.
    pub(crate) world: World,
    pub(crate) ill: BTreeMap<ObjectKey, Ill>,
}

impl Cast {
    /// The cast of some manifests.
    pub(crate) fn of(objects: &[Candidate], given: &Given) -> Self {
        let mut cast = Self { world: given.world.clone().unwrap_or_default(), ..Self::default() };
        if !given.names_images {
            cast.world.images.clear();
        }
        let scripted: BTreeSet<String> = cast.world.images.keys().cloned().collect();
        let mut rules = Vec::new();
        for object in objects {
            let (key, spec) = (&object.key, &object.spec);
            if let Some(image) = image(spec) {
                cast.world.images.entry(image.to_owned()).or_insert_with(any_image);
                if !scripted.contains(image) {
                    rules.push(rule(key, by_default(spec)));
                }
            }
            if spec["container"].is_object() {
                let is_checked = ["tcp", "http", "grpc", "command"].iter().any(|check| spec["container"]["health"][check].is_object())
                    || spec["container"]["health"]["command"].is_array();
                cast.containers.insert(key.clone(), if is_checked { Role::Checked } else { Role::Unchecked });
            }
            cast.outside(key, spec);
        }
        // What the drill's author says of the world wins.
        rules.append(&mut cast.world.containers);
        cast.world.containers = rules;
        cast
    }

    /// Services that have no container of their own.
    fn outside(&mut self, key: &ObjectKey, spec: &Value) {
        if !(spec["external"].is_object() || spec["logical"].is_object()) {
            return;
        }
        let object = Object::new(key.clone(), "", Timestamp::default(), spec.clone());
        let Ok(desired) = DesiredService::from_object(&object, &Files::new()) else { return };
        match desired.form {
            Form::External(external) => {
                let (host, port, speaks, login) = match external.check.kind {
                    HealthKind::Tcp { host, port } => (host, port, Speaks::Http(200), None),
                    HealthKind::Http { host, port, status, .. } => (host, port, Speaks::Http(status.unwrap_or(200)), None),
                    HealthKind::Vault { at } => (at.host, at.port, Speaks::Http(200), None),
                    HealthKind::Redis { at, login } => (at.host, at.port, Speaks::Redis, Some(login)),
                    HealthKind::Postgres { at, login, .. } => (at.host, at.port, Speaks::Postgres, Some(login)),
                    // The engine carries it out.
                    HealthKind::Run { .. } => {
                        self.containers.insert(key.clone(), Role::Probe);
                        return;
                    }
                    HealthKind::Command(_) | HealthKind::Image => return,
                };
                let password = login.and_then(|login| login.password);
                self.externals.insert(key.clone(), External { host, port, speaks, password });
            }
            Form::Logical(logical) => {
                let reported_by = ObjectKey::new(key.kind.clone(), key.namespace.clone(), logical.reported_by);
                self.parts.insert(key.clone(), Part { reported_by, heartbeat_ms: logical.heartbeat_ms });
            }
            Form::Container(_) | Form::Job(_) => {}
        }
    }

    /// What is done to a service now.
    pub(crate) fn ill(&self, key: &ObjectKey) -> Ill {
        self.ill.get(key).copied().unwrap_or_default()
    }

    /// The rules by which the engine carries out what is done to containers.
    pub(crate) fn forced(&self) -> Vec<Rule> {
        let ill = self.ill.iter().filter_map(|(key, ill)| Some((key, ill, *self.containers.get(key)?)));
        ill.map(|(key, ill, role)| rule(key, Self::behaviour(*ill, role))).collect()
    }

    /// A hung process where somebody looks; else one that ended and cannot be started. A probe of what is down fails.
    fn behaviour(ill: Ill, role: Role) -> Behaviour {
        let healthy_after_ms = if ill.down { Some(NEVER_MS) } else { ill.slow_ms };
        match role {
            Role::Checked => Behaviour { healthy_after_ms, ..Behaviour::default() },
            Role::Probe => Behaviour { exit_after_ms: ill.slow_ms, exit_code: ill.down.then_some(1), ..Behaviour::default() },
            Role::Unchecked => {
                Behaviour { start_ms: ill.slow_ms, start_error: ill.down.then(|| KEPT_DOWN.to_owned()), ..Behaviour::default() }
            }
        }
    }

    /// Who answers at an address outside.
    pub(crate) fn at(&self, host: &str, port: u16) -> Option<(External, Ill)> {
        let mut found = self.externals.iter().filter(|(_, e)| e.host == host && e.port == port).peekable();
        let external = found.peek()?.1.clone();
        // Several services behind one address share what is done to any of them.
        let ill = found
            .map(|(key, _)| self.ill(key))
            .fold(Ill::default(), |all, one| Ill { down: all.down || one.down, slow_ms: all.slow_ms.max(one.slow_ms) });
        Some((external, ill))
    }
}

fn image(spec: &Value) -> Option<&str> {
    let places = [&spec["container"]["image"], &spec["job"]["container"]["image"], &spec["external"]["probe"]["command"]["image"]];
    places.into_iter().find_map(Value::as_str).filter(|image| !image.is_empty())
}

/// An image of which nothing is known.
fn any_image() -> ImageSpec {
    ImageSpec { cmd: vec!["serve".to_owned()], size: 1, ..ImageSpec::default() }
}

/// Services run and answer well; jobs succeed.
fn by_default(spec: &Value) -> Behaviour {
    let opaque = Some(true);
    if spec["job"].is_object() || spec["external"].is_object() {
        let takes_ms = if spec["job"].is_object() { JOB_MS } else { PROBE_MS };
        let (exit_after_ms, exit_code) = (Some(takes_ms), Some(0));
        return Behaviour { opaque, exit_after_ms, exit_code, crash_loop: Some(true), ..Behaviour::default() };
    }
    let status = spec["container"]["health"]["http"]["status"].as_u64().and_then(|status| u16::try_from(status).ok());
    Behaviour { opaque, http_status: status, ..Behaviour::default() }
}

fn rule(key: &ObjectKey, behaviour: Behaviour) -> Rule {
    let label = |label: &str, value: &Name| (label.to_owned(), value.to_string());
    let labels = BTreeMap::from([label(stamp::KIND, &key.kind), label(stamp::NAMESPACE, &key.namespace), label(stamp::NAME, &key.name)]);
    Rule { labels, behaviour, ..Rule::default() }
}
