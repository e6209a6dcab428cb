//! A world with a store, stub ports and a client.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use qm_api::codes::Code;
use qm_api::field::{FieldPath, Place, Problem};
use qm_api::kinds::intent::IntentSpec;
use qm_api::meta::{Object, ObjectKey};
use qm_api::time::Timestamp;
use qm_apiserver::{
    ActRequest, HeartbeatRequest, LockAct, LockReason, LockRequest, LogRequest, PlanAnswer, PlanRequest, PortError, Ports, Usable,
    face_router, router,
};
use qm_store::backend::Memory;
use qm_store::{CommitMode, Durability, Options, Outcome, Precondition, Store};
use serde_json::{Value, json};
use tower_service::Service;

pub(crate) const B: &str = "/apis/quaymaster.dev/v1alpha1";
pub(crate) const N: &str = "/apis/quaymaster.dev/v1alpha1/namespaces/shop/miniservices";
pub(crate) const TABLE: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
pub(crate) const PARTIAL: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";

/// 2026-11-22T10:00:00Z
pub(crate) const CREATED: Timestamp = Timestamp::from_millis(1_795_341_600_000);
/// Five minutes and five seconds later.
pub(crate) const NOW: Timestamp = CREATED.plus_millis(305_000);

#[derive(Clone)]
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) router: Router,
    pub(crate) acts: Arc<Mutex<Vec<ActRequest>>>,
    pub(crate) plans: Arc<Mutex<Vec<PlanRequest>>>,
    pub(crate) logs: Arc<Mutex<Vec<LogRequest>>>,
    pub(crate) face_router: Router,
    pub(crate) face: Arc<Mutex<FaceState>>,
}

/// What the stub tells apps, and what they told it.
#[derive(Default)]
pub(crate) struct FaceState {
    pub(crate) version: u64,
    pub(crate) usable: BTreeMap<String, bool>,
    pub(crate) reloads: Vec<Value>,
    pub(crate) heartbeats: Vec<HeartbeatRequest>,
    pub(crate) changes: tokio::sync::watch::Sender<u64>,
}

