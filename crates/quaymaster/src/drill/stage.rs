//! The stage of a drill: the operator itself, on a simulated engine and outside world, in virtual time on one thread. Carries out what the
//! play decides and records what happens; it decides nothing about services.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::kinds::intent::{Act, Scope};
use qm_api::kinds::mini_service::KIND as SERVICE;
use qm_api::meta::ObjectKey;
use qm_api::name::Name;
use qm_api::spec::edge::Start;
use qm_api::time::Timestamp;
use qm_controller::apply::SourceInput;
use qm_controller::clock::Clock;
use qm_controller::dial::{Address, Dial, Stream};
use qm_controller::ports::ActRequest;
use qm_controller::probe::Passwords;
use qm_controller::pulls;
use qm_controller::records::{EVENT, PENDING_RELOAD};
use qm_controller::reports::Heartbeat;
use qm_controller::run::{Config, Operator};
use qm_dockersim::engine::event::{Event, Kind};
use qm_dockersim::{Engine, Now, Options, Sim};
use qm_plan::stamp;
use qm_store::backend::Memory;
use qm_store::{Change, ChangeKind, Watch};
use qm_store::{CommitMode, Store};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::cast::{Cast, External, Role, Speaks};
use super::timeline::{Happened, Standing, Timeline};

/// 2026-01-01T00:00:00Z, in Unix milliseconds: every drill begins there, so that schedules are met alike.
const EPOCH_MS: i64 = 1_767_225_600_000;
/// How often the mirror lists everything again; production's value.
const RELIST_EVERY: Duration = Duration::from_secs(300);
/// How long an app takes for a reload of a part of it.
const RELOADING: Duration = Duration::from_secs(1);
/// Who acts, as intents and events say it.
const ACTOR: &str = "drill";
/// The most changes that are kept for the recorder, in batches; it looks after every one.
const LOG_BATCHES: usize = 1 << 16;

/// Where an operator may put files for containers; removed again when this is dropped.
#[derive(Debug)]
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("qm-drill-{}", crate::wiring::uid()));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may have been swept away already.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The stage.
pub(crate) struct Stage {
    operator: Arc<Operator>,
    sim: Sim,
    clock: Clock,
    started: Instant,
    cast: Arc<Mutex<Cast>>,
    recorder: Recorder,
    _tasks: JoinSet<()>,
    _scratch: Scratch,
}

/// What was seen so far.
struct Recorder {
    timeline: Timeline,
    changes: watch::Receiver<u64>,
    records: Watch,
    /// The last event of the engine that was seen.
    seen: u64,
    /// When the drill began, in milliseconds of the stage's time.
    begin_ms: u64,
    /// When something last changed.
    changed_ms: u64,
    /// Starts that are none of the operator's doing: by service and slot.
    forgiven: BTreeSet<(ObjectKey, u32)>,
    /// The first start of a container is no restart: the drill begins before anything is there.
    is_cold: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now_at(started: Instant) -> Now {
    let elapsed = started.elapsed();
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    let ns = i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX);
    Now { mono_ms: ms, wall_ns: (EPOCH_MS * 1_000_000).saturating_add(ns) }
}

