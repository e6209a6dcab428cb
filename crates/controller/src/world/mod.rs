//! Owns the operator's picture of everything: what is wanted, what the mirror and the probes see, and the availability that follows.
//!
//! All of it stands behind one lock that is held for moments and never across an await. Every change ends in [`World::settle`], which
//! feeds the availability engine and queues exactly the keys that the change concerns. It makes no call and decides nothing.

mod mirror;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use qm_api::availability::Availability;
use qm_api::conditions::Reason;
use qm_api::graph::Graph;
use qm_api::meta::ObjectKey;
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::availability::{DownCause, Engine, Epoch, NodeView, Remembered, Settings, Snapshot};
use qm_plan::budget::{Budget, Spent};
use qm_plan::desired::{DesiredNetwork, DesiredParent, DesiredService};
use qm_plan::job::{Gates, Standing};
use qm_plan::observed::{Container, Health, Image, Network, Report};
use qm_plan::own::{Own, Trouble, own_health};
use qm_plan::stamp::Stamp;
use tokio::sync::{Notify, watch};

use crate::clock::Clock;
use crate::docker::Facts;
use crate::docker::convert::Listed;
use crate::queue::Queue;
use crate::records::EpochRecord;
use crate::reports::Said;

pub use mirror::{Foreign, Listing};
pub use view::ProbeTarget;

/// The link to the engine.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    /// Never connected yet, or lost.
    Lost {
        message: String,
        since: Timestamp,
    },
    Up(Facts),
}

/// Everything behind the lock.
#[derive(Clone, Debug)]
pub(crate) struct Inner {
    pub(crate) link: Link,
    pub(crate) listed: bool,
    pub(crate) containers: BTreeMap<Name, Arc<Container>>,
    pub(crate) others: BTreeMap<Name, Listed>,
    pub(crate) networks: BTreeMap<Name, Arc<Network>>,
    pub(crate) volumes: BTreeSet<Name>,
    pub(crate) images: BTreeMap<Name, Image>,
    pub(crate) gaps: BTreeMap<Name, (ObjectKey, String)>,
    pub(crate) by_owner: BTreeMap<ObjectKey, BTreeSet<Name>>,
    pub(crate) networks_by_owner: BTreeMap<ObjectKey, BTreeSet<Name>>,
    pub(crate) names: BTreeMap<Name, Name>,
    pub(crate) foreign_projects: BTreeMap<Name, BTreeSet<Name>>,
    /// Containers and networks that somebody else made and that were adopted, by id, with the stamps that they do not have.
    pub(crate) adopted: BTreeMap<Name, Stamp>,
    pub(crate) services: BTreeMap<ObjectKey, Arc<DesiredService>>,
    pub(crate) nets: BTreeMap<ObjectKey, Arc<DesiredNetwork>>,
    pub(crate) parents: BTreeMap<ObjectKey, Arc<DesiredParent>>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) health: BTreeMap<Name, Health>,
    /// First healthy moments that the store remembers, by container, with the start they belong to.
    pub(crate) healthy_before: BTreeMap<Name, (Option<Timestamp>, Timestamp)>,
    pub(crate) external_health: BTreeMap<ObjectKey, Health>,
    /// External services that cannot be asked now, with why.
    pub(crate) unasked: BTreeMap<ObjectKey, String>,
    pub(crate) troubles: BTreeMap<ObjectKey, Trouble>,
    /// How jobs stand by their records.
    pub(crate) jobs: BTreeMap<ObjectKey, Standing>,
    /// Failed starts, per replica: an engine that was restarted ends every replica once, and that is no crash loop.
    pub(crate) exits: BTreeMap<ObjectKey, BTreeMap<u32, Spent>>,
    pub(crate) expected_exits: BTreeSet<Name>,
    /// What persons have blocked.
    pub(crate) blocked: BTreeMap<ObjectKey, Blocked>,
    /// What apps said last of their parts.
    pub(crate) reports: BTreeMap<ObjectKey, Said>,
    /// When a container of each service last ended, by the engine's clock.
    pub(crate) last_ended: BTreeMap<ObjectKey, Timestamp>,
    pub(crate) engine: Engine,
    pub(crate) snapshot: Snapshot,
    /// Counts every change of what callers are told.
    pub(crate) version: u64,
    pub(crate) mirror_differences: u64,
}

