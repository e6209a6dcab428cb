//! The engine behind HTTP: connections in process and over sockets, one task that lets time pass, and faults on the way.
//!
//! Owns all that is asynchronous; it decides nothing about containers. Start at [`Sim`].

mod body;
mod ports;
mod serve;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::DuplexStream;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Notify;

use crate::engine::{Engine, Listening};
use crate::faults::{Call, EventFaults, Exchange, Fault};
use crate::{Now, engine};

/// Reads the time.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;
type Decide = Arc<dyn Fn(&Call) -> Fault + Send + Sync>;
type See = Arc<dyn Fn(&Exchange) + Send + Sync>;

/// The size of an in-process pipe, unless it is set.
const PIPE: usize = 64 * 1024;

/// An engine that can be talked to. Cloning is cheap; all clones are one.
#[derive(Clone)]
pub struct Sim(Arc<Inner>);

struct Inner {
    engine: Mutex<Engine>,
    clock: Clock,
    /// Something changed that a stream, a promise or the timer may wait for.
    changes: Notify,
    cuts: Notify,
    cut_count: AtomicU64,
    connections: AtomicU64,
    away: AtomicBool,
    pipe: AtomicUsize,
    hooks: Mutex<Hooks>,
    occurrences: Mutex<BTreeMap<u64, u64>>,
}

#[derive(Clone, Default)]
struct Hooks {
    decide: Option<Decide>,
    see: Option<See>,
    events: Option<Arc<EventFaults>>,
}