impl Stage {
    /// An operator on an empty engine, with nothing wanted yet. Must be called within a runtime whose time is paused.
    ///
    /// # Errors
    /// When there is no temporary folder, or the operator cannot start.
    pub(crate) fn open(cast: Cast, sources: Vec<Name>) -> anyhow::Result<Self> {
        let started = Instant::now();
        let engine = Engine::new(Options { world: cast.world.clone(), ..Options::default() }, now_at(started));
        let sim = Sim::new(engine, Arc::new(move || now_at(started)));
        let cast = Arc::new(Mutex::new(cast));
        let scratch = Scratch::make().context("no temporary folder can be made")?;
        for password in lock(&cast).externals.values().filter_map(|external| external.password.as_ref()) {
            // Whoever plays the other side takes any.
            fs::write(scratch.0.join(password.as_str()), "drill").context("a password cannot be made up")?;
        }
        let uids = Arc::new(Mutex::new(0_u64));
        let clock = Clock::new(
            Arc::new(move || Timestamp::from_micros(now_at(started).wall_ns / 1_000)),
            Arc::new(move || {
                let mut uids = lock(&uids);
                *uids += 1;
                Name::from(format!("{:08x}-0000-4000-8000-000000000000", *uids))
            }),
        );
        let options = qm_store::Options { commit: CommitMode::Inline, log_batches: LOG_BATCHES, ..qm_store::Options::default() };
        let store = Store::open(Box::new(Memory::new()), options)?;
        let records = store.watch(store.resource_version())?;
        let operator = Arc::new(Operator::start(Config {
            instance: "drill".into(),
            docker_host: Address::InProcess,
            dial: dial(sim.clone(), cast.clone()),
            clock: clock.clone(),
            store,
            data_dir: scratch.0.clone(),
            faces_dir: scratch.0.join("faces"),
            registry: prometheus::Registry::new(),
            relist_every: RELIST_EVERY,
            sources,
            on_connect: Arc::new(|_| Ok(())),
            pulls: pulls::Settings::default(),
            probe_passwords: Passwords::of(Some(scratch.0.clone())),
        })?);
        let mut tasks = JoinSet::new();
        let running = sim.clone();
        tasks.spawn(async move { running.run().await });
        for part in lock(&cast).parts.keys() {
            tasks.spawn(report(part.clone(), operator.clone(), sim.clone(), cast.clone()));
        }
        let recorder = Recorder {
            timeline: Timeline::default(),
            changes: operator.changes(),
            records,
            seen: 0,
            begin_ms: 0,
            changed_ms: 0,
            forgiven: BTreeSet::new(),
            is_cold: false,
        };
        Ok(Self { operator, sim, clock, started, cast, recorder, _tasks: tasks, _scratch: scratch })
    }

    /// Gives the operator its manifests.
    pub(crate) fn want(&self, inputs: Vec<SourceInput>) {
        inputs.into_iter().for_each(|input| self.operator.sources.set(input));
    }

    /// The stage's time, in milliseconds.
    fn now_ms(&self) -> u64 {
        now_at(self.started).mono_ms
    }

    /// The drill begins now. `cold` = before anything is there.
    pub(crate) fn begin(&mut self, cold: bool) {
        self.look();
        self.recorder.timeline.begin();
        self.recorder.begin_ms = self.now_ms();
        self.recorder.changed_ms = 0;
        self.recorder.is_cold = cold;
    }

    /// Milliseconds since the drill began.
    pub(crate) fn at_ms(&self) -> u64 {
        self.now_ms().saturating_sub(self.recorder.begin_ms)
    }

    /// When something last changed, in milliseconds since the drill began.
    pub(crate) fn changed_ms(&self) -> u64 {
        self.recorder.changed_ms
    }

    /// What happened so far.
    pub(crate) fn timeline(&self) -> &Timeline {
        &self.recorder.timeline
    }

    /// All of it, when the drill is over.
    pub(crate) fn into_timeline(self) -> Timeline {
        self.recorder.timeline
    }

    /// Lets time pass until then, in milliseconds since the beginning; records what happens.
    pub(crate) async fn pass_until(&mut self, at_ms: u64) {
        let deadline = self.started + Duration::from_millis(self.recorder.begin_ms + at_ms);
        loop {
            self.look();
            tokio::select! {
                biased;
                // The operator going away is nothing that happens in a drill.
                _ = self.recorder.changes.changed() => {}
                () = tokio::time::sleep_until(deadline) => break,
            }
            // What follows from one change within the same moment belongs to it.
            self.settle().await;
        }
        self.look();
    }

    /// Lets everything go on that is due at this moment, without time passing.
    async fn settle(&self) {
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
    }

    /// Until when something goes on that nobody sees yet, in milliseconds since the beginning: a loss that is tolerated for now, a reload
    /// that is still to be carried out.
    pub(crate) fn pending(&self) -> Option<u64> {
        let snapshot = self.operator.controller.world.availability();
        let tolerated = snapshot.iter().flat_map(|node| &node.tolerated).filter_map(|t| u64::try_from(t.until_ms).ok());
        let until = tolerated.map(|ms| ms.saturating_sub(self.recorder.begin_ms)).max();
        let reloads = self.operator.controller.store.snapshot().list(PENDING_RELOAD, None).next().is_some();
        until.max(reloads.then(|| self.at_ms() + 1_000)).filter(|until| *until > self.at_ms())
    }

