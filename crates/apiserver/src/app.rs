//! Owns the way from a request to its handler, and the bounds that hold for every request: size, time, number of streams, panics.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use qm_store::Store;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_service::Service as _;

use crate::page::Views;
use crate::ports::{Answer, Ports};
use crate::query::Query;
use crate::resource::Selection;
use crate::route::{self, Route};
use crate::status::{Failure, Reason};
use crate::{accept, actions, discovery, extra, face, locks, openapi, resource, watch};

/// The most bytes of a body that holds manifests ..
pub(crate) const MOST_BODY: usize = 16 * 1024 * 1024;
/// .. and of one that asks or says something of one service: anybody in a container may send those.
pub(crate) const MOST_WORDS: usize = 128 * 1024;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a port may take to answer.
const PORT_TIMEOUT: Duration = Duration::from_secs(120);
/// The most watches and logs at once.
pub(crate) const MOST_STREAMS: usize = 512;
/// The most backups at once.
const MOST_BACKUPS: usize = 2;

/// What every handler has.
pub(crate) struct App {
    pub(crate) store: Store,
    pub(crate) ports: Ports,
    pub(crate) views: Views,
    streams: Arc<Semaphore>,
    backups: Arc<Semaphore>,
}

/// Says to a request's streams when the server closes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Closing(pub(crate) CancellationToken);

/// The request came over an app face.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnFace;

/// The user on the other end of a unix socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) uid: u32,
}

/// The API as a service: for the sockets of [`serve_unix`](crate::serve_unix) and [`serve_tcp`](crate::serve_tcp), or in process.
///
/// # Guarantees
/// Every refusal is a `Status`, except those of `/readyz` and `/usable`, which have bodies of their own. A panic in a handler is a 500.
///
/// # Caveats
/// Where panics abort the process, nothing can be made of them.
pub fn router(store: Store, ports: Ports) -> Router {
    let app = Arc::new(App {
        store,
        ports,
        views: Views::default(),
        streams: Arc::new(Semaphore::new(MOST_STREAMS)),
        backups: Arc::new(Semaphore::new(MOST_BACKUPS)),
    });
    Router::new().fallback(move |request: Request| {
        let app = Arc::clone(&app);
        async move { answer(&app, request).await }
    })
}

/// The app face of one namespace: whether its services may be used, the watch of that, their locks, and what apps say of their parts. Everything else,
/// and every other namespace, is not there.
pub fn face_router(store: Store, ports: Ports, namespace: String) -> Router {
    let whole = router(store, ports);
    Router::new().fallback(move |request: Request| {
        let is_theirs = match route::parse(request.uri().path()) {
            Some(Route::Live) => true,
            Some(
                Route::Usable { namespace: asked, .. }
                | Route::UsableAll { namespace: asked }
                | Route::WatchUsable { namespace: asked }
                | Route::Heartbeat { namespace: asked, .. }
                | Route::Lock { namespace: asked, .. },
            ) => asked == namespace,
            _ => false,
        };
        let mut whole = whole.clone();
        let mut request = request;
        request.extensions_mut().insert(OnFace);
        async move {
            match is_theirs {
                true => whole.call(request).await.unwrap_or_else(|never| match never {}),
                false => Failure::no_such_url().into_response(),
            }
        }
    })
}

async fn answer(app: &Arc<App>, request: Request) -> Response {
    let is_head = request.method() == Method::HEAD;
    let path = request.uri().path().to_owned();
    let mut response = match AssertUnwindSafe(dispatch(app, request)).catch_unwind().await {
        Ok(Ok(response)) => response,
        Ok(Err(failure)) => failure.into_response(),
        Err(panic) => {
            tracing::error!(path, panic = panic_text(&*panic), "a request handler panicked");
            Failure::new(Reason::InternalError, "this request hit a defect of the server; its log says more").into_response()
        }
    };
    if is_head {
        *response.body_mut() = Body::empty();
    }
    response
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

async fn dispatch(app: &Arc<App>, request: Request) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let route = route::parse(parts.uri.path()).ok_or_else(Failure::no_such_url)?;
    let query = Query::parse(parts.uri.query());
    match route {
        Route::ActOn { kind, namespace, name, action } => {
            only_post(&parts)?;
            let target = actions::Target::Object { kind: kind.0, namespace, name };
            actions::act(app, target, &action, &parts, &query, body).await
        }
        Route::ActWidely { action } => {
            only_post(&parts)?;
            actions::act(app, actions::Target::Wide, &action, &parts, &query, body).await
        }
        Route::Lock { namespace, name, verb } => locks::lock(app, namespace, name, verb, &parts, body).await,
        Route::Plan => {
            only_post(&parts)?;
            extra::plan(app, body).await
        }
        Route::Heartbeat { namespace, name } => {
            only_post(&parts)?;
            face::heartbeat(app, namespace, name, body).await
        }
        Route::Collection { kind, namespace } if !is_read(&parts) => {
            Err(resource::refuse_write(app, kind.0, namespace.as_deref().unwrap_or_default(), None))
        }
        Route::One { kind, namespace, name } if !is_read(&parts) => Err(resource::refuse_write(app, kind.0, &namespace, Some(&name))),
        _ if !is_read(&parts) => Err(Failure::wrong_method("GET", "this URL can only be read")),
        Route::Log { namespace, name } => extra::log(app, namespace, name, &parts, &query).await,
        route => read(app, route, &parts, &query),
    }
}

