//! Plays holders on the real locks and the real store, and writes down what they saw: holders that are paused for longer than their term,
//! operators that are killed in the middle of a write, machines that lose their power, wall clocks that jump. One thread, virtual time: a
//! seed and a commit reproduce a history.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use qm_api::lock::LockMode;
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_controller::clock::Clock;
use qm_controller::events::Events;
use qm_controller::locks::{Locks, Released, lease_name};
use qm_controller::world::World;
use qm_plan::locks::{Ask, Patience, Token};
use qm_store::backend::{Backend, BackendError, Flush, Memory, Records, Redb, Write};
use qm_store::{CommitMode, Durability, Options, Store, StoreError};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Call;
use super::lock::{Answer, TERM_MS, Timed, What};
use crate::simulation::in_virtual_time;
use crate::simulation::rng::Rng;

/// Holders at once.
const HOLDERS: u64 = 5;
/// Calls of one holder.
const CALLS: u64 = 60;

/// Where the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In memory, which can lose what was not synced.
    Memory,
    /// In a file.
    File,
}

/// What was played.
#[derive(Clone, Debug, Default)]
pub struct Played {
    /// The history.
    pub calls: Vec<Call<Timed>>,
    /// How often the operator was started again.
    pub restarts: u64,
    /// Writes that were done, and those that were fenced off.
    pub writes: (u64, u64),
}

/// Plays one seed.
///
/// # Errors
/// When the run broke, in words.
pub fn play(seed: u64, place: Place) -> Result<Played, String> {
    in_virtual_time(async move || {
        let stage = Stage::new(seed, place);
        stage.boot().await;
        let holders: Vec<_> = (0..HOLDERS).map(|n| tokio::task::spawn_local(holder(stage.clone(), n))).collect();
        let troubles = tokio::task::spawn_local(trouble(stage.clone()));
        for holder in holders {
            holder.await.expect("a holder plays to its end");
        }
        troubles.abort();
        stage.0.played.take()
    })
}

/// A backend that dies with its process: from then on it takes nothing.
struct Mortal {
    inner: Box<dyn Backend>,
    fate: Arc<Fate>,
}

/// The life of one process.
#[derive(Debug, Default)]
struct Fate {
    is_over: AtomicBool,
    /// It ends at the n-th write from now, before or after it; 0 = it does not.
    trap: AtomicU64,
    after: AtomicBool,
}

impl Fate {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

impl Backend for Mortal {
    fn load(&mut self) -> Result<Records, BackendError> {
        self.inner.load()
    }

    fn apply(&mut self, writes: &[Write], flush: Flush) -> Result<(), BackendError> {
        let dead = || BackendError::from(std::io::Error::other("the process is dead"));
        if self.fate.is_over() {
            return Err(dead());
        }
        let left = self.fate.trap.load(Ordering::Relaxed);
        self.fate.trap.store(left.saturating_sub(1), Ordering::Relaxed);
        if left == 1 {
            self.fate.end();
            if self.fate.after.load(Ordering::Relaxed) {
                self.inner.apply(writes, flush)?;
            }
            return Err(dead());
        }
        self.inner.apply(writes, flush)
    }

