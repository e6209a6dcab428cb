//! The stage of a run: the simulated engine, the folder, the disk, and the operator on them, in virtual time on one thread.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::BodyExt;
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_controller::clock::Clock;
use qm_controller::dial::{Address, Dial, Stream};
use qm_controller::run::{Config, Operator};
use qm_dockersim::behaviour::{ImageSpec, Presence};
use qm_dockersim::engine::event::Event;
use qm_dockersim::{Call, Engine, EventFault, Exchange, Fault, Now, Options, Sim, World};
use qm_source::settle::{Hint, Key};
use qm_store::backend::Memory;
use qm_store::{CommitMode, Store};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tower_service::Service as _;

use super::annex::Outside;
use super::fate::{Disk as StoreDisk, Fate};
use super::folder::{Disk, PLACE, Reader};
use super::journal::Journal;
use super::judge::{INSTANCE, Judge};
use super::rng::hash;
use super::script::Trouble;
use super::town::{IMAGE, MISSING_IMAGE, OTHER_IMAGE, REMOTE_IMAGE, VOLUME_IMAGE};

/// 2026-01-01T00:00:00Z, in Unix milliseconds.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// How often the mirror lists everything again; production's value.
const RELIST_EVERY: Duration = Duration::from_secs(300);
/// The most requests of a run; an honest one makes a few thousand.
const MOST_REQUESTS: u64 = 40_000;
/// Where the engine listens, as the operator knows it.
const DOCKER: &str = "/sim/docker.sock";

/// A crash that waits for its write.
#[derive(Clone, Copy, Debug)]
struct Trap {
    left: u64,
    after: bool,
}

/// What goes wrong at the engine now, with the monotonic end of it.
#[derive(Debug, Default)]
struct Weather {
    troubles: Vec<(Trouble, u64)>,
    trap: Option<Trap>,
    /// The process that lives now.
    living: Option<Arc<Fate>>,
}

/// What all parts share.
pub struct Shared {
    seed: u64,
    started: Instant,
    wall_offset_ms: AtomicI64,
    uids: AtomicU64,
    /// The rules.
    pub judge: Mutex<Judge>,
    /// The log.
    pub journal: Mutex<Journal>,
    weather: Mutex<Weather>,
    crashed: Notify,
    /// Who is there outside.
    pub outside: Outside,
    /// Calls of the operator.
    pub calls: AtomicU64,
    requests_left: AtomicU64,
    /// The operator calls and calls: the run ends.
    pub runaway: AtomicBool,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Both clocks.
    pub fn now(&self) -> Now {
        let elapsed = self.started.elapsed();
        let wall_ms = EPOCH_MS + self.wall_offset_ms.load(Ordering::Relaxed);
        Now { mono_ms: elapsed.as_millis() as u64, wall_ns: wall_ms * 1_000_000 + elapsed.as_nanos() as i64 }
    }

    /// Writes to the log.
    pub fn log(&self, text: &str) {
        lock(&self.journal).line(self.now().mono_ms, text);
    }

    /// Moves the wall clock.
    pub fn jump(&self, by_ms: i64) {
        self.wall_offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }

    fn clock(self: &Arc<Self>) -> Clock {
        let (wall, uid) = (self.clone(), self.clone());
        Clock::new(
            Arc::new(move || Timestamp::from_micros(wall.now().wall_ns / 1_000)),
            Arc::new(move || {
                let n = uid.uids.fetch_add(1, Ordering::Relaxed);
                Name::from(format!("{n:08x}-0000-4000-8000-000000000000"))
            }),
        )
    }
}

/// One life of the operator.
struct Life {
    operator: Arc<Operator>,
    store: Store,
    router: axum::Router,
    fate: Arc<Fate>,
    source: JoinHandle<()>,
}