/// Everything that is answered from memory.
fn read(app: &Arc<App>, route: Route, parts: &Parts, query: &Query) -> Result<Response, Failure> {
    match route {
        Route::Collection { kind, namespace } => {
            let selection = Selection::read(kind.0, namespace, query)?;
            let form = accept::objects(accepted(parts))?;
            if query.is_on("watch") {
                return watch::start(app, selection, form, query, closing(parts));
            }
            resource::list(app, &selection, form, query)
        }
        Route::One { kind, namespace, name } => {
            let form = accept::objects(accepted(parts))?;
            if query.is_on("watch") {
                let namespace = kind.namespaced.then_some(namespace);
                let selection = Selection::read(kind.0, namespace, query)?.with_name(&name);
                return watch::start(app, selection, form, query, closing(parts));
            }
            resource::get(app, kind.0, &namespace, &name, form, query)
        }
        Route::Live => Ok(text(StatusCode::OK, "ok".to_owned())),
        Route::Ready => Ok(match (app.ports.ready)() {
            Ok(()) => text(StatusCode::OK, "ok".to_owned()),
            Err(reasons) => text(StatusCode::SERVICE_UNAVAILABLE, reasons.iter().map(|reason| format!("{reason}\n")).collect()),
        }),
        Route::Version => Ok(json(StatusCode::OK, &discovery::version(&app.ports.version))),
        Route::CoreVersions => discovery::core_versions(parts),
        Route::Groups => discovery::groups(parts),
        Route::Group => Ok(json(StatusCode::OK, &discovery::group())),
        Route::Resources(api) => Ok(json(StatusCode::OK, &discovery::resources(api))),
        Route::OpenApiIndex => Ok(openapi::index(parts)),
        Route::OpenApi(api) => Ok(openapi::document(api, parts, query, (app.ports.now)())),
        Route::OpenApiV2 => Ok(openapi::empty_v2()),
        Route::Graph => Ok(json(StatusCode::OK, &(app.ports.graph)())),
        Route::Overview => Ok(json(StatusCode::OK, &(app.ports.overview)())),
        Route::Backup => extra::backup(app),
        Route::Usable { namespace, name } => face::usable(app, &namespace, &name, query),
        Route::UsableAll { namespace } => Ok(face::usable_all(app, &namespace)),
        Route::WatchUsable { namespace } => face::watch(app, namespace, parts),
        Route::Heartbeat { .. } | Route::Lock { .. } | Route::Log { .. } | Route::ActOn { .. } | Route::ActWidely { .. } | Route::Plan => {
            Err(Failure::no_such_url())
        }
    }
}

impl App {
    /// A place among the streams.
    ///
    /// # Errors
    /// When all are taken.
    pub(crate) fn stream_place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let full = |_| Failure::too_many(format!("{MOST_STREAMS} watches and logs are open, which is all that are served at once"));
        Arc::clone(&self.streams).try_acquire_owned().map_err(full)
    }

    /// A place among the backups.
    ///
    /// # Errors
    /// When all are taken.
    pub(crate) fn backup_place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        let full = |_| Failure::too_many(format!("{MOST_BACKUPS} backups are being written, which is all that are served at once"));
        Arc::clone(&self.backups).try_acquire_owned().map_err(full)
    }
}

/// Waits for a port, not for ever.
pub(crate) async fn ask<T>(answer: Answer<T>) -> Result<T, Failure> {
    match tokio::time::timeout(PORT_TIMEOUT, answer).await {
        Ok(result) => result.map_err(Failure::from),
        Err(_) => Err(Failure::new(Reason::Timeout, format!("there was no answer within {} s", PORT_TIMEOUT.as_secs()))),
    }
}

/// Reads a whole body.
///
/// # Errors
/// When it is too large, too slow or cut off.
pub(crate) async fn read_body(body: Body, most: usize) -> Result<Bytes, Failure> {
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            Err(Failure::new(Reason::TooLarge, format!("the body is larger than {} KiB", most / 1024)))
        }
        Ok(Err(_)) => Err(Failure::bad_request("the body was cut off")),
        Err(_) => Err(Failure::bad_request(format!("the body did not arrive within {} s", BODY_TIMEOUT.as_secs()))),
    }
}

/// Reads a JSON object; nothing at all is an empty one.
///
/// # Errors
/// When it is something else, or has keys or values that do not belong there.
pub(crate) fn parse_object<T: DeserializeOwned + Default>(body: &[u8], of: &str) -> Result<T, Failure> {
    let body = body.trim_ascii();
    if body.is_empty() {
        return Ok(T::default());
    }
    // A list would be taken for the fields in their order.
    if !body.starts_with(b"{") {
        return Err(Failure::bad_request(format!("the body of {of} is a JSON object")));
    }
    serde_json::from_slice(body).map_err(|error| Failure::bad_request(format!("the body is not that of {of}: {error}")))
}

fn is_read(parts: &Parts) -> bool {
    matches!(parts.method, Method::GET | Method::HEAD)
}

fn only_post(parts: &Parts) -> Result<(), Failure> {
    let refused = || Failure::wrong_method("POST", "this URL takes POST only");
    if parts.method == Method::POST { Ok(()) } else { Err(refused()) }
}

/// The text of the `Accept` header.
pub(crate) fn accepted(parts: &Parts) -> Option<&str> {
    parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok())
}

/// When the server that this request came through closes; never, where it came through none.
pub(crate) fn closing(parts: &Parts) -> CancellationToken {
    parts.extensions.get::<Closing>().cloned().unwrap_or_default().0
}

/// An answer in JSON.
pub(crate) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => with_type(status, "application/json", bytes.into()),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            Failure::new(Reason::InternalError, "the answer could not be written as JSON").into_response()
        }
    }
}

fn text(status: StatusCode, text: String) -> Response {
    with_type(status, "text/plain; charset=utf-8", text.into())
}

/// An answer of any type.
pub(crate) fn with_type(status: StatusCode, media_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
