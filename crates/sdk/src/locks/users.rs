//! Owns the `use` of a service by this process: one lease, a count, and a task that lives while it is needed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::lease::Lease;
pub(crate) use super::tally::Denied;
use super::tally::{Act, Tally};
use crate::link::Error;

/// For so long the operator is let wait for a grant; then it is asked anew, if somebody still wants it.
const ONE_WAIT: Duration = Duration::from_secs(5);

/// The users of one service in this process.
#[derive(Debug)]
pub(crate) struct Users {
    lease: Lease,
    tally: Mutex<Tally>,
    /// Tells the task that there may be something to do.
    work: Notify,
    /// Tells who waits that it may have come.
    news: watch::Sender<()>,
}

/// Holds a service for use: it is not changed meanwhile. Dropping it ends that.
#[derive(Debug)]
pub struct UseGuard {
    users: Arc<Users>,
}

impl UseGuard {
    /// Whether the lease is not held any more, or was not held from the beginning since the operator was away. It is taken anew as soon as
    /// that can be; in between somebody may have changed the service.
    pub fn is_lost(&self) -> bool {
        !self.users.with(|tally| tally.is_held(Instant::now()))
    }
}

impl Drop for UseGuard {
    fn drop(&mut self) {
        if self.users.with(|tally| tally.leave(Instant::now())) {
            self.users.work.notify_one();
        }
    }
}

/// Somebody in the line, until it is given up or in.
struct Waiting<'a>(&'a Users);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.with(Tally::end_to_wait);
    }
}

impl Users {
    pub(crate) fn new(lease: Lease) -> Self {
        Self { lease, tally: Mutex::default(), work: Notify::new(), news: watch::Sender::new(()) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Tally) -> T) -> T {
        act(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) async fn enter(self: &Arc<Self>, wait: Duration) -> Result<UseGuard, Denied> {
        if self.with(|tally| tally.enter(Instant::now())) {
            return Ok(UseGuard { users: Arc::clone(self) });
        }
        let deadline = Instant::now() + wait;
        let mut news = self.news.subscribe();
        let _waiting = Waiting(self);
        let is_new = self.with(|tally| {
            tally.begin_to_wait();
            tally.denied = None;
            !std::mem::replace(&mut tally.is_kept, true)
        });
        if is_new {
            tokio::spawn(keep(Arc::clone(self)));
        }
        self.work.notify_one();
        loop {
            if self.with(|tally| tally.enter(Instant::now())) {
                return Ok(UseGuard { users: Arc::clone(self) });
            }
            let denied = self.with(|tally| tally.denied.clone());
            if let Some(denied) = denied.filter(|denied| denied.is_final) {
                return Err(denied);
            }
            if !matches!(timeout_at(deadline, news.changed()).await, Ok(Ok(()))) {
                return Err(self.with(|tally| tally.why_not()));
            }
        }
    }
}

/// Does what is to be done, until nobody needs the lease.
async fn keep(users: Arc<Users>) {
    loop {
        let act = users.with(|tally| tally.next(Instant::now()));
        match act {
            Act::End => return,
            Act::Rest(until) => {
                tokio::select! {
                    () = sleep_until(until) => {}
                    () = users.work.notified() => {}
                }
                continue;
            }
            Act::Ask => {
                let answer = users.lease.ask(ONE_WAIT, None).await;
                users.with(|tally| match answer {
                    Ok(granted) => tally.granted(granted, Instant::now()),
                    Err(error) => settle(tally, error),
                });
            }
            Act::Renew(token) => {
                let answer = users.lease.renew(token).await;
                users.with(|tally| match answer {
                    Ok(granted) => tally.granted(granted, Instant::now()),
                    Err(error) if error.is_passing() => tally.unanswered(Instant::now()),
                    // It was given to somebody else, or the service is no more.
                    Err(_) => tally.gone(),
                });
            }
            Act::Release(token) => {
                // One that cannot be given back ends with its term.
                drop(users.lease.release(token).await);
                users.with(Tally::gone);
            }
        }
        users.news.send_replace(());
    }
}

/// What follows from a question that was not granted.
fn settle(tally: &mut Tally, error: Error) {
    let now = Instant::now();
    let is_busy = error.is_busy();
    match error {
        Error::Away { .. } => tally.unanswered(now),
        Error::Refused { message, retry_after, .. } if is_busy => {
            tally.refused(Denied { reason: "Changing".to_owned(), message, retry_after, is_final: false }, now);
        }
        Error::Refused { reason, message, retry_after, .. } => tally.refused(Denied { reason, message, retry_after, is_final: true }, now),
        other => {
            let (reason, message) = ("LockRefused".to_owned(), other.to_string());
            tally.refused(Denied { reason, message, retry_after: None, is_final: true }, now);
        }
    }
}
