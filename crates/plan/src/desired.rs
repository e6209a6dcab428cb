//! Owns what is wanted, with every default applied: the way from a wire spec to [`DesiredService`] and [`DesiredNetwork`].
//!
//! The store keeps what the user wrote; defaults live here, so that a later release may change one without touching stored objects.

mod external;

use std::collections::BTreeMap;
use std::sync::Arc;

use qm_api::conditions::Reason;
use qm_api::graph::Dependency;
use qm_api::kinds::mini_container::MiniContainerSpec;
use qm_api::kinds::mini_service::{Concurrency, DriftMode, Job, JobStep, MiniServiceSpec, MissedRuns};
use qm_api::kinds::network::NetworkSpec;
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::spec::container::{
    BootOrder, ConfigFile, Container, Follow, Mount, OnFailure, PullPolicy, Reservations, Resources, Restart, Ulimit, UpdateOrder,
};
use qm_api::spec::cron::Schedule;
use qm_api::spec::health::Health;
use qm_api::spec::quantity::{Cpus, Duration, Size};

use crate::availability::Rollup;
use external::external_kind;
pub use external::{DesiredExternal, Login, ServerAddress};

/// Content of files that a spec refers to, by the reference as the spec writes it.
pub type Files = BTreeMap<String, Arc<[u8]>>;

/// One mini service as wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredService {
    /// Its address.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Name,
    /// The generation this was made from.
    pub generation: u64,
    /// Deletion was asked for: nothing is wanted any more.
    pub deleting: bool,
    /// Why it is off by configuration, if it is.
    pub off: Option<Reason>,
    /// How long its last recorded availability is trusted while it cannot be observed, in milliseconds.
    pub unknown_grace_ms: u64,
    /// Its failure is a failure of the system.
    pub critical: bool,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
    /// What it is.
    pub form: Form,
    /// Which revision it should run.
    pub rollout: Rollout,
    /// What somebody else changed is put back, or only told.
    pub drift: DriftMode,
    /// JSON pointers of what others may change on a container that is there.
    pub ignored: Vec<String>,
    /// How long drift is left alone, in milliseconds.
    pub hold_off_ms: u64,
    /// Containers to adopt, by name: the first for the first replica, and so on.
    pub adopt: Vec<Name>,
}

/// Which revision a service should run: the one that its manifest says, unless that one failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Rollout {
    /// The manifest's.
    #[default]
    Wanted,
    /// An older one, until an input changes or a person says `retry`. [`DesiredService::form`] is the older one's.
    RolledBack {
        /// The number of the one that runs.
        to: u64,
        /// Its image.
        image_id: Name,
        /// The image of the one that failed.
        failed_image: Name,
        /// Why, in words, with both numbers.
        message: String,
    },
    /// The manifest's, but no further replica is replaced until an input changes or a person says `retry`.
    Paused {
        /// Why, in words.
        message: String,
    },
}

/// What a mini service is.
#[derive(Clone, Debug, PartialEq)]
pub enum Form {
    /// Containers that we run.
    Container(Box<DesiredContainer>),
    /// Something elsewhere that we probe.
    External(DesiredExternal),
    /// A part of an app, which reports.
    Logical(DesiredLogical),
    /// Containers that run to their end.
    Job(Box<DesiredJob>),
}

/// A job as wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredJob {
    /// What its containers are made of.
    pub container: DesiredContainer,
    /// Its steps in order; none = the container's own command is all there is.
    pub steps: Vec<JobStep>,
    /// When it is due; `None` = once per input.
    pub schedule: Option<Schedule>,
    /// What to do when it is due and still running.
    pub concurrency: Concurrency,
    /// What to do with runs that were missed.
    pub missed_runs: MissedRuns,
    /// How often a failed run is tried again.
    pub retries: u32,
    /// How long a container may run, in milliseconds.
    pub deadline_ms: Option<u64>,
}