impl std::fmt::Debug for Sim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sim").field("connections", &self.0.connections).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left behind is still the best picture there is.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sim {
    /// Puts an engine behind HTTP. Nothing happens by itself until [`Sim::run`] is polled.
    pub fn new(engine: Engine, clock: Clock) -> Self {
        Self(Arc::new(Inner {
            engine: Mutex::new(engine),
            clock,
            changes: Notify::new(),
            cuts: Notify::new(),
            cut_count: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            away: AtomicBool::new(false),
            pipe: AtomicUsize::new(PIPE),
            hooks: Mutex::default(),
            occurrences: Mutex::default(),
        }))
    }

    /// The time.
    pub fn now(&self) -> Now {
        (self.0.clock)()
    }

    /// Works on the engine, then wakes whoever may wait for what changed.
    pub fn with<R>(&self, work: impl FnOnce(&mut Engine) -> R) -> R {
        let (result, changed) = {
            let mut engine = lock(&self.0.engine);
            let before = (engine.version(), engine.next_due());
            let result = work(&mut engine);
            (result, before != (engine.version(), engine.next_due()))
        };
        if changed {
            self.0.changes.notify_waiters();
        }
        result
    }

    /// Lets time pass in the engine, for ever. One task is enough for any number of containers.
    pub async fn run(&self) {
        loop {
            let changed = self.0.changes.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = self.now();
            let due = self.with(|engine| {
                engine.advance(now);
                engine.next_due()
            });
            match due {
                None => changed.await,
                Some(due) => {
                    let pause = Duration::from_millis(due.saturating_sub(now.mono_ms).max(1));
                    tokio::select! {
                        biased;
                        () = changed => {}
                        () = tokio::time::sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// A fresh connection to the API, in process.
    ///
    /// # Errors
    /// `ConnectionRefused` while the daemon is away.
    pub fn connect(&self) -> io::Result<DuplexStream> {
        self.present()?;
        let (client, server) = tokio::io::duplex(self.0.pipe.load(Ordering::Relaxed));
        tokio::spawn(serve::connection(self.clone(), server));
        Ok(client)
    }

    /// The size of the pipes of later in-process connections.
    pub fn set_pipe_size(&self, bytes: usize) {
        self.0.pipe.store(bytes.max(1), Ordering::Relaxed);
    }

    fn present(&self) -> io::Result<()> {
        if self.0.away.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "the daemon is away"));
        }
        Ok(())
    }

    /// A connection to a container's port, or to a published one. Any HTTP request gets the scripted status.
    ///
    /// # Errors
    /// `ConnectionRefused` where nothing listens, `HostUnreachable` where nobody has the address.
    pub fn dial(&self, host: &str, port: u16) -> io::Result<DuplexStream> {
        let now = self.now();
        let listening = self.with(|engine| {
            engine.advance(now);
            engine.listens(host, port, now)
        });
        let (client, server) = tokio::io::duplex(PIPE);
        match listening {
            Listening::Unreachable => Err(io::Error::new(io::ErrorKind::HostUnreachable, format!("no route to {host}"))),
            Listening::Refused => Err(io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused")),
            Listening::Accepts { answers: engine::Answers::Frozen, .. } => {
                tokio::spawn(async move {
                    let _held = server;
                    std::future::pending::<()>().await;
                });
                Ok(client)
            }
            Listening::Accepts { http_status, .. } => {
                tokio::spawn(ports::answer(server, http_status));
                Ok(client)
            }
        }
    }

    /// Serves the API on a unix socket, for ever. A socket file that is there already is replaced.
    ///
    /// # Errors
    /// When the socket cannot be bound, or accepting fails for good.
    pub async fn serve_unix(&self, path: &Path) -> io::Result<()> {
        if let Err(error) = std::fs::remove_file(path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let listener = UnixListener::bind(path)?;
        loop {
            let (stream, _) = listener.accept().await?;
            if self.present().is_ok() {
                tokio::spawn(serve::connection(self.clone(), stream));
            }
        }
    }

    /// Serves the API on a TCP listener, for ever.
    ///
    /// # Errors
    /// When accepting fails for good.
    pub async fn serve_tcp(&self, listener: TcpListener) -> io::Result<()> {
        loop {
            let (stream, _) = listener.accept().await?;
            if self.present().is_ok() {
                tokio::spawn(serve::connection(self.clone(), stream));
            }
        }
    }

    /// Keeps real TCP listeners where containers listen: on their own addresses, where those are out of 127.0.0.0/8
    /// ([`crate::AddressPool::Loopback`]), and on published ports. For ever; an address that cannot be bound is told to
    /// `problem` once, and tried again at the next change.
    pub async fn serve_ports(&self, problem: impl Fn(&str)) {
        ports::serve(self, problem).await;
    }

    /// Who decides what goes wrong with a call.
    pub fn set_faults(&self, decide: Arc<dyn Fn(&Call) -> Fault + Send + Sync>) {
        lock(&self.0.hooks).decide = Some(decide);
    }

    /// Who decides what goes wrong with an event on its way to a subscriber.
    pub fn set_event_faults(&self, decide: Arc<EventFaults>) {
        lock(&self.0.hooks).events = Some(decide);
    }

    /// Who hears of every exchange.
    pub fn set_observer(&self, see: Arc<dyn Fn(&Exchange) + Send + Sync>) {
        lock(&self.0.hooks).see = Some(see);
    }

    /// Nothing goes wrong from now on.
    pub fn clear_faults(&self) {
        let mut hooks = lock(&self.0.hooks);
        (hooks.decide, hooks.events) = (None, None);
    }

    /// Drops every open connection to the API.
    pub fn cut_all(&self) {
        self.0.cut_count.fetch_add(1, Ordering::Relaxed);
        self.0.cuts.notify_waiters();
    }

    /// Whether new connections are refused. Open ones stay: [`Sim::cut_all`].
    pub fn set_away(&self, away: bool) {
        self.0.away.store(away, Ordering::Relaxed);
    }

    /// The daemon restarts: connections are dropped, containers end or not.
    pub fn restart_daemon(&self, live_restore: bool) {
        let now = self.now();
        self.with(|engine| engine.restart_daemon(live_restore, now));
        self.cut_all();
    }

    fn hooks(&self) -> Hooks {
        lock(&self.0.hooks).clone()
    }

    /// Counts a call; the number is from 1.
    fn occurrence(&self, key: &str) -> u64 {
        let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mut occurrences = lock(&self.0.occurrences);
        let count = occurrences.entry(hash).or_default();
        *count += 1;
        *count
    }

    /// Waits until the engine gives something.
    async fn until<R>(&self, mut look: impl FnMut(&mut Engine, Now) -> Option<R>) -> R {
        loop {
            let changed = self.0.changes.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = self.now();
            if let Some(found) = self.with(|engine| look(engine, now)) {
                return found;
            }
            changed.await;
        }
    }

    /// Waits until all connections of this moment are to be dropped.
    async fn cut(&self, since: u64) {
        loop {
            let cut = self.0.cuts.notified();
            tokio::pin!(cut);
            cut.as_mut().enable();
            if self.0.cut_count.load(Ordering::Relaxed) != since {
                return;
            }
            cut.await;
        }
    }
}
