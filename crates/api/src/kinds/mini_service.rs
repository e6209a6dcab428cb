//! MiniService: one node of the graph, in exactly one of four forms.

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use crate::availability::Availability;
use crate::codes::Code;
use crate::conditions::{Condition, Reason};
use crate::field::{FieldPath, Problem};
use crate::lock::LockStatus;
use crate::name::Name;
use crate::spec::container::{Container, SecretUse};
use crate::spec::edge::{Edge, OnDown};
use crate::spec::external::{Protocol, ServerUrl};
pub use crate::spec::job::{Concurrency, Job, JobRun, JobState, JobStatus, JobStep, MissedRuns};
use crate::spec::names;
use crate::spec::quantity::{Duration, Scalar};
use crate::spec::report::{BlockedBy, Dependents, NameText};
use crate::spec::rules::Rules;
use crate::time::Timestamp;

/// A mini service. Exactly one of `container`, `external`, `logical` and `job` says what it is.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "quaymaster.dev",
    version = "v1alpha1",
    kind = "MiniService",
    plural = "miniservices",
    singular = "miniservice",
    shortname = "msvc",
    category = "quaymaster",
    namespaced,
    status = "MiniServiceStatus",
    doc = "One node of the dependency graph: a container, an external service, a part of an app, or a job."
)]
#[serde(rename_all = "camelCase")]
pub struct MiniServiceSpec {
    /// A container that Quaymaster runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
    /// A service that runs elsewhere and is only probed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<External>,
    /// A part of an app, which reports its health over the app face.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logical: Option<Logical>,
    /// A container that runs to its end: once per input, or on a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// What it depends on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<Edge>,
    /// Whether it is wanted at all. A disabled service is off the scale of availability. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Its failure is a failure of the system: it counts as SystemFailure (6), and a Degrade edge to it acts as Block. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical: Option<bool>,
    /// How long its last recorded availability is trusted while it cannot be observed. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_grace: Option<Duration>,
    /// What to do about changes that others make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
}

/// A service that runs elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct External {
    /// How its health is found out.
    pub probe: Probe,
    /// Time between two probes. Default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// How long one probe may take. Default 2s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// So many failures in a row make it unavailable. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub failure_threshold: Option<u32>,
    /// So many successes in a row make it available again. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub success_threshold: Option<u32>,
}

/// Exactly one way to probe an external service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// A TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp: Option<ExternalTcp>,
    /// An HTTP GET.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<ExternalHttp>,
    /// A command in a container of its own: it is there when the command ends with 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<ExternalCommand>,
    /// A PostgreSQL server: it lets the user in and answers a query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres: Option<ExternalServer>,
    /// A Redis server: it answers PING.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<ExternalServer>,
    /// A Vault or OpenBao server: it is unsealed and serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vault: Option<ExternalServer>,
}

/// A TCP endpoint outside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalTcp {
    /// Host name or address.
    #[schemars(length(min = 1))]
    pub host: String,
    /// Port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
}

/// An HTTP endpoint outside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalHttp {
    /// An `http://` address.
    #[schemars(length(min = 8))]
    pub url: String,
    /// The status that counts as healthy. Default: any from 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub status: Option<u16>,
}

/// A command probe in a container of its own, which is made for each probe on the engine's default network and taken away afterwards. Its
/// image is pulled where it is not there. `timeout` counts from its start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalCommand {
    /// The image that has the command.
    #[schemars(length(min = 1))]
    pub image: String,
    /// The command, which takes the place of the image's own.
    #[schemars(length(min = 1))]
    pub command: Vec<String>,
}

/// A server that is probed in its own protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExternalServer {
    /// Its address: `redis://HOST:PORT`, `postgres://HOST:PORT/DATABASE` or, for Vault, `http://HOST:PORT`. The port may be left out.
    #[schemars(length(min = 8))]
    pub url: String,
    /// Who logs in. Default: nobody for Redis, `postgres` for PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The name of the file that has the password, in the folder that `quaymaster run --probe-credentials DIR` names. Without it, a server
    /// that asks for a password counts as there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

/// A part of an app.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Logical {
    /// The mini service that reports for it. This is no dependency.
    pub reported_by: String,
    /// How often it reports. Nothing for twice as long, and it is TemporarilyUnavailable with the reason `Silent`. Default 15s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heartbeat: Option<Duration>,
    /// The secrets that it uses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretUse>,
}

/// What to do about changes that others make.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drift {
    /// `Repair` or `Report`. Default Repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<DriftMode>,
    /// JSON pointers of fields that others may change: `/container/networks`, `/container/networkOptions`, `/container/resources` and what
    /// is in it, `/container/restart`. A new container gets what the manifest says; one that is there keeps what it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// How long to wait before repairing what somebody else changed. Default 0s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold_off: Option<Duration>,
}

