//! Actions, plans, logs, usable, backup, and the bounds around them.

use std::io::BufReader;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use qm_api::kinds::intent::Act;
use qm_api::time::Timestamp;
use qm_apiserver::{CandidateSource, LogRequest};
use qm_store::backend::Memory;
use serde_json::{Value, json};

use crate::support::{B, N, NOW, Reply, World};

#[tokio::test]
async fn an_act_becomes_an_intent() {
    let world = World::filled().await;
    let reply = world.post(&format!("{N}/db/suspend"), &json!({"reason": "maintenance", "for": "1h", "actor": "ada"})).await;
    insta::assert_snapshot!(reply.show());
    let act = world.acts.lock().unwrap().pop().unwrap();
    assert_eq!((act.act, act.until), (Act::Suspend, Some(NOW.plus_millis(3_600_000))));

    // An empty body is fine, also without a type, and the slash at the end.
    let reply = world.ask("POST", &format!("{B}/namespaces/shop/networks/edge/reconcile/"), "", Body::empty()).await;
    assert_eq!(reply.status, StatusCode::CREATED);
    let act = world.acts.lock().unwrap().pop().unwrap();
    assert_eq!(
        (act.act, act.scope.kind.as_deref(), act.scope.name.as_deref(), act.actor.as_str()),
        (Act::Reconcile, Some("Network"), Some("edge"), "anonymous")
    );

    let body = json!({"scope": {"kind": "msvc", "source": "/srv"}, "until": "2026-11-23T00:00:00Z"});
    assert_eq!(world.post(&format!("{B}/actions/suspend"), &body).await.status, StatusCode::CREATED);
    let act = world.acts.lock().unwrap().pop().unwrap();
    assert_eq!(
        (act.scope.kind.as_deref(), act.scope.namespace.as_deref(), act.scope.source.as_deref()),
        (Some("MiniService"), None, Some("/srv"))
    );
    assert_eq!(act.until, Some(Timestamp::parse("2026-11-23T00:00:00Z").unwrap()));

    assert_eq!(world.post(&format!("{B}/actions/approve"), &json!({"stepHash": "abc"})).await.status, StatusCode::CREATED);
    assert_eq!(world.acts.lock().unwrap().pop().unwrap().step_hash.as_deref(), Some("abc"));
}

