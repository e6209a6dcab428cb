//! What goes into the engine and what comes out, as data.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::event::EventFilter;

/// One API request, already taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method, in capitals.
    pub method: String,
    /// The path without version prefix and query.
    pub path: String,
    /// The query, decoded.
    pub query: BTreeMap<String, Vec<String>>,
    /// The body.
    pub body: Vec<u8>,
    /// The API version asked for.
    pub api: (u32, u32),
    /// `X-Registry-Auth`, as it came.
    pub registry_auth: Option<String>,
}

impl Request {
    /// A request without query and body, at API 1.41.
    pub fn new(method: &str, path: &str) -> Self {
        Self {
            method: method.to_owned(),
            path: path.to_owned(),
            query: BTreeMap::new(),
            body: Vec::new(),
            api: (1, 41),
            registry_auth: None,
        }
    }

    /// With one more query parameter.
    #[must_use]
    pub fn with_query(mut self, key: &str, value: &str) -> Self {
        self.query.entry(key.to_owned()).or_default().push(value.to_owned());
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn with_body(mut self, body: &Value) -> Self {
        self.body = body.to_string().into_bytes();
        self
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.query.get(key).and_then(|v| v.first()).map(String::as_str)
    }

    /// The daemon's idea of a boolean: everything but these is true.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| !matches!(v.trim().to_ascii_lowercase().as_str(), "" | "0" | "no" | "false" | "none"))
    }

    /// The body as a JSON object.
    pub(crate) fn json(&self) -> Result<Value, Failure> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Err(Failure::new(500, "EOF"));
        }
        let wrong = |_| Failure::new(500, super::filter::go_json_error(&String::from_utf8_lossy(&self.body), "unexpected EOF"));
        serde_json::from_slice(&self.body).map_err(wrong)
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The status code.
    pub status: u16,
    /// The daemon's words.
    pub message: String,
}

impl Failure {
    pub(crate) fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Json { status: failure.status, body: json!({ "message": failure.message }) }
    }
}

/// An answer, or the description of one that takes time.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A JSON document.
    Json {
        /// The status code.
        status: u16,
        /// The document.
        body: Value,
    },
    /// Nothing but a status.
    Empty {
        /// The status code.
        status: u16,
    },
    /// Bytes with headers of their own.
    Bytes {
        /// The status code.
        status: u16,
        /// The content type.
        content_type: &'static str,
        /// More headers.
        headers: Vec<(&'static str, String)>,
        /// The bytes.
        body: Vec<u8>,
    },
    /// The answer is not there yet: ask [`super::Engine::take`] for it after every change.
    Later(Ticket),
    /// The head goes out at once, the body as it comes: [`super::Engine::poll`].
    Stream(Stream),
    /// The connection becomes a raw stream: [`super::Engine::poll`] for what goes out, `echo` says what to do with what comes in.
    Hijack(Stream),
}

impl Reply {
    pub(crate) fn ok(body: Value) -> Self {
        Self::Json { status: 200, body }
    }

    /// The status code that the head will have, if it is known.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Json { status, .. } | Self::Empty { status } | Self::Bytes { status, .. } => Some(*status),
            Self::Stream(_) => Some(200),
            Self::Hijack(_) => Some(101),
            Self::Later(_) => None,
        }
    }
}

/// The promise of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(crate) u64);

/// A body that comes bit by bit.
#[derive(Clone, Debug)]
pub enum Stream {
    /// Events, one JSON document each.
    Events(EventFeed),
    /// The log of a container.
    Logs(LogFeed),
    /// The end of a container.
    Wait(WaitFeed),
    /// The progress of a pull.
    Pull(PullFeed),
    /// Bytes that are all there, and then, where `echo` says so, what the client sends.
    Done(Output),
}

/// Where a follower of events stands.
#[derive(Clone, Debug)]
pub struct EventFeed {
    pub(crate) next: u64,
    pub(crate) filter: EventFilter,
    pub(crate) until: Option<i64>,
}

/// Where a reader of a log stands.
#[derive(Clone, Debug)]
pub struct LogFeed {
    pub(crate) container: Arc<str>,
    pub(crate) next: u64,
    pub(crate) follow: Follow,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
    pub(crate) timestamps: bool,
    pub(crate) raw: bool,
    pub(crate) until: Option<i64>,
}

/// When a log has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Follow {
    /// With what is there.
    No,
    /// When the container has ended once more than this.
    UntilExit(u64),
}

/// What is waited for, and since when.
#[derive(Clone, Debug)]
pub struct WaitFeed {
    pub(crate) container: Arc<str>,
    pub(crate) condition: WaitFor,
}

/// The conditions of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// It does not run.
    NotRunning,
    /// It ended once more than this.
    NextExit(u64),
    /// It is gone.
    Removed,
    /// It was answered.
    Over,
}

/// A pull under way.
#[derive(Clone, Debug)]
pub struct PullFeed {
    pub(crate) lines: Vec<(u64, Value)>,
    pub(crate) next: usize,
    pub(crate) image: Option<String>,
}

/// Output that is there from the beginning.
#[derive(Clone, Debug, Default)]
pub struct Output {
    pub(crate) bytes: Vec<u8>,
    /// Whether what the client sends comes back, and framed how.
    pub(crate) echo: Echo,
}

/// What becomes of the client's input on a hijacked connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Echo {
    /// It is swallowed.
    #[default]
    No,
    /// It comes back in frames of the standard output.
    Framed,
    /// It comes back as it is.
    Raw,
}

/// One look at a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Polled {
    /// Nothing yet.
    Idle,
    /// These bytes; there may be more.
    Data(Vec<u8>),
    /// An event, so that it can be lost or doubled on the way.
    Event(super::event::Event),
    /// The end.
    End,
}

/// Which of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// One frame of the multiplexed stream.
pub(crate) fn frame(channel: Channel, payload: &[u8]) -> Vec<u8> {
    let kind = match channel {
        Channel::Out => 1,
        Channel::Err => 2,
    };
    let mut out = vec![kind, 0, 0, 0];
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out
}