/// A container as wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredContainer {
    /// How many.
    pub replicas: u32,
    /// The image reference.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: PullPolicy,
    /// What a moved tag means.
    pub follow: Follow,
    /// ENTRYPOINT, if it is replaced.
    pub entrypoint: Option<Vec<String>>,
    /// CMD, if it is replaced.
    pub command: Option<Vec<String>>,
    /// The environment, files merged in.
    pub env: BTreeMap<String, String>,
    /// Networks in the order of the manifest; never empty.
    pub networks: Vec<DesiredAttachment>,
    /// Published ports.
    pub ports: Vec<DesiredPort>,
    /// Mounts.
    pub mounts: Vec<DesiredMount>,
    /// Files written before the start.
    pub files: Vec<DesiredFile>,
    /// The health check, if one is declared.
    pub health: Option<HealthCheck>,
    /// Limits and reservations.
    pub resources: Resources,
    /// What the engine does when the container ends.
    pub restart: Restart,
    /// Who starts it when the engine starts.
    pub boot_order: BootOrder,
    /// User.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Capabilities to add, sorted, without `CAP_`.
    pub cap_add: Vec<String>,
    /// Capabilities to drop, sorted, without `CAP_`.
    pub cap_drop: Vec<String>,
    /// Read-only root file system.
    pub read_only: bool,
    /// Small init process.
    pub init: bool,
    /// Stop signal.
    pub stop_signal: Option<String>,
    /// Time to stop in, in milliseconds.
    pub stop_grace_ms: u64,
    /// Extra hosts.
    pub extra_hosts: BTreeMap<String, String>,
    /// DNS servers.
    pub dns: Vec<String>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits.
    pub ulimits: BTreeMap<String, Ulimit>,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// Logging driver and options, if declared.
    pub logging: Option<(String, BTreeMap<String, String>)>,
    /// Which container goes first in a replacement.
    pub order: UpdateOrder,
    /// So many replicas at a time.
    pub parallelism: u32,
    /// Pause between two replicas, in milliseconds.
    pub delay_ms: u64,
    /// How long a new container must stay healthy to count, in milliseconds.
    pub monitor_ms: u64,
    /// How long a new container may take to become healthy, in milliseconds.
    pub update_timeout_ms: u64,
    /// What a failed update does.
    pub on_failure: OnFailure,
    /// The app face is mounted.
    pub status_socket: bool,
    /// The signal that makes it read its configuration anew.
    pub reload_signal: String,
    /// So many failed starts ..
    pub start_tries: u32,
    /// .. in this time, in milliseconds, are a crash loop.
    pub start_window_ms: u64,
}

/// One network attachment as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredAttachment {
    /// The Network's name in the namespace.
    pub network: Name,
    /// Names under which the container is found, the service's own first.
    pub aliases: Vec<String>,
    /// A fixed address.
    pub ipv4: Option<String>,
}

/// One published port as wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct DesiredPort {
    /// The container's port.
    pub target: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The host's address; empty for all.
    pub host: String,
    /// The host's port; 0 lets the engine pick.
    pub published: u16,
}

/// One mount as wanted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DesiredMount {
    /// Where it appears.
    pub target: String,
    /// What it is.
    pub source: MountSource,
    /// Only readable.
    pub read_only: bool,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum MountSource {
    /// A volume by its engine name.
    Volume(String),
    /// A host path.
    Bind(String),
    /// Memory.
    Tmpfs {
        /// Bytes; 0 for the engine's default.
        size_bytes: u64,
        /// Octal mode; 0 for the engine's default.
        mode: u32,
    },
}

/// One file written into the container before it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredFile {
    /// Where.
    pub target: String,
    /// Octal mode.
    pub mode: u32,
    /// SHA-256 of the content, in hex.
    pub digest: String,
    /// The content.
    pub content: Arc<[u8]>,
}

/// How health is found out, with its timing in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// The way.
    pub kind: HealthKind,
    /// Between two checks of a healthy container.
    pub interval_ms: u64,
    /// For one check.
    pub timeout_ms: u64,
    /// Failures in a row that make it unhealthy.
    pub failures: u32,
    /// Successes in a row that make it healthy.
    pub successes: u32,
    /// Failures in this time after the start do not count.
    pub start_period_ms: u64,
}

