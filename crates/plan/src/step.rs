//! Owns [`Step`]: one external call, with its cause, what it waits for, and what must come before it. The enums are closed: the
//! executor matches on them and decides nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use qm_api::conditions::Reason;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_api::time::Timestamp;
use serde::Serialize;

use crate::desired::{DesiredMount, DesiredPort, EngineResources};

/// A container: one that exists, or one that an earlier step of the same plan makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ContainerRef {
    /// By the engine's id.
    Id(Name),
    /// Made by the step with this index.
    Made(usize),
}

/// An image: known by id, or what an earlier pull step brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ImageRef {
    /// By the engine's id.
    Id(Name),
    /// Known after the pull.
    AfterPull,
}

/// The resolved create body of a container: everything the engine is told when the container is made. Revision records keep it.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Body {
    /// The image: the reference where it names the wanted id, else the id.
    pub image: String,
    /// ENTRYPOINT, if replaced.
    pub entrypoint: Option<Vec<String>>,
    /// CMD, if replaced.
    pub command: Option<Vec<String>>,
    /// `KEY=value`, sorted.
    pub env: Vec<String>,
    /// User.
    pub user: Option<String>,
    /// Working directory.
    pub working_dir: Option<String>,
    /// Labels, the stamp included.
    pub labels: BTreeMap<String, String>,
    /// Published ports.
    pub ports: Vec<DesiredPort>,
    /// Mounts, carried anonymous volumes included.
    pub mounts: Vec<DesiredMount>,
    /// Limits.
    pub resources: EngineResources,
    /// The engine's restart policy.
    pub restart_policy: String,
    /// Added capabilities.
    pub cap_add: Vec<String>,
    /// Dropped capabilities.
    pub cap_drop: Vec<String>,
    /// Read-only root file system.
    pub read_only: bool,
    /// Small init process.
    pub init: bool,
    /// Stop signal.
    pub stop_signal: Option<String>,
    /// Seconds to stop in, rounded up.
    pub stop_timeout_seconds: i64,
    /// `host:address`.
    pub extra_hosts: Vec<String>,
    /// DNS servers.
    pub dns: Vec<String>,
    /// Kernel parameters.
    pub sysctls: BTreeMap<String, String>,
    /// `(name, soft, hard)`.
    pub ulimits: Vec<(String, i64, i64)>,
    /// Logging driver and options, if we say anything about it.
    pub logging: Option<(String, BTreeMap<String, String>)>,
    /// The first network, joined at creation; `None` joins nothing.
    pub network: Option<Join>,
}

/// How a container joins a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Join {
    /// The network's id; empty in a plan made before the network is there.
    pub network_id: Name,
    /// The network's engine name.
    pub network_name: Name,
    /// Names under which the container is found.
    pub aliases: Vec<String>,
    /// A fixed address.
    pub ipv4: Option<String>,
}

/// A file to be written into a container.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FileWrite {
    /// Where.
    pub target: String,
    /// Octal mode.
    pub mode: u32,
    /// SHA-256 of the content.
    pub digest: String,
    /// The content, which no plan prints.
    #[serde(skip)]
    pub content: Arc<[u8]>,
}

impl FileWrite {
    /// The name under which it is kept on the host: another mode is another file.
    pub fn kept_as(digest: &str, mode: u32) -> String {
        format!("{digest}-{mode:o}")
    }
}

/// The resolved create body of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkBody {
    /// The engine name.
    pub name: String,
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
    /// Labels, the stamp included.
    pub labels: BTreeMap<String, String>,
}

