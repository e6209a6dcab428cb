//! Owns [`Controller`]: everything a pass needs, and what is remembered between two passes of one key (never an input of planning
//! that could not be lost).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qm_api::conditions::Reason;
use qm_api::kinds::mini_service;
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::spec::container::OnFailure;
use qm_api::time::Timestamp;
use qm_plan::budget::Spent;
use qm_plan::kinds::mini_service::DriftMemory;
use qm_plan::plan::Finding;
use qm_store::{Durability, Precondition, Store, StoreError};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::docker::Docker;
use crate::events::{EventType, Events, Happening};
use crate::intents;
use crate::locks::Locks;
use crate::metrics::Metrics;
use crate::mirror::Refresher;
use crate::pulls::{self, Pulls};
use crate::records::{self, REVISIONS_KEPT, RevisionRecord, RollbackRecord};
use crate::world::{Blocked, Seed, World};

/// Calls that change the engine, under way at once. Measured: eight are as fast as sixteen, four are slower.
pub const PARALLEL_WRITES: usize = 8;

/// What is remembered of a key between two passes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory {
    /// The generation at which a plan was last empty.
    pub(crate) settled_generation: u64,
    /// The networks, by id, that a plan was last made with ..
    pub(crate) seen_networks: BTreeSet<Name>,
    /// .. and those of the last empty one.
    pub(crate) settled_networks: BTreeSet<Name>,
    /// The generation for which an image was pulled.
    pub(crate) pulled_generation: Option<u64>,
    /// What is remembered of drift.
    pub(crate) drift: DriftMemory,
    /// Failed passes in a row.
    pub(crate) failures: u32,
    /// No step is taken before this instant, after a failure; monotonic milliseconds.
    pub(crate) backoff_until_ms: u64,
    /// Steps that were taken, by hash: the brake against going in circles.
    pub(crate) taken: BTreeMap<String, Spent>,
    /// What the last plan had to say.
    pub(crate) findings: Vec<Finding>,
    /// What the last plan waits for, in words.
    pub(crate) waits: Vec<String>,
    /// The last plan was empty.
    pub(crate) clean: bool,
    /// The image that is being pulled, as the manifest names it.
    pub(crate) pulling: Option<String>,
    /// The generation that the last pass looked at.
    pub(crate) seen_generation: u64,
    /// Why the stored spec cannot be used.
    pub(crate) unreadable: Option<String>,
    /// Containers that were to be adopted and cannot be, by id, with why.
    pub(crate) not_adoptable: BTreeMap<Name, String>,
    /// Since when a planned change of ours has taken containers down, in monotonic milliseconds.
    pub(crate) changing_since_ms: Option<u64>,
    /// When the pass under way, or the last one, began, in monotonic milliseconds.
    pub(crate) pass_began_ms: u64,
    /// When a reload that waits is looked at again, in monotonic milliseconds.
    pub(crate) reload_wait_ms: Option<u64>,
    /// It reloads again and again: until when it does not, and why it would.
    pub(crate) flapping: Option<(Timestamp, String)>,
    /// A network of this object was there.
    pub(crate) was_there: bool,
}

/// Folders on the engine's host that containers get something from.
#[derive(Clone, Debug)]
pub struct Places {
    /// Where files for read-only containers are kept.
    pub files: String,
    /// Where each namespace has a folder with its app face.
    pub faces: String,
}

/// Everything a pass needs.
#[derive(Debug)]
pub struct Controller {
    /// The picture of everything.
    pub world: Arc<World>,
    /// The durable state.
    pub store: Store,
    /// The engine.
    pub docker: Docker,
    /// Asks the mirror to look again.
    pub refresher: Refresher,
    /// The clocks.
    pub clock: Clock,
    /// Events.
    pub events: Arc<Events>,
    /// Who uses and who changes which service.
    pub locks: Arc<Locks>,
    /// Metrics.
    pub metrics: Metrics,
    /// Where things for containers are kept, on the engine's host.
    pub places: Places,
    pub(crate) writes: Semaphore,
    pub(crate) pulls: Pulls,
    memory: Mutex<BTreeMap<ObjectKey, Memory>>,
    revisions: Mutex<BTreeMap<ObjectKey, Vec<RevisionRecord>>>,
    /// Held by whoever looks at what persons have blocked.
    blocks_turn: Mutex<()>,
}