/// The picture of everything.
#[derive(Debug)]
pub struct World {
    inner: Mutex<Inner>,
    /// Keys that want a pass.
    pub queue: Queue,
    /// The clocks.
    pub clock: Clock,
    /// Which Quaymaster.
    pub instance: Name,
    /// Which life of the operator this is: versions of two lives have nothing to do with each other.
    boot: Name,
    published: watch::Sender<u64>,
    status_dirty: Mutex<BTreeSet<ObjectKey>>,
    status_wake: Notify,
    probe_dirty: Mutex<BTreeSet<ObjectKey>>,
    probe_wake: Notify,
    deadline_wake: Notify,
}

impl Inner {
    /// When time alone changes something, in monotonic milliseconds.
    fn next_deadline_ms(&self) -> Option<u64> {
        let speaks = |said: &&Said| !matches!(said.report, Report::Silent { .. });
        let silence = self.reports.values().filter(speaks).map(|said| said.silent_at_ms).min();
        let ends = self.blocked.values().filter_map(|blocked| blocked.until_ms);
        self.engine.next_deadline_ms().into_iter().chain(silence).chain(ends).min()
    }
}

impl World {
    /// An empty world: nothing wanted, nothing observed.
    pub fn new(clock: Clock, instance: Name) -> Self {
        let since = clock.wall();
        let inner = Inner {
            link: Link::Lost { message: String::new(), since },
            listed: false,
            containers: BTreeMap::new(),
            others: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeSet::new(),
            images: BTreeMap::new(),
            gaps: BTreeMap::new(),
            by_owner: BTreeMap::new(),
            networks_by_owner: BTreeMap::new(),
            names: BTreeMap::new(),
            foreign_projects: BTreeMap::new(),
            adopted: BTreeMap::new(),
            services: BTreeMap::new(),
            nets: BTreeMap::new(),
            parents: BTreeMap::new(),
            graph: Arc::default(),
            health: BTreeMap::new(),
            healthy_before: BTreeMap::new(),
            external_health: BTreeMap::new(),
            unasked: BTreeMap::new(),
            troubles: BTreeMap::new(),
            jobs: BTreeMap::new(),
            exits: BTreeMap::new(),
            expected_exits: BTreeSet::new(),
            blocked: BTreeMap::new(),
            reports: BTreeMap::new(),
            last_ended: BTreeMap::new(),
            engine: Engine::default(),
            snapshot: Snapshot::default(),
            version: 0,
            mirror_differences: 0,
        };
        Self {
            inner: Mutex::new(inner),
            boot: clock.uid(),
            published: watch::Sender::new(0),
            queue: Queue::new(clock.clone()),
            clock,
            instance,
            status_dirty: Mutex::default(),
            status_wake: Notify::new(),
            probe_dirty: Mutex::default(),
            probe_wake: Notify::new(),
            deadline_wake: Notify::new(),
        }
    }

    /// A copy of the picture that lives on its own; queue and wake-ups of the original never hear of it.
    pub(crate) fn shadow(&self) -> Self {
        let copy = Self::new(self.clock.clone(), self.instance.clone());
        *copy.lock() = self.lock().clone();
        copy
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The availability of everything as of now.
    pub fn availability(&self) -> Snapshot {
        self.lock().snapshot.clone()
    }

    /// The availability of everything, and the version under which callers are told of it.
    pub(crate) fn published(&self) -> (Snapshot, String) {
        let inner = self.lock();
        (inner.snapshot.clone(), self.version_of(&inner))
    }

    /// The first of these nodes that there is, the operations that its app has blocked, and the version for both: one look.
    pub(crate) fn told_of(&self, keys: [ObjectKey; 2]) -> Option<(Arc<NodeView>, BTreeSet<String>, String)> {
        let inner = self.lock();
        let node = keys.iter().find_map(|key| inner.snapshot.get(key))?.clone();
        let blocked = inner.reports.get(&node.key).map(|said| said.blocked_operations.clone()).unwrap_or_default();
        Some((node, blocked, self.version_of(&inner)))
    }

    fn version_of(&self, inner: &Inner) -> String {
        format!("{}-{}", &self.boot[..self.boot.len().min(8)], inner.version)
    }

    /// Tells of every change of what callers are told.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.published.subscribe()
    }

