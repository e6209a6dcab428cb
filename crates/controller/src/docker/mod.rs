//! Owns the conversation with the Docker Engine: connection, version negotiation, time-outs, errors. In the product only this module
//! tree sees bollard.
//!
//! Start at [`Docker::connect`]; [`act`] carries out steps, [`convert`] turns answers into plain observed data.

pub mod act;
pub mod convert;
pub mod credentials;
pub mod describe;
pub mod errand;
pub mod error;
pub mod progress;
pub mod read;

use qm_api::mutant::{Mutant, planted};
use qm_api::time::Timestamp;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bollard::BollardRequest;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tower_service::Service;

use crate::dial::{Address, Dial, Stream};
pub use error::DockerError;

/// The oldest API that is good enough.
pub const OLDEST: (u32, u32) = (1, 41);
/// The newest API that we speak.
pub const NEWEST: (u32, u32) = (1, 47);
/// For every call without a time-out of its own.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// What a mutant waits.
const FOR_EVER: Duration = Duration::from_secs(1_000_000_000);

/// What is fixed about an engine while we are connected to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The engine's id.
    pub id: String,
    /// Its version.
    pub version: String,
    /// The API version spoken with it.
    pub api: (u32, u32),
    /// Its default logging driver never rotates by itself.
    pub default_log_grows: bool,
    /// Containers go on while the engine is away.
    pub live_restore: bool,
    /// The engine's own clock at that moment, if it tells.
    pub at: Option<Timestamp>,
}

/// A connection to one engine. Cloning is cheap; every call opens a connection of its own, as Docker's own clients do.
#[derive(Clone)]
pub struct Docker {
    client: bollard::Docker,
    api: Arc<AtomicU32>,
    address: Address,
}

/// Told of every call: method and route template, and the status code (0 for no answer).
pub type CallObserver = Arc<dyn Fn(&str, &str, u16) + Send + Sync>;

impl Docker {
    /// Prepares a connection; nothing is sent yet.
    ///
    /// # Errors
    /// When the address cannot be used at all.
    pub fn new(address: Address, dial: Dial, calls: CallObserver) -> Result<Self, DockerError> {
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(Connector { dial, address: address.clone() });
        let client = Arc::new(client);
        let api = Arc::new(AtomicU32::new(0));
        let transport = move |request: BollardRequest| {
            let client = client.clone();
            let observer = calls.clone();
            let method = request.method().as_str().to_owned();
            let route = route_template(request.uri().path());
            Box::pin(async move {
                let answer = client.request(request).await;
                let code = answer.as_ref().map_or(0, |a| a.status().as_u16());
                observer(&method, &route, code);
                answer.map_err(bollard::errors::Error::from)
            }) as Pin<Box<dyn Future<Output = Result<_, _>> + Send>>
        };
        let version = api.clone();
        let client = bollard::Docker::connect_with_custom_transport(
            transport,
            Some("http://docker"),
            if planted(Mutant::EndlessPatience) { FOR_EVER.as_secs() } else { CALL_TIMEOUT.as_secs() * 10 },
            bollard::API_DEFAULT_VERSION,
        )
        .map_err(DockerError::from)?
        .with_request_modifier(move |request| readable_auth(versioned(request, version.load(Ordering::Relaxed))));
        Ok(Self { client, api, address })
    }

    /// The address it talks to.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The underlying client.
    pub(crate) fn client(&self) -> &bollard::Docker {
        &self.client
    }

    /// Negotiates the API version and reads the facts. To be called at every (re)connection.
    ///
    /// # Errors
    /// When the engine cannot be reached, or no version suits both.
    pub async fn connect(&self) -> Result<Facts, DockerError> {
        self.api.store(0, Ordering::Relaxed);
        let version = timed(CALL_TIMEOUT, self.client.version()).await?;
        let theirs = parse_version(version.api_version.as_deref().unwrap_or("1.24"));
        let their_oldest = parse_version(version.min_api_version.as_deref().unwrap_or("1.12"));
        let api = choose_version(theirs, their_oldest)?;
        self.api.store(api.0 * 1_000 + api.1, Ordering::Relaxed);
        let info = timed(CALL_TIMEOUT, self.client.info()).await?;
        Ok(Facts {
            id: info.id.unwrap_or_default(),
            version: version.version.unwrap_or_default(),
            api,
            default_log_grows: info.logging_driver.as_deref() == Some("json-file"),
            live_restore: info.live_restore_enabled.unwrap_or(false),
            at: info.system_time.and_then(|text| Timestamp::parse(&text).ok()),
        })
    }

    /// Puts a call under a time-out of our own: bollard's covers no more than the head of an answer.
    pub(crate) async fn call<T>(&self, call: impl Future<Output = Result<T, bollard::errors::Error>>) -> Result<T, DockerError> {
        timed(CALL_TIMEOUT, call).await
    }
}

