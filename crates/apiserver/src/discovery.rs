//! Owns what the server says about itself: its version, groups and resources, in the aggregated form of today's kubectl and in the older
//! one that other clients read.

use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use qm_api::kinds::intent::{self, Act};
use qm_api::kinds::mini_service;
use qm_api::meta::{GROUP, VERSION};
use qm_api::registry::{Face, Kind};
use serde_json::{Value, json};

use crate::accept;
use crate::app::{accepted, json, with_type};
use crate::route::{Api, LOCK, LOG};
use crate::status::Failure;

/// Aggregated discovery is only understood under this type.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const VERBS: [&str; 3] = ["get", "list", "watch"];

/// Answers `/version`: the release of Kubernetes whose manners are spoken, with ours behind the `+`.
pub(crate) fn version(ours: &str) -> Value {
    let clean: String = ours.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '.' }).collect();
    let parts: Vec<&str> = clean.split('.').filter(|part| !part.is_empty()).collect();
    let ours = std::iter::once("quaymaster").chain(parts).collect::<Vec<_>>().join(".");
    json!({
        "major": "1", "minor": "37", "gitVersion": format!("v1.37.0+{ours}"), "gitCommit": "", "gitTreeState": "", "buildDate": "",
        "goVersion": "", "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// Answers `/api`.
pub(crate) fn core_versions(parts: &Parts) -> Result<Response, Failure> {
    let legacy = || json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []});
    either(parts, Api::Core, legacy)
}

/// Answers `/apis`.
pub(crate) fn groups(parts: &Parts) -> Result<Response, Failure> {
    let legacy = || {
        let mut group = group();
        for key in ["kind", "apiVersion"] {
            group.as_object_mut().and_then(|group| group.remove(key));
        }
        json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]})
    };
    either(parts, Api::Ours, legacy)
}

fn either(parts: &Parts, api: Api, legacy: impl FnOnce() -> Value) -> Result<Response, Failure> {
    let mut response = if accept::is_aggregated(accepted(parts))? {
        with_type(StatusCode::OK, AGGREGATED, aggregated(api).to_string().into())
    } else {
        json(StatusCode::OK, &legacy())
    };
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// Answers `/apis/quaymaster.dev`.
pub(crate) fn group() -> Value {
    let version = json!({"groupVersion": Api::Ours.group_version(), "version": VERSION});
    json!({"kind": "APIGroup", "apiVersion": "v1", "name": GROUP, "versions": [version], "preferredVersion": version})
}

fn aggregated(api: Api) -> Value {
    let metadata = if api.group().is_empty() { json!({}) } else { json!({"name": api.group()}) };
    let resources: Vec<Value> = api.kinds().map(aggregated_resource).collect();
    let version = json!({"version": api.version(), "freshness": "Current", "resources": resources});
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": [{"metadata": metadata, "versions": [version]}],
    })
}

fn aggregated_resource(kind: &'static Kind) -> Value {
    let response_kind = |name: &str| json!({"group": kind.group, "version": kind.version, "kind": name});
    let mut resource = json!({
        "resource": kind.plural, "responseKind": response_kind(kind.kind), "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular, "verbs": VERBS,
    });
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
    let subresources: Vec<Value> = subresources(kind)
        .map(|sub| json!({"subresource": sub.name, "responseKind": response_kind(sub.kind), "verbs": [sub.verb]}))
        .collect();
    if !subresources.is_empty() {
        resource["subresources"] = Value::Array(subresources);
    }
    resource
}

/// Answers `/api/v1` and `/apis/quaymaster.dev/v1alpha1`.
pub(crate) fn resources(api: Api) -> Value {
    let mut list = Vec::new();
    for kind in api.kinds() {
        let mut resource = json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": kind.namespaced, "kind": kind.kind, "verbs": VERBS,
        });
        if !kind.short_names.is_empty() {
            resource["shortNames"] = json!(kind.short_names);
        }
        if !kind.categories.is_empty() {
            resource["categories"] = json!(kind.categories);
        }
        list.push(resource);
        list.extend(subresources(kind).map(|sub| {
            let name = format!("{}/{}", kind.plural, sub.name);
            json!({"name": name, "singularName": "", "namespaced": kind.namespaced, "kind": sub.kind, "verbs": [sub.verb]})
        }));
    }
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api.group_version(), "resources": list})
}

struct Subresource {
    name: &'static str,
    kind: &'static str,
    verb: &'static str,
}

/// The log, the lock and the acts that are carried out.
fn subresources(kind: &'static Kind) -> impl Iterator<Item = Subresource> {
    let log = (kind.kind == mini_service::KIND).then_some(Subresource { name: LOG, kind: kind.kind, verb: "get" });
    let acts = Act::ALL.into_iter().filter(move |act| kind.face == Face::User && act.is_supported());
    let lock = (kind.kind == mini_service::KIND).then_some(Subresource { name: LOCK, kind: kind.kind, verb: "create" });
    log.into_iter().chain(lock).chain(acts.map(|act| Subresource { name: act.word(), kind: intent::KIND, verb: "create" }))
}