/// The way in which health is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HealthKind {
    /// A TCP connection. The host is empty for a container of ours.
    Tcp {
        /// Host name or address; empty = the container's own.
        host: String,
        /// Port.
        port: u16,
    },
    /// An HTTP GET.
    Http {
        /// Host name or address; empty = the container's own.
        host: String,
        /// Port.
        port: u16,
        /// Path and query.
        path: String,
        /// The wanted status; any of 2xx and 3xx when absent.
        status: Option<u16>,
        /// Header fields.
        headers: BTreeMap<String, String>,
    },
    /// PING in the protocol of Redis.
    Redis {
        /// Where.
        at: ServerAddress,
        /// Who logs in.
        login: Login,
    },
    /// A query in the protocol of PostgreSQL.
    Postgres {
        /// Where.
        at: ServerAddress,
        /// Who logs in.
        login: Login,
        /// To which database; the user's own when absent.
        database: Option<String>,
    },
    /// The health of a Vault.
    Vault {
        /// Where.
        at: ServerAddress,
    },
    /// A command in the container.
    Command(Vec<String>),
    /// A command in a container of its own.
    Run {
        /// The image that has the command.
        image: String,
        /// The command.
        command: Vec<String>,
    },
    /// The image's own HEALTHCHECK.
    Image,
}

/// A part of an app as wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredLogical {
    /// The mini service that reports for it, in the same namespace.
    pub reported_by: Name,
    /// How often it reports, in milliseconds.
    pub heartbeat_ms: u64,
}

impl DesiredLogical {
    /// After so long without a report it is silent, in milliseconds: one may be lost.
    pub fn patience_ms(&self) -> u64 {
        self.heartbeat_ms.saturating_mul(2)
    }
}

/// One network as wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredNetwork {
    /// Its address.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Name,
    /// The generation this was made from.
    pub generation: u64,
    /// Deletion was asked for.
    pub deleting: bool,
    /// The driver.
    pub driver: String,
    /// The driver's options.
    pub options: BTreeMap<String, String>,
    /// The address range, if declared.
    pub subnet: Option<String>,
    /// The gateway, if declared.
    pub gateway: Option<String>,
    /// No way out.
    pub internal: bool,
    /// Others may join by hand.
    pub attachable: bool,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// The network to adopt, by its engine name.
    pub adopt: Option<Name>,
}

/// A mini container as it should be: nothing of its own on the engine, but children in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredParent {
    /// Its address.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Name,
    /// The generation this was made from.
    pub generation: u64,
    /// What it says of itself.
    pub rollup: Rollup,
}

impl DesiredParent {
    /// What an object of the store wants.
    ///
    /// # Errors
    /// When the stored spec does not fit this release.
    pub fn from_object(object: &Object) -> Result<Self, DesiredError> {
        let spec: MiniContainerSpec = object.decode_spec()?;
        Ok(Self {
            key: object.key.clone(),
            uid: object.meta.uid.clone(),
            generation: object.meta.generation,
            rollup: Rollup { allow_empty: spec.allow_empty.unwrap_or(false), deleting: object.is_deleting() },
        })
    }
}

