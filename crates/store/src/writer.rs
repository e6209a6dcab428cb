//! Owns the one writer: it puts all transactions in order, gives them to the backend in groups, and publishes what the backend took.
//!
//! A group runs on a copy of the state (copies are cheap, they share everything). Only when the backend has taken the group's records
//! does the copy become the state; otherwise it is dropped, every request of the group fails, and the records it touched are *in doubt*:
//! the backend may or may not hold them. They are written again, as they are in memory, before or with whatever is accepted next.
//! Must never publish what the backend did not take, nor answer before it published.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use imbl::OrdMap;
use qm_api::meta::{Object, ObjectKey};
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::backend::{Backend, BackendError, Flush, Write};
use crate::error::StoreError;
use crate::lease::{self, Lease, LeaseError, LeaseRequest, LeaseState, Recorded};
use crate::record::{self, RecordKey};
use crate::snapshot::Snapshot;
use crate::tx::{self, Committed, Durability, Operation};
use crate::watch::{Batch, Shared};

/// How many resource versions one record on disk reserves.
const VERSION_BLOCK: u64 = 1_000;
/// How many waiting requests one backend batch may take.
const MOST_IN_GROUP: usize = 256;

/// Everything the store remembers. Cloning shares all of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct State {
    pub(crate) objects: OrdMap<ObjectKey, Arc<Object>>,
    pub(crate) leases: OrdMap<Name, LeaseState>,
    /// The last resource version given out.
    pub(crate) version: u64,
    /// The highest resource version reserved on disk.
    pub(crate) ceiling: u64,
    /// The last fencing token given out.
    pub(crate) fence: u64,
}

impl State {
    pub(crate) fn next_version(&mut self) -> u64 {
        if self.version >= self.ceiling {
            self.ceiling = self.version + VERSION_BLOCK;
        }
        self.version += 1;
        self.version
    }

    pub(crate) fn current_token(&self, lease: &Name) -> Option<u64> {
        self.leases.get(lease).map(|lease| lease.record.token)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot { objects: self.objects.clone(), resource_version: self.version, fence: self.fence, leases: self.leases.clone() }
    }

    /// The value that a record has to have.
    fn record(&self, key: &RecordKey) -> Option<Vec<u8>> {
        match key {
            RecordKey::Format => Some(record::encode_number(record::FORMAT_VERSION)),
            RecordKey::Ceiling => Some(record::encode_number(self.ceiling)),
            RecordKey::Fence => Some(record::encode_number(self.fence)),
            RecordKey::Lease(name) => self.leases.get(name).map(|lease| record::encode_lease(&lease.record)),
            RecordKey::Object(key) => self.objects.get(key).map(|object| record::encode_object(object)),
        }
    }
}

/// What the writer is asked for. A requester that has gone away is no reason to take a request back.
#[derive(Debug)]
pub(crate) enum Request {
    Commit { operations: Vec<Operation>, durability: Durability, reply: oneshot::Sender<Result<Committed, StoreError>> },
    Lease { name: Name, request: LeaseRequest, reply: oneshot::Sender<Result<Lease, LeaseError>> },
    Sync { reply: oneshot::Sender<Result<(), StoreError>> },
}

/// A decided request that waits for the backend.
enum Answer {
    Commit(oneshot::Sender<Result<Committed, StoreError>>, Result<Committed, StoreError>),
    Lease(oneshot::Sender<Result<Lease, LeaseError>>, Result<Lease, LeaseError>),
    Sync(oneshot::Sender<Result<(), StoreError>>),
}

impl Answer {
    fn send(self) {
        // A requester that has gone away does not want its answer.
        match self {
            Self::Commit(reply, result) => drop(reply.send(result)),
            Self::Lease(reply, result) => drop(reply.send(result)),
            Self::Sync(reply) => drop(reply.send(Ok(()))),
        }
    }

    fn fail(self, error: &BackendError) {
        let error = StoreError::Backend(error.clone());
        match self {
            Self::Commit(reply, _) => drop(reply.send(Err(error))),
            Self::Lease(reply, _) => drop(reply.send(Err(error.into()))),
            Self::Sync(reply) => drop(reply.send(Err(error))),
        }
    }
}

/// A group on its way: the state it leads to, the records it touches, what watchers will see.
struct Draft {
    state: State,
    touched: BTreeSet<RecordKey>,
    batches: Vec<Arc<Batch>>,
    durability: Durability,
    /// Snapshots show leases too.
    leases: Recorded,
}

impl Draft {
    fn run(&mut self, request: Request) -> Answer {
        match request {
            Request::Commit { operations, durability, reply } => Answer::Commit(reply, self.commit(operations, durability)),
            Request::Lease { name, request, reply } => Answer::Lease(reply, self.lease(name, request)),
            Request::Sync { reply } => {
                self.durability = Durability::Durable;
                Answer::Sync(reply)
            }
        }
    }

    fn commit(&mut self, operations: Vec<Operation>, durability: Durability) -> Result<Committed, StoreError> {
        let mut state = self.state.clone();
        let (outcomes, changes) = tx::run(operations, &mut state)?;
        self.state = state;
        if durability == Durability::Durable {
            self.durability = durability;
        }
        self.touched.extend(changes.iter().map(|change| RecordKey::Object(change.object.key.clone())));
        let resource_version = self.state.version;
        if !changes.is_empty() {
            self.batches.push(Arc::new(Batch { resource_version, changes }));
        }
        Ok(Committed { resource_version, outcomes })
    }

    fn lease(&mut self, name: Name, request: LeaseRequest) -> Result<Lease, LeaseError> {
        let (result, recorded) = lease::run(&name, request, &mut self.state);
        if recorded == Recorded::Changed {
            self.touched.insert(RecordKey::Lease(name));
            self.leases = recorded;
            self.durability = Durability::Durable;
        }
        result
    }
}