    /// Wakes who waits for changes, without one of availability.
    pub(crate) fn tell_change(&self) {
        let mut inner = self.lock();
        inner.version += 1;
        let version = inner.version;
        drop(inner);
        self.publish(version);
    }

    fn publish(&self, version: u64) {
        self.published.send_if_modified(|last| {
            let is_news = version > *last;
            *last = version.max(*last);
            is_news
        });
    }

    /// Namespaces in which somebody wants the app face.
    pub(crate) fn namespaces_with_faces(&self) -> BTreeSet<Name> {
        let inner = self.lock();
        let wants = |service: &&Arc<DesiredService>| service.container().is_some_and(|c| c.status_socket);
        inner.services.values().filter(wants).map(|s| s.key.namespace.clone()).collect()
    }

    /// The dependency graph as of now.
    pub fn graph(&self) -> Arc<Graph> {
        self.lock().graph.clone()
    }

    /// What is wanted of a mini container.
    pub(crate) fn parent(&self, key: &ObjectKey) -> Option<Arc<DesiredParent>> {
        self.lock().parents.get(key).cloned()
    }

    /// What is wanted of a service.
    pub fn service(&self, key: &ObjectKey) -> Option<Arc<DesiredService>> {
        self.lock().services.get(key).cloned()
    }

    /// Takes what is wanted. `graph` is the whole graph when an edge changed, else `None`.
    pub fn want(&self, changed: Vec<Wanted>, graph: Option<Graph>) {
        let mut inner = self.lock();
        let mut touched = BTreeSet::new();
        let mut settings_changed = false;
        let mut running: Vec<ObjectKey> = Vec::new();
        for wanted in changed {
            match wanted {
                Wanted::Job(key, standing) => {
                    // In the same moment as what is wanted: nobody may start on the success of an input that is not the present one.
                    if standing.gates == Gates::Running {
                        running.push(key.clone());
                    }
                    inner.jobs.insert(key.clone(), standing);
                    touched.insert(key);
                }
                Wanted::Service(service) => {
                    let key = service.key.clone();
                    let old = inner.services.insert(key.clone(), service.clone());
                    if old
                        .as_ref()
                        .is_some_and(|o| o.form != service.form || o.dependencies != service.dependencies || o.rollout != service.rollout)
                    {
                        // A changed input frees what was spent and what stood in the way.
                        inner.exits.remove(&key);
                        inner.troubles.remove(&key);
                    }
                    settings_changed |=
                        old.is_none_or(|o| o.unknown_grace_ms != service.unknown_grace_ms || o.critical != service.critical);
                    touched.insert(key);
                }
                Wanted::Network(network) => {
                    touched.extend(inner.users_of_network(&network.key));
                    touched.insert(network.key.clone());
                    inner.nets.insert(network.key.clone(), network);
                }
                Wanted::Parent(parent) => {
                    let old = inner.parents.insert(parent.key.clone(), parent.clone());
                    settings_changed |= old.is_none_or(|old| old.rollup != parent.rollup);
                    touched.insert(parent.key.clone());
                }
                Wanted::Gone(key) => {
                    touched.extend(inner.needed_by(&key));
                    inner.services.remove(&key);
                    inner.nets.remove(&key);
                    inner.parents.remove(&key);
                    inner.troubles.remove(&key);
                    inner.jobs.remove(&key);
                    inner.exits.remove(&key);
                    inner.external_health.remove(&key);
                    inner.unasked.remove(&key);
                    inner.last_ended.remove(&key);
                    inner.reports.remove(&key);
                    touched.extend(inner.users_of_network(&key));
                    touched.insert(key);
                }
            }
        }
        if let Some(graph) = graph {
            inner.graph = Arc::new(graph);
            settings_changed = true;
        }
        if settings_changed {
            let graph = inner.graph.clone();
            let Inner { engine, services, parents, .. } = &mut *inner;
            let settings = |key: &ObjectKey| {
                let service = services.get(key);
                Settings {
                    grace_ms: service.map_or(30_000, |s| s.unknown_grace_ms),
                    critical: service.is_some_and(|s| s.critical),
                    rollup: parents.get(key).map(|parent| parent.rollup),
                }
            };
            touched.extend(engine.set_graph(&graph, &settings, self.clock.now()));
        }
        // Of nodes that are new too.
        for key in running {
            touched.extend(inner.engine.set_changing(&key, true, self.clock.now()));
        }
        inner.version += 1;
        self.settle(inner, touched);
    }

