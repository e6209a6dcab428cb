//! Owns the clocks and the source of ids, injected so that a simulation can drive them.

use std::fmt;
use std::sync::Arc;

use qm_api::name::Name;
use qm_api::time::Timestamp;
use qm_plan::availability::Now;

/// The two clocks and fresh uids.
#[derive(Clone)]
pub struct Clock {
    wall: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    uid: Arc<dyn Fn() -> Name + Send + Sync>,
    started: tokio::time::Instant,
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

impl Clock {
    /// A clock from its parts; monotonic time counts from this call.
    pub fn new(wall: Arc<dyn Fn() -> Timestamp + Send + Sync>, uid: Arc<dyn Fn() -> Name + Send + Sync>) -> Self {
        Self { wall, uid, started: tokio::time::Instant::now() }
    }

    /// The wall clock.
    pub fn wall(&self) -> Timestamp {
        (self.wall)()
    }

    /// Monotonic milliseconds since the process began.
    pub fn mono_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        Now { wall: self.wall(), mono_ms: self.mono_ms() }
    }

    /// A fresh uid.
    pub fn uid(&self) -> Name {
        (self.uid)()
    }

    /// The instant at which monotonic time reads `mono_ms`.
    pub fn instant(&self, mono_ms: u64) -> tokio::time::Instant {
        self.started + std::time::Duration::from_millis(mono_ms)
    }
}
