//! Owns the requests about one lease, and until when it is surely held: counted from before the question, on a clock that does not jump.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::link::{Error, Link};
use crate::wire::{AskLock, GrantedLock, HeldLock, LockMode};

/// What was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) token: u64,
    pub(crate) term: Duration,
    /// Until then it is surely held.
    pub(crate) ends: Instant,
    /// Somebody waits to change it.
    pub(crate) change_waits: bool,
}

impl Granted {
    /// When it is to be renewed.
    pub(crate) fn renew_at(&self) -> Instant {
        self.ends - self.term + self.term / 3
    }
}

/// The lease of one service for one holder, held or not.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    link: Link,
    path: String,
    mode: LockMode,
    holder: String,
}

impl Lease {
    pub(crate) fn new(link: Link, service: &str, mode: LockMode, holder: String) -> Self {
        let path = link.lock_path(service);
        Self { link, path, mode, holder }
    }

    /// Asks for it; the operator waits for so long before it refuses.
    pub(crate) async fn ask(&self, wait: Duration, term: Option<Duration>) -> Result<Granted, Error> {
        let asked = Instant::now();
        let ask = AskLock { mode: self.mode, holder: &self.holder, wait_ms: millis(wait), term_ms: term.map(millis) };
        let granted = self.granted(asked, self.link.post(&self.path, &ask, wait).await?);
        // It began some time between the question and now; after a long wait only a renewal tells until when it lasts.
        if asked.elapsed() < granted.term / 3 { Ok(granted) } else { self.renew(granted.token).await }
    }

    /// Begins a new term.
    pub(crate) async fn renew(&self, token: u64) -> Result<Granted, Error> {
        let asked = Instant::now();
        let held = HeldLock { holder: &self.holder, token, mode: Some(self.mode) };
        Ok(self.granted(asked, self.link.post(&format!("{}/renew", self.path), &held, Duration::ZERO).await?))
    }

    /// Gives it back.
    pub(crate) async fn release(&self, token: u64) -> Result<(), Error> {
        let held = HeldLock { holder: &self.holder, token, mode: None };
        self.link.post::<Value>(&format!("{}/release", self.path), &held, Duration::ZERO).await.map(drop)
    }

    fn granted(&self, asked: Instant, told: GrantedLock) -> Granted {
        let term = Duration::from_millis(told.term_ms);
        Granted { token: told.token, term, ends: asked + term, change_waits: told.change_waits }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A name for this process that no other has: in containers, process ids and even host names come again.
pub(crate) fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host: String = host.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_')).take(200).collect();
    // The only chance that the standard library gives away.
    let chance = RandomState::new().build_hasher().finish();
    format!("{host}.{}.{chance:x}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_have_names_of_their_own() {
        let (one, two) = (process_name(), process_name());
        assert!(one != two && one.len() <= 253 && !one.contains(char::is_whitespace), "{one} {two}");
    }
}