    /// What the store last recorded of nodes that this process has not observed yet.
    pub fn seed(&self, recorded: impl IntoIterator<Item = Seed>) {
        let mut inner = self.lock();
        let now = self.clock.now();
        let mut touched = BTreeSet::new();
        for Seed { key, availability, since, epoch } in recorded {
            if let Some(epoch) = epoch {
                let down = match (epoch.lost, epoch.changing) {
                    (true, _) => Some(DownCause::Failed),
                    _ if planted(Mutant::StartReloads) => Some(DownCause::Failed),
                    (false, true) => Some(DownCause::Changing),
                    (false, false) => None,
                };
                let counted = Epoch { losses_ended: epoch.losses_ended, changes_ended: epoch.changes_ended };
                touched.extend(inner.engine.set_changing(&key, epoch.changing, now));
                touched.extend(inner.engine.remember(&key, Remembered { epoch: counted, down, since }, now));
            }
            if let Some((availability, reason)) = availability {
                touched.extend(inner.engine.seed(&key, availability, reason, since, now));
            }
        }
        self.settle(inner, touched);
    }

    /// What the store remembers of containers that are still the same: when they were first found healthy.
    pub fn seed_healthy(&self, remembered: impl IntoIterator<Item = (Name, Option<Timestamp>, Timestamp)>) {
        self.lock().healthy_before.extend(remembered.into_iter().map(|(id, start, since)| (id, (start, since))));
    }

    /// Takes the result of a probe. It is dropped when the container was restarted since the probe began.
    pub fn put_health(&self, key: &ObjectKey, container: Option<(&Name, Option<Timestamp>)>, health: Health) {
        let mut inner = self.lock();
        match container {
            None => {
                inner.unasked.remove(key);
                inner.external_health.insert(key.clone(), health);
            }
            Some((id, started_at)) => {
                let is_current = inner.containers.get(id).is_some_and(|c| c.started_at == started_at);
                let health = match (health, inner.healthy_before.get(id)) {
                    (Health::Healthy { .. }, Some((start, since))) if *start == started_at => Health::Healthy { since: *since },
                    (health, _) => health,
                };
                if !is_current || inner.health.get(id) == Some(&health) {
                    return;
                }
                inner.health.insert(id.clone(), health);
            }
        }
        self.settle(inner, BTreeSet::from([key.clone()]));
    }

    /// An external service cannot be asked: what was known of it counts for its grace, and is unknown afterwards.
    pub(crate) fn put_unasked(&self, key: &ObjectKey, why: String) {
        let mut inner = self.lock();
        if inner.unasked.insert(key.clone(), why.clone()).is_none_or(|before| before != why) {
            self.settle(inner, BTreeSet::from([key.clone()]));
        }
    }

    /// Records what stands in a service's way, or that nothing does any more.
    pub fn set_trouble(&self, key: &ObjectKey, trouble: Option<Trouble>) {
        let mut inner = self.lock();
        let same = inner.troubles.get(key) == trouble.as_ref();
        if same {
            return;
        }
        match trouble {
            Some(trouble) => inner.troubles.insert(key.clone(), trouble),
            None => inner.troubles.remove(key),
        };
        self.settle_without_pass(inner, BTreeSet::from([key.clone()]), key);
    }

    /// Records how a job stands.
    pub fn set_job(&self, key: &ObjectKey, standing: Standing) {
        let mut inner = self.lock();
        if inner.jobs.get(key) == Some(&standing) {
            return;
        }
        // In one moment: a run that is meant is no failure of the job.
        let mut touched = BTreeSet::from([key.clone()]);
        if standing.gates == Gates::Running {
            touched.extend(inner.engine.set_changing(key, true, self.clock.now()));
        }
        inner.jobs.insert(key.clone(), standing);
        self.settle_without_pass(inner, touched, key);
    }

    /// How a job stands.
    pub fn job(&self, key: &ObjectKey) -> Option<Standing> {
        self.lock().jobs.get(key).cloned()
    }

    /// What stands in a service's way.
    pub fn trouble(&self, key: &ObjectKey) -> Option<Trouble> {
        self.lock().troubles.get(key).cloned()
    }