/// Why a stored object cannot be turned into something wanted.
#[derive(Debug, thiserror::Error)]
pub enum DesiredError {
    /// The stored spec has another shape.
    #[error("the stored spec does not fit this release")]
    Decode(#[from] qm_api::meta::DecodeError),
    /// The form is not built yet, or none is given.
    #[error("{0} has no form that this release supports")]
    Form(ObjectKey),
    /// A referenced file is not in the store.
    #[error("the file `{file}` that {key} refers to is not in the store; it comes back with the next scan of its source")]
    File {
        /// The object.
        key: ObjectKey,
        /// The reference as written.
        file: String,
    },
}

/// The engine name of a namespaced volume or network.
pub fn engine_name(namespace: &str, name: &str) -> String {
    format!("{namespace}_{name}")
}

impl DesiredService {
    /// Applies every default to a stored MiniService.
    ///
    /// # Errors
    /// When the stored spec does not fit, has no supported form, or refers to a file that is not in `files`.
    pub fn from_object(object: &Object, files: &Files) -> Result<Self, DesiredError> {
        let spec: MiniServiceSpec = object.decode_spec()?;
        let key = object.key.clone();
        let form = match (&spec.container, &spec.external, &spec.logical, &spec.job) {
            (Some(container), None, None, None) => Form::Container(Box::new(container_form(&key, container, files)?)),
            (None, None, None, Some(job)) => Form::Job(Box::new(job_form(&key, job, files)?)),
            (None, None, Some(logical), None) => Form::Logical(DesiredLogical {
                reported_by: logical.reported_by.as_str().into(),
                heartbeat_ms: logical.heartbeat.map_or(15_000, Duration::as_millis),
            }),
            (None, Some(external), None, None) => {
                let timing = Health {
                    interval: external.interval,
                    timeout: external.timeout,
                    retries: external.failure_threshold,
                    ..Health::default()
                };
                let kind = external_kind(&external.probe).ok_or_else(|| DesiredError::Form(key.clone()))?;
                let mut check = health_check(kind, &timing);
                check.successes = external.success_threshold.unwrap_or(1).max(1);
                Form::External(DesiredExternal { check })
            }
            _ => return Err(DesiredError::Form(key)),
        };
        let off = match (&form, spec.enabled) {
            (_, Some(false)) => Some(Reason::Disabled),
            (Form::Container(c), _) if c.replicas == 0 => Some(Reason::ScaledToZero),
            _ => None,
        };
        Ok(Self {
            uid: object.meta.uid.clone(),
            generation: object.meta.generation,
            deleting: object.is_deleting(),
            off,
            unknown_grace_ms: spec.unknown_grace.map_or(30_000, Duration::as_millis),
            critical: spec.critical.unwrap_or(false),
            dependencies: spec.depends_on.iter().filter_map(|e| Dependency::resolve(&key.namespace, e)).collect(),
            form,
            key,
            rollout: Rollout::Wanted,
            drift: spec.drift.as_ref().and_then(|drift| drift.mode).unwrap_or_default(),
            ignored: spec.drift.as_ref().map(|drift| drift.ignore.clone()).unwrap_or_default(),
            hold_off_ms: spec.drift.as_ref().and_then(|drift| drift.hold_off).map_or(0, Duration::as_millis),
            adopt: if spec.job.is_some() { Vec::new() } else { adopted_names(object) },
        })
    }

