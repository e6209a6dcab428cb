//! Owns the way to a running operator: HTTP/1.1 over its unix socket, one connection a request.
//!
//! Answers are JSON values, streams of lines, or bytes; refusals are [`ClientError`]s that say what a person can do. Never retries: what
//! to do about a lost connection is the caller's. Start at [`Client::get`].

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use qm_api::field::Violation;
use serde_json::{Value, json};
use tokio::net::UnixStream;

/// Where the operator listens unless told otherwise.
pub(crate) const DEFAULT_SOCKET: &str = "/run/quaymaster/quaymaster.sock";
/// The longest path that a socket can have.
const MAX_SOCKET_PATH: usize = 107;
/// How long the operator may take to begin an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// The largest answer that is taken into memory.
const MAX_ANSWER_BYTES: usize = 512 << 20;
/// The longest line of a watch.
const MAX_LINE_BYTES: usize = 64 << 20;

/// What Kubernetes' clients ask for when they want a table.
const ACCEPT_TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const ACCEPT_JSON: &str = "application/json";

/// The form in which objects are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// Whole objects.
    Json,
    /// The server's table.
    Table,
}

impl Form {
    const fn accept(self) -> &'static str {
        match self {
            Self::Json => ACCEPT_JSON,
            Self::Table => ACCEPT_TABLE,
        }
    }
}

/// A refusal by the operator, in the words of its `Status`.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) code: u16,
    /// The message for people.
    pub(crate) message: String,
    /// What is wrong with the files that were sent.
    pub(crate) violations: Vec<Violation>,
}

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    /// There is no socket.
    #[error("no operator listens at {}: start one with `quaymaster run --socket {} ..`, or name its socket with --socket", .path.display(), .path.display())]
    NoSocket { path: PathBuf },
    /// There is a socket and nobody behind it.
    #[error("no operator listens at {}: it was left behind by one that has ended; start one with `quaymaster run --socket {} ..`, or name another socket with --socket", .path.display(), .path.display())]
    Refused { path: PathBuf },
    /// The system says no.
    #[error("permission denied at {}: the socket belongs to the user that runs the operator; use that user (or sudo)", .path.display())]
    Denied { path: PathBuf },
    /// No socket can have such a path.
    #[error("the socket path {} is longer than {MAX_SOCKET_PATH} bytes; give a shorter one with --socket", .path.display())]
    TooLong { path: PathBuf },
    /// Something else about the socket.
    #[error("cannot connect to the operator at {}", .path.display())]
    Connect { path: PathBuf, source: io::Error },
    /// The connection broke, or is no HTTP.
    #[error("the connection to the operator was lost; it may be restarting")]
    Lost(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It does not answer.
    #[error("the operator at {} did not answer within {} s; look at its log", .path.display(), ANSWER_TIMEOUT.as_secs())]
    Silent { path: PathBuf },
    /// It refused.
    #[error("{0}")]
    Refusal(Refusal),
    /// Its answer has an unexpected shape.
    #[error("the answer of the operator cannot be read ({0}); do its version and this one fit? see `quaymaster version`")]
    BadAnswer(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl ClientError {
    /// Nobody is there: an operator may never have been.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::NoSocket { .. } | Self::Refused { .. })
    }

    /// The refusal, where it is one.
    pub(crate) fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refusal(refusal) => Some(refusal),
            _ => None,
        }
    }

    fn is_code(&self, code: u16) -> bool {
        self.refusal().is_some_and(|refusal| refusal.code == code)
    }

    /// The object does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        self.is_code(404)
    }

    /// The state asked for is gone; list again.
    pub(crate) fn is_expired(&self) -> bool {
        self.is_code(410)
    }

    /// Trying again later can help.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::NoSocket { .. } | Self::Refused { .. } | Self::Lost(_) | Self::Silent { .. } => true,
            Self::Refusal(refusal) => refusal.code == 410 || refusal.code == 429 || refusal.code >= 500,
            Self::Denied { .. } | Self::TooLong { .. } | Self::Connect { .. } | Self::BadAnswer(_) => false,
        }
    }
}

/// One change that a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Event {
    /// What happened.
    pub(crate) kind: EventKind,
    /// The object as it is now, or as it last was.
    pub(crate) object: Value,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
    Bookmark,
}

/// The client of one operator.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    socket: PathBuf,
}