    /// Takes what persons have blocked.
    pub(crate) fn set_blocked(&self, blocked: BTreeMap<ObjectKey, Blocked>) {
        let mut inner = self.lock();
        if inner.blocked == blocked {
            return;
        }
        let touched: BTreeSet<ObjectKey> = inner.blocked.keys().chain(blocked.keys()).cloned().collect();
        inner.blocked = blocked;
        self.settle(inner, touched);
    }

    /// Keeps what an app says of a part of it.
    pub(crate) fn with_report(&self, key: &ObjectKey, said: Said) {
        let mut inner = self.lock();
        let is_news =
            inner.reports.get(key).is_none_or(|old| old.report != said.report || old.blocked_operations != said.blocked_operations);
        inner.reports.insert(key.clone(), said);
        if is_news {
            inner.version += 1;
            let version = inner.version;
            self.settle(inner, BTreeSet::from([key.clone()]));
            self.publish(version);
        }
    }

    /// Says that a planned change is under way at a service, or that it is not any more; gives whether that is news.
    pub fn set_changing(&self, key: &ObjectKey, changing: bool) -> bool {
        let mut inner = self.lock();
        if inner.engine.is_changing(key) == changing {
            return false;
        }
        let changed = inner.engine.set_changing(key, changing, self.clock.now());
        self.settle_without_pass(inner, changed.into_iter().collect(), key);
        true
    }

    /// The containers of a service.
    pub(crate) fn containers_of(&self, key: &ObjectKey) -> Vec<Arc<Container>> {
        self.lock().containers_of(key)
    }

    /// From when on nobody has met an older revision of a service that is rolled out: when the last container of it ended.
    pub(crate) fn alone_since(&self, key: &ObjectKey) -> Option<Timestamp> {
        self.lock().last_ended.get(key).copied()
    }

    /// Whether the engine cannot be seen.
    pub(crate) fn is_gap(&self) -> bool {
        self.lock().engine_gap().is_some()
    }

    /// Forgets spent budgets and troubles.
    pub fn forgive(&self, key: &ObjectKey) {
        let mut inner = self.lock();
        inner.exits.remove(key);
        inner.troubles.remove(key);
        self.settle(inner, BTreeSet::from([key.clone()]));
    }

    /// Lets time pass: graces of the availability engine end.
    pub fn advance(&self) {
        let mut inner = self.lock();
        let now = self.clock.now();
        let mut changed: BTreeSet<ObjectKey> = inner.engine.advance(now).into_iter().collect();
        let is_over = |blocked: &Blocked| blocked.until_ms.is_some_and(|until| until <= now.mono_ms);
        changed.extend(inner.blocked.extract_if(.., |_, blocked| is_over(blocked)).map(|(key, _)| key));
        for (key, said) in &mut inner.reports {
            if said.silent_at_ms <= now.mono_ms && !matches!(said.report, Report::Silent { .. }) {
                said.report = Report::Silent { patience_ms: said.patience_ms };
                changed.insert(key.clone());
            }
        }
        self.settle(inner, changed);
    }

    /// Waits until [`World::advance`] has something to do.
    pub async fn deadline(&self) {
        loop {
            let next = self.lock().next_deadline_ms();
            match next {
                None => self.deadline_wake.notified().await,
                Some(at) => {
                    let sleep = tokio::time::sleep_until(self.clock.instant(at));
                    tokio::select! {
                        biased;
                        () = self.deadline_wake.notified() => {}
                        () = sleep => return,
                    }
                }
            }
        }
    }

    /// After a change of the services in `touched`: own health, availability, and the queue.
    fn settle(&self, inner: MutexGuard<'_, Inner>, touched: BTreeSet<ObjectKey>) {
        self.settle_and_queue(inner, touched, None);
    }

    /// As [`World::settle`], but a pass of `key` itself is not wanted: it is the one that brought the change.
    fn settle_without_pass(&self, inner: MutexGuard<'_, Inner>, touched: BTreeSet<ObjectKey>, key: &ObjectKey) {
        self.settle_and_queue(inner, touched, Some(key));
    }