/// The number of replicas, as `drift.ignore` names it: on a single host nobody but us changes it.
const REPLICAS: &str = "/container/replicas";

/// What `drift.ignore` may name: everything of a container that the engine lets others change in place.
pub const IGNORABLE: [&str; 10] = [
    "/container/networks",
    "/container/networkOptions",
    "/container/resources",
    "/container/resources/cpus",
    "/container/resources/memory",
    "/container/resources/pids",
    "/container/resources/reservations",
    "/container/resources/reservations/cpus",
    "/container/resources/reservations/memory",
    "/container/restart",
];

/// Whether drift is repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DriftMode {
    /// Put it back.
    #[default]
    Repair,
    /// Only say so.
    Report,
}

/// What is reported of a mini service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MiniServiceStatus {
    /// The generation that this status speaks of.
    pub observed_generation: u64,
    /// How available it is; absent when it is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
    /// The availability as a number from 1 (best) to 6; 0 when it is disabled.
    pub severity: u8,
    /// Whether it may be used now: it is available enough, and nobody changes it.
    pub usable: bool,
    /// The availability is a last known one: it cannot be observed now.
    #[serde(default)]
    pub stale: bool,
    /// Since when it has this availability.
    pub since: Timestamp,
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Its level in the dependency graph: 0 needs nothing.
    pub level: u32,
    /// Counts of replicas; absent for forms without containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Replicas>,
    /// One entry a container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slots: Vec<SlotStatus>,
    /// The nodes that keep it from being fully available, each with the path to it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked_by: Vec<BlockedBy>,
    /// What it depends on, and how that is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependencies: Vec<DependencyStatus>,
    /// Who depends on it.
    pub dependents: Dependents,
    /// Who changes it or uses it under a lock, while somebody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock: Option<LockStatus>,
    /// How the job stands; absent for forms that are no job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStatus>,
    /// The revision that is wanted; absent for forms without containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The last revisions, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<RevisionSummary>,
    /// What the operator found worth telling.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<String>,
    /// The conditions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Counts of replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replicas {
    /// How many there should be.
    pub wanted: u32,
    /// How many run.
    pub running: u32,
    /// How many are healthy.
    pub healthy: u32,
}

/// One container of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotStatus {
    /// The slot, from 1.
    pub slot: u32,
    /// The container's id.
    pub container_id: String,
    /// The revision it was made from.
    pub revision: u64,
    /// The engine's word for its state.
    pub state: String,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When it was first found healthy after that start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthy_at: Option<Timestamp>,
}

/// One dependency and how it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DependencyStatus {
    /// Its kind.
    pub kind: NameText,
    /// Its namespace.
    pub namespace: NameText,
    /// Its name.
    pub name: NameText,
    /// What its loss does.
    pub on_down: OnDown,
    /// How available it is; absent when it is disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub availability: Option<Availability>,
    /// Its loss is tolerated for now.
    #[serde(default)]
    pub tolerated: bool,
}

/// One revision in short.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionSummary {
    /// Its number, from 1.
    pub number: u64,
    /// The image reference.
    pub image: String,
    /// The image's id.
    pub image_id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its rollout was complete for the first time; only such a revision can be gone back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proven_at: Option<Timestamp>,
}

/// Labels as the planner wants them.
pub type Labels = BTreeMap<String, Scalar>;

/// The kind's name.
pub const KIND: &str = "MiniService";

/// The kind's name as a [`Name`].
pub fn kind() -> Name {
    Name::from(KIND)
}

/// What is wrong with a spec beyond its schema, as far as it can be told from the spec alone.
pub fn validate(spec: &MiniServiceSpec, at: &FieldPath) -> Vec<Problem> {
    let mut rules = Rules::default();
    let forms = [
        ("container", spec.container.is_some()),
        ("external", spec.external.is_some()),
        ("logical", spec.logical.is_some()),
        ("job", spec.job.is_some()),
    ];
    rules.exactly_one(at, &forms);
    if let Some(container) = &spec.container {
        rules.container(&at.key("container"), container);
    }
    if let Some(external) = &spec.external {
        validate_external(&mut rules, &at.key("external"), external);
    }
    if let Some(logical) = &spec.logical {
        validate_logical(&mut rules, &at.key("logical"), logical);
    }
    if let Some(job) = &spec.job {
        rules.job(&at.key("job"), job);
    }
    let has_secrets = spec.container.as_ref().is_some_and(|container| !container.secrets.is_empty())
        || spec.job.as_ref().is_some_and(|job| !job.container.secrets.is_empty())
        || spec.logical.as_ref().is_some_and(|logical| !logical.secrets.is_empty());
    rules.edges(&at.key("dependsOn"), &spec.depends_on, has_secrets);
    let why = match (&spec.external, &spec.job, &spec.logical) {
        (Some(_), ..) => Some("an external service is only probed: there is nothing to stop or to reload"),
        (_, Some(_), _) => Some("a job runs to its end: it is neither stopped nor reloaded for what it depends on"),
        (.., Some(_)) => Some("a part of an app has no container of its own that could be stopped"),
        (None, None, None) => None,
    };
    if let Some(why) = why {
        rules.edges_without_workload(&at.key("dependsOn"), &spec.depends_on, why, spec.logical.is_some());
    }
    if let Some(drift) = &spec.drift {
        for (i, pointer) in drift.ignore.iter().enumerate() {
            let path = at.key("drift").key("ignore").index(i);
            if pointer == REPLICAS {
                rules.not_in_effect(&path, "`drift.ignore` of the number of replicas");
            } else if !IGNORABLE.contains(&pointer.as_str()) {
                let message = format!("`{pointer}` is nothing that others can change on a container");
                rules.error(Code::BadFormat, &path, message, format!("one of {}", IGNORABLE.join(", ")));
            }
        }
    }
    rules.problems
}

