//! What clients rely on in a watch.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode};
use qm_store::Outcome;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{B, N, PARTIAL, TABLE, World, event, service};

async fn two() -> World {
    let world = World::new();
    world.create(service("shop", "a", json!({"tier": "web"}))).await;
    world.create(service("shop", "b", json!({"tier": "data"}))).await;
    world
}

fn version(outcome: &Outcome) -> u64 {
    outcome.object().meta.resource_version
}

#[tokio::test(start_paused = true)]
async fn without_a_version_the_present_state_comes_first() {
    let world = two().await;
    for path in ["?watch=1", "?watch=true&resourceVersion=0", "?watch=true&limit=1", "?watch=true&sendInitialEvents=true"] {
        let mut lines = world.watch(&format!("{N}{path}"), "application/json").await;
        assert_eq!(lines.briefs(2).await, ["ADDED a@2", "ADDED b@3"], "{path}");
        assert!(lines.is_silent(), "no bookmark without being asked: {path}");
    }
    let mut lines = world.watch(&format!("{N}?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Db"), "").await;
    assert_eq!(lines.brief().await, "ADDED b@3");
    assert!(lines.is_silent());
    let mut lines = world.watch(&format!("{N}/b?watch=1"), "").await;
    assert_eq!(lines.brief().await, "ADDED b@3");
    assert!(lines.is_silent());
}

#[tokio::test(start_paused = true)]
async fn from_a_version_only_what_changed_after_it_comes() {
    let world = two().await;
    let mut lines = world.watch(&format!("{N}?watch=true&resourceVersion=2"), "").await;
    assert_eq!(lines.brief().await, "ADDED b@3");
    assert!(lines.is_silent());
    world.label("a", json!({"tier": "web", "x": "y"})).await;
    let gone = world.delete("MiniService", "shop", "b").await;
    world.create(event("shop", "e", "a", "Unrelated")).await;
    world.create(service("other", "c", json!({}))).await;
    assert_eq!(lines.briefs(2).await, ["MODIFIED a@4", "DELETED b@5"]);
    assert_eq!(version(&gone), 5, "a removal has a version of its own");
    assert!(lines.is_silent());
    let mut now = world.watch(&format!("{N}?watch=true&sendInitialEvents=false"), "").await;
    assert!(now.is_silent());
    world.label("a", json!({})).await;
    assert_eq!(now.brief().await, "MODIFIED a@8");
}

#[tokio::test(start_paused = true)]
async fn a_streaming_list_ends_with_its_bookmark_and_goes_on() {
    let world = two().await;
    let query = "allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan&sendInitialEvents=true&timeoutSeconds=300&watch=true";
    let mut lines = world.watch(&format!("{N}?{query}&fieldSelector=metadata.name%3Da"), "application/json").await;
    assert_eq!(lines.brief().await, "ADDED a@2");
    let bookmark = lines.next().await.unwrap();
    assert_eq!(
        bookmark,
        json!({"type": "BOOKMARK", "object": {
            "kind": "MiniService", "apiVersion": "quaymaster.dev/v1alpha1",
            "metadata": {"resourceVersion": "3", "annotations": {"k8s.io/initial-events-end": "true"}},
        }})
    );
    world.delete("MiniService", "shop", "a").await;
    assert_eq!(lines.brief().await, "DELETED a@4");
    // Nothing there: the bookmark alone, at once.
    let mut lines = world.watch(&format!("{N}?{query}&fieldSelector=metadata.name%3Da"), "").await;
    assert_eq!(lines.brief().await, "BOOKMARK 4 end");
    let mut lines = world.watch(&format!("{N}?{query}&resourceVersion=2"), "").await;
    assert_eq!(lines.briefs(2).await, ["ADDED b@3", "BOOKMARK 4 end"], "not older than 2 is the present state");
}

#[tokio::test(start_paused = true)]
async fn who_enters_the_selection_is_added_and_who_leaves_it_is_deleted() {
    let world = two().await;
    let mut lines = world.watch(&format!("{N}?watch=true&resourceVersion=3&labelSelector=tier%3Dweb"), "").await;
    world.label("b", json!({"tier": "web"})).await;
    world.label("b", json!({"tier": "web", "x": "y"})).await;
    world.label("b", json!({"tier": "data"})).await;
    world.label("b", json!({"tier": "none"})).await;
    world.delete("MiniService", "shop", "b").await;
    world.delete("MiniService", "shop", "a").await;
    assert_eq!(lines.briefs(2).await, ["ADDED b@4", "MODIFIED b@5"]);
    let left = lines.next().await.unwrap();
    assert_eq!(left["object"]["metadata"]["labels"], json!({"tier": "web", "x": "y"}), "as it was last in the selection");
    assert_eq!((left["type"].as_str(), left["object"]["metadata"]["resourceVersion"].as_str()), (Some("DELETED"), Some("6")));
    assert_eq!(lines.brief().await, "DELETED a@9");
    assert!(lines.is_silent());
}