    /// Notes that the drill does something.
    pub(crate) fn note(&mut self, on: &ObjectKey, text: &str) {
        let at_ms = self.at_ms();
        self.recorder.add(at_ms, on, Happened::Act(text.to_owned()));
    }

    /// Changes what is done to a service.
    pub(crate) fn afflict(&mut self, key: &ObjectKey, change: impl FnOnce(&mut super::cast::Ill)) {
        let (forced, role, before, after) = {
            let mut cast = lock(&self.cast);
            let before = cast.ill(key);
            let mut after = before;
            change(&mut after);
            cast.ill.insert(key.clone(), after);
            (cast.forced(), cast.containers.get(key).copied(), before, after)
        };
        let now = now_at(self.started);
        self.sim.with(|engine| engine.change_world(|world| world.forced = forced, now));
        if role == Some(Role::Unchecked) && after.down && !before.down {
            let slots = self.crash(key, 137);
            self.recorder.forgiven.extend(slots.into_iter().map(|slot| (key.clone(), slot)));
        }
    }

    /// Lets the containers of a service end by themselves; gives their slots.
    pub(crate) fn crash(&self, key: &ObjectKey, code: i64) -> Vec<u32> {
        let now = now_at(self.started);
        let is_its = |labels: &BTreeMap<String, String>| owner(labels).is_some_and(|(owner, _)| owner == *key);
        self.sim.with(|engine| {
            let mine = engine.containers().filter(|c| is_its(c.labels())).map(|c| (c.id().to_owned(), owner(c.labels())));
            let mine: Vec<_> = mine.filter_map(|(id, owner)| Some((id, owner?.1))).collect();
            mine.into_iter().filter(|(id, _)| engine.crash(id, code, now)).map(|(_, slot)| slot).collect()
        })
    }

    /// A person's act on one service.
    ///
    /// # Errors
    /// Why the operator refuses.
    pub(crate) async fn act(&self, act: Act, key: &ObjectKey, for_ms: Option<u64>) -> Result<(), String> {
        let text = |name: &Name| Some(name.to_string());
        let scope = Scope { kind: text(&key.kind), namespace: text(&key.namespace), name: text(&key.name), ..Scope::default() };
        let until = for_ms.map(|ms| self.clock.wall().plus_millis(i64::try_from(ms).unwrap_or(i64::MAX)));
        let request = ActRequest { act, scope, actor: ACTOR.to_owned(), reason: "a drill".to_owned(), until, step_hash: None, to: None };
        self.operator.act(request).await.map(drop).map_err(|error| error.to_string())
    }

    /// Records everything that happened up to now.
    pub(crate) fn look(&mut self) {
        let at_ms = self.at_ms();
        self.look_at_engine();
        self.look_at_records(at_ms);
        let snapshot = self.operator.controller.world.availability();
        for node in snapshot.iter() {
            let asked = (node.key.kind == SERVICE).then(|| self.operator.usable(&node.key.namespace, &node.key.name, None)).flatten();
            let usable = asked.map_or(node.usable(), |answer| answer.usable);
            let mut because: Vec<ObjectKey> = node.blocked_by.iter().map(|b| b.key.clone()).collect();
            if node.reason == Reason::WaitingForDependency {
                // Whoever has not started yet waits by the edges that gate its start, also where they count for nothing later.
                let is_down = |key: &ObjectKey| snapshot.get(key).is_some_and(|on| !on.usable());
                let waits = node.dependencies.iter().filter(|d| d.start != Start::Skip && is_down(&d.on)).map(|d| d.on.clone());
                because.extend(waits.filter(|on| !node.blocked_by.iter().any(|b| b.key == *on)));
            }
            let standing = Standing {
                availability: node.off.is_none().then_some(node.availability),
                usable,
                reason: node.off.unwrap_or(node.reason),
                message: node.message.clone(),
                because,
            };
            if self.recorder.timeline.stand(at_ms, &node.key, node.level, standing) {
                self.recorder.changed_ms = at_ms;
            }
        }
    }