    fn preserve(&mut self, label: &str) -> Result<(), BackendError> {
        self.inner.preserve(label)
    }
}

/// One process of the operator, as far as locks go.
struct Life {
    locks: Arc<Locks>,
    store: Store,
    fate: Arc<Fate>,
    timer: JoinHandle<()>,
}

struct Inner {
    seed: u64,
    started: Instant,
    wall_offset_ms: Arc<AtomicI64>,
    memory: Memory,
    file: Option<PathBuf>,
    _folder: Option<tempfile::TempDir>,
    life: RefCell<Option<Rc<Life>>>,
    boots: Cell<u64>,
    changed: Notify,
    /// Counts what happens: the order of the history.
    sequence: Cell<u64>,
    values: Cell<u64>,
    played: RefCell<Played>,
}

#[derive(Clone)]
struct Stage(Rc<Inner>);

fn key() -> ObjectKey {
    ObjectKey::new("MiniService", "shop", "db")
}

fn resource() -> ObjectKey {
    ObjectKey::new("Resource", "shop", "db")
}

impl Stage {
    fn new(seed: u64, place: Place) -> Self {
        let folder = (place == Place::File).then(|| tempfile::TempDir::with_prefix("qm-linear-").expect("a folder"));
        Self(Rc::new(Inner {
            seed,
            started: Instant::now(),
            wall_offset_ms: Arc::default(),
            memory: Memory::new(),
            file: folder.as_ref().map(|folder| folder.path().join("store.redb")),
            _folder: folder,
            life: RefCell::default(),
            boots: Cell::new(0),
            changed: Notify::new(),
            sequence: Cell::new(0),
            values: Cell::new(0),
            played: RefCell::default(),
        }))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).expect("a short run")
    }

    fn tick(&self) -> u64 {
        self.0.sequence.set(self.0.sequence.get() + 1);
        self.0.sequence.get()
    }

    fn backend(&self) -> Box<dyn Backend> {
        match &self.0.file {
            Some(file) => Box::new(Redb::at(file)),
            None => Box::new(self.0.memory.clone()),
        }
    }

    async fn boot(&self) {
        let fate = Arc::new(Fate::default());
        let backend = Mortal { inner: self.backend(), fate: fate.clone() };
        let options = Options { commit: CommitMode::Inline, ..Options::default() };
        let store = Store::open(Box::new(backend), options).expect("the store opens");
        let (started, offset) = (self.0.started, self.0.wall_offset_ms.clone());
        let boot = self.0.boots.replace(self.0.boots.get() + 1);
        let uids = Mutex::new(0_u64);
        let clock = Clock::new(
            Arc::new(move || {
                let elapsed = i64::try_from(started.elapsed().as_millis()).unwrap_or(0);
                Timestamp::from_millis(1_767_225_600_000 + offset.load(Ordering::Relaxed) + elapsed)
            }),
            Arc::new(move || {
                let mut uids = uids.lock().unwrap_or_else(PoisonError::into_inner);
                *uids += 1;
                Name::from(format!("{boot}-{uids}"))
            }),
        );
        for object in [key(), resource()] {
            if store.snapshot().get(&object).is_none() {
                let mut tx = store.tx();
                tx.create(Object::new(object, clock.uid(), clock.wall(), json!({ "value": 0 })));
                tx.commit(Durability::Durable).await.expect("a fresh store takes an object");
            }
        }
        let world = Arc::new(World::new(clock.clone(), "linear".into()));
        let events = Arc::new(Events::new(store.clone(), clock.clone()));
        let began = (self.tick(), self.now_ms());
        let locks = Arc::new(Locks::new(store.clone(), clock, world, events));
        if boot > 0 {
            self.write_down(began, What::Restart);
            self.0.played.borrow_mut().restarts += 1;
        }
        let timer = tokio::spawn(locks.clone().run());
        *self.0.life.borrow_mut() = Some(Rc::new(Life { locks, store, fate, timer }));
        self.0.changed.notify_waiters();
    }

