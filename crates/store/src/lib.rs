//! The mini store: every durable object of Quaymaster, in memory to read and on one disk to survive.
//!
//! Owns the order of all changes ([`Tx`]), immutable views ([`Snapshot`]), the change log ([`Watch`]), leases with fencing tokens
//! ([`Leases`]), the format on disk and its migration, and backups. It must never name a kind, read a wall clock, or change a store that
//! it cannot read. Start at [`Store`]; the rules of one transaction are in `tx`, the one writer is in `writer`, and what a place to
//! keep bytes must promise is said at [`Backend`].

pub mod backend;
mod backup;
mod error;
mod lease;
mod migrate;
mod record;
mod snapshot;
mod store;
mod tx;
mod watch;
mod writer;

pub use backend::{Backend, BackendError, Flush, Records, Write};
pub use backup::{BACKUP_FORMAT, Backup, RestoreError, restore};
pub use error::{OpenError, Retry, StoreError};
pub use lease::{Held, Known, Lease, LeaseError, Leases, MonoMillis};
pub use record::FORMAT_VERSION;
pub use snapshot::Snapshot;
pub use store::{CommitMode, Options, Store};
pub use tx::{Committed, Durability, Outcome, Precondition, Tx};
pub use watch::{Batch, Change, ChangeKind, Expired, Watch};
