//! Owns the way to the operator: HTTP/1.1 over its unix socket, one connection a request. Never retries.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::wire::Status;

/// How long the operator may take to answer, beyond what a request itself waits for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest answer that is taken into memory.
const MOST_BYTES: usize = 1 << 20;

/// Why there is no answer, or not the one hoped for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Nobody answers: the operator is away, or its socket is not mounted here.
    #[error("the operator does not answer at {}", socket.display())]
    Away {
        /// Where it was looked for.
        socket: PathBuf,
        /// What the connection had against it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operator refuses.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        code: u16,
        /// Why, in one word: `Changing`, `InUse`, `Stale`, `NotFound`, ..
        reason: String,
        /// Why, in a sentence.
        message: String,
        /// After how many seconds asking again makes sense.
        retry_after: Option<u64>,
    },
    /// Its answer has an unexpected shape.
    #[error("the answer of the operator cannot be read: {0}")]
    Unreadable(String),
    /// The request cannot be sent: a name that is none.
    #[error("this cannot be asked: {0}")]
    Malformed(String),
}

impl Error {
    /// Whether asking the same again later can help.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Away { .. } => true,
            Self::Refused { code, .. } => *code == 429 || *code >= 500,
            Self::Unreadable(_) | Self::Malformed(_) => false,
        }
    }

    /// Whether somebody else is in the way: 409 `Changing` or `InUse`.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Refused { code: 409, reason, .. } if reason == "Changing" || reason == "InUse")
    }
}

/// The socket of one operator, for one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    socket: PathBuf,
    namespace: String,
}

impl Link {
    pub(crate) fn new(socket: PathBuf, namespace: String) -> Self {
        Self { socket, namespace }
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The URL of a service's lock.
    pub(crate) fn lock_path(&self, service: &str) -> String {
        format!("/apis/quaymaster.dev/v1alpha1/namespaces/{}/miniservices/{service}/lock", self.namespace)
    }

    /// POSTs a value and reads the answer; the operator itself waits for `waits`.
    pub(crate) async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize, waits: Duration) -> Result<T, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::Malformed(error.to_string()))?;
        let bytes = match timeout(waits + PATIENCE, self.exchange(Method::POST, path, body.into())).await {
            Ok(bytes) => bytes?,
            Err(elapsed) => return Err(self.away(elapsed)),
        };
        serde_json::from_slice(&bytes).map_err(|error| Error::Unreadable(error.to_string()))
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, Error> {
        let answer = self.send(method, path, body).await?;
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        Ok(body.map_err(|error| self.away(error))?.to_bytes())
    }

    /// Begins to read an endless answer.
    pub(crate) async fn open(&self, path: &str) -> Result<Incoming, Error> {
        match timeout(PATIENCE, self.send(Method::GET, path, Bytes::new())).await {
            Ok(answer) => Ok(answer?.into_body()),
            Err(elapsed) => Err(self.away(elapsed)),
        }
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Error> {
        let request = Request::builder().method(method).uri(path).header(header::HOST, "quaymaster");
        let request = request.header(header::CONTENT_TYPE, "application/json").body(Full::new(body));
        let request = request.map_err(|error| Error::Malformed(error.to_string()))?;
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.away(error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.away(error))?;
        // It lives for as long as the answer is read; its errors show there.
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|error| self.away(error))?;
        if answer.status().is_success() { Ok(answer) } else { Err(refusal(answer).await) }
    }

    pub(crate) fn away(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::Away { socket: self.socket.clone(), source: source.into() }
    }

    /// The stream is over.
    pub(crate) fn ended(&self) -> Error {
        self.away(io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}

async fn refusal(answer: Response<Incoming>) -> Error {
    let code = answer.status();
    let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let status: Status = serde_json::from_slice(&body).unwrap_or_default();
    let message = if status.message.is_empty() { code.to_string() } else { status.message };
    Error::Refused { code: code.as_u16(), reason: status.reason, message, retry_after: status.details.retry_after_seconds }
}
