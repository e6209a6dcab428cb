//! Owns [`Locks`]: the lock table of `plan` at work. It gives answers to those who wait, makes durable what must be, and lets time pass.
//!
//! Everything is decided in [`qm_plan::locks`]; here is only who is told, and which write belongs to which effect. Writes run in tasks of
//! their own, so that a caller who goes away leaves nothing half done. It must never answer before the table said so.

pub mod face;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use qm_api::conditions::Reason;
use qm_api::kinds::mini_service::KIND as SERVICE;
use qm_api::lock::{LockMode, LockStatus};
use qm_api::meta::{Object, ObjectKey};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::locks::{Ask, Denied, Effect, Grant, OPERATOR, Patience, Refusal, Stale, Standing, Table, Token, USE_TERM_MS, View, WaiterId};
use qm_store::{Durability, Lease, LeaseError, MonoMillis, Precondition, Snapshot, Store};
use serde_json::json;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::events::{EventType, Events, Happening};
use crate::records::USERS;
use crate::world::World;

/// What the names of the durable leases begin with.
const PREFIX: &str = "change/";
/// When a wish that the store could not serve is looked at again, in milliseconds.
const WISH_AGAIN_MS: u64 = 1_000;

type Verdict = Result<Grant, Refusal>;

#[derive(Debug)]
struct Inner {
    table: Table,
    /// Callers who wait.
    answers: BTreeMap<WaiterId, oneshot::Sender<Verdict>>,
    /// What the operator itself waits for.
    wishes: BTreeMap<ObjectKey, WaiterId>,
    /// When each change was first seen, by its token.
    since: BTreeMap<ObjectKey, (Token, Timestamp)>,
}

/// The locks of all services.
#[derive(Debug)]
pub struct Locks {
    inner: Mutex<Inner>,
    wake: Notify,
    store: Store,
    clock: Clock,
    world: Arc<World>,
    events: Arc<Events>,
}

/// The name of the lease in the store that stands for the change of a service: what writes are fenced with.
pub fn lease_name(service: &ObjectKey) -> Name {
    Name::from(format!("{PREFIX}{}/{}", service.namespace, service.name))
}

fn service_of(lease: &Name) -> Option<ObjectKey> {
    let (namespace, name) = lease.strip_prefix(PREFIX)?.split_once('/')?;
    Some(ObjectKey::new(SERVICE, namespace, name))
}

fn restored(snapshot: &Snapshot, clock: &Clock) -> Table {
    // Microseconds of the wall clock: far above every token of a former process, and exact in JSON.
    let mut table = Table::new(u64::try_from(clock.wall().as_micros()).unwrap_or(1));
    let now = clock.mono_ms();
    for lease in snapshot.leases() {
        let Some(key) = service_of(lease.name) else { continue };
        let term_ms = u64::try_from(lease.term.as_millis()).unwrap_or(u64::MAX);
        table.restore_change(key, lease.holder.clone(), Token(lease.token), term_ms, now);
    }
    for record in snapshot.list(USERS, None) {
        table.restore_users(ObjectKey::new(SERVICE, record.key.namespace.clone(), record.key.name.clone()), now);
    }
    table
}

