//! hyper around the engine: connections, streams, hijacked connections, faults, ports. Decides nothing about Docker.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};
use tokio::sync::{mpsc, watch};

use crate::Now;
use crate::engine::reply::{Reply, Request, Stream, Ticket};
use crate::engine::{Engine, Listening, Polled};
use crate::faults::{Call, EventFault, Exchange, Fault};

/// Bytes that an in-process connection takes before its reader must read.
const PIPE: usize = 64 * 1024;
/// The largest request body.
const MOST_BODY: usize = 64 << 20;

type Clock = Arc<dyn Fn() -> Now + Send + Sync>;
type Decide = Arc<dyn Fn(&Call) -> Fault + Send + Sync>;
type See = Arc<dyn Fn(&Exchange) + Send + Sync>;
type EventFaults = Arc<dyn Fn(u64, u64) -> EventFault + Send + Sync>;

#[derive(Default)]
struct Hooks {
    decide: Option<Decide>,
    see: Option<See>,
    events: Option<EventFaults>,
    occurrences: BTreeMap<(String, String), u64>,
}

struct Inner {
    engine: Mutex<Engine>,
    clock: Clock,
    hooks: Mutex<Hooks>,
    /// Counts changes: streams and the timer look again at every one.
    changes: watch::Sender<u64>,
    /// Counts cuts: every connection of an older count breaks.
    cuts: watch::Sender<u64>,
    conns: AtomicU64,
    away: AtomicBool,
}

/// A running simulator. Clones are handles on the same one.
#[derive(Clone)]
pub struct Sim(Arc<Inner>);

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sim")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a connection is given up.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection is cut")
    }
}

impl std::error::Error for Cut {}

type OutBody = Pin<Box<dyn Body<Data = Bytes, Error = Cut> + Send>>;
type Answer = Result<http::Response<OutBody>, Cut>;