/// The stage.
pub struct Stage {
    /// What all parts share.
    pub shared: Arc<Shared>,
    /// The engine.
    pub sim: Sim,
    /// The folder.
    pub folder: Rc<RefCell<Disk>>,
    hints: Rc<RefCell<Vec<(Key, Hint)>>>,
    folder_changed: Rc<Notify>,
    memory: Memory,
    full: Arc<AtomicBool>,
    life: Option<Life>,
    /// When the last operator started, in milliseconds.
    pub booted_ms: u64,
    /// The highest resource version that anybody was told.
    told_version: u64,
    /// The highest fencing token given out.
    told_fence: u64,
    /// Acts that were answered, by name of their intent, and must not be lost.
    pub acknowledged: BTreeSet<(String, String)>,
    /// Reloads that the apps of parts have done and not told yet, by namespace.
    pub acks: BTreeMap<String, String>,
    /// Nothing goes wrong any more.
    pub is_calm: bool,
}

impl Stage {
    /// An empty stage. Must be called within the runtime of the run.
    pub fn new(seed: u64, keep_log: bool) -> Self {
        let shared = Arc::new(Shared {
            seed,
            started: Instant::now(),
            wall_offset_ms: AtomicI64::new(0),
            uids: AtomicU64::new(1),
            judge: Mutex::default(),
            journal: Mutex::new(Journal::new(keep_log)),
            weather: Mutex::default(),
            crashed: Notify::new(),
            outside: Outside::default(),
            calls: AtomicU64::new(0),
            requests_left: AtomicU64::new(MOST_REQUESTS),
            runaway: AtomicBool::new(false),
        });
        let engine = Engine::new(Options { seed, world: world(), ..Options::default() }, shared.now());
        let clock = shared.clone();
        let sim = Sim::new(engine, Arc::new(move || clock.now()));
        let stage = Self {
            shared,
            sim,
            folder: Rc::default(),
            hints: Rc::default(),
            folder_changed: Rc::new(Notify::new()),
            memory: Memory::new(),
            full: Arc::new(AtomicBool::new(false)),
            life: None,
            booted_ms: 0,
            told_version: 0,
            told_fence: 0,
            acknowledged: BTreeSet::new(),
            acks: BTreeMap::new(),
            is_calm: false,
        };
        stage.watch_engine();
        stage
    }

    fn watch_engine(&self) {
        let (shared, sim) = (self.shared.clone(), self.sim.clone());
        self.sim.set_faults(Arc::new(move |call: &Call| {
            let now = shared.now();
            if shared.runaway.load(Ordering::Relaxed) {
                return Fault::Silent;
            }
            if shared.requests_left.fetch_sub(1, Ordering::Relaxed) == 1 {
                lock(&shared.judge).violation(format!("{MOST_REQUESTS} requests: something runs away"));
                shared.runaway.store(true, Ordering::Relaxed);
            }
            sim.with(|engine| lock(&shared.judge).before(engine, call, now));
            let fault = shared.fault(call, now);
            let is_answered = matches!(fault, Fault::None | Fault::Delay { .. });
            if !is_answered && call.path.ends_with("/kill") {
                lock(&shared.judge).stirs.signal_lost(&call.path);
            }
            fault
        }));
        let shared = self.shared.clone();
        self.sim.set_observer(Arc::new(move |seen: &Exchange| {
            if seen.call.path != "/_ping" {
                shared.calls.fetch_add(1, Ordering::Relaxed);
            }
            shared.log(&format!(
                "#{} {} {}{} {} -> {} {} {:?}",
                seen.call.conn,
                seen.call.method,
                seen.call.path,
                if seen.call.query.is_empty() { String::new() } else { format!("?{}", seen.call.query) },
                seen.body,
                seen.status,
                seen.answer,
                seen.fault,
            ));
        }));
        let shared = self.shared.clone();
        self.sim.set_event_faults(Arc::new(move |event: &Event, subscriber: u64| {
            let seq = event.seq;
            let now = shared.now().mono_ms;
            let weather = lock(&shared.weather);
            let draw = hash(&[&shared.seed.to_le_bytes(), b"event", &seq.to_le_bytes(), &subscriber.to_le_bytes()]) % 100;
            for (trouble, until) in &weather.troubles {
                if *until <= now {
                    continue;
                }
                match trouble {
                    Trouble::EventsLost if draw < 40 => return EventFault::Drop,
                    Trouble::EventsDoubled if draw < 50 => return EventFault::Double,
                    Trouble::EventsLate if draw < 60 => return EventFault::DelayMs(draw * 97),
                    _ => {}
                }
            }
            EventFault::Pass
        }));
    }