impl Locks {
    /// The locks that a store remembers: each change for one fresh term; services that had users are not changed for one term of `use`.
    pub fn new(store: Store, clock: Clock, world: Arc<World>, events: Arc<Events>) -> Self {
        let table = restored(&store.snapshot(), &clock);
        let now = clock.wall();
        let changes = table.keys().filter_map(|key| Some((key.clone(), (table.view(key, 0).change?.token, now)))).collect();
        let inner = Inner { table, answers: BTreeMap::new(), wishes: BTreeMap::new(), since: changes };
        Self { inner: Mutex::new(inner), wake: Notify::new(), store, clock, world, events }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what another one knows: a shadow must plan as the original would.
    pub(crate) fn copy(&self, original: &Self) {
        let table = original.lock().table.clone();
        self.lock().table = table;
    }

    /// Asks for a lease and waits for the answer. A caller who goes away has asked for nothing.
    ///
    /// # Errors
    /// When it is not granted within the patience asked for.
    ///
    /// # Guarantees
    /// A granted change is durable before the answer.
    pub async fn acquire(self: &Arc<Self>, ask: Ask) -> Result<Grant, Refusal> {
        let (sender, receiver) = oneshot::channel();
        let key = ask.key.clone();
        let (waiter, effects) = {
            let mut inner = self.lock();
            let (waiter, effects) = inner.table.ask(ask, self.clock.mono_ms());
            inner.answers.insert(waiter, sender);
            (waiter, effects)
        };
        let mut waiting = Waiting { locks: self.clone(), key, waiter, answer: Some(receiver) };
        drop(self.carry_out(effects));
        let unanswered = || Refusal { why: Denied::NotStored, by: Vec::new(), retry_after_ms: WISH_AGAIN_MS };
        let verdict = match waiting.answer.as_mut() {
            Some(answer) => answer.await.unwrap_or_else(|_| Err(unanswered())),
            None => Err(unanswered()),
        };
        waiting.answer = None;
        verdict
    }

    /// Begins a new term.
    ///
    /// # Errors
    /// When the token is not the current one.
    pub fn renew(self: &Arc<Self>, key: &ObjectKey, holder: &Name, token: Token, mode: Option<LockMode>) -> Result<Grant, Stale> {
        let (renewed, effects) = self.lock().table.renew(key, holder, token, mode, self.clock.mono_ms());
        // A later end is no news for whoever waits for the earliest one.
        if !effects.is_empty() {
            drop(self.carry_out(effects));
        }
        renewed
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// When the token is not the current one.
    ///
    /// # Guarantees
    /// With [`Released::Done`] its end is durable.
    pub async fn release(self: &Arc<Self>, key: &ObjectKey, holder: &Name, token: Token) -> Result<Released, Stale> {
        let (released, effects) = self.lock().table.release(key, holder, token, self.clock.mono_ms());
        let writes = self.carry_out(effects);
        released?;
        if let Some(writes) = writes {
            // Whoever drops us leaves the writes running.
            let _ = writes.await;
        }
        let is_held = self.lock().table.is_held(key, token);
        Ok(if is_held { Released::NotStored } else { Released::Done })
    }

    /// Whether that token still names a lease of the service.
    ///
    /// # Errors
    /// When it does not: whoever carries it must not write.
    pub fn check(&self, key: &ObjectKey, token: Token) -> Result<LockMode, Stale> {
        self.lock().table.check(key, token, self.clock.mono_ms())
    }

    /// One lock as it is now.
    pub fn view(&self, key: &ObjectKey) -> View {
        self.lock().table.view(key, self.clock.mono_ms())
    }

    /// Whether somebody changes the service, so that it must not be used.
    pub fn is_changing(&self, key: &ObjectKey) -> bool {
        self.lock().table.is_changing(key)
    }

    /// What a status says of it; `None` where nobody holds it or waits for it.
    pub fn status(&self, key: &ObjectKey) -> Option<LockStatus> {
        let inner = self.lock();
        let view = inner.table.view(key, self.clock.mono_ms());
        let next = view.waiters.iter().find(|(mode, _)| *mode == LockMode::Change).map(|(_, who)| who.to_string());
        let (mode, holder) = match &view.change {
            Some(change) => (LockMode::Change, Some(change.holder.to_string())),
            None if !view.users.is_empty() || next.is_some() => (LockMode::Use, None),
            None => return None,
        };
        let since = inner.since.get(key).filter(|_| holder.is_some()).map(|(_, at)| *at);
        Some(LockStatus { mode, holder, since, next })
    }

    /// How the service stands for the operator itself.
    pub(crate) fn standing(&self, key: &ObjectKey) -> Standing {
        self.lock().table.standing(key, self.clock.mono_ms())
    }

    /// Takes the change for the operator itself, if that can be had at once.
    pub(crate) async fn take(self: &Arc<Self>, key: &ObjectKey) -> Standing {
        if self.standing(key) == Standing::Ours {
            return Standing::Ours;
        }
        let now = self.clock.mono_ms();
        match self.acquire(own(key, Patience::Until(now))).await {
            Ok(_) => Standing::Ours,
            Err(refusal) => Standing::Taken { by: refusal.by },
        }
    }

    /// The operator wants to change the service as soon as it can: nobody new uses it from now on. From `drain_from_ms` on users are not
    /// waited for any more. Gives whether the wish is new.
    pub(crate) fn wish(self: &Arc<Self>, key: &ObjectKey, drain_from_ms: u64) -> bool {
        let effects = {
            let mut inner = self.lock();
            if inner.wishes.contains_key(key) {
                return false;
            }
            let (waiter, effects) = inner.table.ask(own(key, Patience::Drains(drain_from_ms)), self.clock.mono_ms());
            inner.wishes.insert(key.clone(), waiter);
            effects
        };
        drop(self.carry_out(effects));
        true
    }

    /// The operator does not change the service any more: what it holds is given back, what it wished for is forgotten.
    pub(crate) async fn let_go(self: &Arc<Self>, key: &ObjectKey) {
        let effects = {
            let mut inner = self.lock();
            let wish = inner.wishes.remove(key);
            wish.map(|waiter| inner.table.give_up(waiter, self.clock.mono_ms())).unwrap_or_default()
        };
        drop(self.carry_out(effects));
        let held = self.view(key).change.filter(|change| change.holder == OPERATOR && self.standing(key) == Standing::Ours);
        if let Some(change) = held {
            // It is ours: nobody else can have ended it meanwhile but another pass of the same mind.
            let _ = self.release(key, &Name::from(OPERATOR), change.token).await;
        }
    }

    /// Since when the operator itself holds the change, in monotonic milliseconds.
    pub(crate) fn held_since_ms(&self, key: &ObjectKey) -> Option<u64> {
        // What is being given back is not held any more.
        self.view(key).change.filter(|_| self.standing(key) == Standing::Ours).map(|change| change.since_ms)
    }

    /// Whether the operator wants or holds the change of the service.
    pub(crate) fn is_wanted(&self, key: &ObjectKey) -> bool {
        let inner = self.lock();
        inner.wishes.contains_key(key) || inner.table.standing(key, self.clock.mono_ms()) == Standing::Ours
    }

    /// Lets time pass, for ever.
    pub async fn run(self: Arc<Self>) {
        // A former process may have ended between the end of an object and the end of its lock.
        let snapshot = self.store.snapshot();
        let gone: Vec<ObjectKey> = self.lock().table.keys().filter(|key| snapshot.get(key).is_none()).cloned().collect();
        drop(snapshot);
        for key in gone {
            self.let_go(&key).await;
        }
        loop {
            let deadline = self.lock().table.deadline();
            let Some(at) = deadline else {
                self.wake.notified().await;
                continue;
            };
            let sleep = tokio::time::sleep_until(self.clock.instant(at));
            tokio::select! {
                biased;
                () = self.wake.notified() => continue,
                () = sleep => {}
            }
            let effects = self.lock().table.advance(self.clock.mono_ms());
            drop(self.carry_out(effects));
        }
    }

    /// Does what the table wants: answers at once, writes in a task of their own. Gives that task, where there is something to write.
    fn carry_out(self: &Arc<Self>, effects: Vec<Effect>) -> Option<JoinHandle<()>> {
        let writes = self.tell(effects);
        self.wake.notify_one();
        // Without a runtime this process is ending, and its store with it.
        let runtime = tokio::runtime::Handle::try_current().ok().filter(|_| !writes.is_empty())?;
        let locks = self.clone();
        Some(runtime.spawn(async move {
            let mut writes = writes;
            while let Some(write) = writes.pop_front() {
                let effects = locks.write(write).await;
                writes.extend(locks.tell(effects));
                locks.wake.notify_one();
            }
        }))
    }

    /// Tells those who wait; gives what is to be written.
    fn tell(self: &Arc<Self>, effects: Vec<Effect>) -> VecDeque<Effect> {
        let mut writes = VecDeque::new();
        for effect in effects {
            match effect {
                Effect::Granted { key, waiter, grant } => self.answer(waiter, Some(key), Ok(grant)),
                Effect::Refused { waiter, refusal } => self.answer(waiter, None, Err(refusal)),
                Effect::Mark { .. } | Effect::Unmark { .. } | Effect::Take { .. } | Effect::Return { .. } => writes.push_back(effect),
                Effect::Expired { key, holder } => {
                    let message = format!("{holder} did not renew its change in time; it is over");
                    self.record(&key, EventType::Warning, Reason::Unlocked, message);
                }
                Effect::Ended { key, users } => {
                    let users: Vec<&str> = users.iter().map(Name::as_str).take(5).collect();
                    let message = format!("the change has waited for `update.timeout`; these lose their leases: {}", users.join(", "));
                    self.record(&key, EventType::Warning, Reason::InUse, message);
                }
                Effect::Changed { key } => self.changed(key),
            }
        }
        writes
    }

    fn changed(&self, key: ObjectKey) {
        let news = {
            let mut inner = self.lock();
            let change = inner.table.view(&key, self.clock.mono_ms()).change;
            let before = inner.since.get(&key).map(|(token, _)| *token);
            match &change {
                Some(change) if before != Some(change.token) => {
                    inner.since.insert(key.clone(), (change.token, self.clock.wall()));
                }
                Some(_) => {}
                None => {
                    inner.since.remove(&key);
                }
            }
            match change {
                Some(change) if before != Some(change.token) && change.holder != OPERATOR => Some(change.holder),
                _ => None,
            }
        };
        if let Some(holder) = news {
            self.record(&key, EventType::Normal, Reason::Changing, format!("{holder} changes it; it is not to be used meanwhile"));
        }
        // A step of ours may have waited for that.
        if self.lock().wishes.contains_key(&key) {
            self.world.queue.add(&key);
        }
        self.world.mark_status([key]);
        // What callers are told of it may be another now.
        self.world.tell_change();
    }

    /// Tells one who waited; `of` = the service of a grant. What nobody takes any more is given back at once.
    fn answer(self: &Arc<Self>, waiter: WaiterId, of: Option<ObjectKey>, verdict: Verdict) {
        let effects = {
            let mut inner = self.lock();
            let wish = inner.wishes.iter().find(|(_, id)| **id == waiter).map(|(key, _)| key.clone());
            if let Some(key) = wish {
                inner.wishes.remove(&key);
                match verdict {
                    Ok(_) => self.world.queue.add(&key),
                    Err(refusal) => self.world.queue.add_at(&key, self.clock.mono_ms() + refusal.retry_after_ms.min(WISH_AGAIN_MS)),
                }
                return;
            }
            // Under the lock, so that one who goes away either finds his answer or has left before it came, see `Waiting`.
            let untaken = match inner.answers.remove(&waiter) {
                Some(answer) => answer.send(verdict).err(),
                None => Some(verdict),
            };
            match (untaken, of) {
                (Some(Ok(grant)), Some(key)) => {
                    // One that is over already is what was wanted.
                    inner.table.release(&key, &grant.holder, grant.token, self.clock.mono_ms()).1
                }
                _ => Vec::new(),
            }
        };
        drop(self.carry_out(effects));
    }

    async fn write(&self, effect: Effect) -> Vec<Effect> {
        match effect {
            Effect::Mark { key } => {
                let is_stored = self.mark(&key).await;
                self.lock().table.marked(&key, is_stored, self.clock.mono_ms())
            }
            Effect::Unmark { key } => {
                self.unmark(&key).await;
                self.lock().table.unmarked(&key, self.clock.mono_ms())
            }
            Effect::Take { key, holder, term_ms, at } => {
                let term = Duration::from_millis(term_ms);
                let taken = self.store.leases().acquire(&lease_name(&key), &holder, term, MonoMillis(at)).await;
                if let Err(error) = &taken {
                    tracing::warn!(object = %key, error = %error, "a change could not be made durable and is not granted");
                }
                self.lock().table.taken(&key, taken.ok().map(|lease| Token(lease.token)), self.clock.mono_ms())
            }
            Effect::Return { key, token } => {
                let lease = Lease { name: lease_name(&key), token: token.0 };
                let is_stored = match self.store.leases().release(&lease).await {
                    Ok(()) | Err(LeaseError::Lost { .. }) => true,
                    Err(error) => {
                        tracing::warn!(object = %key, error = %error, "the end of a change could not be made durable; it is tried again");
                        false
                    }
                };
                self.lock().table.returned(&key, is_stored, self.clock.mono_ms())
            }
            Effect::Granted { .. } | Effect::Refused { .. } | Effect::Expired { .. } | Effect::Ended { .. } | Effect::Changed { .. } => {
                Vec::new()
            }
        }
    }

    async fn mark(&self, service: &ObjectKey) -> bool {
        let key = users_key(service);
        if self.store.snapshot().get(&key).is_some() {
            return true;
        }
        let mut tx = self.store.tx();
        tx.create(Object::new(key, self.clock.uid(), self.clock.wall(), json!({})));
        match tx.commit(Durability::Durable).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(object = %service, error = %error, "a use could not be made durable and is not granted");
                false
            }
        }
    }

