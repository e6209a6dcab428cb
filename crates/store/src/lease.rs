//! Owns [`Leases`]: names that one holder at a time may hold, and the fencing tokens that make a stale holder harmless.
//!
//! A lease is decided by the store's one writer, in order with all transactions, so that [`Tx::fence`](crate::Tx::fence) cannot miss a
//! change of hands. Terms run on the caller's monotonic clock; nothing here reads one.

use std::time::Duration;

use qm_api::name::Name;

use crate::error::{Retry, StoreError};
use crate::record::LeaseRecord;
use crate::store::Store;
use crate::writer::State;

/// Milliseconds on the caller's monotonic clock. They mean nothing to another process, nor after a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct MonoMillis(pub u64);

impl MonoMillis {
    fn plus(self, term_ms: u64) -> Self {
        Self(self.0.saturating_add(term_ms))
    }
}

/// A lease in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which one.
    pub name: Name,
    /// Greater than every token given out before it, for any lease, also over restarts.
    pub token: u64,
}

/// A lease on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// Which one.
    pub name: &'a Name,
    /// Who holds it.
    pub holder: &'a Name,
    /// Its token.
    pub token: u64,
    /// Its term.
    pub term: Duration,
}

impl<'a> Known<'a> {
    pub(crate) fn of(name: &'a Name, record: &'a LeaseRecord) -> Self {
        Self { name, holder: &record.holder, token: record.token, term: Duration::from_millis(record.term_ms) }
    }
}

/// Somebody holds the lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("lease {name} is held by {holder} for another {} ms", remaining.as_millis())]
pub struct Held {
    /// Which one.
    pub name: Name,
    /// Who holds it.
    pub holder: Name,
    /// How long yet, unless it is renewed or released.
    pub remaining: Duration,
}

/// Why a lease was not granted, renewed or released.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody holds it.
    #[error(transparent)]
    Held(Held),
    /// The token is not the current one: it was released, or another has it now.
    #[error("lease {name} is no longer held with token {token}")]
    Lost {
        /// Which one.
        name: Name,
        /// The token the caller had.
        token: u64,
        /// The current one, if somebody holds it.
        current: Option<u64>,
    },
    /// The change could not be made durable, so it did not happen.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LeaseError {
    /// Whether trying again can help.
    pub fn retry(&self) -> Retry {
        match self {
            Self::Held(_) => Retry::Transient,
            Self::Lost { .. } => Retry::Terminal,
            Self::Store(error) => error.retry(),
        }
    }
}

/// A lease as the running process knows it.
#[derive(Clone, Debug)]
pub(crate) struct LeaseState {
    pub(crate) record: LeaseRecord,
    /// When the term ends; `None` after a restart, until the first request brings a clock.
    pub(crate) until: Option<MonoMillis>,
}

#[derive(Clone, Debug)]
pub(crate) enum LeaseRequest {
    Acquire { holder: Name, term_ms: u64, now: MonoMillis },
    Renew { token: u64, term_ms: u64, now: MonoMillis },
    Release { token: u64 },
}

/// Whether the lease's record on disk must change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    Changed,
    AsBefore,
}

/// The leases of one store.
#[derive(Clone, Debug)]
pub struct Leases {
    store: Store,
}

impl Leases {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Takes the lease if nobody holds it, or if the holder's term has passed. The same holder does not take it twice: renew it.
    ///
    /// # Errors
    /// [`LeaseError::Held`] while it is held.
    ///
    /// # Guarantees
    /// The token is on disk before the answer. After a restart, a lease that was held is held for one full term from the first time
    /// anyone asks for it.
    pub async fn acquire(&self, name: &Name, holder: &Name, term: Duration, now: MonoMillis) -> Result<Lease, LeaseError> {
        self.store.lease(name, LeaseRequest::Acquire { holder: holder.clone(), term_ms: millis(term), now }).await
    }

    /// Begins a new term now, if the token is still the current one. That nobody asked for the lease when its term passed is enough.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when it is not.
    pub async fn renew(&self, lease: &Lease, term: Duration, now: MonoMillis) -> Result<(), LeaseError> {
        self.store.lease(&lease.name, LeaseRequest::Renew { token: lease.token, term_ms: millis(term), now }).await.map(drop)
    }

    /// Gives the lease back.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when the token is not the current one.
    pub async fn release(&self, lease: &Lease) -> Result<(), LeaseError> {
        self.store.lease(&lease.name, LeaseRequest::Release { token: lease.token }).await.map(drop)
    }
}

fn millis(term: Duration) -> u64 {
    u64::try_from(term.as_millis()).unwrap_or(u64::MAX)
}

/// Decides one request on `state`. After an error nothing needs to be written.
pub(crate) fn run(name: &Name, request: LeaseRequest, state: &mut State) -> (Result<Lease, LeaseError>, Recorded) {
    match request {
        LeaseRequest::Acquire { holder, term_ms, now } => acquire(name, holder, term_ms, now, state),
        LeaseRequest::Renew { token, term_ms, now } => with_current(name, token, state, |state, mut lease| {
            let recorded = if lease.record.term_ms == term_ms { Recorded::AsBefore } else { Recorded::Changed };
            lease.record.term_ms = term_ms;
            lease.until = Some(now.plus(term_ms));
            state.leases.insert(name.clone(), lease);
            recorded
        }),
        LeaseRequest::Release { token } => with_current(name, token, state, |state, _| {
            state.leases.remove(name);
            Recorded::Changed
        }),
    }
}

fn acquire(name: &Name, holder: Name, term_ms: u64, now: MonoMillis, state: &mut State) -> (Result<Lease, LeaseError>, Recorded) {
    if let Some(held) = state.leases.get_mut(name) {
        let until = *held.until.get_or_insert(now.plus(held.record.term_ms));
        if now < until {
            let remaining = Duration::from_millis(until.0 - now.0);
            let held = Held { name: name.clone(), holder: held.record.holder.clone(), remaining };
            return (Err(LeaseError::Held(held)), Recorded::AsBefore);
        }
    }
    state.fence += 1;
    let token = state.fence;
    let lease = LeaseState { record: LeaseRecord { holder, token, term_ms }, until: Some(now.plus(term_ms)) };
    state.leases.insert(name.clone(), lease);
    (Ok(Lease { name: name.clone(), token }), Recorded::Changed)
}

fn with_current(
    name: &Name,
    token: u64,
    state: &mut State,
    change: impl FnOnce(&mut State, LeaseState) -> Recorded,
) -> (Result<Lease, LeaseError>, Recorded) {
    match state.leases.get(name).cloned() {
        Some(lease) if lease.record.token == token => {
            let recorded = change(state, lease);
            (Ok(Lease { name: name.clone(), token }), recorded)
        }
        other => {
            let current = other.map(|lease| lease.record.token);
            (Err(LeaseError::Lost { name: name.clone(), token, current }), Recorded::AsBefore)
        }
    }
}
