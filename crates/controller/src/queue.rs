//! Owns the work queue: one slot a key, one pass of a key in flight, the earliest deadline wins. Why a key was queued is not kept:
//! planning looks at the world, never at reasons.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use qm_api::meta::ObjectKey;
use tokio::sync::Notify;

use crate::clock::Clock;

#[derive(Debug, Default)]
struct Inner {
    due: BTreeMap<ObjectKey, u64>,
    order: BTreeSet<(u64, ObjectKey)>,
    in_flight: BTreeSet<ObjectKey>,
    added: u64,
    closed: bool,
}

/// The queue. Times are monotonic milliseconds.
#[derive(Debug)]
pub struct Queue {
    inner: Mutex<Inner>,
    wake: Notify,
    clock: Clock,
}

impl Queue {
    /// An empty queue.
    pub fn new(clock: Clock) -> Self {
        Self { inner: Mutex::default(), wake: Notify::new(), clock }
    }

    /// Wants a pass of `key` now.
    pub fn add(&self, key: &ObjectKey) {
        self.add_at(key, self.clock.mono_ms());
    }

    /// Wants a pass of `key` at `due_ms`, or earlier if somebody else wants it earlier.
    pub fn add_at(&self, key: &ObjectKey, due_ms: u64) {
        let mut inner = self.lock();
        inner.added += 1;
        match inner.due.get(key).copied() {
            Some(old) if old <= due_ms => return,
            Some(old) => {
                inner.order.remove(&(old, key.clone()));
            }
            None => {}
        }
        inner.due.insert(key.clone(), due_ms);
        inner.order.insert((due_ms, key.clone()));
        drop(inner);
        self.wake.notify_one();
    }

    /// Waits for the next key that is due and not in flight; `None` after [`Queue::close`].
    pub async fn next(&self) -> Option<ObjectKey> {
        loop {
            let wait_until = {
                let mut inner = self.lock();
                if inner.closed {
                    return None;
                }
                let now = self.clock.mono_ms();
                let ready = inner.order.iter().take_while(|(due, _)| *due <= now).find(|(_, key)| !inner.in_flight.contains(key)).cloned();
                if let Some((due, key)) = ready {
                    inner.order.remove(&(due, key.clone()));
                    inner.due.remove(&key);
                    inner.in_flight.insert(key.clone());
                    return Some(key);
                }
                inner.order.iter().map(|(due, _)| *due).find(|due| *due > now)
            };
            match wait_until {
                None => self.wake.notified().await,
                Some(due) => {
                    let sleep = tokio::time::sleep_until(self.clock.instant(due));
                    tokio::select! {
                        biased;
                        () = self.wake.notified() => {}
                        () = sleep => {}
                    }
                }
            }
        }
    }

    /// The pass of `key` is over.
    pub fn done(&self, key: &ObjectKey) {
        self.lock().in_flight.remove(key);
        self.wake.notify_one();
    }

    /// Ends every waiting `next`.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_waiters();
        self.wake.notify_one();
    }

    /// How many keys wait, and how many additions there were.
    pub fn depth(&self) -> (usize, u64) {
        let inner = self.lock();
        (inner.due.len(), inner.added)
    }

    /// Whether nothing is in flight and nothing is due before `horizon_ms`.
    pub fn is_idle(&self, horizon_ms: u64) -> bool {
        let inner = self.lock();
        inner.in_flight.is_empty() && inner.order.first().is_none_or(|(due, _)| *due > horizon_ms)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
