//! Owns the OpenAPI v3 documents, made from the registry's schemas: what `kubectl explain` shows, and nothing that is not served.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use qm_api::registry::Kind;
use qm_api::schema;
use qm_api::time::Timestamp;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use crate::app::with_type;
use crate::query::Query;
use crate::route::Api;

/// With this, and nothing in it, kubectl takes any kind as unknown to the schema and leaves validation to the server.
const V2_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const YEAR_MILLIS: i64 = 365 * 86_400 * 1_000;

/// A document and its digest.
struct Document {
    body: Bytes,
    hash: String,
}

impl Document {
    fn new(value: &Value) -> Self {
        let body = value.to_string();
        let hash = Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect();
        Self { body: body.into(), hash }
    }

    /// The document, or 304 for who has it already.
    fn answer(&self, parts: &Parts) -> Response {
        let etag = format!("\"{}\"", self.hash);
        let has_it = parts
            .headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .any(|list| list.split(',').map(str::trim).any(|known| known == "*" || known.trim_start_matches("W/") == etag));
        let mut response = if has_it {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            with_type(StatusCode::OK, "application/json", self.body.clone().into())
        };
        insert(response.headers_mut(), header::ETAG, &etag);
        insert(response.headers_mut(), header::VARY, "Accept");
        response
    }
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}

static DOCUMENTS: LazyLock<BTreeMap<Api, Document>> =
    LazyLock::new(|| [Api::Core, Api::Ours].into_iter().map(|api| (api, Document::new(&describe(api)))).collect());

static INDEX: LazyLock<Document> = LazyLock::new(|| {
    let paths: Map<String, Value> = DOCUMENTS
        .iter()
        .map(|(api, document)| {
            let url = format!("/openapi/v3/{}?hash={}", api.path(), document.hash);
            (api.path(), json!({"serverRelativeURL": url}))
        })
        .collect();
    Document::new(&json!({"paths": paths}))
});

/// Answers `/openapi/v3`.
pub(crate) fn index(parts: &Parts) -> Response {
    INDEX.answer(parts)
}

/// Answers `/openapi/v3/...`: for a year, when the client names the digest.
pub(crate) fn document(api: Api, parts: &Parts, query: &Query, now: Timestamp) -> Response {
    let Some(document) = DOCUMENTS.get(&api) else { return Response::new(Body::empty()) };
    let mut response = document.answer(parts);
    let headers = response.headers_mut();
    if query.get("hash") == Some(document.hash.as_str()) {
        insert(headers, header::CACHE_CONTROL, "public, immutable");
        insert(headers, header::EXPIRES, &http_date(now.plus_millis(YEAR_MILLIS)));
    } else {
        insert(headers, header::CACHE_CONTROL, "no-cache, private");
    }
    response
}

fn http_date(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_second(at.as_seconds()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Answers `/openapi/v2`.
pub(crate) fn empty_v2() -> Response {
    with_type(StatusCode::OK, V2_TYPE, Body::empty())
}

fn describe(api: Api) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in api.kinds() {
        schemas.insert(schema_name(kind), object_schema(kind));
        schemas.insert(format!("{}List", schema_name(kind)), list_schema(kind));
        let base = format!("/{}", api.path());
        if kind.namespaced {
            let within = format!("{base}/namespaces/{{namespace}}/{}", kind.plural);
            paths.insert(format!("{base}/{}", kind.plural), path_item(kind, &[], Many::Yes));
            paths.insert(format!("{within}/{{name}}"), path_item(kind, &["namespace", "name"], Many::No));
            paths.insert(within, path_item(kind, &["namespace"], Many::Yes));
        } else {
            paths.insert(format!("{base}/{}", kind.plural), path_item(kind, &[], Many::Yes));
            paths.insert(format!("{base}/{}/{{name}}", kind.plural), path_item(kind, &["name"], Many::No));
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Quaymaster", "version": api.version()},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Many {
    Yes,
    No,
}

fn path_item(kind: &Kind, parameters: &[&str], many: Many) -> Value {
    let parameters: Vec<Value> = parameters
        .iter()
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    let (action, schema) = match many {
        Many::Yes => ("list", format!("{}List", schema_name(kind))),
        Many::No => ("get", schema_name(kind)),
    };
    let description = match many {
        Many::Yes => format!("List or watch objects of kind {}.", kind.kind),
        Many::No => format!("Read one {}.", kind.kind),
    };
    let content = json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}});
    json!({
        "parameters": parameters,
        "get": {
            "description": description,
            "responses": {"200": {"description": "OK", "content": content}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": group_version_kind(kind, kind.kind),
        },
    })
}

fn group_version_kind(kind: &Kind, name: &str) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": name})
}

fn schema_name(kind: &Kind) -> String {
    if kind.group.is_empty() {
        return format!("io.k8s.api.core.{}.{}", kind.version, kind.kind);
    }
    let reversed: Vec<&str> = kind.group.rsplit('.').collect();
    format!("{}.{}.{}", reversed.join("."), kind.version, kind.kind)
}

fn object_schema(kind: &Kind) -> Value {
    let mut schema = schema::object(kind).unwrap_or_else(|| {
        let text = |description: &str| json!({"type": "string", "description": description});
        json!({
            "type": "object", "description": kind.description,
            "properties": {
                "apiVersion": text("The version of the API."), "kind": text("The kind of the object."), "metadata": schema::metadata(),
            },
        })
    });
    to_openapi(&mut schema);
    schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(kind, kind.kind)]);
    schema
}

fn list_schema(kind: &Kind) -> Value {
    let list = format!("{}List", kind.kind);
    json!({
        "type": "object",
        "description": format!("A list of objects of kind {}.", kind.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "items": {"type": "array", "items": {"$ref": format!("#/components/schemas/{}", schema_name(kind))}},
        },
        "x-kubernetes-group-version-kind": [group_version_kind(kind, &list)],
    })
}

/// OpenAPI 3.0 has no lists of types; such a field takes any scalar, and admission judges it.
fn to_openapi(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(to_openapi),
        Value::Object(map) => {
            if matches!(map.get("type"), Some(Value::Array(_))) {
                map.remove("type");
                map.insert("x-kubernetes-preserve-unknown-fields".into(), true.into());
            }
            if matches!(map.get("enumDescriptions"), Some(Value::Array(_))) {
                map.remove("enumDescriptions");
            }
            map.values_mut().for_each(to_openapi);
        }
        _ => {}
    }
}