#[tokio::test(start_paused = true)]
async fn a_graceful_deletion_is_a_change_and_then_a_removal() {
    let world = World::new();
    let mut object = service("shop", "a", json!({}));
    object.meta.finalizers = vec!["quaymaster.dev/cleanup".into()];
    world.create(object).await;
    let mut lines = world.watch(&format!("{N}?watch=true&resourceVersion=2"), "").await;
    let Outcome::Written(marked) = world.delete("MiniService", "shop", "a").await else { panic!("it has a finalizer") };
    let modified = lines.next().await.unwrap();
    assert_eq!(
        (modified["type"].as_str(), modified["object"]["metadata"]["deletionTimestamp"].as_str()),
        (Some("MODIFIED"), Some("2026-11-22T10:05:05Z"))
    );
    let mut last = qm_api::meta::Object::clone(&marked);
    last.meta.finalizers.clear();
    let mut tx = world.store.tx();
    tx.put(last);
    tx.commit(qm_store::Durability::Soon).await.unwrap();
    assert_eq!(lines.brief().await, "DELETED a@4");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_version_is_an_error_within_the_stream() {
    let world = World::with_log(2);
    for at in 0..5 {
        world.create(service("shop", &format!("s{at}"), json!({}))).await;
    }
    for (version, message) in
        [("2", "too old resource version: 2 (4)"), ("99", "too large resource version: 99, current: 6: list again without it")]
    {
        for suffix in ["", "&allowWatchBookmarks=true"] {
            let mut lines = world.watch(&format!("{N}?watch=true&resourceVersion={version}{suffix}"), TABLE).await;
            let error = lines.next().await.unwrap();
            assert_eq!(
                error,
                json!({"type": "ERROR", "object": {
                    "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Expired", "code": 410, "message": message,
                }})
            );
            assert_eq!(lines.next().await, None, "nothing comes after it");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_falls_behind_is_told_so() {
    let world = World::with_log(2);
    let mut lines = world.watch(&format!("{N}?watch=true"), "").await;
    for at in 0..5 {
        world.create(service("shop", &format!("s{at}"), json!({}))).await;
    }
    assert_eq!(lines.brief().await, "ERROR 410 Expired");
    assert_eq!(lines.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn it_ends_in_time_and_not_before() {
    let world = two().await;
    let begin = Instant::now();
    let lines = world.watch(&format!("{N}?watch=true&resourceVersion=3&timeoutSeconds=7"), "").await;
    assert_eq!(lines.all().await, Vec::<String>::new());
    assert_eq!(begin.elapsed().as_secs(), 7);
    let lines = world.watch(&format!("{N}?watch=true&resourceVersion=3&timeoutSeconds=150&allowWatchBookmarks=true"), "").await;
    world.create(event("shop", "e", "a", "Unrelated")).await;
    assert_eq!(lines.all().await, ["BOOKMARK 4", "BOOKMARK 4", "BOOKMARK 4"], "at 60 s, at 120 s, and before the end");
    assert_eq!(begin.elapsed().as_secs(), 157);
    let mut lines = world.watch(&format!("{N}?watch=true&resourceVersion=4"), "").await;
    let day = Duration::from_secs(86_400);
    assert!(tokio::time::timeout(day, lines.next()).await.is_err(), "no limit where none was asked for");
}

#[tokio::test(start_paused = true)]
async fn in_a_table_each_event_is_a_table_of_one_row() {
    let world = two().await;
    let mut lines = world.watch(&format!("{N}?watch=true&allowWatchBookmarks=true&sendInitialEvents=true"), TABLE).await;
    let first = lines.next().await.unwrap();
    assert_eq!(first["object"]["columnDefinitions"][0]["format"], "name");
    assert_eq!(
        (first["object"]["kind"].as_str(), first["object"]["rows"][0]["object"]["kind"].as_str()),
        (Some("Table"), Some("PartialObjectMetadata"))
    );
    let second = lines.next().await.unwrap();
    assert_eq!(second["object"].get("columnDefinitions"), None, "clients keep them from the first");
    assert_eq!(second["object"]["rows"].as_array().map(Vec::len), Some(1));
    let end = lines.next().await.unwrap();
    assert_eq!(
        (end["type"].as_str(), end["object"]["kind"].as_str(), &end["object"]["rows"]),
        (Some("BOOKMARK"), Some("Table"), &json!([]))
    );
    world.delete("MiniService", "shop", "a").await;
    let deleted = lines.next().await.unwrap();
    assert_eq!((deleted["type"].as_str(), deleted["object"]["metadata"]["resourceVersion"].as_str()), (Some("DELETED"), Some("4")));
    let mut lines = world.watch(&format!("{N}?watch=true&resourceVersion=0"), PARTIAL).await;
    let first = lines.next().await.unwrap();
    assert_eq!((first["object"]["kind"].as_str(), first["object"].get("spec")), (Some("PartialObjectMetadata"), None));
}

#[tokio::test(start_paused = true)]
async fn namespaces_appear_and_go_with_their_objects() {
    let world = two().await;
    world.create(service("gone", "x", json!({}))).await;
    world.create(service("gone", "y", json!({}))).await;
    world.delete("MiniService", "gone", "x").await;
    let mut whole = world.watch("/api/v1/namespaces?watch=1", "").await;
    assert_eq!(whole.briefs(2).await, ["ADDED gone@6", "ADDED shop@6"]);
    // From the middle of that history: the counts of then must be found again.
    let mut later = world.watch("/api/v1/namespaces?watch=1&resourceVersion=3", "").await;
    assert_eq!(later.brief().await, "ADDED gone@4");
    let mut middle = world.watch("/api/v1/namespaces?watch=1&resourceVersion=5", "").await;
    assert!(middle.is_silent());
    world.delete("MiniService", "gone", "y").await;
    world.create(event("quiet", "e", "a", "Events make no namespace")).await;
    for lines in [&mut whole, &mut later, &mut middle] {
        assert_eq!(lines.brief().await, "DELETED gone@7");
        assert!(lines.is_silent());
    }
}

#[tokio::test(start_paused = true)]
async fn events_are_watched_like_the_rest() {
    let world = two().await;
    world.create(event("shop", "e1", "a", "Started")).await;
    let mut lines = world.watch("/api/v1/namespaces/shop/events?limit=500&watch=true", "").await;
    let first = lines.next().await.unwrap();
    assert_eq!(
        (first["object"]["reason"].as_str(), first["object"]["lastTimestamp"].as_str()),
        (Some("Started"), Some("2026-11-22T10:04:00Z"))
    );
    let mut of_b = world.watch("/api/v1/events?watch=1&fieldSelector=involvedObject.name%3Db", "").await;
    world.create(event("shop", "e2", "b", "Started")).await;
    assert_eq!((lines.brief().await, of_b.brief().await), ("ADDED e2@5".to_owned(), "ADDED e2@5".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_of_many_comes_whole_and_in_order() {
    let world = World::new();
    let mut lines = world.watch(&format!("{B}/miniservices?watch=1"), "").await;
    let mut tx = world.store.tx();
    for name in ["c", "a", "b"] {
        tx.create(service("shop", name, json!({})));
    }
    tx.commit(qm_store::Durability::Soon).await.unwrap();
    assert_eq!(lines.briefs(3).await, ["ADDED c@2", "ADDED a@3", "ADDED b@4"]);
    let mut lines = world.watch(&format!("{B}/miniservices?watch=1&resourceVersion=3"), "").await;
    assert_eq!(lines.brief().await, "ADDED b@4", "also from the middle of it");
}

#[tokio::test(start_paused = true)]
async fn a_large_state_comes_in_pieces_and_loses_nothing() {
    let world = World::new();
    for at in 0..1_500 {
        world.create(service("shop", &format!("s{at:04}"), json!({}))).await;
    }
    let mut lines = world.watch(&format!("{N}?watch=1&sendInitialEvents=true&allowWatchBookmarks=true"), "").await;
    for at in 0..1_500 {
        assert_eq!(lines.brief().await, format!("ADDED s{at:04}@{}", at + 2));
    }
    assert_eq!(lines.brief().await, "BOOKMARK 1501 end");
}

#[tokio::test(start_paused = true)]
async fn there_is_a_bound_on_streams() {
    let world = two().await;
    let mut open = Vec::new();
    for _ in 0..512 {
        open.push(world.watch(&format!("{N}?watch=1"), "").await);
    }
    let path = format!("{N}?watch=1");
    let (status, headers, _) = world.send(Request::get(&path).body(Body::empty()).unwrap()).await;
    assert_eq!((status, headers["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "1"));
    open.pop();
    let mut lines = world.watch(&path, "").await;
    assert_eq!(lines.brief().await, "ADDED a@2");
}

#[tokio::test(start_paused = true)]
async fn every_line_is_one_compact_json_value() {
    let world = World::new();
    let mut object = service("shop", "a", json!({}));
    object.spec = Arc::new(json!({"text": "two\nlines \u{2028} and more"}));
    world.create(object).await;
    let mut lines = world.watch(&format!("{N}?watch=1"), "").await;
    let event: Value = lines.next().await.unwrap();
    assert_eq!(event["object"]["spec"]["text"], "two\nlines \u{2028} and more");
    assert!(lines.is_silent());
}