impl std::fmt::Debug for Docker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Docker({})", self.address)
    }
}

/// The version to speak: the lower one of the two newest.
///
/// # Errors
/// When that is older than either side's oldest, with what to do.
pub fn choose_version(theirs: (u32, u32), their_oldest: (u32, u32)) -> Result<(u32, u32), DockerError> {
    let api = theirs.min(NEWEST);
    if api < OLDEST {
        return Err(DockerError::TooOld { found: theirs });
    }
    if api < their_oldest {
        return Err(DockerError::TooNew { oldest: their_oldest });
    }
    Ok(api)
}

pub(crate) async fn timed<T>(limit: Duration, call: impl Future<Output = Result<T, bollard::errors::Error>>) -> Result<T, DockerError> {
    let limit = if planted(Mutant::EndlessPatience) { FOR_EVER } else { limit };
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(DockerError::from),
        Err(_) => Err(DockerError::Timeout { seconds: limit.as_secs() }),
    }
}

fn parse_version(text: &str) -> (u32, u32) {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    (major.parse().unwrap_or(0), minor.parse().unwrap_or(0))
}

/// bollard 0.21.1 never puts the version on the wire (seen; mended upstream after it), so the path is prefixed here.
fn versioned(mut request: BollardRequest, api: u32) -> BollardRequest {
    let path = request.uri().path();
    let versionless = api == 0 || path.starts_with("/_ping") || path == "/version";
    let has_version = path.strip_prefix("/v").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    if versionless || has_version {
        return request;
    }
    let rest = request.uri().path_and_query().map_or("/", |p| p.as_str());
    let prefixed = format!("/v{}.{}{rest}", api / 1_000, api % 1_000);
    let mut parts = request.uri().clone().into_parts();
    if let Ok(path_and_query) = prefixed.parse() {
        parts.path_and_query = Some(path_and_query);
        if let Ok(uri) = http::Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// Puts `X-Registry-Auth` into the alphabet that the engine reads, and marks it so that nothing prints it.
fn readable_auth(mut request: BollardRequest) -> BollardRequest {
    if let Some(value) = request.headers_mut().get_mut("x-registry-auth")
        && let Some(mut safe) = value.to_str().ok().and_then(|text| http::HeaderValue::from_str(&credentials::url_safe(text)).ok())
    {
        safe.set_sensitive(true);
        *value = safe;
    }
    request
}

/// A path without its ids and version, for metrics: `/containers/{id}/start`.
fn route_template(path: &str) -> String {
    const WORDS: [&str; 40] = [
        "containers",
        "json",
        "create",
        "start",
        "stop",
        "kill",
        "restart",
        "rename",
        "update",
        "pause",
        "unpause",
        "archive",
        "logs",
        "wait",
        "exec",
        "resize",
        "networks",
        "connect",
        "disconnect",
        "volumes",
        "images",
        "events",
        "info",
        "version",
        "_ping",
        "prune",
        "tag",
        "push",
        "get",
        "load",
        "system",
        "df",
        "auth",
        "attach",
        "top",
        "stats",
        "changes",
        "export",
        "search",
        "history",
    ];
    let mut template = String::new();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        let is_version = template.is_empty() && part.starts_with('v') && part[1..].starts_with(|c: char| c.is_ascii_digit());
        if is_version {
            continue;
        }
        template.push('/');
        template.push_str(if WORDS.contains(&part) { part } else { "{id}" });
    }
    // Image references have slashes of their own.
    while let Some(at) = template.find("/{id}/{id}") {
        template.replace_range(at..at + 5, "");
    }
    template
}

#[derive(Clone)]
struct Connector {
    dial: Dial,
    address: Address,
}

impl Service<http::Uri> for Connector {
    type Response = Wire;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Wire>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let dialing = (self.dial)(self.address.clone());
        Box::pin(async move { Ok(Wire(TokioIo::new(dialing.await?))) })
    }
}

/// A dialled stream as hyper wants it.
struct Wire(TokioIo<Box<dyn Stream>>);

impl Connection for Wire {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_suits_both_or_is_refused() {
        assert_eq!(choose_version((1, 41), (1, 12)).unwrap(), (1, 41));
        assert_eq!(choose_version((1, 52), (1, 44)).unwrap(), NEWEST);
        assert!(matches!(choose_version((1, 40), (1, 12)), Err(DockerError::TooOld { .. })));
        assert!(matches!(choose_version((1, 60), (1, 55)), Err(DockerError::TooNew { .. })));
    }

    #[test]
    fn routes_have_no_ids() {
        assert_eq!(route_template("/v1.41/containers/abc/start"), "/containers/{id}/start");
        assert_eq!(route_template("/images/library/busybox:local/json"), "/images/{id}/json");
        assert_eq!(route_template("/volumes/create"), "/volumes/create");
        assert_eq!(route_template("/_ping"), "/_ping");
    }
}