impl FaceState {
    /// Tells of a change.
    pub(crate) fn tell(&mut self) {
        self.version += 1;
        self.changes.send_replace(self.version);
    }
}

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status, type and body for a snapshot.
    pub(crate) fn show(&self) -> String {
        let body = match serde_json::from_slice::<Value>(&self.body) {
            Ok(value) => serde_json::to_string_pretty(&value).unwrap(),
            Err(_) => self.text(),
        };
        format!("{} {}\n{body}\n", self.status.as_u16(), self.header("content-type"))
    }

    /// The names of a list's items or of a table's rows.
    pub(crate) fn names(&self) -> Vec<String> {
        let json = self.json();
        let items = json.get("items").and_then(Value::as_array);
        let names = items.map(|items| items.iter().map(|item| item["metadata"]["name"].clone()).collect::<Vec<_>>());
        let rows = || json["rows"].as_array().unwrap_or_else(|| panic!("{json}")).iter().map(|row| row["cells"][0].clone()).collect();
        names.unwrap_or_else(rows).into_iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with_log(8_192)
    }

    pub(crate) fn with_log(log_batches: usize) -> Self {
        let options = Options { commit: CommitMode::Inline, log_batches, ..Options::default() };
        let store = Store::open(Box::new(Memory::new()), options).unwrap();
        let (acts, plans, logs) = (Arc::default(), Arc::default(), Arc::default());
        let face = Arc::default();
        let ports = ports(Arc::clone(&acts), Arc::clone(&plans), Arc::clone(&logs), Arc::clone(&face));
        let face_router = face_router(store.clone(), ports.clone(), "shop".to_owned());
        Self { router: router(store.clone(), ports), face_router, face, store, acts, plans, logs }
    }

    /// A world with a few objects of every kind.
    pub(crate) async fn filled() -> Self {
        let world = Self::new();
        let mut db = service("shop", "db", json!({"tier": "data"}));
        db.spec = Arc::new(json!({"container": {"image": "postgres:15"}}));
        db.status = Arc::new(json!({
            "observedGeneration": 1, "availability": "Available", "severity": 1, "usable": true, "reason": "Healthy", "message": "all is well", "level": 0,
            "replicas": {"wanted": 1, "running": 1, "healthy": 1}, "revision": 3,
        }));
        db.meta.annotations = [("quaymaster.dev/source", "/srv/manifests"), ("quaymaster.dev/source-path", "shop/db.yaml")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        world.create(db).await;
        world.create(service("shop", "app", json!({"tier": "web", "app": "x"}))).await;
        world.create(service("notify", "app", json!({"tier": "web"}))).await;
        let mut network = Object::new(ObjectKey::new("Network", "shop", "edge"), "uid-edge", CREATED, json!({"zone": "dmz"}));
        network.status = Arc::new(json!({"conditions": [{"type": "Ready", "status": "True"}]}));
        world.create(network).await;
        world.create(event("shop", "db.1", "db", "Started")).await;
        world.create(event("shop", "app.1", "app", "Blocked")).await;
        world.create(Object::new(ObjectKey::new("Lease", "shop", "hidden"), "uid-lease", CREATED, json!({}))).await;
        world
    }

    pub(crate) async fn create(&self, object: Object) -> Arc<Object> {
        let mut tx = self.store.tx();
        tx.create(object);
        Arc::clone(tx.commit(Durability::Soon).await.unwrap().outcomes[0].object())
    }

    /// Changes the labels of a service.
    pub(crate) async fn label(&self, name: &str, labels: Value) -> Arc<Object> {
        let mut object = Object::clone(self.store.snapshot().get(&ObjectKey::new("MiniService", "shop", name)).unwrap());
        object.meta.labels = map(labels);
        let mut tx = self.store.tx();
        tx.put(object);
        Arc::clone(tx.commit(Durability::Soon).await.unwrap().outcomes[0].object())
    }

    pub(crate) async fn delete(&self, kind: &str, namespace: &str, name: &str) -> Outcome {
        let mut tx = self.store.tx();
        tx.delete(ObjectKey::new(kind, namespace, name), Precondition::default(), NOW);
        tx.commit(Durability::Soon).await.unwrap().outcomes.remove(0)
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, HeaderMap, Body) {
        let response = self.router.clone().call(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, body)
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, accept: &str, body: impl Into<Body>) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if !accept.is_empty() {
            request = request.header("accept", accept);
        }
        let (status, headers, body) = self.send(request.body(body.into()).unwrap()).await;
        Reply { status, headers, body: body.collect().await.unwrap().to_bytes() }
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "", Body::empty()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, "", body.to_string()).await
    }

    pub(crate) async fn watch(&self, path: &str, accept: &str) -> Lines {
        let request = Request::get(path).header("accept", accept).body(Body::empty()).unwrap();
        let (status, headers, body) = self.send(request).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, "application/json"), "{path}");
        Lines { body: body.into_data_stream(), rest: Vec::new() }
    }
}

/// The lines of a watch.
pub(crate) struct Lines {
    body: BodyDataStream,
    rest: Vec<u8>,
}

impl Lines {
    /// The next event; `None` at a clean end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.rest.extend_from_slice(&self.body.next().await?.unwrap());
        }
    }

    /// The next event as `TYPE name@version`.
    pub(crate) async fn brief(&mut self) -> String {
        // In virtual time: an event that never comes fails at once.
        let next = tokio::time::timeout(Duration::from_secs(3_600), self.next()).await.expect("the event comes");
        brief(&next.expect("the stream goes on"))
    }

    pub(crate) async fn briefs(&mut self, count: usize) -> Vec<String> {
        let mut briefs = Vec::new();
        for _ in 0..count {
            briefs.push(self.brief().await);
        }
        briefs
    }

    /// Whether nothing is there now.
    pub(crate) fn is_silent(&mut self) -> bool {
        self.rest.is_empty() && self.body.next().now_or_never().is_none()
    }

    pub(crate) async fn all(mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(event) = self.next().await {
            all.push(brief(&event));
        }
        all
    }
}