/// One external call.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Action {
    /// Fetch an image.
    Pull {
        /// The reference.
        reference: String,
    },
    /// Make a volume.
    CreateVolume {
        /// Its name.
        name: String,
        /// Its labels.
        labels: BTreeMap<String, String>,
    },
    /// Make a container.
    CreateContainer {
        /// Its name.
        name: String,
        /// The image's id, or that it is known after the pull.
        image: ImageRef,
        /// Everything else.
        body: Box<Body>,
    },
    /// Keep files on the host, by their digest: a container with a read-only root file system gets them as binds, since nothing can
    /// be written into it. Never taken away while a container may have them.
    PlaceFiles {
        /// What.
        files: Vec<FileWrite>,
    },
    /// Write files into a container that was not started yet.
    WriteFiles {
        /// Which.
        container: ContainerRef,
        /// What.
        files: Vec<FileWrite>,
    },
    /// Attach a container to a network.
    Connect {
        /// Which.
        container: ContainerRef,
        /// To what, and how.
        join: Join,
    },
    /// Detach a container from a network.
    Disconnect {
        /// Which.
        container: Name,
        /// From what: an id or, where the id is gone, an engine name.
        network: Name,
        /// Its engine name, for people.
        name: Name,
    },
    /// Start a container.
    Start {
        /// Which.
        container: ContainerRef,
    },
    /// Stop a container.
    Stop {
        /// Which.
        container: Name,
        /// Seconds before it is killed.
        grace_seconds: i64,
    },
    /// Stop and start a container.
    Restart {
        /// Which.
        container: Name,
        /// Seconds before it is killed.
        grace_seconds: i64,
    },
    /// Send a container the signal that makes it read its configuration anew.
    Signal {
        /// Which.
        container: Name,
        /// The signal's name.
        signal: String,
    },
    /// Let a frozen container go on.
    Unpause {
        /// Which.
        container: Name,
    },
    /// Give a container another name.
    Rename {
        /// Which.
        container: Name,
        /// The new name.
        to: String,
    },
    /// Change what the engine can change in place.
    Update {
        /// Which.
        container: Name,
        /// Limits.
        resources: EngineResources,
        /// The engine's restart policy.
        restart_policy: String,
    },
    /// Remove a container, never its volumes.
    RemoveContainer {
        /// Which.
        container: Name,
    },
    /// Make a network.
    CreateNetwork {
        /// Everything about it.
        body: Box<NetworkBody>,
    },
    /// Remove a network.
    RemoveNetwork {
        /// Its id.
        network: Name,
        /// Its engine name, for people.
        name: Name,
    },
}

impl Action {
    /// The word for it in plans, events and metrics.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::Pull { .. } => "pull",
            Self::CreateVolume { .. } => "create-volume",
            Self::CreateContainer { .. } => "create",
            Self::PlaceFiles { .. } => "place-files",
            Self::WriteFiles { .. } => "write-files",
            Self::Connect { .. } => "connect",
            Self::Disconnect { .. } => "disconnect",
            Self::Start { .. } => "start",
            Self::Stop { .. } => "stop",
            Self::Restart { .. } => "restart",
            Self::Signal { .. } => "signal",
            Self::Unpause { .. } => "unpause",
            Self::Rename { .. } => "rename",
            Self::Update { .. } => "update",
            Self::RemoveContainer { .. } => "remove",
            Self::CreateNetwork { .. } => "create-network",
            Self::RemoveNetwork { .. } => "remove-network",
        }
    }

    /// Renames the steps whose products it uses.
    pub fn map_made(&mut self, rename: impl Fn(usize) -> usize) {
        if let Self::WriteFiles { container: ContainerRef::Made(made), .. }
        | Self::Connect { container: ContainerRef::Made(made), .. }
        | Self::Start { container: ContainerRef::Made(made) } = self
        {
            *made = rename(*made);
        }
    }

    /// Whether it takes something away that it names by id.
    pub const fn is_destructive(&self) -> bool {
        matches!(self, Self::RemoveContainer { .. } | Self::RemoveNetwork { .. } | Self::Stop { .. } | Self::Disconnect { .. })
    }
}

