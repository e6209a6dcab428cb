//! Any bytes as a request to the API, in process: `METHOD URI`, header lines, an empty line, the body.
//!
//! Beyond not crashing: nothing is answered with 500, and whatever Kubernetes-shaped is refused is refused with a `Status`.
#![no_main]

use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use futures_util::{FutureExt, StreamExt, stream};
use http::{Request, StatusCode};
use libfuzzer_sys::fuzz_target;
use qm_api::meta::{Object, ObjectKey};
use qm_api::time::Timestamp;
use qm_apiserver::{
    ActRequest, HeartbeatRequest, LockAct, LockReason, LockRequest, LogRequest, LogStream, PlanAnswer, PlanRequest, PortError, Ports,
    Usable, router,
};
use qm_store::backend::Memory;
use qm_store::{CommitMode, Durability, Options, Store};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tower_service::Service;

const NOW: Timestamp = Timestamp::from_millis(1_795_341_600_000);

/// At most so many pieces of an answer are read: a watch does not end by itself.
const MAX_PIECES: usize = 64;

fn usable(namespace: &str) -> Usable {
    let facts = json!({"namespace": namespace, "service": "db"}).to_string();
    Usable { service: "db".to_owned(), facts, version: "boot-1".to_owned(), usable: true, retry_after_seconds: None }
}

fn ports() -> Ports {
    Ports {
        act: Arc::new(|request: ActRequest| {
            Box::pin(async move {
                let key = ObjectKey::new("Intent", request.scope.namespace.unwrap_or_default(), "i1");
                Ok(Object::new(key, "uid-i1", NOW, json!({"actor": request.actor, "reason": request.reason})))
            })
        }),
        plan: Arc::new(|request: PlanRequest| {
            Box::pin(async move {
                match request.sources.len() {
                    0 | 1 => Ok(PlanAnswer { plan: json!({"steps": [], "findings": []}), text: "Nothing to do.".to_owned() }),
                    n => Err(PortError::Invalid { message: format!("{n} sources"), violations: Vec::new() }),
                }
            })
        }),
        graph: Arc::new(|| json!({"nodes": [], "edges": []})),
        overview: Arc::new(|| json!({})),
        usable: Arc::new(|namespace: &str, name: &str, _: Option<&str>| (name == "db").then(|| usable(namespace))),
        usable_all: Arc::new(|namespace: &str| ("boot-1".to_owned(), vec![usable(namespace)])),
        changes: Arc::new(|| tokio::sync::watch::Sender::new(0).subscribe()),
        reloads: Arc::new(|_: &str| Vec::new()),
        heartbeat: Arc::new(|request: HeartbeatRequest| Box::pin(async move { Ok(json!({"service": request.name})) })),
        lock: Arc::new(|request: LockRequest| {
            Box::pin(async move {
                match request.act {
                    LockAct::Check { .. } => {
                        let message = "the token is not current any more".to_owned();
                        Err(PortError::Locked { reason: LockReason::Stale, message, retry_after_seconds: None })
                    }
                    _ => Ok(json!({"service": request.name})),
                }
            })
        }),
        logs: Arc::new(|request: LogRequest| {
            Box::pin(async move {
                let lines: LogStream = Box::pin(stream::iter([Ok(format!("{}\n", request.name).into())]));
                Ok(lines)
            })
        }),
        ready: Arc::new(|| Ok(())),
        now: Arc::new(|| NOW),
        version: "0.0.0".to_owned(),
    }
}

fn world() -> &'static (Runtime, Router) {
    static WORLD: OnceLock<(Runtime, Router)> = OnceLock::new();
    WORLD.get_or_init(|| {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime without IO can be built");
        let options = Options { commit: CommitMode::Inline, ..Options::default() };
        let router = runtime.block_on(async {
            let store = Store::open(Box::new(Memory::new()), options).expect("a store in memory opens");
            let mut tx = store.tx();
            for (namespace, name) in [("shop", "db"), ("shop", "app"), ("notify", "app")] {
                let key = ObjectKey::new("MiniService", namespace, name);
                let mut object = Object::new(key, format!("uid-{namespace}-{name}"), NOW, json!({"container": {"image": "app:1"}}));
                object.meta.labels = [("tier".into(), name.into())].into();
                tx.create(object);
            }
            tx.create(Object::new(ObjectKey::new("Network", "shop", "edge"), "uid-edge", NOW, json!({"zone": "dmz"})));
            tx.commit(Durability::Soon).await.expect("a store in memory takes objects");
            router(store, ports())
        });
        (runtime, router)
    })
}

/// The request that the bytes spell, if they spell one.
fn request(bytes: &[u8]) -> Option<Request<Body>> {
    let (head, body) = match bytes.windows(2).position(|two| two == b"\n\n") {
        Some(at) => (&bytes[..at], &bytes[at + 2..]),
        None => (bytes, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let mut first = lines.next()?.splitn(2, |byte| *byte == b' ');
    let mut request = Request::builder().method(first.next()?).uri(first.next()?);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        request = request.header(&line[..colon], line[colon + 1..].trim_ascii());
    }
    request.body(Body::from(body.to_vec())).ok()
}

async fn answer(router: &Router, request: Request<Body>) {
    let line = format!("{} {}", request.method(), request.uri());
    let is_head = request.method() == "HEAD";
    let path = request.uri().path().to_owned();
    let Ok(response) = router.clone().call(request).await;
    let (parts, body) = response.into_parts();
    assert_ne!(parts.status, StatusCode::INTERNAL_SERVER_ERROR, "{line}");
    let mut pieces = body.into_data_stream();
    let mut text = Vec::new();
    for _ in 0..MAX_PIECES {
        match pieces.next().now_or_never() {
            Some(Some(Ok(piece))) => text.extend_from_slice(&piece),
            _ => break,
        }
    }
    let plain = ["/healthz", "/livez", "/readyz", "/usable", "/watch"].iter().any(|p| path.starts_with(p));
    if parts.status.is_client_error() && !is_head && !plain {
        let status: Value = serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{line}: {} is no JSON: {error}", parts.status));
        assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(parts.status.as_u16())), "{line}");
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(request) = request(bytes) {
        let (runtime, router) = world();
        runtime.block_on(answer(router, request));
    }
});