/// The writer's own state.
pub(crate) struct Writer {
    backend: Box<dyn Backend>,
    state: State,
    shared: Arc<Shared>,
    sync_every: Duration,
    /// When the backend must be flushed at the latest; `None` when all is on disk.
    flush_at: Option<Instant>,
    /// Records whose value in the backend is not known, after a failure.
    in_doubt: BTreeSet<RecordKey>,
    /// The last flush failed: nothing more is accepted on trust.
    failing: bool,
}

impl Writer {
    pub(crate) fn new(backend: Box<dyn Backend>, state: State, shared: Arc<Shared>, sync_every: Duration) -> Self {
        Self { backend, state, shared, sync_every, flush_at: None, in_doubt: BTreeSet::new(), failing: false }
    }

    /// Serves requests until the last requester has gone, then flushes once more.
    pub(crate) fn serve(mut self, requests: &Receiver<Request>) {
        loop {
            let first = match self.flush_at {
                None => requests.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => requests.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match first {
                Ok(first) => {
                    let mut group = vec![first];
                    group.extend(requests.try_iter().take(MOST_IN_GROUP - 1));
                    self.process(group);
                }
                Err(RecvTimeoutError::Timeout) => self.flush(),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if self.flush_at.is_some() {
            self.flush();
        }
    }

    /// Decides a group of requests in their order, stores it as one batch, publishes it, and answers.
    pub(crate) fn process(&mut self, group: Vec<Request>) {
        let mut draft = Draft {
            state: self.state.clone(),
            touched: BTreeSet::new(),
            batches: Vec::new(),
            durability: Durability::Soon,
            leases: Recorded::AsBefore,
        };
        let answers: Vec<Answer> = group.into_iter().map(|request| draft.run(request)).collect();
        match self.store(&mut draft) {
            Ok(()) => {
                self.state = draft.state;
                if !draft.batches.is_empty() || draft.leases == Recorded::Changed || self.state.fence != self.shared.fence() {
                    self.shared.publish(self.state.snapshot(), draft.batches);
                }
                answers.into_iter().for_each(Answer::send);
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, requests = answers.len(), "the store refused a group of requests");
                self.settle();
                answers.into_iter().for_each(|answer| answer.fail(&error));
            }
        }
    }

    fn store(&mut self, draft: &mut Draft) -> Result<(), BackendError> {
        let (state, durability) = (&draft.state, draft.durability);
        let raised = state.ceiling != self.state.ceiling && !planted(Mutant::VersionGoesBack);
        if raised {
            draft.touched.insert(RecordKey::Ceiling);
        }
        if state.fence != self.state.fence && !planted(Mutant::FenceGoesBack) {
            draft.touched.insert(RecordKey::Fence);
        }
        let idle = draft.touched.is_empty() && self.in_doubt.is_empty();
        let wanted = durability == Durability::Durable || raised || self.failing || !self.in_doubt.is_empty() || self.overdue();
        let flush = if wanted { Flush::Now } else { Flush::Later };
        if idle && (flush == Flush::Later || self.flush_at.is_none()) {
            return Ok(());
        }
        draft.touched.append(&mut self.in_doubt);
        let result = self.backend.apply(&writes(&draft.state, &draft.touched), flush);
        if result.is_err() {
            self.in_doubt = std::mem::take(&mut draft.touched);
        }
        self.note(flush, result.is_ok());
        result
    }

    /// Flushes what was accepted, and settles what is in doubt.
    pub(crate) fn flush(&mut self) {
        if let Err(error) = self.try_settle() {
            tracing::warn!(error = &error as &dyn std::error::Error, "the store could not be flushed; it will be tried again");
        }
    }

    /// After a refusal: makes the backend agree with memory again, if it lets us.
    fn settle(&mut self) {
        if self.try_settle().is_ok() {
            tracing::info!("the store undid on disk what it had refused");
        }
    }

    fn try_settle(&mut self) -> Result<(), BackendError> {
        let result = self.backend.apply(&writes(&self.state, &self.in_doubt), Flush::Now);
        if result.is_ok() {
            self.in_doubt.clear();
        }
        self.note(Flush::Now, result.is_ok());
        result
    }

    fn note(&mut self, flush: Flush, ok: bool) {
        match (flush, ok) {
            (Flush::Now, true) => {
                self.flush_at = None;
                self.failing = false;
            }
            (Flush::Later, true) => {
                self.flush_at.get_or_insert_with(|| Instant::now() + self.sync_every);
            }
            (_, false) => {
                self.flush_at = Some(Instant::now() + self.sync_every);
                self.failing = true;
            }
        }
    }

    fn overdue(&self) -> bool {
        self.flush_at.is_some_and(|at| at <= Instant::now())
    }
}

fn writes(state: &State, touched: &BTreeSet<RecordKey>) -> Vec<Write> {
    touched.iter().map(|key| Write { key: key.encode(), value: state.record(key) }).collect()
}

/// The records of a store that has none.
pub(crate) fn first_records(state: &State) -> Vec<Write> {
    writes(state, &BTreeSet::from([RecordKey::Format, RecordKey::Ceiling, RecordKey::Fence]))
}

/// The records of a whole state, for a store that is filled at once.
pub(crate) fn all_records(state: &State) -> Vec<Write> {
    let mut writes = first_records(state);
    let objects = state.objects.values();
    writes.extend(
        objects.map(|object| Write { key: RecordKey::Object(object.key.clone()).encode(), value: Some(record::encode_object(object)) }),
    );
    writes
}