    async fn unmark(&self, service: &ObjectKey) {
        let mut tx = self.store.tx();
        tx.delete(users_key(service), Precondition::default(), self.clock.wall());
        if let Err(error) = tx.commit(Durability::Soon).await {
            // It costs the next process some patience, and nothing else.
            tracing::debug!(object = %service, error = %error, "it stays on record that a service has users");
        }
    }

    fn record(&self, key: &ObjectKey, kind: EventType, reason: Reason, message: String) {
        let Some(object) = self.store.snapshot().get(key).cloned() else { return };
        self.events.record(Happening { object: key.clone(), uid: object.meta.uid.clone(), kind, reason, message });
    }
}

/// The key of the record that a service has users.
pub(crate) fn users_key(service: &ObjectKey) -> ObjectKey {
    ObjectKey::new(USERS, service.namespace.clone(), service.name.clone())
}

fn own(key: &ObjectKey, patience: Patience) -> Ask {
    Ask { key: key.clone(), mode: LockMode::Change, holder: Name::from(OPERATOR), term_ms: USE_TERM_MS, patience }
}

/// What came of giving a lease back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Released {
    /// It is over.
    Done,
    /// The store could not take it; it is over as soon as the store can.
    NotStored,
}

/// A caller who waits. One who goes away leaves the line, or gives back what he was granted and never heard of.
struct Waiting {
    locks: Arc<Locks>,
    key: ObjectKey,
    waiter: WaiterId,
    answer: Option<oneshot::Receiver<Verdict>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(mut answer) = self.answer.take() else { return };
        let now = self.locks.clock.mono_ms();
        let effects = {
            let mut inner = self.locks.lock();
            inner.answers.remove(&self.waiter);
            match answer.try_recv() {
                Ok(Ok(grant)) => inner.table.release(&self.key, &grant.holder, grant.token, now).1,
                Ok(Err(_)) => Vec::new(),
                Err(_) => inner.table.give_up(self.waiter, now),
            }
        };
        drop(self.locks.carry_out(effects));
    }
}