impl Client {
    pub(crate) fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into() }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// GETs one JSON value.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ClientError> {
        self.get_as(path, Form::Json).await
    }

    /// GETs objects in one form or the other.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn get_as(&self, path: &str, form: Form) -> Result<Value, ClientError> {
        let answer = self.request(Method::GET, path, form.accept(), None).await?;
        whole(answer).await
    }

    /// POSTs a JSON value.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        self.post_within(path, body, Duration::ZERO).await
    }

    /// POSTs a JSON value; the answer may take so much longer than others.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(crate) async fn post_within(&self, path: &str, body: &Value, more: Duration) -> Result<Value, ClientError> {
        let answer = self.request_within(Method::POST, path, ACCEPT_JSON, Some(body), ANSWER_TIMEOUT + more).await?;
        whole(answer).await
    }

    /// GETs a stream of bytes.
    ///
    /// # Errors
    /// [`ClientError`]; afterwards each piece has its own.
    pub(crate) async fn bytes(&self, path: &str) -> Result<Pieces, ClientError> {
        Ok(Pieces { body: self.request(Method::GET, path, "*/*", None).await?.into_body() })
    }

    /// Begins a watch.
    ///
    /// # Errors
    /// [`ClientError`]; afterwards each event has its own.
    pub(crate) async fn watch(&self, path: &str, form: Form) -> Result<Watch, ClientError> {
        let answer = self.request(Method::GET, path, form.accept(), None).await?;
        Ok(Watch { pieces: Pieces { body: answer.into_body() }, buffer: BytesMut::new() })
    }

    async fn request(&self, method: Method, path: &str, accept: &str, body: Option<&Value>) -> Result<Response<Incoming>, ClientError> {
        self.request_within(method, path, accept, body, ANSWER_TIMEOUT).await
    }

    async fn request_within(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<&Value>,
        within: Duration,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = self.connect().await?;
        let lost = |error: hyper::Error| ClientError::Lost(Box::new(error));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
        // The connection lives as long as the body is read; its errors show there.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "quaymaster").header(header::ACCEPT, accept);
        let bytes = match body {
            Some(value) => {
                request = request.header(header::CONTENT_TYPE, ACCEPT_JSON);
                Bytes::from(value.to_string())
            }
            None => Bytes::new(),
        };
        let request = request.body(Full::new(bytes)).map_err(|error| ClientError::BadAnswer(error.to_string()))?;
        let answer = match tokio::time::timeout(within, sender.send_request(request)).await {
            Ok(answer) => answer.map_err(lost)?,
            Err(_) => return Err(ClientError::Silent { path: self.socket.clone() }),
        };
        if answer.status().is_success() { Ok(answer) } else { Err(refused(answer).await) }
    }

    async fn connect(&self) -> Result<UnixStream, ClientError> {
        let path = self.socket.clone();
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(ClientError::TooLong { path });
        }
        UnixStream::connect(&path).await.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ClientError::NoSocket { path },
            io::ErrorKind::ConnectionRefused => ClientError::Refused { path },
            io::ErrorKind::PermissionDenied => ClientError::Denied { path },
            _ => ClientError::Connect { path, source },
        })
    }
}

/// The pieces of a body.
#[derive(Debug)]
pub(crate) struct Pieces {
    body: Incoming,
}

impl Pieces {
    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks before the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| ClientError::Lost(Box::new(error)))?;
            if let Ok(data) = frame.into_data()
                && !data.is_empty()
            {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// A running watch.
#[derive(Debug)]
pub(crate) struct Watch {
    pieces: Pieces,
    buffer: BytesMut,
}

impl Watch {
    /// The next event; `None` when the server has ended the watch.
    ///
    /// # Errors
    /// When the connection breaks, or the server reports an error in the stream (410: list again).
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, ClientError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return event(&line).map(Some);
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                return Err(ClientError::BadAnswer("a line of the watch has no end".to_owned()));
            }
            match self.pieces.next().await? {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
    }
}

fn event(line: &[u8]) -> Result<Event, ClientError> {
    let bad = |what: &str| ClientError::BadAnswer(format!("{what} in a watch"));
    let mut value: Value = serde_json::from_slice(line).map_err(|error| bad(&error.to_string()))?;
    let object = value.get_mut("object").map(Value::take).ok_or_else(|| bad("an event without an object"))?;
    let kind = match value["type"].as_str() {
        Some("ADDED") => EventKind::Added,
        Some("MODIFIED") => EventKind::Modified,
        Some("DELETED") => EventKind::Deleted,
        Some("BOOKMARK") => EventKind::Bookmark,
        Some("ERROR") => return Err(ClientError::Refusal(refusal(object["code"].as_u64(), &object))),
        other => return Err(bad(&format!("an event of type {other:?}"))),
    };
    Ok(Event { kind, object })
}

async fn whole(answer: Response<Incoming>) -> Result<Value, ClientError> {
    let bytes = collect(answer.into_body()).await?;
    serde_json::from_slice(&bytes).map_err(|error| ClientError::BadAnswer(error.to_string()))
}

async fn collect(body: Incoming) -> Result<Bytes, ClientError> {
    Limited::new(body, MAX_ANSWER_BYTES).collect().await.map(|body| body.to_bytes()).map_err(ClientError::Lost)
}

async fn refused(answer: Response<Incoming>) -> ClientError {
    let status = answer.status();
    let bytes = match collect(answer.into_body()).await {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    let value = serde_json::from_slice(&bytes).unwrap_or_else(|_| json!({"message": String::from_utf8_lossy(&bytes).trim()}));
    let mut refusal = refusal(Some(u64::from(status.as_u16())), &value);
    if refusal.message.is_empty() {
        refusal.message = explain(status);
    }
    ClientError::Refusal(refusal)
}

fn explain(status: StatusCode) -> String {
    format!("the operator answered {} {}", status.as_u16(), status.canonical_reason().unwrap_or_default()).trim_end().to_owned()
}

fn refusal(code: Option<u64>, status: &Value) -> Refusal {
    Refusal {
        code: code.and_then(|code| u16::try_from(code).ok()).unwrap_or(500),
        message: status["message"].as_str().map(crate::output::clean).unwrap_or_default(),
        violations: status.get("violations").and_then(|list| serde_json::from_value(list.clone()).ok()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_and_errors_in_the_stream_are_errors() {
        let added = event(br#"{"type":"ADDED","object":{"a":1}}"#).unwrap();
        assert_eq!(added, Event { kind: EventKind::Added, object: json!({"a": 1}) });
        let gone = event(br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old"}}"#).unwrap_err();
        assert!(gone.is_expired() && gone.is_passing());
        assert_eq!(gone.to_string(), "too old");
        for bad in ["", "{}", r#"{"type":"ODD","object":{}}"#, r#"{"type":"ADDED"}"#, "\u{0}"] {
            assert!(matches!(event(bad.as_bytes()), Err(ClientError::BadAnswer(_))), "{bad}");
        }
    }
}
