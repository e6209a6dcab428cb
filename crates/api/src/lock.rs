//! Owns the words of locks: the two modes, and what a status says of them. What may be granted when is `plan`'s.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// How a service is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Shared: somebody uses the service, and it is not changed meanwhile.
    Use,
    /// Exclusive: somebody changes the service, and nobody uses it meanwhile.
    Change,
}

impl LockMode {
    /// The word for it in URLs, labels and texts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Use => "use",
            Self::Change => "change",
        }
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// The lock of a service, while there is one. Who exactly uses it is not kept here: ask for the lock itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LockStatus {
    /// `change` while somebody changes it, `use` while it is only used.
    pub mode: LockMode,
    /// Who changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Since when it is changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Who waits to change it; the first of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}