    /// The process ends; with `power`, what was not synced is lost.
    async fn kill(&self, power: bool) {
        let Some(life) = self.0.life.borrow_mut().take() else { return };
        life.fate.end();
        life.timer.abort();
        self.0.changed.notify_waiters();
        // Whoever still has a hand on the dead process lets go of it: a file is opened by one process at a time.
        let locks = Arc::downgrade(&life.locks);
        drop(life);
        for _ in 0..10_000 {
            if locks.strong_count() == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert_eq!(locks.strong_count(), 0, "somebody holds on to a dead process");
        if power {
            self.0.memory.forget_unsynced();
        }
    }

    fn life(&self) -> Option<Rc<Life>> {
        self.0.life.borrow().clone().filter(|life| !life.fate.is_over())
    }

    fn write_down(&self, (began, began_ms): (u64, u64), what: What) {
        let call = Call { began, ended: self.tick(), what: Timed { what, began_ms, ended_ms: self.now_ms() } };
        self.0.played.borrow_mut().calls.push(call);
    }

    /// Makes a call on the process that lives now, and writes down what came of it; `None` = the process died meanwhile.
    async fn call<T>(&self, work: impl AsyncFnOnce(&Life) -> T, say: impl FnOnce(Option<&T>) -> Option<What>) -> Option<T> {
        let life = loop {
            match self.life() {
                Some(life) => break life,
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        let began = (self.tick(), self.now_ms());
        let died = async {
            while !life.fate.is_over() {
                self.0.changed.notified().await;
            }
        };
        let result = tokio::select! {
            biased;
            () = died => None,
            result = work(&life) => Some(result),
        };
        // An answer that a dying process gave is heard by nobody.
        let result = result.filter(|_| !life.fate.is_over());
        drop(life);
        if let Some(what) = say(result.as_ref()) {
            self.write_down(began, what);
        }
        result
    }
}

/// One holder: asks, writes, is paused, writes again, whether or not it still holds it.
async fn holder(stage: Stage, number: u64) {
    let mut rng = Rng::new(stage.0.seed).fork(&format!("holder {number}"));
    let name = Name::from(format!("h{number}"));
    let mut token: Option<u64> = None;
    for _ in 0..CALLS {
        pause(&mut rng).await;
        let Some(held) = token else {
            token = acquire(&stage, &name, rng.below(20_000)).await;
            continue;
        };
        match rng.below(100) {
            0..40 => write(&stage, held).await,
            40..55 => read(&stage).await,
            55..70 => {
                let done = stage
                    .call(
                        async |life| life.locks.renew(&key(), &name, Token(held), Some(LockMode::Change)).is_ok(),
                        |done| Some(What::Renew { token: held, answer: answer(done) }),
                    )
                    .await;
                // A holder that hears that it has lost it tries to write all the same, now and then.
                if done == Some(false) && rng.chance(50) {
                    token = None;
                }
            }
            70..80 => {
                let fresh = async |life: &Life| life.locks.check(&key(), Token(held)).is_ok();
                stage.call(fresh, |done| Some(What::Check { token: held, answer: answer(done) })).await;
            }
            80..95 => {
                let given = async |life: &Life| life.locks.release(&key(), &name, Token(held)).await;
                stage
                    .call(given, |given| {
                        Some(match given {
                            None => What::Release { token: held, answer: Answer::Lost },
                            Some(Ok(Released::Done)) => What::Release { token: held, answer: Answer::Done },
                            Some(Ok(Released::NotStored)) => What::ReleaseLater { token: held },
                            Some(Err(_)) => What::Release { token: held, answer: Answer::Stale },
                        })
                    })
                    .await;
                // Now and then it goes on as if it had not.
                if rng.chance(70) {
                    token = None;
                }
            }
            _ => token = None,
        }
    }
}

/// Mostly a moment; sometimes longer than a term.
async fn pause(rng: &mut Rng) {
    let ms = match rng.below(100) {
        0..70 => rng.below(300),
        70..92 => rng.below(9_000),
        _ => TERM_MS + rng.below(10_000),
    };
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

fn answer(done: Option<&bool>) -> Answer {
    match done {
        None => Answer::Lost,
        Some(true) => Answer::Done,
        Some(false) => Answer::Stale,
    }
}

async fn acquire(stage: &Stage, holder: &Name, wait_ms: u64) -> Option<u64> {
    let asked = async |life: &Life| {
        let until = u64::try_from(stage.0.started.elapsed().as_millis()).unwrap_or(0);
        // The process counts its time from its own start, which is later than ours: it waits for longer than was meant, which harms nobody.
        let patience = Patience::Until(until + wait_ms);
        let ask = Ask { key: key(), mode: LockMode::Change, holder: holder.clone(), term_ms: TERM_MS, patience };
        life.locks.acquire(ask).await
    };
    let granted = stage
        .call(asked, |granted| match granted {
            None => Some(What::Acquire { token: None }),
            Some(Ok(grant)) => Some(What::Acquire { token: Some(grant.token.0) }),
            // A refusal says nothing that could be wrong.
            Some(Err(_)) => None,
        })
        .await;
    granted?.ok().map(|grant| grant.token.0)
}

async fn write(stage: &Stage, token: u64) {
    let value = stage.0.values.replace(stage.0.values.get() + 1) + 1;
    let written = async |life: &Life| -> Result<bool, StoreError> {
        let mut object = (**life.store.snapshot().get(&resource()).expect("the resource is there")).clone();
        object.spec = Arc::new(json!({ "value": value }));
        let mut tx = life.store.tx();
        tx.fence(&lease_name(&key()), token);
        tx.put(object);
        match tx.commit(Durability::Durable).await {
            Ok(_) => Ok(true),
            Err(StoreError::Fenced { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    };
    let done = stage
        .call(written, |written| {
            let answer = match written {
                Some(Ok(done)) => answer(Some(done)),
                // Somebody else wrote at the same instant, or nobody heard what came of it.
                Some(Err(_)) | None => Answer::Lost,
            };
            Some(What::Write { token, value, answer })
        })
        .await;
    let mut played = stage.0.played.borrow_mut();
    match done {
        Some(Ok(true)) => played.writes.0 += 1,
        Some(Ok(false)) => played.writes.1 += 1,
        _ => {}
    }
}

async fn read(stage: &Stage) {
    let value = async |life: &Life| {
        let snapshot = life.store.snapshot();
        snapshot.get(&resource()).and_then(|object| object.spec["value"].as_u64()).expect("the resource has a value")
    };
    stage.call(value, |value| value.map(|value| What::Read { value: *value })).await;
}

/// Kills, power cuts, traps in the middle of a write, and a wall clock that jumps.
async fn trouble(stage: Stage) {
    let mut rng = Rng::new(stage.0.seed).fork("trouble");
    loop {
        tokio::time::sleep(Duration::from_millis(rng.between(500, 40_000))).await;
        match rng.below(10) {
            0..2 => {
                let jump = i64::try_from(rng.below(7_200_000)).unwrap_or(0) - 3_600_000;
                stage.0.wall_offset_ms.fetch_add(jump, Ordering::Relaxed);
                continue;
            }
            2..6 => {
                let Some(life) = stage.life() else { continue };
                life.fate.after.store(rng.chance(50), Ordering::Relaxed);
                life.fate.trap.store(rng.between(1, 4), Ordering::Relaxed);
                let fate = life.fate.clone();
                drop(life);
                let patience = tokio::time::Instant::now() + Duration::from_secs(60);
                while !fate.is_over() && tokio::time::Instant::now() < patience {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            _ => {}
        }
        stage.kill(rng.chance(50)).await;
        tokio::time::sleep(Duration::from_millis(rng.below(20_000))).await;
        stage.boot().await;
    }
}

/// Plays seeds and checks what was seen; gives the number of calls.
///
/// # Errors
/// The first history that no order explains, in words.
pub fn check(seeds: std::ops::Range<u64>, place: Place) -> Result<Played, String> {
    let mut all = Played::default();
    for seed in seeds {
        let played = play(seed, place).map_err(|why| format!("seed {seed} on {place:?}: {why}"))?;
        super::check::<super::lock::Lock>(played.calls.clone()).map_err(|why| format!("seed {seed} on {place:?}: {why}"))?;
        all.restarts += played.restarts;
        all.writes = (all.writes.0 + played.writes.0, all.writes.1 + played.writes.1);
        all.calls.extend(played.calls);
    }
    Ok(all)
}
