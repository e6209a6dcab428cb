//! Owns [`Store`], the handle that everybody has: reads go to the published state, changes go to the one writer.

use std::fmt;
use std::io;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use qm_api::name::Name;
use tokio::sync::oneshot;

use crate::backend::{Backend, Flush};
use crate::backup::Backup;
use crate::error::{OpenError, StoreError};
use crate::lease::{Lease, LeaseError, LeaseRequest, LeaseState, Leases};
use crate::migrate;
use crate::record::Contents;
use crate::snapshot::Snapshot;
use crate::tx::{Committed, Durability, Operation, Tx};
use crate::watch::{Expired, Shared, Watch};
use crate::writer::{self, Request, State, Writer};

/// Where commits run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitMode {
    /// On a thread of the store's own, which puts waiting transactions into one backend batch and flushes by itself. Dropping the last
    /// handle waits for that thread and a last flush.
    Thread,
    /// On the caller's thread, before `commit` first yields: for simulation. What may wait is flushed by the first commit after
    /// [`Options::sync_every`], or by [`Store::sync`]; dropping the last handle flushes nothing, as in a crash.
    Inline,
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where commits run.
    pub commit: CommitMode,
    /// How many transactions the change log keeps for watchers.
    pub log_batches: usize,
    /// How long an accepted change may wait for the disk.
    pub sync_every: Duration,
}

impl Default for Options {
    /// A thread, 8,192 transactions, and a flush early enough that everything is on disk within a second.
    fn default() -> Self {
        Self { commit: CommitMode::Thread, log_batches: 8_192, sync_every: Duration::from_millis(800) }
    }
}

/// The store. Clones are handles on the same one.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    writer: Channel,
}

enum Channel {
    Inline(Mutex<Writer>),
    Thread(WriterThread),
}

/// The two are taken only when the last handle is dropped.
struct WriterThread {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for WriterThread {
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's writer had panicked");
        }
    }
}

/// What a backend holds.
pub(crate) struct Read {
    pub(crate) state: State,
    /// Nothing at all was stored: not even a format version.
    pub(crate) blank: bool,
}

/// Loads, migrates and decodes what `backend` holds; writes nothing but a migration.
pub(crate) fn read(backend: &mut dyn Backend) -> Result<Read, OpenError> {
    let records = backend.load()?;
    if records.is_empty() {
        // Version 0 means "any" to API clients, so that no state may have it.
        return Ok(Read { state: State { version: 1, ceiling: 1, ..State::default() }, blank: true });
    }
    let records = migrate::to_current(backend, records)?;
    let contents = Contents::decode(records).map_err(|detail| OpenError::Damaged { detail })?;
    let state = State {
        objects: contents.objects.into_iter().map(|object| (object.key.clone(), object)).collect(),
        leases: contents.leases.into_iter().map(|(name, record)| (name, LeaseState { record, until: None })).collect(),
        // Any version up to the ceiling may have been given out before a crash.
        version: contents.ceiling,
        ceiling: contents.ceiling,
        fence: contents.fence,
    };
    Ok(Read { state, blank: false })
}

impl Store {
    /// Opens a store and loads all of it; makes a new one where there is none.
    ///
    /// # Errors
    /// When it is newer than this release, damaged, in use, or the backend refuses. Nothing is emptied or overwritten then.
    ///
    /// # Guarantees
    /// Resource versions and fencing tokens go on above every one ever given out, also when a crash lost the changes they stood for.
    pub fn open(mut backend: Box<dyn Backend>, options: Options) -> Result<Self, OpenError> {
        let Read { state, blank } = read(&mut *backend)?;
        if blank {
            backend.apply(&writer::first_records(&state), Flush::Now)?;
        }
        let shared = Arc::new(Shared::new(state.snapshot(), options.log_batches));
        let writer = Writer::new(backend, state, Arc::clone(&shared), options.sync_every);
        let writer = match options.commit {
            CommitMode::Inline => Channel::Inline(Mutex::new(writer)),
            CommitMode::Thread => Channel::Thread(WriterThread::start(writer)?),
        };
        Ok(Self(Arc::new(Inner { shared, writer })))
    }

    /// The state that the last commit left, at constant cost.
    pub fn snapshot(&self) -> Snapshot {
        self.0.shared.snapshot()
    }

    /// The version of the last change.
    pub fn resource_version(&self) -> u64 {
        self.0.shared.resource_version()
    }

    /// Begins a transaction.
    pub fn tx(&self) -> Tx {
        Tx::new(self.clone())
    }

    /// All changes after that version, beginning with those that were made already.
    ///
    /// # Errors
    /// When the log does not reach back to that version, or the version is one this store has not given out.
    pub fn watch(&self, after: u64) -> Result<Watch, Expired> {
        self.0.shared.watch(after)
    }

    /// The leases of this store.
    pub fn leases(&self) -> Leases {
        Leases::new(self.clone())
    }

    /// Puts on disk everything that was accepted before.
    ///
    /// # Errors
    /// What the backend said; it is tried again by itself.
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.ask(|reply| Request::Sync { reply }).await?
    }

    /// Writes a consistent backup; later commits neither wait for it nor get into it.
    ///
    /// # Errors
    /// When `out` refuses.
    ///
    /// # Caveats
    /// Writes on the calling thread: give it a place that does not block, or call it where blocking is fine.
    pub fn backup(&self, out: impl io::Write) -> io::Result<Backup> {
        self.snapshot().write_backup(out)
    }

    pub(crate) async fn commit(&self, operations: Vec<Operation>, durability: Durability) -> Result<Committed, StoreError> {
        self.ask(|reply| Request::Commit { operations, durability, reply }).await?
    }

    pub(crate) async fn lease(&self, name: &Name, request: LeaseRequest) -> Result<Lease, LeaseError> {
        self.ask(|reply| Request::Lease { name: name.clone(), request, reply }).await?
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.writer.hand_over(request(reply))?;
        answer.await.map_err(|_| StoreError::Closed)
    }
}

impl Channel {
    fn hand_over(&self, request: Request) -> Result<(), StoreError> {
        match self {
            Self::Inline(writer) => {
                writer.lock().unwrap_or_else(PoisonError::into_inner).process(vec![request]);
                Ok(())
            }
            Self::Thread(WriterThread { requests, .. }) => {
                requests.as_ref().ok_or(StoreError::Closed)?.send(request).map_err(|_| StoreError::Closed)
            }
        }
    }
}

impl WriterThread {
    fn start(writer: Writer) -> Result<Self, OpenError> {
        let (requests, waiting) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || writer.serve(&waiting))
            .map_err(|error| OpenError::Thread(Arc::new(error)))?;
        Ok(Self { requests: Some(requests), thread: Some(thread) })
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("resource_version", &self.resource_version()).finish_non_exhaustive()
    }
}