    fn look_at_engine(&mut self) {
        let (seen, begin_ms) = (self.recorder.seen, self.recorder.begin_ms);
        let events: Vec<Event> = self.sim.with(|engine| engine.events_since(seen).cloned().collect());
        for event in events {
            self.recorder.seen = event.seq;
            let Some((key, slot)) = owner(&event.labels).filter(|_| event.kind == Kind::Container) else { continue };
            let at_ms = u64::try_from(event.time_ns / 1_000_000 - EPOCH_MS).unwrap_or_default().saturating_sub(begin_ms);
            match &*event.action {
                "start" => {
                    let is_first = self.recorder.forgiven.remove(&(key.clone(), slot)) || self.recorder.is_first(&key, slot);
                    self.recorder.add(at_ms, &key, Happened::Started { slot, again: !is_first });
                }
                "die" => {
                    let code = event.attribute("exitCode").and_then(|code| code.parse().ok()).unwrap_or_default();
                    self.recorder.add(at_ms, &key, Happened::Ended { slot, code });
                }
                _ => {}
            }
        }
    }

    fn look_at_records(&mut self, at_ms: u64) {
        loop {
            match self.recorder.records.try_next() {
                Ok(Some(batch)) => batch.changes.iter().for_each(|change| self.recorder.record(at_ms, change)),
                Ok(None) => return,
                // The log is longer than what happens between two looks; a gap would only be silence about events.
                Err(_) => match self.operator.controller.store.watch(self.operator.controller.store.resource_version()) {
                    Ok(records) => self.recorder.records = records,
                    Err(_) => return,
                },
            }
        }
    }
}

impl Recorder {
    fn add(&mut self, at_ms: u64, on: &ObjectKey, what: Happened) {
        if what.is_change() {
            self.changed_ms = self.changed_ms.max(at_ms);
        }
        self.timeline.add(at_ms, on, what);
    }

    fn is_first(&self, key: &ObjectKey, slot: u32) -> bool {
        let is_start = |what: &Happened| matches!(what, Happened::Started { slot: other, .. } if *other == slot);
        self.is_cold && !self.timeline.entries().iter().any(|e| e.on == *key && is_start(&e.what))
    }

    fn record(&mut self, at_ms: u64, change: &Change) {
        let object = &change.object;
        if change.kind != ChangeKind::Put {
            return;
        }
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let triggers = |spec: &serde_json::Value| spec["triggers"].as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
        match object.key.kind.as_str() {
            PENDING_RELOAD => {
                let because = triggers(&object.spec);
                let is_known =
                    change.previous.as_ref().is_some_and(|old| triggers(&old.spec) == because && old.spec["id"] == object.spec["id"]);
                if !because.is_empty() && !is_known {
                    let key = ObjectKey::new(SERVICE, object.key.namespace.clone(), object.key.name.clone());
                    self.add(at_ms, &key, Happened::Reloads { verb: text(&object.spec["verb"]), because });
                }
            }
            EVENT => {
                let about = &object.spec["involvedObject"];
                let key = ObjectKey::new(text(&about["kind"]), text(&about["namespace"]), text(&about["name"]));
                let Ok(reason) = serde_json::from_value::<Reason>(object.spec["reason"].clone()) else { return };
                let (is_warning, message) = (object.spec["type"] == "Warning", text(&object.spec["message"]));
                self.add(at_ms, &key, Happened::Told { reason, is_warning, message });
            }
            _ => {}
        }
    }
}

/// The service of a container, and the container's slot; `None` for what is part of a job.
fn owner(labels: &BTreeMap<String, String>) -> Option<(ObjectKey, u32)> {
    let stamp = stamp::Stamp::read(labels).filter(|stamp| stamp.job.is_none())?;
    Some((stamp.owner, stamp.slot))
}