impl Controller {
    /// A controller over its parts. Revisions are loaded once; this process is their only writer.
    pub fn new(
        world: Arc<World>,
        store: Store,
        docker: Docker,
        refresher: Refresher,
        clock: Clock,
        metrics: Metrics,
        places: Places,
    ) -> Self {
        let revisions = load_revisions(&store);
        crate::adopt::load(&store.snapshot(), &world);
        let events = Arc::new(Events::new(store.clone(), clock.clone()));
        let locks = Arc::new(Locks::new(store.clone(), clock.clone(), world.clone(), events.clone()));
        Self {
            world,
            docker,
            refresher,
            clock,
            events,
            locks,
            metrics,
            places,
            writes: Semaphore::new(PARALLEL_WRITES),
            pulls: Pulls::new(pulls::Settings::default()),
            memory: Mutex::default(),
            revisions: Mutex::new(revisions),
            blocks_turn: Mutex::default(),
            store,
        }
    }

    /// Pulls images in this way.
    pub fn pulling(self, settings: pulls::Settings) -> Self {
        Self { pulls: Pulls::new(settings), ..self }
    }

    /// Reads the revisions of the store again: for a shadow that was filled after it was made.
    pub(crate) fn reloaded(self) -> Self {
        *self.revisions.lock().unwrap_or_else(PoisonError::into_inner) = load_revisions(&self.store);
        crate::adopt::load(&self.store.snapshot(), &self.world);
        self
    }