    fn settle_and_queue(&self, mut inner: MutexGuard<'_, Inner>, touched: BTreeSet<ObjectKey>, except: Option<&ObjectKey>) {
        let now = self.clock.now();
        let mut queue = touched.clone();
        let mut changed: BTreeSet<ObjectKey> = BTreeSet::new();
        for key in &touched {
            let Some(desired) = inner.services.get(key).cloned() else { continue };
            let view = inner.service_view(&desired, &BTreeSet::new());
            let own = match inner.blocked.get(key).filter(|_| desired.off.is_none()) {
                Some(blocked) => Own::seen(Availability::TemporarilyUnavailable, Reason::BlockedByPerson, blocked.words.clone()),
                None => own_health(&desired, &view, inner.troubles.get(key)),
            };
            changed.extend(inner.engine.observe(key, own, now));
        }
        let after = inner.engine.snapshot();
        let before = std::mem::replace(&mut inner.snapshot, after);
        // What time alone changed, or the word that a change is under way, was changed before this was called.
        changed.extend(touched.iter().filter(|key| before.get(key) != inner.snapshot.get(key)).cloned());
        if before.version() != inner.snapshot.version() {
            inner.version += 1;
        }
        let version = inner.version;
        for key in &changed {
            // An edge that gates the start without counting afterwards changes no view of the dependent.
            queue.extend(inner.graph.dependents(key).iter().cloned());
        }
        queue.extend(changed.iter().cloned());
        let has_deadline = inner.next_deadline_ms().is_some();
        drop(inner);
        for key in queue.iter().filter(|key| Some(*key) != except) {
            self.queue.add(key);
        }
        self.publish(version);
        let dirty: BTreeSet<ObjectKey> = touched.iter().chain(&changed).cloned().collect();
        self.mark_status(dirty);
        if !touched.is_empty() {
            self.probe_dirty.lock().unwrap_or_else(PoisonError::into_inner).extend(touched);
            self.probe_wake.notify_one();
        }
        if has_deadline {
            self.deadline_wake.notify_one();
        }
    }

    /// Everything that is wanted, as far as it was told.
    pub(crate) fn known(&self) -> BTreeSet<ObjectKey> {
        let inner = self.lock();
        inner.services.keys().chain(inner.nets.keys()).chain(inner.parents.keys()).cloned().collect()
    }

    /// Wants the status of these objects written.
    pub fn mark_status(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        self.status_dirty.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
        self.status_wake.notify_one();
    }

    /// Waits for objects whose status may have changed.
    pub(crate) async fn next_status_batch(&self) -> BTreeSet<ObjectKey> {
        Self::next_batch(&self.status_dirty, &self.status_wake).await
    }

    /// Waits for services whose probes may have to change.
    pub(crate) async fn next_probe_batch(&self) -> BTreeSet<ObjectKey> {
        Self::next_batch(&self.probe_dirty, &self.probe_wake).await
    }

    async fn next_batch(set: &Mutex<BTreeSet<ObjectKey>>, wake: &Notify) -> BTreeSet<ObjectKey> {
        loop {
            let batch = std::mem::take(&mut *set.lock().unwrap_or_else(PoisonError::into_inner));
            if !batch.is_empty() {
                return batch;
            }
            wake.notified().await;
        }
    }

    /// The brake of a service: starts of one of its replicas that failed lately, against its own budget.
    pub(crate) fn spent_starts(&self, key: &ObjectKey, budget: Budget) -> Option<(Timestamp, String)> {
        let inner = self.lock();
        let now = self.clock.wall();
        let spent = inner.exits.get(key)?.values().filter_map(|of_slot| of_slot.is_spent(budget, now));
        spent.max().map(|(until, evidence)| (until, evidence.to_owned()))
    }
}

/// What the store last recorded of a service.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Which.
    pub key: ObjectKey,
    /// Its availability and why, unless it was off.
    pub availability: Option<(qm_api::availability::Availability, Reason)>,
    /// Since when.
    pub since: Timestamp,
    /// What was counted of it.
    pub epoch: Option<EpochRecord>,
}

/// That a person has blocked a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// Who, and why.
    pub words: String,
    /// When it ends by itself, in monotonic milliseconds.
    pub until_ms: Option<u64>,
}

/// A change of what is wanted.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// A job stands so by its record, with what is wanted of it now.
    Job(ObjectKey, Standing),
    /// A service is wanted so.
    Service(Arc<DesiredService>),
    /// A network is wanted so.
    Network(Arc<DesiredNetwork>),
    /// A mini container is wanted so.
    Parent(Arc<DesiredParent>),
    /// An object is gone.
    Gone(ObjectKey),
}