/// Plays the app of one part: reports while its container runs and answers, and carries out reloads.
async fn report(part: ObjectKey, operator: Arc<Operator>, sim: Sim, cast: Arc<Mutex<Cast>>) {
    let Some(of) = lock(&cast).parts.get(&part).cloned() else { return };
    let pace = Duration::from_millis((of.heartbeat_ms / 3).max(500));
    let mut changes = operator.changes();
    let mut ack: Option<String> = None;
    loop {
        let (is_down, is_app_down) = {
            let cast = lock(&cast);
            (cast.ill(&part).down, cast.ill(&of.reported_by).down)
        };
        let runs = !is_app_down && sim.with(|engine| runs(engine, &of.reported_by));
        if runs {
            let (availability, reason) =
                if is_down { (Availability::TemporarilyUnavailable, "the drill keeps it down") } else { (Availability::Available, "") };
            let heartbeat = Heartbeat { availability, reason: reason.to_owned(), blocked_operations: BTreeSet::new(), ack: ack.take() };
            // Before the manifests are applied there is nobody to report for.
            let answer = operator.controller.heartbeat(&part, heartbeat).await.unwrap_or_default();
            ack = answer["reload"]["id"].as_str().map(str::to_owned);
        }
        let pause = if ack.is_some() { RELOADING } else { pace };
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(until) => break,
                _ = changes.changed() => {
                    let is_told = operator.reloads(&part.namespace).iter().any(|reload| reload["service"] == part.name.as_str());
                    let drilled = lock(&cast).ill(&part).down;
                    // An app watches its face: it hears of a reload, and says what it sees, at once.
                    if (is_told && ack.is_none()) || drilled != is_down {
                        break;
                    }
                }
            }
        }
    }
}

fn runs(engine: &Engine, key: &ObjectKey) -> bool {
    use qm_dockersim::engine::container::Phase;
    engine.containers().any(|c| c.phase() == Phase::Running && owner(c.labels()).is_some_and(|(owner, _)| owner == *key))
}

/// The way to the engine, into its containers, and to what is outside.
fn dial(sim: Sim, cast: Arc<Mutex<Cast>>) -> Dial {
    Arc::new(move |address| {
        let (sim, cast) = (sim.clone(), cast.clone());
        Box::pin(async move {
            let stream: Box<dyn Stream> = match address {
                Address::InProcess | Address::Unix(_) => Box::new(sim.connect()?),
                Address::Tcp(host, port) => {
                    let outside = lock(&cast).at(&host, port);
                    match outside {
                        None => Box::new(sim.dial(&host, port)?),
                        Some((_, ill)) if ill.down => return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused")),
                        Some((external, ill)) => {
                            tokio::time::sleep(Duration::from_millis(ill.slow_ms.unwrap_or_default())).await;
                            Box::new(outside_service(&external))
                        }
                    }
                }
            };
            Ok(stream)
        })
    })
}

/// Somebody outside who accepts, and answers whatever a probe asks in its protocol.
fn outside_service(external: &External) -> DuplexStream {
    let (client, mut server) = tokio::io::duplex(16 * 1024);
    let speaks = external.speaks;
    tokio::spawn(async move {
        let (mut heard, mut buffer) = (Vec::new(), [0_u8; 1024]);
        while let Ok(count @ 1..) = server.read(&mut buffer).await {
            heard.extend_from_slice(&buffer[..count]);
            let Some(answer) = answer(speaks, &heard) else { continue };
            heard.clear();
            // Whoever asked may have gone.
            if server.write_all(&answer).await.is_err() || matches!(speaks, Speaks::Http(_)) {
                return;
            }
        }
    });
    client
}

/// What is answered to what was heard; nothing until that is whole. Passwords are taken, and queries answered with nothing.
fn answer(speaks: Speaks, heard: &[u8]) -> Option<Vec<u8>> {
    /// "It is your turn", as PostgreSQL says it.
    const READY: &[u8] = b"Z\0\0\0\x05I";
    let has = |words: &[u8]| heard.windows(words.len()).any(|window| window == words);
    match speaks {
        Speaks::Http(status) => {
            has(b"\r\n\r\n").then(|| format!("HTTP/1.1 {status} drill\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes())
        }
        Speaks::Redis => heard.ends_with(b"\r\n").then(|| if has(b"PING") { b"+PONG\r\n".to_vec() } else { b"+OK\r\n".to_vec() }),
        // Only the first message has no letter before its length.
        Speaks::Postgres if heard.first() == Some(&0) => Some([b"R\0\0\0\x08\0\0\0\0", READY].concat()),
        Speaks::Postgres => Some([b"C\0\0\0\x0dSELECT 1\0", READY].concat()),
    }
}
