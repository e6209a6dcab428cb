//! The app face: what an app may ask and say of its own namespace, over a socket that is mounted into its containers; and the same URLs for
//! every namespace on the operator's own socket. Answers come from memory.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::stream;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use qm_api::availability::Availability;
use qm_api::meta::GROUP;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::app::{App, MOST_WORDS, ask, closing, json, parse_object, read_body, with_type};
use crate::ports::{HeartbeatRequest, Usable};
use crate::query::Query;
use crate::status::{Failure, Reason};

/// A silent stream says so often that it is still there.
const STILL_THERE: Duration = Duration::from_secs(15);
/// So long changes are gathered before they are told: many come at once, and each costs a look at the whole namespace.
const GATHER: Duration = Duration::from_millis(20);

/// Answers `GET /usable/NS/NAME[?operation=]`.
pub(crate) fn usable(app: &App, namespace: &str, name: &str, query: &Query) -> Result<Response, Failure> {
    let Some(usable) = (app.ports.usable)(namespace, name, query.get("operation")) else {
        let message = format!("there is no service `{name}` in namespace `{namespace}`");
        return Err(Failure::new(Reason::NotFound, message).about(GROUP, "miniservices", name));
    };
    let status = if usable.usable { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = with_type(status, "application/json", usable.json().into());
    if let (false, Some(seconds)) = (usable.usable, usable.retry_after_seconds) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Answers `GET /usable/NS`: every service of a namespace, at one version. 200, whatever they say.
pub(crate) fn usable_all(app: &App, namespace: &str) -> Response {
    let (version, services) = (app.ports.usable_all)(namespace);
    let services: Vec<String> = services.iter().map(Usable::json).collect();
    let (namespace, version) = (Value::from(namespace), Value::from(version));
    let text = format!("{{\"namespace\":{namespace},\"services\":[{}],\"version\":{version}}}", services.join(","));
    let mut response = with_type(StatusCode::OK, "application/json", text.into());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Said {
    #[serde(default)]
    availability: Option<Availability>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    blocked_operations: Vec<String>,
    #[serde(default)]
    ack: Option<String>,
}

/// The most of a reason, and of operations, that is kept.
const MOST_TEXT: usize = 1_024;
const MOST_OPERATIONS: usize = 64;

/// Answers `POST /heartbeat/NS/NAME`.
pub(crate) async fn heartbeat(app: &App, namespace: String, name: String, body: Body) -> Result<Response, Failure> {
    let said: Said = parse_object(&read_body(body, MOST_WORDS).await?, "a heartbeat")?;
    if said.blocked_operations.len() > MOST_OPERATIONS || said.blocked_operations.iter().any(|o| o.len() > MOST_TEXT) {
        return Err(Failure::invalid_field(
            "blockedOperations",
            format!("at most {MOST_OPERATIONS} operations of at most {MOST_TEXT} bytes"),
        ));
    }
    let mut reason = said.reason;
    if reason.len() > MOST_TEXT {
        let end = (0..=MOST_TEXT).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
        reason.truncate(end);
    }
    let request = HeartbeatRequest {
        namespace,
        name,
        availability: said.availability.unwrap_or(Availability::Available),
        reason,
        blocked_operations: said.blocked_operations,
        ack: said.ack,
    };
    Ok(json(StatusCode::OK, &ask((app.ports.heartbeat)(request)).await?))
}

/// Answers `GET /watch/NS`: server-sent events. First an event `usable` for each service and `synced`; from then on one for each service
/// whose answer changed, `gone` for one that is no more, and `reload` for what an app is to reload and has not acknowledged.
pub(crate) fn watch(app: &Arc<App>, namespace: String, parts: &Parts) -> Result<Response, Failure> {
    let feed = Feed {
        changes: (app.ports.changes)(),
        place: app.stream_place()?,
        closing: closing(parts),
        app: Arc::clone(app),
        namespace,
        told: BTreeMap::new(),
        reloads: BTreeMap::new(),
        is_synced: false,
        quiet_until: Instant::now() + STILL_THERE,
    };
    let events = stream::unfold(feed, |mut feed| async move { feed.next().await.map(|text| (Ok::<_, Infallible>(text), feed)) });
    let mut response = with_type(StatusCode::OK, "text/event-stream", Body::from_stream(events));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Feed {
    app: Arc<App>,
    namespace: String,
    changes: watch::Receiver<u64>,
    closing: CancellationToken,
    /// What was told last, by service, without the version.
    told: BTreeMap<String, String>,
    reloads: BTreeMap<String, Value>,
    is_synced: bool,
    /// When it is to say that it is still there, however much happens elsewhere.
    quiet_until: Instant,
    #[expect(dead_code, reason = "held for as long as the stream lives")]
    place: OwnedSemaphorePermit,
}

impl Feed {
    async fn next(&mut self) -> Option<String> {
        loop {
            self.changes.borrow_and_update();
            let mut text = self.news();
            if !self.is_synced {
                self.is_synced = true;
                text.push_str(&event("synced", &json!({})));
            }
            if text.is_empty() && Instant::now() >= self.quiet_until {
                ": still there\n\n".clone_into(&mut text);
            }
            if !text.is_empty() {
                self.quiet_until = Instant::now() + STILL_THERE;
                return Some(text);
            }
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                changed = self.changes.changed() => {
                    changed.ok()?;
                    sleep(GATHER).await;
                }
                () = sleep_until(self.quiet_until) => {}
            }
        }
    }

    /// The events for everything that is not as it was told last.
    fn news(&mut self) -> String {
        let (_, services) = (self.app.ports.usable_all)(&self.namespace);
        let mut text = String::new();
        let mut now = BTreeMap::new();
        for usable in services {
            if self.told.get(&usable.service) != Some(&usable.facts) {
                text.push_str(&event("usable", &usable.json()));
            }
            now.insert(usable.service, usable.facts);
        }
        for name in self.told.keys().filter(|name| !now.contains_key(*name)) {
            text.push_str(&event("gone", &json!({ "namespace": self.namespace, "service": name })));
        }
        self.told = now;
        let reloads: BTreeMap<String, Value> = (self.app.ports.reloads)(&self.namespace)
            .into_iter()
            .map(|reload| (reload["id"].as_str().unwrap_or_default().to_owned(), reload))
            .collect();
        for (_, reload) in reloads.iter().filter(|(id, _)| !self.reloads.contains_key(*id)) {
            text.push_str(&event("reload", reload));
        }
        self.reloads = reloads;
        text
    }
}

fn event(name: &str, data: &impl std::fmt::Display) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}