    /// Whether others may change this field, given as a JSON pointer, on a container that is there.
    pub fn ignores(&self, pointer: &str) -> bool {
        self.ignored
            .iter()
            .any(|ignored| pointer.strip_prefix(ignored.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
    }

    /// What its containers are made of, if it has any.
    pub fn container(&self) -> Option<&DesiredContainer> {
        match &self.form {
            Form::Container(container) => Some(container),
            Form::Job(job) => Some(&job.container),
            Form::External(_) | Form::Logical(_) => None,
        }
    }

    /// Its containers, if they are to run for ever.
    pub fn replicated(&self) -> Option<&DesiredContainer> {
        match &self.form {
            Form::Container(container) => Some(container),
            Form::Job(_) | Form::External(_) | Form::Logical(_) => None,
        }
    }

    /// The job, if that is what it is.
    pub fn job(&self) -> Option<&DesiredJob> {
        match &self.form {
            Form::Job(job) => Some(job),
            Form::Container(_) | Form::External(_) | Form::Logical(_) => None,
        }
    }

    /// Puts an older revision in place of the wanted one: everything that takes a new container, and its health check. What can change in
    /// place, and what steers us, stays as the manifest says.
    ///
    /// # Errors
    /// When the recorded spec, or a file that it refers to, cannot be used any more.
    pub fn roll_back(&mut self, older: &Container, files: &Files, rollout: Rollout) -> Result<(), DesiredError> {
        let mut older = container_form(&self.key, older, files)?;
        let Form::Container(current) = &mut self.form else { return Ok(()) };
        older.replicas = current.replicas;
        older.networks.clone_from(&current.networks);
        older.resources.clone_from(&current.resources);
        older.restart = current.restart;
        older.boot_order = current.boot_order;
        older.pull_policy = current.pull_policy;
        older.follow = current.follow;
        older.stop_grace_ms = current.stop_grace_ms;
        older.order = current.order;
        older.parallelism = current.parallelism;
        older.delay_ms = current.delay_ms;
        older.monitor_ms = current.monitor_ms;
        older.update_timeout_ms = current.update_timeout_ms;
        older.on_failure = current.on_failure;
        older.start_tries = current.start_tries;
        older.start_window_ms = current.start_window_ms;
        older.reload_signal.clone_from(&current.reload_signal);
        **current = older;
        self.rollout = rollout;
        Ok(())
    }

    /// How many containers there should be now.
    pub fn wanted_replicas(&self) -> u32 {
        match (&self.form, self.off, self.deleting) {
            (Form::Container(container), None, false) => container.replicas,
            (Form::Job(_), None, false) => 1,
            _ => 0,
        }
    }

    /// The declared health check, of either form.
    pub fn health(&self) -> Option<&HealthCheck> {
        match &self.form {
            Form::Container(container) => container.health.as_ref(),
            Form::External(external) => Some(&external.check),
            Form::Logical(_) => None,
            Form::Job(_) => None,
        }
    }
}

impl DesiredNetwork {
    /// Applies every default to a stored Network.
    ///
    /// # Errors
    /// When the stored spec does not fit.
    pub fn from_object(object: &Object) -> Result<Self, DesiredError> {
        let spec: NetworkSpec = object.decode_spec()?;
        Ok(Self {
            key: object.key.clone(),
            uid: object.meta.uid.clone(),
            generation: object.meta.generation,
            deleting: object.is_deleting(),
            driver: spec.driver.unwrap_or_else(|| "bridge".to_owned()),
            options: texts(&spec.driver_options),
            subnet: spec.subnet,
            gateway: spec.gateway,
            internal: spec.internal.unwrap_or(false),
            attachable: spec.attachable.unwrap_or(false),
            labels: texts(&spec.labels),
            adopt: adopted_names(object).into_iter().next(),
        })
    }
}

/// Annotation: names of containers, or of a network, that were made by somebody else and are to be taken over as they are.
pub const ADOPT: &str = "quaymaster.dev/adopt";

fn adopted_names(object: &Object) -> Vec<Name> {
    let list = object.meta.annotations.get(ADOPT).map(Name::as_str).unwrap_or_default();
    list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Name::from).collect()
}

fn texts(map: &BTreeMap<String, qm_api::spec::quantity::Scalar>) -> BTreeMap<String, String> {
    map.iter().map(|(k, v)| (k.clone(), v.0.clone())).collect()
}

/// The form of a container that somebody else made, from what it would be in a manifest: to be held against a service's own.
///
/// # Errors
/// When it refers to a file: what was described from a running container never does.
pub fn described_form(key: &ObjectKey, spec: &Container) -> Result<DesiredContainer, DesiredError> {
    container_form(key, spec, &Files::new())
}

fn container_form(key: &ObjectKey, spec: &Container, files: &Files) -> Result<DesiredContainer, DesiredError> {
    let file = |name: &str| files.get(name).cloned().ok_or_else(|| DesiredError::File { key: key.clone(), file: name.to_owned() });
    let mut env = BTreeMap::new();
    for name in &spec.env_file {
        env.extend(parse_env_file(&String::from_utf8_lossy(&file(name)?)));
    }
    env.extend(texts(&spec.env));
    let budget = spec.start_budget.clone().unwrap_or_default();
    let update = spec.update.clone().unwrap_or_default();
    Ok(DesiredContainer {
        replicas: spec.replicas.unwrap_or(1),
        image: spec.image.clone(),
        pull_policy: spec.pull_policy.unwrap_or_default(),
        follow: spec.follow.unwrap_or_default(),
        entrypoint: spec.entrypoint.clone(),
        command: spec.command.clone(),
        env,
        networks: attachments(key, spec),
        ports: spec
            .ports
            .iter()
            .map(|p| DesiredPort {
                target: p.target,
                protocol: match p.protocol.unwrap_or_default() {
                    qm_api::spec::container::Protocol::Tcp => "tcp".to_owned(),
                    qm_api::spec::container::Protocol::Udp => "udp".to_owned(),
                },
                host: p.host.clone().unwrap_or_default(),
                published: p.published.unwrap_or(0),
            })
            .collect(),
        mounts: spec.volumes.iter().filter_map(|m| mount(key, m)).collect(),
        files: spec.configs.iter().map(|c| config_file(c, &file)).collect::<Result<_, _>>()?,
        health: spec.health.as_ref().and_then(|h| container_kind(h).map(|kind| health_check(kind, h))),
        resources: spec.resources.clone().unwrap_or_default(),
        restart: spec.restart.unwrap_or_default(),
        boot_order: spec.boot_order.unwrap_or_default(),
        user: spec.user.as_ref().map(|u| u.0.clone()),
        working_dir: spec.working_dir.clone(),
        cap_add: capabilities(&spec.cap_add),
        cap_drop: capabilities(&spec.cap_drop),
        read_only: spec.read_only.unwrap_or(false),
        init: spec.init.unwrap_or(false),
        stop_signal: spec.stop_signal.clone(),
        stop_grace_ms: spec.stop_grace_period.map_or(10_000, Duration::as_millis),
        extra_hosts: spec.extra_hosts.clone(),
        dns: spec.dns.clone(),
        sysctls: texts(&spec.sysctls),
        ulimits: spec.ulimits.clone(),
        labels: texts(&spec.labels),
        logging: spec.logging.as_ref().map(|l| (l.driver.clone(), texts(&l.options))),
        order: update.order.unwrap_or_default(),
        parallelism: update.parallelism.unwrap_or(1).max(1),
        delay_ms: update.delay.map_or(0, Duration::as_millis),
        monitor_ms: update.monitor.map_or(0, Duration::as_millis),
        update_timeout_ms: update.timeout.map_or(600_000, Duration::as_millis),
        on_failure: update.on_failure.unwrap_or_default(),
        start_tries: budget.tries.unwrap_or(5).max(1),
        start_window_ms: budget.window.map_or(600_000, Duration::as_millis),
        status_socket: spec.status_socket.unwrap_or(false),
        reload_signal: spec.reload_signal.clone().unwrap_or_else(|| "SIGHUP".to_owned()),
    })
}

fn job_form(key: &ObjectKey, spec: &Job, files: &Files) -> Result<DesiredJob, DesiredError> {
    let schedule = match &spec.schedule {
        Some(text) => Some(Schedule::parse(text, spec.time_zone.as_deref().unwrap_or("UTC")).map_err(|_| DesiredError::Form(key.clone()))?),
        None => None,
    };
    let container = container_form(key, &spec.container, files)?;
    Ok(DesiredJob {
        // How often it is tried is ours to count: the engine starts nothing again.
        container: DesiredContainer { replicas: 1, restart: Restart::Never, ..container },
        steps: spec.steps.clone(),
        schedule,
        concurrency: spec.concurrency.unwrap_or_default(),
        missed_runs: spec.missed_runs.unwrap_or_default(),
        retries: spec.retries.unwrap_or(3),
        deadline_ms: spec.active_deadline.map(Duration::as_millis),
    })
}

fn attachments(key: &ObjectKey, spec: &Container) -> Vec<DesiredAttachment> {
    let implicit = vec!["default".to_owned()];
    let names = if spec.networks.is_empty() { &implicit } else { &spec.networks };
    names
        .iter()
        .map(|name| {
            let options = spec.network_options.get(name).cloned().unwrap_or_default();
            let mut aliases = vec![key.name.to_string()];
            for alias in options.aliases {
                if !aliases.contains(&alias) {
                    aliases.push(alias);
                }
            }
            DesiredAttachment { network: name.into(), aliases, ipv4: options.ipv4 }
        })
        .collect()
}

fn mount(key: &ObjectKey, spec: &Mount) -> Option<DesiredMount> {
    let source = match (&spec.name, &spec.bind, &spec.tmpfs) {
        (Some(name), None, None) => MountSource::Volume(engine_name(&key.namespace, name)),
        (None, Some(path), None) => MountSource::Bind(path.clone()),
        (None, None, Some(tmpfs)) => MountSource::Tmpfs {
            size_bytes: tmpfs.size.map_or(0, Size::as_bytes),
            mode: tmpfs.mode.as_deref().and_then(octal).unwrap_or(0),
        },
        _ => return None,
    };
    Some(DesiredMount { target: spec.target.clone(), source, read_only: spec.read_only.unwrap_or(false) })
}

fn config_file(spec: &ConfigFile, file: &impl Fn(&str) -> Result<Arc<[u8]>, DesiredError>) -> Result<DesiredFile, DesiredError> {
    let content: Arc<[u8]> = match (&spec.content, &spec.file) {
        (Some(content), _) => Arc::from(content.as_bytes()),
        (None, Some(name)) => file(name)?,
        (None, None) => Arc::from(&b""[..]),
    };
    Ok(DesiredFile {
        target: spec.target.clone(),
        mode: spec.mode.as_deref().and_then(octal).unwrap_or(0o444),
        digest: crate::leaf::hex_digest(&content),
        content,
    })
}

fn octal(text: &str) -> Option<u32> {
    u32::from_str_radix(text.trim_start_matches("0o"), 8).ok()
}

fn capabilities(list: &[String]) -> Vec<String> {
    let mut list: Vec<String> = list.iter().map(|c| c.to_ascii_uppercase().trim_start_matches("CAP_").to_owned()).collect();
    list.sort();
    list.dedup();
    list
}

fn container_kind(health: &Health) -> Option<HealthKind> {
    if let Some(tcp) = &health.tcp {
        return Some(HealthKind::Tcp { host: String::new(), port: tcp.port });
    }
    if let Some(http) = &health.http {
        return Some(HealthKind::Http {
            host: String::new(),
            port: http.port,
            path: http.path.clone().unwrap_or_else(|| "/".to_owned()),
            status: http.status,
            headers: http.headers.clone(),
        });
    }
    if !health.command.is_empty() {
        return Some(HealthKind::Command(health.command.clone()));
    }
    health.image.as_ref().map(|_| HealthKind::Image)
}

fn health_check(kind: HealthKind, timing: &Health) -> HealthCheck {
    HealthCheck {
        kind,
        interval_ms: timing.interval.map_or(10_000, Duration::as_millis).max(1),
        timeout_ms: timing.timeout.map_or(2_000, Duration::as_millis).max(1),
        failures: timing.retries.unwrap_or(3).max(1),
        successes: 1,
        start_period_ms: timing.start_period.map_or(0, Duration::as_millis),
    }
}

/// Reads `KEY=value` lines: blank lines and `#` comments are left out, `export` before a key is dropped, one pair of quotes around a
/// value is removed, a key without `=` means an empty value.
pub fn parse_env_file(text: &str) -> BTreeMap<String, String> {
    text.trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let line = line.strip_prefix("export ").unwrap_or(line);
            let (key, value) = line.split_once('=').unwrap_or((line, ""));
            let value = value.trim();
            let bare = ['"', '\''].iter().find_map(|q| value.strip_prefix(*q).and_then(|v| v.strip_suffix(*q)));
            (key.trim().to_owned(), bare.unwrap_or(value).to_owned())
        })
        .collect()
}

