//! Owns [`Tx`] and the rules of one transaction: what each operation checks, what it changes, and which version it gets.
//!
//! A transaction is a buffer of operations; they run one after another on a private copy of the state when it is its turn, and each sees
//! what the ones before it did. Must never touch a backend: that is the writer's.

use std::sync::Arc;

use qm_api::meta::{Meta, Object, ObjectKey};
use qm_api::mutant::{Mutant, planted};
use qm_api::name::Name;
use qm_api::time::Timestamp;
use serde_json::Value;

use crate::error::StoreError;
use crate::record;
use crate::store::Store;
use crate::watch::{Change, ChangeKind};
use crate::writer::State;

/// When a transaction is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the answer.
    Durable,
    /// At least once a second; it is visible at once.
    Soon,
}

/// What must hold for a deletion; what is `None` is not asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Precondition {
    /// The object is still the one with this uid.
    pub uid: Option<Name>,
    /// The object did not change since this version.
    pub resource_version: Option<u64>,
}

impl Precondition {
    /// The object is still the one that was read, unchanged.
    pub fn unchanged(object: &Object) -> Self {
        Self { uid: Some(object.meta.uid.clone()), resource_version: Some(object.meta.resource_version) }
    }
}

/// What one operation did.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The object was made or changed; this is its new state. A deletion that waits for finalizers is a change too.
    Written(Arc<Object>),
    /// Nothing differed: no new version and no event.
    Unchanged(Arc<Object>),
    /// The object is gone; this is its last state, with the version of the removal.
    Removed(Arc<Object>),
}

impl Outcome {
    /// The object as the operation left it.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Self::Written(object) | Self::Unchanged(object) | Self::Removed(object) => object,
        }
    }
}

/// The answer to an accepted transaction.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// The version of its last change; the store's current version if nothing changed.
    pub resource_version: u64,
    /// What each operation did, in their order. Fences have no outcome.
    pub outcomes: Vec<Outcome>,
}

#[derive(Clone, Debug)]
pub(crate) enum Operation {
    Create(Object),
    Put(Object),
    PutStatus { key: ObjectKey, expected: Option<u64>, status: Arc<Value> },
    Delete { key: ObjectKey, precondition: Precondition, now: Timestamp },
    Fence { lease: Name, token: u64 },
}

/// A transaction being put together. All of it happens, or nothing.
#[must_use = "a transaction does nothing until it is committed"]
#[derive(Debug)]
pub struct Tx {
    store: Store,
    operations: Vec<Operation>,
}

impl Tx {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, operations: Vec::new() }
    }

    /// Makes a new object. Its generation starts at 1; uid and creation time are the caller's.
    pub fn create(&mut self, object: Object) -> &mut Self {
        self.with(Operation::Create(object))
    }

    /// Replaces an object, if it is still at `object.meta.resource_version`. Uid, creation and deletion times stay as they are; the
    /// generation rises by one exactly when the spec differs. Taking the last finalizer from an object that is being deleted removes it.
    pub fn put(&mut self, object: Object) -> &mut Self {
        self.with(Operation::Put(object))
    }

    /// Replaces the status alone; with `expected`, if the object is still at that version.
    pub fn put_status(&mut self, key: ObjectKey, expected: Option<u64>, status: Arc<Value>) -> &mut Self {
        self.with(Operation::PutStatus { key, expected, status })
    }

    /// Removes an object; while it has finalizers it is only marked, once, as being deleted since `now`.
    pub fn delete(&mut self, key: ObjectKey, precondition: Precondition, now: Timestamp) -> &mut Self {
        self.with(Operation::Delete { key, precondition, now })
    }

    /// Makes the whole transaction fail unless `token` is the lease's current one at the moment of the commit.
    pub fn fence(&mut self, lease: &Name, token: u64) -> &mut Self {
        self.with(Operation::Fence { lease: lease.clone(), token })
    }

    /// Commits all operations as one.
    ///
    /// # Errors
    /// The first operation that was refused, or what the backend said; nothing has changed then.
    ///
    /// # Guarantees
    /// Before the answer the changes are in snapshots and watches, and not before the backend took them; with [`Durability::Durable`]
    /// not before they are on disk. Dropping the future does not take back a transaction that was handed over.
    pub async fn commit(self, durability: Durability) -> Result<Committed, StoreError> {
        self.store.commit(self.operations, durability).await
    }

    fn with(&mut self, operation: Operation) -> &mut Self {
        self.operations.push(operation);
        self
    }
}

/// Runs the operations on `state` and lists the changes. On an error `state` is spoilt: the caller throws it away.
pub(crate) fn run(operations: Vec<Operation>, state: &mut State) -> Result<(Vec<Outcome>, Vec<Change>), StoreError> {
    let mut run = Run { state, changes: Vec::new() };
    let mut outcomes = Vec::with_capacity(operations.len());
    for operation in operations {
        outcomes.extend(run.operation(operation)?);
    }
    Ok((outcomes, run.changes))
}