impl Sim {
    /// A simulator around an engine. `clock` gives both clocks.
    pub fn new(engine: Engine, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            engine: Mutex::new(engine),
            clock,
            hooks: Mutex::default(),
            changes: watch::Sender::new(0),
            cuts: watch::Sender::new(0),
            conns: AtomicU64::new(0),
            away: AtomicBool::new(false),
        }))
    }

    /// Looks into the engine, or changes it past every fault; whoever waits for a change looks again afterwards.
    pub fn with<R>(&self, f: impl FnOnce(&mut Engine) -> R) -> R {
        let result = f(&mut lock(&self.0.engine));
        self.woken();
        result
    }

    /// Lets scripted things happen at their time, for ever.
    pub async fn run(&self) {
        let mut changes = self.0.changes.subscribe();
        loop {
            let due = {
                let mut engine = lock(&self.0.engine);
                let now = self.now();
                if engine.next_due().is_some_and(|at| at <= now.mono_ms) {
                    engine.advance(now);
                    drop(engine);
                    self.woken();
                    continue;
                }
                engine.next_due().map(|at| at - now.mono_ms)
            };
            let pause = Duration::from_millis(due.unwrap_or(3_600_000));
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// A fresh connection to the API, in process.
    ///
    /// # Errors
    /// `ConnectionRefused` while the daemon is away.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        if self.0.away.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (ours, theirs) = tokio::io::duplex(PIPE);
        let sim = self.clone();
        tokio::spawn(async move { sim.serve(theirs).await });
        Ok(ours)
    }

    /// A connection to a container's port: it answers every HTTP request alike.
    ///
    /// # Errors
    /// `ConnectionRefused` where nobody listens, `HostUnreachable` where there is nobody.
    pub fn dial(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        let listening = lock(&self.0.engine).listens(host, port, self.now());
        match listening {
            Listening::Unreachable => Err(io::ErrorKind::HostUnreachable.into()),
            Listening::Refused => Err(io::ErrorKind::ConnectionRefused.into()),
            Listening::Accepts { http_status } => {
                let (ours, theirs) = tokio::io::duplex(4096);
                tokio::spawn(answer_http(theirs, http_status));
                Ok(ours)
            }
        }
    }

    /// Serves the API on a unix socket, for ever.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub async fn serve_unix(&self, path: &Path) -> io::Result<()> {
        let listener = tokio::net::UnixListener::bind(path)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let sim = self.clone();
            tokio::spawn(async move { sim.serve(stream).await });
        }
    }

    /// Serves the API on TCP, for ever.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn serve_tcp(&self, address: std::net::SocketAddr) -> io::Result<()> {
        let listener = tokio::net::TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let sim = self.clone();
            tokio::spawn(async move { sim.serve(stream).await });
        }
    }

    /// Keeps real listeners where containers listen, for ever: their addresses must be this machine's (see `AddressPool::Loopback`). What
    /// cannot be bound is told to `problem` once.
    pub async fn serve_ports(&self, problem: impl Fn(&str)) {
        let mut open: BTreeMap<(Ipv4Addr, u16), tokio::task::JoinHandle<()>> = BTreeMap::new();
        let mut told = BTreeSet::new();
        let mut changes = self.0.changes.subscribe();
        loop {
            let wanted = lock(&self.0.engine).open_ports(self.now().mono_ms);
            open.retain(|place, task| {
                let stays = wanted.contains(place);
                if !stays {
                    task.abort();
                }
                stays
            });
            for (address, port) in wanted {
                if open.contains_key(&(address, port)) {
                    continue;
                }
                match tokio::net::TcpListener::bind((address, port)).await {
                    Ok(listener) => {
                        let sim = self.clone();
                        open.insert((address, port), tokio::spawn(async move { sim.accept_all(listener, address, port).await }));
                    }
                    Err(error) if told.insert((address, port)) => problem(&format!("{address}:{port} cannot be listened on: {error}")),
                    Err(_) => {}
                }
            }
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn accept_all(&self, listener: tokio::net::TcpListener, address: Ipv4Addr, port: u16) {
        while let Ok((stream, _)) = listener.accept().await {
            if let Listening::Accepts { http_status } = lock(&self.0.engine).listens(&address.to_string(), port, self.now()) {
                tokio::spawn(answer_http(stream, http_status));
            }
        }
    }

    /// Decides what goes wrong with each call, before it takes effect.
    pub fn set_faults(&self, decide: Decide) {
        lock(&self.0.hooks).decide = Some(decide);
    }

    /// Is told of each exchange after it.
    pub fn set_observer(&self, see: See) {
        lock(&self.0.hooks).see = Some(see);
    }

    /// Decides what happens to each event (by its number) on its way to each follower (by its connection).
    pub fn set_event_faults(&self, decide: EventFaults) {
        lock(&self.0.hooks).events = Some(decide);
    }

    /// Breaks every open connection.
    pub fn cut_all(&self) {
        self.0.cuts.send_modify(|n| *n += 1);
    }

    /// While away, nobody answers in process.
    pub fn set_away(&self, away: bool) {
        self.0.away.store(away, Ordering::Relaxed);
    }

    fn now(&self) -> Now {
        (self.0.clock)()
    }

    fn woken(&self) {
        self.0.changes.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Serves one connection to its end, or to the next cut.
    async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let conn = self.0.conns.fetch_add(1, Ordering::Relaxed) + 1;
        let mut cuts = self.0.cuts.subscribe();
        cuts.mark_unchanged();
        let sim = self.clone();
        let service = service_fn(move |request| sim.clone().answer(conn, request));
        let connection = hyper::server::conn::http1::Builder::new().auto_date_header(false).serve_connection(TokioIo::new(stream), service);
        tokio::select! {
            biased;
            _ = cuts.changed() => {}
            // How a connection ends is its client's business.
            ended = connection.with_upgrades() => drop(ended),
        }
    }

    fn answer(self, conn: u64, request: http::Request<Incoming>) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        // The effect is in a task of its own: a client that gives up does not undo it.
        let task = tokio::spawn(async move { self.exchange(conn, request).await });
        Box::pin(async move { task.await.unwrap_or(Err(Cut)) })
    }

    async fn exchange(&self, conn: u64, mut request: http::Request<Incoming>) -> Answer {
        let upgrade = request.headers().contains_key(http::header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
        let (parts, body) = request.into_parts();
        let body = match http_body_util::Limited::new(body, MOST_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(_) => return Err(Cut),
        };
        let engine_api = self.api_range();
        let (api, path) = match split_version(parts.uri.path(), engine_api) {
            Ok(split) => split,
            Err(answer) => return Ok(answer),
        };
        let query = read_query(parts.uri.query().unwrap_or_default());
        let content_type = parts.headers.get(http::header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let wants_json = parts.method == http::Method::POST && path.ends_with("/create") && !path.starts_with("/images");
        if wants_json && !body.is_empty() && !content_type.starts_with("application/json") {
            let message = format!("Content-Type specified ({content_type}) must be 'application/json'");
            return Ok(json_answer(400, &json!({ "message": message })));
        }
        let request = Request { method: parts.method.as_str().to_owned(), path: path.to_owned(), query, body: body.to_vec(), api };
        let call = self.call(conn, &request);
        let fault = lock(&self.0.hooks).decide.clone().map_or(Fault::None, |decide| decide(&call));
        if let Fault::Delay { ms } = fault {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        match &fault {
            Fault::CutBefore => {
                self.seen(call, &request, 0, Value::Null, false, fault);
                return Err(Cut);
            }
            Fault::Status { code, message } => {
                let (code, body) = (*code, json!({ "message": message }));
                self.seen(call, &request, code, body.clone(), false, fault);
                return Ok(json_answer(code, &body));
            }
            _ => {}
        }
        let before = lock(&self.0.engine).mutations();
        let mut reply = lock(&self.0.engine).handle(&request, self.now());
        self.woken();
        if let Reply::Later(ticket) = reply {
            reply = self.promised(ticket).await;
        }
        let changed = lock(&self.0.engine).mutations() != before;
        let status = match (&reply, upgrade.is_some()) {
            (Reply::Hijack { .. }, true) => 101,
            (reply, _) => reply.status().unwrap_or(500),
        };
        let shown = match &reply {
            Reply::Json { body, .. } => body.clone(),
            Reply::Bytes { body, .. } => json!(format!("{} bytes", body.len())),
            Reply::Hijack { output, .. } => json!(format!("{} bytes", output.len())),
            Reply::Stream(_) => json!("a stream"),
            Reply::Empty { .. } | Reply::Later(_) => Value::Null,
        };
        self.seen(call, &request, status, shown, changed, fault.clone());
        match fault {
            Fault::CutAfter => return Err(Cut),
            Fault::Silent => std::future::pending().await,
            _ => {}
        }
        Ok(self.respond(conn, reply, fault, upgrade, request.method == "HEAD"))
    }

    fn api_range(&self) -> ((u32, u32), (u32, u32)) {
        lock(&self.0.engine).api_range()
    }

    fn call(&self, conn: u64, request: &Request) -> Call {
        let mut query = String::new();
        for (key, values) in &request.query {
            for value in values {
                query.push_str(if query.is_empty() { "" } else { "&" });
                query.push_str(&format!("{key}={value}"));
            }
        }
        let mut hooks = lock(&self.0.hooks);
        let occurrence = hooks.occurrences.entry((request.method.clone(), request.path.clone())).or_insert(0);
        *occurrence += 1;
        let occurrence = *occurrence;
        let is_read =
            matches!(request.method.as_str(), "GET" | "HEAD") || request.path.contains("/exec") || request.path.ends_with("/wait");
        Call { conn, method: request.method.clone(), path: request.path.clone(), query, occurrence, is_write: !is_read }
    }

    fn seen(&self, call: Call, request: &Request, status: u16, answer: Value, changed: bool, fault: Fault) {
        let Some(see) = lock(&self.0.hooks).see.clone() else { return };
        let body = match serde_json::from_slice::<Value>(&request.body) {
            Ok(value) => value,
            Err(_) if request.body.is_empty() => Value::Null,
            Err(_) => json!(format!("{} bytes", request.body.len())),
        };
        see(&Exchange { call, body, status, answer, changed, fault });
    }

    async fn promised(&self, ticket: Ticket) -> Reply {
        let mut changes = self.0.changes.subscribe();
        loop {
            if let Some(reply) = lock(&self.0.engine).take(ticket) {
                self.woken();
                return reply;
            }
            if changes.changed().await.is_err() {
                return Reply::Empty { status: 500 };
            }
        }
    }

    fn respond(
        &self,
        conn: u64,
        reply: Reply,
        fault: Fault,
        upgrade: Option<hyper::upgrade::OnUpgrade>,
        is_head: bool,
    ) -> http::Response<OutBody> {
        let builder = |status: u16| {
            http::Response::builder()
                .status(status)
                .header("Api-Version", format!("{}.{}", self.api_range().1.0, self.api_range().1.1))
                .header("Docker-Experimental", "false")
                .header("Ostype", "linux")
                .header("Server", format!("Docker/{} (linux)", crate::engine::VERSION))
        };
        let made = match reply {
            Reply::Json { status, body } => {
                let bytes = Bytes::from(format!("{body}\n"));
                builder(status).header("Content-Type", "application/json").body(whole(bytes, &fault, is_head))
            }
            Reply::Empty { status } => builder(status).body(whole(Bytes::new(), &fault, is_head)),
            Reply::Bytes { status, content_type, headers, body } => {
                let mut builder = builder(status);
                for (name, value) in headers {
                    builder = builder.header(name, value);
                }
                if !content_type.is_empty() {
                    builder = builder.header("Content-Type", content_type);
                }
                builder.body(whole(body.into(), &fault, is_head))
            }
            Reply::Later(_) => builder(500).body(whole(Bytes::new(), &fault, is_head)),
            Reply::Stream(stream) => builder(200).header("Content-Type", "application/json").body(self.stream(conn, stream, &fault)),
            Reply::Hijack { output, echo } => match upgrade {
                Some(upgrade) => {
                    tokio::spawn(raw_stream(upgrade, output, echo));
                    let builder = builder(101).header("Connection", "Upgrade").header("Upgrade", "tcp");
                    builder.header("Content-Type", "application/vnd.docker.raw-stream").body(whole(Bytes::new(), &Fault::None, false))
                }
                None => {
                    builder(200).header("Content-Type", "application/vnd.docker.raw-stream").body(whole(output.into(), &fault, is_head))
                }
            },
        };
        made.expect("every header is made of plain text")
    }

    /// A body that a task fills as things happen.
    fn stream(&self, conn: u64, mut stream: Stream, fault: &Fault) -> OutBody {
        let (send, receive) = mpsc::channel::<Result<Frame<Bytes>, Cut>>(64);
        let (sim, fault) = (self.clone(), fault.clone());
        tokio::spawn(async move {
            let mut changes = sim.0.changes.subscribe();
            if fault == Fault::SilentBody {
                return std::future::pending().await;
            }
            loop {
                let now = sim.now();
                let (polled, due) = {
                    let mut engine = lock(&sim.0.engine);
                    let polled = engine.poll(&mut stream, now);
                    (polled, engine.stream_due(&stream, now))
                };
                let bytes = match polled {
                    Polled::Data(bytes) => bytes,
                    Polled::Event(event) => {
                        let decide = lock(&sim.0.hooks).events.clone();
                        match decide.map_or(EventFault::Pass, |decide| decide(event.seq, conn)) {
                            EventFault::Pass => event.line(),
                            EventFault::Drop => continue,
                            EventFault::Double => [event.line(), event.line()].concat(),
                            EventFault::Delay { ms } => {
                                let (late, line) = (send.clone(), event.line());
                                tokio::spawn(async move {
                                    tokio::time::sleep(Duration::from_millis(ms)).await;
                                    // Nobody may listen any more.
                                    drop(late.send(Ok(Frame::data(line.into()))).await);
                                });
                                continue;
                            }
                        }
                    }
                    Polled::End => {
                        sim.woken();
                        return;
                    }
                    Polled::Idle => {
                        let pause =
                            due.map_or(Duration::from_secs(3_600), |at| Duration::from_millis(at.saturating_sub(now.mono_ms).max(1)));
                        tokio::select! {
                            biased;
                            () = send.closed() => return,
                            changed = changes.changed() => if changed.is_err() { return },
                            () = tokio::time::sleep(pause) => {}
                        }
                        continue;
                    }
                };
                if send.send(Ok(Frame::data(bytes.into()))).await.is_err() {
                    return;
                }
                if fault == Fault::CutMidBody {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    drop(send.send(Err(Cut)).await);
                    return;
                }
            }
        });
        Box::pin(StreamBody::new(ReceiverStream(receive)))
    }
}

struct ReceiverStream<T>(mpsc::Receiver<T>);

impl<T> futures_util::Stream for ReceiverStream<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<T>> {
        self.0.poll_recv(cx)
    }
}

/// A body that is all there, or breaks off in its middle.
fn whole(bytes: Bytes, fault: &Fault, is_head: bool) -> OutBody {
    if is_head {
        return Box::pin(http_body_util::Empty::new().map_err(|never: Infallible| match never {}));
    }
    match fault {
        Fault::CutMidBody | Fault::SilentBody => {
            let half = bytes.slice(..bytes.len() / 2);
            let (send, receive) = mpsc::channel::<Result<Frame<Bytes>, Cut>>(2);
            let silent = *fault == Fault::SilentBody;
            tokio::spawn(async move {
                drop(send.send(Ok(Frame::data(half))).await);
                // Without a pause the head would never leave.
                tokio::time::sleep(Duration::from_millis(1)).await;
                if silent {
                    send.closed().await;
                } else {
                    drop(send.send(Err(Cut)).await);
                }
            });
            Box::pin(StreamBody::new(ReceiverStream(receive)))
        }
        _ => Box::pin(http_body_util::Full::new(bytes).map_err(|never: Infallible| match never {})),
    }
}

fn json_answer(status: u16, body: &Value) -> http::Response<OutBody> {
    let bytes = Bytes::from(format!("{body}\n"));
    let builder = http::Response::builder().status(status).header("Content-Type", "application/json");
    builder.body(whole(bytes, &Fault::None, false)).expect("every header is made of plain text")
}

/// The asked API version and the path behind it.
fn split_version(path: &str, (oldest, newest): ((u32, u32), (u32, u32))) -> Result<((u32, u32), &str), http::Response<OutBody>> {
    let Some(rest) = path.strip_prefix("/v").filter(|r| r.starts_with(|c: char| c.is_ascii_digit())) else { return Ok((newest, path)) };
    let (version, rest) = rest.find('/').map_or((rest, "/"), |at| (&rest[..at], &rest[at..]));
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    let api = (major.parse().unwrap_or(0), minor.parse().unwrap_or(0));
    let shown = |v: (u32, u32)| format!("{}.{}", v.0, v.1);
    if api > newest {
        let message = format!("client version {version} is too new. Maximum supported API version is {}", shown(newest));
        return Err(json_answer(400, &json!({ "message": message })));
    }
    if api < oldest {
        let message = format!(
            "client version {version} is too old. Minimum supported API version is {}, please upgrade your client to a newer version",
            shown(oldest)
        );
        return Err(json_answer(400, &json!({ "message": message })));
    }
    Ok((api, rest))
}

fn read_query(query: &str) -> BTreeMap<String, Vec<String>> {
    let mut read: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in form_urlencoded::parse(query.as_bytes()) {
        read.entry(key.into_owned()).or_default().push(value.into_owned());
    }
    read
}

/// A hijacked connection: what there is goes out; what comes in is swallowed, or comes back.
async fn raw_stream(upgrade: hyper::upgrade::OnUpgrade, output: Vec<u8>, echo: bool) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut io = TokioIo::new(upgraded);
    if io.write_all(&output).await.is_err() {
        return;
    }
    if echo {
        let mut buffer = vec![0; 4096];
        while let Ok(n) = io.read(&mut buffer).await {
            if n == 0 || io.write_all(&crate::engine::frame_out(&buffer[..n])).await.is_err() {
                break;
            }
        }
    }
    // The client may have gone first.
    drop(io.shutdown().await);
}

/// A container's port: every request gets the same answer.
async fn answer_http(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: u16) {
    let mut read = Vec::new();
    let mut buffer = [0_u8; 1024];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => read.extend_from_slice(&buffer[..n]),
        }
        let is_http = read.starts_with(b"GET ") || read.starts_with(b"HEAD ") || read.starts_with(b"POST ");
        if read.windows(4).any(|w| w == b"\r\n\r\n") || (!is_http && read.len() > 16) || read.len() > 64 * 1024 {
            break;
        }
    }
    let answer = format!("HTTP/1.1 {status} Simulated\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
    if stream.write_all(answer.as_bytes()).await.is_ok() {
        // The client may have gone first.
        drop(stream.shutdown().await);
    }
}
