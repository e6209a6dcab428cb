//! Owns what can go wrong in the store, and for each error whether trying again can help.

use qm_api::meta::ObjectKey;
use qm_api::name::Name;

use crate::backend::BackendError;

/// Whether the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retry {
    /// The same request can succeed later, by itself or after someone helped (a full disk).
    Transient,
    /// The request was made from an old view: read again, decide again.
    Conflict,
    /// The request can never succeed.
    Terminal,
}

/// Why a transaction was refused. In every case memory is unchanged: none of its operations can be seen by anyone.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A create found an object of that key.
    #[error("{key} exists already")]
    AlreadyExists {
        /// Which object.
        key: ObjectKey,
    },
    /// The object to change is not there.
    #[error("{key} was not found")]
    NotFound {
        /// Which object.
        key: ObjectKey,
    },
    /// The object changed since the caller read it.
    #[error("{key} has changed: expected version {expected}, it is at {actual}")]
    Conflict {
        /// Which object.
        key: ObjectKey,
        /// The version the caller had read.
        expected: u64,
        /// The version it has now.
        actual: u64,
    },
    /// The object was removed and made anew since the caller read it.
    #[error("{key} is another object now: expected uid {expected}, it is {actual}")]
    Replaced {
        /// Which object.
        key: ObjectKey,
        /// The uid the caller knew.
        expected: Name,
        /// The uid it has now.
        actual: Name,
    },
    /// A put without the version it was made from; the store never overwrites blindly.
    #[error("{key} was put without the version it was read at")]
    Unversioned {
        /// Which object.
        key: ObjectKey,
    },
    /// A key without kind or name, or with a NUL in it.
    #[error("`{key}` cannot be the key of an object: kind and name must be given, without NUL")]
    InvalidKey {
        /// The key as given.
        key: ObjectKey,
    },
    /// The lease was lost, so the actor behind the transaction may no longer write.
    #[error("lease {lease} is no longer held with token {token}")]
    Fenced {
        /// Which lease.
        lease: Name,
        /// The token the caller had.
        token: u64,
        /// The token that is current; `None` when nobody holds the lease.
        current: Option<u64>,
    },
    /// The place where the store keeps its bytes refused.
    ///
    /// # Caveats
    /// Whether the bytes reached the disk is then unknown. The store undoes them there at once, or before it accepts anything else; only
    /// a process that dies before that was possible may find the transaction done when it starts again.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::AlreadyExists { .. } | Self::NotFound { .. } | Self::Conflict { .. } | Self::Replaced { .. } => Retry::Conflict,
            Self::Unversioned { .. } | Self::InvalidKey { .. } | Self::Fenced { .. } | Self::Closed => Retry::Terminal,
            Self::Backend(error) => error.retry(),
        }
    }
}

/// Why a store could not be opened. Nothing is emptied or overwritten in any of these cases.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The store was written by a newer release.
    #[error("the store has format {found}, and this release knows formats up to {known}: start the newer release, or restore a backup")]
    Newer {
        /// The format found.
        found: u64,
        /// The newest format this release reads.
        known: u64,
    },
    /// The store cannot be read.
    #[error(
        "the store is damaged: {detail}. It was left as it is: move it away, then restore a backup with `quaymaster restore`, or start \
         without one and let the manifests fill a new store"
    )]
    Damaged {
        /// What was found.
        detail: String,
    },
    /// Another process has the store open.
    #[error("the store {place} is in use by another process")]
    InUse {
        /// The path of the store.
        place: String,
    },
    /// The place where the store keeps its bytes refused.
    #[error(transparent)]
    Backend(BackendError),
    /// The writer thread could not be started.
    #[error("the thread of the store could not be started")]
    Thread(#[source] std::sync::Arc<std::io::Error>),
}

impl OpenError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Newer { .. } | Self::Damaged { .. } => Retry::Terminal,
            Self::InUse { .. } | Self::Thread(_) => Retry::Transient,
            Self::Backend(error) => error.retry(),
        }
    }
}

impl From<BackendError> for OpenError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Damaged { detail } => Self::Damaged { detail },
            BackendError::InUse { place } => Self::InUse { place },
            other => Self::Backend(other),
        }
    }
}
