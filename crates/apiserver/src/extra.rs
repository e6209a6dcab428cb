//! Owns what Kubernetes has no word for: plan, backup, usable, and the log of a service.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::StatusCode;
use http::request::Parts;
use qm_api::kinds::mini_service;
use qm_api::registry;
use serde::Deserialize;
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::app::{App, MOST_BODY, ask, closing, json, parse_object, read_body, with_type};
use crate::ports::{CandidateSource, LogRequest, PlanRequest};
use crate::query::Query;
use crate::resource;
use crate::status::Failure;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedPlan {
    #[serde(default)]
    sources: Vec<AskedSource>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedSource {
    id: String,
    #[serde(default)]
    files: BTreeMap<String, String>,
}

/// Answers `POST /quaymaster/v1/plan`.
pub(crate) async fn plan(app: &App, body: Body) -> Result<Response, Failure> {
    let asked: AskedPlan = parse_object(&read_body(body, MOST_BODY).await?, "a plan")?;
    let answer = ask((app.ports.plan)(candidates(asked)?)).await?;
    Ok(json(StatusCode::OK, &json!({"plan": answer.plan, "text": answer.text})))
}

fn candidates(asked: AskedPlan) -> Result<PlanRequest, Failure> {
    let mut ids = BTreeSet::new();
    let mut sources = Vec::new();
    for (at, source) in asked.sources.into_iter().enumerate() {
        if !ids.insert(source.id.clone()) {
            return Err(Failure::invalid_field(&format!("sources[{at}].id"), format!("`{}` is there twice", source.id)));
        }
        let mut files = BTreeMap::new();
        for (path, text) in source.files {
            let bytes = STANDARD.decode(&text);
            let bad = |_| Failure::invalid_field(&format!("sources[{at}].files[\"{path}\"]"), "this is not base64");
            let bytes = bytes.map_err(bad)?;
            files.insert(path, bytes);
        }
        sources.push(CandidateSource { id: source.id, files });
    }
    Ok(PlanRequest { sources })
}

/// Answers a GET of a service's log.
pub(crate) async fn log(app: &App, namespace: String, name: String, parts: &Parts, query: &Query) -> Result<Response, Failure> {
    let request = LogRequest {
        follow: query.is_on("follow"),
        tail_lines: query.number("tailLines")?,
        slot: query.number("slot")?.map(u32::try_from).transpose().map_err(|_| Failure::bad_request("slot: there is no such slot"))?,
        timestamps: query.is_on("timestamps"),
        namespace,
        name,
    };
    let kind = registry::by_kind(mini_service::KIND).ok_or_else(Failure::no_such_url)?;
    resource::find(&app.store.snapshot(), kind, &request.namespace, &request.name)
        .ok_or_else(|| Failure::no_such_object(kind, &request.name))?;
    let place = app.stream_place()?;
    let closing = closing(parts);
    let text = ask((app.ports.logs)(request)).await?;
    let text = text.take_until(closing.cancelled_owned()).map(move |chunk| {
        // Held until the stream is dropped.
        let _place = &place;
        chunk
    });
    Ok(with_type(StatusCode::OK, "text/plain; charset=utf-8", Body::from_stream(text)))
}

/// How much of a backup goes out at once.
const CHUNK: usize = 64 * 1024;
/// How long a client may let a backup wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers `GET /quaymaster/v1/backup`. A backup that broke off ends without its last line, and its body without its end.
pub(crate) fn backup(app: &App) -> Result<Response, Failure> {
    let place = app.backup_place()?;
    let (out, mut chunks) = mpsc::channel(2);
    let mut pipe = Pipe { buffer: Vec::with_capacity(CHUNK), out, runtime: Handle::current() };
    let store = app.store.clone();
    tokio::task::spawn_blocking(move || {
        let _place = place;
        if let Err(error) = store.backup(&mut pipe).and_then(|_| pipe.flush()) {
            tracing::warn!(%error, "a backup was not written to its end");
            // Who is gone needs no word of it.
            let _ = pipe.send(Err(error));
        }
    });
    Ok(with_type(StatusCode::OK, "application/x-ndjson", Body::from_stream(stream::poll_fn(move |cx| chunks.poll_recv(cx)))))
}

/// The way from the thread that writes a backup to the connection.
struct Pipe {
    buffer: Vec<u8>,
    out: mpsc::Sender<io::Result<Bytes>>,
    runtime: Handle,
}

impl Pipe {
    fn send(&self, chunk: io::Result<Bytes>) -> io::Result<()> {
        let sent = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, self.out.send(chunk)).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client has gone")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.buffer, Vec::with_capacity(CHUNK));
        self.send(Ok(chunk.into()))
    }
}