/// Why a step is taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// It was never there.
    New,
    /// It was there, and somebody took it away.
    Missing,
    /// It should run and does not.
    NotRunning {
        /// What it does instead.
        state: String,
    },
    /// What cannot be changed in place changed.
    Revision {
        /// The old revision.
        from: u64,
        /// The new revision.
        to: u64,
        /// The fields that changed, where both are known.
        fields: Vec<String>,
    },
    /// Somebody else changed a field.
    Drift {
        /// The field.
        field: String,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// The manifest changed a field that can be changed in place.
    Changed {
        /// The field.
        field: String,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// It is to be in a network.
    Joins {
        /// The network.
        network: String,
    },
    /// It is not to be in a network any more.
    Leaves {
        /// The network.
        network: String,
    },
    /// A network's manifest changed: another one takes its place.
    Moves {
        /// The engine name of the one that is left.
        from: String,
        /// The engine name of the one that is joined, where it is known.
        to: String,
    },
    /// Fewer replicas are wanted.
    ScaledDown,
    /// It is off by configuration.
    Off {
        /// Why.
        reason: Reason,
    },
    /// Another container does its work now.
    Superseded,
    /// Its object is being deleted.
    Deleted,
    /// A person asked for it.
    Asked {
        /// Who.
        actor: String,
        /// In their words.
        reason: String,
    },
    /// A dependency returned or changed, and the manifest says what follows.
    Reload {
        /// What happened, in words.
        triggers: Vec<String>,
    },
    /// A dependency that it must not run without is lost.
    DependencyLost {
        /// Which.
        on: ObjectKey,
    },
    /// A dependency that it cannot do without is off.
    DependencyOff {
        /// Which.
        on: ObjectKey,
    },
    /// It was stopped for a dependency that was lost or off, and that has returned.
    DependencyReturned,
    /// It is stamped as ours, and nothing that we remember wants it.
    Orphan,
    /// A job is to run.
    Run {
        /// The run.
        run: Name,
        /// Which part of it, in words.
        part: String,
    },
    /// A container of a job has run for as long as it may.
    DeadlinePassed {
        /// How long that is, in seconds.
        seconds: u64,
    },
    /// How it ended is recorded, and nobody needs it any more.
    Recorded,
}

impl Cause {
    /// Whether we, or a person, mean it: what it takes down is being changed and has not failed.
    pub const fn is_planned(&self) -> bool {
        match self {
            Self::Revision { .. }
            | Self::Changed { .. }
            | Self::Superseded
            | Self::ScaledDown
            | Self::Off { .. }
            | Self::DependencyOff { .. }
            | Self::Deleted
            | Self::Asked { .. }
            | Self::Run { .. }
            | Self::DeadlinePassed { .. }
            | Self::Recorded
            | Self::Reload { .. } => true,
            Self::New
            | Self::Missing
            | Self::NotRunning { .. }
            | Self::Drift { .. }
            | Self::Joins { .. }
            | Self::Leaves { .. }
            | Self::Moves { .. }
            | Self::DependencyLost { .. }
            | Self::DependencyReturned
            | Self::Orphan => false,
        }
    }

    /// Whether somebody else has caused it: it was as wanted before.
    pub const fn is_drift(&self) -> bool {
        matches!(self, Self::Drift { .. } | Self::Missing | Self::NotRunning { .. })
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Missing => f.write_str("missing"),
            Self::NotRunning { state } => write!(f, "is {state}, should run"),
            Self::Revision { from, to, fields } if fields.is_empty() => write!(f, "revision {from} -> {to}"),
            Self::Revision { from, to, fields } => write!(f, "revision {from} -> {to}: {}", fields.join(", ")),
            Self::Drift { field, found, wanted } => write!(f, "drift: {field} is {found}, should be {wanted}"),
            Self::Changed { field, found, wanted } => write!(f, "{field}: {found} -> {wanted}"),
            Self::Joins { network } => write!(f, "joins {network}"),
            Self::Leaves { network } => write!(f, "leaves {network}"),
            Self::Moves { from, to } => write!(f, "moves from {from} to {to}"),
            Self::ScaledDown => f.write_str("fewer replicas"),
            Self::Off { reason } => write!(f, "off: {reason}"),
            Self::Superseded => f.write_str("superseded"),
            Self::Deleted => f.write_str("deleted"),
            Self::Asked { actor, reason } if reason.is_empty() => write!(f, "asked by {actor}"),
            Self::Asked { actor, reason } => write!(f, "asked by {actor}: {reason}"),
            Self::Reload { triggers } => f.write_str(&triggers.join(", ")),
            Self::DependencyLost { on } => write!(f, "{}/{} is lost", on.namespace, on.name),
            Self::DependencyOff { on } => write!(f, "{}/{} is off", on.namespace, on.name),
            Self::DependencyReturned => f.write_str("what it was stopped for has returned"),
            Self::Orphan => f.write_str("orphan"),
            Self::Run { run, part } if run.is_empty() => f.write_str(part),
            Self::Run { run, part } => write!(f, "run {run}, {part}"),
            Self::DeadlinePassed { seconds } => write!(f, "it has run for {seconds} s, as long as it may"),
            Self::Recorded => f.write_str("its end is recorded"),
        }
    }
}

