//! No request makes the server panic, and every refusal is a `Status`.

use std::time::Duration;

use axum::body::Body;
use http::{Method, Request, StatusCode};
use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::Value;

use crate::support::World;

fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        5 => prop::sample::select(vec![
            "apis", "api", "v1", "quaymaster.dev", "v1alpha1", "namespaces", "shop", "notify", "miniservices", "networks", "intents", "events",
            "db", "app", "edge", "log", "suspend", "restart", "approve", "rollback", "actions", "openapi", "v2", "v3", "quaymaster", "plan", "graph",
            "overview", "usable", "healthz", "readyz", "version", "leases", "",
        ])
        .prop_map(str::to_owned),
        1 => "[a-zA-Z0-9._~-]{0,12}",
        1 => "(%[0-9a-fA-F]{2}){1,4}",
    ];
    let known = prop::sample::select(vec![
        "/apis/quaymaster.dev/v1alpha1/namespaces/shop/miniservices",
        "/apis/quaymaster.dev/v1alpha1/namespaces/shop/miniservices/db",
        "/apis/quaymaster.dev/v1alpha1/miniservices",
        "/apis/quaymaster.dev/v1alpha1/actions",
        "/api/v1/namespaces",
        "/api/v1/namespaces/shop/events",
        "/quaymaster/v1",
        "/openapi/v3",
        "",
    ]);
    (known, prop::collection::vec(segment, 0..4)).prop_map(|(known, rest)| {
        let rest: String = rest.iter().map(|segment| format!("/{segment}")).collect();
        format!("{known}{rest}")
    })
}

fn query() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "watch",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "labelSelector",
        "fieldSelector",
        "sendInitialEvents",
        "allowWatchBookmarks",
        "includeObject",
        "dryRun",
        "hash",
        "tailLines",
        "slot",
        "follow",
        "timeoutSeconds",
        "x",
    ]);
    let value = prop_oneof![
        prop::sample::select(vec![
            "1",
            "0",
            "true",
            "false",
            "2",
            "5",
            "99999",
            "18446744073709551615",
            "18446744073709551616",
            "-1",
            "NotOlderThan",
            "Exact",
            "All",
            "Object",
            "None",
            "tier%3Dweb",
            "tier+in+%28a,b%29",
            "%21a",
            "metadata.name%3Ddb",
            "involvedObject.name%3Ddb",
            "eyJ2IjoyLCJucyI6InNob3AiLCJuIjoiYXBwIn0",
            "",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,16}".prop_map(|text| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>()),
        "(%[0-9a-fA-F]{2}){0,6}",
    ];
    prop::collection::vec((name, value), 0..5)
        .prop_map(|pairs| pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&"))
}

fn accept() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "",
            "*/*",
            "application/json",
            "application/json;as=Table;v=v1;g=meta.k8s.io",
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            "application/vnd.kubernetes.protobuf",
        ])
        .prop_map(str::to_owned),
        "[a-z/;=,* ]{0,24}",
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(Vec::new()),
        prop::collection::vec(any::<u8>(), 0..64),
        prop::sample::select(vec![
            "{}",
            "null",
            "[]",
            r#"{"reason": "x"}"#,
            r#"{"for": "1h"}"#,
            r#"{"for": "99999999999d"}"#,
            r#"{"stepHash": "x"}"#,
            r#"{"scope": {"kind": "qnet"}}"#,
            r#"{"sources": [{"id": "a", "files": {"a": "eA=="}}]}"#,
            r#"{"sources": [{"id": "bad"}]}"#,
            r#"{"until": "9999-12-31T23:59:59Z"}"#,
            r#"{"to": -1}"#,
        ])
        .prop_map(|text| text.as_bytes().to_vec()),
    ]
}

/// Bodies with a form of their own.
fn is_exempt(path: &str, status: StatusCode) -> bool {
    let path = path.trim_end_matches('/');
    status == StatusCode::NOT_MODIFIED || path == "/readyz" || (path.starts_with("/usable/") && status == StatusCode::SERVICE_UNAVAILABLE)
}

async fn check(world: &World, method: &Method, path: &str, uri: &str, accept: &str, body: Vec<u8>) -> Result<(), TestCaseError> {
    let mut request = Request::builder().method(method).uri(uri);
    if !accept.is_empty() {
        request = request.header("accept", accept);
    }
    // What is no request for the HTTP library never comes to the router.
    let Ok(request) = request.body(Body::from(body)) else { return Ok(()) };
    let (status, _, body) = world.send(request).await;
    prop_assert_ne!(status, StatusCode::INTERNAL_SERVER_ERROR, "{} {}", method, uri);
    if status.is_success() {
        // A watch does not end by itself; an hour of it will do.
        let _ = tokio::time::timeout(Duration::from_secs(3_600), body.collect()).await;
        return Ok(());
    }
    let body = body.collect().await.unwrap().to_bytes();
    if method != Method::HEAD && !is_exempt(path, status) {
        let value: Value =
            serde_json::from_slice(&body).map_err(|error| TestCaseError::fail(format!("{method} {uri}: {status}: {error}")))?;
        prop_assert_eq!(value["kind"].as_str(), Some("Status"), "{} {}", method, uri);
        prop_assert_eq!(value["code"].as_u64(), Some(status.as_u16().into()));
        prop_assert!(value["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_is_answered_and_every_refusal_is_a_status(
        requests in prop::collection::vec((path(), query(), accept(), body(), prop::sample::select(vec!["GET", "GET", "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW"])), 1..8)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let world = World::filled().await;
            for (path, query, accept, body, method) in requests {
                let method = Method::from_bytes(method.as_bytes()).unwrap();
                let path = if path.is_empty() { "/".to_owned() } else { path };
                let uri = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
                check(&world, &method, &path, &uri, &accept, body).await?;
            }
            Ok::<(), TestCaseError>(())
        })?;
    }
}
