//! One connection to the API: requests in, faults applied, effects carried out, answers and streams out.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, UPGRADE};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::Sim;
use super::body::{AnyBody, Cut, never, piecewise, whole};
use crate::engine::reply::{Channel, Echo, Polled, Stream, frame};
use crate::faults::{EventFault, canonical};
use crate::{Call, Exchange, Fault, Reply, Request};

type Answered = Pin<Box<dyn Future<Output = Result<Response<AnyBody>, Cut>> + Send>>;
type Pieces = mpsc::Sender<Result<Bytes, Cut>>;

/// Serves one connection until either side ends it or all are cut.
pub(crate) async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(sim: Sim, stream: S) {
    let conn = sim.0.connections.fetch_add(1, Ordering::Relaxed) + 1;
    let cuts = sim.0.cut_count.load(Ordering::Relaxed);
    let for_service = sim.clone();
    let respond = move |request: hyper::Request<Incoming>| -> Answered { Box::pin(exchange(for_service.clone(), conn, cuts, request)) };
    let served = hyper::server::conn::http1::Builder::new()
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service_fn(respond))
        .with_upgrades();
    tokio::select! {
        biased;
        () = sim.cut(cuts) => {}
        // How a connection ended matters to its other side alone.
        _ = served => {}
    }
}

/// The path without its version, and the version.
fn split_version(path: &str, newest: (u32, u32)) -> ((u32, u32), String) {
    let Some(rest) = path.strip_prefix("/v").filter(|r| r.starts_with(|c: char| c.is_ascii_digit())) else {
        return (newest, path.to_owned());
    };
    let (version, path) = rest.split_once('/').unwrap_or((rest, ""));
    // Without a minor part it is newer than any 1.x.
    let api = match version.split_once('.') {
        Some((major, minor)) => (major.parse().unwrap_or(u32::MAX), minor.parse().unwrap_or(u32::MAX - 1)),
        None => (version.parse().unwrap_or(u32::MAX), u32::MAX),
    };
    (api, format!("/{path}"))
}

fn percent(text: &str, plus: char) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(plus as u8),
            b'%' => {
                let digits = [bytes.next(), bytes.next()].map(|d| d.and_then(|d| char::from(d).to_digit(16)));
                match digits {
                    [Some(high), Some(low)] => out.push((high * 16 + low) as u8),
                    _ => out.push(b'%'),
                }
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn parse_query(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut query: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pair in text.split('&').filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        query.entry(percent(key, ' ')).or_default().push(percent(value, ' '));
    }
    query
}

fn canonical_query(query: &BTreeMap<String, Vec<String>>) -> String {
    let pairs = query.iter().flat_map(|(key, values)| values.iter().map(move |v| format!("{key}={}", canonical(v.as_bytes()))));
    pairs.collect::<Vec<_>>().join("&")
}

fn is_write(method: &str, path: &str) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    let harmless = path.starts_with("/exec/") || matches!(last, "exec" | "wait" | "attach" | "resize" | "auth");
    matches!(method, "POST" | "PUT" | "DELETE") && !harmless
}

/// A request with all that is known about it.
struct Taken {
    request: Request,
    call: Call,
    body: String,
    /// The connection can become a raw stream.
    upgrade: Option<OnUpgrade>,
    refusal: Option<Reply>,
}

