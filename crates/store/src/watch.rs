//! Owns the change log and [`Watch`], a cursor on it.
//!
//! There is one bounded log for everybody and no queue for anyone: a watcher that falls behind the log gets [`Expired`] and lists again.
//! Watchers are woken in the order in which they began to wait, so that a run can be repeated.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use qm_api::meta::Object;
use tokio::sync::Notify;

use crate::snapshot::Snapshot;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was made or changed.
    Put,
    /// It was removed.
    Delete,
}

/// One change of one object.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// What happened.
    pub kind: ChangeKind,
    /// The object after the change; for a removal its last state, with the version of the removal.
    pub object: Arc<Object>,
    /// The object before the change, if there was one: enough to tell whether it entered or left a selection.
    pub previous: Option<Arc<Object>>,
}

/// All changes of one transaction, in order. Watchers mark what is dirty and start work at its end, never in between.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The version of the last change in it: where a watcher goes on.
    pub resource_version: u64,
    /// At least one change.
    pub changes: Vec<Change>,
}

/// The log does not reach back, or not yet forward, to the wanted version: list, then watch from the version of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes after version {after} are not known here: the log covers versions {oldest} to {newest}")]
pub struct Expired {
    /// The version after which changes were asked for.
    pub after: u64,
    /// The oldest version from which the log is complete.
    pub oldest: u64,
    /// The newest version.
    pub newest: u64,
}

/// The published state: what readers see, changed only by the writer and only as a whole.
#[derive(Debug)]
pub(crate) struct Shared {
    published: RwLock<Published>,
    changed: Notify,
}

#[derive(Debug)]
struct Published {
    snapshot: Snapshot,
    log: Log,
}

#[derive(Debug)]
struct Log {
    batches: VecDeque<Arc<Batch>>,
    /// Every change with a greater version is in `batches`.
    complete_after: u64,
    most_batches: usize,
}

impl Shared {
    pub(crate) fn new(snapshot: Snapshot, most_batches: usize) -> Self {
        let log = Log { batches: VecDeque::new(), complete_after: snapshot.resource_version, most_batches: most_batches.max(1) };
        Self { published: RwLock::new(Published { snapshot, log }), changed: Notify::new() }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        self.read().snapshot.clone()
    }

    pub(crate) fn resource_version(&self) -> u64 {
        self.read().snapshot.resource_version
    }

    pub(crate) fn fence(&self) -> u64 {
        self.read().snapshot.fence
    }

    /// Makes committed transactions visible, all at once.
    pub(crate) fn publish(&self, snapshot: Snapshot, batches: Vec<Arc<Batch>>) {
        let mut published = self.write();
        published.snapshot = snapshot;
        for batch in batches {
            published.log.push(batch);
        }
        drop(published);
        self.changed.notify_waiters();
    }

    pub(crate) fn watch(self: &Arc<Self>, after: u64) -> Result<Watch, Expired> {
        self.read().check(after)?;
        Ok(Watch { shared: Arc::clone(self), after })
    }

    fn next(&self, after: u64) -> Result<Option<Arc<Batch>>, Expired> {
        let published = self.read();
        published.check(after)?;
        Ok(published.log.first_after(after))
    }

    // A panic cannot leave the published state half changed: it is replaced, not edited.
    fn read(&self) -> RwLockReadGuard<'_, Published> {
        self.published.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Published> {
        self.published.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Published {
    fn check(&self, after: u64) -> Result<(), Expired> {
        let (oldest, newest) = (self.log.complete_after, self.snapshot.resource_version);
        if (oldest..=newest).contains(&after) { Ok(()) } else { Err(Expired { after, oldest, newest }) }
    }
}

impl Log {
    fn push(&mut self, batch: Arc<Batch>) {
        if self.batches.len() == self.most_batches
            && let Some(oldest) = self.batches.pop_front()
        {
            self.complete_after = oldest.resource_version;
        }
        self.batches.push_back(batch);
    }

    fn first_after(&self, after: u64) -> Option<Arc<Batch>> {
        let batch = self.batches.get(self.batches.partition_point(|batch| batch.resource_version <= after))?;
        let seen = batch.changes.partition_point(|change| change.object.meta.resource_version <= after);
        match seen {
            0 => Some(Arc::clone(batch)),
            // The cursor is the version of an object from the middle of a transaction.
            _ => Some(Arc::new(Batch { resource_version: batch.resource_version, changes: batch.changes[seen..].to_vec() })),
        }
    }
}

/// A cursor on the change log.
#[derive(Clone, Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    after: u64,
}

impl Watch {
    /// The version after which this watch goes on.
    pub fn resource_version(&self) -> u64 {
        self.after
    }

    /// The next transaction's changes, waiting for them if there are none yet. Dropping the future loses nothing. It never ends by
    /// itself: who shuts down drops it.
    ///
    /// # Errors
    /// When this watcher fell behind the log.
    pub async fn next(&mut self) -> Result<Arc<Batch>, Expired> {
        loop {
            let mut changed = pin!(self.shared.changed.notified());
            // Registered before the log is read, so that no commit can slip between the two.
            changed.as_mut().enable();
            if let Some(batch) = self.shared.next(self.after)? {
                self.after = batch.resource_version;
                return Ok(batch);
            }
            changed.await;
        }
    }

    /// The next transaction's changes if there are any now.
    ///
    /// # Errors
    /// When this watcher fell behind the log.
    pub fn try_next(&mut self) -> Result<Option<Arc<Batch>>, Expired> {
        let next = self.shared.next(self.after)?;
        if let Some(batch) = &next {
            self.after = batch.resource_version;
        }
        Ok(next)
    }
}
