//! Owns [`Memory`], a backend without a disk that can lose what was not flushed, so that a simulation can crash it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, BackendError, Flush, Records, Write};

#[derive(Debug, Default)]
struct Content {
    flushed: BTreeMap<Vec<u8>, Vec<u8>>,
    unsynced: Vec<Write>,
    preserved: Vec<String>,
}

/// A backend in memory. Clones share the same records: keep one to open the store again after a crash.
#[derive(Clone, Debug, Default)]
pub struct Memory(Arc<Mutex<Content>>);

impl Memory {
    /// An empty place.
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses what a crash of the machine would lose: everything accepted since the last flush.
    pub fn forget_unsynced(&self) {
        self.records().unsynced.clear();
    }

    /// The labels under which copies were put aside.
    pub fn preserved(&self) -> Vec<String> {
        self.records().preserved.clone()
    }

    fn records(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn flush(&mut self) {
        for write in std::mem::take(&mut self.unsynced) {
            match write.value {
                Some(value) => self.flushed.insert(write.key, value),
                None => self.flushed.remove(&write.key),
            };
        }
    }
}

impl Backend for Memory {
    /// Reads what a process that starts after another would read: unflushed writes are still there unless they were forgotten.
    fn load(&mut self) -> Result<Records, BackendError> {
        let mut records = self.records();
        records.flush();
        Ok(records.flushed.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn apply(&mut self, writes: &[Write], flush: Flush) -> Result<(), BackendError> {
        let mut records = self.records();
        records.unsynced.extend_from_slice(writes);
        if flush == Flush::Now {
            records.flush();
        }
        Ok(())
    }

    fn preserve(&mut self, label: &str) -> Result<(), BackendError> {
        self.records().preserved.push(label.to_owned());
        Ok(())
    }
}