async fn take(sim: &Sim, conn: u64, mut incoming: hyper::Request<Incoming>) -> Result<Taken, Cut> {
    let upgrade = incoming.headers().get(UPGRADE).is_some().then(|| hyper::upgrade::on(&mut incoming));
    let (parts, body) = incoming.into_parts();
    let newest = sim.with(|engine| engine.options().max_api);
    let (api, path) = split_version(parts.uri.path(), newest);
    let path = percent(&path, '+');
    let query = parse_query(parts.uri.query().unwrap_or_default());
    let method = parts.method.as_str().to_owned();
    let bytes = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let shown = canonical(&bytes);
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|k| k.to_str().ok()).unwrap_or_default();
    let wrong_kind = method == "POST"
        && path.ends_with("/create")
        && !path.starts_with("/images/")
        && !bytes.is_empty()
        && !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json");
    let refusal = wrong_kind.then(|| {
        let message = format!("Content-Type specified ({kind}) must be 'application/json'");
        Reply::Json { status: 400, body: json!({ "message": message }) }
    });
    let canonical_query = canonical_query(&query);
    // Nobody counts where nobody listens.
    let hooks = sim.hooks();
    let counts = hooks.decide.is_some() || hooks.see.is_some();
    let occurrence = if counts { sim.occurrence(&format!("{method} {path}?{canonical_query} {shown}")) } else { 1 };
    let call = Call {
        conn,
        is_write: is_write(&method, &path),
        method: method.clone(),
        container: named_container(&path, &bytes),
        path: path.clone(),
        query: canonical_query,
        occurrence,
    };
    let registry_auth = parts.headers.get("x-registry-auth").and_then(|value| value.to_str().ok()).map(str::to_owned);
    Ok(Taken { request: Request { method, path, query, body: bytes.to_vec(), api, registry_auth }, call, body: shown, upgrade, refusal })
}

/// The container that joins or leaves a network.
fn named_container(path: &str, body: &[u8]) -> String {
    if !(path.starts_with("/networks/") && (path.ends_with("/connect") || path.ends_with("/disconnect"))) {
        return String::new();
    }
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    body["Container"].as_str().unwrap_or_default().to_owned()
}

async fn exchange(sim: Sim, conn: u64, cuts: u64, incoming: hyper::Request<Incoming>) -> Result<Response<AnyBody>, Cut> {
    let taken = take(&sim, conn, incoming).await?;
    let fault = sim.hooks().decide.map_or(Fault::None, |decide| decide(&taken.call));
    let (delay, then) = fault.split();
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let then = then.clone();
    let mut log = Exchange { now: sim.now(), call: taken.call, body: taken.body, status: 0, answer: String::new(), changed: false, fault };
    let refusal = match &then {
        Fault::CutBefore => {
            tell(&sim, log);
            return Err(Cut);
        }
        Fault::Silent => {
            tell(&sim, log);
            return std::future::pending().await;
        }
        Fault::Status { code, message } => Some(Reply::Json { status: *code, body: json!({ "message": message }) }),
        _ => taken.refusal,
    };
    let mut reply = match refusal {
        Some(reply) => reply,
        None => {
            // In a task of its own: a client that gave up does not undo it.
            let (effect, request) = (sim.clone(), taken.request.clone());
            let (reply, changed) = tokio::spawn(async move { carry_out(&effect, &request).await }).await.map_err(|_| Cut)?;
            log.changed = changed;
            reply
        }
    };
    if let Fault::StatusAfter { code, message } = &then {
        reply = Reply::Json { status: *code, body: json!({ "message": message }) };
    }
    reply = in_old_words(reply, &taken.request);
    log.now = sim.now();
    if !matches!(then, Fault::CutAfter | Fault::SilentAfter) {
        log.status = reply.status().unwrap_or(0);
    }
    tell_answer(&sim, log, &reply);
    match then {
        Fault::CutAfter => Err(Cut),
        Fault::SilentAfter => std::future::pending().await,
        then => Ok(respond(&sim, conn, cuts, reply, &taken.request, taken.upgrade, &then)),
    }
}

/// Refusals were plain text before API 1.24, and still are where a connection would have been hijacked.
fn in_old_words(reply: Reply, request: &Request) -> Reply {
    let attach = request.path.ends_with("/attach");
    match reply {
        Reply::Json { status: status @ 400.., body } if attach || request.api < (1, 24) => {
            let end = if attach { "\r\n" } else { "\n" };
            let text = format!("{}{end}", body["message"].as_str().unwrap_or_default());
            Reply::Bytes { status, content_type: "text/plain; charset=utf-8", headers: Vec::new(), body: text.into_bytes() }
        }
        reply => reply,
    }
}

