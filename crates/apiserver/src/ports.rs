//! Owns [`Ports`]: everything that the server asks of the rest of the operator. Wiring builds it; nothing here does any work.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use qm_api::availability::Availability;
use qm_api::field::Violation;
use qm_api::kinds::intent::{Act, Scope};
use qm_api::lock::LockMode;
use qm_api::meta::Object;
use qm_api::time::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

/// What a port that takes its time gives back.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, PortError>> + Send>>;

/// A port: asks the rest of the operator `Q` and gets `A` after a while.
pub type Ask<Q, A> = Arc<dyn Fn(Q) -> Answer<A> + Send + Sync>;

/// The port that knows, by namespace and name, whether a service, or one operation of it, may be used: at once, from memory.
pub type AskUsable = Arc<dyn Fn(&str, &str, Option<&str>) -> Option<Usable> + Send + Sync>;

/// The port that knows of every service of a namespace whether it may be used, with the version that all of it holds for.
pub type AskUsableAll = Arc<dyn Fn(&str) -> (String, Vec<Usable>) + Send + Sync>;

/// The port that knows what apps of a namespace are to reload.
pub type AskReloads = Arc<dyn Fn(&str) -> Vec<Value> + Send + Sync>;

/// The text of a log as it comes.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes, io::Error>> + Send>>;

/// What the server asks of the rest of the operator.
#[derive(Clone)]
pub struct Ports {
    /// Records an act of a person and answers with its intent.
    pub act: Ask<ActRequest, Object>,
    /// Plans what is, or what would be with other files.
    pub plan: Ask<PlanRequest, PlanAnswer>,
    /// The dependency graph.
    pub graph: Arc<dyn Fn() -> Value + Send + Sync>,
    /// What `quaymaster status` shows.
    pub overview: Arc<dyn Fn() -> Value + Send + Sync>,
    /// Whether the service of that namespace and name may be used now; `None` when there is no such service.
    pub usable: AskUsable,
    /// The same for every service of a namespace.
    pub usable_all: AskUsableAll,
    /// Tells whenever an answer of `usable` may be another one, or an app has something to do.
    pub changes: Arc<dyn Fn() -> watch::Receiver<u64> + Send + Sync>,
    /// The reloads that apps of a namespace are to carry out, as `{service, id, verb, because}`.
    pub reloads: AskReloads,
    /// Takes what an app says of a part of it.
    pub heartbeat: Ask<HeartbeatRequest, Value>,
    /// Asks something of the lock of a service.
    pub lock: Ask<LockRequest, Value>,
    /// Opens the log of a service.
    pub logs: Ask<LogRequest, LogStream>,
    /// Whether the operator does its work; the reasons when it does not.
    pub ready: Arc<dyn Fn() -> Result<(), Vec<String>> + Send + Sync>,
    /// The wall clock.
    pub now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// The version of the operator.
    pub version: String,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").field("version", &self.version).finish_non_exhaustive()
    }
}

/// An act that a person asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct ActRequest {
    /// What is asked for.
    pub act: Act,
    /// What it applies to.
    pub scope: Scope,
    /// Who asks.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
    /// When it ends by itself.
    pub until: Option<Timestamp>,
    /// The hash of the step to approve.
    pub step_hash: Option<String>,
    /// The revision to go back to.
    pub to: Option<u64>,
}

/// What to plan: the files of the operator's own sources, or these in their place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanRequest {
    /// Sources whose files are given; empty to plan what is.
    pub sources: Vec<CandidateSource>,
}

/// One source with the files it would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CandidateSource {
    /// The id of the source.
    pub id: String,
    /// Path within the source -> content.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A plan in both its forms.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanAnswer {
    /// `{steps, findings, summary}`.
    pub plan: Value,
    /// One line a step.
    pub text: String,
}

/// Whether a service may be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usable {
    /// Which service.
    pub service: String,
    /// All that is told of it, as the text of a JSON object, but for the version.
    pub facts: String,
    /// The version that the facts hold for.
    pub version: String,
    /// Whether it may.
    pub usable: bool,
    /// After how long asking again makes sense; `None` when it does not.
    pub retry_after_seconds: Option<u64>,
}

impl Usable {
    /// The facts with their version, as the text of a JSON object.
    pub(crate) fn json(&self) -> String {
        let facts = self.facts.strip_suffix('}').unwrap_or(&self.facts);
        let comma = if facts.len() > 1 { "," } else { "" };
        format!("{facts}{comma}\"version\":{}}}", serde_json::Value::from(self.version.as_str()))
    }
}

/// What an app says of a part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The namespace of the part.
    pub namespace: String,
    /// The name of the part.
    pub name: String,
    /// How available it is.
    pub availability: Availability,
    /// Why; may be empty.
    pub reason: String,
    /// What cannot be done with it now.
    pub blocked_operations: Vec<String>,
    /// The reload that was carried out.
    pub ack: Option<String>,
}

/// Something asked of the lock of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockRequest {
    /// The namespace of the service.
    pub namespace: String,
    /// The name of the service.
    pub name: String,
    /// What.
    pub act: LockAct,
}

/// What is asked of a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockAct {
    /// Take it.
    Acquire {
        /// How.
        mode: LockMode,
        /// For which process.
        holder: String,
        /// How long it may take, in milliseconds.
        wait_ms: u64,
        /// Its term, in milliseconds, where one is wanted.
        term_ms: Option<u64>,
    },
    /// Begin a new term.
    Renew {
        /// Which process.
        holder: String,
        /// The token of its lease.
        token: u64,
        /// What it is.
        mode: Option<LockMode>,
    },
    /// Give it back.
    Release {
        /// Which process.
        holder: String,
        /// The token of its lease.
        token: u64,
    },
    /// Ask whether a token is the current one.
    Check {
        /// The token.
        token: u64,
    },
    /// Who holds it, who waits.
    Show,
}

/// Which log is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRequest {
    /// The namespace of the service.
    pub namespace: String,
    /// The name of the service.
    pub name: String,
    /// Whether the stream goes on with what is written later.
    pub follow: bool,
    /// How many of the last lines; `None` for all.
    pub tail_lines: Option<u64>,
    /// Which slot; `None` for all, each line then begins with `[slot] `.
    pub slot: Option<u32>,
    /// Whether each line begins with its time.
    pub timestamps: bool,
}

/// Why a lock is not granted, or not held any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockReason {
    /// A use met a change.
    Changing,
    /// A change met users, or another change.
    InUse,
    /// The token is not the current one.
    Stale,
}

/// Why a port did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PortError {
    /// What was named is not there.
    #[error("{0}")]
    NotFound(String),
    /// The input is wrong.
    #[error("{message}")]
    Invalid {
        /// What is wrong, in short.
        message: String,
        /// All that is wrong.
        violations: Vec<Violation>,
    },
    /// It does not fit the present state.
    #[error("{0}")]
    Conflict(String),
    /// A lock is not granted, or not held any more.
    #[error("{message}")]
    Locked {
        /// Why, for programs.
        reason: LockReason,
        /// Why, for people.
        message: String,
        /// When asking again makes sense.
        retry_after_seconds: Option<u64>,
    },
    /// This version, or this engine, cannot do it.
    #[error("{0}")]
    NotSupported(String),
    /// It cannot be done now.
    #[error("{message}")]
    Unavailable {
        /// Why.
        message: String,
        /// When trying again makes sense; `None` when only a change can help.
        retry_after_seconds: Option<u64>,
    },
    /// Something of ours is broken.
    #[error("{0}")]
    Internal(String),
}