    /// The engine misbehaves until then.
    pub fn trouble(&self, trouble: Trouble, for_ms: u64) {
        let until = self.shared.now().mono_ms + for_ms;
        lock(&self.shared.weather).troubles.push((trouble, until));
    }

    /// Nothing goes wrong any more.
    pub fn calm(&self) {
        let mut weather = lock(&self.shared.weather);
        weather.troubles.clear();
        weather.trap = None;
        drop(weather);
        self.full.store(false, Ordering::Relaxed);
        self.folder.borrow_mut().hidden = false;
    }

    /// The operator will die at its n-th write from now on.
    pub fn set_trap(&self, at_write: u64, after: bool) {
        lock(&self.shared.weather).trap = Some(Trap { left: at_write, after });
    }

    /// How many writes are left before the trap springs.
    pub fn writes_to_trap(&self) -> Option<u64> {
        lock(&self.shared.weather).trap.map(|trap| trap.left)
    }

    /// Whether the disk under the store is full.
    pub fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// Waits until the operator has died in its trap.
    pub async fn crashed(&self) {
        self.shared.crashed.notified().await;
    }

    /// Changes what lies in the folder.
    pub fn write(&self, files: &BTreeMap<String, String>) {
        let hints = self.folder.borrow_mut().replace(files);
        self.tell_folder(hints);
    }

    /// What the file system tells of the folder.
    pub fn tell_folder(&self, hints: Vec<(Key, Hint)>) {
        self.hints.borrow_mut().extend(hints);
        self.folder_changed.notify_one();
    }

    /// Starts an operator.
    pub fn boot(&mut self) {
        self.booted_ms = self.shared.now().mono_ms;
        let mut judge = lock(&self.shared.judge);
        judge.stirs.booted_at = self.booted_ms;
        judge.annexes.booted();
        drop(judge);
        let fate = Arc::new(Fate::new(self.full.clone()));
        lock(&self.shared.weather).living = Some(fate.clone());
        let options = qm_store::Options { commit: CommitMode::Inline, log_batches: 2_048, ..qm_store::Options::default() };
        // A full disk refuses the first write of a fresh store; the process would end and be started again.
        let Ok(store) = Store::open(Box::new(StoreDisk::new(self.memory.clone(), fate.clone())), options) else {
            self.shared.log("the store cannot be opened");
            return;
        };
        self.after_restart(&store);
        let clock = self.shared.clock();
        let operator = Operator::start(Config {
            instance: INSTANCE.into(),
            docker_host: Address::Unix(DOCKER.into()),
            dial: dial(self.sim.clone(), self.shared.clone(), fate.clone()),
            clock: clock.clone(),
            store: store.clone(),
            data_dir: "/sim/data".into(),
            faces_dir: "/sim/run/faces".into(),
            registry: prometheus::Registry::new(),
            relist_every: RELIST_EVERY,
            sources: vec![PLACE.into()],
            on_connect: Arc::new(|_| Ok(())),
            pulls: qm_controller::pulls::Settings::default(),
            probe_passwords: qm_controller::probe::Passwords::default(),
        });
        let operator = Arc::new(operator.expect("an operator starts on a simulated engine"));
        let router = qm_apiserver::router(store.clone(), quaymaster::ports::ports(&operator, &clock));
        let source = self.follow(operator.clone(), fate.clone());
        self.shared.log("the operator starts");
        self.life = Some(Life { operator, store, router, fate, source });
    }

    /// What must hold of a store that was opened again.
    fn after_restart(&mut self, store: &Store) {
        let snapshot = store.snapshot();
        let version = store.resource_version();
        let mut judge = lock(&self.shared.judge);
        if version < self.told_version {
            judge.violation(format!("the resource version went back from {} to {version}", self.told_version));
        }
        for (namespace, name) in &self.acknowledged {
            if snapshot.get(&qm_api::meta::ObjectKey::new("Intent", namespace.as_str(), name.as_str())).is_none() {
                judge.violation(format!("the act {namespace}/{name} was answered and is lost"));
            }
        }
    }