fn validate_logical(rules: &mut Rules, at: &FieldPath, logical: &Logical) {
    if let Some(error) = names::label_error(&logical.reported_by) {
        rules.error(Code::BadName, &at.key("reportedBy"), error, "the name of the mini service that reports, in the same namespace");
    }
    if logical.heartbeat.is_some_and(|heartbeat| heartbeat.as_millis() < 1_000) {
        rules.error(Code::OutOfRange, &at.key("heartbeat"), "`heartbeat` must be at least 1s", "");
    }
    if !logical.secrets.is_empty() {
        rules.not_in_effect(&at.key("secrets"), "the projection of secrets");
    }
}

fn validate_server(rules: &mut Rules, at: &FieldPath, server: &ExternalServer, protocol: Protocol) {
    if let Err(problem) = ServerUrl::parse(&server.url, protocol) {
        rules.error(Code::BadFormat, &at.key("url"), problem, format!("write it as {}", protocol.example()));
    }
    if protocol == Protocol::Vault && server.url.starts_with("https://") {
        rules.not_supported(&at.key("url"), "a probe over TLS", "use `http://`, or `tcp`");
    }
    if let Some(name) = &server.password
        && let Some(problem) = names::label_error(name)
    {
        rules.error(Code::BadName, &at.key("password"), format!("`{name}` is no name of a file with a password"), problem);
    }
    let is_vault = protocol == Protocol::Vault;
    for (field, _) in [("user", &server.user), ("password", &server.password)].into_iter().filter(|(_, given)| given.is_some() && is_vault)
    {
        rules.error(Code::BadCombination, &at.key(field), "the health of a Vault is told to everybody", "remove it");
    }
}

fn validate_external(rules: &mut Rules, at: &FieldPath, external: &External) {
    let probe = &external.probe;
    let below = at.key("probe");
    let forms = [
        ("tcp", probe.tcp.is_some()),
        ("http", probe.http.is_some()),
        ("command", probe.command.is_some()),
        ("postgres", probe.postgres.is_some()),
        ("redis", probe.redis.is_some()),
        ("vault", probe.vault.is_some()),
    ];
    rules.exactly_one(&below, &forms);
    if let Some(run) = &probe.command {
        rules.form(Code::BadImage, &below.key("command").key("image"), &run.image, names::image_error(&run.image));
        if run.command.first().is_none_or(String::is_empty) {
            rules.error(
                Code::Missing,
                &below.key("command").key("command"),
                "there is no command",
                "for example [pg_isready, -h, db.example.org]",
            );
        }
    }
    for (server, protocol) in [(&probe.postgres, Protocol::Postgres), (&probe.redis, Protocol::Redis), (&probe.vault, Protocol::Vault)] {
        if let Some(server) = server {
            validate_server(rules, &below.key(protocol.field()), server, protocol);
        }
    }
    if let Some(http) = &probe.http {
        let path = below.key("http").key("url");
        if http.url.starts_with("https://") {
            rules.not_supported(&path, "a probe over TLS", "use `http://`, or `tcp`");
        } else {
            let host = http.url.strip_prefix("http://").map(|rest| rest.split(['/', '?']).next().unwrap_or_default());
            if host.is_none_or(str::is_empty) || http.url.chars().any(|c| c.is_whitespace() || c.is_control()) {
                rules.error(Code::BadFormat, &path, "that is no address", "write it as http://host:port/path");
            }
        }
    }
    for (field, duration) in [("interval", external.interval), ("timeout", external.timeout)] {
        if duration.is_some_and(|duration| duration.as_millis() == 0) {
            rules.error(Code::OutOfRange, &at.key(field), format!("`{field}` must be longer than 0s"), "");
        }
    }
}
