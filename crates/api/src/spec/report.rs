//! Owns what several kinds report alike: who keeps a node from being available, and who depends on it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::availability::Availability;
use crate::conditions::Reason;

/// One node that keeps another from being available.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockedBy {
    /// Its kind.
    pub kind: NameText,
    /// Its namespace.
    pub namespace: NameText,
    /// Its name.
    pub name: NameText,
    /// Its own availability.
    pub availability: Availability,
    /// Why it is so.
    pub reason: Reason,
    /// The names on the way to it, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<NameText>,
}

/// A name in a status.
pub type NameText = String;

/// Who depends on a service: a count, and at most 50 names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dependents {
    /// How many.
    pub count: u32,
    /// The first 50 as `namespace/name`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameText>,
}
