//! Routes and functions behind a client, and the client behind an operator that is played by this test.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use qm_sdk::{Basis, Blocked, Client, RequiresLayer, Then, WhenAway, requires};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tower_layer::Layer;
use tower_service::Service;

const OPEN: WhenAway = WhenAway { last_known_for: Duration::from_secs(30), then: Then::Open };
const CLOSED: WhenAway = WhenAway { last_known_for: Duration::from_secs(30), then: Then::Closed };

/// A service that counts its calls.
#[derive(Clone, Default)]
struct Route(Arc<AtomicUsize>);

impl Service<Request<()>> for Route {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<()>) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Ok(Response::new("served".to_owned())))
    }
}

#[derive(Debug, PartialEq)]
enum Failed {
    Blocked(Blocked),
}

impl From<Blocked> for Failed {
    fn from(blocked: Blocked) -> Self {
        Self::Blocked(blocked)
    }
}

struct Shop {
    client: Client,
}

impl Shop {
    #[requires(service = "db", operation = "write", client = self.client)]
    async fn save<T: Clone>(&self, what: &T) -> Result<T, Failed> {
        let saved = what.clone();
        Ok(saved)
    }
}

#[requires(service = "db")]
async fn save() -> Result<u8, Failed> {
    Ok(1)
}

fn client(home: &TempDir, when_away: WhenAway) -> Client {
    let builder = Client::builder().socket(home.path().join("app.sock")).namespace("shop").when_away(when_away);
    builder.start().expect("it has all it needs")
}

async fn call(layer: RequiresLayer, route: &Route) -> Response<String> {
    let mut service = layer.layer(route.clone());
    let Ok(response) = service.call(Request::new(())).await;
    response
}

#[tokio::test]
async fn what_may_not_be_used_is_not_called() {
    let home = TempDir::new().expect("the temporary folder can be written");
    let route = Route::default();
    let closed = client(&home, CLOSED);
    let response = call(RequiresLayer::new(closed.clone(), "db"), &route).await;
    assert_eq!((response.status(), route.0.load(Ordering::Relaxed)), (StatusCode::SERVICE_UNAVAILABLE, 0));
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    assert_eq!((header("retry-after"), header("content-type"), header("cache-control")), ("5", "application/json", "no-store"));
    let body: Value = serde_json::from_str(response.body()).expect("the body is JSON");
    assert_eq!((&body["service"], &body["reason"], &body["usable"]), (&json!("db"), &json!("Pending"), &json!(false)));
    // One route may choose otherwise.
    let response = call(RequiresLayer::new(closed.clone(), "db").when_away(OPEN).holding_use(Duration::from_secs(5)), &route).await;
    assert_eq!((response.status(), route.0.load(Ordering::Relaxed)), (StatusCode::OK, 1));

    let Err(Failed::Blocked(blocked)) = Shop { client: closed }.save(&1).await else { panic!("it was called") };
    assert_eq!(blocked.to_string(), "db is not to be used now: Pending, the operator was not heard yet");
    assert_eq!(Shop { client: client(&home, OPEN) }.save(&7).await, Ok(7));
    // Without a client of its own, the process's.
    let Err(Failed::Blocked(blocked)) = save().await else { panic!("it was called") };
    assert_eq!((blocked.reason(), blocked.retry_after()), ("NoClient", None));
    let response: Response<String> = blocked.into_response();
    assert_eq!((response.status(), response.headers().get("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, None), "nothing to wait for");
    qm_sdk::install(client(&home, OPEN)).expect("there is none yet");
    assert_eq!(save().await, Ok(1));
    qm_sdk::install(client(&home, OPEN)).expect_err("there is one already");
}

#[test]
fn a_client_needs_a_namespace_and_a_runtime() {
    let refusal = |namespace: &str| Client::builder().namespace(namespace).start().expect_err("it is refused").to_string();
    assert_eq!(refusal("a/b"), "`a/b` is no namespace");
    assert_eq!(refusal("shop"), "a client is started within a tokio runtime");
}

/// An event about a service.
fn usable(name: &str, reason: &str) -> String {
    let body = json!({
        "namespace": "shop", "service": name, "usable": reason == "Healthy", "availability": "Available", "severity": 1, "reason": reason,
        "message": "", "stale": false, "blockedBy": [], "blockedOperations": [], "retryAfter": null, "version": "1",
        "aFieldOfANewerOperator": {},
    });
    format!("event: usable\ndata: {body}\n\n")
}

/// Takes the next watch.
async fn watched(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().await.expect("somebody comes");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a request has a head"));
    }
    assert!(head.starts_with(b"GET /watch/shop HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").await.expect("the client listens");
    stream
}

async fn say(stream: &mut UnixStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("the client listens");
}

/// Waits until the client says this of a service.
async fn until(client: &Client, service: &str, wanted: (&str, Basis)) {
    let asked = async {
        loop {
            let verdict = client.usable(service, None);
            if (verdict.answer.reason.as_str(), verdict.basis) == wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(30), asked).await;
    assert!(found.is_ok(), "waited for {wanted:?} of {service}: {:?}", client.usable(service, None));
}

#[tokio::test]
async fn a_picture_is_taken_whole_and_outlives_the_connection() {
    let home = TempDir::new().expect("the temporary folder can be written");
    let listener = UnixListener::bind(home.path().join("app.sock")).expect("a socket can be had");
    let client = client(&home, CLOSED);

    let mut stream = watched(&listener).await;
    say(&mut stream, &format!("{}{}", usable("db", "Healthy"), usable("cache", "Healthy"))).await;
    assert_eq!(client.usable("db", None).answer.reason, "Pending", "half of it is nothing");
    say(&mut stream, "event: synced\ndata: {}\n\n: still there\n\nevent: ofANewerOperator\ndata: ?\n\n").await;
    until(&client, "db", ("Healthy", Basis::Told)).await;
    say(&mut stream, "event: gone\ndata: {\"namespace\":\"shop\",\"service\":\"cache\"}\n\n").await;
    until(&client, "cache", ("NotFound", Basis::Told)).await;
    assert_eq!(client.away(), None);

    // It goes away: what was known holds, until a new picture is there as a whole.
    drop(stream);
    until(&client, "db", ("Healthy", Basis::LastKnown)).await;
    assert!(client.away().is_some() && client.usable("db", None).answer.stale);
    let mut stream = watched(&listener).await;
    say(&mut stream, &usable("cache", "Exited")).await;
    assert_eq!(client.usable("db", None).basis, Basis::LastKnown);
    say(&mut stream, "event: synced\ndata: {}\n\n").await;
    until(&client, "cache", ("Exited", Basis::Told)).await;
    until(&client, "db", ("NotFound", Basis::Told)).await;

    // What cannot be read is no word of anybody.
    say(&mut stream, "event: usable\ndata: {\"service\":\"cache\"}\n\n").await;
    until(&client, "cache", ("Exited", Basis::LastKnown)).await;
    let mut stream = watched(&listener).await;
    say(&mut stream, "event: synced\ndata: {}\n\n").await;
    until(&client, "cache", ("NotFound", Basis::Told)).await;
    // The last one who looks at it ends the watch.
    drop(client);
    let end = tokio::time::timeout(Duration::from_secs(30), stream.read_u8()).await.expect("it ends");
    end.expect_err("nothing more is asked");
}
