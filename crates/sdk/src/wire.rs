//! Owns what is said over the app face, word for word. The operator's own types are not imported: a test of the workspace compares these
//! with what it really says.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How available something is; larger is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
}

impl fmt::Display for Availability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Whether a service may be used, as the operator answers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// Where the service is.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// Whether it may be used.
    pub usable: bool,
    /// How available it is; nothing for one that is switched off.
    pub availability: Option<Availability>,
    /// The availability as a number; 0 for one that is switched off.
    pub severity: u8,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// It is what was known last, and may not hold any more.
    pub stale: bool,
    /// Who is to blame, where that is somebody else.
    pub blocked_by: Vec<Culprit>,
    /// What cannot be done with it now although it may be used.
    #[serde(default)]
    pub blocked_operations: Vec<String>,
    /// After how many seconds asking again makes sense; nothing where only a change can help.
    pub retry_after: Option<u64>,
    /// The version of the picture that it was taken from.
    pub version: String,
}

impl Answer {
    /// Somebody changes it: that it is not usable ends with the change.
    pub(crate) fn is_changing(&self) -> bool {
        !self.usable && self.reason == "Changing"
    }
}

/// Who keeps a service from being usable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Culprit {
    /// Its kind.
    pub kind: String,
    /// Where it is.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// How available it is.
    pub availability: Availability,
    /// Why.
    pub reason: String,
    /// The way to it along the dependencies; it stands last.
    pub path: Vec<String>,
}

/// What an app is to reload for a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reload {
    /// Names it; acknowledged with this.
    pub id: String,
    /// `Signal`, `Restart` or `Rebuild`, as the edge says.
    pub verb: String,
    /// What happened.
    #[serde(default)]
    pub because: Vec<String>,
}

/// What an app says of a part of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Beat<'a> {
    pub(crate) availability: Availability,
    pub(crate) reason: &'a str,
    pub(crate) blocked_operations: &'a [String],
    pub(crate) ack: Option<&'a str>,
}

/// What the operator answers to it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Beaten {
    /// How soon the next one is wanted, in milliseconds with their unit.
    pub(crate) heartbeat: String,
    pub(crate) reload: Option<Reload>,
}

/// How a service is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Shared: somebody uses the service, and it is not changed meanwhile.
    Use,
    /// Exclusive: somebody changes the service, and nobody uses it meanwhile.
    Change,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AskLock<'a> {
    pub(crate) mode: LockMode,
    pub(crate) holder: &'a str,
    pub(crate) wait_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) term_ms: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HeldLock<'a> {
    pub(crate) holder: &'a str,
    pub(crate) token: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<LockMode>,
}

/// The answer to taking and to renewing a lock.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GrantedLock {
    pub(crate) token: u64,
    pub(crate) term_ms: u64,
    /// Somebody waits to change it.
    #[serde(default)]
    pub(crate) change_waits: bool,
}

/// A refusal, as the operator words it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) details: Details,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Details {
    pub(crate) retry_after_seconds: Option<u64>,
}