#[tokio::test]
async fn a_bad_act_is_refused_before_anything_happens() {
    let world = World::filled().await;
    let mut shown = String::new();
    for (path, body) in [
        (format!("{N}/db/explode"), "{}"),
        (format!("{B}/actions/explode"), "{}"),
        (format!("{N}/db/adopt"), "{}"),
        (format!("{N}/gone/restart"), "{}"),
        (format!("{N}/db/restart?dryRun=All"), "{}"),
        (format!("{N}/db/restart"), "not json"),
        (format!("{N}/db/restart"), "[]"),
        (format!("{N}/db/restart"), r#"{"bogus": 1}"#),
        (format!("{N}/db/restart"), r#"{"reason": 1}"#),
        (format!("{N}/db/restart"), r#"{"scope": {}}"#),
        (format!("{N}/db/suspend"), r#"{"for": "1h", "until": "2027-01-01T00:00:00Z"}"#),
        (format!("{N}/db/suspend"), r#"{"for": "soon"}"#),
        (format!("{N}/db/suspend"), r#"{"for": "0s"}"#),
        (format!("{N}/db/suspend"), r#"{"until": "2020-01-01T00:00:00Z"}"#),
        (format!("{N}/db/approve"), "{}"),
        (format!("{B}/actions/suspend"), r#"{"scope": {"kind": "Pod"}}"#),
    ] {
        let status = world.ask("POST", &path, "", body).await.json();
        shown.push_str(&format!(
            "{path} {body}\n    {} {}: {}\n",
            status["code"],
            status["reason"].as_str().unwrap(),
            status["message"].as_str().unwrap()
        ));
    }
    insta::assert_snapshot!(shown);
    assert!(world.acts.lock().unwrap().is_empty());
    let long = world.post(&format!("{N}/db/restart"), &json!({"reason": "x".repeat(5_000)})).await;
    assert_eq!(long.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn what_a_port_says_is_passed_on() {
    let world = World::filled().await;
    for (reason, status, word, retry) in [
        ("conflict", StatusCode::CONFLICT, "Conflict", ""),
        ("later", StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "7"),
        ("never", StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", ""),
        ("panic", StatusCode::INTERNAL_SERVER_ERROR, "InternalError", ""),
    ] {
        let reply = world.post(&format!("{N}/db/restart"), &json!({"reason": reason})).await;
        assert_eq!((reply.status, reply.json()["reason"].as_str(), reply.header("retry-after")), (status, Some(word), retry), "{reason}");
    }
}

#[tokio::test]
async fn a_plan_is_made_of_what_is_or_of_other_files() {
    let world = World::filled().await;
    for body in ["", "{}", " \n"] {
        let reply = world.ask("POST", "/quaymaster/v1/plan", "", body).await;
        assert_eq!((reply.status, reply.json()), (StatusCode::OK, json!({"plan": {"steps": []}, "text": "Nothing to do.\n"})));
        assert!(world.plans.lock().unwrap().pop().unwrap().sources.is_empty());
    }
    let body = json!({"sources": [{"id": "/srv", "files": {"a.yaml": "aGVsbG8="}}]});
    assert_eq!(world.post("/quaymaster/v1/plan", &body).await.status, StatusCode::OK);
    let wanted = CandidateSource { id: "/srv".to_owned(), files: [("a.yaml".to_owned(), b"hello".to_vec())].into() };
    assert_eq!(world.plans.lock().unwrap().pop().unwrap().sources, [wanted]);
    let mut shown = String::new();
    for body in [
        json!({"sources": [{"id": "bad"}]}),
        json!({"sources": [{"id": "a", "files": {"x": "%"}}]}),
        json!({"sources": [{"id": "a"}, {"id": "a"}]}),
        json!({"manifests": []}),
        json!({"sources": {}}),
    ] {
        shown.push_str(&format!("{body}\n{}", world.post("/quaymaster/v1/plan", &body).await.show()));
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn usable_says_whether_and_when_to_ask_again() {
    let world = World::filled().await;
    for (name, status, retry) in
        [("db", StatusCode::OK, ""), ("app", StatusCode::SERVICE_UNAVAILABLE, "5"), ("broken", StatusCode::SERVICE_UNAVAILABLE, "")]
    {
        let reply = world.get(&format!("/usable/shop/{name}?operation=write")).await;
        assert_eq!((reply.status, reply.header("retry-after")), (status, retry), "{name}");
        assert_eq!(reply.json()["usable"], status == StatusCode::OK);
    }
    let reply = world.get("/usable/shop/gone").await;
    assert_eq!((reply.status, reply.json()["reason"].as_str()), (StatusCode::NOT_FOUND, Some("NotFound")));
}

#[tokio::test]
async fn a_log_is_text_as_it_comes() {
    let world = World::filled().await;
    let reply = world.get(&format!("{N}/db/log?tailLines=10&slot=2&timestamps=true")).await;
    assert_eq!(
        (reply.status, reply.header("content-type"), reply.text().as_str()),
        (StatusCode::OK, "text/plain; charset=utf-8", "[1] hello\n")
    );
    let wanted =
        LogRequest { namespace: "shop".into(), name: "db".into(), follow: false, tail_lines: Some(10), slot: Some(2), timestamps: true };
    assert_eq!(world.logs.lock().unwrap().pop(), Some(wanted));

    let (status, _, mut body) = world.send(Request::get(format!("{N}/db/log?follow=true")).body(Body::empty()).unwrap()).await;
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!((status, first.as_ref()), (StatusCode::OK, b"[1] hello\n".as_slice()));

    for (path, status) in [
        ("gone/log", StatusCode::NOT_FOUND),
        ("db/log?tailLines=some", StatusCode::BAD_REQUEST),
        ("db/log?slot=99999999999", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(world.get(&format!("{N}/{path}")).await.status, status, "{path}");
    }
    assert_eq!(world.ask("POST", &format!("{N}/db/log"), "", "").await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_can_be_restored() {
    let world = World::filled().await;
    for at in 0..2_000 {
        world.create(crate::support::service("bulk", &format!("s{at}"), json!({}))).await;
    }
    let reply = world.get("/quaymaster/v1/backup").await;
    assert_eq!((reply.status, reply.header("content-type")), (StatusCode::OK, "application/x-ndjson"));
    let restored = qm_store::restore(BufReader::new(&*reply.body), &mut Memory::new()).unwrap();
    assert_eq!((restored.objects, restored.resource_version), (world.store.snapshot().len() as u64, world.store.resource_version()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_nobody_takes_gives_its_place_back() {
    let world = World::filled().await;
    for at in 0..2_000 {
        world.create(crate::support::service("bulk", &format!("s{at}"), json!({}))).await;
    }
    let ask = || Request::get("/quaymaster/v1/backup").body(Body::empty()).unwrap();
    let (_, _, first) = world.send(ask()).await;
    let (_, _, second) = world.send(ask()).await;
    assert_eq!(world.send(ask()).await.0, StatusCode::TOO_MANY_REQUESTS);
    drop((first, second));
    while world.send(ask()).await.0 != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_has_bounds() {
    let world = World::filled().await;
    let reply = world.ask("POST", &format!("{N}/db/restart"), "", vec![b' '; 16 * 1024 * 1024 + 1]).await;
    assert_eq!((reply.status, reply.json()["reason"].as_str()), (StatusCode::PAYLOAD_TOO_LARGE, Some("RequestEntityTooLarge")));
    let never = Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, std::io::Error>>());
    let reply = world.ask("POST", &format!("{N}/db/restart"), "", never).await;
    assert_eq!((reply.status, reply.json()["message"].as_str()), (StatusCode::BAD_REQUEST, Some("the body did not arrive within 30 s")));
    let cut = Body::from_stream(futures_util::stream::iter([Err::<bytes::Bytes, _>(std::io::Error::other("cut"))]));
    assert_eq!(world.ask("POST", &format!("{N}/db/restart"), "", cut).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn graph_and_overview_are_handed_through() {
    let world = World::new();
    let show = |reply: Reply| -> Value { reply.json() };
    assert_eq!(show(world.get("/quaymaster/v1/graph").await), json!({"nodes": [], "edges": []}));
    assert_eq!(show(world.get("/quaymaster/v1/overview").await), json!({"version": "0.1.0"}));
}

#[tokio::test]
async fn a_lock_is_shown_taken_renewed_checked_and_given_back() {
    let world = World::filled().await;
    let mut shown = String::new();
    for (method, path, body) in [
        ("GET", "lock", ""),
        ("POST", "lock", r#"{"mode": "change", "holder": "a.1", "waitMs": 500, "termMs": 30000}"#),
        ("POST", "lock", r#"{"mode": "use", "holder": "a.1"}"#),
        ("POST", "lock/renew", r#"{"holder": "a.1", "token": 7, "mode": "use"}"#),
        ("POST", "lock/release", r#"{"holder": "a.1", "token": 7}"#),
        ("POST", "lock/check", r#"{"token": 7}"#),
    ] {
        let reply = world.ask(method, &format!("{N}/db/{path}"), "", body).await;
        shown.push_str(&format!("{method} {path} {body}\n    {} {}\n", reply.status.as_u16(), reply.text()));
    }
    for (method, path, body) in [
        ("POST", "lock", r#"{"mode": "use", "holder": "late"}"#),
        ("POST", "lock", r#"{"mode": "change", "holder": "writer"}"#),
        ("POST", "lock/check", r#"{"token": 6}"#),
        ("POST", "lock/renew", r#"{"holder": "a.1", "token": 6}"#),
        ("POST", "lock", "{}"),
        ("POST", "lock", r#"{"mode": "use"}"#),
        ("POST", "lock", r#"{"mode": "own", "holder": "a.1"}"#),
        ("POST", "lock", r#"{"mode": "use", "holder": "a.1", "token": 7}"#),
        ("POST", "lock/release", r#"{"holder": "a.1"}"#),
        ("POST", "lock/check", r#"{"token": 7, "waitMs": 1}"#),
        ("PUT", "lock", "{}"),
        ("GET", "lock/renew", ""),
        ("POST", "lock/break", "{}"),
    ] {
        let reply = world.ask(method, &format!("{N}/db/{path}"), "", body).await;
        let status = reply.json();
        let text = |key: &str| status[key].as_str().unwrap().to_owned();
        shown.push_str(&format!(
            "{method} {path} {body}\n    {} {}: {}  [retry after: {}]\n",
            reply.status.as_u16(),
            text("reason"),
            text("message"),
            reply.header("retry-after"),
        ));
    }
    let gone = world.post(&format!("{N}/gone/lock"), &json!({"mode": "use", "holder": "a.1"})).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
    insta::assert_snapshot!(shown);
}
