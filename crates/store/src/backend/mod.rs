//! Owns [`Backend`], the narrow contract between the store and the place where its bytes are kept, and its two implementations.
//!
//! A backend knows keys and values only: no object, no version, no lease. It must never answer that something is on disk before it is.

use std::sync::Arc;

use crate::error::Retry;

mod memory;
mod redb;

pub use self::memory::Memory;
pub use self::redb::Redb;

/// Records as a backend gives them: keys and values.
pub type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// One record to write: a value to set, or `None` to remove the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key; keys sort as bytes.
    pub key: Vec<u8>,
    /// The value.
    pub value: Option<Vec<u8>>,
}

/// When accepted writes must be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// With the next batch that asks for [`Flush::Now`].
    Later,
    /// Before the answer, with everything accepted earlier.
    Now,
}

/// A place to keep records.
///
/// # Guarantees
/// What every implementation must hold, and what the conformance suite checks:
/// - A batch is stored whole or not at all, and batches are stored in their order.
/// - After `apply(.., Flush::Now)` has answered `Ok`, all accepted batches survive a crash.
/// - After `apply` has failed, all earlier accepted batches are still there; whether the failed one is, is unknown. Later calls work
///   again as soon as the place does.
pub trait Backend: Send {
    /// All records in key order. Called once, before anything else; creates the place if there is none.
    ///
    /// # Errors
    /// When the place cannot be read, or is held by another process.
    fn load(&mut self) -> Result<Records, BackendError>;

    /// Stores one batch.
    ///
    /// # Errors
    /// When the place refuses.
    fn apply(&mut self, writes: &[Write], flush: Flush) -> Result<(), BackendError>;

    /// Puts a copy of everything aside, before a migration; `label` becomes part of its name.
    ///
    /// # Errors
    /// When the copy cannot be made whole.
    fn preserve(&mut self, label: &str) -> Result<(), BackendError>;
}

/// What the place where the bytes are kept said.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BackendError {
    /// No space left.
    #[error("the disk that holds the store is full: free some space and it goes on by itself")]
    DiskFull {
        /// The error of the system.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// A read or write failed.
    #[error("the store could not be read or written on its disk")]
    Io {
        /// The error underneath.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The bytes are not what was written.
    #[error("the store is damaged: {detail}")]
    Damaged {
        /// What was found, and where.
        detail: String,
    },
    /// Another process holds the place.
    #[error("the store {place} is in use by another process")]
    InUse {
        /// Its path.
        place: String,
    },
}

impl BackendError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::DiskFull { .. } | Self::Io { .. } | Self::InUse { .. } => Retry::Transient,
            Self::Damaged { .. } => Retry::Terminal,
        }
    }
}

impl From<std::io::Error> for BackendError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull { source: Arc::new(error) },
            _ => Self::Io { source: Arc::new(error) },
        }
    }
}