struct Run<'a> {
    state: &'a mut State,
    changes: Vec<Change>,
}

impl Run<'_> {
    fn operation(&mut self, operation: Operation) -> Result<Option<Outcome>, StoreError> {
        match operation {
            Operation::Create(object) => self.create(object).map(Some),
            Operation::Put(object) => self.put(object).map(Some),
            Operation::PutStatus { key, expected, status } => self.put_status(&key, expected, status).map(Some),
            Operation::Delete { key, precondition, now } => self.delete(&key, &precondition, now).map(Some),
            Operation::Fence { lease, token } => self.fence(lease, token).map(|()| None),
        }
    }

    fn create(&mut self, mut object: Object) -> Result<Outcome, StoreError> {
        if !record::is_valid(&object.key) {
            return Err(StoreError::InvalidKey { key: object.key });
        }
        if self.state.objects.contains_key(&object.key) {
            return Err(StoreError::AlreadyExists { key: object.key });
        }
        object.meta.generation = 1;
        object.meta.deletion_timestamp = None;
        Ok(self.write(object, None))
    }

    fn put(&mut self, mut object: Object) -> Result<Outcome, StoreError> {
        let expected = object.meta.resource_version;
        if expected == 0 {
            return Err(StoreError::Unversioned { key: object.key });
        }
        let stored = self.at_version(&object.key, Some(expected))?;
        object.meta = Meta {
            uid: stored.meta.uid.clone(),
            generation: stored.meta.generation,
            creation_timestamp: stored.meta.creation_timestamp,
            deletion_timestamp: stored.meta.deletion_timestamp,
            ..object.meta
        };
        if object.spec == stored.spec {
            object.spec = Arc::clone(&stored.spec);
        } else {
            object.meta.generation += 1;
        }
        if object.status == stored.status {
            object.status = Arc::clone(&stored.status);
        }
        if object == *stored {
            return Ok(Outcome::Unchanged(stored));
        }
        if object.is_deleting() && object.meta.finalizers.is_empty() {
            return Ok(self.remove(object, stored));
        }
        Ok(self.write(object, Some(stored)))
    }

    fn put_status(&mut self, key: &ObjectKey, expected: Option<u64>, status: Arc<Value>) -> Result<Outcome, StoreError> {
        let stored = self.at_version(key, expected)?;
        if stored.status == status {
            return Ok(Outcome::Unchanged(stored));
        }
        Ok(self.write(Object { status, ..Object::clone(&stored) }, Some(stored)))
    }

    fn delete(&mut self, key: &ObjectKey, precondition: &Precondition, now: Timestamp) -> Result<Outcome, StoreError> {
        let stored = self.stored(key)?;
        if let Some(expected) = precondition.uid.as_ref().filter(|uid| **uid != stored.meta.uid) {
            return Err(StoreError::Replaced { key: key.clone(), expected: expected.clone(), actual: stored.meta.uid.clone() });
        }
        let stored = self.at_version(key, precondition.resource_version)?;
        if stored.meta.finalizers.is_empty() {
            return Ok(self.remove(Object::clone(&stored), stored));
        }
        if stored.is_deleting() {
            return Ok(Outcome::Unchanged(stored));
        }
        let mut object = Object::clone(&stored);
        object.meta.deletion_timestamp = Some(now);
        Ok(self.write(object, Some(stored)))
    }

    fn fence(&mut self, lease: Name, token: u64) -> Result<(), StoreError> {
        let current = self.state.current_token(&lease);
        if current == Some(token) || planted(Mutant::LostFence) { Ok(()) } else { Err(StoreError::Fenced { lease, token, current }) }
    }

    fn stored(&self, key: &ObjectKey) -> Result<Arc<Object>, StoreError> {
        self.state.objects.get(key).cloned().ok_or_else(|| StoreError::NotFound { key: key.clone() })
    }

    fn at_version(&self, key: &ObjectKey, expected: Option<u64>) -> Result<Arc<Object>, StoreError> {
        let stored = self.stored(key)?;
        let actual = stored.meta.resource_version;
        match expected.filter(|expected| *expected != actual) {
            Some(expected) => Err(StoreError::Conflict { key: key.clone(), expected, actual }),
            None => Ok(stored),
        }
    }

    fn write(&mut self, mut object: Object, previous: Option<Arc<Object>>) -> Outcome {
        object.meta.resource_version = self.state.next_version();
        let object = Arc::new(object);
        self.state.objects.insert(object.key.clone(), Arc::clone(&object));
        self.changes.push(Change { kind: ChangeKind::Put, object: Arc::clone(&object), previous });
        Outcome::Written(object)
    }

    fn remove(&mut self, mut object: Object, previous: Arc<Object>) -> Outcome {
        object.meta.resource_version = self.state.next_version();
        let object = Arc::new(object);
        self.state.objects.remove(&object.key);
        self.changes.push(Change { kind: ChangeKind::Delete, object: Arc::clone(&object), previous: Some(previous) });
        Outcome::Removed(object)
    }
}
