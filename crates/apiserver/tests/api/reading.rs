//! Get, list, tables, selectors, chunks, and what cannot be written.

use axum::body::Body;
use http::StatusCode;
use serde_json::json;

use crate::support::{B, N, PARTIAL, TABLE, World, service};

#[tokio::test]
async fn get_list_and_table_of_every_kind() {
    let world = World::filled().await;
    let mut shown = String::new();
    for (path, accept) in [
        (format!("{N}/db"), ""),
        (format!("{N}/db"), TABLE),
        (format!("{N}/db"), PARTIAL),
        (N.to_owned(), TABLE),
        (format!("{N}?includeObject=None&labelSelector=tier%3Ddata"), TABLE),
        (format!("{B}/miniservices?limit=500"), PARTIAL),
        (format!("{B}/networks"), TABLE),
        (format!("{B}/intents"), ""),
        ("/api/v1/namespaces".to_owned(), ""),
        ("/api/v1/namespaces/shop".to_owned(), TABLE),
        ("/api/v1/namespaces/shop/events".to_owned(), TABLE),
        ("/api/v1/namespaces/shop/events/db.1".to_owned(), ""),
    ] {
        let reply = world.ask("GET", &path, accept, Body::empty()).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
        shown.push_str(&format!("--- GET {path} {}\n{}", accept.split(',').next().unwrap_or_default(), reply.show()));
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn what_is_refused_says_why() {
    let world = World::filled().await;
    let mut shown = String::new();
    for (method, path, accept) in [
        ("GET", "/nothing".to_owned(), ""),
        ("GET", "/".to_owned(), ""),
        ("GET", format!("{N}/gone"), ""),
        ("GET", format!("{B}/leases"), ""),
        ("GET", "/api/v1/namespaces/gone".to_owned(), ""),
        ("GET", N.to_owned(), "application/yaml"),
        ("GET", format!("{N}?limit=-1"), ""),
        ("GET", format!("{N}?labelSelector=a+in+b"), ""),
        ("GET", format!("{N}?fieldSelector=spec.x%3D1"), ""),
        ("GET", format!("{N}?continue=nonsense"), ""),
        ("GET", format!("{N}?resourceVersion=x"), ""),
        ("GET", format!("{N}?resourceVersion=999999"), ""),
        ("GET", format!("{N}?resourceVersion=1&resourceVersionMatch=Exact"), ""),
        ("GET", format!("{N}?resourceVersionMatch=NotOlderThan"), ""),
        ("GET", format!("{N}?includeObject=All"), TABLE),
        ("GET", format!("{N}?watch=1&timeoutSeconds=soon"), ""),
        ("GET", format!("{N}?watch=1&resourceVersionMatch=Exact"), ""),
        ("PATCH", format!("{N}/db"), ""),
        ("DELETE", format!("{N}/app"), ""),
        ("POST", N.to_owned(), ""),
        ("POST", format!("{B}/intents"), ""),
        ("DELETE", "/api/v1/namespaces/shop".to_owned(), ""),
        ("POST", "/api/v1/namespaces/shop/events".to_owned(), ""),
        ("PUT", "/version".to_owned(), ""),
        ("GET", "/quaymaster/v1/plan".to_owned(), ""),
        ("GET", format!("{N}/db/suspend"), ""),
        ("GET", "/readyz".to_owned(), ""),
    ] {
        let reply = world.ask(method, &path, accept, "{}").await;
        let allow = reply.header("allow");
        shown.push_str(&format!("--- {method} {path} {accept}{}{allow}\n", if allow.is_empty() { "" } else { " allow: " }));
        if path == "/readyz" {
            shown.push_str(&reply.show());
            continue;
        }
        let status = reply.json();
        assert_eq!((status["kind"].as_str(), status["code"].as_u64()), (Some("Status"), Some(reply.status.as_u16().into())), "{path}");
        shown.push_str(&format!("{} {}: {}\n", status["code"], status["reason"].as_str().unwrap(), status["message"].as_str().unwrap()));
        if let Some(details) = status.get("details") {
            shown.push_str(&format!("{details}\n"));
        }
    }
    insta::assert_snapshot!(shown);
}

#[tokio::test]
async fn selectors_choose() {
    let world = World::filled().await;
    for (path, names) in [
        (N.to_owned(), vec!["app", "db"]),
        (format!("{B}/miniservices"), vec!["app", "app", "db"]),
        (format!("{B}/namespaces/nowhere/miniservices"), vec![]),
        (format!("{N}?labelSelector=tier+in+%28web%2Cdata%29,app%21%3Dx"), vec!["db"]),
        (format!("{N}?labelSelector=%21app"), vec!["db"]),
        (format!("{N}?fieldSelector=metadata.name%3Ddb"), vec!["db"]),
        (format!("{B}/miniservices?fieldSelector=metadata.name%21%3Ddb,metadata.namespace%3Dnotify"), vec!["app"]),
        (format!("{N}?labelSelector=tier%3Dweb&fieldSelector=metadata.name%3Ddb"), vec![]),
        ("/api/v1/namespaces/shop/events?fieldSelector=involvedObject.uid%3Duid-shop-db,involvedObject.kind%3DMiniService,involvedObject.name%3Ddb,involvedObject.namespace%3Dshop&limit=500".to_owned(), vec!["db.1"]),
        ("/api/v1/events?fieldSelector=reason%3DBlocked".to_owned(), vec!["app.1"]),
        ("/api/v1/namespaces?fieldSelector=metadata.name%3Dshop".to_owned(), vec!["shop"]),
    ] {
        for accept in ["application/json", TABLE, PARTIAL] {
            assert_eq!(world.ask("GET", &path, accept, Body::empty()).await.names(), names, "{path} {accept}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn chunks_show_one_state_whatever_changes_between_them() {
    let world = World::new();
    for at in 0..7 {
        world.create(service("shop", &format!("s{at}"), json!({}))).await;
    }
    for accept in ["application/json", TABLE, PARTIAL] {
        let version = world.store.resource_version().to_string();
        let (mut names, mut next, mut remaining) = (Vec::new(), String::new(), Vec::new());
        loop {
            let reply = world.ask("GET", &format!("{N}?limit=3&continue={next}"), accept, Body::empty()).await;
            let metadata = reply.json()["metadata"].clone();
            assert_eq!(metadata["resourceVersion"], version.as_str());
            names.extend(reply.names());
            remaining.push(metadata["remainingItemCount"].as_u64());
            // Changes before and behind the end of the page, undone for the next form: the pages must not see them.
            for name in ["s0a", "s9"] {
                world.create(service("shop", name, json!({}))).await;
            }
            world.delete("MiniService", "shop", "s6").await;
            match metadata["continue"].as_str() {
                Some(token) => next = token.to_owned(),
                None => break,
            }
            world.delete("MiniService", "shop", "s0a").await;
            world.delete("MiniService", "shop", "s9").await;
            world.create(service("shop", "s6", json!({}))).await;
        }
        assert_eq!(names, ["s0", "s1", "s2", "s3", "s4", "s5", "s6"], "{accept}");
        assert_eq!(remaining, [Some(4), Some(1), None]);
        let exact = world.get(&format!("{N}?resourceVersion={version}&resourceVersionMatch=Exact")).await;
        assert_eq!((exact.status, exact.names().len()), (StatusCode::OK, 7), "the state of the pages can be had as a whole");
        world.delete("MiniService", "shop", "s0a").await;
        world.delete("MiniService", "shop", "s9").await;
        world.create(service("shop", "s6", json!({}))).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_chunk_goes_on_only_while_its_state_is_kept() {
    let world = World::filled().await;
    let token = |reply: &crate::support::Reply| reply.json()["metadata"]["continue"].as_str().unwrap().to_owned();
    let first = world.get(&format!("{B}/miniservices?limit=1&labelSelector=tier%3Dweb")).await;
    let path = format!("{B}/miniservices?limit=1&labelSelector=tier%3Dweb&continue={}", token(&first));
    assert_eq!(first.json()["metadata"].get("remainingItemCount"), None, "not counted under a selector");
    assert_eq!(world.get(&format!("{path}&resourceVersion=3")).await.status, StatusCode::BAD_REQUEST);
    world.create(service("aaa", "new", json!({"tier": "web"}))).await;
    tokio::time::advance(std::time::Duration::from_secs(200)).await;
    assert_eq!(world.get(&path).await.names(), ["app"]);
    tokio::time::advance(std::time::Duration::from_secs(200)).await;
    let late = world.get(&path).await;
    assert_eq!((late.status, late.json()["reason"].as_str()), (StatusCode::GONE, Some("Expired")));

    // Only so many states are kept: the oldest goes first.
    let first = world.get(&format!("{B}/miniservices?limit=1")).await;
    for at in 0..40 {
        world.create(service("shop", &format!("x{at}"), json!({}))).await;
        world.get(&format!("{B}/miniservices?limit=1")).await;
    }
    let late = world.get(&format!("{B}/miniservices?limit=1&continue={}", token(&first))).await;
    assert_eq!(late.status, StatusCode::GONE);
}

#[tokio::test]
async fn slashes_at_the_end_and_head_requests_are_fine() {
    let world = World::filled().await;
    assert_eq!(world.get("/version/").await.json()["major"], "1");
    assert_eq!(world.get(&format!("{N}/")).await.names(), ["app", "db"]);
    let reply = world.ask("HEAD", &format!("{N}/db"), "", Body::empty()).await;
    assert_eq!((reply.status, reply.body.len()), (StatusCode::OK, 0));
    for path in ["/healthz", "/livez"] {
        let reply = world.get(path).await;
        assert_eq!((reply.status, reply.text().as_str()), (StatusCode::OK, "ok"));
    }
}

#[tokio::test]
async fn a_namespace_is_there_while_a_declared_object_is_in_it() {
    let world = World::filled().await;
    assert_eq!(world.get("/api/v1/namespaces").await.names(), ["notify", "shop"]);
    world.delete("MiniService", "notify", "app").await;
    assert_eq!(world.get("/api/v1/namespaces").await.names(), ["shop"]);
    assert_eq!(world.get("/api/v1/namespaces/notify").await.status, StatusCode::NOT_FOUND);
}