/// What a step waits for before it may be taken.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Wait {
    /// A dependency must be usable.
    Usable {
        /// Which.
        on: ObjectKey,
    },
    /// A dependency must be usable, known bad, or this instant must have passed.
    Tried {
        /// Which.
        on: ObjectKey,
        /// When we go on without it; unknown in a plan from nothing.
        until: Option<Timestamp>,
    },
    /// A network must be there.
    Network {
        /// The Network's name.
        name: Name,
    },
    /// Somebody who depends on it must be gone first.
    Gone {
        /// Who.
        who: ObjectKey,
    },
    /// Containers must have left a network.
    Left {
        /// How many are still in it.
        containers: usize,
    },
    /// Another network of ours must give up the address range first.
    Range {
        /// Its engine name.
        network: Name,
    },
    /// Containers must have joined a network before others leave the one that it takes the place of.
    Joined {
        /// Their names.
        containers: Vec<Name>,
        /// The engine name of the network.
        network: Name,
    },
    /// Containers of dependents must have left a network that another one takes the place of.
    LeftFirst {
        /// Their names.
        containers: Vec<Name>,
        /// The engine name of the network.
        network: Name,
    },
    /// Other replicas must be healthy first.
    Replicas {
        /// The slots that are not.
        slots: Vec<u32>,
    },
    /// Replicas that were just replaced must stay healthy for a while first.
    Settled {
        /// Their slots.
        slots: Vec<u32>,
        /// When they have.
        until: Timestamp,
    },
    /// The update failed and is not carried on.
    Paused {
        /// Why.
        message: String,
    },
    /// The manifest says that drift is only told.
    Reported,
    /// The manifest says that drift is left alone for a while.
    HoldOff {
        /// Until then.
        until: Timestamp,
    },
    /// Somebody changes it again and again: it is left alone for a while.
    Contested {
        /// Until then.
        until: Timestamp,
    },
    /// Others use it or change it under a lock.
    InUse {
        /// Who, at most a few names.
        by: Vec<Name>,
    },
    /// A person must approve it.
    Approval,
    /// A spent budget must recover; `None` when only a person or a changed input can free it.
    Budget {
        /// When the window ends.
        until: Option<Timestamp>,
        /// What keeps failing.
        evidence: String,
    },
    /// The record must say that it begins before it may be started.
    Begun,
    /// A pause after a failure.
    Backoff {
        /// When it is tried again.
        until: Timestamp,
    },
    /// Somebody suspended it.
    Suspended {
        /// Who, and until when.
        by: String,
    },
    /// Something could not be observed.
    Observation {
        /// What.
        what: String,
    },
}