/// Tells of an answer, which is put into words only if somebody listens.
fn tell_answer(sim: &Sim, exchange: Exchange, reply: &Reply) {
    if let Some(see) = sim.hooks().see {
        let answer = match reply {
            Reply::Json { body, .. } => canonical(body.to_string().as_bytes()),
            Reply::Bytes { body, .. } => canonical(body),
            _ => String::new(),
        };
        see(&Exchange { answer, ..exchange });
    }
}

fn tell(sim: &Sim, exchange: Exchange) {
    if let Some(see) = sim.hooks().see {
        see(&exchange);
    }
}

/// Lets the engine answer, and waits for what it promised.
async fn carry_out(sim: &Sim, request: &Request) -> (Reply, bool) {
    let now = sim.now();
    let (reply, before, after) = sim.with(|engine| {
        engine.advance(now);
        let before = engine.mutations();
        (engine.handle(request, now), before, engine.mutations())
    });
    let Reply::Later(ticket) = reply else { return (reply, before != after) };
    let gone = || Reply::Json { status: 500, body: json!({ "message": "the daemon was restarted" }) };
    let reply = sim
        .until(|engine, now| {
            engine.advance(now);
            engine.take(ticket).or_else(|| (!engine.promised(ticket)).then(gone))
        })
        .await;
    (reply, true)
}

fn common_headers(sim: &Sim, response: &mut Response<AnyBody>) {
    let (api, version) = sim.with(|engine| (engine.options().max_api, engine.options().version.clone()));
    let mut put = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    };
    put("api-version", format!("{}.{}", api.0, api.1));
    put("docker-experimental", "false".to_owned());
    put("ostype", "linux".to_owned());
    put("server", format!("Docker/{version} (linux)"));
}

fn respond(
    sim: &Sim,
    conn: u64,
    cuts: u64,
    reply: Reply,
    request: &Request,
    upgrade: Option<OnUpgrade>,
    fault: &Fault,
) -> Response<AnyBody> {
    let status = StatusCode::from_u16(reply.status().unwrap_or(500)).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let head = request.method == "HEAD";
    let (mut kind, mut more) = (None, Vec::new());
    let mut switched = false;
    let body = match reply {
        Reply::Json { body, .. } => {
            kind = Some("application/json");
            let mut text = body.to_string();
            text.push('\n');
            finite(text.into_bytes(), fault)
        }
        Reply::Empty { .. } | Reply::Later(_) => whole(Bytes::new()),
        Reply::Bytes { content_type, headers, body, .. } => {
            kind = Some(content_type);
            more = headers;
            finite(if head { Vec::new() } else { body }, fault)
        }
        Reply::Stream(stream) => {
            kind = Some(if matches!(stream, Stream::Logs(_)) { "application/vnd.docker.raw-stream" } else { "application/json" });
            flowing(sim, conn, cuts, stream, fault)
        }
        Reply::Hijack(stream) => {
            kind = Some("application/vnd.docker.raw-stream");
            match upgrade {
                Some(upgrade) => {
                    switched = true;
                    tokio::spawn(hijacked(sim.clone(), cuts, upgrade, stream));
                    whole(Bytes::new())
                }
                None => flowing(sim, conn, cuts, stream, fault),
            }
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = if switched || status != StatusCode::SWITCHING_PROTOCOLS { status } else { StatusCode::OK };
    common_headers(sim, &mut response);
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if switched {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("tcp"));
    }
    for (name, value) in more {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// A body that is all there, unless something goes wrong.
fn finite(bytes: Vec<u8>, fault: &Fault) -> AnyBody {
    match fault {
        Fault::SilentBody => never(),
        Fault::CutMidBody => {
            let (send, body) = piecewise();
            let half = Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
            tokio::spawn(cut_after(send, half));
            body
        }
        _ => whole(bytes),
    }
}

async fn cut_after(send: Pieces, half: Bytes) {
    // Whoever reads may be gone already.
    let _ = send.send(Ok(half)).await;
    // Without a pause, head and half never leave.
    tokio::time::sleep(Duration::from_millis(1)).await;
    let _ = send.send(Err(Cut)).await;
}

/// A body that comes as the engine has it.
fn flowing(sim: &Sim, conn: u64, cuts: u64, stream: Stream, fault: &Fault) -> AnyBody {
    if *fault == Fault::SilentBody {
        return never();
    }
    let (send, body) = piecewise();
    let ends_early = *fault == Fault::CutMidBody;
    let sim = sim.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            () = send.closed() => {}
            () = sim.cut(cuts) => {
                let _ = send.send(Err(Cut)).await;
            }
            () = flow(&sim, conn, stream, &send, ends_early) => {}
        }
    });
    body
}