    /// Takes what another controller remembers: a shadow must plan as the original would.
    pub(crate) fn copy_memory(&self, original: &Self) {
        *self.memory() = original.memory().clone();
        self.locks.copy(&original.locks);
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, Memory>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn remember<T>(&self, key: &ObjectKey, change: impl FnOnce(&mut Memory) -> T) -> T {
        change(self.memory().entry(key.clone()).or_default())
    }

    pub(crate) fn revisions_of(&self, key: &ObjectKey) -> Vec<RevisionRecord> {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned().unwrap_or_default()
    }

    /// Records a revision, durable before the answer, and drops the oldest beyond the last five.
    ///
    /// # Errors
    /// When the store refuses.
    pub(crate) async fn record_revision(&self, key: &ObjectKey, revision: qm_plan::plan::Revision) -> Result<(), StoreError> {
        let now = self.clock.wall();
        let record = RevisionRecord {
            service: key.name.clone(),
            created_at: now,
            revision,
            container: None,
            files: BTreeMap::new(),
            proven_at: None,
        };
        self.put_revision(key, record).await
    }

    /// Writes a revision record and drops the oldest beyond the last five, but never the newest one that is proven.
    ///
    /// # Errors
    /// When the store refuses.
    pub(crate) async fn put_revision(&self, key: &ObjectKey, record: RevisionRecord) -> Result<(), StoreError> {
        let now = self.clock.wall();
        let snapshot = self.store.snapshot();
        let mut tx = self.store.tx();
        self.put_record(&mut tx, records::revision_key(key, record.revision.number), &record);
        let mut list = self.revisions_of(key);
        list.retain(|r| r.revision.number != record.revision.number);
        list.insert(0, record);
        list.sort_by_key(|r| std::cmp::Reverse(r.revision.number));
        let way_back = list.iter().find(|r| r.proven_at.is_some()).map(|r| r.revision.number);
        let (kept, dropped): (Vec<_>, Vec<_>) =
            list.into_iter().enumerate().partition(|(at, r)| *at < REVISIONS_KEPT || Some(r.revision.number) == way_back);
        let list: Vec<RevisionRecord> = kept.into_iter().map(|(_, r)| r).collect();
        for (_, old) in dropped {
            let old_key = records::revision_key(key, old.revision.number);
            if snapshot.get(&old_key).is_some() {
                tx.delete(old_key, Precondition::default(), now);
            }
        }
        tx.commit(Durability::Durable).await?;
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), list);
        Ok(())
    }

    /// The rollout of a revision is complete: it is what a later one may fall back to. Recorded once, and again when what can change in
    /// place has changed.
    ///
    /// # Errors
    /// When the store refuses.
    pub(crate) async fn prove_revision(&self, key: &ObjectKey, object: &Object, number: u64) -> Result<(), StoreError> {
        let Some(mut record) = self.revisions_of(key).into_iter().find(|r| r.revision.number == number) else { return Ok(()) };
        let files = object.meta.annotations.get(records::FILES);
        let files: BTreeMap<String, String> = files.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
        let container = object.spec.get("container").cloned();
        if record.proven_at.is_some() && record.container == container && record.files == files {
            return Ok(());
        }
        record.proven_at.get_or_insert(self.clock.wall());
        (record.container, record.files) = (container, files);
        self.put_revision(key, record).await?;
        self.world.mark_status([key.clone()]);
        Ok(())
    }

    /// The rollout of a revision failed: go back to the newest proven one, or stop where it is, as the manifest says. Without a proven
    /// one there is nothing to go back to, and the budgets go on deciding. Gives whether anything follows from it.
    ///
    /// # Errors
    /// When the store refuses.
    pub(crate) async fn take_back(&self, key: &ObjectKey, object: &Object, failed: u64, evidence: &str) -> Result<bool, StoreError> {
        let Some(desired) = self.world.service(key) else { return Ok(false) };
        let Some(spec) = desired.container() else { return Ok(false) };
        let Some(to) = self.way_back(key, failed) else { return Ok(false) };
        if intents::suspension(&self.store.snapshot(), object, self.clock.wall()).is_some() {
            return Ok(false);
        }
        let record = RollbackRecord {
            generation: object.meta.generation,
            files: object.meta.annotations.get(records::FILES).map(ToString::to_string),
            failed,
            to: (spec.on_failure == OnFailure::Rollback).then_some(to),
            actor: None,
            evidence: evidence.to_owned(),
            at: self.clock.wall(),
        };
        let reason = if record.to.is_some() { Reason::RolledBack } else { Reason::RolloutPaused };
        let message = record.message(key);
        let mut tx = self.store.tx();
        self.put_rollback(&mut tx, key, &record);
        tx.commit(Durability::Durable).await?;
        self.tell(key, EventType::Warning, reason, message);
        Ok(true)
    }

    /// The newest proven revision besides this one.
    pub(crate) fn way_back(&self, key: &ObjectKey, failed: u64) -> Option<u64> {
        let is_way = |r: &&RevisionRecord| r.proven_at.is_some() && r.container.is_some() && r.revision.number != failed;
        self.revisions_of(key).iter().find(is_way).map(|r| r.revision.number)
    }

    /// Puts a rollback record into a transaction.
    pub(crate) fn put_rollback(&self, tx: &mut qm_store::Tx, key: &ObjectKey, record: &RollbackRecord) {
        self.put_record(tx, ObjectKey::new(records::ROLLBACK, key.namespace.clone(), key.name.clone()), record);
    }

    /// Puts an internal record into a transaction: in the place of the one with this key, or as a new one.
    pub(crate) fn put_record(&self, tx: &mut qm_store::Tx, key: ObjectKey, record: &impl serde::Serialize) {
        let spec = serde_json::to_value(record).expect("a record is plain data");
        match self.store.snapshot().get(&key) {
            Some(old) => {
                let mut object = (**old).clone();
                object.spec = Arc::new(spec);
                tx.put(object);
            }
            None => {
                tx.create(Object::new(key, self.clock.uid(), self.clock.wall(), spec));
            }
        }
    }

    /// The keys under which the store may have something of an object beside itself.
    pub(crate) fn records_of(&self, key: &ObjectKey) -> Vec<ObjectKey> {
        let revisions = self.revisions_of(key).into_iter().map(|r| records::revision_key(key, r.revision.number));
        // These have no kind in their names: they are a service's, whatever else has its name.
        let is_service = key.kind == mini_service::KIND;
        let of_service =
            [records::PENDING_RELOAD, records::EPOCH, records::ROLLBACK, records::RELOADS, records::STOPPED, records::JOB_RESULTS]
                .map(|kind| ObjectKey::new(kind, key.namespace.clone(), key.name.clone()));
        revisions.chain(of_service.into_iter().filter(|_| is_service)).chain([records::adoption_key(key)]).collect()
    }

    /// Forgets everything about an object that is gone for good, its records with it.
    pub(crate) async fn forget(&self, key: &ObjectKey) {
        self.revisions.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        self.locks.let_go(key).await;
        self.world.forget_adopted(key);
        self.memory().remove(key);
    }

    pub(crate) fn tell(&self, key: &ObjectKey, kind: EventType, reason: Reason, message: impl Into<String>) {
        let uid = self.store.snapshot().get(key).map(|o| o.meta.uid.clone()).unwrap_or_default();
        self.events.record(Happening { object: key.clone(), uid, kind, reason, message: message.into() });
    }

    /// Takes what persons have blocked, as the store has it now. Costs nothing where nobody has blocked anything.
    pub(crate) fn look_at_blocks(&self) {
        // One after the other, each from a snapshot of its own: who looked earlier must not be heard later.
        let _turn = self.blocks_turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (snapshot, now) = (self.store.snapshot(), self.clock.now());
        let is_any = intents::active(&snapshot, now.wall).iter().any(|(_, i)| i.act == qm_api::kinds::intent::Act::Block);
        let mut blocked = BTreeMap::new();
        for object in snapshot.list(mini_service::KIND, None).filter(|_| is_any) {
            let Some((words, until)) = intents::block(&snapshot, object, now.wall) else { continue };
            let until_ms = until.map(|until| now.mono_ms.saturating_add(until.millis_since(now.wall).max(0) as u64));
            blocked.insert(object.key.clone(), Blocked { words, until_ms });
        }
        self.world.set_blocked(blocked);
    }

    /// Takes what the statuses in the store say of the time before this process: settled generations and last known availability.
    pub fn seed(&self) {
        let snapshot = self.store.snapshot();
        let mut recorded = Vec::new();
        for object in snapshot.list(mini_service::KIND, None) {
            let Ok(Some(status)) = object.decode_status::<mini_service::MiniServiceStatus>() else { continue };
            use qm_api::conditions::{ConditionStatus, ConditionType};
            let healthy = status.slots.iter().filter_map(|s| Some((s.container_id.as_str().into(), s.started_at, s.healthy_at?)));
            self.world.seed_healthy(healthy.collect::<Vec<_>>());
            let is_ready = status.conditions.iter().any(|c| c.kind == ConditionType::Ready && c.status == ConditionStatus::True);
            // Of what is skipped nothing was compared.
            if is_ready && status.reason != Reason::Skipped {
                self.remember(&object.key, |m| {
                    m.settled_generation = status.observed_generation;
                    m.seen_generation = status.observed_generation;
                    m.clean = true;
                });
            }
            let epoch = records::epoch(&snapshot, &object.key);
            if epoch.is_some_and(|record| record.changing) {
                let now_ms = self.clock.mono_ms();
                self.remember(&object.key, |m| m.changing_since_ms = Some(now_ms));
            }
            recorded.push(Seed {
                key: object.key.clone(),
                availability: status.availability.map(|availability| (availability, status.reason)),
                since: status.since,
                epoch,
            });
        }
        for object in snapshot.list("Network", None) {
            if !object.status.is_null() {
                self.remember(&object.key, |m| m.was_there = true);
            }
        }
        self.world.seed(recorded);
        self.look_at_blocks();
    }

    /// When the last pass of every object was clean, and nothing waits: for tests and `/readyz`.
    pub fn is_calm(&self) -> bool {
        let memory = self.memory();
        let snapshot = self.store.snapshot();
        snapshot
            .list(mini_service::KIND, None)
            .all(|o| memory.get(&o.key).is_some_and(|m| m.clean && m.seen_generation == o.meta.generation))
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.wall()
    }
}

fn load_revisions(store: &Store) -> BTreeMap<ObjectKey, Vec<RevisionRecord>> {
    let mut revisions: BTreeMap<ObjectKey, Vec<RevisionRecord>> = BTreeMap::new();
    for object in store.snapshot().list(records::REVISION, None) {
        match object.decode_spec::<RevisionRecord>() {
            Ok(record) => {
                let key = ObjectKey::new(mini_service::KIND, object.key.namespace.clone(), record.service.clone());
                revisions.entry(key).or_default().push(record);
            }
            Err(error) => tracing::warn!(key = %object.key, error = %error, "a revision record cannot be read and is left out"),
        }
    }
    for list in revisions.values_mut() {
        list.sort_by_key(|r| std::cmp::Reverse(r.revision.number));
    }
    revisions
}
