//! Owns the one ordered scale of availability (DESIGN 3.1): the value is the severity, `max` is the worst.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How available something is; larger is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Availability {
    /// Fully working.
    Available = 1,
    /// Works; some features are not as expected.
    AlmostAvailable = 2,
    /// Works with limits: an optional part, child or dependency is missing.
    PartiallyAvailable = 3,
    /// Transient: starting, maintenance, a lost dependency, a lease near its end.
    TemporarilyUnavailable = 4,
    /// Needs a change: bad configuration, bad credentials, profile not active.
    Unavailable = 5,
    /// A critical node was observed to fail.
    SystemFailure = 6,
}

impl Availability {
    /// 1 (best) to 6 (worst).
    pub const fn severity(self) -> u8 {
        self as u8
    }

    /// Whether it may be used: 3 or better.
    pub const fn is_usable(self) -> bool {
        self.severity() <= 3
    }
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
