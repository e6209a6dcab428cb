//! What the server says about itself.

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::support::{B, World};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

#[tokio::test]
async fn both_forms_of_discovery() {
    let world = World::new();
    let mut shown = String::new();
    for (path, accept) in [
        ("/version", ""),
        ("/api?timeout=32s", AGGREGATED),
        ("/apis?timeout=32s", AGGREGATED),
        ("/api", "application/json"),
        ("/apis", "application/json"),
        ("/apis/quaymaster.dev", ""),
        ("/api/v1", ""),
        (B, ""),
    ] {
        shown.push_str(&format!("--- GET {path} {accept}\n{}", world.ask("GET", path, accept, Body::empty()).await.show()));
    }
    insta::assert_snapshot!(shown.replace(std::env::consts::ARCH, "ARCH"));
}

#[tokio::test]
async fn the_aggregated_form_goes_only_under_its_own_type() {
    let world = World::new();
    for path in ["/api", "/apis"] {
        for (accept, content_type, kind) in [
            (AGGREGATED, "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "APIGroupDiscoveryList"),
            (
                "application/json;v=v2;as=APIGroupDiscoveryList;g=apidiscovery.k8s.io",
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
                "APIGroupDiscoveryList",
            ),
            ("application/json", "application/json", if path == "/api" { "APIVersions" } else { "APIGroupList" }),
            ("", "application/json", if path == "/api" { "APIVersions" } else { "APIGroupList" }),
        ] {
            let reply = world.ask("GET", path, accept, Body::empty()).await;
            assert_eq!(
                (reply.status, reply.header("content-type"), reply.header("vary")),
                (StatusCode::OK, content_type, "Accept"),
                "{accept}"
            );
            assert_eq!(reply.json()["kind"], kind);
        }
    }
}

#[tokio::test]
async fn openapi_is_found_by_its_digest_and_kept() {
    let world = World::new();
    let index = world.get("/openapi/v3").await.json();
    for (path, kind) in [("apis/quaymaster.dev/v1alpha1", "MiniService"), ("api/v1", "Event")] {
        let url = index["paths"][path]["serverRelativeURL"].as_str().unwrap();
        let reply = world.get(url).await;
        assert_eq!(
            (reply.status, reply.header("cache-control"), reply.header("expires")),
            (StatusCode::OK, "public, immutable", "Mon, 22 Nov 2027 10:05:05 GMT")
        );
        let document = reply.json();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let group = if kind == "Event" { "" } else { "quaymaster.dev" };
        let version = path.rsplit('/').next().unwrap();
        let gvk = json!({"group": group, "version": version, "kind": kind});
        assert_eq!(schemas.values().filter(|schema| schema["x-kubernetes-group-version-kind"] == json!([gvk])).count(), 1, "{kind}");
        let operations = document["paths"].as_object().unwrap().values().map(|item| &item["get"]["x-kubernetes-group-version-kind"]);
        assert!(operations.clone().any(|found| *found == gvk), "{kind}");
        assert!(!document.to_string().contains("\"type\":["), "OpenAPI 3.0 has no lists of types");

        let etag = reply.header("etag").to_owned();
        let request = Request::get(url).header("if-none-match", &etag).body(Body::empty()).unwrap();
        let (status, headers, body) = world.send(request).await;
        assert_eq!((status, headers["etag"].to_str().unwrap()), (StatusCode::NOT_MODIFIED, etag.as_str()));
        assert!(body.collect().await.unwrap().to_bytes().is_empty());

        let plain = world.get(&format!("/openapi/v3/{path}?hash=OLD")).await;
        assert_eq!((plain.status, plain.header("cache-control"), plain.json() == document), (StatusCode::OK, "no-cache, private", true));
    }
    let document = world.get("/openapi/v3/apis/quaymaster.dev/v1alpha1").await.json();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    insta::assert_snapshot!(serde_json::to_string_pretty(&paths).unwrap());
    let spec = &document["components"]["schemas"]["dev.quaymaster.v1alpha1.MiniService"]["properties"]["spec"];
    assert!(spec["properties"]["container"]["properties"]["image"]["description"].is_string(), "{spec}");
}

#[tokio::test]
async fn references_in_openapi_lead_somewhere() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let world = World::new();
    for path in ["/openapi/v3/apis/quaymaster.dev/v1alpha1", "/openapi/v3/api/v1"] {
        let document = world.get(path).await.json();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
    }
}

#[tokio::test]
async fn the_old_openapi_is_empty_so_that_kubectl_leaves_validation_to_us() {
    let reply = World::new().get("/openapi/v2").await;
    assert_eq!(
        (reply.status, reply.header("content-type"), reply.body.len()),
        (StatusCode::OK, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", 0)
    );
}
