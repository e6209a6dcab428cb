//! Real sockets: modes, stale files, live ones, the end, and the metrics' own router.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use http_body_util::BodyExt;
use qm_apiserver::{Listener, ServeError, metrics_router};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::oneshot;
use tower_service::Service;

use crate::support::{N, World, service};

async fn exchange(mut stream: impl AsyncReadExt + AsyncWriteExt + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    reply
}

async fn get(path: &Path, url: &str) -> String {
    let stream = UnixStream::connect(path).await.unwrap();
    exchange(stream, &format!("GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_and_goes_with_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.sock");
    let world = World::filled().await;
    let listener = Listener::unix(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(listener.serve(world.router.clone(), async move { drop(stopped.await) }));
    assert!(get(&path, "/healthz").await.ends_with("\r\n\r\nok"));

    // A live socket is refused, and goes on.
    let refused = Listener::unix(&path).await.unwrap_err();
    assert!(matches!(&refused, ServeError::InUse { .. }), "{refused}");
    assert!(get(&path, "/version").await.contains("v1.37.0+quaymaster.0.1.0"));

    // Who asks without a name is named by the system.
    let stream = UnixStream::connect(&path).await.unwrap();
    exchange(stream, &format!("POST {N}/db/restart HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")).await;
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&path).unwrap());
    assert_eq!(world.acts.lock().unwrap().pop().unwrap().actor, format!("uid {uid}"));

    // The head of a watch comes before any event, and the watch ends cleanly with the server.
    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream.write_all(format!("GET {N}?watch=1&resourceVersion=8 HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
    }
    world.create(service("shop", "late", json!({}))).await;
    while !seen.ends_with(b"}\n\r\n") {
        assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
    }
    drop(stop);
    server.await.unwrap();
    stream.read_to_end(&mut seen).await.unwrap();
    let text = String::from_utf8(seen).unwrap();
    assert!(text.to_lowercase().contains("transfer-encoding: chunked") && text.ends_with("\r\n0\r\n\r\n"), "{text}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_other_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let listener = Listener::unix(&stale).await.unwrap();
    drop(listener);
    assert!(!stale.exists());

    let file = dir.path().join("notes.txt");
    std::fs::write(&file, "mine").unwrap();
    let refused = Listener::unix(&file).await.unwrap_err();
    assert!(matches!(&refused, ServeError::NotASocket { .. }), "{refused}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");

    let long = dir.path().join("x".repeat(120));
    assert!(matches!(Listener::unix(&long).await.unwrap_err(), ServeError::PathTooLong { .. }));
    let missing = dir.path().join("no/such/dir/q.sock");
    assert!(matches!(Listener::unix(&missing).await.unwrap_err(), ServeError::Io { .. }));
}

#[tokio::test]
async fn a_successors_socket_file_is_not_removed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("q.sock");
    let first = Listener::unix(&path).await.unwrap();
    std::fs::remove_file(&path).unwrap();
    let second = Listener::unix(&path).await.unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_tcp_address_is_served_once() {
    let world = World::filled().await;
    let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.address().unwrap();
    assert!(matches!(Listener::tcp(address).await.unwrap_err(), ServeError::InUse { .. }));
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(listener.serve(world.router.clone(), async move { drop(stopped.await) }));
    let stream = TcpStream::connect(address).await.unwrap();
    assert!(exchange(stream, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.starts_with("HTTP/1.1 200"));
    // A head that is too large is refused without being read to its end, and the server goes on.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let huge = format!("GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Huge: {}\r\n\r\n", "x".repeat(8_000_000));
    let written = stream.write_all(huge.as_bytes()).await;
    let mut reply = Vec::new();
    let read = stream.read_to_end(&mut reply).await;
    assert!(!reply.starts_with(b"HTTP/1.1 200") && (written.is_err() || read.is_err() || reply.starts_with(b"HTTP/1.1 431")), "{reply:?}");
    let stream = TcpStream::connect(address).await.unwrap();
    assert!(exchange(stream, "GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.ends_with("ok"));
    drop(stop);
    server.await.unwrap();
}

#[tokio::test]
async fn metrics_have_a_router_of_their_own() {
    let registry = prometheus::Registry::new();
    let counter = prometheus::IntCounter::new("quaymaster_test_total", "A test.").unwrap();
    registry.register(Box::new(counter.clone())).unwrap();
    counter.inc_by(3);
    let request = http::Request::get("/metrics").body(axum::body::Body::empty()).unwrap();
    let response = metrics_router(registry).call(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&body).contains("quaymaster_test_total 3"));
}