    /// Takes a lease as locks will: its token must be higher than every one before.
    pub async fn take_lease(&mut self) {
        let Some(life) = &self.life else { return };
        let (name, holder) = (Name::from("sim"), Name::from(format!("h{}", self.told_fence)));
        let now = qm_store::MonoMillis(self.shared.now().mono_ms);
        let leases = life.store.leases();
        if let Ok(lease) = leases.acquire(&name, &holder, Duration::from_millis(1), now).await {
            if lease.token <= self.told_fence {
                lock(&self.shared.judge).violation(format!("the fencing token {} came after {}", lease.token, self.told_fence));
            }
            let stale = self.told_fence;
            self.told_fence = self.told_fence.max(lease.token);
            // Whoever held it before must not write any more.
            let mut tx = life.store.tx();
            tx.fence(&name, stale);
            if tx.commit(qm_store::Durability::Soon).await.is_ok() {
                lock(&self.shared.judge).violation(format!("the stale token {stale} is let through beside {}", self.told_fence));
            }
        }
    }

    fn follow(&self, operator: Arc<Operator>, fate: Arc<Fate>) -> JoinHandle<()> {
        let (folder, hints, changed, shared) = (self.folder.clone(), self.hints.clone(), self.folder_changed.clone(), self.shared.clone());
        tokio::task::spawn_local(async move {
            let mut reader = Reader::default();
            hints.borrow_mut().clear();
            loop {
                let now = shared.now().mono_ms;
                let told = std::mem::take(&mut *hints.borrow_mut());
                let delivered = reader.step(&folder.borrow(), told, now);
                if !fate.is_alive() {
                    return;
                }
                if let Some(input) = delivered {
                    operator.sources.set(input);
                }
                match reader.wake() {
                    Some(at) => {
                        let pause = Duration::from_millis(at.saturating_sub(now).max(1));
                        tokio::select! {
                            biased;
                            () = changed.notified() => {}
                            () = tokio::time::sleep(pause) => {}
                        }
                    }
                    None => changed.notified().await,
                }
            }
        })
    }

    /// Ends the operator as `kill -9` does; with `power`, what was not synced is lost too.
    pub fn kill(&mut self, power: bool) {
        if let Some(life) = self.life.take() {
            self.told_version = self.told_version.max(if power { self.told_version } else { life.store.resource_version() });
            life.fate.end();
            life.source.abort();
            drop(life.operator);
            self.shared.log(if power { "the machine loses its power" } else { "the operator is killed" });
        }
        if power {
            self.memory.forget_unsynced();
        }
    }

    /// Loses the store; only a dead operator's can be lost.
    pub fn lose_store(&mut self) {
        self.memory = Memory::new();
        self.told_version = 0;
        self.told_fence = 0;
        self.acknowledged.clear();
        self.shared.log("the store is lost");
    }

    /// Whether an operator runs.
    pub fn runs(&self) -> bool {
        self.life.is_some()
    }

    /// The operator's store.
    pub fn store(&self) -> Option<&Store> {
        self.life.as_ref().map(|l| &l.store)
    }

    /// The operator itself, to look into.
    pub fn operator(&self) -> Option<&Arc<Operator>> {
        self.life.as_ref().map(|l| &l.operator)
    }

    /// Asks the operator's API.
    pub async fn api(&mut self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let Some(life) = &self.life else { return (0, Value::Null) };
        let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let request = request.body(axum::body::Body::from(body.clone())).expect("a request");
        let answer = life.router.clone().call(request).await.expect("a router always answers");
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if let Some(version) = value["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()) {
            if version < self.told_version && value["kind"].as_str().is_some_and(|k| k.ends_with("List")) {
                lock(&self.shared.judge).violation(format!("the resource version went back from {} to {version}", self.told_version));
            }
            self.told_version = self.told_version.max(version);
        }
        self.shared.log(&format!("api {method} {path} {body} -> {status}"));
        (status, value)
    }