pub(crate) fn brief(event: &Value) -> String {
    let object = &event["object"];
    let metadata = if object["rows"][0]["object"].is_object() { &object["rows"][0]["object"]["metadata"] } else { &object["metadata"] };
    let kind = event["type"].as_str().unwrap();
    match kind {
        "ERROR" => format!("ERROR {} {}", object["code"], object["reason"].as_str().unwrap()),
        "BOOKMARK" => {
            let end = metadata["annotations"]["k8s.io/initial-events-end"] == "true";
            format!("BOOKMARK {}{}", metadata["resourceVersion"].as_str().unwrap(), if end { " end" } else { "" })
        }
        _ => format!("{kind} {}@{}", metadata["name"].as_str().unwrap(), metadata["resourceVersion"].as_str().unwrap()),
    }
}

pub(crate) fn map(labels: Value) -> BTreeMap<qm_api::name::Name, qm_api::name::Name> {
    serde_json::from_value(labels).unwrap()
}

pub(crate) fn service(namespace: &str, name: &str, labels: Value) -> Object {
    let spec = json!({"container": {"image": "example/app:1"}});
    let mut object = Object::new(ObjectKey::new("MiniService", namespace, name), format!("uid-{namespace}-{name}"), CREATED, spec);
    object.meta.labels = map(labels);
    object
}

pub(crate) fn event(namespace: &str, name: &str, about: &str, reason: &str) -> Object {
    let spec = json!({
        "involvedObject": {"apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniService", "namespace": namespace, "name": about, "uid": format!("uid-{namespace}-{about}")},
        "reason": reason, "type": "Normal", "message": "something happened", "count": 1,
        "firstTimestamp": CREATED.to_string(), "lastTimestamp": CREATED.plus_millis(240_000).to_string(),
        "source": {"component": "quaymaster"}, "reportingComponent": "quaymaster",
    });
    let mut object = Object::new(ObjectKey::new("Event", namespace, name), format!("uid-event-{name}"), CREATED, spec);
    object.api_version = "v1".into();
    object
}

