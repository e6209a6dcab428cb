//! The places a store can be kept in, each of which can be opened again, and short words for what tests do.

use std::path::PathBuf;
use std::sync::Arc;

use qm_api::meta::{Object, ObjectKey};
use qm_api::time::Timestamp;
use qm_store::backend::{Memory, Redb};
use qm_store::{Backend, CommitMode, Committed, Durability, OpenError, Options, Precondition, Store, StoreError, Tx};
use serde_json::{Value, json};

use crate::disk::Disk;

pub(crate) enum Place {
    Memory(Memory),
    Disk(Arc<Disk>),
    File(tempfile::TempDir),
}

impl Place {
    /// One of each.
    pub(crate) fn all() -> Vec<Self> {
        vec![Self::Memory(Memory::new()), Self::Disk(Disk::new()), Self::File(tempfile::tempdir().unwrap())]
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            Self::Disk(_) => "redb over a disk in memory",
            Self::File(_) => "redb in a file",
        }
    }

    pub(crate) fn backend(&self) -> Box<dyn Backend> {
        match self {
            Self::Memory(memory) => Box::new(memory.clone()),
            Self::Disk(disk) => Box::new(Redb::over(Arc::<Disk>::clone(disk))),
            Self::File(directory) => Box::new(Redb::at(file(directory))),
        }
    }

    pub(crate) fn open(&self, commit: CommitMode) -> Store {
        self.try_open(commit).unwrap()
    }

    pub(crate) fn try_open(&self, commit: CommitMode) -> Result<Store, OpenError> {
        Store::open(self.backend(), Options { commit, ..Options::default() })
    }

    /// Loses what was not flushed. A file has no such switch: its store loses its own buffer when an inline store is dropped.
    pub(crate) fn crash(&self) {
        match self {
            Self::Memory(memory) => memory.forget_unsynced(),
            Self::Disk(disk) => disk.crash(),
            Self::File(_) => {}
        }
    }
}

pub(crate) fn file(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("store.redb")
}

/// Every place in both modes.
pub(crate) fn everywhere() -> Vec<(Place, CommitMode)> {
    [CommitMode::Inline, CommitMode::Thread].into_iter().flat_map(|mode| Place::all().into_iter().map(move |place| (place, mode))).collect()
}

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

pub(crate) fn key(name: &str) -> ObjectKey {
    ObjectKey::new("MiniService", "shop", name)
}

pub(crate) fn object(name: &str, spec: Value) -> Object {
    Object::new(key(name), format!("uid-{name}"), NOW, spec)
}

pub(crate) async fn commit(store: &Store, durability: Durability, fill: impl FnOnce(&mut Tx) -> &mut Tx) -> Result<Committed, StoreError> {
    let mut tx = store.tx();
    fill(&mut tx);
    tx.commit(durability).await
}

pub(crate) async fn durable(store: &Store, fill: impl FnOnce(&mut Tx) -> &mut Tx) -> Result<Committed, StoreError> {
    commit(store, Durability::Durable, fill).await
}

pub(crate) async fn create(store: &Store, name: &str) -> Arc<Object> {
    let committed = durable(store, |tx| tx.create(object(name, json!({"image": name})))).await.unwrap();
    Arc::clone(committed.outcomes[0].object())
}

pub(crate) fn regardless() -> Precondition {
    Precondition::default()
}

pub(crate) fn contents(store: &Store) -> Vec<Arc<Object>> {
    store.snapshot().iter().cloned().collect()
}
