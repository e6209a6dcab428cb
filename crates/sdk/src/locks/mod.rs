//! Owns the locks of an app: [`LockGuard`] for a `change`; the `use` of a process is in `users.rs`.

pub(crate) mod lease;
pub(crate) mod tally;
pub(crate) mod users;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use crate::link::{Error, Link};
use crate::wire::LockMode;
use lease::{Granted, Lease};

/// The longest that the operator waits in one request; the line is joined anew with the next one.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// When an operator that does not answer is asked again.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// Tells the guards of one process apart.
static COUNT: AtomicU64 = AtomicU64::new(0);

/// How a `change` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AskChange {
    wait: Duration,
    term: Option<Duration>,
    holder: Option<String>,
}

impl AskChange {
    /// Waits so long for it.
    pub fn within(wait: Duration) -> Self {
        Self { wait, term: None, holder: None }
    }

    /// Its term, where that is not the operator's 15 s: at most five minutes. It is renewed at a third of it.
    #[must_use]
    pub fn term(mut self, term: Duration) -> Self {
        self.term = Some(term);
        self
    }

    /// What others are told of who holds it.
    #[must_use]
    pub fn holder(mut self, holder: impl Into<String>) -> Self {
        self.holder = Some(holder.into());
        self
    }
}

/// The lock is not held any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lock is lost: {0}")]
pub struct Lost(String);

/// How it stands with a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Held { ends: Instant },
    Lost(Lost),
}

/// The change of a service: nobody else uses or changes it. It is renewed in the background, and given back when this is dropped; with
/// [`LockGuard::release`] one knows that it was.
///
/// # Caveats
/// A process that is paused for longer than the term does not know that it has lost it. Give the [token](LockGuard::token) along with
/// every write, and let the resource refuse one that is lower than the highest it has seen.
#[derive(Debug)]
pub struct LockGuard {
    token: u64,
    state: watch::Receiver<State>,
    release: Option<oneshot::Sender<oneshot::Sender<Result<(), Error>>>>,
}

impl LockGuard {
    pub(crate) async fn acquire(link: Link, service: &str, process: &str, ask: AskChange) -> Result<Self, Error> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let holder = ask.holder.clone().unwrap_or_else(|| format!("{process}.{count}"));
        let lease = Lease::new(link, service, LockMode::Change, holder);
        let granted = acquire(&lease, &ask).await?;
        let (telling, state) = watch::channel(State::Held { ends: granted.ends });
        let (release, released) = oneshot::channel();
        tokio::spawn(keep(lease, granted, telling, released));
        Ok(Self { token: granted.token, state, release: Some(release) })
    }

    /// The fencing token: higher than that of every change of this service before.
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Whether it is not held any more. Right also in a process that was paused: it asks the clock.
    pub fn is_lost(&self) -> bool {
        match &*self.state.borrow() {
            State::Held { ends } => Instant::now() >= *ends,
            State::Lost(_) => true,
        }
    }

    /// Waits until it is not held any more; what it protects must be left alone from then on.
    pub async fn lost(&self) -> Lost {
        let mut state = self.state.clone();
        let found = state.wait_for(|state| matches!(state, State::Lost(_))).await.map(|state| state.clone());
        match found {
            Ok(State::Lost(lost)) => lost,
            Ok(State::Held { .. }) | Err(_) => Lost("nobody renews it any more".to_owned()),
        }
    }

    /// Gives it back: the end is durable when this returns.
    ///
    /// # Errors
    /// When it was lost, or the operator does not take it; then it ends with its term.
    pub async fn release(mut self) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let gone = || Error::Refused { code: 409, reason: "Stale".to_owned(), message: "the lock was lost".to_owned(), retry_after: None };
        let Some(release) = self.release.take() else { return Err(gone()) };
        if release.send(done).is_err() {
            return Err(gone());
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn acquire(lease: &Lease, ask: &AskChange) -> Result<Granted, Error> {
    let deadline = Instant::now() + ask.wait;
    loop {
        let wait = deadline.saturating_duration_since(Instant::now()).min(LONGEST_WAIT);
        let error = match lease.ask(wait, ask.term).await {
            Ok(granted) => return Ok(granted),
            Err(error) => error,
        };
        if Instant::now() >= deadline || !(error.is_passing() || error.is_busy()) {
            return Err(error);
        }
        if error.is_passing() && timeout_at(deadline, sleep(TRY_AGAIN)).await.is_err() {
            return Err(error);
        }
    }
}

/// Renews it until it is given back, or lost.
async fn keep(
    lease: Lease,
    granted: Granted,
    telling: watch::Sender<State>,
    mut release: oneshot::Receiver<oneshot::Sender<Result<(), Error>>>,
) {
    let (token, mut ends, mut next) = (granted.token, granted.ends, granted.renew_at());
    let lost = loop {
        tokio::select! {
            biased;
            // The guard was dropped, or wants to know how it went.
            asked = &mut release => {
                let released = lease.release(token).await;
                if let Ok(done) = asked {
                    // Whoever asked may be gone.
                    drop(done.send(released));
                }
                return;
            }
            () = sleep_until(next.min(ends)) => {}
        }
        if Instant::now() >= ends {
            break "it could not be renewed within its term".to_owned();
        }
        match timeout_at(ends, lease.renew(token)).await {
            Ok(Ok(renewed)) => {
                (ends, next) = (renewed.ends, renewed.renew_at());
                telling.send_replace(State::Held { ends });
            }
            Ok(Err(error)) if error.is_passing() => next = Instant::now() + TRY_AGAIN,
            Ok(Err(error)) => break error.to_string(),
            Err(_) => next = ends,
        }
    };
    telling.send_replace(State::Lost(Lost(lost)));
}