    /// A person's act.
    pub async fn act(&mut self, path: &str, body: Value) -> (u16, Value) {
        let path = format!("/apis/quaymaster.dev/v1alpha1{path}");
        let (status, intent) = self.api("POST", &path, Some(body)).await;
        (status, intent)
    }

    /// The judge.
    pub fn judge(&self) -> MutexGuard<'_, Judge> {
        lock(&self.shared.judge)
    }
}

impl Shared {
    /// What goes wrong with one call; the same call of the same run always meets the same.
    fn fault(&self, call: &Call, now: Now) -> Fault {
        let mut weather = lock(&self.weather);
        if call.is_write
            && let Some(trap) = &mut weather.trap
        {
            trap.left = trap.left.saturating_sub(1);
            if trap.left == 0 {
                let after = trap.after;
                weather.trap = None;
                // Nothing that it does from here on reaches the world.
                if let Some(fate) = &weather.living {
                    fate.end();
                }
                self.crashed.notify_one();
                return if after { Fault::CutAfter } else { Fault::CutBefore };
            }
        }
        weather.troubles.retain(|(_, until)| *until > now.mono_ms);
        let key: [&[u8]; 4] = [&self.seed.to_le_bytes(), call.method.as_bytes(), call.path.as_bytes(), &call.occurrence.to_le_bytes()];
        for (trouble, _) in &weather.troubles {
            let draw = hash(&[key[0], key[1], key[2], key[3], format!("{trouble:?}").as_bytes()]);
            let percent = draw % 100;
            let fault = match trouble {
                Trouble::Slow if percent < 60 => Fault::delay(draw / 100 % 20_000),
                Trouble::Errors if percent < 40 => Fault::Status { code: 500, message: "something is wrong in the engine".to_owned() },
                Trouble::CutBefore if percent < 30 => Fault::CutBefore,
                Trouble::CutAfter if percent < 40 => Fault::CutAfter,
                Trouble::CutMidBody if percent < 30 => Fault::CutMidBody,
                Trouble::Silent if percent < 10 => Fault::Silent,
                Trouble::SilentBody if percent < 10 => Fault::SilentBody,
                _ => continue,
            };
            return fault;
        }
        Fault::None
    }
}

/// Every way out of the operator ends in the simulated engine, and nowhere once the process is dead.
fn dial(sim: Sim, shared: Arc<Shared>, fate: Arc<Fate>) -> Dial {
    Arc::new(move |address| {
        let (sim, shared, fate) = (sim.clone(), shared.clone(), fate.clone());
        Box::pin(async move {
            if !fate.is_alive() {
                return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
            }
            let stream: Box<dyn Stream> = match address {
                Address::Unix(_) | Address::InProcess => Box::new(sim.connect()?),
                Address::Tcp(host, port) => match shared.outside.accepts(&host) {
                    None => Box::new(sim.dial(&host, port)?),
                    Some(false) => return Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
                    // Whoever only looks whether somebody accepts hears no more.
                    Some(true) => Box::new(tokio::io::duplex(16).0),
                },
            };
            Ok(stream)
        })
    })
}

fn world() -> World {
    let mut world = World::default();
    let mut put = |name: &str, spec: ImageSpec| {
        world.images.insert(name.to_owned(), spec);
    };
    let local = |size| ImageSpec { size, cmd: vec!["serve".to_owned()], ..ImageSpec::default() };
    put(IMAGE, local(1_000));
    put(OTHER_IMAGE, local(2_000));
    put(VOLUME_IMAGE, ImageSpec { volumes: vec!["/var/lib/x".to_owned()], ..local(3_000) });
    put(REMOTE_IMAGE, ImageSpec { presence: Presence::Remote, pull_ms: 7_000, layers: vec![10_000, 20_000], ..local(4_000) });
    put(MISSING_IMAGE, ImageSpec { presence: Presence::Missing, ..ImageSpec::default() });
    world
}

/// JSON for an act's body.
pub fn because(reason: &str) -> Value {
    json!({ "actor": "sim", "reason": reason })
}