/// Resource values in the engine's units; 0 means "no limit" everywhere, as in the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct EngineResources {
    /// Billionths of a processor.
    pub nano_cpus: i64,
    /// Bytes.
    pub memory_bytes: i64,
    /// Bytes of the soft limit.
    pub memory_reservation_bytes: i64,
    /// Processes and threads.
    pub pids: i64,
    /// Relative weight; 1024 is one processor.
    pub cpu_shares: i64,
}

impl From<&Resources> for EngineResources {
    fn from(r: &Resources) -> Self {
        let reserved: Reservations = r.reservations.clone().unwrap_or_default();
        Self {
            nano_cpus: r.cpus.map_or(0, Cpus::as_nanos),
            memory_bytes: r.memory.map_or(0, |m| m.as_bytes() as i64),
            memory_reservation_bytes: reserved.memory.map_or(0, |m| m.as_bytes() as i64),
            pids: r.pids.map_or(0, i64::from),
            cpu_shares: reserved.cpus.map_or(0, |c| normal_shares((c.as_nanos() * 1024 / 1_000_000_000).max(2))),
        }
    }
}

/// 1024 shares are what a container has that asks for nothing; the engine has no way back to 0.
pub fn normal_shares(shares: i64) -> i64 {
    if shares == 1024 { 0 } else { shares }
}

/// The engine's restart policy for a wanted one: Docker's own restarts keep the platform up while the operator is away.
pub fn restart_policy(container: &DesiredContainer) -> &'static str {
    match (container.boot_order, container.restart) {
        (BootOrder::Strict, _) | (BootOrder::Early, Restart::Never) => "no",
        (BootOrder::Early, Restart::Always) => "unless-stopped",
        (BootOrder::Early, Restart::OnFailure) => "on-failure",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn env_files_read_as_people_write_them() {
        let env = parse_env_file("\u{feff}# note\n\nA=1\nexport B = two words \nC=\"q=1\"\r\nD='x'\nE\n");
        let list: Vec<(&str, &str)> = env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(list, [("A", "1"), ("B", "two words"), ("C", "q=1"), ("D", "x"), ("E", "")]);
    }
}