impl Wait {
    /// The instant at which the wait is worth another look, where it has one.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Tried { until, .. } | Self::Budget { until, .. } => *until,
            Self::Backoff { until } | Self::Settled { until, .. } | Self::HoldOff { until } | Self::Contested { until } => Some(*until),
            _ => None,
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable { on } => write!(f, "{}/{} usable", on.namespace, on.name),
            Self::Tried { on, .. } => write!(f, "{}/{} usable or given up", on.namespace, on.name),
            Self::Network { name } => write!(f, "network {name}"),
            Self::Gone { who } => write!(f, "{}/{} gone", who.namespace, who.name),
            Self::Left { containers: 1 } => f.write_str("1 container to leave"),
            Self::Left { containers } => write!(f, "{containers} containers to leave"),
            Self::Range { network } => write!(f, "the address range of {network}"),
            Self::Joined { containers, network } => write!(f, "{} to join {network}", few(containers)),
            Self::LeftFirst { containers, network } => write!(f, "{} to leave {network}", few(containers)),
            Self::Replicas { slots } => {
                let slots: Vec<String> = slots.iter().map(u32::to_string).collect();
                write!(f, "replica {} healthy", slots.join(", "))
            }
            Self::Settled { slots, .. } => {
                let slots: Vec<String> = slots.iter().map(u32::to_string).collect();
                write!(f, "replica {} to stay healthy for a while", slots.join(", "))
            }
            Self::Paused { message } => f.write_str(message),
            Self::Reported => f.write_str("drift is only reported"),
            Self::HoldOff { .. } => f.write_str("drift is left alone for a while"),
            Self::Contested { .. } => f.write_str("contested: it was changed again after it was put back"),
            Self::InUse { by } => write!(f, "{} to let go of it", few(by)),
            Self::Approval => f.write_str("approval"),
            Self::Budget { evidence, .. } => write!(f, "budget spent: {evidence}"),
            Self::Begun => f.write_str("its beginning to be recorded"),
            Self::Backoff { .. } => f.write_str("pause after a failure"),
            Self::Suspended { by } => write!(f, "suspended by {by}"),
            Self::Observation { what } => write!(f, "{what} to be observed"),
        }
    }
}

/// The first three names, and how many more there are.
fn few(names: &[Name]) -> String {
    let shown: Vec<&str> = names.iter().take(3).map(Name::as_str).collect();
    match names.len().saturating_sub(3) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// What must be held while a step is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Lease {
    /// The change of its service: after the step no replica serves.
    Change,
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The external call.
    pub action: Action,
    /// The object it is done for.
    pub object: ObjectKey,
    /// The slot, for containers; 0 otherwise.
    pub slot: u32,
    /// Why.
    pub cause: Cause,
    /// What must hold first; all of it.
    pub waits: Vec<Wait>,
    /// Indices of steps that must have succeeded first.
    pub after: Vec<usize>,
    /// Whether a person must approve it.
    pub needs_approval: bool,
    /// What must be held while it is taken.
    pub needs: Option<Lease>,
}

impl Step {
    /// The step's hash: what a person approves. SHA-256, in hex, of the canonical JSON of what is done and why, without times.
    pub fn hash(&self) -> String {
        let value = serde_json::json!({ "action": self.action, "object": self.object, "slot": self.slot, "cause": self.cause });
        crate::leaf::hex_digest(value.to_string().as_bytes())
    }

    /// `NS/NAME` or `NS/NAME.SLOT`.
    pub fn subject(&self) -> String {
        match self.slot {
            0 => format!("{}/{}", self.object.namespace, self.object.name),
            slot => format!("{}/{}.{slot}", self.object.namespace, self.object.name),
        }
    }
}

impl fmt::Display for Step {
    /// `VERB KIND NS/NAME[.SLOT]  CAUSE  [waits: COND]  [approve: HASH]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}  {}", self.action.verb(), self.object.kind, self.subject(), self.cause)?;
        if let Action::CreateContainer { image: ImageRef::AfterPull, .. } = self.action {
            f.write_str("  image: after pull")?;
        }
        let waits: Vec<String> = self.waits.iter().filter(|w| **w != Wait::Approval).map(Wait::to_string).collect();
        if !waits.is_empty() {
            write!(f, "  [waits: {}]", waits.join("; "))?;
        }
        if self.needs_approval {
            write!(f, "  [approve: {}]", &self.hash()[..12])?;
        }
        Ok(())
    }
}