async fn flow(sim: &Sim, conn: u64, mut stream: Stream, send: &Pieces, ends_early: bool) {
    let mut swapped: Option<Bytes> = None;
    loop {
        let piece = sim
            .until(|engine, now| {
                engine.advance(now);
                match engine.poll(&mut stream, now) {
                    Polled::Idle => None,
                    piece => Some(piece),
                }
            })
            .await;
        let bytes = match piece {
            Polled::Idle | Polled::End => return,
            Polled::Data(bytes) if ends_early => {
                cut_after(send.clone(), Bytes::copy_from_slice(&bytes[..bytes.len() / 2])).await;
                return;
            }
            Polled::Data(bytes) => bytes.into(),
            Polled::Event(event) => {
                let fate = sim.hooks().events.map_or(EventFault::Pass, |decide| decide(&event, conn));
                let line = Bytes::from(event.line());
                match fate {
                    _ if ends_early => {
                        cut_after(send.clone(), line.slice(..line.len() / 2)).await;
                        return;
                    }
                    EventFault::Pass => line,
                    EventFault::Drop => continue,
                    EventFault::Double => [&line[..], &line[..]].concat().into(),
                    EventFault::DelayMs(ms) => {
                        tokio::time::sleep(Duration::from_millis(ms)).await;
                        line
                    }
                    EventFault::Swap if swapped.is_none() => {
                        swapped = Some(line);
                        continue;
                    }
                    EventFault::Swap => line,
                    EventFault::Cut => {
                        cut_after(send.clone(), Bytes::new()).await;
                        return;
                    }
                }
            }
        };
        if send.send(Ok(bytes)).await.is_err() {
            return;
        }
        if let Some(late) = swapped.take()
            && send.send(Ok(late)).await.is_err()
        {
            return;
        }
    }
}

/// A connection that has become a raw stream.
async fn hijacked(sim: Sim, cuts: u64, upgrade: OnUpgrade, stream: Stream) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut io = TokioIo::new(upgraded);
    tokio::select! {
        biased;
        () = sim.cut(cuts) => {}
        // The other side may go at any time.
        _ = converse(&sim, &mut io, stream) => {}
    }
    let _ = io.shutdown().await;
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(sim: &Sim, io: &mut S, mut stream: Stream) -> std::io::Result<()> {
    let echo = match &stream {
        Stream::Done(output) => output.echo,
        _ => Echo::No,
    };
    let mut buffer = vec![0_u8; 8 * 1024];
    let mut reading = true;
    loop {
        let next = sim.until(|engine, now| {
            engine.advance(now);
            match engine.poll(&mut stream, now) {
                Polled::Idle => None,
                piece => Some(piece),
            }
        });
        tokio::select! {
            biased;
            piece = next => match piece {
                Polled::Data(bytes) => {
                    io.write_all(&bytes).await?;
                    io.flush().await?;
                }
                _ if echo != Echo::No => break,
                _ => return Ok(()),
            },
            // What comes in is swallowed; its end does not end what goes out.
            read = io.read(&mut buffer), if reading => reading = read? > 0,
        }
    }
    loop {
        let count = io.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        match echo {
            Echo::Framed => io.write_all(&frame(Channel::Out, &buffer[..count])).await?,
            Echo::Raw | Echo::No => io.write_all(&buffer[..count]).await?,
        }
        io.flush().await?;
    }
}