fn ports(
    acts: Arc<Mutex<Vec<ActRequest>>>,
    plans: Arc<Mutex<Vec<PlanRequest>>>,
    logs: Arc<Mutex<Vec<LogRequest>>>,
    state: Arc<Mutex<FaceState>>,
) -> Ports {
    Ports {
        act: Arc::new(move |request| {
            acts.lock().unwrap().push(request.clone());
            let answer = match request.reason.as_str() {
                "conflict" => Err(PortError::Conflict("the step has changed".to_owned())),
                "later" => Err(PortError::Unavailable { message: "the engine is away".to_owned(), retry_after_seconds: Some(7) }),
                "never" => Err(PortError::Unavailable { message: "the engine is too old".to_owned(), retry_after_seconds: None }),
                "panic" => panic!("a defect"),
                _ => Ok(intent(request)),
            };
            Box::pin(async move { answer })
        }),
        plan: Arc::new(move |request| {
            let is_bad = request.sources.iter().any(|source| source.id == "bad");
            plans.lock().unwrap().push(request);
            Box::pin(async move {
                if is_bad {
                    let place = Place { file: "a.yaml".into(), line: 3, column: 5, ..Place::default() };
                    let path = FieldPath::root().key("spec").key("bogus");
                    let problem = Problem::error(Code::UnknownField, path, "there is no field `bogus`").help("did you mean `logical`?");
                    let violations = vec![problem.placed(Some(ObjectKey::new("MiniService", "shop", "db")), Some(place))];
                    return Err(PortError::Invalid { message: "the manifests have 1 error".to_owned(), violations });
                }
                Ok(PlanAnswer { plan: json!({"steps": []}), text: "Nothing to do.\n".to_owned() })
            })
        }),
        graph: Arc::new(|| json!({"nodes": [], "edges": []})),
        overview: Arc::new(|| json!({"version": "0.1.0"})),
        usable: Arc::new(|namespace, name, _| match (namespace, name) {
            ("shop", "db") => Some(usable(name, json!({"usable": true}), 1, true, Some(5))),
            ("shop", "app") => Some(usable(name, json!({"usable": false}), 1, false, Some(5))),
            ("shop", "broken") => Some(usable(name, json!({"usable": false}), 1, false, None)),
            _ => None,
        }),
        usable_all: Arc::new({
            let state = Arc::clone(&state);
            move |namespace| {
                let state = state.lock().unwrap();
                let of = |(name, is_usable): (&String, &bool)| {
                    let facts = json!({ "namespace": namespace, "service": name, "usable": is_usable });
                    usable(name, facts, state.version, *is_usable, None)
                };
                let services = if namespace == "shop" { state.usable.iter().map(of).collect() } else { Vec::new() };
                (format!("boot-{}", state.version), services)
            }
        }),
        changes: Arc::new({
            let state = Arc::clone(&state);
            move || state.lock().unwrap().changes.subscribe()
        }),
        reloads: Arc::new({
            let state = Arc::clone(&state);
            move |_| state.lock().unwrap().reloads.clone()
        }),
        heartbeat: Arc::new(move |request| {
            let answer = match request.name.as_str() {
                "db" => Ok(json!({ "heartbeat": "15000ms", "reload": null })),
                _ => Err(PortError::NotFound("there is no such part".to_owned())),
            };
            state.lock().unwrap().heartbeats.push(request);
            Box::pin(async move { answer })
        }),
        lock: Arc::new(|request: LockRequest| {
            let answer = match &request.act {
                LockAct::Acquire { mode, holder, wait_ms, term_ms } => match holder.as_str() {
                    "late" => Err((LockReason::Changing, Some(3))),
                    "writer" => Err((LockReason::InUse, Some(1))),
                    _ => Ok(json!({"mode": mode, "holder": holder, "token": 7, "termMs": term_ms.unwrap_or(15_000), "waited": wait_ms})),
                },
                LockAct::Renew { token: 6, .. } | LockAct::Release { token: 6, .. } | LockAct::Check { token: 6 } => {
                    Err((LockReason::Stale, None))
                }
                act => Ok(json!({"service": request.name, "act": format!("{act:?}")})),
            };
            let refused = |(reason, retry_after_seconds)| PortError::Locked { reason, message: "not now".to_owned(), retry_after_seconds };
            Box::pin(async move { answer.map_err(refused) })
        }),
        logs: Arc::new(move |request| {
            logs.lock().unwrap().push(request.clone());
            let first = stream::iter([Ok(Bytes::from_static(b"[1] hello\n"))]);
            let stream: qm_apiserver::LogStream = if request.follow { Box::pin(first.chain(stream::pending())) } else { Box::pin(first) };
            Box::pin(async move { Ok(stream) })
        }),
        ready: Arc::new(|| Err(vec!["the engine cannot be reached".to_owned(), "source /srv has not been read".to_owned()])),
        now: Arc::new(|| NOW),
        version: "0.1.0".to_owned(),
    }
}

fn intent(request: ActRequest) -> Object {
    let ActRequest { act, scope, actor, reason, until, step_hash, to } = request;
    let namespace = scope.namespace.clone().unwrap_or_default();
    let spec = IntentSpec { act, scope, actor, reason, until, step_hash, to, at: NOW };
    Object::new(ObjectKey::new("Intent", namespace, "intent-1"), "uid-intent", NOW, serde_json::to_value(spec).unwrap())
}

fn usable(service: &str, facts: Value, version: u64, usable: bool, retry_after_seconds: Option<u64>) -> Usable {
    Usable { service: service.to_owned(), facts: facts.to_string(), version: version.to_string(), usable, retry_after_seconds }
}
