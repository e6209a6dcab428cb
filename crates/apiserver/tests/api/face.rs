//! The app face: one namespace of it, the batch, the watch and the heartbeat.

use axum::body::Body;
use futures_util::StreamExt;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use qm_api::availability::Availability;
use serde_json::{Value, json};
use tower_service::Service;

use crate::support::World;

async fn face(world: &World, method: &str, path: &str, body: &str) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
    let answer = world.face_router.clone().call(request).await.unwrap();
    let status = answer.status();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn with(world: &World, services: &[(&str, bool)]) {
    let mut state = world.face.lock().unwrap();
    state.usable = services.iter().map(|(name, usable)| ((*name).to_owned(), *usable)).collect();
    state.tell();
}

#[tokio::test]
async fn an_app_sees_its_own_namespace_and_nothing_else() {
    let world = World::filled().await;
    with(&world, &[("db", true), ("app", false)]);
    let cases = [
        ("GET", "/healthz", StatusCode::OK),
        ("GET", "/usable/shop/db", StatusCode::OK),
        ("GET", "/usable/shop/app", StatusCode::SERVICE_UNAVAILABLE),
        ("GET", "/usable/shop/none", StatusCode::NOT_FOUND),
        ("GET", "/usable/shop", StatusCode::OK),
        ("GET", "/usable/other", StatusCode::NOT_FOUND),
        ("GET", "/usable/other/db", StatusCode::NOT_FOUND),
        ("GET", "/watch/other", StatusCode::NOT_FOUND),
        ("POST", "/heartbeat/shop/db", StatusCode::OK),
        ("POST", "/heartbeat/shop/none", StatusCode::NOT_FOUND),
        ("POST", "/heartbeat/other/db", StatusCode::NOT_FOUND),
        ("GET", "/heartbeat/shop/db", StatusCode::METHOD_NOT_ALLOWED),
        ("POST", "/usable/shop/db", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/apis/quaymaster.dev/v1alpha1/miniservices", StatusCode::NOT_FOUND),
        ("POST", "/apis/quaymaster.dev/v1alpha1/namespaces/shop/miniservices/db/restart", StatusCode::NOT_FOUND),
        ("GET", "/apis/quaymaster.dev/v1alpha1/namespaces/shop/miniservices/db/lock", StatusCode::OK),
        ("GET", "/apis/quaymaster.dev/v1alpha1/namespaces/other/miniservices/db/lock", StatusCode::NOT_FOUND),
        ("POST", "/quaymaster/v1/plan", StatusCode::NOT_FOUND),
        ("GET", "/quaymaster/v1/overview", StatusCode::NOT_FOUND),
        ("GET", "/quaymaster/v1/backup", StatusCode::NOT_FOUND),
        ("GET", "/metrics", StatusCode::NOT_FOUND),
    ];
    for (method, path, expected) in cases {
        assert_eq!(face(&world, method, path, "").await.0, expected, "{method} {path}");
    }
    let (_, batch) = face(&world, "GET", "/usable/shop", "").await;
    assert_eq!((batch["version"].clone(), batch["services"].as_array().map(Vec::len)), (json!("boot-1"), Some(2)));
}

#[tokio::test]
async fn a_heartbeat_is_checked_and_passed_on() {
    let world = World::filled().await;
    let said = json!({ "availability": "PartiallyAvailable", "reason": "slow", "blockedOperations": ["write"], "ack": "r1" });
    assert_eq!(face(&world, "POST", "/heartbeat/shop/db", &said.to_string()).await.0, StatusCode::OK);
    assert_eq!(face(&world, "POST", "/heartbeat/shop/db", "").await.0, StatusCode::OK, "the short form says that all is well");
    for bad in [r#"{"availability": "Fine"}"#, r#"{"availabilty": "Available"}"#, "[]", "{"] {
        assert_eq!(face(&world, "POST", "/heartbeat/shop/db", bad).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
    let many = json!({ "blockedOperations": vec!["x"; 65] }).to_string();
    assert_eq!(face(&world, "POST", "/heartbeat/shop/db", &many).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let long = json!({ "reason": "ä".repeat(5_000) }).to_string();
    face(&world, "POST", "/heartbeat/shop/db", &long).await;
    let heard = world.face.lock().unwrap().heartbeats.clone();
    assert_eq!((heard[0].availability, heard[0].ack.as_deref()), (Availability::PartiallyAvailable, Some("r1")));
    assert_eq!((heard[1].availability, heard[1].blocked_operations.len()), (Availability::Available, 0));
    assert_eq!((heard.len(), heard[2].reason.len()), (3, 1_024));
}

#[tokio::test]
async fn a_watch_begins_with_everything_and_goes_on_with_what_changes() {
    let world = World::filled().await;
    with(&world, &[("db", true), ("app", true)]);
    let request = Request::builder().uri("/watch/shop").body(Body::empty()).unwrap();
    let answer = world.face_router.clone().call(request).await.unwrap();
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let mut stream = answer.into_body().into_data_stream();
    let mut next = async || {
        let text = String::from_utf8(stream.next().await.unwrap().unwrap().to_vec()).unwrap();
        let field = |block: &str, name: &str| block.lines().find_map(|l| l.strip_prefix(name)).unwrap_or_default().to_owned();
        let events = text.split_terminator("\n\n").map(|block| {
            let data: Value = serde_json::from_str(&field(block, "data: ")).unwrap();
            format!("{} {} {}", field(block, "event: "), data["service"].as_str().unwrap_or("-"), data["usable"])
        });
        events.collect::<Vec<_>>()
    };
    assert_eq!(next().await, ["usable app true", "usable db true", "synced - null"]);
    with(&world, &[("db", false), ("app", true)]);
    assert_eq!(next().await, ["usable db false"], "only what changed");
    // A version alone is no news.
    with(&world, &[("db", false), ("app", true)]);
    with(&world, &[("app", true)]);
    assert_eq!(next().await, ["gone db null"]);
    {
        let mut state = world.face.lock().unwrap();
        state.reloads = vec![json!({ "service": "app", "id": "r1" })];
        state.tell();
    }
    assert_eq!(next().await, ["reload app null"], "each is told once");
}
